"""Engine `oprf`: matches by an oblivious pseudorandom function; the engine for short lists.

The partner holds a fresh key, the bank learns the function's outputs for its own items and nothing of the key,
and compares them with those of the partner's list: tag (16 bytes) to compare, proof (16 bytes) to show.

| learns | what |
|---|---|
| bank | which of its items the partner has, and where in the partner's shuffled list |
| partner | nothing from this part |

Assumption: one-more gap Diffie-Hellman in ristretto255, random oracles. Semi-honest parties; a bank that deviates
learns outputs of at most as many inputs as it sent points, a partner that deviates can lose matches, not forge one
for an id it does not hold. Bytes: 64 for each item of the bank, 16 for each of the partner.

With `align.reuse` in the contract a partner keeps its key and the order of its list for later runs with the same
list, and the bank keeps the tags: a bank that asks about few people again and again sends and receives a few dozen
bytes for each of them. What it asks in all these runs then counts as one list, which the contract bounds; when the
list changes, or with the contract, key and tags are new. Whatever a contract allows, a key answers at most
`oprf.MOST_EVALUATIONS` points; the count is on disk before the answer leaves.
Source: RFC 9497 (mode OPRF, ristretto255-SHA512); Jarecki, Kiayias, Krawczyk 2014 (2HashDH).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.crypto import oprf
from fedmkt.crypto.prg import derive, words
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.protocol.alignment.items import (
    NO_ROW,
    PROOF_BYTES,
    Bytes,
    Found,
    Items,
    Match,
    Offered,
    Rows,
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
    PublicValue,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    inbox_of,
    to_all,
)

TAG_BYTES = 16


@dataclass(frozen=True)
class Blinded(Message):
    """Hashed items times a secret: uniform group elements. points : (n, 32)."""

    points: Bytes


@dataclass(frozen=True)
class Evaluated(Message):
    """The bank's points under the sender's key. points : (n, 32)."""

    points: Bytes


@dataclass(frozen=True)
class KeptSet(PublicValue):
    """Names the set a partner answers from: the same name, the same key, items and order."""

    name: bytes


@dataclass(frozen=True)
class KnownSets(PublicValue):
    """The partners of whose sets the bank still holds the tags."""

    partners: tuple[str, ...]


@dataclass(frozen=True)
class Sender(State):
    """A partner's key, the proofs of the items sent so far (filled block by block), and the points answered."""

    durable = False
    key: bytes
    proofs: Bytes
    offered: int
    answered: int


@dataclass(frozen=True)
class Receiver(State):
    """At the bank: tags and matches of each partner, filled block by block; the blinds of the block on its way."""

    durable = False
    tags: Mapping[str, Bytes]
    received: Mapping[str, int]
    matches: Mapping[str, Match]
    scalars: Bytes
    block: int


def inputs_of(values: Words) -> list[bytes]:
    """Return items as inputs of the function."""
    flat = np.ascontiguousarray(values, dtype="<u8").tobytes()
    return [flat[i : i + 16] for i in range(0, len(flat), 16)]


def proofs_at(turn: Turn, slots: Rows) -> Bytes:
    """Return a partner's proofs of some of its items; of a kept set they are computed when they are asked for."""
    if turn.has(Offered):
        return turn.recall(Offered).proofs[slots]
    outputs = oprf.evaluate_inputs(turn.recall(Sender).key, inputs_of(turn.recall(Items).values[slots]))
    return outputs[:, TAG_BYTES : TAG_BYTES + PROOF_BYTES]


def _kept_at(turn: Turn) -> str:
    return f"psi set/{digest(turn.contract).hex()}"


def _tags_at(turn: Turn, partner: Name) -> str:
    return f"psi tags/{digest(turn.contract).hex()}/{partner}"


def _keep(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, KeptSet]:
    """Take the kept set of this list, or make one; `Items` are put in its order."""
    items = turn.recall(Items)
    order = np.lexsort(items.values.T)
    list_digest = hashlib.sha256(items.values[order].astype("<u8").tobytes()).digest()
    kept = turn.store.get(_kept_at(turn), b"")
    name, key, seed, known, answered = kept[:16], kept[16:48], kept[48:80], kept[80:112], kept[112:]
    if known != list_digest:
        name, key, seed, answered = turn.random(16), oprf.new_key(turn.random), turn.random(32), bytes(8)
    # The order of the hashes is the same in every run; the permutation of it is known to the partner alone.
    order = order[np.argsort(words(derive(seed, b"fedmkt kept set order"), len(order)), kind="stable")]
    sender = Sender(key, np.empty((0, PROOF_BYTES), np.uint8), 0, int.from_bytes(answered, "big"))
    return Outcome(
        KeptSet(name),
        keep=(Items(items.values[order], items.rows[order]), sender),
        remember={_kept_at(turn): name + key + seed + list_digest + answered},
    )


def _know(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, KnownSets]:
    receiver, known = _receiver(turn), []
    for partner in turn.others:
        held, name = turn.store.get(_tags_at(turn, partner), b""), turn.published(KeptSet, partner).name
        tags = receiver.tags[partner]
        if held[:16] == name and len(held) == 16 + tags.size:
            tags[:] = np.frombuffer(held, np.uint8, offset=16).reshape(tags.shape)
            known.append(str(partner))
    received = {p: blocks(len(t)) if p in known else 0 for p, t in receiver.tags.items()}
    return Outcome(KnownSets(tuple(known)), keep=(replace(receiver, received=received),))


def _offer(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Tags, Silent]:
    items = turn.recall(Items).values
    if turn.has(Sender):
        sender = turn.recall(Sender)
    else:
        # A fresh key per run: equal ids of two runs have unrelated tags.
        sender = Sender(oprf.new_key(turn.random), np.empty((len(items), PROOF_BYTES), np.uint8), 0, 0)
    if sender.offered == blocks(len(items)):
        raise PolicyRefused("a second intersection in one run")
    here = block_of(sender.offered, len(items))
    outputs = oprf.evaluate_inputs(sender.key, inputs_of(items[here]))
    sender = replace(sender, offered=sender.offered + 1)
    kept: tuple[State, ...] = (sender,)
    if not turn.contract.align.reuse:
        sender.proofs[here] = outputs[:, TAG_BYTES : TAG_BYTES + PROOF_BYTES]
        if sender.offered == blocks(len(items)):
            kept = (sender, Offered(sender.proofs))
    tags = Tags(np.ascontiguousarray(outputs[:, :TAG_BYTES]))
    return Outcome(Silent(), send={turn.parties[0]: tags}, keep=kept)


def _receiver(turn: Turn) -> Receiver:
    if turn.has(Receiver):
        return turn.recall(Receiver)
    own = len(turn.recall(Items).values)
    sizes = {p: items_at(turn, p) for p in turn.others}
    return Receiver(
        {p: np.empty((n, TAG_BYTES), np.uint8) for p, n in sizes.items()},
        dict.fromkeys(sizes, 0),
        {p: Match(np.full(own, NO_ROW), np.zeros((own, PROOF_BYTES), np.uint8)) for p in sizes},
        np.empty((0, 32), np.uint8),
        0,
    )


def _take(turn: Turn, inbox: Inbox[Tags]) -> Outcome[Nothing, Silent]:
    receiver = _receiver(turn)
    received = dict(receiver.received)
    for partner, message in inbox.by_sender(Tags).items():
        tags = receiver.tags[partner]
        if received[partner] == blocks(len(tags)):
            raise PeerError(f"{partner}: psi.oprf.offer: more tags than its list is long")
        here = block_of(received[partner], len(tags))
        if message.tags.shape != tags[here].shape:
            raise PeerError(f"{partner}: psi.oprf.offer: wrong number of tags or tags of another length")
        tags[here] = message.tags
        received[partner] += 1
    remember = {}
    if turn.contract.align.reuse:
        for at in turn.others:
            tags = receiver.tags[at]
            if received[at] == blocks(len(tags)):
                remember[_tags_at(turn, at)] = turn.published(KeptSet, at).name + tags.tobytes()
    return Outcome(Silent(), keep=(replace(receiver, received=received),), remember=remember)


def _blind(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Blinded, Silent]:
    items, receiver = turn.recall(Items).values, _receiver(turn)
    if len(receiver.scalars) or receiver.block == blocks(len(items)):
        raise PolicyRefused("a second intersection in one run")
    inputs = inputs_of(items[block_of(receiver.block, len(items))])
    scalars, points = oprf.blind_all(inputs, turn.random)
    return Outcome(
        Silent(), send=to_all(turn.others, Blinded(points)), keep=(replace(receiver, scalars=scalars),)
    )


def _evaluate(turn: Turn, inbox: Inbox[Blinded]) -> Outcome[Evaluated, Silent]:
    bank, sender = turn.parties[0], turn.recall(Sender)
    points = inbox.one(bank, Blinded).points
    if points.ndim != 2 or points.shape[1] != 32:
        raise PeerError(f"{bank}: psi.oprf.blind: points are not (n, 32)")
    answered = sender.answered + len(points)
    reuse = turn.contract.align.reuse
    if answered > oprf.MOST_EVALUATIONS:
        raise PolicyRefused(
            f"K3 one key answers at most {oprf.MOST_EVALUATIONS} points, with these it would be {answered}",
            "a new contract has a new key",
        )
    if answered > (reuse or items_at(turn, bank)):
        raise PolicyRefused(
            "the bank asks about more people than the contract allows for one kept set"
            if reuse
            else "the bank asks about more people than its list has"
        )
    try:
        evaluated = oprf.evaluate_all(sender.key, points)
    except ValueError:
        raise PeerError(f"{bank}: psi.oprf.blind: not a point of the group") from None
    remember = {}
    if reuse:  # counted before the answer leaves, and over all runs
        kept = turn.store[_kept_at(turn)]
        remember = {_kept_at(turn): kept[:112] + answered.to_bytes(8, "big")}
    return Outcome(
        Silent(),
        send={bank: Evaluated(evaluated)},
        keep=(replace(sender, answered=answered),),
        remember=remember,
    )


def _finish(turn: Turn, inbox: Inbox[Evaluated]) -> Outcome[Nothing, Silent]:
    items, receiver = turn.recall(Items).values, turn.recall(Receiver)
    here = block_of(receiver.block, len(items))
    inputs = inputs_of(items[here])
    for partner in turn.others:
        answer, match = inbox.one(partner, Evaluated).points, receiver.matches[partner]
        if answer.shape != (len(inputs), 32):
            raise PeerError(f"{partner}: psi.oprf.evaluate: wrong number of points")
        try:
            outputs = oprf.finalize_all(inputs, receiver.scalars, answer)
        except ValueError:
            raise PeerError(f"{partner}: psi.oprf.evaluate: not a point of the group") from None
        match.positions[here] = _find(outputs[:, :TAG_BYTES], receiver.tags[partner])
        is_found = match.positions[here] != NO_ROW
        match.proofs[here][is_found] = outputs[is_found, TAG_BYTES : TAG_BYTES + PROOF_BYTES]
    block = receiver.block + 1
    if block == blocks(len(items)):
        return Outcome(Silent(), keep=(Found(receiver.matches),), forget=(Receiver,))
    return Outcome(Silent(), keep=(replace(receiver, block=block, scalars=np.empty((0, 32), np.uint8)),))


def _find(own: Bytes, others: Bytes) -> Rows:
    """Return for each own tag the place of an equal one, or NO_ROW."""
    if not len(others):
        return np.full(len(own), NO_ROW)
    first = np.ascontiguousarray(others[:, :8]).view("<u8").reshape(-1)
    order = np.argsort(first, kind="stable")
    place = np.searchsorted(first[order], np.ascontiguousarray(own[:, :8]).view("<u8").reshape(-1))
    candidate = order[np.minimum(place, len(others) - 1)]
    is_equal = (others[candidate] == own).all(axis=1)
    return np.where(is_equal, candidate, NO_ROW)


KEEP = Step("psi.oprf.keep", _keep, KeptSet)
KNOW = Step("psi.oprf.know", _know, KnownSets)
OFFER = Step("psi.oprf.offer", _offer, Silent)
TAKE = Step("psi.oprf.take", _take, Silent, reads=(Tags,))
BLIND = Step("psi.oprf.blind", _blind, Silent)
EVALUATE = Step("psi.oprf.evaluate", _evaluate, Silent, reads=(Blinded,))
FINISH = Step("psi.oprf.finish", _finish, Silent, reads=(Evaluated,))


def intersect(call: Caller, contract: Contract, sizes: Mapping[Name, int]) -> None:
    """Leave `Found` and `Offered`: two rounds for each block of tags, three for each block of points."""
    bank, *partners = data_parties(contract)
    asked = partners
    if contract.align.reuse:
        call.all([ask(p, KEEP) for p in partners])
        known = call(bank, KNOW).public.value.partners
        asked = [p for p in partners if p not in known]
    for block in range(max((blocks(sizes[p]) for p in asked), default=0)):
        offered = call.all([ask(p, OFFER) for p in asked if block < blocks(sizes[p])])
        call(bank, TAKE, *inbox_of(offered, bank))
    for _ in range(blocks(sizes[bank])):
        blinded = call(bank, BLIND)
        evaluated = call.all([ask(p, EVALUATE, blinded.to(p)) for p in partners])
        call(bank, FINISH, *inbox_of(evaluated, bank))
