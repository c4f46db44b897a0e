"""Hidden match: the partner's list becomes the joint rows, and only the bank knows who on it is common.

Computes the order of the joint rows, after an engine has shown the bank its matches. Nothing about them leaves it:
all people on the partner's list take part, in the order of its slots, and the bank has a row of zeros and the weight
0 for those whom it does not have (`weighted`). Takes part: the bank and one partner.

| learns | what |
|---|---|
| bank | which of its rows the partner has |
| partner | nothing about the match: not who, and not how many, unless the contract names SetSize (a band) |
| partner, only with drops and dummies | a list of its people, each of them common with odds changed by e^eps at most |
| bank, only with drops and dummies | a lasting name for each person on the partner's list, without knowing who it is |
| coordinator, dealer | the number of joint rows, and what SetSize tells |

Safe against a semi-honest partner, eps = 0, whatever else it knows about its people: nothing that it is sent depends
on the match (what later outputs tell the bank is another matter). Safe against a semi-honest bank, which could train
with rows that it does not have; no proof of a match is asked for, since whoever checks it would learn the match. The
minimum of the contract is the bank's word too: that it refused tells the others that there are fewer. How long the
bank computes is not hidden, and grows a little with the number of common customers.

The cheaper form (`align.drop`, `align.dummies`; `privacy.superset` has the formula of eps): the bank sends a list of
slots, without each common one with probability p, with each other one with probability q, and training runs over
these alone. Dropped customers get no score. The length of the list tells about how many are common, to a few
hundreds. The choice of a person must be the same in each run, or a few runs would tell the truth. The bank does not
know who is in a slot, so the partner gives each slot a lasting name, a keyed hash of the id; the choice is a hash of
that name under a key that the bank keeps. A partner that changed its key would see fresh choices: the bank remembers
the names of some common customers and refuses when they change. It cannot see a change for single people that it
does not have: this form is for partners that follow the protocol. Other probabilities choose anew, and their eps
adds: the bank keeps an account for each partner and refuses beyond `limits.max_epsilon` (`budget_ledger`).

Source: protocols.md section 1; redteam.md 2.10. p : `align.drop`, q : `align.dummies`.
"""

import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b, sha256
from typing import Final

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.contract.checks import check_common, check_rest
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.privacy.disclosure import EVERYONE, Disclosure, LastingNames, SetSize, SupersetList
from fedmkt.privacy.superset import Bits, epsilon, epsilon_text, listed
from fedmkt.protocol.alignment.items import NO_ROW, Found, Items, ListRows, Offered, Rows, block_of, blocks
from fedmkt.protocol.alignment.psi import Aligned, Customers, Overlap, band, band_width, paired_slots
from fedmkt.protocol.alignment.psi_oprf import Sender
from fedmkt.protocol.budget_ledger import List, check_budget, earlier, entry_name
from fedmkt.protocol.core import (
    Caller,
    HalfWords,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    Silent,
    Spending,
    State,
    Step,
    Turn,
    Words,
    data_parties,
)
from fedmkt.protocol.counterpart import counterpart_of

REMEMBERED: Final = 128
"""So many common customers' names the bank compares with those of earlier runs."""


@dataclass(frozen=True)
class Names(Message):
    """A lasting name for each slot of one block, (k,): a keyed hash of who is there."""

    words: Words


@dataclass(frozen=True)
class Listed(Message):
    """The slots that take part, rising, (k,): all matched ones but some, and some others."""

    slots: HalfWords


@dataclass(frozen=True)
class SlotNames(State):
    """At the bank: the lasting names of the partner's slots, by block."""

    durable = False
    blocks: tuple[Words, ...] = ()


@dataclass(frozen=True)
class NameKey(State):
    """At the partner: how many blocks of names were sent."""

    durable = False
    key: bytes
    sent: int


def lists_all(contract: Contract) -> bool:
    """Tell whether the partner's whole list takes part, so that nobody has to be chosen."""
    return (contract.align.drop, contract.align.dummies) == (0.0, 1.0)


def aligned_slots(turn: Turn) -> Aligned:
    """At the bank: return the own row in each slot of the partner, NO_ROW where it has none that may take part."""
    (partner,) = turn.others
    items, customers, size = (
        turn.recall(Items),
        turn.recall(Customers),
        turn.published(ListRows, partner).rows,
    )
    positions, keys = paired_slots(turn, turn.recall(Found).matches[partner], size)
    own = np.flatnonzero(positions != NO_ROW)
    if customers.labelled is not None and not turn.contract.scores.unlabelled:
        own = own[customers.labelled[items.rows[own]]]
    slots = positions[own] // len(turn.contract.bank.id_kinds)
    rows, by = np.full(size, NO_ROW, dtype=np.int64), np.zeros(size, np.uint8)
    rows[slots], by[slots] = items.rows[own], keys[own]
    return Aligned(rows, np.empty(0, np.int64), by)


def expected_overlap(contract: Contract, lists: Sequence[int], labelled: int, unlabelled: int) -> Overlap:
    """Return what a run would publish with these numbers of common customers; lists : lengths, the bank's first."""
    width, terms = band_width(lists[0], min(lists[1:])), contract.align
    bands = Overlap(*band(labelled, width), *band(unlabelled, width))
    if not terms.hidden:
        return bands
    common = labelled + unlabelled
    slots = round(common * (1 - terms.drop) + (lists[1] - common) * terms.dummies)
    if "SetSize" not in contract.disclosures:
        bands = Overlap(contract.limits.min_common - 1, slots, 0, 0)
    return replace(bands, slots=slots)


# --- lasting names, where only some slots are listed


def _organisation(turn: Turn, party: Name) -> str:
    return " ".join(turn.contract.party(party).organisation.casefold().split())


def _id_of(customers: Customers, row: int) -> bytes:
    """Return a person's first key that has a value, and which key it is."""
    return next(f"{k} {ids[row]}".encode() for k, ids in enumerate(customers.by_key) if ids[row] is not None)


def _name_slots(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Names, Silent]:
    """At the partner: name the people of the next block of slots; names last as long as the key."""
    bank, items = turn.parties[0], turn.recall(Items)
    kept = f"names/{_organisation(turn, bank)}"
    known = turn.recall(NameKey) if turn.has(NameKey) else NameKey(turn.store.get(kept) or turn.random(32), 0)
    customers, here = turn.recall(Customers), block_of(known.sent, len(items.rows))
    digests = b"".join(
        blake2b(_id_of(customers, row), key=known.key, digest_size=8, person=b"fedmkt name v1").digest()
        for row in items.rows[here].tolist()
    )
    names = Names(np.frombuffer(digests, "<u8").astype(np.uint64, copy=False))
    reveals = (LastingNames(to=bank, rows=len(items.rows)),) if known.sent == 0 else ()
    remember = {} if kept in turn.store else {kept: known.key}
    keep = (NameKey(known.key, known.sent + 1),)
    return Outcome(Silent(), send={bank: names}, keep=keep, reveals=reveals, remember=remember)


def _take_names(turn: Turn, inbox: Inbox[Names]) -> Outcome[Nothing, Silent]:
    (partner,) = turn.others
    before = turn.recall(SlotNames).blocks if turn.has(SlotNames) else ()
    names = inbox.one(partner, Names).words
    here = block_of(len(before), turn.published(ListRows, partner).rows)
    if names.shape != (here.stop - here.start,):
        raise PeerError(f"{partner}: psi.name_slots: wrong number of names")
    return Outcome(Silent(), keep=(SlotNames((*before, names)),))


def _choose(turn: Turn, rows: Rows) -> tuple[Bits, dict[str, bytes]]:
    """Choose the slots that are listed, and what to remember of it; refuse names that changed."""
    (partner,) = turn.others
    of, terms = _organisation(turn, partner), turn.contract.align
    key = turn.store.get(f"superset/{of}") or turn.random(32)
    names = np.concatenate(turn.recall(SlotNames).blocks)
    if len(np.unique(names)) < len(names) - 1:  # 64 bits: one pair by chance, at the largest lists
        raise PeerError(f"{partner}: psi.name_slots: several slots have one name")
    seen = _seen(turn, key, names, rows)
    known = {a: b for a, b in json.loads(turn.store.get(f"names seen/{of}", b"{}")).items() if a in seen}
    if any(not hmac.compare_digest(b, seen[a]) for a, b in known.items()):
        raise PolicyRefused(
            f"{partner} names its people otherwise than in earlier runs",
            "with new names the choice would be made anew, and a few lists would tell who is common",
        )
    kept = dict(list((known | dict(sorted(seen.items()))).items())[:REMEMBERED])
    remember = {f"superset/{of}": key, f"names seen/{of}": json.dumps(kept).encode()}
    return listed(key, names, rows != NO_ROW, terms.drop, terms.dummies), remember


def _count_list(turn: Turn, key: bytes) -> tuple[dict[str, bytes], tuple[Spending, ...]]:
    """Count a list in the budget ledger, once for a run; PolicyRefused beyond the contract.

    key : of the choice.
    """
    (partner,), terms, run = turn.others, turn.contract.align, turn.run.hex()
    whom, eps = counterpart_of(turn.contract.party(partner)), epsilon(terms.drop, terms.dummies)
    choice = sha256(key + f"{terms.drop!r} {terms.dummies!r}".encode()).hexdigest()[:32]
    entry = List(whom.organisation, whom.key, eps, choice)
    told = [*earlier(turn.store, entry, run), entry]
    total = check_budget(told, turn.contract.limits.max_epsilon, turn.me, "list", "this partner")
    name = entry_name(entry, run)
    spending = Spending(partner, "drops and dummies on a list", eps, 0.0, total)
    return {name: json.dumps(asdict(entry)).encode()}, () if name in turn.store else (spending,)


def _seen(turn: Turn, key: bytes, names: Words, rows: Rows) -> dict[str, str]:
    """Return for each common customer a keyed hash of the id, and one of the name that the partner gave it."""
    customers, found = turn.recall(Customers), {}
    for slot in np.flatnonzero(rows != NO_ROW).tolist():
        one = _id_of(customers, int(rows[slot]))
        person = blake2b(one, key=key, digest_size=16, person=b"fedmkt seen id")
        name = blake2b(names[slot].tobytes(), key=key, digest_size=16, person=b"fedmkt seen name")
        found[person.hexdigest()] = name.hexdigest()
    return found


# --- the joint rows


def _place(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Listed, Overlap]:
    """At the bank: put the own rows where the partner has these customers; tell the partner nothing, or a list."""
    (partner,) = turn.others
    kept, send, remember = aligned_slots(turn), {}, dict[str, bytes]()
    reveals: tuple[Disclosure, ...] = ()
    spends: tuple[Spending, ...] = ()
    if not lists_all(turn.contract):
        choice, remember = _choose(turn, kept.labelled)
        counted, spends = _count_list(turn, remember[f"superset/{_organisation(turn, partner)}"])
        remember |= counted
        slots = np.flatnonzero(choice)
        kept = replace(kept, labelled=kept.labelled[slots], keys=kept.keys[slots])
        send = {partner: Listed(slots.astype(np.uint32))}
        terms = turn.contract.align
        said = epsilon_text(terms.drop, terms.dummies)
        reveals = (SupersetList(to=partner, rows=len(slots), epsilon=said),)
    bands, sizes = _told(turn, kept.labelled)
    return Outcome(
        bands,
        send=send,
        keep=(kept,),
        forget=(Items, Found, SlotNames),
        reveals=reveals + sizes,
        remember=remember,
        spends=spends,
    )


def _told(turn: Turn, rows: Rows) -> tuple[Overlap, tuple[Disclosure, ...]]:
    """Check the minimum and say how many take part: all joint rows, or the band of the common ones."""
    contract, labels = turn.contract, turn.recall(Customers).labelled
    common = rows[rows != NO_ROW]
    with_label = len(common) if labels is None else int(labels[common].sum())
    check_common(contract.limits, with_label - 1, with_label)
    lists = [turn.published(ListRows, p).rows for p in turn.parties]
    check_rest(contract, lists, len(common))
    if "SetSize" not in contract.disclosures:
        return Overlap(contract.limits.min_common - 1, len(rows), 0, 0, len(rows)), ()
    width = band_width(lists[0], lists[1])
    bands = Overlap(*band(with_label, width), *band(len(common) - with_label, width), len(rows))
    low, high = bands.labelled_low + bands.unlabelled_low, bands.labelled_high + bands.unlabelled_high
    return bands, (SetSize(to=EVERYONE, low=low, high=high),)


def _take_slots(turn: Turn, inbox: Inbox[Listed]) -> Outcome[Nothing, Silent]:
    """At the partner: take part with the whole list, or with the listed slots."""
    bank, items = turn.parties[0], turn.recall(Items)
    joint, slots = turn.published(Overlap, bank).slots, np.arange(len(items.rows))
    if not lists_all(turn.contract):
        slots = inbox.one(bank, Listed).slots.astype(np.int64)
        if len(slots) and (slots[-1] >= len(items.rows) or (np.diff(slots) <= 0).any()):
            raise PeerError(f"{bank}: psi.place: a listed slot is foreign or listed twice")
    if joint != len(slots):
        raise PeerError(f"{bank}: psi.place: another number of joint rows than slots that take part")
    kept = Aligned(items.rows[slots], np.empty(0, np.int64))
    return Outcome(Silent(), keep=(kept,), forget=(Items, Offered, Sender, NameKey))


NAME_SLOTS = Step("psi.name_slots", _name_slots, Silent, reveals=(LastingNames,))
TAKE_NAMES = Step("psi.take_names", _take_names, Silent, reads=(Names,))
PLACE = Step("psi.place", _place, Overlap, reveals=(SupersetList, SetSize))
TAKE_SLOTS = Step("psi.take_slots", _take_slots, Silent, reads=(Listed,))


def place_slots(call: Caller, contract: Contract, slots: int) -> Overlap:
    """Make the joint rows of the hidden match; `slots` : how many people the partner offered."""
    bank, partner = data_parties(contract)
    if lists_all(contract):
        placed = call(bank, PLACE)
        call(partner, TAKE_SLOTS)
        return placed.public.value
    for _ in range(blocks(slots)):
        call(bank, TAKE_NAMES, call(partner, NAME_SLOTS).to(bank))
    placed = call(bank, PLACE)
    call(partner, TAKE_SLOTS, placed.to(partner))
    return placed.public.value
