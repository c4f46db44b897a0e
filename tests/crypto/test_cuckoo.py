import math
import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.crypto import cuckoo
from fedmkt.crypto.prg import SeededRandom

RANDOM = SeededRandom(b"cuckoo")


def values(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (n, 2), dtype=np.uint64)


def check(own, placement):
    """Every item lies once, and in the bin that its named hash gives it."""
    bins = len(placement.items)
    full = np.flatnonzero(placement.items >= 0)
    items = placement.items[full]
    assert np.array_equal(np.sort(items), np.arange(len(own)))
    where = cuckoo.places(own, placement.key, bins)
    assert np.array_equal(where[items, placement.numbers[full]], full)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 1000))
def test_every_item_has_a_bin_of_its_own(n, seed):
    own = values(n, seed)
    check(own, cuckoo.place(own, cuckoo.bins_for(n), RANDOM))


@pytest.mark.parametrize("load", [1.11, 1.15, 1.2])
def test_no_item_is_lost_in_bins_so_few_that_walks_are_long(load):
    own = values(20_000)
    check(own, cuckoo.place(own, int(load * len(own)), RANDOM))


def test_search_finds_a_placement_whenever_there_is_one(monkeypatch):
    # 7 items in 7 or 8 bins, against trying all 3^7 ways.
    monkeypatch.setattr(cuckoo, "_TRIES", 1)
    outcomes = set()
    for seed in range(150):
        bins = 7 + seed % 2
        own, random = values(7, seed), SeededRandom(seed.to_bytes(8, "big"))
        where = cuckoo.places(own, random(16), bins)
        exists = any(
            len({where[i, j] for i, j in enumerate(way)}) == 7 for way in product(range(3), repeat=7)
        )
        outcomes.add(exists)
        again = SeededRandom(seed.to_bytes(8, "big"))
        if exists:
            check(own, cuckoo.place(own, bins, again))
        else:
            with pytest.raises(ValueError, match="cannot be placed"):
                cuckoo.place(own, bins, again)
    assert outcomes == {True, False}


def test_paths_alone_find_what_walks_find():
    # `_push` without any walk before it, on a table that is nearly full.
    own = values(300)
    bins = 340
    where = cuckoo.places(own, bytes(16), bins)
    items, numbers = np.full(bins, -1, np.int32), np.zeros(bins, np.uint8)
    done = [cuckoo._push(where, items, numbers, i) for i in range(300)]
    assert all(done)
    check(own, cuckoo.Placement(bytes(16), items, numbers))


def test_a_list_with_equal_items_is_refused_and_does_not_run_on():
    start = time.process_time()
    with pytest.raises(ValueError, match="not distinct"):
        cuckoo.place(np.zeros((500, 2), np.uint64), 1000, RANDOM)
    assert time.process_time() - start < 5


def test_a_key_that_fails_is_followed_by_a_fresh_one():
    asked = []

    def random(n):
        asked.append(n)
        return RANDOM(n)

    own = values(5)
    while len(asked) < 4:
        asked.clear()
        check(own, cuckoo.place(own, 5, random))


def log2_failure_by_hand(n, m):
    """Sum the module's formula term by term with whole numbers: the coefficient exactly, not its bound."""
    total = 0.0
    for k in range(4, n + 1):
        b = k - 1
        # (e^z - 1 - z)^b at z^3k, times (3k)!: ways to name each of b bins twice or more with 3k names.
        ways = min(surjections(3 * k, b), (b * (b - 1) * (b - 2)) ** k)
        total += math.comb(n, k) * math.comb(m, b) * ways / (m * (m - 1) * (m - 2)) ** k
    return math.log2(total)


def surjections(balls, bins):
    """Count the ways to put balls into bins so that every bin has two or more."""
    table = [1] + [0] * balls
    for used in range(bins):
        table = [
            sum(math.comb(total, here) * table[total - here] for here in range(2, total + 1))
            if total >= 2 * (used + 1)
            else 0
            for total in range(balls + 1)
        ]
    return table[balls]


@pytest.mark.parametrize(("n", "bins"), [(4, 10), (5, 41), (8, 72), (10, 60), (12, 143)])
def test_bound_is_the_formula_of_the_docstring(n, bins):
    exact, bound = log2_failure_by_hand(n, bins), cuckoo.log2_failure(n, bins)
    assert exact <= bound + 1e-9 and bound < exact + 4


@pytest.mark.parametrize(("n", "bins"), [(4, 5), (4, 6), (5, 7)])
def test_bound_is_above_the_frequency_of_failures(n, bins):
    trials = 30_000
    where = cuckoo.places(values(trials * n), b"k" * 16, bins).reshape(trials, n, 3)
    failed = 0
    for lists in where.tolist():
        failed += not any(len(set(way)) == n for way in product(*lists))
    bound = trials * 2 ** cuckoo.log2_failure(n, bins)
    assert 0 < failed < bound + 5 * math.sqrt(bound)


@pytest.mark.parametrize("n", [*range(4, 1000, 7), 10**4, 10**5, 10**6, 10**7, 10**8])
def test_placement_fails_less_than_once_in_two_to_the_41(n):
    assert cuckoo.log2_failure(n, cuckoo.bins_for(n)) < -41


def test_bins_are_few():
    assert cuckoo.bins_for(10**6) < 1.2972 * 10**6 and cuckoo.bins_for(10**7) < 1.2971 * 10**7
    with pytest.raises(ValueError):
        cuckoo.bins_for(2 * 10**9)


def by_hand(a, b, bins):
    """Map 128 bits to three bins with whole numbers of any size."""
    bits = int(a) | int(b) << 64
    parts = [(bits >> 42 * i & (1 << 42) - 1) * (bins - i) >> 42 for i in range(3)]
    chosen = []
    for part in parts:
        for taken in sorted(chosen):
            part += part >= taken
        chosen.append(part)
    return chosen


@pytest.mark.parametrize("bins", [3, 4, 5, 1000, 2**24 + 1, 2**31 - 1])
def test_bins_are_scaled_from_42_bits_each_and_distinct(bins):
    hashed = values(300, 5)
    hashed[:4] = [[0, 0], [2**64 - 1, 2**64 - 1], [2**42 - 1, 0], [2**63, 2**63]]
    for a, b in hashed:
        found = [int(v) for v in cuckoo.bins_of(a, b, np.uint64(bins))]
        assert found == by_hand(a, b, bins)
        assert len(set(found)) == 3 and max(found) < bins


def test_bins_are_uniform():
    found = cuckoo.places(values(60_000), b"q" * 16, 30)
    for column in found.T:
        # 29 degrees of freedom: beyond 90 once in ten million times.
        assert ((np.bincount(column, minlength=30) - 2000) ** 2 / 2000).sum() < 90


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 31])
def test_places_of_a_list_are_those_of_its_items(n):
    own = values(n)
    found = cuckoo.places(own, b"k" * 16, 1000)
    assert found.shape == (n, 3)
    for i in range(n):
        assert np.array_equal(cuckoo.places(own[i : i + 1], b"k" * 16, 1000)[0], found[i])


def test_another_key_gives_other_bins():
    own = values(1000)
    assert (cuckoo.places(own, bytes(16), 10**6) == cuckoo.places(own, b"1" * 16, 10**6)).sum() < 20


def test_keys_and_numbers_of_bins_are_checked():
    with pytest.raises(ValueError, match="16 bytes"):
        cuckoo.places(values(3), bytes(15), 100)
    for bins in (2, 2**31):
        with pytest.raises(ValueError, match="bins"):
            cuckoo.places(values(3), bytes(16), bins)
