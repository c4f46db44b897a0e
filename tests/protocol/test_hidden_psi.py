"""The hidden match itself: who ends up where, what is told, and lists with drops and dummies."""

import contextlib
import functools
import math

import numpy as np
import pytest

from fedmkt.contract.agreement import Contract
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.privacy.disclosure import DEFAULT, LastingNames, MatchedOwnRows, SetSize, SupersetList
from fedmkt.privacy.superset import epsilon
from fedmkt.protocol.alignment import items
from fedmkt.protocol.alignment.align import Slots, Split, held_out, split
from fedmkt.protocol.alignment.hidden import REMEMBERED, expected_overlap
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Aligned, Customers, Overlap, psi
from fedmkt.protocol.pipeline import main_job
from fedmkt.protocol.prepare import Columns
from tests.contract.agreed import governance
from tests.protocol.hidden_world import hidden_contract, hidden_data
from tests.protocol.plain_caller import BANK, DEALER, SHOP, PlainCaller
from tests.protocol.test_two_worlds import MASKED, contents

LISTED = {"align": {"drop": 0.1, "dummies": 0.4}, "disclosures": (*DEFAULT, "SupersetList", "LastingNames")}


def people(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i:05d}" for i in range(count)]


def lists(common=60, bank=40, shop=140, seed=1):
    """Return the bank's and the partner's ids in random order, and which of the bank's have a label."""
    random = np.random.default_rng(seed)
    both = people("common", common)
    found = {BANK: both + people("bank", bank), SHOP: both + people("shop", shop)}
    found = {p: [ids[i] for i in random.permutation(len(ids))] for p, ids in found.items()}
    return found, random.random(len(found[BANK])) < 0.7


def matched(ids, labelled=None, contract=None, stores=None, seed=0, **options):
    contract = contract or hidden_contract(**options)
    local = {
        BANK: (Customers(tuple(ids[BANK]), labelled),),
        SHOP: (Customers(tuple(ids[SHOP]), None),),
    }
    caller = PlainCaller(contract, local, seed=seed, stores=stores or {})
    psi(caller, contract)
    return caller


def by_slot(caller, ids, party):
    """Return who is in each joint row at a party, None for nobody."""
    return [None if r == NO_ROW else ids[party][r] for r in caller.recall(party, Aligned).labelled.tolist()]


def test_every_common_customer_has_one_joint_row_at_both_parties_and_nobody_else_has_two():
    ids, labelled = lists()
    caller = matched(ids, labelled)
    bank, shop = (by_slot(caller, ids, p) for p in (BANK, SHOP))
    assert sorted(shop) == sorted(ids[SHOP]), "the partner's whole list"
    common = set(ids[BANK]) & set(ids[SHOP])
    assert {b for b in bank if b is not None} == common
    assert all(b is None or b == s for b, s in zip(bank, shop, strict=True))


def test_nothing_is_sent_to_the_partner_after_the_engine():
    ids, labelled = lists()
    caller = matched(ids, labelled)
    assert not [s for s in caller.sent if s.step in ("psi.place", "psi.match", "psi.take_slots")]
    told = caller.publics[BANK, Overlap]
    assert told == Overlap(19, 200, 0, 0, 200), "the contract's minimum, and the partner's own number"
    kinds = {type(d) for _, d in caller.revealed}
    assert not kinds & {SetSize, SupersetList}
    assert {d.to for _, d in caller.revealed if isinstance(d, MatchedOwnRows)} == {BANK}


def test_the_order_of_the_joint_rows_is_a_random_one_of_the_partner():
    ids, labelled = lists()
    orders = [by_slot(matched(ids, labelled, seed=s), ids, SHOP) for s in (1, 2)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != ids[SHOP]


def test_the_band_is_told_where_the_contract_names_it():
    ids, labelled = lists()
    contract = hidden_contract()
    named = Contract.model_validate(
        contract.model_dump() | {"disclosures": (*contract.disclosures, "SetSize")}
    )
    caller = matched(ids, labelled, named)
    common = sum(i in set(ids[SHOP]) for i in ids[BANK])
    told = caller.publics[BANK, Overlap]
    assert told.labelled_low + told.unlabelled_low < common <= told.labelled_high + told.unlabelled_high
    assert told.slots == 200
    (size,) = [d for _, d in caller.revealed if isinstance(d, SetSize)]
    assert (size.low, size.high) == (
        told.labelled_low + told.unlabelled_low,
        told.labelled_high + told.unlabelled_high,
    )


def test_customers_without_a_label_take_part_only_where_they_may_be_scored():
    ids, labelled = lists()
    caller = matched(ids, labelled, scores={"unlabelled": False})
    rows = caller.recall(BANK, Aligned).labelled
    assert labelled[rows[rows != NO_ROW]].all()


@pytest.mark.parametrize("terms", [{}, LISTED])
def test_customers_who_are_known_by_another_key_have_their_row_too(terms):
    contract = hidden_contract(**terms)
    values = contract.model_dump()
    for party in values["parties"]:
        party["more_kinds"] = ("email",)
    contract = Contract.model_validate(values)
    bank = Customers(
        (*people("both", 40), *people("old", 40), *([None] * 20)), np.ones(100, bool),
        ((*([None] * 40), *people("mail-a", 40), *people("mail-b", 20)),),
    )  # fmt: skip
    shop = Customers(
        (*([None] * 20), *people("new", 40), *people("both", 40)), None,
        ((*people("mail-b", 20), *people("mail-a", 40), *([None] * 40)),),
    )  # fmt: skip
    caller = PlainCaller(contract, {BANK: (bank,), SHOP: (shop,)})
    psi(caller, contract)
    rows = {p: caller.recall(p, Aligned).labelled for p in (BANK, SHOP)}
    pairs = {(int(b), int(s)) for b, s in zip(rows[BANK], rows[SHOP], strict=True) if b != NO_ROW}
    expected = (
        {(i, 60 + i) for i in range(40)}
        | {(40 + i, 20 + i) for i in range(40)}
        | {(80 + i, i) for i in range(20)}
    )
    assert pairs == expected if not terms else pairs < expected and len(pairs) > 70
    split(caller, contract)
    assert len(caller.recall(BANK, Split).train) + len(caller.recall(BANK, Split).held_out) == len(pairs)


@pytest.mark.parametrize("engine", ["ot", "vole"])
def test_the_match_is_hidden_whatever_engine_finds_it(engine):
    ids, labelled = lists()
    caller = matched(ids, labelled, hidden_contract(align={"engine": engine}))
    bank, shop = (by_slot(caller, ids, p) for p in (BANK, SHOP))
    assert {b for b in bank if b is not None} == set(ids[BANK]) & set(ids[SHOP])
    assert all(b is None or b == s for b, s in zip(bank, shop, strict=True))


def test_too_few_common_customers_are_refused_by_the_bank():
    ids, labelled = lists(common=15)
    with pytest.raises(PolicyRefused, match="smaller than the contract's minimum"):
        matched(ids, labelled)


@pytest.mark.parametrize(("bank", "shop"), [(140, 15), (15, 140)], ids=["the partner's", "the bank's"])
def test_under_governance_the_bank_asks_the_remainder_of_both_lists(bank, shop):
    ids, labelled = lists(bank=bank, shop=shop)
    for rest, is_refused in ((15, False), (16, True)):
        agreed = hidden_contract().model_copy(update={"governance": governance(min_rest=rest)})
        with pytest.raises(PolicyRefused, match=r"^C09 minimum") if is_refused else contextlib.nullcontext():
            matched(ids, labelled, agreed)


def test_a_bank_that_tells_another_number_of_joint_rows_is_refused():
    ids, labelled = lists()
    contract = hidden_contract()
    caller = PlainCaller(
        contract, {BANK: (Customers(tuple(ids[BANK]), labelled),), SHOP: (Customers(tuple(ids[SHOP]), None),)}
    )
    original = caller.all

    def lying(calls):
        replies = original(calls)
        if (BANK, Overlap) in caller.publics:
            caller.publics[BANK, Overlap] = Overlap(19, 150, 0, 0, 150)
        return replies

    caller.all = lying
    with pytest.raises(PeerError, match="another number of joint rows"):
        psi(caller, contract)


def test_the_bank_alone_divides_and_by_the_hash_of_the_id():
    ids, labelled = lists()
    caller = matched(ids, labelled)
    split(caller, caller.contract)
    found, slots = caller.recall(BANK, Split), caller.recall(BANK, Slots)
    common = set(ids[BANK]) & set(ids[SHOP])
    named = {
        name: {ids[BANK][r] for r in getattr(found, name)} for name in ("train", "held_out", "unlabelled")
    }
    assert named["train"] | named["held_out"] | named["unlabelled"] == common
    with_label = {i for i, has in zip(ids[BANK], labelled, strict=True) if has}
    assert named["unlabelled"] == common - with_label
    assert set(slots.train[slots.train != NO_ROW]) == set(found.train)
    assert set(slots.scored[slots.scored != NO_ROW]) == set(found.held_out) | set(found.unlabelled)
    shop = caller.recall(SHOP, Split)
    assert len(shop.train) == 200 and not len(shop.held_out) and not len(shop.unlabelled)
    key = bytes(32)
    assert held_out(key, tuple(ids[BANK]), 0.3).tolist() == [held_out(key, (i,), 0.3)[0] for i in ids[BANK]]


# ------------------------------------------------------------------------------------------ the whole job


def job(data, seed=0):
    caller = PlainCaller(data.contract, data.local, seed=seed)
    main_job(caller, data.contract)
    return caller


@functools.cache
def two_banks():
    """The same partner beside two banks whose lists are as long, one with twice as many of its people."""
    contract = hidden_contract((4, 3), model={"iterations": 2})
    data = hidden_data(contract, 700, 0.4, selection=0.0)
    one = job(data)
    customers, columns = data.local[BANK]
    kept = set(np.flatnonzero(data.common)[::2])
    ids = [
        i if i.startswith("other") or int(i.rpartition("-")[2]) in kept else f"gone-{n}"
        for n, i in enumerate(customers.ids)
    ]
    data.local[BANK] = (Customers(tuple(ids), customers.labelled), columns)
    return one, job(data)


def test_the_whole_job_looks_the_same_to_the_partner_whoever_banks_there():
    one, other = two_banks()
    counts = [int((c.recall(BANK, Aligned).labelled != NO_ROW).sum()) for c in (one, other)]
    assert counts[0] > 1.9 * counts[1] > 200
    lengths = [
        [
            (s.round, s.step, s.sender, s.reader, len(s.data), contents(s.message))
            for s in c.sent
            if s.sender != DEALER
        ]
        for c in (one, other)
    ]
    # The shape of the bank's own matrix, which is declared, need not be the same: here its numbers of columns are.
    assert lengths[0] == lengths[1]
    different = {
        type(a.message).__name__
        for a, b in zip(one.seen_by(SHOP), other.seen_by(SHOP), strict=True)
        if a.data != b.data
    }
    assert different <= MASKED | {"HiddenWeight", "SideOpening", "WeightedRows", "Blinded"}
    told = [[(t.round, t.step, t.party) for t in c.told] for c in (one, other)]
    assert told[0] == told[1]
    changed = {t.step for t, u in zip(one.told, other.told, strict=True) if t.value != u.value}
    assert changed <= {"prepare.fit"}
    shapes = [[d for s, d in c.revealed if s != "prepare.fit"] for c in (one, other)]
    assert shapes[0] == shapes[1]


# ------------------------------------------------------------------------------------------ drops and dummies


def listed_people(caller, ids):
    return set(by_slot(caller, ids, SHOP))


def test_a_list_leaves_out_some_common_people_and_adds_some_others():
    ids, labelled = lists(common=2000, bank=100, shop=4000)
    caller = matched(ids, labelled, **LISTED)
    found, common = listed_people(caller, ids), set(people("common", 2000))
    for who, share in ((common, 0.9), (set(ids[SHOP]) - common, 0.4)):
        assert abs(len(found & who) / len(who) - share) < 4.5 * math.sqrt(share * (1 - share) / len(who))
    assert caller.publics[BANK, Overlap].slots == len(found)
    bank, shop = (by_slot(caller, ids, p) for p in (BANK, SHOP))
    assert all(b is None or b == s for b, s in zip(bank, shop, strict=True))
    assert {b for b in bank if b is not None} == found & common
    (declared,) = [d for _, d in caller.revealed if isinstance(d, SupersetList)]
    assert (declared.to, declared.rows) == (SHOP, len(found))
    assert float(declared.epsilon) == pytest.approx(epsilon(0.1, 0.4), abs=0.01)
    assert LastingNames(to=BANK, rows=6000) in [d for _, d in caller.revealed]


def test_the_choice_is_remembered_over_runs_and_engines_orders():
    stores = {BANK: {}, SHOP: {}, DEALER: {}}
    ids, labelled = lists()
    first = listed_people(matched(ids, labelled, stores=stores, seed=1, **LISTED), ids)
    again = listed_people(matched(ids, labelled, stores=stores, seed=2, **LISTED), ids)
    assert first == again
    more = {p: [*ids[p], *people("new", 30)] for p in ids}
    third = matched(more, np.append(labelled, np.ones(30, bool)), stores=stores, seed=3, **LISTED)
    old = {i for i in listed_people(third, more) if not i.startswith("new")}
    assert old == first, "new people change nobody's choice"


def test_another_bank_secret_chooses_otherwise():
    ids, labelled = lists()
    found = [listed_people(matched(ids, labelled, seed=s, **LISTED), ids) for s in (1, 2)]
    assert len(found[0] ^ found[1]) > 30


def test_lists_of_many_runs_do_not_average_to_the_truth():
    """An attacker who sees eight lists knows no more than after the first."""
    stores = {BANK: {}, SHOP: {}, DEALER: {}}
    ids, labelled = lists()
    seen = [listed_people(matched(ids, labelled, stores=stores, seed=s, **LISTED), ids) for s in range(8)]
    assert all(s == seen[0] for s in seen)


def test_a_partner_that_names_its_people_anew_is_refused():
    stores = {BANK: {}, SHOP: {}, DEALER: {}}
    ids, labelled = lists()
    matched(ids, labelled, stores=stores, seed=1, **LISTED)
    assert len([k for k in stores[SHOP] if k.startswith("names/")]) == 1
    stores[SHOP].clear()
    with pytest.raises(PolicyRefused, match="names its people otherwise"):
        matched(ids, labelled, stores=stores, seed=2, **LISTED)


def test_the_bank_remembers_few_people_and_none_by_name():
    stores = {BANK: {}, SHOP: {}, DEALER: {}}
    ids, labelled = lists(common=400)
    matched(ids, labelled, stores=stores, **LISTED)
    (kept,) = [v for k, v in stores[BANK].items() if k.startswith("names seen/")]
    assert kept.count(b":") == REMEMBERED and b"common" not in kept


def test_names_travel_in_blocks(monkeypatch):
    monkeypatch.setattr(items, "BLOCK", 90)
    ids, labelled = lists()
    caller = matched(ids, labelled, **LISTED)
    sizes = [len(s.message.words) for s in caller.sent if s.step == "psi.name_slots"]
    assert sizes == [90, 90, 20]


@pytest.mark.parametrize("wrong", [[5, 5], [7, 6], [0, 200]])
def test_a_list_with_foreign_or_repeated_slots_is_refused(wrong):
    ids, labelled = lists()
    contract = hidden_contract(**LISTED)
    local = {BANK: (Customers(tuple(ids[BANK]), labelled),), SHOP: (Customers(tuple(ids[SHOP]), None),)}

    def change(sent):
        return type(sent.message)(np.array(wrong, np.uint32)) if sent.step == "psi.place" else sent.message

    caller = PlainCaller(contract, local, change=change)
    with pytest.raises(PeerError, match="foreign or listed twice"):
        psi(caller, contract)


@pytest.mark.parametrize("names", [lambda w: w[:-1], lambda w: np.zeros_like(w)])
def test_wrong_names_are_refused(names):
    ids, labelled = lists()
    contract = hidden_contract(**LISTED)
    local = {BANK: (Customers(tuple(ids[BANK]), labelled),), SHOP: (Customers(tuple(ids[SHOP]), None),)}

    def change(sent):
        return (
            type(sent.message)(names(sent.message.words)) if sent.step == "psi.name_slots" else sent.message
        )

    with pytest.raises(PeerError, match="name"):
        psi(PlainCaller(contract, local, change=change), contract)


def test_a_job_trains_over_the_listed_people_alone():
    contract = hidden_contract((4, 3), model={"iterations": 2}, **LISTED)
    data = hidden_data(contract, 900, 0.4)
    caller = job(data)
    joint = caller.publics[BANK, Overlap].slots
    assert 400 < joint < 700
    assert len(caller.recall(SHOP, Slots).train) == caller.layout().rows == joint
    assert isinstance(caller.recall(BANK, Columns), Columns)


@pytest.mark.parametrize(("labelled", "unlabelled"), [(100, 50), (300, 0)])
def test_the_expected_public_value_is_near_what_a_run_tells(labelled, unlabelled):
    whole = expected_overlap(hidden_contract(), (400, 600), labelled, unlabelled)
    assert whole == Overlap(19, 600, 0, 0, 600)
    some = expected_overlap(hidden_contract(**LISTED), (400, 600), labelled, unlabelled)
    common = labelled + unlabelled
    assert some.slots == round(0.9 * common + 0.4 * (600 - common))
