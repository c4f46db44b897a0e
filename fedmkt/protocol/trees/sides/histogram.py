"""Private histograms: the bank gets sums of its secret numbers over the bins of the partners' columns.

Computes D m for vectors m of small integers, one number of the bank's for each common row, and D the zeros and ones
that say which row is in which bin of which column of a partner. Takes part: the bank, one or more partners (each by
itself), and the dealer. Once per epoch a partner sends its masked hint E = H - U; then, for each batch of vectors,

    bank     ->  partner   b = A s + e + Delta m (blocks of rows) and s - v, with s and e fresh
    partner  ->  bank      D b - U (s - v) - w_p + f
    bank computes          that - E s - w_b = Delta D m + D e + f, and rounds it to D m

where H = D A, and U, v, w_p come from addressed seeds; the dealer sends w_b = U v - w_p to the bank. Vectors that bank
and partner share are for `shared_histogram`.

| learns | what |
|---|---|
| bank | every total D m, exactly (`HistogramTotals`); beside it D e under the flooding f, see `ring/budget.py` |
| partner | nothing: b is pseudo-random (ring-LWE), s - v is uniform |
| dealer, coordinator | nothing but sizes |
| everybody | how many columns and bins a partner has, how many rows (padded) and vectors, and their `most_rows` |

Safe against: a semi-honest partner or partners together, who must break ring-LWE to learn anything of m; a semi-honest
bank, who learns the totals it asks for and, over a whole training and about the bins of one row, at most `RHO_LIMIT`
of zCDP more (but for a probability `DELTA`); a semi-honest dealer, who colludes with none: with a partner it would
learn s, and so m; with the bank it would learn H, and so D. **Not safe against a malicious bank**: nobody sees m and
e, and a bank that sets them to something large on one row reads the bins of that row. Nor does anything here keep the
totals of small groups apart: a vector may be zero on all rows but one. The script that asks must say, and make sure,
which vectors are asked for. A partner checks for itself the size of its bins over all
rows and the number of vectors in the whole training. Wrong replies of a malicious partner are not noticed.

A number of a vector may be packed from several of one row (`ring/fields.py`): one word then brings all their totals.

Source: protocols.md section 4; the hint is that of SimplePIR (Henzinger et al., 2023), turned on histograms.
Letters: N, a_j, A, H, D, s, e as in ring/rlwe.py; K bins of a partner in all, V vectors in a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import KEY_BYTES, derive
from fedmkt.errors import PolicyRefused
from fedmkt.privacy.disclosure import HistogramTotals
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
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
    dealer,
    inbox_of,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.trees.sides.histogram_terms import Batch, Terms, bin_blocks
from fedmkt.protocol.witness import countersign, others_sign, showing
from fedmkt.ring import discrete_gaussian, kernels, rlwe, short_words
from fedmkt.ring.budget import Budget
from fedmkt.ring.fixed import correction
from fedmkt.ring.rlwe import DEGREE, NO_BIN, Codes, Integers


@dataclass(frozen=True)
class HistogramShape(PublicValue):
    """How many bins each column of a partner has."""

    counts: tuple[int, ...]

    @property
    def bins(self) -> int:
        """K, the bins of all columns."""
        return sum(self.counts)


@dataclass(frozen=True)
class MaskedHint(Message):
    """A block of rows of E = H - U."""

    block: int
    rows: Masked[Words]


@dataclass(frozen=True)
class EncryptedRows(Message):
    """A block of rows of b, a stream of short words, and with the first block s - v, (N, V)."""

    block: int
    rows: Words
    secrets: Masked[Words] | None


@dataclass(frozen=True)
class DealtShares(Message):
    """The bank's shares w_b of U v, (K, V), by partner."""

    shares: dict[str, Words]


@dataclass(frozen=True)
class MaskedTotals(Message):
    """D b - U (s - v) - w_p + f, (K, V): opens to the totals at the bank alone."""

    words: Masked[Words]


@dataclass(frozen=True)
class RowBins(State):
    """At a partner: the bin of each common row in each column, (F, rows), `NO_BIN` for none and for padding."""

    durable: ClassVar[bool] = False
    by_row: ClassVar[tuple[str, ...]] = ("codes",)
    codes: Codes
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Vectors(State):
    """At the bank: the vectors of the next batch, (rows, V), packed, zero in padding."""

    durable: ClassVar[bool] = False
    values: Integers


@dataclass(frozen=True)
class BatchTotals(State):
    """At the bank: D m of the last batch, (K, V), by partner; packed ones are for `fields.take_apart`."""

    durable: ClassVar[bool] = False
    values: dict[str, Integers]


@dataclass(frozen=True)
class OwnHint(State):
    """At a partner: H until it is sent, and U."""

    durable: ClassVar[bool] = False
    hint: Words
    mask: Words
    sent: int


@dataclass(frozen=True)
class Hints(State):
    """At the bank: the partners' E, and a_j ready for products."""

    durable: ClassVar[bool] = False
    masked: dict[str, Words]
    taken: int
    a: rlwe.Transformed


@dataclass(frozen=True)
class Encryption(State):
    """At the bank: the secrets of the batch under way, (V, N), and how many blocks are out; dies with its batch."""

    durable: ClassVar[bool] = False
    count: int
    secrets: NDArray[np.int8]
    sent: int


@dataclass(frozen=True)
class Summing(State):
    """At a partner: D b over the blocks so far, and s - v."""

    durable: ClassVar[bool] = False
    batch: Batch
    count: int
    sums: Words
    secrets: Words
    taken: int


def _polynomials(turn: Turn, terms: Terms) -> Words:
    """Return a_j: nobody chooses them, they follow from the nonces of all participants."""
    info = b"fedmkt histogram polynomials v1\n" + turn.epoch.to_bytes(8, "big")
    return rlwe.public_polynomials(derive(turn.run, info), rlwe.polynomials(terms.rows))


# --- once per epoch


def _describe(terms: Terms, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, HistogramShape]:
    held = turn.recall(RowBins)
    if held.codes.shape != (len(held.counts), terms.rows):
        raise ValueError(f"bins of {held.codes.shape} do not fit {terms.rows} rows")
    # Refuses terms that do not fit before anything is sent.
    terms.budget(len(held.counts))
    for column, count in zip(held.codes, held.counts, strict=True):
        rows = np.bincount(column[column != NO_BIN], minlength=count)
        if rows.min() < terms.minimum:
            raise PolicyRefused(f"a bin has fewer than {terms.minimum} rows", "merge bins")
    a = rlwe.transform_for_hint(_polynomials(turn, terms))
    h = rlwe.hint(a, held.codes, held.counts)
    return Outcome(HistogramShape(held.counts), keep=(OwnHint(h, np.empty_like(h), 0),))


def _mask_hint(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[MaskedHint, Silent]:
    held = turn.recall(OwnHint)
    blocks = bin_blocks(len(held.mask))
    rows = blocks[held.sent]
    shape = (rows.stop - rows.start, DEGREE)
    held.mask[rows] = turn.masks.words(turn.me, "histogram/U", 0, shape, block=held.sent)
    message = MaskedHint(held.sent, Masked(held.hint[rows] - held.mask[rows]))
    sent = held.sent + 1
    # H alone would give D away; once it is masked nothing needs it any more.
    hint = held.hint if sent < len(blocks) else np.empty((0, DEGREE), np.uint64)
    return Outcome(Silent(), send={turn.parties[0]: message}, keep=(OwnHint(hint, held.mask, sent),))


def _take_hints(terms: Terms, turn: Turn, inbox: Inbox[MaskedHint]) -> Outcome[Nothing, Silent]:
    held = _hints(turn, terms)
    found = inbox.by_sender(MaskedHint)
    for p in turn.others:
        blocks = bin_blocks(len(held.masked[p]))
        if held.taken >= len(blocks):
            continue
        rows = blocks[held.taken]
        message = found.get(p)
        if (
            message is None
            or message.block != held.taken
            or message.rows.words.shape != (rows.stop - rows.start, DEGREE)
        ):
            raise ValueError(f"the masked hint of {p} is missing or has another shape than agreed")
        held.masked[p][rows] = message.rows.words
    return Outcome(Silent(), keep=(Hints(held.masked, held.taken + 1, held.a),))


def _hints(turn: Turn, terms: Terms) -> Hints:
    if turn.has(Hints):
        return turn.recall(Hints)
    shapes = {p: turn.published(HistogramShape, p) for p in turn.others}
    masked = {str(p): np.empty((s.bins, DEGREE), np.uint64) for p, s in shapes.items()}
    return Hints(masked, 0, rlwe.transform(_polynomials(turn, terms)))


# --- for each batch


def _budgets(batch: Batch, turn: Turn) -> tuple[Budget, ...]:
    """Plan the words of a batch for the partner with the most columns: all partners are sent the same."""
    counts = [turn.published(HistogramShape, p).counts for p in turn.parties[1:]]
    return batch.budgets(max(len(c) for c in counts))


def _deal(batch: Batch, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtShares, Silent]:
    bank, *partners = turn.parties
    count, counts = next_count(turn, "histogram")
    shares = {}
    for p in partners:
        v = turn.masks.words(bank, "histogram/v", count, (DEGREE, batch.width), to=p)
        product = np.empty((turn.published(HistogramShape, p).bins, batch.width), np.uint64)
        for i, rows in enumerate(bin_blocks(len(product))):
            mask = turn.masks.words(p, "histogram/U", 0, (rows.stop - rows.start, DEGREE), block=i)
            product[rows] = kernels.matmul(mask, v)
        own = turn.masks.words(p, "histogram/w", count, product.shape, to=bank)
        shares[str(p)] = correction(product, [own])
    return Outcome(Silent(), send={bank: DealtShares(shares)}, keep=(counts,))


def _encrypt(batch: Batch, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[EncryptedRows, Silent]:
    """Send the next block of rows to every partner: secrets are fresh for each batch, noise for each block."""
    values = turn.recall(Vectors).values
    keep: tuple[State, ...] = ()
    if turn.has(Encryption):
        state = turn.recall(Encryption)
    else:
        batch.check(values)
        count, counts = next_count(turn, "histogram")
        state = Encryption(count, rlwe.draw_secrets(turn.random(KEY_BYTES), batch.width), 0)
        keep = (counts,)
    rows = batch.row_blocks()[state.sent]
    noise = rlwe.draw_noise(turn.random(KEY_BYTES), rows.stop - rows.start, batch.width)
    a = turn.recall(Hints).a.part(rows.start // DEGREE, rlwe.polynomials(rows.stop))
    b = rlwe.encrypt(a, state.secrets, noise, values[rows], batch.delta_bits)
    data = short_words.pack(b, [plan.word_bits for plan in _budgets(batch, turn)])
    send = {}
    for p in turn.others:
        masked = _mask_secrets(turn, state, p) if state.sent == 0 else None
        send[p] = EncryptedRows(state.sent, data, masked)
    return Outcome(Silent(), send=send, keep=(Encryption(state.count, state.secrets, state.sent + 1), *keep))


def _mask_secrets(turn: Turn, state: Encryption, partner: Name) -> Masked[Words]:
    columns = _columns(state.secrets)
    return Masked(columns - turn.masks.words(turn.me, "histogram/v", state.count, columns.shape, to=partner))


def _columns(secrets: NDArray[np.int8]) -> Words:
    """Return secrets, (V, N), as the words that multiply a hint, (N, V)."""
    return np.ascontiguousarray(secrets.T).astype(np.int64).view(np.uint64)


def _add(batch: Batch, turn: Turn, inbox: Inbox[EncryptedRows]) -> Outcome[Nothing, Silent]:
    """Add up the next block of rows; with the first one the batch is counted against the cap."""
    held, message = turn.recall(RowBins), inbox.one(turn.parties[0], EncryptedRows)
    keep: tuple[State, ...] = ()
    remember: dict[str, bytes] = {}
    if turn.has(Summing):
        state = turn.recall(Summing)
    else:
        remember = _count_vectors(batch, turn)
        state, counts = _begin(batch, turn, message, sum(held.counts))
        keep = (counts,)
    rows = batch.row_blocks()[state.taken]
    count, bits = rows.stop - rows.start, [plan.word_bits for plan in _budgets(batch, turn)]
    if message.block != state.taken or message.rows.shape != (short_words.stream_length(count, bits),):
        raise ValueError("a block of encrypted rows is out of order or has another shape than agreed")
    b = short_words.unpack(message.rows, count, bits)
    sums = state.sums + rlwe.histogram(held.codes[:, rows], held.counts, b)
    done = Summing(batch, state.count, sums, state.secrets, state.taken + 1)
    return Outcome(Silent(), keep=(done, *keep), remember=remember)


def _count_vectors(batch: Batch, turn: Turn) -> dict[str, bytes]:
    """Count in the store, not in a checkpoint: a resume from an earlier one must not forget what was answered."""
    ledger = f"histogram vectors/{turn.run.hex()}"
    asked = int(turn.store.get(ledger, b"0")) + batch.width
    if asked > batch.terms.vectors:
        raise PolicyRefused(f"the bank asks for {asked} encrypted vectors, agreed are {batch.terms.vectors}")
    return {ledger: str(asked).encode()}


def _begin(batch: Batch, turn: Turn, message: EncryptedRows, bins: int) -> tuple[Summing, State]:
    if message.secrets is None or message.secrets.words.shape != (DEGREE, batch.width):
        raise ValueError("the masked secrets are missing or have another shape than agreed")
    count, counts = next_count(turn, "histogram")
    sums = np.zeros((bins, batch.width), np.uint64)
    return Summing(batch, count, sums, message.secrets.words, 0), counts


def _reply(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[MaskedTotals, Silent]:
    """Answer the batch, flooded. What was answered is stored before it leaves, and never drawn again."""
    state, bank = turn.recall(Summing), turn.parties[0]
    if state.taken != len(state.batch.row_blocks()):
        raise ValueError("not all rows have arrived")
    product = kernels.matmul(turn.recall(OwnHint).mask, state.secrets)
    share = turn.masks.words(turn.me, "histogram/w", state.count, product.shape, to=bank)
    plans = _budgets(state.batch, turn)
    f = [discrete_gaussian.draw(turn.random, plan.flooding, product.shape[:1]) for plan in plans]
    words = state.sums - product - share + np.stack(f, axis=1).view(np.uint64)
    # Nobody here knows which rows have a zero: a total may be over no row at all.
    totals = words.size * len(state.batch.terms.fields)
    reveals = (HistogramTotals(to=bank, totals=totals, minimum=0),)
    return Outcome(Silent(), send={bank: MaskedTotals(Masked(words))}, forget=(Summing,), reveals=reveals)


def _decrypt(batch: Batch, turn: Turn, inbox: Inbox[MaskedTotals | DealtShares]) -> Outcome[Nothing, Silent]:
    state, hints = turn.recall(Encryption), turn.recall(Hints)
    dealt, found = inbox.one(dealer(turn.contract), DealtShares).shares, inbox.by_sender(MaskedTotals)
    s, values = _columns(state.secrets), {}
    for p in turn.others:
        shape = (turn.published(HistogramShape, p).bins, batch.width)
        if p not in found or found[p].words.words.shape != shape:
            raise ValueError(f"the totals of {p} are missing or have another shape than agreed")
        if p not in dealt or dealt[p].shape != shape:
            raise ValueError(f"the dealer's shares for {p} are missing or have another shape than agreed")
        noisy = found[p].words.words - kernels.matmul(hints.masked[p], s) - dealt[p]
        values[str(p)] = rlwe.decode(noisy, batch.delta_bits)
    return Outcome(Silent(), keep=(BatchTotals(values),), forget=(Encryption, Vectors))


MASK_HINT = Step("histogram.mask_hint", _mask_hint, Silent)
REPLY = showing(Step("histogram.reply", _reply, Silent, reveals=(HistogramTotals,)))


def send_hints(call: Caller, contract: Contract, terms: Terms) -> None:
    """Give the bank each partner's masked hint: once per epoch, before the first batch."""
    bank, *partners = data_parties(contract)
    describe = Step("histogram.describe", partial(_describe, terms), HistogramShape)
    take = Step("histogram.take_hints", partial(_take_hints, terms), Silent, reads=(MaskedHint,))
    shapes = call.all([ask(p, describe) for p in partners])
    blocks = {p: len(bin_blocks(r.public.value.bins)) for p, r in zip(partners, shapes, strict=True)}
    for i in range(max(blocks.values())):
        sent = call.all([ask(p, MASK_HINT) for p in partners if i < blocks[p]])
        call(bank, take, *inbox_of(sent, bank))


def add_up_vectors(
    call: Caller, contract: Contract, terms: Terms, width: int, most_rows: Sequence[int] | None = None
) -> None:
    """Give the bank the totals of V = `width` vectors of its own: `Vectors` before, `BatchTotals` after.

    most_rows : on how many rows each vector is not zero at most, a public bound: shorter words; None = on all
    """
    if most_rows is not None and len(most_rows) != width:
        raise ValueError(f"{width} vectors, but bounds for {len(most_rows)}")
    batch = Batch(terms, tuple(most_rows or [terms.rows] * width))
    bank, *partners = data_parties(contract)
    deal = Step("histogram.deal", partial(_deal, batch), Silent)
    encrypt = Step("histogram.encrypt", partial(_encrypt, batch), Silent)
    add = Step("histogram.add", partial(_add, batch), Silent, reads=(EncryptedRows,))
    decrypt = Step("histogram.decrypt", partial(_decrypt, batch), Silent, reads=(MaskedTotals, DealtShares))
    # With the last block all show their logs, so that one more turn makes them counter-signed before the totals leave.
    encrypts = [encrypt] * (len(batch.row_blocks()) - 1) + [showing(encrypt)]
    (block,), (dealt,) = call.both([ask(bank, encrypts[0])], [ask(dealer(contract), deal)])
    for following in encrypts[1:]:
        # The partners add up one block while the bank encrypts the next.
        _, (block,) = call.both(
            [ask(p, add, *inbox_of([block], p)) for p in partners], [ask(bank, following)]
        )
    call.all([ask(p, showing(add), *inbox_of([block], p)) for p in partners])
    countersign(call, [bank, *others_sign(partners)])
    replies = call.all([ask(p, REPLY) for p in partners])
    call(bank, decrypt, *inbox_of(replies, bank), *inbox_of([dealt], bank))
