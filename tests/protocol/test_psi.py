import hashlib
import unicodedata

import numpy as np
import pytest

from fedmkt.contract.canonical import digest
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.party.node import local_states
from fedmkt.party.table import Column, TableSchema, read_table
from fedmkt.privacy.disclosure import DEFAULT, CampaignRows, ListSize, MatchedOwnRows, SetSize
from fedmkt.protocol.alignment.items import NO_ROW, Found, ListRows, Tags
from fedmkt.protocol.alignment.psi import (
    ADMIT,
    ALIGN,
    ANNOUNCE,
    MATCH,
    NO_SLOT,
    Aligned,
    Customers,
    Matched,
    Overlap,
    _joint_proof,
    band,
    band_width,
    common_band,
    engine,
    item_values,
    psi,
)
from fedmkt.protocol.alignment.psi_oprf import BLIND, EVALUATE, OFFER, TAKE, Blinded, Evaluated
from fedmkt.protocol.core import Silent, ask
from fedmkt.protocol.witness import witness
from fedmkt.simulation.world import BANK as BANK_FILE
from fedmkt.simulation.world import LABEL, PARTNERS, generate
from tests.protocol.plain_caller import BANK, SHOP, TELECOM, PlainCaller, chi_square, contract_of

NAMES = (BANK, SHOP, TELECOM)


def lists(seed, sizes, common, k):
    """Draw distinct ids for each party, `common` of them held by all, each list in an order of its own."""
    random = np.random.default_rng(seed)
    everybody = [f"p{i:07d}" for i in random.permutation(10**6)[: common + sum(sizes)]]
    shared, at, found = everybody[:common], common, {}
    for name, size in zip(NAMES[:k], sizes, strict=False):
        own = shared + everybody[at : at + size - common]
        at += size
        found[name] = [own[i] for i in random.permutation(len(own))]
    return found


def intersected(ids, labelled=None, seed=0, change=None, **options):
    contract = contract_of(len(ids), **options)
    local = {
        p: (Customers(tuple(found), np.asarray(labelled) if p == BANK and labelled is not None else None),)
        for p, found in ids.items()
    }
    caller = PlainCaller(contract, local, seed=seed)
    if change:
        caller.change = change
    psi(caller, contract)
    return caller


def people(caller, party, part):
    ids, rows = caller.recall(party, Customers).ids, getattr(caller.recall(party, Aligned), part)
    return [ids[r] if r != NO_ROW else None for r in rows]


@pytest.mark.parametrize(
    ("k", "sizes", "common"), [(2, (60, 90), 45), (2, (90, 60), 60), (3, (70, 60, 90), 40)]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_all_parties_hold_exactly_the_common_people_in_one_order(k, sizes, common, seed):
    ids = lists(seed, sizes, common, k)
    has_label = np.random.default_rng(seed).random(sizes[0]) < 0.7
    caller = intersected(ids, has_label)
    everywhere = set.intersection(*map(set, ids.values()))
    labelled = {i for i, h in zip(ids[BANK], has_label, strict=True) if h}
    assert {i for i in people(caller, BANK, "labelled") if i} == everywhere & labelled
    assert {i for i in people(caller, BANK, "unlabelled") if i} == everywhere - labelled
    for part in ("labelled", "unlabelled"):
        order = people(caller, BANK, part)
        assert all(people(caller, p, part) == order for p in ids)


def test_rows_without_label_are_left_out_where_the_contract_does_not_score_them():
    ids = lists(1, (60, 60), 50, 2)
    has_label = np.arange(60) % 2 == 0
    caller = intersected(ids, has_label, scores={"unlabelled": False})
    assert not people(caller, BANK, "unlabelled") and not people(caller, SHOP, "unlabelled")
    assert caller.overlap.unlabelled_high == 0
    assert {i for i in people(caller, SHOP, "labelled") if i} <= set(np.array(ids[BANK])[has_label])


def test_common_people_who_write_their_number_untidily_or_twice_are_found_once(tmp_path):
    world = generate(5, 500, 600, 350)
    local, spelled = {}, {}
    parties = ((BANK, BANK_FILE, world.bank), (SHOP, PARTNERS[0], world.partners[0]))
    for name, file, table in parties:
        path = tmp_path / file.file
        table.to_csv(path, index=False)
        columns = tuple(Column(n, "number") for n in file.numbers)
        label = LABEL if name == BANK else None
        local[name] = local_states(read_table(path, TableSchema("phone", "phone", "86", columns, label)))
        spelled[name] = {_crude(p) for p in table["phone"]} - {None}
        assert table["phone"].map(_crude).dropna().duplicated().any()
    contract = contract_of(2, limits={"min_list": 100})
    caller = PlainCaller(contract, local)
    psi(caller, contract)
    matched = [i for part in ("labelled", "unlabelled") for i in people(caller, SHOP, part) if i]
    assert len(matched) == len(set(matched)) == 350
    assert {_crude(i) for i in matched} == spelled[BANK] & spelled[SHOP]


def _crude(text):
    """Read a Chinese mobile number out of anything, by other means than the product's."""
    digits = "".join(c for c in unicodedata.normalize("NFKC", str(text)) if c.isdigit())
    return digits[-11:] if len(digits) >= 11 else None


def test_the_order_of_the_common_rows_follows_no_partys_own_order():
    ids = lists(3, (400, 400), 300, 2)
    caller = intersected(ids)
    for party in (BANK, SHOP):
        rows = caller.recall(party, Aligned).labelled
        rows = rows[rows != NO_ROW]
        assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.2
    other = intersected(ids, seed=1)
    assert people(other, BANK, "labelled") != people(caller, BANK, "labelled"), "a fresh key orders anew"


# ------------------------------------------------------------------------------------------ what is public


def test_only_bands_are_public_never_a_count():
    ids = lists(1, (300, 400), 237, 2)
    caller = intersected(ids)
    told = [t.value for t in caller.told if not isinstance(t.value, Silent)]
    assert told == [ListRows(300), ListRows(400), Overlap(230, 240, 0, 0)]
    assert [d for d in (d for _, d in caller.revealed) if isinstance(d, SetSize)] == [
        SetSize(to="all", low=230, high=240)
    ]


@pytest.mark.parametrize("k", [2, 3])
def test_every_count_within_a_band_gives_messages_of_one_length(k):
    sent = []
    for common in (231, 236, 240):
        caller = intersected(lists(common, (300, 400, 350)[:k], common, k))
        sent.append([(s.step, s.sender, s.reader, len(s.data)) for s in caller.sent])
        rows = [len(s.message.slots) for s in caller.sent if isinstance(s.message, Matched)]
        assert rows == [240] * (k - 1)
    assert sent[0] == sent[1] == sent[2]


@pytest.mark.parametrize(
    ("bank", "partner", "width"), [(100, 100, 10), (999, 5000, 10), (2000, 5000, 20), (10**6, 10**5, 1000)]
)
def test_a_band_is_one_percent_of_the_shorter_list_and_at_least_ten(bank, partner, width):
    assert band_width(bank, partner) == width
    for count in (0, 1, width - 1, width, width + 1, 7 * width + 3):
        low, high = band(count, width)
        assert (
            low < count <= high and high - low == width and high % width == 0
        ) or count == low == high == 0


def test_what_each_learns_is_declared():
    ids = lists(1, (60, 90), 45, 2)
    caller = intersected(ids, np.arange(60) < 50)
    declared = [d for _, d in caller.revealed]
    assert ListSize(to="all", rows=60) in declared and ListSize(to="all", rows=90) in declared
    assert {type(d) for d in declared} == {ListSize, MatchedOwnRows, SetSize, CampaignRows}
    assert {d.to for d in declared if isinstance(d, MatchedOwnRows)} == {BANK, SHOP}


def test_tags_come_in_an_order_that_does_not_tell_the_partners_rows():
    ids = lists(1, (60, 400), 45, 2)
    caller = intersected(ids)
    (tags,) = [s.message.tags for s in caller.sent if isinstance(s.message, Tags)]
    first = tags[:, :8].copy().view("<u8").reshape(-1)
    assert abs(chi_square(tags)) < 4.5 and len(np.unique(first)) == 400
    hashes = {v.tobytes() for v in item_values(caller.contract, "raw", tuple(ids[SHOP]))}
    assert not any(t.tobytes() in hashes for t in tags)


def test_points_and_tags_of_two_runs_are_unrelated():
    ids = lists(1, (60, 60), 45, 2)
    first, second = intersected(ids, seed=1), intersected(ids, seed=2)
    for kind, part in ((Blinded, "points"), (Evaluated, "points"), (Tags, "tags")):
        a, b = (
            {r.tobytes() for s in c.sent if isinstance(s.message, kind) for r in getattr(s.message, part)}
            for c in (first, second)
        )
        assert a and not a & b


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(("bank", "partner"), [(19, 40), (40, 19)])
def test_a_list_under_the_minimum_is_refused_before_anything_of_the_partner_leaves(bank, partner):
    with pytest.raises(PolicyRefused, match="minimum"):
        intersected(lists(1, (bank, partner), 10, 2), limits={"min_list": 20, "min_common": 1})


def test_an_intersection_under_the_minimum_is_refused_before_the_partner_learns_of_it():
    contract = contract_of(limits={"min_common": 46})
    local = {p: (Customers(tuple(i), None),) for p, i in lists(1, (60, 60), 45, 2).items()}
    caller = PlainCaller(contract, local)
    with pytest.raises(PolicyRefused, match="intersection is smaller"):
        psi(caller, contract)
    assert not [s for s in caller.sent if isinstance(s.message, Matched)]
    assert not any(isinstance(t.value, Overlap) for t in caller.told)


def test_the_partner_checks_the_minimum_too():
    """A bank that lies about the minimum is refused by the partner, which has the claim by then."""
    honest = contract_of(limits={"min_common": 20})
    strict = contract_of(limits={"min_common": 46})
    caller, matched = matched_claim(honest)
    caller.contract = strict
    with pytest.raises(PolicyRefused, match="intersection is smaller"):
        caller(SHOP, ALIGN, matched.to(SHOP))
    assert Aligned not in caller.states[SHOP]


def matched_claim(contract, ids=None):
    """Run the intersection up to the bank's claim."""
    ids = ids or lists(1, (60, 60), 45, 2)
    caller = announced(contract, ids)
    sizes = {p: len(i) for p, i in ids.items()}
    engine(contract, sizes)(caller, contract, sizes)
    return caller, caller(BANK, MATCH)


def announced(contract, ids):
    caller = PlainCaller(contract, {p: (Customers(tuple(i), None),) for p, i in ids.items()})
    caller.all([ask(p, ANNOUNCE) for p in ids])
    caller.all([ask(p, ADMIT) for p in ids])
    return caller


@pytest.mark.parametrize("party", [BANK, SHOP])
def test_a_second_intersection_in_one_run_is_refused(party):
    contract = contract_of()
    ids = lists(1, (60, 60), 45, 2)
    caller = intersected(ids)
    if party == SHOP:
        caller.states[BANK].pop(Aligned)  # a bank that forgets
    with pytest.raises(PolicyRefused, match="second intersection"):
        psi(caller, contract)


def test_a_second_question_before_the_first_is_answered_is_refused():
    caller = announced(contract_of(), lists(1, (60, 60), 45, 2))
    offered = caller(SHOP, OFFER)
    caller(BANK, TAKE, offered.to(BANK))
    blinded = caller(BANK, BLIND)
    with pytest.raises(PolicyRefused, match="second intersection"):
        caller(BANK, BLIND)
    with pytest.raises(PolicyRefused, match="second intersection"):
        caller(SHOP, OFFER)
    caller(SHOP, EVALUATE, blinded.to(SHOP))
    with pytest.raises(PolicyRefused, match="more people than its list"):
        caller(SHOP, EVALUATE, blinded.to(SHOP))
    with pytest.raises(PeerError, match="more tags"):
        caller(BANK, TAKE, offered.to(BANK))


FORGED = 1000


@pytest.fixture(scope="module")
def forging():
    """A bank with 1000 rows to claim, 100 of which are true, and what proves each of them."""
    ids = lists(4, (1000, 1000), 100, 2)
    caller = announced(contract_of(limits={"min_common": 1}), ids)
    sizes = {p: len(i) for p, i in ids.items()}
    engine(caller.contract, sizes)(caller, caller.contract, sizes)
    match = caller.recall(BANK, Found).matches[SHOP]
    real = match.positions != NO_ROW
    assert real.sum() == 100
    return caller, match.positions[real], match.proofs[real]


def aligned_with(forging, slots, proofs, overlap=None, **options):
    """Ask the partner to accept a claim, padded to the band that fits it; returns its rows."""
    caller, _, _ = forging
    low, high = band(len(slots), 10)
    fresh = PlainCaller(contract_of(**({"limits": {"min_common": 1}} | options)), {}, seed=8)
    fresh.publics = {**caller.publics, (BANK, Overlap): overlap or Overlap(low, high, 0, 0)}
    fresh.states = {n: dict(s) for n, s in caller.states.items()}
    padded = np.full(high, NO_SLOT, np.uint32)
    padded[: len(slots)] = slots
    body = fresh._send(ask(BANK, MATCH), SHOP, Matched(padded, _joint_proof(fresh.turn(BANK), proofs)))
    fresh(SHOP, ALIGN, body)
    return fresh.recall(SHOP, Aligned).labelled


def test_of_a_thousand_claims_exactly_the_true_ones_hold(forging):
    _, slots, proofs = forging
    proof_of = dict(zip(slots.tolist(), proofs, strict=True))
    random = np.random.default_rng(1)
    accepted = []
    for slot in range(FORGED):
        # What a bank has for people whom it does not have: nothing, so guesses and proofs of others.
        guesses = random.integers(0, 256, 16, np.uint8)
        proof = proof_of.get(slot, proofs[slot % 100] if slot % 2 else guesses)
        try:
            rows = aligned_with(forging, np.array([slot]), proof.reshape(1, 16))
        except PeerError:
            continue
        accepted.append(slot)
        assert rows.tolist()[0] != NO_ROW
    assert sorted(accepted) == sorted(slots.tolist()) and len(accepted) == 100


def test_one_false_claim_among_true_ones_spoils_all(forging):
    _, slots, proofs = forging
    aligned_with(forging, slots, proofs)
    false = next(i for i in range(1000) if i not in set(slots.tolist()))
    for at in (0, 50, 99):
        changed, flipped = slots.copy(), proofs.copy()
        changed[at] = false
        flipped[at, 3] ^= 1
        for claim in ((changed, proofs), (slots, flipped), (slots[::-1], proofs), (slots[1:], proofs)):
            with pytest.raises(PeerError, match="no proof"):
                aligned_with(forging, *claim)


@pytest.mark.parametrize("bad", [1000, 2**31, 2**32 - 2])
def test_slots_outside_the_list_are_refused(forging, bad):
    _, slots, proofs = forging
    slots = slots.copy()
    slots[0] = bad
    with pytest.raises(PeerError, match="foreign"):
        aligned_with(forging, slots, proofs)


def test_a_row_claimed_twice_is_refused(forging):
    _, slots, proofs = forging
    slots, proofs = slots.copy(), proofs.copy()
    slots[1], proofs[1] = slots[0], proofs[0]
    with pytest.raises(PeerError, match="twice"):
        aligned_with(forging, slots, proofs)


def test_a_bank_cannot_claim_more_people_than_its_list_has(forging):
    """The engines for long lists have room for some more items than a bank announced: claimed they cannot be."""
    caller, slots, proofs = forging
    said = caller.publics[BANK, ListRows]
    aligned_with(forging, slots, proofs)
    caller.publics[BANK, ListRows] = ListRows(99)
    try:
        with pytest.raises(PeerError, match="more rows than its list"):
            aligned_with(forging, slots, proofs)
    finally:
        caller.publics[BANK, ListRows] = said


def test_slots_of_a_hidden_match_are_refused_where_it_is_shown(forging):
    _, slots, proofs = forging
    with pytest.raises(PeerError, match="band"):
        aligned_with(forging, slots, proofs, Overlap(90, 100, 0, 0, 100))


@pytest.mark.parametrize(
    "bands",
    [(99, 100), (0, 100), (100, 110), (80, 90), (90, 110), (-10, 100)],
    ids=lambda b: f"{b[0]} to {b[1]}",
)
def test_a_band_other_than_the_counts_own_is_refused(forging, bands):
    """A narrow one would tell the count to everybody, a wide or false one pads or cuts the training rows."""
    _, slots, proofs = forging
    aligned_with(forging, slots, proofs, Overlap(90, 100, 0, 0))
    with pytest.raises(PeerError):
        aligned_with(forging, slots, proofs, Overlap(*bands, 0, 0))


def test_rows_without_label_are_refused_where_the_contract_does_not_score_them(forging):
    _, slots, proofs = forging
    with pytest.raises(PolicyRefused, match="without a label"):
        aligned_with(forging, slots, proofs, Overlap(40, 50, 40, 50), scores={"unlabelled": False})


@pytest.mark.parametrize("spoil", ["short", "not a point", "identity"])
def test_points_that_are_none_are_refused_by_the_partner(spoil):
    def change(sent):
        if not isinstance(sent.message, Blinded):
            return sent.message
        points = sent.message.points.copy()
        if spoil == "short":
            return Blinded(points[:, :31].copy())
        points[7] = 255 if spoil == "not a point" else 0
        return Blinded(points)

    with pytest.raises((PeerError, ValueError)):
        intersected(lists(1, (60, 60), 45, 2), change=change)


@pytest.mark.parametrize("kind", [Evaluated, Tags])
def test_an_answer_of_another_shape_is_refused_by_the_bank(kind):
    def change(sent):
        if not isinstance(sent.message, kind):
            return sent.message
        return (
            Evaluated(sent.message.points[:-1])
            if kind == Evaluated
            else Tags(sent.message.tags[:, :15].copy())
        )

    with pytest.raises(PeerError, match="wrong number"):
        intersected(lists(1, (60, 60), 45, 2), change=change)


def test_equal_people_look_unrelated_under_another_contract_or_kind_of_id():
    ids = ("+8613900000000",)
    one, other = contract_of(family="one"), contract_of(family="two")
    assert (item_values(one, "raw", ids) != item_values(other, "raw", ids)).all()
    head = b"fedmkt item v1\n" + (35).to_bytes(4, "big") + digest(one) + b"raw"
    expected = hashlib.sha256(head + bytes(-len(head) % 64) + ids[0].encode()).digest()[:16]
    assert item_values(one, "raw", ids).tobytes() == expected


def test_logs_are_counter_signed_before_each_side_answers():
    """Two witnesses stand in the script; the engine refuses a release without one."""
    caller = intersected(lists(1, (60, 60), 45, 2))
    order = [t.step for t in caller.told]
    assert order.index("psi.announce") < order.index("witness.cosign") < order.index("psi.oprf.offer")
    assert "witness.cosign" in order[order.index("psi.oprf.evaluate") : order.index("psi.match")]
    witness(caller, caller.contract)


def test_a_bank_asks_about_as_many_people_as_agreed_and_no_more():
    assert intersected(lists(1, (60, 90), 45, 2), limits={"max_list": 60})
    with pytest.raises(PolicyRefused, match="longer than the contract's maximum"):
        intersected(lists(1, (61, 40), 30, 2), limits={"max_list": 60})


@pytest.mark.parametrize(
    ("party", "rows", "match"),
    [
        (BANK, 61, "asks about more people than the contract's maximum"),
        (BANK, 19, "a list is shorter than the contract's minimum"),
        (SHOP, 19, "a list is shorter than the contract's minimum"),
        (SHOP, NO_SLOT, "longer than can be matched"),
    ],
)
def test_what_a_peer_says_of_its_list_is_held_against_the_contract(party, rows, match):
    """A peer that does not refuse its own list is refused by the others."""
    contract = contract_of(limits={"max_list": 60, "min_list": 20})
    ids = lists(1, (60, 60), 45, 2)
    caller = PlainCaller(contract, {p: (Customers(tuple(i), None),) for p, i in ids.items()})
    caller.all([ask(p, ANNOUNCE) for p in ids])
    caller.publics[party, ListRows] = ListRows(rows)
    other = SHOP if party == BANK else BANK
    with pytest.raises(PolicyRefused, match=match):
        caller(other, ADMIT)


def test_a_band_of_the_common_people_is_told_where_it_is_known():
    overlap = Overlap(40, 50, 10, 20)
    assert common_band(contract_of(), overlap) == (50, 70)
    left = contract_of(align={"join": "left"}, disclosures=(*DEFAULT, "JoinedRows"))
    assert common_band(left, overlap) is None
