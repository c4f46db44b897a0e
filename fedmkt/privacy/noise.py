"""How much noise totals need, so that all of a training together tell little about one row: and what they do tell.

**What is promised.** Two worlds differ in the partner's binned columns of one joint row: in any of them, in all at
once. Everything else is alike: who is common, the bank's columns and labels, the other rows, the edges of the bins.
Whatever is computed from all totals that are opened in a training has nearly the same probability in both: up to a
factor e^epsilon, but for a probability delta = 1 / rows^1.1. So nobody learns much from totals that would not follow
from the other rows alone. What is told beside the totals (scores, edges through the partner's own doing, who is
common) is not covered.

**What a row does to totals.** At each level of each tree a row is in at most one cell of each column. The splits
and leaves so far are computed from totals that have noise already. Given these, changing the row moves no other one:
it takes the row's g and h out of one cell of each column and puts other ones into another, since its path and its
score change too. Within limits |g|, |h| <= L that moves the totals of g of one level and one column, as a vector,
by sqrt(2) L at most (in the same cell by less: the label stays). So do those of h.

**What noise gives.** Discrete Gaussian noise of standard deviation sigma, on each total of its own, makes a release
whose vector moves by Delta Delta^2 / (2 sigma^2)-zCDP (Canonne, Kamath, Steinke 2020, theorem 4), also where each
release is chosen after the ones before; these add up. So a training of `levels` levels and F columns is

    rho = levels F (L_g^2 / sigma_g^2 + L_h^2 / sigma_h^2) + 2^-10

with 2^-10 for the noise that is in encrypted sums (`ring/budget.py`, where `DELTA` is). That rho is (epsilon, delta) is
what dp-accounting's accountant of Renyi divergences says (Apache 2.0). Levels of trees that a killed run grows again
are new releases, and are among `levels`.

Against whom: a bank whose labels are 0 and 1 and that adds nothing to its shares, as everywhere in mode `totals`; one
that does makes a row count for more. As far as ring-LWE and pseudo-random masks hold. Noise on totals and in encrypted
sums comes from one sampler, exact but for a cut at 12 deviations (`ring/discrete_gaussian.py`).
"""

import math
from dataclasses import dataclass
from functools import cache

DELTA_POWER = 1.1
"""delta is at most rows^-1.1: of so many rows far less than one."""

FLOODING_RHO = 2.0**-10
FLOODING_DELTA = 2.0**-36
"""What encrypted sums tell beside their totals, and more than `ring/budget.py` and the cut of the noise ask for."""

SHARE_OF_GRADIENTS = 0.8
"""Of rho for g; the rest is for h, whose totals only weigh those of g."""


@dataclass(frozen=True)
class NoisePlan:
    """The noise of a training: standard deviations of g and of h as integers, and what all of it comes to."""

    epsilon: float
    delta: float
    rho: float
    levels: int
    deviations: tuple[int, int]

    def __str__(self) -> str:
        """Say it as people write it."""
        return f"epsilon {self.epsilon:g} at delta {self.delta:.1e}"


def delta_of(rows: int) -> float:
    """Return the delta of a training on so many rows."""
    if rows < 2:
        raise ValueError("two rows at least")
    return float(rows**-DELTA_POWER)


@cache
def plan_noise(epsilon: float, rows: int, levels: int, columns: int, limits: tuple[int, int]) -> NoisePlan:
    """Plan the least noise with which all totals of a training are (epsilon, delta_of(rows)) for one row.

    levels : that may be opened, those grown again included; columns : of all parties; limits : of |g| and |h|.
    ValueError where no noise is enough.
    """
    delta = delta_of(rows)
    rho = most_rho(epsilon, delta) - FLOODING_RHO
    if rho <= 0 or min(levels, columns, *limits) < 1:
        raise ValueError(f"no noise makes {levels} levels of {columns} columns epsilon {epsilon}")
    shares = SHARE_OF_GRADIENTS, 1 - SHARE_OF_GRADIENTS
    g, h = (
        math.ceil(limit * math.sqrt(levels * columns / (rho * share)))
        for limit, share in zip(limits, shares, strict=True)
    )
    return NoisePlan(epsilon, delta, rho_of(levels, columns, limits, (g, h)), levels, (g, h))


def rho_of(levels: int, columns: int, limits: tuple[int, int], deviations: tuple[int, int]) -> float:
    """Return the zCDP of a training with this noise."""
    per_total = sum((limit / sigma) ** 2 for limit, sigma in zip(limits, deviations, strict=True))
    return levels * columns * per_total + FLOODING_RHO


def epsilon_of(rho: float, delta: float) -> float:
    """Return the epsilon at `delta` of what is rho-zCDP."""
    # Slow to import, and only needed where there is noise.
    from dp_accounting import NeighboringRelation, ZCDpEvent
    from dp_accounting.rdp import RdpAccountant

    if not 0 < FLOODING_DELTA < delta < 1:
        raise ValueError(f"delta lies between 2^-36 and 1, not {delta}")
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
    accountant.compose(ZCDpEvent(rho))
    return float(accountant.get_epsilon(delta - FLOODING_DELTA))


def most_rho(epsilon: float, delta: float) -> float:
    """Return the largest rho that is within epsilon at `delta`, to one part in a thousand from below."""
    low, high = 2.0**-40, 2.0**10
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if epsilon_of(middle, delta) <= epsilon else (low, middle)
    return low
