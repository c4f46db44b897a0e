"""The key of one person as a file: Ed25519 in PKCS #8 (RFC 8410), encrypted where a passphrase is given."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedmkt.crypto.sign import Identity

ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


def to_pem(identity: Identity, passphrase: str | None) -> bytes:
    """Write a key as PEM; ValueError for an empty passphrase."""
    key = Ed25519PrivateKey.from_private_bytes(identity.secret_bytes())
    protection: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        protection = BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


def is_encrypted(data: bytes) -> bool:
    """Tell whether a file of this form needs a passphrase."""
    return data.startswith(ENCRYPTED)


def from_pem(data: bytes, passphrase: str | None) -> Identity:
    """Read a key; ValueError if it is none, or the passphrase is missing or wrong."""
    try:
        key = load_pem_private_key(data, None if passphrase is None else passphrase.encode())
    except TypeError:
        raise ValueError("a passphrase where none is needed, or none where one is") from None
    except Exception:  # cryptography raises several kinds, and their texts say nothing to a reader
        raise ValueError("no private key in PEM, or another passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return Identity(key.private_bytes_raw())
