"""Pseudo-random functions as trees, punctured at one point: short keys for long vectors (GGM).

The owner grows each tree from a secret root: a node s has the children F0(s) and F1(s); the leaves are the
vector. For each level it offers two sums, of all left and of all right nodes. The other side has a secret point
for each tree and takes, by oblivious transfer, the one sum on the side where the path to its point does not go: so
it computes every leaf but the one at its point.

F_b(s) = E_b(s) + s with AES under two keys of the session (a correlation-robust hash in the ideal cipher model:
Guo, Katz, Wang, Yu, IEEE S&P 2020, eprint 2019/074). Source: Goldreich, Goldwasser, Micali 1986; Boyle et al.
CCS 2019 (eprint 2019/1159). All trees have the same number of leaves, not only powers of two: nodes
beyond the last leaf are not grown. The computation does not depend on where the points are but for one node and
its sibling in each level.

Letters: t is a number of trees, d a depth, a leaf two uint64 words.
"""

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import readable
from fedmkt.crypto.aes import KEY_WORDS, encrypt, kernel

Words = NDArray[np.uint64]
Points = NDArray[np.int64]

KEYS = 2
"""AES keys of a forest: for left and for right children."""


def depth(leaves: int) -> int:
    """Return the number of levels below the root of a tree with this many leaves, at least two."""
    if leaves < 2:
        raise ValueError("a tree has at least two leaves")
    return (leaves - 1).bit_length()


def choices(points: Points, leaves: int) -> NDArray[np.uint8]:
    """Return which sum of each level to take, (t, d): 1 for right, where the path goes left."""
    levels = np.arange(depth(leaves) - 1, -1, -1)
    return (1 - (points[:, None] >> levels & 1)).astype(np.uint8)


def grow(roots: Words, leaves: int, keys: Words, out: Words) -> Words:
    """Grow trees from roots (t, 2) into the leaves `out` (t * leaves, 2); return the sums (t, d, 2, 2).

    keys : (2, 22), round keys. sums[i, k, b] is the sum of the left (b = 0) or right nodes of level k + 1.
    """
    sums = np.empty((len(roots), depth(leaves), 2, 2), dtype=np.uint64)
    _check(out, len(roots), leaves, keys)
    _grow(readable(roots).reshape(-1), leaves, readable(keys).reshape(-1), out.reshape(-1), sums.reshape(-1))
    return sums


def grow_punctured(points: Points, sums: Words, leaves: int, keys: Words, out: Words) -> None:
    """Grow all leaves but those at `points` (t,) from the taken sums (t, d, 2), into `out` (t * leaves, 2).

    The leaf at each point becomes the sum of all others of its tree. keys : (2, 22), round keys.
    """
    _check(out, len(points), leaves, keys)
    if (
        sums.shape != (len(points), depth(leaves), 2)
        or points.min(initial=0) < 0
        or points.max(initial=0) >= leaves
    ):
        raise ValueError(
            "there is one point below the number of leaves for each tree, and one sum for each level"
        )
    _grow_punctured(
        readable(points), readable(sums).reshape(-1), leaves, readable(keys).reshape(-1), out.reshape(-1)
    )


def _check(out: Words, trees: int, leaves: int, keys: Words) -> None:
    if out.shape != (trees * leaves, 2) or not out.flags.c_contiguous or keys.shape != (KEYS, KEY_WORDS):
        raise ValueError(f"{trees} trees with {leaves} leaves do not fit in {out.shape}")


@kernel
def _level(
    nodes: Words, count: int, wanted: int, hole: int, keys: Words, left: Words, right: Words, sums: Words
) -> None:
    """Replace `count` nodes by their children, the first `wanted` of them; add up left and right ones in `sums`.

    The children of node `hole` become zero.
    """
    a, b, c, d = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
    # From the last node on: children lie at 2i and 2i + 1, beyond what is still to be read.
    for start in range((count - 1) // 8 * 8, -1, -8):
        encrypt(nodes, 2 * start, left, 0, keys, 0, 8)
        encrypt(nodes, 2 * start, right, 0, keys, 22, 8)
        for z in range(16):
            s = nodes[2 * start + z]
            left[z] ^= s
            right[z] ^= s
        if start <= hole < start + 8:
            for z in range(2 * (hole - start), 2 * (hole - start) + 2):
                left[z] = np.uint64(0)
                right[z] = np.uint64(0)
        for j in range(min(8, count - start) - 1, -1, -1):
            i = 4 * (start + j)
            nodes[i] = left[2 * j]
            nodes[i + 1] = left[2 * j + 1]
            nodes[i + 2] = right[2 * j]
            nodes[i + 3] = right[2 * j + 1]
            a ^= left[2 * j]
            b ^= left[2 * j + 1]
            if 2 * (start + j) + 1 < wanted:
                c ^= right[2 * j]
                d ^= right[2 * j + 1]
    sums[0] = a
    sums[1] = b
    sums[2] = c
    sums[3] = d


@kernel
def _grow(roots: Words, leaves: int, keys: Words, out: Words, sums: Words) -> None:
    nodes = np.zeros(4 * leaves + 64, np.uint64)
    left, right, both = np.empty(16, np.uint64), np.empty(16, np.uint64), np.empty(4, np.uint64)
    trees = roots.size // 2
    levels = sums.size // (4 * trees)
    for t in range(trees):
        nodes[0] = roots[2 * t]
        nodes[1] = roots[2 * t + 1]
        count = 1
        for k in range(levels):
            below = levels - 1 - k
            wanted = (leaves + (1 << below) - 1) >> below
            _level(nodes, count, wanted, -8, keys, left, right, both)
            for z in range(4):
                sums[4 * (levels * t + k) + z] = both[z]
            count = wanted
        for z in range(2 * leaves):
            out[2 * leaves * t + z] = nodes[z]


@kernel
def _grow_punctured(points: Points, taken: Words, leaves: int, keys: Words, out: Words) -> None:
    nodes = np.zeros(4 * leaves + 64, np.uint64)
    left, right, sums = np.empty(16, np.uint64), np.empty(16, np.uint64), np.empty(4, np.uint64)
    trees = points.size
    levels = taken.size // (2 * trees)
    for t in range(trees):
        point = points[t]
        nodes[0] = np.uint64(0)
        nodes[1] = np.uint64(0)
        count = 1
        for k in range(levels):
            below = levels - 1 - k
            wanted = (leaves + (1 << below) - 1) >> below
            hole = point >> (below + 1)
            _level(nodes, count, wanted, hole, keys, left, right, sums)
            goes_right = point >> below & 1
            # The other child of the hole is the taken sum less all nodes known on that side.
            other = 2 * hole + 1 - goes_right
            if other < wanted:
                side = 2 * (1 - goes_right)
                for z in range(2):
                    nodes[2 * other + z] = taken[2 * (levels * t + k) + z] ^ sums[side + z]
            count = wanted
        a, b = np.uint64(0), np.uint64(0)
        for i in range(leaves):
            if i != point:
                a ^= nodes[2 * i]
                b ^= nodes[2 * i + 1]
            out[2 * (leaves * t + i)] = nodes[2 * i]
            out[2 * (leaves * t + i) + 1] = nodes[2 * i + 1]
        out[2 * (leaves * t + point)] = a
        out[2 * (leaves * t + point) + 1] = b
