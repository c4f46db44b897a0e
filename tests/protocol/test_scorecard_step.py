"""WoE of all parties' columns: equal to pandas on the pooled table; what the partner is told, and nothing else."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest

from fedmkt.contract import Contract
from fedmkt.learn import scorecard
from fedmkt.learn.merging import Totals
from fedmkt.learn.woe import WoeColumns, place_rows
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.protocol.align import Split
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.family import FAMILIES
from fedmkt.protocol.prepare import Columns, OwnEvidence, real
from fedmkt.protocol.scorecard import EvidenceTable, weigh_columns
from fedmkt.terms import ScorecardTerms
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    PlainCaller,
    contract_of,
    joint_data,
    labels,
    reconstructed_weights,
    start_aligned,
    unwhitened,
)

NEEDED = ("MinimumBits", "BinCounts", "BinTotals", "BinWeights")
TOWNS = np.array(["north", "south", "east", None], dtype=object)


def terms_of(k=2, merge="monotone", more=(), **terms) -> Contract:
    contract = contract_of(
        k, model={"iterations": 16}, limits={"min_events": 10, "min_support": 30},
        categories={SHOP: ("town",)}, disclosures=(*DEFAULT, *NEEDED, *more),
    )  # fmt: skip
    return contract.model_copy(
        update={
            "model": contract.model.model_copy(update={"kind": "scorecard"}),
            "bins": contract.bins.model_copy(update={"count": 12}),
            "scorecard": ScorecardTerms(merge=merge, **terms),
        }
    )


def world(contract, n=2500, seed=1):
    """Draw people with missing values in the partners' x1, and a town at the shop that the label depends on."""
    data = joint_data(contract, n, seed, signal=0.7)
    random = np.random.default_rng(seed + 50)
    town = random.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    push = np.where(town == 2, 0.4, np.where(town == 3, -0.3, 0.0))
    data.y[(random.random(n) < push) & ~np.isnan(data.y)] = 1.0
    data.y[(random.random(n) < -push) & ~np.isnan(data.y)] = 0.0
    for p in data_parties(contract):
        customers, columns = data.local[p]
        person = np.argsort(data.order[p])
        numbers = dict(columns.numbers)
        if p != BANK:
            numbers["x1"] = np.where(random.random(n) < 0.12, np.nan, numbers["x1"])
        categories = {"town": TOWNS[town[person]]} if p == SHOP else {}
        label = data.y[person] if p == BANK else None
        customers = dataclasses.replace(customers, labelled=None if label is None else ~np.isnan(label))
        data.local[p] = (customers, Columns(numbers, categories, label))
    return data


def weighed(contract, seed=1, **options) -> PlainCaller:
    caller = start_aligned(world(contract, seed=seed), seed=seed, **options)
    weigh_columns(caller, contract, caller.overlap)
    return caller


once = functools.cache(weighed)


def evidence_of(caller, party) -> WoeColumns:
    return WoeColumns.from_json(caller.recall(party, OwnEvidence).columns)


def train_columns(caller, party):
    columns, rows = caller.recall(party, Columns), real(caller.recall(party, Split).train)
    return (
        {n: v[rows] for n, v in columns.numbers.items()},
        {n: v[rows] for n, v in columns.categories.items()},
    )


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("merge", ["none", "monotone", "chimerge"])
def test_woe_and_information_value_are_those_of_pandas_on_the_pooled_table(k, merge):
    caller = once(terms_of(k, merge))
    y = pd.Series(labels(caller, lambda s: s.train))
    table = caller.recall(BANK, EvidenceTable)
    seen = 0
    for p in data_parties(caller.contract):
        numbers, categories = train_columns(caller, p)
        for column in evidence_of(caller, p).columns:
            placed = pd.Series(place_rows(column.bins, numbers, categories))
            events, others = y.groupby(placed).sum(), (1 - y).groupby(placed).sum()
            share, rest = events / events.sum(), others / others.sum()
            woe = np.log(share / rest)
            assert np.abs(column.woe - woe).max() < 1e-3
            shown = table.totals[p][column.bins.name]
            found = scorecard.weigh_evidence(Totals(shown[:, 0].copy(), shown[:, 1].copy()))
            assert abs(found.information_value - float(((share - rest) * woe).sum())) < 1e-3
            assert placed.value_counts().min() >= 0.05 * len(y) and min(events.min(), others.min()) >= 10
            seen += 1
    assert seen >= 2 * k


def test_it_runs():
    contract = terms_of(2)
    caller = start_aligned(world(contract), seed=1)
    family = FAMILIES["scorecard"]
    family.score(caller, contract, caller.overlap, family.fit(caller, contract, caller.overlap))
    for p in data_parties(contract):
        for c in evidence_of(caller, p).columns:
            print(p, c.bins.name, c.bins.labels, c.woe)
    w = unwhitened(caller, reconstructed_weights(caller))
    print(w)
