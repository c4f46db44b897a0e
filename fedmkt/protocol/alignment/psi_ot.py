"""Engine `ot`: matches by oblivious transfer extension and AES; the engine for long lists.

The bank puts its items into bins, one each. For every bin it gets the output of a pseudo-random function for its
item there, and the partner can compute that function for any item (`crypto.kkrt`). The partner sends the outputs of
each of its items in the three bins where the bank may have put it, cut to tags; equal tags are matches.

| learns | what |
|---|---|
| bank | which of its items the partner has, and where in the partner's shuffled list |
| partner | nothing from this part |

Assumptions: computational Diffie-Hellman in ristretto255 for 448 transfers, AES as a pseudo-random function and as
an ideal permutation, SHA-256 as a random oracle. **Semi-honest parties only.** A bank that deviates can put an item
into every bin, 1.3 n + 128 in all (it can claim n). Worse, one that sends rows of words that are no code words
reads the partner's choices off the tags of common people, some 16 bits from each of 28, and with all choices it can
test any id against the partner's whole list; nobody sees it. The engine `oprf` has no such weakness. A proof is a
hash of the item under the session's key, whatever its bin: it shows that the bank knows which item has which slot,
and an honest run tells it that of matches alone. A partner that deviates can lose matches, or spoil the tags of one
bin in three and learn from what comes back where the bank had put a common item. The joint key of a session comes
from both: the bank commits to its half, then the partner shows its own. The bank draws the key of the bins; that it
can place its list tells the partner nothing (`crypto.cuckoo`).
Bytes: 73 for each item of the bank, 30 to 36 for each of the partner.

Source: Kolesnikov, Kumaresan, Rosulek, Trieu, CCS 2016. Letters: n items at the bank, m at the partner, w words of
a code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.crypto import aes, cuckoo, kkrt, tags
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.protocol.alignment.base_transfers import (
    SEED_BYTES,
    Begun,
    Choice,
    Chosen,
    Offer,
    answer,
    begin,
    both_keys,
    check_opened,
    session_key,
)
from fedmkt.protocol.alignment.items import (
    NO_ROW,
    PROOF_BYTES,
    Bytes,
    Found,
    Items,
    Match,
    Offered,
    Rows,
    block_of,
    blocks,
    items_at,
)
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    inbox_of,
)

ENGINE = "ot"


@dataclass(frozen=True)
class Extended(Message):
    """The bank's rows for one block of bins, (bins, w).

    opening : with the first block the bank's half of the session's key and the key of the bins; later empty.
    """

    rows: Words
    opening: bytes


@dataclass(frozen=True)
class BinTags(Message):
    """Three tags of each of one block of the partner's items, by slot; (3, items, length)."""

    tags: Bytes


@dataclass(frozen=True)
class Offering(State):
    """At the bank: its items in bins, and what it began with each partner."""

    durable = False
    placement: cuckoo.Placement
    begun: Mapping[str, Begun]


@dataclass(frozen=True)
class Session:
    """The bank's keys with one partner, and the outputs of its own items by bin, filled block by block."""

    seeds: tuple[Words, Words] = field(repr=False)
    keys: kkrt.Keys
    filler: Words = field(repr=False)
    outputs: Words = field(repr=False)


@dataclass(frozen=True)
class Extending(State):
    """At the bank while rows are sent: how many blocks of bins have been."""

    durable = False
    sessions: Mapping[str, Session]
    block: int


@dataclass(frozen=True)
class Search:
    """Own items whose bin is named by one of the three hashes: their slots, tags, and where the partner has them."""

    slots: NDArray[np.int32]
    index: tags.Index
    found: Rows


@dataclass(frozen=True)
class Looking(State):
    """At the bank while tags arrive: what is searched for with each partner, filled in place; blocks looked at."""

    durable = False
    searches: Mapping[str, tuple[Search, ...]]
    keys: Mapping[str, kkrt.Keys]
    blocks: Mapping[str, int]


@dataclass(frozen=True)
class Choosing(State):
    """A partner's choices (w,), their round keys (64 w, 22), and what it keeps of its answer."""

    durable = False
    choices: Words = field(repr=False)
    seeds: Words = field(repr=False)
    chosen: Chosen = field(repr=False)


@dataclass(frozen=True)
class Sending(State):
    """At a partner: the key of the bins, its items by block of bins, and their tags, filled block by block."""

    durable = False
    keys: kkrt.Keys
    key: bytes
    meetings: kkrt.Meetings
    tags: Bytes
    absorbed: int
    sent: int


def _bins(turn: Turn) -> int:
    return cuckoo.bins_for(items_at(turn, turn.parties[0]))


def _tag_bytes(turn: Turn, partner: Name) -> int:
    # Of its three tags an item's first is compared with the bank's items that lie in their first bin, and so on:
    # n m pairs in all.
    return tags.tag_bytes(items_at(turn, turn.parties[0]), items_at(turn, partner))


def _keys(turn: Turn, partner: Name, banks: bytes, partners: bytes) -> kkrt.Keys:
    return kkrt.session_keys(session_key(turn, ENGINE, partner, banks, partners))


def _offer(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Offer, Silent]:
    if any(turn.has(kind) for kind in (Offering, Extending, Looking, Found)):
        raise PolicyRefused("a second intersection in one run")
    placement = cuckoo.place(turn.recall(Items).values, _bins(turn), turn.random)
    begun, send = {}, {}
    for partner in turn.others:
        begun[str(partner)], send[partner] = begin(turn, ENGINE, partner)
    return Outcome(Silent(), send=send, keep=(Offering(placement, begun),))


def _choose(turn: Turn, inbox: Inbox[Offer]) -> Outcome[Choice, Silent]:
    if any(turn.has(kind) for kind in (Choosing, Sending, Offered)):
        raise PolicyRefused("a second intersection in one run")
    bank, items = turn.parties[0], len(turn.recall(Items).values)
    if items >= kkrt.MOST_ITEMS:
        raise PolicyRefused("the list is longer than this engine can match")
    choices = np.frombuffer(turn.random(8 * kkrt.code_words(items)), dtype=np.uint8)
    bits = np.unpackbits(choices, bitorder="little")
    chosen, choice = answer(turn, ENGINE, inbox.one(bank, Offer), bits)
    kept = Choosing(choices.view("<u8").astype(np.uint64), aes.round_keys(chosen.keys), chosen)
    return Outcome(Silent(), send={bank: choice}, keep=(kept,))


def _session(turn: Turn, partner: Name, choice: Choice) -> Session:
    begun = turn.recall(Offering).begun[partner]
    transfers = 64 * kkrt.code_words(items_at(turn, partner))
    zero, one = both_keys(turn, ENGINE, partner, begun, choice, transfers)
    filler = np.frombuffer(turn.random(16), dtype="<u8").astype(np.uint64)
    outputs = np.empty((items_at(turn, turn.parties[0]), 2), dtype=np.uint64)
    keys = _keys(turn, partner, begun.seed, choice.seed)
    return Session((aes.round_keys(zero), aes.round_keys(one)), keys, filler, outputs)


def _extend(turn: Turn, inbox: Inbox[Choice]) -> Outcome[Extended, Silent]:
    offering = turn.recall(Offering)
    if turn.has(Extending):
        state = turn.recall(Extending)
    else:
        state = Extending({str(p): _session(turn, p, inbox.one(p, Choice)) for p in turn.others}, 0)
    values, items = turn.recall(Items).values, offering.placement.items
    here = block_of(state.block, len(items))
    done = int(np.count_nonzero(items[: here.start] != cuckoo.EMPTY))
    send = {}
    for partner in turn.others:
        session = state.sessions[partner]
        made = kkrt.extend(session.seeds, session.keys, values, items[here], here.start, session.filler)
        session.outputs[done : done + len(made.outputs)] = made.outputs
        opening = b"" if state.block else offering.begun[partner].seed + offering.placement.key
        send[partner] = Extended(made.rows, opening)
    if state.block + 1 < blocks(len(items)):
        return Outcome(Silent(), send=send, keep=(replace(state, block=state.block + 1),))
    looking = _looking(turn, offering.placement, state.sessions)
    return Outcome(Silent(), send=send, keep=(looking,), forget=(Offering, Extending))


def _looking(turn: Turn, placement: cuckoo.Placement, sessions: Mapping[str, Session]) -> Looking:
    is_full = placement.items != cuckoo.EMPTY
    slots, numbers = placement.items[is_full], placement.numbers[is_full]
    searches = {}
    for partner in turn.others:
        parts = []
        for number in range(cuckoo.HASHES):
            chosen = numbers == number
            own = sessions[partner].outputs[chosen]
            index = tags.index(own, _tag_bytes(turn, partner), turn.random)
            parts.append(Search(slots[chosen], index, np.full(len(own), NO_ROW, dtype=np.int64)))
        searches[str(partner)] = tuple(parts)
    return Looking(searches, {p: s.keys for p, s in sessions.items()}, dict.fromkeys(searches, 0))


def _sending(turn: Turn, opening: bytes) -> Sending:
    bank, values, choosing = turn.parties[0], turn.recall(Items).values, turn.recall(Choosing)
    if len(opening) != SEED_BYTES + cuckoo.KEY_BYTES:
        raise PeerError(f"{bank}: psi.ot.extend: an opening of another length")
    seed, key = opening[:SEED_BYTES], opening[SEED_BYTES:]
    check_opened(turn, ENGINE, "extend", choosing.chosen, seed)
    out = np.zeros((cuckoo.HASHES, len(values), _tag_bytes(turn, turn.me)), dtype=np.uint8)
    meetings = kkrt.meet(values, key, _bins(turn), block_of(0, _bins(turn)).stop)
    return Sending(_keys(turn, turn.me, seed, choosing.chosen.seed), key, meetings, out, 0, 0)


def _absorb(turn: Turn, inbox: Inbox[Extended]) -> Outcome[Nothing, Silent]:
    bank, choosing = turn.parties[0], turn.recall(Choosing)
    message, bins = inbox.one(bank, Extended), _bins(turn)
    if turn.has(Sending):
        state = turn.recall(Sending)
        if message.opening:
            raise PeerError(f"{bank}: psi.ot.extend: opens its seed a second time")
    else:
        state = _sending(turn, message.opening)
    here = block_of(state.absorbed, bins)
    if message.rows.shape != (here.stop - here.start, len(choosing.choices)):
        raise PeerError(f"{bank}: psi.ot.extend: wrong number of rows or rows of another width")
    rows = kkrt.receive(choosing.seeds, choosing.choices, message.rows, here.start)
    ends = state.meetings.ends
    entries = state.meetings.entries[ends[state.absorbed - 1] if state.absorbed else 0 : ends[state.absorbed]]
    values = turn.recall(Items).values
    kkrt.evaluate(
        rows, choosing.choices, state.keys, values, (state.key, bins), entries, here.start, state.tags
    )
    state = replace(state, absorbed=state.absorbed + 1)
    if state.absorbed < blocks(bins):
        return Outcome(Silent(), keep=(state,))
    # Every item has its tags: what they came from is not needed any more.
    nothing = kkrt.Meetings(np.empty(0, dtype=np.uint32), np.empty(0, dtype=np.int64))
    return Outcome(Silent(), keep=(replace(state, meetings=nothing),), forget=(Choosing,))


def _send(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[BinTags, Silent]:
    state, values = turn.recall(Sending), turn.recall(Items).values
    if turn.has(Choosing):
        raise PolicyRefused("tags are asked for before all rows have come")
    message = BinTags(np.ascontiguousarray(state.tags[:, block_of(state.sent, len(values))]))
    send = {turn.parties[0]: message}
    if state.sent + 1 < blocks(len(values)):
        return Outcome(Silent(), send=send, keep=(replace(state, sent=state.sent + 1),))
    offered = Offered(kkrt.proofs(values, state.keys))
    return Outcome(Silent(), send=send, keep=(offered,), forget=(Sending,))


def _look(turn: Turn, inbox: Inbox[BinTags]) -> Outcome[Nothing, Silent]:
    state = turn.recall(Looking)
    looked = dict(state.blocks)
    for partner, message in inbox.by_sender(BinTags).items():
        items, length = items_at(turn, partner), _tag_bytes(turn, partner)
        if looked[partner] == blocks(items):
            raise PeerError(f"{partner}: psi.ot.send: more tags than its list is long")
        here = block_of(looked[partner], items)
        if message.tags.shape != (cuckoo.HASHES, here.stop - here.start, length):
            raise PeerError(f"{partner}: psi.ot.send: wrong number of tags or tags of another length")
        for search, block in zip(state.searches[partner], message.tags, strict=True):
            tags.look(search.index, block, here.start, search.found)
        looked[partner] += 1
    if any(looked[p] < blocks(items_at(turn, p)) for p in turn.others):
        return Outcome(Silent(), keep=(replace(state, blocks=looked),))
    found = Found({str(p): _match(turn, p, state) for p in turn.others})
    return Outcome(Silent(), keep=(found,), forget=(Looking,))


def _match(turn: Turn, partner: Name, state: Looking) -> Match:
    values = turn.recall(Items).values
    positions = np.full(len(values), NO_ROW, dtype=np.int64)
    for search in state.searches[partner]:
        positions[search.slots] = search.found
    is_found = positions != NO_ROW
    times = np.zeros(items_at(turn, partner), dtype=np.bool_)
    times[positions[is_found]] = True
    if np.count_nonzero(times) != np.count_nonzero(is_found):
        raise PeerError(f"{partner}: psi.ot.send: one item of its list equals two of the bank's")
    proofs = np.zeros((len(values), PROOF_BYTES), dtype=np.uint8)
    proofs[is_found] = kkrt.proofs(values[is_found], state.keys[partner])
    return Match(positions, proofs)


OFFER = Step("psi.ot.offer", _offer, Silent)
CHOOSE = Step("psi.ot.choose", _choose, Silent, reads=(Offer,))
EXTEND = Step("psi.ot.extend", _extend, Silent, reads=(Choice,))
ABSORB = Step("psi.ot.absorb", _absorb, Silent, reads=(Extended,))
SEND = Step("psi.ot.send", _send, Silent)
LOOK = Step("psi.ot.look", _look, Silent, reads=(BinTags,))


def intersect(call: Caller, contract: Contract, sizes: Mapping[Name, int]) -> None:
    """Leave `Found` and `Offered`: three rounds, one for each block of bins and one for each block of tags.

    sizes : items of each party. While the partners work on one block, the bank makes the next, and the other way.
    """
    bank, *partners = data_parties(contract)
    offered = call(bank, OFFER)
    chosen = call.all([ask(p, CHOOSE, offered.to(p)) for p in partners])
    extended = call(bank, EXTEND, *inbox_of(chosen, bank))
    for _ in range(1, blocks(cuckoo.bins_for(sizes[bank]))):
        following, _ = call.both([ask(bank, EXTEND)], [ask(p, ABSORB, extended.to(p)) for p in partners])
        extended = following[0]
    call.all([ask(p, ABSORB, extended.to(p)) for p in partners])
    sent = call.all([ask(p, SEND) for p in partners])
    for block in range(1, max(blocks(sizes[p]) for p in partners)):
        _, sent = call.both(
            [ask(bank, LOOK, *inbox_of(sent, bank))],
            [ask(p, SEND) for p in partners if block < blocks(sizes[p])],
        )
    call(bank, LOOK, *inbox_of(sent, bank))
