"""Labels, columns and members from models, scores and cells: with the control beside each."""

import numpy as np
import pytest

from fedmkt.attack_lab.attacks import cells, columns, labels
from fedmkt.attack_lab.attacks.shadows import likelihood
from fedmkt.attack_lab.controls import completed, logistic, network, ridge, sigmoid
from fedmkt.attack_lab.effort import quick
from fedmkt.attack_lab.subject import Subject
from fedmkt.learn.metrics import auc
from tests.attack_lab.planted import shown

EXPECTED = {
    "linear": {2: "held", 5: "declared", 6: "declared", 7: "-", 8: "-", 22: "held"},
    "totals": {2: "held", 5: "declared", 6: "declared", 7: "held", 8: "held", 22: "held"},
    "sides": {2: "held", 5: "declared", 6: "declared", 7: "held", 8: "declared", 22: "held"},
}
ATTACKS = {
    2: labels.completion,
    5: columns.equations,
    6: columns.inference,
    7: labels.instance_space,
    8: cells.small_cells,
    22: labels.membership,
}


@pytest.mark.parametrize("row", ATTACKS)
@pytest.mark.parametrize("family", EXPECTED)
def test_an_attack_works_undefended_and_here_only_as_declared(family, row, request):
    found = ATTACKS[row](request.getfixturevalue(family), quick(1))
    assert not found.limit.is_kept(found.undefended)
    assert found.verdict == EXPECTED[family][row], found


def test_sides_of_splits_tell_the_bank_more_of_columns_than_scores_do(sides: Subject, totals: Subject):
    one, other = (columns.inference(s, quick(1)) for s in (sides, totals))
    assert "SplitSides" in one.declared and "SplitSides" not in other.declared
    assert one.here > other.here + 0.1


@pytest.mark.parametrize("viewer", ["bank", "coordinator"])
def test_a_column_in_an_array_that_another_party_is_sent_is_found(viewer, linear: Subject):
    rows = linear.rows("partner", "train")
    places = np.zeros(len(linear.slots))
    places[linear.slots >= 0] = linear.numbers("partner", rows)["spend"]
    found = columns.inference(shown(linear, viewer, places), quick(1))
    assert found.verdict == "BROKEN" and found.here > 0.8


def test_a_network_learns_what_no_line_is():
    random = np.random.default_rng(1)
    x = random.uniform(-2, 2, (400, 2))
    y = np.stack([np.sin(2 * x[:, 0]), np.abs(x[:, 1])], axis=1)
    guess = network(x[:200], y[:200], x[200:], random)
    left = 1 - ((guess - y[200:]) ** 2).sum(axis=0) / ((y[200:] - y[200:].mean(axis=0)) ** 2).sum(axis=0)
    assert left.min() > 0.7
    line = ridge(x[:200], y[:200], x[200:])
    assert 1 - ((line - y[200:]) ** 2).sum() / ((y[200:] - y[200:].mean(axis=0)) ** 2).sum() < 0.5


def test_labels_that_an_attacker_gives_itself_help_where_rows_lie_apart():
    random = np.random.default_rng(2)
    y = (random.random(2000) < 0.2).astype(float)
    x = random.standard_normal((2000, 20)) + 1.2 * y[:, None] * (np.arange(20) < 4)
    known = np.zeros(2000, np.bool_)
    known[:40] = True
    plain = ridge(x[known], y[known], x, 30.0)
    assert auc(y[~known], completed(x, y, known)[~known]) > auc(y[~known], plain[~known]) + 0.02


def test_shadow_models_find_who_trained_where_single_losses_do_not(linear: Subject):
    y, later = linear.labels, linear.held_out_labels
    rows = {n: labels.both_columns(linear, n) for n in ("train", "held_out")}
    weights = logistic(np.concatenate([*rows.values()]), np.concatenate([y, later]))
    logits = {n: rows[n] @ weights[:-1] + weights[-1] for n in rows}
    surer = sigmoid(logits["train"] + 0.4 * (2 * y - 1))
    shown, plain = (
        labels.told_apart(train, sigmoid(logits["held_out"]), y, later)
        for train in (surer, sigmoid(logits["train"]))
    )
    found, same = (
        likelihood(linear, train, sigmoid(logits["held_out"]), rows, quick(1))
        for train in (surer, sigmoid(logits["train"]))
    )
    assert found > shown + 0.1 and found > 0.8
    assert abs(same - 0.5) < 0.06 and abs(plain - 0.5) < 0.06


def test_weights_that_the_partner_is_given_complete_the_model(linear: Subject):
    path = linear.model("partner") / "own_weights.npy"
    side = linear.model("partner"), linear.tables["partner"]
    white = labels.compare.load_side(*side)
    x = white.train @ white.transform
    np.save(path, np.linalg.lstsq(x, linear.labels - linear.labels.mean(), rcond=None)[0])
    try:
        found = labels.completion(linear, quick(1))
    finally:
        path.unlink()
    assert found.here > found.limit.value and found.verdict == "BROKEN"


def test_a_small_cell_that_the_bank_is_shown_is_counted(sides: Subject):
    found = cells.small_cells(sides, quick(1))
    assert found.here > 0 and found.declared == ("HistogramTotals",)
