"""Sums of encrypted small integers over groups of rows: ring-LWE with a hint that is computed once.

Row i is coefficient i mod N of polynomial i // N. Public uniform a_j stay for a whole training. For each vector m of
small integers its owner takes a fresh ternary secret s and small noise e and sends

    b_j = a_j s + e_j + Delta m_j    in Z_q[X] / (X^N + 1),  q = 2^64, N = 4096

Who holds the groups D (K x n, zeros and ones) adds up words: D b = H s + Delta D m + D e, where H = D A (K x N) does
not depend on m. A is the matrix that maps s to all a_j s. D b - H s + flooding, rounded to multiples of Delta, is D m.

What is safe here, and against whom: b hides m from everyone who lacks s, as long as s serves one vector only
(decisional ring-LWE; parameters and sources: `budget`). H determines D, and D b - H s shows D e besides D m: how H
stays hidden and D e is flooded is the protocol's task. An owner of m who deviates chooses m and e as it likes.

Products with a_j are exact: double-precision FFTs of limbs, with a bound on their error that holds for every input
(`product_error`) and is asserted before it is relied on. Words are those of `fixed.Words`: uint64, modulo 2^64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import compiled, readable
from fedmkt.crypto.prg import expand, words
from fedmkt.ring.fixed import Words

DEGREE = 4096
"""N. Polynomials, secrets and rows of the hint have this many coefficients."""

MODULUS_BITS = 64

NOISE_HALF = 21
"""e is the difference of two sums of 21 bits: |e| <= 21, sigma = sqrt(10.5) = 3.24."""

NOISE_VARIANCE = NOISE_HALF / 2

NO_BIN = 255
"""Code of a row that is in no bin; bins are 0..254."""

Complex = NDArray[np.complex128]
Codes = NDArray[np.uint8]
Integers = NDArray[np.int64]

_HALF = DEGREE // 2
_EPSILON = 2.0**-53
_LIMBS = {32: 2, 22: 3}
_ENCRYPT_LIMB = 32
_HINT_LIMB = 22
_CHUNK = 1 << 18
_GROUP = 256
"""So many polynomials are added up before the sum is rounded."""


@dataclass(frozen=True)
class Transformed:
    """Polynomials a_j in the domain where products are entry by entry: one (J, N/2) array per signed limb."""

    limb_bits: int
    limbs: tuple[Complex, ...]

    @property
    def count(self) -> int:
        """J, the number of polynomials."""
        return int(self.limbs[0].shape[0])

    def part(self, start: int, stop: int) -> "Transformed":
        """Return a_start to a_(stop - 1)."""
        return Transformed(self.limb_bits, tuple(limb[start:stop] for limb in self.limbs))


def polynomials(rows: int) -> int:
    """Return how many polynomials hold this many rows."""
    return -(-rows // DEGREE)


def public_polynomials(seed: bytes, count: int) -> Words:
    """Expand a public 32-byte seed into a_j, (count, N) uniform words; everybody computes the same."""
    return words(seed, (count, DEGREE))


def draw_secrets(key: bytes, count: int) -> NDArray[np.int8]:
    """Expand a fresh 32-byte key into `count` secrets, (count, N), uniform in -1, 0, 1 (bias below 2^-31)."""
    raw = expand(key, 4 * count * DEGREE).view("<u4").astype(np.uint64)
    drawn = ((raw * np.uint64(3)) >> np.uint64(32)).astype(np.int8)
    drawn -= np.int8(1)
    return drawn.reshape(count, DEGREE)


def draw_noise(key: bytes, rows: int, vectors: int) -> NDArray[np.int8]:
    """Expand a fresh 32-byte key into noise, (rows, vectors), centred binomial with sigma = 3.24."""
    out = np.empty(rows * vectors, np.int8)
    raw = expand(key, 8 * out.size)
    for start in range(0, out.size, _CHUNK):
        piece = raw[8 * start : 8 * (start + _CHUNK)].view("<u8")
        # Of 64 bits 22 are left over; the others are two groups of 21.
        plus = np.bitwise_count(piece >> np.uint64(MODULUS_BITS - NOISE_HALF))
        minus = np.bitwise_count(piece & np.uint64((1 << NOISE_HALF) - 1))
        out[start : start + _CHUNK] = plus.view(np.int8) - minus.view(np.int8)
    return out.reshape(rows, vectors)


def product_error(limb_bits: int, terms: int) -> float:
    """Bound the error of one coefficient of a sum of products of limbs with small polynomials, before rounding.

    terms : how many products a_j x are added up, with |x_i| <= 1. Percival's bound for convolutions by FFT (Brent,
    Percival and Zimmermann, Error bounds on complex floating-point multiplication, 2007) for length N/2 = 2^11, with
    one more product per transform for the twist, `terms` more additions, twiddles off by at most 2 units of 2^-53.
    It counts the roundings of a radix-2 transform; those of mixed radix that libraries use do fewer.
    """
    if limb_bits not in _LIMBS:
        raise ValueError(f"there are limbs of {sorted(_LIMBS)} bits, not {limb_bits}")
    depth = _HALF.bit_length() - 1
    additions, products = 3 * depth + terms, 3 * depth + 4
    # First order in 2^-53; what is left out is smaller by 2^-40.
    relative = _EPSILON * (additions + products * (5**0.5 + 2)) * (1 + 2.0**-40)
    # Euclidean norms of a limb and of x are at most 2^(limb_bits - 1) sqrt(N) and sqrt(N).
    return relative * terms * float(2 ** (limb_bits - 1)) * DEGREE


def transform(a: Words, limb_bits: int = _ENCRYPT_LIMB) -> Transformed:
    """Prepare a_j, (J, N) words, for `encrypt` (limbs of 32 bits) or `hint` (22 bits)."""
    _expect(a, np.dtype(np.uint64), 2, DEGREE)
    return Transformed(limb_bits, tuple(_forward(limb) for limb in _split(a, limb_bits)))


def transform_for_hint(a: Words) -> Transformed:
    """Prepare a_j, (J, N) words, for `hint`: its sums over many polynomials need shorter limbs."""
    return transform(a, _HINT_LIMB)


def multiply(a: Transformed, small: NDArray[np.int8]) -> Words:
    """Multiply each a_j by each small polynomial, (V, N) in -1..1: returns (J N, V) words, exactly."""
    rows, vectors = a.count * DEGREE, small.shape[0]
    out = np.empty((rows, vectors), np.uint64)
    _products_into(a, _ternary(small), out, np.zeros((rows, vectors), np.int8))
    return out


def encrypt(
    a: Transformed,
    secrets: NDArray[np.int8],
    noise: NDArray[np.int8],
    values: Integers,
    delta_bits: Sequence[int],
) -> Words:
    """Encrypt vectors of integers: returns b = a s + e + 2^delta_bits m, (n, V) words; delta_bits one per vector.

    secrets : (V, N), each fresh and for this vector only; noise : (n, V) of `draw_noise`; values : (n, V) int64,
    |sums over groups| < 2^(63 - delta_bits) is the caller's to check (`budget`). The last polynomial is cut off at n.
    """
    if values.ndim != 2 or noise.shape != values.shape or secrets.shape != (values.shape[1], DEGREE):
        raise ValueError(f"secrets {secrets.shape}, noise {noise.shape}, values {values.shape} do not fit")
    if polynomials(len(values)) != a.count:
        raise ValueError(f"{a.count} polynomials do not fit {len(values)} rows")
    shifts = _shifts(delta_bits, values.shape[1])
    out = np.empty(values.shape, np.uint64)
    _products_into(a, _ternary(secrets), out, noise)
    out += values.view(np.uint64) << shifts
    return out


def hint(a: Transformed, codes: Codes, counts: Sequence[int]) -> Words:
    """Compute H = D A, (sum of counts, N) words: bins of the first column, then of the next.

    a : of `transform_for_hint`; codes : (F, n) uint8, `NO_BIN` for rows in no bin; counts : bins of each column.
    H with the public a_j determines D: it must not leave its owner unmasked.
    """
    _check_codes(codes, counts)
    if polynomials(codes.shape[1]) != a.count:
        raise ValueError(f"{a.count} polynomials do not hold {codes.shape[1]} rows")
    _assert_exact(a.limb_bits, min(a.count, _GROUP))
    adjoint = [limb.conj() for limb in a.limbs]
    out = np.zeros((sum(counts), DEGREE), np.uint64)
    padded = np.full((a.count, DEGREE), NO_BIN, np.uint8)
    start = 0
    for column, count in zip(codes, counts, strict=True):
        padded.reshape(-1)[: len(column)] = column
        for k in range(count):
            for j in range(0, a.count, _GROUP):
                members = _forward((padded[j : j + _GROUP] == k).astype(np.float64))
                sums = [np.einsum("jm,jm->m", members, limb[j : j + _GROUP]) for limb in adjoint]
                out[start + k] += _join(_inverse(np.stack(sums)), a.limb_bits)
        start += count
    return out


def histogram(codes: Codes, counts: Sequence[int], b: Words) -> Words:
    """Compute D b: for each bin of each column the sum of its rows, (sum of counts, V) words.

    codes : (F, n) uint8, `NO_BIN` for rows in no bin; b : (n, V) words.
    """
    _check_codes(codes, counts)
    if b.dtype != np.uint64 or b.ndim != 2 or b.shape[0] != codes.shape[1]:
        raise ValueError(f"{codes.shape[1]} rows of codes do not fit {b.dtype} {b.shape}")
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    out = np.zeros((int(starts[-1]), b.shape[1]), np.uint64)
    _histogram(readable(codes), readable(starts), readable(b), out)
    return out


def plain_histogram(codes: Codes, counts: Sequence[int], b: Words) -> Words:
    """Return what `histogram` returns, by numpy alone."""
    out = np.zeros((sum(counts), b.shape[1]), np.uint64)
    starts = np.cumsum([0, *counts])
    for column, start in zip(codes, starts[:-1], strict=True):
        inside = column != NO_BIN
        np.add.at(out, start + column[inside].astype(np.int64), b[inside])
    return out


def decode(words_: Words, delta_bits: Sequence[int]) -> Integers:
    """Round (K, V) words to the nearest multiple of 2^delta_bits and divide by it, one per vector, with the sign."""
    shifts = _shifts(delta_bits, words_.shape[1])
    shifted = words_ + (np.uint64(1) << (shifts - np.uint64(1)))
    return shifted.view(np.int64) >> shifts.view(np.int64)


def compile_all() -> None:
    """Compile, or read from the cache, the kernels of this file."""
    a = np.zeros((1, DEGREE), np.uint64)
    b = multiply(transform(a), np.zeros((1, DEGREE), np.int8))[:1]
    histogram(np.zeros((1, 1), np.uint8), [1], b)


def _expect(array: NDArray[np.generic], dtype: np.dtype[np.generic], ndim: int, last: int) -> None:
    if array.dtype != dtype or array.ndim != ndim or array.shape[-1] != last:
        raise ValueError(f"expected {ndim}-d {dtype} of {last} columns, got {array.dtype} {array.shape}")


def _check_codes(codes: Codes, counts: Sequence[int]) -> None:
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[0] != len(counts) or not len(counts):
        raise ValueError(f"{len(counts)} columns of bins do not fit {codes.dtype} {codes.shape}")
    for column, count in zip(codes, counts, strict=True):
        if not 1 <= count <= NO_BIN:
            raise ValueError(f"a column has 1..{NO_BIN} bins, not {count}")
        highest = column[column != NO_BIN].max(initial=0)
        if highest >= count:
            raise ValueError(f"a code is {highest}, but its column has {count} bins")


def _shifts(delta_bits: Sequence[int], vectors: int) -> Words:
    if len(delta_bits) != vectors or not all(0 < bits < MODULUS_BITS for bits in delta_bits):
        raise ValueError(f"messages of {vectors} vectors cannot be shifted by {delta_bits} bits")
    return np.array(delta_bits, np.uint64)


def _ternary(small: NDArray[np.int8]) -> NDArray[np.int8]:
    _expect(small, np.dtype(np.int8), 2, DEGREE)
    if small.size and (small.min() < -1 or small.max() > 1):
        raise ValueError("a coefficient is not -1, 0 or 1")
    return small


def _assert_exact(limb_bits: int, terms: int) -> None:
    """Refuse a sum of products whose rounding to integers is not certain to be right."""
    error = product_error(limb_bits, terms)
    if error >= 0.5:
        raise ValueError(
            f"products in limbs of {limb_bits} bits may be off by {error:.2g}, rounding needs 0.5"
        )


@cache
def _twist() -> Complex:
    """Return the factors that turn a cyclic product of half the length into one modulo X^N + 1."""
    factors: Complex = np.exp(-1j * np.pi * np.arange(_HALF) / DEGREE)
    factors.flags.writeable = False
    return factors


def _forward(x: NDArray[np.float64]) -> Complex:
    """Evaluate real polynomials, (..., N), at half of the roots of X^N + 1; the other half is conjugate."""
    return np.fft.fft((x[..., :_HALF] - 1j * x[..., _HALF:]) * _twist())


def _inverse(transformed: Complex) -> Integers:
    """Return the nearest integer coefficients, (..., N), of polynomials given by their values."""
    y = np.fft.ifft(transformed) * _twist().conj()
    return np.concatenate([np.rint(y.real), np.rint(-y.imag)], axis=-1).astype(np.int64)


def _split(a: Words, limb_bits: int) -> list[NDArray[np.float64]]:
    """Split words into signed limbs, lowest first: a = sum of limb_i 2^(i limb_bits) modulo 2^64."""
    limbs, rest = [], a.copy()
    base, half = np.uint64(limb_bits), np.int64(1 << (limb_bits - 1))
    for _ in range(_LIMBS[limb_bits]):
        low = (rest & np.uint64((1 << limb_bits) - 1)).view(np.int64)
        low = np.where(low >= half, low - 2 * half, low)
        limbs.append(low.astype(np.float64))
        rest = (rest - low.view(np.uint64)) >> base
    return limbs


def _join(limbs: Integers, limb_bits: int) -> Words:
    """Add up limbs, (L, ...), at their places modulo 2^64."""
    out = np.zeros(limbs.shape[1:], np.uint64)
    for i, limb in enumerate(limbs):
        out += limb.view(np.uint64) << np.uint64(i * limb_bits)
    return out


def _products_into(a: Transformed, small: NDArray[np.int8], out: Words, noise: NDArray[np.int8]) -> None:
    """Write a_j s + e, row by row and vector by vector, for as many rows as out has."""
    if a.limb_bits != _ENCRYPT_LIMB:
        raise ValueError(f"products need limbs of {_ENCRYPT_LIMB} bits, not {a.limb_bits}")
    _assert_exact(a.limb_bits, 1)
    s = _forward(small.astype(np.float64))[:, None]
    step = max(1, _CHUNK // max(1, len(small) * _HALF))
    untwist = _twist().conj()
    for j in range(0, a.count, step):
        low, high = (np.fft.ifft(limb[None, j : j + step] * s) for limb in a.limbs)
        rows = slice(j * DEGREE, min(len(out), (j + step) * DEGREE))
        _finish(low, high, untwist, readable(noise[rows]), out[rows])


@compiled
def _finish(low: Complex, high: Complex, untwist: Complex, noise: NDArray[np.int8], out: Words) -> None:
    """Untwist, round and join two limbs, (V, J, N/2), and add the noise; tiles keep both orders in the cache."""
    vectors, count, half = low.shape
    n = out.shape[0]
    tile = 16
    for j in range(count):
        for start in range(0, half, tile):
            for v in range(vectors):
                for t in range(start, start + tile):
                    x = low[v, j, t] * untwist[t]
                    y = high[v, j, t] * untwist[t]
                    i = 2 * half * j + t
                    if i < n:
                        word = np.uint64(np.int64(np.rint(x.real)))
                        word += np.uint64(np.int64(np.rint(y.real))) << np.uint64(32)
                        out[i, v] = word + np.uint64(np.int64(noise[i, v]))
                    i += half
                    if i < n:
                        word = np.uint64(np.int64(np.rint(-x.imag)))
                        word += np.uint64(np.int64(np.rint(-y.imag))) << np.uint64(32)
                        out[i, v] = word + np.uint64(np.int64(noise[i, v]))


@compiled
def _histogram(codes: Codes, starts: Integers, b: Words, out: Words) -> None:
    """Add up blocks of rows that stay in the cache for all columns."""
    columns, n = codes.shape
    vectors = b.shape[1]
    for begin in range(0, n, 1024):
        end = min(n, begin + 1024)
        for f in range(columns):
            start = starts[f]
            for i in range(begin, end):
                k = codes[f, i]
                if k != 255:
                    at = start + k
                    for v in range(vectors):
                        out[at, v] += b[i, v]
