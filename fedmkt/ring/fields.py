"""Several small numbers of a row in one integer, so that one encrypted sum brings the totals of all of them.

Field i holds numbers low_i..high_i, with zero among them. Its total over at most n rows takes n (high_i - low_i) + 1
values, so a mixed radix keeps the totals apart:

    R_0 = 1,  R_(i+1) = R_i (n (high_i - low_i) + 1),  m = sum of R_i x_i,  D m = sum of R_i (total of x_i)

Packing is linear: shares of the x_i, each modulo a multiple of t = 2^bits, make a share of m modulo t. Nothing here
hides anything; how many bits a total needs is what the budget of the encryption (`budget`) is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Field:
    """The least and the greatest number of one row."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not self.low <= 0 <= self.high or self.low == self.high:
            raise ValueError(f"a field holds zero and something else, not {self.low}..{self.high}")


@dataclass(frozen=True)
class Packing:
    """Fields of one integer whose totals over at most `rows` rows that are not zero stay apart."""

    fields: tuple[Field, ...]
    rows: int

    def __post_init__(self) -> None:
        if not self.fields or self.rows < 1:
            raise ValueError("a packing has at least one field and one row")

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values the total of each field can take."""
        return tuple(self.rows * (f.high - f.low) + 1 for f in self.fields)

    @property
    def radices(self) -> tuple[int, ...]:
        """R_i, what the numbers of each field are multiplied by."""
        return tuple(prod(self.sizes[:i]) for i in range(len(self.fields)))

    @property
    def bits(self) -> int:
        """How many bits hold every total: the messages are integers modulo 2^bits."""
        return (prod(self.sizes) - 1).bit_length()

    @property
    def range(self) -> tuple[int, int]:
        """The least and the greatest packed number of one row."""
        pairs = list(zip(self.fields, self.radices, strict=True))
        return sum(f.low * r for f, r in pairs), sum(f.high * r for f, r in pairs)


def signed(limit: int) -> tuple[Field, ...]:
    """Return one field of numbers from -limit to limit: nothing is packed."""
    return (Field(-limit, limit),)


def gradient_fields(gradient_bits: int, hessian_bits: int) -> tuple[Field, ...]:
    """Return fields for g and h of boosted trees: |g| <= 2^(gradient_bits - 1), 0 <= h <= 2^hessian_bits."""
    half = 1 << (gradient_bits - 1)
    return Field(-half, half), Field(0, 1 << hessian_bits)


def pack_fields(packing: Packing, columns: Sequence[Integers]) -> Integers:
    """Pack one (n,) array per field into one (n,) array."""
    _check(packing)
    out = np.zeros_like(columns[0], dtype=np.int64)
    for column, radix in zip(columns, packing.radices, strict=True):
        out += column.astype(np.int64) * np.int64(radix)
    return out


def take_apart(packing: Packing, totals: Integers) -> Integers:
    """Take totals of packed numbers, known modulo 2^bits, apart: (...) to (..., fields)."""
    _check(packing)
    least = packing.range[0] * packing.rows
    shifted = totals.astype(np.int64).view(np.uint64) - np.uint64(least % (1 << 64))
    rest = shifted & np.uint64((1 << packing.bits) - 1)
    out = np.empty((*totals.shape, len(packing.fields)), np.int64)
    for i, (field, size) in enumerate(zip(packing.fields, packing.sizes, strict=True)):
        rest, digit = np.divmod(rest, np.uint64(size))
        out[..., i] = digit.view(np.int64) + packing.rows * field.low
    return out


def _check(packing: Packing) -> None:
    if packing.bits > 63:
        raise ValueError(f"totals of {packing.bits} bits do not fit an integer of 64")
