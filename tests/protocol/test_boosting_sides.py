"""Boosted trees in mode sides against the same trees on the pooled table, and what each side gets to see."""

import numpy as np
import pytest

from fedmkt.learn.trees import Outline, Part, Table, predict
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.linear.scoring import Released
from fedmkt.protocol.prepare import real
from fedmkt.protocol.trees.sides import boosting, tree_growth, tree_scoring
from fedmkt.protocol.trees.sides.histogram import RowBins
from fedmkt.protocol.trees.sides.tree_growth import Forest
from fedmkt.protocol.trees.tree_columns import common_bins
from tests.protocol.tree_world import BANK, SHOP, by_owner, grown, pooled, tree_caller, tree_contract, twin


def parts_of(caller):
    """Return what each party holds of the model."""
    bins, forest = common_bins(caller.contract), caller.recall(BANK, Forest)
    own = {BANK: forest.decisions}
    own |= {p: caller.recall(p, boosting.OwnSplits).trees for p in data_parties(caller.contract)[1:]}
    return Outline(forest.base, forest.trees), tuple(Part(str(p), bins, t) for p, t in own.items())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parties", [2, 3])
def test_the_trees_are_those_of_the_pooled_table_bit_for_bit(parties: int, seed: int) -> None:
    caller = grown(tree_caller(tree_contract(parties, trees=4, depth=4), seed=seed + 1))
    plain = twin(caller)
    assert parts_of(caller) == (plain.model.outline, plain.model.parts)
    assert np.array_equal(caller.recall(BANK, Forest).scores, plain.scores)
    # The partners matter, and so do missing values.
    owners = {owner for tree in plain.model.outline.trees for _, owner in tree.owners}
    assert owners == set(data_parties(caller.contract))


def test_rows_columns_and_classes_may_be_drawn_and_weighted() -> None:
    terms = {"row_share": 0.7, "column_share": 0.6, "class_weights": (1.0, 3.0), "penalty": 2.0}
    caller = grown(tree_caller(tree_contract(2, trees=5, **terms)))
    plain = twin(caller)
    assert parts_of(caller) == (plain.model.outline, plain.model.parts)


def test_trends_of_the_contract_hold_at_the_bank_and_at_a_partner() -> None:
    trends = tuple({"party": p, "column": "x1", "trend": t} for p, t in ((BANK, -1), (SHOP, -1)))
    free = grown(tree_caller(tree_contract(2, trees=5)))
    held = grown(tree_caller(tree_contract(2, trees=5, trends=trends)))
    plain = twin(held)
    assert parts_of(held) == (plain.model.outline, plain.model.parts)
    falls = {}
    for caller in (free, held):
        table = pooled(caller, lambda split: split.held_out)
        model, steps = twin(caller).model, []
        for column in (1, 5):  # x1 of the bank and of the shop
            scores = []
            for value in range(table.bins):
                values = table.values.copy()
                values[column] = value
                scores.append(predict(model, by_owner(Table(table.columns, values, table.bins))))
            steps.append(np.diff(scores, axis=0).max())
        falls[caller is held] = max(steps)
    assert falls[True] <= 0 < falls[False]


@pytest.mark.parametrize("parties", [2, 3])
def test_scores_are_those_of_the_pooled_model_rounded(parties: int) -> None:
    caller = grown(tree_caller(tree_contract(parties, trees=4)))
    tree_scoring.score(caller, caller.contract, caller.overlap)
    model = twin(caller).model
    table = pooled(caller, lambda split: np.concatenate([split.held_out, split.unlabelled]))
    found, split = caller.recall(BANK, Released), caller.recall(BANK, Split)
    assert np.array_equal(found.rows, real(np.concatenate([split.held_out, split.unlabelled])))
    assert found.held_out == len(real(split.held_out)) < len(found.rows)
    assert np.array_equal(found.units, np.rint(100 * predict(model, by_owner(table))).astype(np.int64))


def test_sides_of_many_trees_travel_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = grown(tree_caller(tree_contract(2, trees=4)))
    tree_scoring.score(caller, caller.contract, caller.overlap)
    before = caller.recall(BANK, Released).units
    del caller.states[SHOP][tree_scoring.ScoredBins]
    monkeypatch.setattr(tree_scoring, "BLOCK_BYTES", 1500)
    assert len(tree_scoring.tree_blocks(caller.contract, len(before))) == 2
    tree_scoring.score(caller, caller.contract, caller.overlap)
    assert np.array_equal(caller.recall(BANK, Released).units, before)


@pytest.mark.parametrize("parties", [2, 3])
def test_decrypted_totals_equal_plain_ones_over_the_whole_training(
    parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, opened = [], []
    vectors_of, cells_of = tree_growth.vectors_of, tree_growth.cells_of
    monkeypatch.setattr(tree_growth, "vectors_of", lambda *a: asked.append(vectors_of(*a)) or asked[-1])
    monkeypatch.setattr(tree_growth, "cells_of", lambda *a: opened.append(a[0]) or cells_of(*a))
    caller = grown(tree_caller(tree_contract(parties, trees=5, depth=4)))
    partners = data_parties(caller.contract)[1:]
    held = {p: caller.recall(p, RowBins) for p in partners}
    assert len(opened) == len(asked) * len(partners) > 10
    for batch, vectors in enumerate(asked):
        for place, p in enumerate(partners):
            plain = [
                vectors[code == b].sum(axis=0)
                for code, count in zip(held[p].codes, held[p].counts, strict=True)
                for b in range(count)
            ]
            assert np.array_equal(opened[batch * len(partners) + place], plain)
