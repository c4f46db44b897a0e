"""Plain generalised linear models: the model of the bank alone, and the optimum that the joint model is held to.

Minimises  sum_i v_i (A(z_i) - y_i z_i) + penalty/2 ||w||^2  with z = X w + intercept + offset, v the rows' weights,
the intercept not penalised. A is log(1 + exp(z)) for `logistic` (scikit-learn's objective with C = 1/penalty),
z^2 / 2 for `linear` (its Ridge with alpha = penalty), exp(z) for `poisson` (its PoissonRegressor with
alpha = penalty / sum of v). Newton's method (iteratively reweighted least squares); the rows pass through in blocks
that fit the cache, so no copy of X is ever made.
"""

import math
from collections.abc import Callable
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


@dataclass(frozen=True)
class Null:
    """The model without columns: its intercept beside the offset, and the mean of v A''(z) there over all rows."""

    intercept: float
    curvature: float


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known of each row beside its columns, (n,) each: label y, weight v, offset."""

    y: Floats
    weight: Floats
    offset: Floats

    def taken(self, rows: slice) -> "Rows":
        """Return some of the rows."""
        return Rows(self.y[rows], self.weight[rows], self.offset[rows])


@dataclass(frozen=True)
class Scale:
    """The units in which a model is trained: label = center + spread * trained label; offsets less their mean.

    offset_spread : what offsets are divided by besides.
    """

    center: float
    spread: float
    offset_center: float
    offset_spread: float

    def rows(self, rows: Rows) -> Rows:
        """Bring rows to these units."""
        return Rows((rows.y - self.center) / self.spread, rows.weight, self.offsets(rows.offset))

    def offsets(self, offset: Floats) -> Floats:
        """Bring offsets to these units."""
        return (offset - self.offset_center) / self.offset_spread

    def labels(self, trained: Floats) -> Floats:
        """Bring trained or expected labels back."""
        return self.center + self.spread * trained


def standard_units(kind: str, rows: Rows) -> Scale:
    """Choose units from training rows: standard deviations of the label for `linear`, its mean for `poisson`.

    Raises ValueError for labels that have none: all alike, or counts that are negative or all zero.
    """
    total = float(rows.weight.sum())
    mean, offset = float(rows.weight @ rows.y) / total, float(rows.weight @ rows.offset) / total
    if kind == "linear":
        spread = math.sqrt(float(rows.weight @ np.square(rows.y - mean)) / total)
        if not spread > 0:
            raise ValueError("all labels are alike")
        return Scale(mean, spread, offset, spread)
    if kind == "poisson":
        if rows.y.min() < 0 or not mean > 0:
            raise ValueError("labels are counts: none below zero, and not all zero")
        return Scale(0.0, mean, offset, 1.0)
    return Scale(0.0, 1.0, offset, 1.0)


@dataclass(frozen=True, eq=False)
class _Point:
    """The objective at one place; `theta` is the coefficients with the intercept last."""

    theta: Floats
    loss: float
    gradient: Floats


@dataclass(frozen=True)
class _Link:
    """One kind of model: A, A' (the expected label) and A'' of z, and z of an expected label."""

    loss: Callable[[Floats], Floats]
    mean: Callable[[Floats], Floats]
    curvature: Callable[[Floats], Floats]
    inverse: Callable[[float], float]


def sigmoid(z: Floats) -> Floats:
    """Return 1 / (1 + exp(-z)) without overflow for any finite z."""
    small = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, small) / (1 + small), dtype=np.float64)


def _softplus(z: Floats) -> Floats:
    return np.asarray(np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0), dtype=np.float64)


def _bell(z: Floats) -> Floats:
    small = np.exp(-np.abs(z))
    return np.asarray(small / np.square(1 + small), dtype=np.float64)


def _log_odds(rate: float) -> float:
    return math.log(rate / (1 - rate))


def _half_square(z: Floats) -> Floats:
    return z * z / 2


def _same(z: Floats) -> Floats:
    return z


_LINKS = {
    "logistic": _Link(_softplus, sigmoid, _bell, _log_odds),
    "linear": _Link(_half_square, _same, np.ones_like, float),
    "poisson": _Link(np.exp, np.exp, np.exp, math.log),
}


def fit_logistic(
    X: NDArray[np.floating], y: ArrayLike, penalty: float, iterations: int = 50, tolerance: float = 1e-10
) -> Weights:
    """Fit `X` (n, d) to `y` (n,) in [0, 1], labels or target probabilities, every row counting once: `fit`."""
    target = np.asarray(y, dtype=np.float64)
    return fit("logistic", X, plain_rows(target), penalty, iterations, tolerance)


def mean_loss(kind: str, rows: Rows, z: Floats) -> float:
    """Return the mean loss at linear predictors `z` (n,), offsets included, rows as they count.

    Of `logistic` the log loss in nats, of `linear` the squared error, of `poisson` the deviance.
    """
    loss = _LINKS[kind].loss(z) - rows.y * z
    if kind == "linear":
        loss = np.square(z - rows.y)
    if kind == "poisson":
        # At its own best, z = log y, a row's loss is y - y log y.
        best = rows.y - rows.y * np.log(np.where(rows.y > 0, rows.y, 1.0))
        loss = 2 * (loss - best)
    return float(rows.weight @ loss) / float(rows.weight.sum())


def plain_rows(y: Floats) -> Rows:
    """Return rows that count once and have no offset."""
    return Rows(y, np.ones(y.shape), np.zeros(y.shape))


def fit(
    kind: str,
    X: NDArray[np.floating],
    rows: Rows,
    penalty: float,
    iterations: int = 50,
    tolerance: float = 1e-10,
) -> Weights:
    """Fit `X` (n, d) to the rows until the last step is below `tolerance` of the weights.

    rows : labels in [0, 1] and not all 0 or all 1 for `logistic`; weights of zero or more, with a positive sum
    penalty : on the scale of the sum of losses; 0 is allowed
    iterations : bound on the steps; on separable rows without penalty, where no optimum exists, it ends there
    """
    _check(kind, X, rows, penalty)
    start = np.append(np.zeros(X.shape[1]), fit_null(kind, rows).intercept)
    stride = len(rows.y) // _SAMPLE_ROWS
    sample = rows.taken(slice(None, None, max(1, stride)))
    if stride >= 4 and _is_fit(kind, sample):
        # A sample brings the start within sampling error, and most of the steps are made at its price.
        start = _newton(_LINKS[kind], X[::stride], sample, penalty / stride, start, iterations, 1e-4)
    theta = _newton(_LINKS[kind], X, rows, penalty, start, iterations, tolerance)
    return Weights(float(theta[-1]), theta[:-1].copy())


def fit_null(kind: str, rows: Rows) -> Null:
    """Fit an intercept alone beside the offsets; rows as in `fit`."""
    link, total = _LINKS[kind], float(rows.weight.sum())
    mean = float(rows.weight @ rows.y) / total
    b = link.inverse(mean)
    if rows.offset.any():
        b -= float(rows.weight @ rows.offset) / total
        for _ in range(_HALVINGS):
            z = b + rows.offset
            step = float(rows.weight @ (link.mean(z) - rows.y)) / float(rows.weight @ link.curvature(z))
            b -= max(-1.0, min(1.0, step))
            if abs(step) < 1e-12:
                break
    return Null(b, float(rows.weight @ link.curvature(b + rows.offset)) / len(rows.y))


def linear_predictor(weights: Weights, X: NDArray[np.floating]) -> Floats:
    """Return z = X w + intercept, (n,)."""
    if X.ndim != 2 or X.shape[1] != len(weights.coefficients):
        raise ValueError(f"X is {X.shape}, the model has {len(weights.coefficients)} columns")
    return np.asarray(X @ weights.coefficients + weights.intercept, dtype=np.float64)


def predict(
    weights: Weights, X: NDArray[np.floating], kind: str = "logistic", offset: Floats | None = None
) -> Floats:
    """Return the expected label per row, (n,): of `logistic` the probability of label 1."""
    z = linear_predictor(weights, X)
    return _LINKS[kind].mean(z if offset is None else z + offset)


def mean_label(kind: str, z: Floats) -> Floats:
    """Return the expected label at a linear predictor, (n,)."""
    return _LINKS[kind].mean(z)


def _is_fit(kind: str, rows: Rows) -> bool:
    """Tell whether there is a finite null model."""
    total = float(rows.weight.sum())
    if not total > 0:
        return False
    mean = float(rows.weight @ rows.y) / total
    return {"logistic": 0 < mean < 1, "poisson": mean > 0}.get(kind, True)


def _check(kind: str, X: NDArray[np.floating], rows: Rows, penalty: float) -> None:
    y = rows.y
    if X.ndim != 2 or any(values.shape != (X.shape[0],) for values in (y, rows.weight, rows.offset)):
        raise ValueError(f"X is {X.shape} and y is {y.shape}; (n, d) and (n,) are needed")
    if not 0 <= penalty < np.inf:
        raise ValueError(f"penalty is {penalty}, it must be zero or more")
    # Only a sum: one pass without a mask of X, and any bad value shows in it.
    if not np.isfinite(np.sum(X)) and not np.isfinite(X).all():
        raise ValueError("X has values that are not finite")
    if rows.weight.min(initial=0.0) < 0 or not np.isfinite(rows.weight @ rows.offset):
        raise ValueError("weights are zero or more, and offsets finite")
    if kind == "poisson" and y.min(initial=0.0) < 0:
        raise ValueError("y are counts: none below zero")
    if kind == "logistic" and not (len(y) and y.min() >= 0 and y.max() <= 1 and _is_fit(kind, rows)):
        raise ValueError("y must lie in [0, 1], and be neither all 0 nor all 1")
    if not _is_fit(kind, rows):
        raise ValueError(f"these labels and weights have no {kind} model")


def _newton(
    link: _Link,
    X: NDArray[np.floating],
    known: Rows,
    penalty: float,
    start: Floats,
    iterations: int,
    tolerance: float,
) -> Floats:
    point, factor, previous = _evaluate(link, X, known, penalty, start), None, np.inf
    for _ in range(iterations):
        if factor is None:
            factor = _inverse(_hessian(link, X, known, point.theta, penalty))
        step = factor @ point.gradient
        following = _descend(link, X, known, penalty, point, step)
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
    link: _Link, X: NDArray[np.floating], known: Rows, penalty: float, point: _Point, step: Floats
) -> _Point | None:
    """Step down, halving until the objective does not rise; None if no fraction of the step helps."""
    slack = 1e-13 * abs(point.loss)  # at the optimum the objective is flat to rounding
    for _ in range(_HALVINGS):
        following = _evaluate(link, X, known, penalty, point.theta - step)
        if following.loss <= point.loss + slack:
            return following
        step = step / 2
    return None


def _evaluate(link: _Link, X: NDArray[np.floating], known: Rows, penalty: float, theta: Floats) -> _Point:
    w = theta[:-1]
    loss, gradient = 0.5 * penalty * float(w @ w), np.append(penalty * w, 0.0)
    for rows in _blocks(X):
        block, own = np.asarray(X[rows], dtype=np.float64), known.taken(rows)
        z = block @ w + theta[-1] + own.offset
        loss += float(own.weight @ (link.loss(z) - own.y * z))
        residual = own.weight * (link.mean(z) - own.y)
        gradient[:-1] += residual @ block
        gradient[-1] += residual.sum()
    return _Point(theta, loss, gradient)


def _hessian(link: _Link, X: NDArray[np.floating], known: Rows, theta: Floats, penalty: float) -> Floats:
    d = X.shape[1]
    hessian = np.diag(np.append(np.full(d, float(penalty)), 0.0))
    for rows in _blocks(X):
        block, own = np.asarray(X[rows], dtype=np.float64), known.taken(rows)
        # With the root of the curvature the product is symmetric, at half the price.
        root = np.sqrt(own.weight * link.curvature(block @ theta[:-1] + theta[-1] + own.offset))
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
