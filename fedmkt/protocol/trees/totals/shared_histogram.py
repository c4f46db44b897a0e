"""Shared histograms: sums of shared numbers over the bins of both parties' columns, which stay shared themselves.

Computes D m for vectors m of small integers that the bank and one partner share modulo t, and D the zeros and ones
that say which row is in which bin of which column, for the bank's own columns and for the partner's. Takes part: the
bank, one or two partners, and the dealer. It runs in both directions at once, each time with one of the two as the
holder of D and the other as the asker. A second partner, who holds the first one's shares m (`duos`), is a holder only:
the bank sends both the same b and s - v, and is answered by each about its own columns. Once per epoch a holder
sends its masked hint E = H - U; then, for each batch,

    asker    ->  holder    b = A s + e + Delta m_a (blocks of rows) and s - v, with s and e fresh
    holder   ->  asker     D (b + Delta m_h) - U (s - v) - w_h + f + Delta r
    asker computes         that - E s - w_a = Delta (D m + r) + D e + f, and rounds it to D m + r

with m = m_a + m_h the shares, r fresh and uniform: the asker holds D m + r modulo t, the holder -r. H = D A; U, v and
w_h come from addressed seeds; the dealer sends w_a = U v - w_h. This is `histogram` with the total masked by r, which
costs nothing: nobody learns a total before it is known to be of enough rows.

| learns | what |
|---|---|
| bank, partners | nothing but sizes: b is pseudo-random (ring-LWE), s - v and D m + r are uniform; D e lies under f |
| dealer, coordinator | nothing but sizes |

Safe against a semi-honest bank or partners, and a semi-honest dealer, who colludes with nobody, as in `histogram`,
whose words on D e and on a malicious asker hold here for both. A party that adds something to its share m changes the
totals; nothing here shows it (`checked_sums` does, of the bank). A holder counts the vectors of the whole training
against what was agreed.

The numbers of a row stand in lanes, each modulo a power of two of its own: what travels is cut to what the lane's
noise budget allows. A lane has one or more fields (gradient and Hessian, membership), one above the other: sums are
of the whole lane, and its fields are told apart once it is opened. Noise and flooding take the room of some 20 bits
of each word, so two fields in one word are cheaper than two words. Bytes for each row, vector and direction: 4 to 8
of b; for each bin and vector: 8 of the reply and 8 of w_a; 8 N for each bin once per epoch.

Source: protocols.md section 4. Letters: as in `histogram`; V vectors = lanes times nodes, lane by lane.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import KEY_BYTES
from fedmkt.errors import PolicyRefused
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
    Name,
    Nothing,
    Outcome,
    Reply,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    dealer,
    inbox_of,
    to_all,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.trees.sides.histogram import RowBins
from fedmkt.protocol.trees.sides.histogram_terms import bin_blocks
from fedmkt.protocol.trees.totals.dealt_pads import encrypt_rows, noise_keys, public_polynomials, secrets_of
from fedmkt.protocol.trees.totals.duos import asked, asker
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.ring import discrete_gaussian, kernels, rlwe, short_words
from fedmkt.ring.fixed import correction
from fedmkt.ring.rlwe import DEGREE
from fedmkt.ring.side_bits import Numbers


@dataclass(frozen=True)
class HintBlock(Message):
    """A block of rows of E = H - U."""

    block: int
    rows: Masked[Words]


@dataclass(frozen=True)
class EncryptedShares(Message):
    """A block of rows of b, in a stream of short words; with the first block s - v, (N, V), unless s is dealt."""

    block: int
    rows: Words
    secrets: Masked[Words] | None


@dataclass(frozen=True)
class DealtHints(Message):
    """The reader's shares w_a of U v, (K, V), for the bins of each party that it asks."""

    shares: tuple[Words, ...]


@dataclass(frozen=True)
class SharedTotals(Message):
    """The holder's reply, (K, V): opens to D m + r at the asker."""

    words: Masked[Words]


@dataclass(frozen=True)
class ShareVectors(State):
    """The own shares of the next batch, by lane (nodes, rows), each modulo 2^bits at least; zero in padding."""

    durable: ClassVar[bool] = False
    by_row: ClassVar[tuple[str, ...]] = ("lanes",)
    lanes: tuple[Numbers, ...]


@dataclass(frozen=True)
class TotalShares(State):
    """The own shares modulo 2^bits of the totals of the last batch, by party whose bins they are, (lanes, nodes, K)."""

    durable: ClassVar[bool] = False
    values: dict[str, Words]


@dataclass(frozen=True)
class BinHints(State):
    """The own H until it is sent, and U; E of each party that is asked; a_j ready for products."""

    durable: ClassVar[bool] = False
    hint: Words
    mask: Words
    masked: dict[str, Words]
    calls: int
    a: rlwe.Transformed


@dataclass(frozen=True)
class Asking(State):
    """One batch under way: the own secrets, (V, N), the reply's sums so far, the asker's s - v, blocks out and in.

    A second partner asks for nothing: it has no secrets. words : at the checker, the blocks as they came.
    """

    durable: ClassVar[bool] = False
    count: int
    secrets: NDArray[np.int8]
    sums: Words
    theirs: Words
    sent: int
    taken: int
    words: tuple[Words, ...] = ()


@dataclass(frozen=True)
class Answered(State):
    """The own mask r of the totals that were sent, (K, V)."""

    durable: ClassVar[bool] = False
    r: Words


def _asked(turn: Turn) -> tuple[Name, ...]:
    return asked(turn.contract, turn.me)


# --- once per epoch


def _begin_hints(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    held = turn.recall(RowBins)
    if held.codes.shape != (len(held.counts), lanes.rows) or held.counts != lanes.counts[turn.me]:
        raise ValueError(f"bins of {held.codes.shape} are not those that were agreed")
    lanes.budgets(turn.me)
    a = public_polynomials(turn, lanes.rows)
    h = rlwe.hint(rlwe.transform_for_hint(a), held.codes, held.counts)
    masked = {str(p): np.empty((lanes.bins(p), DEGREE), np.uint64) for p in _asked(turn)}
    return Outcome(Silent(), keep=(BinHints(h, np.empty_like(h), masked, 0, rlwe.transform(a)),))


def _exchange_hint(turn: Turn, inbox: Inbox[HintBlock]) -> Outcome[HintBlock, Silent]:
    """Take in the others' blocks of the call before, and send the own next one, as long as there are any."""
    held = turn.recall(BinHints)
    _take_hint(turn, held, inbox)
    blocks, call = bin_blocks(len(held.mask)), held.calls
    kept = replace(held, calls=call + 1)
    if call >= len(blocks):
        return Outcome(Silent(), keep=(kept,))
    rows = blocks[call]
    shape = (rows.stop - rows.start, DEGREE)
    held.mask[rows] = turn.masks.words(turn.me, "nodes/U", 0, shape, block=call)
    message = HintBlock(call, Masked(held.hint[rows] - held.mask[rows]))
    if call + 1 == len(blocks):
        # H alone would give D away; once it is masked nothing needs it any more.
        kept = replace(kept, hint=np.empty((0, DEGREE), np.uint64))
    return Outcome(Silent(), send={asker(turn.contract, turn.me): message}, keep=(kept,))


def _take_hint(turn: Turn, held: BinHints, inbox: Inbox[HintBlock]) -> None:
    for holder in _asked(turn):
        masked = held.masked[holder]
        blocks, block = bin_blocks(len(masked)), held.calls - 1
        if not 0 <= block < len(blocks):
            continue
        message, rows = inbox.one(holder, HintBlock), blocks[block]
        if message.block != block or message.rows.words.shape != (rows.stop - rows.start, DEGREE):
            raise ValueError("a block of the masked hint is out of order or has another shape than agreed")
        masked[rows] = message.rows.words


# --- for each batch


def _deal(lanes: Lanes, nodes: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtHints, Silent]:
    count, counts = next_count(turn, "nodes")
    width = len(lanes.limits) * nodes
    send = {}
    for party in turn.parties[:2]:
        if lanes.checker in asked(turn.contract, party):
            v = _columns(secrets_of(turn, party, count, width))
        else:
            v = turn.masks.words(party, "nodes/v", count, (DEGREE, width))
        send[party] = DealtHints(tuple(_dealt(lanes, turn, h, count, v) for h in asked(turn.contract, party)))
    return Outcome(Silent(), send=send, keep=(counts,))


def _dealt(lanes: Lanes, turn: Turn, holder: Name, count: int, v: Words) -> Words:
    product = np.empty((lanes.bins(holder), v.shape[1]), np.uint64)
    for i, rows in enumerate(bin_blocks(len(product))):
        mask = turn.masks.words(holder, "nodes/U", 0, (rows.stop - rows.start, DEGREE), block=i)
        product[rows] = kernels.matmul(mask, v)
    return correction(product, [_w(turn, holder, count, product.shape)])


def _w(turn: Turn, holder: Name, count: int, shape: tuple[int, ...]) -> Words:
    return turn.masks.words(holder, "nodes/w", count, shape)


def _begun(lanes: Lanes, nodes: int, turn: Turn) -> tuple[Asking, tuple[State, ...], dict[str, bytes]]:
    """Return the batch under way, or begin one, with what is to be kept and remembered of it."""
    if turn.has(Asking):
        return turn.recall(Asking), (), {}
    shares, width = turn.recall(ShareVectors).lanes, len(lanes.limits) * nodes
    if len(shares) != len(lanes.limits) or any(x.shape != (nodes, lanes.rows) for x in shares):
        raise ValueError(f"the own shares are not {nodes} vectors of {lanes.rows} rows in each lane")
    count, counts = next_count(turn, "nodes")
    if lanes.checker in _asked(turn):
        secrets = secrets_of(turn, turn.me, count, width)
    else:
        secrets = rlwe.draw_secrets(turn.random(KEY_BYTES), width if _asked(turn) else 0)
    sums = np.zeros((lanes.bins(turn.me), width), np.uint64)
    state = Asking(count, secrets, sums, np.empty((0, 0), np.uint64), 0, 0)
    return state, (counts,), _count_vectors(lanes, nodes, turn)


def _encrypt(lanes: Lanes, nodes: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[EncryptedShares, Silent]:
    """Send the next block of rows: secrets are fresh for each batch, noise for each block."""
    held, shares = turn.recall(BinHints), turn.recall(ShareVectors).lanes
    state, keep, remember = _begun(lanes, nodes, turn)
    rows = lanes.row_blocks(nodes)[state.sent]
    a = held.a.part(rows.start // DEGREE, rlwe.polynomials(rows.stop))
    plans = lanes.words(_asked(turn)[0], nodes)
    values = np.concatenate([lane[:, rows].T.astype(np.uint64) for lane in shares], axis=1).view(np.int64)
    is_dealt = lanes.checker in _asked(turn)
    dealt = noise_keys(turn, turn.me, state.count, state.sent)
    b = encrypt_rows(
        a, state.secrets, values, [plan.delta_bits for plan in plans],
        dealt if is_dealt else lambda part: turn.random(KEY_BYTES),
    )  # fmt: skip
    packed = short_words.pack(b, [plan.word_bits for plan in plans])
    masked = None
    if state.sent == 0 and not is_dealt:
        s = _columns(state.secrets)
        masked = Masked(s - turn.masks.words(turn.me, "nodes/v", state.count, s.shape))
    message = EncryptedShares(state.sent, packed, masked)
    kept = (replace(state, sent=state.sent + 1), *keep)
    return Outcome(Silent(), send=to_all(_asked(turn), message), keep=kept, remember=remember)


def _columns(secrets: NDArray[np.int8]) -> Words:
    """Return secrets, (V, N), as the words that multiply a hint, (N, V)."""
    return np.ascontiguousarray(secrets.T).astype(np.int64).view(np.uint64)


def _count_vectors(lanes: Lanes, nodes: int, turn: Turn) -> dict[str, bytes]:
    """Count in the store, not in a checkpoint: a resume from an earlier one must not forget what was answered."""
    ledger = f"shared histogram vectors/{turn.run.hex()}"
    asked = int(turn.store.get(ledger, b"0")) + nodes
    if asked > lanes.vectors:
        raise PolicyRefused(f"{asked} encrypted vectors are asked for, agreed are {lanes.vectors}")
    return {ledger: str(asked).encode()}


def take_block(lanes: Lanes, nodes: int, turn: Turn, state: Asking, message: EncryptedShares) -> Asking:
    """Add up a block of the asker's rows and of the own shares."""
    held = turn.recall(RowBins)
    plans = lanes.words(turn.me, nodes)
    rows = lanes.row_blocks(nodes)[state.taken]
    count, bits = rows.stop - rows.start, [plan.word_bits for plan in plans]
    if message.block != state.taken or message.rows.shape != (short_words.stream_length(count, bits),):
        raise ValueError("a block of encrypted shares is out of order or has another shape than agreed")
    theirs, words = state.theirs, state.words
    b = short_words.unpack(message.rows, count, bits)
    if turn.me == lanes.checker:
        words = (*words, b.copy())
    elif message.block == 0:
        if message.secrets is None or message.secrets.words.shape != (DEGREE, len(plans)):
            raise ValueError("the masked secrets are missing or have another shape than agreed")
        theirs = message.secrets.words
    own = np.concatenate(
        [lane[:, rows].T.astype(np.uint64) for lane in turn.recall(ShareVectors).lanes], axis=1
    )
    b += own << np.array([plan.delta_bits for plan in plans], np.uint64)
    sums = state.sums + rlwe.histogram(held.codes[:, rows], held.counts, b)
    return replace(state, sums=sums, theirs=theirs, taken=state.taken + 1, words=words)


def _asked_for(turn: Turn, inbox: Inbox[EncryptedShares]) -> EncryptedShares:
    return inbox.one(asker(turn.contract, turn.me), EncryptedShares)


def _add(lanes: Lanes, nodes: int, turn: Turn, inbox: Inbox[EncryptedShares]) -> Outcome[Nothing, Silent]:
    """Add up a block of rows that is not the last."""
    state, keep, remember = _begun(lanes, nodes, turn)
    kept = take_block(lanes, nodes, turn, state, _asked_for(turn, inbox))
    return Outcome(Silent(), keep=(kept, *keep), remember=remember)


def answer_last(
    lanes: Lanes, nodes: int, turn: Turn, inbox: Inbox[EncryptedShares]
) -> Outcome[SharedTotals, Silent]:
    """Add up the last block and answer the batch."""
    begun, keep, remember = _begun(lanes, nodes, turn)
    done = answer(lanes, nodes, turn, take_block(lanes, nodes, turn, begun, _asked_for(turn, inbox)))
    return replace(done, keep=(*done.keep, *keep), remember=remember)


def answer(lanes: Lanes, nodes: int, turn: Turn, state: Asking) -> Outcome[SharedTotals, Silent]:
    """Answer a batch whose rows are added up, flooded and under r."""
    if state.taken != len(lanes.row_blocks(nodes)):
        raise ValueError("not all rows have arrived")
    product = np.zeros(state.sums.shape, np.uint64)
    if turn.me != lanes.checker:
        product = kernels.matmul(turn.recall(BinHints).mask, state.theirs)
    words = state.sums - product - _w(turn, turn.me, state.count, product.shape)
    drawn = turn.random(8 * words.size)
    r = np.frombuffer(drawn, "<u8").astype(np.uint64).reshape(words.shape)
    for lane, plan in enumerate(lanes.budgets(turn.me)):
        at = slice(lane * nodes, (lane + 1) * nodes)
        flooding = discrete_gaussian.draw(turn.random, plan.flooding, words[:, at].shape)
        words[:, at] += flooding.view(np.uint64) + (r[:, at] << np.uint64(plan.delta_bits))
    none = np.empty((0, 0), np.uint64)
    return Outcome(
        Silent(),
        send={asker(turn.contract, turn.me): SharedTotals(Masked(words))},
        keep=(replace(state, sums=none, theirs=none, words=()), Answered(r)),
        forget=(ShareVectors,),
    )


def _decrypt(
    lanes: Lanes, nodes: int, turn: Turn, inbox: Inbox[SharedTotals | DealtHints]
) -> Outcome[Nothing, Silent]:
    state, own = turn.recall(Asking), np.uint64(0) - turn.recall(Answered).r
    values = {str(turn.me): _by_node(own, nodes)}
    dealt = inbox.one(dealer(turn.contract), DealtHints).shares if _asked(turn) else ()
    for holder, shares in zip(_asked(turn), dealt, strict=True):
        found = inbox.one(holder, SharedTotals).words.words
        values[holder] = _by_node(_decrypted(lanes, nodes, turn, state, holder, found, shares), nodes)
    return Outcome(Silent(), keep=(TotalShares(values),), forget=(Asking, Answered))


def _decrypted(
    lanes: Lanes, nodes: int, turn: Turn, state: Asking, holder: Name, found: Words, dealt: Words
) -> Words:
    shape = (lanes.bins(holder), len(lanes.limits) * nodes)
    if found.shape != shape or dealt.shape != shape:
        raise ValueError("totals or the dealer's shares have another shape than agreed")
    noisy = found - kernels.matmul(turn.recall(BinHints).masked[holder], _columns(state.secrets)) - dealt
    total = np.empty(shape, np.uint64)
    for lane, plan in enumerate(lanes.budgets(holder)):
        at = slice(lane * nodes, (lane + 1) * nodes)
        total[:, at] = rlwe.decode(noisy[:, at], [plan.delta_bits] * nodes).view(np.uint64)
    return total


def _by_node(totals: Words, nodes: int) -> Words:
    return np.ascontiguousarray(totals.T).reshape(-1, nodes, len(totals))


EXCHANGE_HINT = Step("nodes.exchange_hint", _exchange_hint, Silent, reads=(HintBlock,))


def send_hints(call: Caller, contract: Contract, lanes: Lanes) -> None:
    """Give all parties the masked hints of those they ask: once per epoch, before the first batch; `RowBins` before."""
    parties = data_parties(contract)
    begin = Step("nodes.begin_hints", partial(_begin_hints, lanes), Silent)
    call.all([ask(p, begin) for p in parties])
    sent = call.all([ask(p, EXCHANGE_HINT) for p in parties])
    for _ in range(max(len(bin_blocks(lanes.bins(p))) for p in parties)):
        sent = call.all([ask(p, EXCHANGE_HINT, *inbox_of(sent, p)) for p in parties])


Blocks = Sequence[Reply[EncryptedShares, Silent]]
Answers = Callable[[Caller, Contract, Lanes, int, Blocks], list[Reply[SharedTotals, Silent]]]


def plain_replies(
    call: Caller, contract: Contract, lanes: Lanes, nodes: int, blocks: Blocks
) -> list[Reply[SharedTotals, Silent]]:
    """Let all answer as soon as the last blocks of rows have arrived."""
    reply = Step("nodes.reply", partial(answer_last, lanes, nodes), Silent, reads=(EncryptedShares,))
    return call.all([ask(p, reply, *inbox_of(blocks, p)) for p in data_parties(contract)])


def add_up_nodes(
    call: Caller, contract: Contract, lanes: Lanes, nodes: int, answers: Answers = plain_replies
) -> None:
    """Share the totals of so many nodes over all bins: `ShareVectors` at all before, `TotalShares` after."""
    parties = data_parties(contract)
    askers = parties[:2]
    deal = Step("nodes.deal", partial(_deal, lanes, nodes), Silent)
    encrypt = Step("nodes.encrypt", partial(_encrypt, lanes, nodes), Silent)
    add = Step("nodes.add", partial(_add, lanes, nodes), Silent, reads=(EncryptedShares,))
    decrypt = Step("nodes.decrypt", partial(_decrypt, lanes, nodes), Silent, reads=(SharedTotals, DealtHints))
    blocks, (dealt,) = call.both([ask(p, encrypt) for p in askers], [ask(dealer(contract), deal)])
    for _ in lanes.row_blocks(nodes)[1:]:
        call.all([ask(p, add, *inbox_of(blocks, p)) for p in parties])
        blocks = call.all([ask(p, encrypt) for p in askers])
    replies = answers(call, contract, lanes, nodes, blocks)
    call.all([ask(p, decrypt, *inbox_of(replies, p), *inbox_of([dealt], p)) for p in parties])
