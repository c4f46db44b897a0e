"""Discrete Gaussian noise: whole numbers x with probability proportional to exp(-x^2 / (2 sigma^2)), drawn exactly.

Candidates are uniform over -2^k .. 2^k - 1, 2^k the first power from 12 sigma on, and each is taken with probability
exp(-x^2 / (2 sigma^2)). That decision compares a uniform number, drawn bit by bit, with a real number: 53 bits and
floats decide nearly always; where they are closer than floats are right, more bits and decimals do. So nothing but the
cut at 12 sigma parts the result from the definition: 2 (1 - Phi(12)) = 3.6e-33 of each number. The cut also says how
much room noise takes at most.

It is the noise on totals (`privacy/noise.py`) and the flooding of encrypted sums (`budget`): some 150 ns of a core for
each number, where Box and Muller's transform of floats takes 30.

Why not rounded floats: logarithms and cosines of floats leave gaps among the numbers that can occur, and a proof of
differential privacy is about the distribution that is drawn. Source: Canonne, Kamath, Steinke, The Discrete Gaussian
for Differential Privacy, 2020 (arXiv 2004.00010), for what this noise gives; von Neumann 1951 for the rejection.
"""

import math
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedmkt.crypto.prg import KEY_BYTES, Random, words

Integers = NDArray[np.int64]

TAIL = 12
"""Standard deviations up to which numbers occur for certain."""
MAX_DEVIATION = 1 << 59
"""Of which numbers up to 12 deviations are still those of 64 bits with a sign."""

_AT_ONCE = 1 << 13
"""So many candidates at a time stay in the processor's cache."""
_BITS = 53
_SLACK = 2.0**-36
"""What the float of exp(-z) may be off by, relatively: z < 300 is right to 2^-50, its exponential to a few 2^-53."""


def most(deviation: int) -> int:
    """Return the largest size that noise of this standard deviation can have, a power of two."""
    if not 1 <= deviation <= MAX_DEVIATION:
        raise ValueError(f"the standard deviation is a whole number from 1 to 2^59, not {deviation}")
    return 1 << (TAIL * deviation - 1).bit_length()


def draw(random: Random, deviation: int, shape: tuple[int, ...]) -> Integers:
    """Draw independent discrete Gaussian numbers of this shape; `random` : a cryptographic generator."""
    reach, size = most(deviation), int(np.prod(shape))
    shift = np.uint64(64 - reach.bit_length())
    # One candidate in so many is taken: 10 to 20.
    each = 2 * reach / (deviation * math.sqrt(2 * math.pi))
    parts: list[Integers] = []
    missing = size
    while missing:
        count = min(_AT_ONCE, math.ceil(each * missing) + 64)
        raw = words(random(KEY_BYTES), (2, count))
        # Modulo 2^64, as the largest deviation needs all bits.
        candidates = ((raw[0] >> shift) - np.uint64(reach)).view(np.int64)
        taken = candidates[_is_taken(random, candidates, deviation, raw[1] >> np.uint64(64 - _BITS))]
        parts.append(taken[:missing])
        missing -= len(parts[-1])
    return np.concatenate(parts).reshape(shape) if parts else np.empty(shape, np.int64)


def _is_taken(random: Random, x: Integers, deviation: int, uniform: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which candidates are taken; uniform : the first 53 bits of a number between 0 and 1 for each."""
    chance = np.exp(-((x / deviation) ** 2) / 2)
    low = uniform * 2.0**-_BITS
    taken: NDArray[np.bool_] = low + 2.0**-_BITS <= chance * (1 - _SLACK)
    open_ = ~taken & (low < chance * (1 + _SLACK))
    for i in np.flatnonzero(open_):
        taken[i] = _is_below(random, int(uniform[i]), int(x[i]), deviation)
    return taken


def _is_below(random: Random, uniform: int, x: int, deviation: int) -> bool:
    """Tell whether a uniform number that begins with these 53 bits is below exp(-x^2 / (2 sigma^2))."""
    bits = _BITS
    while x:
        bits, uniform = bits + 64, (uniform << 64) | int.from_bytes(random(8), "little")
        digits = bits  # more than three times as many as so many bits need
        context = Context(prec=digits)
        chance = Fraction(context.exp(context.divide(Decimal(-x * x), Decimal(2 * deviation * deviation))))
        # The quotient and its exponential are right to all but the last few digits.
        slack = chance / 10 ** (digits - 8)
        if Fraction(uniform + 1, 1 << bits) <= chance - slack:
            return True
        if Fraction(uniform, 1 << bits) >= chance + slack:
            return False
    return True
