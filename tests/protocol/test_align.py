import hashlib

import numpy as np
import pytest

from fedmkt.errors import PeerError
from fedmkt.protocol.alignment.align import (
    Commitment,
    Commitments,
    KeyPart,
    Part,
    Split,
    SplitKey,
    held_out,
    padded_rows,
    scored_rows,
    split,
    train_rows,
)
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Aligned, Customers, Overlap
from fedmkt.protocol.core import Silent, data_parties
from fedmkt.protocol.prepare import real
from tests.protocol.plain_caller import BANK, SHOP, TELECOM, PlainCaller, contract_of

PARTS = ("train", "held_out", "unlabelled")


def divided(ids, seed=0, k=2, stores=None, change=None, unlabelled=0, **options):
    """Split people whom every party holds, in the order given; returns the caller."""
    contract = contract_of(k, **options)
    random = np.random.default_rng(seed)
    n = len(ids)
    caller = PlainCaller(contract, {}, seed=seed, stores=stores or {})
    if change:
        caller.change = change
    high = -(-n // 10) * 10
    for party in data_parties(contract):
        own = random.permutation(n)
        caller.states[party][Customers] = Customers(tuple(np.array(ids)[np.argsort(own)]), None)
        rows = np.full(high, NO_ROW)
        rows[: n - unlabelled] = own[: n - unlabelled]
        without = own[n - unlabelled :]
        caller.states[party][Aligned] = Aligned(rows, without)
    caller.publics[BANK, Overlap] = Overlap(high - 10, high, max(0, unlabelled - 10), unlabelled)
    split(caller, contract)
    return caller


def persons(caller, party, part):
    found, ids = caller.recall(party, Split), caller.recall(party, Customers).ids
    return [ids[r] for r in real(getattr(found, part))]


PEOPLE = [f"person-{i:05d}" for i in range(1500)]


@pytest.mark.parametrize("k", [2, 3])
def test_all_parties_divide_the_same_people_in_the_same_order(k):
    caller = divided(PEOPLE, k=k, unlabelled=100)
    for part in PARTS:
        expected = persons(caller, BANK, part)
        assert expected and all(persons(caller, p, part) == expected for p in data_parties(caller.contract))
    everybody = [i for part in PARTS for i in persons(caller, BANK, part)]
    assert sorted(everybody) == PEOPLE


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.8])
def test_the_share_that_is_held_out_is_the_contracts(fraction):
    caller = divided(PEOPLE, model={"test_fraction": fraction})
    spread = np.sqrt(fraction * (1 - fraction) / len(PEOPLE))
    assert abs(len(persons(caller, BANK, "held_out")) / len(PEOPLE) - fraction) < 5 * spread


def test_a_person_stays_on_its_side_when_lists_grow_and_orders_change():
    stores = {BANK: {}, SHOP: {}}
    first = divided(PEOPLE[:1000], seed=1, stores=stores)
    shuffled = list(np.random.default_rng(5).permutation(PEOPLE))
    second = divided(
        shuffled, seed=2, stores=stores, model={"penalty": 5.0}
    )  # another contract of the family
    before, after = (set(persons(c, BANK, "held_out")) for c in (first, second))
    assert before == after & set(PEOPLE[:1000])


def test_another_family_divides_anew():
    stores = {BANK: {}, SHOP: {}}
    first, second = (
        divided(PEOPLE, seed=s, stores=stores, family=f) for s, f in ((1, "toys"), (2, "others"))
    )
    a, b = (np.isin(PEOPLE, persons(c, BANK, "held_out")) for c in (first, second))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.15
    own = [{k for k in stores[p] if k.startswith("split/")} for p in (BANK, SHOP)]
    assert own[0] == own[1] == {"split/toys", "split/others"}


def test_each_party_alone_can_make_the_division_unforeseeable():
    """With one part of the key fixed, the other still decides."""
    found = []
    for seed in (1, 2):
        stores = {BANK: {"split/toys": bytes(32)}, SHOP: {}}
        found.append(np.isin(PEOPLE, persons(divided(PEOPLE, seed=seed, stores=stores), BANK, "held_out")))
    assert abs(np.corrcoef(*found)[0, 1]) < 0.15


def test_rows_of_a_split_are_not_in_order_of_position():
    caller = divided(PEOPLE)
    held = np.isin(np.array(PEOPLE), persons(caller, BANK, "held_out"))
    runs = (held[1:] != held[:-1]).sum()
    assert abs(runs - 2 * 0.3 * 0.7 * len(held)) < 5 * np.sqrt(len(held) * 0.25)


def test_a_held_out_share_is_a_keyed_hash_of_the_person():
    ids = tuple(PEOPLE)
    one, other = held_out(b"a" * 32, ids, 0.3), held_out(b"b" * 32, ids, 0.3)
    assert one.mean() == pytest.approx(0.3, abs=0.06)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15
    assert np.array_equal(held_out(b"a" * 32, ids[::-1], 0.3), one[::-1])
    assert not (held_out(b"a" * 32, ids, 0.1) & ~one).any(), "a smaller share is a part of a larger one"


# ------------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize("n", [991, 995, 1000])
def test_padded_sizes_follow_from_public_values_only(n):
    caller = divided(PEOPLE[:n], seed=n)
    overlap, contract = Overlap(990, 1000, 0, 0), contract_of()
    assert caller.overlap == overlap
    for party in data_parties(contract):
        found = caller.recall(party, Split)
        assert len(found.train) == train_rows(contract, overlap)
        assert len(found.held_out) + len(found.unlabelled) == scored_rows(contract, overlap)


def test_padding_stands_at_the_end():
    found = divided(PEOPLE).recall(BANK, Split)
    for part in PARTS:
        is_real = getattr(found, part) != NO_ROW
        assert not (np.diff(is_real.astype(int)) > 0).any()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("high", [20, 1000, 10**6])
def test_a_random_share_fits_its_padding(share, high):
    counts = np.random.default_rng(1).binomial(high, share, 200_000)
    padded = padded_rows(high, share)
    assert counts.max() <= padded <= high
    assert padded <= high * share + 6 * np.sqrt(high * share * (1 - share)) + 1


def test_more_people_than_their_padding_end_the_run():
    contract = contract_of()
    caller = PlainCaller(contract, {})
    for party in data_parties(contract):
        caller.states[party][Customers] = Customers(tuple(PEOPLE), None)
        caller.states[party][Aligned] = Aligned(np.arange(1500), np.empty(0, np.int64))
    caller.publics[BANK, Overlap] = Overlap(40, 50, 0, 0)
    with pytest.raises(ValueError, match="more rows"):
        split(caller, contract)


# ------------------------------------------------------------------------------------------ the key


def test_a_part_other_than_the_committed_one_is_refused():
    def swap(sent):
        return Part(bytes(32)) if isinstance(sent.message, Part) and sent.sender == SHOP else sent.message

    with pytest.raises(PeerError, match="not what it committed to"):
        divided(PEOPLE, change=swap)


def test_a_commitment_of_another_party_cannot_be_repeated_as_ones_own():
    """Were it accepted, two equal parts could cancel out or be copied after the fact."""
    seen = {}

    def copy(sent):
        if isinstance(sent.message, Commitment):
            seen[sent.sender] = sent.message
            return seen[BANK] if sent.sender == SHOP else sent.message
        if isinstance(sent.message, Part):
            seen[sent.sender] = sent.message
            return seen[BANK] if sent.sender == SHOP else sent.message
        return sent.message

    with pytest.raises(PeerError, match="not what it committed to"):
        divided(PEOPLE, change=copy)


def test_a_commitment_tells_nothing_of_a_small_secret_without_its_run_and_party():
    caller = divided(PEOPLE)
    digests = [s.message.digest for s in caller.sent if isinstance(s.message, Commitment)]
    assert len(set(digests)) == 2 and all(len(d) == 32 for d in digests)
    parts = {s.message.secret for s in caller.sent if isinstance(s.message, Part)}
    assert len(parts) == 2 and not parts & set(digests)


def test_only_a_hash_of_the_key_is_public_the_same_of_all_and_the_key_is_forgotten():
    caller = divided(PEOPLE, k=3)
    told = [t.value for t in caller.told if t.value != Silent()]
    assert len(told) == 3 and len({t.digest for t in told}) == 1 and isinstance(told[0], SplitKey)
    assert not caller.revealed
    assert not {KeyPart, Commitments} & set(caller.states[BANK])
    parts = {s.message.secret for s in caller.sent if isinstance(s.message, Part)}
    assert not parts & {t.digest for t in told}


def test_a_party_that_gives_two_parties_different_parts_ends_the_run():
    other = {}

    def equivocate(sent):
        if sent.sender != SHOP or sent.reader != TELECOM:
            return sent.message
        if isinstance(sent.message, Commitment):
            secret = other.setdefault("secret", b"2" * 32)
            return Commitment(
                hashlib.sha256(b"fedmkt split commitment v1\n" + bytes(32) + b"shop\0" + secret).digest()
            )
        return Part(other["secret"]) if isinstance(sent.message, Part) else sent.message

    with pytest.raises(PeerError, match="do not have the same key"):
        divided(PEOPLE, k=3, change=equivocate)


def test_a_part_that_changes_between_two_runs_of_a_family_is_refused():
    """All parts are known after the first run: whoever changes its own then would choose the split."""
    stores = {BANK: {}, SHOP: {}}
    divided(PEOPLE, seed=1, stores=stores)
    divided(PEOPLE, seed=2, stores=stores)
    stores[SHOP]["split/toys"] = b"3" * 32
    with pytest.raises(PeerError, match="earlier runs"):
        divided(PEOPLE, seed=3, stores=stores)
