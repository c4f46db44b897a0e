"""What is signed about a contract or a run: in-toto Statements (v1) in DSSE envelopes, as bytes; pure.

A statement names what it is about by digest (`subject`), says what kind it is (`predicateType`) and what it says
(`predicate`). Text, whole numbers, lists and tables only, as in a record of a log. A reader works on what `read`
returned, never on the envelope again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fedmkt.audit.records import Json, canonical
from fedmkt.crypto import dsse
from fedmkt.crypto.sign import Identity

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATES = "https://fedmkt.example/predicates"
Kind = Literal["approval", "denial", "revocation", "evidence", "deals", "withdrawal"]
"""An amended or renewed contract is no statement: it names the digest of the one before under all signatures."""


@dataclass(frozen=True)
class Statement:
    """What somebody states. subject : SHA-256 (hexadecimal) of what it is about, by name; kind : of `Kind`."""

    kind: Kind
    subject: Mapping[str, str]
    predicate: Mapping[str, Json]

    def __bytes__(self) -> bytes:
        """Write the canonical JSON (RFC 8785)."""
        return canonical(
            {
                "_type": STATEMENT_TYPE,
                "predicateType": f"{PREDICATES}/{self.kind}/v1",
                "predicate": self.predicate,
                "subject": [
                    {"digest": {"sha256": digest}, "name": name}
                    for name, digest in sorted(self.subject.items())
                ],
            }
        )


def sign(statement: Statement, identity: Identity) -> dsse.Envelope:
    """Put a statement into an envelope with one signature."""
    return dsse.sign(PAYLOAD_TYPE, bytes(statement), identity)


def read(
    envelope: dsse.Envelope, keys: Mapping[str, dsse.Public], needed: int = 1
) -> tuple[Statement, tuple[str, ...]]:
    """Return the statement with the names of those who signed it; ValueError if these are too few, or it is none."""
    names = dsse.verify(envelope, PAYLOAD_TYPE, keys, needed)
    return _parse(envelope.payload), tuple(names)


def _parse(data: bytes) -> Statement:
    try:
        value = json.loads(data)
        if set(value) != {"_type", "predicateType", "predicate", "subject"}:
            raise ValueError("not the fields of a statement")
        prefix, _, kind = value["predicateType"].removesuffix("/v1").rpartition("/")
        if (value["_type"], prefix) != (STATEMENT_TYPE, PREDICATES) or kind not in get_args(Kind):
            raise ValueError("a statement of an unknown kind")
        subject = {s["name"]: s["digest"]["sha256"] for s in value["subject"]}
        statement = Statement(kind, subject, value["predicate"])
        if not isinstance(statement.predicate, dict) or bytes(statement) != data:
            raise ValueError("the statement is not in canonical form")
    except (KeyError, TypeError, AttributeError, RecursionError, UnicodeError):
        raise ValueError("not a statement") from None
    return statement
