"""What an attack found: a figure with the defence, one without, and the limit that both are held against.

A verdict says what the two figures say and no more:

    held       the undefended figure breaks the limit, the one here does not
    declared   the one here breaks it too, by something that the contract lists as disclosed
    assumed    it breaks it where the threat model trusts somebody: nothing is claimed against that
    BROKEN     it breaks it, and nothing in the contract says so
    no control the attack does not work on the undefended case either, so its failure here says nothing
    -          there is nothing of the kind in this family of models

DCS is VFLAIR's defence capability score, 1 / (1 + sqrt((1 - b)(AP - AP*)^2 + b (MP - MP*)^2)) with b = 1/2: AP the
attack's figure, AP* what guessing reaches, MP the model's AUC, MP* that of a centralised one. 1 is a perfect defence.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["held", "declared", "assumed", "BROKEN", "no control", "-"]


@dataclass(frozen=True)
class Limit:
    """The figure that an attack may reach at most, or at least has to leave."""

    value: float
    is_least: bool = False

    def is_kept(self, figure: float) -> bool:
        """Tell whether a figure is within the limit."""
        return figure >= self.value if self.is_least else figure <= self.value

    def __str__(self) -> str:
        return f"{'>=' if self.is_least else '<='} {self.value:g}"


@dataclass(frozen=True)
class Quality:
    """AUC of the joint model's released scores and of the centralised one, for DCS."""

    joint: float
    centralised: float


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    row : in security.md section 3. here : None where this run has nothing of the kind. declared : disclosures of the
    contract by which the attack works. assumed : whom the threat model trusts not to do this, or "". guess : what
    guessing reaches, where the figure is a share or an AUC, for DCS. error : standard error of `here`: a figure breaks
    the limit where it is beyond it by more than two of these.
    """

    row: int
    attack: str
    metric: str
    undefended: float
    here: float | None
    limit: Limit
    note: str = ""
    declared: tuple[str, ...] = ()
    assumed: str = ""
    guess: float | None = None
    error: float = 0.0
    quality: Quality | None = None

    @property
    def verdict(self) -> Verdict:
        """Say what the figures say."""
        if self.here is None:
            return "-"
        if self.limit.is_kept(self.undefended):
            return "no control"
        room = -2 * self.error if not self.limit.is_least else 2 * self.error
        if self.limit.is_kept(self.here + room):
            return "held"
        if self.declared:
            return "declared"
        return "assumed" if self.assumed else "BROKEN"

    @property
    def dcs(self) -> tuple[float, float] | None:
        """Return DCS undefended and here; None where it has no meaning."""
        if self.guess is None or self.here is None or self.quality is None:
            return None
        lost = self.quality.joint - self.quality.centralised
        return _dcs(self.undefended - self.guess, 0.0), _dcs(self.here - self.guess, lost)

    def to_json(self) -> dict[str, object]:
        """Give all facts as plain data."""
        facts: dict[str, object] = {
            "row": self.row,
            "attack": self.attack,
            "metric": self.metric,
            "undefended": self.undefended,
            "here": self.here,
            "limit": {"value": self.limit.value, "is_least": self.limit.is_least},
            "standard_error": round(self.error, 4),
            "verdict": self.verdict,
            "declared": list(self.declared),
            "assumed": self.assumed,
            "note": self.note,
        }
        if self.dcs is not None:
            facts["dcs"] = {"undefended": round(self.dcs[0], 3), "here": round(self.dcs[1], 3)}
        return facts


def _dcs(gained: float, lost: float) -> float:
    return 1 / (1 + math.sqrt(0.5 * gained**2 + 0.5 * lost**2))


def shown(figure: float | None) -> str:
    """Write a figure as the table does: whole numbers whole, others to three decimals."""
    if figure is None:
        return "-"
    return f"{figure:,.0f}" if float(figure).is_integer() and abs(figure) != 1 else f"{figure:.3f}"


def auc_error(label: NDArray[np.float64]) -> float:
    """Return the standard error of the AUC of a guess that says nothing (Mann-Whitney)."""
    ones = float(label.sum())
    others = len(label) - ones
    return math.sqrt((ones + others + 1) / (12 * ones * others)) if ones and others else 0.5
