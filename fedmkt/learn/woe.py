"""Columns that hold the weight of evidence (WoE) of each row's bin in place of the row's value.

WoE is kept in ten-thousandths of a nat, so that who computed it and who applies it have the same number. How it
is computed from totals is in `scorecard`:

    evidence = weigh_evidence(join_totals(totals, mapping))
    column = WoeColumn(join(bins, mapping), in_units(evidence.woe))
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn.bins import Binning, Bins, NumberBins
from fedmkt.learn.glm import Weights
from fedmkt.learn.prepare import Preparation

Floats = NDArray[np.float64]

UNIT: Final = 1e-4
"""Nats."""
MOST_UNITS: Final = 250_000
"""Bins of 2^30 rows with an event of either kind have a smaller WoE."""


@dataclass(frozen=True)
class WoeColumn:
    """units : WoE of each bin, in ten-thousandths of a nat."""

    bins: Bins
    units: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.units) != self.bins.count:
            raise ValueError(f"{self.bins.name!r} has {self.bins.count} bins, WoE of {len(self.units)}")
        if max(map(abs, self.units)) > MOST_UNITS:
            raise ValueError(f"the WoE of {self.bins.name!r} is out of range")

    @property
    def woe(self) -> Floats:
        """WoE of each bin (bins,), in nats."""
        return np.array(self.units, np.float64) * UNIT


@dataclass(frozen=True)
class WoeColumns:
    """The WoE columns of one table, in order."""

    columns: tuple[WoeColumn, ...]

    def __post_init__(self) -> None:
        Binning(tuple(column.bins for column in self.columns))  # every name once

    def weigh(
        self, numbers: Mapping[str, Floats], categories: Mapping[str, NDArray[np.object_]]
    ) -> dict[str, Floats]:
        """Give each row (n,) the WoE of its bin, by name of the column."""
        return {c.bins.name: np.take(c.woe, place_rows(c.bins, numbers, categories)) for c in self.columns}

    def to_json(self) -> str:
        """Text that `from_json` turns into equal columns."""
        binning = json.loads(Binning(tuple(column.bins for column in self.columns)).to_json())
        units = [column.units for column in self.columns]
        return json.dumps({"binning": binning, "units": units}, allow_nan=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "WoeColumns":
        """Inverse of `to_json`; ValueError for anything else."""
        try:
            raw = json.loads(text)
            binning = Binning.from_json(json.dumps(raw["binning"], separators=(",", ":")))
            units = [tuple(map(int, u)) for u in raw["units"]]
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError("not WoE columns") from error
        return WoeColumns(tuple(WoeColumn(b, u) for b, u in zip(binning.columns, units, strict=True)))


def place_rows(
    bins: Bins, numbers: Mapping[str, Floats], categories: Mapping[str, NDArray[np.object_]]
) -> NDArray[np.int32]:
    """Return the bin of each row (n,) of a table, given by its columns."""
    if isinstance(bins, NumberBins):
        return bins.assign(numbers[bins.name])
    return bins.assign(categories[bins.name])


def weights_of_woe(fitted: Preparation, weights: Weights) -> Weights:
    """Turn weights of prepared WoE columns into weights of WoE itself, one per number of `fitted`; 0 where dropped.

    Exact because no WoE is clipped: `Settings.clip` must lie beyond every bin.
    """
    if len(fitted.columns) != len(weights.coefficients) or fitted.categories:
        raise ValueError(f"{len(weights.coefficients)} weights are not of {len(fitted.columns)} WoE columns")
    given, intercept = iter(weights.coefficients.tolist()), weights.intercept
    found = np.zeros(len(fitted.numbers))
    for j, column in enumerate(fitted.numbers):
        if column.value is None:
            continue
        scaling, weight = column.value, next(given) / column.value.clipped_spread
        found[j] = weight / scaling.spread * 2.0**-scaling.exponent
        intercept -= weight * (scaling.centre / scaling.spread + scaling.clipped_centre)
    return Weights(intercept, found)


def in_units(woe: Floats) -> tuple[int, ...]:
    """Round WoE (bins,) in nats to ten-thousandths."""
    return tuple(int(u) for u in np.rint(woe / UNIT))
