"""Shared values: what trees add to each row, where nobody knows which leaf it is in.

Computes the value of one or more trees for every row, shared modulo 2^24 between the bank and its partners, who hold
one part of it (`duos`). Each split belongs to one party, who alone knows which rows go left; the leaves' values are the
bank's alone. Takes part: the bank, one or two partners, and the dealer.

| learns | what |
|---|---|
| bank, partner | nothing: what is opened is uniform |
| dealer, coordinator | nothing but how many splits there are at each depth, whose they are, and how many rows |

Safe against a semi-honest bank or semi-honest partners, while nobody of them colludes with the dealer or across.

From the deepest splits upward: the value of a node is that of its right child, plus its side bit times the left one's
minus the right one's (`side_product`). One round for each depth, for all trees at once. A split of the bank's with no
split of a partner's below it costs nothing: its value is the bank's. 6 bytes for each row and other split, in all. Of
two partners the first has shares of all values, the second of those below its own splits: what one of them works out
and the other needs is passed on, 3 bytes.
The letters are those of ring/side_bits.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeVar

import numpy as np

from fedmkt.contract.agreement import Contract
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
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.row_blocks import RowBlock, blocks_of, close_rows, of_rows
from fedmkt.protocol.trees.side_product import MaskedSides, Opened, width
from fedmkt.protocol.trees.totals.duos import (
    DealtDuos,
    PartnerShares,
    Products,
    deal_products,
    multiply,
    open_products,
    pass_on,
    peers,
    share_parts,
    take_over,
)
from fedmkt.protocol.trees.totals.shared_gradients import SCORE_BITS
from fedmkt.ring.side_bits import Bits, Numbers

Owners = tuple[tuple[int, int], ...]
"""The splits of one tree by node: whose they are, 0 the bank's, then the partners' in their order."""
Place = tuple[int, int]
"""A tree, and a node of it."""
_ROW_BYTES = width(SCORE_BITS) + 1
"""Most bytes of a row and split in one message: a number and a bit."""


@dataclass(frozen=True)
class Forests:
    """Trees whose values are computed at once, for n rows; `label` says what for.

    are_leaves_shared : nobody knows the leaves' values, so every split takes a product.
    """

    label: str
    rows: int
    trees: tuple[Owners, ...]
    are_leaves_shared: bool = False

    @property
    def depth(self) -> int:
        """How many levels of splits there are."""
        return max((_depth(node) + 1 for tree in self.trees for node, _ in tree), default=0)

    def splits(self, depth: int) -> list[tuple[Place, int]]:
        """List the splits at a depth with their owners."""
        return [
            ((t, node), owner)
            for t, tree in enumerate(self.trees)
            for node, owner in tree
            if _depth(node) == depth
        ]

    def shared(self, depth: int) -> list[tuple[Place, int]]:
        """List those of them that take a product: the partners', and the bank's with some of a partner's below."""
        if self.are_leaves_shared:
            return self.splits(depth)
        above = {
            (t, above)
            for t, tree in enumerate(self.trees)
            for node, owner in tree
            if owner
            for above in _ancestors(node)
        }
        return [(place, owner) for place, owner in self.splits(depth) if owner or place in above]

    def products(self, depth: int, count: int) -> Products:
        """Return the products at a depth; `count` numbers them within the epoch."""
        found = self.shared(depth)
        second = {(t, node) for t, tree in enumerate(self.trees) for node, owner in tree if owner == 2}
        # The first partner needs all that the second works out, the second what is below its own splits.
        passed = tuple(
            owner == 2 or any((t, above) in second for above in _ancestors(node))
            for (t, node), owner in found
        )
        owners = tuple(owner for _, owner in found)
        return Products(self.label, count, owners, self.rows, (SCORE_BITS,), passed)


@dataclass(frozen=True)
class Folding(State):
    """The own shares of the values of nodes, by tree and node, (n,) or one for all rows; the products under way.

    found : at a partner of two, the own ones of them, until the other's are there
    """

    durable: ClassVar[bool] = False
    by_row: ClassVar[tuple[str, ...]] = ("values",)
    values: dict[Place, HalfWords]
    products: Products | None = None
    opened: tuple[Opened, ...] = ()
    found: HalfWords | None = None


def start(leaves: Mapping[Place, int]) -> Folding:
    """Begin with the values of leaves, in units; a partner's share of every leaf is 0, and may be left out."""
    return Folding({p: np.array([v % 2**32], np.uint32) for p, v in leaves.items()})


def start_shared(leaves: Mapping[Place, np.uint32]) -> Folding:
    """Begin with the own shares of the values of all leaves."""
    return Folding({place: np.array([share], np.uint32) for place, share in leaves.items()})


def open_values(
    turn: Turn, forest: Forests, depth: int, count: int, state: Folding, sides: Mapping[Place, Bits]
) -> tuple[dict[Name, MaskedSides], Folding]:
    """Open what the products at a depth need; sides : (n,) for each own split. Nothing where there is no product."""
    shared, values = forest.shared(depth), dict(state.values)
    for place, owner in forest.splits(depth):
        if (place, owner) not in shared:
            # The bank knows all of it, and the partners' share is 0.
            left, right = _children(values, place)
            values[place] = np.where(sides[place], left, right) if turn.first else np.zeros(1, np.uint32)
            _drop_children(values, place)
    if not shared:
        return {}, Folding(values)
    x = np.empty((len(shared), forest.rows), np.uint32)
    for row, (place, _) in zip(x, shared, strict=True):
        left, right = _children(values, place)
        row[:] = left - right
    me = turn.parties.index(turn.me)
    own = [sides[place] for place, owner in shared if owner == me]
    products = forest.products(depth, count)
    send, opened = open_products(turn, products, np.array(own, np.bool_).reshape(len(own), forest.rows), (x,))
    return send, Folding(values, products, opened)


def take_values(
    turn: Turn, forest: Forests, depth: int, state: Folding, inbox: Inbox[MaskedSides | DealtDuos]
) -> tuple[dict[Name, PartnerShares], Folding]:
    """Finish the own products at a depth: the values of its nodes, or what the other partner is to be told of them."""
    if state.products is None:
        raise ValueError("no products are under way")
    (found,) = multiply(turn, state.products, state.opened, inbox)
    if not peers(turn) or not any(state.products.passed):
        return {}, _folded(forest, depth, state, found)
    return pass_on(turn, state.products, (found,)), Folding(state.values, state.products, (), _halves(found))


def pool_values(
    turn: Turn, forest: Forests, depth: int, state: Folding, inbox: Inbox[PartnerShares]
) -> Folding:
    """Put in what the other partner passed on: the values of the nodes at a depth."""
    if state.products is None or state.found is None:
        raise ValueError("no products are under way")
    (found,) = take_over(turn, state.products, (state.found,), inbox)
    return _folded(forest, depth, state, found)


def _folded(forest: Forests, depth: int, state: Folding, products: Numbers) -> Folding:
    values = dict(state.values)
    for (place, _), product in zip(forest.shared(depth), _halves(products), strict=True):
        _, right = _children(values, place)
        values[place] = right + product
        _drop_children(values, place)
    return Folding(values)


def _halves(numbers: Numbers) -> HalfWords:
    return numbers.astype(np.uint32, copy=False)


def total(forest: Forests, state: Folding) -> HalfWords:
    """Return the own share of the sum of all trees, (n,); a second partner has none that means anything."""
    out = np.zeros(forest.rows, np.uint32)
    for t in range(len(forest.trees)):
        out += state.values.get((t, 0), np.zeros(1, np.uint32))
    return out


def _children(values: Mapping[Place, HalfWords], place: Place) -> tuple[HalfWords, HalfWords]:
    tree, node = place
    none = np.zeros(1, np.uint32)
    return values.get((tree, 2 * node + 1), none), values.get((tree, 2 * node + 2), none)


def _drop_children(values: dict[Place, HalfWords], place: Place) -> None:
    tree, node = place
    for child in (2 * node + 1, 2 * node + 2):
        values.pop((tree, child), None)


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
    forest: Forests, depth: int, turn: Turn, inbox: Inbox[MaskedSides | DealtDuos]
) -> Outcome[PartnerShares, Silent]:
    """Finish the own products at a depth."""
    send, state = take_values(turn, forest, depth, turn.recall(Folding), inbox)
    return Outcome(Silent(), send=send, keep=(state,))


def pool_depth(
    forest: Forests, depth: int, turn: Turn, inbox: Inbox[PartnerShares]
) -> Outcome[Nothing, Silent]:
    """At a partner of two: put in the other's products."""
    return Outcome(Silent(), keep=(pool_values(turn, forest, depth, turn.recall(Folding), inbox),))


def deal_depth(forest: Forests, depth: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtDuos, Silent]:
    """At the dealer: deal the products at a depth."""
    count, used = next_count(turn, forest.label)
    dealt = deal_products(turn, forest.products(depth, count))
    return Outcome(Silent(), send={turn.parties[0]: dealt}, keep=(used,))


Sent = TypeVar("Sent", bound=Message)
Dealt = TypeVar("Dealt", bound=Message)


def both(
    sent: Sequence[Reply[Sent, PublicValue]], dealt: Reply[Dealt, Silent], party: Name
) -> tuple[Sealed[Sent | Dealt], ...]:
    """Collect what a round sent to a party, and what the dealer did."""
    return (*inbox_of(sent, party), *inbox_of([dealt], party))


Open = Callable[[Forests, int, Turn, Inbox[Nothing]], Outcome[MaskedSides, Silent]]


def value_blocks(rows: int, products: int) -> list[RowBlock]:
    """Split the rows of so many products."""
    return blocks_of(rows, _ROW_BYTES * products)


def fold(call: Caller, contract: Contract, forest: Forests, open_: Open) -> None:
    """Compute the values of trees from the deepest splits upward; `Folding` at both before and after."""
    for depth in reversed(range(forest.depth)):
        for block in value_blocks(forest.rows, len(forest.shared(depth))):
            _fold_rows(call, contract, replace(forest, rows=block.length), depth, block, open_)


def _fold_rows(
    call: Caller, contract: Contract, forest: Forests, depth: int, block: RowBlock, open_: Open
) -> None:
    parties, maker = data_parties(contract), dealer(contract)
    begin = of_rows(block, Step(f"{forest.label}.open", partial(open_, forest, depth), Silent))
    if not forest.shared(depth):
        call.all([ask(p, begin) for p in parties])
        return
    deal = Step(f"{forest.label}.deal", partial(deal_depth, forest, depth), Silent)
    reads = (MaskedSides, DealtDuos)
    take = of_rows(
        block, Step(f"{forest.label}.take", partial(take_depth, forest, depth), Silent, reads=reads)
    )
    sides, (dealt,) = call.both([ask(p, begin) for p in parties], [ask(maker, deal)])
    taken = call.all([ask(p, take, *both(sides, dealt, p)) for p in parties])
    if any(forest.products(depth, 0).passed):
        pool = Step(
            f"{forest.label}.pool", partial(pool_depth, forest, depth), Silent, reads=(PartnerShares,)
        )
        share_parts(call, contract, of_rows(block, pool), taken)
    close_rows(call, forest.label, parties, block)
