import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.crypto import cuckoo, group, kkrt
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.protocol.alignment import items, psi_ot
from fedmkt.protocol.alignment.base_transfers import Choice, Offer
from fedmkt.protocol.alignment.items import NO_ROW, Found, Items, ListRows, Offered
from fedmkt.protocol.alignment.psi_ot import BinTags, Extended, intersect
from tests.protocol.plain_caller import BANK, SHOP, TELECOM, PlainCaller, contract_of

NAMES = (BANK, SHOP, TELECOM)


def words(rows, seed=0):
    return np.random.default_rng([seed, 77]).integers(0, 2**64, (rows, 2), dtype=np.uint64)


def lists(sizes, common, seed=0):
    """Draw distinct items, `common` of them in all lists, each list in an order of its own."""
    random = np.random.default_rng(seed)
    drawn = words(common + sum(sizes), seed)
    shared, at, out = drawn[:common], common, []
    for size in sizes:
        own = np.concatenate([shared, drawn[at : at + size - common]])
        at += size
        out.append(own[random.permutation(size)])
    return out


def caller_of(values, seed=0, change=None):
    contract = contract_of(len(values))
    names = NAMES[: len(values)]
    local = {p: (Items(v, np.arange(len(v))),) for p, v in zip(names, values, strict=True)}
    caller = PlainCaller(contract, local, seed=seed)
    for p, v in zip(names, values, strict=True):
        caller.publics[p, ListRows] = ListRows(len(v))
    if change:
        caller.change = change
    return caller


def matched(values, seed=0, change=None):
    caller = caller_of(values, seed, change)
    sizes = {p: len(v) for p, v in zip(NAMES, values, strict=False)}
    intersect(caller, caller.contract, sizes)
    return caller


def truth(own, other):
    """Return by a plain dictionary where the other list has each item."""
    where = {item.tobytes(): i for i, item in enumerate(other)}
    return np.array([where.get(item.tobytes(), NO_ROW) for item in own], dtype=np.int64)


def check(values, caller):
    found = caller.recall(BANK, Found).matches
    for partner, other in zip(NAMES[1:], values[1:], strict=False):
        match, offered = found[partner], caller.recall(partner, Offered).proofs
        assert np.array_equal(match.positions, truth(values[0], other))
        is_found = match.positions != NO_ROW
        assert offered.shape == (len(other), 16) and match.proofs.shape == (len(values[0]), 16)
        assert np.array_equal(match.proofs[is_found], offered[match.positions[is_found]])
        assert not match.proofs[~is_found].any()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_bank_finds_exactly_the_items_that_both_have(data):
    n, m = data.draw(st.integers(0, 300)), data.draw(st.integers(0, 300))
    common = data.draw(st.integers(0, min(n, m)))
    values = lists((n, m), common, data.draw(st.integers(0, 1000)))
    check(values, matched(values))


@pytest.mark.parametrize("sizes", [(1, 1), (1, 300), (300, 1), (2, 3)])
@pytest.mark.parametrize("is_common", [False, True])
def test_lists_of_one_item_are_matched(sizes, is_common):
    values = lists(sizes, int(is_common))
    check(values, matched(values))


def test_two_partners_are_matched_side_by_side():
    values = lists((200, 90, 310), 40)
    caller = matched(values)
    check(values, caller)
    proofs = [caller.recall(p, Offered).proofs for p in (SHOP, TELECOM)]
    shared = truth(values[1], values[2])
    assert not (proofs[0][shared != NO_ROW] == proofs[1][shared[shared != NO_ROW]]).all(axis=1).any()


@pytest.mark.parametrize("sizes", [(3000, 5000), (5000, 900), (1200, 4100, 600)])
def test_lists_that_take_several_messages_are_matched(monkeypatch, sizes):
    monkeypatch.setattr(items, "BLOCK", 1024)
    values = lists(sizes, 500)
    caller = matched(values)
    check(values, caller)
    rows = [s.message for s in caller.sent if isinstance(s.message, Extended) and s.reader == SHOP]
    assert [len(m.rows) for m in rows[:-1]] == [1024] * (len(rows) - 1)
    assert sum(len(m.rows) for m in rows) == cuckoo.bins_for(sizes[0])
    blocks = [
        s.message.tags.shape[1] for s in caller.sent if isinstance(s.message, BinTags) and s.sender == SHOP
    ]
    assert sum(blocks) == sizes[1] and max(blocks) <= 1024


def test_longer_code_gives_the_same_matches(monkeypatch):
    monkeypatch.setattr(kkrt, "code_words", lambda items: 8)
    values = lists((300, 200), 100)
    caller = matched(values)
    check(values, caller)
    assert next(s.message for s in caller.sent if isinstance(s.message, Choice)).points.shape == (512, 32)


def test_messages_have_the_sizes_that_the_lists_have():
    values = lists((4000, 3000), 10)
    caller = matched(values)
    sizes = {type(s.message): len(s.data) for s in caller.sent}
    assert abs(sizes[Extended] - 56 * cuckoo.bins_for(4000)) < 300
    assert abs(sizes[BinTags] - 3 * 8 * 3000) < 300


def test_messages_have_the_same_sizes_whatever_is_common():
    views = [[len(s.data) for s in matched(lists((300, 200), common)).sent] for common in (0, 90, 200)]
    assert views[0] == views[1] == views[2]


def test_tags_and_proofs_of_two_runs_are_unrelated():
    values = lists((100, 100), 100)
    first, second = matched(values, seed=1), matched(values, seed=2)
    proofs = [c.recall(SHOP, Offered).proofs for c in (first, second)]
    assert not (proofs[0] == proofs[1]).all(axis=1).any()


def test_unmatched_tags_are_not_repeated():
    values = lists((500, 400), 0)
    caller = matched(values)
    (message,) = [s.message for s in caller.sent if isinstance(s.message, BinTags)]
    flat = message.tags.reshape(-1, message.tags.shape[2])
    assert len(np.unique(flat, axis=0)) == len(flat)


def at_first(kind, change):
    """Replace the first message of a kind."""
    done = []

    def changed(sent):
        if isinstance(sent.message, kind) and not done:
            done.append(1)
            return change(sent.message)
        return sent.message

    return changed


def flipped(data):
    return bytes([data[0] ^ 1]) + data[1:]


def spoiled(points):
    out = points.copy()
    out[3] = np.frombuffer(b"\1" + bytes(31), np.uint8)
    return out


def without_first(points):
    out = points.copy()
    out[0] = 0
    return out


def one_set_moved(tags):
    return np.stack([tags[0], np.roll(tags[1], 1, axis=0), tags[2]])


def noise(array):
    return np.random.default_rng(1).integers(0, np.iinfo(array.dtype).max, array.shape, array.dtype)


def one_bit_changed(array):
    out = array.copy()
    out.reshape(-1)[99] ^= out.dtype.type(1)
    return out


REFUSED = {
    "an invalid point": (Offer, lambda m: replace(m, point=b"\1" + bytes(31))),
    "the identity as point": (Offer, lambda m: replace(m, point=group.IDENTITY)),
    "a short point": (Offer, lambda m: replace(m, point=m.point[:-1])),
    "a short commitment": (Offer, lambda m: replace(m, commitment=m.commitment[:-1])),
    "another commitment": (Offer, lambda m: replace(m, commitment=flipped(m.commitment))),
    "too few points": (Choice, lambda m: replace(m, points=m.points[:-1])),
    "too many points": (Choice, lambda m: replace(m, points=np.concatenate([m.points, m.points]))),
    "short points": (Choice, lambda m: replace(m, points=m.points[:, :31].copy())),
    "flat points": (Choice, lambda m: replace(m, points=m.points.reshape(-1))),
    "one invalid point": (Choice, lambda m: replace(m, points=spoiled(m.points))),
    "an identity among the points": (Choice, lambda m: replace(m, points=without_first(m.points))),
    "a short seed": (Choice, lambda m: replace(m, seed=m.seed[:-1])),
    "an empty seed": (Choice, lambda m: replace(m, seed=b"")),
    "too few rows": (Extended, lambda m: replace(m, rows=m.rows[:-1])),
    "too many rows": (Extended, lambda m: replace(m, rows=np.concatenate([m.rows, m.rows[:1]]))),
    "narrow rows": (Extended, lambda m: replace(m, rows=m.rows[:, :6].copy())),
    "flat rows": (Extended, lambda m: replace(m, rows=m.rows.reshape(-1))),
    "rows of three dimensions": (Extended, lambda m: replace(m, rows=m.rows[None])),
    "no opening": (Extended, lambda m: replace(m, opening=b"")),
    "a long opening": (Extended, lambda m: replace(m, opening=m.opening + b"x")),
    "another seed": (Extended, lambda m: replace(m, opening=flipped(m.opening))),
    "too few tags": (BinTags, lambda m: replace(m, tags=m.tags[:, :-1].copy())),
    "two sets of tags": (BinTags, lambda m: replace(m, tags=m.tags[:2])),
    "long tags": (BinTags, lambda m: replace(m, tags=np.concatenate([m.tags, m.tags], axis=2))),
    "short tags": (BinTags, lambda m: replace(m, tags=m.tags[:, :, :-1].copy())),
    "flat tags": (BinTags, lambda m: replace(m, tags=m.tags.reshape(-1, m.tags.shape[2]))),
    "one slot for two items": (BinTags, lambda m: replace(m, tags=one_set_moved(m.tags))),
}  # fmt: skip


LOSSY = {
    "another point": (Offer, lambda m: replace(m, point=group.multiply_generator((5).to_bytes(32, "little")))),
    "exchanged points": (Choice, lambda m: replace(m, points=np.roll(m.points, 1, axis=0))),
    "another half of the key": (Choice, lambda m: replace(m, seed=flipped(m.seed))),
    "random rows": (Extended, lambda m: replace(m, rows=noise(m.rows))),
    "one changed bit of the rows": (Extended, lambda m: replace(m, rows=one_bit_changed(m.rows))),
    "another key of the bins": (Extended, lambda m: replace(m, opening=m.opening[:32] + flipped(m.opening[32:]))),
    "random tags": (BinTags, lambda m: replace(m, tags=noise(m.tags))),
    "tags of zeros": (BinTags, lambda m: replace(m, tags=np.zeros_like(m.tags))),
    "exchanged sets of tags": (BinTags, lambda m: replace(m, tags=m.tags[::-1].copy())),
    "one changed tag": (BinTags, lambda m: replace(m, tags=one_bit_changed(m.tags))),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_message_is_refused_as_the_peers_fault(name):
    kind, change = REFUSED[name]
    values = lists((60, 50), 50 if name == "one slot for two items" else 20)
    with pytest.raises(PeerError, match=r"^(bank|shop): psi\.ot\."):
        matched(values, change=at_first(kind, change))


@pytest.mark.parametrize("name", LOSSY)
def test_a_well_formed_lie_loses_matches_and_makes_none(name):
    kind, change = LOSSY[name]
    values = lists((60, 50), 40)
    caller = matched(values, change=at_first(kind, change))
    match, right = caller.recall(BANK, Found).matches[SHOP], truth(*values)
    is_found = match.positions != NO_ROW
    assert np.array_equal(match.positions[is_found], right[is_found])


def test_bank_that_asks_for_more_tags_than_there_are_gets_none():
    values = lists((30, 30), 10)
    caller = matched(values)
    with pytest.raises(ValueError):
        caller(SHOP, psi_ot.SEND)


def test_tags_are_refused_before_the_rows_have_come(monkeypatch):
    monkeypatch.setattr(items, "BLOCK", 1024)
    caller = caller_of(lists((2000, 50), 10))
    offered = caller(BANK, psi_ot.OFFER)
    chosen = caller(SHOP, psi_ot.CHOOSE, offered.to(SHOP))
    extended = caller(BANK, psi_ot.EXTEND, chosen.to(BANK))
    with pytest.raises(ValueError):
        caller(SHOP, psi_ot.SEND)
    caller(SHOP, psi_ot.ABSORB, extended.to(SHOP))
    with pytest.raises(PolicyRefused, match="before all rows"):
        caller(SHOP, psi_ot.SEND)
    with pytest.raises(PeerError, match="second time"):
        caller(SHOP, psi_ot.ABSORB, extended.to(SHOP))


@pytest.mark.parametrize("step", ["OFFER", "CHOOSE"])
def test_a_second_intersection_is_refused(step):
    caller = matched(lists((30, 30), 10))
    offered = next(s for s in caller.sent if isinstance(s.message, Offer))
    with pytest.raises(PolicyRefused, match="second"):
        if step == "OFFER":
            caller(BANK, psi_ot.OFFER)
        else:
            fresh = caller_of(lists((30, 30), 10))(BANK, psi_ot.OFFER)
            assert offered.reader == SHOP
            caller(SHOP, psi_ot.CHOOSE, fresh.to(SHOP))


def test_states_of_the_engine_are_gone_when_it_ends():
    caller = matched(lists((30, 30), 10))
    assert set(caller.states[BANK]) == {Items, Found}
    assert set(caller.states[SHOP]) == {Items, Offered}


PROBE = """
import hashlib
from tests.protocol.test_psi_ot import lists, matched
sent = matched(lists((300, 200), 50)).sent
print(hashlib.sha256(b"".join(s.data for s in sent)).hexdigest())
"""


@pytest.mark.slow
def test_portable_path_sends_the_same_bytes():
    def run(portable):
        environment = os.environ | {"FEDMKT_PORTABLE": portable}
        done = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert len(run("0")) == 65 and run("0") == run("1")
