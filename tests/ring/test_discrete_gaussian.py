"""Discrete Gaussian noise against its definition."""

import math

import numpy as np
import pytest

from fedmkt.crypto.prg import SeededRandom
from fedmkt.ring import discrete_gaussian
from fedmkt.ring.discrete_gaussian import draw, most


def chances(deviation: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(-most(deviation), most(deviation))
    weight = np.exp(-(x**2) / (2.0 * deviation**2))
    return x, weight / weight.sum()


@pytest.mark.parametrize("deviation", [1, 2, 3, 17, 1000])
def test_numbers_come_as_often_as_the_definition_says(deviation: int) -> None:
    size = 200_000
    found = draw(SeededRandom(b"g" * 32), deviation, (size,))
    x, chance = chances(deviation)
    # Cells of at least 20 expected numbers.
    step = max(1, deviation // 4)
    cell = np.clip((found + 5 * deviation) // step, 0, 10 * deviation // step)
    expected = np.bincount(np.clip((x + 5 * deviation) // step, 0, 10 * deviation // step), chance * size)
    seen = np.bincount(cell, minlength=len(expected))
    enough = expected >= 20
    assert enough.sum() >= 7 and expected[~enough].sum() < 100
    square = ((seen - expected)[enough] ** 2 / expected[enough]).sum()
    free = enough.sum() - 1
    assert abs(square - free) < 5 * math.sqrt(2 * free)
    assert np.abs(found).max() < most(deviation)


def test_a_comparison_that_floats_cannot_decide_is_decided_by_more_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With floats taken for wrong everywhere, every number is decided so, and comes as often."""
    monkeypatch.setattr(discrete_gaussian, "_SLACK", 1.0)
    asked: list[int] = []
    decide = discrete_gaussian._is_below
    monkeypatch.setattr(discrete_gaussian, "_is_below", lambda *given: (asked.append(1), decide(*given))[1])
    found = draw(SeededRandom(b"h" * 32), 2, (1500,))
    _, chance = chances(2)
    assert len(asked) > 1500
    assert abs((found == 0).sum() - 1500 * chance[most(2)]) < 5 * math.sqrt(1500 * 0.2)
    assert abs(found.var() - 4) < 5 * 4 * math.sqrt(2 / 1500)


def test_the_slow_comparison_is_right_close_to_the_edge() -> None:
    bits = 53
    for x, deviation in ((1, 1), (5, 2), (40, 7)):
        edge = math.exp(-(x * x) / (2 * deviation * deviation)) * 2**bits
        zeros, ones = (lambda n: bytes(n)), (lambda n: b"\xff" * n)
        assert discrete_gaussian._is_below(zeros, math.floor(edge) - 2, x, deviation)
        assert not discrete_gaussian._is_below(ones, math.floor(edge) + 2, x, deviation)
    # exp(0) is 1: every number below it is taken.
    assert discrete_gaussian._is_below(ones, 2**bits - 1, 0, 3)


def test_it_has_a_largest_size_and_refuses_other_deviations() -> None:
    assert [most(d) for d in (1, 2, 100)] == [16, 32, 2048]
    for deviation in (0, -1, (1 << 59) + 1):
        with pytest.raises(ValueError, match="standard deviation"):
            draw(SeededRandom(b"i" * 32), deviation, (2,))
    assert draw(SeededRandom(b"i" * 32), 5, (0, 3)).shape == (0, 3)


@pytest.mark.parametrize("deviation", [1 << 20, (1 << 36) + 12345, 5 << 40, 1 << 59])
def test_noise_as_large_as_flooding_has_the_tails_of_a_gaussian(deviation: int) -> None:
    found = draw(SeededRandom(b"j" * 32), deviation, (200, 500)) / deviation
    assert abs(found.mean()) < 0.015 and abs(found.std() - 1) < 0.01
    for z, tail in ((1, 0.31731), (2, 0.0455), (3, 0.0027)):
        assert abs((np.abs(found) > z).mean() - tail) < 5 * math.sqrt(tail / found.size)
    # Every bit is drawn: the lowest ones are even and odd alike.
    assert abs((draw(SeededRandom(b"k" * 32), deviation, (10_000,)) & 1).mean() - 0.5) < 0.025


def test_the_same_seed_draws_the_same_noise_and_no_two_draws_are_alike() -> None:
    one, other = SeededRandom(b"l"), SeededRandom(b"l")
    first = draw(one, 1 << 30, (50, 2))
    assert np.array_equal(first, draw(other, 1 << 30, (50, 2)))
    assert not np.intersect1d(first, draw(one, 1 << 30, (50, 2))).size
