"""What every engine of the intersection starts from and ends with.

An item is a customer's id as a hash, the same at every party of one contract. Items stay at home: a bare hash
of an id can be searched for (docs/alignment.md), so an engine only ever sends what is masked or keyed.
A slot is a place in a party's list after that party shuffled it: positions that other parties see are slots.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmkt.protocol.core import Message, Name, PublicValue, State, Turn, Words

Rows = NDArray[np.int64]
Bytes = NDArray[np.uint8]

NO_ROW: Final = -1
PROOF_BYTES: Final = 16
BLOCK: Final = 1 << 18
"""Items in one message: the longest takes 56 bytes for each bin of 1.27 bins per item, a message at most 64 MiB."""


@dataclass(frozen=True)
class ListRows(PublicValue):
    """How many customers a party offers for matching."""

    rows: int


@dataclass(frozen=True)
class Items(State):
    """A party's own items by slot, and the own row of each slot.

    values : (slots * keys, 2), item k of slot s at s * keys + k, all distinct; rows : (slots,).
    """

    durable = False
    values: Words
    rows: Rows


@dataclass(frozen=True)
class Tags(Message):
    """Tags of one block of a partner's items, (k, length), by slot."""

    tags: Bytes


@dataclass(frozen=True)
class Match:
    """What the bank found out about its own items at one partner.

    positions : (n,) the partner's item that equals own item i, or NO_ROW; proofs : (n, PROOF_BYTES), what shows
    the partner that the bank holds that item, zeros where there is none.
    """

    positions: Rows
    proofs: Bytes


@dataclass(frozen=True)
class Found(State):
    """The bank's matches by partner."""

    durable = False
    matches: Mapping[str, Match]


@dataclass(frozen=True)
class Offered(State):
    """A partner's proofs of its own items, (m, PROOF_BYTES): what an honest bank shows for each match."""

    durable = False
    proofs: Bytes


@dataclass(frozen=True)
class Known(State):
    """Which of its own customers the bank shares with the partner, by own row; kept where all of them take part."""

    rows: NDArray[np.bool_]


def items_at(turn: Turn, party: Name) -> int:
    """Return how many items a party has: one for each key of each customer."""
    return turn.published(ListRows, party).rows * len(turn.contract.bank.id_kinds)


def blocks(items: int) -> int:
    """Return how many messages carry this many items; at least one."""
    return max(1, -(-items // BLOCK))


def block_of(index: int, items: int) -> slice:
    """Return the items of one block."""
    return slice(index * BLOCK, min(items, (index + 1) * BLOCK))
