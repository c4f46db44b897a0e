"""Packed numbers against their totals one by one, at the ends of their ranges and as shares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.ring.fields import (
    Field,
    Packing,
    gradient_fields,
    pack_fields,
    signed,
    take_apart,
)

FIELDS = st.builds(Field, st.integers(-40, -1), st.integers(0, 40)) | st.builds(
    Field, st.just(0), st.integers(1, 40)
)


@given(st.lists(FIELDS, min_size=1, max_size=4), st.integers(1, 300), st.integers(0, 2**32))
def test_totals_of_packed_numbers_come_apart_into_the_plain_totals(fields, rows, seed) -> None:
    random, packing = np.random.default_rng(seed), Packing(tuple(fields), rows)
    columns = [random.integers(f.low, f.high + 1, rows) for f in fields]
    total = pack_fields(packing, columns).sum()
    # A total that wrapped, as a decoded one may, is as good.
    for known in (int(total), int(total) % 2**packing.bits, int(total) - 2**packing.bits):
        if -(2**63) <= known < 2**63:
            got = take_apart(packing, np.array([known]))
            assert got.tolist() == [[int(c.sum()) for c in columns]]


@pytest.mark.parametrize("rows", [1, 1000, 10**6])
@pytest.mark.parametrize("at", [0, 1])
def test_the_largest_totals_do_not_touch_each_other(rows: int, at: int) -> None:
    packing = Packing(gradient_fields(4, 5), rows)
    g, h = packing.fields
    for x, y in ((g.low, h.low), (g.low, h.high), (g.high, h.low), (g.high, h.high)):
        one = int(pack_fields(packing, [np.array([x]), np.array([y])])[0])
        assert packing.range[0] <= one <= packing.range[1]
        assert take_apart(packing, np.array([one * rows]))[0, at] == rows * (x, y)[at]


@given(st.integers(1, 10**8), st.integers(1, 2**16))
def test_the_bits_hold_every_total_and_not_more_than_needed(rows: int, limit: int) -> None:
    packing = Packing(signed(limit), rows)
    assert 2 ** (packing.bits - 1) < 2 * rows * limit + 1 <= 2**packing.bits
    assert packing.radices == (1,)
    both = Packing(gradient_fields(3, 3), rows)
    assert 2 ** (both.bits - 1) < (8 * rows + 1) ** 2 <= 2**both.bits


def test_what_cannot_be_packed_is_a_mistake() -> None:
    for act in (
        lambda: Field(1, 5),
        lambda: Field(-5, -1),
        lambda: Field(0, 0),
        lambda: Packing((), 5),
        lambda: Packing(signed(1), 0),
        lambda: pack_fields(Packing(signed(2**40), 2**30), [np.zeros(1, np.int64)]),
        lambda: take_apart(Packing(signed(2**40), 2**30), np.zeros(1, np.int64)),
        lambda: pack_fields(Packing(gradient_fields(4, 4), 9), [np.zeros(1, np.int64)]),
    ):
        with pytest.raises(ValueError):
            act()
