"""A small joint world for boosted trees in mode nothing, and the model as only both could put it together."""

from fedmkt.learn.trees import Model, Outline, Part, Tree
from fedmkt.protocol.trees.nothing import blind_boosting
from fedmkt.protocol.trees.nothing.blind_boosting import LeafShares
from fedmkt.protocol.trees.sides.boosting import OwnSplits
from fedmkt.protocol.trees.sides.tree_growth import Forest
from fedmkt.protocol.trees.totals.shared_gradients import value_of
from fedmkt.protocol.trees.tree_columns import common_bins, cut_columns
from tests.protocol.tree_world import BANK, SHOP, tree_contract


def contract(**terms):
    return tree_contract(2, reveal="nothing", **terms)


def grown(caller):
    blind_boosting.fit(caller, caller.contract, caller.overlap, cut_columns(caller, caller.contract))
    return caller


def leaves_of(caller):
    """Return the values of the leaves, (trees, leaves)."""
    return value_of(caller.recall(BANK, LeafShares).words + caller.recall(SHOP, LeafShares).words)


def model_of(caller):
    """Put the model together from what the parties hold."""
    forest, bins = caller.recall(BANK, Forest), common_bins(caller.contract)
    trees = tuple(
        Tree(tree.owners, tuple((n, float(v)) for (n, _), v in zip(tree.leaves, values, strict=True)))
        for tree, values in zip(forest.trees, leaves_of(caller), strict=True)
    )
    parts = Part(BANK, bins, forest.decisions), Part(SHOP, bins, caller.recall(SHOP, OwnSplits).trees)
    return Model(Outline(forest.base, trees), parts)
