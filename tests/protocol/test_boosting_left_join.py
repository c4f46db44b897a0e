"""Boosted trees of all customers of the bank, also of those whom the partner does not have."""

import numpy as np
import pytest
from pydantic import ValidationError

from fedmkt.contract.agreement import AlignTerms, Contract
from fedmkt.learn import boosting
from fedmkt.learn.trees import Table, predict
from fedmkt.protocol.alignment.align import Split, split
from fedmkt.protocol.alignment.items import Known
from fedmkt.protocol.alignment.psi import Customers, psi
from fedmkt.protocol.linear.scoring import Released
from fedmkt.protocol.prepare import Columns, real
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.sides import tree_scoring
from fedmkt.protocol.trees.sides.tree_growth import Draws, Forest, columns_of, settings_of
from fedmkt.protocol.trees.tree_columns import common_bins, own_codes, table_values
from tests.protocol.plain_caller import PlainCaller
from tests.protocol.test_boosting_sides import parts_of
from tests.protocol.tree_world import BANK, SHOP, by_owner, grown, tree_contract

PEOPLE, COMMON = 1400, 800


def left_contract(**terms):
    agreed = tree_contract(2, **terms)
    changes = {"align": AlignTerms(join="left"), "disclosures": (*agreed.disclosures, "JoinedRows")}
    return Contract.model_validate(agreed.model_copy(update=changes).model_dump())


def joined(seed, gaps, **terms):
    """Run a job whose partner has 800 of 1,400 customers, and values with gaps or without."""
    contract, random = left_contract(**terms), np.random.default_rng(seed)
    ids = {BANK: np.arange(PEOPLE), SHOP: np.arange(PEOPLE - COMMON, PEOPLE + 200)}
    hidden = random.normal(size=PEOPLE + 200)
    is_new = np.arange(PEOPLE + 200) < PEOPLE - COMMON  # whom the shop does not have: they answer more often
    answer = random.random(PEOPLE + 200) < 1 / (1 + np.exp(1 - hidden - is_new))
    local = {}
    for party, own in ids.items():
        own = random.permutation(own)
        numbers = {f"x{j}": random.normal(size=len(own)) for j in range(3)}
        if party == SHOP:
            numbers["x1"] = hidden[own] + 0.3 * numbers["x1"]
        if gaps:
            numbers["x0"][random.random(len(own)) < 0.2] = np.nan
        names = contract.party(party).categories
        towns = {c: random.choice(np.array(["a", "b", "c"], dtype=object), len(own)) for c in names}
        has_label = random.random(len(own)) < 0.85
        label = np.where(has_label, answer[own], np.nan).astype(float) if party == BANK else None
        customers = Customers(tuple(f"p{i:05d}" for i in own), has_label if party == BANK else None)
        local[party] = (customers, Columns(numbers, towns, label))
    caller = PlainCaller(contract, local, seed=seed)
    psi(caller, contract)
    split(caller, contract)
    return grown(caller)


def pooled(caller, rows_of):
    """Put both parties' bins side by side; whom the partner lacks has missing values throughout."""
    contract, bins = caller.contract, common_bins(caller.contract)
    rows = {p: rows_of(caller.recall(p, Split)) for p in (BANK, SHOP)}
    parts = []
    known = caller.recall(BANK, Known).rows[real(rows[BANK])]
    for party, own in rows.items():
        codes = table_values(own_codes(caller.turn(party), real(own)), caller.publics[party, BinSizes], bins)
        values = np.full((len(codes), len(known)), bins, np.uint8)
        values[:, slice(None) if party == BANK else known] = codes
        parts.append(values)
    return Table(columns_of(contract), np.concatenate(parts), bins)


def twin(caller):
    table = pooled(caller, lambda split: split.train)
    y = caller.recall(BANK, Columns).label[real(caller.recall(BANK, Split).train)]
    draws = Draws(caller.recall(BANK, Forest).key)
    return boosting.fit(boosting.Labelled(table, y), settings_of(caller.contract), draws)


@pytest.mark.parametrize("gaps", [True, False], ids=["gaps", "no gaps"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_trees_are_those_of_the_pooled_table_in_which_such_rows_are_missing(seed, gaps):
    caller = joined(seed, gaps, trees=4, depth=4)
    plain = twin(caller)
    assert parts_of(caller) == (plain.model.outline, plain.model.parts)
    assert np.array_equal(caller.recall(BANK, Forest).scores, plain.scores)
    known = caller.recall(BANK, Known).rows[real(caller.recall(BANK, Split).train)]
    assert 0.4 < known.mean() < 0.7
    # That the partner does not have somebody is itself of use, and it takes sides.
    assert {d.missing_left for tree in plain.model.parts[1].trees for d in tree} == {True, False}


def test_scores_of_rows_that_only_the_bank_has_are_those_of_missing_values():
    caller = joined(1, True, trees=4)
    tree_scoring.score(caller, caller.contract, caller.overlap)
    table = pooled(caller, lambda split: np.concatenate([split.held_out, split.unlabelled]))
    expected = predict(twin(caller).model, by_owner(table))
    assert np.array_equal(caller.recall(BANK, Released).units, np.rint(100 * expected).astype(np.int64))


def test_totals_are_for_rows_that_both_have():
    with pytest.raises(ValidationError, match="nobody would know how many"):
        left_contract(reveal="totals")
