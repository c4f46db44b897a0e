"""Whitening: a party turns its own columns so that they are uncorrelated and of unit variance on its train rows.

A ridge keeps directions that hardly vary from being blown up. With T = V (D + ridge)^-1/2 for
X'X/n = V D V', the matrix X T has X'X/n near the identity, and a penalty on w = T u is diagonal in u.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Whitening:
    """transform : (d, d), columns of X times it are white; spread : (d,), the square roots of D + ridge."""

    transform: Array
    spread: Array


def fit(moments: Array, ridge: float) -> Whitening:
    """Fit on X'X/n of the train rows' centred columns, (d, d); ridge > 0 in units of variance."""
    if moments.ndim != 2 or moments.shape[0] != moments.shape[1] or not ridge > 0:
        raise ValueError("whitening needs a square matrix of moments and a positive ridge")
    values, vectors = np.linalg.eigh(moments)
    spread = np.sqrt(np.maximum(values, 0) + ridge)
    return Whitening(vectors / spread, spread)
