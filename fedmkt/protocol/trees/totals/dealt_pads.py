"""Dealt pads: ciphertexts whose randomness follows from a seed that the bank and the dealer share.

A ciphertext of `shared_histogram` is A s + e + Delta m. Where a contract says that shares are checked, the bank does
not draw s and e: they follow from its seed, so the dealer, who sees no ciphertext, can tell the partner what sums of
A s + e over rows must be. It deals U s itself, and the bank sends no s - v. Source and letters: `shared_histogram`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmkt.crypto.prg import derive
from fedmkt.protocol.core import Name, Turn, Words
from fedmkt.ring import rlwe
from fedmkt.ring.rlwe import Integers

_TOGETHER = 3
"""Vectors encrypted at a time: more of them fall out of the caches."""

Key = Callable[[int], bytes]


def public_polynomials(turn: Turn, rows: int) -> Words:
    """Return the polynomials a_j of this epoch; nobody chooses them: they follow from everybody's nonces."""
    info = b"fedmkt shared histogram polynomials v1\n" + turn.epoch.to_bytes(8, "big")
    return rlwe.public_polynomials(derive(turn.run, info), rlwe.polynomials(rows))


def secrets_of(turn: Turn, bank: Name, count: int, vectors: int) -> NDArray[np.int8]:
    """Draw the bank's secrets of a batch, (vectors, N), at the bank or the dealer."""
    return rlwe.draw_secrets(_key(turn, bank, "secret", count, 0), vectors)


def noise_keys(turn: Turn, bank: Name, count: int, block: int) -> Key:
    """Return the keys of the bank's noise in a block of rows of a batch, at the bank or the dealer."""
    return lambda part: _key(turn, bank, "noise", count, block << 16 | part)


def _key(turn: Turn, bank: Name, what: str, count: int, block: int) -> bytes:
    drawn = turn.masks.words(bank, f"pads/{what}", count, 4, block=block)
    return drawn.astype("<u8", copy=False).tobytes()


def encrypt_rows(
    a: rlwe.Transformed,
    secrets: NDArray[np.int8],
    values: Integers,
    delta_bits: Sequence[int],
    noise_key: Key,
) -> Words:
    """Encrypt a block of rows, (n, V), some vectors at a time; the noise of each part has a key of its own."""
    b = np.empty(values.shape, np.uint64)
    for part, start in enumerate(range(0, values.shape[1], _TOGETHER)):
        some = slice(start, min(values.shape[1], start + _TOGETHER))
        noise = rlwe.draw_noise(noise_key(part), len(b), some.stop - start)
        chosen = np.ascontiguousarray(values[:, some])
        b[:, some] = rlwe.encrypt(a, secrets[some], noise, chosen, delta_bits[some])
    return b
