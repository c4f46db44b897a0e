"""Layout: sizes and scales of the joint matrices, from public values and the contract alone.

Rows are padded to the top of their band, so that sizes tell the band and nothing else. Columns: the bank's
intercept, the bank's columns, each partner's columns, the products of pairs of two parties, which both hold shares of.
Rows beyond n are the penalty's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.learn import factors
from fedmkt.protocol.alignment.align import scored_rows, train_rows
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Name,
    Turn,
    data_parties,
)
from fedmkt.protocol.linear.links import ROW_WEIGHT_BITS, harmonics, has_row_weights
from fedmkt.protocol.prepare import shapes

FRACTION_BITS = 16
"""Scale of matrices."""
WEIGHT_BITS = 20
"""Scale of weights."""
RESIDUAL_BITS = 16
"""Scale of residuals and scores between 0 and 1."""
WIDE_RESIDUAL_BITS = 12
"""Scale of residuals that grow larger; rounding noise is far below that of the rows at either."""
BLOCK_BYTES = 16 << 20
"""Rows travel in blocks of about this size: larger ones fall out of the caches and of reused memory."""


@dataclass(frozen=True)
class Stage:
    """Which rows: training rows with penalty rows, or the rows to score."""

    name: str
    penalised: bool


FIT = Stage("fit", True)
SCORE = Stage("score", False)


@dataclass(frozen=True)
class SharedPair:
    """The products of one pair of two parties: who has shares of them, and where their columns stand."""

    owners: tuple[Name, Name]
    columns: slice

    @property
    def width(self) -> int:
        """Number of its columns."""
        return int(self.columns.stop) - int(self.columns.start)

    def other(self, party: Name) -> Name:
        """Return the other owner."""
        return self.owners[party == self.owners[0]]


@dataclass(frozen=True)
class Layout:
    """Sizes that follow from public values: padded rows, columns of each party, where each party's columns stand.

    pairs : columns that come after all parties' own, and that two parties each have a share of.
    """

    rows: int
    penalty_rows: int
    columns: dict[Name, slice]
    pairs: tuple[SharedPair, ...] = ()

    @property
    def width(self) -> int:
        """Number of all columns."""
        return self.own_width + sum(pair.width for pair in self.pairs)

    @property
    def own_width(self) -> int:
        """Number of all columns that one party has for itself."""
        return max(int(s.stop) for s in self.columns.values())

    @property
    def total(self) -> int:
        """Number of rows with the penalty's."""
        return self.rows + self.penalty_rows

    def columns_of(self, party: Name) -> int:
        """Count one party's columns."""
        return int(self.columns[party].stop) - int(self.columns[party].start)

    def held(self, party: Name) -> NDArray[np.int64]:
        """Return the columns of a party's matrix: its own, then those that it has a share of."""
        pairs = [pair.columns for pair in self.pairs if party in pair.owners]
        return np.concatenate([np.arange(s.start, s.stop) for s in (self.columns[party], *pairs)])

    def held_of(self, party: Name) -> int:
        """Count the columns of a party's matrix."""
        return self.columns_of(party) + sum(pair.width for pair in self.pairs if party in pair.owners)

    @property
    def matrix_block(self) -> int:
        """Rows of a masked matrix that fit into one message."""
        return BLOCK_BYTES // (8 * max(self.held_of(p) for p in self.columns))

    def pair_blocks(self) -> list[slice]:
        """Row blocks in which the products of pairs are made."""
        return _blocks(self.rows, BLOCK_BYTES // (8 * max(1, self.width - self.own_width)))

    def matrix_blocks(self) -> list[slice]:
        """Row blocks in which masked matrices travel."""
        return _blocks(self.total, self.matrix_block)

    def sigmoid_blocks(self, contract: Contract) -> list[slice]:
        """Row blocks in which the dealer's corrections for the sigmoid travel."""
        words = 8 * harmonics(contract) + 16
        return _blocks(self.rows, BLOCK_BYTES // words)


def residual_bits(contract: Contract) -> int:
    """Return the scale of residuals in training."""
    return RESIDUAL_BITS if contract.model.link == "logistic" else WIDE_RESIDUAL_BITS


def value_bits(contract: Contract, stage: Stage) -> int:
    """Return the scale to which a link's values are brought: with the bits of a row's weight, that of residuals."""
    if not stage.penalised:
        return RESIDUAL_BITS
    return residual_bits(contract) - (ROW_WEIGHT_BITS if has_row_weights(contract) else 0)


def _blocks(rows: int, size: int) -> list[slice]:
    return [slice(start, min(rows, start + size)) for start in range(0, rows, size)]


def layout_of(turn: Turn, stage: Stage) -> Layout:
    """Compute the layout from what the parties published."""
    columns = {p: s.columns for p, s in shapes(turn).items()}
    return layout(turn.contract, turn.published(Overlap, turn.parties[0]), columns, stage)


def layout(contract: Contract, overlap: Overlap, columns: dict[Name, int], stage: Stage) -> Layout:
    """Compute the layout of a stage: a function of public values only; the bank's columns follow its intercept."""
    at, slices = 0, {}
    for party in data_parties(contract):
        width = columns[party] + (1 if party == contract.bank.name else 0)
        slices[party] = slice(at, at + width)
        at += width
    rows = train_rows(contract, overlap) if stage.penalised else scored_rows(contract, overlap)
    pairs = []
    for left, right in contract.additive.across:
        pairs.append(SharedPair((Name(left[0]), Name(right[0])), slice(at, at + factors.COLUMNS**2)))
        at += pairs[-1].width
    return Layout(rows, at if stage.penalised else 0, slices, tuple(pairs))
