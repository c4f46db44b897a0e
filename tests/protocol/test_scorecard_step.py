"""WoE of all parties' columns: equal to pandas on the pooled table; what the partner is told, and nothing else."""

import dataclasses
import functools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from fedmkt.contract.agreement import Contract
from fedmkt.contract.model_terms import ScorecardTerms
from fedmkt.errors import DataError, PolicyRefused
from fedmkt.learn import prepare, scorecard
from fedmkt.learn.bins import Binning
from fedmkt.learn.merging import Totals
from fedmkt.learn.woe import WoeColumns, place_rows
from fedmkt.privacy.disclosure import DEFAULT, BinWeights
from fedmkt.protocol import wire
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.family import FAMILIES
from fedmkt.protocol.prepare import Columns, OwnEvidence, real
from fedmkt.protocol.scorecard.scorecard import BIN, EvidenceTable, WeighedBins, weigh_columns
from fedmkt.protocol.trees import bin_layout
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.simulation import bin_traffic
from fedmkt.simulation.rehearsal import Planned
from fedmkt.simulation.traffic import Sizes
from fedmkt.simulation.tree_traffic import TreeFacts
from tests.protocol.plain_caller import (
    BANK,
    DEALER,
    SHOP,
    TELECOM,
    PlainCaller,
    contract_of,
    joint_data,
    labels,
    reconstructed_weights,
    start_aligned,
    unwhitened,
)
from tests.protocol.test_two_worlds import differing, relayed

NEEDED = ("MinimumBits", "BinCounts", "BinTotals", "BinWeights")
TOWNS = np.array(["north", "south", "east", None], dtype=object)


def terms_of(k=2, merge="monotone", more=(), **terms) -> Contract:
    contract = contract_of(
        k, model={"iterations": 20}, limits={"min_events": 10, "min_support": 30},
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
    return weighed_on(world(contract, seed=seed), contract, seed, **options)


def weighed_on(data, contract, seed=1, **options) -> PlainCaller:
    caller = start_aligned(data, seed=seed, **options)
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


def test_columns_of_little_information_are_left_out_but_a_partys_best_stays():
    all_in = once(terms_of(2, min_iv=0.0))
    values = {
        p: {n: _information(t) for n, t in all_in.recall(BANK, EvidenceTable).totals[p].items()}
        for p in (BANK, SHOP)
    }
    for p, found in values.items():
        assert names(all_in, p) == list(found) and len(found) >= 3
    limit = sorted(values[SHOP].values())[-2] + 1e-9
    some = weighed(terms_of(2, min_iv=limit))
    for p, found in values.items():
        best = max(found, key=found.__getitem__)
        expected = [n for n, iv in found.items() if iv >= limit] or [best]
        assert names(some, p) == expected and best in expected
    assert names(weighed(terms_of(2, min_iv=10.0)), SHOP) == [max(values[SHOP], key=values[SHOP].get)]


def _information(totals):
    return scorecard.weigh_evidence(Totals(totals[:, 0].copy(), totals[:, 1].copy())).information_value


def names(caller, party):
    return [c.bins.name for c in evidence_of(caller, party).columns]


def test_of_two_columns_alike_the_one_of_more_information_stays():
    all_in = once(terms_of(2, max_correlation=1.0, min_iv=0.0))
    limit = 0.12
    some = weighed(terms_of(2, max_correlation=limit, min_iv=0.0))
    for p in (BANK, SHOP):
        x = evidence_of(all_in, p).weigh(*train_columns(all_in, p))
        totals = all_in.recall(BANK, EvidenceTable).totals[p]
        kept: list[str] = []
        for name in sorted(x, key=lambda n: -_information(totals[n])):
            if all(abs(np.corrcoef(x[name], x[k])[0, 1]) <= limit for k in kept):
                kept.append(name)
        assert names(some, p) == [n for n in x if n in kept] != list(x)


# ------------------------------------------------------------------------------------------ the model


@pytest.mark.parametrize("k", [2, 3])
def test_the_joint_scorecard_is_scikit_learns_on_the_pooled_woe_columns(k):
    contract = terms_of(k)
    caller = start_aligned(world(contract, seed=k), seed=k)
    family = FAMILIES["scorecard"]
    family.score(caller, contract, caller.overlap, family.fit(caller, contract, caller.overlap))
    woe = [evidence_of(caller, p).weigh(*train_columns(caller, p)).values() for p in data_parties(contract)]
    pooled, y = np.stack([x for side in woe for x in side], axis=1), labels(caller, lambda s: s.train)
    standard = (pooled - pooled.mean(axis=0)) / pooled.std(axis=0)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(standard, y)
    best = np.concatenate([theirs.intercept_, theirs.coef_[0]])
    found = unwhitened(caller, reconstructed_weights(caller))
    assert np.linalg.norm(found - best) < 1e-2 * np.linalg.norm(best)
    assert (found[1:] > 0).mean() > 0.7, "more of what goes with a response scores higher"


def test_no_woe_is_clipped_however_far_out_its_bin_lies():
    """A bin of min_share of the rows against all others: sqrt(1 / share - 1) standard deviations."""
    least = ScorecardTerms(min_share=0.02).min_share
    x = np.where(np.arange(10_000) < 10_000 * least, 3.0, -0.1)
    fitted = prepare.fit({"x": x}, {}, np.ones(len(x), bool), prepare.Settings(clip=8.0, bound=8.0))
    found = prepare.transform(fitted, {"x": x}, {}).values[:, 0]
    assert np.allclose(found, (x - x.mean()) / x.std()) and found.max() == pytest.approx(7.0)


# ------------------------------------------------------------------------------------------ what the partner is told


def told(caller, partner=SHOP):
    (found,) = [s.message for s in caller.seen_by(partner) if isinstance(s.message, WeighedBins)]
    return found


def test_the_partner_knows_how_many_events_each_group_has_and_that_is_declared():
    """What `BinWeights` says: with the rate of all, each group's events follow to the row."""
    caller = once(terms_of(2))
    table = caller.recall(BANK, EvidenceTable).totals[SHOP]
    for column in evidence_of(caller, SHOP).columns:
        rows, events = table[column.bins.name].T
        own = np.bincount(place_rows(column.bins, *train_columns(caller, SHOP)))
        odds = events.sum() / (rows - events).sum() * np.exp(column.woe)
        assert np.array_equal(own, rows) and np.array_equal(np.rint(own * odds / (1 + odds)), events)
    (declared,) = [d for step, d in caller.revealed if isinstance(d, BinWeights)]
    assert (declared.to, declared.minimum, declared.events) == (SHOP, 30, 10)
    assert declared.bins == sum(len(c.units) for c in evidence_of(caller, SHOP).columns)


def with_labels(data, y):
    data.y = y
    columns = data.local[BANK][1]
    person = np.argsort(data.order[BANK])
    customers = dataclasses.replace(data.local[BANK][0], labelled=~np.isnan(y[person]))
    data.local[BANK] = (customers, dataclasses.replace(columns, label=y[person]))
    return data


def coarse(k=2):
    contract = terms_of(k, merge="none")
    return contract.model_copy(update={"bins": contract.bins.model_copy(update={"count": 3})})


def test_two_worlds_labels_exchanged_within_a_partners_bins_look_the_same_to_it():
    contract = coarse()
    one = weighed_on(world(contract), contract)
    data = world(contract)
    train, bank = one.recall(SHOP, Split).train, one.recall(BANK, Split).train
    shop_row_of = dict(zip(real(bank).tolist(), real(train).tolist(), strict=True))
    person_of = np.argsort(data.order[BANK])
    numbers, categories = one.recall(SHOP, Columns).numbers, one.recall(SHOP, Columns).categories
    offered = Binning.from_json(one.stores[SHOP][_key(one)].decode())
    cells: dict[tuple[int, ...], list[int]] = {}
    placed = np.stack([place_rows(b, numbers, categories) for b in offered.columns], axis=1)
    for row in real(bank).tolist():
        cells.setdefault(tuple(placed[shop_row_of[row]].tolist()), []).append(int(person_of[row]))
    y, exchanged = data.y.copy(), 0
    for people in cells.values():
        y[people] = np.roll(data.y[people], 1)
        exchanged += int((y[people] != data.y[people]).sum())
    assert exchanged > 100
    other = weighed_on(with_labels(data, y), contract)
    assert relayed(one) == relayed(other)
    masked = {"MaskedLabels", "PassShare", "ValueOpening", "BitOpening"}
    assert differing(one, other, SHOP) <= masked, "WeighedBins are the same, byte for byte"
    assert evidence_of(one, SHOP) == evidence_of(other, SHOP)
    assert names(one, BANK) != [] and evidence_of(one, BANK) != evidence_of(other, BANK)


def test_two_worlds_with_other_labels_look_the_same_to_the_relay_and_the_dealer():
    contract = terms_of(3)
    one = weighed_on(world(contract), contract)
    data = world(contract)
    has = np.flatnonzero(~np.isnan(data.y))
    y = data.y.copy()
    y[has] = np.random.default_rng(5).permutation(y[has])
    other = weighed_on(with_labels(data, y), contract)
    assert relayed(one) == relayed(other)
    assert evidence_of(one, SHOP) != evidence_of(other, SHOP)
    assert differing(one, other, DEALER) == set()


def test_two_worlds_another_partners_columns_change_nothing_that_a_partner_is_told():
    contract = terms_of(3)
    one = weighed_on(world(contract), contract)
    data = world(contract)
    customers, columns = data.local[TELECOM]
    random = np.random.default_rng(8)
    data.local[TELECOM] = (
        customers,
        dataclasses.replace(columns, numbers={n: random.permutation(v) for n, v in columns.numbers.items()}),
    )
    other = weighed_on(data, contract)
    assert evidence_of(one, TELECOM) != evidence_of(other, TELECOM)
    assert wire.encode(told(one)) == wire.encode(told(other))
    assert differing(one, other, SHOP) == set()


SPOILT = {
    "length": lambda m: dataclasses.replace(m, groups=m.groups[:-1]),
    "columns": lambda m: dataclasses.replace(m, information=m.information[1:]),
    "neighbours": lambda m: dataclasses.replace(m, groups=np.where(m.groups == 1, 2, m.groups)),
    "range": lambda m: dataclasses.replace(m, woe=m.woe + 10**6),
    "that range": lambda m: dataclasses.replace(m, woe=m.woe * 40),
    "left out every": lambda m: dataclasses.replace(m, information=np.full_like(m.information, -1)),
    "not shown": lambda m: dataclasses.replace(m, information=np.full_like(m.information, -2)),
}


@pytest.mark.parametrize("what", SPOILT)
def test_the_partner_refuses_what_does_not_fit_its_bins(what):
    contract = coarse()

    def spoil(sent):
        return SPOILT[what](sent.message) if isinstance(sent.message, WeighedBins) else sent.message

    with pytest.raises(ValueError, match=r"length|neighbours|gaps|range|min_share|left out every|not shown"):
        weighed(contract, change=spoil)


def test_the_partner_refuses_bins_that_are_smaller_than_agreed():
    contract = terms_of(2, merge="none", min_share=0.1)

    def spoil(sent):
        m = sent.message
        if not isinstance(m, WeighedBins):
            return m
        (where, count), *_ = shown_at
        groups, woe = m.groups.copy(), m.woe.copy()
        groups[where : where + count], woe[where : where + count] = np.arange(count), np.arange(count)
        return dataclasses.replace(m, groups=groups, woe=woe)

    fair = weighed(contract)
    sizes = fair.publics[SHOP, BinSizes]
    j = next(j for j, iv in enumerate(told(fair).information) if iv >= 0 and sizes.sizes[j] > 10)
    shown_at = [(sizes.columns[j].start, sizes.sizes[j])]
    with pytest.raises(ValueError, match="to less than scorecard"):
        weighed(contract, change=spoil)


def test_the_bank_may_not_weigh_a_column_whose_totals_it_was_not_shown():
    contract = coarse()
    contract = contract.model_copy(update={"limits": contract.limits.model_copy(update={"min_events": 150})})

    def spoil(sent):
        m = sent.message
        return dataclasses.replace(m, information=np.abs(m.information)) if isinstance(m, WeighedBins) else m

    fair = weighed(contract)
    shown = {n for n in fair.recall(BANK, EvidenceTable).totals[SHOP]}
    assert 0 < len(shown) < 4
    with pytest.raises(ValueError, match="was not shown"):
        weighed(contract, change=spoil)


# ------------------------------------------------------------------------------------------ edges stay


def _key(caller):
    (key,) = [k for k in caller.stores[SHOP] if k.startswith("scorecard bins/")]
    return key


def test_a_later_run_of_the_contract_takes_the_bins_of_the_first():
    """Redteam 2.8: edges that follow the rows would tell the label of the row by which they moved."""
    contract = terms_of(2)
    first = weighed(contract)
    stored = first.stores[SHOP][_key(first)]
    again = weighed(contract, seed=2, stores={SHOP: {_key(first): stored}})
    assert again.stores[SHOP][_key(again)] == stored
    assert weighed(contract, seed=2).stores[SHOP][_key(first)] != stored, (
        "by itself it would have cut otherwise"
    )
    offered = {b.name: b for b in Binning.from_json(stored.decode()).columns}
    for column in evidence_of(again, SHOP).columns:
        fine = offered[column.bins.name]
        assert set(getattr(column.bins, "edges", ())) <= set(getattr(fine, "edges", ()))


def test_what_a_partner_was_told_is_told_again_and_nothing_else_under_one_contract():
    """Redteam 2.8: the weights of two runs whose rows differ by one tell the label of that one."""
    contract = terms_of(2)
    first = weighed(contract)
    again = weighed(contract, stores=first.stores)
    assert wire.encode(told(first)) == wire.encode(told(again))
    data = world(contract)
    train = real(first.recall(BANK, Split).train)
    y, person = data.y.copy(), int(np.argsort(data.order[BANK])[train[0]])
    y[person] = 1 - y[person]
    before = contract.model_copy(update={"name": "another"})
    one, other = (weighed_on(d, before) for d in (world(contract), with_labels(world(contract), y)))
    assert wire.encode(told(one)) != wire.encode(told(other)), "this is what a change would tell"
    with pytest.raises(PolicyRefused, match="rows or labels changed since WoE was told"):
        weighed_on(with_labels(data, y), contract, stores=first.stores)


def test_a_partner_that_moves_an_edge_between_two_runs_is_refused_by_the_pin():
    """Redteam 2.8: the difference of two totals would be the label of the rows between the two edges."""
    contract = terms_of(2)
    first = weighed(contract)
    binning = Binning.from_json(first.stores[SHOP][_key(first)].decode())
    moved = tuple(
        dataclasses.replace(b, edges=(np.nextafter(b.edges[0], 9), *b.edges[1:])) if b.name == "x0" else b
        for b in binning.columns
    )
    first.stores[SHOP][_key(first)] = Binning(moved).to_json().encode()
    with pytest.raises(PolicyRefused, match="x0 was shown in other bins"):
        weighed(contract, stores=first.stores)


def test_a_column_with_a_bin_too_small_in_a_later_run_is_left_out():
    contract = terms_of(2)
    first = weighed(contract)
    binning = Binning.from_json(first.stores[SHOP][_key(first)].decode())
    lone = tuple(
        dataclasses.replace(b, edges=(*b.edges, 1e6), missing=b.missing + (b.missing > len(b.edges)))
        if b.name == "x2"
        else b
        for b in binning.columns
    )
    stores = {SHOP: {_key(first): Binning(lone).to_json().encode()}}
    again = weighed(contract, stores=stores)
    assert "x2" in names(first, SHOP) and "x2" not in names(again, SHOP)


def test_a_party_whose_columns_all_stand_still_cannot_take_part():
    contract = terms_of(2)
    data = world(contract)
    customers, columns = data.local[SHOP]
    still = Columns(
        {n: np.ones_like(v) for n, v in columns.numbers.items()},
        {"town": np.full(len(data.ids), "north", object)},
        None,
    )
    data.local[SHOP] = (customers, still)
    caller = PlainCaller(contract, data.local)
    caller.states = start_aligned(world(contract)).states
    caller.states[SHOP][Columns] = still
    with pytest.raises(DataError, match="shop: no column has two bins"):
        caller(SHOP, BIN)


# ------------------------------------------------------------------------------------------ contract and traffic


def test_a_contract_must_name_all_that_it_tells():
    for kind in NEEDED:
        text = terms_of(2).model_dump()
        text["disclosures"] = [k for k in text["disclosures"] if k != kind]
        with pytest.raises(ValidationError, match=f"a model of kind scorecard needs {kind} too"):
            Contract(**text)


def test_a_contract_with_hidden_match_is_refused():
    text = terms_of(2).model_dump()
    with pytest.raises(
        ValidationError, match="shown: hidden, nobody can count the rows of a scorecard's bins"
    ):
        Contract(**{**text, "align": {"match": "hidden"}})


@pytest.mark.parametrize("k", [2, 3])
def test_planned_bytes_are_those_of_the_steps_with_the_same_bins(k, monkeypatch):
    monkeypatch.setattr(bin_layout, "BLOCK_BYTES", 60_000)
    caller = weighed(terms_of(k))
    bins = {p: caller.publics[p, BinSizes] for p in data_parties(caller.contract)[1:]}
    sizes = Sizes(caller.contract, caller.overlap, {}, {}, TreeFacts(bins, ()))
    planned: Counter[str] = Counter()
    made: Counter[tuple[str, str]] = Counter()
    for t in caller.told:
        if t.step in bin_traffic.CONTENT:
            call = Planned(t.party, SimpleNamespace(name=t.step), made[t.party, t.step])
            planned[t.step] += bin_traffic.CONTENT[t.step](sizes, call)[0]
            made[t.party, t.step] += 1
    assert made["shop", "totals.mask_bins"] > 3 and set(bin_traffic.CONTENT) == set(planned)
    for step, size in planned.items():
        real = [len(s.data) for s in caller.sent if s.step == step]
        assert size <= sum(real) <= size + 330 * len(real), step
