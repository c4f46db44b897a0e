"""What an attack found: a figure with the defence, one without, and the limit that both are held against.

A verdict says what the two figures say and no more:

    held       the undefended figure breaks the limit, the one here does not
    declared   the one here breaks it too, by something that the contract lists as disclosed
    assumed    it breaks it where the threat model trusts somebody: nothing is claimed against that
    BROKEN     it breaks it, and nothing in the contract says so
    no control the attack does not work on the undefended case either, so its failure here says nothing
    -          there is nothing of the kind in this family of models

Of one run a figure counts as beyond its limit where it is so by more than two standard errors: it takes much to say
BROKEN. Of ten runs or more it is the other way round: `held` says that their mean, with two of its standard errors
added, is within the limit, and that no single run is beyond it. What is counted (a limit of 0) is the worst run's.

DCS is VFLAIR's defence capability score, 1 / (1 + sqrt((1 - b)(AP - AP*)^2 + b (MP - MP*)^2)) with b = 1/2: AP the
attack's figure, AP* what guessing reaches, MP the model's AUC, MP* that of a centralised one. 1 is a perfect defence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["held", "declared", "assumed", "BROKEN", "no control", "-"]
_CONCERN: tuple[Verdict, ...] = ("-", "held", "assumed", "declared", "no control", "BROKEN")
_MANY = 10
"""Runs from which the mean has to keep the limit with its error added."""


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
    the limit where it is beyond it by more than two of these. runs : what this is the mean of, if of several.
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
    runs: tuple["Finding", ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Say what the figures say."""
        single: list[Verdict] = [v for v in (f.verdict for f in self.runs) if v != "no control"]
        return max([self._verdict, *single], key=_CONCERN.index)

    @property
    def beyond(self) -> float:
        """By how much the figure is beyond the limit; less than 0 within it."""
        if self.here is None:
            return -math.inf
        return (self.here - self.limit.value) * (-1 if self.limit.is_least else 1)

    @property
    def _verdict(self) -> Verdict:
        if self.here is None:
            return "-"
        if self.limit.is_kept(self.undefended):
            return "no control"
        if self.beyond <= (-2 if len(self.runs) >= _MANY else 2) * self.error:
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
        if self.runs:
            facts["runs"] = [{"undefended": f.undefended, "here": f.here} for f in self.runs]
        if self.dcs is not None:
            facts["dcs"] = {"undefended": round(self.dcs[0], 3), "here": round(self.dcs[1], 3)}
        return facts


def worst(found: Sequence[Finding]) -> Finding:
    """Return the finding of most concern: by verdict, then by how far its figure is beyond the limit."""
    return max(found, key=lambda f: (_CONCERN.index(f.verdict), f.beyond))


def mean_of(runs: Sequence[Finding]) -> Finding:
    """Put the same attack on several runs together: the mean, or of what is counted the worst."""
    one, figures = worst(runs), [f.here for f in runs if f.here is not None]
    if len(runs) == 1 or not figures:
        return one
    undefended = [f.undefended for f in runs]
    if one.limit.value == 0:
        return replace(one, undefended=min(undefended), here=max(figures), runs=tuple(runs))
    error = float(np.std(figures, ddof=1)) / math.sqrt(len(figures)) if len(figures) > 1 else one.error
    known = [(f.quality.joint, f.quality.centralised) for f in runs if f.quality is not None]
    return replace(
        one, undefended=float(np.mean(undefended)), here=float(np.mean(figures)), error=error, runs=tuple(runs),
        quality=Quality(*np.mean(known, axis=0).tolist()) if known else None,
    )  # fmt: skip


def worst_of_partners(found: Sequence[tuple[str, Finding]]) -> Finding:
    """Put the same attack by, or on, each partner together: the worst, with all figures in its note."""
    one = worst([f for _, f in found])
    if len(found) == 1:
        return one
    figures = ", ".join(f"{name} {shown(f.here)}" for name, f in found)
    return replace(one, note=f"{figures}; of the worst: {one.note}")


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
