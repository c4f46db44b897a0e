"""How many bits about each row of a party's binned columns somebody gets: measured afterwards, and bounded before.

Measured on the rows themselves, each as likely as the other: `bits_per_row` for facts (sides of splits, own columns),
`bits_of_guesses` for an attack that ends in probabilities. A measure of an attack is no bound: a better one may come.

Bounds, from what a contract fixes. In mode `sides` a column of b bins is told apart at t edges at most, into t + 1
ranges and the missing values where they have a bin of their own: at most log2 min(b, t + 1 [+ 1]) bits; all columns
together no more than one bit for each split. In mode `totals` all that is opened is a number of totals of
so many bits: spread over the rows, they cannot tell more than they hold. That says something for few trees or many
rows; otherwise the bound is that of the columns themselves, and what protects them is that totals hide rows, which is
no theorem. Nothing gives more than the columns of so many rows hold: log2 of the rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.integer] | NDArray[np.bool_]


@dataclass(frozen=True)
class ColumnBins:
    """How many bins a column has, and whether the last of them is that of missing values alone."""

    count: int
    apart: bool = False

    def __post_init__(self) -> None:
        if self.count < 1 + self.apart:
            raise ValueError(f"a column of {self.count} bins")

    def classes(self, edges: int) -> int:
        """Return how many classes of values so many edges tell apart at most."""
        return min(self.count, edges + 1 + self.apart) if edges else 1


def entropy(codes: Codes) -> float:
    """Return the entropy of the columns of (columns, n) together, in bits per row."""
    return _entropy(_classes(codes))


def bits_per_row(known: Codes, hidden: Codes) -> float:
    """Return the mutual information of known (a, n) and hidden (c, n) facts of the same rows, in bits per row.

    Where the known ones follow from the hidden ones it is their entropy. Where they do not, and tell rows apart by
    themselves, it counts as learned whatever stands in the hidden columns of a row that nothing else is like.
    """
    if known.ndim != 2 or hidden.ndim != 2 or known.shape[1] != hidden.shape[1]:
        raise ValueError(f"known {known.shape} and hidden {hidden.shape} are not columns of the same rows")
    left, right = _classes(known), _classes(hidden)
    return _entropy(left) + _entropy(right) - _entropy(_classes(np.stack([left, right])))


def bits_of_guesses(guesses: Sequence[NDArray[np.float64]], hidden: Codes) -> float:
    """Return how much better guesses are than the frequencies of the bins, in bits per row, columns added up.

    guesses : for each column (n, bins), the probabilities that an attack ends in; hidden : (columns, n), the truth
    """
    total = 0.0
    for guess, column in zip(guesses, hidden, strict=True):
        if guess.shape[0] != len(column) or not np.allclose(guess.sum(axis=1), 1):
            raise ValueError("a guess gives each bin of each row a probability")
        shares = np.bincount(column, minlength=guess.shape[1]) / len(column)
        hit = guess[np.arange(len(column)), column]
        with np.errstate(divide="ignore"):
            total += float(np.mean(np.log2(hit) - np.log2(shares[column])))
    return total


def most_from_sides(columns: Sequence[ColumnBins], edges: int, splits: int, rows: int) -> float:
    """Bound the bits per row that sides of splits give away.

    columns : of one party; edges : most different ones of a column; splits : of all columns and trees together
    """
    _check(columns, edges, splits, rows)
    used = [0] * len(columns)
    for _ in range(splits):
        # An edge tells most where a column is in the fewest classes so far; the gains fall from edge to edge.
        gain, best = max((_gain(c, used[i], edges), -i) for i, c in enumerate(columns))
        if gain == 0:
            break
        used[-best] += 1
    told = sum(math.log2(c.classes(t)) for c, t in zip(columns, used, strict=True))
    return min(told, float(splits), math.log2(rows))


def most_from_totals(columns: Sequence[ColumnBins], totals: int, bits: int, rows: int) -> float:
    """Bound the bits per row that so many totals of so many bits give away; for many trees, all there is."""
    _check(columns, totals, bits, rows)
    return min(sum(math.log2(c.count) for c in columns), totals * bits / rows, math.log2(rows))


def _gain(column: ColumnBins, used: int, edges: int) -> float:
    if used >= edges:
        return 0.0
    return math.log2(column.classes(used + 1) / column.classes(used))


def _check(columns: Sequence[ColumnBins], *counts: int) -> None:
    if not columns or min(counts) < 0 or counts[-1] < 1:
        raise ValueError("at least one column and one row, and no number below zero")


def _classes(codes: Codes) -> NDArray[np.int64]:
    """Return the number of the class of each row, (n,); rows alike in all columns are one class."""
    if codes.ndim != 2 or not codes.shape[1]:
        raise ValueError(f"codes are (columns, n), not {codes.shape}")
    out = np.zeros(codes.shape[1], np.int64)
    for column in codes:
        _, place = np.unique(column, return_inverse=True)
        # Both factors are at most n, so the product fits for up to 3e9 rows.
        _, out = np.unique(out * (int(place.max()) + 1) + place, return_inverse=True)
    return out


def _entropy(classes: NDArray[np.int64]) -> float:
    shares = np.bincount(classes) / len(classes)
    return float(-(shares * np.log2(shares)).sum())
