"""ristretto255 against the RFC's vectors and against a slow implementation of the RFC's formulas."""

import json
from hashlib import sha512
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.crypto import group
from fedmkt.crypto.prg import SeededRandom

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "rfc9496_ristretto255.json").read_text())
EXPANSIONS = json.loads((FOLDER / "rfc9380_expand_message_sha512.json").read_text())
MULTIPLES = [bytes.fromhex(point) for point in VECTORS["multiples"]]
INVALID = [bytes.fromhex(point) for kind in VECTORS["invalid"].values() for point in kind]
ORDER = 2**252 + 27742317777372353535851937790883648493

# RFC 9496 section 4, in integers and affine coordinates of the curve -x^2 + y^2 = 1 + d x^2 y^2.
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)

Pair = tuple[int, int]


def magnitude(x: int) -> int:
    return P - x % P if x % P & 1 else x % P


def square_root(u: int, v: int) -> tuple[bool, int]:
    """SQRT_RATIO_M1 of section 4.2."""
    r = u * v**3 * pow(u * v**7 % P, (P - 5) // 8, P) % P
    check = v * r * r % P
    if check in (-u % P, -u * ROOT % P):
        r = r * ROOT % P
    return check in (u % P, -u % P), magnitude(r)


INVERSE_ROOT_A_MINUS_D = square_root(1, -1 - D)[1]
# Of the two roots of ad - 1 the RFC prints the odd one.
ROOT_AD_MINUS_ONE = P - square_root(-D - 1, 1)[1]


def slow_decode(data: bytes) -> Pair:
    """Section 4.3.1."""
    s = int.from_bytes(data, "little")
    if s >= P or s & 1:
        raise ValueError("not canonical")
    u1, u2 = (1 - s * s) % P, (1 + s * s) % P
    v = (-D * u1 * u1 - u2 * u2) % P
    square, root = square_root(1, v * u2 * u2)
    x = magnitude(2 * s * root * u2)
    y = u1 * root * root * u2 * v % P
    if not square or x * y % P & 1 or y == 0:
        raise ValueError("not a point")
    return x, y


def slow_encode(point: Pair) -> bytes:
    """Section 4.3.2, with z = 1."""
    x, y = point
    t = x * y % P
    u1, u2 = (1 + y) * (1 - y) % P, t
    root = square_root(1, u1 * u2 * u2)[1]
    den1, den2 = root * u1 % P, root * u2 % P
    z_inverse = den1 * den2 * t % P
    den = den2
    if t * z_inverse % P & 1:
        x, y, den = y * ROOT % P, x * ROOT % P, den1 * INVERSE_ROOT_A_MINUS_D % P
    if x * z_inverse % P & 1:
        y = -y % P
    return magnitude(den * (1 - y)).to_bytes(32, "little")


def slow_add(a: Pair, b: Pair) -> Pair:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P,
    )


def slow_multiply(k: int, point: Pair) -> Pair:
    out = (0, 1)
    for bit in bin(k)[2:]:
        out = slow_add(out, out)
        if bit == "1":
            out = slow_add(out, point)
    return out


def slow_map(data: bytes) -> Pair:
    """MAP of section 4.3.4, the result made affine."""
    t = int.from_bytes(data, "little") % 2**255 % P
    r = ROOT * t * t % P
    u = (r + 1) * (1 - D * D) % P
    v = (-1 - r * D) * (r + D) % P
    square, s = square_root(u, v)
    s, c = (s, P - 1) if square else (-magnitude(s * t) % P, r)
    n = (c * (r - 1) * (D - 1) ** 2 - v) % P
    w0, w1, w2, w3 = 2 * s * v, n * ROOT_AD_MINUS_ONE, 1 - s * s, 1 + s * s
    return w0 * pow(w1, -1, P) % P, w2 * pow(w3, -1, P) % P


def scalar(value: int) -> bytes:
    return (value % ORDER).to_bytes(32, "little")


scalars = st.one_of(st.integers(0, 20), st.integers(ORDER - 20, ORDER - 1), st.integers(0, ORDER - 1))
points = st.binary(min_size=64, max_size=64).map(group.from_uniform)


def test_slow_square_roots_are_those_of_the_rfc() -> None:
    for vector in VECTORS["square_roots"]:
        u, v, r = (int.from_bytes(bytes.fromhex(vector[k]), "little") for k in "uvr")
        assert square_root(u, v) == (vector["was_square"], r)
    assert ROOT_AD_MINUS_ONE == 25063068953384623474111414158702152701244531502492656460079210482610430750235


def test_sixteen_multiples_of_the_generator_are_reached_in_every_way() -> None:
    total = group.IDENTITY
    for k, expected in enumerate(MULTIPLES):
        assert total == expected
        assert group.multiply_generator(scalar(k)) == expected
        assert group.multiply(scalar(k), group.GENERATOR) == expected
        assert slow_encode(slow_multiply(k, slow_decode(MULTIPLES[1]))) == expected
        assert group.is_valid(expected)
        total = group.add(total, group.GENERATOR)
    assert group.ORDER == ORDER
    assert group.multiply(scalar(-1), group.GENERATOR) == group.subtract(group.IDENTITY, group.GENERATOR)


def test_twenty_nine_invalid_encodings_are_refused_everywhere() -> None:
    assert len(INVALID) == 29
    one = scalar(1)
    for bad in INVALID:
        assert not group.is_valid(bad)
        for use in (
            lambda bad=bad: group.decode(bad),
            lambda bad=bad: group.multiply(one, bad),
            lambda bad=bad: group.multiply(scalar(0), bad),
            lambda bad=bad: group.add(bad, group.GENERATOR),
            lambda bad=bad: group.add(group.GENERATOR, bad),
            lambda bad=bad: group.subtract(group.GENERATOR, bad),
            lambda bad=bad: slow_decode(bad),
        ):
            with pytest.raises(ValueError):
                use()


def test_invalid_encodings_and_the_identity_are_refused_at_their_index_in_a_list() -> None:
    for bad in [*INVALID, group.IDENTITY]:
        rows = np.frombuffer(b"".join([*MULTIPLES[1:4], bad, bad]), dtype=np.uint8).reshape(-1, 32)
        with pytest.raises(ValueError, match="point 3 "):
            group.multiply_all(scalar(5), rows)
        with pytest.raises(ValueError, match="point 3 "):
            group.multiply_each(np.tile(np.frombuffer(scalar(5), dtype=np.uint8), (5, 1)), rows)


def test_the_top_bit_of_an_encoding_is_not_ignored() -> None:
    # libsodium 1.0.18 masks it; RFC 9496 section 4.3.1 demands the canonical encoding.
    for good in MULTIPLES:
        bad = good[:31] + bytes([good[31] | 128])
        rows = np.frombuffer(group.GENERATOR + bad + bytes(32), dtype=np.uint8).reshape(3, 32)
        assert not group.is_valid(bad)
        for use in (
            lambda bad=bad: group.decode(bad),
            lambda bad=bad: group.multiply(scalar(3), bad),
            lambda bad=bad: group.add(group.GENERATOR, bad),
            lambda bad=bad: group.subtract(bad, group.GENERATOR),
        ):
            with pytest.raises(ValueError, match="not a valid"):
                use()
        with pytest.raises(ValueError, match="point 1 "):
            group.multiply_all(scalar(3), rows)
        with pytest.raises(ValueError, match="point 0 "):
            group.multiply_all(scalar(3), rows[::-1])


def test_the_identity_is_a_point_of_the_group_but_not_decoded() -> None:
    assert group.is_valid(group.IDENTITY)
    with pytest.raises(ValueError, match="identity"):
        group.decode(group.IDENTITY)
    assert group.decode(group.GENERATOR) == group.GENERATOR
    assert group.multiply(scalar(0), group.GENERATOR) == group.IDENTITY
    assert group.multiply(scalar(7), group.IDENTITY) == group.IDENTITY


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_points_and_scalars_of_another_length_are_refused(length: int) -> None:
    bad = bytes(length)
    assert not group.is_valid(bad)
    for use in (
        lambda: group.decode(bad),
        lambda: group.decode_scalar(bad),
        lambda: group.multiply(bad, group.GENERATOR),
        lambda: group.multiply(scalar(1), bad),
        lambda: group.add(bad, group.GENERATOR),
        lambda: group.invert(bad),
        lambda: group.add_scalars(bad, scalar(1)),
    ):
        with pytest.raises(ValueError):
            use()


@pytest.mark.parametrize("value", [ORDER, ORDER + 1, 2**253, 2**255, 2**256 - 1])
def test_scalars_that_are_not_reduced_are_refused(value: int) -> None:
    bad = value.to_bytes(32, "little")
    rows = np.frombuffer(scalar(1) + bad, dtype=np.uint8).reshape(2, 32)
    for use in (
        lambda: group.decode_scalar(bad),
        lambda: group.multiply(bad, group.GENERATOR),
        lambda: group.multiply_generator(bad),
        lambda: group.multiply_scalars(bad, scalar(1)),
        lambda: group.multiply_all(bad, rows),
    ):
        with pytest.raises(ValueError, match="canonical scalar"):
            use()
    with pytest.raises(ValueError, match="scalar 1 "):
        group.invert_all(rows)
    with pytest.raises(ValueError, match="scalar 1 "):
        group.multiply_each(rows, rows)


def test_uniform_bytes_map_to_the_points_of_the_rfc() -> None:
    for vector in VECTORS["uniform"]:
        uniform = bytes.fromhex(vector["input"])
        assert group.from_uniform(uniform).hex() == vector["output"]
        assert slow_encode(slow_add(slow_map(uniform[:32]), slow_map(uniform[32:]))).hex() == vector["output"]
    with pytest.raises(ValueError):
        group.from_uniform(bytes(32))


def test_messages_expand_as_in_rfc_9380() -> None:
    dst = EXPANSIONS["dst"].encode()
    for vector in EXPANSIONS["tests"]:
        expected = bytes.fromhex(vector["uniform_bytes"])
        assert group.expand_message(vector["msg"].encode(), dst, len(expected)) == expected


def test_a_long_tag_is_hashed_first() -> None:
    for length in (255, 256, 1000):
        dst = b"x" * length
        short = dst if length < 256 else sha512(b"H2C-OVERSIZE-DST-" + dst).digest()
        assert group.expand_message(b"m", dst, 100) == group.expand_message(b"m", short, 100)


@pytest.mark.parametrize(("dst", "length"), [(b"", 64), (b"x", 0), (b"x", -1), (b"x", 255 * 64 + 1)])
def test_expansion_without_a_tag_or_beyond_its_limit_is_refused(dst: bytes, length: int) -> None:
    with pytest.raises(ValueError, match="cannot expand"):
        group.expand_message(b"m", dst, length)


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=64, max_size=64))
def test_any_uniform_bytes_map_to_the_point_of_the_slow_formulas(uniform: bytes) -> None:
    expected = slow_encode(slow_add(slow_map(uniform[:32]), slow_map(uniform[32:])))
    assert group.from_uniform(uniform) == expected


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_any_bytes_are_valid_exactly_when_the_slow_decoder_takes_them(data: bytes) -> None:
    for candidate in (data, data[:31] + bytes([data[31] & 0x7F]), bytes([data[0] & 0xFE]) + data[1:]):
        try:
            valid = slow_encode(slow_decode(candidate)) == candidate
        except ValueError:
            valid = False
        assert group.is_valid(candidate) == valid


@settings(max_examples=15, deadline=None)
@given(scalars, points, points)
def test_points_add_and_multiply_as_in_the_slow_formulas(k: int, p: bytes, q: bytes) -> None:
    assert group.multiply(scalar(k), p) == slow_encode(slow_multiply(k, slow_decode(p)))
    assert group.add(p, q) == slow_encode(slow_add(slow_decode(p), slow_decode(q)))
    assert group.subtract(group.add(p, q), q) == p


@settings(max_examples=100, deadline=None)
@given(scalars, scalars, st.binary(min_size=64, max_size=64))
def test_scalars_are_integers_modulo_the_order(a: int, b: int, uniform: bytes) -> None:
    assert group.add_scalars(scalar(a), scalar(b)) == scalar(a + b)
    assert group.subtract_scalars(scalar(a), scalar(b)) == scalar(a - b)
    assert group.multiply_scalars(scalar(a), scalar(b)) == scalar(a * b)
    assert group.reduce(uniform) == scalar(int.from_bytes(uniform, "little"))
    if a:
        assert group.invert(scalar(a)) == scalar(pow(a, -1, ORDER))


def test_zero_has_no_inverse_and_blinds_nothing() -> None:
    rows = np.frombuffer(scalar(1) + scalar(0), dtype=np.uint8).reshape(2, 32)
    with pytest.raises(ValueError, match="no inverse"):
        group.invert(scalar(0))
    with pytest.raises(ValueError, match="scalar 1 "):
        group.invert_all(rows)
    with pytest.raises(ValueError, match="scalar is zero"):
        group.multiply_all(scalar(0), rows)


@settings(max_examples=30, deadline=None)
@given(st.lists(scalars.filter(bool), max_size=20))
def test_many_inverses_are_those_of_the_integers(values: list[int]) -> None:
    rows = np.frombuffer(b"".join(map(scalar, values)), dtype=np.uint8).reshape(-1, 32)
    inverses = [scalar(pow(value, -1, ORDER)) for value in values]
    assert group.invert_all(rows).tobytes() == b"".join(inverses)


@pytest.mark.parametrize("count", [0, 1, 2, 1025, 3000])
def test_lists_give_what_single_calls_give(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "_THREADS", 3)
    messages = [b"%d" % i for i in range(count)]
    hashed = group.hash_all(messages, b"tag")
    drawn = group.random_scalars(SeededRandom(b"lists"), count)
    products = group.multiply_each(drawn, hashed)
    scaled = group.multiply_all(scalar(3), hashed)
    assert hashed.shape == drawn.shape == products.shape == scaled.shape == (count, 32)
    for i in range(0, count, 97):
        point = group.hash_to_group(messages[i], b"tag")
        assert hashed[i].tobytes() == point
        assert products[i].tobytes() == group.multiply(drawn[i].tobytes(), point)
        assert scaled[i].tobytes() == group.multiply(scalar(3), point)


def test_the_first_bad_row_is_named_whichever_thread_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "_THREADS", 4)
    rows = np.tile(np.frombuffer(group.GENERATOR, dtype=np.uint8), (3000, 1))
    for bad in (2999, 2048, 1500, 0):
        rows[bad] = 255
        with pytest.raises(ValueError, match=f"point {bad} "):
            group.multiply_all(scalar(2), rows)


def test_a_list_may_be_a_view_with_gaps() -> None:
    wide = np.frombuffer(b"".join(MULTIPLES[1:9]), dtype=np.uint8).reshape(4, 64)
    assert group.multiply_all(scalar(1), wide[:, 32:]).tobytes() == b"".join(MULTIPLES[2:9:2])


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((2, 31), np.uint8),
        np.zeros(32, np.uint8),
        np.zeros((2, 32), np.int8),
        np.zeros((1, 2, 32), np.uint8),
    ],
)
def test_arrays_of_another_form_are_refused(rows: np.ndarray) -> None:
    for use in (
        lambda: group.multiply_all(scalar(1), rows),
        lambda: group.multiply_each(rows, rows),
        lambda: group.invert_all(rows),
    ):
        with pytest.raises(ValueError, match="uint8"):
            use()


def test_lists_of_unequal_length_are_refused() -> None:
    rows = np.ones((3, 32), np.uint8)
    rows[:, 31] = 0
    with pytest.raises(ValueError, match="2 scalars for 3 points"):
        group.multiply_each(rows[:2], rows)


def test_a_random_source_that_gives_zero_or_too_little_is_refused() -> None:
    for source in (lambda n: bytes(n), lambda n: scalar(0) + bytes(n - 32)):
        with pytest.raises(ValueError, match="multiple of the group order"):
            group.random_scalar(source)
        with pytest.raises(ValueError, match="multiple of the group order"):
            group.random_scalars(source, 3)
    multiple = (5 * ORDER).to_bytes(64, "little")
    with pytest.raises(ValueError, match="multiple of the group order"):
        group.random_scalar(lambda n: multiple)
    with pytest.raises(ValueError):
        group.random_scalar(lambda n: bytes([1]) * 63)
    with pytest.raises(ValueError, match="63 bytes"):
        group.random_scalars(lambda n: bytes([1]) * 63, 1)


def test_one_request_serves_a_whole_list() -> None:
    requests: list[int] = []
    stream = SeededRandom(b"one request")

    def source(n: int) -> bytes:
        requests.append(n)
        return stream(n)

    group.random_scalars(source, 1000)
    assert requests == [64_000]


def test_hash_to_scalar_reduces_the_expanded_message() -> None:
    wide = group.expand_message(b"m", b"tag", 64)
    assert group.hash_to_scalar(b"m", b"tag") == scalar(int.from_bytes(wide, "little"))
    assert group.hash_to_scalar(b"m", b"tag") != group.hash_to_scalar(b"m", b"gat")
