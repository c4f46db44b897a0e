"""Operations on shares of two parties that take one round each: open something under masks, then compute.

An operation has inputs, each opened under a mask of its own: words and half words plus it, bits xor it. The dealer,
who knows the masks of both, deals shares of functions of them (`deal`); from what was opened, the own masks and the own
share of what was dealt, each party works out its share of the result (`take`). What is opened is uniform, whatever the
inputs are; a mask serves one opening. Words are shared modulo 2^64, half words modulo 2^32, bits by exclusive or,
packed eight to a byte (planes). All arrays are flat where they travel. Semi-honest parties; the dealer outside.

Source: Beaver 1991 (products), protocols.md section 0; products of several bits at once with dealt products of all
subsets of their masks; `ring.rounding` for roundings. Letters: x an input, R its mask, c = x + R what is opened.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmkt.ring import rounding
from fedmkt.ring.fixed import Words

Planes = NDArray[np.uint8]
Flat = NDArray[np.unsignedinteger]
Kind = Literal["words", "halves", "bits"]
KINDS: dict[Kind, np.dtype[np.unsignedinteger]] = {
    "words": np.dtype(np.uint64), "halves": np.dtype(np.uint32), "bits": np.dtype(np.uint8),
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One array: so many words, half words, or bytes of bits."""

    kind: Kind
    size: int


def add(kind: Kind, left: Flat, right: Flat) -> Flat:
    """Put a value and its mask, or two shares, together."""
    return left ^ right if kind == "bits" else left + right


def subtract(kind: Kind, left: Flat, right: Flat) -> Flat:
    """Take a share off: what is left is the other one."""
    return left ^ right if kind == "bits" else left - right


class Operation(ABC):
    """What is public of one operation: the kinds and sizes of what is opened and dealt, and how to compute."""

    @property
    @abstractmethod
    def opened(self) -> tuple[Field, ...]:
        """The inputs, and their masks."""

    @property
    @abstractmethod
    def dealt(self) -> tuple[Field, ...]:
        """What the dealer shares."""

    @abstractmethod
    def deal(self, masks: Sequence[Flat]) -> list[Flat]:
        """Compute what is shared, from the sums of both parties' masks."""

    @abstractmethod
    def take(
        self, first: bool, opened: Sequence[Flat], masks: Sequence[Flat], dealt: Sequence[Flat]
    ) -> list[Flat]:
        """Return the own shares of the results, from what was opened, the own masks and the own dealt shares."""

    def prepare(self, first: bool, inputs: Sequence[Flat]) -> list[Flat]:
        """Return the own part of what is opened, before its mask."""
        return list(inputs)


@dataclass(frozen=True)
class Lift(Operation):
    """x / 2^shift in words, from half words, |x| <= 2^30, whose low `shift` bits are 0."""

    size: int
    shift: int

    @property
    def opened(self) -> tuple[Field, ...]:
        """X."""
        return (Field("halves", self.size),)

    @property
    def dealt(self) -> tuple[Field, ...]:
        """R >> shift, and its highest bit."""
        return Field("words", self.size), Field("words", self.size)

    def deal(self, masks: Sequence[Flat]) -> list[Flat]:
        """See the class."""
        found = rounding.deal_lift(masks[0].astype(np.uint32), self.shift)
        return [found.high, found.top]

    def prepare(self, first: bool, inputs: Sequence[Flat]) -> list[Flat]:
        """See the class."""
        x = inputs[0].astype(np.uint32)
        return [rounding.prepare_lift(x, np.zeros_like(x), first=first)]

    def take(
        self, first: bool, opened: Sequence[Flat], masks: Sequence[Flat], dealt: Sequence[Flat]
    ) -> list[Flat]:
        """See the class."""
        shares = rounding.DealtRounding(_words(dealt[0]), _words(dealt[1]))
        return [rounding.finish_lift(opened[0].astype(np.uint32), shares, self.shift, first=first)]


@dataclass(frozen=True)
class Round(Operation):
    """x / 2^shift, rounded up or down at random with the right mean; |x| < 2^62."""

    size: int
    shift: int

    @property
    def opened(self) -> tuple[Field, ...]:
        """X."""
        return (Field("words", self.size),)

    @property
    def dealt(self) -> tuple[Field, ...]:
        """R >> shift, and its highest bit."""
        return Field("words", self.size), Field("words", self.size)

    def deal(self, masks: Sequence[Flat]) -> list[Flat]:
        """See the class."""
        found = rounding.deal(_words(masks[0]), self.shift)
        return [found.high, found.top]

    def prepare(self, first: bool, inputs: Sequence[Flat]) -> list[Flat]:
        """See the class."""
        x = _words(inputs[0])
        return [rounding.prepare(x, np.zeros_like(x), first=first)]

    def take(
        self, first: bool, opened: Sequence[Flat], masks: Sequence[Flat], dealt: Sequence[Flat]
    ) -> list[Flat]:
        """See the class."""
        shares = rounding.DealtRounding(_words(dealt[0]), _words(dealt[1]))
        return [rounding.finish(_words(opened[0]), shares, self.shift, first=first)]


@dataclass(frozen=True, eq=False)
class Multiply(Operation):
    """Sums of signed products of some of `size` words: x[left[0]] x[right[0]] - x[left[1]] x[right[1]].

    left, right : (1 or 2, products), places among the words.
    """

    size: int
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    @property
    def opened(self) -> tuple[Field, ...]:
        """X."""
        return (Field("words", self.size),)

    @property
    def dealt(self) -> tuple[Field, ...]:
        """The same of the masks."""
        return (Field("words", self.left.shape[1]),)

    def deal(self, masks: Sequence[Flat]) -> list[Flat]:
        """See the class."""
        r = _words(masks[0])
        return [_difference(r[self.left] * r[self.right])]

    def take(
        self, first: bool, opened: Sequence[Flat], masks: Sequence[Flat], dealt: Sequence[Flat]
    ) -> list[Flat]:
        """See the class."""
        c, r = _words(opened[0]), _words(masks[0])
        # (c - R) (c' - R') = c c' - c R' - c' R + R R', of which c is public.
        cross = c[self.left] * r[self.right] + c[self.right] * r[self.left]
        terms = c[self.left] * c[self.right] - cross if first else np.uint64(0) - cross
        return [_difference(terms) + _words(dealt[0])]


@dataclass(frozen=True)
class Signs(Operation):
    """The lowest layer of a comparison with 0: lt and eq of each digit of the opened c and of R, and the top bit.

    x = c - R is negative where the highest bits of c and R and [c' < R'] of the others add up to an odd number. A digit
    has 4 bits; of each of R's a table with a single one is dealt, in which c's says where to look.
    Results: lt and eq, (bits / 4, bytes), lowest digit first, and top, (bytes,). size : a multiple of 8.
    """

    size: int
    bits: Literal[32, 64]

    @property
    def opened(self) -> tuple[Field, ...]:
        """X."""
        return (Field("words" if self.bits == 64 else "halves", self.size),)

    @property
    def dealt(self) -> tuple[Field, ...]:
        """The digits of R, 16 places each."""
        return (Field("bits", 4 * self.bits * self.size // 8),)

    def deal(self, masks: Sequence[Flat]) -> list[Flat]:
        """See the class."""
        return [_digits(masks[0]).reshape(-1)]

    def take(
        self, first: bool, opened: Sequence[Flat], masks: Sequence[Flat], dealt: Sequence[Flat]
    ) -> list[Flat]:
        """See the class."""
        c = _digits(opened[0])
        r = dealt[0].reshape(c.shape).astype(np.uint8)
        top = np.bitwise_xor.reduce(r[-1, 8:], axis=0)
        if first:
            top ^= np.bitwise_xor.reduce(c[-1, 8:], axis=0)
        # The highest digits without their highest bits.
        for digits in (c, r):
            digits[-1, :8] ^= digits[-1, 8:]
            digits[-1, 8:] = 0
        above = np.bitwise_xor.accumulate(c, axis=1) ^ c
        return [np.bitwise_xor.reduce(r & above, axis=1), np.bitwise_xor.reduce(r & c, axis=1), top]


@dataclass(frozen=True)
class Conjunctions(Operation):
    """Products of several of the same `inputs` planes, of `size` bytes each: result (products, size)."""

    inputs: int
    size: int
    products: tuple[tuple[int, ...], ...]

    @property
    def subsets(self) -> list[tuple[int, ...]]:
        """Subsets of at least two factors, of any product."""
        found = {s for p in self.products for k in range(2, len(p) + 1) for s in combinations(p, k)}
        return sorted(found)

    @property
    def opened(self) -> tuple[Field, ...]:
        """The planes."""
        return (Field("bits", self.inputs * self.size),)

    @property
    def dealt(self) -> tuple[Field, ...]:
        """The products of each subset of the masks."""
        return (Field("bits", len(self.subsets) * self.size),)

    def deal(self, masks: Sequence[Flat]) -> list[Flat]:
        """See the class."""
        u = masks[0].reshape(self.inputs, self.size)
        products = [np.bitwise_and.reduce(u[list(s)], axis=0) for s in self.subsets]
        return [np.array(products, np.uint8).reshape(-1)]

    def take(
        self, first: bool, opened: Sequence[Flat], masks: Sequence[Flat], dealt: Sequence[Flat]
    ) -> list[Flat]:
        """See the class."""
        c, u = (a.reshape(self.inputs, self.size).astype(np.uint8, copy=False) for a in (opened[0], masks[0]))
        shared = dict(
            zip(self.subsets, dealt[0].reshape(-1, self.size).astype(np.uint8, copy=False), strict=True)
        )
        shared |= {(i,): plane for i, plane in enumerate(u)}
        out = np.zeros((len(self.products), self.size), np.uint8)
        for result, product in zip(out, self.products, strict=True):
            if first:
                result[:] = np.bitwise_and.reduce(c[list(product)], axis=0)
            for k in range(1, len(product) + 1):
                for subset in combinations(product, k):
                    rest = [i for i in product if i not in subset]
                    result ^= (
                        shared[subset] & np.bitwise_and.reduce(c[rest], axis=0) if rest else shared[subset]
                    )
        return [out]


@dataclass(frozen=True)
class Select(Operation):
    """Words, (words, 8 bytes), each column times its bit: (words, 8 bytes)."""

    bytes_: int
    words: int

    @property
    def opened(self) -> tuple[Field, ...]:
        """Bits and words."""
        return Field("bits", self.bytes_), Field("words", 8 * self.bytes_ * self.words)

    @property
    def dealt(self) -> tuple[Field, ...]:
        """The masks of bits as words, and their products with those of words."""
        return Field("words", 8 * self.bytes_), Field("words", 8 * self.bytes_ * self.words)

    def deal(self, masks: Sequence[Flat]) -> list[Flat]:
        """See the class."""
        u = _bits(masks[0])
        return [u, (u * _words(masks[1]).reshape(self.words, -1)).reshape(-1)]

    def take(
        self, first: bool, opened: Sequence[Flat], masks: Sequence[Flat], dealt: Sequence[Flat]
    ) -> list[Flat]:
        """See the class."""
        c, d = _bits(opened[0]), _words(opened[1]).reshape(self.words, -1)
        share = (d if first else np.uint64(0)) - _words(masks[1]).reshape(self.words, -1)
        u, products = _words(dealt[0]), _words(dealt[1]).reshape(self.words, -1)
        # The bit is c + (1 - 2 c) u, and the word d - R.
        return [c * share + _turned(c, d * u - products)]


@dataclass(frozen=True)
class ToWords(Operation):
    """Bits as words, 0 or 1."""

    bytes_: int

    @property
    def opened(self) -> tuple[Field, ...]:
        """Bits."""
        return (Field("bits", self.bytes_),)

    @property
    def dealt(self) -> tuple[Field, ...]:
        """Their masks as words."""
        return (Field("words", 8 * self.bytes_),)

    def deal(self, masks: Sequence[Flat]) -> list[Flat]:
        """See the class."""
        return [_bits(masks[0])]

    def take(
        self, first: bool, opened: Sequence[Flat], masks: Sequence[Flat], dealt: Sequence[Flat]
    ) -> list[Flat]:
        """See the class."""
        c = _bits(opened[0])
        return [_turned(c, _words(dealt[0])) + (c if first else np.uint64(0))]


@dataclass(frozen=True)
class LookUp(Operation):
    """The entries of a public table, of a power of two of words, at shared places modulo its length."""

    size: int
    table: tuple[int, ...]

    @property
    def opened(self) -> tuple[Field, ...]:
        """Places."""
        return (Field("halves", self.size),)

    @property
    def dealt(self) -> tuple[Field, ...]:
        """A table of zeros with a one where the mask says, for each place."""
        return (Field("words", self.size * len(self.table)),)

    def prepare(self, first: bool, inputs: Sequence[Flat]) -> list[Flat]:
        """See the class: what is above the table's bits is no part of a place, and may not be sent."""
        step = np.uint32((1 << 32) // len(self.table))
        return [inputs[0].astype(np.uint32) * step]

    def deal(self, masks: Sequence[Flat]) -> list[Flat]:
        """See the class."""
        step = (1 << 32) // len(self.table)
        out = np.zeros((self.size, len(self.table)), np.uint64)
        out[np.arange(self.size), masks[0].astype(np.int64) // step] = 1
        return [out.reshape(-1)]

    def take(
        self, first: bool, opened: Sequence[Flat], masks: Sequence[Flat], dealt: Sequence[Flat]
    ) -> list[Flat]:
        """See the class."""
        # Places are at the top of a word and its low bits are those of the mask: no carry reaches them.
        step = (1 << 32) // len(self.table)
        at = opened[0].astype(np.int64)[:, None] // step - np.arange(len(self.table))
        entries = np.array(self.table, np.uint64)[at % len(self.table)]
        total: Words = (entries * _words(dealt[0]).reshape(self.size, -1)).sum(axis=1, dtype=np.uint64)
        return [total]


def packed(size: int) -> int:
    """Return how many bytes hold so many bits."""
    return -(-size // 8)


def _words(flat: Flat) -> Words:
    return flat.astype(np.uint64, copy=False)


def _bits(plane: Flat) -> Words:
    return np.unpackbits(plane.astype(np.uint8, copy=False), bitorder="little").astype(np.uint64)


def _turned(c: Words, share: Words) -> Words:
    return share - np.uint64(2) * c * share


def _difference(terms: Words) -> Words:
    found: Words = terms[0] - terms[1] if len(terms) == 2 else terms[0]
    return found


def _digits(words: Flat) -> Planes:
    """Return where each digit of words, (8 k,), stands: (digits, 16, k), lowest digit first, eight words to a byte."""
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1)
    digits = np.stack([raw & 15, raw >> 4], axis=-1).reshape(len(words), -1).T
    places = digits[:, None] == np.arange(16, dtype=np.uint8)[:, None]
    return np.packbits(places, axis=-1, bitorder="little")
