"""Products of a bit vector that one party knows with numbers that are shared: one opening, no comparison.

The owner of the bits beta shows c = beta xor u, for u that only it and the dealer know; the other opens x - v of
its share x, for v that only it and the dealer know. With u v shared by the dealer

    beta x = beta (x - v) [owner]  +  c v [other]  +  (1 - 2 c) [u v] [both, each on its share]

is exact modulo 2^32 or 2^64, entry by entry, and |beta x| <= |x|, so a bound that holds for x holds for the product.
c and x - v are uniform. One u serves one bit vector: two under one u would show their difference. One v serves one
opening. Semi-honest parties; the dealer outside. Source: protocols.md section 4, redteam.md section 0.

Every function takes words of any shape (n, ...), uint64 or uint32; bits : (n,) bool, one for each row.
"""

import numpy as np
from numpy.typing import NDArray

from fedmkt.ring.fixed import HalfWords, RingArray

Bits = NDArray[np.bool_]
WORD_BITS = 32


def packed_words(count: int) -> int:
    """Return how many half words hold this many bits."""
    return -(-count // WORD_BITS)


def pack(bits: Bits) -> HalfWords:
    """Pack bits into half words, the first bit lowest; what is left of the last word is zero."""
    if bits.dtype != np.bool_ or bits.ndim != 1:
        raise ValueError(f"expected a vector of bits, got {bits.dtype} {bits.shape}")
    raw = np.zeros(4 * packed_words(len(bits)), np.uint8)
    found = np.packbits(bits, bitorder="little")
    raw[: len(found)] = found
    return raw.view("<u4").astype(np.uint32, copy=False)


def unpack(words: HalfWords, count: int) -> Bits:
    """Unpack the first `count` bits; the inverse of `pack`."""
    if words.dtype != np.uint32 or words.shape != (packed_words(count),):
        raise ValueError(f"{count} bits are not {words.shape} words of {words.dtype}")
    raw = np.ascontiguousarray(words).astype("<u4", copy=False).view(np.uint8)
    return np.unpackbits(raw, count=count, bitorder="little").view(np.bool_)


def chosen(bits: Bits, values: RingArray) -> RingArray:
    """Multiply each row by its bit: beta (x - v) at the owner, c v at the other, u v at the dealer."""
    _check(bits, values)
    out = values.copy()
    out[~bits] = 0
    return out


def signed(c: Bits, share: RingArray) -> RingArray:
    """Multiply each row of a share of u v by 1 - 2 c: turned around where c is set."""
    _check(c, share)
    out = share.copy()
    np.negative(out, out=out, where=c.reshape(-1, *(1,) * (share.ndim - 1)))
    return out


def _check(bits: Bits, values: RingArray) -> None:
    if bits.dtype != np.bool_ or bits.shape != values.shape[:1] or values.dtype not in (np.uint64, np.uint32):
        raise ValueError(f"{bits.shape} of {bits.dtype} are no bits for {values.shape} of {values.dtype}")
