"""Bins of a column: of equal counts or equal width for numbers, of levels for categories.

Bins are fitted to the train rows of one column by its owner. Every row is in exactly one bin, also one that
training has not seen. Missing values of a number have a bin of their own, the last one, if there are enough of
them in train, and share another bin otherwise; in a category "(missing)" is a level like others. Levels that
are too rare share a bin.

How bins are merged once their totals are known is in `merging`; `join` applies the map that it finds:

    bins = quantile_bins("age", age[train], 20)
    totals = count_totals(bins.assign(age[train]), bins.count, y[train])
    merged = join(bins, merge(totals, ChiMerge(), bins.order))
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn.merging import Map, Minimum, Order, Totals, check_map, merge
from fedmkt.learn.prepare import MISSING, OTHER, levels_of

Floats = NDArray[np.float64]

_DIGEST_OF: Final = b"fedmkt bins 1\n"


@dataclass(frozen=True)
class NumberBins:
    """Bin b holds edges[b-1] <= x < edges[b]; missing values are in bin `missing`, the last or a shared one."""

    name: str
    edges: tuple[float, ...]
    missing: int

    def __post_init__(self) -> None:
        # One text per binning: an edge 1 is written 1.0, and -0.0 is written 0.0.
        object.__setattr__(self, "edges", tuple(float(edge) + 0.0 for edge in self.edges))
        if not np.isfinite(self.edges).all() or (np.diff(self.edges) <= 0).any():
            raise ValueError(f"the edges of {self.name!r} must be finite and rise")
        if not 0 <= self.missing <= len(self.edges) + 1:
            raise ValueError(f"{self.name!r} has no bin {self.missing}")

    @property
    def count(self) -> int:
        """Number of bins, with that of the missing values."""
        return max(len(self.edges), self.missing) + 1

    @property
    def order(self) -> Order:
        """Missing values stand last if they have a bin of their own."""
        return "rising values, then missing" if self.missing > len(self.edges) else "rising values"

    @property
    def labels(self) -> tuple[str, ...]:
        """What each bin holds, to be read by people."""
        edges = [f"{edge:g}" for edge in self.edges]
        between = [f"{low} to below {high}" for low, high in pairwise(edges)]
        texts = [f"below {edges[0]}", *between, f"{edges[-1]} and above"] if edges else ["any number"]
        if self.missing == len(texts):
            return (*texts, MISSING)
        texts[self.missing] += f" or {MISSING}"
        return tuple(texts)

    def assign(self, values: Floats) -> NDArray[np.int32]:
        """Return the bin of each value (n,); NaN = missing."""
        _check_numbers(self.name, values)
        found = np.searchsorted(np.array(self.edges), values, side="right").astype(np.int32)
        found[np.isnan(values)] = self.missing
        return found


@dataclass(frozen=True)
class CategoryBins:
    """Bin b holds the levels groups[b]; levels in no group, also "(missing)", are in bin `other`."""

    name: str
    groups: tuple[tuple[str, ...], ...]
    other: int

    def __post_init__(self) -> None:
        levels = [level for group in self.groups for level in group]
        if len(set(levels)) != len(levels) or OTHER in levels:
            raise ValueError(f"a level of {self.name!r} may be in one group only, and {OTHER!r} in none")
        if not 0 <= self.other < len(self.groups):
            raise ValueError(f"{self.name!r} has no bin {self.other}")
        if not all(group for b, group in enumerate(self.groups) if b != self.other):
            raise ValueError(f"{self.name!r} has a bin without a level")

    @property
    def count(self) -> int:
        """Number of bins."""
        return len(self.groups)

    @property
    def order(self) -> Order:
        """Levels have no order of their own."""
        return "levels"

    @property
    def labels(self) -> tuple[str, ...]:
        """What each bin holds, to be read by people."""
        return tuple(
            ", ".join((*group, OTHER) if b == self.other else group) for b, group in enumerate(self.groups)
        )

    def assign(self, values: NDArray[np.object_]) -> NDArray[np.int32]:
        """Return the bin of each value (n,), text or None."""
        _check_vector(self.name, values)
        present = values.tolist()
        bin_of = {level: b for b, group in enumerate(self.groups) for level in group}
        found = {v: bin_of.get(level, self.other) for v, level in levels_of(self.name, present).items()}
        return np.fromiter(map(found.__getitem__, present), np.int32, len(present))


Bins = NumberBins | CategoryBins
"""Bins of one column."""


@dataclass(frozen=True)
class Binning:
    """Bins of several columns, in order: what a party pins before totals per bin are shown to anybody."""

    columns: tuple[Bins, ...]

    def __post_init__(self) -> None:
        if len({bins.name for bins in self.columns}) != len(self.columns):
            raise ValueError("two columns have the same name")

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON text, in hex: equal exactly for equal binnings."""
        return hashlib.sha256(_DIGEST_OF + self.to_json().encode("ascii")).hexdigest()

    def to_json(self) -> str:
        """Text that `from_json` turns into an equal binning, bit for bit; there is one text per binning."""
        return json.dumps(asdict(self), ensure_ascii=True, allow_nan=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Binning":
        """Inverse of `to_json`; ValueError for anything else, also for the same facts written otherwise."""
        try:
            binning = Binning(tuple(_bins(raw) for raw in json.loads(text)["columns"]))
            is_same = binning.to_json() == text
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError("not a binning") from error
        if not is_same:
            raise ValueError("not a binning in its one form")
        return binning


def quantile_bins(name: str, values: Floats, count: int, minimum_rows: int = 50) -> NumberBins:
    """Cut `values` (n,), the train rows with NaN = missing, into up to `count` bins of about equal counts.

    Edges are values that occur. A value that fills a whole bin and more gets a bin of its own. Bins of fewer
    than `minimum_rows`, also that of the missing values, are joined by the rule of `merge`.
    """
    present = _present(name, values, count)
    if not len(present):
        return NumberBins(name, (), 0)
    ordered = np.sort(present)
    cuts = ordered[np.arange(1, count) * len(ordered) // count]
    edges, repeats = np.unique(cuts, return_counts=True)
    # Where cuts coincide, or at the least value, the second edge goes behind the value that they fell on.
    behind = np.searchsorted(ordered, edges[(repeats > 1) | (edges == ordered[0])], side="right")
    edges = np.union1d(edges[edges > ordered[0]], ordered[behind[behind < len(ordered)]])
    return _supported(name, edges, values, minimum_rows)


def equal_width_bins(name: str, values: Floats, count: int, minimum_rows: int = 50) -> NumberBins:
    """Cut the range of `values` (n,), the train rows with NaN = missing, into `count` bins of equal width.

    Bins of fewer than `minimum_rows`, also that of the missing values, are joined by the rule of `merge`.
    """
    present = _present(name, values, count)
    if not len(present):
        return NumberBins(name, (), 0)
    # Halves, since the width of the whole range may overflow.
    edges = 2 * np.linspace(present.min() / 2, present.max() / 2, count + 1)
    inner = np.unique(edges[1:-1])
    return _supported(name, inner[(inner > present.min()) & (inner <= present.max())], values, minimum_rows)


def category_bins(
    name: str, values: NDArray[np.object_], max_bins: int = 20, minimum_rows: int = 50
) -> CategoryBins:
    """Give each level of `values` (n,), the train rows, a bin; most frequent first, equals by name.

    Levels of fewer than `minimum_rows` and those beyond `max_bins` share the last bin if together they have
    `minimum_rows`, and otherwise join the most frequent level; so do levels that training has not seen. Names
    of rare levels are not kept. None or NaN is the level "(missing)".
    """
    if max_bins < 2 or minimum_rows < 1:
        raise ValueError("max_bins must be at least 2 and minimum_rows at least 1")
    _check_vector(name, values)
    present = values.tolist()
    counts = Counter(map(levels_of(name, present).__getitem__, present))
    frequent = sorted(
        (level for level, rows in counts.items() if rows >= minimum_rows and level != OTHER),
        key=lambda level: (-counts[level], level),
    )
    kept = frequent if len(frequent) == len(counts) <= max_bins else frequent[: max_bins - 1]
    rest = len(values) - sum(counts[level] for level in kept)
    groups: list[tuple[str, ...]] = [(level,) for level in kept]
    if rest >= minimum_rows or not kept:
        return CategoryBins(name, (*groups, ()), len(groups))
    return CategoryBins(name, tuple(groups), 0)


def join(bins: Bins, mapping: Map) -> Bins:
    """Apply a map to the fine bins; ValueError if it joins bins of a number that are no neighbours."""
    check_map(mapping, bins.count)
    return _join_groups(bins, mapping) if isinstance(bins, CategoryBins) else _join_ranges(bins, mapping)


def _join_groups(bins: CategoryBins, mapping: Map) -> CategoryBins:
    groups: list[tuple[str, ...]] = [()] * (max(mapping) + 1)
    for group, merged in zip(bins.groups, mapping, strict=True):
        groups[merged] += group
    return CategoryBins(bins.name, tuple(groups), mapping[bins.other])


def _join_ranges(bins: NumberBins, mapping: Map) -> NumberBins:
    ordered = mapping[: len(bins.edges) + 1]
    steps = [after - before for before, after in pairwise(ordered)]
    if ordered[0] != 0 or not set(steps) <= {0, 1}:
        raise ValueError(f"the map joins bins of {bins.name!r} that are no neighbours")
    edges = tuple(edge for edge, step in zip(bins.edges, steps, strict=True) if step)
    return NumberBins(bins.name, edges, mapping[bins.missing])


def _supported(name: str, edges: Floats, values: Floats, minimum_rows: int) -> NumberBins:
    fine = NumberBins(name, tuple(edges.tolist()), len(edges) + 1)
    rows = np.bincount(fine.assign(values), minlength=fine.count).astype(np.int64)
    mapping = merge(Totals(rows, np.zeros_like(rows)), Minimum(minimum_rows, 0, 0), fine.order)
    return _join_ranges(fine, mapping)


def _present(name: str, values: Floats, count: int) -> Floats:
    _check_numbers(name, values)
    if count < 1:
        raise ValueError(f"count is {count}, at least 1 is needed")
    return values[~np.isnan(values)]


def _check_numbers(name: str, values: Floats) -> None:
    _check_vector(name, values)
    if values.dtype != np.float64 or np.isinf(values).any():
        raise ValueError(f"column {name!r} must be float64 without infinite values")


def _check_vector(name: str, values: Floats | NDArray[np.object_]) -> None:
    if values.ndim != 1:
        raise ValueError(f"column {name!r} has shape {values.shape}, not (n,)")


def _bins(raw: Mapping[str, object]) -> Bins:
    cuts = raw["edges"] if "edges" in raw else raw["groups"]
    place = raw["missing"] if "edges" in raw else raw["other"]
    if not isinstance(cuts, list) or not isinstance(place, int):
        raise TypeError
    if "edges" in raw:
        return NumberBins(str(raw["name"]), tuple(float(edge) for edge in cuts), int(place))
    return CategoryBins(str(raw["name"]), tuple(tuple(map(str, group)) for group in cuts), int(place))
