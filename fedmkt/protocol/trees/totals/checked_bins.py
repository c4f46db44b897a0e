"""Checked bins: the bank shows that the columns behind its hint are bins, without showing which row is in which.

Computes nothing but whether the bank's hint H of `shared_histogram` is D A for zeros and ones D with at most one bin of
each column to a row; else the bank could weigh rows at will in the totals of its own columns. Takes part: the bank, the
partner, and the dealer. Once per epoch, after the masked hints E = H - U are exchanged:

    bank     ->  partner        d = place of the row - t modulo B + 1, for each row and column of B bins, t dealt;
                                the last place is that of rows in no bin
    partner  ->  bank, dealer   a seed, from which all draw Z, `SUBSETS` random vectors of N zeros and ones
    dealer   ->  bank           tags of ones at place t and zeros elsewhere, B + 1 for each row and column
    bank     ->  partner        a digest of the tags of D A Z - mu, mu dealt
    dealer   ->  partner        U Z - mu, and the keys of mu

Moved around by d the dealt ones are at the bins, so D is made of tagged zeros and ones whatever the bank sends. The
partner compares the digest with the tags of E Z + U Z - mu. A factor of a row that would move a total goes unnoticed
with a probability of at most 2^-21 + 2^-(64 - k), as in `checked_sums`. An answer by another D than the hint's is one
by the hint's plus a number that the bank knows: it gains nothing.

| learns | what |
|---|---|
| bank, dealer, coordinator | nothing but sizes |
| partner | nothing: d is uniform, and D A Z lies under mu |

Safe against a malicious bank, a semi-honest partner and a semi-honest dealer that colludes with neither. That the bins
are those of the bank's columns nobody can tell; a bank may bring any.

Source: as `share_tags`. Letters: as in `shared_histogram` and there. 8 bytes for each row and bin, once per epoch.
"""

import hmac
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import KEY_BYTES, expand
from fedmkt.errors import PeerError
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
    Nothing,
    Outcome,
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
from fedmkt.protocol.layout import BLOCK_BYTES
from fedmkt.protocol.trees.sides.histogram import RowBins
from fedmkt.protocol.trees.sides.histogram_terms import bin_blocks
from fedmkt.protocol.trees.totals.dealt_pads import public_polynomials
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.shared_histogram import BinHints
from fedmkt.ring import kernels, rlwe
from fedmkt.ring.share_tags import SUBSETS

Places = NDArray[np.uint8]


@dataclass(frozen=True)
class BinShifts(Message):
    """d of each row and column, (F, n)."""

    shifts: Masked[Places]


@dataclass(frozen=True)
class VectorSeed(Message):
    """What Z is drawn from, 32 bytes."""

    seed: bytes


@dataclass(frozen=True)
class PlaceTags(Message):
    """Tags of the dealt ones and zeros of a block of rows, (places of all columns, rows)."""

    block: int
    words: Words


@dataclass(frozen=True)
class BinProof(Message):
    """The digest of the tags of D A Z - mu."""

    digest: bytes


@dataclass(frozen=True)
class MaskedVectors(Message):
    """U Z - mu and the keys of mu, (K, subsets) each."""

    vectors: Words
    keys: Words


@dataclass(frozen=True)
class CheckedPlaces(State):
    """The check under way: d; A Z, (n, subsets); at the bank the tags of D A Z so far, (K, subsets)."""

    durable: ClassVar[bool] = False
    shifts: Places
    seed: bytes
    combined: Words
    tags: Words


# --- what both or the dealer work out


def places_of(lanes: Lanes, turn: Turn) -> int:
    """Count the places of all columns of the bank."""
    counts = lanes.counts[turn.parties[0]]
    return sum(counts) + len(counts)


def row_blocks(lanes: Lanes, places: int) -> list[slice]:
    """Split the rows into blocks of about `BLOCK_BYTES` of tags."""
    step = max(1, BLOCK_BYTES // (8 * places))
    return [slice(i, min(lanes.rows, i + step)) for i in range(0, lanes.rows, step)]


def _turns(lanes: Lanes, turn: Turn, block: int, rows: int) -> Places:
    """Draw t of each column and row of a block, (F, rows), at the bank or the dealer."""
    counts = np.array(lanes.counts[turn.parties[0]], np.uint64)[:, None]
    drawn = turn.masks.words(turn.parties[0], "bins/turns", 0, (len(counts), rows), block=block)
    return (drawn % (counts + np.uint64(1))).astype(np.uint8)


def _alpha(turn: Turn) -> Words:
    return turn.masks.words(turn.parties[1], "bins/alpha", 0, 1)


def _betas(turn: Turn, block: int, shape: tuple[int, int]) -> Words:
    return turn.masks.words(turn.parties[1], "bins/tags", 0, shape, block=block)


def _mask(turn: Turn, what: str, bins: int) -> Words:
    return turn.masks.words(turn.parties[0], f"bins/{what}", 0, (bins, SUBSETS))


def _vectors(seed: bytes) -> NDArray[np.int8]:
    """Draw Z, (subsets, N)."""
    return (expand(seed, SUBSETS * rlwe.DEGREE) & np.uint8(1)).view(np.int8).reshape(SUBSETS, rlwe.DEGREE)


def _as_words(vectors: NDArray[np.int8]) -> Words:
    return np.ascontiguousarray(vectors.T).astype(np.uint64)


def _combined(lanes: Lanes, turn: Turn, seed: bytes) -> Words:
    """Compute A Z, (n, subsets)."""
    a = rlwe.transform(public_polynomials(turn, lanes.rows))
    return np.ascontiguousarray(rlwe.multiply(a, _vectors(seed))[: lanes.rows])


def weigh_bins(counts: tuple[int, ...], shifts: Places, tags: Words, combined: Words) -> Words:
    """Move tags or keys of dealt places, (places, n), by d, and add them up times A Z: (K, subsets)."""
    out, at = [], 0
    for count, shift in zip(counts, shifts, strict=True):
        place = (np.arange(count)[:, None] - shift.astype(np.int64)) % (count + 1)
        moved = np.take_along_axis(tags[at : at + count + 1], place, axis=0)
        out.append(kernels.matmul(moved, combined))
        at += count + 1
    return np.concatenate(out)


def _digest(tags: Words) -> bytes:
    raw = np.ascontiguousarray(tags).astype("<u8", copy=False).tobytes()
    return sha256(b"fedmkt bin tags v1\n" + raw).digest()


# --- steps


def shift_bins(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[BinShifts, Silent]:
    """At the bank: open its places under the dealt turns."""
    held, (partner,) = turn.recall(RowBins), turn.others
    sizes = np.array(held.counts, np.int64)[:, None]
    places = np.where(held.codes == rlwe.NO_BIN, sizes, held.codes)
    blocks = row_blocks(lanes, places_of(lanes, turn))
    turns = [_turns(lanes, turn, i, rows.stop - rows.start) for i, rows in enumerate(blocks)]
    shifts = ((places - np.concatenate(turns, axis=1)) % (sizes + 1)).astype(np.uint8)
    none = np.empty((0, 0), np.uint64)
    kept = CheckedPlaces(shifts, b"", none, none)
    return Outcome(Silent(), send={partner: BinShifts(Masked(shifts))}, keep=(kept,))


def draw_vectors(lanes: Lanes, turn: Turn, inbox: Inbox[BinShifts]) -> Outcome[VectorSeed, Silent]:
    """At the partner: draw Z, once hint and places are fixed."""
    (bank,), seed = turn.others, turn.random(KEY_BYTES)
    shifts, counts = inbox.one(bank, BinShifts).shifts.words, lanes.counts[bank]
    if shifts.shape != (len(counts), lanes.rows) or (shifts > np.array(counts)[:, None]).any():
        raise ValueError(
            "the places of the bank's rows are of another shape than agreed, or beyond the last one"
        )
    kept = CheckedPlaces(shifts, seed, np.empty((0, 0), np.uint64), np.empty((0, 0), np.uint64))
    send = to_all((bank, dealer(turn.contract)), VectorSeed(seed))
    return Outcome(Silent(), send=send, keep=(kept,))


def begin_bins(lanes: Lanes, turn: Turn, inbox: Inbox[VectorSeed]) -> Outcome[Nothing, Silent]:
    """At the bank: compute A Z."""
    (partner,) = turn.others
    combined = _combined(lanes, turn, inbox.one(partner, VectorSeed).seed)
    tags = np.zeros((lanes.bins(turn.me), SUBSETS), np.uint64)
    return Outcome(Silent(), keep=(replace(turn.recall(CheckedPlaces), combined=combined, tags=tags),))


def deal_places(lanes: Lanes, block: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[PlaceTags, Silent]:
    """At the dealer: tag the dealt ones and zeros of a block of rows."""
    bank, places = turn.parties[0], places_of(lanes, turn)
    rows = row_blocks(lanes, places)[block]
    tags = _betas(turn, block, (places, rows.stop - rows.start))
    starts = np.cumsum([0, *(count + 1 for count in lanes.counts[bank])])[:-1]
    alpha, turns = _alpha(turn), _turns(lanes, turn, block, tags.shape[1])
    for start, of_rows in zip(starts, turns, strict=True):
        tags[start + of_rows.astype(np.int64), np.arange(len(of_rows))] += alpha
    return Outcome(Silent(), send={bank: PlaceTags(block, tags)})


def add_places(lanes: Lanes, block: int, turn: Turn, inbox: Inbox[PlaceTags]) -> Outcome[Nothing, Silent]:
    """At the bank: add up the tags of a block of rows."""
    state, places = turn.recall(CheckedPlaces), places_of(lanes, turn)
    message, rows = inbox.one(dealer(turn.contract), PlaceTags), row_blocks(lanes, places)[block]
    if message.block != block or message.words.shape != (places, rows.stop - rows.start):
        raise ValueError("a block of tags of places is out of order or has another shape")
    counts, combined = lanes.counts[turn.me], state.combined[rows]
    tags = state.tags + weigh_bins(counts, state.shifts[:, rows], message.words, combined)
    return Outcome(Silent(), keep=(replace(state, tags=tags),))


def show_bins(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[BinProof, Silent]:
    """At the bank: show the digest of the tags."""
    (partner,), state = turn.others, turn.recall(CheckedPlaces)
    digest = _digest(state.tags - _mask(turn, "mask tags", len(state.tags)))
    return Outcome(Silent(), send={partner: BinProof(digest)}, forget=(CheckedPlaces,))


def mask_vectors(lanes: Lanes, turn: Turn, inbox: Inbox[VectorSeed]) -> Outcome[MaskedVectors, Silent]:
    """At the dealer: compute U Z - mu."""
    bank, partner = turn.parties
    z, bins = _as_words(_vectors(inbox.one(partner, VectorSeed).seed)), lanes.bins(bank)
    product = np.empty((bins, SUBSETS), np.uint64)
    for i, rows in enumerate(bin_blocks(bins)):
        u = turn.masks.words(bank, "nodes/U", 0, (rows.stop - rows.start, rlwe.DEGREE), block=i)
        product[rows] = kernels.matmul(u, z)
    mu = _mask(turn, "mask", bins)
    keys = _mask(turn, "mask tags", bins) - _alpha(turn) * mu
    return Outcome(Silent(), send={partner: MaskedVectors(product - mu, keys)})


def check_bins(lanes: Lanes, turn: Turn, inbox: Inbox[BinProof | MaskedVectors]) -> Outcome[Nothing, Silent]:
    """At the partner: compare the tags with the hint; PeerError where they differ."""
    (bank,), state = turn.others, turn.recall(CheckedPlaces)
    dealt, counts, places = (
        inbox.one(dealer(turn.contract), MaskedVectors),
        lanes.counts[bank],
        places_of(lanes, turn),
    )
    if not dealt.vectors.shape == dealt.keys.shape == (lanes.bins(bank), SUBSETS):
        raise ValueError("the dealer's vectors are of another shape than agreed")
    combined = _combined(lanes, turn, state.seed)
    keys = np.zeros(dealt.keys.shape, np.uint64) - dealt.keys
    for block, rows in enumerate(row_blocks(lanes, places)):
        betas = _betas(turn, block, (places, rows.stop - rows.start))
        keys += weigh_bins(counts, state.shifts[:, rows], betas, combined[rows])
    shown = (
        kernels.matmul(turn.recall(BinHints).masked[bank], _as_words(_vectors(state.seed))) + dealt.vectors
    )
    if not hmac.compare_digest(_digest(_alpha(turn) * shown + keys), inbox.one(bank, BinProof).digest):
        raise PeerError(
            f"{bank}: the columns behind its hint are no bins; no totals are sent",
            hint="ask the bank which program it runs, before another run is agreed",
        )
    return Outcome(Silent(), forget=(CheckedPlaces,))


# --- script


def check_own_bins(call: Caller, contract: Contract, lanes: Lanes) -> None:
    """Check the bank's bins once per epoch: hints are exchanged before, totals asked for after."""
    (bank, partner), maker = data_parties(contract), dealer(contract)
    shift = Step("bins.shift", partial(shift_bins, lanes), Silent)
    draw = Step("bins.draw_vectors", partial(draw_vectors, lanes), Silent, reads=(BinShifts,))
    begin = Step("bins.begin", partial(begin_bins, lanes), Silent, reads=(VectorSeed,))
    show = Step("bins.show", partial(show_bins, lanes), Silent)
    mask = Step("bins.mask_vectors", partial(mask_vectors, lanes), Silent, reads=(VectorSeed,))
    check = Step("bins.check", partial(check_bins, lanes), Silent, reads=(BinProof, MaskedVectors))
    drawn = call(partner, draw, *inbox_of([call(bank, shift)], partner))
    call(bank, begin, *inbox_of([drawn], bank))
    counts = lanes.counts[bank]
    for block in range(len(row_blocks(lanes, sum(counts) + len(counts)))):
        deal = Step("bins.deal_places", partial(deal_places, lanes, block), Silent)
        add = Step("bins.add_places", partial(add_places, lanes, block), Silent, reads=(PlaceTags,))
        call(bank, add, *inbox_of([call(maker, deal)], bank))
    (shown,), (masked,) = call.both([ask(bank, show)], [ask(maker, mask, *inbox_of([drawn], maker))])
    call(partner, check, *inbox_of([shown], partner), *inbox_of([masked], partner))
