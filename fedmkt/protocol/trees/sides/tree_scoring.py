"""Scoring of boosted trees in mode `sides`: the bank learns the sides of all splits of the rows to score.

Computes the sum of each row's leaves and its sigmoid, at the bank, for the held-out customers and those without a
label. Takes part: all parties that hold data. Each partner tells the sides of all splits of its columns, some trees
at a time; the bank looks its own up, follows every row to its leaves, and keeps the scores rounded.

| learns | what |
|---|---|
| bank | for every row that is scored, its side of each split of a partner's column (`SplitSides`) |
| everybody | how many splits each partner has in some trees together, which `TreeShape` told before |
| partner, coordinator, dealer | nothing |

The bank has exact scores in its memory and writes rounded ones, as for the other families: files go further than
programs. No functional is counted in the partners' ledger: `scoring` counts rounded scores because each is one linear
equation about a row's columns, too little by itself. Here a single run gives the columns away up to their bins, so a
count of runs bounds nothing that matters; what a partner bounds is how fine its bins are, how many of their edges are
opened (`boosting`), and by `limits.max_runs` how often. No edge is opened here that training had not opened.

Safe against a semi-honest bank, as far as the table says, and semi-honest partners. A partner can tell wrong sides,
unnoticed. Source: protocols.md section 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.learn.glm import sigmoid
from fedmkt.learn.trees import Bools, Decision, Floats, Tree, by_node, goes_left, leaf_of_rows
from fedmkt.privacy.disclosure import SplitSides
from fedmkt.protocol.alignment.align import Split, joint_rows, scored_rows
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    Silent,
    State,
    Step,
    Turn,
    ask,
    data_parties,
    inbox_of,
)
from fedmkt.protocol.layout import BLOCK_BYTES
from fedmkt.protocol.linear.scoring import Released
from fedmkt.protocol.prepare import real
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.sides.boosting import OwnSplits, own_names, told_of
from fedmkt.protocol.trees.sides.tree_growth import Forest
from fedmkt.protocol.trees.tree_columns import common_bins, own_codes, table_values
from fedmkt.protocol.witness import checkpoint, witness
from fedmkt.ring.rlwe import Codes


@dataclass(frozen=True)
class ScoredSides(Message):
    """Which rows go left at the sender's splits of some trees, in their order, (k, rows / 8), packed as `RowSides`."""

    first: int
    bits: np.ndarray[tuple[int, int], np.dtype[np.uint8]]


@dataclass(frozen=True)
class ScoredBins(State):
    """At a partner: the bins of the rows to score in the own columns, (columns, rows); how many blocks are told."""

    durable: ClassVar[bool] = False
    codes: Codes
    blocks: int


@dataclass(frozen=True)
class TreeScores(State):
    """At the bank: the sum of leaves, of as many trees as were told, of each own row to score, (n,), log odds.

    own : bins of the own columns, (columns, n), as a `Table` has them
    """

    durable: ClassVar[bool] = False
    trees: int
    own: Codes
    values: Floats


def tree_blocks(contract: Contract, rows: int) -> list[slice]:
    """Split the trees, so that the sides of all splits of some of them fit into one message."""
    most, trees = (2**contract.trees.depth - 1) * packed(rows), contract.trees.trees
    step = max(1, BLOCK_BYTES // most)
    return [slice(start, min(trees, start + step)) for start in range(0, trees, step)]


def packed(rows: int) -> int:
    """Return how many bytes hold one side of all rows."""
    return -(-rows // 8)


def _tell_sides(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[ScoredSides, Silent]:
    """Tell the sides of the next block of trees."""
    rows, overlap = joint_rows(turn, False), turn.published(Overlap, turn.parties[0])
    held = turn.recall(ScoredBins) if turn.has(ScoredBins) else ScoredBins(own_codes(turn, rows), 0)
    trees = tree_blocks(turn.contract, len(rows))[held.blocks]
    decisions = [d for tree in turn.recall(OwnSplits).trees[trees] for d in tree]
    sides = told_of(turn, held.codes, decisions)
    told = SplitSides(to=turn.parties[0], splits=len(decisions), low=overlap.unlabelled_low, high=len(rows))
    message = ScoredSides(trees.start, np.packbits(sides, axis=1))
    kept = ScoredBins(held.codes, held.blocks + 1)
    return Outcome(Silent(), send={turn.parties[0]: message}, keep=(kept,), reveals=(told,))


def _add_leaves(turn: Turn, inbox: Inbox[ScoredSides]) -> Outcome[Nothing, Silent]:
    """Follow the rows through the next block of trees, and add the values of their leaves."""
    rows, forest = joint_rows(turn, False), turn.recall(Forest)
    held = turn.recall(TreeScores) if turn.has(TreeScores) else _start(turn, forest)
    trees = next(t for t in tree_blocks(turn.contract, len(rows)) if t.start == held.trees)
    scores, is_real = held.values.copy(), rows != NO_ROW
    told = {p: _told(turn, p, trees, inbox, len(rows)) for p in turn.others}
    for tree, decisions in zip(forest.trees[trees], forest.decisions[trees], strict=True):
        sides = _own_sides(turn, held.own, decisions)
        for node, owner in tree.owners:
            if owner != turn.me:
                sides[node] = next(told[Name(owner)])[is_real]
        nodes, values = (np.array(x) for x in zip(*tree.leaves, strict=True))
        scores += by_node(nodes, values)[leaf_of_rows(tree, sides, len(scores))]
    return Outcome(Silent(), keep=(TreeScores(trees.stop, held.own, scores),))


def _start(turn: Turn, forest: Forest) -> TreeScores:
    rows = real(joint_rows(turn, False))
    own = table_values(own_codes(turn, rows), turn.published(BinSizes, turn.me), common_bins(turn.contract))
    return TreeScores(0, own, np.full(len(rows), forest.base))


def _own_sides(turn: Turn, values: Codes, decisions: tuple[Decision, ...]) -> dict[int, Bools]:
    names, bins = own_names(turn), common_bins(turn.contract)
    return {d.node: goes_left(values[names.index(d.column)], bins, d.bin, d.missing_left) for d in decisions}


def _told(turn: Turn, partner: Name, trees: slice, inbox: Inbox[ScoredSides], rows: int) -> Iterator[Bools]:
    """Yield the sides of a partner's splits, tree by tree in the order of their nodes; ValueError if some lack."""
    splits = sum(_owned(tree, partner) for tree in turn.recall(Forest).trees[trees])
    message = inbox.one(partner, ScoredSides)
    if message.first != trees.start or message.bits.shape != (splits, packed(rows)):
        raise ValueError(f"the sides of {partner} are of other trees, or have another shape than agreed")
    # One at a time: unpacked, those of all trees would be eight times as large.
    return (np.unpackbits(bits, count=rows).view(np.bool_) for bits in message.bits)


def _owned(tree: Tree, partner: Name) -> int:
    return sum(owner == partner for _, owner in tree.owners)


def _round(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Keep the rounded scores of the own rows."""
    split, found, rows = turn.recall(Split), turn.recall(TreeScores), joint_rows(turn, False)
    if found.trees != turn.contract.trees.trees:
        raise ValueError("not all trees have been added up")
    decimals = turn.contract.scores.decimals
    units = np.rint(sigmoid(found.values) * 10**decimals).astype(np.int64)
    released = Released(real(rows), len(real(split.held_out)), units, decimals)
    return Outcome(Silent(), keep=(released,), forget=(TreeScores,))


TELL_SIDES = Step("score.sides", _tell_sides, Silent, reveals=(SplitSides,))
ADD_LEAVES = Step("score.add_leaves", _add_leaves, Silent, reads=(ScoredSides,))
ROUND = Step("score.round_trees", _round, Silent)


def score(call: Caller, contract: Contract, overlap: Overlap) -> None:
    """Score the bank's held-out and unlabelled customers."""
    bank, *partners = data_parties(contract)
    for _ in tree_blocks(contract, scored_rows(contract, overlap)):
        witness(call, contract)
        sides = call.all([ask(p, TELL_SIDES) for p in partners])
        call(bank, ADD_LEAVES, *inbox_of(sides, bank))
    call(bank, ROUND)
    checkpoint(call, contract)
