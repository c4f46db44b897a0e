"""Smooth functions of one number as columns whose plain ridge is a penalty on roughness.

A function is a sum of B-splines over knots at quantiles of the train rows: cubic ones, or of degree 0, which are
bins. They add up to 1 everywhere, and a number beyond the first or last knot counts as one at that knot. Roughness is
the integral of the squared second derivative, by second differences of the coefficients, where the knots, which cut
the rows into equal parts, are taken to be equally spaced from 0 to 1: it does not depend on units or number of knots.

The columns are the eigenfunctions of roughness: uncorrelated, smoothest first, of mean 0. Where the column of
roughness m has variance 1 / (1 + smooth * m), the ridge |w|^2 over the columns is the variance of the function plus
`smooth` times its roughness. So a training that knows nothing but a ridge fits smooth functions.

The support rule of `prepare` holds for every B-spline by itself, which are the most local functions of the span, and
for every column: otherwise there are fewer knots. Two numbers are told apart from all others: a missing one, and a
value that a fifth of the train rows share, like the 0 of a balance. Their rows are 0 in all columns.

Source: de Boor, A Practical Guide to Splines (1978), for B-splines; Eilers and Marx (1996) for the penalty on
differences; Demmler and Reinsch (1975) for the eigenfunctions.

Letters: B (n, J) B-splines; M = B'B/n, centred; S = D'D / h^3 for second differences D, h between knots; C (J, k)
coefficients of columns.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SPIKE: Final = 0.2
"""Share of the train rows from which on a single value is told apart."""
_TAIL: Final = 0.01
"""Share of the rows below the first knot, and above the last; more, where it takes more for the least support: rows
that are clipped to an end carry the function there, however far out they are."""
_MOST_TAIL: Final = 0.25
_STEPS: Final = 32
_RANK: Final = 1e-7
"""Relative variance below which a direction of the span is rounding."""


@dataclass(frozen=True)
class Smooth:
    """One number as columns. knots : with both ends, rising; coefficients : C, J rows; spike : a value told apart."""

    name: str
    degree: int
    knots: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]
    spike: float | None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, smoothest first."""
        return tuple(f"{self.name}~{i + 1}" for i in range(len(self.coefficients[0])))

    def apply(self, values: Array) -> Array:
        """Return the columns of some rows, (n, k); rows without an ordinary value are 0."""
        found = np.zeros((len(values), len(self.coefficients[0])))
        rows = is_ordinary(values, self.spike)
        found[rows] = b_splines(values[rows], np.array(self.knots), self.degree) @ np.array(self.coefficients)
        return found


def is_ordinary(values: Array, spike: float | None) -> NDArray[np.bool_]:
    """Tell which rows have a value that is not told apart from all others."""
    ordinary: NDArray[np.bool_] = (
        ~np.isnan(values) if spike is None else ~np.isnan(values) & (values != spike)
    )
    return ordinary


def b_splines(x: Array, knots: Array, degree: int) -> Array:
    """Evaluate all B-splines at `x` (n,): (n, len(knots) + degree - 1), each row adds up to 1.

    knots : rising, with both ends; beyond them x is clipped, and they go on at the distance of the outermost two
    """
    if knots.ndim != 1 or len(knots) < 2 or not (np.diff(knots) > 0).all():
        raise ValueError("at least two knots are needed, in rising order")
    beyond = np.arange(1, degree + 1)
    first, last = (
        knots[0] - beyond[::-1] * (knots[1] - knots[0]),
        knots[-1] + beyond * (knots[-1] - knots[-2]),
    )
    t, x = np.concatenate([first, knots, last]), np.clip(x, knots[0], knots[-1])
    at = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
    local = np.zeros((degree + 1, len(x)))
    local[0] = 1.0
    for order in range(1, degree + 1):
        saved = np.zeros(len(x))
        for r in range(order):
            low, high = t[at + degree + r + 1 - order], t[at + degree + r + 1]
            share = local[r] / (high - low)
            local[r] = saved + (high - x) * share
            saved = (x - low) * share
        local[order] = saved
    found = np.zeros((len(x), len(knots) + degree - 1))
    np.put_along_axis(found, at[:, None] + np.arange(degree + 1), local.T, axis=1)
    return found


def roughness(knots: int, degree: int) -> Array:
    """Return S for the B-splines over so many knots, both ends among them: (J, J)."""
    second = np.diff(np.eye(knots + degree - 1), n=2, axis=0)
    return np.asarray(second.T @ second * float(knots - 1) ** 3, dtype=np.float64)


def fit(
    name: str, values: Array, degree: int, knots: int, smooth: float, min_support: int, bound: float
) -> Smooth | None:
    """Fit one number's columns on its train rows `values` (n,), NaN = missing.

    knots : most inner ones; fewer where a B-spline would have too little support. None where none are few enough:
    such a number has too few values or rows to be more than a line. bound : no column leaves +-bound, on any row
    """
    spike = _spike(values)
    ordinary = values[is_ordinary(values, spike)]
    if len(ordinary) < max(min_support, 1):
        return None
    tail = min(max(_TAIL, min_support / len(ordinary)), _MOST_TAIL)
    for inner in range(knots, -1, -1):
        places = np.unique(np.quantile(ordinary, np.linspace(tail, 1 - tail, inner + 2)))
        if len(places) < 2:
            continue
        found = _eigenfunctions(ordinary, len(values), places, degree, smooth, min_support)
        if found is not None:
            found /= np.maximum(_furthest(places, degree, found) / bound, 1.0)
            return Smooth(name, degree, tuple(places.tolist()), tuple(map(tuple, found.tolist())), spike)
    return None


def _furthest(knots: Array, degree: int, coefficients: Array) -> Array:
    """Bound each column between the ends: by the largest value at narrow steps, and what may lie between two."""
    shares = np.arange(_STEPS) / _STEPS
    x = np.append((knots[:-1, None] + shares * np.diff(knots)[:, None]).ravel(), knots[-1])
    values = np.abs(b_splines(x, knots, degree) @ coefficients)
    beyond = np.abs(np.diff(values, axis=0)).max(axis=0) if degree > 1 else 0.0
    return np.asarray(values.max(axis=0) + beyond, dtype=np.float64)


def _spike(values: Array) -> float | None:
    present = values[~np.isnan(values)]
    if not len(present):
        return None
    distinct, counts = np.unique(present, return_counts=True)
    top = int(np.argmax(counts))
    return float(distinct[top]) if counts[top] >= SPIKE * len(values) and len(distinct) > 1 else None


def _eigenfunctions(
    ordinary: Array, rows: int, knots: Array, degree: int, smooth: float, min_support: int
) -> Array | None:
    """Return C (J, J - 1), or None if a function lacks support or two cannot be told apart on these rows."""
    basis = b_splines(ordinary, knots, degree)
    if basis.shape[1] < 2 or _least_support(basis) < min_support:
        return None
    mean = basis.mean(axis=0)
    centred = basis - mean
    moments = centred.T @ centred / rows
    # A constant is no function of the span: without the first coefficient the others are free.
    variances, vectors = np.linalg.eigh(moments[1:, 1:])
    if variances[0] <= _RANK * variances[-1]:
        return None
    white = vectors / np.sqrt(variances)
    rough, turned = np.linalg.eigh(white.T @ roughness(len(knots), degree)[1:, 1:] @ white)
    free = white @ turned / np.sqrt(1 + smooth * np.maximum(rough, 0))
    found = np.concatenate([np.zeros((1, free.shape[1])), free])
    found -= mean @ found
    found *= np.where(found[-1] < found[0], -1.0, 1.0)
    return found if _least_support(basis @ found) >= min_support else None


def _least_support(columns: Array) -> float:
    """Return the fewest rows that carry a column: by (sum|x|)^2 / sum x^2, and by how many are not 0."""
    absolute = np.abs(columns)
    squares = np.square(columns).sum(axis=0)
    if not squares.all():
        return 0.0
    return float(min((absolute.sum(axis=0) ** 2 / squares).min(), (absolute > 0).sum(axis=0).min()))
