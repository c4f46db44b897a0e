"""Products of two shared matrices, rounded: two rounds, used by the inverse and by each training step.

Takes part: all parties that hold data, and the dealer. Nobody learns anything: factors and product are opened under
masks of one use. Safe against semi-honest parties, all but one of them together, while the dealer colludes with none.
Source: Beaver 1991; rounding: ring/rounding.py. Letters: C = A B, the dealt product of the factors' masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmkt.protocol.core import (
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
    to_all,
)
from fedmkt.protocol.shared import (
    DealtRounding,
    Opening,
    add_up,
    deal_rounding,
    finish_rounding,
    from_others,
    open_masked,
    shared_from_seeds,
    sum_openings,
)
from fedmkt.ring import product


@dataclass(frozen=True)
class PairOpening(Message):
    """Shares of two factors, each minus its mask."""

    left: Masked[Words]
    right: Masked[Words]


@dataclass(frozen=True)
class RoundOpening(Opening):
    """A share of a product plus its mask."""


@dataclass(frozen=True)
class DealtProduct(Message):
    """The first party's corrections of one product of shared matrices and its rounding."""

    product: Words
    rounding: DealtRounding


@dataclass(frozen=True)
class Multiplication(State):
    """One product under way: the own factors' masks, the own openings, the rounding to come."""

    durable: ClassVar[bool] = False
    label: str
    count: int
    left_mask: Words
    right_mask: Words
    left: Words
    right: Words
    rounding: Words
    dealt: DealtRounding | None


def open_pair(
    turn: Turn, label: str, count: int, left: Words, right: Words, *states: State
) -> Outcome[PairOpening, Silent]:
    """Open two shared factors under fresh masks; `label` and `count` number the product, `states` are kept too."""
    a = turn.masks.words(turn.me, f"{label}/A", count, left.shape)
    b = turn.masks.words(turn.me, f"{label}/B", count, right.shape)
    kept = Multiplication(label, count, a, b, left - a, right - b, np.empty(0, np.uint64), None)
    message = PairOpening(Masked(kept.left), Masked(kept.right))
    return Outcome(Silent(), send=to_all(turn.others, message), keep=(kept, *states))


def multiply(turn: Turn, inbox: Inbox[Message], dealt: DealtProduct | None) -> Words:
    """Return the own share of the product whose factors were opened, before its rounding."""
    state = turn.recall(Multiplication)
    shapes = (state.left.shape, state.right.shape)
    found = from_others(
        turn,
        inbox,
        PairOpening,
        lambda m: (m.left.words.shape, m.right.words.shape) == shapes,
        "the factors",
    )
    left = add_up([state.left, *(m.left.words for m in found.values())])
    right = add_up([state.right, *(m.right.words for m in found.values())])
    shape = (left.shape[0], right.shape[1])
    c = shared_from_seeds(turn, f"{state.label}/C", state.count, shape, dealt.product if dealt else None)
    return product.product_share(left, right, state.left_mask, state.right_mask, c, first=turn.first)


def open_product(turn: Turn, share: Words, dealt: DealtProduct | None) -> Outcome[RoundOpening, Silent]:
    """Open a product, or a sum with one, under the mask of its rounding."""
    state = turn.recall(Multiplication)
    own = open_masked(turn, state.label, state.count, share)
    empty = np.empty((0, 0), np.uint64)
    kept = Multiplication(
        state.label, state.count, empty, empty, empty, empty, own, dealt.rounding if dealt else None
    )
    return Outcome(Silent(), send=to_all(turn.others, RoundOpening(Masked(own))), keep=(kept,))


def take_product(turn: Turn, inbox: Inbox[PairOpening | DealtProduct]) -> Outcome[RoundOpening, Silent]:
    """Multiply what was opened with `open_pair` and open the product: all of a step that does nothing else."""
    dealt = inbox.one(dealer(turn.contract), DealtProduct) if turn.first else None
    return open_product(turn, multiply(turn, inbox, dealt), dealt)


def product_inbox(
    opened: Sequence[Reply[PairOpening, Silent]], dealt: Reply[DealtProduct, Silent], party: Name
) -> tuple[Sealed[PairOpening | DealtProduct], ...]:
    """Collect what a step of `take_product` reads at one party."""
    return (*inbox_of(opened, party), *inbox_of([dealt], party))


def finish_product(turn: Turn, inbox: Inbox[Message], shift: int) -> Words:
    """Take in the opened product and return the own share of it, divided by 2^shift."""
    state = turn.recall(Multiplication)
    opened = sum_openings(state.rounding, inbox, turn, RoundOpening)
    return finish_rounding(turn, state.label, state.count, opened, shift, state.dealt)


def deal_product(
    turn: Turn, label: str, count: int, left: tuple[int, int], right: tuple[int, int], shift: int
) -> DealtProduct:
    """At the dealer: deal one product of shared matrices and its rounding."""
    a = add_up([turn.masks.words(p, f"{label}/A", count, left) for p in turn.parties])
    b = add_up([turn.masks.words(p, f"{label}/B", count, right) for p in turn.parties])
    shape = (left[0], right[1])
    rest = [turn.masks.words(p, f"{label}/C", count, shape) for p in turn.parties[1:]]
    return DealtProduct(
        product.product_correction(a, b, rest), deal_rounding(turn, label, count, shape, shift)
    )
