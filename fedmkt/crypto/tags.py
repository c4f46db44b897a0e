"""Tags: pseudo-random outputs of items, cut short, and finding which of them two parties share.

A tag is long enough that no two different items of the pairs that are compared share one, but once in 2^40
runs. Whoever holds the own tags indexes them once, then looks up the other party's tags block by block as they
arrive. An output is two uint64 words; a tag is its first bytes, little-endian.

The other party may send whatever it likes. Only own tags are stored, so its duplicates cost what every other
tag costs; where a tag is looked for depends on a fresh key, so it cannot aim at crowded places.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import compiled, readable
from fedmkt.crypto.prg import Random

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

SECURITY_BITS = 40
OUTPUT_BYTES = 16
NOWHERE = -1
_KEY_WORDS = 5
_MOST_TAGS = 2**31


def tag_bytes(own: int, other: int) -> int:
    """Return the bytes of a tag where `own` x `other` pairs are compared: a false match once in 2^40 runs.

    By the union bound: pairs x 2^-bits <= 2^-40.
    """
    pairs = max(1, own) * max(1, other)
    # Whole numbers: the logarithm rounds down just above a power of two.
    return math.ceil((SECURITY_BITS + (pairs - 1).bit_length()) / 8)


def pack(outputs: Words, length: int) -> Bytes:
    """Cut outputs (n, 2) to tags (n, length)."""
    if outputs.ndim != 2 or outputs.shape[1] != 2 or outputs.dtype != np.uint64:
        raise ValueError(f"outputs are (n, 2) uint64, got {outputs.shape} {outputs.dtype}")
    _check_length(length)
    whole = outputs.astype("<u8", copy=False).view(np.uint8)
    return np.ascontiguousarray(whole[:, :length])


def unpack(tags: Bytes) -> Words:
    """Fill tags (n, length) up with zeros to words (n, 2)."""
    if tags.ndim != 2 or tags.dtype != np.uint8:
        raise ValueError(f"tags are (n, length) uint8, got {tags.shape} {tags.dtype}")
    _check_length(tags.shape[1])
    whole = np.zeros((len(tags), OUTPUT_BYTES), dtype=np.uint8)
    whole[:, : tags.shape[1]] = tags
    return whole.view("<u8").astype(np.uint64, copy=False)


@dataclass(frozen=True)
class Index:
    """Own tags, ready to be looked up. `places` holds the upper half of a tag's hash above its position + 1."""

    length: int
    tags: Words = field(repr=False)
    places: Words = field(repr=False)
    key: Words = field(repr=False)


def index(outputs: Words, length: int, random: Random) -> Index:
    """Index own outputs (n, 2), cut to `length` bytes; of equal tags only the first can be found."""
    if len(outputs) >= _MOST_TAGS:
        raise ValueError(f"at most 2^31 - 1 tags, got {len(outputs)}")
    own = unpack(pack(outputs, length))
    key = np.frombuffer(random(8 * _KEY_WORDS), dtype="<u8").astype(np.uint64)
    # A load of one half: a foreign tag meets 2.5 places on average, most often in one cache line.
    places = np.zeros(2 * len(own) + 8, dtype=np.uint64)
    _fill(readable(own), readable(key), places)
    return Index(length, readable(own), readable(places), readable(key))


def look(known: Index, tags: Bytes, first: int, found: Positions) -> None:
    """Look up a block of another party's tags (k, length), the first of which has position `first`.

    Writes positions into `found` (n,) in place: for each own tag, where the other party has it. A tag that was
    found before keeps its position.
    """
    if tags.ndim != 2 or tags.dtype != np.uint8 or tags.shape[1] != known.length:
        raise ValueError(f"tags are (k, {known.length}) uint8, got {tags.shape} {tags.dtype}")
    if found.shape != (len(known.tags),) or found.dtype != np.int64:
        raise ValueError(f"{len(known.tags)} own tags, but {found.shape} places for positions")
    _look(known.tags, known.places, known.key, readable(unpack(tags)), first, found)


def find(own: Bytes, other: Bytes, random: Random) -> Positions:
    """Return for each own tag (n, length) its first position among the other's (m, length), or NOWHERE."""
    found = np.full(len(own), NOWHERE, dtype=np.int64)
    look(index(unpack(own), own.shape[1], random), other, 0, found)
    return found


def _check_length(length: int) -> None:
    if not 0 < length <= OUTPUT_BYTES:
        raise ValueError(f"a tag has 1 to {OUTPUT_BYTES} bytes, not {length}")


# The hash of a tag is multilinear over its four 32-bit parts, modulo 2^64, under five random words: the upper
# half is pairwise independent (Dietzfelbinger 1996, Lemire and Kaser 2014), whoever chose the tags.


@compiled
def _fill(own: Words, key: Words, places: Words) -> None:
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1, k2, k3, k4 = key[0], key[1], key[2], key[3], key[4]
    size = np.uint64(len(places))
    for i in range(len(own)):
        a, b = own[i, 0], own[i, 1]
        mixed = (k0 + k1 * (a & low) + k2 * (a >> half) + k3 * (b & low) + k4 * (b >> half)) >> half
        at = np.int64((mixed * size) >> half)
        while places[at] != 0:
            if places[at] >> half == mixed:
                j = np.int64(places[at] & low) - 1
                if own[j, 0] == a and own[j, 1] == b:
                    break
            at = np.int64(at + 1) if at + 1 < len(places) else np.int64(0)
        if places[at] == 0:
            places[at] = mixed << half | np.uint64(i + 1)


@compiled
def _look(own: Words, places: Words, key: Words, other: Words, first: int, found: Positions) -> None:
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1, k2, k3, k4 = key[0], key[1], key[2], key[3], key[4]
    size = np.uint64(len(places))
    for i in range(len(other)):
        a, b = other[i, 0], other[i, 1]
        mixed = (k0 + k1 * (a & low) + k2 * (a >> half) + k3 * (b & low) + k4 * (b >> half)) >> half
        at = np.int64((mixed * size) >> half)
        while places[at] != 0:
            if places[at] >> half == mixed:
                j = np.int64(places[at] & low) - 1
                if own[j, 0] == a and own[j, 1] == b:
                    if found[j] < 0:
                        found[j] = first + i
                    break
            at = np.int64(at + 1) if at + 1 < len(places) else np.int64(0)
