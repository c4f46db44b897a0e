"""The fused products against numpy and against Python's own integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmkt.ring import kernels
from fedmkt.ring.kernels import gram, matmul, matvec, matvec_transposed

KINDS = (np.uint64, np.int32)


def draw(rng: np.random.Generator, dtype: type, *shape: int) -> NDArray[np.generic]:
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, size=shape, dtype=dtype, endpoint=True)
    if values.size:
        values.flat[0] = limits.max
        values.flat[-1] = limits.min
    return values


def exact(array: NDArray[np.generic]) -> NDArray[np.object_]:
    return array.astype(object)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 13), st.integers(0, 11), st.integers(0, 9), st.integers(0, 2**32), st.data())
def test_every_product_equals_exact_integers_modulo_2_to_the_64(
    n: int, a: int, b: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    left = draw(rng, data.draw(st.sampled_from(KINDS)), n, a)
    right = draw(rng, data.draw(st.sampled_from(KINDS)), n, b)
    v, r = draw(rng, np.uint64, a), draw(rng, np.uint64, n)
    word_left, word_right = draw(rng, np.uint64, n, a), draw(rng, np.uint64, a, b)
    ring = 2**64
    for got, plain, want in (
        (matvec(left, v), kernels.plain_matvec(left, v), exact(left) @ exact(v) % ring),
        (
            matvec_transposed(left, r),
            kernels.plain_matvec_transposed(left, r),
            exact(left).T @ exact(r) % ring,
        ),
        (gram(left, right), kernels.plain_gram(left, right), exact(left).T @ exact(right) % ring),
        (
            matmul(word_left, word_right),
            kernels.plain_matmul(word_left, word_right),
            exact(word_left) @ exact(word_right) % ring,
        ),
    ):
        assert got.dtype == np.uint64
        assert got.tobytes() == plain.tobytes()
        assert got.shape == want.shape
        assert np.array_equal(exact(got), want)


@pytest.mark.parametrize("dtype", KINDS)
def test_large_products_equal_the_plain_ones_byte_for_byte(dtype: type) -> None:
    rng = np.random.default_rng(3)
    matrix, other = draw(rng, dtype, 4099, 53), draw(rng, np.uint64, 4099, 37)
    v, r = draw(rng, np.uint64, 53), draw(rng, np.uint64, 4099)
    assert matvec(matrix, v).tobytes() == kernels.plain_matvec(matrix, v).tobytes()
    assert matvec_transposed(matrix, r).tobytes() == kernels.plain_matvec_transposed(matrix, r).tobytes()
    assert gram(matrix, other).tobytes() == kernels.plain_gram(matrix, other).tobytes()
    assert gram(other, matrix).tobytes() == kernels.plain_gram(other, matrix).tobytes()


def test_sums_over_row_blocks_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(4)
    matrix, r = draw(rng, np.int32, 1000, 7), draw(rng, np.uint64, 1000)
    parts = [slice(0, 333), slice(333, 998), slice(998, 1000)]
    gram_sum, sums = np.zeros((7, 7), np.uint64), np.zeros(7, np.uint64)
    for part in parts:
        gram_sum += gram(matrix[part], matrix[part])
        sums += matvec_transposed(matrix[part], r[part])
    assert np.array_equal(gram_sum, gram(matrix, matrix))
    assert np.array_equal(sums, matvec_transposed(matrix, r))


def test_arrays_that_come_out_of_a_message_give_the_same_bytes() -> None:
    rng = np.random.default_rng(5)
    matrix, v = draw(rng, np.uint64, 20, 6), draw(rng, np.uint64, 6)
    odd = np.frombuffer(b"x" + matrix.tobytes(), dtype=np.uint8)[1:].view(np.uint64).reshape(20, 6)
    assert not odd.flags.writeable
    assert not odd.flags.aligned
    want = matvec(matrix, v)
    assert np.array_equal(matvec(odd, v), want)
    assert np.array_equal(matvec(np.asfortranarray(matrix), v), want)
    assert np.array_equal(matvec(matrix[:, ::-1], v[::-1]), want)


def test_inputs_are_left_as_they_were() -> None:
    rng = np.random.default_rng(6)
    matrix, v = draw(rng, np.uint64, 20, 6), draw(rng, np.uint64, 6)
    before = matrix.tobytes(), v.tobytes()
    matvec(matrix, v)
    gram(matrix, matrix)
    assert (matrix.tobytes(), v.tobytes()) == before
    assert matrix.flags.writeable


def test_products_refuse_wrong_shapes_and_types() -> None:
    matrix, v = np.ones((4, 3), np.uint64), np.ones(3, np.uint64)
    with pytest.raises(ValueError, match="expected 3 words"):
        matvec(matrix, np.ones(4, np.uint64))
    with pytest.raises(ValueError, match="expected 4 words"):
        matvec_transposed(matrix, v)
    with pytest.raises(ValueError, match="expected 3 words"):
        matvec(matrix, np.ones((3, 1), np.uint64))
    with pytest.raises(ValueError, match="expected 3 words"):
        matvec(matrix, v.astype(np.int64))
    for bad in (matrix.astype(np.float64), matrix.astype(np.int64), matrix.astype(">u8"), matrix[0]):
        with pytest.raises(ValueError, match="2-d uint64 or int32"):
            matvec(bad, v)
        with pytest.raises(ValueError, match="2-d uint64 or int32"):
            gram(matrix, bad)
    with pytest.raises(ValueError, match="no common rows"):
        gram(matrix, matrix[:3])
    with pytest.raises(ValueError, match="cannot multiply"):
        matmul(matrix, matrix)
    with pytest.raises(ValueError, match="cannot multiply"):
        matmul(matrix, np.ones((3, 3), np.int32))
