"""Random bytes from a short key, and masks by address.

A mask is never a position in a running stream: its key is derived from its whole address, so that one
address gives one mask, ever (protocols.md section 0). AES-256 in counter mode (NIST SP 800-38A) expands
the key; HKDF-SHA256 (RFC 5869) derives it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

Random = Callable[[int], bytes]
"""`random(n)` returns n fresh bytes: `secrets.token_bytes`, or a seeded stream in a simulation."""

KEY_BYTES = 32
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)


@dataclass(frozen=True)
class Address:
    """Where a mask is used: what for, which time, which rows, between whom."""

    label: str
    count: int
    block: int
    sender: str
    reader: str

    def __bytes__(self) -> bytes:
        """Encode with explicit lengths, so that no two addresses share bytes."""
        parts = (self.label, str(self.count), str(self.block), self.sender, self.reader)
        return b"".join(len(p.encode()).to_bytes(2, "big") + p.encode() for p in parts)


def derive(secret: bytes, info: bytes, salt: bytes = b"", length: int = KEY_BYTES) -> bytes:
    """Derive `length` bytes for the purpose `info` (HKDF-SHA256)."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


def expand(key: bytes, length: int) -> NDArray[np.uint8]:
    """Expand a 32-byte key, used only here and only once, into `length` pseudo-random bytes."""
    out = np.empty(length, dtype=np.uint8)
    # The key is fresh for every address, so a fixed nonce is never used twice.
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    view = out.data
    for start in range(0, length, _CHUNK):
        n = min(_CHUNK, length - start)
        stream.update_into(_ZEROS[:n] if n < _CHUNK else _ZEROS, view[start : start + n])
    return out


def words(key: bytes, shape: tuple[int, ...] | int) -> NDArray[np.uint64]:
    """Expand a key into uniform 64-bit words of the given shape, little-endian on every machine."""
    return _typed(key, shape, "<u8").astype(np.uint64, copy=False)


def half_words(key: bytes, shape: tuple[int, ...] | int) -> NDArray[np.uint32]:
    """Expand a key into uniform 32-bit words of the given shape, little-endian on every machine."""
    return _typed(key, shape, "<u4").astype(np.uint32, copy=False)


def _typed(key: bytes, shape: tuple[int, ...] | int, dtype: str) -> NDArray[np.generic]:
    size = int(np.prod(shape))
    return expand(key, size * np.dtype(dtype).itemsize).view(dtype).reshape(shape)


class SeededRandom:
    """A deterministic `Random` for simulations and tests: every request draws from its own counter."""

    def __init__(self, seed: bytes) -> None:
        self._key = derive(seed, b"fedmkt seeded random")
        self._count = 0

    def __call__(self, n: int) -> bytes:
        """Return the next n bytes."""
        self._count += 1
        return bytes(expand(derive(self._key, self._count.to_bytes(8, "big")), n))
