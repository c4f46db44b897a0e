"""What is the engine's own; the intersection as a whole is in test_psi."""

import numpy as np
import pytest

from fedmkt.crypto import oprf
from fedmkt.errors import PolicyRefused
from fedmkt.protocol.alignment import items
from fedmkt.protocol.alignment.items import NO_ROW, Items, Tags
from fedmkt.protocol.alignment.psi import ADMIT, ANNOUNCE, Aligned, Customers, item_values, psi
from fedmkt.protocol.alignment.psi_oprf import KEEP, Evaluated, KeptSet, _find
from fedmkt.protocol.core import ask
from tests.protocol.plain_caller import BANK, SHOP, PlainCaller, contract_of


def people(numbers):
    return tuple(f"p{i:05d}" for i in numbers)


def ask_again(contract, bank, shop, stores, seed):
    local = {BANK: (Customers(people(bank), None),), SHOP: (Customers(people(shop), None),)}
    caller = PlainCaller(contract, local, seed=seed, stores=stores)
    psi(caller, contract)
    return caller


def matched(caller):
    ids, rows = caller.recall(SHOP, Customers).ids, caller.recall(SHOP, Aligned).labelled
    return {ids[r] for r in rows if r != NO_ROW}


def kept(reuse=1000):
    return contract_of(align={"engine": "oprf", "reuse": reuse}, limits={"min_list": 10, "min_common": 1})


def test_a_kept_set_is_sent_once_and_every_later_answer_is_right():
    contract, stores = kept(), {BANK: {}, SHOP: {}}
    shop = range(500)
    for time, bank in enumerate((range(470, 530), range(100, 140), range(480, 520))):
        caller = ask_again(contract, bank, shop, stores, seed=time)
        assert matched(caller) == set(people(set(bank) & set(shop)))
        tags = [s for s in caller.sent if isinstance(s.message, Tags)]
        assert len(tags) == (1 if time == 0 else 0)
        stores = caller.stores
    online = sum(len(s.data) for s in caller.sent if not s.step.startswith("witness"))
    assert online < 40 * 110 + 1000


def test_points_of_two_questions_are_unrelated_although_the_key_is_kept():
    contract = kept()
    first = ask_again(contract, range(40), range(60), {BANK: {}, SHOP: {}}, seed=1)
    second = ask_again(contract, range(40), range(60), first.stores, seed=2)
    a, b = (
        {p.tobytes() for s in c.sent if isinstance(s.message, Evaluated) for p in s.message.points}
        for c in (first, second)
    )
    assert a and not a & b


@pytest.mark.parametrize("change", ["list", "contract"])
def test_another_list_or_contract_has_another_key(change):
    first = ask_again(kept(), range(40), range(60), {BANK: {}, SHOP: {}}, seed=1)
    contract = kept() if change == "list" else kept(1001)
    shop = range(1, 61) if change == "list" else range(60)
    second = ask_again(contract, range(40), shop, first.stores, seed=2)
    names = [{t.value.name for t in c.told if isinstance(t.value, KeptSet)} for c in (first, second)]
    tags = [next(s.message.tags for s in c.sent if isinstance(s.message, Tags)) for c in (first, second)]
    assert not names[0] & names[1]
    assert not {t.tobytes() for t in tags[0]} & {t.tobytes() for t in tags[1]}


def test_the_order_of_a_kept_set_tells_nothing_about_the_hashes():
    local = {BANK: (Customers(people(range(40)), None),), SHOP: (Customers(people(range(2000)), None),)}
    caller = PlainCaller(kept(), local, seed=4)
    for step in (ANNOUNCE, ADMIT):
        caller.all([ask(p, step) for p in (BANK, SHOP)])
    caller(SHOP, KEEP)
    order = caller.recall(SHOP, Items).rows
    hashes = item_values(kept(), "raw", people(range(2000)))[:, 1].astype(float)
    assert sorted(order) == list(range(2000))
    assert abs(np.corrcoef(hashes[order], np.arange(2000))[0, 1]) < 0.1


def test_questions_beyond_the_contracts_number_are_refused_over_all_runs():
    contract = kept(reuse=100)
    first = ask_again(contract, range(60), range(80), {BANK: {}, SHOP: {}}, seed=1)
    with pytest.raises(PolicyRefused, match="one kept set"):
        ask_again(contract, range(60), range(80), first.stores, seed=2)
    ask_again(contract, range(40), range(80), first.stores, seed=3)


def test_a_key_that_is_kept_answers_so_many_points_in_its_life_whatever_the_contract_allows(monkeypatch):
    monkeypatch.setattr(oprf, "MOST_EVALUATIONS", 150)
    contract = kept(reuse=1000)
    first = ask_again(contract, range(60), range(80), {BANK: {}, SHOP: {}}, seed=1)
    second = ask_again(contract, range(60), range(80), first.stores, seed=2)
    before = dict(second.stores[SHOP])
    with pytest.raises(
        PolicyRefused, match="K3 one key answers at most 150 points, with these it would be 180"
    ):
        ask_again(contract, range(60), range(80), second.stores, seed=3)
    assert second.stores[SHOP] == before, "what was refused is not counted"
    ask_again(contract, range(30), range(80), second.stores, seed=4)


def test_a_fresh_key_is_bounded_too(monkeypatch):
    monkeypatch.setattr(oprf, "MOST_EVALUATIONS", 59)
    contract = contract_of(align={"engine": "oprf"}, limits={"min_list": 10, "min_common": 1})
    with pytest.raises(PolicyRefused, match="K3"):
        ask_again(contract, range(60), range(80), {BANK: {}, SHOP: {}}, seed=1)


def test_tags_are_found_where_they_stand_and_a_look_alike_is_not_taken():
    random = np.random.default_rng(1)
    others = random.integers(0, 256, (300, 16), np.uint8)
    own = np.concatenate([others[[5, 299, 0]], random.integers(0, 256, (50, 16), np.uint8)])
    own[3:5, :8] = others[[7, 8], :8]  # the first half alone
    others[9] = others[8]
    assert _find(own, others).tolist() == [5, 299, 0] + [NO_ROW] * 50


def test_several_blocks_carry_a_list_longer_than_one(monkeypatch):
    monkeypatch.setattr(items, "BLOCK", 16)
    caller = ask_again(
        contract_of(limits={"min_list": 10, "min_common": 1}),
        range(50),
        range(20, 90),
        {BANK: {}, SHOP: {}},
        1,
    )
    assert len([s for s in caller.sent if isinstance(s.message, Tags)]) == 5
    assert len([s for s in caller.sent if isinstance(s.message, Evaluated)]) == 4
    assert matched(caller) == set(people(range(20, 50)))
