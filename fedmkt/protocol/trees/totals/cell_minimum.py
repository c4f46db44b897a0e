"""Cell minimum: which groups of shared counts are all empty or large enough, and nothing else.

Computes one bit for each group of counts M that the bank and one partner share: whether every M of it is 0 or at
least `minimum`. Takes part: the bank, that partner, and the dealer.

| learns | what |
|---|---|
| bank, partner | one bit for each group |
| dealer, coordinator | how many groups there are: not even the bits |

Safe against a semi-honest bank or partner, while the dealer colludes with neither. A party that adds something to its
share compares another count; nothing shows it.

As in `minimum`, from which it differs in two ways. An empty cell passes, and it is one opening for both questions:
with x = M - minimum and c = x + r, M >= minimum is the sign of x, read from [c' < r'], and M = 0 is r = c + minimum;
at most one of them holds, so their exclusive or is the bit. And bits stand in planes, one for each bit of a word,
eight cells to a byte, so that a level of a tree with all its columns is one comparison of a few rounds.

Source: Goldreich, Micali, Wigderson 1987 with dealt products (Beaver 1991). Letters: x, r, c, lt, eq as in `minimum`;
z the tree of r = c + minimum; a, b, ab a dealt product of planes. Words have 16 or 32 bits (`word_bits`).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.protocol.core import HalfWords, Masked, Message, Name, State, Turn
from fedmkt.protocol.trees.side_product import Bytes, narrow, widen_halves

Planes = NDArray[np.uint8]
"""Packed bits: (..., members, bytes), eight groups to a byte."""


@dataclass(frozen=True)
class CellOpening(Message):
    """The sender's share of every x plus its share of r."""

    values: Masked[Bytes]


@dataclass(frozen=True)
class PlaneOpening(Message):
    """The sender's shares of one layer's factors, each bit with a mask of its own."""

    left: Masked[Bytes]
    right: Masked[Bytes]


@dataclass(frozen=True)
class CellPasses(Message):
    """The sender's share of each group's bit: fresh, because the last dealt product is."""

    bits: Bytes


@dataclass(frozen=True)
class DealtCells(Message):
    """The bank's shares of the bits of r, and of each layer's dealt products."""

    r: Bytes
    products: tuple[Bytes, ...]


@dataclass(frozen=True)
class Cells:
    """One comparison of `groups` times `members` counts with `minimum`, a power of two of members.

    scale : bits that counts are shared modulo; `count` numbers the comparison within the epoch.
    """

    label: str
    count: int
    partner: Name
    groups: int
    members: int
    scale: int
    minimum: int

    @property
    def word_bits(self) -> int:
        """Bits of a word: counts are moved to its top, so that its sign is theirs."""
        return 16 if self.scale <= 16 else 32

    @property
    def least(self) -> int:
        """The minimum at the top of a word."""
        return self.minimum << (self.word_bits - self.scale)

    @property
    def row_bytes(self) -> int:
        """Bytes of one packed row of groups."""
        return -(-self.groups // 8)

    def layer_bytes(self) -> list[int]:
        """Bytes of the products of each layer: the tree of a word's bits, then the members of a group."""
        rows = [self.members * (self.word_bits >> (i + 1)) for i in range(self._depth)]
        tree = [(3 if i + 1 < self._depth else 2) * r for i, r in enumerate(rows)]
        groups = [self.members >> (i + 1) for i in range(self.members.bit_length() - 1)]
        return [r * self.row_bytes for r in (*tree, *groups)]

    @property
    def _depth(self) -> int:
        return self.word_bits.bit_length() - 1


@dataclass(frozen=True)
class CellComparison(State):
    """One comparison under way: the own factors that were opened last, with their masks, and the planes so far.

    lt, eq, z : (bits left, members, bytes), then `lt` : (members left, bytes) of the groups' bits.
    """

    durable: ClassVar[bool] = False
    cells: Cells
    layer: int
    own: HalfWords
    left: Planes
    right: Planes
    a: Planes
    b: Planes
    lt: Planes
    eq: Planes
    z: Planes
    top: Planes
    dealt: DealtCells | None


def deal_cells(turn: Turn, cells: Cells) -> DealtCells:
    """At the dealer: deal one comparison."""
    bank, shape = turn.parties[0], (cells.members, cells.groups)
    r = _drawn(turn, cells, bank, "r", shape) + _drawn(turn, cells, cells.partner, "r", shape)
    products = []
    for layer, size in enumerate(cells.layer_bytes()):
        a, b = (
            _bytes(turn, cells, bank, f, layer, size) ^ _bytes(turn, cells, cells.partner, f, layer, size)
            for f in ("a", "b")
        )
        products.append((a & b) ^ _bytes(turn, cells, cells.partner, "ab", layer, size))
    shares = r ^ _drawn(turn, cells, cells.partner, "bits", shape)
    return DealtCells(narrow(shares, cells.word_bits), tuple(products))


def open_cells(turn: Turn, cells: Cells, counts: HalfWords) -> tuple[CellOpening, CellComparison]:
    """Open the own shares of all counts, (groups, members), less the minimum, under r."""
    # Beyond half of the ring 0 - minimum is no negative number any more, and every count would pass.
    fits = 1 <= cells.minimum <= 1 << (cells.scale - 1) and cells.scale <= 31
    if counts.shape != (cells.groups, cells.members) or not fits:
        raise ValueError(f"counts of {counts.shape} are not those of {cells}")
    x = np.ascontiguousarray(counts.T) << np.uint32(cells.word_bits - cells.scale)
    if turn.first:
        x -= np.uint32(cells.least)
    own = x + _drawn(turn, cells, turn.me, "r", x.shape)
    none = np.empty(0, np.uint8)
    state = CellComparison(cells, -1, own, none, none, none, none, none, none, none, none, None)
    return CellOpening(Masked(narrow(own, cells.word_bits))), state


def first_layer(
    turn: Turn, state: CellComparison, found: CellOpening, dealt: DealtCells | None
) -> CellComparison:
    """Take in the opened values, and at the bank the dealer's shares."""
    cells, shape = state.cells, state.own.shape
    c = state.own + widen_halves(found.values.words, shape, cells.word_bits)
    if not turn.first:
        shared = _drawn(turn, cells, turn.me, "bits", shape)
    elif dealt is None or [len(p) for p in dealt.products] != cells.layer_bytes():
        raise ValueError("the dealer's share of the comparison is missing or has another length")
    else:
        shared = widen_halves(dealt.r, shape, cells.word_bits)
    r, opened, zero = (_planes(w, cells) for w in (shared, c, c + np.uint32(cells.least)))
    flip = np.uint8(255 if turn.first else 0)
    lt, eq = r & ~opened, r ^ (~opened if turn.first else np.uint8(0))
    top = r[-1] ^ (opened[-1] & flip)
    lt[-1], eq[-1] = 0, flip
    z = r ^ (~zero if turn.first else np.uint8(0))
    return replace(state, layer=0, own=np.empty((0, 0), np.uint32), lt=lt, eq=eq, z=z, top=top, dealt=dealt)


def open_planes(turn: Turn, state: CellComparison) -> tuple[PlaneOpening, CellComparison]:
    """Open the factors of the next layer."""
    left, right = _factors(state)
    cells, layer, size = state.cells, state.layer, left.size
    a, b = (_bytes(turn, cells, turn.me, f, layer, size) for f in ("a", "b"))
    kept = replace(state, left=left.reshape(-1) ^ a, right=right.reshape(-1) ^ b, a=a, b=b)
    return PlaneOpening(Masked(kept.left), Masked(kept.right)), kept


def take_planes(turn: Turn, state: CellComparison, found: PlaneOpening) -> CellComparison:
    """Take in the opened factors of a layer, and climb."""
    theirs = found.left.words, found.right.words
    if any(t.shape != state.left.shape for t in theirs):
        raise ValueError("an opening of the comparison has another length")
    left, right = state.left ^ theirs[0], state.right ^ theirs[1]
    size, layer = left.size, state.layer
    if turn.first and state.dealt is not None:
        dealt = state.dealt.products[layer]
    else:
        dealt = _bytes(turn, state.cells, turn.me, "ab", layer, size)
    product = (left & state.b) ^ (state.a & right) ^ dealt
    if turn.first:
        product ^= left & right
    return _climb(turn, state, product)


def own_passes(state: CellComparison) -> CellPasses:
    """Return the own share of the groups' bits, once the last layer is taken in."""
    return CellPasses(state.lt.reshape(-1))


def read_cells(state: CellComparison, found: CellPasses) -> NDArray[np.bool_]:
    """Add the other party's share: (groups,), true where all counts are 0 or enough."""
    own = state.lt.reshape(-1)
    if found.bits.shape != own.shape:
        raise ValueError("the other party's share of the bits has another length")
    return np.unpackbits(own ^ found.bits, count=state.cells.groups, bitorder="little").view(np.bool_)


def _drawn(turn: Turn, cells: Cells, of: Name, what: str, shape: tuple[int, int]) -> HalfWords:
    return turn.masks.half_words(of, f"{cells.label}/{what}", cells.count, shape, to=cells.partner)


def _bytes(turn: Turn, cells: Cells, of: Name, what: str, layer: int, size: int) -> Bytes:
    words = turn.masks.half_words(
        of, f"{cells.label}/{what}", cells.count, -(-size // 4), to=cells.partner, block=layer
    )
    return words.astype("<u4", copy=False).view(np.uint8)[:size]


def _planes(words: HalfWords, cells: Cells) -> Planes:
    """Cut words, (members, groups), into bits, (word bits, members, bytes)."""
    raw = np.ascontiguousarray(narrow(words, cells.word_bits))
    bits = np.unpackbits(raw, axis=-1, bitorder="little")
    return np.packbits(np.ascontiguousarray(np.moveaxis(bits, -1, 0)), axis=-1, bitorder="little")


def _factors(state: CellComparison) -> tuple[Planes, Planes]:
    if state.eq.size == 0:
        half = len(state.lt) // 2
        return state.lt[:half], state.lt[half:]
    high, low = slice(1, None, 2), slice(0, None, 2)
    left, right = [state.eq[high], state.z[high]], [state.lt[low], state.z[low]]
    if len(state.eq) > 2:
        left, right = [*left, state.eq[high]], [*right, state.eq[low]]
    return np.concatenate(left), np.concatenate(right)


def _climb(turn: Turn, state: CellComparison, product: Planes) -> CellComparison:
    layer, bytes_ = state.layer + 1, state.cells.row_bytes
    if state.eq.size == 0:
        return replace(state, layer=layer, lt=product.reshape(-1, bytes_))
    parts = product.reshape(-1, len(state.eq) // 2, state.cells.members, bytes_)
    lt, z = state.lt[1::2] ^ parts[0], parts[1]
    if len(state.eq) > 2:
        return replace(state, layer=layer, lt=lt, eq=parts[2], z=z)
    # The sign is set for a count below the minimum: turned around, by one of the two, it is set for one that passes.
    passed = lt[0] ^ state.top ^ z[0] ^ np.uint8(255 if turn.first else 0)
    return replace(state, layer=layer, lt=passed, eq=np.empty(0, np.uint8), z=np.empty(0, np.uint8))
