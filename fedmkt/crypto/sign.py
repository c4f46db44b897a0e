"""Identities: Ed25519 keys (RFC 8032) and their fingerprints.

Peers pin each other's identity keys out of band: a person reads the fingerprint over the phone.
"""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedmkt.crypto.prg import Random

KEY_BYTES = 32
SIGNATURE_BYTES = 64


class Identity:
    """A private signing key; its `repr` shows the fingerprint of the public half only."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"an identity secret has {KEY_BYTES} bytes, got {len(secret)}")
        self._secret = secret
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public: bytes = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @staticmethod
    def generate(random: Random) -> "Identity":
        """Make a new identity from 32 random bytes."""
        return Identity(random(KEY_BYTES))

    def sign(self, data: bytes) -> bytes:
        """Sign `data`; 64 bytes, deterministic (RFC 8032)."""
        return self._key.sign(data)

    def secret_bytes(self) -> bytes:
        """Return the 32 secret bytes, to be written with mode 0600 only."""
        return self._secret

    def __repr__(self) -> str:
        return f"Identity({fingerprint(self.public)})"


_P = 2**255 - 19
_EIGHTH = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_LOW_ORDER = frozenset(y.to_bytes(32, "little") for y in (0, 1, _P - 1, _P, _P + 1, _EIGHTH, _P - _EIGHTH))
"""The points of small order of edwards25519 without their sign bits, and those that are written as y + p."""


def verify(public: bytes, signature: bytes, data: bytes) -> None:
    """Raise ValueError unless `signature` over `data` was made with the private half of `public`."""
    # Anybody can sign anything under such a key, so whoever calls it his own could deny whatever he signed.
    if public[:31] + bytes(b & 0x7F for b in public[31:]) in _LOW_ORDER:
        raise ValueError("the public key is a point of small order")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature:
        raise ValueError("the signature does not verify") from None


def fingerprint(public: bytes) -> str:
    """Name a public key in a form that can be read aloud: 8 groups of 4 hexadecimal digits."""
    digest = hashlib.sha256(b"fedmkt identity\n" + public).hexdigest()[:32]
    return " ".join(digest[i : i + 4] for i in range(0, 32, 4))
