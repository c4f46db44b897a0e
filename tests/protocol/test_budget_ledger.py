"""The budget ledger: one account for each counterpart and population, whatever the runs and contracts."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from dp_accounting import ComposedDpEvent, NeighboringRelation, ZCDpEvent
from dp_accounting.pld.privacy_loss_distribution import from_randomized_response
from dp_accounting.rdp import RdpAccountant

from fedmkt.contract.words import comparable
from fedmkt.errors import AuditError, PolicyRefused
from fedmkt.privacy.noise import FLOODING_DELTA
from fedmkt.privacy.superset import epsilon
from fedmkt.protocol.alignment.psi import Customers, psi
from fedmkt.protocol.budget_ledger import (
    List,
    Training,
    check_budget,
    earlier,
    entry_name,
    epsilon_together,
    read_entries,
)
from tests.protocol.hidden_world import hidden_contract
from tests.protocol.plain_caller import BANK, DEALER, SHOP, PlainCaller
from tests.protocol.test_hidden_psi import LISTED, lists


def listed(stores, run, key=None, **align):
    """Run a hidden match with a list under a run of its own."""
    ids, labelled = lists()
    options = {**LISTED, "align": LISTED["align"] | align}
    contract = hidden_contract(**options)
    if key is not None:
        other = contract.parties[1].model_copy(update={"organisation": "another", "key": key})
        contract = contract.model_copy(update={"parties": (contract.parties[0], other)})
    local = {BANK: (Customers(tuple(ids[BANK]), labelled),), SHOP: (Customers(tuple(ids[SHOP]), None),)}
    caller = PlainCaller(contract, local, seed=run, stores=stores)
    turn = caller.turn
    caller.turn = lambda party: replace(turn(party), run=bytes([run]) * 32)
    psi(caller, contract)
    return contract


def told(stores):
    return [entry for _, entry in read_entries(stores[BANK])]


def test_trainings_come_to_what_the_accountant_says_of_all_events_composed():
    rhos, deltas = (0.02, 0.11, 0.4), (1e-7, 1e-6, 1e-5)
    trainings = [Training("a", "k", rho, delta) for rho, delta in zip(rhos, deltas, strict=True)]
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
    accountant.compose(ComposedDpEvent([ZCDpEvent(rho) for rho in rhos]))
    expected = accountant.get_epsilon(1e-7 - 3 * FLOODING_DELTA)
    assert epsilon_together(trainings) == pytest.approx(expected, rel=1e-12)
    assert epsilon_together(trainings) < sum(epsilon_together([t]) for t in trainings)
    assert epsilon_together([]) == 0


def renyi_epsilon(rhos, delta):
    """The slow plain way: the least over orders of what the composed divergence gives (Canonne et al. 2020, 12)."""
    orders = np.concatenate([1 + np.logspace(-3, 3, 400_000), np.arange(2, 2000)])
    divergence = sum(rho * orders for rho in rhos)
    found = divergence + np.log1p(-1 / orders) - (np.log(delta) + np.log(orders)) / (orders - 1)
    return float(found.min())


def test_over_renamed_and_rekeyed_counterparts_and_amended_contracts_all_trainings_are_one_account():
    """Entries know no contract, so an amendment begins nothing anew; a name or a key is enough to know a bank again."""
    told = [("a bank", "k1"), ("a bank", "k2"), ("new name", "k2"), ("new name", "k3"), ("stranger", "k9")]
    rhos, delta = (0.05, 0.2, 0.11, 0.4, 0.3), 1e-5
    store = {}
    for i, (who, rho) in enumerate(zip(told, rhos, strict=True)):
        entry = Training(*who, rho, delta)
        store[entry_name(entry, f"{i:064x}")] = json.dumps(asdict(entry)).encode()
    last = Training("new name", "k4", 0.07, delta)
    together = [*earlier(store, last, "f" * 64), last]
    assert len(together) == 5, "the stranger is another account"
    ours = epsilon_together(together)
    spent = delta - 4 * FLOODING_DELTA - FLOODING_DELTA
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
    for training in together:
        accountant.compose(ZCDpEvent(training.rho))
    assert ours == pytest.approx(accountant.get_epsilon(spent), rel=1e-12)
    # Orders between those of the accountant can only give less: it is never too low, and hardly too high.
    plain = renyi_epsilon([t.rho for t in together], spent)
    assert plain <= ours <= plain * 1.02
    with pytest.raises(PolicyRefused, match="C13"):
        check_budget(together, ours - 0.01, "partner", "training", "this bank")


def test_lists_of_several_choices_come_to_what_the_composed_privacy_loss_allows():
    """Two equal probabilities are randomised response, whose composition dp-accounting knows exactly."""
    lists = [List("a", "k", epsilon(0.2, 0.2), f"choice {i}") for i in range(3)]
    exact = from_randomized_response(0.4, 2).self_compose(3)
    assert epsilon_together(lists) == pytest.approx(exact.get_epsilon_for_delta(0.0), rel=1e-3)
    assert exact.get_epsilon_for_delta(1e-3) < epsilon_together(lists), (
        "a delta would buy some: none is promised"
    )


def test_the_same_list_again_costs_nothing_and_another_choice_adds_its_epsilon():
    stores = {BANK: {}, SHOP: {}, DEALER: {}}
    eps = epsilon(0.1, 0.4)
    for run in (1, 2):
        listed(stores, run)
    assert epsilon_together(told(stores)) == pytest.approx(eps) and len(told(stores)) == 2
    listed(stores, 3, drop=0.2)
    assert epsilon_together(told(stores)) == pytest.approx(eps + epsilon(0.2, 0.4))


def test_a_list_beyond_the_budget_is_refused_and_nothing_is_remembered_of_it():
    stores = {BANK: {}, SHOP: {}, DEALER: {}}
    contract = listed(stores, 1)
    partner = contract.parties[1]
    spent = List(comparable(partner.organisation), partner.key, 7.0, "other")
    stores[BANK][entry_name(spent, "aa" * 32)] = json.dumps(asdict(spent)).encode()
    before = dict(stores[BANK])
    with pytest.raises(PolicyRefused, match=r"C13 privacy budget: .*epsilon \d+\.\d+; the contract allows 8"):
        listed(stores, 2)
    assert stores[BANK] == before


def test_a_partner_under_another_name_is_known_by_its_key():
    stores = {BANK: {}, SHOP: {}, DEALER: {}}
    contract = listed(stores, 1)
    listed(stores, 2, key=contract.parties[1].key)
    one, other = told(stores)
    assert one.organisation != other.organisation and one.choice != other.choice
    assert [e.choice for e in earlier(stores[BANK], other, "02" * 32)] == [one.choice]


def test_columns_and_membership_are_never_added_up():
    training, given = Training("a", "k", 0.1, 1e-6), List("a", "k", 3.0, "c")
    store = {entry_name(e, r): json.dumps(asdict(e)).encode() for e, r in ((training, "01"), (given, "02"))}
    assert earlier(store, training, "03") == [training] and earlier(store, given, "03") == [given]
    with pytest.raises(ValueError, match="accounts of their own"):
        epsilon_together([training, given])
    assert math.isinf(epsilon_together([Training("a", "k", 0.1, FLOODING_DELTA)]))


@pytest.mark.parametrize(
    "value",
    [
        b"", b"\xff", b"[]", b"{}", b'"x"',
        b'{"organisation":"a","key":"k","rho":-1,"delta":1e-6}', b'{"organisation":"a","key":"k","rho":NaN,"delta":0}',
        b'{"organisation":"a","key":"k","rho":true,"delta":0}', b'{"organisation":1,"key":"k","rho":1,"delta":0}',
        b'{"organisation":"a","key":"k","rho":1,"delta":0,"more":1}',
    ],
)  # fmt: skip
def test_a_damaged_entry_is_named_and_not_read(value: bytes) -> None:
    """An amount below zero would give budget back."""
    with pytest.raises(AuditError, match="noise/run1: not as it was written"):
        list(read_entries({"noise/run1": value}))
