"""The Gram matrix of the rows that count, of which only the bank knows which they are.

Computes shares of A = X' diag(beta) X / m for the first rows of the joint matrix, m of which count: the block between
bank and partner, and the partner's own block, since its columns are white on its whole list and not on these rows.
The bank adds its own block by itself. Takes part: the bank, one partner, and the dealer. Nobody learns anything: m
stays with the bank, which refuses where it is too small, and tells the others that much.
Safe against a semi-honest bank or partner, while the dealer colludes with neither.

Source: ring/side_bits.py for Z = beta X_p, of which the bank holds beta E + (1 - 2c) [u U], the partner
c U + (1 - 2c) [u U]: E = X_p - U_p is at the bank already, so nothing is opened for it. Then X_p' Z as every product
with a private matrix (ring/product.py): the bank opens its part of Z minus a fresh V.
The partner's part of the ridge counts rows of its whole list, see `prepare.RIDGE`; divided by m it bounds A from below.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.errors import DataError
from fedmkt.protocol.alignment.align import joint_rows
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
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
from fedmkt.protocol.layout import FIT, FRACTION_BITS, Layout, layout_of
from fedmkt.protocol.linear.gram import (
    BLOCK_BITS,
    FACTOR_BITS,
    INVERSE_BITS,
    MULTIPLY,
    WEIGHTED_SHIFT,
    GramOpening,
    OwnBlock,
    gram_size,
    least_rows,
    pair_slices,
    scaled_size,
)
from fedmkt.protocol.linear.matrices import Matrices, gram_rows
from fedmkt.protocol.linear.multiply import (
    DealtProduct,
    PairOpening,
    RoundOpening,
    deal_product,
    open_pair,
    product_inbox,
)
from fedmkt.protocol.linear.penalties import ridge
from fedmkt.protocol.linear.weighted import Weight, first_mask_bits
from fedmkt.protocol.shared import (
    DealtRounding,
    deal_rounding,
    deal_value,
    finish_rounding,
    open_masked,
    shared_from_seeds,
    sum_openings,
)
from fedmkt.ring import product
from fedmkt.ring.fixed import encode
from fedmkt.ring.kernels import gram
from fedmkt.ring.side_bits import chosen, signed


@dataclass(frozen=True)
class WeightedRows(Message):
    """The bank's part of beta X_p minus a mask of its own, (n, d_p)."""

    rows: Masked[Words]


@dataclass(frozen=True)
class DealtWeightedGram(Message):
    """The bank's corrections: of u U_p, (n, d_p); of the products of masks; of the rounding."""

    rows: Words
    product: Words
    rounding: DealtRounding


@dataclass(frozen=True)
class WeightedBlocks(State):
    """The own share of the blocks, then the own opening of it."""

    durable: ClassVar[bool] = False
    words: Words
    rounding: DealtRounding | None


def _weigh_rows(turn: Turn, inbox: Inbox[DealtWeightedGram]) -> Outcome[WeightedRows, Silent]:
    """At the bank: open the own part of beta X_p to the partner, compute the own share of both blocks."""
    plan, matrices, weight = layout_of(turn, FIT), turn.recall(Matrices), turn.recall(Weight)
    dealt, (partner,) = inbox.one(dealer(turn.contract), DealtWeightedGram), turn.others
    n = gram_rows(turn.contract, plan)
    masked = matrices.masked[partner][:n]
    if (
        weight.own is None
        or dealt.rows.shape != masked.shape
        or dealt.product.shape != (gram_size(turn, plan),)
    ):
        raise ValueError("the bank's weights or the dealer's corrections are missing or have another shape")
    rows = chosen(weight.own[:n], masked) + signed(weight.hidden[:n], dealt.rows)
    mask = turn.masks.words(turn.me, "gram/V", 0, masked.shape)
    share = dealt.product.copy()
    blocks = pair_slices(turn, plan)
    share[blocks[turn.me, partner]] += product.gram_first(matrices.first_mask, masked).reshape(-1)
    share[blocks[partner, partner]] += gram(masked, mask).reshape(-1)
    kept = WeightedBlocks(share, dealt.rounding)
    return Outcome(Silent(), send={partner: WeightedRows(Masked(rows - mask))}, keep=(kept,))


def _open_blocks(turn: Turn, inbox: Inbox[WeightedRows]) -> Outcome[GramOpening, Silent]:
    """Open the blocks under the mask of their first rounding, which divides by a power of two above the rows."""
    plan, matrices = layout_of(turn, FIT), turn.recall(Matrices)
    n, dealt = gram_rows(turn.contract, plan), None
    if turn.first:
        state = turn.recall(WeightedBlocks)
        share, dealt, own_block = state.words, state.rounding, _bank_block(turn, plan, matrices, n)
    else:
        share, own_block = _partner_share(turn, plan, matrices, inbox, n), np.zeros((1, 1), np.uint64)
    own = open_masked(turn, "gram/1", 0, share)
    kept = Matrices(matrices.stage, matrices.own, matrices.masked, np.empty((0, 0), np.uint64), matrices.sent)
    states = (WeightedBlocks(own, dealt), OwnBlock(own_block), kept)
    return Outcome(Silent(), send=to_all(turn.others, GramOpening(Masked(own))), keep=states)


def _partner_share(turn: Turn, plan: Layout, matrices: Matrices, inbox: Inbox[WeightedRows], n: int) -> Words:
    """Compute the partner's share of both blocks, with its part of the ridge as that many rows."""
    bank = turn.parties[0]
    opened = inbox.one(bank, WeightedRows).rows.words
    x, mask, c = matrices.own[:n], matrices.first_mask, turn.recall(Weight).hidden[:n]
    if opened.shape != mask.shape:
        raise ValueError("the bank's rows have another shape")
    uv = turn.masks.words(turn.me, "gram/uU", 0, mask.shape)
    rows = chosen(c, mask) + signed(c, uv)
    share = shared_from_seeds(turn, "gram/product", 0, gram_size(turn, plan), None).copy()
    blocks = pair_slices(turn, plan)
    share[blocks[bank, turn.me]] += product.gram_second(matrices.masked[bank][:n], x).reshape(-1)
    share[blocks[turn.me, turn.me]] += gram(x, rows + opened).reshape(-1)
    # The diagonal of the own block: every (d + 1)-th entry.
    share[blocks[turn.me, turn.me]][:: len(mask[0]) + 1] += encode(n * ridge(turn), 2 * FRACTION_BITS)
    return share


def _bank_block(turn: Turn, plan: Layout, matrices: Matrices, n: int) -> Words:
    """Compute the bank's own block of A over the same rows, so that A has no eigenvalue below 0."""
    count = _counting(turn, plan, n)
    x = matrices.own[:n] / 2.0**FRACTION_BITS
    block = x.T @ x / count
    at = np.arange(1, len(block))
    block[at, at] += ridge(turn)
    return encode(block, INVERSE_BITS)


def _counting(turn: Turn, plan: Layout, n: int) -> int:
    """Return m; DataError if there are too few."""
    count, least = int((joint_rows(turn, True)[:n] != NO_ROW).sum()), least_rows(turn.contract, plan)
    if count < least:
        raise DataError(
            f"{turn.me}: only {count} of the {n} rows from which the step is estimated are common, {least} are needed",
            "raise [model] gram_rows, or use fewer columns or a partner with more common customers",
        )
    return count


def _scale_blocks(turn: Turn, inbox: Inbox[GramOpening]) -> Outcome[PairOpening, Silent]:
    """Divide by m: the product with a number that is the bank's share alone."""
    plan, state = layout_of(turn, FIT), turn.recall(WeightedBlocks)
    n = gram_rows(turn.contract, plan)
    opened = sum_openings(state.words, inbox, turn, GramOpening)
    blocks = finish_rounding(turn, "gram/1", 0, opened, _first_shift(turn.contract, plan), state.rounding)
    factor = np.zeros((1, 1))
    if turn.first:
        factor += 2.0 ** _power(turn.contract, plan) / _counting(turn, plan, n)
    blocks = np.concatenate([blocks, _partner_ridge(turn, plan, n)])
    return open_pair(turn, "gram/2", 0, blocks.reshape(-1, 1), encode(factor, FACTOR_BITS))


def _partner_ridge(turn: Turn, plan: Layout, n: int) -> Words:
    """Along a path of penalties, return the own share of the partner's part of the ridge, on its way to be divided."""
    if not turn.contract.model.penalties:
        return np.empty(0, np.uint64)
    if turn.first:
        return np.zeros(plan.columns_of(turn.parties[1]), np.uint64)
    return encode(n * ridge(turn) / 2.0 ** _power(turn.contract, plan), BLOCK_BITS)


def _power(contract: Contract, plan: Layout) -> int:
    return (gram_rows(contract, plan) - 1).bit_length()


def _first_shift(contract: Contract, plan: Layout) -> int:
    return 2 * FRACTION_BITS + _power(contract, plan) - BLOCK_BITS


def _deal_blocks(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtWeightedGram, Silent]:
    plan = layout_of(turn, FIT)
    bank, partner = turn.parties
    n, blocks = gram_rows(turn.contract, plan), plan.matrix_blocks()
    masks = {
        p: turn.masks.words(p, "fit/U", 0, (blocks[0].stop, plan.columns_of(p)), block=0)[:n]
        for p in turn.parties
    }
    weighted = chosen(first_mask_bits(turn, FIT, n), masks[partner])
    theirs = turn.masks.words(partner, "gram/uU", 0, weighted.shape)
    v = turn.masks.words(bank, "gram/V", 0, weighted.shape)
    products = [gram(masks[bank], masks[partner]), gram(masks[partner], v)]
    dealt = DealtWeightedGram(
        weighted - theirs,
        deal_value(turn, "gram/product", 0, np.concatenate([m.reshape(-1) for m in products])),
        deal_rounding(turn, "gram/1", 0, gram_size(turn, plan), _first_shift(turn.contract, plan)),
    )
    return Outcome(Silent(), send={bank: dealt})


def _deal_scale(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtProduct, Silent]:
    size = scaled_size(turn, layout_of(turn, FIT))
    dealt = deal_product(turn, "gram/2", 0, (size, 1), (1, 1), WEIGHTED_SHIFT)
    return Outcome(Silent(), send={turn.parties[0]: dealt})


DEAL_BLOCKS = Step("fit.deal_weighted_gram", _deal_blocks, Silent)
WEIGH_ROWS = Step("fit.weigh_rows", _weigh_rows, Silent, reads=(DealtWeightedGram,))
OPEN_BLOCKS = Step("fit.weighted_gram", _open_blocks, Silent, reads=(WeightedRows,))
DEAL_SCALE = Step("fit.deal_gram_scale", _deal_scale, Silent)
SCALE_BLOCKS = Step("fit.scale_weighted_gram", _scale_blocks, Silent, reads=(GramOpening,))


def weighted_gram(call: Caller, contract: Contract) -> list[Reply[RoundOpening, Silent]]:
    """Compute the shared blocks of the Gram matrix of the rows that count; the last rounding is left to its reader."""
    bank, partner = parties = data_parties(contract)
    weighed = call(bank, WEIGH_ROWS, call(dealer(contract), DEAL_BLOCKS).to(bank))
    opened = call.all([ask(bank, OPEN_BLOCKS), ask(partner, OPEN_BLOCKS, weighed.to(partner))])
    scaling = [ask(p, SCALE_BLOCKS, *inbox_of(opened, p)) for p in parties]
    factors, (dealt,) = call.both(scaling, [ask(dealer(contract), DEAL_SCALE)])
    return call.all([ask(p, MULTIPLY, *product_inbox(factors, dealt, p)) for p in parties])
