"""An oblivious key-value store: a table from which every key decodes to its value, and any other key to noise.

An item x is 128 bits. Its row in a table of m elements of GF(2^128) has three places, one in each third of the
sparse part, and 64 bits that select among the dense columns at the end; x decodes to the sum of what it selects.
`encode` makes the table that decodes each own item x to H(x) and is uniform among all tables that do. It shows
nothing of the items where the values are pseudo-random; the engine masks it besides.

Encoding peels: an item that has a place alone is solved last, whatever else it selects. Items that cannot be
peeled (the 2-core) are solved by elimination over GF(2) on their places and the dense columns, so none is lost.
The sparse part has the larger of 1.27 n rows (Garimella, Pinkas, Rosulek, Trieu, Yanai, CRYPTO 2021, eprint 2021/883)
and what Raghuraman and Rindal (CCS 2022, eprint 2022/320; `PaxosParam::init` of Visa-Research/volepsi) found to leave
more than g items but once in 2^40 times, g <= 11 for every n. The rows of g items are independent in 64 random columns
but once in 2^(64 - g) >= 2^53 times. That bounds failure by 2^-40; elimination starts with the sparse columns, so it is
rarer. Of 180,000 tables of 1 to 5,000 items none failed: 1 % needed one dense column, 9 needed two, none more. If it
happens, a table under other keys is made, of which the other side sees the number and nobody else.

Keys are public to both sides, but must be drawn after the items are fixed: whoever knows them can choose items
with equal rows. So items are hashes, and the keys come from a joint session key. For every fixed set of distinct
items the bounds above hold, with AES under a fresh key as a random function.

n is a number of items.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import readable
from fedmkt.crypto import prg
from fedmkt.crypto.aes import KEY_WORDS, encrypt, kernel

Words = NDArray[np.uint64]
Places = NDArray[np.uint32]

DENSE = 64
"""Dense columns."""
KEYS = 3
"""AES keys of a table: for the places, for the dense columns, for the value."""
MOST_ITEMS = 1 << 29
"""So that a table has less than 2^30 rows, of 16 bytes each."""
_LARGEST_CORE = 4096
_SECURITY = 40


class Unsolvable(ValueError):
    """The rows of the items depend on one another under these keys: once in 2^40 times."""


@dataclass(frozen=True)
class Shape:
    """The size of a table: three thirds of a sparse part, then the dense columns."""

    third: int

    @property
    def sparse(self) -> int:
        """Rows of the sparse part."""
        return 3 * self.third

    @property
    def size(self) -> int:
        """Rows of the table."""
        return self.sparse + DENSE


def expansion(items: int) -> float:
    """Return the length of the sparse part per item."""
    # Fitted by Raghuraman and Rindal for three places: bits of security grow by `slope` per unit of expansion,
    # from -9.2 bits at the threshold 1.223.
    slope = 2 ** (0.555 * math.log2(max(items, 1)) + 2.336)
    return max(1.27, 1.223 + (_SECURITY + 9.2) / slope)


def shape(items: int) -> Shape:
    """Return the shape of the table of this many items; both sides compute it."""
    if not 0 <= items <= MOST_ITEMS:
        raise ValueError(f"a table holds up to {MOST_ITEMS} items, not {items}")
    return Shape(math.ceil(expansion(items) * max(items, 1) / 3))


def encode(items: Words, keys: Words, fill: bytes) -> Words:
    """Return a table (size, 2) for distinct items (n, 2).

    keys : (3, 22), round keys; fill : 32 fresh secret bytes for what the items leave free.
    Raises Unsolvable.
    """
    own = _checked(items)
    layout, flat = shape(len(own)), _flat(keys)
    places = np.empty(3 * len(own), dtype=np.uint32)
    _find_places(own.reshape(-1), flat, layout.third, places)
    order = np.empty(len(own), dtype=np.int32)
    alone = np.empty(len(own), dtype=np.int32)
    peeled = int(_peel(places, layout.sparse, order, alone))
    table = prg.words(fill, (layout.size, 2))
    if peeled < len(own):
        is_core = np.ones(len(own), dtype=np.bool_)
        is_core[order[:peeled]] = False
        core = np.flatnonzero(is_core)
        _solve_core(own[core], places.reshape(-1, 3)[core], keys, layout, table)
    sums = _dense_sums(table, layout)
    _assign(own.reshape(-1), flat, places, order[:peeled], alone, sums, table.reshape(-1))
    return table


def decode(table: Words, items: Words, keys: Words, layout: Shape) -> Words:
    """Return what items (n, 2), own or foreign, decode to in a table of this shape: (n, 2)."""
    if table.shape != (layout.size, 2):
        raise ValueError(f"a table of {layout.size} rows was expected, not {table.shape}")
    out = np.empty((len(items), 2), dtype=np.uint64)
    sums = _dense_sums(table, layout)
    _decode(
        readable(table).reshape(-1),
        sums,
        layout.third,
        _checked(items).reshape(-1),
        _flat(keys),
        out.reshape(-1),
    )
    return out


def values(items: Words, keys: Words) -> Words:
    """Return H(x) of items (n, 2): what they decode to where they were encoded."""
    out = np.empty((len(items), 2), dtype=np.uint64)
    _values(_checked(items).reshape(-1), _flat(keys), out.reshape(-1))
    return out


def _checked(items: Words) -> Words:
    if items.ndim != 2 or items.shape[1] != 2 or items.dtype != np.uint64:
        raise ValueError(f"items are (n, 2) uint64, got {items.shape} {items.dtype}")
    return readable(items)


def _flat(keys: Words) -> Words:
    if keys.shape != (KEYS, KEY_WORDS):
        raise ValueError(f"a table has {KEYS} keys")
    return readable(keys).reshape(-1)


def _dense_sums(table: Words, layout: Shape) -> Words:
    sums = np.empty(8 * 256 * 2, dtype=np.uint64)
    _sum_dense(readable(table[layout.sparse :]).reshape(-1), sums)
    return sums


def _solve_core(items: Words, places: Places, keys: Words, layout: Shape, table: Words) -> None:
    """Write the table at the places of items that cannot be peeled, and what they need of the dense columns."""
    if len(items) > _LARGEST_CORE:
        raise Unsolvable("too many items are left after peeling")
    columns, index = np.unique(places, return_inverse=True)
    # Bit j of a row is dense column j, bit 64 + j the j-th of the places; pivots are highest bits.
    at = np.concatenate([layout.sparse + np.arange(DENSE), columns]).astype(np.int64)
    dense = np.empty(len(items), dtype=np.uint64)
    _dense_bits(readable(items).reshape(-1), _flat(keys), dense)
    wanted = values(items, keys)
    pivots: dict[int, tuple[int, int]] = {}
    for i, spots in enumerate(index.reshape(-1, 3).tolist()):
        row = int(dense[i]) | sum(1 << (DENSE + spot) for spot in spots)
        value = int(wanted[i, 0]) | int(wanted[i, 1]) << 64
        while row and row.bit_length() - 1 in pivots:
            other, known = pivots[row.bit_length() - 1]
            row, value = row ^ other, value ^ known
        if row:
            pivots[row.bit_length() - 1] = (row, value)
        elif value:
            raise Unsolvable("two sums of rows are equal")
    for pivot in sorted(pivots):
        row, value = pivots[pivot]
        lower = at[[j for j in range(pivot) if row >> j & 1]]
        solved = np.bitwise_xor.reduce(table[lower], axis=0) ^ np.array(
            [value & 2**64 - 1, value >> 64], np.uint64
        )
        table[at[pivot]] = solved


@kernel
def _find_places(items: Words, keys: Words, third: int, places: Places) -> None:
    n = items.size // 2
    source, hashed = np.zeros(16, np.uint64), np.empty(16, np.uint64)
    low, half, width = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(third)
    for start in range(0, n, 8):
        count = min(8, n - start)
        for z in range(2 * count):
            source[z] = items[2 * start + z]
        encrypt(source, 0, hashed, 0, keys, 0, 8)
        for j in range(count):
            a, b, i = hashed[2 * j], hashed[2 * j + 1], 3 * (start + j)
            places[i] = np.uint32((a & low) * width >> half)
            places[i + 1] = np.uint32(width + ((a >> half) * width >> half))
            places[i + 2] = np.uint32(width + width + ((b & low) * width >> half))


@kernel
def _dense_bits(items: Words, keys: Words, dense: Words) -> None:
    hashed = np.empty(2, np.uint64)
    for i in range(dense.size):
        encrypt(items, 2 * i, hashed, 0, keys, 22, 1)
        dense[i] = hashed[0]


@kernel
def _values(items: Words, keys: Words, out: Words) -> None:
    n = items.size // 2
    source, hashed = np.zeros(16, np.uint64), np.empty(16, np.uint64)
    for start in range(0, n, 8):
        count = min(8, n - start)
        for z in range(2 * count):
            source[z] = items[2 * start + z]
        encrypt(source, 0, hashed, 0, keys, 44, 8)
        for z in range(2 * count):
            out[2 * start + z] = hashed[z] ^ source[z]


@kernel
def _peel(places: Places, sparse: int, order: NDArray[np.int32], alone: NDArray[np.int32]) -> int:
    """Find an order in which each item has a place that no later one has; return how many items it holds."""
    n = places.size // 3
    # For each place: how many items have it, and the exclusive or of their numbers.
    held = np.zeros(2 * sparse, dtype=np.uint32)
    for i in range(n):
        for j in range(3):
            p = 2 * np.int64(places[3 * i + j])
            held[p] += np.uint32(1)
            held[p + 1] ^= np.uint32(i)
    # A place is pushed when it comes to be held once, so at most once, and once by the scan.
    waiting = np.empty(sparse + 1, dtype=np.int32)
    found = 0
    for scan in range(sparse):
        if held[2 * scan] != 1:
            continue
        waiting[0] = scan
        top = 1
        while top:
            top -= 1
            p = np.int64(waiting[top])
            if held[2 * p] != 1:
                continue
            item = np.int64(held[2 * p + 1])
            order[found] = item
            alone[found] = p
            found += 1
            for j in range(3):
                q = np.int64(places[3 * item + j])
                held[2 * q] -= np.uint32(1)
                held[2 * q + 1] ^= np.uint32(item)
                if held[2 * q] == 1:
                    waiting[top] = q
                    top += 1
    return found


@kernel
def _sum_dense(dense: Words, sums: Words) -> None:
    """For each byte of the dense bits the sums that its 256 values select: 8 tables of 256 elements."""
    for t in range(8):
        base = 512 * t
        sums[base] = np.uint64(0)
        sums[base + 1] = np.uint64(0)
        for j in range(8):
            for k in range(1 << j):
                for z in range(2):
                    sums[base + 2 * (k + (1 << j)) + z] = sums[base + 2 * k + z] ^ dense[2 * (8 * t + j) + z]


@kernel
def _assign(
    items: Words,
    keys: Words,
    places: Places,
    order: NDArray[np.int32],
    alone: NDArray[np.int32],
    sums: Words,
    table: Words,
) -> None:
    source, value, dense = np.zeros(16, np.uint64), np.empty(16, np.uint64), np.empty(16, np.uint64)
    byte = np.uint64(0xFF)
    for end in range(order.size, 0, -8):
        count = min(8, end)
        for j in range(count):
            i = 2 * np.int64(order[end - 1 - j])
            source[2 * j] = items[i]
            source[2 * j + 1] = items[i + 1]
        encrypt(source, 0, dense, 0, keys, 22, 8)
        encrypt(source, 0, value, 0, keys, 44, 8)
        for j in range(count):
            at, p = 3 * np.int64(order[end - 1 - j]), 2 * np.int64(alone[end - 1 - j])
            a, b = value[2 * j] ^ source[2 * j], value[2 * j + 1] ^ source[2 * j + 1]
            for t in range(8):
                s = 512 * t + 2 * np.int64(dense[2 * j] >> np.uint64(8 * t) & byte)
                a ^= sums[s]
                b ^= sums[s + 1]
            for k in range(3):
                q = 2 * np.int64(places[at + k])
                if q != p:
                    a ^= table[q]
                    b ^= table[q + 1]
            table[p] = a
            table[p + 1] = b


@kernel
def _decode(table: Words, sums: Words, third: int, items: Words, keys: Words, out: Words) -> None:
    n = items.size // 2
    source, hashed, dense = np.zeros(16, np.uint64), np.empty(16, np.uint64), np.empty(16, np.uint64)
    low, half, width, byte = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(third), np.uint64(0xFF)
    one = np.uint64(1)
    for start in range(0, n, 8):
        count = min(8, n - start)
        for z in range(2 * count):
            source[z] = items[2 * start + z]
        encrypt(source, 0, hashed, 0, keys, 0, 8)
        encrypt(source, 0, dense, 0, keys, 22, 8)
        for j in range(count):
            a, b = hashed[2 * j], hashed[2 * j + 1]
            # Unsigned places: a signed index costs a test for counting from the end.
            p = ((a & low) * width >> half) << one
            q = (width + ((a >> half) * width >> half)) << one
            r = (width + width + ((b & low) * width >> half)) << one
            x = table[p] ^ table[q] ^ table[r]
            y = table[p + one] ^ table[q + one] ^ table[r + one]
            for t in range(8):
                s = np.uint64(512 * t) + ((dense[2 * j] >> np.uint64(8 * t) & byte) << one)
                x ^= sums[s]
                y ^= sums[s + one]
            out[2 * (start + j)] = x
            out[2 * (start + j) + 1] = y
