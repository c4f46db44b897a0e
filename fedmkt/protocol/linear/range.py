"""Range check: one bit that says whether every score is certainly within the sigmoid's range.

Computes whether sum over columns of omega_j w_j^2 < 1 for shared weights w and public omega, which by
Cauchy-Schwarz bounds |z| of every row below 0.45 periods: omega_j = R_p^2 k / (0.98 L^2) for party p's
columns, 1 / (0.02 L^2) for the intercept, L = 0.45 P less the largest offset that the contract allows, R_p
the row norm that p published; k parts: the parties, and the pairs of two parties, whose row norm is bounded by their
making (`PAIR_NORM`). Takes part: all parties that hold data, and the dealer. Every party and the
coordinator learn the bit, nothing else. Safe against semi-honest parties, all but one of them together,
while the dealer colludes with none.
Source: protocols.md section 2; the comparison is a look-up: the dealer shares the unit vector e_t, the
parties open q - t modulo 2^16 and add up the entries that stand for a failing q (one-time truth table). Two
look-ups, near the threshold and far beyond it, cover every sum below 2^62; a third turns their count into one bit.
What it does not see: a weight that grew beyond the contract's max_weight between two checks may leave the word.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.errors import PolicyRefused
from fedmkt.learn import factors
from fedmkt.privacy.disclosure import EVERYONE, RangeBit
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
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
    to_all,
)
from fedmkt.protocol.layout import FIT, WEIGHT_BITS, Layout, layout_of
from fedmkt.protocol.linear.links import most_predictor
from fedmkt.protocol.linear.multiply import (
    DealtProduct,
    Multiplication,
    PairOpening,
    RoundOpening,
    deal_product,
    multiply,
    open_pair,
    open_product,
)
from fedmkt.protocol.linear.predictor import Weights
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.prepare import shapes
from fedmkt.protocol.shared import (
    DealtRounding,
    Opening,
    add_up,
    deal_rounding,
    deal_value,
    finish_rounding,
    from_others,
    open_masked,
    shared_from_seeds,
    sum_openings,
)
from fedmkt.protocol.witness import witness
from fedmkt.ring import rounding

COARSE_BITS = 12
"""Weights are rounded to this scale before they are squared; omega has the same scale."""
TABLE_BITS = 16
UNIT_BITS = 5
"""The first look-up counts in units of 1/32 of the threshold and reaches 2,048 times the threshold."""
FAR_BITS = 10
"""The second counts in units of 1,024 thresholds and reaches 2^26 times the threshold: all that fits in a word."""
COUNT_BITS = 2
_SQUARE_SHIFT = 3 * COARSE_BITS - UNIT_BITS
_FAR_SHIFT = 3 * COARSE_BITS + FAR_BITS
_SHARE_OF_INTERCEPT = 0.02
PAIR_NORM = factors.MOST_NORM**2
"""Bound of the norm of a row of one pair's columns: it is the product of its factors' norms."""


@dataclass(frozen=True)
class CoarseOpening(Opening):
    """A share of the weights plus its mask, for a rounding."""


@dataclass(frozen=True)
class LookupOpening(Opening):
    """Shares of the sum, in units of both look-ups, minus their masks, modulo 2^16."""


@dataclass(frozen=True)
class CountOpening(Opening):
    """A share of how many look-ups failed minus its mask, modulo 4."""


@dataclass(frozen=True)
class BitShare(Message):
    """A share of the bit: fresh, because the dealer's unit vector is."""

    words: Words


@dataclass(frozen=True)
class DealtRange(Message):
    """The first party's corrections of one check; unit : (2, 65536), last : (4,)."""

    coarse: DealtRounding
    square: DealtProduct
    far: DealtRounding
    unit: Words
    last: Words


@dataclass(frozen=True)
class Check(State):
    """What one check needs between its rounds."""

    durable: ClassVar[bool] = False
    count: int
    own: Words
    dealt: DealtRange | None


@dataclass(frozen=True)
class InRange(PublicValue):
    """Whether every score is certainly within the sigmoid's range."""

    passed: bool


def omega(turn: Turn, plan: Layout) -> Words:
    """Return the public factor of each column's squared weight, at scale 2^12, rounded up."""
    limit = most_predictor(turn.contract)
    out = np.zeros(plan.width, np.uint64)
    parts = [(plan.columns[party], float(shape.row_norm)) for party, shape in shapes(turn).items()]
    parts += [(pair.columns, PAIR_NORM) for pair in plan.pairs]
    for columns, norm in parts:
        factor = norm**2 * len(parts) / ((1 - _SHARE_OF_INTERCEPT) * limit**2)
        out[columns] = int(factor * 2**COARSE_BITS) + 1
    out[plan.columns[turn.parties[0]].start] = int(2**COARSE_BITS / (_SHARE_OF_INTERCEPT * limit**2)) + 1
    return out


def _open_coarse(turn: Turn, inbox: Inbox[DealtRange]) -> Outcome[CoarseOpening, Silent]:
    count, counts = next_count(turn, "range")
    dealt = inbox.one(dealer(turn.contract), DealtRange) if turn.first else None
    own = open_masked(turn, "range/coarse", count, turn.recall(Weights).w)
    return Outcome(
        Silent(),
        send=to_all(turn.others, CoarseOpening(Masked(own))),
        keep=(Check(count, own, dealt), counts),
    )


def _open_squares(turn: Turn, inbox: Inbox[CoarseOpening]) -> Outcome[PairOpening, Silent]:
    plan, state = layout_of(turn, FIT), turn.recall(Check)
    opened = sum_openings(state.own, inbox, turn, CoarseOpening)
    shift = WEIGHT_BITS - COARSE_BITS
    w = finish_rounding(
        turn, "range/coarse", state.count, opened, shift, state.dealt.coarse if state.dealt else None
    )
    left, right = w.reshape(1, -1), (omega(turn, plan) * w).reshape(-1, 1)
    return open_pair(turn, "range", state.count, left, right)


def _open_sum(turn: Turn, inbox: Inbox[PairOpening]) -> Outcome[RoundOpening, Silent]:
    dealt = turn.recall(Check).dealt
    square = dealt.square if dealt else None
    return open_product(turn, multiply(turn, inbox, square), square)


def _open_lookup(turn: Turn, inbox: Inbox[RoundOpening]) -> Outcome[LookupOpening, Silent]:
    state = turn.recall(Check)
    # One opening, rounded to two units: the dealer shares what belongs to both.
    opened = sum_openings(turn.recall(Multiplication).rounding, inbox, turn, RoundOpening)
    dealt = (state.dealt.square.rounding, state.dealt.far) if state.dealt else (None, None)
    near = finish_rounding(turn, "range", state.count, opened, _SQUARE_SHIFT, dealt[0])
    far = finish_rounding(turn, "range/far", state.count, opened, _FAR_SHIFT, dealt[1])
    # Only these 16 bits of each share are masked, so only they may be sent.
    t = turn.masks.words(turn.me, "range/t", state.count, 2)
    own = (np.concatenate([near, far]).reshape(-1) - t) & np.uint64((1 << TABLE_BITS) - 1)
    kept = Check(state.count, own, state.dealt)
    return Outcome(Silent(), send=to_all(turn.others, LookupOpening(Masked(own))), keep=(kept,))


def _open_count(turn: Turn, inbox: Inbox[LookupOpening]) -> Outcome[CountOpening, Silent]:
    state = turn.recall(Check)
    size = 1 << TABLE_BITS
    delta = sum_openings(state.own, inbox, turn, LookupOpening).reshape(2, 1)
    dealt = state.dealt.unit if state.dealt else None
    unit = shared_from_seeds(turn, "range/unit", state.count, (2, size), dealt)
    # q = delta + t, and the unit vector is one at t: add up the entries whose q fails. The far count may be one too
    # high by its rounding, so it fails from two on: 2,048 thresholds, where the near one ends.
    q = (np.arange(size, dtype=np.uint64) + delta) % np.uint64(size)
    fails = q >= np.array([[1 << UNIT_BITS], [2]], dtype=np.uint64)
    count = unit[fails].sum(dtype=np.uint64, keepdims=True)
    own = (count - turn.masks.words(turn.me, "range/u", state.count, 1)) & np.uint64((1 << COUNT_BITS) - 1)
    kept = Check(state.count, own, state.dealt)
    return Outcome(Silent(), send=to_all(turn.others, CountOpening(Masked(own))), keep=(kept,))


def _share_bit(turn: Turn, inbox: Inbox[CountOpening]) -> Outcome[BitShare, Silent]:
    state = turn.recall(Check)
    size = 1 << COUNT_BITS
    delta = sum_openings(state.own, inbox, turn, CountOpening)
    unit = shared_from_seeds(turn, "range/last", state.count, size, state.dealt.last if state.dealt else None)
    failed = (np.arange(size, dtype=np.uint64) + delta) % np.uint64(size) != 0
    bit = unit[failed].sum(dtype=np.uint64, keepdims=True)
    return Outcome(
        Silent(),
        send=to_all(turn.others, BitShare(bit)),
        keep=(Check(state.count, bit, None),),
        reveals=(RangeBit(to=EVERYONE),),
    )


def _read_bit(turn: Turn, inbox: Inbox[BitShare]) -> Outcome[Nothing, InRange]:
    found = from_others(turn, inbox, BitShare, lambda m: m.words.shape == (1,), "the shares")
    bit = int((turn.recall(Check).own + sum(m.words for m in found.values()))[0])
    if bit not in (0, 1):
        raise ValueError("the range check gave no bit")
    return Outcome(InRange(bit == 0), forget=(Check, Multiplication))


def _added(turn: Turn, label: str, count: int, shape: tuple[int, ...] | int) -> Words:
    return add_up([turn.masks.words(p, label, count, shape) for p in turn.parties])


def _deal_range(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtRange, Silent]:
    plan = layout_of(turn, FIT)
    count, counts = next_count(turn, "range")
    shift = WEIGHT_BITS - COARSE_BITS
    unit = np.zeros((2, 1 << TABLE_BITS), np.uint64)
    unit[[0, 1], _added(turn, "range/t", count, 2) % np.uint64(1 << TABLE_BITS)] = 1
    last = np.zeros(1 << COUNT_BITS, np.uint64)
    last[_added(turn, "range/u", count, 1) % np.uint64(1 << COUNT_BITS)] = 1
    far = rounding.deal(_added(turn, "range/R", count, (1, 1)), _FAR_SHIFT)
    dealt = DealtRange(
        deal_rounding(turn, "range/coarse", count, plan.width, shift),
        deal_product(turn, "range", count, (1, plan.width), (plan.width, 1), _SQUARE_SHIFT),
        DealtRounding(
            deal_value(turn, "range/far/high", count, far.high),
            deal_value(turn, "range/far/top", count, far.top),
        ),
        deal_value(turn, "range/unit", count, unit),
        deal_value(turn, "range/last", count, last),
    )
    return Outcome(Silent(), send={turn.parties[0]: dealt}, keep=(counts,))


DEAL_RANGE = Step("range.deal", _deal_range, Silent)
OPEN_COARSE = Step("range.open_weights", _open_coarse, Silent, reads=(DealtRange,))
OPEN_SQUARES = Step("range.open_squares", _open_squares, Silent, reads=(CoarseOpening,))
OPEN_SUM = Step("range.open_sum", _open_sum, Silent, reads=(PairOpening,))
OPEN_LOOKUP = Step("range.open_lookup", _open_lookup, Silent, reads=(RoundOpening,))
OPEN_COUNT = Step("range.open_count", _open_count, Silent, reads=(LookupOpening,))
SHARE_BIT = Step("range.share_bit", _share_bit, Silent, reads=(CountOpening,), reveals=(RangeBit,))
READ_BIT = Step("range.read_bit", _read_bit, InRange, reads=(BitShare,))


def check_range(call: Caller, contract: Contract) -> None:
    """Release one bit, and stop the run with advice if it says that a score may have left the range."""
    parties = data_parties(contract)
    dealt = call(dealer(contract), DEAL_RANGE)
    coarse = call.all([ask(p, OPEN_COARSE, *inbox_of([dealt], p)) for p in parties])
    squares = call.all([ask(p, OPEN_SQUARES, *inbox_of(coarse, p)) for p in parties])
    sums = call.all([ask(p, OPEN_SUM, *inbox_of(squares, p)) for p in parties])
    lookups = call.all([ask(p, OPEN_LOOKUP, *inbox_of(sums, p)) for p in parties])
    counts = call.all([ask(p, OPEN_COUNT, *inbox_of(lookups, p)) for p in parties])
    witness(call, contract)
    bits = call.all([ask(p, SHARE_BIT, *inbox_of(counts, p)) for p in parties])
    verdicts = call.all([ask(p, READ_BIT, *inbox_of(bits, p)) for p in parties])
    if not all(v.public.value.passed for v in verdicts):
        raise PolicyRefused(
            "the range check failed: the weights are too large for the period of scores",
            "raise [model] penalty" + ("" if contract.model.link == "poisson" else ", or set period = 128"),
        )
