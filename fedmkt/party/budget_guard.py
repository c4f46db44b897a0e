"""Write what a step counts in ledgers and budgets so that no other run of ours counts between its look and its write.

Runs of several contracts are processes of their own with one store. A step looks at the store, and what it wants
remembered is written after it: here, under a lock, after another look. Who comes second is refused where a value has
changed that the step went by, or where both together would go beyond a budget.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fedmkt.errors import PolicyRefused
from fedmkt.party.store import Store
from fedmkt.protocol.budget_ledger import check_again


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
