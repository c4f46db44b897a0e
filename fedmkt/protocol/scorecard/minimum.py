"""Minimum on shares: which groups of shared integers have no member below zero, and nothing else.

Computes one bit for each group of integers that the bank and one partner share modulo 2^32, each of them in
-2^31 .. 2^31 - 1: whether all of its members are at least 0. Takes part: the bank, that partner, and the dealer.

| learns | what |
|---|---|
| bank, partner | one bit for each group |
| dealer, coordinator, other partners | nothing: not even the bits |

Safe against a semi-honest bank or partner, while the dealer colludes with neither. A party that adds something to
its share compares another number; nothing shows it.

Source: Goldreich, Micali, Wigderson 1987 with dealt products (Beaver 1991), on bits shared by exclusive or. The
sign of x from an opened c = x + r: msb(x) = msb(c) xor msb(r) xor [c' < r'], c' and r' without their top bits; the
comparison of the public c' with the shared bits of r' is a tree (lt, eq) of the bits, from the lowest pair up:
lt = lt_high xor eq_high lt_low, eq = eq_high eq_low. Letters: x, r, c, lt, eq; a, b, ab a dealt product of bits.
Every layer of the tree is one round; its sizes follow from the number of groups and their width.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fedmkt.protocol.core import HalfWords, Inbox, Masked, Message, Name, Outcome, Silent, State, Turn
from fedmkt.ring.side_bits import WORD_BITS, Bits, pack, packed_words, unpack

_DEPTH = WORD_BITS.bit_length() - 1
_LEVELS = np.arange(WORD_BITS, dtype=np.uint32)


@dataclass(frozen=True)
class ValueOpening(Message):
    """The sender's share of every x plus its share of r, modulo 2^32."""

    halves: Masked[HalfWords]


@dataclass(frozen=True)
class BitOpening(Message):
    """The sender's shares of one layer's factors, each bit with a mask of its own; packed."""

    left: Masked[HalfWords]
    right: Masked[HalfWords]


@dataclass(frozen=True)
class PassShare(Message):
    """The sender's share of each group's bit: fresh, because the last dealt product is."""

    bits: HalfWords


@dataclass(frozen=True)
class DealtMinimum(Message):
    """The bank's corrections: of the bits of r, and of each layer's dealt products."""

    r: HalfWords
    products: tuple[HalfWords, ...]


@dataclass(frozen=True)
class Comparison(State):
    """One comparison under way at the bank or the partner.

    left, right : the own masked factors of the layer that was opened last, a and b : their masks.
    less, equal : (cells, bits left) of the tree, then `less` : (groups, members left) of the groups' bits.
    """

    durable: ClassVar[bool] = False
    peer: Name
    label: str
    count: int
    shape: tuple[int, int]
    layer: int
    own: HalfWords
    left: Bits
    right: Bits
    a: Bits
    b: Bits
    less: Bits
    equal: Bits
    top: Bits
    dealt: DealtMinimum | None


def group_width(members: int) -> int:
    """Return the width that groups of at most so many members are padded to: a power of two, at least 2."""
    return 1 << max(1, (members - 1).bit_length())


def layer_sizes(shape: tuple[int, int]) -> tuple[int, ...]:
    """Return the number of products of each layer, for (groups, width): the tree of all bits, then the groups."""
    groups, width = shape
    tree = [2 * groups * width * (WORD_BITS >> (i + 1)) for i in range(_DEPTH)]
    return (*tree, *(groups * (width >> (i + 1)) for i in range(width.bit_length() - 1)))


def deal_minimum(turn: Turn, partner: Name, label: str, count: int, shape: tuple[int, int]) -> DealtMinimum:
    """At the dealer: deal one comparison of (groups, width) cells between the bank and `partner`."""
    bank, cells = turn.parties[0], shape[0] * shape[1]

    def drawn(of: Name, what: str, size: int, layer: int = 0) -> HalfWords:
        return turn.masks.half_words(of, f"{label}/{what}", count, size, to=partner, block=layer)

    r = drawn(bank, "r", cells) + drawn(partner, "r", cells)
    products = []
    for layer, size in enumerate(layer_sizes(shape)):
        n = packed_words(size)
        a, b = (drawn(bank, f, n, layer) ^ drawn(partner, f, n, layer) for f in ("a", "b"))
        products.append((a & b) ^ drawn(partner, "ab", n, layer))
    return DealtMinimum(r ^ drawn(partner, "bits", cells), tuple(products))


def open_values(
    turn: Turn, peer: Name, label: str, count: int, x: HalfWords, dealt: DealtMinimum | None
) -> Outcome[ValueOpening, Silent]:
    """Open the own shares of all x, (groups, width), under r; cells that pad a group are 0 at both parties."""
    shape = (x.shape[0], x.shape[1])
    partner = peer if turn.first else turn.me
    r = turn.masks.half_words(turn.me, f"{label}/r", count, x.size, to=partner)
    own, none = x.reshape(-1) + r, np.zeros(0, np.bool_)
    kept = Comparison(
        peer, label, count, shape, -1, own, none, none, none, none, none, none, none, dealt
    )  # fmt: skip
    return Outcome(Silent(), send={peer: ValueOpening(Masked(own))}, keep=(kept,))


def open_layer(turn: Turn, inbox: Inbox[ValueOpening | BitOpening]) -> Outcome[BitOpening, Silent]:
    """Take in what was opened last and open the factors of the next layer."""
    state = _absorb(turn, inbox)
    left, right = _factors(state)
    n, layer = packed_words(len(left)), state.layer
    a, b = (unpack(_draw(turn, state, f, n, layer), len(left)) for f in ("a", "b"))
    kept = replace(state, left=left ^ a, right=right ^ b, a=a, b=b)
    message = BitOpening(Masked(pack(kept.left)), Masked(pack(kept.right)))
    return Outcome(Silent(), send={state.peer: message}, keep=(kept,))


def share_passes(turn: Turn, inbox: Inbox[BitOpening]) -> tuple[PassShare, Comparison]:
    """Take in the last layer; return the own share of the groups' bits, and what `read_passes` needs."""
    state = _absorb(turn, inbox)
    return PassShare(pack(state.less.reshape(-1))), state


def read_passes(turn: Turn, inbox: Inbox[Message]) -> Bits:
    """Add the other party's share: (groups,), true where all members are at least 0."""
    state = turn.recall(Comparison)
    own = state.less.reshape(-1)
    found = inbox.one(state.peer, PassShare).bits
    _check(found, packed_words(len(own)))
    return own ^ unpack(found, len(own))


def _draw(turn: Turn, state: Comparison, what: str, size: int, layer: int = 0) -> HalfWords:
    partner = state.peer if turn.first else turn.me
    return turn.masks.half_words(
        turn.me, f"{state.label}/{what}", state.count, size, to=partner, block=layer
    )  # fmt: skip


def _check(words: HalfWords, size: int) -> None:
    if words.shape != (size,):
        raise ValueError("an opening of the comparison has another length")


def _absorb(turn: Turn, inbox: Inbox[BitOpening] | Inbox[ValueOpening | BitOpening]) -> Comparison:
    state = turn.recall(Comparison)
    if state.layer < 0:
        return _leaves(turn, state, inbox.one(state.peer, ValueOpening).halves.words)
    opened = inbox.one(state.peer, BitOpening)
    size = len(state.left)
    for words in (opened.left.words, opened.right.words):
        _check(words, packed_words(size))
    left = state.left ^ unpack(opened.left.words, size)
    right = state.right ^ unpack(opened.right.words, size)
    product = (left & state.b) ^ (state.a & right) ^ _dealt_product(turn, state, size)
    if turn.first:
        product ^= left & right
    return _climb(turn, state, product)


def _leaves(turn: Turn, state: Comparison, opened: HalfWords) -> Comparison:
    """Begin the tree: lt and eq of each bit of the opened c' and the shared r', lowest first; the 32nd is level."""
    cells = len(state.own)
    _check(opened, cells)
    c = state.own + opened
    if turn.first:
        if state.dealt is None or state.dealt.r.shape != (cells,):
            raise ValueError("the dealer's correction of the comparison is missing or has another length")
        shared = state.dealt.r
    else:
        shared = _draw(turn, state, "bits", cells)
    r_bits, c_bits = _bits(shared), _bits(c)
    less, equal = r_bits & ~c_bits, r_bits.copy()
    top = r_bits[:, -1].copy()
    if turn.first:
        equal ^= ~c_bits
        top ^= c_bits[:, -1]
    less[:, -1], equal[:, -1] = False, turn.first
    return replace(state, layer=0, less=less, equal=equal, top=top)


def _bits(words: HalfWords) -> Bits:
    found: Bits = (words[:, None] >> _LEVELS & np.uint32(1)).astype(np.bool_)
    return found


def _factors(state: Comparison) -> tuple[Bits, Bits]:
    if state.layer >= _DEPTH:
        return state.less[:, 0::2].reshape(-1), state.less[:, 1::2].reshape(-1)
    high = state.equal[:, 1::2]
    left = np.concatenate([high, high])
    return left.reshape(-1), np.concatenate([state.less[:, 0::2], state.equal[:, 0::2]]).reshape(-1)


def _dealt_product(turn: Turn, state: Comparison, size: int) -> Bits:
    n = packed_words(size)
    if not turn.first:
        return unpack(_draw(turn, state, "ab", n, state.layer), size)
    if state.dealt is None or state.layer >= len(state.dealt.products):
        raise ValueError("the dealer's correction of a layer is missing")
    _check(state.dealt.products[state.layer], n)
    return unpack(state.dealt.products[state.layer], size)


def _climb(turn: Turn, state: Comparison, product: Bits) -> Comparison:
    groups, width = state.shape
    if state.layer >= _DEPTH:
        return replace(state, layer=state.layer + 1, less=product.reshape(groups, -1))
    low, both = product.reshape(2, groups * width, -1)
    less = state.less[:, 1::2] ^ low
    if state.layer + 1 < _DEPTH:
        return replace(state, layer=state.layer + 1, less=less, equal=both)
    # The sign is set for a member below 0: turned around, by one of the two parties, it is set for one that passes.
    passed = less[:, 0] ^ state.top ^ turn.first
    return replace(state, layer=state.layer + 1, less=passed.reshape(groups, width), equal=both)
