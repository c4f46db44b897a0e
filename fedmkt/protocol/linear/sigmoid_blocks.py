"""Sigmoid of a shared linear predictor, block by block of rows.

Computes shares of sigma(z), less the label in training, from shares of z of all rows (`predictor`). Takes part: all
parties that hold data, and the dealer. Nobody learns anything: every message is a masked opening to all parties, or
the dealer's correction to the first one. Safe against semi-honest parties, all but one of them together, while the
dealer colludes with none. Nothing that a party sends is checked for being right: a party that deviates can spoil the
model or shift weights. Source: protocols.md sections 0 and 2; sine series: ring/sigmoid.py.

Letters: t mask of an angle; R mask of a lift; n rows of a block. Angles of all rows are opened at once; a block's
values, modulo 2^32, are lifted to 64 bits while the dealer makes the next block's corrections.
Where the match is hidden, each block is multiplied by the bank's weights before it is lifted: `weighted`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.core import (
    Call,
    Caller,
    HalfWords,
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
from fedmkt.protocol.layout import (
    FIT,
    FRACTION_BITS,
    SCORE,
    WEIGHT_BITS,
    Layout,
    Stage,
    layout_of,
    value_bits,
)
from fedmkt.protocol.linear.links import evaluate, harmonics, log2_period, result_bits
from fedmkt.protocol.linear.predictor import (
    DealtProducts,
    Forward,
    VectorOpening,
    deal_products,
    finish_predictor,
    predictor_inbox,
)
from fedmkt.protocol.linear.targets import Labels
from fedmkt.protocol.linear.weighted import SideOpening, deal_weight, open_side, weigh
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.shared import add_up, add_up_halves, from_others, shared_from_seeds
from fedmkt.ring import rounding, sigmoid
from fedmkt.ring.fixed import correction


def lift_shift(contract: Contract, stage: Stage) -> int:
    """Return by how many bits a lift to 64 bits divides."""
    return result_bits(contract) - value_bits(contract, stage)


@dataclass(frozen=True)
class AngleOpening(Message):
    """Shares of all angles minus t, modulo one turn; shares of the penalty rows plus their masks."""

    angles: Masked[HalfWords]
    penalty: Masked[Words]


@dataclass(frozen=True)
class LiftOpening(Message):
    """Shares of a block of sigmoid values plus their masks, modulo 2^32."""

    halves: Masked[HalfWords]


@dataclass(frozen=True)
class DealtSigmoid(Message):
    """The first party's corrections for one block of rows. angles : (2K, n) uint32; high, top : (n,).

    weighted : (n,) uint32, where rows have a secret weight.
    """

    block: int
    angles: HalfWords
    high: Words
    top: Words
    weighted: HalfWords | None


@dataclass(frozen=True)
class Lifting(State):
    """The sigmoid block by block: opened angles, finished shares (scale 2^16), the block under way."""

    durable: ClassVar[bool] = False
    delta: HalfWords
    done: Words
    block: int
    own: HalfWords
    high: Words
    top: Words


@dataclass(frozen=True)
class Corrections(State):
    """The first party's corrections of the block that is being weighed."""

    durable: ClassVar[bool] = False
    dealt: DealtSigmoid | None


def _angle(
    stage: Stage, turn: Turn, inbox: Inbox[VectorOpening | DealtProducts]
) -> Outcome[AngleOpening, Silent]:
    """Compute the own share of z for all rows, open the angles under fresh masks."""
    plan = layout_of(turn, stage)
    forward = finish_predictor(turn, stage, inbox)
    angles = sigmoid.angle_share(
        forward.z[: plan.rows], FRACTION_BITS + WEIGHT_BITS, log2_period(turn.contract)
    )
    t = np.concatenate(
        [
            _angle_mask(turn, stage, turn.me, forward.count, block, rows)
            for block, rows in enumerate(plan.sigmoid_blocks(turn.contract))
        ]
    )
    own = sigmoid.prepare(angles, t)
    message = AngleOpening(Masked(own), Masked(forward.penalty))
    return Outcome(Silent(), send=to_all(turn.others, message), keep=(replace(forward, angles=own),))


def _angle_mask(turn: Turn, stage: Stage, party: Name, count: int, block: int, rows: slice) -> HalfWords:
    return turn.masks.half_words(party, f"{stage.name}/t", count, rows.stop - rows.start, block=block)


def _lift(
    stage: Stage, turn: Turn, inbox: Inbox[AngleOpening | LiftOpening | DealtSigmoid]
) -> Outcome[LiftOpening, Silent]:
    """Evaluate the sigmoid of one block of rows, open it under a mask that will move it to 64 bits."""
    dealt = inbox.one(dealer(turn.contract), DealtSigmoid) if turn.first else None
    state, value = _evaluate(stage, turn, inbox, dealt)
    return _open_lift(stage, turn, state, value, dealt)


def _begin_side(
    stage: Stage, turn: Turn, inbox: Inbox[AngleOpening | LiftOpening | DealtSigmoid]
) -> Outcome[SideOpening, Silent]:
    """Evaluate the sigmoid of one block of rows, and begin its product with the bank's weights."""
    dealt = inbox.one(dealer(turn.contract), DealtSigmoid) if turn.first else None
    state, value = _evaluate(stage, turn, inbox, dealt)
    own, send = open_side(turn, stage, turn.recall(Forward).count, state.block, value)
    left = replace(dealt, angles=np.empty((0, 0), np.uint32)) if dealt else None
    return Outcome(Silent(), send=send, keep=(replace(state, own=own), Corrections(left)))


def _weigh(stage: Stage, turn: Turn, inbox: Inbox[SideOpening]) -> Outcome[LiftOpening, Silent]:
    """Finish the product with the bank's weights, open it under a mask that will move it to 64 bits."""
    state, dealt = turn.recall(Lifting), turn.recall(Corrections).dealt
    count, weighted = turn.recall(Forward).count, dealt.weighted if dealt else None
    value = weigh(turn, stage, count, state.block, state.own, inbox, weighted)
    return _open_lift(stage, turn, state, value, dealt)


def _evaluate(
    stage: Stage, turn: Turn, inbox: Inbox[Message], dealt: DealtSigmoid | None
) -> tuple[Lifting, HalfWords]:
    """Take in the block before, return the state of the next one and the own share of its sigmoid, less the label."""
    plan, sines = layout_of(turn, stage), harmonics(turn.contract)
    state = _next_block(stage, turn, inbox, plan)
    rows = plan.sigmoid_blocks(turn.contract)[state.block]
    n, count = rows.stop - rows.start, turn.recall(Forward).count
    if dealt is not None and (dealt.block, dealt.angles.shape) != (state.block, (2 * sines, n)):
        raise ValueError("the dealer's correction is for another block")
    shares = dealt.angles if dealt else _seeded_angles(turn, stage, turn.me, count, state.block, sines, n)
    value = evaluate(state.delta[rows], shares, turn.contract, turn.first)
    if stage.penalised and turn.contract.model.link == "logistic" and turn.has(Labels):
        value -= turn.recall(Labels).y[rows].astype(np.uint32) << np.uint32(sigmoid.RESULT_BITS)
    return state, value


def _open_lift(
    stage: Stage, turn: Turn, state: Lifting, value: HalfWords, dealt: DealtSigmoid | None
) -> Outcome[LiftOpening, Silent]:
    n, count = len(value), turn.recall(Forward).count
    mask = turn.masks.half_words(turn.me, f"{stage.name}/lift/R", count, n, block=state.block)
    own = rounding.prepare_lift(value, mask, first=turn.first)
    high = shared_from_seeds(
        turn, f"{stage.name}/lift/high", count, n, dealt.high if dealt else None, state.block
    )
    top = shared_from_seeds(
        turn, f"{stage.name}/lift/top", count, n, dealt.top if dealt else None, state.block
    )
    kept = Lifting(state.delta, state.done, state.block, own, high, top)
    return Outcome(Silent(), send=to_all(turn.others, LiftOpening(Masked(own))), keep=(kept,))


def _next_block(stage: Stage, turn: Turn, inbox: Inbox[Message], plan: Layout) -> Lifting:
    if not inbox.by_sender(AngleOpening):
        before = finish_lift(turn, inbox, stage)
        return Lifting(before.delta, before.done, before.block + 1, before.own, before.high, before.top)
    forward = turn.recall(Forward)
    openings = from_others(
        turn, inbox, AngleOpening, lambda m: m.angles.words.shape == (plan.rows,), "the angles"
    )
    delta = add_up_halves([forward.angles, *(m.angles.words for m in openings.values())])
    if any(m.penalty.words.shape != (plan.penalty_rows,) for m in openings.values()):
        raise ValueError("the penalty rows of the others have another length")
    forward.penalty[:] = add_up([forward.penalty, *(m.penalty.words for m in openings.values())])
    empty = np.empty(0, np.uint64)
    return Lifting(delta, np.empty(plan.rows, np.uint64), 0, np.empty(0, np.uint32), empty, empty)


def finish_lift(turn: Turn, inbox: Inbox[Message], stage: Stage) -> Lifting:
    """Take in the openings of the block under way and finish its shares."""
    state = turn.recall(Lifting)
    openings = from_others(
        turn, inbox, LiftOpening, lambda m: m.halves.words.shape == state.own.shape, "the sigmoid openings"
    )
    opened = add_up_halves([state.own, *(m.halves.words for m in openings.values())])
    rows = layout_of(turn, stage).sigmoid_blocks(turn.contract)[state.block]
    dealt = rounding.DealtRounding(state.high, state.top)
    state.done[rows] = rounding.finish_lift(opened, dealt, lift_shift(turn.contract, stage), first=turn.first)
    return state


# --- dealer


def _seeded_angles(
    turn: Turn, stage: Stage, party: Name, count: int, block: int, harmonics: int, n: int
) -> HalfWords:
    return turn.masks.half_words(party, f"{stage.name}/angles", count, (2 * harmonics, n), block=block)


def _deal_forward(stage: Stage, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtProducts, Silent]:
    count, counts = next_count(turn, stage.name)
    return Outcome(Silent(), send={turn.parties[0]: deal_products(stage, turn, count)}, keep=(counts,))


def _deal_sigmoid(stage: Stage, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtSigmoid, Silent]:
    plan, sines = layout_of(turn, stage), harmonics(turn.contract)
    blocks = plan.sigmoid_blocks(turn.contract)
    dealt, counts = next_count(turn, f"{stage.name}/sigmoid")
    count, block = divmod(dealt, len(blocks))
    rows = blocks[block]
    n = rows.stop - rows.start
    t = add_up_halves([_angle_mask(turn, stage, p, count, block, rows) for p in turn.parties])
    others = [_seeded_angles(turn, stage, p, count, block, sines, n) for p in turn.parties[1:]]
    angles = sigmoid.deal_correction(t, sines, others, out=others[0])
    masks = [turn.masks.half_words(p, f"{stage.name}/lift/R", count, n, block=block) for p in turn.parties]
    lift = rounding.deal_lift(add_up_halves(masks), lift_shift(turn.contract, stage))
    rest = turn.parties[1:]
    high = correction(
        lift.high, [turn.masks.words(p, f"{stage.name}/lift/high", count, n, block=block) for p in rest]
    )
    top = correction(
        lift.top, [turn.masks.words(p, f"{stage.name}/lift/top", count, n, block=block) for p in rest]
    )
    weighted = deal_weight(turn, stage, count, block, n) if turn.contract.align.hidden else None
    message = DealtSigmoid(block, angles, high, top, weighted)
    return Outcome(Silent(), send={turn.parties[0]: message}, keep=(counts,))


# --- scripts


@dataclass(frozen=True)
class Rows:
    """The steps of one stage."""

    stage: Stage
    angle: Step[VectorOpening | DealtProducts, AngleOpening, Silent]
    lift: Step[AngleOpening | LiftOpening | DealtSigmoid, LiftOpening, Silent]
    begin_side: Step[AngleOpening | LiftOpening | DealtSigmoid, SideOpening, Silent]
    weigh: Step[SideOpening, LiftOpening, Silent]
    deal_forward: Step[Nothing, DealtProducts, Silent]
    deal_sigmoid: Step[Nothing, DealtSigmoid, Silent]


def _steps(stage: Stage) -> Rows:
    name = stage.name
    return Rows(
        stage,
        Step(f"{name}.angle", partial(_angle, stage), Silent, reads=(VectorOpening, DealtProducts)),
        Step(f"{name}.lift", partial(_lift, stage), Silent, reads=(AngleOpening, LiftOpening, DealtSigmoid)),
        Step(
            f"{name}.begin_side",
            partial(_begin_side, stage),
            Silent,
            reads=(AngleOpening, LiftOpening, DealtSigmoid),
        ),
        Step(f"{name}.weigh", partial(_weigh, stage), Silent, reads=(SideOpening,)),
        Step(f"{name}.deal_forward", partial(_deal_forward, stage), Silent),
        Step(f"{name}.deal_sigmoid", partial(_deal_sigmoid, stage), Silent),
    )


FIT_ROWS = _steps(FIT)
SCORE_ROWS = _steps(SCORE)


def apply_sigmoid(
    call: Caller,
    contract: Contract,
    rows: Rows,
    plan: Layout,
    opened: Sequence[Reply[VectorOpening, Silent]],
    dealt: Reply[DealtProducts, Silent],
) -> list[Reply[LiftOpening, Silent]]:
    """From opened weights to the last block of sigmoid openings, the dealer one block ahead."""
    parties, maker = data_parties(contract), dealer(contract)
    angle_calls = [ask(p, rows.angle, *predictor_inbox(opened, dealt, p)) for p in parties]
    angles, (block,) = call.both(angle_calls, [ask(maker, rows.deal_sigmoid)])
    blocks = len(plan.sigmoid_blocks(contract))
    lifted: list[Reply[LiftOpening, Silent]] = []
    step = _weighted_block if contract.align.hidden else _block
    for b in range(blocks):
        inboxes = {p: _lift_inbox(angles if b == 0 else [], lifted, block, p) for p in parties}
        dealing = [ask(maker, rows.deal_sigmoid)] if b + 1 < blocks else []
        lifted, following = step(call, rows, inboxes, dealing)
        block = following[0] if following else block
    return lifted


BlockInboxes = dict[Name, tuple[Sealed[AngleOpening | LiftOpening | DealtSigmoid], ...]]
BlockReplies = tuple[list[Reply[LiftOpening, Silent]], list[Reply[DealtSigmoid, Silent]]]


def _block(
    call: Caller, rows: Rows, inboxes: BlockInboxes, dealing: list[Call[DealtSigmoid, Silent]]
) -> BlockReplies:
    return call.both([ask(p, rows.lift, *inbox) for p, inbox in inboxes.items()], dealing)


def _weighted_block(
    call: Caller, rows: Rows, inboxes: BlockInboxes, dealing: list[Call[DealtSigmoid, Silent]]
) -> BlockReplies:
    sides, following = call.both([ask(p, rows.begin_side, *inbox) for p, inbox in inboxes.items()], dealing)
    return call.all([ask(p, rows.weigh, *inbox_of(sides, p)) for p in inboxes]), following


def _lift_inbox(
    angles: Sequence[Reply[AngleOpening, Silent]],
    lifted: Sequence[Reply[LiftOpening, Silent]],
    dealt: Reply[DealtSigmoid, Silent],
    party: Name,
) -> tuple[Sealed[AngleOpening | LiftOpening | DealtSigmoid], ...]:
    return (*inbox_of(angles, party), *inbox_of(lifted, party), *inbox_of([dealt], party))
