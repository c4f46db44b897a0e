"""What organisations send each other before they are connected: a party's request, the coordinator's bundle.

Both are canonical JSON (RFC 8785) signed with the sender's identity key. A signature proves only that the
file is whole: whose key it is, two people compare over the phone. Neither file holds a secret.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, TypeVar

import rfc8785
from pydantic import Field, ValidationError

from fedmkt.config.settings import Host, Port
from fedmkt.contract.words import Key, Name, Terms, Text, Time
from fedmkt.crypto.certificates import (
    check_node_signature,
    node_key_pem,
    requested_key,
    sign_with_node_key,
)
from fedmkt.crypto.sign import Identity, fingerprint, verify
from fedmkt.errors import ConfigError, PeerError, PolicyRefused
from fedmkt.mistakes import config_error

LARGEST_PAPER = 32 << 10
REQUEST_DAYS = 7
CLOCK_SLACK = timedelta(minutes=5)

Pem = Annotated[
    str,
    Field(
        max_length=8192,
        pattern=r"\A-----BEGIN [A-Z ]{1,40}-----\n[A-Za-z0-9+/=\n]+-----END [A-Z ]{1,40}-----\n\z",
    ),
]
NodeText = Annotated[str, Field(max_length=400, pattern=r"\Aecdsa-sha2-nistp384 [A-Za-z0-9+/=]+\z")]
Signature = Annotated[str, Field(pattern=r"\A[0-9a-f]{128}\z")]
Proof = Annotated[str, Field(pattern=r"\A[0-9a-f]{2,256}\z")]
Version = Annotated[str, Field(pattern=r"\A[0-9A-Za-z.+-]{1,40}\z")]
Digest = Annotated[str, Field(pattern=r"\A([0-9a-f]{64})?\z")]
Serial = Annotated[str, Field(pattern=r"\A[0-9a-f]{40}\z")]


class Request(Terms):
    """A party's wish to be admitted, with the public halves of its keys.

    identity : signs this request. node : Flower's node key. csr : for the TLS certificate.
    """

    kind: Literal["fedmkt request"] = "fedmkt request"
    version: Literal[1] = 1
    name: Name
    organisation: Text
    identity: Key
    node: NodeText
    csr: Pem
    fedmkt: Version
    created: Time
    node_proof: Proof
    signature: Signature


class Versions(Terms):
    """What a side runs: the release of fedmkt, the version of its messages, the release of Flower."""

    fedmkt: Version
    protocol: Annotated[int, Field(strict=True, ge=1, le=65535)]
    flwr: Version


class Coordinator(Terms):
    """How a party finds the coordinator and knows it; kept as keys/coordinator.json.

    bundle : digest of the app that runs may start, empty if the coordinator did not say one.
    """

    name: Name
    organisation: Text
    identity: Key
    host: Host
    front_port: Port
    hub_port: Port
    bundle: Digest = ""
    versions: Versions
    created: Time


class Bundle(Terms):
    """The coordinator's answer to a request: the certificate, and all that is needed to dial."""

    kind: Literal["fedmkt bundle"] = "fedmkt bundle"
    version: Literal[1] = 1
    party: Name
    identity: Key
    node: NodeText
    certificate: Pem
    authority: Pem
    coordinator: Coordinator
    signature: Signature


Paper = Request | Bundle
T = TypeVar("T", bound=Terms)


def sign_request(
    identity: Identity,
    node_key: bytes,
    *,
    name: str,
    organisation: str,
    node: str,
    csr: bytes,
    fedmkt: str,
    now: datetime,
) -> Request:
    """Write a party's request; the node key proves itself too, so that nobody can bring another's."""
    request = Request(
        name=name,
        organisation=organisation,
        identity=identity.public.hex(),
        node=node,
        csr=csr.decode(),
        fedmkt=fedmkt,
        created=now.astimezone(UTC).replace(microsecond=0),
        node_proof="00",
        signature="00" * 64,
    )
    proof = sign_with_node_key(node_key, _body(request, "node_proof", "signature"))
    proved = request.model_copy(update={"node_proof": proof.hex()})
    return proved.model_copy(update={"signature": identity.sign(_body(proved, "signature")).hex()})


def sign_bundle(
    identity: Identity, request: Request, certificate: bytes, authority: bytes, coordinator: Coordinator
) -> Bundle:
    """Write the answer to a request."""
    bundle = Bundle(
        party=request.name,
        identity=request.identity,
        node=request.node,
        certificate=certificate.decode(),
        authority=authority.decode(),
        coordinator=coordinator,
        signature="00" * 64,
    )
    return bundle.model_copy(update={"signature": identity.sign(_body(bundle, "signature")).hex()})


def read_request(data: bytes, path: str) -> Request:
    """Read a request and check every proof in it; `path` only says where a mistake is."""
    request = _parse(Request, data, path)
    with _proofs_of(path):
        verify(bytes.fromhex(request.identity), bytes.fromhex(request.signature), _body(request, "signature"))
        body = _body(request, "node_proof", "signature")
        check_node_signature(request.node, bytes.fromhex(request.node_proof), body)
        requested_key(request.csr.encode(), request.name)
    return request


def read_bundle(data: bytes, path: str) -> Bundle:
    """Read a bundle that is whole and signed by the coordinator that it names."""
    bundle = _parse(Bundle, data, path)
    with _proofs_of(path):
        signer = bytes.fromhex(bundle.coordinator.identity)
        verify(signer, bytes.fromhex(bundle.signature), _body(bundle, "signature"))
        node_key_pem(bundle.node)
    return bundle


def check_fresh(request: Request, now: datetime) -> None:
    """Refuse a request that lay about too long, or comes from the future."""
    if request.created > now + CLOCK_SLACK:
        raise PolicyRefused(
            f"the request of {request.name} is from {zulu(request.created)}, later than now",
            "compare the clocks of both machines",
        )
    if now - request.created > timedelta(days=REQUEST_DAYS):
        raise PolicyRefused(
            f"the request of {request.name} is older than {REQUEST_DAYS} days",
            f"the party runs `fedmkt party init {request.name}` again and sends the new one",
        )


def check_compared(compared: str, identity: str, whose: str) -> None:
    """Refuse unless the fingerprint that a person compared is that of `identity` (hexadecimal)."""
    said = re.sub(r"[\s:.-]", "", compared).casefold()
    found = fingerprint(bytes.fromhex(identity))
    if not hmac.compare_digest(said.encode(), found.replace(" ", "").encode()):
        raise PolicyRefused(
            f"the fingerprint is not that of {whose}: the file shows {found}",
            "somebody may have swapped the file: ask for it again over another way, and compare again",
        )


def canonical(paper: Terms, *without: str) -> bytes:
    """Encode as canonical JSON (RFC 8785), without the fields that are named."""
    return rfc8785.dumps(_plain(paper, set(without)))  # type: ignore[arg-type]  # JSON values once times are text


def encode(paper: Terms) -> bytes:
    """Encode as the file that is sent: canonical JSON and a line break."""
    return canonical(paper) + b"\n"


def digest(request: Request) -> str:
    """Name a request by its content (SHA-256, hexadecimal)."""
    return hashlib.sha256(canonical(request)).hexdigest()


def zulu(moment: datetime) -> str:
    """Write a time as in all files: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _body(paper: Paper, *without: str) -> bytes:
    purpose = f"{paper.kind} v{paper.version} {' '.join(without)}\n"
    return purpose.encode() + canonical(paper, *without)


def _plain(paper: Terms, without: set[str]) -> dict[str, object]:
    values = paper.model_dump(mode="python", exclude=without, exclude_none=True)
    return {key: _json_value(value) for key, value in values.items()}


def _json_value(value: object) -> object:
    if isinstance(value, datetime):
        return zulu(value)
    if isinstance(value, Mapping):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    return value


def parse_json(model: type[T], data: bytes, path: str) -> T:
    """Read JSON into a model; ConfigError in one line for anything else."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise ConfigError(f"{path}: not JSON") from None
        raise config_error(path, model, error) from None


def _parse(model: type[T], data: bytes, path: str) -> T:
    if len(data) > LARGEST_PAPER:
        raise ConfigError(f"{path}: longer than {LARGEST_PAPER:,} bytes")
    paper = parse_json(model, data, path)
    if canonical(paper) != data.removesuffix(b"\n"):  # two texts of one meaning would be two digests
        raise PeerError(f"{path}: not written as fedmkt writes it", "ask for the file again")
    return paper


@contextmanager
def _proofs_of(path: str) -> Iterator[None]:
    """Say of a proof that fails in which file it stands."""
    try:
        yield
    except ValueError as error:
        raise PeerError(f"{path}: {error}", "ask for the file again") from None
