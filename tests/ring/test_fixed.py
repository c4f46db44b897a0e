"""Fixed point and additive shares against Python's own integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.ring.fixed import correction, decode, encode, encode32, reconstruct, share_out

words = st.integers(0, 2**64 - 1)


@given(st.lists(st.floats(-(2.0**40), 2.0**40), min_size=1, max_size=20), st.integers(0, 20))
def test_encoding_rounds_half_to_even_in_twos_complement(values: list[float], bits: int) -> None:
    coded = encode(np.array(values), bits)
    assert coded.dtype == np.uint64
    assert [int(word) for word in coded] == [round(Fraction(v) * 2**bits) % 2**64 for v in values]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.integers(10, 40))
def test_decoding_returns_the_value_within_half_a_unit(values: list[float], bits: int) -> None:
    back = decode(encode(np.array(values), bits), bits)
    assert np.all(np.abs(back - values) <= 0.5 / 2**bits)


def test_the_narrow_code_equals_the_wide_one_over_many_blocks() -> None:
    values = np.random.default_rng(1).standard_normal((9000, 31))
    assert np.array_equal(encode32(values, 16).astype(np.int64), encode(values, 16).view(np.int64))
    assert np.array_equal(encode32(values.T, 16), encode32(values, 16).T)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**62, -(2.0**62), 1e300])
def test_encoding_refuses_what_does_not_fit_the_ring(bad: float) -> None:
    values = np.zeros(200_000)
    values[-1] = bad
    with pytest.raises(ValueError, match="not finite or reaches"):
        encode(values, 0)


@pytest.mark.parametrize("bad", [np.nan, 2.0**14, -(2.0**14)])
def test_the_narrow_code_refuses_what_does_not_fit_31_bits(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite or reaches"):
        encode32(np.array([[0.0, bad]]), 16)


def test_encoding_refuses_a_scale_outside_of_the_ring() -> None:
    for bits in (-1, 63):
        with pytest.raises(ValueError, match="bits"):
            encode(np.zeros(1), bits)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("dtype", [np.uint64, np.uint32])
def test_shares_add_up_to_the_value_and_the_masks_are_passed_on(k: int, dtype: type) -> None:
    rng = np.random.default_rng(k)
    top = np.iinfo(dtype).max
    values = rng.integers(0, top, size=(5, 4), dtype=dtype, endpoint=True)
    masks = [rng.integers(0, top, size=(5, 4), dtype=dtype, endpoint=True) for _ in range(k - 1)]
    before = [values.copy(), *(mask.copy() for mask in masks)]
    shares = share_out(values, k, masks)
    total = sum(share.astype(object) for share in shares) % (int(top) + 1)
    assert np.array_equal(total, values.astype(object))
    assert np.array_equal(reconstruct(shares), values)
    assert np.array_equal(shares[-1], correction(values, masks))
    for original, now in zip(before, [values, *masks], strict=True):
        assert np.array_equal(original, now)


def test_sharing_refuses_what_numpy_would_broadcast_or_convert() -> None:
    values = np.zeros(4, dtype=np.uint64)
    for bad in (
        np.zeros(1, np.uint64),
        np.zeros((4, 4), np.uint64),
        np.zeros(4, np.uint32),
        np.zeros(4, np.int64),
    ):
        with pytest.raises(ValueError, match=r"expected|share"):
            share_out(values, 2, [bad])
        with pytest.raises(ValueError, match=r"expected|share"):
            reconstruct([bad, values])
    for k, masks in ((2, []), (3, [values]), (1, [])):
        with pytest.raises(ValueError, match="masks"):
            share_out(values, k, masks)
    with pytest.raises(ValueError, match="no share"):
        reconstruct([])
