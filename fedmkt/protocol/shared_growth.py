"""Growing a tree on shares: the steps of one tree in mode `totals`, of which `shared_boosting` says who learns what.

Bank and partner hold shares of g, h and membership of every node that is open, and of the totals of all its cells. A
level is grown in four turns:

    add up      totals of the left children (the root at first) over all bins, shared (`shared_histogram`); those of the
                right ones are the parents' less these. Nobody knows which child is the smaller.
    compare     which cells of both children may be told apart (`cell_tests`, `cell_minimum`); bits to both
    open        the partner sends its shares of the left children's cells, joined as the bits say, to the bank
    split       the bank chooses; the owner of each split knows the sides; membership, g and h of the left child are the
                parent's times the side bits (`side_product`), of the right child what is left

Arrays: fields g, h and 1, in lanes, the last of which is that of 1 (`shared_histogram.Lanes`); nodes of a level left
and right in turn; F columns, the bank's first; B bins and the missing. Letters: g, h, G, H as in learn/splits.py.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract import Contract
from fedmkt.crypto.prg import SeededRandom, derive
from fedmkt.errors import PolicyRefused
from fedmkt.learn import boosting
from fedmkt.learn.cells import Counts, at_cuts, enough_rows, joined_cells
from fedmkt.learn.splits import Level, Settings, Split, best_splits, next_level, root_level, scale_of
from fedmkt.learn.trees import Bools, Decision
from fedmkt.privacy.disclosure import (
    EVERYONE,
    BinCounts,
    BinTotals,
    CellBits,
    ChosenSplits,
    Disclosure,
    HistogramTotals,
    TreeShape,
)
from fedmkt.protocol.bin_layout import BinSizes
from fedmkt.protocol.boosting import OwnSplits, own_names, read_request, sides_of
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
    Name,
    Nothing,
    Outcome,
    PublicValue,
    Silent,
    State,
    Turn,
    Words,
    data_parties,
    dealer,
)
from fedmkt.protocol.histogram import RowBins
from fedmkt.protocol.linear import Counts as Used
from fedmkt.protocol.linear import next_count
from fedmkt.protocol.shared_gradients import GRADIENT_BITS, HESSIAN_BITS, LIMITS
from fedmkt.protocol.shared_histogram import Lanes, ShareVectors, TotalShares
from fedmkt.protocol.shared_values import Owners
from fedmkt.protocol.side_product import (
    Batch,
    DealtSides,
    MaskedSides,
    Opened,
    deal_sides,
    multiply_sides,
    open_sides,
)
from fedmkt.protocol.tree_columns import common_bins
from fedmkt.protocol.tree_growth import SplitRequest, columns_of
from fedmkt.ring.side_bits import Bits, Numbers

COUNT = 2
"""The field of membership, after g and h."""
TOGETHER, APART = ((*LIMITS,), (1,)), (*((limit,) for limit in LIMITS), (1,))
"""Limits by lane: g and h in one word where there is room, which is cheaper."""


@dataclass(frozen=True)
class NodeTotals(Message):
    """The partner's shares of the joined cells of the left children, (nodes, F (B + 1), lanes)."""

    cells: Words


@dataclass(frozen=True)
class CellGroups(PublicValue):
    """How many groups of cells are compared at a level, with how many members."""

    groups: int
    members: int


@dataclass(frozen=True)
class NodeOwners(PublicValue):
    """For each open node of a level who splits it: 0 nobody, 1 the bank, 2 the partner."""

    owners: tuple[int, ...]


@dataclass(frozen=True)
class TreeOwners(State):
    """The trees so far by node: whether splits are the bank's; none where a tree was dropped."""

    trees: tuple[Owners, ...]


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


@dataclass(frozen=True)
class NodeSplits(State):
    """Products of the splits of a level under way."""

    durable: ClassVar[bool] = False
    batch: Batch
    opened: Opened


@dataclass(frozen=True)
class BankTree(State):
    """At the bank: the tree under way; opened : the joined cells of the level, (nodes, F, B + 1, lanes)."""

    durable: ClassVar[bool] = False
    level: Level
    opened: Counts
    usable: Bools
    splits: tuple[Split, ...]
    leaves: tuple[Level, ...]


# --- what follows from the contract and public values


def settings_of(contract: Contract) -> Settings:
    """Return how trees are grown where only joined cells are seen."""
    terms, least = contract.trees, contract.limits.min_support
    return Settings(
        trees=terms.trees, depth=terms.depth, rate=terms.rate, penalty=terms.penalty, min_gain=terms.min_gain,
        min_rows=max(terms.min_rows, least), min_cell=least, gradient_bits=GRADIENT_BITS, hessian_bits=HESSIAN_BITS,
        row_share=terms.row_share, column_share=terms.column_share,
    )  # fmt: skip


def grid(turn: Turn) -> Grid:
    """Return the table of both parties' columns."""
    found = [turn.published(BinSizes, p) for p in turn.parties]
    sizes = [pair for s in found for pair in zip(s.sizes, s.apart, strict=True)]
    return grid_of(sizes, common_bins(turn.contract))


def partner_of(contract: Contract) -> Name:
    """Return the only partner; PolicyRefused where there are more."""
    partners = data_parties(contract)[1:]
    if len(partners) != 1:
        raise PolicyRefused("trees that reveal totals alone are for one partner", 'allow reveal = "sides"')
    return partners[0]


def drawn_rows(turn: Turn, tree: int, rows: int) -> Bools:
    """Return the rows drawn for a tree: everybody draws the same, whoever is in them."""
    info = b"fedmkt rows of a tree v1\n" + tree.to_bytes(8, "big")
    return boosting.draw_rows(rows, turn.contract.trees.row_share, SeededRandom(derive(turn.run, info)))


# --- begin


def root_shares(lanes: Lanes, turn: Turn, gradients: Words, tree: int) -> tuple[State, ...]:
    """Begin a tree from the own shares of g and h, (2, n): membership is 1 for all rows that are drawn."""
    fields = np.empty((3, 1, lanes.rows), np.uint64)
    fields[:2, 0] = gradients
    fields[COUNT] = 1 if turn.first else 0
    # Padding is in no bin; what its rows hold never counts.
    fields[:, :, ~drawn_rows(turn, tree, lanes.rows)] = 0
    table = grid(turn)
    columns, bins = len(table.values), table.bins
    level = LevelShares(
        (0,), lanes.join([*fields]), np.empty((len(lanes.bits), 0, columns, bins + 1), np.uint64),
        np.ones((1, columns, bins), np.bool_), np.empty((0, columns, bins), np.bool_), (), (),
    )  # fmt: skip
    return level, ShareVectors(level.vectors)


# --- compare


def _cells(turn: Turn, groups: CellGroups, count: int, lanes: Lanes) -> Cells:
    return Cells(
        "cells", count, turn.parties[1], groups.groups, groups.members, lanes.bits[-1],
        settings_of(turn.contract).min_cell,
    )  # fmt: skip


def open_counts(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[CellOpening, CellGroups]:
    """Work out the own shares of the level's cells, and open the counts that are compared."""
    state, table, totals = turn.recall(LevelShares), grid(turn), turn.recall(TotalShares).values
    joint = np.concatenate([totals[str(p)] for p in turn.parties], axis=-1)
    added = table.cells(joint).astype(np.uint64, copy=False)
    cells = added
    if len(state.nodes) > 1:
        cells = np.empty((len(added), len(state.nodes), *added.shape[2:]), np.uint64)
        cells[:, 0::2], cells[:, 1::2] = added, state.cells - added
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


def _read_cuts(turn: Turn, inbox: Inbox[Message], state: LevelShares) -> LevelShares:
    """Read the bits: the cuts of the level's nodes, the same for both children of a node."""
    (other,) = turn.others
    table = grid(turn)
    passed = ~needed(state.above, table)
    passed[~passed] = read_cells(turn.recall(CellComparison), inbox.one(other, CellPasses))
    children = 2 if len(state.nodes) > 1 else 1
    return replace(state, cuts=np.repeat(cuts_of(passed, state.above, table), children, axis=0))


def _joined_shares(state: LevelShares) -> Words:
    left = np.moveaxis(state.cells[:, state.left], 0, -1)
    return joined_cells(left, state.cuts[state.left])


# --- open


def open_cells_of(cuts: Bools, table: Grid) -> NDArray[np.int64]:
    """Count the cells that cuts, (nodes, F, B), part in each node and column, where there are bins: (nodes, F)."""
    inside = np.arange(table.bins) < np.array(table.values)[:, None] - 1
    inside[:, -1] = table.apart
    # The cut from the missing may be the only one beyond the last bin of values.
    cells: NDArray[np.int64] = 1 + (cuts & inside).sum(axis=-1)
    return cells


def open_totals(turn: Turn, inbox: Inbox[CellPasses]) -> Outcome[NodeTotals, Silent]:
    """At the partner: send the own shares of the cells that may be told apart, and of no others."""
    state, bank = _read_cuts(turn, inbox, turn.recall(LevelShares)), turn.parties[0]
    cells = open_cells_of(state.cuts, grid(turn))
    least = settings_of(turn.contract).min_cell
    reveals: tuple[Disclosure, ...] = (HistogramTotals(to=bank, totals=3 * int(cells.sum()), minimum=least),)
    if not turn.recall(OwnSplits).trees and state.nodes == (0,):
        # The bank knows every gradient of the first tree.
        own = [i for i, c in enumerate(columns_of(turn.contract)) if c.owner == turn.me]
        size = {"columns": len(own), "bins": int(cells[:, own].sum()), "minimum": least}
        reveals = (*reveals, BinCounts(to=bank, **size), BinTotals(to=bank, **size))
    return Outcome(
        Silent(),
        send={
            bank: NodeTotals(
                _joined_shares(state).reshape(len(state.nodes[state.left]), -1, len(state.cells))
            )
        },
        keep=(state,),
        forget=(CellComparison,),
        reveals=reveals,
    )


def _opened(turn: Turn, state: LevelShares, found: NodeTotals, lanes: Lanes, above: Counts) -> Counts:
    """Add the partner's shares: the joined cells of all nodes of the level."""
    own = _joined_shares(state)
    if found.cells.shape != (len(own), own[0, ..., 0].size, own.shape[-1]):
        raise ValueError("the totals of the partner have another shape than agreed")
    left = lanes.split(own + found.cells.reshape(own.shape))
    if len(state.nodes) == 1:
        return left
    out = np.empty((len(state.nodes), *left.shape[1:]), np.int64)
    out[0::2], out[1::2] = left, joined_cells(above, state.cuts[0::2]) - left
    return out


# --- split


def choose(
    lanes: Lanes, turn: Turn, inbox: Inbox[CellPasses | NodeTotals]
) -> Outcome[SplitRequest, NodeOwners]:
    """At the bank: read the totals, choose splits, tell the partner those of its columns."""
    (partner,) = turn.others
    settings, columns = settings_of(turn.contract), columns_of(turn.contract)
    scale, trends = scale_of(settings, 1.0), [c.trend for c in columns]
    state = _read_cuts(turn, inbox, turn.recall(LevelShares))
    tree = turn.recall(BankTree) if turn.has(BankTree) else None
    above = np.empty(0, np.int64) if tree is None else tree.opened
    cells = _opened(turn, state, inbox.one(partner, NodeTotals), lanes, above)
    if tree is None:
        usable = boosting.draw_columns(len(columns), settings.column_share, turn.random)
        tree = BankTree(root_level(cells[0, 0, :, :2].sum(axis=0)), cells, usable, (), ())
    allowed = enough_rows(cells[..., COUNT], settings.min_rows) & at_cuts(state.cuts)
    allowed &= tree.usable[:, None, None]
    found = best_splits(cells[..., :2], tree.level, settings, scale, trends, allowed)
    first = next(i for i, c in enumerate(columns) if c.owner == partner)
    is_last = state.depth + 1 == settings.depth or found.count(None) == len(found)
    if is_last and all(s.column < first for s in (*tree.splits, *found) if s is not None):
        # Without a split of the partner's the tree would be dropped.
        allowed[:, :first] = False
        theirs = best_splits(cells[..., :2], tree.level, settings, scale, trends, allowed)
        found = _with_best(found, theirs)
    is_split = np.array([split is not None for split in found])
    taken = [_at_last_value(split, grid(turn)) for split in found if split is not None]
    owners = tuple(
        0 if split is None else 1 if columns[split.column].owner == turn.me else 2 for split in found
    )
    kept = replace(
        tree,
        level=next_level(tree.level, found, settings, scale, trends),
        opened=cells[is_split],
        splits=(*tree.splits, *taken),
        leaves=(*tree.leaves, boosting.some(tree.level, ~is_split)),
    )
    rows = [(s.node, s.column - first, s.bin, s.missing_left) for s in taken if s.column >= first]
    reveals: tuple[Disclosure, ...] = (TreeShape(to=EVERYONE, splits=len(taken)),)
    if rows:
        reveals = (*reveals, ChosenSplits(to=partner, splits=len(rows)))
    own = [(s, columns[s.column].name) for s in taken if s.column < first]
    decisions = tuple(Decision(s.node, name, s.bin, s.missing_left) for s, name in own)
    return Outcome(
        NodeOwners(owners),
        send={partner: SplitRequest(np.array(rows, np.int32).reshape(-1, 4))},
        keep=(kept, replace(state, decisions=(*state.decisions, *decisions))),
        forget=(CellComparison,),
        reveals=reveals,
    )


def _with_best(found: tuple[Split | None, ...], theirs: tuple[Split | None, ...]) -> tuple[Split | None, ...]:
    """Take the one split of most gain among `theirs`, if there is any, in place of what was found for its node."""
    gains = [-np.inf if split is None else split.gain for split in theirs]
    best = int(np.argmax(gains))
    return found if theirs[best] is None else (*found[:best], theirs[best], *found[best + 1 :])


def _at_last_value(split: Split, table: Grid) -> Split:
    """Move a split beyond the last bin of values, which parts them from the missing, to that bin."""
    return replace(split, bin=min(split.bin, table.values[split.column] - 1))


def _level_owners(turn: Turn, nodes: tuple[int, ...]) -> Owners:
    owners = turn.published(NodeOwners, turn.parties[0]).owners
    if len(owners) != len(nodes) or not set(owners) <= {0, 1, 2}:
        raise ValueError("the owners of splits are not those of the open nodes")
    return tuple((node, owner == 1) for node, owner in zip(nodes, owners, strict=True) if owner)


def record_splits(turn: Turn, inbox: Inbox[SplitRequest]) -> Outcome[Nothing, Silent]:
    """Write down who splits which node, and at the partner its own splits, which must be at cuts that were opened."""
    state = turn.recall(LevelShares)
    owners = _level_owners(turn, state.nodes)
    decisions = state.decisions
    if not turn.first:
        asked = [node for node, of_bank in owners if not of_bank]
        request = inbox.one(turn.parties[0], SplitRequest)
        own = read_request(turn, request, len(asked), state.depth) if asked else ()
        if [d.node for d in own] != asked or not _are_cuts(turn, state, own):
            raise ValueError("a chosen split is of another node, or at no edge that was opened")
        decisions = (*decisions, *own)
    return Outcome(Silent(), keep=(replace(state, owners=(*state.owners, *owners), decisions=decisions),))


def _are_cuts(turn: Turn, state: LevelShares, own: tuple[Decision, ...]) -> bool:
    table, names = grid(turn), [c.name if c.owner == turn.me else None for c in columns_of(turn.contract)]
    for decision in own:
        column = names.index(decision.column)
        cuts = state.cuts[state.nodes.index(decision.node), column, decision.bin :]
        # Beyond the last bin of values all cuts are one: that from the missing.
        if not (cuts.any() if decision.bin == table.values[column] - 1 else cuts[0]):
            return False
    return True


def own_sides(turn: Turn, decisions: tuple[Decision, ...]) -> Bits:
    """Tell for own splits which train rows go left, (splits, n)."""
    return sides_of(turn.recall(RowBins).codes, decisions, turn.published(BinSizes, turn.me), own_names(turn))


def open_node_sides(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[MaskedSides, Silent]:
    """Open what the products of the level's splits need."""
    state = turn.recall(LevelShares)
    owners = _level_owners(turn, state.nodes)
    batch, used = _sides_batch(turn, lanes, owners)
    places = [state.nodes.index(node) for node, _ in owners]
    mine = {node for node, of_bank in owners if of_bank == turn.first}
    sides = own_sides(turn, tuple(d for d in state.decisions if d.node in mine))
    message, opened = open_sides(turn, batch, sides, [lane[places] for lane in state.vectors])
    (other,) = turn.others
    return Outcome(Silent(), send={other: message}, keep=(NodeSplits(batch, opened), used))


def _sides_batch(turn: Turn, lanes: Lanes, owners: Owners) -> tuple[Batch, Used]:
    count, used = next_count(turn, "node sides")
    of_bank = tuple(of_bank for _, of_bank in owners)
    return Batch("node sides", count, turn.parties[1], of_bank, lanes.rows, lanes.bits), used


def deal_node_sides(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtSides, Silent]:
    """At the dealer: deal the products of a level's splits."""
    owners = turn.published(NodeOwners, turn.parties[0]).owners
    batch, used = _sides_batch(turn, lanes, tuple((i, o == 1) for i, o in enumerate(owners) if o))
    return Outcome(Silent(), send={turn.parties[0]: deal_sides(turn, batch)}, keep=(used,))


def take_node_sides(turn: Turn, inbox: Inbox[MaskedSides | DealtSides]) -> Outcome[Nothing, Silent]:
    """Finish the products: the children's vectors, of which the left ones are added up next."""
    state, products, (other,) = turn.recall(LevelShares), turn.recall(NodeSplits), turn.others
    dealt = inbox.one(dealer(turn.contract), DealtSides) if turn.first else None
    left = multiply_sides(turn, products.batch, products.opened, inbox.one(other, MaskedSides), dealt)
    owners = _level_owners(turn, state.nodes)
    places = [state.nodes.index(node) for node, _ in owners]
    vectors = []
    for product, parents in zip(left, state.vectors, strict=True):
        both = np.empty((2 * len(places), product.shape[1]), product.dtype)
        both[0::2], both[1::2] = product, parents[places] - product
        vectors.append(both)
    level = replace(
        state,
        nodes=tuple(child for node, _ in owners for child in (2 * node + 1, 2 * node + 2)),
        vectors=tuple(vectors),
        cells=state.cells[:, places],
        above=state.cuts[places],
        cuts=state.cuts[:0],
    )
    return Outcome(Silent(), keep=(level, ShareVectors(left)), forget=(NodeSplits,))
