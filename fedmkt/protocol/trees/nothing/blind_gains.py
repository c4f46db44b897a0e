"""Which split of each node gains most, on shares: the phases of mode `nothing`, without a division.

Of the candidates of a node, whose totals left of them are GL, HL and rows, the one with the largest

    GL^2 / a + GR^2 / b - G^2 / (a + b) = (GL b - GR a)^2 / (a b (a + b)),    a = HL + penalty, b = HR + penalty

gains most: the last fraction of the left side is that of the whole node but for one penalty, and is the same for all of
them, as a + b is. So fractions u^2 / (a b) are compared, u = GL (a + b) - G a, by cross-multiplication (`ring.phases`).
A candidate that leaves fewer than `min_rows` rows or `min_weight` of h on a side is the fraction 0 / 1. Candidate 0 is
no split: all rows go left; it is chosen where nothing gains anything.

Node by node, G is first multiplied with the power of two that brings 34 rows, which |G| stays below, between 2^(K - 1)
and 2^K, and a and b with the one that does so to a + b, with K from the number of train rows alone; both cancel. Of a
candidate that counts a and b are above 0, so

    |GL|, |G| < 2^K,  a, b, a + b < 2^K
    |u| <= 34 rows (a + b) < 2^(2 K)                         rounded to 2^(2 K - 20) for 1
    a b <= (a + b)^2 / 4 < 2^(2 K - 2)                       rounded to 2^(2 K - 24) for 1
    u^2 <= 2^40, a b <= 2^22 once rounded                    so products of two fractions stay below 2^63

Of any other candidate these may leave their range; it is the fraction 0 / 1 whatever they are. Rounded u and a b are
off by less than 1. A side of chance alone has a u of about 2^19 / rows of its node times the root of its total of
p (1 - p), which is 1 at least: beyond a million rows a side of few of them may win that gains nothing.

Source: Chen and Guestrin 2016 for the gain; protocols.md sections 0 and 4. Letters: g, h, G, H as in learn/splits.py;
s nodes of C candidates.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedmkt.protocol.trees.totals.shared_gradients import LIMITS
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

_MOST_G, _MOST_H = LIMITS
_LEAST_BITS = 16
U_BITS, D_BITS = 20, 24
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

    @property
    def steps(self) -> int:
        """Comparisons for the two powers of two of each node, with what pads them."""
        return octets(2 * (self.bits - 1) * self.nodes)


def bits_for(rows: int, penalty: int) -> int:
    """Return K: 2 |G| and a + b of all rows are below 2^K."""
    return max(_LEAST_BITS, (max(2 * _MOST_G, _MOST_H) * rows + 2 * penalty).bit_length())


def gain_bounds(bits: int) -> list[Bound]:
    """Return how large what is rounded and compared can get."""
    # Rounded up, and 1 more for what is below: far less than another bit.
    fractions = 2 * U_BITS + D_BITS - 1.9
    return [
        Bound("u of a candidate", 2.0 * bits, f"K = {bits}"),
        Bound("two fractions", fractions, "u^2 of one, a b of the other", 63.0),
    ]


@lru_cache(maxsize=32)
def gain_phases(plan: Weighing) -> tuple[Phase, ...]:
    """Choose a candidate of each node: from `g`, `h` and `rows`, half words (s, C), to `chosen`, (5, s, 1) words.

    `node`, (2, s) words, are G and H of the nodes.
    """
    return (
        _lift(plan),
        *compare("compared", "passed", 4 * octets(plan.size) + plan.steps, 32),
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
    block = octets(plan.size)

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[values[name].reshape(-1)] for name in ("g", "h", "rows")]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        g, h, rows = (words(f[0]).reshape(plan.nodes, plan.candidates) for f in found)
        one = np.uint64(first)
        least_h, least_rows = one * np.uint64(plan.least_h), one * np.uint64(plan.least_rows)
        checked = h - least_h, h[:, :1] - h - least_h, rows - least_rows, rows[:, :1] - rows - least_rows
        sizes = [np.uint64(_MOST_G) * rows[:, 0], h[:, 0] + one * np.uint64(2 * plan.penalty)]
        reached = _padded(thresholds(np.concatenate(sizes), plan.bits, first), plan.steps)
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
    """Tell which candidates count, and the powers of two of each node: of all for G, then of all for a and b."""
    block, pairs = octets(plan.size) // 8, 2 * plan.nodes

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[values["passed"][: 4 * block]], [values["passed"][4 * block :]]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        reached = words(found[1][0])[: (plan.bits - 1) * pairs].reshape(-1, pairs)
        kept = _without(values, "passed")
        return kept | {"counts": found[0][0].reshape(-1), "m": power(reached, plan.bits, first)}

    return Phase((Conjunctions(4, block, ((0, 1, 2, 3),)), bits_of(plan.steps)), inputs, results)


def _without(values: Values, *names: str) -> Values:
    return {k: v for k, v in values.items() if k not in names}


def _nodes(plan: Weighing, start: int, each: int = 1) -> NDArray[np.int64]:
    """Return, for each candidate of all nodes, where the number of its node stands, the first one at `start`."""
    return start + each * np.repeat(np.arange(plan.nodes), plan.candidates)


def _scale(plan: Weighing) -> Phase:
    """Multiply G and a of each candidate with its power of two of the node."""

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[np.concatenate([values[name].reshape(-1) for name in ("g", "a", "m")])]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        g, a = words(found[0][0]).reshape(2, plan.nodes, plan.candidates)
        # All rows are left of candidate 0: its a lacks one penalty to a + b.
        both = a[:, 0] + np.uint64(plan.penalty) * words(values["m"])[plan.nodes :]
        return values | {"gm": g, "am": a, "both": both}

    left, node = np.arange(2 * plan.size), _nodes(plan, 2 * plan.size)
    right = np.concatenate([node, plan.nodes + node])
    multiply = Multiply(2 * (plan.size + plan.nodes), left[None], right[None])
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
