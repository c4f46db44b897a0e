"""Static bounds of everything that is rounded or reduced on shares, checked before a run.

On shares nobody sees a value that left its range: it becomes noise, silently. So each value has a bound that
follows from the contract alone, and a run whose bounds do not hold is refused with the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

from fedmkt.errors import ConfigError
from fedmkt.ring.fixed import HALF_LIMIT_BITS, LIMIT_BITS
from fedmkt.ring.sigmoid import RESULT_BITS

RESIDUAL_MAX = 1.1
"""|sigma(z) - y| with the error of the series, generously."""


@dataclass(frozen=True)
class Bound:
    """One value's bound: |value| <= 2^bits must stay below 2^limit; `formula` says with which numbers."""

    name: str
    bits: float
    formula: str
    limit: float = float(LIMIT_BITS)

    @property
    def holds(self) -> bool:
        """Whether the value stays in range (a bound that is not a number does not hold)."""
        return self.bits < self.limit

    def __str__(self) -> str:
        """Show the numbers, as `fedmkt plan` prints them."""
        return f"{self.name}: {self.formula} = 2^{self.bits:.1f}, limit 2^{self.limit:g}"


def check(bounds: Sequence[Bound]) -> None:
    """Raise ConfigError naming every value that may leave its range, with its numbers."""
    broken = [str(bound) for bound in bounds if not bound.holds]
    if broken:
        raise ConfigError(
            "fixed point would overflow: " + "; ".join(broken),
            hint="use fewer rows, a tighter clip or weight limit, or a smaller scale",
        )


@dataclass(frozen=True)
class LogisticShape:
    """What bounds a joint logistic model: counts, scales (as bits) and limits from the contract.

    rows, columns : of all parties together; x_bits, weight_bits, residual_bits : scales of X, w and of the
    residual; period : of the sigmoid; max_abs_x : the clip; max_abs_weight : of any weight; max_abs_z :
    what the range bit guarantees.
    """

    rows: int
    columns: int
    x_bits: int
    weight_bits: int
    residual_bits: int
    period: int
    max_abs_x: float
    max_abs_weight: float
    max_abs_z: float


def logistic_bounds(shape: LogisticShape) -> list[Bound]:
    """List the bounds of one gradient: X and w as coded, z in the period, residual, gradient, Gram block."""
    x, w, r = shape.x_bits, shape.weight_bits, shape.residual_bits
    n, clip = shape.rows, shape.max_abs_x
    return [
        Bound("matrix", log2(clip) + x, f"{clip:g} * 2^{x}", float(HALF_LIMIT_BITS)),
        Bound("weights", log2(shape.max_abs_weight) + w, f"{shape.max_abs_weight:g} * 2^{w}"),
        Bound(
            "linear predictor",
            log2(shape.max_abs_z),
            f"max |z| = {shape.max_abs_z:g}",
            log2(0.45 * shape.period),
        ),
        Bound("period in the ring", x + w + log2(shape.period), f"2^{x} * 2^{w} * {shape.period}", 64.5),
        Bound(
            "residual before rounding",
            log2(RESIDUAL_MAX) + RESULT_BITS,
            f"{RESIDUAL_MAX} * 2^{RESULT_BITS}",
            float(HALF_LIMIT_BITS),
        ),
        Bound(
            "gradient",
            log2(n * clip * RESIDUAL_MAX) + x + r,
            f"{n} rows * {clip:g} * {RESIDUAL_MAX} * 2^({x}+{r})",
        ),
        Bound("Gram block", log2(n * clip**2) + 2 * x, f"{n} rows * {clip:g}^2 * 2^({x}+{x})"),
    ]


def step_bound(shape: LogisticShape, max_abs_inverse: float, inverse_bits: int, gradient_bits: int) -> Bound:
    """Bound a step H g before it is rounded.

    g : mean gradient, already rounded to scale 2^gradient_bits, |g| <= 1.1 max |x|; H : entries of at most
    max_abs_inverse at scale 2^inverse_bits.
    """
    largest = shape.columns * max_abs_inverse * shape.max_abs_x * RESIDUAL_MAX
    return Bound(
        "optimiser step",
        log2(largest) + inverse_bits + gradient_bits,
        f"{shape.columns} columns * {max_abs_inverse:g} * {shape.max_abs_x:g} * {RESIDUAL_MAX}"
        f" * 2^({inverse_bits}+{gradient_bits})",
    )
