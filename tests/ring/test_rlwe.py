"""Ring-LWE against Python's integers and direct convolution; noise against its distribution."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.crypto.prg import SeededRandom
from fedmkt.ring import discrete_gaussian, rlwe, short_words
from fedmkt.ring.rlwe import DEGREE, NO_BIN

WORD = np.uint64


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    rlwe.compile_all()
    short_words.compile_all()


def negacyclic(a, s):
    """Multiply modulo X^N + 1 term by term, in words: exact modulo 2^64."""
    out = np.zeros(DEGREE, WORD)
    for k in np.flatnonzero(s):
        shifted = np.concatenate([WORD(0) - a[DEGREE - k :], a[: DEGREE - k]])
        out += shifted * WORD(int(s[k]) % 2**64)
    return out


def secrets_of(random, count):
    return random.integers(-1, 2, (count, DEGREE)).astype(np.int8)


def as_words(secrets):
    """Turn secrets into the columns that multiply a hint, (N, V)."""
    return secrets.T.astype(np.int64).view(WORD)


EXTREMES = {
    "the largest limbs": np.full(DEGREE, 0x7FFFFFFF7FFFFFFF, WORD),
    "the most negative limbs": np.full(DEGREE, 0x8000000080000000, WORD),
    "limbs of alternating sign": np.resize(np.array([0x7FFFFFFF7FFFFFFF, 0x8000000080000000], WORD), DEGREE),
    "all ones": np.full(DEGREE, 2**64 - 1, WORD),
    "one coefficient": np.eye(1, DEGREE, DEGREE - 1, dtype=WORD)[0] * WORD(2**63 + 1),
}
SMALL = {
    "ones": np.ones(DEGREE, np.int8),
    "minus ones": -np.ones(DEGREE, np.int8),
    "alternating": np.resize(np.array([1, -1], np.int8), DEGREE),
    "pairs": np.resize(np.array([1, 1, -1, -1], np.int8), DEGREE),
}


@pytest.mark.parametrize("a", EXTREMES.values(), ids=EXTREMES)
def test_products_are_exact_for_the_largest_coefficients(a: np.ndarray) -> None:
    small = np.array(list(SMALL.values()))
    got = rlwe.multiply(rlwe.transform(a[None]), small)
    for v, s in enumerate(small):
        assert np.array_equal(got[:, v], negacyclic(a, s))


@pytest.mark.parametrize("seed", range(3))
def test_products_of_random_polynomials_are_exact(seed: int) -> None:
    random = np.random.default_rng(seed)
    a = rlwe.public_polynomials(bytes([seed]) * 32, 2)
    s = secrets_of(random, 3)
    got = rlwe.multiply(rlwe.transform(a), s)
    for j in range(2):
        for v in range(3):
            assert np.array_equal(got[j * DEGREE : (j + 1) * DEGREE, v], negacyclic(a[j], s[v]))


def test_the_direct_convolution_of_these_tests_agrees_with_python_integers() -> None:
    random = np.random.default_rng(7)
    a, s = random.integers(0, 2**64, DEGREE, WORD), secrets_of(random, 1)[0]
    for k in (0, 1, 2047, DEGREE - 1):
        terms = (int(a[k - i]) * int(s[i]) if i <= k else -int(a[k - i]) * int(s[i]) for i in range(DEGREE))
        assert sum(terms) % 2**64 == int(negacyclic(a, s)[k])


def test_the_error_bound_holds_with_room_and_refuses_what_it_cannot_prove() -> None:
    assert rlwe.product_error(32, 1) < 0.2
    assert rlwe.product_error(22, 256) < 0.2
    assert rlwe.product_error(32, 3) > 0.5
    with pytest.raises(ValueError, match="limbs"):
        rlwe.product_error(30, 1)
    with pytest.raises(ValueError, match="need limbs of 32 bits"):
        rlwe.multiply(rlwe.transform_for_hint(np.zeros((1, DEGREE), WORD)), np.zeros((1, DEGREE), np.int8))


def test_the_measured_error_of_the_worst_products_is_far_below_the_bound() -> None:
    worst = 0.0
    for a in EXTREMES.values():
        for limb in rlwe._split(a, 32):
            for s in SMALL.values():
                product = rlwe._forward(limb) * rlwe._forward(s.astype(np.float64))
                y = np.fft.ifft(product) * rlwe._twist().conj()
                both = np.concatenate([y.real, -y.imag])
                worst = max(worst, float(np.abs(both - np.rint(both)).max()))
    assert 0 < worst < rlwe.product_error(32, 1) / 4


def test_limbs_add_up_to_the_word_and_stay_small() -> None:
    a = np.concatenate([*EXTREMES.values(), np.random.default_rng(1).integers(0, 2**64, 100, WORD)])
    for bits in (32, 22):
        limbs = rlwe._split(a, bits)
        assert max(np.abs(limb).max() for limb in limbs) <= 2 ** (bits - 1)
        total = sum(limb.astype(np.int64).astype(object) << (bits * i) for i, limb in enumerate(limbs))
        assert np.array_equal(total % 2**64, a.astype(object))


def table(random, n, counts):
    codes = np.stack([random.integers(0, c, n) for c in counts]).astype(np.uint8)
    codes[:, random.random(n) < 0.05] = NO_BIN
    return codes


@settings(max_examples=8)
@given(st.integers(1, 2 * DEGREE + 5), st.integers(1, 5), st.integers(0, 2**32))
def test_hint_and_histogram_agree_for_every_vector_without_noise(n: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.integers(1, 9, columns).tolist()
    codes = table(random, n, counts)
    a = rlwe.public_polynomials(seed.to_bytes(32, "big"), rlwe.polynomials(n))
    s = secrets_of(random, 2)
    h = rlwe.hint(rlwe.transform_for_hint(a), codes, counts)
    b = rlwe.multiply(rlwe.transform(a), s)[:n]
    assert np.array_equal(rlwe.histogram(codes, counts, b), h @ as_words(s))


def test_a_hint_over_more_polynomials_than_are_added_at_once_is_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(3)
    codes = table(random, 5 * DEGREE - 9, [3])
    a = rlwe.transform_for_hint(rlwe.public_polynomials(bytes(32), 5))
    whole = rlwe.hint(a, codes, [3])
    monkeypatch.setattr(rlwe, "_GROUP", 2)
    assert np.array_equal(rlwe.hint(a, codes, [3]), whole)


def test_the_hint_of_one_row_is_its_row_of_the_matrix_of_a() -> None:
    a = rlwe.public_polynomials(b"a" * 32, 1)
    row = 1000
    codes = np.full((1, DEGREE), NO_BIN, np.uint8)
    codes[0, row] = 0
    h = rlwe.hint(rlwe.transform_for_hint(a), codes, [1])[0]
    # Coefficient `row` of a X^k is a[row - k], with its sign turned where k > row.
    expected = [int(a[0, row - k]) if k <= row else -int(a[0, row - k]) % 2**64 for k in range(DEGREE)]
    assert h.tolist() == expected


@pytest.mark.parametrize("word_bits", [(40, 47, 64), (48, 48, 48)])
@pytest.mark.parametrize("seed", range(3))
def test_decrypted_totals_equal_plain_totals(seed: int, word_bits: tuple[int, ...]) -> None:
    random = np.random.default_rng(seed)
    n, counts, vectors, delta = 9000, [5, 32, 1, 200], 3, [40, 41, 42]
    codes = table(random, n, counts)
    values = random.integers(-127, 128, (n, vectors))
    a = rlwe.public_polynomials(bytes([seed]) * 32, rlwe.polynomials(n))
    s = rlwe.draw_secrets(b"s" * 32, vectors)
    b = rlwe.encrypt(rlwe.transform(a), s, rlwe.draw_noise(b"e" * 32, n, vectors), values, delta)
    b = short_words.unpack(short_words.pack(b, word_bits), n, word_bits)
    h = rlwe.hint(rlwe.transform_for_hint(a), codes, counts)
    noisy = rlwe.histogram(codes, counts, b) - h @ as_words(s)
    flooding = [discrete_gaussian.draw(SeededRandom(b"f"), 1 << k, noisy.shape[:1]) for k in (35, 36, 37)]
    noisy += np.stack(flooding, axis=1).view(np.uint64)
    expected = [
        [int(values[column == k, v].sum()) for v in range(vectors)]
        for column, count in zip(codes, counts, strict=True)
        for k in range(count)
    ]
    assert rlwe.decode(noisy, delta).tolist() == expected


def test_messages_that_are_shares_add_up_modulo_two_to_the_message_bits() -> None:
    random = np.random.default_rng(5)
    n, delta = 5000, [40]
    secret, mask = random.integers(-127, 128, (n, 1)), random.integers(0, 2**24, (n, 1))
    codes = table(random, n, [7])
    a = rlwe.public_polynomials(bytes(32), rlwe.polynomials(n))
    s, e = rlwe.draw_secrets(b"s" * 32, 1), rlwe.draw_noise(b"e" * 32, n, 1)
    b = rlwe.encrypt(rlwe.transform(a), s, e, (secret - mask) % 2**24, delta)
    b += mask.view(WORD) << WORD(delta[0])
    noisy = rlwe.histogram(codes, [7], b) - rlwe.hint(rlwe.transform_for_hint(a), codes, [7]) @ as_words(s)
    plain = rlwe.plain_histogram(codes, [7], secret.view(WORD)).view(np.int64)
    assert np.array_equal(rlwe.decode(noisy, delta), plain)


def test_the_noise_of_a_sum_has_the_deviation_of_the_table() -> None:
    n, bins = 200_000, 250
    codes = (np.arange(n) % bins).astype(np.uint8)[None]
    a = rlwe.transform(np.zeros((rlwe.polynomials(n), DEGREE), WORD))
    noise = rlwe.draw_noise(b"e" * 32, n, 8)
    b = rlwe.encrypt(a, np.zeros((8, DEGREE), np.int8), noise, np.zeros((n, 8), np.int64), [40] * 8)
    sums = rlwe.histogram(codes, [bins], b).view(np.int64)
    assert np.std(sums) == pytest.approx((n / bins * 10.5) ** 0.5, rel=0.08)
    # Uniform words are rounded: an error of variance 2^32 / 12 comes on top.
    words = np.random.default_rng(2).integers(0, 2**64, (n, 8), WORD)
    rounding = (short_words.unpack(short_words.pack(words, [48] * 8), n, [48] * 8) - words).view(np.int64)
    assert np.abs(rounding).max() <= 2**15
    assert np.std(rounding) == pytest.approx(2**16 / 12**0.5, rel=0.01)


def test_noise_is_centred_binomial() -> None:
    e = rlwe.draw_noise(b"k" * 32, 300_000, 2).astype(np.int64)
    assert np.abs(e).max() <= 21
    assert abs(e.mean()) < 0.03
    assert np.var(e) == pytest.approx(10.5, rel=0.01)
    for value in (-6, 0, 3):
        expected = comb(42, 21 + value) / 2**42
        assert np.mean(e == value) == pytest.approx(expected, rel=0.05)


def test_secrets_are_uniform_in_three_values() -> None:
    s = rlwe.draw_secrets(b"k" * 32, 50)
    assert s.shape == (50, DEGREE)
    values, counts = np.unique(s, return_counts=True)
    assert values.tolist() == [-1, 0, 1]
    assert np.abs(counts / s.size - 1 / 3).max() < 0.005


def test_every_key_draws_other_noise_and_the_same_key_the_same() -> None:
    for draw in (
        lambda k: rlwe.draw_secrets(k, 1),
        lambda k: rlwe.draw_noise(k, 500, 2),
    ):
        assert draw(b"a" * 32).tobytes() == draw(b"a" * 32).tobytes() != draw(b"b" * 32).tobytes()


def test_ciphertexts_of_two_messages_look_uniform() -> None:
    n = 30_000
    a = rlwe.transform(rlwe.public_polynomials(bytes(32), rlwe.polynomials(n)))
    for value in (0, 127):
        s, e = rlwe.draw_secrets(bytes([value]) * 32, 2), rlwe.draw_noise(bytes([value + 1]) * 32, n, 2)
        raw = rlwe.encrypt(a, s, e, np.full((n, 2), value), [40, 40]).tobytes()
        counts = np.bincount(np.frombuffer(raw, np.uint8), minlength=256)
        expected = len(raw) / 256
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 6 * (2 * 255) ** 0.5


@settings(max_examples=25)
@given(st.integers(0, 300), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32))
def test_the_compiled_histogram_equals_the_plain_one(n: int, vectors: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.integers(1, 256, columns).tolist()
    codes, b = table(random, n, counts), random.integers(0, 2**64, (n, vectors), WORD)
    got = rlwe.histogram(codes, counts, b)
    assert got.tobytes() == rlwe.plain_histogram(codes, counts, b).tobytes()
    column = random.integers(columns)
    for k in set(codes[column].tolist()) - {NO_BIN}:
        exact = b[codes[column] == k].astype(object).sum(axis=0) % 2**64
        assert got[sum(counts[:column]) + k].tolist() == exact.tolist()


@pytest.mark.parametrize("delta", [1, 20, 40, 62])
def test_decoding_is_right_up_to_half_of_delta(delta: int) -> None:
    limit = 2 ** (63 - delta)
    for message in (0, 1, -1, limit - 1, -limit):
        for error in (0, 2 ** (delta - 1) - 1, -(2 ** (delta - 1))):
            word = np.array([[(message * 2**delta + error) % 2**64]], WORD)
            assert rlwe.decode(word, [delta]).tolist() == [[message]]


def test_what_does_not_fit_is_refused() -> None:
    a = rlwe.transform(np.zeros((1, DEGREE), WORD))
    s, e, m = np.zeros((1, DEGREE), np.int8), np.zeros((9, 1), np.int8), np.zeros((9, 1), np.int64)
    codes = np.zeros((1, 9), np.uint8)
    for act in (
        lambda: rlwe.encrypt(a, s * 0 + 2, e, m, [40]),
        lambda: rlwe.encrypt(a, s, e[:8], m, [40]),
        lambda: rlwe.encrypt(a, s, e, m, [64]),
        lambda: rlwe.encrypt(a, s, np.zeros((5000, 1), np.int8), np.zeros((5000, 1), np.int64), [40]),
        lambda: rlwe.transform(np.zeros((1, DEGREE // 2), WORD)),
        lambda: rlwe.histogram(codes + 3, [3], np.zeros((9, 1), WORD)),
        lambda: rlwe.histogram(codes, [256], np.zeros((9, 1), WORD)),
        lambda: rlwe.histogram(codes, [3], np.zeros((8, 1), WORD)),
        lambda: rlwe.hint(rlwe.transform_for_hint(np.zeros((2, DEGREE), WORD)), codes, [3]),
        lambda: rlwe.encrypt(a, s, e, m, [40, 40]),
    ):
        with pytest.raises(ValueError):
            act()
