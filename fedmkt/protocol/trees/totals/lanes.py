"""Lanes: how the numbers of a row stand in the words of a shared histogram, and what room their noise leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedmkt.protocol.core import Name, Words
from fedmkt.protocol.layout import BLOCK_BYTES
from fedmkt.protocol.row_blocks import RowBlock
from fedmkt.protocol.trees.side_product import kind_of
from fedmkt.ring.budget import Budget, budget, shortest_words
from fedmkt.ring.rlwe import DEGREE, MODULUS_BITS, Integers
from fedmkt.ring.side_bits import Numbers


@dataclass(frozen=True)
class Lanes:
    """What all participants know of the shared histograms of one training, from the contract and public values.

    rows : padded; counts : bins of each column, by party, the bank first
    limits : by lane the limits of its fields from below, |m| <= limit for each row
    vectors : most vectors of a lane in the whole training, over all epochs
    checker : the partner, where it checks the bank's shares (`checked_sums`). spare : room for what is
    added to a total of each field before it is opened; none where it is left out. block : the rows that a step is
    about, where it is not all of them.
    """

    rows: int
    counts: Mapping[Name, tuple[int, ...]]
    limits: tuple[tuple[int, ...], ...]
    vectors: int
    checker: Name | None = None
    spare: tuple[int, ...] = ()
    block: RowBlock | None = None

    @property
    def length(self) -> int:
        """How many rows a step is about."""
        return self.rows if self.block is None else self.block.length

    @property
    def here(self) -> slice:
        """Which they are."""
        return slice(0, self.rows) if self.block is None else self.block.rows

    def of(self, block: RowBlock) -> "Lanes":
        """Return the same for steps that are about a block of rows."""
        return replace(self, block=block)

    @property
    def fields(self) -> tuple[tuple[int, ...], ...]:
        """By lane how many bits hold a total of each field with its sign."""
        spare = iter(self.spare)
        most = [[self.rows * limit + next(spare, 0) for limit in lane] for lane in self.limits]
        return tuple(tuple(m.bit_length() + 1 for m in lane) for lane in most)

    @property
    def bits(self) -> tuple[int, ...]:
        """By lane how many bits hold all of it: shares are modulo t = 2^bits."""
        return tuple(map(sum, self.fields))

    @property
    def share_bits(self) -> tuple[int, ...]:
        """By lane how many bits of a share are kept: tags are of whole words."""
        return self.bits if self.checker is None else (64,) * len(self.bits)

    def join(self, values: Sequence[Numbers]) -> tuple[Numbers, ...]:
        """Put fields, or shares of them modulo the bits of their lanes, into lanes."""
        left, out = [*values], []
        for fields, bits in zip(self.fields, self.share_bits, strict=True):
            lane, at = np.zeros(values[0].shape, kind_of(bits)), 0
            for width in fields:
                lane += left.pop(0).astype(lane.dtype) << lane.dtype.type(at)
                at += width
            out.append(lane)
        return tuple(out)

    def split(self, totals: Words) -> Integers:
        """Tell the fields of opened lanes apart: (..., lanes) modulo t to (..., fields) with their signs."""
        out = []
        for lane, fields in enumerate(self.fields):
            rest = totals[..., lane].view(np.int64)
            for width in fields:
                unused = np.int64(64 - width)
                out.append((rest << unused) >> unused)
                rest = (rest - out[-1]) >> np.int64(width)
        return np.stack(out, axis=-1)

    def bins(self, holder: Name) -> int:
        """K, the bins of all columns of a party."""
        return sum(self.counts[holder])

    def budgets(self, holder: Name) -> tuple[Budget, ...]:
        """Plan the noise of each lane for the columns of one party; ConfigError where it does not fit.

        Partners get the same words from the bank: for them it is the plan of the one with the most columns.
        """
        bank, *partners = self.counts
        size = max(len(self.counts[p]) for p in ([bank] if holder == bank else partners))
        asked = self.vectors * len(self.limits)
        if holder == self.checker:
            # What a rounding takes off a word could not be told from what the bank adds to it.
            return tuple(budget(self.rows, b, size, asked, MODULUS_BITS) for b in self.bits)
        return tuple(shortest_words(self.rows, b, size, asked) for b in self.bits)

    def words(self, holder: Name, nodes: int) -> list[Budget]:
        """Return the plan of each vector of a batch, lane by lane."""
        return [plan for plan in self.budgets(holder) for _ in range(nodes)]

    def row_blocks(self, nodes: int) -> list[slice]:
        """Split the rows at whole polynomials, into messages of about `BLOCK_BYTES`."""
        step = max(1, BLOCK_BYTES // (8 * len(self.limits) * nodes * DEGREE)) * DEGREE
        return [slice(i, min(self.rows, i + step)) for i in range(0, self.rows, step)]
