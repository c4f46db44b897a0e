"""Plain logistic regression against scikit-learn and against its own optimality condition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from fedmkt.learn.glm import Weights, fit_logistic, linear_predictor, predict, sigmoid

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
