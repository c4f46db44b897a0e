"""The cells of a level of a tree, shared: which of them may be told apart, and the bits that say so.

The turns `compare` of `shared_growth`: bank and partner work out their shares of the cells of a level's nodes, of both
parties' columns, and compare the counts with the minimum. Both learn one bit for each group of cells (`CellBits`); the
dealer and the coordinator how many groups there are. Safe against a semi-honest bank or partner, while the dealer
colludes with neither. Which groups, and what the bits mean: `cell_tests`; the comparison: `cell_minimum`.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fedmkt.contract import Contract
from fedmkt.learn.splits import Settings
from fedmkt.learn.trees import Bools, Decision
from fedmkt.privacy.disclosure import (
    CellBits,
)
from fedmkt.protocol.bin_layout import BinSizes
from fedmkt.protocol.cell_minimum import (
    CellComparison,
    CellOpening,
    CellPasses,
    Cells,
    DealtCells,
    PlaneOpening,
    deal_cells,
    first_layer,
    open_cells,
    open_planes,
    own_passes,
    read_cells,
    take_planes,
)
from fedmkt.protocol.cell_tests import Grid, cuts_of, grid_of, group_sums, needed
from fedmkt.protocol.core import (
    Inbox,
    Message,
    Nothing,
    Outcome,
    PublicValue,
    Silent,
    State,
    Turn,
    Words,
    dealer,
)
from fedmkt.protocol.lanes import Lanes
from fedmkt.protocol.linear import next_count
from fedmkt.protocol.shared_gradients import GRADIENT_BITS, HESSIAN_BITS, LIMITS
from fedmkt.protocol.shared_histogram import TotalShares
from fedmkt.protocol.shared_values import Owners
from fedmkt.protocol.tree_columns import common_bins
from fedmkt.ring.side_bits import Numbers

COUNT = 2
"""The field of membership, after g and h."""
TOGETHER, APART = ((*LIMITS,), (1,)), (*((limit,) for limit in LIMITS), (1,))
"""Limits by lane: g and h in one word where there is room, which is cheaper."""


@dataclass(frozen=True)
class CellGroups(PublicValue):
    """How many groups of cells are compared at a level, with how many members."""

    groups: int
    members: int


@dataclass(frozen=True)
class LevelShares(State):
    """The tree under way, at both: shares of the level's nodes.

    nodes : their numbers; vectors : by lane (nodes, n); cells : (lanes, nodes, F, B + 1); above : (s, F, B), the cuts
    of their parents; cuts : those of the level's own nodes, known after the comparison
    owners, decisions : the splits so far, and the own ones
    """

    durable: ClassVar[bool] = False
    nodes: tuple[int, ...]
    vectors: tuple[Numbers, ...]
    cells: Words
    above: Bools
    cuts: Bools
    owners: Owners
    decisions: tuple[Decision, ...]

    @property
    def depth(self) -> int:
        """The depth of the level; 0 is the root."""
        return (self.nodes[0] + 1).bit_length() - 1

    @property
    def left(self) -> slice:
        """Which of the nodes are added up: the root, or the left children."""
        return slice(None, None, 2) if len(self.nodes) > 1 else slice(None)


def settings_of(contract: Contract) -> Settings:
    """Return how trees are grown where only joined cells are seen."""
    terms, least = contract.trees, contract.limits.min_support
    return Settings(
        trees=terms.trees, depth=terms.depth, rate=terms.rate, penalty=terms.penalty, min_gain=terms.min_gain,
        min_rows=max(terms.min_rows, least), min_cell=least, gradient_bits=GRADIENT_BITS, hessian_bits=HESSIAN_BITS,
        row_share=terms.row_share, column_share=terms.column_share, class_weights=terms.class_weights,
        patience=terms.patience, loss="squared" if terms.patience else "log", loss_digits=5,
    )  # fmt: skip


def grid(turn: Turn) -> Grid:
    """Return the table of both parties' columns."""
    found = [turn.published(BinSizes, p) for p in turn.parties]
    sizes = [pair for s in found for pair in zip(s.sizes, s.apart, strict=True)]
    return grid_of(sizes, common_bins(turn.contract))


def _cells(turn: Turn, groups: CellGroups, count: int, lanes: Lanes) -> Cells:
    return Cells(
        "cells", count, turn.parties[1], groups.groups, groups.members, lanes.bits[-1],
        settings_of(turn.contract).min_cell,
    )  # fmt: skip


def level_cells(turn: Turn) -> Words:
    """Work out the own shares of the level's cells, (lanes, nodes, F, B + 1); right ones by subtraction."""
    state, totals = turn.recall(LevelShares), turn.recall(TotalShares).values
    joint = np.concatenate([totals[str(p)] for p in turn.parties], axis=-1)
    added = grid(turn).cells(joint).astype(np.uint64, copy=False)
    if len(state.nodes) == 1:
        return added
    cells = np.empty((len(added), len(state.nodes), *added.shape[2:]), np.uint64)
    cells[:, 0::2], cells[:, 1::2] = added, state.cells - added
    return cells


def open_counts(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[CellOpening, CellGroups]:
    """Work out the own shares of the level's cells, and open the counts that are compared."""
    state, table, cells = turn.recall(LevelShares), grid(turn), level_cells(turn)
    children = 2 if len(state.nodes) > 1 else 1
    counts = cells[-1].astype(np.uint32).reshape(-1, children, *cells.shape[2:])
    sums = group_sums(counts, table)[needed(state.above, table)]
    groups = CellGroups(len(sums), 2 * children)
    count, counts_used = next_count(turn, "cells")
    message, comparison = open_cells(turn, _cells(turn, groups, count, lanes), sums)
    (other,) = turn.others
    kept = (replace(state, cells=cells), comparison, counts_used)
    return Outcome(groups, send={other: message}, keep=kept, forget=(TotalShares,))


def deal_counts(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtCells, Silent]:
    """At the dealer: deal the comparison of a level."""
    bank, partner = turn.parties
    groups = turn.published(CellGroups, bank)
    if groups != turn.published(CellGroups, partner):
        raise ValueError("bank and partner do not compare the same number of cells")
    count, used = next_count(turn, "cells")
    return Outcome(Silent(), send={bank: deal_cells(turn, _cells(turn, groups, count, lanes))}, keep=(used,))


def begin_layers(turn: Turn, inbox: Inbox[CellOpening | DealtCells]) -> Outcome[PlaneOpening, Silent]:
    """Take in the opened counts and open the first layer."""
    (other,) = turn.others
    dealt = inbox.one(dealer(turn.contract), DealtCells) if turn.first else None
    state = first_layer(turn, turn.recall(CellComparison), inbox.one(other, CellOpening), dealt)
    message, kept = open_planes(turn, state)
    return Outcome(Silent(), send={other: message}, keep=(kept,))


def next_layer(turn: Turn, inbox: Inbox[PlaneOpening]) -> Outcome[PlaneOpening, Silent]:
    """Take in a layer and open the next."""
    (other,) = turn.others
    state = take_planes(turn, turn.recall(CellComparison), inbox.one(other, PlaneOpening))
    message, kept = open_planes(turn, state)
    return Outcome(Silent(), send={other: message}, keep=(kept,))


def share_bits(turn: Turn, inbox: Inbox[PlaneOpening]) -> Outcome[CellPasses, Silent]:
    """Take in the last layer and tell the other party the own share of the bits."""
    (other,) = turn.others
    state = take_planes(turn, turn.recall(CellComparison), inbox.one(other, PlaneOpening))
    bits = CellBits(to=other, bits=state.cells.groups, minimum=state.cells.minimum)
    return Outcome(Silent(), send={other: own_passes(state)}, keep=(state,), reveals=(bits,))


def read_cuts(turn: Turn, inbox: Inbox[Message], state: LevelShares) -> LevelShares:
    """Read the bits: the cuts of the level's nodes, the same for both children of a node."""
    (other,) = turn.others
    table = grid(turn)
    passed = ~needed(state.above, table)
    passed[~passed] = read_cells(turn.recall(CellComparison), inbox.one(other, CellPasses))
    children = 2 if len(state.nodes) > 1 else 1
    return replace(state, cuts=np.repeat(cuts_of(passed, state.above, table), children, axis=0))
