"""Cells of boosted trees, and which of them may be looked at: no total of fewer rows than agreed.

A cell is one bin of one column in one node. Arrays of cells have bins + 1 entries, that of the missing last.
A candidate is a last bin that goes left, and the side of the missing: (bins, 2), missing left before right.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn.trees import Bools

Counts = NDArray[np.int64]
Sums = TypeVar("Sums", NDArray[np.int64], NDArray[np.uint64])
"""Totals, or shares of them modulo 2^64."""


def enough_rows(counts: Counts, minimum: int) -> Bools:
    """Tell which candidates leave `minimum` rows, and one at least, on both sides.

    counts : (nodes, columns, bins + 1); returns (nodes, columns, bins, 2), the last axis missing left, right
    """
    left = left_of(counts)
    least = max(minimum, 1)
    return np.asarray((left >= least) & (counts.sum(axis=-1)[..., None, None] - left >= least))


def open_cuts(counts: Counts, parents: Bools, minimum: int) -> Bools:
    """Join cells until every one that can be computed is empty or has `minimum` rows.

    counts : (k s, columns, bins + 1), the k children of s nodes in turn (or the root alone); parents : (s, columns,
    bins), the cuts of those nodes, all true above the root. Returns (k s, columns, bins): cut t parts bin t from
    bin t + 1, the last one the values from the missing. Cells that no cut parts are one cell.

    Cells are halved from the whole column downward as long as both halves pass in all k children, so all tests
    of a level can be made at once. Siblings have the same cuts, and none that their parent lacks: then what
    follows from open cells by adding and subtracting is a sum of cells at the ends of the tree. (A test of each
    cell and of its complement in open ancestors is not enough: below a cell that failed, two grandchildren that
    passed would give its sibling away.)
    """
    groups = counts.reshape(len(parents), -1, *counts.shape[1:])
    bins = parents.shape[-1]
    cuts = np.zeros_like(parents)
    values = groups[..., :-1].sum(axis=-1)
    cuts[..., -1] = parents[..., -1] & _passes(groups[..., -1], minimum) & _passes(values, minimum)
    width = 1 << (bins - 1).bit_length()
    cells = np.zeros((*groups.shape[:-1], width), dtype=np.int64)
    cells[..., :bins] = groups[..., :-1]
    cells[..., bins - 1] += np.where(cuts[:, None, :, -1], 0, groups[..., -1])
    reached = np.ones((*cuts.shape[:-1], 1), dtype=np.bool_)
    while width > 1:
        half = width // 2
        middles = np.arange(half - 1, cells.shape[-1], width)
        passed = _passes(cells.reshape(*cells.shape[:-1], -1, half).sum(axis=-1), minimum)
        divided = reached & passed[..., 0::2] & passed[..., 1::2]
        inside = middles < bins - 1
        divided[..., inside] &= parents[..., middles[inside]]
        cuts[..., middles[inside]] = divided[..., inside]
        reached, width = np.repeat(divided, 2, axis=-1), half
    return np.repeat(cuts, groups.shape[1], axis=0)


def joined_cells(cells: Sums, cuts: Bools) -> Sums:
    """Add the cells up that no cut parts; the sum stands in the last of them, 0 in the others.

    cells : (nodes, columns, bins + 1) or with a further axis; cuts : (nodes, columns, bins)
    """
    out = cells.copy()
    for t in range(cuts.shape[-1]):
        parted = cuts[:, :, t].reshape(*cuts.shape[:2], *[1] * (cells.ndim - 3))
        carried = np.where(parted, 0, out[:, :, t])
        out[:, :, t] -= carried
        out[:, :, t + 1] += carried
    return out


def at_cuts(cuts: Bools) -> Bools:
    """Tell the candidates that need no more than the cells parted by `cuts`: as `enough_rows` does."""
    return np.stack([cuts & cuts[..., -1:], cuts], axis=-1)


def left_of(cells: Counts) -> Counts:
    """Totals left of each candidate: (..., bins + 1) to (..., bins, 2), with and without the missing."""
    present = cells[..., :-1].cumsum(axis=-1)
    return np.stack([present + cells[..., -1:], present], axis=-1)


def _passes(counts: Counts, minimum: int) -> Bools:
    """Tell where all members of a group (axis 1) have no row or `minimum` rows."""
    return np.asarray(((counts == 0) | (counts >= minimum)).all(axis=1))
