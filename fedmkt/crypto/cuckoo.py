"""Cuckoo hashing: every item of a list in a bin of its own, one of the three that a keyed hash names for it.

No stash, and no item is ever dropped. A placement exists unless some k items have fewer than k bins between
them. Take the smallest such set: its k items share exactly b = k - 1 bins, and each of these is named by two of
them or more. By the union bound over all such sets, n items in m bins have no placement with probability below

    sum over k >= 4 of  C(n, k) C(m, b) N(k) / (m (m-1) (m-2))^k,
    N(k) = min( (3k)! [z^3k] (e^z - 1 - z)^b,  (b (b-1) (b-2))^k ),

where N(k) bounds the ways in which k items name bins among those b, three distinct ones each; the coefficient is at
most its function at any z divided by z^3k. With `bins_for` the sum is below 2^-41 for every n (`log2_failure`;
Pinkas, Schneider, Zohner, TOPS 2018, measured and extrapolated 1.27 n, this is a proof and costs 2 % more). The
search finds a placement if there is one: a random walk, and where that is long the shortest augmenting path.

Where there is none, a fresh key is drawn. The other party sees only the last key: one drawn uniformly among those
that place the list. For any list this is within statistical distance 2^-41 of a uniform key, so that two lists
cannot be told apart by it with an advantage above 2^-40.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import readable
from fedmkt.crypto import aes
from fedmkt.crypto.prg import Random

Words = NDArray[np.uint64]
Places = NDArray[np.uint32]

HASHES = 3
KEY_BYTES = 16
EMPTY = -1
MOST_BINS = 2**31 - 1
_TRIES = 8
_LONG_WALK = 500


@dataclass(frozen=True)
class Placement:
    """Which item lies in which bin.

    key : of the hash; items : (bins,), EMPTY where there is none; numbers : (bins,), the item's hash that names
    this bin, 0 to 2.
    """

    key: bytes = field(repr=False)
    items: NDArray[np.int32] = field(repr=False)
    numbers: NDArray[np.uint8] = field(repr=False)


def bins_for(items: int) -> int:
    """Return how many bins a list needs, so that no placement exists once in 2^41 keys at most."""
    bins = -(-1297 * items // 1000) + 128
    if bins > MOST_BINS:
        raise ValueError(f"{items} items are more than can be placed")
    return bins


def log2_failure(items: int, bins: int) -> float:
    """Bound the probability that no placement exists, as its logarithm (the sum of the module's docstring).

    For more than 10,000 items the sum is taken over a grid of k with weights: its terms are smooth in k.
    """
    if items < 4:
        return -math.inf
    few = np.arange(4, min(items, 5000) + 1)
    many = np.unique(np.geomspace(few[-1], items, 5000).astype(np.int64))
    k = np.unique(np.concatenate([few, many])).astype(np.float64)
    weights = np.diff(np.append(k, k[-1] + 1))
    b = k - 1
    triples = k * math.log(float(bins) * (bins - 1) * (bins - 2))
    each_twice = _log_factorial(3 * k) + _log_coefficient(k, b)
    anywhere = k * np.log(b * (b - 1) * (b - 2))
    terms = _log_choose(items, k) + _log_choose(bins, b) + np.minimum(each_twice, anywhere) - triples
    most = float(terms.max())
    return (most + math.log(float((np.exp(terms - most) * weights).sum()))) / math.log(2)


def _log_factorial(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([math.lgamma(v + 1) for v in x.tolist()])


def _log_choose(n: int, k: NDArray[np.float64]) -> NDArray[np.float64]:
    return math.lgamma(n + 1) - _log_factorial(k) - _log_factorial(n - k)


def _log_coefficient(k: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bound the logarithm of [z^3k] (e^z - 1 - z)^b by its least value over z, found by halving."""
    low, high = np.full_like(k, 1e-9), np.full_like(k, 50.0)
    for _ in range(60):
        z = (low + high) / 2
        is_below = z * np.expm1(z) / (np.expm1(z) - z) < 3 * k / b
        low, high = np.where(is_below, z, low), np.where(is_below, high, z)
    return b * np.log(np.expm1(high) - high) - 3 * k * np.log(high)


def hash_keys(key: bytes) -> Words:
    """Return the round keys of a placement's hash, (22,), from its 16 bytes."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key of a placement has {KEY_BYTES} bytes, not {len(key)}")
    return aes.round_keys(np.frombuffer(key, dtype=np.uint8).reshape(1, -1)).reshape(-1)


def places(values: Words, key: bytes, bins: int) -> Places:
    """Return the three distinct bins of each item (n, 2), in the order of the hashes; (n, 3)."""
    if bins < HASHES or bins > MOST_BINS:
        raise ValueError(f"{HASHES} to {MOST_BINS} bins, not {bins}")
    out = np.empty((len(values), HASHES), dtype=np.uint32)
    _places(readable(values).reshape(-1), readable(hash_keys(key)), np.uint64(bins), out)
    return out


def place(values: Words, bins: int, random: Random) -> Placement:
    """Place distinct items (n, 2) under a fresh key; ValueError if eight keys fail: the items are not distinct."""
    for _ in range(_TRIES):
        key, start = random(KEY_BYTES), random(8)
        items, numbers = np.full(bins, EMPTY, dtype=np.int32), np.zeros(bins, dtype=np.uint8)
        walk = np.uint64(int.from_bytes(start, "little") | 1)
        if _place(readable(places(values, key, bins)), items, numbers, walk):
            return Placement(key, items, numbers)
    raise ValueError(
        f"{len(values)} items cannot be placed in {bins} bins: they are not distinct, or too many"
    )


@aes.kernel
def scaled(part: np.uint64, size: np.uint64) -> np.uint64:
    """Map 42 bits to 0 ... size - 1, the floor of part x size / 2^42; size below 2^31."""
    half, low = np.uint64(21), np.uint64((1 << 21) - 1)
    return ((part >> half) * size + ((part & low) * size >> half)) >> half


@aes.kernel
def bins_of(a: np.uint64, b: np.uint64, bins: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Map 128 random bits to three distinct bins, uniform up to 2^-11 even for 2^31 of them."""
    one, part = np.uint64(1), np.uint64((1 << 42) - 1)
    first = scaled(a & part, bins)
    second = scaled((a >> np.uint64(42) | b << np.uint64(22)) & part, bins - one)
    if second >= first:
        second += one
    third = scaled(b >> np.uint64(20) & part, bins - np.uint64(2))
    if third >= min(first, second):
        third += one
    if third >= max(first, second):
        third += one
    return first, second, third


@aes.kernel
def _places(values: Words, keys: Words, bins: np.uint64, out: Places) -> None:
    hashed, padded = np.empty(16, dtype=np.uint64), np.zeros(16, dtype=np.uint64)
    n = len(out)
    for start in range(0, n, 8):
        count = min(8, n - start)
        if count == 8:
            aes.encrypt(values, 2 * start, hashed, 0, keys, 0, 8)
        else:
            for i in range(2 * count):
                padded[i] = values[2 * start + i]
            aes.encrypt(padded, 0, hashed, 0, keys, 0, 8)
        for i in range(count):
            first, second, third = bins_of(hashed[2 * i], hashed[2 * i + 1], bins)
            out[start + i, 0], out[start + i, 1], out[start + i, 2] = first, second, third


@aes.kernel
def _place(places: Places, items: NDArray[np.int32], numbers: NDArray[np.uint8], walk: np.uint64) -> bool:
    for new in range(len(places)):
        homeless = _walk(places, items, numbers, new, walk)
        walk = walk * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        if homeless >= 0 and not _push(places, items, numbers, homeless):
            return False
    return True


@aes.kernel
def _walk(
    places: Places, items: NDArray[np.int32], numbers: NDArray[np.uint8], new: int, walk: np.uint64
) -> np.int64:
    """Put an item into a free bin, or move others at random; return who is left without one, or -1."""
    item, barred = np.int64(new), np.int64(-1)
    for _ in range(_LONG_WALK):
        for number in range(3):
            at = places[item, number]
            if items[at] < 0:
                items[at], numbers[at] = item, number
                return np.int64(-1)
        walk ^= walk << np.uint64(13)
        walk ^= walk >> np.uint64(7)
        walk ^= walk << np.uint64(17)
        turn = np.int64(walk % np.uint64(3))
        if turn == barred:
            turn = np.int64((turn + 1) % 3)
        at = places[item, turn]
        other, barred_there = items[at], numbers[at]
        items[at], numbers[at] = item, turn
        item, barred = np.int64(other), np.int64(barred_there)
    return item


@aes.kernel
def _push(places: Places, items: NDArray[np.int32], numbers: NDArray[np.uint8], item: int) -> bool:
    """Make room along the shortest path to a free bin; False if there is none, then no placement exists."""
    bins = len(items)
    # The bin before each one on the path, and the hash by which its item would move there.
    before, by = np.full(bins, -2, dtype=np.int32), np.empty(bins, dtype=np.uint8)
    queue = np.empty(bins, dtype=np.int32)
    known, done = 0, 0
    for number in range(3):
        at = places[item, number]
        before[at], by[at] = -1, number
        queue[known] = at
        known += 1
    while done < known:
        at = np.int64(queue[done])
        done += 1
        if items[at] >= 0:
            for number in range(3):
                to = places[items[at], number]
                if before[to] == -2:
                    before[to], by[to] = at, number
                    queue[known] = to
                    known += 1
            continue
        while before[at] >= 0:
            origin = np.int64(before[at])
            items[at], numbers[at] = items[origin], by[at]
            at = origin
        items[at], numbers[at] = item, by[at]
        return True
    return False
