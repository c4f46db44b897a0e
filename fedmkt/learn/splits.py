"""The decisions of boosted trees, taken on totals: which split, which value, when to stop.

They see totals only, so a protocol calls the same functions with totals that it got in its own way.

  g, h    first and second derivative of a row's loss at its score, as integers at a stated scale
  G, H    their totals over the rows of a node, or of one bin of one column in a node (a cell)
  value   v = -G / (H + penalty), kept within the bounds of the node
  score   -(2 G + (H + penalty) v) v, which is G^2 / (H + penalty) within the bounds
  gain    score(left) + score(right) - score(node): twice that of Chen and Guestrin

Nodes and bins are numbered as in `trees`; arrays of cells have bins + 1 entries, the missing one last. The missing
go to the side with the larger gain, left where both are equal. Of equal gains the first column, then the first bin.

Source: Chen and Guestrin 2016 (arXiv 1603.02754), sections 2.2 and 3.4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedmkt.learn.cells import Counts, left_of
from fedmkt.learn.trees import MAX_DEPTH, Bools, Floats, Nodes

Loss = Literal["log", "squared"]
"""Of a label and its probability: minus the logarithm of what was said of it, or the square of the difference."""


@dataclass(frozen=True)
class Settings:
    """How trees are grown; totals in `min_weight`, `min_gain` and `penalty` are those before quantisation.

    rate : factor on every leaf; min_weight : least H of a child; min_gain : a split must gain more
    min_rows : least rows of a child; min_cell : least rows of a cell that is not empty, see `open_cuts`
    gradient_bits, hessian_bits : |g| <= 2^(bits - 1) and h <= 2^bits as integers
    row_share, column_share : of each drawn anew for every tree
    class_weights : of label 0 and of label 1
    patience : trees without a better loss on the held-out rows until `fit` stops; 0 = never
    loss, loss_digits : which loss that is, and to how many decimals it is rounded: less is no progress
    """

    trees: int = 50
    depth: int = 5
    rate: float = 0.1
    penalty: float = 1.0
    min_gain: float = 0.0
    min_weight: float = 1.0
    min_rows: int = 50
    min_cell: int = 0
    gradient_bits: int = 8
    hessian_bits: int = 8
    row_share: float = 1.0
    column_share: float = 1.0
    class_weights: tuple[float, float] = (1.0, 1.0)
    patience: int = 0
    loss: Loss = "log"
    loss_digits: int = 4

    def __post_init__(self) -> None:
        if self.trees < 1 or not 1 <= self.depth <= MAX_DEPTH:
            raise ValueError(f"trees must be >= 1 and depth between 1 and {MAX_DEPTH}")
        if not (2 <= self.gradient_bits <= 16 and 2 <= self.hessian_bits <= 16):
            raise ValueError("gradients have 2 to 16 bits")
        if not (0 < self.row_share <= 1 and 0 < self.column_share <= 1):
            raise ValueError("shares of rows and columns lie above 0 and up to 1")
        if min(self.min_rows, self.min_cell, self.patience, self.loss_digits) < 0:
            raise ValueError("min_rows, min_cell, patience and loss_digits must be >= 0")
        if self.min_cell > self.min_rows:
            raise ValueError("min_cell must not exceed min_rows: a node is the largest cell")
        # Without a penalty a child of no weight would have no value.
        if not all(0 < x < np.inf for x in (self.rate, self.penalty, *self.class_weights)):
            raise ValueError("rate, penalty and class weights must be positive")
        if not (0 <= self.min_gain < np.inf and 0 <= self.min_weight < np.inf):
            raise ValueError("min_gain and min_weight must be >= 0")


@dataclass(frozen=True)
class Scale:
    """Integer units per 1 of a gradient and of a second derivative."""

    g: float
    h: float


@dataclass(frozen=True, eq=False)
class Level:
    """Nodes that are open at one depth.

    nodes : (k,) int32; totals : (k, 2) int64, G and H; bounds : (k, 2), least and largest value allowed
    """

    nodes: Nodes
    totals: Counts
    bounds: Floats


@dataclass(frozen=True)
class Split:
    """The best split of a node; left, right : G and H of the children; `column` counts in the histograms."""

    node: int
    column: int
    bin: int
    missing_left: bool
    gain: float
    left: tuple[int, int]
    right: tuple[int, int]


def scale_of(settings: Settings, heaviest: float) -> Scale:
    """State the scale of integer gradients where no row weighs more than `heaviest`."""
    return Scale(
        2.0 ** (settings.gradient_bits - 1) / heaviest, 2.0 ** (settings.hessian_bits + 2) / heaviest
    )


def root_level(totals: Counts) -> Level:
    """Start a tree: one node, its totals (2,), no bounds."""
    return Level(np.zeros(1, np.int32), totals.reshape(1, 2), np.array([[-np.inf, np.inf]]))


def best_splits(
    histograms: Counts,
    level: Level,
    settings: Settings,
    scale: Scale,
    trends: Sequence[int],
    allowed: Bools | None = None,
) -> tuple[Split | None, ...]:
    """Choose the best split of each node; None where none gains more than `min_gain`: a leaf.

    histograms : (nodes, columns, bins + 1, 2), G and H; or sums of cells as `joined_cells` gives them
    trends : one per column; allowed : (nodes, columns, bins, 2) as `enough_rows` gives it, None = everything
    """
    if histograms.shape[0] != len(level.nodes) or histograms.shape[1] != len(trends):
        raise ValueError(
            f"histograms are {histograms.shape} for {len(level.nodes)} nodes, {len(trends)} columns"
        )
    # (nodes, columns, bins, missing left or right)
    left_g, left_h = left_of(histograms[..., 0]), left_of(histograms[..., 1])
    total_g, total_h = (level.totals[:, i, None, None, None] for i in (0, 1))
    left = _worth(left_g, left_h, level.bounds, settings, scale)
    right = _worth(total_g - left_g, total_h - left_h, level.bounds, settings, scale)
    node = _worth(total_g, total_h, level.bounds, settings, scale)
    gain = left.score + right.score - node.score
    lightest = settings.min_weight * scale.h
    possible = (left_h >= lightest) & (total_h - left_h >= lightest)
    if any(trends):
        trend = np.asarray(trends, dtype=np.int64)[:, None, None]
        possible &= (right.value - left.value) * trend >= 0
    if allowed is not None:
        possible &= allowed
    gain = np.where(possible, gain, -np.inf).reshape(len(gain), -1)
    places, shape = gain.argmax(axis=1), left_g.shape[1:]
    return tuple(
        _split(
            int(level.nodes[k]), place, float(gain[k, place]), left_g[k], left_h[k], level.totals[k], shape
        )
        if gain[k, place] > settings.min_gain
        else None
        for k, place in enumerate(places.tolist())
    )


def next_level(
    level: Level, splits: Sequence[Split | None], settings: Settings, scale: Scale, trends: Sequence[int]
) -> Level:
    """Open the children of the nodes that were split, left and right in turn, with their totals and bounds.

    At a split by a column with a trend, the values half-way between the children's part their descendants.
    """
    nodes: list[int] = []
    totals: list[tuple[int, int]] = []
    bounds: list[tuple[float, float]] = []
    for k, split in enumerate(splits):
        if split is None:
            continue
        low, high = float(level.bounds[k, 0]), float(level.bounds[k, 1])
        sides = np.array([split.left, split.right], dtype=np.int64)
        left, right = _values(sides[:, 0], sides[:, 1], low, high, settings, scale).tolist()
        middle = (left + right) / 2
        nodes += [2 * split.node + 1, 2 * split.node + 2]
        totals += [split.left, split.right]
        match trends[split.column]:
            case 1:
                bounds += [(low, middle), (middle, high)]
            case -1:
                bounds += [(middle, high), (low, middle)]
            case _:
                bounds += [(low, high), (low, high)]
    return Level(
        np.array(nodes, dtype=np.int32),
        np.array(totals, dtype=np.int64).reshape(-1, 2),
        np.array(bounds, dtype=np.float64).reshape(-1, 2),
    )


def leaf_values(leaves: Level, settings: Settings, scale: Scale) -> Floats:
    """Return what each leaf adds to the score (log odds), the rate included: (leaves,)."""
    G, H = leaves.totals[:, 0], leaves.totals[:, 1]
    values = _values(G, H, leaves.bounds[:, 0], leaves.bounds[:, 1], settings, scale)
    return np.asarray(settings.rate * values, dtype=np.float64)


def stop_at(losses: Sequence[float], patience: int) -> int | None:
    """Return how many trees to keep once the last `patience` losses brought nothing better; else None."""
    if not patience or not losses:
        return None
    best = int(np.argmin(losses))
    return best + 1 if len(losses) - 1 - best >= patience else None


def trees_kept(losses: Sequence[float], patience: int, *, ends: bool) -> int | None:
    """Return how many trees to keep where training stops, or where it `ends` anyway: those up to the best."""
    return stop_at(losses, patience) or (int(np.argmin(losses)) + 1 if ends else None)


@dataclass(frozen=True, eq=False)
class _Worth:
    value: Floats
    score: Floats


def _values(
    G: Counts, H: Counts, low: Floats | float, high: Floats | float, settings: Settings, scale: Scale
) -> Floats:
    return np.clip(-(G / scale.g) / (H / scale.h + settings.penalty), low, high)


def _worth(G: Counts, H: Counts, bounds: Floats, settings: Settings, scale: Scale) -> _Worth:
    low, high = (bounds[:, i, None, None, None] for i in (0, 1))
    value = _values(G, H, low, high, settings, scale)
    return _Worth(value, -(2 * (G / scale.g) + (H / scale.h + settings.penalty) * value) * value)


def _split(
    node: int, place: int, gain: float, left_g: Counts, left_h: Counts, totals: Counts, shape: tuple[int, ...]
) -> Split:
    column, bin, side = (int(i) for i in np.unravel_index(place, shape))
    left = int(left_g[column, bin, side]), int(left_h[column, bin, side])
    right = int(totals[0]) - left[0], int(totals[1]) - left[1]
    return Split(node, column, bin, side == 0, gain, left, right)
