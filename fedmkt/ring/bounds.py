"""Static bounds of everything that is rounded or reduced on shares, checked before a run.

On shares nobody sees a value that left its range: it becomes noise, silently. So each value has a bound that
follows from the contract alone, and a run whose bounds do not hold is refused with the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedmkt.errors import ConfigError
from fedmkt.ring.fixed import LIMIT_BITS

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
