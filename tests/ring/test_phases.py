"""Comparison, powers of two and the largest of fractions on shares against the same in plain."""

import numpy as np
import pytest

from fedmkt.ring.dealt_rounds import Lift, LookUp, Round
from fedmkt.ring.phases import Phase, bits_of, compare, largest, power, thresholds
from tests.ring.two_parties import run, shared


def one(operation, *inputs):
    """Make a phase of one operation whose first result is kept as `out`."""
    return Phase(
        (operation,),
        lambda values, first: [[values[i] for i in inputs]],
        lambda values, first, results: values | {"out": results[0][0]},
    )


@pytest.mark.parametrize("bits", [32, 64])
def test_a_comparison_tells_the_sign(bits):
    random = np.random.default_rng(bits)
    most = 1 << (bits - 1)
    x = np.concatenate(
        [
            [0, 1, -1, most - 1, -most, 2, -2, 255],
            random.integers(-most, most, 800),
            random.integers(-9, 9, 192),
        ]
    )
    a, b = shared(x)
    first, second = run(compare("x", "passed", len(x), bits), [{"x": a}, {"x": b}])
    found = np.unpackbits(first["passed"] ^ second["passed"], bitorder="little")
    assert (found == (x >= 0)).all() and set(first) == {"passed"}


def test_a_power_of_two_brings_a_number_to_its_highest_bit():
    x = np.concatenate([np.arange(1, 9), np.random.default_rng(1).integers(1, 1 << 20, 96)])
    a, b = shared(x)
    size = 19 * len(x)
    values = [{"x": thresholds(v, 20, f).reshape(-1)} for v, f in ((a, True), (b, False))]
    first, second = run([*compare("x", "t", size, 32), one(bits_of(size), "t")], values)
    found = sum(power(v["out"].reshape(19, -1), 20, f) for v, f in ((first, True), (second, False)))
    assert (x * found.astype(np.int64) >> 19 == 1).all()


def test_roundings_and_tables_are_those_of_the_numbers():
    x = np.random.default_rng(3).integers(-(1 << 27), 1 << 27, 500)
    a, b = (v.astype(np.uint32) << np.uint32(2) for v in shared(x))
    first, second = run([one(Lift(500, 2), "x")], [{"x": a}, {"x": b}])
    assert ((first["out"] + second["out"]).view(np.int64) == x).all()
    a, b = shared(x << 20)
    first, second = run([one(Round(500, 25), "x")], [{"x": a}, {"x": b}])
    assert np.abs((first["out"] + second["out"]).view(np.int64) - x / 32).max() <= 1
    table, at = tuple(range(7, 7 + 64)), np.arange(640)
    a, b = shared(at)
    first, second = run([one(LookUp(640, table), "x")], [{"x": a}, {"x": b}])
    assert ((first["out"] + second["out"]) == at % 64 + 7).all()


@pytest.mark.parametrize("members", [2, 7, 8, 9, 70])
def test_the_largest_fraction_is_found_and_of_equal_ones_the_first(members):
    random = np.random.default_rng(members)
    rows = 5
    top, bottom = random.integers(0, 1 << 40, (rows, members)), random.integers(1, 1 << 22, (rows, members))
    top[1], bottom[1] = 0, 1
    top[2], bottom[2] = bottom[2] * 3, bottom[2]
    along = np.tile(np.arange(members), (rows, 1))
    table = np.array([top, bottom, along])
    a, b = shared(table)
    first, second = run(largest("x", 3, rows, members), [{"x": a}, {"x": b}])
    found = (first["x"] + second["x"]).view(np.int64)[..., 0]
    best = [max(range(members), key=lambda i: (int(top[r, i]) / int(bottom[r, i]), -i)) for r in range(rows)]
    assert found[2].tolist() == best and found[0].tolist() == [top[r, i] for r, i in enumerate(best)]


def test_what_is_opened_is_uniform():
    seen = {}
    for x in (0, 12345678):
        watch = []
        a, b = shared(np.full(4096, x))
        run(compare("x", "passed", 4096, 32), [{"x": a}, {"x": b}], watch=watch)
        seen[x] = [np.unpackbits(w.view(np.uint8)).mean() for w in watch]
    assert all(abs(m - 0.5) < 0.01 for means in seen.values() for m in means)
