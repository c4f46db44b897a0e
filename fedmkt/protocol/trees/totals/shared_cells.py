"""The cells of a level of a tree, shared: which of them may be told apart, and the bits that say so.

The turns `compare` of `shared_growth`: bank and partner work out their shares of the cells of a level's nodes, of both
their columns, and compare the counts with the minimum. Both learn one bit for each group of cells (`CellBits`); the
dealer and the coordinator how many groups there are. A second partner does the same for its own columns, whose bits
the first one does not learn (`duos`). Safe against a semi-honest bank or partner, while the dealer colludes with
neither. Which groups, and what the bits mean: `cell_tests`; the comparison: `cell_minimum`.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.learn.splits import Settings
from fedmkt.learn.trees import Bools, Decision
from fedmkt.privacy.disclosure import (
    CellBits,
)
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    PublicValue,
    Reply,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    dealer,
    inbox_of,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.totals.cell_minimum import (
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
from fedmkt.protocol.trees.totals.cell_tests import Grid, cuts_of, grid_of, group_sums, needed
from fedmkt.protocol.trees.totals.duos import duos, holders
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.shared_gradients import GRADIENT_BITS, HESSIAN_BITS, LIMITS
from fedmkt.protocol.trees.totals.shared_histogram import TotalShares
from fedmkt.protocol.trees.totals.shared_values import Owners, both
from fedmkt.protocol.trees.tree_columns import common_bins
from fedmkt.protocol.witness import countersign, showing
from fedmkt.ring.side_bits import Numbers

COUNT = 2
"""The field of membership, after g and h."""
TOGETHER, APART = ((*LIMITS,), (1,)), (*((limit,) for limit in LIMITS), (1,))
"""Limits by lane: g and h in one word where there is room, which is cheaper."""


@dataclass(frozen=True)
class CellGroups(PublicValue):
    """How many groups of cells the sender compares at a level, in each of its duos, with how many members."""

    groups: tuple[int, ...]
    members: int


@dataclass(frozen=True)
class DealtComparisons(Message):
    """The bank's shares for the comparison of each duo that has any groups."""

    parts: tuple[DealtCells, ...]


@dataclass(frozen=True)
class Comparisons(State):
    """The comparisons under way, by partner."""

    durable: ClassVar[bool] = False
    of: dict[str, CellComparison]


@dataclass(frozen=True)
class LevelShares(State):
    """The tree under way, at all: shares of the level's nodes. F are the columns that the party sees (`duos`).

    nodes : their numbers; vectors : by lane (nodes, n); cells : (lanes, nodes, F, B + 1); above : (s, F, B), the cuts
    of their parents; cuts : those of the level's own nodes, known after the comparison
    owners, decisions : the splits so far, and the own ones
    """

    durable: ClassVar[bool] = False
    by_row: ClassVar[tuple[str, ...]] = ("vectors",)
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
    """Return the table of the columns that this party sees."""
    found = [turn.published(BinSizes, p) for p in holders(turn.contract, turn.me)]
    sizes = [pair for s in found for pair in zip(s.sizes, s.apart, strict=True)]
    return grid_of(sizes, common_bins(turn.contract))


def _cells(turn: Turn, partner: Name, groups: int, members: int, count: int, lanes: Lanes) -> Cells:
    return Cells(
        "cells", count, partner, groups, members, lanes.bits[-1], settings_of(turn.contract).min_cell
    )


def level_cells(turn: Turn) -> Words:
    """Work out the own shares of the level's cells, (lanes, nodes, F, B + 1); right ones by subtraction."""
    state, totals = turn.recall(LevelShares), turn.recall(TotalShares).values
    joint = np.concatenate([totals[str(p)] for p in holders(turn.contract, turn.me)], axis=-1)
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
    sums, compared = group_sums(counts, table), needed(state.above, table)
    count, counts_used = next_count(turn, "cells")
    send, found, groups = {}, {}, []
    for duo in duos(turn):
        own = sums[:, duo.columns][compared[:, duo.columns]]
        groups.append(len(own))
        if len(own):
            asked = _cells(turn, duo.partner, len(own), 2 * children, count, lanes)
            send[duo.other(turn)], found[str(duo.partner)] = open_cells(turn, asked, own)
    kept = (replace(state, cells=cells), Comparisons(found), counts_used)
    return Outcome(CellGroups(tuple(groups), 2 * children), send=send, keep=kept, forget=(TotalShares,))


def deal_counts(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtComparisons, Silent]:
    """At the dealer: deal the comparisons of a level."""
    bank, *partners = turn.parties
    told, found = turn.published(CellGroups, bank), [turn.published(CellGroups, p) for p in partners]
    if any(f.members != told.members for f in found) or told.groups != tuple(
        g for f in found for g in f.groups
    ):
        raise ValueError("bank and partner do not compare the same number of cells")
    count, used = next_count(turn, "cells")
    parts = tuple(
        deal_cells(turn, _cells(turn, partner, groups, told.members, count, lanes))
        for partner, groups in zip(partners, told.groups, strict=True)
        if groups
    )
    return Outcome(Silent(), send={bank: DealtComparisons(parts)}, keep=(used,))


def _other(turn: Turn, partner: str) -> Name:
    return Name(partner) if turn.first else turn.parties[0]


def begin_layers(turn: Turn, inbox: Inbox[CellOpening | DealtComparisons]) -> Outcome[PlaneOpening, Silent]:
    """Take in the opened counts and open the first layer."""
    found = turn.recall(Comparisons).of
    dealt = inbox.one(dealer(turn.contract), DealtComparisons).parts if turn.first else (None,) * len(found)
    if len(dealt) != len(found):
        raise ValueError("the dealer's shares are of other comparisons")
    taken = {
        partner: first_layer(turn, state, inbox.one(_other(turn, partner), CellOpening), part)
        for (partner, state), part in zip(found.items(), dealt, strict=True)
    }
    return _open_layer(turn, taken)


def next_layer(turn: Turn, inbox: Inbox[PlaneOpening]) -> Outcome[PlaneOpening, Silent]:
    """Take in a layer and open the next."""
    return _open_layer(turn, _taken(turn, inbox))


def _open_layer(turn: Turn, found: dict[str, CellComparison]) -> Outcome[PlaneOpening, Silent]:
    opened = {partner: open_planes(turn, state) for partner, state in found.items()}
    send = {_other(turn, partner): message for partner, (message, _) in opened.items()}
    return Outcome(Silent(), send=send, keep=(Comparisons({p: state for p, (_, state) in opened.items()}),))


def _taken(turn: Turn, inbox: Inbox[PlaneOpening]) -> dict[str, CellComparison]:
    return {
        partner: take_planes(turn, state, inbox.one(_other(turn, partner), PlaneOpening))
        for partner, state in turn.recall(Comparisons).of.items()
    }


def share_bits(turn: Turn, inbox: Inbox[PlaneOpening]) -> Outcome[CellPasses, Silent]:
    """Take in the last layer and tell the other party the own share of the bits."""
    found = _taken(turn, inbox)
    send = {_other(turn, partner): own_passes(state) for partner, state in found.items()}
    bits = tuple(
        CellBits(to=_other(turn, partner), bits=state.cells.groups, minimum=state.cells.minimum)
        for partner, state in found.items()
    )
    return Outcome(Silent(), send=send, keep=(Comparisons(found),), reveals=bits)


def read_cuts(turn: Turn, inbox: Inbox[Message], state: LevelShares) -> LevelShares:
    """Read the bits: the cuts of the level's nodes, the same for both children of a node."""
    table, found = grid(turn), turn.recall(Comparisons).of
    passed = ~needed(state.above, table)
    for duo in duos(turn):
        if str(duo.partner) in found:
            part = passed[:, duo.columns]
            part[~part] = read_cells(found[str(duo.partner)], inbox.one(duo.other(turn), CellPasses))
    children = 2 if len(state.nodes) > 1 else 1
    return replace(state, cuts=np.repeat(cuts_of(passed, state.above, table), children, axis=0))


# --- script

BEGIN_LAYERS = Step("fit.begin_layers", begin_layers, Silent, reads=(CellOpening, DealtComparisons))
NEXT_LAYER = Step("fit.next_layer", next_layer, Silent, reads=(PlaneOpening,))
SHARE_BITS = showing(Step("fit.share_bits", share_bits, Silent, reads=(PlaneOpening,), reveals=(CellBits,)))


def compare(call: Caller, contract: Contract, lanes: Lanes) -> list[Reply[CellPasses, Silent]]:
    """Compare the counts of a level with the minimum, up to both parties' shares of the bits."""
    parties = data_parties(contract)
    open_ = Step("fit.open_counts", partial(open_counts, lanes), CellGroups)
    deal = Step("fit.deal_counts", partial(deal_counts, lanes), Silent)
    opened = call.all([ask(p, open_) for p in parties])
    dealt = call(dealer(contract), deal)
    members = opened[0].public.value.members
    layers = len(Cells("", 0, parties[1], 1, members, lanes.bits[-1], 1).layer_bytes())
    begin = BEGIN_LAYERS if layers > 1 else showing(BEGIN_LAYERS)
    planes = call.all([ask(p, begin, *both(opened, dealt, p)) for p in parties])
    for layer in range(1, layers):
        following = NEXT_LAYER if layer + 1 < layers else showing(NEXT_LAYER)
        planes = call.all([ask(p, following, *inbox_of(planes, p)) for p in parties])
    countersign(call, parties)
    return call.all([ask(p, SHARE_BITS, *inbox_of(planes, p)) for p in parties])
