"""Labels from gradients: what a partner reads off the numbers that it is sent for rows, or for its own columns.

Row 1, Li et al. 2021: norm, and cosine to that of one known responder, of the gradient at the cut layer.
Row 3, direct label inference: the sign of a row's gradient. Row 4, residue reconstruction (Tan 2022, Weng 2020): the
residuals of a minibatch as the least-norm solution of X'r = g, for a partner that is shown g of its own columns.

Here the attacker tries every array that the partner received, each with its own of the same step added to it, and
what changed since the last one of its kind (a mask that served twice falls out). It chooses the best by the labels of
half of the rows, and is measured on the other half; so is a regression on all arrays together. The coordinator's view
is tried like a partner's. Undefended: a split network and a logistic regression, trained in clear on the rows of the
same run.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.attacks.shown import arrays_of_rows, evenly, views_but
from fedmkt.attack_lab.controls import logistic, ridge, sigmoid, split_learning
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit, auc_error
from fedmkt.attack_lab.subject import Subject, gained
from fedmkt.attack_lab.views import arrays_of
from fedmkt.learn.metrics import auc
from fedmkt.simulation.compare import load_side

Floats = NDArray[np.float64]
_BATCH = 32
_PASSES = 20
_READ = 0.95
"""Balanced accuracy from which a label counts as read."""
_SAME = 0.99
"""Cosine from which two directions are the same: eight numbers of one sign already have .9 with eight others."""
_WIDTH = 500
"""Numbers of each row of which a regression is made."""


def norm_and_cosine(subject: Subject, effort: Effort) -> Finding:
    """Row 1: AUC of the better of both on rows that did not choose it."""
    label = subject.labels
    chooses = effort.random.random(len(label)) < 0.5
    known = int(np.flatnonzero(chooses & (label == 1))[0])
    control = split_learning(*_sides(subject), label, effort.random)
    undefended = max(gained(label[~chooses], s[~chooses]) for s in _guesses(control.gradients, known))
    found: dict[str, float] = {}
    count = 0
    for viewer in (subject.partner, *views_but(subject, [p.name for p in subject.config.parties])):
        matrices = arrays_of_rows(subject, viewer)
        tried = [s for matrix in matrices for s in _guesses(matrix, known)]
        count += len(tried)
        found[viewer] = max(_chosen(tried, label, chooses), _together(matrices, label, chooses))
    return Finding(
        1, "label by gradient norm, cosine", "leak AUC", undefended, max(found.values()), Limit(0.55),
        f"{count} arrays of train rows tried, and all together; "
        + ", ".join(f"{viewer} {figure:.3f}" for viewer, figure in found.items()),
        guess=0.5, error=auc_error(label), quality=subject.quality,
    )  # fmt: skip


def sign(subject: Subject, effort: Effort) -> Finding:
    """Row 3: of how many rows the partner reads the label off the sign of a number it holds for each."""
    label, partner = subject.labels, subject.partner
    gradients = split_learning(*_sides(subject), label, effort.random).gradients
    right = max(_agreement(column, label) for column in gradients.T)
    kept = [a for moment in subject.views.of(partner) for state in moment.kept for a in arrays_of(state)]
    matrices = arrays_of_rows(subject, partner) + evenly(
        [m for a in kept if (m := subject.by_row(a)) is not None]
    )
    best = max((_agreement(column, label) for matrix in matrices for column in matrix.T), default=0.5)
    return Finding(
        3, "label by sign of a gradient", "rows read", float(len(label) * (right > _READ)),
        float(len(label) * (best > _READ)), Limit(0),
        f"{len(matrices)} arrays of train rows, received or kept; best balanced accuracy of a sign {best:.2f}, "
        f"undefended {right:.2f}",
    )  # fmt: skip


def _agreement(values: Floats, label: Floats) -> float:
    """Balanced accuracy of a sign, whichever way."""
    positive = values > 0
    found = (positive[label == 1].mean() + (~positive[label == 0]).mean()) / 2
    return float(max(found, 1 - found))


def residues(subject: Subject, effort: Effort) -> Finding:
    """Row 4: how many gradients of the partner's own columns it was sent in clear."""
    label = subject.labels
    bank, partner = _sides(subject)
    joint = np.column_stack([bank, partner, np.ones(len(label))])
    weights = logistic(joint[:, :-1], label)
    residual = sigmoid(joint @ (weights / 2)) - label  # in the middle of training
    guessed = np.zeros(len(label))
    batches = np.array_split(effort.random.permutation(len(label)), len(label) // _BATCH)
    for batch in batches:
        guessed[batch] = -np.linalg.pinv(partner[batch].T) @ (partner[batch].T @ residual[batch])
    own = _prepared(subject, partner)
    path = [own.T @ (sigmoid(joint @ (weights * t)) - label) for t in np.linspace(0, 1, _PASSES)]
    # Steps are sums of gradients, which all lie near one plane.
    plane = np.linalg.svd(np.stack(path), full_matrices=False)[2][:2]
    tried = list(_as_long_as(subject, own.shape[1]))
    read = sum(
        any(_cosine(array, gradient) > _SAME for gradient in path)
        or _cosine(array, plane.T @ (plane @ array)) > _SAME
        for array in tried
    )
    return Finding(
        4, "gradients of own columns", "opened", float(len(batches)), float(read), Limit(0),
        f"{len(tried)} arrays as long as the partner's columns tried; where each batch of {_BATCH} is opened, "
        f"least-norm residuals give the label with AUC {gained(label, guessed):.2f}",
    )  # fmt: skip


def _prepared(subject: Subject, plain: Floats) -> Floats:
    """Return the partner's matrix as the passes have it: prepared and whitened; trees have none."""
    if subject.is_trees:
        return plain
    bank = subject.model(subject.bank) if subject.contract.align.hidden else None
    side = load_side(subject.model(subject.partner), subject.tables[subject.partner], bank)
    return side.train @ side.transform


def _as_long_as(subject: Subject, width: int) -> Iterator[Floats]:
    """Give every short array that the partner received of as many numbers as it has columns."""
    for _, array in subject.views.received(subject.partner):
        if width in array.shape and array.size <= 4 * width and array.dtype.kind in "uif":
            matrix = array.reshape(-1, width) if array.shape[-1] == width else array.reshape(width, -1).T
            if matrix.dtype.kind == "u":
                matrix = np.ascontiguousarray(matrix).view(f"i{matrix.dtype.itemsize}")
            yield from np.nan_to_num(matrix.astype(np.float64))


def _cosine(one: Floats, other: Floats) -> float:
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return abs(float(one @ other)) / scale if scale else 0.0


def _sides(subject: Subject) -> tuple[Floats, Floats]:
    bank, partner = subject.bank, subject.partner
    return tuple(subject.features(p, subject.rows(p, "train")) for p in (bank, partner))  # type: ignore[return-value]


def _guesses(matrix: Floats, known: int) -> Iterator[Floats]:
    """Norm and cosine of each row, cosine to the known responder's; of single numbers the number itself."""
    norms = np.sqrt((matrix**2).sum(axis=1))
    yield norms
    yield (
        matrix @ matrix[known] / np.maximum(norms * norms[known], 1e-300)
        if matrix.shape[1] > 1
        else matrix[:, 0]
    )


def _chosen(tried: list[Floats], label: Floats, chooses: NDArray[np.bool_]) -> float:
    """AUC of the guess that is best on one half of the rows, on the other half; mean of both ways round."""
    if not tried:
        return 0.5
    found = []
    for half in (chooses, ~chooses):
        signed = [auc(label[half], guess[half]) for guess in tried]
        best = int(np.argmax(np.abs(np.array(signed) - 0.5)))
        there = auc(label[~half], tried[best][~half])
        found.append(there if signed[best] > 0.5 else 1 - there)
    return float(np.mean(found))


def _together(matrices: list[Floats], label: Floats, chooses: NDArray[np.bool_]) -> float:
    """AUC of a ridge regression on all numbers of a row, fitted to one half of the rows, on the other."""
    if not matrices:
        return 0.5
    every = np.concatenate(matrices, axis=1)
    every = every[:, np.unique(np.linspace(0, every.shape[1] - 1, _WIDTH).astype(int))]
    every = every / np.maximum(np.abs(every).max(axis=0), 1e-300)
    found = [
        auc(label[~half], ridge(every[half], label[half], every[~half], every.shape[1]))
        for half in (chooses, ~chooses)
    ]
    return float(np.mean(found))
