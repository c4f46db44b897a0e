"""Shadow models (row 22): whether the joint model's answer for a row is one of a model that trained with it.

The attacker has all rows and the way of training, and trains models of its own on random halves of the rows, in pairs
of complements, so that each row is in half of them. Of each row the log odds of the right answer have a mean with the
row and one without it, and spreads that all rows share. The joint model's answer is held against both: by the ratio of
two normal densities, and by how far it is above their middle, which also works where the joint model trained on
another number of rows. The better counts.

Source: Carlini et al. 2022 (Membership Inference Attacks From First Principles), online form, with shared variances;
Watson et al. 2022 (On the Importance of Difficulty Calibration), for the middle.
"""

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.controls import logistic, sigmoid
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.subject import Subject
from fedmkt.learn.metrics import auc

Floats = NDArray[np.float64]


def likelihood(
    subject: Subject, train: Floats, held_out: Floats, rows: dict[str, Floats], effort: Effort
) -> float:
    """AUC for who trained of the better of both readings, by the joint scores of both kinds of rows.

    rows : everybody's columns of "train" and "held_out"
    """
    x = np.concatenate([rows["train"], rows["held_out"]])
    y = np.concatenate([subject.labels, subject.held_out_labels])
    inside: list[Floats] = []
    outside: list[Floats] = []
    for _ in range(effort.shadows // 2):
        half = np.zeros(len(x), np.bool_)
        half[effort.random.permutation(len(x))[: len(x) // 2]] = True
        one, other = (_confidence(_scores(subject, x, y, h, effort), y) for h in (half, ~half))
        inside.append(np.where(half, one, other))
        outside.append(np.where(half, other, one))
    shown = _confidence(np.concatenate([train, held_out]), y)
    density = [_density(shown, np.stack(with_row)) for with_row in (inside, outside)]
    middle = np.mean([*inside, *outside], axis=0)
    trained = np.concatenate([np.ones(len(train)), np.zeros(len(held_out))])
    return max(auc(trained, density[0] - density[1]), auc(trained, shown - middle))


def _scores(subject: Subject, x: Floats, y: Floats, half: NDArray[np.bool_], effort: Effort) -> Floats:
    """Train a shadow model of the run's kind on half of the rows; score all."""
    if not subject.is_trees:
        weights = logistic(x[half], y[half])
        return sigmoid(x @ weights[:-1] + weights[-1])
    from sklearn.ensemble import HistGradientBoostingClassifier

    terms, model = subject.contract.trees, subject.header(subject.bank)
    trees = len(dict(model["outline"])["trees"])  # type: ignore[call-overload]
    fitted = HistGradientBoostingClassifier(
        max_iter=max(1, trees), max_depth=terms.depth, learning_rate=terms.rate, min_samples_leaf=terms.min_rows,
        early_stopping=False, random_state=int(effort.random.integers(1 << 31)),
    ).fit(x[half], y[half])  # fmt: skip
    return np.asarray(fitted.predict_proba(x)[:, 1], np.float64)


def _confidence(score: Floats, y: Floats) -> Floats:
    right = np.where(y > 0.5, score, 1 - score).clip(1e-4, 1 - 1e-4)
    return np.asarray(np.log(right / (1 - right)), np.float64)


def _density(shown: Floats, shadows: Floats) -> Floats:
    """Log of a normal density at each row's answer; shadows : (k, rows)."""
    center = shadows.mean(axis=0)
    spread = max(float(np.sqrt(((shadows - center) ** 2).sum() / max(1, shadows.size - len(center)))), 1e-6)
    return np.asarray(-((shown - center) ** 2) / (2 * spread**2) - np.log(spread), np.float64)
