"""What a matrix of correlations tells about columns: variance inflation, near copies, and which columns to keep.

All functions take the correlation matrix alone, (d, d) with ones on its diagonal, so that it may come from several
parties and be rounded. The variance inflation factor (VIF) of a column is 1 / (1 - R^2) of its regression on all
others, the diagonal of the inverse; above 5 to 10 its weight is hard to tell from the others'.
Source: Marquardt 1970; Belsley, Kuh, Welsch 1980.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn.prepare import Dropped
from fedmkt.learn.scorecard import Candidate, Limits, Selection, select

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Two columns by their places, and their correlation."""

    first: int
    second: int
    correlation: float


def rounding_noise(columns: int, decimals: int) -> float:
    """Bound, but for rare cases, how far eigenvalues move when correlations are rounded up or down at random.

    An entry is off by at most one unit, half a unit in standard deviation; a symmetric matrix of such noise has
    eigenvalues within twice that times the root of its size.
    """
    return float(np.sqrt(columns)) * 10.0**-decimals


def variance_inflation(correlation: Floats, tolerance: float = 1e-10) -> Floats:
    """Return the VIF of each column, (d,), 1 or more; infinite for columns that others make up exactly.

    tolerance : eigenvalues of at most this much count as zero; `rounding_noise` of a matrix that was rounded
    """
    _check(correlation)
    values, vectors = np.linalg.eigh(correlation)
    squares = np.square(vectors)
    none = values <= tolerance
    found = squares[:, ~none] @ (1 / values[~none])
    # A column takes part in an exact dependence if its share of that direction is more than noise.
    dependent = (squares[:, none] > max(tolerance, 1e-9)).any(axis=1)
    return np.where(dependent, np.inf, np.maximum(found, 1.0))


def near_copies(correlation: Floats, above: float) -> tuple[Pair, ...]:
    """List the pairs of columns whose absolute correlation is above a limit, from the strongest down."""
    _check(correlation)
    first, second = np.triu_indices(len(correlation), 1)
    size = np.abs(correlation[first, second])
    order = np.argsort(-size, kind="stable")
    return tuple(
        Pair(int(first[i]), int(second[i]), float(correlation[first[i], second[i]]))
        for i in order
        if size[i] > above
    )


def drop_inflated(
    names: Sequence[str], correlation: Floats, limit: float = 10.0, worth: Sequence[float] | None = None,
    tolerance: float = 1e-10,
) -> Selection:  # fmt: skip
    """Leave out one column at a time, that of the largest VIF, until none is above the limit.

    worth : of each column, such as its information value; of columns that others make up exactly the least worthy
        goes first, and the last of equals. `kept` is in the order of the names, `dropped` in that of leaving.
    """
    _check(correlation)
    value = np.zeros(len(names)) if worth is None else np.asarray(worth, np.float64)
    if correlation.shape != (len(names),) * 2 or value.shape != (len(names),) or not limit >= 1:
        raise ValueError("names, worth and correlation are of different sizes, or the limit is below 1")
    kept, dropped = list(range(len(names))), []
    while len(kept) > 1:
        inflation = variance_inflation(correlation[np.ix_(kept, kept)], tolerance)
        largest = float(inflation.max())
        if not largest > limit:
            break
        rivals = [k for k, v in zip(kept, inflation, strict=True) if v == largest]
        out = min(rivals, key=lambda k: (value[k], -k))
        kept.remove(out)
        reason = "made up by other columns" if np.isinf(largest) else f"variance inflation {largest:.1f}"
        dropped.append(Dropped(names[out], reason))
    return Selection(tuple(names[k] for k in kept), tuple(dropped))


def choose(
    candidates: Sequence[Candidate], correlation: Floats, limits: Limits | None = None, inflation: float = 10.0,
    tolerance: float = 1e-10,
) -> Selection:  # fmt: skip
    """Choose columns by information value, stability and correlation (`scorecard.select`), then by VIF.

    Of those that pass the first three, the one of the largest VIF leaves until none is above `inflation`.
    """
    first = select(candidates, correlation, limits)
    places = {c.name: i for i, c in enumerate(candidates)}
    at = [places[name] for name in first.kept]
    worth = [candidates[i].information_value for i in at]
    second = drop_inflated(first.kept, correlation[np.ix_(at, at)], inflation, worth, tolerance)
    return Selection(second.kept, (*first.dropped, *second.dropped))


def warnings(names: Sequence[str], correlation: Floats, tolerance: float = 1e-10) -> tuple[str, ...]:
    """Say which columns copy each other or are hard to tell from others: correlation above .9, VIF above 10."""
    copies = tuple(
        f"{names[p.first]} and {names[p.second]} are nearly the same column: correlation {p.correlation:+.3f}"
        for p in near_copies(correlation, 0.9)
    )
    inflation = variance_inflation(correlation, tolerance)
    inflated = tuple(
        f"{name} is made up by other columns"
        if np.isinf(v)
        else f"the weight of {name} is hard to tell from others: variance inflation {v:.1f}"
        for name, v in zip(names, inflation, strict=True)
        if v > 10
    )
    return (*copies, *inflated)


def _check(correlation: Floats) -> None:
    if (
        correlation.ndim != 2
        or correlation.shape[0] != correlation.shape[1]
        or not np.isfinite(correlation).all()
        or not np.allclose(correlation, correlation.T, atol=1e-9)
        or not np.allclose(np.diag(correlation), 1.0, atol=1e-9)
        or np.abs(correlation).max(initial=0.0) > 1 + 1e-9
    ):
        raise ValueError(
            "a matrix of correlations is square, symmetric, within -1..1 and has ones on its diagonal"
        )
