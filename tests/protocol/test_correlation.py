import dataclasses
import functools

import numpy as np
import pytest

from fedmkt.errors import ConfigError, PeerError, PolicyRefused
from fedmkt.learn.prepare import Preparation, Settings, fit
from fedmkt.privacy.disclosure import DEFAULT, CrossCorrelation
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import Silent, data_parties
from fedmkt.protocol.linear import correlation, cross_product
from fedmkt.protocol.linear.correlation import Correlations, column_names, cross_correlation
from fedmkt.protocol.prepare import Columns, Prepared, prepared_rows, real
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    PlainCaller,
    chi_square,
    contract_of,
    joint_data,
    start_aligned,
)
from tests.protocol.test_two_worlds import check_same, columns_exchanged, labels_changed

ALLOWED = (*DEFAULT, "CrossCorrelation")
MASKED = {"MaskedColumns", "CrossOpening", "CorrelationShare"}


def contract_with(k=2, columns=(4, 3, 3), **options):
    return contract_of(k, columns=columns, limits={"min_support": 50}, disclosures=ALLOWED, **options)


@functools.cache
def aligned(k, n=1200, columns=(4, 3, 3)):
    return start_aligned(joint_data(contract_with(k, columns), n))


def fresh(base, stores=None, seed=7):
    caller = PlainCaller(base.contract, base.local, seed=seed, stores=stores or {})
    caller.publics = dict(base.publics)
    for name, states in base.states.items():
        caller.states[name] = dict(states)
    return caller


def correlated(k=2, stores=None, seed=7, **options):
    caller = fresh(aligned(k, **options), stores, seed)
    cross_correlation(caller, caller.contract, caller.overlap, caller.columns())
    return caller


def pooled(caller):
    """Put all parties' prepared columns of the training rows into one table, as nobody can."""
    sides = []
    for p in data_parties(caller.contract):
        fitted = Preparation.from_json(caller.recall(p, Prepared).preparation)
        sides.append(prepared_rows(fitted, caller.recall(p, Columns), real(caller.recall(p, Split).train)))
    return np.concatenate(sides, axis=1)


def own_names(caller, party):
    return Preparation.from_json(caller.recall(party, Prepared).preparation).columns


@pytest.mark.parametrize("k", [2, 3])
def test_the_bank_gets_the_correlations_of_the_pooled_table(k):
    caller = correlated(k)
    found, expected = caller.recall(BANK, Correlations), np.corrcoef(pooled(caller).T)
    assert found.matrix.shape == expected.shape
    assert np.abs(found.matrix - expected).max() < 1.01e-4
    d = caller.columns()[BANK]
    assert np.abs(found.matrix[:d, :d] - expected[:d, :d]).max() < 1e-12, "its own it computes by itself"
    assert np.array_equal(found.matrix, found.matrix.T)
    assert found.rows == len(real(caller.recall(BANK, Split).train))
    assert np.abs(expected[:d, d:]).max() > 0.1, "there is something to find"


def test_many_blocks_of_rows_give_what_one_gives(monkeypatch):
    one = correlated().recall(BANK, Correlations).matrix
    monkeypatch.setattr(cross_product, "BLOCK_BYTES", 5000)
    monkeypatch.setattr(correlation, "_CHUNK", 100)
    caller = correlated()
    assert sum(s.step == "correlation.mask_columns" for s in caller.sent) > 8
    assert np.abs(caller.recall(BANK, Correlations).matrix - one).max() < 2.01e-4


def test_correlations_are_rounded_without_bias():
    k, errors = 2, []
    expected = np.corrcoef(pooled(aligned(k)).T)[:4, 4:]
    for seed in range(60):
        found = correlated(k, seed=seed).recall(BANK, Correlations).matrix[:4, 4:]
        errors.append((found - expected) * 1e4)
    mean = np.mean(errors)
    assert np.abs(errors).max() < 1.01 and abs(mean) < 4 * 0.5 / np.sqrt(np.size(errors))


@pytest.mark.parametrize("k", [2, 3])
def test_only_the_bank_gets_correlations_and_it_is_declared(k):
    caller = correlated(k)
    assert [n for n in caller.states if Correlations in caller.states[n]] == [BANK]
    assert {type(t.value) for t in caller.told} == {Silent}
    assert {s.reader for s in caller.sent if s.step == "correlation.release"} == {BANK}
    rows, d = caller.layout().rows, caller.columns()
    others = sum(d[p] for p in data_parties(caller.contract)[1:])
    assert [x for _, x in caller.revealed] == [
        CrossCorrelation(
            to=BANK, bank_columns=d[BANK], columns=d[p], other_columns=others - d[p], rows=rows, decimals=4
        )
        for p in data_parties(caller.contract)[1:]
    ]


@pytest.mark.parametrize("k", [2, 3])
def test_every_message_but_the_partners_own_correlations_is_uniform_by_itself(k):
    caller = correlated(k)
    kinds = {"correlation.open": [], "correlation.mask_columns": [], "correlation.release": []}
    for sender, step in sorted({(s.sender, s.step) for s in caller.sent if s.step in kinds}):
        # What goes to two readers is the same.
        message = next(s.message for s in caller.sent if (s.sender, s.step) == (sender, step))
        found = {"open": "words", "mask_columns": "rows", "release": "share"}[step.partition(".")[2]]
        words = getattr(message, found)
        kinds[step].append(words if isinstance(words, np.ndarray) else words.words)
    openings, rows, shares = kinds.values()
    assert (len(openings), len(rows), len(shares)) == (k, k, k - 1)
    for kind in kinds.values():
        assert abs(chi_square(np.concatenate([w.reshape(-1) for w in kind]))) < 4.5


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("owner", [BANK, SHOP])
def test_nobody_but_the_bank_can_tell_a_partys_columns_from_others(k, owner):
    data = joint_data(contract_with(k), 600)
    one = start_aligned(data, seed=3)
    other = start_aligned(columns_exchanged(data, owner, one), seed=3)
    for caller in (one, other):
        cross_correlation(caller, caller.contract, caller.overlap, caller.columns())
    # Of the partner's columns the bank is told what it is told: see `CrossCorrelation`.
    readers = tuple(p for p in data_parties(data.contract) if p not in (owner, BANK))
    check_same(one, other, readers, MASKED)
    assert not np.allclose(one.recall(BANK, Correlations).matrix, other.recall(BANK, Correlations).matrix)


@pytest.mark.parametrize("k", [2, 3])
def test_correlations_tell_nothing_about_labels(k):
    data = joint_data(contract_with(k), 600)
    one = start_aligned(data, seed=3)
    other = start_aligned(labels_changed(data, one), seed=3)
    for caller in (one, other):
        cross_correlation(caller, caller.contract, caller.overlap, caller.columns())
    check_same(one, other, data_parties(data.contract), set())


def test_without_the_disclosure_nothing_is_called_and_nothing_changes():
    data = joint_data(contract_of(2), 400)
    caller = start_aligned(data)
    before, rounds = len(caller.sent), caller.rounds
    cross_correlation(caller, data.contract, caller.overlap, caller.columns())
    assert (len(caller.sent), caller.rounds) == (before, rounds)


# ------------------------------------------------------------------------------------------ names


def test_prepared_columns_are_named_by_column_and_number_and_no_level_travels():
    contract = contract_with(2, categories={SHOP: ("city",)})
    data = joint_data(contract, 1200)
    random = np.random.default_rng(3)
    columns = next(s for s in data.local[SHOP] if isinstance(s, Columns))
    columns.numbers["x1"][random.random(1200) < 0.3] = np.nan
    columns.categories["city"] = random.choice(["Geneva", "Zurich", "Basel", "Chur"], 1200).astype(object)
    caller = start_aligned(data)
    levels = [n for n in own_names(caller, SHOP) if n.startswith("city=")]
    assert len(levels) == 3
    cross_correlation(caller, contract, caller.overlap, caller.columns())
    found = caller.recall(BANK, Correlations)
    assert found.names[4:] == ("x0", "x1 1", "x1 2", "x2", "city 1", "city 2", "city 3")
    assert found.owners == (BANK,) * 4 + (SHOP,) * 7
    seen = b"".join(s.data for s in caller.seen_by(BANK))
    assert not any(city in seen for city in (b"Geneva", b"Zurich", b"Basel", b"Chur"))


def test_columns_are_numbered_where_one_became_several():
    assert column_names(("a", "b", "c"), (0, 2, 2, 1)) == ["a", "c 1", "c 2", "b"]


# ------------------------------------------------------------------------------------------ ledger


def test_the_ledger_counts_a_functional_for_each_column_of_the_bank_and_ends():
    stores = {SHOP: {}}
    allowed = len(real(aligned(2).recall(SHOP, Split).train)) // 50 // 4
    assert allowed == 3
    for i in range(allowed):
        caller = correlated(stores=stores, seed=i)
        caller.stores[SHOP].pop("correlated/" + bytes(32).hex())  # as in a run of its own
        counts = {v for k, v in caller.stores[SHOP].items() if k.startswith("correlations/")}
        assert counts == {str(4 * (i + 1)).encode()}
        stores = {SHOP: caller.stores[SHOP]}
    with pytest.raises(PolicyRefused, match="the ledger allows"):
        correlated(stores=stores, seed=9)


def test_a_job_with_fewer_rows_than_the_ledger_allows_is_refused_before_any_work():
    caller = start_aligned(joint_data(contract_with(2, columns=(6, 3, 3)), 400))
    before = len(caller.sent)
    with pytest.raises(ConfigError, match="50 training rows for each"):
        cross_correlation(caller, caller.contract, caller.overlap, caller.columns())
    assert len(caller.sent) == before


def test_the_same_share_sent_again_counts_once_and_another_rounding_again():
    first = correlated(seed=1)
    again = correlated(stores={SHOP: dict(first.stores[SHOP])}, seed=1)
    other = correlated(stores={SHOP: dict(first.stores[SHOP])}, seed=2)
    key = next(k for k in first.stores[SHOP] if k.startswith("correlations/"))
    assert [c.stores[SHOP][key] for c in (first, again, other)] == [b"4", b"4", b"8"]


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: dataclasses.replace(m, own=m.own + np.triu(np.ones_like(m.own), 1)),
        lambda m: dataclasses.replace(m, own=m.own[:2, :2]),
        lambda m: dataclasses.replace(m, own=m.own * 2),
        # The least number of 64 bits is its own absolute value.
        lambda m: dataclasses.replace(
            m, own=np.where(np.eye(len(m.own)) == 1, m.own, np.iinfo(np.int64).min)
        ),
        lambda m: dataclasses.replace(m, raw=(9, *m.raw[1:])),
        lambda m: dataclasses.replace(m, share=m.share[1:]),
    ],
)
def test_the_bank_refuses_correlations_of_another_shape_or_kind(spoil):
    caller = fresh(aligned(2))
    caller.change = lambda sent: spoil(sent.message) if sent.step == "correlation.release" else sent.message
    with pytest.raises(PeerError, match="not accepted"):
        cross_correlation(caller, caller.contract, caller.overlap, caller.columns())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limits": {"min_support": 49}}, "min_support of at least 50"),
        ({"limits": {"min_support": 50}, "align": {"match": "hidden"}}, "match = shown"),
        (
            {
                "limits": {"min_support": 50},
                "align": {"join": "left"},
                "disclosures": (*ALLOWED, "JoinedRows"),
            },
            "join = inner",
        ),
        (
            {"limits": {"min_support": 50}, "disclosures": (*ALLOWED, "StandardErrors")},
            "with CrossCorrelation and",
        ),
    ],
)
def test_a_contract_is_refused_under_which_support_cannot_be_counted(options, said):
    with pytest.raises(ValueError, match=said):
        contract_of(2, **({"disclosures": ALLOWED} | options))


# ------------------------------------------------------------------------------------------ redteam 1.3


def with_columns(data, extra):
    """Give the bank further columns, by person."""
    person = np.argsort(data.order[BANK])
    customers, columns = data.local[BANK]
    numbers = columns.numbers | {f"z{j}": extra[person, j] for j in range(extra.shape[1])}
    return dataclasses.replace(
        data, local=data.local | {BANK: (customers, dataclasses.replace(columns, numbers=numbers))}
    )


def one_row_job(support):
    """Run with a bank that has 40 columns of one training row each; return the caller and these people."""
    data = joint_data(contract_with(2), 1200)
    train = real(start_aligned(data).recall(BANK, Split).train)
    people = np.random.default_rng(5).choice(np.argsort(data.order[BANK])[train], 40, replace=False)
    extra = np.zeros((1200, 40))
    extra[people, np.arange(40)] = 1
    data = with_columns(data, extra)
    limits = data.contract.limits.model_copy(update={"min_support": support})
    caller = start_aligned(
        dataclasses.replace(data, contract=data.contract.model_copy(update={"limits": limits}))
    )
    cross_correlation(caller, caller.contract, caller.overlap, caller.columns())
    return caller, people, data


def rows_read(caller, people, data):
    """Count people whose row of the partner's stands in a row of the block, over sqrt(n)."""
    d, found = caller.columns()[BANK], caller.recall(BANK, Correlations)
    guesses = found.matrix[:d, d:] * np.sqrt(found.rows)
    table = pooled(caller)[:, d:]
    at = {row: i for i, row in enumerate(real(caller.recall(SHOP, Split).train))}
    truth = table[[at[data.order[SHOP][person]] for person in people]]
    return sum(bool((np.abs(guesses - row) < 0.01).all(axis=1).any()) for row in truth)


def test_one_row_columns_read_forty_rows_where_no_support_is_asked_and_none_where_it_is():
    undefended, defended = one_row_job(1), one_row_job(50)
    assert undefended[0].columns()[BANK] == 44 and rows_read(*undefended) == 40
    assert defended[0].columns()[BANK] == 4 and rows_read(*defended) == 0


def test_two_columns_that_differ_by_a_row_still_read_it_as_the_disclosure_says():
    """What the support rule leaves: the difference of two sums over 60 rows that share 59."""
    random = np.random.default_rng(2)
    n = 2000
    partner = (random.random(n) < 0.3).astype(float)
    at = random.permutation(n)
    columns = np.zeros((n, 2))
    columns[at[:60], 0] = 1
    columns[at[:59], 1] = 1
    fitted = fit({"a": columns[:, 0], "b": columns[:, 1]}, {}, np.ones(n, bool), Settings(min_support=50))
    assert len(fitted.columns) == 2
    read = np.round(np.corrcoef(np.column_stack([columns, partner]).T)[:2, 2], 4)
    # Correlation back into a number of rows with both, from what the bank and the disclosed share of ones give.
    p, counts = partner.mean(), []
    for j, r in enumerate(read):
        q = columns[:, j].mean()
        counts.append(round(n * (r * np.sqrt(p * (1 - p) * q * (1 - q)) + p * q)))
    assert counts[0] - counts[1] == partner[at[59]]
    assert "that row" in CrossCorrelation.__doc__
