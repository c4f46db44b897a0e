"""Joint models as they are trained without protection, on the rows of the same run: what the attacks work on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EMBEDDED = 8
"""Numbers that a partner's network sends for each row."""


@dataclass(frozen=True)
class SplitLearning:
    """A split network after training: what crosses the cut in clear.

    embeddings : (n, EMBEDDED), partner to bank; gradients : of the loss by these, bank to partner, in the last pass
    """

    embeddings: Floats
    gradients: Floats


def split_learning(
    bank: Floats, partner: Floats, label: Floats, random: np.random.Generator, passes: int = 60
) -> SplitLearning:
    """Train tanh(partner's columns W) and a logistic top over it and the bank's columns, by whole-batch descent."""
    n, width = partner.shape
    bottom = random.standard_normal((width, EMBEDDED)) / np.sqrt(width)
    top = random.standard_normal(EMBEDDED + bank.shape[1] + 1) * 0.3
    own = np.column_stack([bank, np.ones(n)])
    embeddings = gradients = np.empty((n, EMBEDDED))
    for _ in range(passes):
        embeddings = np.tanh(partner @ bottom)
        inputs = np.column_stack([embeddings, own])
        residual = sigmoid(inputs @ top) - label
        gradients = residual[:, None] * top[:EMBEDDED]
        bottom -= 2.0 * partner.T @ (gradients * (1 - embeddings**2)) / n
        top -= 2.0 * inputs.T @ residual / n
    return SplitLearning(embeddings, gradients)


def sigmoid(x: Floats) -> Floats:
    """Compute 1 / (1 + e^-x)."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -40, 40))), np.float64)


def logistic(x: Floats, label: Floats, passes: int = 8) -> Floats:
    """Fit a logistic regression by Newton's method, (columns + 1,), the intercept last."""
    inputs = np.column_stack([x, np.ones(len(x))])
    weights = np.zeros(inputs.shape[1])
    for _ in range(passes):
        p = sigmoid(inputs @ weights)
        curvature = (inputs * (p * (1 - p))[:, None]).T @ inputs + np.eye(len(weights))
        weights += np.linalg.solve(curvature, inputs.T @ (label - p) - weights)
    return weights


def network(
    x: Floats, y: Floats, at: Floats, random: np.random.Generator, hidden: int = 16, passes: int = 200
) -> Floats:
    """Predict y, (n, k), by a network with one layer of tanh, trained by Adam with weight decay on known rows."""
    level, scale = y.mean(axis=0), np.maximum(y.std(axis=0), 1e-9)
    target = (y - level) / scale
    weights = [
        random.standard_normal((x.shape[1] + 1, hidden)) / np.sqrt(x.shape[1] + 1),
        random.standard_normal((hidden + 1, y.shape[1])) * 0.1,
    ]
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
    inputs = np.column_stack([x, np.ones(len(x))])
    for step in range(1, passes + 1):
        inside = np.column_stack([np.tanh(inputs @ weights[0]), np.ones(len(x))])
        off = (inside @ weights[1] - target) / len(x)
        back = (off @ weights[1][:-1].T) * (1 - inside[:, :-1] ** 2)
        for i, slope in enumerate((inputs.T @ back, inside.T @ off)):
            slope += 3e-2 * weights[i]
            first, second = (0.9 * moments[i][0] + 0.1 * slope, 0.99 * moments[i][1] + 0.01 * slope**2)
            moments[i] = first, second
            weights[i] -= 0.02 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    beside = np.column_stack(
        [np.tanh(np.column_stack([at, np.ones(len(at))]) @ weights[0]), np.ones(len(at))]
    )
    return np.asarray(beside @ weights[1] * scale + level, np.float64)


def completed(x: Floats, y: Floats, known: NDArray[np.bool_], rounds: int = 3, trust: float = 0.2) -> Floats:
    """Score all rows by ridge regression from a few known labels, which then label others: self-training.

    In each round the rows of highest score, as many as the known share of ones, count as ones, and the lower half as
    zeros, with the weight `trust`.
    """
    score, share = ridge(x[known], y[known], x, 30.0), float(y[known].mean())
    for _ in range(rounds):
        high, low = np.quantile(score, 1 - share), np.median(score)
        taken = known | (score >= high) | (score <= low)
        root = np.sqrt(np.where(known, 1.0, trust))[taken, None]
        target = np.where(known, y, score >= high).astype(np.float64)[taken, None]
        inputs = np.column_stack([x, np.ones(len(x))])
        some = inputs[taken] * root
        found = np.linalg.solve(some.T @ some + 30.0 * np.eye(some.shape[1]), some.T @ (target * root))
        score = (inputs @ found)[:, 0]
    return score


def ridge(x: Floats, y: Floats, at: Floats, penalty: float = 1.0) -> Floats:
    """Predict y, (n,) or (n, k), by ridge regression from known rows x for the rows `at`."""
    center, level = x.mean(axis=0), y.mean(axis=0)
    x, at = x - center, at - center
    found = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - level))
    return np.asarray(at @ found + level, np.float64)
