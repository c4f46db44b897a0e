"""The identity link: the linear predictor itself, rounded to the scale of residuals.

Computes shares of z for every training row at the scale of residuals, and in scoring the openings of the scores'
rounding. Takes part: all parties that hold data, and the dealer. Nobody learns anything: every opening is masked.
Safe against semi-honest parties, all but one of them together, while the dealer colludes with none.
Source: ring/rounding.py in place of the series of `sigmoid_blocks`; the penalty rows' rounding travels along as there.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedmkt.contract.agreement import Contract
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
    to_all,
)
from fedmkt.protocol.layout import FIT, FRACTION_BITS, WEIGHT_BITS, layout_of, value_bits
from fedmkt.protocol.linear.predictor import (
    DealtProducts,
    Forward,
    VectorOpening,
    finish_predictor,
    predictor_inbox,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.shared import (
    DealtRounding,
    add_up,
    deal_rounding,
    finish_rounding,
    from_others,
    open_masked,
)

_LABEL = "fit/predictor"
PREDICTOR_BITS = FRACTION_BITS + WEIGHT_BITS


@dataclass(frozen=True)
class PredictorOpening(Message):
    """A share of z of all rows plus its mask, and one of the penalty rows plus theirs."""

    words: Masked[Words]
    penalty: Masked[Words]


@dataclass(frozen=True)
class DealtPredictor(Message):
    """The first party's corrections of the rounding of z."""

    rounding: DealtRounding


@dataclass(frozen=True)
class Predicting(State):
    """The own opening of z."""

    durable: ClassVar[bool] = False
    own: Words


def _open(turn: Turn, inbox: Inbox[VectorOpening | DealtProducts]) -> Outcome[PredictorOpening, Silent]:
    plan = layout_of(turn, FIT)
    forward = finish_predictor(turn, FIT, inbox)
    own = open_masked(turn, _LABEL, forward.count, forward.z[: plan.rows])
    message = PredictorOpening(Masked(own), Masked(forward.penalty))
    return Outcome(Silent(), send=to_all(turn.others, message), keep=(forward, Predicting(own)))


def finish_identity(turn: Turn, inbox: Inbox[Message]) -> Words:
    """Take in the openings of all rows; return the own share of z at the scale of values. Penalty rows: `predictor`."""
    own, forward = turn.recall(Predicting).own, turn.recall(Forward)
    shapes = (own.shape, forward.penalty.shape)
    found = from_others(
        turn,
        inbox,
        PredictorOpening,
        lambda m: (m.words.words.shape, m.penalty.words.shape) == shapes,
        "the predictors",
    )
    dealt = inbox.one(dealer(turn.contract), DealtPredictor).rounding if turn.first else None
    forward.penalty[:] = add_up([forward.penalty, *(m.penalty.words for m in found.values())])
    opened = add_up([own, *(m.words.words for m in found.values())])
    shift = PREDICTOR_BITS - value_bits(turn.contract, FIT)
    return finish_rounding(turn, _LABEL, forward.count, opened, shift, dealt)


def _deal(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtPredictor, Silent]:
    plan = layout_of(turn, FIT)
    count, counts = next_count(turn, _LABEL)
    shift = PREDICTOR_BITS - value_bits(turn.contract, FIT)
    dealt = DealtPredictor(deal_rounding(turn, _LABEL, count, plan.rows, shift))
    return Outcome(Silent(), send={turn.parties[0]: dealt}, keep=(counts,))


OPEN = Step("fit.open_predictor", _open, Silent, reads=(VectorOpening, DealtProducts))
DEAL = Step("fit.deal_predictor", _deal, Silent)


def apply_identity(
    call: Caller,
    contract: Contract,
    opened: list[Reply[VectorOpening, Silent]],
    dealt: Reply[DealtProducts, Silent],
) -> list[Reply[PredictorOpening | DealtPredictor, Silent]]:
    """From opened weights to the openings of z, and the dealer's corrections of their rounding."""
    calls = [ask(p, OPEN, *predictor_inbox(opened, dealt, p)) for p in data_parties(contract)]
    predictors, corrections = call.both(calls, [ask(dealer(contract), DEAL)])
    return [*predictors, *corrections]
