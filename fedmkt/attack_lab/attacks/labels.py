"""Labels from what a partner keeps of the model, and who trained from the scores.

Row 2, model completion (Fu 2022): a partner with a few labels completes what it holds of the model, by regression and
by labels that it gives to further rows itself. Row 7, instance space to labels (ID2Graph): a partner with a few labels
uses where rows fall in the trees, as they are and in clusters. Both against the same few labels and its own columns
alone, with the same learners. Row 22, membership inference: rows that trained have a smaller loss, or one that is
likelier with than without them (Carlini 2022, with shadow models on random halves of the rows).

Undefended: the partner's weights of a joint regression in clear; who is in each node of a tree, as SecureBoost tells
the owner of a split; a model that remembers its train rows.
"""

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.attacks.shadows import likelihood
from fedmkt.attack_lab.controls import completed, logistic, ridge
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit, auc_error
from fedmkt.attack_lab.subject import Subject
from fedmkt.learn.metrics import auc
from fedmkt.learn.trees import Model, Outline, predict
from fedmkt.protocol.core import Name
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.ring.fixed import decode, reconstruct
from fedmkt.simulation import compare, compare_trees

Floats = NDArray[np.float64]
_KNOWN = 100
_TRUSTED = 5.0
"""How much more an attacker trusts what the model says than a column of its own, in standard deviations."""


def completion(subject: Subject, effort: Effort) -> Finding:
    """Row 2: AUC gained by the partner's part of the model, with labels of a hundred rows."""
    bank, partner = (subject.features(p, subject.rows(p, "train")) for p in (subject.bank, subject.partner))
    weights = logistic(np.column_stack([bank, partner]), subject.labels)
    control = (partner @ weights[bank.shape[1] : -1])[:, None]
    held, declared = _held(subject)
    here, error = _gain(partner, held, subject.labels, effort)
    return Finding(
        2, "label by model completion", "AUC gain", _gain(partner, control, subject.labels, effort)[0], here,
        Limit(0.02), f"{_KNOWN} labels known, mean of {effort.draws} draws of them",
        declared=subject.listed(*declared), guess=0.0, error=error, quality=subject.quality,
    )  # fmt: skip


def instance_space(subject: Subject, effort: Effort) -> Finding:
    """Row 7: AUC gained by the partner's own splits in the trees."""
    partner = subject.features(subject.partner, subject.rows(subject.partner, "train"))
    nodes = nodes_of(subject, 3)
    control, _ = _gain(partner, np.eye(int(nodes.max()) + 1)[nodes], subject.labels, effort)
    here, error = None, 0.0
    if subject.is_trees:
        sides = _held(subject)[0]
        tried = [sides, _clusters(sides, effort)] if sides.size else [sides]
        here, error = max(_gain(partner, more, subject.labels, effort) for more in tried)
    return Finding(
        7, "label by who is in a node", "AUC gain", control, here, Limit(0.02),
        f"{_KNOWN} labels known, mean of {effort.draws} draws; undefended: eight leaves that fit the label",
        declared=subject.listed("ChosenSplits"), guess=0.0, error=error, quality=subject.quality,
    )  # fmt: skip


def _clusters(sides: Floats, effort: Effort) -> Floats:
    """Put rows that share nodes together: of the partner's own splits, in as many clusters as a tree has leaves."""
    from sklearn.cluster import KMeans

    count = min(8, len(np.unique(sides, axis=0)))
    found = KMeans(count, n_init=1, random_state=int(effort.random.integers(1 << 31))).fit_predict(sides)
    return np.asarray(np.eye(count)[found], np.float64)


def membership(subject: Subject, effort: Effort) -> Finding:
    """Row 22: AUC of small losses for who trained, had the bank been given scores of train rows too."""
    y, later = subject.labels, subject.held_out_labels
    chosen = effort.random.permutation(len(y))[: min(600, len(y))]
    rows = {n: both_columns(subject, n) for n in ("train", "held_out")}
    wide = effort.random.standard_normal((rows["train"].shape[1], len(chosen))) * 0.5
    known = np.tanh(rows["train"][chosen] @ wide)
    remembered = ridge(known, y[chosen], known, 1e-6)
    others = ridge(known, y[chosen], np.tanh(rows["held_out"] @ wide), 1e-6)
    joint = joint_scores(subject)
    here, note = None, ""
    if joint is not None:
        by_loss, by_shadows = told_apart(*joint, y, later), likelihood(subject, *joint, rows, effort)
        here, note = max(by_loss, by_shadows), f"by loss {by_loss:.3f}, by shadow models {by_shadows:.3f}; "
    trained = np.concatenate([np.ones(len(y)), np.zeros(len(later))])
    return Finding(
        22, "membership by final scores", "AUC", told_apart(remembered, others, y[chosen], later), here, Limit(0.55),
        f"{note}of scores that the bank is never given: train rows are not scored", guess=0.5, error=auc_error(trained),
        quality=subject.quality,
    )  # fmt: skip


def nodes_of(subject: Subject, depth: int) -> NDArray[np.intp]:
    """Return the leaf of each train row in a tree that fits the label: equal parts by a regression in clear."""
    joint = both_columns(subject, "train")
    score = joint @ logistic(joint, subject.labels)[:-1]
    edges = np.quantile(score, np.arange(1, 1 << depth) / (1 << depth))
    return np.searchsorted(edges, score)


def both_columns(subject: Subject, name: str) -> Floats:
    """Return the columns of the bank and the partner of "train" or "held_out" rows, side by side."""
    parties = (subject.bank, subject.partner)
    return np.column_stack([subject.features(p, subject.rows(p, name)) for p in parties])


def _held(subject: Subject) -> tuple[Floats, tuple[str, ...]]:
    """Return what the partner's part of the model says of its train rows, and the disclosures that it comes from."""
    party = subject.partner
    if subject.is_trees:
        side = compare_trees.load_side(subject.contract, party, subject.model(party), subject.tables[party])
        places = {column.name: i for i, column in enumerate(side.train.columns)}
        found = [
            np.where(values == side.train.bins, d.missing_left, values <= d.bin)
            for tree in side.part.trees
            for d in tree
            for values in [side.train.values[places[d.column]]]
        ]
        sides = np.array(found, np.float64).reshape(len(found), side.train.rows).T
        return sides, ("ChosenSplits",)
    side_ = compare.load_side(subject.model(party), subject.tables[party])
    white = side_.train @ side_.transform
    share = decode(side_.share, WEIGHT_BITS)[-white.shape[1] :]
    columns, declared = [white @ share], []
    if (path := subject.model(party) / "own_weights.npy").exists():
        columns.append(white @ np.load(path, allow_pickle=False)[-white.shape[1] :])
        declared.append("ModelPart")
    if "evidence" in subject.header(party):
        columns.append(side_.train.sum(axis=1))
        declared.append("BinWeights")
    return np.stack(columns, axis=1), tuple(declared)


def _gain(own: Floats, more: Floats, label: Floats, effort: Effort) -> tuple[float, float]:
    """Mean AUC gained over own columns alone, from a few known labels on all other rows, and its standard error.

    With either the better of two learners counts: ridge regression, and self-training; with more than own columns also
    on what there is more alone.
    """
    if not more.size:
        return 0.0, 0.0
    spread = more.std(axis=0)  # together they weigh as much, however many
    more = more[:, spread > 0] / spread[spread > 0] * _TRUSTED / np.sqrt(max(1, (spread > 0).sum()))
    both, reached = np.column_stack([own, more]), []
    for _ in range(effort.draws):
        known = np.zeros(len(label), np.bool_)
        known[effort.random.permutation(len(label))[:_KNOWN]] = True
        if not 1 < label[known].sum() < _KNOWN - 1:
            continue
        guesses = [
            guess
            for x in (own, both, more)
            for guess in (ridge(x[known], label[known], x[~known], 30.0), completed(x, label, known)[~known])
        ]
        reached.append([auc(label[~known], guess) for guess in guesses])
    if not reached:
        return 0.0, 0.0
    alone, better = np.split(np.array(reached), [2], axis=1)
    gains = better[:, better.mean(axis=0).argmax()] - alone[:, alone.mean(axis=0).argmax()]
    return float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0


def told_apart(train: Floats, held_out: Floats, y: Floats, later: Floats) -> float:
    """AUC of small losses for who trained: scores and labels of train rows, and of others."""
    losses = np.concatenate([(train - y) ** 2, (held_out - later) ** 2])
    return auc(np.concatenate([np.ones(len(y)), np.zeros(len(later))]), -losses)


def joint_scores(subject: Subject) -> tuple[Floats, Floats] | None:
    """Return the joint model's scores of train and held-out rows; None where rows or columns are not everybody's."""
    terms = subject.contract
    if terms.align.join == "left" or terms.align.hidden or terms.additive.across:
        return None
    names = [p.name for p in subject.config.parties]
    if subject.is_trees:
        sides = [compare_trees.load_side(terms, n, subject.model(n), subject.tables[n]) for n in names]
        outline = Outline.from_json(compare_trees.compact(sides[0].header["outline"]))
        model = Model(compare_trees.with_leaves(outline, sides), tuple(s.part for s in sides))
        train, held = (
            predict(model, {Name(n): getattr(s, which) for n, s in zip(names, sides, strict=True)})
            for which in ("train", "held_out")
        )
        return train, held
    parts = [
        compare.load_side(subject.model(n), subject.tables[n], None, subject.config.model) for n in names
    ]
    white = decode(reconstruct([p.share for p in parts]), WEIGHT_BITS)
    scores = []
    for which in ("train", "held_out"):
        joint = np.column_stack([getattr(p, which) @ p.transform for p in parts])
        scores.append(white[0] + joint @ white[1 : 1 + joint.shape[1]])
    link = terms.model.link
    if link == "linear":
        return scores[0], scores[1]
    train, held = (np.exp(s) if link == "poisson" else 1 / (1 + np.exp(-s)) for s in scores)
    return train, held
