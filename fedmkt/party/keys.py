"""By which ids the rows of a table can be found: one column, or several in an agreed order of priority.

With one id this is `normalise_ids`, with several the union of `fedmkt.learn.linkage`: a row that lacks an id is
found by its others alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn.identifiers import ValidationReport, is_empty, normalise_ids
from fedmkt.learn.linkage import COMPOUND, Key, UnionReport, normalise_keys, spell
from fedmkt.party.filters import opted_out, persons_of

Flags = NDArray[np.bool_]
Values = Callable[[str], Sequence[object]]
"""The values of a column of the file, by its name."""


@dataclass(frozen=True)
class KeyColumns:
    """One id of a table: its kind, and its column or the columns that are one compound key together."""

    kind: str
    columns: tuple[str, ...]

    @property
    def is_compound(self) -> bool:
        """Whether it is made of several columns."""
        return self.kind == COMPOUND

    def said(self) -> str:
        """Name it in a message."""
        return "+".join(self.columns) if self.is_compound else self.kind.replace("_", " ")


@dataclass(frozen=True, repr=False)
class Keyed:
    """The rows of a table that can be found.

    ids : by id in order of priority, each row's value, None where it has none; a value stands once
    rows : their positions in the file, ascending
    spelled : by id the value of every row of the file, None where empty or invalid
    """

    ids: tuple[tuple[str | None, ...], ...]
    rows: NDArray[np.int64]
    report: ValidationReport | UnionReport
    spelled: tuple[Sequence[str | None], ...]
    _persons: NDArray[np.int64] | None

    def __repr__(self) -> str:
        """Leave the ids out: a repr ends up in logs."""
        return f"Keyed({len(self.rows)} rows, {len(self.ids)} ids)"

    def persons(self) -> NDArray[np.int64]:
        """Return for each row of the file the place of the row that stands for its person, -1 where none does."""
        return persons_of(self.spelled[0], self.ids[0]) if self._persons is None else self._persons


def key_rows(
    keys: Sequence[KeyColumns], country: str, values: Values, label: NDArray[np.float64] | None
) -> Keyed:
    """Bring all ids to one spelling and keep one row of each person; the first key counts most."""
    read = [Key(key.kind, tuple(values(column) for column in key.columns)) for key in keys]
    if len(keys) > 1:
        found = normalise_keys(read, country, label)
        return Keyed(found.keys, found.rows, found.report, found.spelled, found.persons)
    (written,) = read[0].columns
    single = normalise_ids(read[0].kind, written, country, label)
    return Keyed((single.ids,), single.rows, single.report, (single.spelled,), None)


def people(ids: Sequence[Sequence[str | None]]) -> tuple[str, ...]:
    """Return one text for each row that says all of its ids, distinct: what changes one of them changes it."""
    if len(ids) == 1:
        return tuple(one or "" for one in ids[0])
    return tuple("".join(f"{len(one or '')}:{one or ''}" for one in row) for row in zip(*ids, strict=True))


@dataclass(frozen=True, repr=False)
class Listed:
    """The ids of people on a list, by kind: whoever has one of them is on it."""

    ids: tuple[frozenset[str], ...]

    def __repr__(self) -> str:
        """Leave the ids out: a repr ends up in logs."""
        return f"Listed({len(self.ids)} kinds of id)"

    def names(self, spelled: Sequence[Sequence[str | None]]) -> Flags:
        """Tell for each row of a file whether it is on the list by any of its ids, shared ones included."""
        flags = np.zeros(len(spelled[0]), np.bool_)
        for listed, values in zip(self.ids, spelled, strict=True):
            flags |= opted_out(values, listed)
        return flags


def read_listed(
    keys: Sequence[KeyColumns], country: str, values: Values
) -> tuple[Listed, tuple[KeyColumns, Flags] | None]:
    """Read the ids of a list of people; besides, the first id that cannot be read and in which rows.

    A row needs one id that can be read, and none that is written but cannot be: that might be the one by which
    the person is known here.
    """
    read = [Key(key.kind, tuple(values(column) for column in key.columns)) for key in keys]
    spelled = [spell(key, country) for key in read]
    listed = Listed(tuple(frozenset(one for one in column if one is not None) for column in spelled))
    has_none = np.logical_and.reduce([_is_none(column) for column in spelled])
    for key, column, cells in zip(keys, spelled, read, strict=True):
        wrong = _is_none(column) & has_none
        if not key.is_compound:
            wrong |= _is_none(column) & ~np.array(is_empty(cells.columns[0]), dtype=np.bool_)
        if wrong.any():
            return listed, (key, wrong)
    return listed, None


def _is_none(column: Sequence[str | None]) -> Flags:
    return np.fromiter((one is None for one in column), np.bool_, len(column))
