"""Words cut to their upper bits, each vector to its own number of bits, as streams without gaps.

A word is rounded to `bits` bits; 64 words fill `bits` words of the stream, the rest of the last word of a vector is
zeros. The error of rounding is at most half of 2^(64 - bits), and known to whoever had the words.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import compiled, readable
from fedmkt.ring.fixed import Words

WORD_BITS = range(16, 65)
"""How many bits of a word may travel; 64 is all of it."""

_TILE = 64


def dropped_bits(word_bits: int) -> int:
    """Return how many bits `pack` rounds away; its error is at most half of 2 to that."""
    if word_bits not in WORD_BITS:
        raise ValueError(f"a word travels in {WORD_BITS[0]} to {WORD_BITS[-1]} bits, not {word_bits}")
    return 64 - word_bits


def stream_length(rows: int, word_bits: Sequence[int]) -> int:
    """Return how many words of a stream hold this many rows of vectors of so many bits each."""
    whole, rest = divmod(rows, _TILE)
    return sum(whole * bits + -(-rest * bits // 64) for bits in word_bits)


def pack(b: Words, word_bits: Sequence[int]) -> Words:
    """Round (n, V) words to V numbers of bits, one after the other: (stream_length,) words."""
    bits = _bits(word_bits)
    if b.dtype != np.uint64 or b.ndim != 2 or b.shape[1] != len(bits):
        raise ValueError(f"expected (n, {len(bits)}) words, got {b.dtype} {b.shape}")
    out = np.zeros(stream_length(len(b), word_bits), np.uint64)
    _pack(readable(b), bits, out)
    return out


def unpack(stream: Words, rows: int, word_bits: Sequence[int]) -> Words:
    """Turn a stream into (rows, V) words: the inverse of `pack` up to its rounding."""
    bits = _bits(word_bits)
    if stream.dtype != np.uint64 or stream.shape != (stream_length(rows, word_bits),):
        raise ValueError(f"{stream.dtype} {stream.shape} does not hold {rows} rows of {word_bits} bits")
    out = np.empty((rows, len(bits)), np.uint64)
    _unpack(readable(stream), bits, out)
    return out


def plain_pack(b: Words, word_bits: Sequence[int]) -> Words:
    """Return what `pack` returns, by integers of Python alone."""
    out: list[int] = []
    for start in range(0, len(b), _TILE):
        for v, bits in enumerate(word_bits):
            drop = dropped_bits(bits)
            column = [((int(x) + ((1 << drop) >> 1)) % 2**64) >> drop for x in b[start : start + _TILE, v]]
            whole = sum(x << (i * bits) for i, x in enumerate(column))
            out += [(whole >> (64 * i)) % 2**64 for i in range(-(-len(column) * bits // 64))]
    return np.array(out, np.uint64)


def compile_all() -> None:
    """Compile, or read from the cache, the kernels of this file."""
    unpack(pack(np.zeros((1, 1), np.uint64), [40]), 1, [40])


def _bits(word_bits: Sequence[int]) -> NDArray[np.int64]:
    for bits in word_bits:
        dropped_bits(bits)
    return readable(np.array(word_bits, np.int64))


@compiled
def _pack(b: Words, bits: NDArray[np.int64], out: Words) -> None:
    n, vectors = b.shape
    at = 0
    for start in range(0, n, 64):
        end = min(n, start + 64)
        for v in range(vectors):
            drop = np.uint64(64 - bits[v])
            half = (np.uint64(1) << drop) >> np.uint64(1)
            fill, position = 0, at
            for i in range(start, end):
                word = (b[i, v] + half) >> drop
                out[position] |= word << np.uint64(fill)
                fill += bits[v]
                if fill >= 64:
                    fill -= 64
                    position += 1
                    if fill:
                        out[position] = word >> np.uint64(bits[v] - fill)
            at += ((end - start) * bits[v] + 63) // 64


@compiled
def _unpack(stream: Words, bits: NDArray[np.int64], out: Words) -> None:
    n, vectors = out.shape
    at = 0
    for start in range(0, n, 64):
        end = min(n, start + 64)
        for v in range(vectors):
            drop = np.uint64(64 - bits[v])
            fill, position = 0, at
            for i in range(start, end):
                word = stream[position] >> np.uint64(fill)
                fill += bits[v]
                if fill >= 64:
                    fill -= 64
                    position += 1
                    if fill:
                        word |= stream[position] << np.uint64(bits[v] - fill)
                out[i, v] = word << drop
            at += ((end - start) * bits[v] + 63) // 64
