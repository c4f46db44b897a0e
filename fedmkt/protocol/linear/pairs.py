"""Pairs of two parties: products of a column of one with a column of the other, as shares that nobody opens.

Computes, for every pair of two parties that the contract names and every row of a stage, additive shares of all
products of the two owners' bases (`learn.factors`), exact modulo 2^64 at the scale of matrices: A at the first owner,
B at the second, A + B the columns. From there on each owner's share counts as columns of its own matrix, and both have
one weight vector for them: (A + B) w = A w + B w, and the same of the transposed product and the Gram matrix. Takes
part: the owners, and the dealer.

| learns | what |
|---|---|
| both owners, the dealer | nothing: each sees the other's basis under a mask of one use, and its own share is uniform |

Safe against semi-honest parties, all but one of them together, while the dealer colludes with none. A party that sends
something else than its basis spoils the products unseen. Nobody learns how many rows carry a product: each owner makes
sure that more than half of its train rows carry its factor, so that `limits.min_support` rows carry both
(`learn.factors`). How few of them a product is large on nobody checks: weights of pairs reach scores alone, where a
bank that chooses its number can make one train row count among few. A resume makes the shares anew, of the same
products.

Source: Beaver 1991, with one factor of a product at each party: x y = x (y - b) + (x - a) b + a b.
Letters: x (n, k) the first owner's basis, a its mask; y, b the second's; e = x - a, f = y - b.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.learn import additive, factors
from fedmkt.protocol.alignment.align import joint_rows
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
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    dealer,
    inbox_of,
)
from fedmkt.protocol.layout import FIT, FRACTION_BITS, SCORE, Layout, SharedPair, Stage, layout_of
from fedmkt.protocol.prepare import Prepared, own_columns, read_fitted
from fedmkt.ring.fixed import correction, encode
from fedmkt.ring.kernels import widen

assert 2 * factors.BITS == FRACTION_BITS


@dataclass(frozen=True)
class FactorOpening(Message):
    """A block of rows of the sender's bases minus their masks, of all pairs with the reader side by side."""

    block: int
    rows: Masked[Words]


@dataclass(frozen=True)
class DealtPairs(Message):
    """The reader's corrections of a block of rows, of all pairs whose first owner it is side by side."""

    block: int
    products: Words


@dataclass(frozen=True)
class PairShares(State):
    """The own shares of the products, (rows with the penalty's, columns), and the block that is under way.

    own, masks : of its rows, one (n, k) for each own pair.
    """

    durable: ClassVar[bool] = False
    stage: str
    words: Words
    sent: int
    own: tuple[Words, ...]
    masks: tuple[Words, ...]


@dataclass(frozen=True)
class PairBlocks(State):
    """At the dealer: how many blocks of a stage are dealt."""

    durable: ClassVar[bool] = False
    stage: str
    dealt: int


def _of(plan: Layout, party: Name) -> list[tuple[int, SharedPair]]:
    """List the pairs of a party with their numbers."""
    return [(i, pair) for i, pair in enumerate(plan.pairs) if party in pair.owners]


def _label(stage: Stage, number: int, what: str) -> str:
    return f"{stage.name}/pair{number}/{what}"


def _share(
    stage: Stage, turn: Turn, inbox: Inbox[FactorOpening | DealtPairs]
) -> Outcome[FactorOpening, Silent]:
    """Multiply the block that was sent last, send the own bases of the next one; the last call only multiplies."""
    plan = layout_of(turn, stage)
    blocks, state = plan.pair_blocks(), _begun(turn, stage, plan)
    if state.sent:
        state.words[blocks[state.sent - 1]] = _products(stage, turn, inbox, plan, state)
    if state.sent == len(blocks):
        return Outcome(Silent(), keep=(PairShares(stage.name, state.words, state.sent, (), ()),))
    rows = blocks[state.sent]
    own, masks = _bases(turn, stage, rows), []
    parts: dict[Name, list[Words]] = {}
    for (number, pair), values in zip(_of(plan, turn.me), own, strict=True):
        mask = turn.masks.words(turn.me, _label(stage, number, "x"), 0, values.shape, block=state.sent)
        masks.append(mask)
        parts.setdefault(pair.other(turn.me), []).append(values - mask)
    send = {p: FactorOpening(state.sent, Masked(np.concatenate(found, axis=1))) for p, found in parts.items()}
    kept = PairShares(stage.name, state.words, state.sent + 1, tuple(own), tuple(masks))
    return Outcome(Silent(), send=send, keep=(kept,))


def _begun(turn: Turn, stage: Stage, plan: Layout) -> PairShares:
    if turn.has(PairShares) and turn.recall(PairShares).stage == stage.name:
        return turn.recall(PairShares)
    words = np.zeros((plan.total, plan.held_of(turn.me) - plan.columns_of(turn.me)), np.uint64)
    if stage.penalised:
        # The penalty of a product is that of a column of spread 1, which is public: the first owner's share has it.
        stiff = encode(np.sqrt(np.array(turn.contract.model.penalty)), FRACTION_BITS)
        at = 0
        for _, pair in _of(plan, turn.me):
            if pair.owners[0] == turn.me:
                places = np.arange(pair.width)
                words[plan.rows + pair.columns.start + places, at + places] = stiff
            at += pair.width
    return PairShares(stage.name, words, 0, (), ())


def _bases(turn: Turn, stage: Stage, rows: slice) -> list[Words]:
    """Return the own basis of each own pair for some joint rows, (n, k), zero where padded."""
    fitted = read_fitted(turn.recall(Prepared).preparation)
    if not isinstance(fitted, additive.Additive):
        raise ValueError("pairs are for an additive model")
    places, numbers = joint_rows(turn, stage.penalised)[rows], own_columns(turn).numbers
    is_real, found = places != NO_ROW, []
    for factor in fitted.factors:
        values = np.zeros((len(places), factors.COLUMNS), np.int32)
        values[is_real] = factors.units(factor, numbers[factor.name][places[is_real]])
        found.append(widen(values))
    return found


def _products(
    stage: Stage, turn: Turn, inbox: Inbox[FactorOpening | DealtPairs], plan: Layout, state: PairShares
) -> Words:
    """Return the own shares of the last block's products, of all own pairs side by side."""
    block, rows = state.sent - 1, plan.pair_blocks()[state.sent - 1]
    n, out = rows.stop - rows.start, []
    opened = _parts(inbox, plan, turn, block, n)
    dealt = _dealt(inbox, plan, turn, block, n)
    for place, (number, pair) in enumerate(_of(plan, turn.me)):
        if pair.owners[0] == turn.me:
            out.append(_each_with_each(state.own[place], opened[number]) + dealt[number])
        else:
            share = turn.masks.words(turn.me, _label(stage, number, "xy"), 0, (n, pair.width), block=block)
            out.append(_each_with_each(opened[number], state.masks[place]) + share)
    return np.concatenate(out, axis=1)


def _each_with_each(left: Words, right: Words) -> Words:
    """Multiply the columns of each row: (n, a) and (n, b), returns (n, a b)."""
    return (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)


def _parts(inbox: Inbox[Message], plan: Layout, turn: Turn, block: int, n: int) -> dict[int, Words]:
    """Return the others' masked bases by the number of the pair."""
    found, out = inbox.by_sender(FactorOpening), dict[int, Words]()
    shared = [(number, pair.other(turn.me)) for number, pair in _of(plan, turn.me)]
    if set(found) != {p for _, p in shared}:
        raise ValueError("the bases of the others are missing")
    for party, message in found.items():
        numbers = [number for number, other in shared if other == party]
        words = message.rows.words
        if (message.block, words.shape) != (block, (n, factors.COLUMNS * len(numbers))):
            raise ValueError(f"the bases of {party} have another shape than agreed")
        out |= dict(zip(numbers, np.split(words, len(numbers), axis=1), strict=True))
    return out


def _dealt(inbox: Inbox[Message], plan: Layout, turn: Turn, block: int, n: int) -> dict[int, Words]:
    """Return the own corrections by the number of the pair."""
    numbers = [number for number, pair in _of(plan, turn.me) if pair.owners[0] == turn.me]
    if not numbers:
        return {}
    found = inbox.one(dealer(turn.contract), DealtPairs)
    if (found.block, found.products.shape) != (block, (n, factors.COLUMNS**2 * len(numbers))):
        raise ValueError("the dealer's corrections are for another block")
    return dict(zip(numbers, np.split(found.products, len(numbers), axis=1), strict=True))


def _deal(stage: Stage, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtPairs, Silent]:
    """At the dealer: deal the products of the masks of the next block."""
    plan = layout_of(turn, stage)
    is_begun = turn.has(PairBlocks) and turn.recall(PairBlocks).stage == stage.name
    block = turn.recall(PairBlocks).dealt if is_begun else 0
    rows = plan.pair_blocks()[block]
    n, parts = rows.stop - rows.start, dict[Name, list[Words]]()
    for number, pair in enumerate(plan.pairs):
        a, b = (
            turn.masks.words(p, _label(stage, number, "x"), 0, (n, factors.COLUMNS), block=block)
            for p in pair.owners
        )
        share = turn.masks.words(pair.owners[1], _label(stage, number, "xy"), 0, (n, pair.width), block=block)
        parts.setdefault(pair.owners[0], []).append(correction(_each_with_each(a, b), [share]))
    send = {p: DealtPairs(block, np.concatenate(found, axis=1)) for p, found in parts.items()}
    return Outcome(Silent(), send=send, keep=(PairBlocks(stage.name, block + 1),))


_SHARE = {
    s.name: Step(f"{s.name}.share_pairs", partial(_share, s), Silent, reads=(FactorOpening, DealtPairs))
    for s in (FIT, SCORE)
}
_DEAL = {s.name: Step(f"{s.name}.deal_pairs", partial(_deal, s), Silent) for s in (FIT, SCORE)}


def share_pairs(call: Caller, contract: Contract, stage: Stage, plan: Layout) -> None:
    """Leave the owners of each pair with their shares of its products, block by block."""
    owners = [p for p in data_parties(contract) if any(p in pair.owners for pair in plan.pairs)]
    sent: list[Reply[FactorOpening, Silent]] = []
    dealt: list[Reply[DealtPairs, Silent]] = []
    blocks = len(plan.pair_blocks())
    for b in range(blocks + 1 if owners else 0):
        calls = [ask(p, _SHARE[stage.name], *inbox_of(sent, p), *inbox_of(dealt, p)) for p in owners]
        dealing = [ask(dealer(contract), _DEAL[stage.name])] if b < blocks else []
        sent, dealt = call.both(calls, dealing)
