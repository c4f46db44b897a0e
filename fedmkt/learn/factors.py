"""Small bases of numbers, whose products with another party's basis are the columns of a pair of two parties.

A factor is a number as at most `COLUMNS` functions, piecewise linear, or bins, over a twentieth of the train rows at
least each: white, of mean 0, smoothest first; nothing but the ridge of the model holds their products back. Rows
without an ordinary value (`splines`) are 0. No row is longer than `MOST_NORM`, and values are whole multiples of
2^-`BITS`: two factors multiply into a column of the model without any rounding.

A row carries a product where both numbers are ordinary. Nobody counts these rows, so each owner does: with more than
half of the rows each, by half of the least support, the two have that many in common, whichever they are.
"""

from dataclasses import replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn import splines
from fedmkt.learn.splines import Array, Smooth, is_ordinary

COLUMNS: Final = 4
BITS: Final = 8
MOST_NORM: Final = 3.0
_LEAST_SHARE: Final = 0.05
_DEGREES: Final = {"spline": 1, "bins": 0}
Units = NDArray[np.int32]


def fit(name: str, values: Array, basis: Literal["spline", "bins"], min_support: int) -> Smooth | None:
    """Fit the basis of one number on its train rows `values` (n,), NaN = missing; None if too few carry one."""
    degree = _DEGREES[basis]
    support = max(min_support, int(np.ceil(_LEAST_SHARE * len(values))))
    found = splines.fit(name, values, degree, COLUMNS - degree, 0.0, support, np.inf)
    if found is None or int(is_ordinary(values, found.spike).sum()) < least_rows(len(values), min_support):
        return None
    # Between two knots a row is a mean of what the rows at these knots are: none is longer than the longest of them.
    longest = float(np.linalg.norm(found.coefficients, axis=1).max())
    scale = min(1.0, (MOST_NORM - np.sqrt(COLUMNS) * 2.0**-BITS) / longest)
    return replace(found, coefficients=tuple(tuple(scale * c for c in row) for row in found.coefficients))


def least_rows(rows: int, min_support: int) -> int:
    """Return how many of the train rows must have an ordinary value of a paired number."""
    return -(-(rows + min_support) // 2)


def units(factor: Smooth, values: Array) -> Units:
    """Return the columns of some rows in units of 2^-`BITS`: (n, COLUMNS), zeros where the basis has fewer."""
    found = np.zeros((len(values), COLUMNS), np.int32)
    own = factor.apply(values)
    found[:, : own.shape[1]] = np.rint(own * 2.0**BITS)
    return found


def products(left: Units, right: Units) -> Array:
    """Multiply each column of one factor with each of the other: (n, COLUMNS^2), the left one's first column first."""
    found = left.astype(np.float64)[:, :, None] * right[:, None, :] / 4.0**BITS
    return np.asarray(found.reshape(len(left), -1), dtype=np.float64)
