"""Plain logistic regression: the model of the bank alone, and the optimum that the joint model is held to.

Minimises  sum_i log(1 + exp(z_i)) - y_i z_i + penalty/2 ||w||^2  with z = X w + intercept, the intercept
not penalised: scikit-learn's objective with C = 1/penalty. Newton's method (iteratively reweighted least
squares); the rows pass through in blocks that fit the cache, so no copy of X is ever made.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_BLOCK_VALUES = 1 << 18
_SAMPLE_ROWS = 50_000
_HALVINGS = 30


@dataclass(frozen=True, eq=False)
class Weights:
    """A fitted linear model: `coefficients` (d,) on the columns as given to the fit."""

    intercept: float
    coefficients: Floats


@dataclass(frozen=True, eq=False)
class _Point:
    """The objective at one place; `theta` is the coefficients with the intercept last."""

    theta: Floats
    loss: float
    gradient: Floats


def fit_logistic(
    X: NDArray[np.floating], y: ArrayLike, penalty: float, iterations: int = 50, tolerance: float = 1e-10
) -> Weights:
    """Fit `X` (n, d) to `y` (n,) in [0, 1] until the last step is below `tolerance` of the weights.

    y : labels, or target probabilities; not all 0 and not all 1
    penalty : on the scale of the sum of losses, so it equals scikit-learn's 1/C; 0 is allowed
    iterations : bound on the steps; on separable rows without penalty, where no optimum exists, it ends there
    """
    target = _checked(X, y, penalty)
    rate = float(target.mean())
    start = np.append(np.zeros(X.shape[1]), np.log(rate / (1 - rate)))
    stride = len(target) // _SAMPLE_ROWS
    if stride >= 4 and 0 < target[::stride].mean() < 1:
        # A sample brings the start within sampling error, and most of the steps are made at its price.
        start = _newton(X[::stride], target[::stride], penalty / stride, start, iterations, 1e-4)
    theta = _newton(X, target, penalty, start, iterations, tolerance)
    return Weights(float(theta[-1]), theta[:-1].copy())


def linear_predictor(weights: Weights, X: NDArray[np.floating]) -> Floats:
    """Return z = X w + intercept, (n,)."""
    if X.ndim != 2 or X.shape[1] != len(weights.coefficients):
        raise ValueError(f"X is {X.shape}, the model has {len(weights.coefficients)} columns")
    return np.asarray(X @ weights.coefficients + weights.intercept, dtype=np.float64)


def predict(weights: Weights, X: NDArray[np.floating]) -> Floats:
    """Return the probability of label 1 per row, (n,)."""
    return sigmoid(linear_predictor(weights, X))


def sigmoid(z: Floats) -> Floats:
    """Return 1 / (1 + exp(-z)) without overflow for any finite z."""
    small = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, small) / (1 + small), dtype=np.float64)


def _checked(X: NDArray[np.floating], y: ArrayLike, penalty: float) -> Floats:
    target = np.asarray(y, dtype=np.float64)
    if X.ndim != 2 or target.shape != (X.shape[0],):
        raise ValueError(f"X is {X.shape} and y is {target.shape}; (n, d) and (n,) are needed")
    if not 0 <= penalty < np.inf:
        raise ValueError(f"penalty is {penalty}, it must be zero or more")
    # Only a sum: one pass without a mask of X, and any bad value shows in it.
    if not np.isfinite(np.sum(X)) and not np.isfinite(X).all():
        raise ValueError("X has values that are not finite")
    if not (len(target) and target.min() >= 0 and target.max() <= 1 and 0 < target.mean() < 1):
        raise ValueError("y must lie in [0, 1], and be neither all 0 nor all 1")
    return target


def _newton(
    X: NDArray[np.floating], y: Floats, penalty: float, start: Floats, iterations: int, tolerance: float
) -> Floats:
    point, factor, previous = _evaluate(X, y, penalty, start), None, np.inf
    for _ in range(iterations):
        if factor is None:
            factor = _inverse(_hessian(X, point.theta, penalty))
        step = factor @ point.gradient
        following = _descend(X, y, penalty, point, step)
        if following is None:
            if np.isinf(previous):
                break
            factor, previous = None, np.inf  # an old Hessian may mislead; a fresh one is the last word
            continue
        size = float(np.linalg.norm(following.theta - point.theta))
        point = following
        if size <= tolerance * max(1.0, float(np.linalg.norm(point.theta))):
            break
        # The Hessian costs several gradients: keep it while it still gains a digit per step.
        if size > 0.1 * previous or np.isinf(previous):
            factor = None
        previous = size
    return point.theta


def _descend(
    X: NDArray[np.floating], y: Floats, penalty: float, point: _Point, step: Floats
) -> _Point | None:
    """Step down, halving until the objective does not rise; None if no fraction of the step helps."""
    slack = 1e-13 * abs(point.loss)  # at the optimum the objective is flat to rounding
    for _ in range(_HALVINGS):
        following = _evaluate(X, y, penalty, point.theta - step)
        if following.loss <= point.loss + slack:
            return following
        step = step / 2
    return None


def _evaluate(X: NDArray[np.floating], y: Floats, penalty: float, theta: Floats) -> _Point:
    w = theta[:-1]
    loss, gradient = 0.5 * penalty * float(w @ w), np.append(penalty * w, 0.0)
    for rows in _blocks(X):
        block, target = np.asarray(X[rows], dtype=np.float64), y[rows]
        z = block @ w + theta[-1]
        small = np.exp(-np.abs(z))
        loss += float(np.sum(np.log1p(small) + np.maximum(z, 0) - target * z))
        residual = np.where(z >= 0, 1.0, small) / (1 + small) - target
        gradient[:-1] += residual @ block
        gradient[-1] += residual.sum()
    return _Point(theta, loss, gradient)


def _hessian(X: NDArray[np.floating], theta: Floats, penalty: float) -> Floats:
    d = X.shape[1]
    hessian = np.diag(np.append(np.full(d, float(penalty)), 0.0))
    for rows in _blocks(X):
        block = np.asarray(X[rows], dtype=np.float64)
        # sqrt(p (1-p)) = exp(-|z|/2) / (1 + exp(-|z|)): with it the product is symmetric, at half the price.
        half = np.exp(-0.5 * np.abs(block @ theta[:-1] + theta[-1]))
        root = half / (1 + half * half)
        scaled = block * root[:, None]
        hessian[:d, :d] += scaled.T @ scaled
        hessian[:d, d] += root @ scaled
        hessian[d, d] += root @ root
    hessian[d, :d] = hessian[:d, d]
    return hessian


def _inverse(hessian: Floats) -> Floats:
    """Invert, with a ridge far below anything visible so that constant and repeated columns stay solvable."""
    scale = np.sqrt(np.maximum(np.diag(hessian), 1e-12 * max(1e-300, float(np.max(np.diag(hessian))))))
    scaled = hessian / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(scaled)
    values = np.maximum(values, 1e-12 * values[-1])
    inverse = (vectors / values) @ vectors.T
    return np.asarray(inverse / np.outer(scale, scale), dtype=np.float64)


def _blocks(X: NDArray[np.floating]) -> list[slice]:
    rows = max(256, _BLOCK_VALUES // max(1, X.shape[1]))
    return [slice(i, i + rows) for i in range(0, X.shape[0], rows)]
