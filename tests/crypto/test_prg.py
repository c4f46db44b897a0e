import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.crypto.prg import Address, SeededRandom, derive, expand, half_words, words

KEY = bytes(range(32))
ADDRESS = Address("fit/w", 3, 1, "bank", "shop")
names = st.text(max_size=8)
addresses = st.builds(Address, names, st.integers(0, 99), st.integers(0, 99), names, names)


def test_derivation_is_that_of_rfc_5869() -> None:
    """RFC 5869 appendix A, test cases 1 and 3."""
    first = derive(
        b"\x0b" * 22, bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), bytes.fromhex("000102030405060708090a0b0c"), 42
    )
    assert first.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    third = derive(b"\x0b" * 22, b"", b"", 42)
    assert third.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_expansion_is_aes_256_in_counter_mode() -> None:
    """The first block is AES-256 of the zero block (checked against ECB), the second of the number one."""
    ecb = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()
    blocks = ecb.update(bytes(16) + bytes(15) + b"\x01" + bytes(15) + b"\x02")
    assert bytes(expand(KEY, 48)) == blocks


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, (1 << 20) - 1, 1 << 20, (1 << 20) + 5, 3 << 20])
def test_a_longer_stream_begins_with_the_shorter_one(length: int) -> None:
    assert np.array_equal(expand(KEY, length), expand(KEY, (3 << 20) + 16)[:length])


def test_words_are_little_endian_on_every_machine() -> None:
    stream = bytes(expand(KEY, 48))
    assert words(KEY, (2, 3)).tobytes() == np.frombuffer(stream, "<u8").astype(np.uint64).tobytes()
    assert half_words(KEY, (3, 4)).shape == (3, 4)
    assert int(half_words(KEY, 12)[1]) == int.from_bytes(stream[4:8], "little")
    assert words(KEY, 4).dtype == np.uint64 and half_words(KEY, 4).dtype == np.uint32


def test_a_mask_can_be_empty() -> None:
    assert words(KEY, (0, 5)).shape == (0, 5)


@given(addresses, addresses)
def test_no_two_addresses_share_bytes(one: Address, other: Address) -> None:
    assert (bytes(one) == bytes(other)) == (one == other)


def test_text_that_moves_between_fields_gives_another_address() -> None:
    assert bytes(Address("a", 1, 1, "bc", "")) != bytes(Address("a", 1, 1, "b", "c"))
    assert bytes(Address("a1", 1, 1, "b", "c")) != bytes(Address("a", 11, 1, "b", "c"))


def test_a_label_too_long_for_its_length_prefix_is_refused_and_not_cut() -> None:
    with pytest.raises(OverflowError):
        bytes(Address("x" * 70_000, 0, 0, "", ""))


def related(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two streams share more bits, or more words at any place, than chance."""
    bits = np.unpackbits(one.view(np.uint8) ^ other.view(np.uint8))
    far = abs(bits.mean() - 0.5) > 6 * 0.5 / np.sqrt(bits.size)
    return bool(far or np.intersect1d(one, other).size)


def test_streams_of_addresses_that_differ_in_one_field_are_unrelated() -> None:
    changes = {"label": "fit/r", "count": 4, "block": 2, "sender": "shop", "reader": "bank"}
    assert set(changes) == {f.name for f in fields(Address)}
    variants = [ADDRESS, *(replace(ADDRESS, **{k: v}) for k, v in changes.items())]
    streams = [words(derive(KEY, bytes(a)), 4096) for a in variants]
    assert not any(related(one, other) for one, other in itertools.combinations(streams, 2))
    assert related(streams[0], streams[0])
    assert related(streams[0], streams[0] + np.uint64(1))


def test_words_of_a_stream_are_uniform_over_every_byte() -> None:
    counts = np.bincount(expand(KEY, 1 << 20), minlength=256)
    chi = float(((counts - 4096.0) ** 2 / 4096).sum())
    assert 150 < chi < 380  # 255 degrees of freedom: mean 255, standard deviation 22.6


def test_a_seeded_generator_repeats_itself_and_never_within_itself() -> None:
    one, same, other = SeededRandom(b"1"), SeededRandom(b"1"), SeededRandom(b"2")
    drawn = [one(16) for _ in range(200)]
    assert drawn == [same(16) for _ in range(200)]
    assert len(set(drawn)) == 200
    assert not set(drawn) & {other(16) for _ in range(200)}


def test_what_a_seeded_generator_gives_depends_on_the_number_of_the_request_only() -> None:
    one, other = SeededRandom(b"1"), SeededRandom(b"1")
    one(5), other(500)
    assert one(8) == other(8)
