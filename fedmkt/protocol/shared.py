"""Shared values: the pieces that protocols on shares are put together from.

A shared vector is one array of words per party that holds data; the dealer deals masks and corrections. What
all parties get from seeds costs no message; what does not add up by itself, the dealer sends to the first
party (the bank) as a correction. An opening is a share plus a mask that only the dealer and its sender know.
Semi-honest parties, any number but one of them together, as long as the dealer stays outside.
Source: protocols.md sections 0 and 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedmkt.protocol.core import HalfWords, Inbox, M, Masked, Message, Name, Turn, Words
from fedmkt.ring import rounding
from fedmkt.ring.fixed import correction

Shape = tuple[int, ...] | int


@dataclass(frozen=True)
class DealtRounding(Message):
    """The first party's shares of R >> s and msb(R)."""

    high: Words
    top: Words


@dataclass(frozen=True)
class Opening(Message):
    """One share plus a mask, to all other parties."""

    words: Masked[Words]


def shared_from_seeds(
    turn: Turn, label: str, count: int, shape: Shape, dealt: Words | None, block: int = 0
) -> Words:
    """Return this party's share of a value that the dealer dealt: from its seed, or the correction it was sent."""
    if not turn.first:
        return turn.masks.words(turn.me, label, count, shape, block=block)
    if dealt is None:
        raise ValueError(f"the dealer's correction for {label} is missing")
    expected = shape if isinstance(shape, tuple) else (shape,)
    if dealt.shape != expected:
        raise ValueError(f"the dealer's correction for {label} has another shape")
    return dealt


def deal_value(turn: Turn, label: str, count: int, value: Words, block: int = 0) -> Words:
    """At the dealer: return the correction that makes all shares add up to `value`."""
    rest = turn.parties[1:]
    return correction(value, [turn.masks.words(p, label, count, value.shape, block=block) for p in rest])


def open_masked(turn: Turn, label: str, count: int, share: Words, block: int = 0) -> Words:
    """Return the own share plus a mask R that only the dealer also knows, for `rounding`: send it, keep it."""
    mask = turn.masks.words(turn.me, f"{label}/R", count, share.shape, block=block)
    return rounding.prepare(share, mask, first=turn.first)


def sum_openings(own: Words, inbox: Inbox[Message], turn: Turn, kind: type[Opening]) -> Words:
    """Add the own opening and those of all other parties."""
    opened = own.copy()
    found = inbox.by_sender(kind)
    for party in turn.others:
        words = found[party].words.words if party in found else None
        if words is None or words.shape != own.shape:
            raise ValueError(f"the opening of {party} is missing or has another shape")
        opened += words
    return opened


def from_others(
    turn: Turn, inbox: Inbox[Message], kind: type[M], fits: Callable[[M], bool], what: str
) -> dict[Name, M]:
    """Return the message of this kind of each other party; ValueError where one is missing or does not fit.

    what : what the messages hold, for the text of the error.
    """
    found = inbox.by_sender(kind)
    if set(found) != set(turn.others) or not all(fits(message) for message in found.values()):
        raise ValueError(f"{what} of the others are missing or have another length")
    return found


def deal_rounding(turn: Turn, label: str, count: int, shape: Shape, shift: int) -> DealtRounding:
    """At the dealer: deal one rounding by 2^shift."""
    masks = [turn.masks.words(p, f"{label}/R", count, shape) for p in turn.parties]
    dealt = rounding.deal(add_up(masks), shift)
    return DealtRounding(
        deal_value(turn, f"{label}/high", count, dealt.high),
        deal_value(turn, f"{label}/top", count, dealt.top),
    )


def finish_rounding(
    turn: Turn, label: str, count: int, opened: Words, shift: int, dealt: DealtRounding | None
) -> Words:
    """Return the own share of the opened value divided by 2^shift."""
    high = shared_from_seeds(turn, f"{label}/high", count, opened.shape, dealt.high if dealt else None)
    top = shared_from_seeds(turn, f"{label}/top", count, opened.shape, dealt.top if dealt else None)
    return rounding.finish(opened, rounding.DealtRounding(high, top), shift, first=turn.first)


def add_up(arrays: Sequence[Words]) -> Words:
    """Add arrays of words modulo 2^64."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


def add_up_halves(arrays: Sequence[HalfWords]) -> HalfWords:
    """Add arrays of half words modulo 2^32."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


def first_only(turn: Turn, value: int) -> np.uint64:
    """Return a public constant for the first party and zero for the others: their sum is the constant."""
    return np.uint64(value % (1 << 64)) if turn.first else np.uint64(0)
