"""Products with a private matrix whose mask is opened once, and products of shared matrices.

For p's private X_p : (n, d_p), the dealer and p know a uniform U_p, and everybody else knows E_p = X_p - U_p.
To compute [X_p w] for a shared w, every q != p opens w^q - v^q to p, with v^q fresh for this one product:

    p      X_p (w^p + sum over q of (w^q - v^q))   + its dealt share
    each q E_p v^q                                 + its dealt share
    dealer shares U_p (sum over q of v^q)

The terms add up to X_p w exactly modulo 2^64. X_pᵀ r goes the same way. Everything here is one
participant's own arithmetic; the parts returned do not yet contain the dealt share. Semi-honest parties;
the dealer outside. Source: Beaver 1991, with the mask of the private factor opened once for all products.
"""

from collections.abc import Sequence

import numpy as np

from fedmkt.ring.fixed import Words, correction
from fedmkt.ring.kernels import Matrix, gram, matmul, matvec, matvec_transposed


def mask_matrix(matrix: Matrix, mask: Words, out: Words | None = None) -> Words:
    """Compute E = X - U: matrix (n, d) int32 or uint64, mask (n, d) uint64; returns (n, d) uint64.

    The result is written to `out` if given, which may be the mask itself where U is not needed any more.
    """
    if matrix.shape != mask.shape or mask.dtype != np.uint64 or matrix.dtype not in (np.int32, np.uint64):
        raise ValueError(f"cannot mask {matrix.shape} {matrix.dtype} by {mask.shape} {mask.dtype}")
    # "unsafe" lets numpy widen int32 with its sign in small buffers: no temporary of the size of the matrix.
    return np.subtract(matrix, mask, out=out, dtype=np.uint64, casting="unsafe")


def owner_part(matrix: Matrix, own_share: Words, openings: Sequence[Words]) -> Words:
    """Compute p's term of X w, (n,) uint64: X (n, d), p's share of w (d,), the openings w^q - v^q (d,)."""
    return matvec(matrix, _sum([own_share, *openings]))


def other_part(masked: Words, v: Words) -> Words:
    """Compute q's term of X_p w: E_p (n, d) uint64, q's own v (d,) uint64; returns (n,) uint64."""
    return matvec(masked, v)


def dealer_correction(mask: Words, vs: Sequence[Words], others: Sequence[Words]) -> Words:
    """Compute the dealt share of U_p sum(v^q) that is sent, given the other parties' shares from seeds.

    mask : U_p (n, d) uint64; vs : one (d,) uint64 for each q != p; others : (n,) uint64 each, for all
    parties but the reader. Returns (n,) uint64.
    """
    return correction(matvec(mask, _sum(vs)), others)


def owner_part_transposed(matrix: Matrix, own_share: Words, openings: Sequence[Words]) -> Words:
    """Compute p's term of Xᵀ r, (d,) uint64: X (n, d), p's share of r (n,), the openings r^q - v^q (n,)."""
    return matvec_transposed(matrix, _sum([own_share, *openings]))


def other_part_transposed(masked: Words, v: Words) -> Words:
    """Compute q's term of X_pᵀ r: E_p (n, d) uint64, q's own v (n,) uint64; returns (d,) uint64."""
    return matvec_transposed(masked, v)


def dealer_correction_transposed(mask: Words, vs: Sequence[Words], others: Sequence[Words]) -> Words:
    """Compute the dealt share of U_pᵀ sum(v^q) to send, (d,) uint64: U_p (n, d), v^q (n,), others (d,)."""
    return correction(matvec_transposed(mask, _sum(vs)), others)


def gram_first(mask: Words, masked_other: Words) -> Words:
    """Compute p's term of X_pᵀ X_q: its own U_p (n, d_p) and q's E_q (n, d_q); returns (d_p, d_q) uint64."""
    return gram(mask, masked_other)


def gram_second(masked_other: Words, matrix: Matrix) -> Words:
    """Compute q's term of X_pᵀ X_q: p's E_p (n, d_p) and its own X_q (n, d_q); returns (d_p, d_q) uint64."""
    return gram(masked_other, matrix)


def gram_correction(mask_p: Words, mask_q: Words, others: Sequence[Words]) -> Words:
    """Compute the dealt share of U_pᵀ U_q to send, (d_p, d_q) uint64, given the other parties' shares."""
    return correction(gram(mask_p, mask_q), others)


def product_share(d: Words, f: Words, a: Words, b: Words, c: Words, *, first: bool) -> Words:
    """Compute one party's share of X Y for shared X : (l, m) and Y : (m, r), all uint64.

    d : opened X - A, (l, m); f : opened Y - B, (m, r); a, b, c : this party's shares of A, B and C = A B.
    Exactly one party passes first=True: it adds the public term D F.
    """
    right = _sum([f, b]) if first else b
    return _sum([matmul(d, right), matmul(a, f), c])


def product_correction(a: Words, b: Words, others: Sequence[Words]) -> Words:
    """Compute the dealt share of C = A B that is sent, (l, r) uint64: A (l, m), B (m, r), others (l, r)."""
    return correction(matmul(a, b), others)


def _sum(terms: Sequence[Words]) -> Words:
    """Add terms of equal shape; refuses what numpy would broadcast."""
    if not terms:
        raise ValueError("a masked product needs at least one term")
    total = terms[0].copy()
    for term in terms[1:]:
        if term.shape != total.shape or term.dtype != np.uint64:
            raise ValueError(f"expected {total.shape} of uint64, got {term.shape} of {term.dtype}")
        total += term
    return total
