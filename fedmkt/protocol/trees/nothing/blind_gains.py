"""Which split of each node gains most, on shares: the phases of mode `nothing`, without a division.

Of the candidates of a node, whose totals left of them are GL, HL and rows, the one with the largest

    GL^2 / a + GR^2 / b - G^2 / (a + b) = (GL b - GR a)^2 / (a b (a + b)),    a = HL + penalty, b = HR + penalty

gains most: the last fraction of the left side is that of the whole node but for one penalty, and is the same for all of
them, as a + b is. So fractions u^2 / (a b) are compared, u = GL (a + b) - G a, by cross-multiplication (`ring.phases`).
A candidate that leaves fewer than `min_rows` rows or `min_weight` of h on a side is the fraction 0 / 1. Candidate 0 is
no split: all rows go left; it is chosen where nothing gains anything.

Node by node, all is first multiplied with a power of two m that brings T = a + b + 16 rows between 2^(K - 1) and 2^K;
m cancels. With |g| <= 34 and -3 <= h <= 67 for each row, T >= 13 rows, so with K from the number of train rows alone

    |GL m| <= 2^(K + 1.4), a m, b m, (a + b) m <= 2^K        before any rounding
    |u| <= 2^(2 K + 2.4), a b <= 2^(2 K + 1)                 rounded to 2^(2 K - 19) and 2^(2 K - 24): below 2^62
    u^2 < 2^40.8, a b <= 2^22 of candidates that count       so products of two fractions stay below 2^63

Error of a gain against exact fractions: about 2^-17 / u + 2^-23 / (a b), u and a b as parts of T and T^2.

Source: Chen and Guestrin 2016 for the gain; protocols.md sections 0 and 4. Letters: g, h, G, H as in learn/splits.py;
s nodes of C candidates.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import log2

import numpy as np
from numpy.typing import NDArray

from fedmkt.ring.bounds import Bound
from fedmkt.ring.dealt_rounds import Conjunctions, Flat, Lift, Multiply, Round, Select
from fedmkt.ring.fixed import Words
from fedmkt.ring.phases import (
    Phase,
    Values,
    bits_of,
    compare,
    largest,
    octets,
    power,
    thresholds,
    words,
)

PER_ROW = 16
"""Units of h that each row adds to T, so that totals of g cannot be large beside it."""
_MOST_T = 67 + PER_ROW
_MOST_G, _LEAST_H = 34, 3
_LEAST_BITS = 16
U_BITS, D_BITS = 19, 24
RESULTS = 5
"""What is chosen: fraction, its G and H on the left, and the number that the candidate was given."""


@dataclass(frozen=True)
class Weighing:
    """One level: its sizes, and what a candidate needs, in units.

    widths : bits that shares of G, H and rows are modulo, with room for twice their size
    bits : K; penalty, least_h : in units of h; codes : (C,) one number for each candidate
    """

    nodes: int
    widths: tuple[int, int, int]
    bits: int
    penalty: int
    least_h: int
    least_rows: int
    codes: tuple[int, ...]

    @property
    def candidates(self) -> int:
        """C, with the one that is no split."""
        return len(self.codes)

    @property
    def size(self) -> int:
        """All candidates of all nodes."""
        return self.nodes * self.candidates


def bits_for(rows: int, penalty: int) -> int:
    """Return K."""
    return max(_LEAST_BITS, (_MOST_T * rows + 2 * penalty).bit_length())


def gain_bounds(bits: int) -> list[Bound]:
    """Return how large what is rounded and compared can get."""
    square = 2 * (U_BITS + log2(_MOST_G / (PER_ROW - _LEAST_H)))
    return [
        Bound("u of a candidate", 2 * bits + 2.4, f"of T < 2^{bits}"),
        Bound("two fractions", square + D_BITS - 2, "u^2 of one, a b of the other", 63.0),
    ]


@lru_cache(maxsize=32)
def gain_phases(plan: Weighing) -> tuple[Phase, ...]:
    """Choose a candidate of each node: from `g`, `h` and `rows`, half words (s, C), to `chosen`, (5, s, 1) words.

    `node`, (2, s) words, are G and H of the nodes.
    """
    block, steps = octets(plan.size), octets((plan.bits - 1) * plan.nodes)
    return (
        _lift(plan),
        *compare("compared", "passed", 4 * block + steps, 32),
        _check(plan),
        _scale(plan),
        _cross(plan),
        _round(plan),
        _square(plan),
        _mask(plan),
        *largest("chosen", RESULTS, plan.nodes, plan.candidates),
    )


def lifted_shares(shares: Words, width: int) -> Flat:
    """Move shares modulo 2^width to the top of half words, as `gain_phases` takes them."""
    return shares.astype(np.uint32) << np.uint32(32 - width)


def _lift(plan: Weighing) -> Phase:
    block, steps = octets(plan.size), octets((plan.bits - 1) * plan.nodes)

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[values[name].reshape(-1)] for name in ("g", "h", "rows")]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        g, h, rows = (words(f[0]).reshape(plan.nodes, plan.candidates) for f in found)
        one = np.uint64(first)
        least_h, least_rows = one * np.uint64(plan.least_h), one * np.uint64(plan.least_rows)
        checked = h - least_h, h[:, :1] - h - least_h, rows - least_rows, rows[:, :1] - rows - least_rows
        t = h[:, 0] + one * np.uint64(2 * plan.penalty) + np.uint64(PER_ROW) * rows[:, 0]
        reached = _padded(thresholds(t, plan.bits, first), steps)
        return {
            "g": g,
            "h": h,
            "a": h + one * np.uint64(plan.penalty),
            "node": np.array([g[:, 0], h[:, 0]]),
            "compared": np.concatenate([*(_padded(c, block) for c in checked), reached]),
        }

    return Phase(tuple(Lift(plan.size, 32 - width) for width in plan.widths), inputs, results)


def _padded(found: Words, size: int) -> Words:
    out = np.zeros(size, np.uint64)
    out[: found.size] = found.reshape(-1)
    return out


def _check(plan: Weighing) -> Phase:
    """Tell which candidates count, and the power of two of each node."""
    block, steps = octets(plan.size) // 8, octets((plan.bits - 1) * plan.nodes)

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[values["passed"][: 4 * block]], [values["passed"][4 * block :]]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        reached = words(found[1][0])[: (plan.bits - 1) * plan.nodes].reshape(-1, plan.nodes)
        kept = _without(values, "passed")
        return kept | {"counts": found[0][0].reshape(-1), "m": power(reached, plan.bits, first)}

    return Phase((Conjunctions(4, block, ((0, 1, 2, 3),)), bits_of(steps)), inputs, results)


def _without(values: Values, *names: str) -> Values:
    return {k: v for k, v in values.items() if k not in names}


def _nodes(plan: Weighing, start: int, each: int = 1) -> NDArray[np.int64]:
    """Return, for each candidate of all nodes, where the number of its node stands, the first one at `start`."""
    return start + each * np.repeat(np.arange(plan.nodes), plan.candidates)


def _scale(plan: Weighing) -> Phase:
    """Multiply G and a of each candidate with the power of two of its node."""

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[np.concatenate([values[name].reshape(-1) for name in ("g", "a", "m")])]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        g, a = words(found[0][0]).reshape(2, plan.nodes, plan.candidates)
        # All rows are left of candidate 0: its a lacks one penalty to a + b.
        both = a[:, 0] + np.uint64(plan.penalty) * words(values["m"])
        return values | {"gm": g, "am": a, "both": both}

    left, node = np.arange(2 * plan.size), _nodes(plan, 2 * plan.size)
    right = np.concatenate([node, node])
    multiply = Multiply(2 * plan.size + plan.nodes, left[None], right[None])
    return Phase((multiply,), inputs, results)


def _cross(plan: Weighing) -> Phase:
    """Compute u = GL (a + b) - G a, and a b = a (a + b) - a a."""

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[np.concatenate([values[name].reshape(-1) for name in ("gm", "am", "both")])]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        u, d = words(found[0][0]).reshape(2, plan.size)
        return _without(values, "gm", "am", "both", "a", "m") | {"u": u, "d": d}

    n = plan.size
    g, a, both, whole = np.arange(n), n + np.arange(n), _nodes(plan, 2 * n), _nodes(plan, 0, plan.candidates)
    left, right = np.array([[g, a], [whole, a]]), np.array([[both, both], [a, a]])
    return Phase((Multiply(2 * n + plan.nodes, left.reshape(2, -1), right.reshape(2, -1)),), inputs, results)


def _round(plan: Weighing) -> Phase:
    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[values["u"]], [values["d"]]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        return values | {"u": found[0][0], "d": found[1][0]}

    shifts = 2 * plan.bits - U_BITS, 2 * plan.bits - D_BITS
    return Phase(tuple(Round(plan.size, shift) for shift in shifts), inputs, results)


def _square(plan: Weighing) -> Phase:
    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[values["u"]]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        return values | {"u": found[0][0]}

    all_ = np.arange(plan.size)[None]
    return Phase((Multiply(plan.size, all_, all_),), inputs, results)


def _mask(plan: Weighing) -> Phase:
    """Make the fraction 0 / 1 of every candidate that does not count, and lay out what is chosen from."""
    block = octets(plan.size)

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        fraction = np.concatenate([_padded(words(values[name]), block) for name in ("u", "d")])
        return [[values["counts"], fraction]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        u, d = words(found[0][0]).reshape(2, -1)[:, : plan.size].reshape(2, plan.nodes, -1)
        one = np.uint64(first)
        codes = np.array(plan.codes, np.uint64) * one
        table = [u, d + one, words(values["g"]), words(values["h"]), np.broadcast_to(codes, u.shape)]
        return {"node": values["node"], "chosen": np.array(table)}

    return Phase((Select(block // 8, 2),), inputs, results)
