"""Sealed envelopes: one message, encrypted for one reader, signed by its sender.

X25519 (RFC 7748) with a fresh ephemeral key of the sender and a prekey of the reader that lives for one
epoch; HKDF-SHA256 (RFC 5869); ChaCha20-Poly1305 (RFC 8439); Ed25519 (RFC 8032).
Everything that says where the message belongs (`Place`) is associated data of every part and is signed,
so that a message replayed, reflected, reordered, truncated, altered or moved to another run is refused
(protocols.md section 7). Prekeys are erased with their epoch: recorded traffic stays closed.
"""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedmkt.crypto.prg import Random, derive
from fedmkt.crypto.sign import Identity, verify

SUITE = "X25519-HKDF-SHA256-CHACHA20POLY1305-ED25519"
PROTOCOL_VERSION = 1
PART_BYTES = 4 << 20
MAX_MESSAGE_BYTES = 64 << 20
_TAG_BYTES = 16


@dataclass(frozen=True)
class Place:
    """Where a message belongs; every field is bound into every part of its envelope."""

    contract: bytes
    run: bytes
    epoch: bytes
    script: str
    index: int
    step: str
    sender: str
    reader: str
    transcript: bytes

    def __bytes__(self) -> bytes:
        """Encode with explicit lengths, so that no two places share bytes."""
        fields = (
            SUITE.encode(), PROTOCOL_VERSION.to_bytes(2, "big"), self.contract, self.run, self.epoch,
            self.script.encode(), self.index.to_bytes(8, "big"), self.step.encode(), self.sender.encode(),
            self.reader.encode(), self.transcript,
        )  # fmt: skip
        return b"".join(len(f).to_bytes(4, "big") + f for f in fields)


@dataclass(frozen=True)
class Envelope:
    """Ciphertext in parts of 4 MiB, the sender's ephemeral key and signature."""

    sender: str
    reader: str
    length: int
    ephemeral: bytes
    parts: tuple[bytes, ...]
    signature: bytes

    def __post_init__(self) -> None:
        # Here, and not where it is opened: whoever passes an envelope on takes its digest before that.
        if not 0 <= self.length <= MAX_MESSAGE_BYTES:
            raise ValueError(f"an envelope holds at most {MAX_MESSAGE_BYTES} bytes, not {self.length}")

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 over everything that travels but the signature."""
        return _digest(self.length, self.ephemeral, self.parts)

    @property
    def size(self) -> int:
        """Bytes on the wire, without framing."""
        return sum(map(len, self.parts)) + len(self.ephemeral) + len(self.signature)


class Prekey:
    """One epoch's X25519 key; its private half lives in memory only."""

    def __init__(self, secret: bytes) -> None:
        self._key: X25519PrivateKey | None = X25519PrivateKey.from_private_bytes(secret)
        self.public: bytes = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def exchange(self, peer: bytes) -> bytes:
        """Return the shared secret with a peer's public key; ValueError once erased or for a bad key."""
        if self._key is None:
            raise ValueError("the prekey of this epoch was erased")
        return self._key.exchange(X25519PublicKey.from_public_bytes(peer))

    def erase(self) -> None:
        """Forget the private half: nothing sealed to it can be opened again."""
        self._key = None

    def __repr__(self) -> str:
        return "Prekey(hidden)"


Pieces = Sequence[bytes | memoryview]
"""A message as the buffers it consists of: arrays are sealed where they lie, without a copy of the whole."""


def seal(
    message: bytes | Pieces, place: Place, sender: Identity, reader_prekey: bytes, random: Random
) -> Envelope:
    """Encrypt `message` (at most 64 MiB) for the reader named in `place`, and sign it."""
    pieces = [memoryview(p).cast("B") for p in ([message] if isinstance(message, bytes) else message)]
    length = sum(p.nbytes for p in pieces)
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(
            f"a message has at most {MAX_MESSAGE_BYTES} bytes, got {length}: send it in row blocks"
        )
    ephemeral = Prekey(random(32))
    bound = _bind(place, sender.public, length)
    cipher = ChaCha20Poly1305(_key(ephemeral.exchange(reader_prekey), ephemeral.public, reader_prekey, bound))
    count = _parts(length)
    # The key is fresh for every message, so the part number is a nonce that is never used twice.
    parts = tuple(
        cipher.encrypt(_nonce(i), part, _part_of(bound, i, count))
        for i, part in enumerate(_cut(pieces, count))
    )
    envelope = Envelope(place.sender, place.reader, length, ephemeral.public, parts, b"")
    signed = replace(envelope, signature=sender.sign(bound + envelope.digest))
    signed.__dict__["digest"] = envelope.digest  # not hashed twice
    return signed


def _cut(pieces: Sequence[memoryview], count: int) -> Iterator[bytes | memoryview]:
    """Cut the message into parts of 4 MiB; only parts that span pieces are copied."""
    left = [p for p in pieces if p.nbytes]
    for _ in range(count):
        room, taken = PART_BYTES, list[memoryview]()
        while left and room:
            head = left[0][:room]
            taken.append(head)
            room -= head.nbytes
            left[0] = left[0][head.nbytes :]
            if not left[0].nbytes:
                left.pop(0)
        yield taken[0] if len(taken) == 1 else b"".join(taken)


def open_sealed(envelope: Envelope, place: Place, sender_public: bytes, prekey: Prekey) -> memoryview:
    """Check the signature and every part, then decrypt; ValueError if anything is not as `place` says."""
    if (envelope.sender, envelope.reader) != (place.sender, place.reader):
        raise ValueError("the envelope is from or for somebody else")
    if len(envelope.parts) != _parts(envelope.length):
        raise ValueError("the envelope has a wrong number of parts")
    if sum(map(len, envelope.parts)) != envelope.length + len(envelope.parts) * _TAG_BYTES:
        raise ValueError("the message has another length than its envelope says")
    bound = _bind(place, sender_public, envelope.length)
    verify(sender_public, envelope.signature, bound + envelope.digest)
    shared = prekey.exchange(envelope.ephemeral)
    cipher = ChaCha20Poly1305(_key(shared, envelope.ephemeral, prekey.public, bound))
    count = len(envelope.parts)
    out, at = memoryview(bytearray(envelope.length)), 0
    try:
        for i, part in enumerate(envelope.parts):
            end = at + len(part) - _TAG_BYTES
            cipher.decrypt_into(_nonce(i), part, _part_of(bound, i, count), out[at:end])
            at = end
    except InvalidTag:
        raise ValueError("a part of the envelope does not decrypt") from None
    return out.toreadonly()


def _parts(length: int) -> int:
    return max(1, -(-length // PART_BYTES))


def _nonce(part: int) -> bytes:
    return part.to_bytes(12, "big")


def _bind(place: Place, sender_public: bytes, length: int) -> bytes:
    return bytes(place) + sender_public + length.to_bytes(8, "big")


def _part_of(bound: bytes, part: int, count: int) -> bytes:
    return bound + part.to_bytes(4, "big") + count.to_bytes(4, "big")


def _key(shared: bytes, ephemeral: bytes, prekey: bytes, bound: bytes) -> bytes:
    return derive(shared, b"fedmkt seal v1\n" + ephemeral + prekey + hashlib.sha256(bound).digest())


def _digest(length: int, ephemeral: bytes, parts: tuple[bytes, ...]) -> bytes:
    state = hashlib.sha256(b"fedmkt envelope v1\n" + length.to_bytes(8, "big") + ephemeral)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()
