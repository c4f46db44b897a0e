"""Weight of evidence, selection of columns, and the points of a scorecard.

A scorecard is a logistic model whose columns hold the weight of evidence (WoE) of each row's bin, written as
whole points per bin that people can add up. An event is a row with label 1, a response; WoE is positive where
events are more frequent than on average, so the weights of a sound model are positive. (In credit an event is
mostly a default, and WoE is often written with the opposite sign.)

Points follow Siddiqi, Credit Risk Scorecards (2006), chapter 6: score = offset + factor * log-odds of an event,
factor = points to double / ln 2, offset = base score - factor * ln(base odds).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedmkt.learn.glm import Weights, sigmoid
from fedmkt.learn.merging import Totals
from fedmkt.learn.prepare import Dropped

Floats = NDArray[np.float64]

_LARGEST = 2**31  # any sum of such points stays exact


@dataclass(frozen=True, eq=False)
class Evidence:
    """woe, parts : (bins,) nats; `parts` are what each bin adds to the information value, none below 0."""

    woe: Floats
    parts: Floats

    @property
    def information_value(self) -> float:
        """Distance of events and others over the bins: below .02 no use, .3 strong, above .5 suspicious."""
        return float(self.parts.sum())


@dataclass(frozen=True)
class Candidate:
    """What is known of a column before selection; `stability` is its stability index, 0 = nothing moved."""

    name: str
    information_value: float
    stability: float = 0.0


@dataclass(frozen=True)
class Limits:
    """A column stays whose information value and stability index are in range; a limit itself is allowed.

    correlation : largest absolute correlation of two columns that both stay
    """

    information_from: float = 0.02
    information_to: float = math.inf
    stability: float = 0.25
    correlation: float = 0.75


@dataclass(frozen=True)
class Selection:
    """`kept` : from the highest information value to the lowest; `dropped` : in the same order, with reasons."""

    kept: tuple[str, ...]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True)
class Scale:
    """`base_score` points mean `base_odds` events per other row; `points_to_double` more double the odds.

    points_to_double : negative where a high score is to mean few events, as in credit
    """

    base_score: float = 600.0
    base_odds: float = 1.0
    points_to_double: float = 20.0

    def __post_init__(self) -> None:
        for name in ("base_score", "base_odds", "points_to_double"):
            object.__setattr__(
                self, name, float(getattr(self, name))
            )  # one text per scale: 600 is written 600.0
        if not all(map(math.isfinite, (self.base_score, self.base_odds, self.points_to_double))):
            raise ValueError("a scale must be finite")
        if self.base_odds <= 0 or not self.points_to_double:
            raise ValueError("base odds must be positive, and points to double not 0")

    @property
    def factor(self) -> float:
        """Points per nat of log-odds."""
        return self.points_to_double / math.log(2)

    @property
    def offset(self) -> float:
        """Score at odds of 1."""
        return self.base_score - self.factor * math.log(self.base_odds)

    def score(self, probability: ArrayLike) -> Floats:
        """Return the score, not rounded, of each probability strictly between 0 and 1."""
        p = np.asarray(probability, dtype=np.float64)
        if not ((p > 0) & (p < 1)).all():
            raise ValueError("probabilities must lie strictly between 0 and 1")
        return np.asarray(self.offset + self.factor * (np.log(p) - np.log1p(-p)), dtype=np.float64)

    def probability(self, score: ArrayLike) -> Floats:
        """Return the probability of an event at each score: the inverse of `score`."""
        return sigmoid((np.asarray(score, dtype=np.float64) - self.offset) / self.factor)


@dataclass(frozen=True)
class ColumnPoints:
    """Points of each bin of a column."""

    name: str
    points: tuple[int, ...]


@dataclass(frozen=True)
class Scorecard:
    """Everybody has the `base` points, and from each column those of the bin that the row is in."""

    scale: Scale
    base: int
    columns: tuple[ColumnPoints, ...]

    def __post_init__(self) -> None:
        if len({column.name for column in self.columns}) != len(self.columns):
            raise ValueError("two columns have the same name")
        if not all(column.points for column in self.columns):
            raise ValueError("a column has no bins")
        if max(map(abs, (self.base, *(p for column in self.columns for p in column.points)))) > _LARGEST:
            raise ValueError("points are too large; the weights or the scale are out of range")

    @property
    def lowest(self) -> int:
        """Least score that a row can have."""
        return self.base + sum(min(column.points) for column in self.columns)

    @property
    def highest(self) -> int:
        """Largest score that a row can have."""
        return self.base + sum(max(column.points) for column in self.columns)

    def score(self, bins: Mapping[str, NDArray[np.integer]]) -> NDArray[np.int64]:
        """Add up the points of each row (n,) from its bin in every column."""
        if not self.columns:
            raise ValueError("a scorecard without columns cannot tell how many rows there are")
        parts = [_points_of(column, bins[column.name]) for column in self.columns]
        if len({part.shape for part in parts}) != 1:
            raise ValueError("the columns are of different lengths")
        total = np.full(parts[0].shape, self.base, dtype=np.int64)
        for part in parts:
            total += part
        return total

    def to_json(self) -> str:
        """Text that `from_json` turns into an equal scorecard."""
        return json.dumps(asdict(self), ensure_ascii=True, allow_nan=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Scorecard":
        """Inverse of `to_json`; ValueError for anything else, also for the same facts written otherwise."""
        try:
            raw = json.loads(text)
            keys = ("base_score", "base_odds", "points_to_double")
            scale = Scale(*(float(raw["scale"][key]) for key in keys))
            columns = tuple(
                ColumnPoints(str(c["name"]), tuple(map(int, c["points"]))) for c in raw["columns"]
            )
            card = Scorecard(scale, int(raw["base"]), columns)
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError("not a scorecard") from error
        if card.to_json() != text:
            raise ValueError("not a scorecard in its one form")
        return card


def weigh_evidence(totals: Totals, smoothing: float = 0.0) -> Evidence:
    """Compare events and others per bin: woe = ln(share of all events / share of all others).

    smoothing : imagined rows per bin that respond at the average rate; they draw WoE towards 0, and to 0 where
        a bin has no rows. With 0, bins must hold at least one event and one other.
    """
    events, others = int(totals.events.sum()), int(totals.others.sum())
    if not events or not others:
        raise ValueError("both labels must occur")
    if not 0 <= smoothing < math.inf:
        raise ValueError(f"smoothing is {smoothing}, it must be zero or more")
    rate = events / (events + others)
    event_rows = totals.events + smoothing * rate
    other_rows = totals.others + smoothing * (1 - rate)
    if not ((event_rows > 0) & (other_rows > 0)).all():
        raise ValueError("a bin without an event or without another row needs smoothing, or a merge")
    event_share, other_share = event_rows / event_rows.sum(), other_rows / other_rows.sum()
    woe = np.log(event_share / other_share)
    return Evidence(woe, (event_share - other_share) * woe)


def stability_index(before: ArrayLike, after: ArrayLike, smoothing: float = 0.5) -> float:
    """Measure how far a column's rows per bin moved from one population to another (PSI): 0 or more.

    By rule of thumb, below .1 is stable and above .25 is not. Symmetric.
    smoothing : imagined rows added to each bin of both; with 0, no bin may be empty
    """
    counts = [np.asarray(c, dtype=np.float64) for c in (before, after)]
    if counts[0].ndim != 1 or counts[0].shape != counts[1].shape:
        raise ValueError("both populations must be counted in the same bins")
    if not all(np.isfinite(c).all() and (c >= 0).all() and c.sum() > 0 for c in counts):
        raise ValueError("counts must be zero or more, and each population must have rows")
    if not 0 <= smoothing < math.inf or not all((c + smoothing > 0).all() for c in counts):
        raise ValueError("an empty bin needs smoothing above 0")
    old, new = ((c + smoothing) / (c + smoothing).sum() for c in counts)
    return float(np.sum((new - old) * np.log(new / old)))


def select(candidates: Sequence[Candidate], correlation: Floats, limits: Limits | None = None) -> Selection:
    """Choose columns one by one from the highest information value down, each if the limits let it.

    correlation : (d, d) of the candidates' WoE columns, in their order, 0 for a column of one bin; of a pair
        above the limit the one with the higher information value stays, and of equals the first
    """
    limits = limits or Limits()
    if correlation.shape != (len(candidates),) * 2 or not np.isfinite(correlation).all():
        raise ValueError(f"correlation must be finite and ({len(candidates)}, {len(candidates)})")
    if not all(math.isfinite(c.information_value) and math.isfinite(c.stability) for c in candidates):
        raise ValueError("information values and stability indices must be finite")
    kept: list[int] = []
    dropped: list[Dropped] = []
    for at in sorted(range(len(candidates)), key=lambda i: (-candidates[i].information_value, i)):
        reason = _unfit(candidates[at], limits)
        rivals = [k for k in kept if abs(correlation[at, k]) > limits.correlation]
        if reason is None and rivals:
            nearest = max(rivals, key=lambda k: abs(correlation[at, k]))
            reason = f"correlated with {candidates[nearest].name!r}"
        if reason is None:
            kept.append(at)
        else:
            dropped.append(Dropped(candidates[at].name, reason))
    return Selection(tuple(candidates[k].name for k in kept), tuple(dropped))


def assign_points(weights: Weights, woe: Mapping[str, Floats], scale: Scale | None = None) -> Scorecard:
    """Write a logistic model on WoE columns as whole points per bin.

    woe : (bins,) per column, in the order of the model's coefficients. Each column and the base are rounded
    by themselves, so a score is off the model's by at most half a point per column and half for the base.
    """
    scale = scale or Scale()
    if len(weights.coefficients) != len(woe):
        raise ValueError(f"the model has {len(weights.coefficients)} columns, WoE is given for {len(woe)}")
    columns = tuple(
        ColumnPoints(name, tuple(_whole(scale.factor * float(weight) * values)))
        for (name, values), weight in zip(woe.items(), weights.coefficients, strict=True)
    )
    (base,) = _whole(np.array([scale.offset + scale.factor * weights.intercept]))
    return Scorecard(scale, base, columns)


def spread_base(card: Scorecard) -> Scorecard:
    """Share out the base points over the columns as evenly as whole points allow; no row's score changes."""
    if not card.columns:
        return card
    each, rest = divmod(card.base, len(card.columns))
    columns = tuple(
        ColumnPoints(column.name, tuple(points + each + (i < rest) for points in column.points))
        for i, column in enumerate(card.columns)
    )
    return Scorecard(card.scale, 0, columns)


def _unfit(candidate: Candidate, limits: Limits) -> str | None:
    if candidate.information_value < limits.information_from:
        return f"information value under {limits.information_from:g}"
    if candidate.information_value > limits.information_to:
        return f"information value above {limits.information_to:g}"
    if candidate.stability > limits.stability:
        return f"stability index above {limits.stability:g}"
    return None


def _whole(points: Floats) -> list[int]:
    """Round to the nearest whole number, halves to the even one."""
    if not np.isfinite(points).all():
        raise ValueError("weights and WoE must be finite")
    return [int(p) for p in np.rint(points)]


def _points_of(column: ColumnPoints, bins: NDArray[np.integer]) -> NDArray[np.int64]:
    if bins.ndim != 1 or (len(bins) and not 0 <= bins.min() <= bins.max() < len(column.points)):
        raise ValueError(f"a row of {column.name!r} is in none of its {len(column.points)} bins")
    return np.take(np.array(column.points, dtype=np.int64), bins)
