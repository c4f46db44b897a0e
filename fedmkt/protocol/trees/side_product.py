"""Side products: bits that one party alone knows, times vectors that the bank and one partner share.

Computes shares of beta x for k vectors x at once, each with a bit for every row that belongs to the bank or to the
partner: which rows of a node go left at its split. Takes part: the bank, that partner, and the dealer.

| learns | what |
|---|---|
| bank, partner | nothing: c = beta xor u and x - v are uniform |
| dealer, coordinator | nothing but sizes, and which of the k bit vectors are whose |

Safe against a semi-honest bank or partner, while the dealer colludes with neither. A party that opens another x - v,
or other bits, computes something else; nothing shows it.

One round. The numbers of a row stand in lanes: several vectors under the same bits, each lane modulo a power of two
of its own, which is what travels. Source: protocols.md section 4; the formula stands in ring/side_bits.py, with its
letters. Every product has a `label` and `count` of its own: u and v serve once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.protocol.core import HalfWords, Masked, Message, Name, Turn
from fedmkt.ring.side_bits import (
    Bits,
    Numbers,
    dealt_part,
    other_part,
    owner_part,
    pack,
    packed_words,
    unpack,
)

Bytes = NDArray[np.uint8]
Lanes = tuple[int, ...]
"""Bits of each lane, at most 64: its vectors are shared modulo 2^bits at least, in half words up to 32."""


@dataclass(frozen=True)
class MaskedSides(Message):
    """The sender's bits xor u, (own, words of 32 bits); by lane its x - v for the others' bits, (others, n, bytes)."""

    bits: Masked[HalfWords]
    vectors: tuple[Masked[Bytes], ...]


@dataclass(frozen=True)
class DealtSides(Message):
    """The bank's shares of all u v, by lane (k, n, bytes)."""

    products: tuple[Bytes, ...]


@dataclass(frozen=True)
class Batch:
    """k products over n rows between the bank and `partner`.

    of_bank : for each whether the bits are the bank's, else they are the partner's.
    """

    label: str
    count: int
    partner: Name
    of_bank: tuple[bool, ...]
    rows: int
    lanes: Lanes

    def own(self, turn: Turn) -> Bits:
        """Tell whose bits are this party's: (k,)."""
        return np.array([of_bank == turn.first for of_bank in self.of_bank], np.bool_)


@dataclass(frozen=True)
class Opened:
    """What a party keeps between the round's two steps: its bits and their masked form, its x and v, by lane."""

    bits: Bits
    masked: Bits
    x: tuple[Numbers, ...]
    v: tuple[Numbers, ...]


def width(bits: int) -> int:
    """Return how many bytes a number modulo 2^bits travels in."""
    return -(-bits // 8)


def narrow(words: Numbers, bits: int) -> Bytes:
    """Cut words, (..., n), to the bytes that `bits` need: (..., n, bytes), little-endian."""
    little = np.ascontiguousarray(words).astype(words.dtype.newbyteorder("<"), copy=False)
    raw = little.view(np.uint8).reshape(*words.shape, words.dtype.itemsize)
    return np.ascontiguousarray(raw[..., : width(bits)])


def widen(narrowed: Bytes, shape: tuple[int, ...], bits: int) -> Numbers:
    """Turn bytes back into words of this shape, half words up to 32 bits; ValueError for another one."""
    if narrowed.shape != (*shape, width(bits)):
        raise ValueError(f"bytes of {narrowed.shape} are not {shape} numbers of {bits} bits")
    raw = np.zeros((*shape, kind_of(bits).itemsize), np.uint8)
    raw[..., : width(bits)] = narrowed
    if bits <= 32:
        return raw.view("<u4").astype(np.uint32, copy=False).reshape(shape)
    return raw.view("<u8").astype(np.uint64, copy=False).reshape(shape)


def widen_halves(narrowed: Bytes, shape: tuple[int, ...], bits: int) -> HalfWords:
    """Do the same for at most 32 bits."""
    return widen(narrowed, shape, bits).astype(np.uint32, copy=False)


def kind_of(bits: int) -> np.dtype[np.uint32] | np.dtype[np.uint64]:
    """Return the kind of words that numbers of so many bits are kept in."""
    return np.dtype(np.uint32) if bits <= 32 else np.dtype(np.uint64)


def draw(
    turn: Turn, of: Name, label: str, count: int, shape: tuple[int, int], bits: int, to: str, block: int = 0
) -> Numbers:
    """Draw masks for numbers of so many bits."""
    if bits <= 32:
        return turn.masks.half_words(of, label, count, shape, to=to, block=block)
    return turn.masks.words(of, label, count, shape, to=to, block=block)


def open_sides(turn: Turn, batch: Batch, bits: Bits, x: Sequence[Numbers]) -> tuple[MaskedSides, Opened]:
    """Mask the own bits, (own, n), and for the others' bits the own shares x, by lane (k, n), of which all are kept."""
    own = batch.own(turn)
    k, n = len(own), batch.rows
    if bits.shape != (int(own.sum()), n) or any(values.shape != (k, n) for values in x):
        raise ValueError(f"bits of {bits.shape} and vectors do not fit {k} products over {n} rows")
    masked = bits ^ _u(turn, batch, turn.me, len(bits))
    v = tuple(_v(turn, batch, turn.me, k - len(bits), lane) for lane in range(len(batch.lanes)))
    vectors = tuple(
        Masked(narrow(values[~own] - mask, size))
        for values, mask, size in zip(x, v, batch.lanes, strict=True)
    )
    words = np.array([pack(row) for row in masked], np.uint32).reshape(len(bits), packed_words(n))
    return MaskedSides(Masked(words), vectors), Opened(bits, masked, tuple(x), v)


def multiply_sides(
    turn: Turn, batch: Batch, opened: Opened, found: MaskedSides, dealt: DealtSides | None
) -> tuple[Numbers, ...]:
    """Return the own shares of all products, by lane (k, n)."""
    own = batch.own(turn)
    k, n, mine = len(own), batch.rows, int(own.sum())
    if found.bits.words.shape != (k - mine, packed_words(n)) or len(found.vectors) != len(batch.lanes):
        raise ValueError("the masked sides are of another shape than agreed")
    theirs = unpack_bits(found.bits.words, n)
    if turn.first and (dealt is None or len(dealt.products) != len(batch.lanes)):
        raise ValueError("the dealer's share of the side products is missing")
    out = []
    for lane, (size, x, v) in enumerate(zip(batch.lanes, opened.x, opened.v, strict=True)):
        share = widen(dealt.products[lane], (k, n), size) if dealt else _w(turn, batch, lane)
        masked = widen(found.vectors[lane].words, (mine, n), size)
        product = np.empty((k, n), kind_of(size))
        product[own] = owner_part(opened.bits, opened.masked, masked, x[own], share[own])
        product[~own] = other_part(theirs, v, share[~own])
        out.append(product)
    return tuple(out)


def deal_sides(turn: Turn, batch: Batch) -> DealtSides:
    """At the dealer: compute the bank's shares of u v."""
    _, _, products = dealt_sides(turn, batch)
    return DealtSides(tuple(narrow(p, size) for p, size in zip(products, batch.lanes, strict=True)))


def dealt_sides(turn: Turn, batch: Batch) -> tuple[Bits, tuple[Numbers, ...], tuple[Numbers, ...]]:
    """At the dealer: compute u, (k, n), and by lane v of the one without the bits and the bank's shares of u v."""
    of_bank = np.array(batch.of_bank, np.bool_)
    k, mine = len(of_bank), int(of_bank.sum())
    u = np.empty((k, batch.rows), np.bool_)
    bank = turn.parties[0]
    u[of_bank] = _u(turn, batch, bank, mine)
    u[~of_bank] = _u(turn, batch, batch.partner, k - mine)
    masks = []
    for lane, size in enumerate(batch.lanes):
        v = np.empty((k, batch.rows), kind_of(size))
        v[of_bank] = _v(turn, batch, batch.partner, mine, lane)
        v[~of_bank] = _v(turn, batch, bank, k - mine, lane)
        masks.append(v)
    products = tuple(dealt_part(u, v, _w(turn, batch, lane)) for lane, v in enumerate(masks))
    return u, tuple(masks), products


def unpack_bits(words: HalfWords, rows: int) -> Bits:
    """Unpack opened bits, (k, words of 32): (k, n)."""
    return np.array([unpack(row, rows) for row in words], np.bool_).reshape(len(words), rows)


def _u(turn: Turn, batch: Batch, of: Name, k: int) -> Bits:
    words = turn.masks.half_words(
        of, f"{batch.label}/u", batch.count, (k, packed_words(batch.rows)), to=batch.partner
    )
    return unpack_bits(words, batch.rows)


def _v(turn: Turn, batch: Batch, of: Name, k: int, lane: int) -> Numbers:
    shape, bits = (k, batch.rows), batch.lanes[lane]
    return draw(turn, of, f"{batch.label}/v", batch.count, shape, bits, to=batch.partner, block=lane)


def _w(turn: Turn, batch: Batch, lane: int) -> Numbers:
    shape, bits = (len(batch.of_bank), batch.rows), batch.lanes[lane]
    return draw(turn, batch.partner, f"{batch.label}/w", batch.count, shape, bits, to="", block=lane)
