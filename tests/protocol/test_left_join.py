"""All customers of the bank take part; those whom the partner does not have bring it rows of zeros."""

from dataclasses import replace

import numpy as np
import pytest

from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.privacy.disclosure import DEFAULT, JoinedRows, MatchedOwnRows, SetSize
from fedmkt.protocol.alignment.align import Split, split
from fedmkt.protocol.alignment.items import NO_ROW, Known
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
    engine,
    psi,
)
from fedmkt.protocol.core import ask
from fedmkt.protocol.prepare import KNOWN, Columns, own_columns, prepare_columns, real
from tests.protocol.plain_caller import BANK, SHOP, PlainCaller, contract_of

IDS = {BANK: [f"p{i:05d}" for i in range(600)], SHOP: [f"p{i:05d}" for i in range(400, 900)]}
COMMON = set(IDS[BANK]) & set(IDS[SHOP])


@pytest.fixture(scope="module")
def joined():
    contract = contract_of(align={"join": "left"}, disclosures=(*DEFAULT, "JoinedRows"))
    random = np.random.default_rng(1)
    ids = {p: tuple(random.permutation(i).tolist()) for p, i in IDS.items()}
    has_label = random.random(600) < 0.8
    label = np.where(has_label, random.random(600) < 0.3, np.nan).astype(float)
    local = {}
    for party, own in ids.items():
        numbers = {"x0": random.normal(size=len(own)), "x1": random.normal(size=len(own))}
        is_bank = party == BANK
        columns = Columns(numbers, {}, label if is_bank else None)
        local[party] = (Customers(own, has_label if is_bank else None), columns)
    caller = PlainCaller(contract, local)
    psi(caller, contract)
    split(caller, contract)
    prepare_columns(caller, contract)
    return caller


def people(caller, party, rows):
    ids = caller.recall(party, Customers).ids
    return [ids[r] if r != NO_ROW else None for r in rows.tolist()]


def test_every_customer_of_the_bank_takes_part_once(joined):
    aligned = joined.recall(BANK, Aligned)
    own = [i for part in (aligned.labelled, aligned.unlabelled) for i in people(joined, BANK, part) if i]
    assert sorted(own) == IDS[BANK]
    customers = joined.recall(BANK, Customers)
    assert customers.labelled[real(aligned.labelled)].all()
    assert not customers.labelled[real(aligned.unlabelled)].any()


@pytest.mark.parametrize("part", ["train", "held_out", "unlabelled"])
def test_the_partner_stands_beside_its_people_and_nowhere_else(joined, part):
    bank, shop = (people(joined, p, getattr(joined.recall(p, Split), part)) for p in (BANK, SHOP))
    assert len(bank) == len(shop)
    assert shop == [i if i in COMMON else None for i in bank]
    assert {i for i in shop if i} and None in [s for b, s in zip(bank, shop, strict=True) if b]


def test_a_column_of_the_bank_says_whom_the_partner_has(joined):
    ids, known = joined.recall(BANK, Customers).ids, joined.recall(BANK, Known).rows
    assert [i for i, k in zip(ids, known, strict=True) if k] == [i for i in ids if i in COMMON]
    assert own_columns(joined.turn(BANK)).numbers[KNOWN].sum() == len(COMMON)
    assert KNOWN not in own_columns(joined.turn(SHOP)).numbers
    assert joined.shapes()[BANK].columns == 3 and joined.shapes()[SHOP].columns == 2


def test_nobody_but_the_two_is_told_how_many_are_common(joined):
    told = [d for _, d in joined.revealed]
    assert not [d for d in told if isinstance(d, SetSize)]
    (rows,) = [d for d in told if isinstance(d, JoinedRows)]
    assert rows.low < 600 <= rows.high and rows.to == "all"
    (matched,) = [d for d in told if isinstance(d, MatchedOwnRows) and d.to == SHOP]
    assert matched.low == 0


def test_a_small_intersection_is_refused_however_many_take_part():
    contract = contract_of(
        align={"join": "left"}, disclosures=(*DEFAULT, "JoinedRows"), limits={"min_common": 201}
    )
    local = {p: (Customers(tuple(i), None),) for p, i in IDS.items()}
    with pytest.raises(PolicyRefused, match="intersection is smaller"):
        psi(PlainCaller(contract, local), contract)


def claimed(**changes):
    """Let the partner accept the bank's claim under bands that somebody changed; returns the partner's rows."""
    contract = contract_of(align={"join": "left"}, disclosures=(*DEFAULT, "JoinedRows"))
    local = {p: (Customers(tuple(i), np.arange(600) < 480 if p == BANK else None),) for p, i in IDS.items()}
    caller = PlainCaller(contract, local)
    parties, sizes = (BANK, SHOP), {p: len(i) for p, i in IDS.items()}
    for step in (ANNOUNCE, ADMIT):
        caller.all([ask(p, step) for p in parties])
    engine(contract, sizes)(caller, contract, sizes)
    caller(BANK, MATCH)
    bands = replace(caller.publics[BANK, Overlap], **changes)
    (claim,) = [s.message for s in caller.sent if isinstance(s.message, Matched)]
    slots = np.full(max(0, bands.labelled_high + bands.unlabelled_high), NO_SLOT, np.uint32)
    kept = claim.slots[: len(slots)]
    slots[: len(kept)] = kept
    caller.publics[BANK, Overlap] = bands
    caller(SHOP, ALIGN, caller._send(ask(BANK, MATCH), SHOP, replace(claim, slots=slots)))
    return caller.recall(SHOP, Aligned)


@pytest.mark.parametrize(
    "changes",
    [
        {"labelled_low": 490, "labelled_high": 500},
        {"unlabelled_low": 990, "unlabelled_high": 1000},
        {"labelled_high": 10**6},
        {"labelled_low": 475},
        {"labelled_low": 479},
        {"unlabelled_low": 0},
        {"labelled_low": 0, "labelled_high": -120, "unlabelled_low": 710, "unlabelled_high": 720},
        {"slots": 600},
    ],
    ids=str,
)
def test_bands_that_cannot_be_those_of_the_banks_list_are_refused(changes):
    """They decide how many rows are trained over and scored, and what the partner's policy is asked about."""
    assert len(claimed().labelled) == 480
    with pytest.raises(PeerError):
        claimed(**changes)
