"""Cell tests: which sums of counts decide how far the bins of nodes are joined, and the cuts that follow.

`learn.cells.open_cuts` taken apart: `group_sums` is linear, so each party applies it to its shares of the counts;
`needed` says from public values which groups are worth a comparison; `cuts_of` reads the cuts off one bit for each
group: whether all of its sums are 0 or large enough. What is left out passes for certain.

The groups of one column, D of them, with W the least power of two that holds its bins: 0 is the missing and the
values; 1 to W - 1 halve the values, from the whole column downward; W to 2 W - 2 halve them again with the missing
added to the last bin, where they end if group 0 fails. Each group has both halves of all children of a node.
Arrays: s nodes whose k children are tested (at the root one node and itself, k = 1), F columns, B bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn.trees import Bools


@dataclass(frozen=True, eq=False)
class Grid:
    """Columns of both parties as one table; values : how many bins of values each has; apart : or missing too."""

    values: tuple[int, ...]
    apart: tuple[bool, ...]
    bins: int

    @property
    def places(self) -> NDArray[np.int64]:
        """Where each bin of each column, in their order, stands among F (B + 1) cells."""
        found = []
        for column, (size, apart) in enumerate(zip(self.values, self.apart, strict=True)):
            start = column * (self.bins + 1)
            found += [*range(start, start + size), *([start + self.bins] if apart else [])]
        return np.array(found, np.int64)

    def cells(self, totals: NDArray[np.generic]) -> NDArray[np.generic]:
        """Lay totals, (..., bins of all columns), out as cells, (..., F, B + 1); 0 where a column has no bin."""
        out = np.zeros((*totals.shape[:-1], len(self.values) * (self.bins + 1)), totals.dtype)
        out[..., self.places] = totals
        return out.reshape(*totals.shape[:-1], len(self.values), self.bins + 1)

    @property
    def width(self) -> int:
        """W, as many places as halving needs."""
        return 1 << (self.bins - 1).bit_length()

    @property
    def groups(self) -> int:
        """D, the groups of one column."""
        return 2 * self.width - 1


@dataclass(frozen=True)
class _Halving:
    """One block of bins that is halved: first, middle (the last bin of its left half) and last."""

    first: int
    middle: int
    last: int


def _halvings(width: int) -> list[_Halving]:
    found = []
    while width > 1:
        found.append(width)
        width //= 2
    whole = found[0] if found else 1
    return [_Halving(a, a + w // 2 - 1, a + w - 1) for w in found for a in range(0, whole, w)]


def group_sums(cells: NDArray[np.uint32], grid: Grid) -> NDArray[np.uint32]:
    """Add up counts, or shares of them: (s, k, F, B + 1) to (s, F, D, 2 k)."""
    s, k, columns = cells.shape[:3]
    values, missing = cells[..., :-1], cells[..., -1]
    out = np.empty((s, k, columns, grid.groups, 2), np.uint32)
    out[..., 0, 0], out[..., 0, 1] = missing, values.sum(axis=-1, dtype=np.uint32)
    for variant in (0, 1):
        at = 1 + variant * (grid.width - 1)
        blocks = np.zeros((s, k, columns, grid.width), np.uint32)
        blocks[..., : grid.bins] = values
        if variant:
            blocks[..., grid.bins - 1] += missing
        halves = []
        while blocks.shape[-1] > 1:
            halves.append(blocks.reshape(*blocks.shape[:-1], -1, 2))
            blocks = halves[-1].sum(axis=-1, dtype=np.uint32)
        for pairs in reversed(halves):
            out[..., at : at + pairs.shape[-2], :] = pairs
            at += pairs.shape[-2]
    return np.ascontiguousarray(out.transpose(0, 2, 3, 1, 4)).reshape(s, columns, grid.groups, 2 * k)


def needed(parents: Bools, grid: Grid) -> Bools:
    """Tell which groups are compared: (s, F, D), from the cuts of the nodes above, (s, F, B).

    A group is left out where the node above has no such cut, or where it has no rows for certain.
    """
    out = np.zeros((*parents.shape[:2], grid.groups), np.bool_)
    values, apart = np.array(grid.values), np.array(grid.apart, np.bool_)
    out[..., 0] = parents[..., -1] & apart
    halvings = _halvings(grid.width)
    for i, halving in enumerate(halvings, start=1):
        inside = parents[..., halving.middle] if halving.middle < grid.bins - 1 else True
        out[..., i] = inside & (halving.first < values)
        ends = halving.first <= grid.bins - 1 <= halving.last
        out[..., len(halvings) + i] = inside & apart & ends
    return out


def cuts_of(passed: Bools, parents: Bools, grid: Grid) -> Bools:
    """Return the cuts of the children, (s, F, B), as `open_cuts` does; passed : (s, F, D), true where left out."""
    cuts = np.zeros_like(parents)
    cuts[..., -1] = parents[..., -1] & passed[..., 0]
    halvings = _halvings(grid.width)
    apart = np.array(grid.apart, np.bool_)
    joined = apart & ~cuts[..., -1]
    reached = {(0, grid.width - 1): np.ones(cuts.shape[:-1], np.bool_)}
    for i, halving in enumerate(halvings, start=1):
        ends = halving.first <= grid.bins - 1 <= halving.last
        bit = np.where(joined, passed[..., len(halvings) + i], passed[..., i]) if ends else passed[..., i]
        divided = reached[halving.first, halving.last] & bit
        if halving.middle < grid.bins - 1:
            divided = divided & parents[..., halving.middle]
            cuts[..., halving.middle] = divided
        reached[halving.first, halving.middle] = divided
        reached[halving.middle + 1, halving.last] = divided
    return cuts


def passes(sums: NDArray[np.int64], minimum: int) -> Bools:
    """Tell of each group, (..., 2 k), whether all sums are 0 or at least `minimum`: what is compared on shares."""
    return np.asarray(((sums == 0) | (sums >= minimum)).all(axis=-1))


def grid_of(sizes: Sequence[tuple[int, bool]], bins: int) -> Grid:
    """Make the table of columns with so many bins each, of which the last one may be that of the missing."""
    values = tuple(size - apart for size, apart in sizes)
    if not values or min(values) < 1 or max(values) > bins:
        raise ValueError(f"columns have 1 to {bins} bins of values each")
    return Grid(values, tuple(apart for _, apart in sizes), bins)
