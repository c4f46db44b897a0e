"""Products of a bit vector that one party knows with numbers that are shared: one opening, no comparison.

The owner of the bits beta shows c = beta xor u, for u that only it and the dealer know; the other opens x - v of
its share x, for v that only it and the dealer know. With u v shared by the dealer

    beta x = beta (x - v) [owner]  +  c v [other]  +  (1 - 2 c) [u v] [both, each on its share]

is exact modulo 2^32 or 2^64, entry by entry, and |beta x| <= |x|, so a bound that holds for x holds for the product.
c and x - v are uniform. One u serves one bit vector: two under one u would show their difference. One v serves one
opening. Semi-honest parties; the dealer outside. Source: protocols.md section 4, redteam.md section 0.

`chosen` and `signed` take words of any shape (n, ...), uint64 or uint32; bits : (n,) bool, one for each row. The
`_part` functions do a whole side of many products at once, on (k, n) of either kind, one row for each bit vector.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import compiled, readable
from fedmkt.ring.fixed import HalfWords, RingArray

Bits = NDArray[np.bool_]
Numbers = NDArray[np.unsignedinteger]
"""Words of either kind, where one file deals with both."""
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


def owner_part(bits: Bits, c: Bits, opened: Numbers, share: Numbers, dealt: Numbers) -> Numbers:
    """Return the owner's shares of beta x, (k, n): beta (own x + opened x - v) + (1 - 2 c) (own share of u v)."""
    _check_same((bits, c), (opened, share, dealt))
    out = np.empty_like(share)
    _owner(readable(bits), readable(c), readable(opened), readable(share), readable(dealt), out)
    return out


def other_part(c: Bits, v: Numbers, dealt: Numbers) -> Numbers:
    """Return the other party's shares of beta x, (k, n): c v + (1 - 2 c) (own share of u v)."""
    _check_same((c,), (v, dealt))
    out = np.empty_like(v)
    _other(readable(c), readable(v), readable(dealt), out)
    return out


def dealt_part(u: Bits, v: Numbers, share: Numbers) -> Numbers:
    """Return what the dealer sends for shares of u v, (k, n): u v less the share that the other one has of its seed."""
    _check_same((u,), (v, share))
    out = np.empty_like(v)
    _dealt(readable(u), readable(v), readable(share), out)
    return out


def _check_same(bits: Sequence[Bits], words: Sequence[Numbers]) -> None:
    shape, dtype = words[0].shape, words[0].dtype
    if (
        len(shape) != 2
        or dtype not in (np.uint32, np.uint64)
        or any(w.shape != shape or w.dtype != dtype for w in words)
        or any(b.shape != shape or b.dtype != np.bool_ for b in bits)
    ):
        found = [(a.dtype.name, a.shape) for a in (*bits, *words)]
        raise ValueError(f"expected bits and words of one kind and one shape (k, n), got {found}")


# Everything is worked out in 64 bits; what is stored in 32 is cut to them, which is the same modulo 2^32.


@compiled
def _owner(bits: Bits, c: Bits, opened: Numbers, share: Numbers, dealt: Numbers, out: Numbers) -> None:
    for k in range(out.shape[0]):
        for i in range(out.shape[1]):
            # Masks of all ones or none: a branch on random bits would be guessed wrong half of the time.
            taken, turned = np.uint64(0) - np.uint64(bits[k, i]), np.uint64(0) - np.uint64(c[k, i])
            x = np.uint64(share[k, i]) + np.uint64(opened[k, i])
            out[k, i] = (taken & x) + ((np.uint64(dealt[k, i]) ^ turned) - turned)


@compiled
def _other(c: Bits, v: Numbers, dealt: Numbers, out: Numbers) -> None:
    for k in range(out.shape[0]):
        for i in range(out.shape[1]):
            turned = np.uint64(0) - np.uint64(c[k, i])
            out[k, i] = (turned & np.uint64(v[k, i])) + ((np.uint64(dealt[k, i]) ^ turned) - turned)


@compiled
def _dealt(u: Bits, v: Numbers, share: Numbers, out: Numbers) -> None:
    for k in range(out.shape[0]):
        for i in range(out.shape[1]):
            taken = np.uint64(0) - np.uint64(u[k, i])
            out[k, i] = (taken & np.uint64(v[k, i])) - np.uint64(share[k, i])


def _check(bits: Bits, values: RingArray) -> None:
    if bits.dtype != np.bool_ or bits.shape != values.shape[:1] or values.dtype not in (np.uint64, np.uint32):
        raise ValueError(f"{bits.shape} of {bits.dtype} are no bits for {values.shape} of {values.dtype}")
