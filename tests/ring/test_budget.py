"""The noise budget against its definition, the bits per row that it allows, and simulated sums."""

import math

import numpy as np
import pytest

from fedmkt.crypto.prg import SeededRandom
from fedmkt.errors import ConfigError
from fedmkt.ring import discrete_gaussian, rlwe, short_words
from fedmkt.ring.budget import RHO_LIMIT, budget, finest_gradients, shortest_words
from fedmkt.ring.fields import Packing, gradient_fields, signed


def common(rows: int = 1_000_000, word_bits: int = 48):
    return budget(rows, Packing(signed(127), rows).bits, 20, 1600, word_bits)


@pytest.mark.parametrize("rows", [500, 45_000, 200_000, 1_000_000])
@pytest.mark.parametrize("word_bits", [48, 51, 64])
def test_flooding_and_noise_fill_half_of_delta_at_eight_sigma(rows: int, word_bits: int) -> None:
    plan = common(rows, word_bits)
    assert plan.delta_bits + plan.message_bits == 64
    variance = 10.5 + {48: 2**32 / 12, 51: 2**26 / 12, 64: 0}[word_bits]
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
        budget(rows, 33, 20, 1600, 48)
    assert "more bits" in found.value.hint
    assert budget(rows, 33, 20, 1600, 64).delta_bits == 31


@pytest.mark.parametrize(("rows", "bits", "expected"), [(31_647, 46, 60), (10**6, 44, 60), (10**6, 28, 44)])
def test_the_shortest_words_are_those_that_still_fit(rows: int, bits: int, expected: int) -> None:
    assert shortest_words(rows, bits, 7, 800) == budget(rows, bits, 7, 800, expected)
    with pytest.raises(ConfigError):
        budget(rows, bits, 7, 800, expected - 1)
    with pytest.raises(ConfigError, match="do not fit"):
        shortest_words(10**9, 60, 20, 1600)


@pytest.mark.parametrize(("rows", "expected"), [(45_000, 7), (200_000, 5), (700_000, 3), (10**6, 2)])
def test_gradients_of_one_bit_more_would_not_fit_into_one_word(rows: int, expected: int) -> None:
    assert finest_gradients(rows, 20, 800) == expected
    assert finest_gradients(rows, 20, 800, most=2) == 2
    with pytest.raises(ConfigError):
        shortest_words(rows, Packing(gradient_fields(expected + 1, expected + 1), rows).bits, 20, 800)
    with pytest.raises(ConfigError):
        finest_gradients(10**8, 20, 800)


def test_more_vectors_than_the_flooding_covers_are_refused() -> None:
    plan = common()
    assert budget(10**6, 28, 20, plan.max_vectors, 48).max_vectors == plan.max_vectors
    with pytest.raises(ConfigError, match="too many encrypted vectors"):
        budget(10**6, 28, 20, plan.max_vectors + 1, 48)


@pytest.mark.parametrize("word_bits", [48, 56])
def test_the_cap_bounds_what_one_row_can_show(word_bits: int) -> None:
    plan = common(word_bits=word_bits)
    assert plan.rho(plan.max_vectors) <= RHO_LIMIT < plan.rho(plan.max_vectors + 1)


@pytest.mark.parametrize(("word_bits", "vectors"), [(64, 32), (64, 800), (58, 800), (48, 100)])
def test_the_noise_that_is_drawn_for_rows_stays_within_what_rho_assumes(word_bits: int, vectors: int) -> None:
    rows, plan = 4000, common(word_bits=word_bits)
    noise = rlwe.draw_noise(b"e" * 32, rows, vectors).astype(np.float64)
    words = np.random.default_rng(1).integers(0, 2**64, (rows, vectors), np.uint64)
    short = short_words.unpack(short_words.pack(words, [word_bits] * vectors), rows, [word_bits] * vectors)
    noise += (short - words).view(np.int64)
    # From the definition: two bins of each column move by the noise of the row, in each vector.
    distances = 20 * 2 * (noise**2).sum(axis=1)
    found = distances / (2 * plan.flooding**2)
    assert found.max() < plan.rho(vectors) < 4 * found.mean() * (1 + 30 / vectors)
    # Without its margin for rare draws the bound would be their mean.
    mean = plan.columns * plan.row_deviation**2 * vectors / plan.flooding**2
    assert found.mean() == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize(
    "rows, bits, columns, vectors", [(0, 9, 1, 1), (9, 9, 0, 1), (9, 0, 1, 1), (9, 9, 1, 0)]
)
def test_senseless_sizes_are_mistakes(rows: int, bits: int, columns: int, vectors: int) -> None:
    with pytest.raises(ValueError):
        budget(rows, bits, columns, vectors, 48)


def test_simulated_totals_never_reach_half_of_delta_and_use_the_room_they_have() -> None:
    plan = common()
    f = discrete_gaussian.draw(SeededRandom(b"f"), plan.flooding, (320, 1600))
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
    return flooded.view(np.int64) + discrete_gaussian.draw(SeededRandom(b"f"), plan.flooding, flooded.shape)


def test_the_noise_of_a_row_at_five_sigma_disappears_under_the_flooding() -> None:
    plan = common(45_000)
    sums = bin_sums_of_one_row(round(5 * plan.row_deviation), plan, 20_000)
    # The row is in bin 0; the best guess from one reply is the bin with the larger sum.
    assert abs(np.mean(sums[0] > sums[1]) - 0.5) < 0.015


def test_an_owner_who_puts_large_noise_on_a_row_reads_its_bin_in_spite_of_flooding() -> None:
    plan = common(45_000)
    noise = 2 ** (plan.delta_bits - 1) - 1
    sums = bin_sums_of_one_row(noise, plan, 20_000)
    assert np.mean(sums[0] > sums[1]) > 0.999
