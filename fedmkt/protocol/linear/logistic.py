"""Joint logistic regression of one bank and one or two partners; nothing is opened.

Computes shares of the weights that minimise the sum of log losses plus penalty/2 |w|^2 (intercept free), by
full passes over the rows. Takes part: all parties that hold data, and the dealer.

| learns | what |
|---|---|
| every party, the coordinator | one bit every few passes (`range`): whether the weights are small |
| every party | its own share of the weights: uniform words |
| every party, the coordinator | only if the bank refuses: that its training rows have too few responders |

Safe against semi-honest parties, all but one of them together, while the dealer colludes with none. A party
that deviates can shift weights unseen. The number of passes is fixed by the contract: a loss shown per pass
would be a function of the labels.

Source: protocols.md section 2. Optimiser: each party whitens its own columns; the Gram block between parties
is one shared product; its inverse (Newton-Schulz on shares) preconditions gradient steps with
momentum (Polyak 1964), less of it in the last passes. Measured on the UCI bank data: relative weight error
1e-3 to 2e-3 after 20 passes. The bank scales the inverse by 1/(p(1-p)) and starts at the intercept log(p/(1-p)), p its
share of responders: both enter as the bank's own share and stay shared.

Letters: A Gram matrix of whitened columns, Y its inverse, K = Y / (p (1 - p) n) scaled; g gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.psi import Overlap
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
from fedmkt.protocol.layout import FIT, FRACTION_BITS, WEIGHT_BITS, Layout, layout, layout_of, residual_bits
from fedmkt.protocol.linear.gram import STEP_BITS, Solver, gradient_power, invert_gram, shared_gram
from fedmkt.protocol.linear.identity import DealtPredictor, PredictorOpening, apply_identity
from fedmkt.protocol.linear.links import has_row_weights, is_identity
from fedmkt.protocol.linear.matrices import mask_matrices
from fedmkt.protocol.linear.multiply import (
    DealtProduct,
    PairOpening,
    RoundOpening,
    deal_product,
    finish_product,
    multiply,
    open_pair,
    open_product,
)
from fedmkt.protocol.linear.penalties import left_out, multiple, passes_of
from fedmkt.protocol.linear.predictor import (
    Forward,
    VectorOpening,
    Weights,
    finish_penalty,
    gradient_share,
    open_residual,
    open_weights,
)
from fedmkt.protocol.linear.range import check_range
from fedmkt.protocol.linear.residuals import finish_values
from fedmkt.protocol.linear.row_weights import (
    DealtRowWeight,
    Linked,
    RowOpening,
    hide_row_weights,
    open_rows,
    weigh_rows,
)
from fedmkt.protocol.linear.sigmoid_blocks import FIT_ROWS, LiftOpening, apply_sigmoid
from fedmkt.protocol.linear.targets import LOAD_LABELS
from fedmkt.protocol.linear.weighted import hide_weight
from fedmkt.protocol.linear.weighted_gram import weighted_gram
from fedmkt.protocol.mask_counts import Counts
from fedmkt.protocol.shared import (
    DealtRounding,
    Opening,
    deal_rounding,
    finish_rounding,
    open_masked,
    sum_openings,
)
from fedmkt.protocol.witness import checkpoint

GRADIENT_BITS = WEIGHT_BITS
MOST_MOMENTUM = 0.6
_LAST_MOMENTUM, _SETTLING = 0.5, 6


def momentum(done: int, passes: int) -> float:
    """Return the momentum of the pass after `done` of all `passes`.

    Much of it reaches directions of little curvature, where few responders or columns alike leave slow ones; less
    in the last six passes lets its swinging die down.
    """
    return MOST_MOMENTUM if done < passes - _SETTLING else _LAST_MOMENTUM


# --- one pass


@dataclass(frozen=True)
class Pass(State):
    """What one pass needs between its rounds."""

    durable: ClassVar[bool] = False
    masks: dict[str, Words]
    residual: Words
    gradient: Words


@dataclass(frozen=True)
class DealtStep(Message):
    """The first party's corrections of one step: rounding of the gradient, product with K and its rounding."""

    gradient: DealtRounding
    step: DealtProduct


@dataclass(frozen=True)
class StepCorrections(State):
    """The first party's corrections of the step under way."""

    durable: ClassVar[bool] = False
    dealt: DealtStep | None


@dataclass(frozen=True)
class GradientOpening(Opening):
    """A share of the gradient plus its mask."""


def _settled(turn: Turn, inbox: Inbox[Message]) -> tuple[Words, tuple[State, ...]]:
    """Return the own share of the weights after the step under way, if there is one."""
    before = turn.recall(Weights).w
    if not inbox.every(RoundOpening):
        return before, ()
    step = finish_product(turn, inbox, STEP_BITS).reshape(-1)
    solver = turn.recall(Solver)
    return before + step, (Solver(solver.k, before, solver.passes + 1),)


def _open_weights(turn: Turn, inbox: Inbox[RoundOpening]) -> Outcome[VectorOpening, Silent]:
    w, states = _settled(turn, inbox)
    return open_weights(turn, FIT, w, *states)


def _settle(turn: Turn, inbox: Inbox[RoundOpening]) -> Outcome[Nothing, Silent]:
    w, states = _settled(turn, inbox)
    return Outcome(Silent(), keep=(Weights(w), *states))


def _residual(turn: Turn, inbox: Inbox[Linked]) -> Outcome[VectorOpening, Silent]:
    return _open_residual(turn, finish_values(turn, inbox))


def _weighted_residual(
    turn: Turn, inbox: Inbox[RowOpening | DealtRowWeight]
) -> Outcome[VectorOpening, Silent]:
    return _open_residual(turn, weigh_rows(turn, inbox))


def _open_residual(turn: Turn, values: Words) -> Outcome[VectorOpening, Silent]:
    r = np.concatenate([left_out(turn, values), finish_penalty(turn, FIT) * multiple(turn)])
    return open_residual(turn, FIT, r, lambda masks: Pass(masks, r, np.empty(0, np.uint64)))


def _gradient(turn: Turn, inbox: Inbox[VectorOpening | DealtStep]) -> Outcome[GradientOpening, Silent]:
    plan, state = layout_of(turn, FIT), turn.recall(Pass)
    dealt = inbox.one(dealer(turn.contract), DealtStep) if turn.first else None
    g = gradient_share(turn, FIT, plan, state.residual, state.masks, inbox)
    own = open_masked(turn, "gradient", turn.recall(Forward).count, g)
    kept = Pass({}, np.empty(0, np.uint64), own)
    return Outcome(
        Silent(), send=to_all(turn.others, GradientOpening(Masked(own))), keep=(kept, StepCorrections(dealt))
    )


def _gradient_shift(contract: Contract, plan: Layout) -> int:
    return FRACTION_BITS + residual_bits(contract) - GRADIENT_BITS + gradient_power(plan)


def _solve(turn: Turn, inbox: Inbox[GradientOpening]) -> Outcome[PairOpening, Silent]:
    plan, count, dealt = layout_of(turn, FIT), turn.recall(Forward).count, turn.recall(StepCorrections).dealt
    opened = sum_openings(turn.recall(Pass).gradient, inbox, turn, GradientOpening)
    shift = _gradient_shift(turn.contract, plan)
    g = finish_rounding(turn, "gradient", count, opened, shift, dealt.gradient if dealt else None)
    return open_pair(turn, "step", count, turn.recall(Solver).k, g.reshape(-1, 1))


def _update(turn: Turn, inbox: Inbox[PairOpening]) -> Outcome[RoundOpening, Silent]:
    dealt = turn.recall(StepCorrections).dealt
    step = np.uint64(0) - multiply(turn, inbox, dealt.step if dealt else None)
    solver = turn.recall(Solver)
    keep_on = np.uint64(round(momentum(solver.passes, passes_of(turn)) * 2**STEP_BITS))
    step += (keep_on * (turn.recall(Weights).w - solver.previous)).reshape(-1, 1)
    return open_product(turn, step, dealt.step if dealt else None)


def _deal_step(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtStep, Silent]:
    plan = layout_of(turn, FIT)
    # Of the forward product that was dealt last: some have no step.
    count = turn.recall(Counts).used[FIT.name] - 1
    gradient = deal_rounding(turn, "gradient", count, plan.width, _gradient_shift(turn.contract, plan))
    step = deal_product(turn, "step", count, (plan.width, plan.width), (plan.width, 1), STEP_BITS)
    return Outcome(Silent(), send={turn.parties[0]: DealtStep(gradient, step)})


# --- script


OPEN_WEIGHTS = Step("fit.open_weights", _open_weights, Silent, reads=(RoundOpening,))
RESIDUAL = Step("fit.residual", _residual, Silent, reads=(LiftOpening, PredictorOpening, DealtPredictor))
WEIGHTED_RESIDUAL = Step(
    "fit.weighted_residual", _weighted_residual, Silent, reads=(RowOpening, DealtRowWeight)
)
GRADIENT = Step("fit.gradient", _gradient, Silent, reads=(VectorOpening, DealtStep))
SOLVE = Step("fit.solve", _solve, Silent, reads=(GradientOpening,))
UPDATE = Step("fit.update", _update, Silent, reads=(PairOpening,))
DEAL_STEP = Step("fit.deal_step", _deal_step, Silent)
SETTLE = Step("fit.settle", _settle, Silent, reads=(RoundOpening,))


def fit(call: Caller, contract: Contract, overlap: Overlap, columns: dict[Name, int]) -> None:
    """Train the joint model: the contract's number of passes, with a checkpoint every few."""
    plan = layout(contract, overlap, columns, FIT)
    masked_in = mask_rows(call, contract, plan, 0)
    find_solver(call, contract, plan)
    make_passes(call, contract, plan, contract.model.iterations, masked_in)


def mask_rows(call: Caller, contract: Contract, plan: Layout, masked_in: int) -> int:
    """Mask matrices and what the bank knows of rows, unless this epoch did; return the epoch.

    Masks live for one epoch: after a resume the matrices are masked anew.
    """
    if call.epoch != masked_in:
        call(data_parties(contract)[0], LOAD_LABELS)
        mask_matrices(call, contract, FIT, plan)
        if contract.align.hidden:
            hide_weight(call, contract, FIT)
        if has_row_weights(contract):
            hide_row_weights(call, contract)
    return call.epoch


def find_solver(call: Caller, contract: Contract, plan: Layout) -> None:
    """Compute the shared inverse of the Gram matrix of the masked matrices."""
    blocks = weighted_gram if contract.align.hidden else shared_gram
    invert_gram(call, contract, plan, blocks(call, contract))


def make_passes(call: Caller, contract: Contract, plan: Layout, passes: int, masked_in: int) -> int:
    """Make passes, with a checkpoint every few; return the epoch in which the matrices are masked now."""
    parties = data_parties(contract)
    steps: list[Reply[RoundOpening, Silent]] = []
    for k in range(passes):
        masked_in = mask_rows(call, contract, plan, masked_in)
        steps = one_pass(call, contract, plan, steps)
        if (k + 1) % contract.model.checkpoint_every == 0 or k + 1 == passes:
            call.all([ask(p, SETTLE, *inbox_of(steps, p)) for p in parties])
            steps = []
            check_range(call, contract)
            checkpoint(call, contract)
    return masked_in


def _gradient_inbox(
    residuals: list[Reply[VectorOpening, Silent]], dealt: Reply[DealtStep, Silent], party: Name
) -> tuple[Sealed[VectorOpening | DealtStep], ...]:
    return (*inbox_of(residuals, party), *inbox_of([dealt], party))


def weigh_inbox(
    rows: list[Reply[RowOpening, Silent]], dealt: Reply[DealtRowWeight, Silent], party: Name
) -> tuple[Sealed[RowOpening | DealtRowWeight], ...]:
    """Collect what the step after `open_rows` reads at one party."""
    return (*inbox_of(rows, party), *inbox_of([dealt], party))


def open_values(
    call: Caller, contract: Contract, plan: Layout, steps: list[Reply[RoundOpening, Silent]]
) -> Sequence[Reply[Linked, Silent]]:
    """Compute the values of all rows at the weights after a step, or at the settled ones, up to their last opening."""
    parties = data_parties(contract)
    weights = [ask(p, OPEN_WEIGHTS, *inbox_of(steps, p)) for p in parties]
    opened, (dealt,) = call.both(weights, [ask(dealer(contract), FIT_ROWS.deal_forward)])
    if is_identity(contract):
        return apply_identity(call, contract, opened, dealt)
    return apply_sigmoid(call, contract, FIT_ROWS, plan, opened, dealt)


def one_pass(
    call: Caller, contract: Contract, plan: Layout, steps: list[Reply[RoundOpening, Silent]]
) -> list[Reply[RoundOpening, Silent]]:
    """Make one full pass over the rows: gradient, preconditioned step with momentum."""
    parties, maker = data_parties(contract), dealer(contract)
    linked = open_values(call, contract, plan, steps)
    if has_row_weights(contract):
        rows, weighing = open_rows(call, contract, linked)
        residual_calls = [ask(p, WEIGHTED_RESIDUAL, *weigh_inbox(rows, weighing, p)) for p in parties]
    else:
        residual_calls = [ask(p, RESIDUAL, *inbox_of(linked, p)) for p in parties]
    residuals, (step_dealt,) = call.both(residual_calls, [ask(maker, DEAL_STEP)])
    gradients = call.all([ask(p, GRADIENT, *_gradient_inbox(residuals, step_dealt, p)) for p in parties])
    factors = call.all([ask(p, SOLVE, *inbox_of(gradients, p)) for p in parties])
    return call.all([ask(p, UPDATE, *inbox_of(factors, p)) for p in parties])
