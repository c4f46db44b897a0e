"""How many customers two parties share, and nothing about which: the overlap job, before a project is agreed.

Computes, for the bank and each partner, a band of the number of common customers and the rate that follows from it.
Takes part: the bank, one or two partners; with two, one pair after the other.

| learns | what |
|---|---|
| partner | its program counts its pair's common customers exactly, and shows the band only |
| bank | the band of each pair |
| the other partner, coordinator | the band of each pair |
| all | the length of each list |

The bank starts such runs, again and again perhaps, so it is the side that never sees an exact count: whoever holds
two exact counts of lists that differ by one person knows where that person banks. A band is as wide as 1 % of the
shorter list, at least 10; nearly complete overlap is one wide band, because it would tell each person of a list.
Where customers have several keys the first is compared, so that people are counted and not keys: some are missed.

Safe against semi-honest parties. Neither side can tell which of its customers, or of the other's, are common: all
points are under both secrets before they are compared, in an order that the other side made.
What a bank that deviates can do: ask about people whom it only guesses. A list of one person many times is refused
(equal points, and the minimum length); of one person among 999 invented ones the minimum and the band tell nothing.
Under w secrets it can give one person the weight w, for the w-th part of the partner's list: most such runs end
below the minimum. If it knows enough common customers to stand at a band's edge, one more person moves the band:
that is why a party limits how often, and how, the lists of such runs may change (its policy, across runs).
What a partner that deviates can do: publish a wrong band; count with a program of its own, whose owner then has the
exact count; and, with a secret of its own for each item, find out which of its items are common, at one
multiplication for each pair of items.

Assumption: decisional Diffie-Hellman in ristretto255, random oracle.
Source: Meadows 1986; Huberman, Franklin, Hogg 1999 (private preference matching); De Cristofaro, Gasti, Tsudik 2012
(cardinality by shuffling); hash to group RFC 9497 section 4.1 under a tag of its own.
Letters: a is the bank's secret, b the partner's, fresh for each pair; H(x) the point of item x; an item's tag is a
hash of a b H(x), 16 bytes. The partner sends b H(y), the bank returns the tags of a b H(y), sorted, and its own
a H(x); the partner counts the tags of b a H(x) among them. n, m : lengths of the bank's and the partner's list.
Bytes: 32 n + 48 m.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.checks import check_common, check_rest
from fedmkt.crypto import group
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.privacy.bands import TOP, RateBand, rate_band
from fedmkt.privacy.disclosure import EVERYONE, SetSize
from fedmkt.protocol.alignment.items import Bytes, Items, ListRows, Rows, block_of, blocks
from fedmkt.protocol.alignment.psi import ANNOUNCE, band, band_width, shuffled
from fedmkt.protocol.alignment.psi_oprf import inputs_of
from fedmkt.protocol.core import (
    Caller,
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
from fedmkt.protocol.witness import close, witness, witness_all

DST: Final = b"HashToGroup-fedmkt-overlap-v1-ristretto255-SHA512"
TAG_BYTES: Final = 16
"""Two different items share a tag, among all pairs of 2^32 items, once in 2^64 runs."""


@dataclass(frozen=True)
class BlindedList(Message):
    """Hashed items times the sender's secret, one block of a shuffled list. points : (k, 32)."""

    points: Bytes


@dataclass(frozen=True)
class Returned(Message):
    """Tags of the reader's items under both secrets, one block of a sorted list. tags : (k, 16)."""

    tags: Bytes


@dataclass(frozen=True)
class Common(PublicValue):
    """How many customers a pair shares: low < count <= high."""

    low: int
    high: int


@dataclass(frozen=True)
class Pair:
    """What all know of one pair in the end. rate : of the bank's list."""

    partner: Name
    low: int
    high: int
    rate: RateBand


@dataclass(frozen=True)
class Overlaps(PublicValue):
    """The overlap of the bank with each partner: what the job is for."""

    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Blinds(State):
    """A party's secret with one peer, the order in which that peer sees its items, how many blocks were sent."""

    durable = False
    peer: Name
    secret: bytes = field(repr=False)
    order: Rows = field(repr=False)
    sent: int = 0


@dataclass(frozen=True)
class Answered(State):
    """At the bank: tags of a partner's items under both secrets, by block, and how many blocks were returned."""

    durable = False
    tags: tuple[Bytes, ...] = ()
    returned: int = 0


@dataclass(frozen=True)
class Counting(State):
    """At a partner: tags under both secrets, by block, of its own items and of the bank's."""

    durable = False
    own: tuple[Bytes, ...] = ()
    theirs: tuple[Bytes, ...] = ()


@dataclass(frozen=True)
class Measured(State):
    """What every party keeps of the job."""

    overlaps: Overlaps


def told_of(count: int, bank_rows: int, partner_rows: int) -> Common:
    """Return what is told of a count: its band, or one wide band for all counts near the length of the shorter list."""
    shortest, width = min(bank_rows, partner_rows), band_width(bank_rows, partner_rows)
    top = shortest * TOP // 100 // width * width
    return Common(top, shortest) if count > top else Common(*band(count, width))


def pair_of(partner: Name, common: Common, bank_rows: int) -> Pair:
    """Add the rate, which follows from the band: made from the count, the two together would be narrower."""
    return Pair(partner, common.low, common.high, rate_band(common.low, common.high, bank_rows))


def _admit(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    limits, bank = turn.contract.limits, turn.parties[0]
    rows = {p: _rows(turn, p) for p in turn.parties}
    if min(rows.values()) < limits.min_list:
        raise PolicyRefused("a list is shorter than the contract's minimum")
    if rows[bank] > limits.max_list:
        raise PolicyRefused("the bank asks about more people than the contract's maximum")
    return Outcome(Silent())


def _rows(turn: Turn, party: Name) -> int:
    return turn.published(ListRows, party).rows


def _blinds(turn: Turn, peer: Name) -> Blinds:
    """Return the secret with a peer: fresh, as is the order, for each peer, so that two peers cannot compare."""
    known = turn.recall(Blinds) if turn.has(Blinds) else None
    if known is not None and known.peer == peer:
        return known
    return Blinds(peer, group.random_scalar(turn.random), shuffled(_rows(turn, turn.me), turn.random))


def _blind(turn: Turn, peer: Name) -> Outcome[BlindedList, Silent]:
    items, blinds = turn.recall(Items), _blinds(turn, peer)
    if blinds.sent == blocks(len(blinds.order)):
        raise PolicyRefused("a second count in one run")
    # Of several keys of a customer the first counts: customers shall be counted, not keys.
    keys = len(items.values) // len(items.rows)
    chosen = items.values[keys * blinds.order[block_of(blinds.sent, len(blinds.order))]]
    points = group.multiply_all(blinds.secret, group.hash_all(inputs_of(chosen), DST))
    return Outcome(Silent(), send={peer: BlindedList(points)}, keep=(replace(blinds, sent=blinds.sent + 1),))


def _offer(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[BlindedList, Silent]:
    return _blind(turn, turn.parties[0])


def _answer(turn: Turn, inbox: Inbox[BlindedList]) -> Outcome[Nothing, Silent]:
    ((partner, message),) = inbox.messages
    blinds = _blinds(turn, partner)
    answered = turn.recall(Answered) if turn.has(Answered) else Answered()
    tags = _double_blind(turn, partner, "overlap.offer", blinds.secret, message.points, len(answered.tags))
    return Outcome(Silent(), keep=(blinds, replace(answered, tags=(*answered.tags, tags))))


def _return(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Returned, Silent]:
    answered, partner = turn.recall(Answered), turn.recall(Blinds).peer
    if answered.returned == 0:
        # Sorted by value, their order says nothing of the order in which the points came.
        tags = _sorted(np.concatenate(answered.tags), partner, "overlap.offer")
        answered = Answered((tags,))
    (tags,) = answered.tags
    here = block_of(answered.returned, len(tags))
    answered = replace(answered, returned=answered.returned + 1)
    is_last = answered.returned == blocks(len(tags))
    return Outcome(
        Silent(),
        send={partner: Returned(tags[here])},
        keep=() if is_last else (answered,),
        forget=(Answered,) if is_last else (),
    )


def _keep(turn: Turn, inbox: Inbox[Returned]) -> Outcome[Nothing, Silent]:
    bank = turn.parties[0]
    counting = turn.recall(Counting) if turn.has(Counting) else Counting()
    tags = inbox.one(bank, Returned).tags
    if tags.shape != (_size(len(counting.own), _rows(turn, turn.me)), TAG_BYTES):
        raise PeerError(f"{bank}: overlap.return: wrong number of tags or tags of another length")
    return Outcome(Silent(), keep=(replace(counting, own=(*counting.own, tags)),))


def _ask(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[BlindedList, Silent]:
    return _blind(turn, turn.recall(Blinds).peer)


def _compare(turn: Turn, inbox: Inbox[BlindedList]) -> Outcome[Nothing, Silent]:
    bank = turn.parties[0]
    counting, points = turn.recall(Counting), inbox.one(bank, BlindedList).points
    secret = turn.recall(Blinds).secret
    tags = _double_blind(turn, bank, "overlap.ask", secret, points, len(counting.theirs))
    return Outcome(Silent(), keep=(replace(counting, theirs=(*counting.theirs, tags)),))


def _double_blind(turn: Turn, peer: Name, step: str, secret: bytes, points: Bytes, block: int) -> Bytes:
    """Blind a peer's points a second time, checked, and return their tags, in the same order."""
    if points.shape != (_size(block, _rows(turn, peer)), group.POINT_BYTES):
        raise PeerError(f"{peer}: {step}: wrong number of points, or points of another length")
    try:
        twice = group.multiply_all(secret, points).tobytes()
    except ValueError:
        raise PeerError(f"{peer}: {step}: not a point of the group") from None
    start = hashlib.sha256(b"fedmkt overlap tag v1\n" + digest(turn.contract) + turn.run)
    out = bytearray()
    for at in range(0, len(twice), group.POINT_BYTES):
        state = start.copy()
        state.update(twice[at : at + group.POINT_BYTES])
        out += state.digest()[:TAG_BYTES]
    return np.frombuffer(bytes(out), np.uint8).reshape(-1, TAG_BYTES)


def _size(block: int, items: int) -> int:
    """Return the number of items of a block; ValueError for one beyond the last."""
    if block >= blocks(items):
        raise ValueError(f"block {block} of {items} items")
    here = block_of(block, items)
    return int(here.stop - here.start)


def _words(tags: Bytes) -> Words:
    return np.ascontiguousarray(tags).view("<u8").astype(np.uint64, copy=False)


def _sorted(tags: Bytes, peer: Name, step: str) -> Bytes:
    """Sort tags; PeerError if two are equal: a list of equal items would tell whether one person is there."""
    words = _words(tags)
    order = np.lexsort(words.T)
    words = words[order]
    if (words[1:] == words[:-1]).all(axis=1).any():
        raise PeerError(f"{peer}: {step}: two items are equal")
    return tags[order]


def _count(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Common]:
    bank, counting = turn.parties[0], turn.recall(Counting)
    own = _sorted(np.concatenate(counting.own), bank, "overlap.return")
    theirs = _sorted(np.concatenate(counting.theirs), bank, "overlap.ask")
    both = _words(np.concatenate([own, theirs]))
    both = both[np.lexsort(both.T)]
    count = int((both[1:] == both[:-1]).all(axis=1).sum())
    check_common(turn.contract.limits, count - 1, count)
    lists = (_rows(turn, bank), _rows(turn, turn.me))
    check_rest(turn.contract, lists, count)
    told = told_of(count, *lists)
    reveals = (SetSize(to=EVERYONE, low=told.low, high=told.high),)
    return Outcome(told, forget=(Counting, Blinds), reveals=reveals)


def _read(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    overlaps = Overlaps(tuple(_pair(turn, partner) for partner in turn.parties[1:]))
    return Outcome(Silent(), keep=(Measured(overlaps),), forget=(Blinds, Items))


def _pair(turn: Turn, partner: Name) -> Pair:
    bank_rows, common = _rows(turn, turn.parties[0]), turn.published(Common, partner)
    check_common(turn.contract.limits, common.low, common.high)
    if common != told_of(common.high, bank_rows, _rows(turn, partner)):
        raise PeerError(f"{partner}: overlap.count: not a band of these lists")
    return pair_of(partner, common, bank_rows)


ADMIT = Step("overlap.admit", _admit, Silent)
OFFER = Step("overlap.offer", _offer, Silent)
ANSWER = Step("overlap.answer", _answer, Silent, reads=(BlindedList,))
RETURN = Step("overlap.return", _return, Silent)
KEEP = Step("overlap.keep", _keep, Silent, reads=(Returned,))
ASK = Step("overlap.ask", _ask, Silent)
COMPARE = Step("overlap.compare", _compare, Silent, reads=(BlindedList,))
COUNT = Step("overlap.count", _count, Common, reveals=(SetSize,))
READ = Step("overlap.read", _read, Silent)


def count_common(call: Caller, bank: Name, partner: Name, sizes: Mapping[Name, int]) -> None:
    """Bring all tags of a pair to the partner: four rounds for each block of its list, two of the bank's."""
    for _ in range(blocks(sizes[partner])):
        call(bank, ANSWER, call(partner, OFFER).to(bank))
    for _ in range(blocks(sizes[partner])):
        call(partner, KEEP, call(bank, RETURN).to(partner))
    for _ in range(blocks(sizes[bank])):
        call(partner, COMPARE, call(bank, ASK).to(partner))


def overlap_job(call: Caller, contract: Contract) -> Overlaps:
    """Count the common customers of the bank and each partner, from the first message to the closed logs."""
    parties = data_parties(contract)
    bank, *partners = parties
    witness_all(call, contract)
    lists = call.all([ask(p, ANNOUNCE) for p in parties])
    call.all([ask(p, ADMIT) for p in parties])
    sizes = {p: reply.public.value.rows for p, reply in zip(parties, lists, strict=True)}
    pairs = []
    for partner in partners:
        count_common(call, bank, partner, sizes)
        witness(call, contract)
        pairs.append(pair_of(partner, call(partner, COUNT).public.value, sizes[bank]))
    call.all([ask(p, READ) for p in parties])
    close(call, contract)
    return Overlaps(tuple(pairs))
