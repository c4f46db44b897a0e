"""The key of one person as a file: Ed25519 in PKCS #8 (RFC 8410), encrypted where a passphrase is given.

A file may come from a browser, and it says itself how long its passphrase is hashed: with PBKDF2 alone (PBES2, RFC
8018), and in so many rounds at most, since nothing else of the process goes on meanwhile.
"""

import base64
import re

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from fedmkt.crypto.sign import Identity

ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
LARGEST_KEY_FILE = 1 << 10
MOST_ROUNDS = 1_000_000
_SALT_LENGTH = re.compile(  # of PBKDF2 within PBES2: what stands before it in the file is of fixed form
    rb"\x30(?:[\x00-\x7f]|\x81.)\x30.\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d"
    rb"\x30.\x30.\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c\x30.\x04([\x00-\x7f])",
    re.DOTALL,
)


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
    if len(data) > LARGEST_KEY_FILE:
        raise ValueError(f"a key file has at most {LARGEST_KEY_FILE} bytes")
    try:
        if passphrase is not None and is_encrypted(data):
            key = load_der_private_key(_checked(data), passphrase.encode())
        else:
            key = load_pem_private_key(data, None if passphrase is None else passphrase.encode())
    except TypeError:
        raise ValueError("a passphrase where none is needed, or none where one is") from None
    except Exception:  # cryptography raises several kinds, and their texts say nothing to a reader
        raise ValueError("no private key in PEM, or another passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return Identity(key.private_bytes_raw())


def _checked(data: bytes) -> bytes:
    """Return the content of an encrypted file if its passphrase is hashed as it should be, in not too many rounds."""
    der = base64.b64decode(data[len(ENCRYPTED) :].partition(b"-----END")[0])
    found = _SALT_LENGTH.match(der)
    if found is None:
        raise ValueError("another way from passphrase to key")
    rounds = der[found.end() + found[1][0] :][:5]
    if rounds[:1] != b"\x02" or rounds[1] > 3 or int.from_bytes(rounds[2 : 2 + rounds[1]]) > MOST_ROUNDS:
        raise ValueError("too many rounds")
    return der
