"""One-round rounding: all inputs of a 10-bit ring, and a plain oracle at 64 and 32 bits.

A 10-bit ring sits inside the 64-bit one: with x and R multiplied by 2^54 and the shift raised by 54, every
quantity of the formula is the 10-bit one (by 22 for the ring of 32 bits). So the product's own code is tested
over all x and R.
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmkt.ring import rounding
from fedmkt.ring.fixed import Words, reconstruct, share_out
from fedmkt.ring.rounding import DealtRounding

PARTIES = pytest.mark.parametrize("k", [2, 3])
WIDTH = 10
LIMIT = 1 << (WIDTH - 2)
ALL = np.arange(1 << WIDTH)
Ring = Callable[[int, int], NDArray[np.int64]]


def oracle(x: int, mask: int, shift: int, width: int) -> int:
    """Apply the formula of protocols.md section 2 in Python's integers; an ordinary integer, not reduced."""
    c = (x + (1 << (width - 2)) + mask) % (1 << width)
    wrapped = (mask >> (width - 1)) * (1 - (c >> (width - 1)))
    return (c >> shift) - (mask >> shift) + wrapped * (1 << (width - shift)) - (1 << (width - 2 - shift))


def small_ring(x: int, shift: int) -> NDArray[np.int64]:
    """Round x with every R of the 10-bit ring, by the 64-bit code."""
    up = np.uint64(64 - WIDTH)
    mask = ALL.astype(np.uint64) << up
    value = np.full(ALL.size, np.int64(x)).view(np.uint64) << up
    opened = rounding.prepare(value, mask, first=True)
    dealt = rounding.deal(mask, shift + int(up))
    return rounding.finish(opened, dealt, shift + int(up), first=True).view(np.int64)


def small_ring_lifted(x: int, shift: int) -> NDArray[np.int64]:
    """Round x with every R of the 10-bit ring, by the 32-bit code."""
    up = np.uint32(32 - WIDTH)
    mask = ALL.astype(np.uint32) << up
    value = np.full(ALL.size, np.int32(x)).view(np.uint32) << up
    opened = rounding.prepare_lift(value, mask, first=True)
    dealt = rounding.deal_lift(mask, shift + int(up))
    return rounding.finish_lift(opened, dealt, shift + int(up), first=True).view(np.int64)


SMALL_RINGS = pytest.mark.parametrize("ring", [small_ring, small_ring_lifted])


@SMALL_RINGS
@pytest.mark.parametrize("shift", range(WIDTH - 1))
def test_in_range_the_result_is_floor_or_one_more_and_unbiased(ring: Ring, shift: int) -> None:
    for x in range(-LIMIT, LIMIT):
        result = ring(x, shift)
        assert set(np.unique(result - (x >> shift))) <= {0, 1}
        assert int(result.sum()) << shift == x << WIDTH


@SMALL_RINGS
@pytest.mark.parametrize("distance", [1, 5, 60])
def test_out_of_range_it_fails_as_often_as_the_formula_says(ring: Ring, distance: int) -> None:
    shift = 3
    for x in (LIMIT + distance, -LIMIT - distance):
        error = ring(x, shift) - (x >> shift)
        wrong = ~np.isin(error, (0, 1))
        assert wrong.sum() == 2 * distance
        assert np.all(np.isin(np.abs(error[wrong]) - (1 << (WIDTH - shift)), (-1, 0, 1)))


def test_the_oracle_agrees_in_the_small_ring() -> None:
    for x in range(-LIMIT, LIMIT):
        assert [oracle(x, mask, 4, WIDTH) for mask in range(1 << WIDTH)] == list(small_ring(x, 4))


def test_the_opening_is_uniform_whatever_x_is() -> None:
    mask = ALL.astype(np.uint64) << np.uint64(54)
    for x in (-LIMIT, -1, 0, 7, LIMIT - 1):
        value = np.full(ALL.size, np.int64(x)).view(np.uint64) << np.uint64(54)
        assert np.unique(rounding.prepare(value, mask, first=True)).size == ALL.size


def share_dealt(rng: np.random.Generator, dealt: DealtRounding, k: int) -> list[DealtRounding]:
    def split(values: Words) -> list[Words]:
        masks = [rng.integers(0, 2**64, size=values.shape, dtype=np.uint64) for _ in range(k - 1)]
        return share_out(values, k, masks)

    return [DealtRounding(high, top) for high, top in zip(split(dealt.high), split(dealt.top), strict=True)]


@PARTIES
@given(
    rows=st.lists(st.tuples(st.integers(-(2**62), 2**62 - 1), st.integers(0, 2**64 - 1)), min_size=1),
    shift=st.integers(0, 62),
    seed=st.integers(0, 2**32),
)
def test_parties_get_shares_of_the_oracle_s_value(
    k: int, rows: list[tuple[int, int]], shift: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = np.array([x for x, _ in rows], dtype=np.int64).view(np.uint64)
    mask = np.array([mask for _, mask in rows], dtype=np.uint64)
    x_shares, mask_shares = (
        share_out(v, k, [rng.integers(0, 2**64, size=v.shape, dtype=np.uint64) for _ in range(k - 1)])
        for v in (x, mask)
    )
    opened = reconstruct([rounding.prepare(x_shares[i], mask_shares[i], first=i == k - 1) for i in range(k)])
    dealt = share_dealt(rng, rounding.deal(mask, shift), k)
    result = reconstruct([rounding.finish(opened, dealt[i], shift, first=i == 1) for i in range(k)])
    assert [int(v) for v in result] == [oracle(x, mask, shift, 64) % 2**64 for x, mask in rows]
    assert all(int(v) - (x >> shift) in (0, 1) for v, (x, _) in zip(result.view(np.int64), rows, strict=True))


@PARTIES
@given(
    rows=st.lists(st.tuples(st.integers(-(2**30), 2**30 - 1), st.integers(0, 2**32 - 1)), min_size=1),
    shift=st.integers(0, 30),
    seed=st.integers(0, 2**32),
)
def test_the_32_bit_version_lifts_to_shares_modulo_2_to_the_64(
    k: int, rows: list[tuple[int, int]], shift: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = np.array([x for x, _ in rows], dtype=np.int32).view(np.uint32)
    mask = np.array([mask for _, mask in rows], dtype=np.uint32)
    x_shares, mask_shares = (
        share_out(v, k, [rng.integers(0, 2**32, size=v.shape, dtype=np.uint32) for _ in range(k - 1)])
        for v in (x, mask)
    )
    opened = reconstruct(
        [rounding.prepare_lift(x_shares[i], mask_shares[i], first=i == k - 1) for i in range(k)]
    )
    assert opened.dtype == np.uint32
    dealt = share_dealt(rng, rounding.deal_lift(mask, shift), k)
    result = reconstruct([rounding.finish_lift(opened, dealt[i], shift, first=i == 1) for i in range(k)])
    assert [int(v) for v in result] == [oracle(x, mask, shift, 32) % 2**64 for x, mask in rows]
    assert all(int(v) - (x >> shift) in (0, 1) for v, (x, _) in zip(result.view(np.int64), rows, strict=True))


def test_the_first_step_of_the_sketch_would_have_been_wrong_six_times_in_ten() -> None:
    """redteam.md 2.5: |x| = 2^63.14, rounded without a bound, fails with probability 0.6."""
    rng = np.random.default_rng(1)
    n, shift = 20_000, 20
    x = int(2**63.14)
    mask = rng.integers(0, 2**64, size=n, dtype=np.uint64)
    opened = rounding.prepare(np.full(n, x % 2**64, dtype=np.uint64), mask, first=True)
    result = rounding.finish(opened, rounding.deal(mask, shift), shift, first=True)
    right = np.isin(result - np.uint64((x >> shift) % 2**64), (0, 1))
    # x lies beyond 2^63 too, so the ring knows it as x - 2^64, and only the wrap error brings x back.
    alias = np.isin(result - np.uint64(((x - 2**64) >> shift) % 2**64), (0, 1))
    assert np.all(right ^ alias)
    distance = (2**64 - x) - 2**62
    assert abs(right.mean() - 2 * distance / 2**64) < 0.02
    assert 0.58 < alias.mean() < 0.62


def test_rounding_refuses_wrong_shifts_shapes_and_types() -> None:
    words, halves = np.zeros(3, np.uint64), np.zeros(3, np.uint32)
    for shift in (-1, 63):
        with pytest.raises(ValueError, match=r"0\.\.62"):
            rounding.deal(words, shift)
    for shift in (-1, 31):
        with pytest.raises(ValueError, match=r"0\.\.30"):
            rounding.deal_lift(halves, shift)
    for x, mask in ((words, words[:1]), (halves, words), (words, halves)):
        with pytest.raises(ValueError, match="one shape"):
            rounding.prepare(x, mask, first=True)
        with pytest.raises(ValueError, match="one shape"):
            rounding.prepare_lift(x, mask, first=True)
