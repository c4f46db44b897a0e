"""The budget ledger: what a party has told each counterpart with noise, in all runs and contracts together.

One account for each counterpart and each population. A counterpart is known again as `protocol.counterpart` says. A
population is what is protected, and two are never added up, because they are about different changes of the data:

- `columns`, at a partner: the own columns of one person, who is common being the same (`privacy.noise`). Told by trees
  with noise, each training a rho of zero-concentrated differential privacy. What all of them come to is what
  dp-accounting's accountant of Renyi divergences says of the events composed: rho adds up, so one event of the sum is
  the same. Sound because all are about the same people: an entry is for all people and columns at once, whoever leaves
  out a column or brings another list begins nothing anew. Names of populations in a contract are words and divide
  nothing.
- `membership`, at a bank: whether one person is common. Told by lists with drops and dummies (`privacy.superset`), a
  pure epsilon each. Lists of one choice (counterpart's key of names, probabilities) are one release, seen again; other
  choices add up **plainly**: their promise has no delta, which the accountant's would, and it has no event for two
  probabilities that differ. It is said of people who stay common, or stay not: who becomes common between two lists
  can be seen to have changed, and nothing here bounds that.

Each entry is in the party's store, so it outlives contracts and keys; what it takes is in the audit log too, before
the store has it. What a training or a list took stays taken, whatever became of the run. Nothing without noise is
counted: no number bounds that. A step checks the budget with what it read; whoever writes its entry checks again
with nobody else writing meanwhile (`party.budget_guard`), so of runs that begin at once the last ones are refused.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from fedmkt.errors import AuditError, PolicyRefused
from fedmkt.privacy.noise import FLOODING_DELTA, epsilon_of
from fedmkt.protocol.counterpart import Counterpart, known_as

Population = Literal["columns", "membership"]
_COLUMNS, _MEMBERSHIP = "noise/", "listed/"


@dataclass(frozen=True)
class Training:
    """A training with noise: whom it told, rho and delta of all its totals."""

    organisation: str
    key: str
    rho: float
    delta: float

    @property
    def told(self) -> Counterpart:
        """Whom it told."""
        return Counterpart(self.organisation, self.key)


@dataclass(frozen=True)
class List:
    """A list with drops and dummies: whom it told, its epsilon; choice : equal where it is the same list again."""

    organisation: str
    key: str
    epsilon: float
    choice: str

    @property
    def told(self) -> Counterpart:
        """Whom it told."""
        return Counterpart(self.organisation, self.key)


Entry = Training | List


def entry_name(entry: Entry, run: str) -> str:
    """Return the name of a run's entry in the store."""
    return f"{_COLUMNS if isinstance(entry, Training) else _MEMBERSHIP}{run}"


def read_entries(store: Mapping[str, bytes]) -> Iterator[tuple[str, Entry]]:
    """Read all entries of a party, each with its run; AuditError for one that is not as it was written."""
    for name in store:
        if (run := run_of(name)) is not None:
            yield run, _read(name, store[name])


def run_of(name: str) -> str | None:
    """Return the run of which a value in the store is an entry; None where it is something else."""
    prefix = next((p for p in (_COLUMNS, _MEMBERSHIP) if name.startswith(p)), None)
    return None if prefix is None else name.removeprefix(prefix)


def _read(name: str, data: bytes) -> Entry:
    kind = Training if name.startswith(_COLUMNS) else List
    try:
        entry = kind(**json.loads(data))
    except (ValueError, TypeError, RecursionError):
        entry = None
    fields = {"organisation": str, "key": str, "epsilon": float, "choice": str, "rho": float, "delta": float}
    if entry is None or any(
        type(value) is not fields[field] or (isinstance(value, float) and not 0 <= value < math.inf)
        for field, value in asdict(entry).items()
    ):
        raise AuditError(
            f"budget ledger: {name}: not as it was written",
            "restore the store from its last backup",
        )
    return entry


def earlier(store: Mapping[str, bytes], of: Entry, run: str) -> list[Entry]:
    """Read the entries of other runs about the same counterpart and population."""
    entries = [(r, e) for r, e in read_entries(store)]
    same = known_as([of.told], [e.told for _, e in entries])
    return [e for r, e in entries if type(e) is type(of) and r != run and e.told in same]


def check_again(store: Mapping[str, bytes], remember: Mapping[str, bytes], most: float, me: str) -> None:
    """Refuse entries that are about to be written and that go beyond `most` with those that are there by now."""
    for name, data in remember.items():
        if (run := run_of(name)) is not None and name not in store:
            entry = _read(name, data)
            kind = "training" if isinstance(entry, Training) else "list"
            check_budget([*earlier(store, entry, run), entry], most, me, kind, "this counterpart")


def epsilon_together(entries: Collection[Entry]) -> float:
    """Return what entries of one population come to; 0 without any, infinity where no epsilon can be said."""
    lists = {e.choice: e.epsilon for e in entries if isinstance(e, List)}
    trainings = [e for e in entries if isinstance(e, Training)]
    if not trainings:
        return math.fsum(lists.values())
    if lists:
        raise ValueError("columns and membership are accounts of their own")
    # Each has a `FLOODING_DELTA`, of which `epsilon_of` takes one off.
    delta = min(t.delta for t in trainings) - (len(trainings) - 1) * FLOODING_DELTA
    return epsilon_of(math.fsum(t.rho for t in trainings), delta) if delta > FLOODING_DELTA else math.inf


def check_budget(entries: Iterable[Entry], most: float, me: str, what: str, whom: str) -> float:
    """Return what entries come to; PolicyRefused beyond `most`. what, whom : the last entry, in words."""
    total = epsilon_together(list(entries))
    if total > most:
        raise PolicyRefused(
            f"C13 privacy budget: with this {what}, all that {me} told {whom} with noise would be epsilon "
            f"{total:.2f}; the contract allows {most:g}",
            f"fedmkt budget shows what was spent; no more for {whom}, or more noise from the first {what} on",
        )
    return total
