"""How well scores rank and predict: AUC, KS, Brier, log loss, calibration, gains and lift by decile.

Scores may be heavily tied (released scores have two decimals), so every measure first groups the rows by
score. One sort serves all of them, and a million rows take about a quarter of a second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Random = Callable[[int], bytes]
"""`random(n)` returns n fresh bytes: as in `fedmkt.crypto.prg`, which this layer may not import."""

_GROUPS = 2048
_EPSILON = float(np.finfo(np.float64).eps)
_NORMAL_975 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Points of a curve from (0, 0) to (1, 1), both coordinates rising."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of similar prediction: what was predicted and what happened."""

    predicted: float
    observed: float
    rows: int


@dataclass(frozen=True)
class Decile:
    """A tenth of the rows by score, 1 = highest.

    responders : expected number under random order within equal scores, hence not always whole
    gain : share of all responders in this decile and those above it
    lift : rate of this decile over the rate of all rows
    """

    decile: int
    rows: int
    responders: float
    rate: float
    gain: float
    lift: float


@dataclass(frozen=True)
class Histogram:
    """Rows by predicted probability, in bins of equal width over [0, 1], by label."""

    responders: tuple[int, ...]
    others: tuple[int, ...]


@dataclass(frozen=True)
class Metrics:
    """Everything the report says about one model on one set of rows; the interval is 95 %, bootstrapped."""

    auc: float
    auc_low: float
    auc_high: float
    ks: float
    brier: float
    log_loss: float
    calibration: tuple[CalibrationBin, ...]
    deciles: tuple[Decile, ...]
    rows: int
    responders: int

    @property
    def top_lift(self) -> float:
        """Lift of the first decile: how many times the average rate its rows respond."""
        return self.deciles[0].lift


@dataclass(frozen=True)
class _Groups:
    """Rows grouped by equal score, highest first: counts of both labels."""

    positives: Floats
    negatives: Floats

    @property
    def rows(self) -> Floats:
        return self.positives + self.negatives


def evaluate(y: ArrayLike, p: ArrayLike, random: Random) -> Metrics:
    """Measure predicted probabilities `p` (n,) against labels `y` (n,) of 0 and 1; both labels must occur."""
    labels, predicted = _checked(y, p)
    _check_probabilities(predicted)
    order = _order(predicted)
    groups = _grouped(labels[order], predicted[order])
    area, interval = _auc(groups), _bootstrap(groups, random, 200)
    return Metrics(
        auc=area,
        auc_low=interval.low,
        auc_high=interval.high,
        ks=_ks(groups),
        brier=float(np.mean((predicted - labels) ** 2)),
        log_loss=_log_loss(labels, predicted),
        calibration=_calibration(labels[order], predicted[order], 10),
        deciles=_deciles(groups),
        rows=len(labels),
        responders=int(labels.sum()),
    )


def auc(y: ArrayLike, s: ArrayLike) -> float:
    """Chance that a random responder scores above a random other row, ties counting half (Mann-Whitney)."""
    return _auc(_sorted(y, s))


def auc_interval(y: ArrayLike, s: ArrayLike, random: Random, repeats: int = 200) -> Interval:
    """Bootstrap the AUC, resampling each label apart; returns the 2.5 and 97.5 % points.

    Exact up to 2,048 distinct scores. Beyond that, neighbouring scores are resampled together, and the
    order within a group stays as observed: its share of the variance is about one in 2,048.
    """
    return _bootstrap(_sorted(y, s), random, repeats)


def auc_gain_interval(y: ArrayLike, before: ArrayLike, after: ArrayLike) -> Interval:
    """Bound AUC(after) - AUC(before) on the same rows (DeLong, DeLong and Clarke-Pearson 1988).

    Two models on the same rows err together, so this is much narrower than their two intervals suggest.
    """
    labels, first = _checked(y, before)
    _, second = _checked(y, after)
    is_positive = labels == 1
    difference = _placements(is_positive, second) - _placements(is_positive, first)
    variance = sum(
        float(np.var(part, ddof=1)) / len(part) if len(part) > 1 else 0.25
        for part in (difference[is_positive], difference[~is_positive])
    )
    gain, margin = float(np.mean(difference[is_positive])), _NORMAL_975 * variance**0.5
    return Interval(gain - margin, gain + margin)


def ks(y: ArrayLike, s: ArrayLike) -> float:
    """Largest gap between the score distributions of the two labels (Kolmogorov-Smirnov)."""
    return _ks(_sorted(y, s))


def brier(y: ArrayLike, p: ArrayLike) -> float:
    """Mean squared distance between prediction and label."""
    labels, predicted = _checked(y, p)
    _check_probabilities(predicted)
    return float(np.mean((predicted - labels) ** 2))


def log_loss(y: ArrayLike, p: ArrayLike) -> float:
    """Mean negative log likelihood in nats; predictions are kept one float64 step away from 0 and 1."""
    labels, predicted = _checked(y, p)
    _check_probabilities(predicted)
    return _log_loss(labels, predicted)


def calibration_table(y: ArrayLike, p: ArrayLike, bins: int = 10) -> tuple[CalibrationBin, ...]:
    """Compare prediction with outcome in up to `bins` groups of equal size, lowest first.

    Equal predictions stay in one group, that of their middle rank, so tied predictions give fewer groups.
    """
    labels, predicted = _checked(y, p)
    _check_probabilities(predicted)
    if bins < 1:
        raise ValueError(f"bins is {bins}, at least 1 is needed")
    order = _order(predicted)
    return _calibration(labels[order], predicted[order], bins)


def calibration_error(table: Sequence[CalibrationBin]) -> float:
    """Return the mean gap between prediction and outcome over the rows of all groups (ECE, Naeini et al. 2015)."""
    rows = sum(group.rows for group in table)
    return sum(group.rows * abs(group.predicted - group.observed) for group in table) / rows


def decile_table(y: ArrayLike, s: ArrayLike) -> tuple[Decile, ...]:
    """Cut the rows into ten by score; a tie across a cut is shared out in proportion."""
    return _deciles(_sorted(y, s))


def roc_curve(y: ArrayLike, s: ArrayLike, points: int = 200) -> Curve:
    """Share of responders (y) against share of others (x) at or above each score, at most `points` points."""
    groups = _sorted(y, s)
    return _curve(_share(groups.negatives), _share(groups.positives), points)


def gains_curve(y: ArrayLike, s: ArrayLike, points: int = 200) -> Curve:
    """Share of responders found (y) when the best-scored share of rows (x) is contacted."""
    groups = _sorted(y, s)
    return _curve(_share(groups.rows), _share(groups.positives), points)


def score_histogram(y: ArrayLike, p: ArrayLike, bins: int = 25) -> Histogram:
    """Count rows by prediction and label in `bins` bins of equal width."""
    labels, predicted = _checked(y, p)
    _check_probabilities(predicted)
    # A two-decimal score on a bin border must not fall to either side by rounding, hence the nudge.
    place = np.minimum((predicted * bins + 1e-9).astype(np.int64), bins - 1)
    all_rows = np.bincount(place, minlength=bins)
    responders = np.bincount(place[labels == 1], minlength=bins)
    return Histogram(tuple(responders.tolist()), tuple((all_rows - responders).tolist()))


def _checked(y: ArrayLike, s: ArrayLike) -> tuple[Floats, Floats]:
    labels, scores = np.asarray(y, dtype=np.float64), np.asarray(s, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be two vectors of one length")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    positives = np.count_nonzero(labels == 1)
    if positives + np.count_nonzero(labels == 0) != len(labels):
        raise ValueError("labels must be 0 or 1")
    if positives in (0, len(labels)):
        raise ValueError(f"both labels must occur; {positives} of {len(labels)} rows are responders")
    return labels, scores


def _check_probabilities(p: Floats) -> None:
    if p.min() < 0 or p.max() > 1:
        raise ValueError("predictions must lie in [0, 1]")


def _order(s: Floats) -> NDArray[np.int64]:
    return np.argsort(-s).astype(np.int64, copy=False)


def _sorted(y: ArrayLike, s: ArrayLike) -> _Groups:
    labels, scores = _checked(y, s)
    order = _order(scores)
    return _grouped(labels[order], scores[order])


def _grouped(labels: Floats, scores: Floats) -> _Groups:
    starts = np.flatnonzero(np.concatenate(([True], scores[1:] != scores[:-1])))
    positives = np.add.reduceat(labels, starts)
    return _Groups(positives, np.diff(starts, append=len(labels)) - positives)


def _auc(groups: _Groups) -> float:
    above = np.cumsum(groups.positives) - groups.positives / 2
    return float(above @ groups.negatives / (groups.positives.sum() * groups.negatives.sum()))


def _bootstrap(groups: _Groups, random: Random, repeats: int) -> Interval:
    if repeats < 2:
        raise ValueError(f"repeats is {repeats}, at least 2 are needed")
    coarse, inner = _coarsened(groups)
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(random(16), "big")))
    total_positive, total_negative = int(coarse.positives.sum()), int(coarse.negatives.sum())
    positives = generator.multinomial(total_positive, coarse.positives / total_positive, size=repeats)
    negatives = generator.multinomial(total_negative, coarse.negatives / total_negative, size=repeats)
    above = np.cumsum(positives, axis=1) - positives * (1 - inner)
    areas = np.einsum("rg,rg->r", above, negatives.astype(np.float64)) / (total_positive * total_negative)
    low, high = np.quantile(areas, (0.025, 0.975))
    return Interval(float(low), float(high))


def _coarsened(groups: _Groups) -> tuple[_Groups, Floats]:
    """Merge neighbours down to `_GROUPS` groups of similar size; with the AUC inside each merged group."""
    if len(groups.positives) <= _GROUPS:
        return groups, np.full(len(groups.positives), 0.5)
    rows = groups.rows
    place = ((np.cumsum(rows) - rows / 2) * (_GROUPS / rows.sum())).astype(np.int64)
    starts = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1])))
    coarse = _Groups(np.add.reduceat(groups.positives, starts), np.add.reduceat(groups.negatives, starts))
    above = np.cumsum(groups.positives) - groups.positives / 2
    won = np.add.reduceat(above * groups.negatives, starts)
    before = np.cumsum(coarse.positives) - coarse.positives
    pairs = coarse.positives * coarse.negatives
    inner = np.divide(won - before * coarse.negatives, pairs, out=np.full(len(pairs), 0.5), where=pairs > 0)
    return coarse, inner


def _placements(is_positive: NDArray[np.bool_], s: Floats) -> Floats:
    """Per row, the share of the other label's rows that it is on the right side of, ties counting half."""
    out = np.empty(len(s))
    positives, negatives = np.sort(s[is_positive]), np.sort(s[~is_positive])
    out[is_positive] = _rank_share(negatives, s[is_positive])
    out[~is_positive] = 1 - _rank_share(positives, s[~is_positive])
    return out


def _rank_share(reference: Floats, s: Floats) -> Floats:
    # Searching for sorted values walks the reference in order: ten times faster at a million rows.
    order = np.argsort(s)
    below = np.searchsorted(reference, s[order], "left") + np.searchsorted(reference, s[order], "right")
    out = np.empty(len(s))
    out[order] = below / (2 * len(reference))
    return out


def _ks(groups: _Groups) -> float:
    return float(np.max(np.abs(_share(groups.positives) - _share(groups.negatives))))


def _share(counts: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(counts) / counts.sum()))


def _log_loss(labels: Floats, predicted: Floats) -> float:
    clipped = np.clip(predicted, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.log(np.where(labels == 1, clipped, 1 - clipped))))


def _calibration(labels: Floats, predicted: Floats, bins: int) -> tuple[CalibrationBin, ...]:
    """Bin rows that come sorted by prediction, highest first."""
    n = len(labels)
    starts = np.flatnonzero(np.concatenate(([True], predicted[1:] != predicted[:-1])))
    sizes = np.diff(starts, append=n)
    place = np.repeat(((starts + sizes / 2) * (bins / n)).astype(np.int64), sizes)
    rows = np.bincount(place, minlength=bins)
    predictions = np.bincount(place, predicted, minlength=bins)
    outcomes = np.bincount(place, labels, minlength=bins)
    return tuple(
        CalibrationBin(float(predictions[b] / rows[b]), float(outcomes[b] / rows[b]), int(rows[b]))
        for b in reversed(range(bins))
        if rows[b]
    )


def _deciles(groups: _Groups) -> tuple[Decile, ...]:
    n, total = int(groups.rows.sum()), float(groups.positives.sum())
    cuts = np.round(np.arange(11) * (n / 10))
    # Between the ends of two groups the responders are taken to come evenly: the tie is shared in proportion.
    found = np.interp(cuts, np.concatenate(([0.0], np.cumsum(groups.rows))), _share(groups.positives)) * total
    table = []
    for d in range(10):
        rows, responders = int(cuts[d + 1] - cuts[d]), float(found[d + 1] - found[d])
        rate = responders / rows if rows else 0.0
        table.append(Decile(d + 1, rows, responders, rate, float(found[d + 1] / total), rate * n / total))
    return tuple(table)


def _curve(x: Floats, y: Floats, points: int) -> Curve:
    if points < 2:
        raise ValueError(f"points is {points}, at least 2 are needed")
    if len(x) > points:
        # Evenly along the curve, not along x: the steep start is where a marketer looks.
        length = x + y
        kept = np.searchsorted(length, np.linspace(0, length[-1], points)).clip(0, len(x) - 1)
        kept = np.unique(np.concatenate(([0], kept[1:-1], [len(x) - 1])))
        x, y = x[kept], y[kept]
    return Curve(tuple(np.round(x, 5).tolist()), tuple(np.round(y, 5).tolist()))
