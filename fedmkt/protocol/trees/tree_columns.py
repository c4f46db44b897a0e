"""Columns of boosted trees: each party cuts its own into bins; how many bins they have is all that leaves.

Computes, at every party for itself, the bins of its columns, fitted on its own rows that train. Takes part: all parties
that hold data. Safe against everybody, who get nothing but sizes; a party may lie about them, and harms its own model.

| learns | what |
|---|---|
| everybody | how many bins each column has, and whether the last is of missing values (`MatrixShape`) |

Numbers are cut by `bins.method` into at most `bins.count` bins. A category has a bin for each frequent level, at most
`limits.max_levels` and `MAX_LEVELS`; missing values of either have a bin of their own, the last, if there are enough of
them, and share another one otherwise. A column that moved too far (`protocol.shift`) has one bin. No bin has fewer than
`limits.min_support` train rows.

A split sends a range of bins left, so the levels of a category need an order (`in_order`). Its owner takes what it
has: the bank the share of events among its train rows, a partner, who knows no label, the number of rows.

Columns stand in the order of the contract, numbers first. Codes are those of `ring.rlwe`: a bin of the column, or
`NO_BIN` where a row is padding. `table_values` turns them into those of `learn.trees.Table`, where all columns have
`common_bins` bins and the missing stand behind them: a number that follows from the contract alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.errors import DataError, PeerError
from fedmkt.learn.bins import (
    Binning,
    Bins,
    CategoryBins,
    NumberBins,
    category_bins,
    equal_width_bins,
    quantile_bins,
)
from fedmkt.learn.prepare import MISSING
from fedmkt.learn.trees import Column, Table
from fedmkt.privacy.disclosure import EVERYONE, MatrixShape
from fedmkt.protocol.alignment.align import Split, validation_rows
from fedmkt.protocol.alignment.items import NO_ROW, Rows
from fedmkt.protocol.core import Caller, Inbox, Name, Nothing, Outcome, Step, Turn, ask, data_parties
from fedmkt.protocol.prepare import MAX_COLUMNS, Columns, own_columns, real, take
from fedmkt.protocol.scorecard.totals import OwnBins, own_bins
from fedmkt.protocol.shift import MAX_LEVELS, flattened, measure_shift
from fedmkt.protocol.trees.bin_layout import MAX_WIDTH, BinSizes, is_accepted, is_apart
from fedmkt.ring.rlwe import NO_BIN, Codes

Floats = NDArray[np.float64]


def common_bins(contract: Contract) -> int:
    """Return how many bins every column has in a `Table`, those of the missing apart: the most that one can have."""
    return max(contract.bins.count, min(contract.limits.max_levels, MAX_LEVELS))


def party_columns(contract: Contract, party: Name) -> tuple[Column, ...]:
    """Return a party's columns as trees see them, in their order."""
    terms, trends = contract.party(party), {(t.party, t.column): t.trend for t in contract.trees.trends}
    names = (*terms.numbers, *terms.categories)
    return tuple(Column(name, str(party), trends.get((party, name), 0)) for name in names)


def in_order(bins: CategoryBins, worth: Sequence[float]) -> CategoryBins:
    """Put levels in falling order of what they are worth, equals by name; the bin of missing values alone comes last.

    worth : one number for each bin, such as its rows or its share of events
    """
    if len(worth) != bins.count:
        raise ValueError(f"{bins.name!r} has {bins.count} bins, not {len(worth)}")
    order = sorted(range(bins.count), key=lambda b: (bins.groups[b] == (MISSING,), -worth[b], bins.groups[b]))
    return CategoryBins(bins.name, tuple(bins.groups[b] for b in order), order.index(bins.other))


def missing_apart(bins: Bins) -> bool:
    """Tell whether the last bin is that of the missing values, and of nothing else that training has seen."""
    if isinstance(bins, CategoryBins):
        return bins.count > 1 and bins.groups[-1] == (MISSING,)
    return is_apart(bins)


def fit_bins(contract: Contract, me: Name, columns: Columns, train: Rows) -> Binning:
    """Cut the own columns into bins, in the order of the contract; train : own rows, no padding."""
    support = contract.limits.min_support
    cut = quantile_bins if contract.bins.method == "quantile" else equal_width_bins
    label = None if columns.label is None else columns.label[train]
    found: list[Bins] = [
        cut(name, columns.numbers[name][train], contract.bins.count, support)
        for name in contract.party(me).numbers
    ]
    most = min(contract.limits.max_levels, MAX_LEVELS)
    for name in contract.party(me).categories:
        values = columns.categories[name][train]
        bins = category_bins(name, values, most, support)
        found.append(in_order(bins, _worth(bins.assign(values), bins.count, label)))
    return Binning(tuple(found))


def _worth(codes: NDArray[np.int32], bins: int, label: Floats | None) -> list[float]:
    rows = np.bincount(codes, minlength=bins)
    if label is None:
        return list(map(float, rows))
    events = np.bincount(codes, weights=label, minlength=bins)
    return [float(share) for share in events / np.maximum(rows, 1)]


def sizes_of(binning: Binning) -> BinSizes:
    """Return what everybody is told about the bins."""
    return BinSizes(tuple(b.count for b in binning.columns), tuple(missing_apart(b) for b in binning.columns))


def own_codes(turn: Turn, rows: Rows) -> Codes:
    """Return the bin of the own rows in each own column, (columns, n); `NO_BIN` throughout where a row is padding."""
    return codes_of(own_bins(turn), own_columns(turn), rows)


def codes_of(binning: Binning, columns: Columns, rows: Rows) -> Codes:
    """Return the bin of some rows in each column, as `own_codes` does."""
    codes = np.full((len(binning.columns), len(rows)), NO_BIN, np.uint8)
    is_real, wanted = rows != NO_ROW, real(rows)
    for code, bins in zip(codes, binning.columns, strict=True):
        if isinstance(bins, NumberBins):
            code[is_real] = bins.assign(columns.numbers[bins.name][wanted])
        else:
            code[is_real] = bins.assign(columns.categories[bins.name][wanted])
    return codes


def table_values(codes: Codes, sizes: BinSizes, bins: int) -> Codes:
    """Return codes as the values of a `Table` of `bins` bins; real rows only, in which the missing come last."""
    if (codes == NO_BIN).any():
        raise ValueError("padding has no place in a table")
    out = codes.copy()
    for values, size, apart in zip(out, sizes.sizes, sizes.apart, strict=True):
        if apart:
            values[values == size - 1] = bins
    return out


def table_of(contract: Contract, party: Name, binning: Binning, columns: Columns, rows: Rows) -> Table:
    """Return some real rows of a party's columns as trees read them."""
    values = table_values(codes_of(binning, columns, rows), sizes_of(binning), common_bins(contract))
    return Table(party_columns(contract, party), values, common_bins(contract))


def _fit(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, BinSizes]:
    trains = turn.recall(Split).train[~validation_rows(turn)]
    columns, trains = own_columns(turn), real(trains)
    binning = fit_bins(turn.contract, turn.me, columns, trains)
    shift = measure_shift(turn, binning, take(columns, trains))
    if shift is not None and shift.left_out:
        binning = Binning(tuple(flattened(b) if b.name in shift.left_out else b for b in binning.columns))
    sizes = sizes_of(binning)
    if not is_accepted(sizes):
        raise DataError(
            f"{turn.me}: trees want 1 to {MAX_COLUMNS} columns and at most {MAX_WIDTH} bins in all, "
            f"not {len(sizes.sizes)} and {sizes.width}"
        )
    shape = MatrixShape(to=EVERYONE, columns=sizes.width, row_norm=int(np.ceil(len(sizes.sizes) ** 0.5)))
    kept = OwnBins(binning.to_json())
    return Outcome(sizes, keep=(kept,) if shift is None else (kept, shift), reveals=(shape,))


FIT_BINS = Step("prepare.bins", _fit, BinSizes, reveals=(MatrixShape,))


def cut_columns(call: Caller, contract: Contract) -> Mapping[Name, BinSizes]:
    """Have each party cut its own columns into bins: one round."""
    parties = data_parties(contract)
    replies = call.all([ask(p, FIT_BINS) for p in parties])
    found = {p: r.public.value for p, r in zip(parties, replies, strict=True)}
    for party, sizes in found.items():
        values = [size - apart for size, apart in zip(sizes.sizes, sizes.apart, strict=True)]
        is_complete = len(sizes.sizes) == len(party_columns(contract, party))
        if not (
            is_accepted(sizes) and is_complete and min(values) > 0 and max(values) <= common_bins(contract)
        ):
            raise PeerError(f"{party}: {FIT_BINS.name}: bins of these sizes are not accepted")
    return found
