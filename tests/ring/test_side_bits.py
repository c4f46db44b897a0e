import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.ring.side_bits import (
    chosen,
    dealt_part,
    other_part,
    owner_part,
    pack,
    packed_words,
    signed,
    unpack,
)


def product(beta, u, x, v, others):
    """Play all three roles; `others` : the other party's share of u v. Returns the two shares of beta x."""
    c = beta ^ u
    dealt = chosen(u, v) - others
    owner = chosen(beta, x - v) + signed(c, dealt)
    other = chosen(c, v) + signed(c, others)
    return owner, other


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("shape", [(), (3,)])
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 70))
def test_shares_add_up_to_the_chosen_rows_exactly(dtype, shape, seed, n):
    random = np.random.default_rng(seed)
    beta, u = random.integers(0, 2, (2, n)).astype(bool)
    x, v, others = random.integers(0, np.iinfo(dtype).max, (3, n, *shape), dtype, endpoint=True)
    owner, other = product(beta, u, x, v, others)
    assert owner.dtype == other.dtype == dtype
    assert np.array_equal(owner + other, np.where(beta.reshape(-1, *(1 for _ in shape)), x, dtype(0)))


def test_the_formula_holds_for_every_value_of_a_small_ring():
    """All bits, values and masks modulo 2^4, in plain integers."""
    ring = 16
    for beta, u, x, v, s in itertools.product((0, 1), (0, 1), range(ring), range(ring), range(0, ring, 5)):
        c = beta ^ u
        owner = beta * (x - v) + (1 - 2 * c) * (u * v - s)
        other = c * v + (1 - 2 * c) * s
        assert (owner + other - beta * x) % ring == 0


def test_what_each_side_sees_does_not_depend_on_bits_or_values():
    """Over all masks, c and x - v take every value equally often, whatever beta and x are."""
    ring = 16
    for beta, x in itertools.product((0, 1), range(ring)):
        assert sorted(beta ^ u for u in (0, 1)) == [0, 1]
        assert sorted((x - v) % ring for v in range(ring)) == list(range(ring))


@given(bits=st.lists(st.booleans(), max_size=200))
def test_packing_and_unpacking_gives_the_bits_back(bits):
    found = pack(np.array(bits, bool))
    assert found.dtype == np.uint32 and len(found) == packed_words(len(bits))
    assert np.array_equal(unpack(found, len(bits)), bits)
    whole = sum(int(w) << (32 * i) for i, w in enumerate(found))
    assert whole == sum(b << i for i, b in enumerate(bits)), "first bit lowest, the rest zero"


def test_wrong_shapes_and_types_are_refused():
    bits = np.ones(4, bool)
    for values in (np.ones(5, np.uint64), np.ones(4, np.int64), np.ones(4)):
        with pytest.raises(ValueError, match="no bits for"):
            chosen(bits, values)
        with pytest.raises(ValueError, match="no bits for"):
            signed(bits, values)
    with pytest.raises(ValueError, match="no bits for"):
        chosen(np.ones(4, np.uint64), np.ones(4, np.uint64))
    with pytest.raises(ValueError, match="are not"):
        unpack(np.zeros(2, np.uint32), 10)
    with pytest.raises(ValueError, match="vector of bits"):
        pack(np.ones(4, np.uint8))


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(0, 4), n=st.integers(0, 70))
def test_many_products_at_once_are_those_of_the_formula(seed, k, n):
    for dtype in (np.uint32, np.uint64):
        check_products(seed, k, n, dtype)


def check_products(seed, k, n, dtype):
    random = np.random.default_rng(seed)
    beta, u = random.integers(0, 2, (2, k, n)).astype(bool)
    x, v, other, theirs = random.integers(0, np.iinfo(dtype).max, (4, k, n), dtype, endpoint=True)
    c, own = beta ^ u, dealt_part(u, v, theirs)
    assert np.array_equal(own + theirs, np.where(u, v, dtype(0)))
    shares = owner_part(beta, c, other - v, x, own), other_part(c, v, theirs)
    assert np.array_equal(shares[0] + shares[1], np.where(beta, x + other, dtype(0)))


def test_products_of_different_shapes_are_refused():
    bits, words = np.ones((2, 3), bool), np.ones((2, 3), np.uint32)
    with pytest.raises(ValueError, match="one shape"):
        other_part(bits[:1], words, words)
    with pytest.raises(ValueError, match="one shape"):
        dealt_part(bits, words.astype(np.uint64), words)
