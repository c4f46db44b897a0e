"""Private set intersection: which customers all parties share, and their rows in one order at every party.

Computes the common customers and puts their rows in one random order. An engine finds the matches (`psi_oprf`,
`psi_ot`, `psi_vole`); what comes before and after it is the same for all and stands here.
Takes part: the bank (receiver) and one or two partners (senders).

| learns | what |
|---|---|
| bank | which of its rows each partner has |
| partner | **which of its people bank there** (those all parties share), who of them is in the campaign |
| all | the length of each list |
| coordinator, dealer | bands: how many in common, with and without label |

Safe against semi-honest parties. A bank cannot claim rows that it does not have (one hash over the proofs of all
claimed rows, which the engine gave to whoever holds the id) and malformed messages are refused; it may still ask
about people whom it only guesses, up to the length of its list, anew at each resume. All this holds for a bank that
deviates with engine `oprf` alone: see what the others say of it. A partner cannot enforce a minimum before the
bank has seen the match; it checks before it aligns. Two partners that put their lists together learn what their
common people are.

With `align.match = "hidden"` the partner learns nothing about the match: `hidden`.
With `align.join = "left"` the rows are those of all customers of the bank: matched ones first, for the others the
partner has a row of zeros and the bank's model a column that says so. The partner learns besides how many
customers with and without label the bank has.

Source: protocols.md section 1. n is a number of rows.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.checks import check_common
from fedmkt.crypto.id_hash import PackedIds, hash_ids
from fedmkt.crypto.prg import Random
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.learn.linkage import one_to_one
from fedmkt.privacy.disclosure import (
    EVERYONE,
    CampaignRows,
    Disclosure,
    JoinedRows,
    ListSize,
    MatchedOwnRows,
    SetSize,
)
from fedmkt.protocol.alignment import psi_oprf
from fedmkt.protocol.alignment.items import NO_ROW, Bytes, Found, Items, Known, ListRows, Match, Offered, Rows
from fedmkt.protocol.core import (
    Caller,
    HalfWords,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    PublicValue,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
)
from fedmkt.protocol.witness import witness

Ids = tuple[str | None, ...] | PackedIds

Engine = Callable[[Caller, Contract, Mapping[Name, int]], None]
"""A script that leaves `Found` at the bank and `Offered` at each partner; the mapping says who has how many items."""

SHORT_LIST: Final = 5_000
"""Up to this many items on either side the oblivious function is the cheapest engine, and the easiest to explain."""
NO_SLOT: Final = 2**32 - 1


@dataclass(frozen=True)
class Customers(State):
    """A party's own list: one normalised id per row, and for the bank which rows have a label.

    more_ids : for each further key of the contract one value per row. None where a row has no value; no value
    stands in two rows. Packed ids, for long lists, have a value in every row.
    """

    durable = False
    ids: Ids
    labelled: NDArray[np.bool_] | None
    more_ids: tuple[Ids, ...] = ()

    @property
    def by_key(self) -> tuple[Ids, ...]:
        """The values of all keys, first the one that counts most."""
        return (self.ids, *self.more_ids)


@dataclass(frozen=True)
class Matched(Message):
    """Claimed matches: the partner's slots, padded to the bands, and one hash over the proofs of all of them.

    slots : (high_l + high_u,), NO_SLOT where padded, rows with a label first; proof : 32 bytes.
    """

    slots: HalfWords
    proof: bytes


@dataclass(frozen=True)
class Overlap(PublicValue):
    """How many customers all parties share, as bands: with a label, and without.

    slots : where the match is hidden, how many people of the partner take part, whoever they are; 0 where it is shown.
    """

    labelled_low: int
    labelled_high: int
    unlabelled_low: int
    unlabelled_high: int
    slots: int = 0


@dataclass(frozen=True)
class Aligned(State):
    """Own rows of the common customers, in the order that all parties share; NO_ROW where padded.

    keys : for each row of `labelled` the key by which it was matched, whose value is the same at all parties;
    empty where the contract has one key.
    """

    labelled: Rows
    unlabelled: Rows
    keys: Bytes = field(default_factory=lambda: np.zeros(0, np.uint8))


def engine_name(contract: Contract, sizes: Mapping[Name, int]) -> str:
    """Name the engine of a run: the contract's, or the one that lists of these lengths take."""
    if contract.align.engine != "auto":
        return contract.align.engine
    return "oprf" if contract.align.reuse or max(sizes.values()) <= SHORT_LIST else "ot"


def engine(contract: Contract, sizes: Mapping[Name, int]) -> Engine:
    """Return the engine of a run."""
    name = engine_name(contract, sizes)
    # Imported here: the fast engines import numba, which takes longer than the rest of the package.
    if name == "ot":
        from fedmkt.protocol.alignment import psi_ot

        return psi_ot.intersect
    if name == "vole":
        from fedmkt.protocol.alignment import psi_vole

        return psi_vole.intersect
    return psi_oprf.intersect


def item_values(contract: Contract, kind: str, ids: tuple[str, ...] | PackedIds) -> Words:
    """Hash each id with the contract's digest and the kind of key, cut to 128 bits: (n, 2).

    Equal people of two contracts look unrelated; within one contract a hash is no secret, so it stays at home.
    """
    return hash_ids(ids, digest(contract) + kind.encode())


def items_of(contract: Contract, customers: Customers, random: Random) -> Items:
    """Return a party's list as items, shuffled; a key that a row does not have becomes a random item."""
    rows = shuffled(len(customers.ids), random)
    kinds = contract.bank.id_kinds
    values = np.empty((len(rows), len(kinds), 2), dtype=np.uint64)
    for key, (kind, ids) in enumerate(zip(kinds, customers.by_key, strict=True)):
        values[:, key] = _column(contract, kind, ids, random)[rows]
    return Items(values.reshape(-1, 2), rows)


def _column(contract: Contract, kind: str, ids: Ids, random: Random) -> Words:
    if isinstance(ids, PackedIds):
        return item_values(contract, kind, ids)
    has = np.fromiter((i is not None for i in ids), bool, len(ids))
    column = np.empty((len(ids), 2), dtype=np.uint64)
    column[has] = item_values(contract, kind, tuple(i for i in ids if i is not None))
    column[~has] = np.frombuffer(random(16 * int((~has).sum())), np.uint64).reshape(-1, 2)
    return column


def shuffled(rows: int, random: Random) -> Rows:
    """Return the numbers below `rows` in a random order."""
    keys = np.frombuffer(random(8 * rows), np.uint64)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def band_width(bank_rows: int, partner_rows: int) -> int:
    """Return the width of a count's band: one percent of the shortest list, at least 10."""
    return max(10, -(-min(bank_rows, partner_rows) // 100))


def band(count: int, width: int) -> tuple[int, int]:
    """Return the band of a count: low < count <= high, both multiples of `width`; none is (0, 0)."""
    high = -(-count // width) * width
    return max(0, high - width), high


def common_band(contract: Contract, overlap: Overlap) -> tuple[int, int] | None:
    """Return the band of the common customers; None where nobody is told it."""
    is_told = "SetSize" in contract.disclosures if contract.align.hidden else contract.align.join == "inner"
    if not is_told:
        return None
    return (overlap.labelled_low + overlap.unlabelled_low, overlap.labelled_high + overlap.unlabelled_high)


def _announce(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, ListRows]:
    if turn.has(Items) or turn.has(Aligned):
        raise PolicyRefused("a second intersection in one run")
    customers = turn.recall(Customers)
    rows = len(customers.ids)
    if rows < turn.contract.limits.min_list:
        raise PolicyRefused("the list is shorter than the contract's minimum")
    if turn.first and rows > turn.contract.limits.max_list:
        raise PolicyRefused("the list is longer than the contract's maximum")
    items = items_of(turn.contract, customers, turn.random)
    return Outcome(ListRows(rows), keep=(items,), reveals=(ListSize(to=EVERYONE, rows=rows),))


def _admit(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    lists = {p: turn.published(ListRows, p).rows for p in turn.parties}
    bank = turn.parties[0]
    if min(lists.values()) < turn.contract.limits.min_list:
        raise PolicyRefused("a list is shorter than the contract's minimum")
    if lists[bank] > turn.contract.limits.max_list:
        raise PolicyRefused("the bank asks about more people than the contract's maximum")
    if max(lists.values()) * len(turn.contract.bank.id_kinds) >= NO_SLOT:
        raise PolicyRefused("a list is longer than can be matched")
    if turn.me == bank:
        return Outcome(Silent())
    # What the bank will learn is not known yet: at most the shorter list.
    most = min(lists[turn.me], lists[bank])
    return Outcome(Silent(), reveals=(MatchedOwnRows(to=bank, low=0, high=most),))


def paired_slots(turn: Turn, match: Match, rows: int) -> tuple[Rows, Bytes]:
    """At the bank: return for each own slot the partner's item that is the same person, or NO_ROW, and the key.

    rows : length of the partner's list.
    """
    kinds = len(turn.contract.bank.id_kinds)
    by_key = match.positions.reshape(-1, kinds)
    if kinds == 1:
        return match.positions, np.zeros(len(by_key), np.uint8)
    # A partner that puts one kind of key in the place of another is not followed.
    by_key = np.where(by_key % kinds == np.arange(kinds), by_key, NO_ROW)
    pairs = one_to_one([np.where(c != NO_ROW, c // kinds, NO_ROW) for c in by_key.T], rows)
    keys = np.maximum(pairs.keys, 0).astype(np.uint8)
    found = np.take_along_axis(by_key, keys[:, None].astype(np.int64), axis=1)[:, 0]
    return np.where(pairs.slots != NO_ROW, found, NO_ROW), keys


def _match(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Matched, Overlap]:
    customers, items = turn.recall(Customers), turn.recall(Items)
    matches = turn.recall(Found).matches
    paired = {p: paired_slots(turn, matches[p], turn.published(ListRows, p).rows) for p in turn.others}
    is_common = np.logical_and.reduce([positions != NO_ROW for positions, _ in paired.values()])
    has_label = (
        np.ones(len(is_common), bool) if customers.labelled is None else customers.labelled[items.rows]
    )
    _check_common(turn, int((is_common & has_label).sum()), int(is_common.sum()))
    joins_left = turn.contract.align.join == "left"
    taken = shuffled(len(is_common), turn.random)
    # The partner knows the common ones alone: they come first, so that its places are the bank's.
    taken = np.concatenate([taken[is_common[taken]], taken[~is_common[taken]] if joins_left else taken[:0]])
    with_label, without = taken[has_label[taken]], taken[~has_label[taken]]
    if not turn.contract.scores.unlabelled:
        without = without[:0]
    width = band_width(len(is_common), min(turn.published(ListRows, p).rows for p in turn.others))
    bands = Overlap(*band(len(with_label), width), *band(len(without), width))
    slots = np.concatenate(
        [_padded(with_label, bands.labelled_high), _padded(without, bands.unlabelled_high)]
    )
    rows = np.where(slots != NO_ROW, items.rows[slots], NO_ROW)
    high = bands.labelled_high
    keys = next(iter(paired.values()))[1]  # several keys: one partner
    own = Aligned(rows[:high], rows[high:], keys[slots[:high]])
    kept: tuple[State, ...] = (own,)
    if joins_left:
        known = np.zeros(len(is_common), bool)
        known[items.rows[is_common]] = True
        kept = (own, Known(known))
    send = {p: _claim(turn, matches[p], *paired[p], slots) for p in turn.others}
    return Outcome(
        bands, send=send, keep=kept, forget=(Items, Found), reveals=_match_disclosures(turn, bands)
    )


def _match_disclosures(turn: Turn, bands: Overlap) -> tuple[Disclosure, ...]:
    low, high = bands.labelled_low + bands.unlabelled_low, bands.labelled_high + bands.unlabelled_high
    everybody: Disclosure = SetSize(to=EVERYONE, low=low, high=high)
    if turn.contract.align.join == "left":
        everybody, low = JoinedRows(to=EVERYONE, low=low, high=high), 0
    rows = tuple(MatchedOwnRows(to=p, low=low, high=high) for p in turn.others)
    # Declared also where no matched row is without a label: then all of them were in the campaign.
    campaign = tuple(
        CampaignRows(to=p, low=min(low, bands.labelled_low), high=bands.labelled_high) for p in turn.others
    )
    return (everybody, *rows, *campaign)


def _padded(rows: Rows, length: int) -> Rows:
    out = np.full(length, NO_ROW, dtype=np.int64)
    out[: len(rows)] = rows
    return out


def _claim(turn: Turn, match: Match, positions: Rows, keys: Bytes, slots: Rows) -> Matched:
    real = slots[(slots != NO_ROW) & (positions[slots] != NO_ROW)]
    claimed = np.full(len(slots), NO_SLOT, dtype=np.uint32)
    claimed[(slots != NO_ROW) & (positions[slots] != NO_ROW)] = positions[real]
    own_items = real * len(turn.contract.bank.id_kinds) + keys[real]
    return Matched(claimed, _joint_proof(turn, match.proofs[own_items]))


def _joint_proof(turn: Turn, proofs: Bytes) -> bytes:
    return hashlib.sha256(b"fedmkt match proof v1\n" + turn.run + proofs.tobytes()).digest()


def _align(turn: Turn, inbox: Inbox[Matched]) -> Outcome[Nothing, Silent]:
    bank = turn.parties[0]
    claim = inbox.one(bank, Matched)
    items = turn.recall(Items)
    bands = turn.published(Overlap, bank)
    if claim.slots.shape != (bands.labelled_high + bands.unlabelled_high,):
        raise PeerError(f"{bank}: psi.match: the claim has another length than its band")
    if bands.unlabelled_high and not turn.contract.scores.unlabelled:
        raise PolicyRefused("the contract does not allow customers without a label")
    real = claim.slots != NO_SLOT
    kinds = len(turn.contract.bank.id_kinds)
    chosen = claim.slots[real].astype(np.int64)
    if len(chosen) and (
        chosen.max() >= len(items.rows) * kinds or len(np.unique(chosen // kinds)) != len(chosen)
    ):
        raise PeerError(f"{bank}: psi.match: a claimed row is foreign or claimed twice")
    # The fast engines have room for more items than were announced; this much of a bank that used it is seen.
    if len(chosen) > turn.published(ListRows, bank).rows:
        raise PeerError(f"{bank}: psi.match: claims more rows than its list has")
    if not hmac.compare_digest(_joint_proof(turn, psi_oprf.proofs_at(turn, chosen)), claim.proof):
        raise PeerError(f"{bank}: psi.match: a claimed match has no proof")
    rows, keys = np.full(len(real), NO_ROW, dtype=np.int64), np.zeros(len(real), np.uint8)
    rows[real], keys[real] = items.rows[chosen // kinds], chosen % kinds
    high = bands.labelled_high
    aligned = Aligned(rows[:high], rows[high:], keys[:high])
    _check_bands(turn, bands, int((aligned.labelled != NO_ROW).sum()), len(chosen))
    _check_common(turn, int((aligned.labelled != NO_ROW).sum()), int((rows != NO_ROW).sum()))
    return Outcome(Silent(), keep=(aligned,), forget=(Items, Offered, psi_oprf.Sender))


def _check_common(turn: Turn, labelled: int, common: int) -> None:
    """Refuse an intersection with too few labels, or too many people."""
    for count in (labelled, common):
        check_common(turn.contract.limits, count - 1, count)


def _check_bands(turn: Turn, bands: Overlap, labelled: int, common: int) -> None:
    """Refuse bands that are not those of the counts: narrower ones would tell a count to everybody."""
    lists = [turn.published(ListRows, p).rows for p in turn.parties]
    width = band_width(lists[0], min(lists[1:]))
    counts = (labelled, common - labelled)
    if turn.contract.align.join == "left":
        # They are about the bank's own list, whose length all know.
        counts = (bands.labelled_high, bands.unlabelled_high)
        least = lists[0] if turn.contract.scores.unlabelled else 0
        if min(counts) < 0 or not least <= sum(counts) < lists[0] + 2 * width:
            raise PeerError(f"{turn.parties[0]}: psi.match: the bands do not fit its list")
    if bands != Overlap(*band(counts[0], width), *band(counts[1], width)):
        raise PeerError(f"{turn.parties[0]}: psi.match: the published band does not hold")


ANNOUNCE = Step("psi.announce", _announce, ListRows, reveals=(ListSize,))
ADMIT = Step("psi.admit", _admit, Silent, reveals=(MatchedOwnRows,))
MATCH = Step("psi.match", _match, Overlap, reveals=(SetSize, JoinedRows, MatchedOwnRows, CampaignRows))
ALIGN = Step("psi.align", _align, Silent, reads=(Matched,))


def psi(call: Caller, contract: Contract) -> Overlap:
    """Private set intersection of the bank and all partners; returns the bands of the common customers."""
    parties = data_parties(contract)
    bank, *partners = parties
    lists = call.all([ask(p, ANNOUNCE) for p in parties])
    witness(call, contract)
    call.all([ask(p, ADMIT) for p in parties])
    keys = len(contract.bank.id_kinds)
    sizes = {p: keys * reply.public.value.rows for p, reply in zip(parties, lists, strict=True)}
    engine(contract, sizes)(call, contract, sizes)
    witness(call, contract)
    if contract.align.hidden:
        from fedmkt.protocol.alignment.hidden import place_slots

        return place_slots(call, contract, sizes[partners[0]] // keys)
    matched = call(bank, MATCH)
    call.all([ask(p, ALIGN, matched.to(p)) for p in partners])
    return matched.public.value
