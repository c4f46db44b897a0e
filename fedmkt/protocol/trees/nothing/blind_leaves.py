"""What the leaves of a tree add to the score, on shares: -rate G / (H + penalty), kept within bounds, never opened.

a = H + penalty is multiplied with the power of two m that brings it between 2^(K - 1) and 2^K; 1 / (a m) is looked up
in a public table at its 10 highest bits, half of whose entries are for numbers of that size; G m times it is G / a up
to 2 parts in 1,000. K is that of `blind_gains`. Rounded steps, with |G| <= 34 rows <= 2^(K - 1):

    G m            <= 2^(2 K - 2), K <= 29      to 2^16 for 1
    times 1 / a m  <= 2^(K + 16 + 13)           at 2^28 for 1, below 2^62
    bounded        |value| <= `most`            so scores stay in the range of the series, which nobody else can see to
    times the rate <= 2^(28 + 16 + 3)           to units of a score

Takes part, who learns what and against whom: `blind_boosting`. Letters: G, H, a, m as in `blind_gains`.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.errors import ConfigError
from fedmkt.protocol.trees.totals.shared_gradients import FAR, GRADIENT_BITS, HESSIAN_BITS, SCORE_BITS
from fedmkt.ring.bounds import Bound
from fedmkt.ring.dealt_rounds import Flat, LookUp, Multiply, Round, Select
from fedmkt.ring.phases import Phase, Values, bits_of, compare, octets, power, thresholds, words

INDEX_BITS = 10
RECIPROCAL_BITS = 12
QUOTIENT_BITS = 16
RATE_BITS = 16
MOST_BASE = 8.0
"""Log odds of the rate of all rows: from 1 in 3,000 to its contrary."""
_MOST_VALUE, _LEAST_MOST_VALUE = 8.0, 1.0
# In units of g and of h a quotient is that of log odds divided by this.
_UNIT_RATIO = HESSIAN_BITS + 2 - (GRADIENT_BITS - 1)
_SCALE = QUOTIENT_BITS + RECIPROCAL_BITS


def most_value(contract: Contract) -> float:
    """Return the bound of a leaf's value before the rate, log odds; ConfigError where scores could leave the range."""
    terms = contract.trees
    found = min(_MOST_VALUE, (FAR.most - MOST_BASE) / (terms.trees * terms.rate))
    if found < _LEAST_MOST_VALUE:
        raise ConfigError(
            "so many trees of this rate could leave the range of scores, which nobody would see",
            f"trees times rate is at most {(FAR.most - MOST_BASE) / _LEAST_MOST_VALUE:g}",
        )
    return found


def leaf_bounds(bits: int) -> list[Bound]:
    """Return how large what is rounded and compared can get: |G| is below 2^(K - 1)."""
    return [
        Bound("G of a leaf", 2.0 * bits - 2, f"times m, K = {bits}"),
        Bound("value of a leaf", bits + QUOTIENT_BITS + RECIPROCAL_BITS + 1.0, "before it is bounded"),
    ]


@dataclass(frozen=True)
class Leaves:
    """The leaves of one tree; bits : K; rate, most : of a value."""

    count: int
    bits: int
    rate: float
    most: float

    @property
    def size(self) -> int:
        """Leaves with what pads them to a multiple of 8."""
        return octets(self.count)


@lru_cache(maxsize=8)
def leaf_phases(plan: Leaves) -> tuple[Phase, ...]:
    """Compute values: from `g` and `a`, (leaves,) words, to `values`, (leaves,) words, in units of a score."""
    steps = octets((plan.bits - 1) * plan.size)
    return (
        *compare("compared", "reached", steps, 32),
        _powers(plan),
        _scale(plan),
        _reduce(plan),
        _divide(plan),
        *compare("beyond", "passed", 2 * plan.size, 64),
        _bound(plan),
        _rate(plan),
    )


def leaf_values(plan: Leaves, g: Flat, a: Flat, first: bool) -> Values:
    """Begin with the own shares of G and a, (leaves,) words."""
    padded = np.zeros((2, plan.size), np.uint64)
    padded[:, : plan.count] = g, a
    return {"g": padded[0], "a": padded[1], "compared": thresholds(padded[1], plan.bits, first).reshape(-1)}


def _powers(plan: Leaves) -> Phase:
    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[values["reached"]]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        m = power(words(found[0][0]).reshape(-1, plan.size), plan.bits, first)
        return {"g": values["g"], "a": values["a"], "m": m}

    return Phase((bits_of(octets((plan.bits - 1) * plan.size)),), inputs, results)


def _scale(plan: Leaves) -> Phase:
    n = plan.size
    at = np.arange(2 * n)
    multiply = Multiply(3 * n, at[None], (2 * n + at % n)[None])

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[np.concatenate([values[name] for name in ("g", "a", "m")])]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        g, a = words(found[0][0]).reshape(2, -1)
        return {"g": g, "a": a}

    return Phase((multiply,), inputs, results)


def _reciprocals() -> tuple[int, ...]:
    """Return 2^12 / z for z = (i + 1) / 2^10: shares cut off by themselves are one too low as often as not."""
    size = 1 << INDEX_BITS
    return tuple(min(2 << RECIPROCAL_BITS, round((size << RECIPROCAL_BITS) / (i + 1))) for i in range(size))


def _reduce(plan: Leaves) -> Phase:
    """Round G m, and look 1 / (a m) up at once."""

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        low = words(values["a"]) & np.uint64((1 << plan.bits) - 1)
        return [[values["g"]], [low >> np.uint64(plan.bits - INDEX_BITS)]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        return {"g": found[0][0], "r": found[1][0]}

    shift = plan.bits - QUOTIENT_BITS
    return Phase((Round(plan.size, shift), LookUp(plan.size, _reciprocals())), inputs, results)


def _divide(plan: Leaves) -> Phase:
    n, most = plan.size, _most(plan)

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[np.concatenate([values["g"], values["r"]])]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        value, top = np.uint64(0) - words(found[0][0]), np.uint64(most * first)
        return {"v": value, "beyond": np.concatenate([value - top, np.uint64(0) - (value + top)])}

    at = np.arange(n)
    return Phase((Multiply(2 * n, at[None], (n + at)[None]),), inputs, results)


def _most(plan: Leaves) -> int:
    return round(plan.most * (1 << _SCALE - _UNIT_RATIO))


def _bound(plan: Leaves) -> Phase:
    n, most = plan.size, _most(plan)

    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        value, top = words(values["v"]), np.uint64(most * first)
        # What a value beyond a bound lacks to it.
        return [[values["passed"], np.concatenate([top - value, np.uint64(0) - (value + top)])]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        above, below = words(found[0][0]).reshape(2, -1)
        return {"v": words(values["v"]) + above + below}

    return Phase((Select(2 * n // 8, 1),), inputs, results)


def _rate(plan: Leaves) -> Phase:
    def inputs(values: Values, first: bool) -> list[list[Flat]]:
        return [[words(values["v"]) * np.uint64(round(plan.rate * 2**RATE_BITS))]]

    def results(values: Values, first: bool, found: list[list[Flat]]) -> Values:
        return {"values": words(found[0][0])[: plan.count]}

    # To units of a score, of which 1 has 2^(SCORE_BITS - 6).
    shift = _SCALE - _UNIT_RATIO + RATE_BITS - (SCORE_BITS - 6)
    return Phase((Round(plan.size, shift),), inputs, results)
