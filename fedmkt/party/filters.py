"""Who is left out of a list before anything is matched: withdrawn, no consent, opted out, too young.

A missing value never lets anybody through: who did not say yes has not consented, who has no date of birth is
not known to be old enough. Of several rows of one person each must let it through. Only numbers of dropped
people leave these functions, one for each reason; who has several reasons is counted under the first.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fedmkt.audit.records import Json
from fedmkt.crypto.prg import Random

if TYPE_CHECKING:
    from fedmkt.party.keys import KeyColumns

ADULT: Final = 18
OLDEST: Final = 130

Flags = NDArray[np.bool_]


class Withdrawn(Protocol):
    """Whoever can say who has withdrawn."""

    def flags(self, keys: "Sequence[KeyColumns]", spelled: Sequence[Sequence[str | None]]) -> Flags:
        """Tell for each row whether any of its ids was withdrawn; spelled : by key the ids of all rows."""

    def alone(self) -> AbstractContextManager[None]:
        """Let nobody come onto the list meanwhile, nor be noted in results."""


@dataclass(frozen=True)
class Filters:
    """What to filter by; what is None is not filtered by.

    consent : a column, yes or no. opt_out : a file of ids. birth_date, age : a column; minimum_age : completed
    years on `day`. withdrawn : the list of those who withdrew.
    """

    day: date
    consent: str | None = None
    opt_out: Path | None = None
    birth_date: str | None = None
    age: str | None = None
    minimum_age: int = ADULT
    withdrawn: Withdrawn | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that are looked at."""
        return tuple(c for c in (self.consent, self.birth_date, self.age) if c is not None)


@dataclass(frozen=True)
class Dropped:
    """How many people each filter took off the list; None where it was not asked for."""

    consent: int | None = None
    opt_out: int | None = None
    age: int | None = None
    minimum_age: int = ADULT
    withdrawn: int | None = None

    @property
    def people(self) -> int:
        """All of them together."""
        return (self.withdrawn or 0) + (self.consent or 0) + (self.opt_out or 0) + (self.age or 0)

    def report_lines(self) -> tuple[str, ...]:
        """Plain sentences, also for filters that dropped nobody: it is seen that they were applied."""
        counts = (
            (self.withdrawn, "dropped: withdrawn"),
            (self.consent, "dropped: no consent"),
            (self.opt_out, "dropped: on the opt-out list"),
            (self.age, f"dropped: under {self.minimum_age} years, or of unknown age"),
        )
        return tuple(f"{count:,} {text}" for count, text in counts if count is not None)

    def events(self) -> list[tuple[str, Mapping[str, Json]]]:
        """Give the records for the own audit log."""
        counts: tuple[tuple[int | None, str, dict[str, Json]], ...] = (
            (self.withdrawn, "consent.withdrawn", {}),
            (self.consent, "consent.filtered", {}),
            (self.opt_out, "optout.applied", {}),
            (self.age, "minors.filtered", {"minimum_age": self.minimum_age}),
        )
        return [(name, {**body, "dropped": count}) for count, name, body in counts if count is not None]


def salted(
    events: Sequence[tuple[str, Mapping[str, Json]]], random: Random
) -> list[tuple[str, Mapping[str, Json]]]:
    """Add 16 random bytes to each record that counts people, so that nobody guesses the count from the record's hash.

    Peers may see hashes of single records in proofs, and one stays when its record expires; the bytes go with it.
    """
    return [(event, {**body, "salt": random(16).hex()}) for event, body in events]


def years_old(born: NDArray[np.datetime64], day: date) -> NDArray[np.float64]:
    """Return completed years on a day, NaN where the date of birth is missing (NaT).

    Whoever was born on 29 February completes a year on 1 March where there is no such day.
    """
    missing = np.isnat(born)
    days = np.where(missing, np.datetime64(day, "D"), born.astype("datetime64[D]"))
    months = days.astype("datetime64[M]")
    year = months.astype("datetime64[Y]").astype(np.int64) + 1970
    month = months.astype(np.int64) % 12 + 1
    in_month = (days - months.astype("datetime64[D]")).astype(np.int64) + 1
    before_birthday = (month > day.month) | ((month == day.month) & (in_month > day.day))
    return np.where(missing, np.nan, day.year - year - before_birthday)


def persons_of(canonical: Sequence[str | None], ids: Sequence[str | None]) -> NDArray[np.int64]:
    """Return for each row the position of its id among `ids`, -1 where it has none."""
    places = {one: place for place, one in enumerate(ids)}
    found = (-1 if one is None else places.get(one, -1) for one in canonical)
    return np.fromiter(found, np.int64, len(canonical))


def of_any_row(flags: Flags, persons: NDArray[np.int64], people: int) -> Flags:
    """Tell for each person whether any of its rows has the flag."""
    chosen = persons[flags & (persons >= 0)]
    return np.bincount(chosen, minlength=people) > 0


def opted_out(ids: Sequence[str | None], listed: Collection[str]) -> Flags:
    """Tell for each id whether it is on a list."""
    return np.fromiter((one in listed for one in ids), np.bool_, len(ids))


def admit(
    people: int,
    consent: Flags | None,
    opt_out: Flags | None,
    age: Flags | None,
    minimum_age: int,
    withdrawn: Flags | None = None,
) -> tuple[Flags, Dropped]:
    """Put the reasons together: who stays, and how many go for which reason first.

    withdrawn, consent, opt_out, age : (people,) true where that is a reason to go; None: not asked for.
    """
    stays = np.ones(people, np.bool_)

    def drop(reason: Flags | None) -> int | None:
        if reason is None:
            return None
        going = stays & reason
        stays[going] = False
        return int(going.sum())

    gone = drop(withdrawn)
    return stays, Dropped(drop(consent), drop(opt_out), drop(age), minimum_age, gone)
