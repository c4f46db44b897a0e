"""A small joint world for boosted trees in mode totals, and a look at what only both parties together could see."""

import numpy as np

from fedmkt.learn.trees import Model, Outline, Part
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.prepare import real
from fedmkt.protocol.trees.sides.boosting import OwnSplits
from fedmkt.protocol.trees.sides.tree_growth import Forest
from fedmkt.protocol.trees.totals import shared_boosting, shared_growth
from fedmkt.protocol.trees.totals.shared_boosting import fit
from fedmkt.protocol.trees.totals.shared_gradients import UNIT, SharedScores
from fedmkt.protocol.trees.tree_columns import common_bins, cut_columns
from tests.protocol.tree_world import BANK, SHOP, tree_contract


def contract(parties=2, **terms):
    return tree_contract(parties, reveal="totals", **terms)


class Watch:
    """Records what only both parties together could see: gradients of each tree, totals that the bank is shown."""

    def __init__(self, monkeypatch):
        self.gradients, self.opened, self.cuts, self.vectors = [], [], [], {}
        root, opened = shared_growth.root_vectors, shared_growth._opened

        def root_vectors(lanes, turn, gradients):
            self.gradients.append(gradients.astype(np.uint32))
            return root(lanes, turn, gradients)

        def opened_totals(turn, state, *rest):
            cells = opened(turn, state, *rest)
            self.opened.append(cells)
            self.cuts.append((state.nodes, state.cuts))
            return cells

        monkeypatch.setattr(shared_boosting, "root_vectors", root_vectors)
        monkeypatch.setattr(shared_growth, "_opened", opened_totals)

    def rows(self, caller, tree):
        """Return g, h and 1 of the real rows of a tree, (n, 3)."""
        g, h = (self.gradients[2 * tree] + self.gradients[2 * tree + 1]).view(np.int32)
        rows = np.stack([g, h, np.ones_like(g)], axis=1)
        return rows[: len(real(caller.recall(BANK, Split).train))]


def grown(caller):
    fit(caller, caller.contract, caller.overlap, cut_columns(caller, caller.contract))
    return caller


def scores_of(caller):
    share = caller.recall(BANK, SharedScores).words + caller.recall(SHOP, SharedScores).words
    found = (share << np.uint32(8)).view(np.int32) / 2.0**8 * UNIT
    return found[: len(real(caller.recall(BANK, Split).train))]


def model_of(caller):
    """Put the model together from what the parties hold."""
    forest, bins = caller.recall(BANK, Forest), common_bins(caller.contract)
    partners = data_parties(caller.contract)[1:]
    parts = (
        Part(BANK, bins, forest.decisions),
        *(Part(p, bins, caller.recall(p, OwnSplits).trees) for p in partners),
    )
    return Model(Outline(forest.base, forest.trees), parts)


def splits_of(caller, tree):
    """Put the parts of a tree together: node, column, bin and side of the missing."""
    return {
        (d.node, part.owner, d.column, d.bin, d.missing_left)
        for part in model_of(caller).parts
        for d in part.trees[tree]
    }
