"""Tags: numbers that one party holds and cannot change without the other one noticing.

The holder of x, words modulo 2^64 in L lanes, also holds the tag m; the checker holds alpha_1 .. alpha_L, secret and
uniform, and the key beta, uniform for each place, with

    m = alpha_1 x_1 + .. + alpha_L x_L + beta    modulo 2^64

A tag says nothing of alpha, a key nothing of x. Whatever is linear in x with factors that both know is as linear in m
and in beta, so whoever holds tagged numbers holds all their combinations tagged. Who claims x + e in place of x has to
add alpha e to the tag: where e is not 0 modulo 2^k it guesses right with a probability of 2^-(64 - k) at most, since
alpha e has that many bits that it does not know. Numbers that count modulo 2^k only are thus tagged with all their 64.

Sums over random subsets: where a vector is off anywhere, the sum of what it is off by over rows drawn with one half is
not 0 with a probability of one half at least, in any of the `SUBSETS` sums, whatever modulus it is.

Source: Cramer, Damgard, Escudero, Scholl and Xing, SPDZ2k, 2018; sums over subsets: Freivalds 1977.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmkt.crypto.prg import expand
from fedmkt.ring import rlwe
from fedmkt.ring.fixed import Words
from fedmkt.ring.side_bits import Bits

_GROUPS, _GROUP_BITS = 3, 7
SUBSETS = _GROUPS * _GROUP_BITS
"""So many random subsets of rows are summed up."""


def weigh(alpha: Words, lanes: Sequence[Words]) -> Words:
    """Add up alpha_l x_l, one array of any shape for each lane: tags but for their keys."""
    out = np.zeros(lanes[0].shape, np.uint64)
    for key, lane in zip(alpha, lanes, strict=True):
        out += key * lane
    return out


def turned(c: Bits, v: Words, w: Words) -> Words:
    """Compute c v + (1 - 2 c) w, all (k, n): of numbers, of their tags, or of their keys."""
    return np.where(c, v - w, w)


def draw_subsets(seed: bytes, rows: int) -> NDArray[np.uint8]:
    """Draw `SUBSETS` subsets of rows from a 32-byte seed: in which of them each row is, (groups, rows)."""
    return expand(seed, _GROUPS * rows).reshape(_GROUPS, rows) & np.uint8((1 << _GROUP_BITS) - 1)


def subset_sums(subsets: NDArray[np.uint8], vectors: Words) -> Words:
    """Add up vectors, (n, V), over the rows of each subset: (SUBSETS, V)."""
    # Rows in the same subsets of a group are added up first.
    cells = rlwe.histogram(subsets, [1 << _GROUP_BITS] * _GROUPS, vectors)
    of_group = cells.reshape(_GROUPS, 1 << _GROUP_BITS, -1)
    has_bit = (np.arange(1 << _GROUP_BITS) >> np.arange(_GROUP_BITS)[:, None]) & 1
    sums = [(of_group[:, bits == 1]).sum(axis=1, dtype=np.uint64) for bits in has_bit]
    return np.concatenate(sums)
