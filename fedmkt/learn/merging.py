"""Which bins of a column are joined, decided from the totals (rows, events) per fine bin alone.

In the protocol nobody has more than these totals. The result is a map from fine to merged bins. Three rules, of
which the last two begin with the first:
- `Minimum`: a bin short of rows, events or others joins the neighbour that it differs least from (chi-square;
  if equal, the one with fewer rows), the smallest such bin first;
- `ChiMerge`: then the two neighbours with the smallest chi-square join while it is not significant (Kerber,
  ChiMerge: Discretization of Numeric Attributes, AAAI 1992);
- `Monotone`: then neighbours whose event rates are in the wrong order join (pool adjacent violators), so that
  the rates of a number's bins strictly rise or fall; its result is the isotonic regression of the rates.

A later merge never undoes what an earlier one reached. Bins are compared exactly, as fractions of integers,
and equals are settled by position, so that two parties with the same totals find the same map.

A bin of missing values takes no part in the order. Where it is short, it joins the bin with most rows before
the second step. Levels of a category are put in the order of their event rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Map = tuple[int, ...]
"""Merged bin of each fine bin; merged bins are numbered from 0 without gaps."""
Order = Literal["rising values", "rising values, then missing", "levels"]
"""How fine bins stand to each other: which are neighbours."""


@dataclass(frozen=True, eq=False)
class Totals:
    """rows, events : (bins,) int64, 0 <= events <= rows; an event is a row with label 1, the rest are others."""

    rows: NDArray[np.int64]
    events: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.rows.ndim != 1 or self.rows.shape != self.events.shape or not len(self.rows):
            raise ValueError(f"rows {self.rows.shape} and events {self.events.shape} must be of one length")
        if self.rows.dtype != np.int64 or self.events.dtype != np.int64:
            raise ValueError("totals must be int64")
        if (self.events < 0).any() or (self.events > self.rows).any():
            raise ValueError("a bin has fewer than no events or more events than rows")

    @property
    def others(self) -> NDArray[np.int64]:
        """Rows without an event, per bin."""
        return self.rows - self.events


@dataclass(frozen=True)
class Minimum:
    """What every bin must hold at least; as a rule, merge no more than that needs.

    Bins are joined one by one, so a column may end as one bin, which has no information value and may itself
    be short: `is_met` tells.
    """

    rows: int = 50
    events: int = 10
    others: int = 10

    def __post_init__(self) -> None:
        if self.rows < 1 or self.events < 0 or self.others < 0:
            raise ValueError("a bin must hold at least one row, and not fewer than no events or others")

    def is_met(self, totals: Totals) -> bool:
        """Whether every bin holds enough."""
        return all(_is_enough(block, self) for block in _blocks(totals))


@dataclass(frozen=True)
class ChiMerge:
    """Join neighbours that do not differ at `confidence`, and on until `max_bins` are left.

    confidence : of a chi-square test with one degree of freedom, in [0, 1)
    max_bins : not counting the own bin of a number's missing values
    """

    minimum: Minimum = field(default_factory=Minimum)
    confidence: float = 0.95
    max_bins: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.confidence < 1 or self.max_bins < 1:
            raise ValueError("confidence must be in [0, 1) and max_bins at least 1")


@dataclass(frozen=True)
class Monotone:
    """Join neighbours until event rates strictly rise or fall and at most `max_bins` are left; for numbers.

    direction : "either" takes the one whose fit is closer (least squares), rising if equal
    max_bins : not counting the own bin of the missing values
    """

    minimum: Minimum = field(default_factory=Minimum)
    direction: Literal["rising", "falling", "either"] = "either"
    max_bins: int = 10

    def __post_init__(self) -> None:
        if self.direction not in ("rising", "falling", "either") or self.max_bins < 1:
            raise ValueError("direction must be rising, falling or either, and max_bins at least 1")


Rule = Minimum | ChiMerge | Monotone
"""When neighbouring bins are joined."""


def count_totals(numbers: NDArray[np.integer], count: int, y: ArrayLike) -> Totals:
    """Count rows and events per bin from each row's bin `numbers` (n,) and label `y` (n,) of 0 and 1."""
    labels = np.asarray(y)
    if numbers.ndim != 1 or numbers.shape != labels.shape:
        raise ValueError(f"bins {numbers.shape} and labels {labels.shape} must be two vectors of one length")
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
        raise ValueError(f"a row is in none of {count} bins")
    is_event = labels == 1
    if not (is_event | (labels == 0)).all():
        raise ValueError("labels must be 0 or 1")
    rows = np.bincount(numbers, minlength=count)
    return Totals(rows.astype(np.int64), np.bincount(numbers[is_event], minlength=count).astype(np.int64))


def merge(totals: Totals, rule: Rule, order: Order) -> Map:
    """Map fine bins to merged ones; `order` is that of the fine bins.

    Merged bins of a number keep the order of its values, with missing values last where they hold enough.
    Those of a category are numbered by the first fine bin that they hold.
    """
    if order == "levels":
        return _merge_levels(_blocks(totals), rule)
    if order == "rising values":
        return _map(_follow(_fill(_blocks(totals), _minimum(rule)), rule))
    return _merge_with_missing(_blocks(totals), rule)


def join_totals(totals: Totals, mapping: Map) -> Totals:
    """Add up the totals of the fine bins of each merged bin."""
    check_map(mapping, len(totals.rows))
    rows, events = (np.zeros(max(mapping) + 1, dtype=np.int64) for _ in range(2))
    np.add.at(rows, list(mapping), totals.rows)
    np.add.at(events, list(mapping), totals.events)
    return Totals(rows, events)


def check_map(mapping: Map, count: int) -> None:
    """Raise ValueError unless `mapping` is a map of `count` fine bins."""
    if len(mapping) != count or set(mapping) != set(range(max(mapping) + 1)):
        raise ValueError(f"the map must give each of {count} bins a merged one, without gaps")


class _Block(NamedTuple):
    """Fine bins joined so far: how many, and what they hold."""

    bins: int
    rows: int
    events: int


def _blocks(totals: Totals) -> list[_Block]:
    return [_Block(1, r, e) for r, e in zip(totals.rows.tolist(), totals.events.tolist(), strict=True)]


def _both(a: _Block, b: _Block) -> _Block:
    return _Block(a.bins + b.bins, a.rows + b.rows, a.events + b.events)


def _map(blocks: Sequence[_Block]) -> Map:
    return tuple(b for b, block in enumerate(blocks) for _ in range(block.bins))


def _minimum(rule: Rule) -> Minimum:
    return rule if isinstance(rule, Minimum) else rule.minimum


def _is_enough(block: _Block, minimum: Minimum) -> bool:
    others = block.rows - block.events
    return block.rows >= minimum.rows and block.events >= minimum.events and others >= minimum.others


def _merge_with_missing(blocks: list[_Block], rule: Rule) -> Map:
    *ordered, missing = blocks
    if not ordered:
        return (0,)
    minimum = _minimum(rule)
    filled = _fill(ordered, minimum)
    if _is_enough(missing, minimum) and all(_is_enough(block, minimum) for block in filled):
        merged = _follow(filled, rule)
        return (*_map(merged), len(merged))
    home = max(range(len(filled)), key=lambda b: filled[b].rows)
    fine = sum(block.bins for block in filled[:home])
    filled[home] = _both(filled[home], missing)._replace(bins=filled[home].bins)
    found = _map(_follow(filled, rule))
    return (*found, found[fine])


def _merge_levels(blocks: list[_Block], rule: Rule) -> Map:
    if isinstance(rule, Monotone):
        raise ValueError("levels have no order in which their event rates could rise or fall")
    overall = Fraction(sum(b.events for b in blocks), max(sum(b.rows for b in blocks), 1))
    # A level without rows is taken to be average.
    rates = [Fraction(b.events, b.rows) if b.rows else overall for b in blocks]
    order = sorted(range(len(blocks)), key=lambda b: (rates[b], b))
    found = _map(_follow(_fill([blocks[b] for b in order], _minimum(rule)), rule))
    group_of = dict(zip(order, found, strict=True))
    number: dict[int, int] = {}
    return tuple(number.setdefault(group_of[b], len(number)) for b in range(len(blocks)))


def _fill(blocks: list[_Block], minimum: Minimum) -> list[_Block]:
    """Join neighbours until each block holds the minimum, or one is left."""
    blocks = list(blocks)
    while len(blocks) > 1:
        short = [b for b, block in enumerate(blocks) if not _is_enough(block, minimum)]
        if not short:
            break
        at = min(short, key=lambda b: (blocks[b].rows, b))
        sides = [b for b in (at - 1, at + 1) if 0 <= b < len(blocks)]
        other = min(sides, key=lambda b: (_chi_square(blocks[at], blocks[b]), blocks[b].rows, b))
        first = min(at, other)
        blocks[first : first + 2] = [_both(blocks[first], blocks[first + 1])]
    return blocks


def _follow(blocks: list[_Block], rule: Rule) -> list[_Block]:
    """Do what the rule asks for beyond its minimum."""
    match rule:
        case Minimum():
            return blocks
        case ChiMerge():
            return _join_alike(blocks, NormalDist().inv_cdf((1 + rule.confidence) / 2) ** 2, rule.max_bins)
        case Monotone():
            return _join_alike(_straighten(blocks, rule.direction), -1.0, rule.max_bins)


def _join_alike(blocks: list[_Block], threshold: float, max_bins: int) -> list[_Block]:
    """Join the two neighbours with the least chi-square while it is up to `threshold` or bins are too many."""
    blocks = list(blocks)
    differences = [_chi_square(a, b) for a, b in pairwise(blocks)]
    while differences:
        at = min(range(len(differences)), key=differences.__getitem__)
        if differences[at] > threshold and len(blocks) <= max_bins:
            break
        blocks[at : at + 2] = [_both(blocks[at], blocks[at + 1])]
        del differences[at]
        for b in (at - 1, at):
            if 0 <= b < len(differences):
                differences[b] = _chi_square(blocks[b], blocks[b + 1])
    return blocks


def _chi_square(a: _Block, b: _Block) -> Fraction:
    """Pearson's chi-square of the table of two bins and two labels; 0 where a row or column of it is empty."""
    rows, events = a.rows + b.rows, a.events + b.events
    margins = a.rows * b.rows * events * (rows - events)
    return Fraction(rows * (a.events * b.rows - b.events * a.rows) ** 2, margins) if margins else Fraction(0)


def _straighten(blocks: list[_Block], direction: Literal["rising", "falling", "either"]) -> list[_Block]:
    if direction == "rising":
        return _pool(blocks)
    falling = _pool(blocks[::-1])[::-1]
    if direction == "falling":
        return falling
    rising = _pool(blocks)
    return rising if _closeness(rising) >= _closeness(falling) else falling


def _pool(blocks: Sequence[_Block]) -> list[_Block]:
    """Pool adjacent violators until event rates strictly rise."""
    pooled: list[_Block] = []
    for block in blocks:
        while pooled and pooled[-1].events * block.rows >= block.events * pooled[-1].rows:
            block = _both(pooled.pop(), block)
        pooled.append(block)
    return pooled


def _closeness(blocks: Sequence[_Block]) -> Fraction:
    """Weighted sum of squared rates: the squared error of the fit is a constant minus this."""
    return sum((Fraction(b.events**2, b.rows) for b in blocks if b.rows), Fraction(0))
