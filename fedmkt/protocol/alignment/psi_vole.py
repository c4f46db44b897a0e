"""Engine `vole`: matches by silent VOLE and an oblivious key-value store; a third of the bytes of engine `ot`.

The two sides hold random vectors with C = A D + B (`crypto.vole`): A, C at the bank, D, B at the partner. The bank
encodes its items in a table P that decodes x to H(x) (`crypto.okvs`) and sends P + A. The partner computes
K = B + D (P + A) = C + D P, and for each own item y the point K(y) + D H(y) = C(y) + D (P(y) + H(y)), where K(y)
is what y decodes to in K. If the bank has y that is C(y), which it can compute; if not, P(y) + H(y) is not zero and
the point is as unknown to it as D. A hash of point and item gives tag and proof (16 bytes each).

| learns | what |
|---|---|
| bank | which of its items the partner has, and where in the partner's shuffled list |
| partner | nothing from this part |

Assumption: dual LPN with regular noise for an expand-convolute code (`crypto.vole` says which, and why these sizes),
Diffie-Hellman in ristretto255 for the base transfers, AES as an ideal cipher. The first is younger than what the
other engines rest on: only a contract that names `vole` gets it.

**A bank that deviates** does not learn D: the partner checks the bank's noise before it sends anything made from it
(`crypto.vole` has the argument: 2^-128 to guess D, 2^-115 for each hash tried before). What it can do is to put
more items into a table than it announced, up to one for each row (1.27 n, more for short lists); it can claim n.
That this is all is argued, not proved for the whole engine: the sources prove it, with the same bound on the items,
for H a random oracle (here AES under session keys) and with a coin added to all points, opened late, which is left
out here: nothing is asked of the points but that hashes of point and item are equal for equal items alone. Its
noise values and positions are its own matter: bad ones only uncover its own list.

**A partner that deviates** cannot forge a match for an id that it does not hold, but it is not checked. (Malicious
security in the sources needs a VOLE that checks the trees too, e.g. Wolverine, IEEE S&P 2021, eprint 2020/925.) It
can lose matches. Where it is told which rows are common (not with a hidden match) it sees which it lost, and so
learns noise positions: about as many bits as the logarithm of the number of outcomes that it can tell apart. With
one wrong leaf in each tree of the code's first half, whose entries are used as they are, it is much: of 1,000,000
ids a side, half of them common, some 360 matches are lost, each of which leaves few places for the noisy leaf of a
tree, and two thirds of these trees lose one. Trees of the second half are added up into all entries: a wrong leaf
there loses nearly everything and tells one bit. With all positions of the first half known at least 200 noisy parts
are left, 64 bits against linear tests by the formula in `crypto.vole`; nobody has examined this case. Whoever
solved for A could test any id against the bank's list.

Bytes: 20.3 for each item of the bank, one tag (10 to 12) for each of the partner, 1 to 2 MB besides.
The session key is tossed by both sides (the bank commits first), so neither chooses the code, the places in the
table or the hashes. A table that cannot be made under one key is made under the next; that its number is not 0
happens once in 2^40 runs, and only the partner sees it.

Source: Rindal and Schoppmann, EUROCRYPT 2021 (eprint 2021/266); Raghuraman and Rindal, CCS 2022 (eprint 2022/320);
the check: Keller, Orsini, Scholl, CRYPTO 2015, and Roy, CRYPTO 2022 (eprint 2022/192). D is `delta` in the code.
Words of items, points and elements are as in `crypto.gf128`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.crypto import aes, gf128, okvs, prg, tags, vole
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.protocol.alignment.base_transfers import (
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
    Tags,
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

ENGINE = "vole"
MOST_ATTEMPTS = 8
"""Tables that are tried before a run gives up: never, by the bound of one."""


@dataclass(frozen=True)
class Correction(Message):
    """The bank's half of the session key, opened, and its noise masked by the base transfers: `vole.Corrections`."""

    seed: bytes
    masked: Bytes
    check: Words


@dataclass(frozen=True)
class Grown(Message):
    """What the bank needs to grow the partner's trees but for one leaf of each: `vole.Sums`."""

    masked: Words
    totals: Words


@dataclass(frozen=True)
class Difference(Message):
    """One block of rows of P + A, (k, 2), and under which keys P was made."""

    rows: Words
    attempt: int


@dataclass(frozen=True)
class Tosses(State):
    """At the bank: the halves it committed to, by partner."""

    durable = False
    of: Mapping[Name, Begun]


@dataclass(frozen=True)
class Masking:
    """The bank's side of one VOLE; `rows` is P + A while it is being sent, `sent` the number of its blocks sent."""

    session: bytes = field(repr=False)
    noise: vole.Noise = field(repr=False)
    rows: Words = field(repr=False)
    attempt: int
    sent: int


@dataclass(frozen=True)
class Maskings(State):
    """At the bank: its sides of the VOLEs, by partner."""

    durable = False
    of: Mapping[Name, Masking]


@dataclass(frozen=True)
class Search:
    """What the bank knows of one partner's tags: its own, indexed, and the matches, filled block by block in place."""

    known: tags.Index = field(repr=False)
    match: Match = field(repr=False)
    looked: int


@dataclass(frozen=True)
class Searches(State):
    """At the bank: the searches, by partner."""

    durable = False
    of: Mapping[Name, Search]


@dataclass(frozen=True)
class Hiding(State):
    """At the partner: D and what it keeps of its answer, until the bank opens its half of the session key."""

    durable = False
    delta: Words = field(repr=False)
    chosen: Chosen = field(repr=False)


@dataclass(frozen=True)
class Keyed(State):
    """At the partner: D and B, which becomes K block by block in place; the proofs are filled in in place."""

    durable = False
    session: bytes = field(repr=False)
    delta: Words = field(repr=False)
    rows: Words = field(repr=False)
    attempt: int
    absorbed: int
    proofs: Bytes = field(repr=False)
    tagged: int


def _check_length(turn: Turn) -> None:
    if items_at(turn, turn.parties[0]) > okvs.MOST_ITEMS:
        raise PolicyRefused("the list is longer than this engine can match")


def store_keys(session: bytes, attempt: int) -> Words:
    """Derive the keys of the table, (3, 22) round keys."""
    info = b"fedmkt psi.vole v1 store" + attempt.to_bytes(4, "big")
    derived = prg.derive(session, info, length=16 * okvs.KEYS)
    return aes.round_keys(np.frombuffer(derived, np.uint8).reshape(okvs.KEYS, 16))


def _vole_size(turn: Turn) -> vole.Size:
    return vole.size(okvs.shape(items_at(turn, turn.parties[0])).size)


def _tag_bytes(turn: Turn, partner: Name) -> int:
    return tags.tag_bytes(items_at(turn, turn.parties[0]), items_at(turn, partner))


def _offer(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Offer, Silent]:
    if turn.has(Tosses) or turn.has(Maskings) or turn.has(Searches) or turn.has(Found):
        raise PolicyRefused("a second intersection in one run")
    _check_length(turn)
    of, send = {}, {}
    for partner in turn.others:
        of[partner], send[partner] = begin(turn, ENGINE, partner)
    return Outcome(Silent(), send=send, keep=(Tosses(of),))


def _choose(turn: Turn, inbox: Inbox[Offer]) -> Outcome[Choice, Silent]:
    if turn.has(Hiding) or turn.has(Keyed) or turn.has(Offered):
        raise PolicyRefused("a second intersection in one run")
    _check_length(turn)
    bank = turn.parties[0]
    delta = np.frombuffer(turn.random(16), "<u8").astype(np.uint64)
    chosen, choice = answer(turn, ENGINE, inbox.one(bank, Offer), vole.bits_of(delta))
    return Outcome(Silent(), send={bank: choice}, keep=(Hiding(delta, chosen),))


def _correct(turn: Turn, inbox: Inbox[Choice]) -> Outcome[Correction, Silent]:
    tosses, size = turn.recall(Tosses).of, _vole_size(turn)
    send, of = {}, {}
    for partner in turn.others:
        choice, begun = inbox.one(partner, Choice), tosses[partner]
        zeros, ones = both_keys(turn, ENGINE, partner, begun, choice, vole.BASE_TRANSFERS)
        session = session_key(turn, ENGINE, partner, begun.seed, choice.seed)
        noise, corrections = vole.draw(zeros, ones, size, turn.random, session)
        send[partner] = Correction(begun.seed, corrections.masked, corrections.check)
        of[partner] = Masking(session, noise, np.empty((0, 2), np.uint64), 0, 0)
    return Outcome(Silent(), send=send, keep=(Maskings(of),), forget=(Tosses,))


def _mask(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    items, size, of = turn.recall(Items).values, _vole_size(turn), {}
    for partner, masking in turn.recall(Maskings).of.items():
        if len(masking.rows) or masking.sent:
            # Two tables under one mask would show their difference.
            raise PolicyRefused("a second table in one run")
        rows, attempt = _table(turn, items, masking.session)
        rows ^= vole.unfold_values(masking.noise, size, masking.session)
        of[partner] = replace(masking, rows=rows, attempt=attempt)
    return Outcome(Silent(), keep=(Maskings(of),))


def _table(turn: Turn, items: Words, session: bytes) -> tuple[Words, int]:
    for attempt in range(MOST_ATTEMPTS):
        try:
            return okvs.encode(items, store_keys(session, attempt), turn.random(32)), attempt
        except okvs.Unsolvable:
            continue
    raise PolicyRefused("the items of the own list are not distinct")


def _expand(turn: Turn, inbox: Inbox[Correction]) -> Outcome[Grown, Silent]:
    bank, hiding = turn.parties[0], turn.recall(Hiding)
    correction = inbox.one(bank, Correction)
    check_opened(turn, ENGINE, "correct", hiding.chosen, correction.seed)
    session = session_key(turn, ENGINE, turn.me, correction.seed, hiding.chosen.seed)
    corrections = vole.Corrections(correction.masked, correction.check)
    try:
        rows, sums = vole.expand(
            hiding.chosen.keys, hiding.delta, corrections, _vole_size(turn), turn.random, session
        )
    except vole.Inconsistent:
        raise PeerError(
            f"{bank}: psi.vole.correct: other noise in one base transfer than in another"
        ) from None
    except ValueError:
        raise PeerError(f"{bank}: psi.vole.correct: corrections of another shape") from None
    proofs = np.empty((len(turn.recall(Items).values), PROOF_BYTES), np.uint8)
    kept = Keyed(session, hiding.delta, rows, 0, 0, proofs, 0)
    return Outcome(Silent(), send={bank: Grown(sums.masked, sums.totals)}, keep=(kept,), forget=(Hiding,))


def _send(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Difference, Silent]:
    send, of = {}, {}
    for partner, masking in turn.recall(Maskings).of.items():
        if masking.sent >= blocks(len(masking.rows)) or not len(masking.rows):
            raise PolicyRefused("the table is sent only once")
        here = block_of(masking.sent, len(masking.rows))
        # A copy: the rest of the table is let go while the last block may still be on its way.
        send[partner] = Difference(masking.rows[here].copy(), masking.attempt)
        sent = masking.sent + 1
        rows = masking.rows[:0].copy() if sent == blocks(len(masking.rows)) else masking.rows
        of[partner] = replace(masking, rows=rows, sent=sent)
    return Outcome(Silent(), send=send, keep=(Maskings(of),))


def _absorb(turn: Turn, inbox: Inbox[Difference]) -> Outcome[Nothing, Silent]:
    bank, keyed = turn.parties[0], turn.recall(Keyed)
    difference = inbox.one(bank, Difference)
    here = block_of(keyed.absorbed, len(keyed.rows))
    if keyed.absorbed == blocks(len(keyed.rows)):
        raise PeerError(f"{bank}: psi.vole.send: more rows than the table has")
    if difference.rows.shape != keyed.rows[here].shape:
        raise PeerError(f"{bank}: psi.vole.send: another number of rows")
    is_first = keyed.absorbed == 0
    if not 0 <= difference.attempt < MOST_ATTEMPTS or not (is_first or difference.attempt == keyed.attempt):
        raise PeerError(f"{bank}: psi.vole.send: a table under foreign keys")
    gf128.add_products(keyed.rows[here], difference.rows, keyed.delta)
    kept = replace(keyed, attempt=difference.attempt, absorbed=keyed.absorbed + 1)
    return Outcome(Silent(), keep=(kept,))


def _tags(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Tags, Silent]:
    bank, keyed, items = turn.parties[0], turn.recall(Keyed), turn.recall(Items).values
    if keyed.absorbed < blocks(len(keyed.rows)) or keyed.tagged == blocks(len(items)):
        raise PolicyRefused("tags before the bank's table is there, or a second time")
    here = block_of(keyed.tagged, len(items))
    keys = store_keys(keyed.session, keyed.attempt)
    points = okvs.decode(keyed.rows, items[here], keys, okvs.shape(items_at(turn, bank)))
    gf128.add_products(points, okvs.values(items[here], keys), keyed.delta)
    outputs, proofs = vole.outputs(points, items[here], keyed.session)
    keyed.proofs[here] = tags.pack(proofs, PROOF_BYTES)
    message = Tags(tags.pack(outputs, _tag_bytes(turn, turn.me)))
    if keyed.tagged + 1 < blocks(len(items)):
        return Outcome(Silent(), send={bank: message}, keep=(replace(keyed, tagged=keyed.tagged + 1),))
    return Outcome(Silent(), send={bank: message}, keep=(Offered(keyed.proofs),), forget=(Keyed,))


def _unfold(turn: Turn, inbox: Inbox[Grown]) -> Outcome[Nothing, Silent]:
    items, size, of = turn.recall(Items).values, _vole_size(turn), {}
    for partner, masking in turn.recall(Maskings).of.items():
        if len(masking.rows) or not masking.sent:
            raise PolicyRefused("the table has not been sent yet")
        grown = inbox.one(partner, Grown)
        sums = vole.Sums(grown.masked, grown.totals)
        try:
            rows = vole.unfold_products(masking.noise, sums, size, masking.session)
        except ValueError:
            raise PeerError(f"{partner}: psi.vole.expand: sums of another shape") from None
        of[partner] = _search(turn, partner, items, rows, masking)
    return Outcome(Silent(), keep=(Searches(of),), forget=(Maskings,))


def _search(turn: Turn, partner: Name, items: Words, rows: Words, masking: Masking) -> Search:
    keys, layout = store_keys(masking.session, masking.attempt), okvs.shape(len(items))
    outputs = np.empty_like(items)
    proofs = np.empty((len(items), PROOF_BYTES), np.uint8)
    for b in range(blocks(len(items))):
        here = block_of(b, len(items))
        points = okvs.decode(rows, items[here], keys, layout)
        outputs[here], found = vole.outputs(points, items[here], masking.session)
        proofs[here] = tags.pack(found, PROOF_BYTES)
    known = tags.index(outputs, _tag_bytes(turn, partner), turn.random)
    return Search(known, Match(np.full(len(items), NO_ROW), proofs), 0)


def _look(turn: Turn, inbox: Inbox[Tags]) -> Outcome[Nothing, Silent]:
    of = dict(turn.recall(Searches).of)
    for partner, message in inbox.by_sender(Tags).items():
        search, size = of[partner], items_at(turn, partner)
        if search.looked == blocks(size):
            raise PeerError(f"{partner}: psi.vole.tags: more tags than its list is long")
        here = block_of(search.looked, size)
        if message.tags.shape != (here.stop - here.start, search.known.length):
            raise PeerError(f"{partner}: psi.vole.tags: wrong number of tags or tags of another length")
        tags.look(search.known, message.tags, here.start, search.match.positions)
        of[partner] = replace(search, looked=search.looked + 1)
    if any(search.looked < blocks(items_at(turn, p)) for p, search in of.items()):
        return Outcome(Silent(), keep=(Searches(of),))
    for search in of.values():
        search.match.proofs[search.match.positions == NO_ROW] = 0
    return Outcome(Silent(), keep=(Found({p: s.match for p, s in of.items()}),), forget=(Searches,))


OFFER = Step("psi.vole.offer", _offer, Silent)
CHOOSE = Step("psi.vole.choose", _choose, Silent, reads=(Offer,))
CORRECT = Step("psi.vole.correct", _correct, Silent, reads=(Choice,))
MASK = Step("psi.vole.mask", _mask, Silent)
EXPAND = Step("psi.vole.expand", _expand, Silent, reads=(Correction,))
SEND = Step("psi.vole.send", _send, Silent)
ABSORB = Step("psi.vole.absorb", _absorb, Silent, reads=(Difference,))
UNFOLD = Step("psi.vole.unfold", _unfold, Silent, reads=(Grown,))
TAGS = Step("psi.vole.tags", _tags, Silent)
LOOK = Step("psi.vole.look", _look, Silent, reads=(Tags,))


def intersect(call: Caller, contract: Contract, sizes: Mapping[Name, int]) -> None:
    """Leave `Found` at the bank and `Offered` at each partner; while one side computes, so does the other."""
    bank, *partners = data_parties(contract)
    offered = call(bank, OFFER)
    chosen = call.all([ask(p, CHOOSE, offered.to(p)) for p in partners])
    corrected = call(bank, CORRECT, *inbox_of(chosen, bank))
    _, grown = call.both([ask(bank, MASK)], [ask(p, EXPAND, corrected.to(p)) for p in partners])
    sent = call(bank, SEND)
    for _ in range(blocks(okvs.shape(sizes[bank]).size) - 1):
        absorbing = [ask(p, ABSORB, sent.to(p)) for p in partners]
        (sent,), _ = call.both([ask(bank, SEND)], absorbing)
    call.all([ask(p, ABSORB, sent.to(p)) for p in partners])
    first = [ask(p, TAGS) for p in partners]
    _, tagged = call.both([ask(bank, UNFOLD, *inbox_of(grown, bank))], first)
    for b in range(1, max(blocks(sizes[p]) for p in partners)):
        looking = [ask(bank, LOOK, *inbox_of(tagged, bank))]
        _, tagged = call.both(looking, [ask(p, TAGS) for p in partners if b < blocks(sizes[p])])
    call(bank, LOOK, *inbox_of(tagged, bank))
