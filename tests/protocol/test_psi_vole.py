from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedmkt.crypto import okvs, tags, vole
from fedmkt.errors import FedmktError, PeerError, PolicyRefused
from fedmkt.protocol.alignment import items as items_module
from fedmkt.protocol.alignment import psi_vole
from fedmkt.protocol.alignment.base_transfers import Choice, Offer
from fedmkt.protocol.alignment.items import NO_ROW, Found, Items, ListRows, Offered, Tags
from fedmkt.protocol.alignment.psi_vole import Correction, Difference, Grown, Keyed
from fedmkt.protocol.core import ask
from tests.protocol.plain_caller import BANK, SHOP, TELECOM, PlainCaller, chi_square, contract_of

NAMES = (BANK, SHOP, TELECOM)


def lists(seed, own, others, common):
    """Draw distinct items for the bank and its partners, `common` of them on every list, each in its own order."""
    random = np.random.default_rng(seed)
    shared = random.integers(0, 2**64, (common, 2), dtype=np.uint64)
    found = []
    for size in (own, *others):
        rest = random.integers(0, 2**64, (size - common, 2), dtype=np.uint64)
        found.append(random.permutation(np.concatenate([shared, rest])))
    return dict(zip(NAMES, found, strict=False))


def starting(values, seed=0, change=None):
    local = {p: (Items(v, np.arange(len(v))),) for p, v in values.items()}
    caller = PlainCaller(contract_of(len(values)), local, seed=seed)
    caller.change = change or caller.change
    for party, own in values.items():
        caller.publics[party, ListRows] = ListRows(len(own))
    return caller


def intersected(values, seed=0, change=None):
    caller = starting(values, seed, change)
    psi_vole.intersect(caller, caller.contract, {p: len(v) for p, v in values.items()})
    return caller


def plain_positions(own, other):
    slots = {tuple(item): slot for slot, item in enumerate(other.tolist())}
    return [slots.get(tuple(item), NO_ROW) for item in own.tolist()]


def assert_right(caller, values):
    for partner in list(values)[1:]:
        match, proofs = caller.recall(BANK, Found).matches[partner], caller.recall(partner, Offered).proofs
        assert match.positions.tolist() == plain_positions(values[BANK], values[partner])
        is_found = match.positions != NO_ROW
        assert np.array_equal(match.proofs[is_found], proofs[match.positions[is_found]])
        assert not match.proofs[~is_found].any()


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_bank_finds_exactly_the_common_items_whatever_the_lists(data):
    own, other = (data.draw(st.integers(0, 300)) for _ in range(2))
    common = data.draw(st.integers(0, min(own, other)))
    values = lists(data.draw(st.integers(0, 2**32)), own, (other,), common)
    assert_right(intersected(values), values)


@pytest.mark.parametrize(
    ("own", "other", "common"),
    [(0, 0, 0), (0, 3, 0), (3, 0, 0), (1, 1, 0), (1, 1, 1), (1, 900, 1), (900, 1, 1)],
)
def test_the_shortest_lists_are_matched(own, other, common):
    values = lists(1, own, (other,), common)
    assert_right(intersected(values), values)


def test_two_partners_are_matched_side_by_side():
    values = lists(2, 2000, (500, 3000), 300)
    assert_right(intersected(values), values)


def test_long_lists_travel_in_blocks(monkeypatch):
    monkeypatch.setattr(items_module, "BLOCK", 64)
    values = lists(3, 300, (130, 500), 90)
    caller = intersected(values)
    assert_right(caller, values)
    sent = [s.message for s in caller.sent]
    assert sum(isinstance(m, Difference) for m in sent) == 2 * -(-okvs.shape(300).size // 64)
    assert max(len(m.rows) for m in sent if isinstance(m, Difference)) == 64
    assert [sum(isinstance(s.message, Tags) and s.sender == p for s in caller.sent) for p in NAMES] == [
        0,
        3,
        8,
    ]


def test_half_a_million_items_are_matched_across_blocks_of_full_size():
    values = lists(4, 300_000, (270_000,), 100_000)
    caller = intersected(values)
    match = caller.recall(BANK, Found).matches[SHOP]
    is_found = match.positions != NO_ROW
    assert is_found.sum() == 100_000
    assert np.array_equal(values[SHOP][match.positions[is_found]], values[BANK][is_found])
    # 20.3 bytes for each of the bank's items, a tag for each of the partner's, two megabytes for the rest.
    most = 20.5 * 300_000 + tags.tag_bytes(300_000, 270_000) * 270_000 + 2.2e6
    assert sum(len(s.data) for s in caller.sent) < most


def test_a_table_that_cannot_be_made_is_made_under_the_next_keys(monkeypatch):
    values, encode, failures = lists(5, 200, (200,), 50), okvs.encode, [1, 2]

    def encode_the_third_time(*given):
        if failures:
            failures.pop()
            raise okvs.Unsolvable("for the test")
        return encode(*given)

    monkeypatch.setattr(okvs, "encode", encode_the_third_time)
    caller = intersected(values)
    assert_right(caller, values)
    assert {s.message.attempt for s in caller.sent if isinstance(s.message, Difference)} == {2}


def test_a_list_for_which_no_table_exists_is_refused_in_the_end(monkeypatch):
    def fail(*given):
        raise okvs.Unsolvable("for the test")

    monkeypatch.setattr(okvs, "encode", fail)
    with pytest.raises(PolicyRefused, match="not distinct"):
        intersected(lists(6, 20, (20,), 5))


def test_messages_have_the_same_sizes_whoever_is_common():
    seen = [
        [
            (s.step, s.sender, s.reader, len(s.data))
            for s in intersected(lists(seed, 400, (300,), common)).sent
        ]
        for seed, common in ((1, 0), (2, 250), (3, 300))
    ]
    assert seen[0] == seen[1] == seen[2]


def test_what_each_side_receives_looks_uniform():
    caller = intersected(lists(7, 3000, (3000,), 1500))
    for s in caller.sent:
        for name, value in vars(s.message).items():
            if isinstance(value, np.ndarray) and value.nbytes > 10_000:
                assert abs(chi_square(value)) < 6, (s.step, name)


def test_equal_lists_of_two_runs_give_unrelated_messages():
    values = lists(8, 300, (300,), 200)
    first, second = (intersected(values, seed=seed) for seed in (1, 2))
    for a, b in zip(first.sent, second.sent, strict=True):
        for name, value in vars(a.message).items():
            if isinstance(value, np.ndarray):
                assert (
                    not (value.reshape(len(value), -1) == getattr(b.message, name).reshape(len(value), -1))
                    .all(axis=1)
                    .any()
                )


FIELDS = [
    (kind, f.name) for kind in (Offer, Choice, Correction, Grown, Difference, Tags) for f in fields(kind)
]


def changed(value, how, random):
    """Return a value of the same kind with one thing wrong."""
    if isinstance(value, bytes):
        return {
            "flip": bytes([value[0] ^ 1]) + value[1:],
            "short": value[:-1],
            "long": value + b"\0",
            "empty": b"",
            "zero": bytes(len(value)),
        }[how]
    if isinstance(value, int):
        return {"flip": value ^ 1, "short": -1, "long": 2**40, "empty": psi_vole.MOST_ATTEMPTS, "zero": 7}[
            how
        ]
    flipped = value.copy()
    flat = flipped.reshape(-1)
    flat[random.integers(0, flat.size, 5)] ^= flat.dtype.type(random.integers(1, 200))
    return {
        "flip": flipped,
        "short": value[:-1],
        "long": np.concatenate([value, value[:1]]),
        "empty": value[:0],
        "zero": np.zeros_like(value),
    }[how]


@pytest.mark.parametrize("how", ["flip", "short", "long", "empty", "zero"])
@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_changed_message_is_refused_or_loses_matches_but_never_makes_one(kind, name, how, monkeypatch):
    monkeypatch.setattr(items_module, "BLOCK", 64)
    values, random, done = lists(9, 150, (130,), 70), np.random.default_rng(1), []

    def change(sent):
        if not isinstance(sent.message, kind) or done:
            return sent.message
        done.append(True)
        return replace(sent.message, **{name: changed(getattr(sent.message, name), how, random)})

    try:
        caller = intersected(values, change=change)
    except PeerError as error:
        # It says who broke which step, and nothing of anybody's items.
        assert str(error).startswith((f"{BANK}: psi.vole.", f"{SHOP}: psi.vole."))
        return
    assert how in ("flip", "zero", "empty")
    right = np.array(plain_positions(values[BANK], values[SHOP]))
    found = caller.recall(BANK, Found).matches[SHOP].positions
    assert np.isin(found[found != right], NO_ROW).all()


@pytest.mark.parametrize("kind", [Difference, Tags])
def test_a_block_in_the_place_of_another_is_refused(kind, monkeypatch):
    monkeypatch.setattr(items_module, "BLOCK", 100)
    first = []

    def change(sent):
        if isinstance(sent.message, kind):
            first.append(sent.message)
            return first[0]
        return sent.message

    with pytest.raises(PeerError, match="number of"):
        intersected(lists(10, 150, (150,), 70), change=change)


def test_more_blocks_than_a_list_or_table_has_are_refused(monkeypatch):
    monkeypatch.setattr(items_module, "BLOCK", 100)
    values = lists(10, 20, (80, 180), 10)
    caller = starting(values)
    offered = caller(BANK, psi_vole.OFFER)
    chosen = [caller(p, psi_vole.CHOOSE, offered.to(p)).to(BANK) for p in (SHOP, TELECOM)]
    corrected = caller(BANK, psi_vole.CORRECT, *chosen)
    caller(BANK, psi_vole.MASK)
    grown = [caller(p, psi_vole.EXPAND, corrected.to(p)).to(BANK) for p in (SHOP, TELECOM)]
    for _ in range(2):
        sent = caller(BANK, psi_vole.SEND)
        for partner in (SHOP, TELECOM):
            caller(partner, psi_vole.ABSORB, sent.to(partner))
    with pytest.raises(PolicyRefused, match="only once"):
        caller(BANK, psi_vole.SEND)
    with pytest.raises(PeerError, match="more rows"):
        caller(SHOP, psi_vole.ABSORB, sent.to(SHOP))
    caller(BANK, psi_vole.UNFOLD, *grown)
    tagged = [caller(p, psi_vole.TAGS).to(BANK) for p in (SHOP, TELECOM)]
    caller(BANK, psi_vole.LOOK, *tagged)
    with pytest.raises(PeerError, match="more tags"):
        caller(BANK, psi_vole.LOOK, tagged[0])


def test_a_bank_that_opens_another_seed_than_it_committed_to_is_refused():
    def change(sent):
        return replace(sent.message, seed=bytes(32)) if isinstance(sent.message, Correction) else sent.message

    with pytest.raises(PeerError, match="committed"):
        intersected(lists(11, 30, (30,), 10), change=change)


@pytest.mark.parametrize("transfers", [128, 16])
def test_a_bank_that_gives_base_transfers_other_noise_gets_nothing(transfers):
    # With other noise in each, it would read all of D off the partner's answer, and test any id by it.
    values, errors = lists(16, 300, (200,), 100), np.random.default_rng(1)

    def change(sent):
        if not isinstance(sent.message, Correction):
            return sent.message
        name = next(
            f.name for f in fields(Correction) if np.shape(getattr(sent.message, f.name))[:1] == (128,)
        )
        masked = getattr(sent.message, name).copy()
        masked[:transfers, : 16 * 20] ^= errors.integers(0, 256, (transfers, 16 * 20), np.uint8)
        return replace(sent.message, **{name: masked})

    caller = starting(values, change=change)
    with pytest.raises(PeerError, match=f"^{BANK}: psi.vole.correct: other noise"):
        psi_vole.intersect(caller, caller.contract, {p: len(v) for p, v in values.items()})
    assert [s.reader for s in caller.sent] == [SHOP, BANK, SHOP]
    assert {Keyed, Offered}.isdisjoint(caller.states[SHOP])


@pytest.mark.parametrize("step", [psi_vole.OFFER, psi_vole.MASK, psi_vole.SEND, psi_vole.UNFOLD])
def test_the_bank_takes_no_step_twice(step):
    values = lists(12, 30, (30,), 10)
    caller = intersected(values)
    with pytest.raises((FedmktError, ValueError)):
        caller(BANK, step)


def test_a_mask_that_was_sent_covers_no_second_table():
    values = lists(12, 30, (30,), 10)
    caller = starting(values)
    offered = caller(BANK, psi_vole.OFFER)
    chosen = caller(SHOP, psi_vole.CHOOSE, offered.to(SHOP))
    caller(BANK, psi_vole.CORRECT, chosen.to(BANK))
    for step in (psi_vole.MASK, psi_vole.SEND):
        caller(BANK, step)
    with pytest.raises(PolicyRefused, match="second table"):
        caller(BANK, psi_vole.MASK)


def test_a_second_intersection_in_one_run_is_refused():
    values = lists(13, 30, (30,), 10)
    caller = intersected(values)
    with pytest.raises(PolicyRefused, match="second intersection"):
        psi_vole.intersect(caller, caller.contract, {p: len(v) for p, v in values.items()})
    begun = starting(values)
    offered = begun(BANK, psi_vole.OFFER)
    begun.all([ask(SHOP, psi_vole.CHOOSE, offered.to(SHOP))])
    with pytest.raises(PolicyRefused, match="second intersection"):
        begun.all([ask(SHOP, psi_vole.CHOOSE, offered.to(SHOP))])


def test_a_list_too_long_for_the_engine_is_refused_by_both_sides():
    caller = starting(lists(14, 30, (30,), 10))
    offered = caller(BANK, psi_vole.OFFER)
    caller.publics[BANK, ListRows] = ListRows(okvs.MOST_ITEMS + 1)
    with pytest.raises(PolicyRefused, match="longer"):
        caller(SHOP, psi_vole.CHOOSE, offered.to(SHOP))
    caller.states[BANK].clear()
    with pytest.raises(PolicyRefused, match="longer"):
        caller(BANK, psi_vole.OFFER)


def test_the_table_is_not_tagged_before_it_is_there():
    values = lists(14, 30, (30,), 10)
    caller = starting(values)
    offered = caller(BANK, psi_vole.OFFER)
    chosen = caller(SHOP, psi_vole.CHOOSE, offered.to(SHOP))
    corrected = caller(BANK, psi_vole.CORRECT, chosen.to(BANK))
    caller(SHOP, psi_vole.EXPAND, corrected.to(SHOP))
    with pytest.raises(PolicyRefused, match="tags before"):
        caller(SHOP, psi_vole.TAGS)


def test_nothing_of_the_engine_is_left_when_it_has_ended():
    caller = intersected(lists(15, 30, (30,), 10))
    assert set(caller.states[BANK]) == {Items, Found}
    assert set(caller.states[SHOP]) == {Items, Offered}


@example(10**8)
@given(st.integers(1, 10**8))
@settings(max_examples=30, deadline=None)
def test_what_does_not_travel_in_blocks_is_short(n):
    sizes = vole.size(okvs.shape(n).size)
    assert 128 * sizes.correction_bytes < 2**21 and sizes.trees * (sizes.depth + 1) * 32 < 2**20
