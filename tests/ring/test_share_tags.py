"""Tags on numbers that one party holds, and sums over random subsets, against plain integers."""

import numpy as np
import pytest

from fedmkt.ring.share_tags import SUBSETS, draw_subsets, subset_sums, turned, weigh
from fedmkt.ring.side_bits import owner_part

ROWS = 200


def drawn(random, *shape):
    return random.integers(0, 1 << 64, shape, dtype=np.uint64)


def test_tags_of_a_product_are_tagged_where_both_know_the_factors():
    """c v + (1 - 2 c) w, of numbers in two lanes, of their tags and of their keys."""
    random = np.random.default_rng(1)
    alpha, (v, w) = drawn(random, 2), drawn(random, 2, 2, 3, ROWS)
    keys = drawn(random, 2, 3, ROWS)
    tags = [weigh(alpha, x) + key for x, key in zip((v, w), keys, strict=True)]
    c = random.random((3, ROWS)) < 0.5
    x = [turned(c, a, b) for a, b in zip(v, w, strict=True)]
    assert (turned(c, *tags) == weigh(alpha, x) + turned(c, *keys)).all()
    assert (x[0][c] == (v[0] - w[0])[c]).all() and (x[0][~c] == w[0][~c]).all()


def test_the_share_of_a_party_that_owns_the_bits_is_the_one_it_has_anyway():
    """c y + (1 - 2 c) y u + c v + (1 - 2 c) (share of u v, of both masks) is what `owner_part` computes."""
    random = np.random.default_rng(2)
    x, opened, v, dealt = drawn(random, 4, 2, ROWS)
    u, beta = random.random((2, 2, ROWS)) < 0.5
    c, y = beta ^ u, x - v + opened
    share = c * y + turned(c, np.zeros_like(y), y * u) + turned(c, v, dealt + u * v)
    assert (share == owner_part(beta, c, opened, x, dealt)).all()


def test_sums_over_subsets_are_those_of_the_drawn_rows():
    subsets, vectors = draw_subsets(bytes(32), ROWS), drawn(np.random.default_rng(3), ROWS, 4)
    found = subset_sums(subsets, vectors)
    assert found.shape == (SUBSETS, 4)
    for k in range(SUBSETS):
        members = (subsets[k % 3] >> (k // 3)) & 1 == 1
        assert (found[k] == vectors[members].sum(axis=0, dtype=np.uint64)).all()


@pytest.mark.parametrize(
    "off", [{5: 1}, {5: 1 << 63}, {5: 1 << 40, 9: -(1 << 40)}, {5: 1 << 62, 9: 1 << 62, 11: 1 << 63}]
)
def test_a_vector_that_is_off_is_off_in_about_half_of_the_sums(off):
    vector, wrong = np.zeros((ROWS, 1), np.uint64), []
    for row, number in off.items():
        vector[row] = number % 2**64
    for seed in range(200):
        subsets = draw_subsets(seed.to_bytes(32, "big"), ROWS)
        wrong.append((subset_sums(subsets, vector) != 0).sum())
    assert min(wrong) > 0 and np.mean(wrong) > SUBSETS * 0.47


def test_a_number_that_is_off_modulo_its_lane_has_a_tag_that_is_as_far_off_as_chance():
    """Whatever is added to the tag fits at most one in 2^(64 - k) keys; here k = 56, so that it can be counted."""
    random = np.random.default_rng(4)
    alpha = drawn(random, 1 << 16)
    for e in (1 << 55, 3 << 54, 1 << 50):
        _, counts = np.unique(alpha * np.uint64(e), return_counts=True)
        assert counts.max() < 1.4 * len(alpha) / 2**8
