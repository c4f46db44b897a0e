"""Products of integer matrices modulo 2^64, as fast as memory delivers them.

A matrix is uint64 (masks, masked data) or int32 (a party's own coded columns: half the memory, widened with
its sign while it is read). Vectors are uint64. Sums and products wrap around. Every function has a `plain_`
twin in numpy that returns the same bytes. Integer arithmetic only: the same bytes on every machine.

The kernels compile at their first call and are then read from numba's cache; `compile_all` does it ahead.
"""

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import compiled, readable
from fedmkt.ring.fixed import Words

Matrix = NDArray[np.uint64] | NDArray[np.int32]
"""An (n, d) matrix over the ring, as words or as signed 32-bit integers."""


def matvec(matrix: Matrix, vector: Words) -> Words:
    """Multiply: matrix (n, d) uint64 or int32, vector (d,) uint64; returns (n,) uint64, scales multiplied."""
    _check(matrix)
    _check_words(vector, matrix.shape[1])
    out = np.empty(matrix.shape[0], dtype=np.uint64)
    _matvec(readable(matrix), readable(vector), out)
    return out


def matvec_transposed(matrix: Matrix, vector: Words) -> Words:
    """Multiply by the transpose: matrix (n, d) uint64 or int32, vector (n,) uint64; returns (d,) uint64."""
    _check(matrix)
    _check_words(vector, matrix.shape[0])
    out = np.zeros(matrix.shape[1], dtype=np.uint64)
    _matvec_transposed(readable(matrix), readable(vector), out)
    return out


def gram(left: Matrix, right: Matrix) -> Words:
    """Compute leftᵀ right: (n, a) and (n, b), each uint64 or int32; returns (a, b) uint64.

    Sums over blocks of rows may be added up modulo 2^64 by the caller.
    """
    _check(left)
    _check(right)
    if left.shape[0] != right.shape[0]:
        raise ValueError(f"matrices of {left.shape[0]} and {right.shape[0]} rows have no common rows")
    out = np.zeros((left.shape[1], right.shape[1]), dtype=np.uint64)
    _gram(readable(left), readable(right), out)
    return out


def matmul(left: Words, right: Words) -> Words:
    """Multiply (a, b) by (b, c), both uint64; returns (a, c) uint64."""
    _check(left)
    _check(right)
    if left.dtype != np.uint64 or right.dtype != np.uint64 or left.shape[1] != right.shape[0]:
        raise ValueError(f"cannot multiply {left.shape} {left.dtype} by {right.shape} {right.dtype}")
    out = np.zeros((left.shape[0], right.shape[1]), dtype=np.uint64)
    _matmul(readable(left), readable(right), out)
    return out


def plain_matvec(matrix: Matrix, vector: Words) -> Words:
    """Return what `matvec` returns, by numpy alone."""
    return widen(matrix) @ vector


def plain_matvec_transposed(matrix: Matrix, vector: Words) -> Words:
    """Return what `matvec_transposed` returns, by numpy alone."""
    return widen(matrix).T @ vector


def plain_gram(left: Matrix, right: Matrix) -> Words:
    """Return what `gram` returns, by numpy alone."""
    return widen(left).T @ widen(right)


def plain_matmul(left: Words, right: Words) -> Words:
    """Return what `matmul` returns, by numpy alone."""
    return left @ right


def widen(matrix: Matrix) -> Words:
    """Convert int32 to words with its sign; words are returned as they are."""
    if matrix.dtype == np.int32:
        return matrix.astype(np.int64).view(np.uint64)
    return matrix.view(np.uint64)


def compile_all() -> None:
    """Compile, or read from the cache, every kernel for all types (4 s once, then 0.3 s)."""
    vector = np.ones(2, dtype=np.uint64)
    wide, narrow = np.ones((2, 2), dtype=np.uint64), np.ones((2, 2), dtype=np.int32)
    for matrix in (wide, narrow):
        matvec(matrix, vector)
        matvec_transposed(matrix, vector)
        for other in (wide, narrow):
            gram(matrix, other)
    matmul(wide, wide)


def _check(matrix: Matrix) -> None:
    if matrix.dtype not in (np.uint64, np.int32) or matrix.ndim != 2:
        raise ValueError(f"a ring matrix is 2-d uint64 or int32, got {matrix.ndim}-d {matrix.dtype}")


def _check_words(vector: Words, length: int) -> None:
    if vector.dtype != np.uint64 or vector.shape != (length,):
        raise ValueError(f"expected {length} words of uint64, got {vector.shape} of {vector.dtype}")


@compiled
def _matvec(matrix: Matrix, vector: Words, out: Words) -> None:
    n, d = matrix.shape
    for i in range(n):
        total = np.uint64(0)
        for j in range(d):
            total += np.uint64(matrix[i, j]) * vector[j]
        out[i] = total


@compiled
def _matvec_transposed(matrix: Matrix, vector: Words, out: Words) -> None:
    n, d = matrix.shape
    whole = n - n % 4
    # Four rows at a time: the sums are loaded and stored once for four products.
    for i in range(0, whole, 4):
        r0, r1, r2, r3 = vector[i], vector[i + 1], vector[i + 2], vector[i + 3]
        for j in range(d):
            out[j] += (
                np.uint64(matrix[i, j]) * r0
                + np.uint64(matrix[i + 1, j]) * r1
                + np.uint64(matrix[i + 2, j]) * r2
                + np.uint64(matrix[i + 3, j]) * r3
            )
    for i in range(whole, n):
        r = vector[i]
        for j in range(d):
            out[j] += np.uint64(matrix[i, j]) * r


@compiled
def _gram(left: Matrix, right: Matrix, out: Words) -> None:
    n, a = left.shape
    b = right.shape[1]
    whole = n - n % 4
    for i in range(0, whole, 4):
        for p in range(a):
            x0, x1 = np.uint64(left[i, p]), np.uint64(left[i + 1, p])
            x2, x3 = np.uint64(left[i + 2, p]), np.uint64(left[i + 3, p])
            for q in range(b):
                out[p, q] += (
                    x0 * np.uint64(right[i, q])
                    + x1 * np.uint64(right[i + 1, q])
                    + x2 * np.uint64(right[i + 2, q])
                    + x3 * np.uint64(right[i + 3, q])
                )
    for i in range(whole, n):
        for p in range(a):
            x = np.uint64(left[i, p])
            for q in range(b):
                out[p, q] += x * np.uint64(right[i, q])


@compiled
def _matmul(left: Words, right: Words, out: Words) -> None:
    a, b = left.shape
    c = right.shape[1]
    for i in range(a):
        for p in range(b):
            x = left[i, p]
            for j in range(c):
                out[i, j] += x * right[p, j]
