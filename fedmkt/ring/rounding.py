"""One-round probabilistic rounding: divide a shared integer by 2^s, never a wrap error in range.

The dealer knows a uniform R and shares R >> s and msb(R). The parties open c = x + 2^62 + R, which is
uniform, and each computes its share of

    (c >> s) - (R >> s) + msb(R) (1 - msb(c)) 2^(64 - s) - 2^(62 - s)

For -2^62 <= x < 2^62 that is floor(x / 2^s) or one more, with mean exactly x / 2^s. Outside of the range
it is wrong by 2^(64 - s) with probability 2 (distance to the range) / 2^64, unnoticed: every x needs a static
bound (`bounds`). The `lift` functions do the same for x shared modulo 2^32, -2^30 <= x < 2^30, and return
shares modulo 2^64: half the bytes for masks and openings. R is used for one opening only.
Semi-honest parties; the dealer outside.
"""

from dataclasses import dataclass

import numpy as np

from fedmkt.ring.fixed import HalfWords, Words

_OFFSET = np.uint64(1 << 62)
_HALF_OFFSET = np.uint32(1 << 30)
_ONE = np.uint64(1)
MAX_SHIFT = 62
MAX_LIFT_SHIFT = 30


@dataclass(frozen=True)
class DealtRounding:
    """What the dealer shares about R, modulo 2^64: `high` = R >> s and `top` = msb(R), both shaped like R."""

    high: Words
    top: Words


def deal(mask: Words, shift: int) -> DealtRounding:
    """Compute the values that the dealer shares for a uniform R, any shape, uint64; 0 <= shift <= 62."""
    _check_shift(shift, MAX_SHIFT)
    return DealtRounding(mask >> np.uint64(shift), mask >> np.uint64(63))


def prepare(x_share: Words, mask_share: Words, *, first: bool) -> Words:
    """Compute one party's part of c: shares of x and of R, uint64 of one shape; one party is first."""
    _check_pair(x_share, mask_share, np.dtype(np.uint64))
    opening = x_share + mask_share
    if first:
        opening += _OFFSET
    return opening


def finish(opened: Words, dealt: DealtRounding, shift: int, *, first: bool) -> Words:
    """Compute one party's share of x / 2^shift from the opened c and its shares of `deal`, all uint64."""
    _check_shift(shift, MAX_SHIFT)
    return _finish(opened >> np.uint64(63), opened, dealt, shift, (64, 62), first)


def deal_lift(mask: HalfWords, shift: int) -> DealtRounding:
    """Compute the values that the dealer shares for a uniform R of uint32: uint64; 0 <= shift <= 30."""
    _check_shift(shift, MAX_LIFT_SHIFT)
    wide = mask.astype(np.uint64)
    return DealtRounding(wide >> np.uint64(shift), wide >> np.uint64(31))


def prepare_lift(x_share: HalfWords, mask_share: HalfWords, *, first: bool) -> HalfWords:
    """Compute one party's part of c modulo 2^32: shares of x and R, uint32, one shape; one is first."""
    _check_pair(x_share, mask_share, np.dtype(np.uint32))
    opening = x_share + mask_share
    if first:
        opening += _HALF_OFFSET
    return opening


def finish_lift(opened: HalfWords, dealt: DealtRounding, shift: int, *, first: bool) -> Words:
    """Compute one party's share of x / 2^shift, uint64, from c, uint32, and its shares of `deal_lift`."""
    _check_shift(shift, MAX_LIFT_SHIFT)
    wide = opened.astype(np.uint64)
    return _finish(wide >> np.uint64(31), wide, dealt, shift, (32, 30), first)


def _finish(
    top: Words, opened: Words, dealt: DealtRounding, shift: int, widths: tuple[int, int], first: bool
) -> Words:
    """Apply the formula; `top` is msb(c), and is overwritten."""
    ring, offset = widths
    np.subtract(_ONE, top, out=top)
    top *= np.uint64((1 << (ring - shift)) % (1 << 64))
    top *= dealt.top
    top -= dealt.high
    if first:
        top += opened >> np.uint64(shift)
        top -= np.uint64(1 << (offset - shift))
    return top


def _check_shift(shift: int, limit: int) -> None:
    if not 0 <= shift <= limit:
        raise ValueError(f"shift must be in 0..{limit}, got {shift}")


def _check_pair(x: Words | HalfWords, mask: Words | HalfWords, dtype: np.dtype[np.generic]) -> None:
    if x.shape != mask.shape or x.dtype != dtype or mask.dtype != dtype:
        found = f"{x.dtype} {x.shape} and {mask.dtype} {mask.shape}"
        raise ValueError(f"expected {dtype} of one shape, got {found}")
