"""Labels, columns and members from models, scores and cells: with the control beside each."""

import numpy as np
import pytest

from fedmkt.attack_lab.attacks import cells, columns, labels
from fedmkt.attack_lab.effort import quick
from fedmkt.attack_lab.subject import Subject

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
