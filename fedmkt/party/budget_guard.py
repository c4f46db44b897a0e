"""Count what a step takes of a privacy budget so that no other run of ours counts between the check and the write.

Runs of several contracts are processes of their own with one store. Each checks the budget when it takes its step, and
again here, where the entry is written under a lock: whoever comes second sees the first one's entry.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fedmkt.party.store import Store
from fedmkt.protocol.budget_ledger import check_again, run_of


@contextmanager
def reserving(store: Store, remember: Mapping[str, bytes], most: float, me: str) -> Iterator[None]:
    """Hold the budget ledger while what a step remembers is written, if some of it is an entry there.

    most : epsilon that the contract allows. PolicyRefused, before anything is written, where that is spent by now.
    """
    if all(run_of(name) is None for name in remember):
        yield
        return
    with store.alone("budgets"):
        check_again(store, remember, most, me)
        yield
