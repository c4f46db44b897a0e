"""Shift: each party measures how far its own columns moved from another table of its own, and leaves out the unstable.

Computes, at every party for itself, the stability index of each of its columns between its train rows and a reference
that it chose: an earlier month, or the people to be scored. Bins are those of training. No step of its own: it is part
of the preparation, and of the step that cuts bins of a scorecard or of trees. Where the contract has `bins.max_shift`,
columns above it are left out; a party without a reference leaves out none.

| learns | what |
|---|---|
| owner | the index of each own column, in its own files |
| everybody | how many columns are left (`MatrixShape`); of trees, which: one that is left out has a single bin |
| bank | of a scorecard, which: totals of bins have the names of their columns (`BinCounts`) |

Safe against everybody: the owner alone has the reference and decides what it is. Whether an index is above a limit
depends on no label, but on who is common and has one. Columns of an earlier model (`model.start`) are never left out.
Source: learn/shift.py.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.learn.bins import (
    Binning,
    Bins,
    CategoryBins,
    NumberBins,
    category_bins,
    equal_width_bins,
    quantile_bins,
)
from fedmkt.learn.shift import Rows, column_shifts
from fedmkt.protocol.core import State, Turn

MAX_LEVELS = 128
"""Bins of a category: as many as a number may have, so that a code fits a byte."""


@dataclass(frozen=True)
class Reference(State):
    """The own columns by name in another table, as in `prepare.Columns`."""

    durable: ClassVar[bool] = False
    numbers: dict[str, NDArray[np.float64]]
    categories: dict[str, NDArray[np.object_]]


@dataclass(frozen=True)
class OwnShift(State):
    """The stability index of each own column that has bins, and which columns are left out for it."""

    names: tuple[str, ...]
    indices: NDArray[np.float64]
    left_out: tuple[str, ...]


def fine_bins(contract: Contract, rows: Rows) -> Binning:
    """Cut columns into bins as the contract says, before any is joined."""
    cut, least = contract.bins, contract.limits.min_support
    fit = quantile_bins if cut.method == "quantile" else equal_width_bins
    levels = min(contract.limits.max_levels, MAX_LEVELS)
    numbers, categories = rows
    found: list[Bins] = [fit(name, values, cut.count, least) for name, values in numbers.items()]
    found += [category_bins(name, values, levels, least) for name, values in categories.items()]
    return Binning(tuple(found))


def measure_shift(turn: Turn, binning: Binning, train: Rows) -> OwnShift | None:
    """Compare own train rows with the reference, if there is one; whom the partner knows has none."""
    if not turn.has(Reference):
        return None
    reference = turn.recall(Reference)
    after = (reference.numbers, reference.categories)
    columns = tuple(b for b in binning.columns if any(b.name in table for table in after))
    found = column_shifts(Binning(columns), train, after)
    most = turn.contract.bins.max_shift
    left_out = () if most is None else tuple(name for name, index in found.items() if index > most)
    return OwnShift(tuple(found), np.array(list(found.values()), np.float64), left_out)


def flattened(bins: Bins) -> Bins:
    """Put all rows of a column into one bin, so that it tells nothing and can be split nowhere."""
    return NumberBins(bins.name, (), 0) if isinstance(bins, NumberBins) else CategoryBins(bins.name, ((),), 0)
