"""How far the rows of each column moved between two tables, in the same bins: the stability index of columns.

Source: the population stability index as in credit scoring (Siddiqi 2006), `scorecard.stability_index`.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn.bins import Binning
from fedmkt.learn.scorecard import stability_index
from fedmkt.learn.woe import place_rows

Floats = NDArray[np.float64]
Rows = tuple[Mapping[str, Floats], Mapping[str, NDArray[np.object_]]]
"""Some rows of a table: numbers and categories by name, (n,) each."""


def column_shifts(binning: Binning, before: Rows, after: Rows) -> dict[str, float]:
    """Return the stability index of each column, by name: 0 where no share of a bin moved, or there is one bin.

    ValueError where a table has no rows.
    """
    found = {}
    for bins in binning.columns:
        old, new = (np.bincount(place_rows(bins, *rows), minlength=bins.count) for rows in (before, after))
        found[bins.name] = stability_index(old, new)
    return found
