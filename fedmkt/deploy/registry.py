"""Who is admitted to a coordinator: registry.json, one writer at a time, never half written.

A name belongs to one identity until it is revoked. A revoked identity and a node key that was replaced do
not come back, whatever request is shown again: SuperLink takes no node key twice either.
"""

import json
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fedmkt.contract.words import Key, Name, Terms, Text, Time
from fedmkt.crypto.certificates import node_key_pem, serial_of
from fedmkt.crypto.sign import fingerprint
from fedmkt.deploy.folders import locked, read_file
from fedmkt.deploy.papers import NodeText, Request, Serial, digest, parse_json, zulu
from fedmkt.errors import PolicyRefused
from fedmkt.party.journal import write_atomically

EXPIRY_WARNING_DAYS = 30


class Admission(Terms):
    """One party that was admitted.

    serial : of its current TLS certificate, valid until `expires`. request, requested : digest and time of the
    latest request. revoked : since when nothing of it is accepted.
    """

    name: Name
    organisation: Text
    identity: Key
    node: NodeText
    serial: Serial
    request: Key
    requested: Time
    admitted: Time
    expires: Time
    revoked: Time | None = None

    @property
    def fingerprint(self) -> str:
        """What a person there reads over the phone."""
        return fingerprint(bytes.fromhex(self.identity))

    def state(self, now: datetime) -> str:
        """Say in one word how the party stands: admitted, expiring, expired or revoked."""
        if self.revoked is not None:
            return "revoked"
        days = (self.expires - now).total_seconds() / 86400
        return "expired" if days <= 0 else "expiring" if days < EXPIRY_WARNING_DAYS else "admitted"


class Former(Terms):
    """Keys and certificate that were in force once, and must not be again."""

    name: Name
    identity: Key
    node: NodeText
    serial: Serial
    ended: Time
    reason: Literal["rotated", "revoked"]


class Registry(Terms):
    """All parties that were ever admitted, by name, and what is no longer in force."""

    version: Literal[1] = 1
    parties: tuple[Admission, ...] = Field(default=(), max_length=10_000)
    former: tuple[Former, ...] = Field(default=(), max_length=100_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({party.name for party in self.parties}) != len(self.parties):
            raise ValueError("every name once")
        return self

    @property
    def active(self) -> tuple[Admission, ...]:
        """Parties that are not revoked."""
        return tuple(party for party in self.parties if party.revoked is None)

    def find(self, name: str) -> Admission | None:
        """Look a party up by name, revoked or not."""
        return next((party for party in self.parties if party.name == name), None)

    def admitted(self, name: str) -> Admission:
        """Return a party that is in force; PolicyRefused for a stranger and for one that was revoked."""
        found = self.find(name)
        if found is None:
            raise PolicyRefused(f"{name} is not admitted", "fedmkt coordinator admit REQUEST")
        if found.revoked is not None:
            raise PolicyRefused(f"{name} was revoked on {zulu(found.revoked)}")
        return found

    def check_certificate(self, name: str, certificate: bytes, now: datetime) -> Admission:
        """Refuse a TLS certificate that is not the one in force for `name`: replaced, revoked or expired.

        certificate : PEM, already verified against the authority and for `name`.
        """
        party = self.admitted(name)
        if serial_of(certificate) != party.serial:
            raise PolicyRefused(f"the certificate of {name} was replaced by another one")
        if now >= party.expires:
            raise PolicyRefused(f"the certificate of {name} expired on {zulu(party.expires)}")
        return party

    def pins(self, names: Iterable[str]) -> dict[str, str]:
        """Return the identity keys of admitted parties, as compared by the person who admitted them."""
        return {name: self.admitted(name).identity for name in names}

    def node_keys(self) -> tuple[bytes, ...]:
        """Return the node keys in force, as SuperLink stores them (PEM)."""
        return tuple(node_key_pem(party.node) for party in self.active)

    def former_node_keys(self) -> tuple[bytes, ...]:
        """Return the node keys that SuperLink must not accept any more (PEM)."""
        return tuple(node_key_pem(former.node) for former in self.former)

    def admit(self, request: Request, serial: str, expires: datetime, now: datetime) -> "Registry":
        """Put a checked request in force; what the name had before becomes former."""
        entry = Admission(
            name=request.name,
            organisation=request.organisation,
            identity=request.identity,
            node=request.node,
            serial=serial,
            request=digest(request),
            requested=request.created,
            admitted=now.replace(microsecond=0),
            expires=expires,
        )
        before = self.find(request.name)
        others = tuple(party for party in self.parties if party.name != request.name)
        former = self.former
        if before is not None and before.revoked is None and before.node != request.node:
            former = (*former, _former(before, now, "rotated"))
        parties = tuple(sorted((*others, entry), key=lambda party: party.name))
        return self.model_copy(update={"parties": parties, "former": former})

    def revoke(self, name: str, now: datetime) -> "Registry":
        """End an admission: identity, node key and certificate are refused from now on."""
        entry = self.admitted(name)
        moment = now.replace(microsecond=0)
        parties = tuple(
            party.model_copy(update={"revoked": moment}) if party.name == name else party
            for party in self.parties
        )
        former = (*self.former, _former(entry, now, "revoked"))
        return self.model_copy(update={"parties": parties, "former": former})

    def check_admissible(self, request: Request) -> None:
        """Refuse a request whose name, keys or time collide with what is known; says the rule."""
        before = self.find(request.name)
        if before is not None and before.revoked is None:
            _check_same_party(before, request)
        elif before is not None and request.created <= (before.revoked or request.created):
            raise PolicyRefused(f"the request of {request.name} is older than the revocation of that name")
        self._check_keys(request)

    def _check_keys(self, request: Request) -> None:
        for party in self.parties:
            if party.name != request.name and party.identity == request.identity:
                raise PolicyRefused(f"the identity key of {request.name} is already that of {party.name}")
            if party.name != request.name and party.node == request.node:
                raise PolicyRefused(f"the node key of {request.name} is already that of {party.name}")
        for former in self.former:
            if former.reason == "revoked" and former.identity == request.identity:
                raise PolicyRefused(
                    f"the identity key of {request.name} was revoked on {zulu(former.ended)}",
                    "the party makes new keys in a new folder: fedmkt party init",
                )
            if former.node == request.node:
                raise PolicyRefused(
                    f"the node key of {request.name} was in use before and has ended",
                    f"the party runs `fedmkt party init {request.name} --rotate` and sends the new request",
                )


def _check_same_party(before: Admission, request: Request) -> None:
    if before.identity != request.identity:
        raise PolicyRefused(
            f"the name {request.name} belongs to another identity ({before.fingerprint})",
            "choose another name, or revoke the old one first",
        )
    if not is_same_organisation(before.organisation, request.organisation):
        raise PolicyRefused(
            f"{request.name} was admitted as {before.organisation!r}, the request says another"
        )
    # The same request again is answered again: the first answer may have been lost. Two of one second are
    # told apart by their node keys, of which a former one is refused.
    if request.created < before.requested:
        raise PolicyRefused(
            f"the request of {request.name} is older than the one that was admitted",
            "keys that were replaced do not come back",
        )


def is_same_organisation(one: str, other: str) -> bool:
    """Compare names of organisations as people do: case, width and spaces do not count."""
    return _folded(one) == _folded(other)


def _folded(organisation: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", organisation).casefold().split())


def _former(party: Admission, now: datetime, reason: Literal["rotated", "revoked"]) -> Former:
    return Former(
        name=party.name,
        identity=party.identity,
        node=party.node,
        serial=party.serial,
        ended=now.replace(microsecond=0),
        reason=reason,
    )


def read_registry(path: Path) -> Registry:
    """Read the registry; ConfigError if it is missing or was changed into something else."""
    return parse_json(Registry, read_file(path), str(path))


def change_registry(path: Path, change: Callable[[Registry], Registry]) -> Registry:
    """Read, change and write the registry while nobody else does; an exception leaves it as it was."""
    with locked(path.with_name(path.name + ".lock")):
        changed = change(read_registry(path))
        write_registry(path, changed)
    return changed


def write_registry(path: Path, registry: Registry) -> None:
    """Write the registry as indented JSON that a person can read."""
    values = json.loads(registry.model_dump_json(exclude_none=True))
    write_atomically(path, json.dumps(values, indent=2, ensure_ascii=False).encode() + b"\n")
