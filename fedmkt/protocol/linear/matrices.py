"""Masked matrices: every party gets E_p = X_p - U_p of all others, once per stage and epoch.

Takes part: all parties that hold data; the dealer knows U_p from its seeds. Nobody learns anything: E_p is uniform.
Safe against semi-honest parties, all but one of them together, while the dealer colludes with none.
Source: protocols.md section 2. U_p is drawn for one stage (training or scoring) of one epoch, and serves all its
products and the Gram block.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.align import joint_rows
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
    Outcome,
    Reply,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    inbox_of,
    to_all,
)
from fedmkt.protocol.layout import FIT, FRACTION_BITS, SCORE, Layout, Stage, layout_of
from fedmkt.protocol.linear.pairs import PairShares, share_pairs
from fedmkt.protocol.linear.penalties import row_penalty
from fedmkt.protocol.prepare import Prepared, encoded_matrix
from fedmkt.ring import product
from fedmkt.ring.fixed import encode32
from fedmkt.ring.kernels import Matrix, widen


@dataclass(frozen=True)
class MaskedRows(Message):
    """A block of rows of E = X - U."""

    block: int
    rows: Masked[Words]


@dataclass(frozen=True)
class Matrices(State):
    """The own matrix in fixed point and the others' masked ones, for one stage of one epoch.

    own : words where it has shares of products (`pairs`).
    """

    durable: ClassVar[bool] = False
    stage: str
    own: Matrix
    masked: dict[str, Words]
    first_mask: Words
    sent: int


def _mask_rows(stage: Stage, turn: Turn, inbox: Inbox[MaskedRows]) -> Outcome[MaskedRows, Silent]:
    """Take in the others' block, send the own next one; the last call only takes in."""
    plan = layout_of(turn, stage)
    blocks = plan.matrix_blocks()
    held = _matrices(turn, stage, plan)
    sent, found = held.sent, inbox.by_sender(MaskedRows)
    if set(found) != (set(turn.others) if sent else set()):
        raise ValueError("the masked rows of the others are missing")
    for party, message in found.items():
        block = blocks[sent - 1]
        if message.block != sent - 1 or message.rows.words.shape != (
            block.stop - block.start,
            plan.held_of(party),
        ):
            raise ValueError(f"the masked rows of {party} have another shape than agreed")
        held.masked[party][block] = message.rows.words
    if sent == len(blocks):
        return Outcome(Silent(), keep=(held,), forget=(PairShares,))
    rows = blocks[sent]
    mask = turn.masks.words(turn.me, f"{stage.name}/U", 0, held.own[rows].shape, block=sent)
    masked = MaskedRows(sent, Masked(product.mask_matrix(held.own[rows], mask)))
    first = held.first_mask
    if sent == 0 and stage.penalised:
        first = mask[: gram_rows(turn.contract, plan)].copy()
    kept = Matrices(stage.name, held.own, held.masked, first, sent + 1)
    return Outcome(Silent(), send=to_all(turn.others, masked), keep=(kept,))


def gram_rows(contract: Contract, plan: Layout) -> int:
    """Return how many rows the Gram block is estimated from: they are in the first block of rows."""
    return min(contract.model.gram_rows, plan.rows, plan.matrix_block)


def _matrices(turn: Turn, stage: Stage, plan: Layout) -> Matrices:
    if turn.has(Matrices) and turn.recall(Matrices).stage == stage.name:
        return turn.recall(Matrices)
    others = {str(p): np.empty((plan.total, plan.held_of(p)), np.uint64) for p in turn.others}
    return Matrices(stage.name, _own_matrix(turn, stage, plan), others, np.empty((0, 0), np.uint64), 0)


def _own_matrix(turn: Turn, stage: Stage, plan: Layout) -> Matrix:
    own = _own_columns(turn, stage, plan)
    if plan.held_of(turn.me) == plan.columns_of(turn.me):
        return own
    return np.concatenate([widen(own), turn.recall(PairShares).words], axis=1)


def _own_columns(turn: Turn, stage: Stage, plan: Layout) -> NDArray[np.int32]:
    rows = joint_rows(turn, stage.penalised)
    x = encoded_matrix(turn, rows, FRACTION_BITS)
    own = plan.columns[turn.me]
    offset = plan.columns_of(turn.me) - x.shape[1]
    out = np.zeros((plan.total, plan.columns_of(turn.me)), dtype=np.int32)
    out[: plan.rows, offset:] = x
    if offset:
        out[: plan.rows, 0] = (rows != NO_ROW).astype(np.int32) << FRACTION_BITS
    if stage.penalised:
        scale = np.sqrt(row_penalty(turn.contract)) / turn.recall(Prepared).spread
        at = np.arange(plan.rows + own.start + offset, plan.rows + own.stop)
        out[at, np.arange(offset, out.shape[1])] = encode32(scale, FRACTION_BITS)
    return out


_MASK = {
    s.name: Step(f"{s.name}.mask_rows", partial(_mask_rows, s), Silent, reads=(MaskedRows,))
    for s in (FIT, SCORE)
}


def mask_matrices(call: Caller, contract: Contract, stage: Stage, plan: Layout) -> None:
    """Give every party the others' masked matrices, block by block; the products of pairs are made before."""
    share_pairs(call, contract, stage, plan)
    parties, step = data_parties(contract), _MASK[stage.name]
    sent: list[Reply[MaskedRows, Silent]] = []
    for _ in range(len(plan.matrix_blocks()) + 1):
        sent = call.all([ask(p, step, *inbox_of(sent, p)) for p in parties])
