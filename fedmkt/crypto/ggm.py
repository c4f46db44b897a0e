"""Pseudo-random functions as trees, punctured at one point: short keys for long vectors (GGM).

The owner grows each tree from a secret root: a node s has the children F0(s) and F1(s); the leaves are the
vector. For each level it offers two sums, of all left and of all right nodes. The other side has a secret point
for each tree and takes, by oblivious transfer, the one sum on the side where the path to its point does not go: so
it computes every leaf but the one at its point.

F_b(s) = E_b(s) + s with AES under two keys of the session (a correlation-robust hash in the ideal cipher model:
Guo, Katz, Wang, Yu, IEEE S&P 2020, eprint 2019/074). Source: Goldreich, Goldwasser, Micali 1986; Boyle et al.
CCS 2019 (eprint 2019/1159). All trees are full, 2^d leaves: so every way to take one sum of each level, an honest one
or not, leaves exactly one leaf unknown. (In a tree cut short, a path behind the last leaf would leave none.) Nothing
checks that the owner's sums are those of a tree. The computation does not depend on where the points are but for one
node and its sibling in each level.

Letters: t is a number of trees, d their depth, a leaf two uint64 words.
"""

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import readable
from fedmkt.crypto.aes import KEY_WORDS, encrypt, kernel

Words = NDArray[np.uint64]
Points = NDArray[np.int64]

KEYS = 2
"""AES keys of a forest: for left and for right children."""


def choices(points: Points, depth: int) -> NDArray[np.uint8]:
    """Return which sum of each level to take, (t, d): 1 for right, where the path goes left."""
    levels = np.arange(depth - 1, -1, -1)
    return (1 - (points[:, None] >> levels & 1)).astype(np.uint8)


def grow(roots: Words, depth: int, keys: Words, out: Words) -> Words:
    """Grow trees from roots (t, 2) into the leaves `out` (t * 2^d, 2); return the sums (t, d, 2, 2).

    keys : (2, 22), round keys. sums[i, k, b] is the sum of the left (b = 0) or right nodes of level k + 1.
    """
    _check(out, len(roots), depth, keys)
    sums = np.empty((len(roots), depth, 2, 2), dtype=np.uint64)
    _grow(readable(roots).reshape(-1), depth, readable(keys).reshape(-1), out.reshape(-1), sums.reshape(-1))
    return sums


def grow_punctured(points: Points, sums: Words, depth: int, keys: Words, out: Words) -> None:
    """Grow all leaves but those at `points` (t,) from the taken sums (t, d, 2), into `out` (t * 2^d, 2).

    The leaf at each point becomes the sum of all others of its tree. keys : (2, 22), round keys.
    """
    _check(out, len(points), depth, keys)
    if (
        sums.shape != (len(points), depth, 2)
        or points.min(initial=0) < 0
        or points.max(initial=0) >= 1 << depth
    ):
        raise ValueError(
            "there is one point below the number of leaves for each tree, and one sum for each level"
        )
    _grow_punctured(
        readable(points), readable(sums).reshape(-1), depth, readable(keys).reshape(-1), out.reshape(-1)
    )


def _check(out: Words, trees: int, depth: int, keys: Words) -> None:
    if depth < 1:
        raise ValueError("a tree has at least one level below its root")
    if out.shape != (trees << depth, 2) or not out.flags.c_contiguous or keys.shape != (KEYS, KEY_WORDS):
        raise ValueError(f"{trees} trees of depth {depth} do not fit in {out.shape}")


@kernel
def _level(nodes: Words, count: int, hole: int, keys: Words, left: Words, right: Words, sums: Words) -> None:
    """Replace `count` nodes by their children; add up left and right ones in `sums`.

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
            c ^= right[2 * j]
            d ^= right[2 * j + 1]
    sums[0] = a
    sums[1] = b
    sums[2] = c
    sums[3] = d


@kernel
def _grow(roots: Words, depth: int, keys: Words, out: Words, sums: Words) -> None:
    width = 2 << depth
    nodes = np.zeros(max(width, 16), np.uint64)
    left, right, both = np.empty(16, np.uint64), np.empty(16, np.uint64), np.empty(4, np.uint64)
    for t in range(roots.size // 2):
        nodes[0] = roots[2 * t]
        nodes[1] = roots[2 * t + 1]
        for k in range(depth):
            _level(nodes, 1 << k, -8, keys, left, right, both)
            for z in range(4):
                sums[4 * (depth * t + k) + z] = both[z]
        for z in range(width):
            out[width * t + z] = nodes[z]


@kernel
def _grow_punctured(points: Points, taken: Words, depth: int, keys: Words, out: Words) -> None:
    leaves = 1 << depth
    nodes = np.zeros(max(2 * leaves, 16), np.uint64)
    left, right, sums = np.empty(16, np.uint64), np.empty(16, np.uint64), np.empty(4, np.uint64)
    for t in range(points.size):
        point = points[t]
        nodes[0] = np.uint64(0)
        nodes[1] = np.uint64(0)
        for k in range(depth):
            below = depth - 1 - k
            hole = point >> (below + 1)
            _level(nodes, 1 << k, hole, keys, left, right, sums)
            goes_right = point >> below & 1
            # The other child of the hole is the taken sum less all nodes known on that side.
            other, side = 2 * hole + 1 - goes_right, 2 * (1 - goes_right)
            for z in range(2):
                nodes[2 * other + z] = taken[2 * (depth * t + k) + z] ^ sums[side + z]
        a, b = np.uint64(0), np.uint64(0)
        for i in range(leaves):
            if i != point:
                a ^= nodes[2 * i]
                b ^= nodes[2 * i + 1]
            out[2 * (leaves * t + i)] = nodes[2 * i]
            out[2 * (leaves * t + i) + 1] = nodes[2 * i + 1]
        out[2 * (leaves * t + point)] = a
        out[2 * (leaves * t + point) + 1] = b
