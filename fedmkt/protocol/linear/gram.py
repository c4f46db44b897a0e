"""The shared inverse of the Gram matrix: what makes few passes enough.

Computes shares of K = 2^l A^-1 / (p (1 - p) n) for the Gram matrix A of all parties' whitened columns, and the first
weights. Takes part: all parties that hold data, and the dealer. Nobody learns anything: the Gram block between two
parties stays shared (opened, forty one-row columns of one side would read forty rows of the other).
Safe against semi-honest parties, all but one of them together, while the dealer colludes with none.
Source: protocols.md section 2; Newton-Schulz: Y <- Y (2 I - A Y), from 2/k I for k parties. Where the match is
hidden, `weighted_gram` computes the blocks, and the iteration starts lower and lasts longer; so it does with products
of pairs (`pair_gram`), which nobody can whiten.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
    Name,
    Nothing,
    Outcome,
    Reply,
    Sealed,
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
from fedmkt.protocol.layout import FIT, FRACTION_BITS, WEIGHT_BITS, Layout, layout_of
from fedmkt.protocol.linear.matrices import Matrices, gram_rows
from fedmkt.protocol.linear.multiply import (
    DealtProduct,
    Multiplication,
    PairOpening,
    RoundOpening,
    deal_product,
    finish_product,
    open_pair,
    product_inbox,
    take_product,
)
from fedmkt.protocol.linear.pair_gram import (
    PAIR_ROWS,
    held_slices,
    pair_ridge,
    pair_spread,
    place_pairs,
    with_pairs,
)
from fedmkt.protocol.linear.penalties import goes_on, growth, ridge, share_trained
from fedmkt.protocol.linear.predictor import Weights
from fedmkt.protocol.linear.targets import Labels
from fedmkt.protocol.linear.warm import earlier
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.prepare import real
from fedmkt.protocol.shared import (
    DealtRounding,
    Opening,
    deal_rounding,
    deal_value,
    finish_rounding,
    first_only,
    open_masked,
    shared_from_seeds,
    sum_openings,
)
from fedmkt.ring import product
from fedmkt.ring.fixed import encode
from fedmkt.ring.kernels import gram

Floats = NDArray[np.float64]
INVERSE_BITS = 20
STEP_BITS = 16
FACTOR_BITS = 10
BLOCK_BITS = 30
"""Scale of the weighted blocks before they are divided by the number of rows that count, which the bank alone knows."""
WEIGHTED_SHIFT = BLOCK_BITS + FACTOR_BITS - INVERSE_BITS
MAX_SCALE = 12.0
"""The bank's 1/(p(1-p)) is capped here. A row's curvature p(1-p) is at most 1/4, whatever the response: customers who
said yes before have p near 1/2 among many with p near 0. So no step, times the curvature in front of it, is above
12/4, which is 2 (1 + momentum) in the last passes and less than that before: beyond, passes swing. Momentum makes up
for the rest. Far below the most that `prepare.RIDGE` allows, which says why."""


@dataclass(frozen=True)
class GramOpening(Opening):
    """A party's share of the Gram blocks between parties, or of their scaled form, masked."""


@dataclass(frozen=True)
class DealtGram(Message):
    """The first party's corrections: of the products of masks, and of the two roundings."""

    product: Words
    first: DealtRounding
    second: DealtRounding


@dataclass(frozen=True)
class Gram(State):
    """The Gram blocks between parties under way."""

    durable: ClassVar[bool] = False
    own: Words
    dealt: DealtGram | None


def _pairs(turn: Turn) -> list[tuple[Name, Name]]:
    """List the blocks on shares: whitened on all rows that count, a party's own block is known to be the identity."""
    names = turn.parties
    if turn.contract.align.hidden:
        return [(names[0], names[1]), (names[1], names[1])]
    return [(p, q) for i, p in enumerate(names) for q in names[i + 1 :]]


def pair_slices(turn: Turn, plan: Layout) -> dict[tuple[Name, Name], slice]:
    """Say where each block on shares stands in the vector of all their entries."""
    at, found = 0, {}
    for p, q in _pairs(turn):
        size = plan.columns_of(p) * plan.columns_of(q)
        found[p, q] = slice(at, at + size)
        at += size
    return found


def gram_size(turn: Turn, plan: Layout) -> int:
    """Count the entries of all blocks on shares: of two parties' columns, then of all columns with those of pairs."""
    own = sum(plan.columns_of(p) * plan.columns_of(q) for p, q in _pairs(turn))
    return own + plan.width * (plan.width - plan.own_width)


def scaled_size(turn: Turn, plan: Layout) -> int:
    """Count what a hidden match divides by its rows: all blocks, and along a path of penalties the partner's ridge."""
    return gram_size(turn, plan) + (plan.columns_of(turn.parties[1]) if turn.contract.model.penalties else 0)


def _gram_shifts(turn: Turn, plan: Layout) -> tuple[int, int]:
    """Return the two roundings' shifts: by the power of two above the rows, then by the factor's scale."""
    power = (gram_rows(turn.contract, plan) - 1).bit_length()
    return 2 * FRACTION_BITS + power - INVERSE_BITS, FACTOR_BITS


def _gram(turn: Turn, inbox: Inbox[DealtGram]) -> Outcome[GramOpening, Silent]:
    plan, matrices = layout_of(turn, FIT), turn.recall(Matrices)
    n = gram_rows(turn.contract, plan)
    dealt = inbox.one(dealer(turn.contract), DealtGram) if turn.first else None
    held = held_slices(plan, _pairs(turn))
    size = max(int(where.stop) for where in held.values())
    share = shared_from_seeds(turn, "gram/product", 0, size, dealt.product if dealt else None).copy()
    for (p, q), where in held.items():
        if turn.me == p:
            share[where] += product.gram_first(matrices.first_mask, matrices.masked[q][:n]).reshape(-1)
        elif turn.me == q:
            share[where] += product.gram_second(matrices.masked[p][:n], matrices.own[:n]).reshape(-1)
    if plan.pairs:
        cross = pair_slices(turn, plan)
        share = with_pairs(turn, plan, list(cross), share, matrices.own[:n])
    own = open_masked(turn, "gram/1", 0, share)
    kept = Matrices(matrices.stage, matrices.own, matrices.masked, np.empty((0, 0), np.uint64), matrices.sent)
    return Outcome(
        Silent(), send=to_all(turn.others, GramOpening(Masked(own))), keep=(Gram(own, dealt), kept)
    )


def _scale_gram(turn: Turn, inbox: Inbox[GramOpening]) -> Outcome[GramOpening, Silent]:
    """Divide by the real number of rows: by a power of two (rounding), times an integer that all compute alike."""
    plan, state = layout_of(turn, FIT), turn.recall(Gram)
    opened = sum_openings(state.own, inbox, turn, GramOpening)
    share = finish_rounding(
        turn, "gram/1", 0, opened, _gram_shifts(turn, plan)[0], state.dealt.first if state.dealt else None
    )
    own = open_masked(turn, "gram/2", 0, share * np.uint64(_row_factor(turn, plan)))
    return Outcome(
        Silent(), send=to_all(turn.others, GramOpening(Masked(own))), keep=(Gram(own, state.dealt),)
    )


def _row_factor(turn: Turn, plan: Layout) -> int:
    n = gram_rows(turn.contract, plan)
    rows = int((turn.recall(Split).train[:n] != NO_ROW).sum())
    if turn.contract.align.join == "left":
        rows = n  # the partner knows the bank's rows with their padding only; these are a few more
    return (1 << ((n - 1).bit_length() + FACTOR_BITS)) // max(1, rows)


def _deal_gram(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtGram, Silent]:
    plan = layout_of(turn, FIT)
    n, blocks = gram_rows(turn.contract, plan), plan.matrix_blocks()
    masks = {
        p: turn.masks.words(p, "fit/U", 0, (blocks[0].stop, plan.held_of(p)), block=0)[:n]
        for p in turn.parties
    }
    total = np.concatenate([gram(masks[p], masks[q]).reshape(-1) for p, q in _pairs(turn)])
    first, second = _gram_shifts(turn, plan)
    size = gram_size(turn, plan)
    dealt = DealtGram(
        deal_value(turn, "gram/product", 0, total),
        deal_rounding(turn, "gram/1", 0, size, first),
        deal_rounding(turn, "gram/2", 0, size, second),
    )
    return Outcome(Silent(), send={turn.parties[0]: dealt})


@dataclass(frozen=True)
class OwnBlock(State):
    """Hidden match: what a party adds to its own block of A by itself."""

    durable: ClassVar[bool] = False
    words: Words


@dataclass(frozen=True)
class Base(State):
    """The own shares of A at the least penalty, (width, width), and of its ridge on the diagonal, (width,)."""

    a: Words
    ridge: Words


@dataclass(frozen=True)
class Inverse(State):
    """Newton-Schulz under way: A, Y and A Y on shares, the number of products done."""

    durable: ClassVar[bool] = False
    a: Words
    y: Words
    ay: Words
    done: int


@dataclass(frozen=True)
class Solver(State):
    """The own share of K, (width, width), scale 2^16; the weights before the last pass; passes that are done."""

    k: Words
    previous: Words
    passes: int


def inverse_products(parties: int, lower: int = 0) -> int:
    """Return the number of products: two for each Newton-Schulz iteration, one for the bank's scale.

    lower : by how many halvings the iteration starts lower, each of which one more iteration makes up for.
    """
    return 2 * (4 + lower if parties == 2 else 6) + 1


def _products(contract: Contract, plan: Layout) -> int:
    # Where two parties' numbers depend on each other, products of them are nearly sums of functions of either: one more
    # iteration reaches what they add, with correlations up to .9.
    more = start_halvings(contract, plan) + bool(plan.pairs)
    return inverse_products(len(data_parties(contract)), more)


def least_rows(contract: Contract, plan: Layout) -> int:
    """Return how many rows of the Gram block must count.

    Where it is estimated from some of the rows that train, and only some of these are common, eight for each column:
    its eigenvalues are off by a third then. From all rows nothing is estimated.
    """
    is_whole = gram_rows(contract, plan) == plan.rows
    if not contract.align.hidden:
        return 4 * plan.width if is_whole or not plan.pairs else max(4 * plan.width, PAIR_ROWS)
    return plan.width if is_whole else 8 * plan.width


def start_halvings(contract: Contract, plan: Layout) -> int:
    """Return l: the iteration starts at 2^-l I, so that it converges whatever rows count.

    With hidden match these may hold all the variance of the partner's whole list, on which its columns are white:
    A is at most 1 + rows / rows that count.
    """
    if plan.pairs:
        # Eigenvalues of A are at most those of its blocks on the diagonal, added up, of which each party's own has 1.
        parties = len(plan.columns)
        return math.ceil(math.log2((parties + pair_spread(contract, plan)) / parties))
    if not contract.align.hidden:
        return 0
    return math.ceil(math.log2(1 + gram_rows(contract, plan) / least_rows(contract, plan)))


def _base(turn: Turn, plan: Layout, blocks: Words) -> Base:
    """Return the own share of A = I + C, and of its ridge."""
    own, size = plan.columns[turn.me], gram_size(turn, plan)
    a, diagonal = np.zeros((plan.width, plan.width), np.uint64), np.zeros(plan.width, np.uint64)
    for (p, q), where in pair_slices(turn, plan).items():
        c = blocks[where].reshape(plan.columns_of(p), plan.columns_of(q))
        a[plan.columns[p], plan.columns[q]] = c
        a[plan.columns[q], plan.columns[p]] = c.T
    every, one = np.arange(plan.own_width), 1 << INVERSE_BITS
    if turn.contract.align.hidden:
        a[own, own] += turn.recall(OwnBlock).words
        # Where penalties are tried, the partner's ridge, divided by the number of rows that the bank alone knows.
        diagonal[plan.width - len(blocks[size:]) :] = blocks[size:]
    else:
        a[every, every] += first_only(turn, one)
    if plan.pairs:
        place_pairs(plan, a, blocks)
        shared = np.arange(plan.own_width, plan.width)
        a[shared, shared] += first_only(turn, round(pair_ridge(turn.contract, plan) * one))
    if turn.first or not turn.contract.align.hidden:
        diagonal[own] = encode(_own_ridge(turn, plan), INVERSE_BITS)
    return Base(a, diagonal)


def _own_ridge(turn: Turn, plan: Layout) -> Floats:
    """Return the ridge of the own columns, 0 of the intercept."""
    found, values = np.zeros(plan.columns_of(turn.me)), ridge(turn)
    found[len(found) - len(values) :] = values
    return found


def _first_inverse(turn: Turn, plan: Layout, base: Base) -> Inverse:
    """Begin with Y = 2/k I: the eigenvalues of A = I + C lie between 0 and the number of parties k.

    A larger penalty than the one that whitening allows for adds E - I to A, E diagonal; Y begins at 2/k E^-1 then. In
    coordinates times the root of E that is I plus something smaller than C, and the same start as above.
    """
    own, at, times = plan.columns[turn.me], np.arange(plan.width), growth(turn)
    shared = at[plan.own_width :]
    a, y = base.a.copy(), np.zeros_like(base.a)
    a[at, at] += np.uint64(times) * base.ridge
    start = 2 / (len(turn.parties) << start_halvings(turn.contract, plan))
    y[at[own], at[own]] = encode(start / (1 + times * _own_ridge(turn, plan)), INVERSE_BITS)
    y[shared, shared] = first_only(turn, round(start * 2**INVERSE_BITS))
    return Inverse(a, y, np.empty((0, 0), np.uint64), 0)


def _open_inverse(turn: Turn, inbox: Inbox[GramOpening | RoundOpening]) -> Outcome[PairOpening, Silent]:
    """Take in the last result and open the factors of the next product: A Y, then Y (2 I - A Y), ..., then Y S."""
    plan = layout_of(turn, FIT)
    kept: tuple[State, ...] = ()
    if turn.has(Inverse):
        state = _absorb(turn, inbox, plan)
    else:
        base = turn.recall(Base) if turn.has(Base) else _base(turn, plan, _scaled_blocks(turn, inbox))
        state, kept = _first_inverse(turn, plan, base), (base,) if turn.contract.model.penalties else ()
    if state.done == _products(turn.contract, plan) - 1:
        left, right = state.y, _bank_scale(turn, plan)
    elif state.done % 2 == 0:
        left, right = state.a, state.y
    else:
        left, right = state.y, _two_minus(turn, state.ay)
    count, counts = next_count(turn, "inverse")
    return open_pair(turn, "inverse", count, left, right, state, counts, *kept)


def _two_minus(turn: Turn, ay: Words) -> Words:
    out = np.uint64(0) - ay
    at = np.arange(len(ay))
    out[at, at] += first_only(turn, 2 << INVERSE_BITS)
    return out


def _absorb(turn: Turn, inbox: Inbox[Message], plan: Layout) -> Inverse:
    before = turn.recall(Inverse)
    value = finish_product(turn, inbox, INVERSE_BITS).reshape(plan.width, plan.width)
    if before.done % 2 == 0:
        return Inverse(before.a, before.y, value, before.done + 1)
    return Inverse(before.a, value, before.ay, before.done + 1)


def _scaled_blocks(turn: Turn, inbox: Inbox[Message]) -> Words:
    if turn.contract.align.hidden:
        return finish_product(turn, inbox, WEIGHTED_SHIFT).reshape(-1)
    state = turn.recall(Gram)
    opened = sum_openings(state.own, inbox, turn, GramOpening)
    return finish_rounding(
        turn, "gram/2", 0, opened, FACTOR_BITS, state.dealt.second if state.dealt else None
    )


def _bank_scale(turn: Turn, plan: Layout) -> Words:
    """Return the share of S: 2^l / (c n) on the diagonal, c the bank's null curvature, p (1 - p) without weights."""
    scale = np.zeros((plan.width, plan.width))
    if turn.first:
        n = len(real(turn.recall(Split).train)) * share_trained(turn)
        at = np.arange(plan.width)
        scale[at, at] = min(MAX_SCALE, 1 / turn.recall(Labels).null.curvature) * 2 ** gradient_power(plan) / n
    return encode(scale, STEP_BITS)


def gradient_power(plan: Layout) -> int:
    """Return l, the power of two above the number of rows: gradients are divided by 2^l."""
    return (plan.total - 1).bit_length()


def _deal_inverse(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtProduct, Silent]:
    plan = layout_of(turn, FIT)
    count, counts = next_count(turn, "inverse")
    square = (plan.width, plan.width)
    shift = INVERSE_BITS
    return Outcome(
        Silent(),
        send={turn.parties[0]: deal_product(turn, "inverse", count, square, square, shift)},
        keep=(counts,),
    )


def _begin(turn: Turn, inbox: Inbox[RoundOpening]) -> Outcome[Nothing, Silent]:
    """Take in K and set the first weights: those of the earlier model, or the bank's null intercept and zeros.

    Along a path of penalties, those that are there.
    """
    plan = layout_of(turn, FIT)
    k = finish_product(turn, inbox, INVERSE_BITS).reshape(plan.width, plan.width)
    words = turn.recall(Weights).w if goes_on(turn) else _first_weights(turn, plan)
    if words.shape != (plan.width,):
        raise ValueError("the share of the earlier model has another length")
    return Outcome(
        Silent(), keep=(Solver(k, words, 0), Weights(words)), forget=(Inverse, OwnBlock, Gram, Multiplication)
    )


def _first_weights(turn: Turn, plan: Layout) -> Words:
    before = earlier(turn)
    if before is not None:
        return before.share
    w = np.zeros(plan.width)
    if turn.first:
        w[plan.columns[turn.me].start] = turn.recall(Labels).null.intercept
    return encode(w, WEIGHT_BITS)


DEAL_GRAM = Step("fit.deal_gram", _deal_gram, Silent)
GRAM = Step("fit.gram", _gram, Silent, reads=(DealtGram,))
SCALE_GRAM = Step("fit.scale_gram", _scale_gram, Silent, reads=(GramOpening,))
OPEN_INVERSE = Step("fit.open_inverse", _open_inverse, Silent, reads=(GramOpening, RoundOpening))
MULTIPLY = Step("fit.multiply", take_product, Silent, reads=(PairOpening, DealtProduct))
DEAL_INVERSE = Step("fit.deal_inverse", _deal_inverse, Silent)
BEGIN = Step("fit.begin", _begin, Silent, reads=(RoundOpening,))


Blocks = Sequence[Reply[GramOpening | RoundOpening, Silent]]
"""The round that ends with the shares of A's blocks between parties, scaled."""


def _inverse_inbox(
    blocks: Blocks, rounded: list[Reply[RoundOpening, Silent]], party: Name
) -> tuple[Sealed[GramOpening | RoundOpening], ...]:
    return (*inbox_of(blocks, party), *inbox_of(rounded, party))


def shared_gram(call: Caller, contract: Contract) -> list[Reply[GramOpening, Silent]]:
    """Compute the shared blocks of the Gram matrix between parties; the last rounding is left to its reader."""
    parties, maker = data_parties(contract), dealer(contract)
    dealt = call(maker, DEAL_GRAM)
    blocks = call.all([ask(p, GRAM, *inbox_of([dealt], p)) for p in parties])
    return call.all([ask(p, SCALE_GRAM, *inbox_of(blocks, p)) for p in parties])


def invert_gram(call: Caller, contract: Contract, plan: Layout, blocks: Blocks) -> None:
    """Compute the shared inverse of the Gram matrix, scaled, and the first weights."""
    parties, maker = data_parties(contract), dealer(contract)
    rounded: list[Reply[RoundOpening, Silent]] = []
    for _ in range(_products(contract, plan)):
        calls = [ask(p, OPEN_INVERSE, *_inverse_inbox(blocks, rounded, p)) for p in parties]
        opened, (product_dealt,) = call.both(calls, [ask(maker, DEAL_INVERSE)])
        blocks = []
        rounded = call.all([ask(p, MULTIPLY, *product_inbox(opened, product_dealt, p)) for p in parties])
    call.all([ask(p, BEGIN, *inbox_of(rounded, p)) for p in parties])
