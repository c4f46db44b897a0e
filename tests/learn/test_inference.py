import numpy as np
import pytest
from scipy.stats import norm

from fedmkt.learn import glm
from fedmkt.learn.inference import inflation, standard_errors, wald


def plain_errors(x, y, penalty):
    """Invert the information matrix of the pooled model, intercept included, as statsmodels does."""
    w = glm.fit_logistic(x, y, penalty)
    p = glm.predict(w, x)
    design = np.column_stack([np.ones(len(x)), x])
    information = sum(p_i * (1 - p_i) * np.outer(row, row) for p_i, row in zip(p, design, strict=True))
    information[1:, 1:] += penalty * np.eye(x.shape[1])
    return w, p, np.sqrt(np.diag(np.linalg.inv(information)))[1:]


def table(signal, n=4000, seed=1):
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, 5)) + 0.8 * random.standard_normal((n, 1))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = (random.random(n) < glm.sigmoid(signal * (x @ np.array([1, -0.5, 0.3, 0, 0])) - 1)).astype(float)
    return x, y


def approximate(x, p, penalty):
    w = p * (1 - p)
    inflated = inflation(np.corrcoef(x.T), penalty / (len(x) * w.mean()))
    squares = np.square(x)
    return standard_errors(inflated, (w @ squares) / squares.sum(axis=0), np.linalg.norm(x, axis=0))


def test_errors_are_the_textbooks_where_all_rows_count_alike():
    x, y = table(signal=0.0)
    for penalty in (1e-6, 1.0, 300.0):
        _, p, exact = plain_errors(x, y, penalty)
        assert np.allclose(approximate(x, p, penalty), exact, rtol=2e-3)


@pytest.mark.parametrize(("signal", "within"), [(0.3, 0.01), (1.0, 0.05), (2.0, 0.12)])
def test_errors_are_near_the_textbooks_where_rows_count_differently(signal, within):
    x, y = table(signal)
    _, p, exact = plain_errors(x, y, 1.0)
    found = approximate(x, p, 1.0)
    assert np.abs(found / exact - 1).max() < within


def test_scaling_a_column_scales_its_error():
    x, y = table(0.5)
    _, p, _ = plain_errors(x, y, 1.0)
    scaled = x * np.array([1, 2, 1, 1, 0.5])
    assert np.allclose(approximate(scaled, p, 1.0), approximate(x, p, 1.0) / np.array([1, 2, 1, 1, 0.5]))


def test_a_column_that_repeats_another_has_the_error_that_the_penalty_leaves():
    correlation = np.array([[1.0, 1.0], [1.0, 1.0]])
    assert np.allclose(inflation(correlation, 0.01), np.diag(np.linalg.inv(correlation + 0.01 * np.eye(2))))
    rounded = np.array([[1.0, 1.0], [1.0, 1.0 - 1e-4]])
    assert (inflation(rounded, 1e-6) > 0).all()


def test_p_values_are_those_of_the_normal_distribution():
    random = np.random.default_rng(1)
    weights, errors = random.normal(0, 2, 50), random.random(50) + 0.1
    found = wald(weights, errors)
    assert np.allclose(found.z, weights / errors)
    assert np.allclose(found.p, 2 * norm.sf(np.abs(weights / errors)), rtol=1e-10)


def test_under_no_effect_p_values_are_below_a_twentieth_once_in_twenty():
    hits = []
    for seed in range(60):
        x, y = table(0.0, 800, seed)
        w, p, _ = plain_errors(x, y, 1e-3)
        hits += list(wald(w.coefficients, approximate(x, p, 1e-3)).p < 0.05)
    assert 0.02 < np.mean(hits) < 0.085


def test_a_column_without_curvature_has_no_error():
    found = standard_errors(np.ones(2), np.array([0.1, 0.0]), np.ones(2))
    assert np.isfinite(found[0]) and np.isnan(found[1])
    assert np.isnan(wald(np.ones(2), found).p[1])


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="square"):
        inflation(np.ones((2, 3)), 1.0)
    with pytest.raises(ValueError, match="positive ridge"):
        inflation(np.eye(2), 0.0)
    with pytest.raises(ValueError, match="different lengths"):
        standard_errors(np.ones(2), np.ones(3), np.ones(2))
