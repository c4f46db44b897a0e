"""Streams of short words against Python's integers, and the error of rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.ring import short_words
from fedmkt.ring.short_words import WORD_BITS, dropped_bits, pack, plain_pack, stream_length, unpack

WORD = np.uint64


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.lists(st.sampled_from(WORD_BITS), min_size=1, max_size=5), st.integers(0, 999))
def test_words_come_back_rounded_and_the_stream_is_that_of_python_integers(rows, word_bits, seed) -> None:
    words = np.random.default_rng(seed).integers(0, 2**64, (rows, len(word_bits)), WORD)
    words[0] = np.resize(np.array([2**64 - 1, 0, 2**63], WORD), len(word_bits))
    stream = pack(words, word_bits)
    assert stream.tobytes() == plain_pack(words, word_bits).tobytes()
    assert stream.shape == (stream_length(rows, word_bits),)
    back = unpack(stream, rows, word_bits)
    for v, bits in enumerate(word_bits):
        unit = 2 ** (64 - bits)
        error = (back[:, v] - words[:, v]).view(np.int64)
        assert np.abs(error).max() <= unit // 2
        assert all(x % unit == 0 for x in back[:, v].tolist())


def test_sixty_four_words_fill_as_many_words_as_each_has_bits() -> None:
    assert stream_length(64, [40]) == 40
    assert stream_length(65, [40, 50, 64]) == 154 + 3


def test_forty_eight_bits_keep_the_upper_ones_rounded() -> None:
    words = np.array([[0], [2**15 - 1], [2**15], [2**16], [2**64 - 1], [0x123456789ABC8000]], WORD)
    back = unpack(pack(words, [48]), 6, [48])
    assert back[:, 0].tolist() == [0, 0, 2**16, 2**16, 0, 0x123456789ABD0000]


def test_what_does_not_fit_is_refused() -> None:
    words = np.zeros((3, 2), WORD)
    for act in (
        lambda: pack(words, [40]),
        lambda: pack(words[0], [40]),
        lambda: pack(words.astype(np.int64), [40, 40]),
        lambda: pack(words, [40, 65]),
        lambda: unpack(np.zeros(79, WORD), 3, [40, 40]),
        lambda: unpack(np.zeros(80, np.int64), 3, [40, 40]),
        lambda: dropped_bits(15),
    ):
        with pytest.raises(ValueError):
            act()
    short_words.compile_all()
