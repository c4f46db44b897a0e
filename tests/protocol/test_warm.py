"""A model that starts from an earlier one: fewer passes to the same optimum, on its columns, or a clear refusal."""

import dataclasses
import functools

import numpy as np
import pytest

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.errors import DataError, PeerError, PolicyRefused
from fedmkt.learn import glm
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.protocol import family
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.linear.scoring import score
from fedmkt.protocol.linear.warm import check_start
from fedmkt.protocol.prepare import Prepared
from tests.protocol.glm_world import check_addresses, draws, known_rows, matrix, weight_error
from tests.protocol.hidden_world import hidden_contract
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    PlainCaller,
    chi_square,
    contract_of,
    joint_data,
    place,
    start_aligned,
)
from tests.protocol.test_two_worlds import MASKED, check_same

COLUMNS = (5, 8, 8)


def month(number, k=2, model=None, **options):
    """Draw customers of one month: the same people's law, other people."""
    first = contract_of(k, columns=COLUMNS, model={"iterations": 24} | (model or {}), **options)
    whole = joint_data(first, 5000, seed=4, signal=0.6)
    rows = slice(number * 2500, (number + 1) * 2500)
    x = {p: values[rows] for p, values in whole.x.items()}
    return place(first, whole.ids[rows], x, whole.y[rows], np.random.default_rng(number))


def run(data, stores=None, seed=1):
    caller = start_aligned(data, seed=seed, stores=stores or {})
    family.logistic.fit(caller, data.contract, caller.overlap, caller.columns())
    score(caller, data.contract, caller.overlap, caller.columns())
    return caller


@functools.cache
def january(k=2):
    return run(month(0, k))


def stores(caller):
    """Return what the parties remember, to be handed to another caller."""
    return {party: dict(store) for party, store in caller.stores.items()}


def february(k=2, **model):
    return month(1, k, {"start": digest(january(k).contract).hex()} | model)


def optimum(caller):
    best = glm.fit("logistic", matrix(caller), known_rows(caller), caller.contract.model.penalty)
    return np.append(best.intercept, best.coefficients)


@pytest.mark.parametrize("k", [2, 3])
def test_a_new_month_is_nearer_to_its_optimum_after_as_many_passes(k):
    """Another 2,500 people: their optimum is about as far from January's as sampling makes it."""
    warm = run(february(k, iterations=4), stores(january(k)))
    cold = run(month(1, k, {"iterations": 4}))
    assert 2 * weight_error(warm, optimum(warm)) < weight_error(cold, optimum(cold))
    assert weight_error(warm, optimum(warm)) < 0.04


def test_with_enough_passes_the_start_makes_no_difference():
    warm = run(february(), stores(january()))
    assert weight_error(warm, optimum(warm)) < 2e-3


def test_the_columns_are_those_of_the_earlier_model():
    warm = run(february(iterations=2), stores(january()))
    for party in data_parties(warm.contract):
        before, now = (c.recall(party, Prepared) for c in (january(), warm))
        assert now.preparation == before.preparation
        assert np.array_equal(now.transform, before.transform)


def test_a_model_that_was_started_from_another_can_be_started_from():
    warm = run(february(iterations=8), stores(january()))
    third = run(month(1, 2, {"start": digest(warm.contract).hex(), "iterations": 3}), stores(warm))
    assert weight_error(third, optimum(third)) < weight_error(warm, optimum(warm))


# ------------------------------------------------------------------------------------------ what is refused


def test_a_contract_without_a_kept_model_is_refused():
    with pytest.raises(PolicyRefused, match=r"no model of contract [0-9a-f]{16} is kept here"):
        run(february())


def test_a_larger_penalty_than_the_columns_were_prepared_for_is_refused():
    """Passes from a model of penalty 1 with one of 1,000 ended at the range check, which said to raise it."""
    kept = stores(january())
    with pytest.raises(DataError, match="prepared for a smaller penalty"):
        run(february(penalty=1000.0), kept)
    warm = run(february(penalty=30.0), kept)
    assert weight_error(warm, optimum(warm)) < 3e-3


def test_another_kind_of_model_or_other_columns_are_refused():
    kept = stores(january())
    start = digest(january().contract).hex()
    other = contract_of(2, columns=(5, 7), model={"start": start})
    with pytest.raises(PolicyRefused, match="another kind of model or of other columns"):
        start_aligned(joint_data(other, 500), stores=kept)
    numbers = contract_of(2, columns=COLUMNS, model={"start": start, "kind": "linear"})
    with pytest.raises(PolicyRefused, match="another kind of model or of other columns"):
        start_aligned(joint_data(numbers, 500), stores=kept)


def test_other_parties_are_refused():
    kept = stores(january())
    other = contract_of(3, columns=COLUMNS, model={"start": digest(january().contract).hex()})
    with pytest.raises(PolicyRefused, match="is of other parties"):
        start_aligned(joint_data(other, 500), stores=kept)


def test_shares_of_different_runs_are_refused():
    kept, data = stores(january()), february()
    (key,) = [k for k in kept[SHOP] if k.startswith("model/")]
    kept[SHOP][key] = kept[SHOP][key].replace(b"00" * 32, b"11" * 32)
    caller = PlainCaller(data.contract, data.local, stores=kept)
    if kept[SHOP][key] == january().stores[SHOP][key]:
        pytest.fail("nothing was changed: the run is written otherwise than this test thinks")
    with pytest.raises(PeerError, match="shares of different runs"):
        check_start(caller, data.contract)


def test_a_column_that_too_few_new_rows_carry_is_refused():
    data = february()
    customers, columns = data.local[SHOP]
    still = columns.numbers | {"x3": np.full(len(columns.numbers["x3"]), 0.5)}
    data.local[SHOP] = (customers, dataclasses.replace(columns, numbers=still))
    with pytest.raises(DataError, match="'x3', is carried by fewer than 20 train rows now"):
        start_aligned(data, stores=stores(january()))


@pytest.mark.parametrize("kind", ["scorecard", "trees", "additive"])
def test_other_families_have_no_start(kind):
    with pytest.raises(ValueError, match=f"no start with kind = {kind}"):
        contract_of(model={"kind": kind, "start": "ab" * 32})


def test_with_a_hidden_match_nothing_is_kept_and_nothing_starts_from_it():
    with pytest.raises(ValueError, match="a model cannot start from an earlier one"):
        hidden_contract(model={"start": "ab" * 32})


def test_correlations_of_columns_that_an_earlier_month_centred_are_refused():
    kinds = (*DEFAULT, "CrossCorrelation")
    assert contract_of(disclosures=kinds, limits={"min_support": 50}).model.start is None
    with pytest.raises(ValueError, match=r"CrossCorrelation without model\.start"):
        contract_of(disclosures=kinds, limits={"min_support": 50}, model={"start": "ab" * 32})


# ------------------------------------------------------------------------------------------ what is seen of it


def test_a_warm_start_hides_the_labels_from_the_partner():
    def world(change):
        data = february(iterations=2)
        customers, columns = data.local[BANK]
        data.local[BANK] = (customers, dataclasses.replace(columns, label=change(columns.label)))
        return run(data, stores(january()), seed=3)

    one, other = world(lambda y: y), world(lambda y: 1 - y)
    check_same(one, other, (SHOP,), MASKED)


def test_kept_shares_are_uniform_and_no_mask_serves_twice():
    data = february(iterations=2)
    caller = start_aligned(data, seed=9, stores=stores(january()))
    drawn = draws(caller)
    family.logistic.fit(caller, data.contract, caller.overlap, caller.columns())
    check_addresses(caller, drawn)
    shares = [c.w for c in (january().recall(p, family.scoring.Weights) for p in (BANK, SHOP))]
    assert all((np.abs(s.view(np.int64)) > 2.0**50).mean() > 0.9 for s in shares)
    assert abs(chi_square(np.concatenate(shares))) < 5


def test_the_digest_of_a_contract_without_start_is_what_it_was():
    plain = contract_of()
    assert Contract.model_validate(plain.model_dump()).model.start is None
    assert digest(plain) != digest(contract_of(model={"start": "ab" * 32}))
