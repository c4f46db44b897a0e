"""Layout of bins: how many bins a partner's columns have, where they stand, and in which ways a column may be shown.

All of it follows from the public `BinSizes`, the same at every party and the dealer.
"""

from dataclasses import dataclass

import numpy as np

from fedmkt.learn.bins import Bins, NumberBins
from fedmkt.learn.merging import Map
from fedmkt.protocol.core import HalfWords, PublicValue
from fedmkt.protocol.layout import BLOCK_BYTES
from fedmkt.protocol.prepare import MAX_COLUMNS
from fedmkt.protocol.scorecard.minimum import group_width
from fedmkt.ring.fixed import RingArray
from fedmkt.ring.side_bits import Bits

MAX_BINS = 256
"""Bins of one column."""
MAX_MAPS = 4
"""Ways to show one column: in all of its bins, and in ever fewer."""
MAX_WIDTH = 1 << 14
"""Bins of all columns of one partner."""
MAX_BLOCK = 1 << 20
"""Rows of one block: the sum by bin is exact up to here."""


@dataclass(frozen=True)
class BinSizes(PublicValue):
    """How many bins each column of a partner has; `apart` : the last one is that of missing values."""

    sizes: tuple[int, ...]
    apart: tuple[bool, ...]

    @property
    def width(self) -> int:
        """Number of all bins."""
        return sum(self.sizes)

    @property
    def columns(self) -> list[slice]:
        """Where each column's bins stand among all bins."""
        ends = np.cumsum(self.sizes).tolist()
        return [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]

    @property
    def compared(self) -> tuple[int, int]:
        """Groups and width of the comparison: a group for each map, with both tests of its bins, half of it each."""
        return sum(map(len, self.maps)), 2 * group_width(max(self.sizes))

    @property
    def maps(self) -> list[tuple[Map, ...]]:
        """The maps of each column."""
        return [maps_of(size, apart) for size, apart in zip(self.sizes, self.apart, strict=True)]

    def blocks(self, rows: int) -> list[slice]:
        """Row blocks in which masked bins travel."""
        step = max(1, min(BLOCK_BYTES // (4 * self.width), MAX_BLOCK))
        return [slice(at, min(rows, at + step)) for at in range(0, rows, step)]


def maps_of(size: int, apart: bool) -> tuple[Map, ...]:
    """List how a column may be shown, each map coarser than the one before: a function of public values.

    As it is; with the missing values in the middle, if they are apart; then neighbours joined by twos, down to two.
    """
    place = list(range(size))
    maps = [tuple(place)]
    if apart and size > 2:
        place[-1] = (size - 1) // 2
        maps.append(tuple(place))
    while len(maps) < MAX_MAPS and max(place) > 1:
        place = [b // 2 for b in place]
        maps.append(tuple(place))
    return tuple(maps)


def is_apart(bins: Bins) -> bool:
    """Tell whether the last bin is that of the missing values."""
    return isinstance(bins, NumberBins) and bins.missing == bins.count - 1 == len(bins.edges) + 1


def is_accepted(found: BinSizes) -> bool:
    """Tell whether published sizes are within the limits."""
    return (
        0 < len(found.sizes) == len(found.apart) <= MAX_COLUMNS
        and all(0 < size <= MAX_BINS for size in found.sizes)
        and found.width <= MAX_WIDTH
    )


def cells_of(sizes: BinSizes, events: HalfWords, others: HalfWords, least: int) -> HalfWords:
    """Put both tests of each map's bins in one group, less `least`; 0 passes, so what pads a group never fails it."""
    groups, width = sizes.compared
    out = np.zeros((2, groups, width // 2), np.uint32)
    group = 0
    for where, maps in zip(sizes.columns, sizes.maps, strict=True):
        for mapping in maps:
            n = max(mapping) + 1
            for half, values in zip(out, (events, others), strict=True):
                half[group, :n] = joined(values[where], mapping) - np.uint32(least)
            group += 1
    return np.concatenate(list(out), axis=1)


def joined(values: RingArray, mapping: Map) -> RingArray:
    """Add up fine bins: as many entries as the mapping has bins."""
    out = np.zeros(max(mapping) + 1, values.dtype)
    np.add.at(out, np.array(mapping), values)
    return out


def chosen_maps(sizes: BinSizes, passes: Bits) -> list[Map | None]:
    """Return the finest map of each column that passes, if any does."""
    chosen: list[Map | None] = []
    at = 0
    for maps in sizes.maps:
        found = passes[at : at + len(maps)].tolist()
        # Joining bins only adds to them.
        if found != sorted(found):
            raise ValueError("a column passes, and does not where its bins are joined")
        chosen.append(maps[found.index(True)] if any(found) else None)
        at += len(maps)
    return chosen
