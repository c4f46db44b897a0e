import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.crypto import tags
from fedmkt.crypto.prg import SeededRandom

RANDOM = SeededRandom(b"tags")


def outputs(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (n, 2), dtype=np.uint64)


def plain_find(own, other):
    where = {}
    for i, tag in enumerate(other):
        where.setdefault(tag.tobytes(), i)
    return [where.get(tag.tobytes(), -1) for tag in own]


@pytest.mark.parametrize("own", [1, 2, 1000, 10**6, 10**7, 2**23, 2**23 + 1])
@pytest.mark.parametrize("other", [1, 3, 10**6, 10**7, 2**24])
def test_false_matches_are_rarer_than_one_in_two_to_the_40_and_no_byte_is_wasted(own, other):
    length = tags.tag_bytes(own, other)
    assert Fraction(own * other, 2 ** (8 * length)) <= Fraction(1, 2**40)
    assert Fraction(own * other, 2 ** (8 * (length - 1))) > Fraction(1, 2**40)
    assert length == math.ceil((40 + math.log2(own * other)) / 8)


def test_ten_million_by_ten_million_takes_eleven_bytes():
    assert tags.tag_bytes(10**6, 10**6) == 10 and tags.tag_bytes(10**7, 10**7) == 11


def test_empty_lists_have_tags_too():
    assert tags.tag_bytes(0, 0) == tags.tag_bytes(1, 1) == 5


@pytest.mark.parametrize("length", range(1, 17))
def test_tags_are_the_first_bytes_of_the_outputs(length):
    words = outputs(50)
    packed = tags.pack(words, length)
    assert packed.shape == (50, length) and packed.flags.c_contiguous
    whole = [int(a).to_bytes(8, "little") + int(b).to_bytes(8, "little") for a, b in words]
    assert [t.tobytes() for t in packed] == [w[:length] for w in whole]
    assert np.array_equal(tags.pack(tags.unpack(packed), length), packed)
    assert tags.pack(tags.unpack(packed), 16)[:, length:].max(initial=0) == 0


@pytest.mark.parametrize("length", [0, 17])
def test_tags_of_no_bytes_or_of_too_many_are_refused(length):
    with pytest.raises(ValueError, match="bytes"):
        tags.pack(outputs(3), length)
    with pytest.raises(ValueError, match="bytes"):
        tags.unpack(np.zeros((3, length), np.uint8))


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 3), np.uint64), np.zeros(4, np.uint64), np.zeros((3, 2), np.int64)]
)
def test_outputs_are_pairs_of_words(wrong):
    with pytest.raises(ValueError, match="outputs"):
        tags.pack(wrong, 8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.integers(1, 11), st.integers(1, 50), st.integers(0, 99))
def test_find_agrees_with_a_dictionary(n, m, length, values, seed):
    # Few different values: many duplicates on both sides. Equal own tags: the first has the position.
    random = np.random.default_rng(seed)
    pool = tags.pack(outputs(values, seed), length)
    own, other = pool[random.integers(0, values, n)], pool[random.integers(0, values, m)]
    found, expected = tags.find(own, other, RANDOM), np.array(plain_find(own, other), dtype=np.int64)
    is_first = np.array([i == plain_find(own[i : i + 1], own)[0] for i in range(n)], dtype=bool)
    assert np.array_equal(found[is_first], expected[is_first])
    assert (found[~is_first] == -1).all()


@pytest.mark.parametrize("length", [5, 8, 10, 11, 16])
def test_tags_that_differ_in_one_bit_are_not_equal(length):
    own = tags.pack(outputs(1), length)
    for bit in range(8 * length):
        other = own.copy()
        other[0, bit // 8] ^= 1 << bit % 8
        assert tags.find(own, other, RANDOM)[0] == -1


def test_blocks_count_positions_on_and_the_first_match_stays():
    own = outputs(100)
    packed = tags.pack(own, 10)
    known, found = tags.index(own, 10, RANDOM), np.full(100, -1, np.int64)
    tags.look(known, packed[50:], 0, found)
    tags.look(known, packed, 50, found)
    assert np.array_equal(found, [*range(50, 100), *range(50)])


def test_blocks_of_another_shape_are_refused():
    known, found = tags.index(outputs(5), 10, RANDOM), np.full(5, -1, np.int64)
    for wrong in (np.zeros((3, 9), np.uint8), np.zeros(30, np.uint8), np.zeros((3, 10), np.int8)):
        with pytest.raises(ValueError, match="tags are"):
            tags.look(known, wrong, 0, found)
    for wrong in (np.full(4, -1, np.int64), np.full(5, -1, np.int32)):
        with pytest.raises(ValueError, match="own tags"):
            tags.look(known, np.zeros((3, 10), np.uint8), 0, wrong)


def seconds(known, block, repeat=3):
    """Return the best of some times, in processor seconds."""
    best = math.inf
    for _ in range(repeat):
        start = time.process_time()
        tags.look(known, block, 0, np.full(len(known.tags), -1, np.int64))
        best = min(best, time.process_time() - start)
    return best


def test_a_message_of_equal_tags_takes_no_longer_than_any_other():
    n = 100_000
    known = tags.index(outputs(n), 10, RANDOM)
    usual = seconds(known, tags.pack(outputs(n, 1), 10))
    for one in (outputs(1, 2), known.tags[:1], np.zeros((1, 2), np.uint64)):
        assert seconds(known, np.repeat(tags.pack(one, 10), n, axis=0)) < 20 * usual + 0.05


def test_own_tags_that_are_all_equal_are_indexed_in_one_pass():
    n = 200_000
    start = time.process_time()
    known = tags.index(np.zeros((n, 2), np.uint64), 10, RANDOM)
    assert time.process_time() - start < 2
    assert seconds(known, np.zeros((n, 10), np.uint8)) < 2


def test_tags_made_for_one_table_are_spread_in_another():
    # A sender that knew the key could choose tags which all begin at one place; under a fresh key they do not.
    n = 1 << 14
    own = outputs(n)
    known = tags.index(own, 16, SeededRandom(b"one"))
    many = outputs(n << 6, 3)
    aimed = many[place(known, many) < len(known.places) // 64][:n]
    other = tags.index(own, 16, SeededRandom(b"two"))
    assert place(known, aimed).max() < len(known.places) // 64
    counts = np.bincount(place(other, aimed) * 64 // len(other.places), minlength=64)
    assert counts.min() > 0.5 * len(aimed) / 64 and counts.max() < 2 * len(aimed) / 64


def place(known, words):
    """Compute by hand where a tag is looked for."""
    half, low = np.uint64(32), np.uint64(2**32 - 1)
    parts = [words[:, 0] & low, words[:, 0] >> half, words[:, 1] & low, words[:, 1] >> half]
    mixed = known.key[0] + sum(k * p for k, p in zip(known.key[1:], parts, strict=True))
    return ((mixed >> half) * np.uint64(len(known.places)) >> half).astype(np.int64)


def test_half_a_million_tags_are_looked_up_in_a_second():
    words = outputs(500_000)
    known = tags.index(words[:250_000], 10, RANDOM)
    found = np.full(250_000, -1, np.int64)
    start = time.process_time()
    tags.look(known, tags.pack(words, 10), 0, found)
    assert time.process_time() - start < 1
    assert np.array_equal(found, np.arange(250_000))
