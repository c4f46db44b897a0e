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


def ridge(x: Floats, y: Floats, at: Floats, penalty: float = 1.0) -> Floats:
    """Predict y, (n,) or (n, k), by ridge regression from known rows x for the rows `at`."""
    center, level = x.mean(axis=0), y.mean(axis=0)
    x, at = x - center, at - center
    found = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - level))
    return np.asarray(at @ found + level, np.float64)
