"""Products between the parties' private matrices over all rows, rounded, on shares; released by who asks for them.

Computes shares of X_pᵀ X_q for pairs of parties, for columns that a kind of product names. Takes part: all parties
that hold data, and the dealer. Nobody learns anything: masked rows, openings under masks of one use, fresh shares.
Safe against semi-honest parties, all but one of them together, while the dealer colludes with none.
Source: protocols.md section 2 (Gram block). Letters: E_p = X_p - U_p, masked, block of rows by block; each is forgotten
when its products are added up, so that no party holds another's whole matrix.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

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
from fedmkt.protocol.prepare import shapes
from fedmkt.protocol.shared import (
    DealtRounding,
    Opening,
    deal_rounding,
    deal_value,
    finish_rounding,
    open_masked,
    shared_from_seeds,
    sum_openings,
)
from fedmkt.ring import product
from fedmkt.ring.fixed import encode32
from fedmkt.ring.kernels import gram

Array = NDArray[np.float64]
Widths = Mapping[Name, int]


@dataclass(frozen=True)
class Factors:
    """What is multiplied: `values` gives the own columns of a block of joint rows, (n, d), zero where padded.

    bits : scale of both factors; factor, shift : the product is multiplied by the first and divided by 2^shift.
    rows : padded, from public values; widths : columns of each party's factor, from those of its prepared matrix.
    """

    name: str
    bits: int
    factor: int
    shift: int
    rows: Callable[[Contract, Overlap], int]
    widths: Callable[[Widths], dict[Name, int]]
    pairs: Callable[[Sequence[Name]], list[tuple[Name, Name]]]
    values: Callable[[Turn, slice], Array]


@dataclass(frozen=True)
class MaskedColumns(Message):
    """A block of rows of E = X - U."""

    block: int
    rows: Masked[Words]


@dataclass(frozen=True)
class DealtCross(Message):
    """The first party's corrections: of the products of masks, and of the rounding."""

    product: Words
    rounding: DealtRounding


@dataclass(frozen=True)
class CrossOpening(Opening):
    """A share of the products plus its mask, for their rounding."""


@dataclass(frozen=True)
class Crossing(State):
    """Products under way: blocks sent, the own share so far, and the own block whose answer is awaited."""

    durable: ClassVar[bool] = False
    sent: int
    share: Words
    block: NDArray[np.int32]
    mask: Words


@dataclass(frozen=True)
class CrossRounding(State):
    """The own opening of the rounding under way, and at the first party its corrections."""

    durable: ClassVar[bool] = False
    own: Words
    dealt: DealtRounding | None


@dataclass(frozen=True)
class CrossShare(State):
    """The own share of the rounded products. In a checkpoint before it leaves: a resume sends the same one again."""

    words: Words


def row_blocks(of: Factors, contract: Contract, overlap: Overlap, columns: Widths) -> list[slice]:
    """Say in which blocks the rows travel: a function of public values only."""
    rows, size = of.rows(contract, overlap), BLOCK_BYTES // (8 * max(of.widths(columns).values()))
    return [slice(start, min(rows, start + size)) for start in range(0, rows, size)]


def pair_slices(of: Factors, columns: Widths) -> dict[tuple[Name, Name], slice]:
    """Say where the block of each pair stands in the vector of all products; `columns` : the bank first."""
    at, found, widths = 0, {}, of.widths(columns)
    for p, q in of.pairs(tuple(columns)):
        found[p, q] = slice(at, at + widths[p] * widths[q])
        at = found[p, q].stop
    return found


def products_of(of: Factors, columns: Widths) -> int:
    """Count the entries of all blocks."""
    return max(int(where.stop) for where in pair_slices(of, columns).values())


def _columns(turn: Turn) -> dict[Name, int]:
    return {p: s.columns for p, s in shapes(turn).items()}


def _own_blocks(of: Factors, turn: Turn) -> list[slice]:
    return row_blocks(of, turn.contract, turn.published(Overlap, turn.parties[0]), _columns(turn))


def _mask_columns(of: Factors, turn: Turn, inbox: Inbox[MaskedColumns]) -> Outcome[MaskedColumns, Silent]:
    """Take in the others' block and add up its products, send the own next one; the last call only takes in."""
    columns, blocks = _columns(turn), _own_blocks(of, turn)
    sent, share = 0, np.zeros(products_of(of, columns), np.uint64)
    if turn.has(Crossing):
        state = turn.recall(Crossing)
        sent, share = state.sent, state.share + _products(of, turn, inbox, state, columns)
    if sent == len(blocks):
        return Outcome(Silent(), keep=(Crossing(sent, share, np.empty((0, 0), np.int32), _NOTHING),))
    block = encode32(of.values(turn, blocks[sent]), of.bits)
    mask = turn.masks.words(turn.me, f"{of.name}/U", 0, block.shape, block=sent)
    message = MaskedColumns(sent, Masked(product.mask_matrix(block, mask)))
    return Outcome(
        Silent(), send=to_all(turn.others, message), keep=(Crossing(sent + 1, share, block, mask),)
    )


_NOTHING: Words = np.empty((0, 0), np.uint64)


def _products(
    of: Factors, turn: Turn, inbox: Inbox[MaskedColumns], state: Crossing, columns: Widths
) -> Words:
    """Return what a block adds to the own share: U_pᵀ E_q for the first of a pair, E_pᵀ X_q for the second."""
    found, widths, n = inbox.by_sender(MaskedColumns), of.widths(columns), len(state.block)
    if set(found) != set(turn.others) or any(
        m.block != state.sent - 1 or m.rows.words.shape != (n, widths[p]) for p, m in found.items()
    ):
        raise ValueError("the masked columns of the others are missing or have another shape than agreed")
    out = np.zeros_like(state.share)
    for (p, q), where in pair_slices(of, columns).items():
        if turn.me == p:
            out[where] = product.gram_first(state.mask, found[q].rows.words).reshape(-1)
        elif turn.me == q:
            out[where] = product.gram_second(found[p].rows.words, state.block).reshape(-1)
    return out


def _deal(of: Factors, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtCross, Silent]:
    columns = _columns(turn)
    widths, pairs = of.widths(columns), pair_slices(of, columns)
    total = np.zeros(products_of(of, columns), np.uint64)
    for i, rows in enumerate(_own_blocks(of, turn)):
        n = rows.stop - rows.start
        masks = {p: turn.masks.words(p, f"{of.name}/U", 0, (n, d), block=i) for p, d in widths.items()}
        for (p, q), where in pairs.items():
            total[where] += gram(masks[p], masks[q]).reshape(-1)
    dealt = DealtCross(
        deal_value(turn, f"{of.name}/product", 0, total),
        deal_rounding(turn, f"{of.name}/round", 0, len(total), of.shift),
    )
    return Outcome(Silent(), send={turn.parties[0]: dealt})


def _open(of: Factors, turn: Turn, inbox: Inbox[DealtCross]) -> Outcome[CrossOpening, Silent]:
    dealt = inbox.one(dealer(turn.contract), DealtCross) if turn.first else None
    share = turn.recall(Crossing).share
    given = dealt.product if dealt else None
    share = share + shared_from_seeds(turn, f"{of.name}/product", 0, len(share), given)
    own = open_masked(turn, f"{of.name}/round", 0, share * np.uint64(of.factor))
    return Outcome(
        Silent(),
        send=to_all(turn.others, CrossOpening(Masked(own))),
        keep=(CrossRounding(own, dealt.rounding if dealt else None),),
        forget=(Crossing,),
    )


def _share(of: Factors, turn: Turn, inbox: Inbox[CrossOpening]) -> Outcome[Nothing, Silent]:
    state = turn.recall(CrossRounding)
    opened = sum_openings(state.own, inbox, turn, CrossOpening)
    share = finish_rounding(turn, f"{of.name}/round", 0, opened, of.shift, state.dealt)
    return Outcome(Silent(), keep=(CrossShare(share),), forget=(CrossRounding,))


@dataclass(frozen=True)
class CrossSteps:
    """The steps of one kind of product."""

    of: Factors
    mask: Step[MaskedColumns, MaskedColumns, Silent]
    deal: Step[Nothing, DealtCross, Silent]
    open: Step[DealtCross, CrossOpening, Silent]
    share: Step[CrossOpening, Nothing, Silent]


def steps_of(of: Factors) -> CrossSteps:
    """Name the steps of one kind of product."""
    return CrossSteps(
        of,
        Step(f"{of.name}.mask_columns", partial(_mask_columns, of), Silent, reads=(MaskedColumns,)),
        Step(f"{of.name}.deal", partial(_deal, of), Silent),
        Step(f"{of.name}.open", partial(_open, of), Silent, reads=(DealtCross,)),
        Step(f"{of.name}.share", partial(_share, of), Silent, reads=(CrossOpening,)),
    )


def cross_product(
    call: Caller, contract: Contract, overlap: Overlap, columns: Widths, steps: CrossSteps
) -> None:
    """Leave each party with its `CrossShare` of the rounded products."""
    parties = data_parties(contract)
    sent: list[Reply[MaskedColumns, Silent]] = []
    for _ in range(len(row_blocks(steps.of, contract, overlap, columns)) + 1):
        sent = call.all([ask(p, steps.mask, *inbox_of(sent, p)) for p in parties])
    dealt = call(dealer(contract), steps.deal)
    opened = call.all([ask(p, steps.open, *inbox_of([dealt], p)) for p in parties])
    call.all([ask(p, steps.share, *inbox_of(opened, p)) for p in parties])
