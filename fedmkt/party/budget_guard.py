"""Write what a step counts in ledgers and budgets so that no other run of ours counts between its look and its write.

Runs of several contracts are processes of their own with one store. A step looks at the store, and what it wants
remembered is written after it: here, under a lock, after another look. Who comes second is refused where a value has
changed that the step went by, or where both together would go beyond a budget.

Tampering. What a run takes of a budget is in its audit log before the ledger has it, so at the next opening each run of
which a log says so, and that its step was answered, must have its entry: a store that was removed or put back from an
older copy is an AuditError. Store *and* logs put back together are noticed by the other signers, who signed a longer
log of that contract, when they next meet it. Not noticed: a party that restores its whole folder and never meets those
contracts again. It would give away its own people's protection and nobody else's.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedmkt.audit.records import Record, read_leaf
from fedmkt.errors import AuditError, PolicyRefused
from fedmkt.party.store import Store
from fedmkt.protocol.budget_ledger import check_again, run_of


class Reads(Mapping[str, bytes]):
    """A store as one step sees it; `seen` : what it found under each name that it asked for, None for nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seen: dict[str, bytes | None] = {}

    def __getitem__(self, name: str) -> bytes:
        try:
            value = self._store[name]
        except KeyError:
            self.seen[name] = None
            raise
        self.seen[name] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._store)

    def __len__(self) -> int:
        return len(self._store)


@contextmanager
def reserving(
    store: Store, seen: Mapping[str, bytes | None], remember: Mapping[str, bytes], most: float, me: str
) -> Iterator[None]:
    """Hold the ledgers while what a step remembers is written.

    seen : what it went by. most : epsilon that the contract allows. PolicyRefused, before anything is written.
    """
    if not remember:
        yield
        return
    with store.alone("ledgers"):
        if any(name in seen and store.get(name) != seen[name] for name in remember):
            raise PolicyRefused(
                f"{me}: another run counted at the same time as this one", "resume this one: it counts anew"
            )
        check_again(store, remember, most, me)
        yield


def check_logged(store: Mapping[str, bytes], logs: Iterable[Path]) -> None:
    """Refuse a store that lacks what the own logs say was taken of a budget; a log that is not there says nothing."""
    runs = {run_of(name) for name in store} - {None}
    missing = {run: path for path in logs for run in _taken(path) if run not in runs}
    for run, path in missing.items():
        raise AuditError(
            f"budget ledger: {path} says that run {run[:16]} took of it, and it has no entry: it was removed, or an "
            "older one was put back",
            "restore the store from its last backup; what was spent since must not be forgotten",
        )


def _taken(path: Path) -> Iterator[str]:
    """Give the runs of a log that took of a budget at a step which was answered: killed before, nothing left."""
    pending = dict[tuple[str, object, object], str]()
    for record in _records(path, (b'"budget.spent"', b'"step.completed"')):
        place = (record.run, record.body.get("index"), record.body.get("step"))
        if record.type == "budget.spent":
            pending[place] = record.run
        elif record.type == "step.completed" and place in pending:
            yield pending.pop(place)


def _records(path: Path, marks: tuple[bytes, bytes]) -> Iterator[Record]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    if marks[0] not in data:
        return  # most logs: not a line of them is parsed
    first = data.rfind(b"\n", 0, data.index(marks[0])) + 1
    for line in data[first:].split(b"\n"):
        if any(mark in line for mark in marks):
            try:
                yield read_leaf(line)
            except ValueError:
                raise AuditError(f"{path}: a record of the budget ledger was changed") from None
