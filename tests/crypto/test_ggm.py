import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedmkt.crypto import aes, ggm

KEYS = np.arange(32, dtype=np.uint8).reshape(2, 16)
SCHEDULES = aes.round_keys(KEYS)


def plain_levels(root, depth):
    """Grow a tree level by level."""
    levels = [[root]]
    for _ in range(depth):
        levels.append([child for node in levels[-1] for child in map(lambda b, n=node: grown(n, b), (0, 1))])
    return levels


def grown(node, side):
    cipher = Cipher(algorithms.AES(KEYS[side].tobytes()), modes.ECB()).encryptor()
    return bytes(a ^ b for a, b in zip(cipher.update(node), node, strict=True))


def total(nodes):
    return np.bitwise_xor.reduce([np.frombuffer(n, np.uint8) for n in nodes], axis=0).tobytes()


def roots(trees, seed=1):
    return np.random.default_rng(seed).integers(0, 2**64, (trees, 2), dtype=np.uint64)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_leaves_and_sums_are_those_of_a_plain_tree(depth):
    start, leaves = roots(3), 1 << depth
    out = np.empty((3 * leaves, 2), np.uint64)
    sums = ggm.grow(start, depth, SCHEDULES, out)
    for t in range(3):
        levels = plain_levels(start[t].tobytes(), depth)
        assert out[t * leaves : (t + 1) * leaves].tobytes() == b"".join(levels[-1])
        for k, level in enumerate(levels[1:]):
            assert sums[t, k, 0].tobytes() == total(level[::2])
            assert sums[t, k, 1].tobytes() == total(level[1::2])


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_a_punctured_tree_has_every_leaf_but_the_one_at_its_point(depth):
    leaves = 1 << depth
    points = np.arange(leaves)
    start = roots(leaves)
    whole, holed = (np.empty((leaves * leaves, 2), np.uint64) for _ in range(2))
    sums = ggm.grow(start, depth, SCHEDULES, whole)
    choices = ggm.choices(points, depth)
    # Every way to take one sum of each level belongs to a leaf: none leaves no leaf unknown.
    assert len(np.unique(choices, axis=0)) == 1 << depth
    taken = np.take_along_axis(sums, choices[:, :, None, None].astype(np.int64), axis=2)[:, :, 0]
    ggm.grow_punctured(points, taken, depth, SCHEDULES, holed)
    whole, holed = whole.reshape(leaves, leaves, 2), holed.reshape(leaves, leaves, 2)
    assert np.array_equal((whole == holed).all(axis=2), ~np.eye(leaves, dtype=bool))
    missing = np.bitwise_xor.reduce(whole, axis=1) ^ whole[points, points]
    assert np.array_equal(holed[points, points], missing)


def test_without_the_right_sums_the_missing_leaf_stays_unknown():
    points, start = np.zeros(1, np.int64), roots(1)
    out, other = (np.empty((8, 2), np.uint64) for _ in range(2))
    sums = ggm.grow(start, 3, SCHEDULES, out)
    # The sums on the side of the path instead of the other: no leaf comes out.
    ggm.grow_punctured(points, np.ascontiguousarray(sums[:, :, 0]), 3, SCHEDULES, other)
    assert not (out == other).all(axis=1).any()


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one level"):
        ggm.grow(roots(2), 0, SCHEDULES, np.empty((2, 2), np.uint64))
    with pytest.raises(ValueError, match="do not fit"):
        ggm.grow(roots(2), 2, SCHEDULES, np.empty((7, 2), np.uint64))
    out, sums = np.empty((8, 2), np.uint64), np.zeros((2, 2, 2), np.uint64)
    with pytest.raises(ValueError, match="one point"):
        ggm.grow_punctured(np.array([0, 4]), sums, 2, SCHEDULES, out)
    with pytest.raises(ValueError, match="one point"):
        ggm.grow_punctured(np.array([0, 3]), sums[:, :1], 2, SCHEDULES, out)
