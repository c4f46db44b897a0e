"""The bases of numbers that are paired with another party's: white, bounded, carried by rows enough for a product."""

import numpy as np
import pytest

from fedmkt.learn import factors


def skewed(n: int = 4000, seed: int = 1) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).standard_normal(n))


@pytest.mark.parametrize("basis", ["spline", "bins"])
def test_columns_are_uncorrelated_and_of_mean_zero(basis) -> None:
    values = skewed()
    found = factors.fit("x", values, basis, 50)
    assert found is not None and len(found.columns) == factors.COLUMNS
    x = factors.units(found, values) / 2.0**factors.BITS
    moments = x.T @ x / len(x)
    assert np.allclose(moments, np.diag(moments.diagonal()), atol=2e-3) and np.allclose(
        x.mean(axis=0), 0, atol=2e-3
    )
    assert np.allclose(moments.diagonal(), moments[0, 0], atol=5e-3) and 0.5 < moments[0, 0] < 1.01


@pytest.mark.parametrize("basis", ["spline", "bins"])
def test_no_row_is_longer_than_the_bound_seen_or_unseen(basis) -> None:
    for seed in range(20):
        values = skewed(600, seed) ** 3
        found = factors.fit("x", values, basis, 20)
        assert found is not None
        anywhere = np.concatenate([values, np.linspace(-1e3, 1e6, 5000), [1e300, -1e300, np.nan]])
        lengths = np.linalg.norm(factors.units(found, anywhere) / 2.0**factors.BITS, axis=1)
        assert 1.5 < lengths.max() <= factors.MOST_NORM


def test_products_are_all_of_one_with_all_of_the_other_without_a_rounding() -> None:
    random = np.random.default_rng(2)
    left, right = random.integers(-700, 700, (2, 50, factors.COLUMNS)).astype(np.int32)
    found = factors.products(left, right)
    for i in range(factors.COLUMNS):
        for j in range(factors.COLUMNS):
            exact = left[:, i].astype(np.int64) * right[:, j]
            assert np.array_equal(found[:, factors.COLUMNS * i + j] * 2.0 ** (2 * factors.BITS), exact)


def test_a_number_of_few_values_has_fewer_columns_and_zeros_in_their_place() -> None:
    counts = [100, 140, 160, 230, 220, 150]
    values = np.random.default_rng(3).permuted(np.repeat([1.0, 2.0, 4.0, 7.0, 9.0, 11.0], counts))
    found = factors.fit("x", values, "bins", 50)
    assert found is not None and found.spike == 7.0 and len(found.columns) == 3
    units = factors.units(found, values)
    assert units.shape == (1000, factors.COLUMNS) and units[:, :3].any(axis=0).all() and not units[:, 3].any()
    assert not units[values == 7.0].any()


def test_two_owners_with_enough_rows_each_have_the_least_support_in_common() -> None:
    for rows in (200, 201, 1001):
        for support in (1, 20, 50, 99):
            assert 2 * factors.least_rows(rows, support) - rows >= support


@pytest.mark.parametrize(("missing", "is_fit"), [(0.4, True), (0.52, False)])
def test_a_number_that_half_of_the_rows_lack_is_not_paired(missing: float, is_fit: bool) -> None:
    values = skewed()
    values[: int(missing * len(values))] = np.nan
    assert (factors.fit("x", values, "spline", 50) is not None) is is_fit


def test_a_value_that_most_rows_share_counts_as_none() -> None:
    values = skewed()
    values[: int(0.6 * len(values))] = -1.0
    assert factors.fit("x", values, "spline", 50) is None


@pytest.mark.parametrize("values", [np.full(500, 3.0), np.full(500, np.nan), np.zeros(0)])
def test_a_number_without_values_has_no_basis(values: np.ndarray) -> None:
    assert factors.fit("x", values, "spline", 20) is None
