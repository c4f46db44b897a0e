"""From released scores to probabilities and deciles.

Released scores have two decimals, so at most 101 values: a smooth curve through two numbers (Platt 1999)
is steadier there than a free staircase, cannot overfit the handful of rows at the ends, and keeps the order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedmkt.learn.glm import fit_logistic, sigmoid

Floats = NDArray[np.float64]

SCORE_STEP = 0.01


@dataclass(frozen=True)
class Calibration:
    """p = sigmoid(intercept + slope * logit(score)), slope >= 0; scores are known to within `step`."""

    intercept: float
    slope: float
    step: float = SCORE_STEP

    def apply(self, scores: ArrayLike) -> Floats:
        """Return the calibrated probability of each score (n,) in [0, 1]; equal scores stay equal."""
        return sigmoid(self.intercept + self.slope * _logit(scores, self.step))


def fit_calibration(scores: ArrayLike, y: ArrayLike, step: float = SCORE_STEP) -> Calibration:
    """Fit to held-out rows; rows that trained the model would make it too sure of itself.

    The rows that fitted a calibration cannot judge it: report calibration before it, or on other rows.
    Scores that rank no better than chance get slope 0, the average rate for everyone.
    """
    labels, x = np.asarray(y, dtype=np.float64), _logit(scores, step)
    if labels.shape != x.shape:
        raise ValueError(f"labels {labels.shape} and scores {x.shape} must be two vectors of one length")
    positives, negatives = int(np.sum(labels == 1)), int(np.sum(labels == 0))
    if positives + negatives != len(labels) or not positives or not negatives:
        raise ValueError("labels must be 0 or 1, and both must occur")
    # Platt's targets: one imagined row of each kind, so that separable scores do not give certainty.
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    weights = fit_logistic(x[:, None], target, penalty=1e-6)
    slope = float(weights.coefficients[0])
    if slope <= 0 or np.ptp(x) == 0:
        rate = float(target.mean())
        return Calibration(float(np.log(rate / (1 - rate))), 0.0, step)
    return Calibration(weights.intercept, slope, step)


def deciles(scores: ArrayLike) -> NDArray[np.int64]:
    """Return each row's decile (n,), 1 = highest.

    Equal scores get the same decile, that of their middle rank, so no customer's treatment hangs on the
    order of the file; with many ties the deciles are therefore not all of one size.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("scores must be a vector of finite numbers")
    if not len(values):
        return np.empty(0, dtype=np.int64)
    _, place, counts = np.unique(-values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    decile = np.minimum((middle * (10 / len(values))).astype(np.int64) + 1, 10)
    return np.asarray(decile[place], dtype=np.int64)


def _logit(scores: ArrayLike, step: float) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not (np.isfinite(values).all() and np.all((values >= 0) & (values <= 1))):
        raise ValueError("scores must be a vector of numbers in [0, 1]")
    if not 0 < step < 1:
        raise ValueError(f"step is {step}, it must lie between 0 and 1")
    # A score shown as 0.00 may be anything below half a step: take the quarter point, never minus infinity.
    inside = np.clip(values, step / 4, 1 - step / 4)
    return np.asarray(np.log(inside / (1 - inside)), dtype=np.float64)
