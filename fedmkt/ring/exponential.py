"""The exponential function of shared numbers in one round, without a comparison.

    exp(x) ~ a_0 + sum over k <= K of s_k sin(2 pi k x / P) + c_k cos(2 pi k x / P)

A Fourier extension: on |x| <= 0.45 P the series is fitted to exp(x) up to x = 3, and from there on to a smooth
curve that bends towards twice that, since nothing with few terms grows on. Angles, openings and what the dealer deals
are those of `sigmoid`, whose tables also serve here: cosines cost nothing besides.

    s sin(theta_u) + c cos(theta_u) = sin(theta_t) (s cos(theta_delta) - c sin(theta_delta))
                                      + cos(theta_t) (s sin(theta_delta) + c cos(theta_delta))

Shares are modulo 2^32, the result at scale 2^24, without a_0 (`CONSTANT`); |result| < 42 * 2^24 < 2^30 on the whole
circle, so `rounding.finish_lift` applies. Error with P = 64, K = 40, relative to max(1, exp(x)): below 1e-3 for
-8 <= x <= 2.5 and 3e-3 up to x = 3, and beside it noise of mean zero, 2e-3, from the integers. |x| < 0.45 P must be
guaranteed elsewhere. Each t is used for one opening only. Semi-honest parties; the dealer outside.
"""

from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import compiled, readable
from fedmkt.ring.fixed import HalfWords
from fedmkt.ring.sigmoid import TABLE_BITS, sine_table

LOG2_PERIOD = 6
HARMONICS = 40
FACTOR_BITS = 11
"""The public factors' scale: values grow to 42, which leaves the factors fewer bits than a sigmoid's."""
RESULT_BITS = TABLE_BITS + FACTOR_BITS
MOST = 42.0
"""No value of the series is larger."""
COEFFICIENT_BITS = 16
_SHIFT = COEFFICIENT_BITS + TABLE_BITS - FACTOR_BITS
_INDEX_BITS = 16
_STEPS = 1 << _INDEX_BITS
_QUARTER = _STEPS // 4
_BLOCK = 2048

# At scale 2^16; the tests fit again and compare.
_CONSTANT = 1137379
_SINES = (
    1613900, -33207, 393098, -48617, 98878, -42466, -31257, -22737, -89231, 1139,
    -106100, 23770, -97303, 42989, -73658, 57033, -45395, 63149, -22202, 58640,
    -10778, 43386, -12057, 21832, -20398, 2448, -26200, -6053, -21621, -513,
    -6878, 12200, 7168, 16797, 5303, 2404, -11893, -9684, 6085, 373,
)  # fmt: skip
_COSINES = (
    -109177, -329858, -84051, -267272, -48701, -188067, -18468, -110042, 385, -42554,
    8755, 9982, 9166, 44638, 2934, 59701, -9184, 56450, -24913, 40579,
    -39332, 21435, -46088, 8667, -40747, 7564, -24478, 15674, -5372, 23406,
    4856, 20108, -878, 4364, -14933, -7175, -12743, 11645, 3258, -1409,
)  # fmt: skip

CONSTANT = np.uint32(_CONSTANT << (RESULT_BITS - COEFFICIENT_BITS))
"""a_0 at the scale of the result; one party adds it."""


def constants_digest() -> bytes:
    """Digest everything public that multiplies shares: table, coefficients and scales (SHA-256)."""
    numbers = (LOG2_PERIOD, TABLE_BITS, FACTOR_BITS, COEFFICIENT_BITS, _CONSTANT, *_SINES, *_COSINES)
    return sha256(sine_table().astype("<i2").tobytes() + np.array(numbers, dtype="<i4").tobytes()).digest()


def evaluate(delta: HalfWords, dealt: HalfWords) -> HalfWords:
    """Compute one party's share of exp(x) - a_0, (n,) uint32, scale 2^24.

    delta : (n,) uint32, opened; dealt : this party's share of `sigmoid.deal_angles`, (2K, n) uint32.
    """
    if delta.dtype != np.uint32 or dealt.dtype != np.uint32 or dealt.shape != (2 * HARMONICS, delta.size):
        raise ValueError(
            f"{delta.dtype} {delta.shape} and {dealt.dtype} {dealt.shape} are no angles of one size"
        )
    out = np.zeros(delta.size, dtype=np.uint32)
    sines, cosines = (np.array(c, dtype=np.int64) for c in (_SINES, _COSINES))
    _evaluate(readable(delta), readable(dealt), readable(sines), readable(cosines), sine_table(), out)
    return out


def plain_series(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the series in floating point, as its integers have it, (n,)."""
    theta = 2 * np.pi * np.outer(np.arange(1, HARMONICS + 1), x) / 2**LOG2_PERIOD
    total = _CONSTANT + np.array(_SINES) @ np.sin(theta) + np.array(_COSINES) @ np.cos(theta)
    return np.asarray(total / 2.0**COEFFICIENT_BITS, dtype=np.float64)


def compile_all() -> None:
    """Compile, or read from the cache, the kernel of this file."""
    evaluate(np.zeros(1, np.uint32), np.zeros((2 * HARMONICS, 1), np.uint32))


@compiled
def _evaluate(
    delta: HalfWords,
    dealt: HalfWords,
    sines: NDArray[np.int64],
    cosines: NDArray[np.int64],
    table: NDArray[np.int16],
    out: HalfWords,
) -> None:
    """Add up block by block, so that delta and the sums stay in the cache for all harmonics."""
    n = delta.size
    half = np.uint32(1 << 15)
    edge = np.int64(1 << (_SHIFT - 1))
    for start in range(0, n, _BLOCK):
        stop = min(n, start + _BLOCK)
        for k in range(sines.size):
            factor = np.uint32(k + 1)
            s, c = sines[k], cosines[k]
            for i in range(start, stop):
                index = np.uint16(np.uint32(np.uint32(factor * delta[i]) + half) >> np.uint32(16))
                shifted = np.uint16(index + np.uint16(_QUARTER))
                sine, cosine = np.int64(table[index]), np.int64(table[shifted])
                for_sine = np.int64(s * cosine - c * sine + edge) >> np.int64(_SHIFT)
                for_cosine = np.int64(s * sine + c * cosine + edge) >> np.int64(_SHIFT)
                out[i] += np.uint32(
                    np.uint32(for_sine) * dealt[2 * k, i] + np.uint32(for_cosine) * dealt[2 * k + 1, i]
                )
