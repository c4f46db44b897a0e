"""What all participants know of private histograms beforehand: terms of a training, and the shape of one batch.

From these everybody computes the same noise budget, the same length of words and the same blocks (`histogram`).
"""

from dataclasses import dataclass

import numpy as np

from fedmkt.protocol.layout import BLOCK_BYTES
from fedmkt.ring.budget import Budget, shortest_words
from fedmkt.ring.fields import Field, Packing
from fedmkt.ring.rlwe import DEGREE, MODULUS_BITS, Integers


@dataclass(frozen=True)
class Terms:
    """What all participants know of the histograms of one training, from the contract and public values.

    rows : padded; fields : what each m is packed from, `fields.signed` where it is one number; vectors : most vectors
    in the whole training, over all epochs; minimum : rows in each bin, over all rows.
    """

    rows: int
    fields: tuple[Field, ...]
    vectors: int
    minimum: int

    def packing(self, most_rows: int | None = None) -> Packing:
        """Return how m is packed in a vector that is zero but on so many rows; None: on all."""
        return Packing(self.fields, self.rows if most_rows is None else most_rows)

    def budget(self, columns: int, most_rows: int | None = None) -> Budget:
        """Plan noise and words for partners with at most so many columns; ConfigError where it does not fit."""
        return shortest_words(self.rows, self.packing(most_rows).bits, columns, self.vectors)


@dataclass(frozen=True)
class Batch:
    """One batch of vectors, each zero but on at most so many rows."""

    terms: Terms
    most_rows: tuple[int, ...]

    @property
    def width(self) -> int:
        """V, the vectors of the batch."""
        return len(self.most_rows)

    @property
    def packings(self) -> tuple[Packing, ...]:
        """How m is packed in each vector; its totals are modulo t = 2^bits."""
        return tuple(self.terms.packing(rows) for rows in self.most_rows)

    @property
    def delta_bits(self) -> tuple[int, ...]:
        """What the messages of each vector are shifted by."""
        return tuple(MODULUS_BITS - p.bits for p in self.packings)

    def budgets(self, columns: int) -> tuple[Budget, ...]:
        """Plan noise and words of each vector."""
        return tuple(self.terms.budget(columns, rows) for rows in self.most_rows)

    def row_blocks(self) -> list[slice]:
        """Split the rows at whole polynomials, into messages of about `BLOCK_BYTES`."""
        step = DEGREE * max(1, BLOCK_BYTES // (DEGREE * self.width * 8))
        return [slice(i, min(self.terms.rows, i + step)) for i in range(0, self.terms.rows, step)]

    def check(self, values: Integers) -> None:
        """Raise ValueError unless these are the batch's vectors."""
        if values.shape != (self.terms.rows, self.width):
            raise ValueError(f"the bank's vectors are {values.shape}, not {(self.terms.rows, self.width)}")
        for packing, column in zip(self.packings, values.T, strict=True):
            low, high = packing.range
            if column.min() < low or column.max() > high:
                raise ValueError(f"the bank's vectors have values outside of {low}..{high}")
            if np.count_nonzero(column) > packing.rows:
                raise ValueError(f"the bank's vectors are not zero on more than {packing.rows} rows")


def bin_blocks(bins: int) -> list[slice]:
    """Split a partner's bins, rows of its hint, into messages of about `BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES // (8 * DEGREE))
    return [slice(i, min(bins, i + step)) for i in range(0, bins, step)]
