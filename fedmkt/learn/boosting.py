"""Boosted trees on binned columns, in plain: what a joint training on the same columns is held to.

Gradient boosting of the logistic loss, grown level by level on integer gradients. Rows are added up here; all
that is decided on their totals stands in `splits` and `cells`, which a protocol shares.

Rounding at random as in Shi et al. 2022 (arXiv 2207.09682).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import compiled, readable
from fedmkt.learn.cells import Counts, at_cuts, enough_rows, open_cuts
from fedmkt.learn.glm import sigmoid
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
    trees_kept,
)
from fedmkt.learn.trees import (
    MAX_DEPTH,
    Bools,
    Column,
    Decision,
    Floats,
    Model,
    Nodes,
    Outline,
    Part,
    Table,
    Tree,
    by_depth,
    by_node,
    children,
    goes_left,
)

Random = Callable[[int], bytes]
"""`random(n)` returns n fresh bytes: as in `fedmkt.crypto.prg`, which this layer may not import."""

_BLOCK: Final = 2048  # rows; their gradients stay in the cache while the columns pass


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows with their labels; y : (n,) of 0 and 1; weights : (n,) >= 0 beside those of the classes, or None."""

    table: Table
    y: Floats
    weights: Floats | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model; its scores of the train rows (n,), log odds; the held-out losses, one per tree that was grown."""

    model: Model
    scores: Floats
    losses: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Grown:
    """One tree by its splits, parents first, with its leaves; node_of_row : (n,) the leaf of each row."""

    splits: tuple[Split, ...]
    leaves: Level
    node_of_row: Nodes


@dataclass(frozen=True, eq=False)
class Divided:
    """Rows to train on, of which some weigh nothing; and these, which say when to stop, or None."""

    train: Labelled
    held: Labelled | None


def divided(rows: Labelled, validates: Bools | None) -> Divided:
    """Divide rows by `validates`, (n,): a row that does not train still draws its random numbers."""
    if validates is None:
        return Divided(rows, None)
    table, weights = rows.table, np.ones(len(rows.y)) if rows.weights is None else rows.weights
    held = Labelled(Table(table.columns, table.values[:, validates], table.bins), rows.y[validates])
    return Divided(Labelled(table, rows.y, weights * ~validates), held)


def gradients(scores: Floats, y: Floats, weights: Floats, scale: Scale, random: Random) -> NDArray[np.int32]:
    """Round g and h of each row up or down at random, so that their mean is right: (n, 3) int32, g, h and 1.

    scores, y, weights : (n,); a row of weight 0 counts for nothing, its three numbers are 0
    """
    draws = np.frombuffer(random(4 * len(scores)), dtype="<u2").reshape(-1, 2)
    out = np.empty((len(scores), 3), dtype=np.int32)
    _gradients(readable(scores), readable(y), readable(weights), scale.g, scale.h, readable(draws), out)
    return out


def histograms(table: Table, slots: Nodes, rows: NDArray[np.int32], nodes: int) -> Counts:
    """Add up `rows` (n, 3) by node, column and bin: (nodes, columns, bins + 1, 3) int64.

    slots : (n,) place of the row's node in the result, below 0 for a row that is left out
    """
    if slots.shape != (table.rows,) or rows.shape != (table.rows, 3):
        raise ValueError(f"{table.rows} rows, but slots are {slots.shape} and gradients {rows.shape}")
    if slots.size and int(slots.max()) >= nodes:
        raise ValueError(f"a slot beyond the {nodes} nodes")
    out = np.zeros((nodes, len(table.columns), table.bins + 1, 3), dtype=np.int64)
    _histograms(readable(table.values), readable(slots), readable(rows), out)
    return out


def draw_rows(rows: int, share: float, random: Random) -> Bools:
    """Draw each row with probability `share`, to 2^-32; a share of 1 draws nothing."""
    if share == 1:
        return np.ones(rows, dtype=np.bool_)
    return np.asarray(np.frombuffer(random(4 * rows), dtype="<u4") < share * 2.0**32)


def draw_columns(columns: int, share: float, random: Random) -> Bools:
    """Draw `share` of the columns, rounded up; a share of 1 draws nothing."""
    drawn = np.ones(columns, dtype=np.bool_)
    if share < 1:
        order = np.argsort(np.frombuffer(random(8 * columns), dtype="<u8"), kind="stable")
        drawn[order[int(np.ceil(share * columns)) :]] = False
    return drawn


def fit(train: Labelled, settings: Settings, random: Random, held: Labelled | None = None) -> Fitted:
    """Grow the trees; with `held` rows and patience, stop by their loss and keep the trees up to the best.

    Each tree draws from `random` in this order: rows, columns, rounding. The loss on `held` is the only thing
    that decides when to stop; its rows weigh what their class does.
    """
    table, y, weights = train.table, train.y, _checked(train, settings)
    _check_held(table, held, settings)
    scale, trends = scale_of(settings, float(weights.max())), [c.trend for c in table.columns]
    base = base_score(y, weights)
    scores, losses = np.full(table.rows, base), list[float]()
    kept = [scores] if settings.patience else []
    held_scores = np.full(held.table.rows, base) if held else np.empty(0)
    grown: list[tuple[Split, ...]] = []
    trees: list[Tree] = []
    for _ in range(settings.trees):
        drawn = draw_rows(table.rows, settings.row_share, random)
        usable = draw_columns(len(table.columns), settings.column_share, random)
        tree = grow(
            table, gradients(scores, y, weights * drawn, scale, random), usable, settings, scale, trends
        )
        values = leaf_values(tree.leaves, settings, scale)
        grown.append(tree.splits)
        trees.append(tree_of(table.columns, tree, values))
        scores = scores + by_node(tree.leaves.nodes, values)[tree.node_of_row]
        if held:
            held_scores += by_node(tree.leaves.nodes, values)[_route(held.table, tree.splits)]
            losses.append(held_loss(held.y, held_scores, settings))
        if kept:
            kept = [*kept, scores][-settings.patience - 1 :]
            best = trees_kept(losses, settings.patience, ends=len(trees) == settings.trees)
            if best is not None:
                scores = kept[best - len(trees) - 1]
                grown, trees = grown[:best], trees[:best]
                break
    model = Model(Outline(base, tuple(trees)), parts_of(table, grown))
    return Fitted(model, scores, tuple(losses))


def grow(
    table: Table,
    rows: NDArray[np.int32],
    usable: Bools,
    settings: Settings,
    scale: Scale,
    trends: Sequence[int],
) -> Grown:
    """Grow one tree on integer gradients; of two children only the smaller is added up row by row.

    rows : (n, 3) as `gradients` gives it; usable : (columns,), those drawn for this tree
    """
    node_of_row = np.zeros(table.rows, dtype=np.int32)
    cells = histograms(table, node_of_row, rows, 1)
    level = root_level(rows[:, :2].sum(axis=0, dtype=np.int64))
    cuts = open_cuts(cells[..., 2], np.ones((1, len(table.columns), table.bins), np.bool_), settings.min_cell)
    splits: list[Split] = []
    leaves: list[Level] = []
    for depth in range(settings.depth):
        allowed = enough_rows(cells[..., 2], settings.min_rows) & at_cuts(cuts) & usable[:, None, None]
        found = best_splits(cells[..., :2], level, settings, scale, trends, allowed)
        is_split = np.array([split is not None for split in found])
        leaves.append(some(level, ~is_split))
        taken = [split for split in found if split is not None]
        level = next_level(level, found, settings, scale, trends)
        if not taken:
            break
        splits += taken
        node_of_row = children(node_of_row, [s.node for s in taken], sides_of_splits(table, taken))
        if depth + 1 < settings.depth:
            cells = _child_histograms(table, node_of_row, rows, level.nodes, cells[is_split])
            cuts = open_cuts(cells[..., 2], cuts[is_split], settings.min_cell)
    leaves.append(level)
    return Grown(tuple(splits), joined(leaves), node_of_row)


def some(level: Level, chosen: Bools) -> Level:
    """Keep some nodes of a level."""
    return Level(level.nodes[chosen], level.totals[chosen], level.bounds[chosen])


def joined(levels: Sequence[Level]) -> Level:
    """Put levels of one tree behind each other."""
    return Level(
        np.concatenate([level.nodes for level in levels]),
        np.concatenate([level.totals for level in levels]),
        np.concatenate([level.bounds for level in levels]),
    )


def _child_histograms(
    table: Table, node_of_row: Nodes, rows: NDArray[np.int32], nodes: Nodes, parents: Counts
) -> Counts:
    """Histograms of `nodes`, left and right children in turn of those that `parents` belong to."""
    right_smaller = smaller_right(node_of_row, rows, nodes)
    slots = slots_of_smaller(node_of_row, nodes, right_smaller)
    return with_siblings(histograms(table, slots, rows, len(parents)), parents, right_smaller)


def smaller_right(node_of_row: Nodes, rows: NDArray[np.int32], nodes: Nodes) -> Bools:
    """Tell of which pairs among `nodes`, left and right children in turn, the right one has fewer rows."""
    sizes = np.bincount(node_of_row, weights=rows[:, 2], minlength=int(nodes.max()) + 1)
    return np.asarray(sizes[nodes[1::2]] < sizes[nodes[0::2]])


def slots_of_smaller(node_of_row: Nodes, nodes: Nodes, right_smaller: Bools) -> Nodes:
    """Return for each row which pair's smaller child it is in, (n,); -1 for a row in none."""
    smaller = np.where(right_smaller, nodes[1::2], nodes[0::2])
    slots = np.full(2 ** (MAX_DEPTH + 1), -1, dtype=np.int32)
    slots[smaller] = np.arange(len(smaller), dtype=np.int32)
    return slots[node_of_row]


def with_siblings(built: Counts, parents: Counts, right_smaller: Bools) -> Counts:
    """Put the cells of the smaller children beside those of their siblings: what they lack to their parents."""
    cells = np.empty((2 * len(built), *built.shape[1:]), dtype=np.int64)
    at = 2 * np.arange(len(built)) + right_smaller
    cells[at], cells[at ^ 1] = built, parents - built
    return cells


def sides_of_splits(table: Table, splits: Sequence[Split]) -> Bools:
    """Tell for each split which rows go left, (splits, n)."""
    return np.stack([goes_left(table.values[s.column], table.bins, s.bin, s.missing_left) for s in splits])


def _route(table: Table, splits: Sequence[Split]) -> Nodes:
    node_of_row, split_of = np.zeros(table.rows, dtype=np.int32), {s.node: s for s in splits}
    for nodes in by_depth(split_of):
        node_of_row = children(node_of_row, nodes, sides_of_splits(table, [split_of[node] for node in nodes]))
    return node_of_row


def _checked(train: Labelled, settings: Settings) -> Floats:
    y = train.y
    if y.shape != (train.table.rows,) or not np.isin(y, (0, 1)).all():
        raise ValueError(f"y is {y.shape}; {train.table.rows} labels of 0 and 1 are needed")
    weights = np.where(y == 1, settings.class_weights[1], settings.class_weights[0])
    if train.weights is not None:
        if train.weights.shape != y.shape or not (train.weights >= 0).all():
            raise ValueError("weights must be one number >= 0 per row")
        weights = weights * train.weights
    if not np.isfinite(weights).all() or not 0 < (weights * y).sum() < weights.sum():
        raise ValueError("both labels must occur with a finite weight above 0")
    if not train.table.columns:
        raise ValueError("a table without columns")
    return weights


def _check_held(table: Table, held: Labelled | None, settings: Settings) -> None:
    if held is None:
        if settings.patience:
            raise ValueError("patience needs held-out rows")
    elif (held.table.columns, held.table.bins) != (table.columns, table.bins):
        raise ValueError("the held-out rows have other columns or bins")
    elif not held.table.rows or held.y.shape != (held.table.rows,) or not np.isin(held.y, (0, 1)).all():
        raise ValueError("the held-out rows need one label of 0 or 1 each")


def base_score(y: Floats, weights: Floats) -> float:
    """Return the log odds of all rows together, from which the trees start."""
    rate = float((weights * y).sum() / weights.sum())
    return float(np.log(rate / (1 - rate)))


def held_loss(y: Floats, scores: Floats, settings: Settings) -> float:
    """Return the mean loss of rows by their scores (n,), log odds, rounded; classes weigh as in training."""
    rows = np.logaddexp(0, scores) - y * scores if settings.loss == "log" else (sigmoid(scores) - y) ** 2
    light, heavy = settings.class_weights
    return round(float(np.average(rows, weights=np.where(y == 1, heavy, light))), settings.loss_digits)


def tree_of(columns: Sequence[Column], grown: Grown, values: Floats) -> Tree:
    """Return a grown tree without its thresholds; values : (leaves,)."""
    owners = sorted((s.node, columns[s.column].owner) for s in grown.splits)
    return Tree(tuple(owners), tuple(sorted(zip(grown.leaves.nodes.tolist(), values.tolist(), strict=True))))


def parts_of(table: Table, grown: Sequence[tuple[Split, ...]]) -> tuple[Part, ...]:
    """Return what each owner of columns holds of the trees."""

    def decisions(owner: str, splits: Sequence[Split]) -> tuple[Decision, ...]:
        owned = [(s, table.columns[s.column]) for s in splits]
        return tuple(Decision(s.node, c.name, s.bin, s.missing_left) for s, c in owned if c.owner == owner)

    owners = dict.fromkeys(column.owner for column in table.columns)
    return tuple(Part(o, table.bins, tuple(decisions(o, splits) for splits in grown)) for o in owners)


@compiled
def _histograms(
    values: NDArray[np.uint8], slots: Nodes, rows: NDArray[np.int32], out: NDArray[np.int64]
) -> None:
    for start in range(0, len(slots), _BLOCK):
        end = min(start + _BLOCK, len(slots))
        for column in range(len(values)):
            for i in range(start, end):
                slot = slots[i]
                if slot >= 0:
                    cell = out[slot, column, values[column, i]]
                    cell[0] += rows[i, 0]
                    cell[1] += rows[i, 1]
                    cell[2] += rows[i, 2]


@compiled
def _gradients(
    scores: Floats,
    y: Floats,
    weights: Floats,
    scale_g: float,
    scale_h: float,
    draws: NDArray[np.uint16],
    out: NDArray[np.int32],
) -> None:
    for i in range(len(scores)):
        p = 1 / (1 + np.exp(-scores[i]))
        out[i, 0] = np.floor(weights[i] * (p - y[i]) * scale_g + draws[i, 0] / 65536)
        out[i, 1] = np.floor(weights[i] * p * (1 - p) * scale_h + draws[i, 1] / 65536)
        out[i, 2] = 1 if weights[i] > 0 else 0
