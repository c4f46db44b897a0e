"""Several keys per customer: which rows of a list can be found by which key, and which pairs are one person.

People are known by a phone here and by an e-mail there; any one key misses those who changed it or left it out.
A union tries the keys in an agreed order, the most reliable first: phone, then e-mail, then national id.

The rules, the same for everybody:
  list      rows with an earlier row's first key are dropped, as with a single key; so are rows without a first
            key that equal an earlier row in all others. Of the rest, a value of a further key that stands in two
            rows belongs to a household or to nobody: it is used for none of them. A row without any key left
            is dropped.
  one to one  a row and a row of the other side are paired at the first key at which both are still free; where
            several rows claim one of the other side, the first of them in row order has it.

A pair that disagrees at a later key stays a pair: the order says which key is believed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn.identifiers import is_empty, normalise, normalise_compound

Rows = NDArray[np.int64]
Values = Sequence[str | None]

UNPAIRED: Final = -1
COMPOUND: Final = "compound"


@dataclass(frozen=True)
class Pairs:
    """What a union found, by own row.

    slots : (n,) int64, the place in the other list, UNPAIRED where there is none; no place stands there twice
    keys : (n,) int8, the position of the key that paired the row, UNPAIRED where none did
    """

    slots: Rows
    keys: NDArray[np.int8]


@dataclass(frozen=True)
class Quality:
    """How good pairs are against the truth; `correct` of `found` are among the `true` ones."""

    found: int
    correct: int
    true: int

    @property
    def recall(self) -> float:
        """Share of the true pairs that were found."""
        return self.correct / self.true if self.true else 1.0

    @property
    def precision(self) -> float:
        """Share of the found pairs that are true."""
        return self.correct / self.found if self.found else 1.0


@dataclass(frozen=True, repr=False)
class Key:
    """One column of keys as it was read: `columns` holds one column, or the parts of a compound key."""

    kind: str
    columns: tuple[Sequence[object], ...]


@dataclass(frozen=True)
class KeyReport:
    """What became of one key in the rows that are not duplicates: used + empty + invalid + ambiguous."""

    kind: str
    used: int
    empty: int
    invalid: int
    ambiguous: int

    def report_line(self) -> str:
        """One plain sentence; counts of zero are left out, except the first."""
        counts = ((self.empty, "empty"), (self.invalid, "not valid"), (self.ambiguous, "in several rows"))
        rest = "".join(f", {count:,} {text}" for count, text in counts if count)
        return f"{self.kind.replace('_', ' ')}: {self.used:,} rows can be found by it{rest}"


@dataclass(frozen=True)
class UnionReport:
    """What became of a list with several keys, counts only: rows = kept + duplicates + keyless."""

    rows: int
    kept: int
    duplicates: int
    keyless: int
    label_conflicts: int
    keys: tuple[KeyReport, ...]

    def report_lines(self) -> tuple[str, ...]:
        """Plain sentences for screen and report; counts of zero are left out, except the first two."""
        counts = (
            (self.duplicates, "dropped: an earlier row has the same first id, or all the same ids"),
            (self.label_conflicts, "of these duplicates carry another label than the row kept"),
            (self.keyless, "dropped: no valid id that no other row has"),
        )
        head = (f"{self.rows:,} rows with {len(self.keys)} ids", f"{self.kept:,} rows kept")
        lines = tuple(f"{count:,} {text}" for count, text in counts if count)
        return head + lines + tuple(key.report_line() for key in self.keys)


@dataclass(frozen=True, repr=False)
class KeyedRows:
    """The rows of a list that can be found; `rows` are their positions (from 0, ascending) in the input.

    keys : by key in order of priority, each row's value or None; a value stands once in its key
    persons : (input rows,) the place in `rows` of the row that stands for this one, UNPAIRED where none does
    spelled : by key the value of every input row, repeated ones too
    """

    keys: tuple[tuple[str | None, ...], ...]
    rows: Rows
    persons: Rows
    spelled: tuple[Values, ...]
    report: UnionReport

    def __repr__(self) -> str:
        """Leave the ids out: a repr ends up in logs."""
        return f"KeyedRows({len(self.rows)} rows, {len(self.keys)} keys)"


def normalise_keys(keys: Sequence[Key], country: str, labels: NDArray[np.float64] | None = None) -> KeyedRows:
    """Normalise a list's keys, given in order of priority, and keep the rows that can be found by one of them.

    labels : (rows,) 0, 1 or NaN, only to count the dropped rows that contradict the row kept
    """
    lengths = {len(column) for key in keys for column in key.columns}
    if labels is not None:
        lengths.add(len(labels))
    if len(lengths) != 1:
        raise ValueError("at least one key is needed, and columns and labels of one length")
    canonical = [spell(key, country) for key in keys]
    (rows,) = lengths
    keeper = np.asarray(_keepers(canonical), dtype=np.int64)
    distinct = np.flatnonzero(keeper == np.arange(rows)).tolist()
    unique = [
        _without_repeats([values[row] for row in distinct], at == 0) for at, values in enumerate(canonical)
    ]
    found = [at for at in range(len(distinct)) if any(values[at] is not None for values in unique)]
    kept = np.asarray([distinct[at] for at in found], dtype=np.int64)
    place = np.full(rows, UNPAIRED, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    report = UnionReport(
        rows=rows,
        kept=len(found),
        duplicates=rows - len(distinct),
        keyless=len(distinct) - len(found),
        label_conflicts=0 if labels is None else _count_conflicts(labels, keeper),
        keys=tuple(
            _key_report(key, [values[row] for row in distinct], used, distinct)
            for key, values, used in zip(keys, canonical, unique, strict=True)
        ),
    )
    values = tuple(tuple(column[at] for at in found) for column in unique)
    return KeyedRows(values, kept, place[keeper], tuple(canonical), report)


def spell(key: Key, country: str) -> list[str | None]:
    """Canonical spelling of one key in each row, None where it is empty or invalid."""
    if key.kind == COMPOUND:
        return normalise_compound(key.columns)
    (column,) = key.columns
    return normalise(key.kind, column, country)


def _keepers(canonical: Sequence[Values]) -> list[int]:
    """Return for each row the earlier row that it repeats, else the row itself."""
    by_first: dict[str, int] = {}
    by_all: dict[tuple[str | None, ...], int] = {}
    keepers = []
    for row, values in enumerate(zip(*canonical, strict=True)):
        if values[0] is not None:
            keepers.append(by_first.setdefault(values[0], row))
        elif any(values):
            keepers.append(by_all.setdefault(values, row))
        else:
            keepers.append(row)
    return keepers


def _without_repeats(values: list[str | None], is_distinct: bool) -> list[str | None]:
    if is_distinct:
        return values
    counts = Counter(values)
    return [value if counts[value] == 1 else None for value in values]


def _count_conflicts(labels: NDArray[np.float64], keeper: Rows) -> int:
    kept = labels[keeper]
    return int(((labels != kept) & ~(np.isnan(labels) & np.isnan(kept))).sum())


def _key_report(key: Key, canonical: Values, used: Values, rows: Sequence[int]) -> KeyReport:
    """`canonical` and `used` : the values of the distinct rows before and after repeated ones were taken out."""
    cells = zip(*(is_empty(column) for column in key.columns), strict=True)
    holes = [any(parts) for parts in cells]
    empty = sum(holes[row] for row in rows)
    valid, in_use = (sum(value is not None for value in values) for values in (canonical, used))
    return KeyReport(key.kind, in_use, empty, len(rows) - valid - empty, valid - in_use)


def one_to_one(matches: Sequence[Rows], slots: int) -> Pairs:
    """Pair each row with at most one slot of the other side, and each slot with at most one row.

    matches : for each key in order of priority (rows,) the slot that has the row's value, UNPAIRED where none
    slots : length of the other list; ValueError for a slot beyond it
    """
    if not matches or len({match.shape for match in matches}) != 1 or matches[0].ndim != 1:
        raise ValueError("at least one key is needed, and as many matches for each")
    rows = len(matches[0])
    paired = np.full(rows, UNPAIRED, dtype=np.int64)
    keys = np.full(rows, UNPAIRED, dtype=np.int8)
    owner = np.full(slots, UNPAIRED, dtype=np.int64)
    for key, match in enumerate(matches):
        if rows and not (match.min() >= UNPAIRED and match.max() < slots):
            raise ValueError(f"a match of key {key} is no slot of {slots}")
        free = np.flatnonzero((match != UNPAIRED) & (paired == UNPAIRED))
        free = free[owner[match[free]] == UNPAIRED]
        # Of repeated places the last assignment remains: backwards, that is the first row.
        owner[match[free[::-1]]] = free[::-1]
        won = free[owner[match[free]] == free]
        paired[won] = match[won]
        keys[won] = key
    return Pairs(paired, keys)


def join(own: Sequence[Values], other: Sequence[Values]) -> Pairs:
    """Pair two lists in the open, both as KeyedRows.keys: what the protocol must find without showing them."""
    if len(own) != len(other):
        raise ValueError(f"{len(own)} keys here and {len(other)} there")
    return one_to_one([_match(a, b) for a, b in zip(own, other, strict=True)], len(other[0]) if other else 0)


def _match(own: Values, other: Values) -> Rows:
    places = {value: place for place, value in enumerate(other) if value is not None}
    return np.fromiter((UNPAIRED if v is None else places.get(v, UNPAIRED) for v in own), np.int64, len(own))


def quality(pairs: Pairs, truth: Rows) -> Quality:
    """Compare pairs with `truth` : (rows,) the right slot of each row, UNPAIRED for people of one side only."""
    found = pairs.slots != UNPAIRED
    correct = found & (pairs.slots == truth)
    return Quality(int(found.sum()), int(correct.sum()), int((truth != UNPAIRED).sum()))
