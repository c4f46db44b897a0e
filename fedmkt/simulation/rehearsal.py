"""A script without parties: which calls a contract's job will make, in which rounds.

A script branches on public values only, so with assumed public values it runs without anybody: no key, no
row, no message. What it would call is what it will call.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.align import SplitKey
from fedmkt.protocol.alignment.cardinality import Common, told_of
from fedmkt.protocol.alignment.items import ListRows
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.alignment.psi_oprf import KeptSet, KnownSets
from fedmkt.protocol.core import (
    V2,
    Call,
    Name,
    Out,
    Out2,
    Public,
    PublicValue,
    Reply,
    Sealed,
    Silent,
    Step,
    V,
    data_parties,
)
from fedmkt.protocol.linear.penalties import PenaltyChoice
from fedmkt.protocol.linear.range import InRange
from fedmkt.protocol.linear.warm import StartedFrom
from fedmkt.protocol.pipeline import SCRIPTS
from fedmkt.protocol.prepare import Shape
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.sides.early_stop import TreesKept
from fedmkt.protocol.trees.sides.histogram import HistogramShape
from fedmkt.protocol.trees.sides.tree_growth import LevelSplits
from fedmkt.simulation import shared_traffic
from fedmkt.simulation.tree_traffic import TreeFacts, expected


@dataclass(frozen=True)
class Planned:
    """One call that will be made: by whom, which step, and how often that party made it before."""

    party: Name
    step: Step[Any, Any, Any]
    before: int


class _AnyReader(Mapping[Name, Sealed[Any]]):
    """A message for whoever looks for one."""

    def __init__(self, sender: Name) -> None:
        self._sender = sender

    def __getitem__(self, reader: Name) -> Sealed[Any]:
        return Sealed(0, self._sender, reader, b"")

    def __contains__(self, reader: object) -> bool:
        return True

    def __iter__(self) -> Iterator[Name]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Rehearsal:
    """The `Caller` that only writes down what it is asked."""

    def __init__(
        self, contract: Contract, lists: Mapping[Name, int], overlap: Overlap, shapes: Mapping[Name, Shape],
        trees: TreeFacts | None = None,
    ) -> None:  # fmt: skip
        self._contract = contract
        self._trees = trees or expected(contract)
        self._levels = iter(self._trees.levels)
        self._lists = lists
        self._overlap = overlap
        self._shapes = shapes
        self._made: dict[tuple[Name, str], int] = {}
        self.rounds: list[tuple[Planned, ...]] = []

    @property
    def epoch(self) -> int:
        """The only epoch of a run that nobody interrupts."""
        return 1

    def __call__(self, party: Name, step: Any, *inbox: Sealed[Any]) -> Reply[Any, Any]:
        """Write down one call."""
        (reply,) = self.all([Call(party, step, inbox)])
        return reply

    def all(self, calls: Sequence[Call[Out, V]]) -> list[Reply[Out, V]]:
        """Write down one round."""
        self.rounds.append(tuple(self._plan(c) for c in calls))
        return [Reply(_AnyReader(c.party), Public(self._value(c), c.party)) for c in calls]

    def both(
        self, calls: Sequence[Call[Out, V]], others: Sequence[Call[Out2, V2]]
    ) -> tuple[list[Reply[Out, V]], list[Reply[Out2, V2]]]:
        """Write down one round of two kinds of calls."""
        self.rounds.append((*(self._plan(c) for c in calls), *(self._plan(c) for c in others)))
        return (
            [Reply(_AnyReader(c.party), Public(self._value(c), c.party)) for c in calls],
            [Reply(_AnyReader(c.party), Public(self._value(c), c.party)) for c in others],
        )

    def _plan(self, call: Call[Any, Any]) -> Planned:
        key = (call.party, call.step.name)
        before = self._made.get(key, 0)
        self._made[key] = before + 1
        return Planned(call.party, call.step, before)

    def _value(self, call: Call[Any, Any]) -> Any:
        assumed: dict[type[PublicValue], PublicValue] = {
            Silent: Silent(),
            Overlap: self._overlap,
            InRange: InRange(True),
            SplitKey: SplitKey(bytes(32)),
            KeptSet: KeptSet(bytes(16)),
            KnownSets: KnownSets(()),
            StartedFrom: StartedFrom(bytes(32)),
            PenaltyChoice: PenaltyChoice(0),
        }
        if call.step.tells is ListRows:
            return ListRows(self._lists[call.party])
        if call.step.tells is Common:
            bank, own = self._lists[data_parties(self._contract)[0]], self._lists[call.party]
            return told_of(min(bank, own), bank, own)
        if call.step.tells is Shape:
            return self._shapes[call.party]
        if call.step.tells is BinSizes:
            return self._trees.bins[call.party]
        if call.step.tells is HistogramShape:
            return HistogramShape(self._trees.bins[call.party].sizes)
        if call.step.tells is LevelSplits:
            return next(self._levels)
        made = self._made[call.party, call.step.name] - 1
        if call.step.tells is TreesKept:
            most = self._contract.trees.trees
            return TreesKept(most if made + 1 == most else 0)
        of_trees = shared_traffic.assumed(self._contract, self._trees, call.party, call.step.tells, made)
        if of_trees is not None:
            return of_trees
        if call.step.tells not in assumed:
            raise ValueError(f"nothing is assumed for what {call.step.name} tells")
        return assumed[call.step.tells]


def rehearse(
    contract: Contract, lists: Mapping[Name, int], overlap: Overlap, shapes: Mapping[Name, Shape],
    trees: TreeFacts | None = None,
) -> tuple[tuple[Planned, ...], ...]:  # fmt: skip
    """List the rounds of a contract's job, given the public values that it will meet; trees : None, the most."""
    caller = Rehearsal(contract, lists, overlap, shapes, trees)
    SCRIPTS[contract.task](caller, contract)
    return tuple(caller.rounds)
