"""Signed statements: DSSE envelopes (Dead Simple Signing Envelope, protocol 1.0.2) with Ed25519 signatures.

A signature covers the type of the payload and the payload together, so that one made for a statement of one kind is
none for another. Whoever verifies uses the bytes that `verify` returns, never the envelope again.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NewType

from fedmkt.crypto.sign import Identity, fingerprint
from fedmkt.crypto.sign import verify as verify_signature

MAX_BYTES = 1 << 20
MAX_SIGNATURES = 64
Public = NewType("Public", bytes)
"""A public key, Ed25519, 32 bytes."""


@dataclass(frozen=True)
class Signature:
    """One signature; `keyid` is a hint that nothing rests on."""

    keyid: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload of a type, and what was signed of it so far."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def encoded(payload_type: str, payload: bytes) -> bytes:
    """Return what a signature covers: PAE(type, payload) of the specification."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, identity: Identity) -> Envelope:
    """Put a payload into an envelope with one signature."""
    return add_signature(Envelope(payload_type, payload, ()), identity)


def add_signature(envelope: Envelope, identity: Identity) -> Envelope:
    """Sign what is in an envelope; one more signature of the same key changes nothing."""
    value = identity.sign(encoded(envelope.payload_type, envelope.payload))
    one = Signature(fingerprint(identity.public), value)
    if one in envelope.signatures:
        return envelope
    return Envelope(envelope.payload_type, envelope.payload, (*envelope.signatures, one))


def to_json(envelope: Envelope) -> bytes:
    """Write the one JSON text of an envelope."""
    value = {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": envelope.payload_type,
        "signatures": [
            {"keyid": s.keyid, "sig": base64.b64encode(s.value).decode()} for s in envelope.signatures
        ],
    }
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def from_json(data: bytes) -> Envelope:
    """Read an envelope; ValueError unless it has this form. Nothing is verified."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"an envelope has at most {MAX_BYTES} bytes")
    try:
        value = json.loads(data)
        if set(value) != {"payload", "payloadType", "signatures"} or not isinstance(
            value["payloadType"], str
        ):
            raise ValueError("an envelope has payload, payloadType and signatures")
        signatures = value["signatures"]
        if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAX_SIGNATURES:
            raise ValueError(f"an envelope has 1 to {MAX_SIGNATURES} signatures")
        return Envelope(value["payloadType"], _bytes(value["payload"]), tuple(map(_signature, signatures)))
    except (TypeError, AttributeError, RecursionError, UnicodeError):
        raise ValueError("not an envelope") from None


def verify(envelope: Envelope, payload_type: str, keys: Mapping[str, Public], needed: int) -> Sequence[str]:
    """Return the names of those whose keys signed, in the order of `keys`; ValueError if they are fewer than needed.

    keys : by name; two names of one key count once.
    """
    if envelope.payload_type != payload_type:
        raise ValueError(f"the envelope holds no {payload_type}")
    message = encoded(envelope.payload_type, envelope.payload)
    found: dict[Public, str] = {}
    for name, key in keys.items():
        if any(_is_of(key, s.value, message) for s in envelope.signatures):
            found.setdefault(key, name)
    if len(found) < needed:
        raise ValueError(f"{len(found)} valid signatures of known keys, {needed} are needed")
    return tuple(found.values())


def _is_of(key: Public, signature: bytes, message: bytes) -> bool:
    try:
        verify_signature(key, signature, message)
    except ValueError:
        return False
    return True


def _signature(value: object) -> Signature:
    if not isinstance(value, dict) or not {"sig"} <= set(value) <= {"keyid", "sig"}:
        raise ValueError("a signature has keyid and sig")
    keyid = value.get("keyid", "")
    if not isinstance(keyid, str):
        raise ValueError("a keyid is text")
    return Signature(keyid, _bytes(value["sig"]))


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("base64 is text")
    try:
        # The specification lets a writer choose either alphabet; a reader takes both.
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
