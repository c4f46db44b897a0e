"""Computations on shares of two parties as lists of phases, of one round each: comparison, powers of two, the largest.

A phase is public: which operations of `dealt_rounds` it makes at once, how their inputs follow from what a party holds,
and how what it holds changes with their results. Both parties go through the same phases, the dealer deals for them.
What a party holds is arrays by name (`Values`): its shares. `first` is the party that adds public constants.

Source: as `dealt_rounds`; the comparison of the public c' with the shared R' is the tree of `protocol.minimum`, of
digits of 4 bits and with up to four branches at each fork:
lt = lt3 + eq3 lt2 + eq3 eq2 lt1 + eq3 eq2 eq1 lt0, eq = eq3 eq2 eq1 eq0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from fedmkt.ring.dealt_rounds import (
    Conjunctions,
    Flat,
    Multiply,
    Operation,
    Select,
    Signs,
    ToWords,
    packed,
)
from fedmkt.ring.fixed import Words

Values = dict[str, Flat]
"""A party's shares, by name."""
MOST_GROUP = 8
"""So many are compared with each other at once where the largest is looked for."""


@dataclass(frozen=True)
class Phase:
    """One round: inputs(values, first) by operation; results(values, first, results by operation)."""

    operations: tuple[Operation, ...]
    inputs: Callable[[Values, bool], list[list[Flat]]]
    results: Callable[[Values, bool, list[list[Flat]]], Values]


def octets(size: int) -> int:
    """Return the next multiple of 8."""
    return 8 * packed(size)


def words(values: Flat) -> Words:
    """Return an array that holds words, as such."""
    return values.astype(np.uint64, copy=False)


# --- comparison


def compare(source: str, target: str, size: int, bits: Literal[32, 64]) -> list[Phase]:
    """Compare numbers with 0: `target`, (size / 8,), the bits that say which of `source`, (size,), are at least 0.

    size : a multiple of 8; numbers lie in -2^(bits - 1) .. 2^(bits - 1) - 1, of which only `bits` bits are sent.
    """

    def begin(values: Values, first: bool) -> list[list[Flat]]:
        return [[values[source]]]

    def begun(values: Values, first: bool, results: list[list[Flat]]) -> Values:
        lt, eq, top = results[0]
        return {k: v for k, v in values.items() if k != source} | {"lt": lt, "eq": eq, "top": top}

    phases, left = [Phase((Signs(size, bits),), begin, begun)], bits // 4
    while left > 1:
        fork = min(4, left)
        phases.append(_fork(target, left, fork, packed(size)))
        left //= fork
    return phases


def _fork(target: str, left: int, fork: int, row: int) -> Phase:
    """Join neighbouring digits, lowest first; inputs are eq of the higher ones, then lt of the lower ones."""
    is_last = left == fork
    # Place i is eq of the i-th digit from the top, place `low` + i lt of the one below it.
    low = fork - 1 if is_last else fork
    products = [(*range(i + 1), low + i) for i in range(fork - 1)]
    if not is_last:
        products.append(tuple(range(fork)))
    operation = Conjunctions(low + fork - 1, left // fork * row, tuple(products))

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        lt, eq = (values[f].reshape(-1, fork, row)[:, ::-1] for f in ("lt", "eq"))
        planes = [*(eq[:, i] for i in range(low)), *(lt[:, i] for i in range(1, fork))]
        return [[np.concatenate([p.reshape(-1) for p in planes])]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        joined = found[0][0].reshape(len(products), -1, row)
        lt = values["lt"].reshape(-1, fork, row)[:, -1] ^ np.bitwise_xor.reduce(joined[: fork - 1], axis=0)
        if not is_last:
            return values | {"lt": lt, "eq": joined[-1]}
        # The sign, turned around by one of the two: set where a number is not negative.
        passed = lt[0] ^ values["top"] ^ np.uint8(255 if first else 0)
        return {k: v for k, v in values.items() if k not in ("lt", "eq", "top")} | {target: passed}

    return Phase((operation,), inputs, results)


# --- powers of two


def thresholds(x: Words, bits: int, first: bool) -> Words:
    """Return x - 2^j for j = 1 .. bits - 1, (bits - 1, n), from shares of x, (n,): for `compare`."""
    steps = np.uint64(1) << np.arange(1, bits, dtype=np.uint64)
    return x[None] - steps[:, None] * np.uint64(first)


def power(reached: Words, bits: int, first: bool) -> Words:
    """Return 2^(bits - 1 - k) for 2^k <= x < 2^(k + 1), from the bits of `thresholds` as words, (bits - 1, n)."""
    steps = np.uint64(1) << np.arange(bits - 2, -1, -1, dtype=np.uint64)
    highest = np.uint64(first) << np.uint64(bits - 1)
    found: Words = highest - (steps[:, None] * reached).sum(axis=0, dtype=np.uint64)
    return found


def bits_of(size: int) -> ToWords:
    """Turn `size` bits, a multiple of 8, into words."""
    return ToWords(packed(size))


# --- the largest


def largest(name: str, columns: int, rows: int, members: int) -> list[Phase]:
    """Choose of each row of fractions the largest one, of equal ones the first.

    `name` : (columns, rows, members) words, numerator and denominator first; what follows comes along. It becomes
    (columns, rows, 1). Numerators are at least 0, denominators at least 1, and products of the two below 2^63.
    """
    phases: list[Phase] = []
    while members > 1:
        group = min(MOST_GROUP, members)
        groups = -(-members // group)
        phases += _stage(name, columns, (rows, members), (groups, group))
        members = groups
    return phases


def _stage(name: str, columns: int, shape: tuple[int, int], into: tuple[int, int]) -> list[Phase]:
    (rows, members), (groups, group) = shape, into
    width = octets(rows * groups)
    pairs = list(combinations(range(group), 2))

    def laid_out(values: Values, first: bool) -> Words:
        """Return members by place in their group, (columns, group, width); what pads is the fraction 0 / 1."""
        out = np.zeros((columns, rows, groups * group), np.uint64)
        out[..., :members] = values[name].reshape(columns, rows, members)
        out[1, :, members:] = 1 if first else 0
        placed = np.zeros((columns, group, width), np.uint64)
        placed[..., : rows * groups] = out.reshape(columns, rows * groups, group).transpose(0, 2, 1)
        return placed

    def factors(values: Values, first: bool) -> list[list[Flat]]:
        return [[laid_out(values, first)[:2].reshape(-1)]]

    def crossed(values: Values, first: bool, results: list[list[Flat]]) -> Values:
        return values | {"difference": results[0][0]}

    def decided(values: Values, first: bool) -> list[list[Flat]]:
        beats = values["beats"].reshape(len(pairs), -1)
        planes = [
            beats[pairs.index((i, j))] if i < j else beats[pairs.index((j, i))] ^ (255 if first else 0)
            for i in range(group)
            for j in range(group)
            if i != j
        ]
        by_other = np.array(planes, np.uint8).reshape(group, group - 1, -1).transpose(1, 0, 2)
        return [[np.ascontiguousarray(by_other).reshape(-1)]]

    def won(values: Values, first: bool, results: list[list[Flat]]) -> Values:
        return {k: v for k, v in values.items() if k != "beats"} | {"wins": results[0][0].reshape(-1)}

    def taken(values: Values, first: bool) -> list[list[Flat]]:
        return [[values["wins"], laid_out(values, first).reshape(-1)]]

    def chosen(values: Values, first: bool, results: list[list[Flat]]) -> Values:
        # All but one member of a group are times 0.
        found = words(results[0][0]).reshape(columns, group, width).sum(axis=1, dtype=np.uint64)
        rest = {k: v for k, v in values.items() if k != "wins"}
        return rest | {name: found[:, : rows * groups].reshape(columns, rows, groups)}

    at, below = np.arange(width), group * width
    left = np.array([[i * width + at for i, _ in pairs], [j * width + at for _, j in pairs]])
    right = np.array([[below + j * width + at for _, j in pairs], [below + i * width + at for i, _ in pairs]])
    cross = Multiply(2 * below, left.reshape(2, -1), right.reshape(2, -1))
    win = Conjunctions(group - 1, group * width // 8, (tuple(range(group - 1)),))
    return [
        Phase((cross,), factors, crossed),
        *compare("difference", "beats", len(pairs) * width, 64),
        Phase((win,), decided, won),
        Phase((Select(group * width // 8, columns),), taken, chosen),
    ]


def dealt(phases: Sequence[Phase]) -> int:
    """Count the bytes that the dealer sends for some phases."""
    return sum(f.size * _BYTES[f.kind] for p in phases for o in p.operations for f in o.dealt)


def opened(phases: Sequence[Phase]) -> list[int]:
    """Count the bytes that each party opens in each phase."""
    return [sum(f.size * _BYTES[f.kind] for o in p.operations for f in o.opened) for p in phases]


_BYTES = {"words": 8, "halves": 4, "bits": 1}
