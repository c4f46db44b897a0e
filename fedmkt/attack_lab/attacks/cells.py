"""Cells of few people (row 8): how many totals of a partner's bins the bank is shown that count fewer than agreed.

In a node of a tree, one bin of one column is a cell; Weng's reverse sum attack starts at cells of one person. Here
cells are read off the bank's own memory: the rows of each node that it can follow (mode sides), opened counts (mode
totals), the joined bins of a scorecard. Undefended: all cells of the nodes of depth 4, 32 bins of each number.
"""

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.attacks.labels import nodes_of
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Subject
from fedmkt.protocol.scorecard.scorecard import EvidenceTable
from fedmkt.protocol.trees.sides.tree_growth import Growing
from fedmkt.protocol.trees.totals.shared_cells import COUNT
from fedmkt.protocol.trees.totals.shared_growth import BankTree
from fedmkt.simulation import compare_trees

Counts = NDArray[np.int64]
_BINS = 32


def small_cells(subject: Subject, effort: Effort) -> Finding:
    """Row 8: cells of the partner's columns of 1 to min_support - 1 people that the bank is shown."""
    least = subject.contract.limits.min_support
    numbers = subject.numbers(subject.partner, subject.rows(subject.partner, "train"))
    nodes = nodes_of(subject, 4)
    edges = np.linspace(0, 1, _BINS + 1)[1:-1]
    binned = [np.searchsorted(np.quantile(x, edges), x) for x in numbers.values()]
    plain = np.concatenate([np.bincount(nodes * _BINS + bins, minlength=16 * _BINS) for bins in binned])
    counts = _shown(subject)
    few = None if counts is None else float(((counts > 0) & (counts < least)).sum())
    total = 0 if counts is None else int((counts > 0).sum())
    return Finding(
        8, "cells of few people", "cells", float(((plain > 0) & (plain < least)).sum()), few, Limit(0),
        f"fewer than {least} people; of {total:,} cells shown, undefended of {int((plain > 0).sum()):,}",
        declared=subject.listed("HistogramTotals") if subject.family == "trees-sides" else (),
    )  # fmt: skip


def _shown(subject: Subject) -> Counts | None:
    """Return how many people each cell counts that the bank is shown; None for models without cells."""
    bank, partner = subject.bank, subject.partner
    if subject.family == "trees-nothing":
        return np.empty(0, np.int64)
    if subject.family == "trees-totals":
        own = len(subject.tables[bank].numbers) + len(subject.tables[bank].categories)
        opened = [tree.opened[:, own:, :, COUNT].ravel() for tree in subject.views.kept(bank, BankTree)]
        return np.concatenate(opened)
    if subject.family == "scorecard":
        table = subject.views.kept(bank, EvidenceTable)[-1].totals[partner]
        return np.concatenate([np.asarray(totals)[:, 0] for totals in table.values()])
    if subject.family == "trees-sides":
        side = compare_trees.load_side(
            subject.contract, partner, subject.model(partner), subject.tables[partner]
        )
        found = [
            np.bincount(values[(tree.node_of_row == node) & (tree.rows[:, 2] > 0)])
            for tree in subject.views.kept(bank, Growing)
            if tree.found
            for node in tree.level.nodes
            for values in side.train.values
        ]
        return np.concatenate(found).astype(np.int64)
    return None
