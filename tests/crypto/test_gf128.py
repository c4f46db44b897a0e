import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedmkt.crypto import gf128

elements = st.integers(0, 2**128 - 1)


def words(*values):
    return np.array([[v & 2**64 - 1, v >> 64] for v in values], dtype=np.uint64).reshape(-1, 2)


def numbers(array):
    return [int(low) | int(high) << 64 for low, high in array]


def plain_product(a, b):
    """Multiply as in school: shift and add, then take away multiples of X^128 + X^7 + X^2 + X + 1."""
    total = 0
    for i in range(128):
        total ^= (a << i) * (b >> i & 1)
    for i in range(254, 127, -1):
        total ^= ((1 << 128 | 0x87) << (i - 128)) * (total >> i & 1)
    return total


def from_ghash(text):
    """Read a block of SP 800-38D, whose first bit is the coefficient of X^0."""
    return int("".join(f"{byte:08b}" for byte in bytes.fromhex(text))[::-1], 2)


@given(elements, elements)
@example(2**128 - 1, 2**128 - 1)
@example(1 << 127, 2)
@example(0, 5)
@settings(max_examples=200, deadline=None)
def test_a_product_is_that_of_polynomials_in_school(a, b):
    assert numbers(gf128.multiply_all(words(a), words(b)[0])) == [plain_product(a, b)]


def test_ghash_of_the_second_test_case_of_gcm_comes_out():
    # McGrew and Viega, The Galois/Counter Mode of Operation, appendix B, test case 2.
    key = words(from_ghash("66e94bd4ef8a2c3b884cfa59ca342b2e"))[0]
    first = gf128.multiply_all(words(from_ghash("0388dace60b6a392f328c2b971b2fe78")), key)
    assert numbers(first) == [from_ghash("5e2ec746917062882c85b0685353deb7")]
    last = gf128.multiply_all(first ^ words(from_ghash("00000000000000000000000000000080")), key)
    assert numbers(last) == [from_ghash("f38cbb1ad69223dcc3457ae5b6b0f885")]


@given(st.lists(st.tuples(elements, elements), max_size=20), elements)
@settings(max_examples=50, deadline=None)
def test_products_are_added_in_place(pairs, factor):
    target, values = words(*[a for a, _ in pairs]), words(*[b for _, b in pairs])
    values.flags.writeable = False
    gf128.add_products(target, values, words(factor)[0])
    assert numbers(target) == [a ^ plain_product(b, factor) for a, b in pairs]


def test_the_weighted_sum_multiplies_each_term_by_its_power_of_x():
    random = np.random.default_rng(1)
    terms = random.integers(0, 2**64, (128, 5, 2), dtype=np.uint64)
    expected = [0] * 5
    for j in range(128):
        expected = [e ^ plain_product(t, 1 << j) for e, t in zip(expected, numbers(terms[j]), strict=True)]
    assert numbers(gf128.weighted_sum(terms)) == expected


def test_arrays_of_different_lengths_are_not_added():
    with pytest.raises(ValueError, match="cannot add"):
        gf128.add_products(words(1, 2), words(1), words(1)[0])


@given(st.integers(0, 3), st.lists(elements, min_size=0, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_rows_are_combined_by_factors(count, factors, random):
    rows = [[random.getrandbits(128) for _ in factors] for _ in range(count)]
    expected = []
    for row in rows:
        total = 0
        for value, factor in zip(row, factors, strict=True):
            total ^= plain_product(value, factor)
        expected.append(total)
    given_rows = words(*[v for row in rows for v in row]).reshape(count, len(factors), 2)
    assert numbers(gf128.combine(given_rows, words(*factors))) == expected


def test_rows_and_factors_that_do_not_fit_are_refused():
    for rows, factors in (((2, 3, 2), (2, 2)), ((2, 3), (3, 2)), ((2, 3, 1), (3, 1))):
        with pytest.raises(ValueError, match="combine"):
            gf128.combine(np.zeros(rows, np.uint64), np.zeros(factors, np.uint64))
