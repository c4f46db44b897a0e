"""The noise budget against its definition, the bits per row that it allows, and simulated sums."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.errors import ConfigError
from fedmkt.ring import rlwe
from fedmkt.ring.budget import RHO_LIMIT, budget, message_bits, shortest_words


def common(rows: int = 1_000_000, word_bytes: int = 6):
    return budget(rows, message_bits(rows, 127), 20, 1600, word_bytes)


@given(st.integers(1, 10**8), st.integers(1, 2**16))
def test_message_bits_hold_every_sum_and_not_more_than_needed(rows: int, limit: int) -> None:
    half = 2 ** (message_bits(rows, limit) - 1)
    assert half / 2 <= rows * limit < half


@pytest.mark.parametrize("rows", [500, 45_000, 200_000, 1_000_000])
@pytest.mark.parametrize("word_bytes", [6, 7, 8])
def test_flooding_and_noise_fill_half_of_delta_at_eight_sigma(rows: int, word_bytes: int) -> None:
    plan = common(rows, word_bytes)
    assert plan.delta_bits + plan.message_bits == 64
    variance = 10.5 + {6: 2**32 / 12, 7: 2**16 / 12, 8: 0}[word_bytes]
    total = plan.flooding**2 + rows * variance
    assert 8 * math.sqrt(total) == pytest.approx(2 ** (plan.delta_bits - 1))
    assert plan.failure_sigmas == pytest.approx(8)
    assert plan.failure_probability == pytest.approx(1.2e-15, rel=0.1)


def test_a_million_rows_of_eight_bits_have_the_budget_of_the_design() -> None:
    plan = common()
    assert (plan.message_bits, plan.delta_bits) == (28, 36)
    assert math.log2(plan.sum_deviation) == pytest.approx(24.2, abs=0.1)
    assert math.log2(plan.flooding) == pytest.approx(32, abs=0.1)
    shown = dict(plan.table())
    assert shown["message"] == "28 bits, Delta = 2^36"
    assert shown["failure"].startswith("8.0 sigma")
    assert shown["flooding over noise"] == "2^7.8"


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    rows = 5_000_000
    with pytest.raises(ConfigError, match=r"5,000,000 rows .* 33 bits leave 2\^27.0 .* 2\^25.3") as found:
        budget(rows, 33, 20, 1600, 6)
    assert "more bytes" in found.value.hint
    assert budget(rows, 33, 20, 1600, 8).delta_bits == 31


@pytest.mark.parametrize(("rows", "limit", "expected"), [(31_647, 127, 5), (200_000, 127, 6), (10**6, 7, 5)])
def test_the_shortest_words_are_those_that_still_fit(rows: int, limit: int, expected: int) -> None:
    bits = message_bits(rows, limit)
    assert shortest_words(rows, bits, 20, 1600).word_bytes == expected
    assert shortest_words(rows, bits, 20, 1600) == budget(rows, bits, 20, 1600, expected)
    with pytest.raises(ConfigError):
        budget(rows, bits, 20, 1600, expected - 1)
    with pytest.raises(ConfigError, match="do not fit"):
        shortest_words(10**9, 60, 20, 1600)


def test_more_vectors_than_the_flooding_covers_are_refused() -> None:
    plan = common()
    assert budget(10**6, 28, 20, plan.max_vectors, 6).max_vectors == plan.max_vectors
    with pytest.raises(ConfigError, match="too many encrypted vectors"):
        budget(10**6, 28, 20, plan.max_vectors + 1, 6)


def test_the_cap_bounds_what_one_row_can_show() -> None:
    plan = common()
    assert plan.rho(plan.max_vectors) <= RHO_LIMIT < plan.rho(plan.max_vectors + 2)
    # The same number from the definition: two bins of each column move by at most e, in each vector.
    distance_squared = 1600 * 20 * 2 * (2**15 + 21) ** 2
    assert plan.rho(1600) == pytest.approx(distance_squared / (2 * plan.flooding**2))
    assert plan.rho(1600) < 2**-18


@pytest.mark.parametrize(
    "rows, bits, columns, vectors", [(0, 9, 1, 1), (9, 9, 0, 1), (9, 0, 1, 1), (9, 64, 1, 1)]
)
def test_senseless_sizes_are_mistakes(rows: int, bits: int, columns: int, vectors: int) -> None:
    with pytest.raises(ValueError):
        budget(rows, bits, columns, vectors, 6)


def test_simulated_totals_never_reach_half_of_delta_and_use_the_room_they_have() -> None:
    plan = common()
    f = rlwe.draw_flooding(b"f" * 32, (640, 1600), plan.flooding).view(np.int64)
    noise = np.random.default_rng(1).normal(0, plan.sum_deviation, f.shape)
    error = f + noise
    assert np.abs(error).max() < 2 ** (plan.delta_bits - 1)
    assert np.std(error) * 8 == pytest.approx(2 ** (plan.delta_bits - 1), rel=0.01)


def bin_sums_of_one_row(noise: int, plan, repeats: int):
    """Let the owner of m put this noise on row 0 only, and give it the flooded sums of the two bins of a column."""
    codes = np.array([[0] + [1] * 99], np.uint8)
    b = np.zeros((100, repeats), np.uint64)
    b[0] = noise
    flooded = rlwe.histogram(codes, [2], b)
    return (flooded + rlwe.draw_flooding(b"f" * 32, flooded.shape, plan.flooding)).view(np.int64)


def test_the_largest_honest_noise_of_a_row_disappears_under_the_flooding() -> None:
    plan = common(45_000)
    sums = bin_sums_of_one_row(plan.row_max, plan, 20_000)
    # The row is in bin 0; the best guess from one reply is the bin with the larger sum.
    assert abs(np.mean(sums[0] > sums[1]) - 0.5) < 0.015


def test_an_owner_who_puts_large_noise_on_a_row_reads_its_bin_in_spite_of_flooding() -> None:
    plan = common(45_000)
    noise = 2 ** (plan.delta_bits - 1) - 1
    sums = bin_sums_of_one_row(noise, plan, 20_000)
    assert np.mean(sums[0] > sums[1]) > 0.999
