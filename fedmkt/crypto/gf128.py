"""The field GF(2^128): polynomials over GF(2) modulo X^128 + X^7 + X^2 + X + 1.

An element is two uint64 words, the lower first; bit i of the 128 is the coefficient of X^i. (GHASH of NIST
SP 800-38D has the same field with the bits of a block in reverse order.) A sum is an exclusive or. Many
elements are an array (n, 2). This module imports numba at once, like `aes`.
"""

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import readable
from fedmkt.crypto.aes import kernel, multiply

Words = NDArray[np.uint64]


@kernel
def product(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Call in a kernel: the product of the elements (a, b) and (c, d)."""
    l0, l1 = multiply(a, c)
    h0, h1 = multiply(b, d)
    m0, m1 = multiply(a ^ b, c ^ d)
    m0 ^= l0 ^ h0
    m1 ^= l1 ^ h1
    r0, r1 = _reduced(l0, l1 ^ m0, h0 ^ m1, h1)
    return r0, r1


@kernel
def _reduced(r0: np.uint64, r1: np.uint64, r2: np.uint64, r3: np.uint64) -> tuple[np.uint64, np.uint64]:
    # X^128 = X^7 + X^2 + X + 1: the upper words are folded down, the highest first.
    one, two, seven = np.uint64(1), np.uint64(2), np.uint64(7)
    r2 ^= r3 >> np.uint64(63) ^ r3 >> np.uint64(62) ^ r3 >> np.uint64(57)
    r1 ^= r3 ^ r3 << one ^ r3 << two ^ r3 << seven
    r1 ^= r2 >> np.uint64(63) ^ r2 >> np.uint64(62) ^ r2 >> np.uint64(57)
    r0 ^= r2 ^ r2 << one ^ r2 << two ^ r2 << seven
    return r0, r1


@kernel
def _add_products(target: Words, values: Words, low: np.uint64, high: np.uint64) -> None:
    for i in range(0, values.size, 2):
        a, b = product(values[i], values[i + 1], low, high)
        target[i] ^= a
        target[i + 1] ^= b


def add_products(target: Words, values: Words, factor: Words) -> None:
    """Add values (n, 2) times factor (2,) to target (n, 2), in place."""
    if target.shape != values.shape or not target.flags.c_contiguous or factor.shape != (2,):
        raise ValueError(f"cannot add {values.shape} times {factor.shape} to {target.shape}")
    _add_products(target.reshape(-1), readable(values).reshape(-1), factor[0], factor[1])


def multiply_all(values: Words, factor: Words) -> Words:
    """Return values (n, 2) times factor (2,)."""
    out = np.zeros(values.shape, dtype=np.uint64)
    add_products(out, values, factor)
    return out


@kernel
def _combine(rows: Words, factors: Words, out: Words) -> None:
    width = factors.size
    for k in range(out.size // 2):
        a, b = np.uint64(0), np.uint64(0)
        for i in range(0, width, 2):
            c, d = product(rows[width * k + i], rows[width * k + i + 1], factors[i], factors[i + 1])
            a ^= c
            b ^= d
        out[2 * k] = a
        out[2 * k + 1] = b


def combine(rows: Words, factors: Words) -> Words:
    """Return the sum of rows[:, i] factors[i], (k, 2), for rows (k, n, 2) and factors (n, 2)."""
    if rows.ndim != 3 or rows.shape[1:] != factors.shape or factors.shape[1] != 2:
        raise ValueError(f"cannot combine {rows.shape} by {factors.shape}")
    out = np.empty((len(rows), 2), dtype=np.uint64)
    _combine(readable(rows).reshape(-1), readable(factors).reshape(-1), out.reshape(-1))
    return out


def weighted_sum(terms: Words) -> Words:
    """Return the sum of X^j terms[j] for terms (k, n, 2): packs the k = 128 bit positions of n elements."""
    total = np.zeros(terms.shape[1:], dtype=np.uint64)
    for term in terms[::-1]:
        carry = total >> np.uint64(63)
        total <<= np.uint64(1)
        total[:, 1] |= carry[:, 0]
        total[:, 0] ^= carry[:, 1] * np.uint64(0x87)
        total ^= term
    return total
