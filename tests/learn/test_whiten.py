import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.learn import whiten


def correlated(n=2000, d=6, seed=1):
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d)) @ random.standard_normal((d, d))
    return x - x.mean(axis=0)


def moments(x):
    return x.T @ x / len(x)


@given(st.integers(1, 12), st.integers(0, 1000))
def test_whitened_columns_are_uncorrelated_with_unit_variance(d, seed):
    x = correlated(200, d, seed)
    white = x @ whiten.fit(moments(x), 1e-12 * np.trace(moments(x))).transform
    assert np.abs(moments(white) - np.eye(d)).max() < 1e-2


def test_it_agrees_with_a_singular_value_decomposition():
    x = correlated()
    found = whiten.fit(moments(x), 1e-9)
    _, singular, right = np.linalg.svd(x / np.sqrt(len(x)), full_matrices=False)
    assert np.allclose(np.sort(found.spread), np.sort(np.sqrt(singular**2 + 1e-9)), rtol=1e-9)
    for row, value in zip(right, singular, strict=True):
        column = found.transform[:, np.argmin(np.abs(found.spread - np.sqrt(value**2 + 1e-9)))]
        assert abs(column @ row) * np.sqrt(value**2 + 1e-9) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("ridge", [1e-6, 0.01, 1.0])
def test_a_penalty_on_the_weights_is_diagonal_in_the_whitened_ones(ridge):
    """|T u|^2 = sum (u_j / spread_j)^2: what the penalty rows of the joint model rely on."""
    found = whiten.fit(moments(correlated()), ridge)
    u = np.random.default_rng(2).standard_normal(6)
    assert np.sum((found.transform @ u) ** 2) == pytest.approx(np.sum((u / found.spread) ** 2), rel=1e-9)
    gram = found.transform.T @ found.transform
    assert np.allclose(gram, np.diag(1 / found.spread**2), atol=1e-9 * np.abs(gram).max())


@pytest.mark.parametrize("ridge", [1e-4, 0.01])
def test_directions_without_variance_are_not_blown_up(ridge):
    x = correlated(500, 3)
    doubled = np.concatenate([x, x, x + 1e-9], axis=1)
    found = whiten.fit(moments(doubled), ridge)
    assert np.isfinite(found.transform).all()
    assert found.spread.min() >= np.sqrt(ridge)
    variances = np.sort(np.diag(moments(doubled @ found.transform)))
    assert np.allclose(variances[:6], 0, atol=1e-6) and (variances[6:] > 0.5).all()
    assert (variances <= 1 + 1e-9).all(), "a ridge only shrinks"


def test_the_span_of_the_columns_is_kept():
    x = correlated()
    found = whiten.fit(moments(x), 0.01)
    back = x @ found.transform @ np.linalg.inv(found.transform)
    assert np.allclose(back, x, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "ridge"), [((3, 2), 1.0), ((3,), 1.0), ((3, 3), 0.0), ((3, 3), -1.0), ((3, 3), float("nan"))]
)
def test_what_is_no_covariance_or_has_no_ridge_is_refused(shape, ridge):
    with pytest.raises(ValueError, match="ridge"):
        whiten.fit(np.ones(shape), ridge)
