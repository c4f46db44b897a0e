"""The partner's columns from the bank's scores.

Row 5, equation solving (Luo 2021): a score is one equation in a row's unknown columns; with the model known, one
unknown is solved. Row 6, feature inference: a bank that knows the partner's columns of a few people learns to guess
them from its own columns and all that it is given of a row, by regression and by a small network (the better counts).
Besides, every participant's view is searched for an array of train rows that goes with another party's column: the
bank's and the other partner's for the partner's, the coordinator's for all. Undefended: raw scores with the model; the
embedding of a split network.
"""

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.attacks.shown import arrays_of_rows
from fedmkt.attack_lab.controls import network, ridge, split_learning
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Subject
from fedmkt.simulation import compare_trees

Floats = NDArray[np.float64]
_KNOWN = 200
_FEW = 3


def equations(subject: Subject, effort: Effort) -> Finding:
    """Row 5: least squared error of any of the partner's numbers, as a share of that of its mean.

    The bank takes off what its own columns explain of the log odds. It is told no weight of the partner's; the figure
    is for one who has guessed the column's weight right.
    """
    columns = subject.numbers(subject.partner, subject.scored_at(subject.partner))
    own = subject.features(subject.bank, subject.scored_at(subject.bank))
    score = _log_odds(subject)
    rest = score - ridge(own, score, own)
    rest = (rest - rest.mean()) / (rest.std() or 1.0)
    count = subject.features(subject.partner, subject.rows(subject.partner, "train")[:2]).shape[1]
    here = min(1 - float(np.mean(x * rest)) ** 2 for x in columns.values())
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
    undefended, _ = _gain(subject.features(subject.bank, train[0]), control, plain, effort)
    given = _log_odds(subject)[:, None]
    declared, has_sides = ["Scores"], "SplitSides" in {d.kind for d in subject.views.revealed(subject.bank)}
    if has_sides:
        given = np.column_stack([given, _sides(subject)])
        declared.append("SplitSides")
    here, error = _gain(own, given, targets, effort)
    found = _of_views(subject, effort)
    note = (
        f"mean of {targets.shape[1]} numbers, {_KNOWN} people known; R2 of the best array of train rows: "
        + (", ".join(f"{viewer} {r2:.3f}" for viewer, r2 in found.items()))
    )
    # What the contract lists explains what the bank is given, and sides, but no other array in anybody's view.
    hidden = [r2 for viewer, r2 in found.items() if not (has_sides and viewer == subject.bank)]
    if (most := max(hidden, default=0.0)) > 0.02:
        here, error, declared = most, 0.0, []
    return Finding(
        6, "columns inferred from scores", "R2 gain", undefended, here, Limit(0.02), note,
        declared=subject.listed(*declared), guess=0.0, error=error, quality=subject.quality,
    )  # fmt: skip


def _of_views(subject: Subject, effort: Effort) -> dict[str, float]:
    """R2 of the best array of train rows in each other view for a number of the partner's, beyond own columns.

    Array and number are chosen on one half of the rows and measured on the other; mean of both ways round.
    """
    rows = subject.rows(subject.partner, "train")
    targets = np.stack(list(subject.numbers(subject.partner, rows).values()), axis=1)
    half = effort.random.random(len(rows)) < 0.5
    parties, found = [p.name for p in subject.config.parties], {}
    for viewer in map(str, subject.views.moments):
        shown = arrays_of_rows(subject, viewer)
        if viewer == subject.partner or not shown:
            continue
        left = targets
        if viewer in parties:
            own = subject.features(viewer, subject.rows(viewer, "train"))
            left = targets - ridge(own, targets, own)
        every = np.concatenate(shown, axis=1)
        one, other = (_correlations(every[h], left[h]) for h in (half, ~half))
        both = []
        for chosen, measured in ((one, other), (other, one)):
            at = np.unravel_index(np.argmax(np.abs(chosen)), chosen.shape)
            both.append(max(0.0, float(measured[at] * np.sign(chosen[at]))) ** 2)
        found[viewer] = float(np.mean(both))
    return found


def _correlations(one: Floats, other: Floats) -> Floats:
    def unit(x: Floats) -> Floats:
        x = x / np.maximum(np.abs(x).max(axis=0), 1e-300)
        x = x - x.mean(axis=0)
        return np.asarray(x / np.maximum(np.linalg.norm(x, axis=0), 1e-12), np.float64)

    return np.asarray(unit(one).T @ unit(other), np.float64)


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


def _gain(own: Floats, more: Floats, targets: Floats, effort: Effort) -> tuple[float, float]:
    """Mean R2 gained on rows whose columns are not known, by the better of two learners, and its standard error."""
    both = np.column_stack([own, more / np.maximum(more.std(axis=0), 1e-9)])
    reached = []
    for _ in range(max(1, effort.draws // 4)):
        known = np.zeros(len(own), np.bool_)
        known[effort.random.permutation(len(own))[:_KNOWN]] = True
        rest = targets[~known]
        spread = ((rest - rest.mean(axis=0)) ** 2).sum(axis=0)
        guesses = [
            guess
            for x in (own, both)
            for guess in (
                ridge(x[known], targets[known], x[~known], 10.0),
                network(x[known], targets[known], x[~known], effort.random),
            )
        ]
        reached.append([float(np.mean(1 - ((rest - g) ** 2).sum(axis=0) / spread)) for g in guesses])
    alone, better = np.split(np.array(reached), 2, axis=1)
    gains = better[:, better.mean(axis=0).argmax()] - alone[:, alone.mean(axis=0).argmax()]
    return float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0
