"""Masked products among two and three parties, against exact integers."""

import numpy as np
import pytest

from fedmkt.ring import product
from fedmkt.ring.fixed import Words, encode32, reconstruct, share_out

PARTIES = pytest.mark.parametrize("k", [2, 3])


def uniform(rng: np.random.Generator, *shape: int) -> Words:
    return rng.integers(0, 2**64, size=shape, dtype=np.uint64)


def shared(rng: np.random.Generator, values: Words, k: int) -> list[Words]:
    return share_out(values, k, [uniform(rng, *values.shape) for _ in range(k - 1)])


@PARTIES
@pytest.mark.parametrize("owner", [0, 1])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_terms_of_a_masked_product_add_up_to_the_product(k: int, owner: int, transposed: bool) -> None:
    rng = np.random.default_rng(10 * k + owner)
    n, d = 301, 9
    matrix = encode32(rng.standard_normal((n, d)), 16)
    mask = uniform(rng, n, d)
    masked = product.mask_matrix(matrix, mask)
    vector = uniform(rng, n if transposed else d)
    length = d if transposed else n
    shares = shared(rng, vector, k)
    vs = {q: uniform(rng, vector.size) for q in range(k) if q != owner}
    openings = [shares[q] - vs[q] for q in vs]
    others = [uniform(rng, length) for _ in range(k - 1)]
    if transposed:
        parts = {owner: product.owner_part_transposed(matrix, shares[owner], openings)}
        parts |= {q: product.other_part_transposed(masked, vs[q]) for q in vs}
        last = product.dealer_correction_transposed(mask, list(vs.values()), others)
        want = matrix.T.astype(object) @ vector.astype(object) % 2**64
    else:
        parts = {owner: product.owner_part(matrix, shares[owner], openings)}
        parts |= {q: product.other_part(masked, vs[q]) for q in vs}
        last = product.dealer_correction(mask, list(vs.values()), others)
        want = matrix.astype(object) @ vector.astype(object) % 2**64
    total = reconstruct([*parts.values(), *others, last])
    assert np.array_equal(total.astype(object), want)


@pytest.mark.parametrize("dtype", [np.int32, np.uint64])
def test_masking_widens_with_the_sign_and_may_overwrite_the_mask(dtype: type) -> None:
    rng = np.random.default_rng(1)
    matrix = np.array([[-1, 5], [2**31 - 1, -(2**31)]]).astype(dtype)
    mask = uniform(rng, 2, 2)
    want = (matrix.astype(object) - mask.astype(object)) % 2**64
    assert np.array_equal(product.mask_matrix(matrix, mask).astype(object), want)
    assert product.mask_matrix(matrix, mask, out=mask) is mask
    assert np.array_equal(mask.astype(object), want)


@PARTIES
def test_two_owners_and_the_dealer_get_shares_of_the_gram_block(k: int) -> None:
    rng = np.random.default_rng(k)
    x_p = encode32(rng.standard_normal((200, 6)), 16)
    x_q = encode32(rng.standard_normal((200, 4)), 16)
    u_p, u_q = uniform(rng, 200, 6), uniform(rng, 200, 4)
    e_p, e_q = product.mask_matrix(x_p, u_p), product.mask_matrix(x_q, u_q)
    others = [uniform(rng, 6, 4) for _ in range(k - 1)]
    total = reconstruct(
        [
            product.gram_first(u_p, e_q),
            product.gram_second(e_p, x_q),
            *others,
            product.gram_correction(u_p, u_q, others),
        ]
    )
    assert np.array_equal(total.astype(object), x_p.T.astype(object) @ x_q.astype(object) % 2**64)


@PARTIES
@pytest.mark.parametrize("shape", [(5, 7, 3), (4, 4, 4), (6, 2, 1)])
def test_shares_of_two_matrices_give_shares_of_their_product(k: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    left, inner, right = shape
    x, y = uniform(rng, left, inner), uniform(rng, inner, right)
    a, b = uniform(rng, left, inner), uniform(rng, inner, right)
    c_others = [uniform(rng, left, right) for _ in range(k - 1)]
    c_shares = [*c_others, product.product_correction(a, b, c_others)]
    a_shares, b_shares = shared(rng, a, k), shared(rng, b, k)
    d = reconstruct([s - t for s, t in zip(shared(rng, x, k), a_shares, strict=True)])
    f = reconstruct([s - t for s, t in zip(shared(rng, y, k), b_shares, strict=True)])
    parts = [
        product.product_share(d, f, a_shares[i], b_shares[i], c_shares[i], first=i == 0) for i in range(k)
    ]
    assert np.array_equal(reconstruct(parts).astype(object), x.astype(object) @ y.astype(object) % 2**64)


def test_a_second_matrix_under_the_same_mask_shows_the_difference() -> None:
    """The reason why U_p belongs to one X_p (redteam.md section 0): E - E' is X - X'."""
    rng = np.random.default_rng(2)
    first, second = encode32(rng.standard_normal((2, 5, 3)), 16)
    mask = uniform(rng, 5, 3)
    seen = product.mask_matrix(first, mask) - product.mask_matrix(second, mask)
    assert np.array_equal(seen.view(np.int64), first.astype(np.int64) - second)


def test_products_refuse_what_numpy_would_broadcast() -> None:
    words = np.ones((4, 3), np.uint64)
    with pytest.raises(ValueError, match="cannot mask"):
        product.mask_matrix(words, words[:1])
    with pytest.raises(ValueError, match="cannot mask"):
        product.mask_matrix(words.astype(np.float64), words)
    with pytest.raises(ValueError, match="expected"):
        product.owner_part(words, words[0], [words[0, :1]])
    with pytest.raises(ValueError, match="at least one"):
        product.dealer_correction(words, [], [])
    with pytest.raises(ValueError, match="expected"):
        product.dealer_correction(words, [words[0]], [np.ones(1, np.uint64)])
    square, single = np.ones((4, 4), np.uint64), np.ones((1, 1), np.uint64)
    with pytest.raises(ValueError, match="expected"):
        product.product_share(words, words.T, words, words.T, single, first=True)
    with pytest.raises(ValueError, match="expected"):
        product.product_share(words, words.T, words, words.T[:, :1], square, first=True)
