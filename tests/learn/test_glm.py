"""Plain logistic regression against scikit-learn and against its own optimality condition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.metrics import log_loss, mean_poisson_deviance, mean_squared_error

from fedmkt.learn.glm import (
    Rows,
    Weights,
    fit,
    fit_logistic,
    fit_null,
    linear_predictor,
    mean_loss,
    predict,
    sigmoid,
    standard_units,
)

Floats = NDArray[np.float64]


def sample(rows: int, columns: int, seed: int = 1) -> tuple[Floats, Floats]:
    """Draw correlated columns and labels of about one in five."""
    rng = np.random.default_rng(seed)
    mix = np.eye(columns) + 0.3 * rng.standard_normal((columns, columns))
    X = rng.standard_normal((rows, columns)) @ mix
    z = X @ rng.normal(0, 0.4, columns) - 1.5
    return X, (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(float)


def slope(X: Floats, y: Floats, weights: Weights, penalty: float) -> float:
    """Return the largest component of the objective's gradient, by the textbook formula."""
    residual = 1 / (1 + np.exp(-(X @ weights.coefficients + weights.intercept))) - y
    return float(max(np.abs(X.T @ residual + penalty * weights.coefficients).max(), abs(residual.sum())))


@pytest.mark.parametrize("penalty", [0.1, 1.0, 100.0])
def test_weights_are_those_of_scikit_learn(penalty: float) -> None:
    X, y = sample(4000, 8)
    expected = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-12).fit(X, y)
    got = fit_logistic(X, y, penalty)
    assert got.coefficients == pytest.approx(expected.coef_[0], abs=1e-8)
    assert got.intercept == pytest.approx(expected.intercept_[0], abs=1e-8)
    assert predict(got, X) == pytest.approx(expected.predict_proba(X)[:, 1], abs=1e-8)


@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_the_gradient_vanishes_at_the_result(seed: int, columns: int, penalty: float) -> None:
    X, y = sample(200, columns, seed)
    assert slope(X, y, fit_logistic(X, y, penalty), penalty) < 1e-6


def test_the_start_from_a_sample_changes_nothing() -> None:
    X, y = sample(260_000, 3)
    assert slope(X, y, fit_logistic(X, y, 1.0), 1.0) < 1e-5


def test_rows_sorted_by_label_fit_as_well() -> None:
    X, y = sample(260_000, 2)
    order = np.argsort(y, kind="stable")
    assert fit_logistic(X[order], y[order], 1.0).coefficients == pytest.approx(
        fit_logistic(X, y, 1.0).coefficients, abs=1e-9
    )


def test_column_order_in_memory_and_float32_are_accepted() -> None:
    X, y = sample(1000, 4)
    expected = fit_logistic(X, y, 1.0)
    assert fit_logistic(np.asfortranarray(X), y, 1.0).coefficients == pytest.approx(expected.coefficients)
    narrow = fit_logistic(X.astype(np.float32), y, 1.0)
    assert narrow.coefficients == pytest.approx(expected.coefficients, abs=1e-5)


def test_constant_and_repeated_columns_do_not_disturb() -> None:
    X, y = sample(1000, 3)
    wide = np.column_stack([X, X[:, 0], np.zeros(1000), np.ones(1000)])
    got = fit_logistic(wide, y, 1e-3)
    assert np.isfinite(got.coefficients).all()
    assert got.coefficients[0] == pytest.approx(got.coefficients[3], abs=1e-4)
    assert predict(got, wide) == pytest.approx(predict(fit_logistic(X, y, 1e-3), X), abs=1e-4)


def test_without_penalty_repeated_columns_still_give_the_fitted_values() -> None:
    X, y = sample(1000, 3)
    wide = np.column_stack([X, X[:, 0]])
    assert predict(fit_logistic(wide, y, 0.0), wide) == pytest.approx(
        predict(fit_logistic(X, y, 0.0), X), abs=1e-6
    )


@pytest.mark.parametrize("penalty", [0.0, 1e-6])
def test_separable_rows_end_with_finite_weights(penalty: float) -> None:
    X = np.linspace(-1, 1, 50)[:, None]
    y = (X[:, 0] > 0).astype(float)
    got = fit_logistic(X, y, penalty)
    assert np.isfinite(got.coefficients).all()
    assert ((predict(got, X) > 0.5) == (y == 1)).all()


def test_columns_of_very_different_size_converge() -> None:
    X, y = sample(2000, 3)
    scale = np.array([1e-4, 1.0, 1e5])
    got = fit_logistic(X * scale, y, 0.0)
    assert got.coefficients * scale == pytest.approx(fit_logistic(X, y, 0.0).coefficients, rel=1e-5)


def test_outliers_far_beyond_the_rest_converge() -> None:
    X, y = sample(2000, 3)
    X[:5] *= 1e4
    assert slope(X, y, fit_logistic(X, y, 1.0), 1.0) < 1e-3


def test_no_columns_give_the_average_rate() -> None:
    _, y = sample(100, 1)
    assert predict(fit_logistic(np.empty((100, 0)), y, 1.0), np.empty((1, 0)))[0] == pytest.approx(y.mean())


def test_probabilities_as_targets_fit_like_repeated_rows() -> None:
    X = np.array([[0.0], [1.0], [2.0]])
    got = fit_logistic(X, [0.25, 0.5, 0.5], 0.5)
    repeated = np.repeat(X, 4, axis=0)
    expected = fit_logistic(repeated, [0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 1], 2.0)
    assert got.coefficients == pytest.approx(expected.coefficients, abs=1e-8)


def test_the_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1e6, -2.0, 0.0, 2.0, 1e6])) == pytest.approx(
        [0.0, 1 / (1 + np.e**2), 0.5, 1 / (1 + np.e**-2), 1.0], abs=1e-15
    )


@pytest.mark.parametrize(
    ("X", "y", "penalty", "message"),
    [
        (np.ones((3, 1)), [1, 1, 1], 1.0, "neither all 0 nor all 1"),
        (np.ones((0, 1)), [], 1.0, "neither all 0 nor all 1"),
        (np.ones((3, 1)), [0, 1, 2], 1.0, r"\[0, 1\]"),
        (np.ones((3, 1)), [0, 1], 1.0, r"\(n,\) are needed"),
        (np.ones((3, 1)), [0, 1, 1], -1.0, "penalty"),
        (np.ones((3, 1)), [0, 1, 1], float("nan"), "penalty"),
        (np.full((3, 1), np.nan), [0, 1, 1], 1.0, "not finite"),
    ],
)
def test_unusable_input_is_refused(X: Floats, y: list[float], penalty: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_logistic(X, y, penalty)


def test_predicting_with_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="the model has 2 columns"):
        linear_predictor(Weights(0.0, np.zeros(2)), np.zeros((3, 4)))


def known(y: Floats, seed: int = 3) -> Rows:
    """Draw weights, some of them zero, and offsets."""
    rng = np.random.default_rng(seed)
    return Rows(y, rng.choice([0.0, 0.5, 1.0, 3.0], len(y)), rng.normal(0, 0.7, len(y)))


def test_weights_of_rows_count_as_in_scikit_learn() -> None:
    X, y = sample(3000, 5)
    rows = Rows(y, known(y).weight, np.zeros(len(y)))
    expected = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-12).fit(X, y, rows.weight)
    got = fit("logistic", X, rows, 2.0)
    assert got.coefficients == pytest.approx(expected.coef_[0], abs=1e-7)
    assert got.intercept == pytest.approx(expected.intercept_[0], abs=1e-7)


def test_an_offset_is_a_column_whose_weight_is_one() -> None:
    """With the offset as a column and no penalty on it, the optimum moves until that column's weight would be one."""
    X, y = sample(3000, 3)
    rows = known(y)
    got = fit("logistic", X, rows, 1.0)

    def objective(theta: Floats) -> float:
        z = X @ theta[:-1] + theta[-1] + rows.offset
        return float(rows.weight @ (np.logaddexp(0, z) - y * z) + theta[:-1] @ theta[:-1] / 2)

    found = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-6})
    assert np.append(got.coefficients, got.intercept) == pytest.approx(found.x, abs=1e-4)


def test_the_null_model_is_the_optimum_without_columns() -> None:
    _, y = sample(2000, 2)
    rows = known(y)
    null = fit_null("logistic", rows)
    p = 1 / (1 + np.exp(-(null.intercept + rows.offset)))
    assert abs(rows.weight @ (p - y)) < 1e-8
    assert null.curvature == pytest.approx(float(np.mean(rows.weight * p * (1 - p))))
    plain = fit_null("logistic", Rows(y, np.ones(2000), np.zeros(2000)))
    assert plain.intercept == pytest.approx(np.log(y.mean() / (1 - y.mean())))


def test_unusable_rows_are_refused() -> None:
    X, y = sample(50, 2)
    one, zero = np.ones(50), np.zeros(50)
    for rows, message in (
        (Rows(y, -one, zero), "zero or more"),
        (Rows(y, one, zero + np.nan), "finite"),
        (Rows(y, y, zero), "neither all 0"),
        (Rows(y, zero, zero), "neither all 0"),
        (Rows(y, one[:9], zero), r"\(n,\) are needed"),
    ):
        with pytest.raises(ValueError, match=message):
            fit("logistic", X, rows, 1.0)


def test_numbers_and_counts_are_fitted_as_by_scikit_learn() -> None:
    X, y = sample(3000, 4)
    random = np.random.default_rng(6)
    weight = random.choice([0.5, 1.0, 3.0], len(y))
    numbers = 20 + 5 * X[:, 0] + random.normal(0, 3, len(y))
    got = fit("linear", X, Rows(numbers, weight, np.zeros(len(y))), 7.0)
    ridge = Ridge(alpha=7.0, tol=1e-12).fit(X, numbers, weight)
    assert np.append(got.coefficients, got.intercept) == pytest.approx(
        np.append(ridge.coef_, ridge.intercept_)
    )
    counts = random.poisson(np.exp(0.3 * X[:, 1] - 1)).astype(float)
    got = fit("poisson", X, Rows(counts, weight, np.zeros(len(y))), 7.0)
    theirs = PoissonRegressor(alpha=7.0 / weight.sum(), tol=1e-11, max_iter=500, solver="newton-cholesky")
    theirs.fit(X, counts, weight)
    expected = np.append(theirs.coef_, theirs.intercept_)
    assert np.append(got.coefficients, got.intercept) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["linear", "poisson"])
def test_in_standard_units_the_same_model_is_found(kind: str) -> None:
    """Labels in other units, and the penalty with them as the contract has it: the same weights, in those units."""
    X, y = sample(2000, 3)
    random = np.random.default_rng(8)
    labels = random.poisson(np.exp(0.2 * X[:, 0])).astype(float) * (1 if kind == "poisson" else 30)
    rows = Rows(labels, random.choice([0.5, 2.0], len(y)), random.normal(3, 0.4, len(y)))
    scale = standard_units(kind, rows)
    standard = scale.rows(rows)
    assert rows.weight @ standard.offset == pytest.approx(0, abs=1e-8)
    # The objective in the labels' own units is the standard one times this.
    factor = scale.spread if kind == "poisson" else scale.spread**2
    slope = 1.0 if kind == "poisson" else scale.spread
    own = fit(kind, X, rows, factor / slope**2 * 5.0)
    found = fit(kind, X, standard, 5.0)
    assert slope * found.coefficients == pytest.approx(own.coefficients, abs=1e-6)
    predicted = scale.labels(predict(found, X, kind, standard.offset))
    assert predicted == pytest.approx(predict(own, X, kind, rows.offset), rel=1e-6)


def test_labels_without_units_are_refused() -> None:
    one = np.ones(5)
    for kind, y, message in (
        ("linear", one, "alike"),
        ("poisson", -one, "none below zero"),
        ("poisson", 0 * one, "not all zero"),
    ):
        with pytest.raises(ValueError, match=message):
            standard_units(kind, Rows(y, one, 0 * one))
    with pytest.raises(ValueError, match="none below zero"):
        fit("poisson", np.ones((5, 1)), Rows(-one, one, 0 * one), 1.0)


def test_the_mean_loss_is_log_loss_squared_error_or_deviance() -> None:
    random = np.random.default_rng(9)
    z, weight = random.normal(0, 1, 300), random.choice([1.0, 2.0], 300)
    answers, counts, nothing = (random.random(300) < 0.4) * 1.0, random.poisson(2, 300) * 1.0, np.zeros(300)
    found = [
        mean_loss(k, Rows(y, weight, nothing), z)
        for k, y in (("logistic", answers), ("linear", counts), ("poisson", counts))
    ]
    expected = [
        log_loss(answers, sigmoid(z), sample_weight=weight),
        mean_squared_error(counts, z, sample_weight=weight),
        mean_poisson_deviance(counts, np.exp(z), sample_weight=weight),
    ]
    assert found == pytest.approx(expected)
