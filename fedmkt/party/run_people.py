"""Whose data a finished run used, as digests under a key of that run's own: how a later withdrawal finds its models.

Beside a run's results lie `people.key` (32 secret bytes), `people.npz` (for the rows that trained and for those that
were scored, by each of their ids, HMAC-SHA256 under that key, cut to 8 bytes, 0 where a row lacks an id; besides, where
each stands among the joint rows) and, once somebody in them left, `left.npz`: who among the trained and the scored,
since when. All of it goes with the results when their retention is over, the key first. A key for each run: two
runs' files alone do not tell who is in both. Rows are those that the party itself knows: where the match is hidden, a
partner's are all that took part, and as one of them may be scored or not, its trained ones stand for both.
"""

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmkt.errors import AuditError
from fedmkt.party.journal import write_atomically
from fedmkt.party.keys import KeyColumns, Listed
from fedmkt.party.withdrawals import keyed_digest

Flags = NDArray[np.bool_]
Digests = NDArray[np.uint64]
KEY, PEOPLE, LEFT = "people.key", "people.npz", "left.npz"
NEVER: Final = 0
"""The day of whoever has not left; days are counted from 1970."""


@dataclass(frozen=True)
class Left:
    """Who of a run left after it. trained, scored : the day for each row, `NEVER` for who is still in."""

    trained: NDArray[np.int64]
    scored: NDArray[np.int64]

    @property
    def gone(self) -> Flags:
        """Which scored rows are not to be used any more."""
        gone: Flags = self.scored != NEVER
        return gone

    @property
    def days(self) -> tuple[date, date] | None:
        """The first and the last day on which somebody left who is in the model; None while nobody did."""
        days = self.trained[self.trained != NEVER]
        return (_date(days.min()), _date(days.max())) if len(days) else None


@dataclass(frozen=True)
class JointRows:
    """The own row of each joint row of training and of scoring, -1 for none: all parties count them alike."""

    trained: NDArray[np.int64]
    scored: NDArray[np.int64]


def _date(day: int) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + int(day))


def number_of(day: date) -> int:
    """Count a day from 1970."""
    return day.toordinal() - date(1970, 1, 1).toordinal()


def write_people(
    folder: Path,
    secret: bytes,
    keys: Sequence[KeyColumns],
    ids: Sequence[Sequence[str | None]],
    trained: NDArray[np.int64],
    scored: NDArray[np.int64],
    left: Left,
    joint: JointRows,
) -> None:
    """Write whose rows trained and were scored. ids : by key those of all rows of the table; left : already."""
    arrays: dict[str, NDArray[np.generic]] = {
        name: _digests(secret, keys, ids, rows) for name, rows in (("trained", trained), ("scored", scored))
    }
    arrays |= {"trained_at": places(joint.trained, trained), "scored_at": places(joint.scored, scored)}
    arrays |= {"joint": np.array([len(joint.trained), len(joint.scored)])}
    write_atomically(folder / KEY, secret)
    _write(folder / PEOPLE, {**arrays, "kinds": np.array([key.said() for key in keys])})
    (folder / LEFT).unlink(missing_ok=True)  # of a run that is closed again
    if left.trained.any() or left.scored.any():
        _write(folder / LEFT, {"trained": left.trained, "scored": left.scored})


def places(joint: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where own rows stand among the joint ones; each is there."""
    order = np.argsort(joint, kind="stable")
    found: NDArray[np.int64] = order[np.searchsorted(joint, rows, sorter=order)]
    return found


def left_of_joint(folder: Path) -> dict[str, Flags]:
    """Tell which joint rows of training and of scoring left, by the own ids; AuditError for a run of before."""
    stored, left = read_people(folder), read_left(folder)
    trained, scored = (np.zeros(count, np.bool_) for count in stored["joint"].tolist())
    trained[stored["trained_at"][left.trained != NEVER]] = True
    scored[stored["scored_at"][left.scored != NEVER]] = True
    # Where the match is hidden, a partner knows each of its people by the same place in both.
    if not len(left.scored) and len(trained) == len(scored):
        scored |= trained
    return {"trained": trained, "scored": scored}


def note_joint(folder: Path, gone: Mapping[str, Flags], day: date) -> Left:
    """Remember since when those are gone whom another party named by their joint rows.

    ValueError where these are of other numbers of rows than the run had.
    """
    stored, before = read_people(folder), read_left(folder)
    if [len(gone[name]) for name in ("trained", "scored")] != stored["joint"].tolist():
        raise ValueError("other numbers of rows than the run had")
    found = {"trained": before.trained.copy(), "scored": before.scored.copy()}
    for name, days in found.items():
        days[gone[name][stored[f"{name}_at"]] & (days == NEVER)] = number_of(day)
    _write(folder / LEFT, found)
    return Left(**found)


def read_people(folder: Path) -> dict[str, NDArray[np.generic]]:
    """Read whose rows a run used and where they stood; AuditError for a run that did not write it."""
    stored = _read(folder / PEOPLE)
    if not {"trained", "scored", "trained_at", "scored_at", "joint"} <= set(stored):
        raise AuditError(f"{folder / PEOPLE}: does not say where people stood", "train again")
    return stored


def note_left(folder: Path, keys: Sequence[KeyColumns], listed: Listed, day: date) -> Left | None:
    """Find listed people among those of a run and remember since when; None where a run left nothing to look in."""
    if not (folder / KEY).exists():
        return None
    secret, stored = (folder / KEY).read_bytes(), _read(folder / PEOPLE)
    before = read_left(folder)
    kinds = stored["kinds"].tolist()
    found = {"trained": before.trained.copy(), "scored": before.scored.copy()}
    for key, ids in zip(keys, listed.ids, strict=True):
        if key.said() not in kinds or not ids:
            continue
        asked = np.fromiter((_short(secret, key, one) for one in ids), np.uint64, len(ids))
        for name, days in found.items():
            column = stored[name][:, kinds.index(key.said())]
            days[np.isin(column, asked) & (column != 0) & (days == NEVER)] = number_of(day)
    after = Left(**found)
    if any((getattr(after, name) != getattr(before, name)).any() for name in found):
        _write(folder / LEFT, found)
    return after


def read_left(folder: Path) -> Left:
    """Read who of a run left; nobody where nothing was noted."""
    if (folder / LEFT).exists():
        stored = _read(folder / LEFT)
        return Left(stored["trained"].astype(np.int64), stored["scored"].astype(np.int64))
    if not (folder / PEOPLE).exists():
        return Left(np.zeros(0, np.int64), np.zeros(0, np.int64))
    stored = _read(folder / PEOPLE)
    return Left(*(np.zeros(len(stored[name]), np.int64) for name in ("trained", "scored")))


def erase_key(folder: Path) -> None:
    """Overwrite and remove a run's key: what lies under it, in any copy, opens to nobody."""
    path = folder / KEY
    if path.exists():
        write_atomically(path, bytes(32))
        path.unlink()


def _digests(
    secret: bytes, keys: Sequence[KeyColumns], ids: Sequence[Sequence[str | None]], rows: NDArray[np.int64]
) -> Digests:
    found = np.zeros((len(rows), len(keys)), np.uint64)
    for place, (key, column) in enumerate(zip(keys, ids, strict=True)):
        values = (0 if (one := column[row]) is None else _short(secret, key, one) for row in rows.tolist())
        found[:, place] = np.fromiter(values, np.uint64, len(rows))
    return found


def _short(secret: bytes, key: KeyColumns, one: str) -> int:
    return int.from_bytes(keyed_digest(secret, key, one)[:8], "big")


def _write(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # no name is one of numpy's own options
    write_atomically(path, buffer.getvalue())


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, zipfile.BadZipFile):
        raise AuditError(f"{os.fspath(path)}: not as a run wrote it", "restore it from a backup") from None
