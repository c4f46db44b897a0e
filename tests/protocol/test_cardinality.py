import contextlib
import re
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.contract.agreement import AlignTerms, Contract, ScoreTerms
from fedmkt.contract.model_terms import ModelTerms
from fedmkt.contract.rules import OVERLAP_DISCLOSURES
from fedmkt.crypto import group
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.privacy.bands import TOP, RateBand
from fedmkt.privacy.disclosure import ListSize, SetSize
from fedmkt.protocol.alignment import items
from fedmkt.protocol.alignment.cardinality import (
    ADMIT,
    ASK,
    COUNT,
    DST,
    OFFER,
    READ,
    BlindedList,
    Blinds,
    Common,
    Measured,
    Returned,
    count_common,
    overlap_job,
    pair_of,
    told_of,
)
from fedmkt.protocol.alignment.items import Items, ListRows
from fedmkt.protocol.alignment.psi import ANNOUNCE, Customers, band_width
from fedmkt.protocol.alignment.psi_oprf import inputs_of
from fedmkt.protocol.core import Silent, ask
from tests.contract.agreed import governance
from tests.protocol.plain_caller import BANK, DEALER, SHOP, TELECOM, PlainCaller, chi_square, contract_of

NAMES = (BANK, SHOP, TELECOM)


def overlap_contract(parties=2, **limits):
    """Make the contract of a job that only counts."""
    base = contract_of(parties, limits=limits)
    terms = [p.model_copy(update={"numbers": (), "categories": (), "label": None}) for p in base.parties]
    values = {name: getattr(base, name) for name in Contract.model_fields}
    return Contract(
        **values
        | {
            "task": "overlap", "parties": tuple(terms), "disclosures": OVERLAP_DISCLOSURES, "model": ModelTerms(),
            "scores": ScoreTerms(), "align": AlignTerms(),
        }
    )  # fmt: skip


def lists(seed, sizes, common):
    """Draw distinct ids for each party, `common` of them held by all, each list in an order of its own."""
    random = np.random.default_rng(seed)
    people = [f"p{i:06d}" for i in random.permutation(10**5)[: common + sum(sizes)]]
    at, found = common, {}
    for name, size in zip(NAMES, sizes, strict=False):
        own = people[:common] + people[at : at + size - common]
        at += size
        found[name] = [own[i] for i in random.permutation(size)]
    return found


def caller_of(ids, seed=0, change=None, contract=None, **limits):
    contract = contract or overlap_contract(len(ids), **limits)
    caller = PlainCaller(contract, {p: (Customers(tuple(v), None),) for p, v in ids.items()}, seed=seed)
    if change:
        caller.change = change
    return caller


def counted(ids, **options):
    """Run the whole job; returns the caller and what the script returned."""
    caller = caller_of(ids, **options)
    return caller, overlap_job(caller, caller.contract)


def announced(ids, **options):
    """Stand where all lists are announced."""
    caller = caller_of(ids, **options)
    caller.all([ask(p, ANNOUNCE) for p in ids])
    return caller


# ------------------------------------------------------------------------------------------ what comes out


@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 90), st.integers(0, 999))
@settings(max_examples=30)
def test_the_band_is_that_of_a_plain_set_operation(n, m, common, seed):
    common = min(n, m, common)
    ids = lists(seed, (n, m), common)
    assert len(set(ids[BANK]) & set(ids[SHOP])) == common
    if common < 20:
        with pytest.raises(PolicyRefused, match="smaller than the contract's minimum"):
            counted(ids)
        return
    caller, found = counted(ids)
    (pair,) = found.pairs
    assert (pair.partner, pair.low, pair.high) == (SHOP, *_fields(told_of(common, n, m)))
    assert pair.low < common <= pair.high
    assert all(caller.recall(p, Measured).overlaps == found for p in ids)


def _fields(value):
    return [getattr(value, f.name) for f in fields(value)]


def test_with_two_partners_each_pair_is_counted_by_itself():
    ids = lists(3, (90, 80, 70), 30)
    ids[SHOP][:10] = [i for i in ids[BANK] if i not in ids[SHOP]][:10]
    caller, found = counted(ids)
    expected = {p: len(set(ids[BANK]) & set(ids[p])) for p in (SHOP, TELECOM)}
    for pair in found.pairs:
        assert pair.low < expected[pair.partner] <= pair.high
    assert [p.partner for p in found.pairs] == [SHOP, TELECOM]
    assert caller.recall(TELECOM, Measured).overlaps == found


@pytest.mark.parametrize("block", [7, 30, 60])
def test_lists_travel_in_blocks_of_any_size(monkeypatch, block):
    monkeypatch.setattr(items, "BLOCK", block)
    ids = lists(4, (60, 45), 33)
    caller, found = counted(ids)
    assert found.pairs[0].low < 33 <= found.pairs[0].high
    sent = [len(s.message.points) for s in caller.seen_by(SHOP) if isinstance(s.message, BlindedList)]
    assert sum(sent) == 60 and set(sent[:-1]) <= {block}


def test_of_several_keys_of_a_customer_the_first_counts():
    ids = lists(4, (60, 45), 33)
    caller = announced(ids)
    for party in ids:
        own = caller.recall(party, Items)
        second = np.zeros_like(own.values)  # equal for all: counted, they would be refused
        both = np.stack([own.values, second], axis=1).reshape(-1, 2)
        caller.states[party][Items] = Items(both, own.rows)
    count_common(caller, BANK, SHOP, {BANK: 60, SHOP: 45})
    assert caller(SHOP, COUNT).public.value == told_of(33, 60, 45)


@given(st.integers(10, 5000), st.integers(10, 5000), st.data())
def test_a_band_hides_the_count_and_nearly_complete_overlap(n, m, data):
    shortest, width = min(n, m), band_width(n, m)
    count = data.draw(st.integers(1, shortest))
    told = told_of(count, n, m)
    assert told.low < count <= told.high
    assert told_of(told.high, n, m) == told == told_of(told.low + 1, n, m)
    assert told.low == 0 or told.high - told.low >= min(width, shortest - told.low)
    assert told_of(shortest, n, m).low * 100 <= shortest * TOP


def test_all_customers_common_looks_like_95_percent_of_them():
    full, most = told_of(1000, 1000, 5000), told_of(951, 1000, 5000)
    assert full == most == Common(950, 1000) and told_of(950, 1000, 5000) == Common(940, 950)
    assert pair_of(SHOP, full, 1000).rate == RateBand(95, 100)


def test_the_rate_follows_from_the_band_and_narrows_nothing():
    for count in range(1, 1001):
        told = told_of(count, 1000, 3000)
        assert pair_of(SHOP, told, 1000).rate == pair_of(SHOP, told_of(told.high, 1000, 3000), 1000).rate


# ------------------------------------------------------------------------------------------ who learns what


def test_only_list_lengths_and_a_band_are_disclosed():
    caller, _ = counted(lists(1, (60, 90), 45))
    told = [t.value for t in caller.told if not isinstance(t.value, Silent)]
    assert told == [ListRows(60), ListRows(90), Common(40, 50)]
    assert [d for _, d in caller.revealed] == [
        ListSize(to="all", rows=60), ListSize(to="all", rows=90), SetSize(to="all", low=40, high=50)
    ]  # fmt: skip


def test_nothing_of_the_count_is_kept_and_the_bank_is_sent_nothing_that_depends_on_its_customers():
    caller, _ = counted(lists(1, (60, 90), 45))
    assert set(caller.states[SHOP]) == set(caller.states[BANK]) == {Customers, Measured}
    to_bank = [s for s in caller.seen_by(BANK) if s.step.startswith("overlap.")]
    assert [s.step for s in to_bank] == ["overlap.offer"]


def view(caller, reader):
    """Return a reader's messages without their points and tags, and all public values."""
    shapes = [(s.round, s.step, s.sender, len(s.data)) for s in caller.sent if reader in (s.reader, DEALER)]
    return shapes, [(t.round, t.party, t.value) for t in caller.told]


def points_to(caller, reader, kind, part):
    return np.concatenate(
        [getattr(s.message, part) for s in caller.seen_by(reader) if isinstance(s.message, kind)]
    )


def test_two_worlds_the_banks_view_is_the_same_for_all_lists_of_a_partner_with_one_band():
    ids = lists(1, (60, 60), 45)
    outside = [f"q{i:05d}" for i in range(100)]
    common = [i for i in ids[SHOP] if i in set(ids[BANK])]
    others = [i for i in ids[BANK] if i not in common]
    worlds = [
        ids,
        ids | {SHOP: common[:41] + outside[:19]},
        ids | {SHOP: outside[:12] + others[:15] + common[7:40]},  # other people, another order
    ]
    callers = [counted(world, seed=seed)[0] for seed, world in enumerate(worlds)]
    for reader in (BANK, DEALER):
        assert view(callers[0], reader) == view(callers[1], reader) == view(callers[2], reader)
    points = [points_to(c, BANK, BlindedList, "points") for c in callers]
    seen = [{p.tobytes() for p in found} for found in points]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and all(len(s) == 60 for s in seen)


def test_what_a_partner_sends_looks_like_random_points():
    """Bytes 1 to 30 of a random point's encoding are uniform: the first is even, the last below 128."""
    ids = lists(2, (40, 400), 30)
    points = points_to(counted(ids)[0], BANK, BlindedList, "points")
    assert abs(chi_square(np.ascontiguousarray(points[:, 1:31]))) < 4.5
    assert abs(points[:, 0].mean() - 127) < 15


def sent_order(caller, party, step):
    """Return the people of one party's points in the order in which they were sent."""
    ids, blinds, own = (
        caller.recall(party, Customers).ids,
        caller.recall(party, Blinds),
        caller.recall(party, Items),
    )
    inverse = group.invert(blinds.secret)
    hashes = group.hash_all(inputs_of(own.values), DST)
    known = {h.tobytes(): ids[row] for h, row in zip(hashes, own.rows, strict=True)}
    found = [s.message.points for s in caller.sent if s.step == step]
    return [known[group.multiply(inverse, p.tobytes())] for p in found[-1]]


def test_the_order_of_a_list_as_the_other_side_sees_it_is_fresh_and_uniform():
    """Where the first person of the file stands, over 120 runs: uniform over 4 quarters."""
    ids = lists(5, (20, 20), 20)
    places = []
    for seed in range(120):
        caller = announced(ids, seed=seed)
        caller(SHOP, OFFER)
        order = sent_order(caller, SHOP, "overlap.offer")
        assert sorted(order) == sorted(ids[SHOP])
        places.append(order.index(ids[SHOP][0]))
    quarters = np.bincount(np.array(places) // 5, minlength=4)
    assert ((quarters - 30) ** 2 / 30).sum() < 16.3  # chi-square, 3 degrees of freedom: once in a thousand


def test_the_partner_sees_tags_in_the_order_of_their_values_only():
    caller, _ = counted(lists(1, (60, 90), 45))
    tags = points_to(caller, SHOP, Returned, "tags")
    keys = [(int(b), int(a)) for a, b in np.ascontiguousarray(tags).view("<u8")]
    assert keys == sorted(keys) and abs(chi_square(tags)) < 4.5


def test_two_partners_see_the_banks_list_under_two_secrets_in_two_orders():
    ids = lists(6, (60, 60, 60), 40)
    caller = announced(ids)
    sizes = dict.fromkeys(ids, 60)
    orders, secrets = [], set()
    for partner in (SHOP, TELECOM):
        count_common(caller, BANK, partner, sizes)
        orders.append(sent_order(caller, BANK, "overlap.ask"))
        secrets.add(caller.recall(BANK, Blinds).secret)
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1] and len(secrets) == 2
    assert not {p.tobytes() for p in points_to(caller, SHOP, BlindedList, "points")} & {
        p.tobytes() for p in points_to(caller, TELECOM, BlindedList, "points")
    }


def test_secrets_are_fresh_in_every_run_and_not_shown():
    first, second = (announced(lists(1, (30, 30), 25), seed=s) for s in (1, 2))
    for caller in (first, second):
        caller(SHOP, OFFER)
    a, b = first.recall(SHOP, Blinds), second.recall(SHOP, Blinds)
    assert a.secret != b.secret and a.secret.hex() not in repr(a) and str(a.secret) not in repr(a)


# ------------------------------------------------------------------------------------------ what is refused


def test_a_refusal_below_the_minimum_is_the_same_for_every_count():
    said = set()
    for common in (0, 1, 30, 49):
        caller = caller_of(lists(1, (80, 80), common), min_common=50)
        with pytest.raises(PolicyRefused) as refused:
            overlap_job(caller, caller.contract)
        said.add((str(refused.value), refused.value.hint))
        assert not any(isinstance(t.value, Common) for t in caller.told)
        assert not any(isinstance(d, SetSize) for _, d in caller.revealed)
    ((text, _),) = said
    assert not re.search(r"\d", text.removeprefix("C09 "))  # the number of the control


@pytest.mark.parametrize("sizes", [(80, 69), (69, 80)], ids=["the partner's", "the bank's"])
def test_under_governance_a_list_of_which_nearly_all_are_common_is_refused_before_a_count_is_told(sizes):
    for common, is_refused in ((49, False), (50, True), (69, True)):
        agreed = overlap_contract(2, min_common=10).model_copy(update={"governance": governance(min_rest=20)})
        caller = caller_of(lists(1, sizes, common), contract=agreed)
        with pytest.raises(PolicyRefused) if is_refused else contextlib.nullcontext() as refused:
            overlap_job(caller, caller.contract)
        told = any(isinstance(t.value, Common) for t in caller.told)
        assert told != is_refused
        if is_refused:
            assert str(refused.value) == "C09 minimum match: too few people of a list are not common"
            assert not any(isinstance(d, SetSize) for _, d in caller.revealed)


def test_an_overlap_above_the_contracts_maximum_is_refused_without_the_number():
    caller = caller_of(lists(1, (80, 80), 60), max_common=50)
    with pytest.raises(PolicyRefused, match=r"larger than the contract's maximum$"):
        overlap_job(caller, caller.contract)
    assert not any(isinstance(t.value, Common) for t in caller.told)


@pytest.mark.parametrize(
    ("party", "rows", "said"),
    [(SHOP, 5, "shorter"), (BANK, 5, "shorter"), (BANK, 101, "asks about more people")],
)
def test_every_party_refuses_lists_out_of_the_contracts_limits(party, rows, said):
    caller = announced(lists(1, (80, 80), 60), max_list=100)
    caller.publics[party, ListRows] = ListRows(rows)
    for judge in (BANK, SHOP):
        with pytest.raises(PolicyRefused, match=said):
            caller(judge, ADMIT)


def invalid(points):
    out = points.copy()
    out[3] = 255
    return out


def identity(points):
    out = points.copy()
    out[3] = 0
    return out


def repeated(points):
    out = points.copy()
    out[3] = out[4]
    return out


def all_equal(points):
    return np.repeat(points[:1], len(points), axis=0)


WRONG = {
    "too few": lambda a: a[:-1], "too many": lambda a: np.concatenate([a, a[:1]]), "none": lambda a: a[:0],
    "too short": lambda a: np.ascontiguousarray(a[:, :-1]), "flat": lambda a: a.reshape(-1),
    "two equal": repeated, "all equal": all_equal,
}  # fmt: skip
WRONG_POINTS = WRONG | {"not a point": invalid, "the identity": identity}


@pytest.mark.parametrize("step", ["overlap.offer", "overlap.ask"])
@pytest.mark.parametrize("how", WRONG_POINTS)
def test_a_malformed_list_of_points_is_refused(step, how):
    def change(sent):
        return BlindedList(WRONG_POINTS[how](sent.message.points)) if sent.step == step else sent.message

    sender = SHOP if step == "overlap.offer" else BANK
    with pytest.raises(PeerError, match=f"{sender}: {step}: "):
        counted(lists(1, (60, 60), 45), change=change)


@pytest.mark.parametrize("how", WRONG)
def test_a_malformed_list_of_tags_is_refused(how):
    def change(sent):
        return Returned(WRONG[how](sent.message.tags)) if sent.step == "overlap.return" else sent.message

    with pytest.raises(PeerError, match=f"{BANK}: overlap.return: "):
        counted(lists(1, (60, 60), 45), change=change)


def test_equal_points_are_found_across_blocks(monkeypatch):
    monkeypatch.setattr(items, "BLOCK", 20)
    first = []

    def change(sent):
        if sent.step != "overlap.ask":
            return sent.message
        points = sent.message.points.copy()
        first.append(points[0])
        points[0] = first[0]
        return BlindedList(points)

    with pytest.raises(PeerError, match=r"overlap\.ask: two items are equal"):
        counted(lists(1, (60, 60), 45), change=change)


@pytest.mark.parametrize("told", [(40, 45), (44, 45), (41, 51), (50, 40), (40, 500), (0, 60), (-10, 30)])
def test_a_published_band_that_is_none_is_refused_by_all(told):
    caller, _ = counted(lists(1, (60, 60), 45))
    caller.publics[SHOP, Common] = Common(*told)
    for judge in (BANK, SHOP):
        with pytest.raises(PeerError, match=f"{SHOP}: overlap.count: not a band"):
            caller(judge, READ)


def test_a_published_band_below_the_minimum_is_refused():
    caller, _ = counted(lists(1, (60, 60), 45))
    for told in ((0, 10), (0, 0)):
        caller.publics[SHOP, Common] = Common(*told)
        with pytest.raises(PolicyRefused, match="smaller"):
            caller(BANK, READ)


def test_a_party_sends_its_list_once():
    caller = announced(lists(1, (60, 60), 45))
    count_common(caller, BANK, SHOP, {BANK: 60, SHOP: 60})
    for party, step in ((SHOP, OFFER), (BANK, ASK)):
        with pytest.raises(PolicyRefused, match="second count"):
            caller(party, step)


def test_a_list_of_one_person_and_invented_ones_tells_nothing_of_that_person():
    """The bank asks about one real customer of the partner, or about none: refused alike, or one band."""
    ids = lists(1, (300, 300), 200)
    invented = [f"x{i:05d}" for i in range(300)]
    for first in (ids[SHOP][0], "nobody"):
        with pytest.raises(PolicyRefused, match=r"smaller than the contract's minimum$"):
            counted(ids | {BANK: [first, *invented[:299]]})
    known = [i for i in ids[SHOP]][1:202]
    told = [counted(ids | {BANK: [first, *known, *invented[:98]]})[1] for first in (ids[SHOP][0], "nobody")]
    assert told[0] == told[1]
