"""Linear predictor of a joint model on shares, and the transposed product.

Computes shares of sum over p of X_p w_p for every row, and of X_pᵀ r, for matrices that stay with their owners and
weights that nobody knows. Takes part: all parties that hold data, and the dealer. Nobody learns anything: every
message is a masked opening to a party, or the dealer's correction to the first one. Safe against semi-honest
parties, all but one of them together, while the dealer colludes with none. Nothing that a party sends is checked for
being right: a party that deviates can spoil the model or shift weights. Source: protocols.md sections 0 and 2;
Beaver's triples with the matrix masked once.

Letters: E_p = X_p - U_p, masked matrix; v^q_p fresh masks of q's weights for p; z predictor; n rows, padded.
Columns: the bank's intercept, the bank's columns, each partner's columns, products of pairs of two parties
(`pairs`), of which either owner's matrix has a share. Rows beyond n are the penalty: row j of them is sqrt(penalty)
times one column's scale, with the identity in place of the sigmoid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmkt.protocol.core import (
    HalfWords,
    Inbox,
    Masked,
    Message,
    Name,
    Outcome,
    Reply,
    Sealed,
    Silent,
    State,
    Turn,
    Words,
    dealer,
    inbox_of,
)
from fedmkt.protocol.layout import FRACTION_BITS, WEIGHT_BITS, Layout, Stage, layout_of, residual_bits
from fedmkt.protocol.linear.matrices import Matrices
from fedmkt.protocol.linear.targets import offset_words
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.shared import (
    DealtRounding,
    add_up,
    deal_rounding,
    deal_value,
    finish_rounding,
    from_others,
    open_masked,
    shared_from_seeds,
)
from fedmkt.ring import product
from fedmkt.ring.kernels import matvec, matvec_transposed


@dataclass(frozen=True)
class VectorOpening(Message):
    """The sender's share of a vector minus its mask for the reader: weights, or residuals."""

    words: Masked[Words]


@dataclass(frozen=True)
class DealtProducts(Message):
    """The first party's corrections for one forward product and its transposed product."""

    z: Words
    g: Words
    penalty: DealtRounding


@dataclass(frozen=True)
class Weights(State):
    """The own share of all weights, (width,)."""

    w: Words


@dataclass(frozen=True)
class Forward(State):
    """What one forward product needs between its rounds; `count` numbers its masks within the epoch."""

    durable: ClassVar[bool] = False
    count: int
    masks: dict[str, Words]
    z: Words
    angles: HalfWords
    penalty: Words
    dealt_penalty: DealtRounding | None
    dealt_g: Words | None


def open_weights(turn: Turn, stage: Stage, w: Words, *states: State) -> Outcome[VectorOpening, Silent]:
    """Open to each owner the own share of its weights, and begin one forward product; `states` are kept too."""
    plan = layout_of(turn, stage)
    count, counts = next_count(turn, stage.name)
    masks = {
        str(p): turn.masks.words(turn.me, f"{stage.name}/w", count, plan.held_of(p), to=p)
        for p in turn.others
    }
    send = {p: VectorOpening(Masked(w[plan.held(p)] - masks[p])) for p in turn.others}
    empty, half = np.empty(0, np.uint64), np.empty(0, np.uint32)
    forward = Forward(count, masks, empty, half, empty, None, None)
    return Outcome(Silent(), send=send, keep=(Weights(w), counts, forward, *states))


def _sum_vectors(turn: Turn, inbox: Inbox[Message], length: int) -> list[Words]:
    found = from_others(
        turn, inbox, VectorOpening, lambda m: m.words.words.shape == (length,), "the openings"
    )
    return [m.words.words for m in found.values()]


def finish_predictor(turn: Turn, stage: Stage, inbox: Inbox[Message]) -> Forward:
    """Return the own share of z for all rows, and the own opening of the penalty rows."""
    plan = layout_of(turn, stage)
    matrices, weights, forward = turn.recall(Matrices), turn.recall(Weights), turn.recall(Forward)
    count = forward.count
    openings = _sum_vectors(turn, inbox, plan.held_of(turn.me))
    z = product.owner_part(matrices.own, weights.w[plan.held(turn.me)], openings)
    for party in turn.others:
        z += product.other_part(matrices.masked[party], forward.masks[party])
    dealt = inbox.one(dealer(turn.contract), DealtProducts) if turn.first else None
    z += shared_from_seeds(turn, f"{stage.name}/z", count, plan.total, dealt.z if dealt else None)
    offset = offset_words(turn, stage)
    if offset is not None:
        z[: plan.rows] += offset
    penalty = open_masked(turn, f"{stage.name}/penalty", count, z[plan.rows :])
    corrections = (dealt.penalty, dealt.g) if dealt else (None, None)
    return Forward(count, {}, z, np.empty(0, np.uint32), penalty, *corrections)


def finish_penalty(turn: Turn, stage: Stage) -> Words:
    """Return the own share of the penalty rows' values at the scale of residuals."""
    forward = turn.recall(Forward)
    shift = FRACTION_BITS + WEIGHT_BITS - residual_bits(turn.contract)
    return finish_rounding(
        turn, f"{stage.name}/penalty", forward.count, forward.penalty, shift, forward.dealt_penalty
    )


def open_residual(
    turn: Turn, stage: Stage, r: Words, keep: Callable[[dict[str, Words]], State]
) -> Outcome[VectorOpening, Silent]:
    """Open to each owner the own share of the residuals, for the transposed product; `keep` says what to remember."""
    count = turn.recall(Forward).count
    masks = {str(p): turn.masks.words(turn.me, f"{stage.name}/r", count, len(r), to=p) for p in turn.others}
    send = {p: VectorOpening(Masked(r - masks[p])) for p in turn.others}
    return Outcome(Silent(), send=send, keep=(keep(masks),))


def gradient_share(
    turn: Turn, stage: Stage, plan: Layout, r: Words, masks: dict[str, Words], inbox: Inbox[Message]
) -> Words:
    """Return the own share of Xᵀ r, (width,)."""
    matrices, forward = turn.recall(Matrices), turn.recall(Forward)
    g = shared_from_seeds(turn, f"{stage.name}/g", forward.count, plan.width, forward.dealt_g).copy()
    openings = _sum_vectors(turn, inbox, plan.total)
    g[plan.held(turn.me)] += product.owner_part_transposed(matrices.own, r, openings)
    for party in turn.others:
        g[plan.held(party)] += product.other_part_transposed(matrices.masked[party], masks[party])
    return g


def deal_products(stage: Stage, turn: Turn, count: int) -> DealtProducts:
    """Compute the corrections of one forward product, and in training of its transposed product."""
    plan = layout_of(turn, stage)
    z = np.empty(plan.total, np.uint64)
    g = np.zeros(plan.width, np.uint64)
    vs = {
        p: add_up([_weight_mask(turn, stage, q, p, count, plan) for q in turn.parties if q != p])
        for p in turn.parties
    }
    rs = _residual_masks(turn, stage, count, plan)
    for block, rows in enumerate(plan.matrix_blocks()):
        z[rows] = 0
        for party in turn.parties:
            mask = turn.masks.words(
                party, f"{stage.name}/U", 0, (rows.stop - rows.start, plan.held_of(party)), block=block
            )
            z[rows] += matvec(mask, vs[party])
            if stage.penalised:
                g[plan.held(party)] += matvec_transposed(mask, rs[party][rows])
    shift = FRACTION_BITS + WEIGHT_BITS - residual_bits(turn.contract)
    penalty = deal_rounding(turn, f"{stage.name}/penalty", count, plan.penalty_rows, shift)
    corrected = deal_value(turn, f"{stage.name}/z", count, z), deal_value(turn, f"{stage.name}/g", count, g)
    return DealtProducts(*corrected, penalty)


def _weight_mask(turn: Turn, stage: Stage, sender: Name, owner: Name, count: int, plan: Layout) -> Words:
    return turn.masks.words(sender, f"{stage.name}/w", count, plan.held_of(owner), to=owner)


def _residual_masks(turn: Turn, stage: Stage, count: int, plan: Layout) -> dict[Name, Words]:
    if not stage.penalised:
        return {}
    return {
        p: add_up(
            [turn.masks.words(q, f"{stage.name}/r", count, plan.total, to=p) for q in turn.parties if q != p]
        )
        for p in turn.parties
    }


def predictor_inbox(
    opened: Sequence[Reply[VectorOpening, Silent]], dealt: Reply[DealtProducts, Silent], party: Name
) -> tuple[Sealed[VectorOpening | DealtProducts], ...]:
    """Collect what the step after opened weights reads at one party."""
    return (*inbox_of(opened, party), *inbox_of([dealt], party))
