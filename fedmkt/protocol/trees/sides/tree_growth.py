"""How the bank grows trees whose rows it can follow: gradients, vectors of the nodes, splits from totals, leaves.

The bank's half of `boosting`, where it is said who learns what. It repeats `learn.boosting.grow` level by level on
the same functions, except that the cells of the partners' columns come from decrypted totals, and the sides of their
splits from the partners. With the same random numbers the trees are the same, bit for bit.

A tree is grown in turns of three steps: `plant` or `grow` leaves the vectors of the nodes to be added up, `choose`
finds splits once their totals are there, `grow` moves the rows once the sides are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import KEY_BYTES, derive, expand
from fedmkt.errors import DataError
from fedmkt.learn import boosting
from fedmkt.learn.cells import Counts
from fedmkt.learn.splits import (
    Level,
    Scale,
    Settings,
    Split,
    best_splits,
    leaf_values,
    next_level,
    root_level,
    scale_of,
)
from fedmkt.learn.trees import (
    Bools,
    Column,
    Decision,
    Floats,
    Nodes,
    Table,
    Tree,
    by_node,
    children,
    goes_left,
)
from fedmkt.privacy.disclosure import EVERYONE, ChosenSplits, TreeShape
from fedmkt.protocol.alignment.align import check_validation, joint_rows, validation_rows
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
    data_parties,
)
from fedmkt.protocol.prepare import own_columns, real
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.sides.histogram import BatchTotals, Vectors
from fedmkt.protocol.trees.sides.histogram_terms import Terms
from fedmkt.protocol.trees.tree_columns import common_bins, own_codes, party_columns, table_values
from fedmkt.ring.fields import Packing, pack_fields, take_apart
from fedmkt.ring.rlwe import Codes, Integers

PER_NODE = 2
"""Totals of a cell: g and h of its rows."""


# --- messages, public values and state


@dataclass(frozen=True)
class SplitRequest(Message):
    """Splits of the reader's columns: (k, 4), node, column, last bin that goes left, and 1 if the missing do too."""

    splits: NDArray[np.int32]


@dataclass(frozen=True)
class RowSides(Message):
    """Which rows go left at each split, (k, rows / 8): a bit for each row, the first one highest."""

    bits: NDArray[np.uint8]


@dataclass(frozen=True)
class LevelSplits(PublicValue):
    """How many splits a level of a tree has, and how many each partner owns of them, in the order of the contract."""

    tree: int
    depth: int
    splits: int
    partners: tuple[int, ...]


@dataclass(frozen=True)
class TrainTable(State):
    """At the bank: bins of its own columns, (columns, n), labels and weights of the train rows, (n,).

    validates : (n,), which of them do not train but tell when training is over
    """

    durable: ClassVar[bool] = False
    values: Codes
    y: Floats
    weights: Floats
    validates: Bools


@dataclass(frozen=True)
class Forest(State):
    """At the bank: the trees so far and their own decisions, the score (log odds) of each train row, (n,).

    key : of all random draws; a resumed run draws the same for each tree, so that nothing new follows from it
    opened : (columns of all parties, bins), the last bins on the left of which the sides are known
    """

    key: bytes
    base: float
    trees: tuple[Tree, ...]
    decisions: tuple[tuple[Decision, ...], ...]
    scores: Floats
    opened: Bools


@dataclass(frozen=True)
class Growing(State):
    """At the bank: the tree under way.

    rows : (n, 3) g, h and 1; built : cells of the own columns of the nodes that were asked for
    order, packings : which of them each vector is for, and how g and h are packed in it
    parents, right_smaller : cells of their parents, and which child was asked for; empty at the root
    cells : of all nodes of the level, once the totals are there; found : their splits, until the rows have moved
    """

    durable: ClassVar[bool] = False
    rows: NDArray[np.int32]
    usable: Bools
    node_of_row: Nodes
    level: Level
    built: Counts
    order: NDArray[np.intp]
    packings: tuple[Packing, ...]
    parents: Counts
    right_smaller: Bools
    cells: Counts
    found: tuple[Split | None, ...]
    splits: tuple[Split, ...]
    leaves: tuple[Level, ...]
    opened: Bools
    depth: int


class Draws:
    """The random numbers of a training, call by call: the same ones for a key and the number of a call."""

    def __init__(self, key: bytes, count: int = 0) -> None:
        self._key = key
        self._count = count

    def __call__(self, n: int) -> bytes:
        """Return the n bytes of the next call."""
        self._count += 1
        return bytes(expand(derive(self._key, b"fedmkt tree draws\n" + self._count.to_bytes(8, "big")), n))


# --- what follows from the contract


def settings_of(contract: Contract) -> Settings:
    """Return how trees are grown where the bank follows the rows.

    Nobody counts rows of cells: h is at most 1/4 of the weight of a row, so a total of h bounds them from below.
    """
    terms = contract.trees
    least = max(terms.min_rows / 4 * max(terms.class_weights), 1e-6)
    return Settings(
        trees=terms.trees, depth=terms.depth, rate=terms.rate, penalty=terms.penalty, min_gain=terms.min_gain,
        min_weight=least, min_rows=0, gradient_bits=terms.gradient_bits, hessian_bits=terms.gradient_bits,
        row_share=terms.row_share, column_share=terms.column_share,
        class_weights=terms.class_weights, patience=terms.patience,
    )  # fmt: skip


def columns_of(contract: Contract) -> tuple[Column, ...]:
    """Return the columns of all parties as the trees see them: the bank's, then each partner's."""
    return tuple(column for party in data_parties(contract) for column in party_columns(contract, party))


def first_columns(contract: Contract) -> dict[Name, int]:
    """Return where each party's columns begin among all."""
    owners = [column.owner for column in columns_of(contract)]
    return {p: owners.index(p) for p in data_parties(contract)}


def most_rows(rows: int, depth: int, nodes: int) -> tuple[int, ...]:
    """Bound the rows of the nodes that are asked for at a depth, the largest first: smaller children hold half."""
    return (rows,) if depth == 0 else tuple(max(1, rows // (2 * k)) for k in range(1, nodes + 1))


def packings_of(terms: Terms, depth: int, nodes: int) -> tuple[Packing, ...]:
    """Return how g and h of these nodes are packed."""
    return tuple(terms.packing(most) for most in most_rows(terms.rows, depth, nodes))


def _draws_per_tree(settings: Settings) -> int:
    return 1 + (settings.row_share < 1) + (settings.column_share < 1)


def _scale(turn: Turn) -> Scale:
    settings = settings_of(turn.contract)
    return scale_of(settings, float(turn.recall(TrainTable).weights.max()))


# --- steps


def load_table(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Read the own train rows into bins, and begin the forest if there is none yet."""
    check_validation(turn)
    rows, columns = real(joint_rows(turn, True)), own_columns(turn)
    if columns.label is None:
        raise ValueError(f"{turn.me} has no label")
    y, validates = columns.label[rows], validation_rows(turn)[: len(rows)]
    events, trains = int(y[~validates].sum()), int((~validates).sum())
    least = max(1, turn.contract.limits.min_events)
    if min(events, trains - events) < least:
        raise DataError(
            f"{turn.me}: of customers who answered, or of those who did not, the training rows have fewer than {least}"
        )
    sizes = turn.published(BinSizes, turn.me)
    values = table_values(own_codes(turn, rows), sizes, common_bins(turn.contract))
    light, heavy = settings_of(turn.contract).class_weights
    weights = np.where(y == 1, heavy, light)
    keep: tuple[State, ...] = ()
    if not turn.has(Forest):
        base = boosting.base_score(y, weights * ~validates)
        opened = np.zeros((len(columns_of(turn.contract)), common_bins(turn.contract)), np.bool_)
        keep = (Forest(turn.random(KEY_BYTES), base, (), (), np.full(len(y), base), opened),)
    return Outcome(Silent(), keep=(TrainTable(values, y, weights, validates), *keep))


def plant(terms: Terms, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Begin a tree: draw rows and columns, round the gradients, ask for the root."""
    table, forest, settings = turn.recall(TrainTable), turn.recall(Forest), settings_of(turn.contract)
    draws = Draws(forest.key, len(forest.trees) * _draws_per_tree(settings))
    drawn = boosting.draw_rows(len(table.y), settings.row_share, draws)
    usable = boosting.draw_columns(len(columns_of(turn.contract)), settings.column_share, draws)
    trains = table.weights * (drawn & ~table.validates)
    rows = boosting.gradients(forest.scores, table.y, trains, _scale(turn), draws)
    root = np.zeros(len(rows), np.int32)
    empty = np.empty((0, len(usable), common_bins(turn.contract) + 1, PER_NODE), np.int64)
    tree = Growing(
        rows, usable, root, root_level(rows[:, :2].sum(axis=0, dtype=np.int64)), _own_cells(turn, root, rows, 1),
        np.zeros(1, np.intp), packings_of(terms, 0, 1), empty, np.empty(0, np.bool_), empty, (), (), (),
        forest.opened, 0,
    )  # fmt: skip
    return Outcome(Silent(), keep=(tree, Vectors(vectors_of(terms, root, rows, tree.packings, tree.order))))


def choose(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[SplitRequest, LevelSplits]:
    """Find the splits of a level from the totals; tell each partner those of its columns."""
    tree = turn.recall(Growing)
    built = _with_partners(turn, tree)
    cells = built if tree.depth == 0 else boosting.with_siblings(built, tree.parents, tree.right_smaller)
    allowed = np.empty((*cells.shape[:2], cells.shape[2] - 1, 2), np.bool_)
    allowed[:] = tree.usable[:, None, None]
    found, opened = _best_within_cap(turn, tree, cells, allowed)
    taken = [split for split in found if split is not None]
    requests = {p: _request(turn, p, taken) for p in turn.others}
    asked = {p: SplitRequest(r) for p, r in requests.items() if len(r)}
    owned = tuple(len(requests[p]) for p in turn.others)
    told = LevelSplits(len(turn.recall(Forest).trees), tree.depth, len(taken), owned)
    reveals = (
        TreeShape(to=EVERYONE, splits=len(taken)),
        *(ChosenSplits(to=p, splits=len(r.splits)) for p, r in asked.items()),
    )
    kept = replace(tree, cells=cells, found=found, opened=opened)
    return Outcome(told, send=asked, keep=(kept,), forget=(BatchTotals,), reveals=reveals)


def grow(terms: Terms, turn: Turn, inbox: Inbox[RowSides]) -> Outcome[Nothing, Silent]:
    """Move the rows to their children and ask for the smaller ones; where there is no more to ask, end the tree."""
    tree, settings = turn.recall(Growing), settings_of(turn.contract)
    trends = [column.trend for column in columns_of(turn.contract)]
    is_split = np.array([split is not None for split in tree.found])
    taken = [split for split in tree.found if split is not None]
    leaves = (*tree.leaves, boosting.some(tree.level, ~is_split))
    level = next_level(tree.level, tree.found, settings, _scale(turn), trends)
    node_of_row = tree.node_of_row
    if taken:
        node_of_row = children(node_of_row, [s.node for s in taken], _sides(turn, taken, inbox, terms.rows))
    grown = replace(
        tree,
        node_of_row=node_of_row,
        level=level,
        splits=(*tree.splits, *taken),
        leaves=leaves,
        depth=tree.depth + 1,
    )
    if not taken or grown.depth == settings.depth:
        return Outcome(Silent(), keep=(_ended(turn, grown),), forget=(Growing,))
    right_smaller = boosting.smaller_right(node_of_row, tree.rows, level.nodes)
    slots = boosting.slots_of_smaller(node_of_row, level.nodes, right_smaller)
    inside = slots >= 0
    sizes = np.bincount(slots[inside], weights=tree.rows[inside, 2], minlength=len(taken))
    order = np.argsort(-sizes, kind="stable")
    packings = packings_of(terms, grown.depth, len(taken))
    kept = replace(
        grown, built=_own_cells(turn, slots, tree.rows, len(taken)), order=order, packings=packings,
        parents=tree.cells[is_split], right_smaller=right_smaller, cells=tree.cells[:0], found=(),
    )  # fmt: skip
    return Outcome(Silent(), keep=(kept, Vectors(vectors_of(terms, slots, tree.rows, packings, order))))


def vectors_of(
    terms: Terms, slots: Nodes, rows: NDArray[np.int32], packings: Sequence[Packing], order: NDArray[np.intp]
) -> Integers:
    """Pack g and h of the rows of each node into a vector, (padded rows, nodes); 0 for all other rows.

    slots : (n,) place of a row's node, below 0 for a row in none; order : the place of each vector's node
    """
    out = np.zeros((terms.rows, len(order)), np.int64)
    for vector, (place, packing) in enumerate(zip(order.tolist(), packings, strict=True)):
        members = np.flatnonzero(slots == place)
        out[members, vector] = pack_fields(packing, [rows[members, 0], rows[members, 1]])
    return out


def cells_of(
    totals: Integers, packings: Sequence[Packing], order: NDArray[np.intp], sizes: BinSizes, bins: int
) -> Counts:
    """Take totals, (bins of all columns, nodes), apart into cells by place: (nodes, columns, bins + 1, 2)."""
    out = np.zeros((len(order), len(sizes.sizes), bins + 1, PER_NODE), np.int64)
    for vector, (place, packing) in enumerate(zip(order.tolist(), packings, strict=True)):
        by_bin = take_apart(packing, totals[:, vector])
        for column, (where, apart) in enumerate(zip(sizes.columns, sizes.apart, strict=True)):
            values = where.stop - where.start - apart
            out[place, column, :values] = by_bin[where.start : where.start + values]
            if apart:
                out[place, column, bins] = by_bin[where.stop - 1]
    return out


def _own_cells(turn: Turn, slots: Nodes, rows: NDArray[np.int32], nodes: int) -> Counts:
    table = Table(
        party_columns(turn.contract, turn.me), turn.recall(TrainTable).values, common_bins(turn.contract)
    )
    return boosting.histograms(table, slots, rows, nodes)[..., :PER_NODE]


def _with_partners(turn: Turn, tree: Growing) -> Counts:
    totals, bins = turn.recall(BatchTotals).values, common_bins(turn.contract)
    parts = [
        cells_of(totals[p], tree.packings, tree.order, turn.published(BinSizes, p), bins) for p in turn.others
    ]
    if turn.contract.align.join == "left":
        whole = tree.built[:, :1].sum(axis=2)
        for part in parts:
            part[:, :, bins] += whole - part.sum(axis=2)
    return np.concatenate([tree.built, *parts], axis=1)


def _best_within_cap(
    turn: Turn, tree: Growing, cells: Counts, allowed: Bools
) -> tuple[tuple[Split | None, ...], Bools]:
    """Find the best splits that open no more edges of a partner's column than agreed; and what is open then."""
    settings, scale, columns = settings_of(turn.contract), _scale(turn), columns_of(turn.contract)
    trends, cap = [column.trend for column in columns], turn.contract.trees.max_thresholds
    is_own = np.array([column.owner == turn.me for column in columns])

    def best(nodes: Bools, opened: Bools) -> tuple[tuple[Split | None, ...], Bools]:
        usable = opened | (is_own | (opened.sum(axis=1) < cap))[:, None]
        level, possible = boosting.some(tree.level, nodes), allowed[nodes] & usable[..., None]
        found = best_splits(cells[nodes][..., :2], level, settings, scale, trends, possible)
        after = opened.copy()
        for split in found:
            if split is not None:
                after[split.column, split.bin] = True
        return found, after

    everywhere = np.ones(len(cells), np.bool_)
    found, opened = best(everywhere, tree.opened)
    if (is_own | (opened.sum(axis=1) <= cap)).all():
        return found, opened
    # Together the nodes would open too many: now one after the other.
    one_by_one: list[Split | None] = []
    opened = tree.opened
    for node in np.eye(len(cells), dtype=np.bool_):
        (split,), opened = best(node, opened)
        one_by_one.append(split)
    return tuple(one_by_one), opened


def _request(turn: Turn, partner: Name, taken: Sequence[Split]) -> NDArray[np.int32]:
    columns, first = columns_of(turn.contract), first_columns(turn.contract)[partner]
    own = [s for s in taken if columns[s.column].owner == partner]
    found = [(s.node, s.column - first, s.bin, s.missing_left) for s in own]
    return np.array(found, dtype=np.int32).reshape(-1, 4)


def _sides(turn: Turn, taken: Sequence[Split], inbox: Inbox[RowSides], padded: int) -> Bools:
    """Return the sides of all splits, (splits, n): the own ones looked up, the others as their owners told."""
    table, columns = turn.recall(TrainTable), columns_of(turn.contract)
    owners = [columns[split.column].owner for split in taken]
    sides = np.empty((len(taken), len(table.y)), np.bool_)
    for i, (split, owner) in enumerate(zip(taken, owners, strict=True)):
        if owner == turn.me:
            bins = common_bins(turn.contract)
            sides[i] = goes_left(table.values[split.column], bins, split.bin, split.missing_left)
    found = inbox.by_sender(RowSides)
    for p in turn.others:
        places = [i for i, owner in enumerate(owners) if owner == p]
        if places:
            sides[places] = told_sides(found, p, len(places), padded)[:, : len(table.y)]
    return sides


def told_sides(found: Mapping[Name, RowSides], partner: Name, splits: int, padded: int) -> Bools:
    """Return the sides that a partner told of some of its splits, (splits, padded); ValueError if it told others."""
    if partner not in found or found[partner].bits.shape != (splits, -(-padded // 8)):
        raise ValueError(f"the sides of {partner} are missing or have another shape than agreed")
    return np.unpackbits(found[partner].bits, axis=1, count=padded).view(np.bool_)


def _ended(turn: Turn, tree: Growing) -> Forest:
    forest, settings, columns = turn.recall(Forest), settings_of(turn.contract), columns_of(turn.contract)
    grown = boosting.Grown(tree.splits, boosting.joined((*tree.leaves, tree.level)), tree.node_of_row)
    values = leaf_values(grown.leaves, settings, _scale(turn))
    own = [(s, columns[s.column]) for s in grown.splits]
    decisions = tuple(Decision(s.node, c.name, s.bin, s.missing_left) for s, c in own if c.owner == turn.me)
    return replace(
        forest,
        trees=(*forest.trees, boosting.tree_of(columns, grown, values)),
        decisions=(*forest.decisions, decisions),
        scores=forest.scores + by_node(grown.leaves.nodes, values)[grown.node_of_row],
        opened=tree.opened,
    )
