"""Shared values: what trees add to each row, where nobody knows which leaf it is in.

Computes the value of one or more trees for every row, shared modulo 2^24 between the bank and one partner. Each split
belongs to one of the two, who alone knows which rows go left; the leaves' values are the bank's alone. Takes part: the
bank, that partner, and the dealer.

| learns | what |
|---|---|
| bank, partner | nothing: what is opened is uniform |
| dealer, coordinator | nothing but how many splits there are at each depth, whose they are, and how many rows |

Safe against a semi-honest bank or partner, while the dealer colludes with neither.

From the deepest splits upward: the value of a node is that of its right child, plus its side bit times the left one's
minus the right one's (`side_product`). One round for each depth, for all trees at once. A split of the bank's with no
split of the partner's below it costs nothing: its value is the bank's. 6 bytes for each row and other split, in all.
The letters are those of ring/side_bits.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeVar

import numpy as np

from fedmkt.contract import Contract
from fedmkt.protocol.core import (
    Caller,
    HalfWords,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    PublicValue,
    Reply,
    Sealed,
    Silent,
    State,
    Step,
    Turn,
    ask,
    data_parties,
    dealer,
    inbox_of,
)
from fedmkt.protocol.linear import next_count
from fedmkt.protocol.shared_gradients import SCORE_BITS
from fedmkt.protocol.side_product import (
    Batch,
    DealtSides,
    MaskedSides,
    Opened,
    deal_sides,
    multiply_sides,
    open_sides,
)
from fedmkt.ring.side_bits import Bits

Owners = tuple[tuple[int, bool], ...]
"""The splits of one tree by node: whether they are the bank's."""
Place = tuple[int, int]
"""A tree, and a node of it."""


@dataclass(frozen=True)
class Forests:
    """Trees whose values are computed at once, for n rows; `label` says what for.

    are_leaves_shared : nobody knows the leaves' values, so every split takes a product.
    """

    label: str
    partner: Name
    rows: int
    trees: tuple[Owners, ...]
    are_leaves_shared: bool = False

    @property
    def depth(self) -> int:
        """How many levels of splits there are."""
        return max((_depth(node) + 1 for tree in self.trees for node, _ in tree), default=0)

    def splits(self, depth: int) -> list[tuple[Place, bool]]:
        """List the splits at a depth; whether they are the bank's."""
        return [
            ((t, node), of_bank)
            for t, tree in enumerate(self.trees)
            for node, of_bank in tree
            if _depth(node) == depth
        ]

    def products(self, depth: int) -> list[tuple[Place, bool]]:
        """List those of them that take a product: the partner's, and the bank's with some of the partner's below."""
        if self.are_leaves_shared:
            return self.splits(depth)
        shared = {
            (t, above)
            for t, tree in enumerate(self.trees)
            for node, of_bank in tree
            if not of_bank
            for above in _ancestors(node)
        }
        return [(place, of_bank) for place, of_bank in self.splits(depth) if not of_bank or place in shared]

    def batch(self, depth: int, count: int) -> Batch:
        """Return the products at a depth; `count` numbers them within the epoch."""
        owners = tuple(of_bank for _, of_bank in self.products(depth))
        return Batch(self.label, count, self.partner, owners, self.rows, (SCORE_BITS,))


@dataclass(frozen=True)
class Folding(State):
    """The own shares of the values of nodes, by tree and node, (n,) or one for all rows; the products under way."""

    durable: ClassVar[bool] = False
    values: dict[Place, HalfWords]
    batch: Batch | None = None
    opened: Opened | None = None


def start(leaves: Mapping[Place, int]) -> Folding:
    """Begin with the values of leaves, in units; the partner's share of every leaf is 0, and may be left out."""
    return Folding({p: np.array([v % 2**32], np.uint32) for p, v in leaves.items()})


def start_shared(leaves: Mapping[Place, np.uint32]) -> Folding:
    """Begin with the own shares of the values of all leaves."""
    return Folding({place: np.array([share], np.uint32) for place, share in leaves.items()})


def open_values(
    turn: Turn, forest: Forests, depth: int, count: int, state: Folding, sides: Mapping[Place, Bits]
) -> tuple[MaskedSides | None, Folding]:
    """Open what the products at a depth need; sides : (n,) for each own split. None where there is no product."""
    products, values = forest.products(depth), dict(state.values)
    for place, _ in forest.splits(depth):
        if (place, True) not in products and (place, False) not in products:
            # The bank knows all of it, and the partner's share is 0.
            left, right = _children(values, place)
            values[place] = np.where(sides[place], left, right) if turn.first else np.zeros(1, np.uint32)
    if not products:
        return None, Folding(values)
    batch = forest.batch(depth, count)
    x = np.empty((len(products), forest.rows), np.uint32)
    for row, (place, _) in zip(x, products, strict=True):
        left, right = _children(values, place)
        row[:] = left - right
    own = [sides[place] for place, of_bank in products if of_bank == turn.first]
    bits = np.array(own, np.bool_).reshape(len(own), forest.rows)
    message, opened = open_sides(turn, batch, bits, (x,))
    return message, Folding(values, batch, opened)


def take_values(
    turn: Turn, forest: Forests, depth: int, state: Folding, found: MaskedSides, dealt: DealtSides | None
) -> Folding:
    """Finish the products at a depth: the values of its nodes."""
    if state.opened is None or state.batch is None:
        raise ValueError("no products are under way")
    products = multiply_sides(turn, state.batch, state.opened, found, dealt)[0].astype(np.uint32, copy=False)
    values = dict(state.values)
    for (place, _), product in zip(forest.products(depth), products, strict=True):
        _, right = _children(values, place)
        values[place] = right + product
    return Folding(values)


def total(forest: Forests, state: Folding) -> HalfWords:
    """Return the own share of the sum of all trees, (n,)."""
    out = np.zeros(forest.rows, np.uint32)
    for t in range(len(forest.trees)):
        out += state.values.get((t, 0), np.zeros(1, np.uint32))
    return out


def deal_values(turn: Turn, forest: Forests, depth: int, count: int) -> DealtSides:
    """At the dealer: deal the products at a depth."""
    return deal_sides(turn, forest.batch(depth, count))


def _children(values: Mapping[Place, HalfWords], place: Place) -> tuple[HalfWords, HalfWords]:
    tree, node = place
    none = np.zeros(1, np.uint32)
    return values.get((tree, 2 * node + 1), none), values.get((tree, 2 * node + 2), none)


def _depth(node: int) -> int:
    return (node + 1).bit_length() - 1


def _ancestors(node: int) -> list[int]:
    found = []
    while node:
        node = (node - 1) // 2
        found.append(node)
    return found


# --- steps and script


def take_depth(
    forest: Forests, depth: int, turn: Turn, inbox: Inbox[MaskedSides | DealtSides]
) -> Outcome[Nothing, Silent]:
    """Finish the products at a depth."""
    dealt, (other,) = inbox.one(dealer(turn.contract), DealtSides) if turn.first else None, turn.others
    found = inbox.one(other, MaskedSides)
    return Outcome(Silent(), keep=(take_values(turn, forest, depth, turn.recall(Folding), found, dealt),))


def deal_depth(forest: Forests, depth: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtSides, Silent]:
    """At the dealer: deal the products at a depth."""
    count, used = next_count(turn, forest.label)
    dealt = deal_values(turn, forest, depth, count)
    return Outcome(Silent(), send={turn.parties[0]: dealt}, keep=(used,))


Sent = TypeVar("Sent", bound=Message)
Dealt = TypeVar("Dealt", bound=Message)


def both(
    sent: Sequence[Reply[Sent, PublicValue]], dealt: Reply[Dealt, Silent], party: Name
) -> tuple[Sealed[Sent | Dealt], ...]:
    """Collect what a round sent to a party, and what the dealer did."""
    return (*inbox_of(sent, party), *inbox_of([dealt], party))


Open = Callable[[Forests, int, Turn, Inbox[Nothing]], Outcome[MaskedSides, Silent]]


def fold(call: Caller, contract: Contract, forest: Forests, open_: Open) -> None:
    """Compute the values of trees from the deepest splits upward; `Folding` at both before and after."""
    parties, maker = data_parties(contract), dealer(contract)
    for depth in reversed(range(forest.depth)):
        begin = Step(f"{forest.label}.open", partial(open_, forest, depth), Silent)
        if not forest.products(depth):
            call.all([ask(p, begin) for p in parties])
            continue
        deal = Step(f"{forest.label}.deal", partial(deal_depth, forest, depth), Silent)
        reads = (MaskedSides, DealtSides)
        take = Step(f"{forest.label}.take", partial(take_depth, forest, depth), Silent, reads=reads)
        sides, (dealt,) = call.both([ask(p, begin) for p in parties], [ask(maker, deal)])
        call.all([ask(p, take, *both(sides, dealt, p)) for p in parties])
