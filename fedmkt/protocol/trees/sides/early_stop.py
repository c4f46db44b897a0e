"""When to stop growing trees: some train rows do not train, and their loss says how many trees are of use.

Computes, after each tree, whether training goes on: it ends once `trees.patience` trees brought no better loss of the
validation rows, and the model keeps the trees up to the best one. Which rows validate follows from the split key
and the run (`align`), so no party chooses them, but for a bank that deviates in a left join: rows are drawn by place
there, and it orders them. Takes part: whoever knows the loss, here the bank, who knows the scores of all rows in mode
`sides`. How it comes to know it in mode `totals` is told in `shared_stopping`.

| learns | what |
|---|---|
| everybody | after each tree whether training goes on, and in the end how many trees stay (`StopBits`) |

That is a fact about the labels of all validation rows together, of at most log2(trees) bits in one training; a bank
that deviates may say as many bits of anything else by it. The rows are at least `limits.min_support`.

Safe against a semi-honest bank and partners. Source: protocols.md section 4, redteam.md 3 (leakage by stopping).
"""

from dataclasses import dataclass, replace

from fedmkt.contract.agreement import Contract
from fedmkt.learn.boosting import held_loss
from fedmkt.learn.splits import trees_kept
from fedmkt.privacy.disclosure import EVERYONE, StopBits
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Nothing,
    Outcome,
    Public,
    PublicValue,
    State,
    Step,
    Turn,
    data_parties,
)
from fedmkt.protocol.trees.sides.tree_growth import Forest, TrainTable, settings_of
from fedmkt.protocol.witness import witness


@dataclass(frozen=True)
class TreesKept(PublicValue):
    """How many trees the model has, where training ends with this one; 0 where it goes on."""

    kept: int


@dataclass(frozen=True)
class LossesSoFar(State):
    """At the bank: the loss of the validation rows after each tree so far."""

    values: tuple[float, ...]


def judge(turn: Turn, loss: float, ends: bool) -> Outcome[Message, TreesKept]:
    """At the bank: tell whether training goes on after a tree that left this loss, and keep the trees up to the best.

    ends : whether it ends anyway. The scores of train rows stay those of all trees that were grown
    """
    before = turn.recall(LossesSoFar).values if turn.has(LossesSoFar) else ()
    losses = (*before, loss)
    kept = trees_kept(losses, turn.contract.trees.patience, ends=ends) or 0
    keep: tuple[State, ...] = (LossesSoFar(losses),)
    if kept:
        forest = turn.recall(Forest)
        keep = (*keep, replace(forest, trees=forest.trees[:kept], decisions=forest.decisions[:kept]))
    return Outcome(TreesKept(kept), keep=keep, reveals=(StopBits(to=EVERYONE, trees=1),))


def read_kept(contract: Contract, tree: int, ends: bool, told: Public[TreesKept]) -> int:
    """Read what the bank told after a tree, counted from 0; ValueError unless that is possible."""
    kept, trees = told.value.kept, tree + 1
    best = trees - contract.trees.patience
    # It stops with the patience's last tree or, where training ends, with one of those before.
    if kept and (kept == best or (ends and max(1, best) <= kept <= trees)):
        return kept
    if kept or ends:
        raise ValueError(f"{kept} of {trees} trees cannot be those up to the best")
    return 0


def _measure(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Message, TreesKept]:
    table, forest = turn.recall(TrainTable), turn.recall(Forest)
    rows, ends = table.validates, len(forest.trees) == turn.contract.trees.trees
    return judge(turn, held_loss(table.y[rows], forest.scores[rows], settings_of(turn.contract)), ends)


MEASURE = Step("fit.measure", _measure, TreesKept, reveals=(StopBits,))


def stop_after(call: Caller, contract: Contract, tree: int) -> int:
    """Ask whether training ends with a tree, counted from 0, in mode `sides`: how many trees stay, or 0."""
    ends = tree + 1 == contract.trees.trees
    if not contract.trees.patience:
        return tree + 1 if ends else 0
    witness(call, contract)
    return read_kept(contract, tree, ends, call(data_parties(contract)[0], MEASURE).public)
