"""Make a party's keys, ask to be admitted, and take the coordinator's answer into use.

No key is ever overwritten: `init` completes what is missing, so it may be repeated after a crash. A rotation
prepares its keys beside the old ones, which stay in use until the coordinator's answer is there.
"""

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from fedmkt import __version__
from fedmkt.config.files import parse_party
from fedmkt.config.settings import PartyConfig
from fedmkt.contract.words import Name
from fedmkt.crypto import certificates
from fedmkt.crypto.prg import Random
from fedmkt.crypto.seal import PROTOCOL_VERSION
from fedmkt.crypto.sign import Identity, fingerprint
from fedmkt.deploy.folders import (
    LOCK,
    PartyFolder,
    contents_of,
    keep_or_write,
    load_party_config,
    locked,
    make_private,
    read_file,
    read_identity,
    read_secret,
)
from fedmkt.deploy.papers import (
    CLOCK_SLACK,
    Bundle,
    Coordinator,
    Versions,
    check_compared,
    encode,
    parse_json,
    sign_request,
    zulu,
)
from fedmkt.deploy.pins import add_pin
from fedmkt.deploy.registry import is_same_organisation
from fedmkt.deploy.templates import Role, party_toml, policy_toml, schema_toml
from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.party.journal import write_atomically

Public = TypeVar("Public", str, bytes)


@dataclass(frozen=True)
class Initialised:
    """What `init` left: the fingerprint to read over the phone, the file to send, the files it made."""

    name: str
    organisation: str
    fingerprint: str
    request: Path
    made: tuple[str, ...]


@dataclass(frozen=True)
class Joined:
    """What a party took into use; `is_pinned` tells whether party.toml names the coordinator's key."""

    name: str
    coordinator: str
    fingerprint: str
    address: str
    expires: datetime
    is_pinned: bool


def our_versions() -> Versions:
    """Return what this machine runs; both ends compare it before a run."""
    flwr = importlib.metadata.version("flwr")
    return Versions(fedmkt=__version__, protocol=PROTOCOL_VERSION, flwr=flwr)


def check_name(name: str) -> None:
    """ConfigError unless `name` can stand in a contract: it also names files and certificates."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        accepted = "a small letter, then up to 30 small letters, digits and hyphens"
        raise ConfigError(f"name = {name[:80]!r}: accepted: {accepted}") from None


def init_party(
    folder: PartyFolder, name: str, organisation: str | None, role: Role, random: Random, now: datetime
) -> Initialised:
    """Make a party's keys, the files to fill in, and a signed request; what exists stays as it is.

    organisation : may be left out when party.toml says it.
    """
    check_name(name)
    organisation = _who(folder, name, organisation)
    if folder.next_keys.exists():
        hint = f"fedmkt party init {name} --rotate writes its request again; join the bundle to end it"
        raise ConfigError(f"{folder.next_keys}: a rotation is under way", hint)
    make_private(folder.keys)
    with locked(folder.root / LOCK):
        made = [*_templates(folder, name, organisation, role), *_party_keys(folder, random)]
    identity = read_identity(folder.identity)
    own = fingerprint(identity.public)
    add_pin(folder, name, identity.public.hex(), own)  # our own key: there is nobody to compare it with
    request = _write_request(folder, identity, name, organisation, folder.node_key, folder.tls_key, now)
    return Initialised(name, organisation, own, request, tuple(made))


def rotate_party(folder: PartyFolder, name: str, random: Random, now: datetime) -> Initialised:
    """Make new node and TLS keys beside those in use, and a request for them under the same identity.

    Repeated before the answer came, it writes the request again and keeps the new keys.
    """
    check_name(name)
    organisation = _who(folder, name, None)
    identity = read_identity(folder.identity)
    with locked(folder.root / LOCK):
        make_private(folder.next_keys)
        made = _make_missing(
            folder,
            {
                folder.next_node_key: lambda: certificates.generate_node_key(random).private,
                folder.next_tls_key: lambda: certificates.generate_tls_key(random),
            },
        )
    keys = folder.next_node_key, folder.next_tls_key
    request = _write_request(folder, identity, name, organisation, *keys, now)
    return Initialised(name, organisation, fingerprint(identity.public), request, tuple(made))


def _who(folder: PartyFolder, name: str, organisation: str | None) -> str:
    if not folder.config.exists():
        if organisation is None:
            raise ConfigError(f"{folder.config}: no such file", "give --organisation, or --dir")
        parse_party(party_toml(name, organisation), "party.toml")
        return organisation
    config = load_party_config(folder)
    if config.name != name:
        raise ConfigError(f"{folder.config}: is of {config.name}, not of {name}", "give another --dir")
    if organisation is not None and organisation != config.organisation:
        raise ConfigError(f"{folder.config}: organisation is {config.organisation!r}, not {organisation!r}")
    return config.organisation


def _templates(folder: PartyFolder, name: str, organisation: str, role: Role) -> list[str]:
    texts = {
        folder.config: party_toml(name, organisation),
        folder.policy: policy_toml(role),
        folder.schema: schema_toml(role),
    }
    return [path.name for path, text in texts.items() if keep_or_write(path, text.encode())]


def _party_keys(folder: PartyFolder, random: Random) -> list[str]:
    if folder.coordinator.exists() and not folder.identity.exists():
        # A lost identity is a loss to be told: a new one would be another party under the old name.
        raise ConfigError(
            f"{folder.identity}: missing, though this folder was in use",
            "bring it back from your backup, or make a new party in a new folder",
        )
    made = _make_missing(
        folder,
        {
            folder.identity: lambda: Identity.generate(random).secret_bytes(),
            folder.node_key: lambda: certificates.generate_node_key(random).private,
            folder.tls_key: lambda: certificates.generate_tls_key(random),
            folder.superexec_secret: lambda: random(32).hex().encode(),
        },
    )
    _write_public_node_key(folder)
    return made


def _make_missing(folder: PartyFolder, makers: dict[Path, Callable[[], bytes]]) -> list[str]:
    missing = [path for path in makers if not path.exists()]
    return [str(path.relative_to(folder.root)) for path in missing if keep_or_write(path, makers[path]())]


def _write_public_node_key(folder: PartyFolder) -> None:
    with contents_of(folder.node_key):
        public = certificates.public_node_key(read_secret(folder.node_key))
    write_atomically(folder.node_pub, public.encode() + b"\n")


def _write_request(
    folder: PartyFolder,
    identity: Identity,
    name: str,
    organisation: str,
    node_file: Path,
    tls_file: Path,
    now: datetime,
) -> Path:
    node_key, tls_key = read_secret(node_file), read_secret(tls_file)
    with contents_of(node_file):
        node = certificates.public_node_key(node_key)
    with contents_of(tls_file):
        csr = certificates.make_signing_request(name, tls_key)
    request = sign_request(
        identity,
        node_key,
        name=name,
        organisation=organisation,
        node=node,
        csr=csr,
        fedmkt=__version__,
        now=now,
    )
    path = folder.root / f"{name}.request"
    write_atomically(path, encode(request))
    return path


def known_coordinator(folder: PartyFolder, bundle: Bundle) -> bool:
    """Tell whether a person here compared this coordinator's key before: when pinning, or when joining."""
    sender = bundle.coordinator
    if load_party_config(folder).pinned.get(sender.name) == sender.identity:
        return True
    return folder.coordinator.exists() and read_coordinator(folder).identity == sender.identity


def read_coordinator(folder: PartyFolder) -> Coordinator:
    """Read what we know of the coordinator; ConfigError before `join`."""
    if not folder.coordinator.exists():
        raise ConfigError(f"{folder.coordinator}: no such file", "fedmkt party join BUNDLE makes it")
    return parse_json(Coordinator, read_file(folder.coordinator), str(folder.coordinator))


def join(folder: PartyFolder, bundle: Bundle, compared: str, now: datetime) -> Joined:
    """Check a bundle in every respect, then put certificate, authority, addresses and new keys in place.

    compared : the coordinator's fingerprint as a person there read it out. May be repeated after a crash.
    """
    config, sender = load_party_config(folder), bundle.coordinator
    check_compared(compared, sender.identity, sender.name)
    with locked(folder.root / LOCK):
        _check_sender(folder, config, bundle, now)
        _check_ours(folder, config, bundle)
        certificate, authority = bundle.certificate.encode(), bundle.authority.encode()
        try:
            certificates.check_client(certificate, config.name, authority, now)
        except ValueError as error:
            raise PolicyRefused(f"bundle of {sender.name}: {error}") from None
        _install(folder, bundle)
    return Joined(
        name=config.name,
        coordinator=sender.name,
        fingerprint=fingerprint(bytes.fromhex(sender.identity)),
        address=f"{sender.host}:{sender.front_port}",
        expires=certificates.expiry_of(certificate),
        is_pinned=config.pinned.get(sender.name) == sender.identity,
    )


def _check_sender(folder: PartyFolder, config: PartyConfig, bundle: Bundle, now: datetime) -> None:
    sender = bundle.coordinator
    if is_same_organisation(sender.organisation, config.organisation) or sender.name == config.name:
        raise PolicyRefused(
            f"the coordinator belongs to {sender.organisation!r}, our own organisation",
            "let an organisation run the coordinator that is no party",
        )
    if config.pinned.get(sender.name, sender.identity) != sender.identity:
        raise PolicyRefused(
            f"party.toml pins another key for {sender.name}",
            f"fedmkt party pin {sender.name} KEY --replace, after you compared it",
        )
    if sender.created > now + CLOCK_SLACK:
        raise PolicyRefused(f"the bundle is from {zulu(sender.created)}, later than now", "compare clocks")
    if not folder.coordinator.exists():
        return
    before = read_coordinator(folder)
    if before.identity != sender.identity:
        raise PolicyRefused(
            f"we belong to the coordinator {before.name} with another key",
            "make a party for the other coordinator in a folder of its own",
        )
    if sender.created < before.created:
        raise PolicyRefused(f"the bundle is older than the one in use, of {zulu(before.created)}")


def _check_ours(folder: PartyFolder, config: PartyConfig, bundle: Bundle) -> None:
    if bundle.party != config.name or bundle.identity != read_identity(folder.identity).public.hex():
        raise PolicyRefused(
            f"the bundle is for {bundle.party}, not for {config.name} with our identity key",
            f"ask for the answer to our own {config.name}.request",
        )


def _install(folder: PartyFolder, bundle: Bundle) -> None:
    """Put everything in place, the card of the coordinator last; every prefix of it can be repeated."""
    certificate = bundle.certificate.encode()
    try:
        certified = certificates.certified_key(certificate)
    except ValueError as error:
        raise PolicyRefused(f"bundle: {error}") from None
    tls = _matching((folder.tls_key, folder.next_tls_key), certificates.public_tls_key, certified)
    node = _matching((folder.node_key, folder.next_node_key), certificates.public_node_key, bundle.node)
    write_atomically(folder.authority, bundle.authority.encode())
    os.replace(tls, folder.tls_key)
    write_atomically(folder.tls_certificate, certificate)
    os.replace(node, folder.node_key)
    _write_public_node_key(folder)
    write_atomically(folder.coordinator, encode(bundle.coordinator))
    shutil.rmtree(folder.next_keys, ignore_errors=True)


def _matching(files: tuple[Path, Path], public_of: Callable[[bytes], Public], wanted: Public) -> Path:
    for path in files:
        if path.exists():
            with contents_of(path):
                if public_of(read_secret(path)) == wanted:
                    return path
    raise PolicyRefused(
        f"the bundle is for another {files[0].name} than ours", "ask for the answer to our latest request"
    )
