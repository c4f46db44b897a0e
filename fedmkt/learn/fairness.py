"""How often people of different groups are selected: shares of a group among the best scores.

A group is the value of a column; of a number, the quarter of its values. Groups of fewer rows than a minimum are put
together, and left out if they are still fewer: of few people a rate would tell about each.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

OTHERS: Final = "(others)"
MISSING: Final = "(missing)"
_QUARTERS: Final = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Rate:
    """One group: how many rows it has, and which share of them is selected (to three decimals)."""

    group: str
    rows: int
    share: float


def quarters(values: NDArray[np.float64]) -> NDArray[np.object_]:
    """Name the quarter of each number: "up to 41", "up to 53" and so on, "above" the last edge."""
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, _QUARTERS)) if len(known) else np.empty(0)
    names = [*(f"up to {edge:g}" for edge in edges), f"above {edges[-1]:g}" if len(edges) else MISSING]
    found = np.array(names, object)[np.searchsorted(edges, values)]
    found[~np.isfinite(values)] = MISSING
    return found


def selection_rates(
    groups: NDArray[np.object_], selected: NDArray[np.bool_], minimum: int
) -> tuple[Rate, ...]:
    """Return the rate of each group of at least `minimum` rows, by name; groups : (n,) None where missing."""
    names = np.array([MISSING if g is None else str(g) for g in groups], object)
    counts = {name: int((names == name).sum()) for name in set(names)}
    small = {name for name, rows in counts.items() if rows < minimum}
    names = np.array([OTHERS if name in small else name for name in names], object)
    found = []
    for name in sorted(set(names)):
        rows = int((names == name).sum())
        if rows >= minimum:
            found.append(Rate(name, rows, round(float(selected[names == name].mean()), 3)))
    return tuple(found)
