"""How well predicted numbers and counts fit: share of variance explained, error, and the deviance of counts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ValueFit:
    """One model's predictions on one set of rows.

    r2 : share of the label's variance that is explained; rmse : root of the mean squared error, in the label's unit
    deviance : mean Poisson deviance, and `explained` its share below that of the mean; None where labels are no counts
    """

    r2: float
    rmse: float
    deviance: float | None
    explained: float | None
    mean_label: float
    mean_predicted: float
    rows: int


def evaluate_values(y: ArrayLike, predicted: ArrayLike, are_counts: bool, least: float = 1e-9) -> ValueFit:
    """Measure predictions (n,) against labels (n,), which must not all be alike.

    are_counts : labels are counts, so that their deviance means something; least : predictions of counts below it are
    taken for it, since a rounded score of 0 would say that no count can be above 0.
    """
    labels, found = np.asarray(y, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != found.shape or not len(labels):
        raise ValueError(
            f"labels {labels.shape} and predictions {found.shape} must be two vectors of one length"
        )
    if not (np.isfinite(labels).all() and np.isfinite(found).all()):
        raise ValueError("labels and predictions must be finite")
    variance, error = float(np.var(labels)), float(np.mean(np.square(found - labels)))
    if not variance > 0:
        raise ValueError("all labels are alike")
    deviance = explained = None
    if are_counts:
        deviance = poisson_deviance(labels, np.maximum(found, least))
        explained = 1 - deviance / poisson_deviance(labels, np.full(len(labels), labels.mean()))
    return ValueFit(
        1 - error / variance,
        error**0.5,
        deviance,
        explained,
        float(labels.mean()),
        float(found.mean()),
        len(labels),
    )


def poisson_deviance(y: Floats, mean: Floats) -> float:
    """Return the mean Poisson deviance of counts `y` (n,) under expected counts `mean` (n,), all above zero."""
    if y.min() < 0 or not mean.min() > 0:
        raise ValueError("counts are zero or more, expected counts above zero")
    ratio = np.where(y > 0, y, 1.0) / np.where(y > 0, mean, 1.0)
    return float(2 * np.mean(y * np.log(ratio) - y + mean))
