"""Boosted trees in mode totals against the same trees in plain, and what each side gets to see."""

from dataclasses import replace

import numpy as np
import pytest

from fedmkt.errors import ConfigError
from fedmkt.learn import boosting
from fedmkt.learn.cells import joined_cells
from fedmkt.learn.splits import leaf_values, scale_of
from fedmkt.learn.trees import linear_predictor
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.trees.sides.tree_growth import Forest, columns_of
from fedmkt.protocol.trees.totals import lane_plan, shared_cells, shared_growth
from fedmkt.protocol.trees.totals.lane_plan import lanes_of
from fedmkt.protocol.trees.totals.shared_cells import settings_of
from fedmkt.protocol.trees.totals.shared_gradients import UNIT
from fedmkt.protocol.trees.tree_columns import cut_columns
from tests.protocol.shared_world import Watch, contract, grown, model_of, scores_of, splits_of
from tests.protocol.tree_world import BANK, by_owner, pooled, tree_caller


@pytest.mark.parametrize(
    "terms",
    [{"depth": 4}, {"bins": 13, "penalty": 3.0}, {"rate": 0.6}, {"parties": 3, "depth": 4, "bins": 13}],
    ids=["deep", "fine", "fast", "two partners"],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_trees_and_scores_are_those_of_the_pooled_table_with_the_same_rounding(terms, seed, monkeypatch):
    watch = Watch(monkeypatch)
    caller = grown(tree_caller(contract(trees=3, **terms), seed=seed))
    settings, columns, table = (
        settings_of(caller.contract),
        columns_of(caller.contract),
        pooled(caller, lambda split: split.train),
    )
    last, compared = np.array(shared_growth.grid(caller.turn(BANK)).values) - 1, 0
    for tree, found in enumerate(caller.recall(BANK, Forest).trees):
        rows = watch.rows(caller, tree)
        usable = np.ones(len(columns), bool)
        plain = boosting.grow(table, rows, usable, settings, scale_of(settings, 1.0), [0] * len(columns))
        assert {owner for _, owner in found.owners} - {BANK}
        if {columns[s.column].owner for s in plain.splits} - {BANK}:
            compared += 1
            assert splits_of(caller, tree) == {
                (
                    s.node,
                    columns[s.column].owner,
                    columns[s.column].name,
                    min(s.bin, last[s.column]),
                    s.missing_left,
                )
                for s in plain.splits
            }
            units = np.rint(leaf_values(plain.leaves, settings, scale_of(settings, 1.0)) / UNIT)
            leaves = zip(plain.leaves.nodes.tolist(), (units * UNIT).tolist(), strict=True)
            assert dict(found.leaves) == dict(leaves)
    expected = linear_predictor(model_of(caller), by_owner(table))
    assert compared >= 2 and np.allclose(scores_of(caller), expected, atol=1e-12)
    owners = {owner for tree in caller.recall(BANK, Forest).trees for _, owner in tree.owners}
    assert owners == set(data_parties(caller.contract))


def test_gradients_are_those_of_the_scores_up_to_rounding_and_the_series(monkeypatch):
    watch = Watch(monkeypatch)
    caller = grown(tree_caller(contract(trees=2)))
    y = watch.rows(caller, 0)[:, 0] < 0
    p = 1 / (1 + np.exp(-caller.recall(BANK, Forest).base))
    first, second = watch.rows(caller, 0), watch.rows(caller, 1)
    assert np.abs(first[:, 0] - 32 * (p - y)).max() < 1.2
    assert np.abs(first[:, 1] - 256 * p * (1 - p)).max() < 2
    assert np.std(second[:, 0]) > np.std(first[:, 0]) / 2 and len(np.unique(second[:, 1])) > 5


@pytest.mark.parametrize("parties", [2, 3], ids=["one partner", "two partners"])
def test_no_total_that_follows_from_what_the_bank_is_shown_is_of_a_few_rows(parties, monkeypatch):
    """Cells, and all that an ancestor's cells leave of them: 0 rows or at least the minimum, over a training."""
    watch = Watch(monkeypatch)
    caller = grown(tree_caller(contract(parties, trees=4, depth=4, bins=16)))
    least, checked, shown = settings_of(caller.contract).min_cell, 0, {}
    for (nodes, cuts), cells in zip(watch.cuts, watch.opened, strict=True):
        counts = cells[..., shared_growth.COUNT]
        assert ((counts == 0) | (counts >= least)).all()
        assert (counts.sum(axis=-1) == counts.sum(axis=-1)[:, :1]).all()
        for node, own, cut in zip(nodes, counts, cuts, strict=True):
            shown[node], above = own, node
            while above:
                above = (above - 1) // 2
                rest = joined_cells(shown[above][None], cut[None])[0] - own
                assert ((rest == 0) | (rest >= least)).all()
                checked += rest.size
    assert checked > 5000 and least == 20


def test_without_the_comparison_many_such_totals_would_be_of_a_few_rows(monkeypatch):
    """The attack of redteam.md 1.5, so that the test above is known to look at the right place."""
    watch = Watch(monkeypatch)
    monkeypatch.setattr(shared_cells, "read_cells", lambda state, found: np.ones(state.cells.groups, bool))
    grown(tree_caller(contract(trees=2, depth=4, bins=16)))
    counts = np.concatenate([c[..., shared_growth.COUNT].ravel() for c in watch.opened])
    assert ((counts > 0) & (counts < 20)).sum() > 1000


def test_totals_that_do_not_fit_the_ring_of_their_shares_are_refused():
    caller = tree_caller(contract())
    sizes = cut_columns(caller, caller.contract)
    most = replace(caller.overlap, labelled_high=1 << 24)
    assert lanes_of(caller.contract, most, sizes).bits[1] <= 32
    with pytest.raises(ConfigError, match="more than shared totals are for"):
        lanes_of(caller.contract, replace(most, labelled_high=1 << 26), sizes)


def test_what_does_not_travel_in_blocks_and_fits_no_message_is_refused_at_the_start(monkeypatch):
    caller = tree_caller(contract(checked_shares=True))
    sizes = cut_columns(caller, caller.contract)
    monkeypatch.setattr(lane_plan, "MAX_MESSAGE_BYTES", 1 << 20)
    many = replace(caller.overlap, labelled_high=400_000)
    with pytest.raises(ConfigError, match=r"of 4 columns of the bank are more than .* is for, 261,888"):
        lanes_of(caller.contract, many, sizes)
    assert lanes_of(contract(), many, sizes).rows > 270_000
    with pytest.raises(ConfigError, match=r"rows to score are more than fit the message .*, 130,944"):
        lanes_of(contract(), replace(many, unlabelled_high=100_000), sizes)
