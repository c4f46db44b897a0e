"""The partner's columns from the bank's scores.

Row 5, equation solving (Luo 2021): a score is one equation in a row's unknown columns; with the model known, one
unknown is solved. Row 6, feature inference: a bank that knows the partner's columns of a few people learns to guess
them from its own columns and all that it is given of a row. Undefended: raw scores with the model; the embedding of a
split network.
"""

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.controls import ridge, split_learning
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Subject
from fedmkt.simulation import compare_trees

Floats = NDArray[np.float64]
_KNOWN = 200
_FEW = 3


def equations(subject: Subject, effort: Effort) -> Finding:
    """Row 5: least squared error of any of the partner's numbers, as a share of that of its mean.

    The bank takes off what its own columns explain of the log odds; what is left it divides among as many columns as
    the partner has. It is told no weight of the partner's, so it takes all for alike.
    """
    columns = subject.numbers(subject.partner, subject.scored_at(subject.partner))
    own = subject.features(subject.bank, subject.scored_at(subject.bank))
    score = _log_odds(subject)
    rest = score - ridge(own, score, own)
    rest = rest / (rest.std() or 1.0)
    count = subject.features(subject.partner, subject.rows(subject.partner, "train")[:2]).shape[1]
    here = min(float(np.mean((x - rest / np.sqrt(count)) ** 2)) for x in columns.values())
    one = next(iter(columns.values()))
    known = own @ effort.random.standard_normal(own.shape[1]) * 0.2 - 2
    raw = known + one
    p = np.round(1 / (1 + np.exp(-raw)), 2).clip(0.005, 0.995)
    rounded = float(np.mean((np.log(p / (1 - p)) - known - one) ** 2))
    few = f"; a partner with fewer than {_FEW} columns is solved" if count < _FEW else ""
    return Finding(
        5, "equations solved on scores", "MSE ratio", float(np.mean((raw - known - one) ** 2)), here,
        Limit(0.9, is_least=True),
        f"worst of {len(columns)} numbers, of {count} columns; one unknown, model known: {rounded:.3f} with 2 decimals"
        f"{few}",
        declared=subject.listed("Scores"),
    )  # fmt: skip


def inference(subject: Subject, effort: Effort) -> Finding:
    """Row 6: R2 of the partner's numbers gained by what the bank is given, with 200 people known."""
    bank, partner = (subject.scored_at(p) for p in (subject.bank, subject.partner))
    own = subject.features(subject.bank, bank)
    targets = np.stack(list(subject.numbers(subject.partner, partner).values()), axis=1)
    train = subject.rows(subject.bank, "train"), subject.rows(subject.partner, "train")
    control = split_learning(
        subject.features(subject.bank, train[0]), subject.features(subject.partner, train[1]), subject.labels,
        effort.random,
    ).embeddings  # fmt: skip
    plain = np.stack(list(subject.numbers(subject.partner, train[1]).values()), axis=1)
    undefended = _gain(subject.features(subject.bank, train[0]), control, plain, effort)
    given = _log_odds(subject)[:, None]
    declared = ["Scores"]
    if "SplitSides" in {d.kind for d in subject.views.revealed(subject.bank)}:
        given = np.column_stack([given, _sides(subject)])
        declared.append("SplitSides")
    return Finding(
        6, "columns inferred from scores", "R2 gain", undefended, _gain(own, given, targets, effort), Limit(0.02),
        f"mean of {targets.shape[1]} numbers, {_KNOWN} people known, {effort.draws} draws",
        declared=subject.listed(*declared), guess=0.0, quality=subject.quality,
    )  # fmt: skip


def _log_odds(subject: Subject) -> Floats:
    """Return the released scores as log odds; those of numbers and counts as they are."""
    score = np.nan_to_num(subject.released)
    if subject.contract.model.link != "logistic":
        return score
    p = score.clip(0.005, 0.995)
    return np.asarray(np.log(p / (1 - p)), np.float64)


def _sides(subject: Subject) -> Floats:
    """Return on which side of each of the partner's splits the held-out rows are; of others nothing."""
    party = subject.partner
    side = compare_trees.load_side(subject.contract, party, subject.model(party), subject.tables[party])
    places = {column.name: i for i, column in enumerate(side.held_out.columns)}
    decisions = {(d.column, d.bin, d.missing_left): d for tree in side.part.trees for d in tree}
    found = np.zeros((len(subject.scored_at(party)), len(decisions)))
    for i, d in enumerate(decisions.values()):
        values = side.held_out.values[places[d.column]]
        found[: len(values), i] = np.where(values == side.held_out.bins, d.missing_left, values <= d.bin)
    return found


def _gain(own: Floats, more: Floats, targets: Floats, effort: Effort) -> float:
    """Mean R2 gained on rows whose columns are not known."""
    gains = []
    both = np.column_stack([own, more / np.maximum(more.std(axis=0), 1e-9)])
    for _ in range(max(1, effort.draws // 4)):
        known = np.zeros(len(own), np.bool_)
        known[effort.random.permutation(len(own))[:_KNOWN]] = True
        rest = targets[~known]
        spread = ((rest - rest.mean(axis=0)) ** 2).sum(axis=0)
        alone, better = (
            1 - ((rest - ridge(x[known], targets[known], x[~known], 10.0)) ** 2).sum(axis=0) / spread
            for x in (own, both)
        )
        gains.append(float(np.mean(better - alone)))
    return float(np.mean(gains))
