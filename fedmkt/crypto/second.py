"""A second signing key beside an identity: ML-DSA-44 (FIPS 204), for signatures that must outlive Ed25519.

It is derived from the 32 bytes from which the identity's own key is hashed, so that there is one secret to keep, to
back up and to rotate. Who breaks Ed25519 finds the scalar of a public key, not the bytes that were hashed to it.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from fedmkt.crypto.prg import derive
from fedmkt.crypto.sign import Identity

SECOND_KEY_BYTES = 1312
SECOND_SIGNATURE_BYTES = 2420
_LABEL = b"fedmkt second key ml-dsa-44 v1"


class SecondKey:
    """The second key of an identity; nothing of the secret is shown."""

    def __init__(self, identity: Identity) -> None:
        self._key = MLDSA44PrivateKey.from_seed_bytes(derive(identity.secret_bytes(), _LABEL))
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Sign `data` with the empty context; 2,420 bytes, others each time."""
        return self._key.sign(data)


def verify_second(public: bytes, signature: bytes, data: bytes) -> None:
    """Raise ValueError unless `signature` over `data` was made with the private half of `public`, 1,312 bytes."""
    try:
        MLDSA44PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature:
        raise ValueError("the second signature does not verify") from None
