"""A seeded mutator, for machines without a coverage-guided one: it makes the same inputs every time."""

import random
from collections.abc import Iterator, Sequence

MOST_BYTES = 1 << 16
_TOKENS = (
    b"\x00", b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\n", b"\r\n", b'"', b"'", b"[" * 400, b"{", b"}",
    b"]", b"null", b"true", b"-1", b"0", b"1e999", b"9" * 5000, b"NaN", b"-Infinity", b"\xed\xa0\x80", b"\\ud800",
    "\u2028".encode(), b"\xef\xbb\xbf", b"=", b",", b";", b"\t", b'{"x":""}', b"[]", b"{}", b"2030-02-30", b"\\u0000",
)  # fmt: skip


def mutants(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Make `count` inputs from valid ones: each changed in one to four places."""
    draw = random.Random(seed)
    for _ in range(count):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.choice((1, 1, 1, 2, 2, 4))):
            draw.choice(_CHANGES)(data, draw, seeds)
        yield bytes(data[:MOST_BYTES])


def _at(data: bytearray, draw: random.Random) -> int:
    return draw.randrange(len(data) + 1)


def _flip(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _replace(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[draw.randrange(len(data))] = draw.choice((0, 0xFF, 0x7F, 0x22, 0x2D, draw.randrange(256)))


def _digit(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    """Change a number in text, which a flipped bit seldom leaves a number."""
    digits = [i for i, byte in enumerate(data[:4096]) if 0x30 <= byte <= 0x39]
    if digits:
        at = draw.choice(digits)
        data[at : at + 1] = draw.choice((b"-1", b"0", b"9", b"99999999999999999999", b"1.5", b"-0", b"1e9"))


def _insert(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    at = _at(data, draw)
    data[at:at] = draw.choice(_TOKENS)


def _overwrite(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    token, at = draw.choice(_TOKENS), _at(data, draw)
    data[at : at + len(token)] = token


def _remove(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    at = _at(data, draw)
    del data[at : at + draw.choice((1, 1, 2, 8, 64, 512))]


def _truncate(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    del data[_at(data, draw) :]


def _repeat(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    at, size = _at(data, draw), draw.choice((1, 4, 16, 100))
    data[at:at] = data[at : at + size] * draw.choice((1, 2, 50))


def _splice(data: bytearray, draw: random.Random, seeds: Sequence[bytes]) -> None:
    other, at = draw.choice(seeds), _at(data, draw)
    data[at:] = other[draw.randrange(len(other) + 1) :]


_CHANGES = (_flip, _flip, _replace, _digit, _digit, _insert, _overwrite, _remove, _truncate, _repeat, _splice)
