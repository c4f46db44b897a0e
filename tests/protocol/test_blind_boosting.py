"""Boosted trees in mode nothing against the same trees in plain, and what each side gets to see."""

import numpy as np
import pytest

from fedmkt.learn import boosting
from fedmkt.learn.trees import Model, Outline, Part, Tree, linear_predictor
from fedmkt.protocol import blind_boosting
from fedmkt.protocol.blind_boosting import LeafShares
from fedmkt.protocol.boosting import OwnSplits
from fedmkt.protocol.shared_cells import settings_of
from fedmkt.protocol.shared_gradients import UNIT
from fedmkt.protocol.tree_columns import common_bins, cut_columns
from fedmkt.protocol.tree_growth import Forest
from tests.protocol.shared_world import scores_of
from tests.protocol.tree_world import BANK, SHOP, by_owner, pooled, tree_caller, tree_contract


def grown(caller):
    blind_boosting.fit(caller, caller.contract, caller.overlap, cut_columns(caller, caller.contract))
    return caller


def leaves_of(caller):
    words = caller.recall(BANK, LeafShares).words + caller.recall(SHOP, LeafShares).words
    return (words << np.uint32(8)).view(np.int32) / 2.0**8 * UNIT


def model_of(caller):
    forest, bins = caller.recall(BANK, Forest), common_bins(caller.contract)
    trees = tuple(
        Tree(tree.owners, tuple((n, float(v)) for (n, _), v in zip(tree.leaves, values, strict=True)))
        for tree, values in zip(forest.trees, leaves_of(caller), strict=True)
    )
    parts = Part(BANK, bins, forest.decisions), Part(SHOP, bins, caller.recall(SHOP, OwnSplits).trees)
    return Model(Outline(forest.base, trees), parts)


def test_scores_are_those_of_the_trees(monkeypatch):
    caller = grown(tree_caller(tree_contract(reveal="nothing", trees=3)))
    table = pooled(caller, lambda split: split.train)
    expected = linear_predictor(model_of(caller), by_owner(table))
    assert np.allclose(scores_of(caller), expected, atol=1e-9)
