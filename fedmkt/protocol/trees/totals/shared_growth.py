"""Growing a tree on shares: the steps of one tree in mode `totals`, of which `shared_boosting` says who learns what.

Bank and partner hold shares of g, h and membership of every node that is open, and of the totals of all its cells. A
level is grown in four turns:

    add up      totals of the left children (the root at first) over all bins, shared (`shared_histogram`); those of the
                right ones are the parents' less these. Nobody knows which child is the smaller.
    compare     which cells of both children may be told apart (`cell_tests`, `cell_minimum`); bits to both
    open        each partner sends its shares of the left children's cells, joined as the bits say, to the bank
    split       the bank chooses; the owner of each split knows the sides; membership, g and h of the left child are the
                parent's times the side bits (`side_product`), of the right child what is left

Which of two partners does what stands in `duos`: each has the vectors of all nodes, and the cells of some columns.

Arrays: fields g, h and 1, in lanes, the last of which is that of 1 (`shared_histogram.Lanes`); nodes of a level left
and right in turn; F columns that the party sees, the bank's first; B bins and the missing. Letters: g, h, G, H as in
learn/splits.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.errors import PeerError
from fedmkt.learn import boosting
from fedmkt.learn.cells import Counts, at_cuts, enough_rows, joined_cells
from fedmkt.learn.splits import Level, Settings, Split, best_splits, next_level, root_level, scale_of
from fedmkt.learn.trees import Bools, Column, Decision
from fedmkt.privacy.disclosure import (
    EVERYONE,
    BinCounts,
    BinTotals,
    ChosenSplits,
    Disclosure,
    HistogramTotals,
    TreeShape,
)
from fedmkt.protocol.alignment.align import validation_rows
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
)
from fedmkt.protocol.mask_counts import Counts as Used
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.side_product import MaskedSides, Opened
from fedmkt.protocol.trees.sides.boosting import own_names, read_request, sides_of
from fedmkt.protocol.trees.sides.histogram import RowBins
from fedmkt.protocol.trees.sides.tree_growth import SplitRequest, columns_of, first_columns
from fedmkt.protocol.trees.totals.cell_minimum import CellPasses
from fedmkt.protocol.trees.totals.cell_tests import Grid
from fedmkt.protocol.trees.totals.duos import (
    DealtDuos,
    PartnerShares,
    Products,
    deal_products,
    duos,
    multiply,
    open_products,
    pass_on,
    peers,
    seen_columns,
    take_over,
)
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.shared_cells import (
    COUNT,
    Comparisons,
    LevelShares,
    grid,
    read_cuts,
    settings_of,
)
from fedmkt.protocol.trees.totals.shared_histogram import ShareVectors
from fedmkt.protocol.trees.totals.shared_values import Owners
from fedmkt.ring.side_bits import Bits, Numbers


@dataclass(frozen=True)
class NodeTotals(Message):
    """A partner's shares of the joined cells of the left children, (nodes, F (B + 1), lanes), modulo 2^bits."""

    cells: Words


@dataclass(frozen=True)
class NodeOwners(PublicValue):
    """For each open node of a level who splits it: 0 nobody, 1 the bank, 2 and 3 the partners in their order."""

    owners: tuple[int, ...]


@dataclass(frozen=True)
class TreeOwners(State):
    """The trees so far by node: whose the splits are; none where a tree was dropped."""

    trees: tuple[Owners, ...]


@dataclass(frozen=True)
class NodeSplits(State):
    """Products of the splits of a level under way; found : at a partner of two, those that it has a part of."""

    durable: ClassVar[bool] = False
    products: Products
    opened: tuple[Opened, ...]
    found: tuple[Numbers, ...] = ()


@dataclass(frozen=True)
class BankTree(State):
    """At the bank: the tree under way; opened : the joined cells of the level, (nodes, F, B + 1, lanes)."""

    durable: ClassVar[bool] = False
    level: Level
    opened: Counts
    usable: Bools
    splits: tuple[Split, ...]
    leaves: tuple[Level, ...]


# --- begin


def root_vectors(lanes: Lanes, turn: Turn, gradients: Words) -> tuple[Numbers, ...]:
    """Return the vectors of the root from the own shares of g and h, (2, n): membership is 1 for rows that train."""
    # Padding is in no bin; what its rows hold never counts. Nor does membership where nothing is counted.
    fields = np.full((sum(map(len, lanes.limits)), 1, lanes.length), 1 if turn.first else 0, np.uint64)
    fields[:2, 0] = gradients
    fields[:, 0, validation_rows(turn)[lanes.here]] = 0
    return lanes.join([*fields])


def root_shares(turn: Turn, vectors: tuple[Numbers, ...]) -> tuple[State, ...]:
    """Begin a tree."""
    table = grid(turn)
    columns, bins = len(table.values), table.bins
    level = LevelShares(
        (0,), vectors, np.empty((len(vectors), 0, columns, bins + 1), np.uint64),
        np.ones((1, columns, bins), np.bool_), np.empty((0, columns, bins), np.bool_), (), (),
    )  # fmt: skip
    return level, ShareVectors(level.vectors)


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


def open_totals(lanes: Lanes, turn: Turn, inbox: Inbox[CellPasses]) -> Outcome[NodeTotals, Silent]:
    """At a partner: send the own shares of the cells that may be told apart, and of no others."""
    state, bank = read_cuts(turn, inbox, turn.recall(LevelShares)), turn.parties[0]
    cells = open_cells_of(state.cuts, grid(turn))
    least = settings_of(turn.contract).min_cell
    reveals: tuple[Disclosure, ...] = (HistogramTotals(to=bank, totals=3 * int(cells.sum()), minimum=least),)
    if not any(turn.recall(TreeOwners).trees) and state.nodes == (0,):
        # The bank knows every gradient until a tree has been added to the scores.
        own = [i for i, c in enumerate(seen_columns(turn.contract, turn.me)) if c.owner == turn.me]
        size = {"columns": len(own), "bins": int(cells[:, own].sum()), "minimum": least}
        reveals = (*reveals, BinCounts(to=bank, **size), BinTotals(to=bank, **size))
    # How often a sum of shares went around t would compare totals of single bins with masks that the bank knows.
    joined = _joined_shares(state) & np.array([(1 << bits) - 1 for bits in lanes.bits], np.uint64)
    return Outcome(
        Silent(),
        send={bank: NodeTotals(joined.reshape(len(state.nodes[state.left]), -1, len(state.cells)))},
        keep=(state,),
        forget=(Comparisons,),
        reveals=reveals,
    )


def _opened(
    turn: Turn, state: LevelShares, inbox: Inbox[CellPasses | NodeTotals], lanes: Lanes, above: Counts
) -> Counts:
    """Add the partners' shares: the joined cells of all nodes of the level; PeerError if columns contradict."""
    joined = _joined_shares(state)
    for duo in duos(turn):
        own, found = joined[:, duo.columns], inbox.one(duo.partner, NodeTotals).cells
        if found.shape != (len(own), own[0, ..., 0].size, own.shape[-1]):
            raise ValueError(f"the totals of {duo.partner} have another shape than agreed")
        own += found.reshape(own.shape)
    left = lanes.split(joined)
    check_columns(left)
    if len(state.nodes) == 1:
        return left
    out = np.empty((len(state.nodes), *left.shape[1:]), np.int64)
    out[0::2], out[1::2] = left, joined_cells(above, state.cuts[0::2]) - left
    return out


def check_columns(cells: Counts) -> None:
    """Refuse columns that contradict each other, (nodes, F, B + 1, fields): each has every row of its node once."""
    sums = cells.sum(axis=2)
    if (sums != sums[:, :1]).any():
        raise PeerError(
            "totals of the columns do not add up to the same: not all are of the same shares of rows",
            hint="ask the partners which program they run, before another run is agreed",
        )


# --- split


def choose(
    lanes: Lanes, turn: Turn, inbox: Inbox[CellPasses | NodeTotals]
) -> Outcome[SplitRequest, NodeOwners]:
    """At the bank: read the totals, choose splits, tell each partner those of its columns."""
    settings, columns = settings_of(turn.contract), columns_of(turn.contract)
    state = read_cuts(turn, inbox, turn.recall(LevelShares))
    tree = turn.recall(BankTree) if turn.has(BankTree) else None
    above = np.empty(0, np.int64) if tree is None else tree.opened
    cells = _opened(turn, state, inbox, lanes, above)
    if tree is None:
        usable = boosting.draw_columns(len(columns), settings.column_share, turn.random)
        tree = BankTree(root_level(cells[0, 0, :, :2].sum(axis=0)), cells, usable, (), ())
    allowed = enough_rows(cells[..., COUNT], settings.min_rows) & at_cuts(state.cuts)
    return choose_allowed(turn, state, tree, cells, settings, allowed)


def choose_allowed(
    turn: Turn, state: LevelShares, tree: BankTree, cells: Counts, settings: Settings, allowed: Bools
) -> Outcome[SplitRequest, NodeOwners]:
    """Choose among the allowed candidates, (nodes, F, B, 2), on cells (nodes, F, B + 1, fields)."""
    columns = columns_of(turn.contract)
    scale, trends = scale_of(settings, max(settings.class_weights)), [c.trend for c in columns]
    allowed = allowed & tree.usable[:, None, None]
    found = best_splits(cells[..., :2], tree.level, settings, scale, trends, allowed)
    starts = first_columns(turn.contract)
    first = starts[turn.others[0]]
    is_last = state.depth + 1 == settings.depth or found.count(None) == len(found)
    if is_last and all(s.column < first for s in (*tree.splits, *found) if s is not None):
        # Without a split of a partner's the tree would be dropped.
        allowed[:, :first] = False
        theirs = best_splits(cells[..., :2], tree.level, settings, scale, trends, allowed)
        found = _with_best(found, theirs)
    is_split = np.array([split is not None for split in found])
    taken = [_at_last_value(split, grid(turn)) for split in found if split is not None]
    owners = tuple(
        0 if split is None else 1 + [*starts].index(Name(columns[split.column].owner)) for split in found
    )
    kept = replace(
        tree,
        level=next_level(tree.level, found, settings, scale, trends),
        opened=cells[is_split],
        splits=(*tree.splits, *taken),
        leaves=(*tree.leaves, boosting.some(tree.level, ~is_split)),
    )
    requests = {p: _request(columns, starts, p, taken) for p in turn.others}
    reveals = (
        TreeShape(to=EVERYONE, splits=len(taken)),
        *(ChosenSplits(to=p, splits=len(r.splits)) for p, r in requests.items() if len(r.splits)),
    )
    own = [(s, columns[s.column].name) for s in taken if s.column < first]
    decisions = tuple(Decision(s.node, name, s.bin, s.missing_left) for s, name in own)
    return Outcome(
        NodeOwners(owners),
        send=requests,
        keep=(kept, replace(state, decisions=(*state.decisions, *decisions))),
        forget=(Comparisons,),
        reveals=reveals,
    )


def _request(
    columns: Sequence[Column], starts: Mapping[Name, int], partner: Name, taken: Sequence[Split]
) -> SplitRequest:
    own = [s for s in taken if columns[s.column].owner == partner]
    rows = [(s.node, s.column - starts[partner], s.bin, s.missing_left) for s in own]
    return SplitRequest(np.array(rows, np.int32).reshape(-1, 4))


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
    if len(owners) != len(nodes) or not set(owners) <= set(range(len(turn.parties) + 1)):
        raise ValueError("the owners of splits are not those of the open nodes")
    return split_nodes(nodes, owners)


def split_nodes(nodes: Sequence[int], owners: Sequence[int]) -> Owners:
    """Return the nodes that are split, and by whom, from what `NodeOwners` tells."""
    return tuple((node, owner - 1) for node, owner in zip(nodes, owners, strict=True) if owner)


def record_splits(turn: Turn, inbox: Inbox[SplitRequest]) -> Outcome[Nothing, Silent]:
    """Write down who splits which node, and at a partner its own splits, which must be at cuts that were opened."""
    state = turn.recall(LevelShares)
    owners = _level_owners(turn, state.nodes)
    decisions = state.decisions
    if not turn.first:
        asked = [node for node, owner in owners if turn.parties[owner] == turn.me]
        request = inbox.one(turn.parties[0], SplitRequest)
        own = read_request(turn, request, len(asked), state.depth) if asked else ()
        if [d.node for d in own] != asked or not _are_cuts(turn, state, own):
            raise ValueError("a chosen split is of another node, or at no edge that was opened")
        decisions = (*decisions, *own)
    return Outcome(Silent(), keep=(replace(state, owners=(*state.owners, *owners), decisions=decisions),))


def _are_cuts(turn: Turn, state: LevelShares, own: tuple[Decision, ...]) -> bool:
    seen = seen_columns(turn.contract, turn.me)
    table, names = grid(turn), [c.name if c.owner == turn.me else None for c in seen]
    for decision in own:
        column = names.index(decision.column)
        cuts = state.cuts[state.nodes.index(decision.node), column, decision.bin :]
        # The missing go left of an edge only where they are apart from the last values: else their number would show.
        if decision.missing_left and not cuts[-1]:
            return False
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
    products, used = node_products(turn, lanes, owners)
    places = [state.nodes.index(node) for node, _ in owners]
    mine = {node for node, owner in owners if turn.parties[owner] == turn.me}
    sides = own_sides(turn, tuple(d for d in state.decisions if d.node in mine))
    send, opened = open_products(turn, products, sides, [lane[places] for lane in state.vectors])
    return Outcome(Silent(), send=send, keep=(NodeSplits(products, opened), used))


def node_products(
    turn: Turn, lanes: Lanes, owners: Owners, kind: str = "node sides"
) -> tuple[Products, Used]:
    """Return the products of a level's splits, of which `kind` counts what is done, and that count."""
    count, used = next_count(turn, kind)
    whose = tuple(owner for _, owner in owners)
    return Products("node sides", count, whose, lanes.length, lanes.share_bits, (True,) * len(whose)), used


def deal_node_sides(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtDuos, Silent]:
    """At the dealer: deal the products of a level's splits."""
    owners = turn.published(NodeOwners, turn.parties[0]).owners
    products, used = node_products(turn, lanes, split_nodes(range(len(owners)), owners))
    return Outcome(Silent(), send={turn.parties[0]: deal_products(turn, products)}, keep=(used,))


def take_node_sides(turn: Turn, inbox: Inbox[MaskedSides | DealtDuos]) -> Outcome[PartnerShares, Silent]:
    """Finish the own products: the children's vectors, or what the other partner is to be told of them."""
    under_way = turn.recall(NodeSplits)
    left = multiply(turn, under_way.products, under_way.opened, inbox)
    if not peers(turn):
        return Outcome(Silent(), keep=_children(turn, left), forget=(NodeSplits,))
    kept = NodeSplits(under_way.products, (), left)
    return Outcome(Silent(), send=pass_on(turn, under_way.products, left), keep=(kept,))


def pool_node_sides(turn: Turn, inbox: Inbox[PartnerShares]) -> Outcome[Nothing, Silent]:
    """At a partner of two: put in the other's products."""
    under_way = turn.recall(NodeSplits)
    left = take_over(turn, under_way.products, under_way.found, inbox)
    return Outcome(Silent(), keep=_children(turn, left), forget=(NodeSplits,))


def _children(turn: Turn, left: tuple[Numbers, ...]) -> tuple[State, ...]:
    """Return the level of the children, of which the left ones are added up next."""
    state = turn.recall(LevelShares)
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
    return level, ShareVectors(left)
