"""Splines whose ridge is a penalty on roughness, against scipy, scikit-learn and the penalised problem itself."""

import numpy as np
import pytest
from scipy.interpolate import BSpline
from sklearn.preprocessing import SplineTransformer

from fedmkt.learn.splines import Smooth, b_splines, fit, is_ordinary, roughness

KNOTS = np.array([-2.0, -0.7, 0.1, 0.4, 3.0])


def skewed(n: int = 4000, seed: int = 1) -> np.ndarray:
    """Values as an account's balance has them: a long tail, many zeros, some missing."""
    random = np.random.default_rng(seed)
    values = np.round(np.exp(random.normal(5, 1.5, n)), 2)
    values[random.random(n) < 0.3] = 0.0
    values[random.random(n) < 0.05] = np.nan
    return values


def fitted(values: np.ndarray, degree: int = 3, knots: int = 8, smooth: float = 0.01) -> Smooth:
    found = fit("x", values, degree, knots, smooth, 50, 100.0)
    assert found is not None
    return found


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_b_splines_are_those_of_scikit_learn(degree: int) -> None:
    x = np.random.default_rng(0).normal(0, 2, 500)
    theirs = SplineTransformer(degree=degree, knots=KNOTS[:, None], extrapolation="constant")
    assert np.allclose(b_splines(x, KNOTS, degree), theirs.fit_transform(x[:, None]), atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_b_splines_are_those_of_scipy(degree: int) -> None:
    x = np.random.default_rng(0).uniform(-2, 3, 500)
    step = np.arange(1, degree + 1)
    whole = np.concatenate([-2.0 - 1.3 * step[::-1], KNOTS, 3.0 + 2.6 * step])
    theirs = BSpline.design_matrix(x, whole, degree).toarray()
    assert np.allclose(b_splines(x, KNOTS, degree), theirs, atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_b_splines_add_up_to_one_everywhere(degree: int) -> None:
    x = np.concatenate([KNOTS, [-1e300, 1e300, np.nextafter(3.0, 4)], np.linspace(-5, 5, 101)])
    found = b_splines(x, KNOTS, degree)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-12) and (found >= -1e-15).all()


def test_knots_that_do_not_rise_are_refused() -> None:
    for knots in ([1.0], [1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(ValueError, match="rising"):
            b_splines(np.zeros(3), np.array(knots), 3)


@pytest.mark.parametrize(("degree", "smooth"), [(3, 0.0), (3, 0.01), (3, 1.0), (0, 0.01)])
def test_the_ridge_is_the_variance_plus_the_roughness(degree: int, smooth: float) -> None:
    values = skewed()
    found = fitted(values, degree, smooth=smooth)
    c = np.array(found.coefficients)
    w = np.random.default_rng(2).standard_normal(c.shape[1])
    f = found.apply(values) @ w
    second = np.diff(c @ w, n=2) * (len(found.knots) - 1) ** 1.5
    assert f.mean() == pytest.approx(0, abs=1e-10)
    assert w @ w == pytest.approx(np.mean(f**2) + smooth * second @ second, rel=1e-6)


def test_a_ridge_on_the_columns_fits_what_the_penalised_spline_is() -> None:
    random = np.random.default_rng(3)
    x = random.uniform(0, 1, 2000)
    y = np.sin(6 * x) + random.standard_normal(2000)
    found = fitted(x, smooth=0.03)
    columns = found.apply(x)
    w = np.linalg.solve(columns.T @ columns + 2.0 * np.eye(columns.shape[1]), columns.T @ (y - y.mean()))
    # Eilers and Marx: the same with the penalty written out, a free constant and no change of basis.
    b = b_splines(x, np.array(found.knots), 3)
    centred = b - b.mean(axis=0)
    penalty = 2.0 * (centred.T @ centred / len(x) + 0.03 * roughness(len(found.knots), 3))
    beta = np.linalg.lstsq(centred.T @ centred + penalty, centred.T @ (y - y.mean()), rcond=1e-12)[0]
    assert np.allclose(columns @ w, centred @ beta, atol=1e-8)
    assert np.abs(columns @ w - (np.sin(6 * x) - np.sin(6 * x).mean())).mean() < 0.1


def test_more_smoothness_makes_a_straighter_function() -> None:
    random = np.random.default_rng(4)
    x = random.uniform(0, 1, 2000)
    y = np.cos(9 * x) + random.standard_normal(2000)
    rough = []
    for smooth in (0.0, 0.01, 1.0, 1e3):
        found = fitted(x, smooth=smooth)
        columns = found.apply(x)
        w = np.linalg.solve(columns.T @ columns + np.eye(columns.shape[1]), columns.T @ y)
        rough.append(float(np.square(np.diff(np.array(found.coefficients) @ w, n=2)).sum()))
    assert rough == sorted(rough, reverse=True) and rough[-1] < 1e-4 * rough[0]


@pytest.mark.parametrize("degree", [0, 1, 3])
@pytest.mark.parametrize("seed", range(1, 4))
def test_every_function_is_carried_by_the_least_support(degree: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = np.round(random.gamma(0.5, 3.0, 900), int(seed))
    found = fit("x", values, degree, 30, 0.01, 50, 8.0)
    assert found is not None and len(found.knots) < 32
    ordinary = values[is_ordinary(values, found.spike)]
    for columns in (b_splines(ordinary, np.array(found.knots), degree), found.apply(values)):
        assert (np.abs(columns).sum(axis=0) ** 2 / np.square(columns).sum(axis=0)).min() >= 50
        assert (columns != 0).sum(axis=0).min() >= 50


def test_values_told_apart_are_zero_in_all_columns() -> None:
    values = skewed()
    found = fitted(values)
    assert found.spike == 0.0
    columns = found.apply(values)
    apart = np.isnan(values) | (values == 0.0)
    assert not columns[apart].any() and columns[~apart].any(axis=1).all()
    assert np.allclose(columns.mean(axis=0), 0, atol=1e-12)


def test_no_row_leaves_the_bound_and_beyond_the_ends_nothing_changes() -> None:
    values = skewed(600)
    found = fit("x", values, 3, 20, 0.0, 20, 2.0)
    assert found is not None
    far = found.apply(
        np.concatenate([np.linspace(*found.knots[:: len(found.knots) - 1], 9999), [-1e300, 1e300]])
    )
    assert np.abs(far).max() <= 2.0
    ends = found.apply(np.array([found.knots[0], found.knots[-1]]))
    assert np.array_equal(far[-2:], ends)


@pytest.mark.parametrize(
    "values", [np.full(500, np.nan), np.full(500, 2.0), np.arange(500) % 2.0, np.arange(30.0)]
)
def test_a_number_of_too_few_values_or_rows_has_no_function(values: np.ndarray) -> None:
    assert all(fit("x", values, degree, 8, 1.0, 50, 8.0) is None for degree in (0, 1, 3))


def test_a_number_of_few_values_has_straight_pieces_instead_of_cubic_ones() -> None:
    values = np.random.default_rng(0).choice([1.0, 2.0, 3.0], 900, p=[0.19, 0.62, 0.19])
    assert fit("x", np.arange(900) % 6.0, 3, 8, 1.0, 50, 8.0) is not None
    assert fit("x", values, 3, 8, 1.0, 50, 8.0) is None


def test_roughness_is_the_integral_of_the_squared_second_derivative_whatever_the_knots() -> None:
    places = np.linspace(0, 1, 4001)
    for knots in (41, 81, 161):
        b = b_splines(places, np.linspace(0, 1, knots), 3)
        c = np.linalg.lstsq(b, np.sin(5 * places), rcond=None)[0]
        found = c @ roughness(knots, 3) @ c
        assert found == pytest.approx(np.mean((25 * np.sin(5 * places)) ** 2), rel=0.04)
