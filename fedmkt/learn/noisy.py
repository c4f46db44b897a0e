"""Boosted trees on totals with noise: what is decided on them, and the plain trees that a joint training is held to.

Every cell of a node is seen, with noise of its own: nobody joins cells, and nobody counts rows. Both children of a
node are seen for themselves, which costs no more than one of them (`privacy.noise`) and leaves less noise than a
difference. They must add up to their parent, so what they lack is shared out by least squares (`with_parents`). All
columns add up to the same total of a node, so that is taken as the mean of theirs. Where noise is large beside the
second derivatives of a child, its value would be noise: `min_weight` and `penalty` are what helps.

Letters: g, h, G, H as in `splits`; F columns, B bins and the missing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn import boosting
from fedmkt.learn.boosting import Fitted, Grown, Labelled, Random
from fedmkt.learn.cells import Counts, at_cuts
from fedmkt.learn.splits import (
    Level,
    Settings,
    Split,
    best_splits,
    leaf_values,
    next_level,
    root_level,
    scale_of,
)
from fedmkt.learn.trees import Bools, Model, Outline, Table, Tree, by_node, children

Noise = Callable[[int], Counts]
"""`noise(nodes)` returns what is added to the totals of so many nodes, (nodes, F, B + 1, 2), 0 where no bin is."""


@dataclass(frozen=True)
class Bins:
    """Which cells columns have. values : bins of values of each; apart : or missing ones too; bins : B."""

    values: tuple[int, ...]
    apart: tuple[bool, ...]
    bins: int

    @property
    def places(self) -> Bools:
        """Tell where there is a bin, (F, B + 1)."""
        inside = np.arange(self.bins) < np.array(self.values)[:, None]
        return np.concatenate([inside, np.array(self.apart, np.bool_)[:, None]], axis=1)

    @property
    def cuts(self) -> Bools:
        """Tell between which bins there is something to split, (F, B): as `cells.open_cuts` with all cells open."""
        cuts = np.arange(self.bins) < np.array(self.values)[:, None] - 1
        cuts[:, -1] = self.apart
        return np.asarray(cuts)


def with_parents(cells: Counts, parents: Counts, depth: int) -> Counts:
    """Move children's cells, (2 s, F, B + 1, 2), left and right in turn, towards adding up to their parents', (s, ...).

    depth : of the children; parents come from this function too, but for the root, whose cells are as they were seen.
    """
    # Variances in that of the noise of one total: of the root 1, below it what the estimate of a child has left.
    above = 1.0
    for _ in range(depth - 1):
        above = (above + 1) / (above + 2)
    lacking = parents - cells[0::2] - cells[1::2]
    moved = np.rint(lacking / (above + 2)).astype(np.int64)
    return np.asarray(cells + np.repeat(moved, 2, axis=0))


def with_totals(level: Level, cells: Counts, bins: Bins) -> Level:
    """Give nodes the totals that their cells, (nodes, F, B + 1, 2), say.

    A column of few bins has less noise in its sum, so it counts for more. H is never below 0.
    """
    weights = 1 / bins.places.sum(axis=1)
    sums = (cells.sum(axis=2) * weights[:, None]).sum(axis=1) / weights.sum()
    totals = np.rint(sums).astype(np.int64)
    totals[:, 1] = np.maximum(totals[:, 1], 0)
    return Level(level.nodes, totals, level.bounds)


def fit(train: Labelled, bins: Bins, settings: Settings, noise: Noise, random: Random) -> Fitted:
    """Grow the trees on all rows alike; `random` draws columns, then rounding, for each tree."""
    table, y = train.table, train.y
    scale, ones = scale_of(settings, 1.0), np.ones(table.rows)
    base = boosting.base_score(y, ones)
    scores = np.full(table.rows, base)
    trees: list[Tree] = []
    splits: list[tuple[Split, ...]] = []
    for _ in range(settings.trees):
        usable = boosting.draw_columns(len(table.columns), settings.column_share, random)
        rows = boosting.gradients(scores, y, ones, scale, random)
        grown = grow(table, bins, rows, usable, settings, noise)
        values = leaf_values(grown.leaves, settings, scale)
        trees.append(boosting.tree_of(table.columns, grown, values))
        splits.append(grown.splits)
        scores = scores + by_node(grown.leaves.nodes, values)[grown.node_of_row]
    return Fitted(Model(Outline(base, tuple(trees)), boosting.parts_of(table, splits)), scores, ())


def grow(
    table: Table, bins: Bins, rows: NDArray[np.int32], usable: Bools, settings: Settings, noise: Noise
) -> Grown:
    """Grow one tree; rows : (n, 3) and usable : (F,) as in `boosting.grow`."""
    scale, trends = scale_of(settings, 1.0), [c.trend for c in table.columns]
    allowed = at_cuts(bins.cuts) & usable[:, None, None]
    node_of_row = np.zeros(table.rows, np.int32)
    level = root_level(np.zeros(2, np.int64))
    splits: list[Split] = []
    leaves: list[Level] = []
    parents: Counts | None = None
    for depth in range(settings.depth):
        nodes = level.nodes
        slots = np.full(int(node_of_row.max()) + 1, -1, np.int32)
        slots[nodes[nodes < len(slots)]] = np.flatnonzero(nodes < len(slots))
        cells = boosting.histograms(table, slots[node_of_row], rows, len(nodes))[..., :2] + noise(len(nodes))
        if parents is not None:
            cells = with_parents(cells, parents, depth)
        level = with_totals(level, cells, bins)
        # Totals of h with noise may be below 0.
        with np.errstate(divide="ignore", invalid="ignore"):
            found = best_splits(cells, level, settings, scale, trends, allowed)
        leaves.append(boosting.some(level, np.array([split is None for split in found])))
        parents = cells[np.array([split is not None for split in found])]
        taken = [split for split in found if split is not None]
        level = next_level(level, found, settings, scale, trends)
        if not taken:
            break
        splits += taken
        node_of_row = children(node_of_row, [s.node for s in taken], boosting.sides_of_splits(table, taken))
    leaves.append(level)
    return Grown(tuple(splits), boosting.joined(leaves), node_of_row)
