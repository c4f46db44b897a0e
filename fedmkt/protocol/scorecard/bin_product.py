"""Product of a partner's one-hot bins with the bank's labels: Xᵀ y on shares of the two, modulo 2^32.

Takes part: the bank, one partner, and the dealer. Nobody learns anything: each side is shown the other's factor under
a mask of one use, and both end with a share. Safe against a semi-honest bank or partner, while the dealer colludes
with neither: with the bank it would read every row's bins, with the partner every label.

Source: protocols.md sections 2 and 3. With U of the partner and v of the bank, which the dealer knows too, E = X - U
is shown to the bank and d = y - v to the partner, each once:

    Xᵀ y = Xᵀ d [partner]  +  Eᵀ v [bank]  +  Uᵀ v [dealt]

Rows travel in blocks and are not kept.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.protocol.alignment.align import joint_rows, train_rows
from fedmkt.protocol.alignment.items import NO_ROW, Known
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    HalfWords,
    Inbox,
    Masked,
    Message,
    Name,
    Outcome,
    Reply,
    Silent,
    State,
    Step,
    Turn,
    ask,
    inbox_of,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.prepare import own_columns
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.ring.fixed import correction
from fedmkt.ring.kernels import matvec_transposed

LABEL = "totals"
"""First part of the address of every mask."""


@dataclass(frozen=True)
class MaskedBins(Message):
    """A block of rows of E = X - U, modulo 2^32."""

    block: int
    rows: Masked[HalfWords]


@dataclass(frozen=True)
class MaskedLabels(Message):
    """A block of d = y - v, modulo 2^32."""

    block: int
    labels: Masked[HalfWords]


@dataclass(frozen=True)
class PartnerSide(State):
    """At the partner: place of each row's bins among all bins (n, columns), `width` where padded; its share."""

    durable: ClassVar[bool] = False
    count: int
    sizes: BinSizes
    names: tuple[str, ...]
    places: NDArray[np.int32]
    rows: NDArray[np.int64]
    share: HalfWords
    sent: int


@dataclass(frozen=True)
class BankSide(State):
    """At the bank: the labels of the rows that both have, v of the block under way, its share."""

    durable: ClassVar[bool] = False
    partner: Name
    count: int
    labels: HalfWords
    rows: int
    v: HalfWords
    share: HalfWords
    sent: int


def _mask_bins(turn: Turn, inbox: Inbox[MaskedLabels]) -> Outcome[MaskedBins, Silent]:
    """Take in the bank's block of labels, send the own next block of bins; the last call only takes in."""
    side = turn.recall(PartnerSide)
    blocks = side.sizes.blocks(len(side.places))
    share = side.share
    if side.sent:
        found = inbox.one(turn.parties[0], MaskedLabels)
        places = side.places[blocks[side.sent - 1]]
        if (found.block, found.labels.words.shape) != (side.sent - 1, (len(places),)):
            raise ValueError("the masked labels are of another block")
        share = share + _sum_by_bin(places, found.labels.words, side.sizes.width)
    if side.sent == len(blocks):
        dealt = turn.masks.half_words(turn.me, f"{LABEL}/g", side.count, side.sizes.width)
        nothing = np.empty((0, 0), np.int32)
        return Outcome(Silent(), keep=(replace(side, share=share + dealt, places=nothing),))
    places = side.places[blocks[side.sent]]
    masked = MaskedBins(side.sent, Masked(_masked_one_hot(turn, side, places)))
    kept = replace(side, share=share, sent=side.sent + 1)
    return Outcome(Silent(), send={turn.parties[0]: masked}, keep=(kept,))


def _masked_one_hot(turn: Turn, side: PartnerSide, places: NDArray[np.int32]) -> HalfWords:
    masked = _bin_mask(turn, turn.me, side.count, side.sent, (len(places), side.sizes.width))
    np.negative(masked, out=masked)
    # A row is padded in all of its columns or in none.
    is_real = np.flatnonzero(places[:, 0] < side.sizes.width)
    masked[is_real[:, None], places[is_real]] += np.uint32(1)
    return masked


def _sum_by_bin(places: NDArray[np.int32], d: HalfWords, width: int) -> HalfWords:
    """Compute Xᵀ d. Sums of at most 2^20 numbers below 2^32 are exact in float64, in which numpy counts."""
    weights = np.repeat(d.astype(np.float64), places.shape[1])
    sums = np.bincount(places.reshape(-1), weights=weights, minlength=width + 1)[:width]
    return sums.astype(np.uint64).astype(np.uint32)


def _bin_mask(turn: Turn, partner: Name, count: int, block: int, shape: tuple[int, int]) -> HalfWords:
    return turn.masks.half_words(partner, f"{LABEL}/U", count, shape, block=block)


def _mask_labels(partner: Name, turn: Turn, inbox: Inbox[MaskedBins]) -> Outcome[MaskedLabels, Silent]:
    """Take in the partner's block of bins, send the next block of labels; the last call only takes in."""
    sizes = turn.published(BinSizes, partner)
    started: tuple[State, ...] = ()
    if turn.has(BankSide):
        side = turn.recall(BankSide)
    else:
        side, started = _bank_side(turn, partner, sizes)
    blocks = sizes.blocks(len(side.labels))
    share = side.share
    if side.sent:
        found = inbox.one(partner, MaskedBins)
        if (found.block, found.rows.words.shape) != (side.sent - 1, (len(side.v), sizes.width)):
            raise ValueError("the masked bins are of another block")
        share = share + _transposed_product(found.rows.words, side.v)
    if side.sent == len(blocks):
        return Outcome(Silent(), keep=(replace(side, share=share, v=np.empty(0, np.uint32)),))
    rows = blocks[side.sent]
    v = _label_mask(turn, partner, side.count, side.sent, rows.stop - rows.start)
    kept = replace(side, share=share, v=v, sent=side.sent + 1)
    message = MaskedLabels(side.sent, Masked(side.labels[rows] - v))
    return Outcome(Silent(), send={partner: message}, keep=(kept, *started))


def _bank_side(turn: Turn, partner: Name, sizes: BinSizes) -> tuple[BankSide, tuple[State, ...]]:
    label, rows = own_columns(turn).label, joint_rows(turn, True)
    if label is None:
        raise ValueError(f"{turn.me} has no label")
    is_shared = rows != NO_ROW
    if turn.has(Known):
        is_shared[is_shared] = turn.recall(Known).rows[rows[is_shared]]
    y = np.zeros(len(rows), np.uint32)
    y[is_shared] = label[rows[is_shared]].astype(np.uint32)
    count, counted = next_count(turn, f"{LABEL}/{partner}")
    empty = np.empty(0, np.uint32)
    side = BankSide(partner, count, y, int(is_shared.sum()), empty, np.zeros(sizes.width, np.uint32), 0)
    return side, (counted,)


def _label_mask(turn: Turn, partner: Name, count: int, block: int, rows: int) -> HalfWords:
    return turn.masks.half_words(turn.parties[0], f"{LABEL}/v", count, rows, to=partner, block=block)


def _transposed_product(matrix: HalfWords, v: HalfWords) -> HalfWords:
    # Modulo 2^32 a word and its reading as a signed number are the same, and the kernel takes int32 as it is.
    return matvec_transposed(matrix.view(np.int32), v.astype(np.uint64)).astype(np.uint32)


def deal_product(turn: Turn, partner: Name, count: int) -> HalfWords:
    """At the dealer: return the bank's correction of one product."""
    sizes = turn.published(BinSizes, partner)
    total = np.zeros(sizes.width, np.uint32)
    rows = train_rows(turn.contract, turn.published(Overlap, turn.parties[0]))
    for block, at in enumerate(sizes.blocks(rows)):
        n = at.stop - at.start
        mask = _bin_mask(turn, partner, count, block, (n, sizes.width))
        total += _transposed_product(mask, _label_mask(turn, partner, count, block, n))
    return correction(total, [turn.masks.half_words(partner, f"{LABEL}/g", count, sizes.width)])


MASK_BINS = Step("totals.mask_bins", _mask_bins, Silent, reads=(MaskedLabels,))


def exchange(call: Caller, bank: Name, partner: Name, blocks: int) -> None:
    """Show the bank the masked bins and the partner the masked labels, block by block."""
    mask_labels = Step("totals.mask_labels", partial(_mask_labels, partner), Silent, reads=(MaskedBins,))
    bins: list[Reply[MaskedBins, Silent]] = []
    labels: list[Reply[MaskedLabels, Silent]] = []
    for _ in range(blocks + 1):
        bins, labels = call.both(
            [ask(partner, MASK_BINS, *inbox_of(labels, partner))],
            [ask(bank, mask_labels, *inbox_of(bins, bank))],
        )
