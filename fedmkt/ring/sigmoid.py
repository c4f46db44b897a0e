"""The logistic function of shared numbers in one round, without a comparison.

    sigma(x) ~ 1/2 + sum over k <= K of c_k sin(2 pi k x / P)

Angles are uint32, one turn = P = 2^32 units, so reducing modulo the period is what the type does. The
dealer knows a uniform t and shares sin(k theta_t), cos(k theta_t); the parties open delta = u - t modulo
2^32, which is uniform, and each multiplies its shares by public integers:

    sin(k theta_u) = sin(k theta_t) cos(k theta_delta) + cos(k theta_t) sin(k theta_delta)

The public integers come from one integer table, so they are bit-equal at all parties: one that differed in
its last bit would turn the value into noise. The table is rounded from floats, but no value of it lies
closer than 4e-5 to a rounding edge; `constants_digest` belongs in the transcript.

Shares are modulo 2^32, the result at scale 2^28, without the 1/2 (`HALF`); |result| < 2^28, so
`rounding.finish_lift` applies. Error in all, P = 64, K = 20: below 1e-3 for |x| <= 8, below 7e-3 for |x| <=
28.8. The series is odd and periodic: from there on it turns back (0.5 at |x| = P/2) and has the wrong sign
beyond, so |x| < 0.45 P must be guaranteed elsewhere. Each t is used for one opening only. Semi-honest
parties; the dealer outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import compiled, readable
from fedmkt.ring.fixed import HalfWords, Words

TABLE_BITS = 13
"""Sines are dealt at scale 2^13, the public factors at 2^15: the split of 28 bits with the least error."""

FACTOR_BITS = 15
RESULT_BITS = TABLE_BITS + FACTOR_BITS
HALF = np.uint32(1 << (RESULT_BITS - 1))
"""1/2 at the scale of the result; the series lacks it, one party adds it."""

COEFFICIENT_BITS = 16
_SHIFT = COEFFICIENT_BITS + TABLE_BITS - FACTOR_BITS
_INDEX_BITS = 16
_STEPS = 1 << _INDEX_BITS
_QUARTER = _STEPS // 4
_BLOCK = 2048
_NO_OTHER = np.zeros((0, 0), dtype=np.uint32)


@dataclass(frozen=True)
class Series:
    """A fitted sine series: period P = 2^log2_period, and c_k at scale 2^16 for k = 1..K."""

    log2_period: int
    coefficients: tuple[int, ...]

    @property
    def harmonics(self) -> int:
        """K, the number of sines; the dealer deals 2K words per row."""
        return len(self.coefficients)


# Least squares with weights exp(-(x/6)^2) + 0.05: on |x| <= 0.45 P for P = 64; on |x| <= 0.47 P and with a
# ridge of 1e-3 for P = 128, where the coefficients would grow to 20 in sum. The tests fit again and
# compare.
_64_20 = (
    41153, -156, 12305, -212, 5963, -147, 3095, -13, 1550, 125,
    690, 215, 225, 244, 16, 237, -62, 146, -97, 159,
)  # fmt: skip
_128_40 = (
    41508, 91, 13287, 182, 7344, 274, 4624, 364, 3017, 449,
    1953, 524, 1210, 582, 682, 620, 309, 636, 54, 630,
    -111, 601, -209, 553, -255, 492, -262, 425, -240, 357,
    -202, 286, -164, 210, -134, 136, -102, 93, -36, 119,
)  # fmt: skip

_SERIES = {series.log2_period: series for series in (Series(6, _64_20), Series(7, _128_40))}


def series(period: int) -> Series:
    """Return the series for the period 64 (20 sines) or 128 (40 sines)."""
    found = _SERIES.get(period.bit_length() - 1) if period in (64, 128) else None
    if found is None:
        raise ValueError(f"there is a series for the periods 64 and 128, not {period}")
    return found


@cache
def sine_table() -> NDArray[np.int16]:
    """Return round(2^13 sin(2 pi i / 2^16)) for i = 0..2^16 - 1, int16; do not write to it."""
    quarter = np.rint(np.sin(np.arange(_QUARTER + 1) * (2 * np.pi / _STEPS)) * 2**TABLE_BITS).astype(np.int16)
    half = np.concatenate([quarter, quarter[-2:0:-1]])
    table = np.concatenate([half, -half])
    table.flags.writeable = False
    return table


def constants_digest(chosen: Series) -> bytes:
    """Digest everything public that multiplies shares: table, coefficients and scales (SHA-256)."""
    numbers = (chosen.log2_period, TABLE_BITS, FACTOR_BITS, COEFFICIENT_BITS, *chosen.coefficients)
    return sha256(sine_table().astype("<i2").tobytes() + np.array(numbers, dtype="<i4").tobytes()).digest()


def angle_share(z_share: Words, scale_bits: int, log2_period: int) -> HalfWords:
    """Turn one party's share of z into its share of the angle.

    z_share : any shape, uint64, scale 2^scale_bits; needs 32 <= scale_bits + log2_period <= 64. Returns
    uint32 of that shape, 2^32 = one period. Each party drops its low bits by itself: the angle is at most k
    - 1 units below the one of z (a unit is P / 2^32). Nothing but these 32 bits may be masked and sent.
    """
    drop = scale_bits + log2_period - 32
    if not 0 <= drop <= 32:
        raise ValueError(f"scale_bits + log2_period must be in 32..64, got {scale_bits} + {log2_period}")
    return (z_share >> np.uint64(drop)).astype(np.uint32)


def prepare(angle: HalfWords, mask_share: HalfWords) -> HalfWords:
    """Compute one party's part of delta = u - t modulo 2^32: its shares of u and t, uint32 of one shape."""
    if angle.shape != mask_share.shape or angle.dtype != np.uint32 or mask_share.dtype != np.uint32:
        raise ValueError(f"expected uint32 {angle.shape}, got {mask_share.dtype} {mask_share.shape}")
    return angle - mask_share


def deal_angles(t: HalfWords, harmonics: int) -> HalfWords:
    """Compute the values that the dealer shares for a uniform t, (n,) uint32.

    Returns (2K, n) uint32 at scale 2^13: row 2k - 2 is sin(k theta_t), row 2k - 1 is cos(k theta_t).
    """
    _check_half_words(t, (t.size,))
    out = np.empty((2 * harmonics, t.size), dtype=np.uint32)
    _deal(readable(t), sine_table(), readable(_NO_OTHER), out)
    return out


def deal_correction(
    t: HalfWords, harmonics: int, others: Sequence[HalfWords], out: HalfWords | None = None
) -> HalfWords:
    """Compute `deal_angles` minus the other parties' shares, in one pass and without a temporary.

    t : (n,) uint32; others : (2K, n) uint32 each, for all parties but the reader. Returns (2K, n) uint32,
    in `out` if given, which may be one of the others (then overwritten).
    """
    if not others:
        raise ValueError("a correction needs the other parties' shares")
    _check_half_words(t, (t.size,))
    for other in others:
        _check_half_words(other, (2 * harmonics, t.size))
    # The one that is overwritten must be read in the same pass.
    first, *rest = sorted(others, key=lambda other: out is None or not np.may_share_memory(other, out))
    target = np.empty((2 * harmonics, t.size), dtype=np.uint32) if out is None else out
    _check_half_words(target, (2 * harmonics, t.size))
    if not target.flags.c_contiguous:
        raise ValueError("out must be in C order")
    _deal(readable(t), sine_table(), readable(first), target)
    for other in rest:
        target -= other
    return target


def evaluate(delta: HalfWords, dealt: HalfWords, chosen: Series) -> HalfWords:
    """Compute one party's share of sigma(z) - 1/2, (n,) uint32, scale 2^28.

    delta : (n,) uint32, opened; dealt : this party's share of `deal_angles`, (2K, n) uint32.
    """
    _check_half_words(delta, (delta.size,))
    _check_half_words(dealt, (2 * chosen.harmonics, delta.size))
    out = np.zeros(delta.size, dtype=np.uint32)
    coefficients = np.array(chosen.coefficients, dtype=np.int32)
    _evaluate(readable(delta), readable(dealt), readable(coefficients), sine_table(), out)
    return out


def plain_deal_angles(t: HalfWords, harmonics: int) -> HalfWords:
    """Return what `deal_angles` returns, by numpy alone."""
    table = sine_table()
    rows = []
    for k in range(1, harmonics + 1):
        index = _plain_index(t, k)
        rows += [table[index], table[(index + _QUARTER) % _STEPS]]
    return np.array(rows, dtype=np.int16).astype(np.int32).view(np.uint32)


def plain_evaluate(delta: HalfWords, dealt: HalfWords, chosen: Series) -> HalfWords:
    """Return what `evaluate` returns, by numpy alone."""
    factors = plain_factors(delta, chosen).astype(np.int32).view(np.uint32)
    total: HalfWords = np.add.reduce(factors * dealt, axis=0, dtype=np.uint32)
    return total


def plain_factors(delta: HalfWords, chosen: Series) -> NDArray[np.int64]:
    """Compute the public integers that multiply a share, by numpy: (2K, n) int64, scale 2^15."""
    table = sine_table().astype(np.int64)
    rows = []
    for k, c in enumerate(chosen.coefficients, start=1):
        index = _plain_index(delta, k)
        for quarter in (_QUARTER, 0):
            rows.append((c * table[(index + quarter) % _STEPS] + (1 << (_SHIFT - 1))) >> _SHIFT)
    return np.array(rows)


def compile_all() -> None:
    """Compile, or read from the cache, the kernels of this file."""
    angles = np.zeros(1, dtype=np.uint32)
    chosen = series(64)
    evaluate(angles, deal_angles(angles, chosen.harmonics), chosen)


def _plain_index(angle: HalfWords, k: int) -> NDArray[np.int64]:
    return ((np.uint32(k) * angle + np.uint32(1 << 15)) >> np.uint32(32 - _INDEX_BITS)).astype(np.int64)


def _check_half_words(array: HalfWords, shape: tuple[int, ...]) -> None:
    if array.dtype != np.uint32 or array.shape != shape:
        raise ValueError(f"expected uint32 {shape}, got {array.dtype} {array.shape}")


@compiled
def _deal(t: HalfWords, table: NDArray[np.int16], other: HalfWords, out: HalfWords) -> None:
    """Fill out block by block, so that t stays in the cache for all harmonics."""
    rows, n = out.shape
    has_other = other.shape[0] > 0
    half = np.uint32(1 << 15)
    for start in range(0, n, _BLOCK):
        stop = min(n, start + _BLOCK)
        for k in range(rows // 2):
            factor = np.uint32(k + 1)
            for i in range(start, stop):
                index = np.uint16(np.uint32(np.uint32(factor * t[i]) + half) >> np.uint32(16))
                shifted = np.uint16(index + np.uint16(_QUARTER))
                sine, cosine = np.uint32(table[index]), np.uint32(table[shifted])
                if has_other:
                    sine -= other[2 * k, i]
                    cosine -= other[2 * k + 1, i]
                out[2 * k, i] = sine
                out[2 * k + 1, i] = cosine


@compiled
def _evaluate(
    delta: HalfWords,
    dealt: HalfWords,
    coefficients: NDArray[np.int32],
    table: NDArray[np.int16],
    out: HalfWords,
) -> None:
    """Add up block by block, so that delta and the sums stay in the cache for all harmonics."""
    n = delta.size
    half = np.uint32(1 << 15)
    edge = np.int32(1 << (_SHIFT - 1))
    for start in range(0, n, _BLOCK):
        stop = min(n, start + _BLOCK)
        for k in range(coefficients.size):
            factor = np.uint32(k + 1)
            c = coefficients[k]
            for i in range(start, stop):
                index = np.uint16(np.uint32(np.uint32(factor * delta[i]) + half) >> np.uint32(16))
                shifted = np.uint16(index + np.uint16(_QUARTER))
                for_sine = np.int32(c * np.int32(table[shifted]) + edge) >> np.int32(_SHIFT)
                for_cosine = np.int32(c * np.int32(table[index]) + edge) >> np.int32(_SHIFT)
                out[i] += np.uint32(
                    np.uint32(for_sine) * dealt[2 * k, i] + np.uint32(for_cosine) * dealt[2 * k + 1, i]
                )
