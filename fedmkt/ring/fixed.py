"""Real numbers as integers modulo 2^64, and values split into additive shares.

A real v is coded as the two's complement word of round(v 2^bits); `bits` is called f in the protocols.
Shares are words that sum to the value modulo 2^64, or modulo 2^32 for arrays of uint32. Sharing hides the
value from every set of parties that misses one share, as long as the masks are uniform and used once: who
makes the masks is not decided here, they are handed in as arrays.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
"""Integers modulo 2^64; additions and products wrap around, on purpose."""

HalfWords = NDArray[np.uint32]
"""Integers modulo 2^32."""

RingArray = TypeVar("RingArray", Words, HalfWords)

LIMIT_BITS = 62
HALF_LIMIT_BITS = 30
_BLOCK = 1 << 17


def encode(values: NDArray[np.float64], bits: int) -> Words:
    """Code reals as words, rounding half to even.

    values : any shape, float64; bits : the scale is 2^bits. Returns uint64 of the same shape.
    Raises ValueError for a value that is not finite or with |v| 2^bits >= 2^62.
    """
    out = np.empty(np.shape(values), dtype=np.int64)
    _encode_into(out, np.asarray(values, dtype=np.float64), bits, LIMIT_BITS)
    return out.view(np.uint64)


def encode32(values: NDArray[np.float64], bits: int) -> NDArray[np.int32]:
    """Code reals as signed 32-bit integers: a matrix in half the memory, widened by the kernels.

    values : any shape, float64; bits : the scale is 2^bits. Returns int32 of the same shape.
    Raises ValueError for a value that is not finite or with |v| 2^bits >= 2^30.
    """
    out = np.empty(np.shape(values), dtype=np.int32)
    _encode_into(out, np.asarray(values, dtype=np.float64), bits, HALF_LIMIT_BITS)
    return out


def decode(words: Words, bits: int) -> NDArray[np.float64]:
    """Read words, any shape, as reals at scale 2^bits; the inverse of `encode`."""
    return words.view(np.int64) / float(2**bits)


def reconstruct(shares: Sequence[RingArray]) -> RingArray:
    """Add shares of equal shape and dtype (uint64 or uint32); for simulations and tests only."""
    if not shares:
        raise ValueError("there is no share")
    _check_alike(shares[0], shares[1:])
    total = shares[0].copy()
    for share in shares[1:]:
        total += share
    return total


def share_out(values: RingArray, k: int, masks: Sequence[RingArray]) -> list[RingArray]:
    """Split values into k shares: the k - 1 masks, and what is left.

    values : any shape, uint64 or uint32; masks : k - 1 uniform arrays of that shape and dtype, each used
    here and nowhere else. The last share is the correction, the only one that must be sent.
    """
    if len(masks) != k - 1 or k < 2:
        raise ValueError(f"{k} shares need {k - 1} masks and k >= 2, got {len(masks)} masks")
    shares = list(masks)
    shares.append(correction(values, masks))
    return shares


def correction(values: RingArray, others: Sequence[RingArray]) -> RingArray:
    """Subtract the other parties' shares from values; all of one shape and dtype (uint64 or uint32)."""
    _check_alike(values, others)
    last = values.copy()
    for share in others:
        last -= share
    return last


def _check_alike(first: Words | HalfWords, others: Sequence[Words | HalfWords]) -> None:
    """Refuse arrays that numpy would silently broadcast or convert."""
    if first.dtype not in (np.uint64, np.uint32):
        raise ValueError(f"a share is uint64 or uint32, not {first.dtype}")
    for other in others:
        if other.shape != first.shape or other.dtype != first.dtype:
            raise ValueError(f"expected {first.dtype} {first.shape}, got {other.dtype} {other.shape}")


def _encode_into(
    out: NDArray[np.int64] | NDArray[np.int32], values: NDArray[np.float64], bits: int, limit: int
) -> None:
    """Code block by block: no second array as large as a party's matrix."""
    if not 0 <= bits <= LIMIT_BITS:
        raise ValueError(f"fixed point needs 0 <= bits <= {LIMIT_BITS}, got {bits}")
    source = np.ascontiguousarray(values).reshape(-1)
    target = out.reshape(-1)
    for start in range(0, source.size, _BLOCK):
        scaled = np.rint(source[start : start + _BLOCK] * float(2**bits))
        # Written so that a NaN fails it too.
        if not np.all(np.abs(scaled) < float(2**limit)):
            raise ValueError(f"a value is not finite or reaches 2^{limit} at scale 2^{bits}")
        target[start : start + _BLOCK] = scaled
