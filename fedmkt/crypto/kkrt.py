"""A pseudo-random function of one point per bin, by OT extension: the receiver's item in each bin gets an output.

For each bin r the receiver knows the output of its own item x_r; the sender can compute the output of any item
there. Everything else looks random to the receiver, and the sender learns nothing about x_r.

From 64 w base transfers (the receiver of outputs is their sender) both expand columns of bits, one bit per bin:
the receiver both columns t0, t1 of each transfer, the sender the one of its secret bit s. In rows: the receiver
sends U_r = T0_r + T1_r + C(x_r); the sender has Q_r = T0_r + C(x_r) s (+ adds bits, products are bitwise). The
output of y in bin r is H(r, Q_r + C(y) s): for y = x_r that is H(r, T0_r); for any other y the receiver would have
to guess s where C(y) and C(x_r) differ.

C(x) = AES_k1(x) || AES_k2(x) || ... cut to w words, under keys that both drew after the items were fixed. w is so
large that no two different items which meet in one bin have codes closer than 128 bits, but once in 2^40 runs
(`code_words`). H chains four permutations, h <- AES_ki(h + row_i) + h + row_i, with the bin added after the first;
it is used as a correlation-robust hash, AES as an ideal permutation (Guo, Katz, Wang, Yu, S&P 2020, for one block).

**Semi-honest parties only**: a receiver whose rows hold no code words learns s bit by bit, then any output. Source:
Kolesnikov, Kumaresan, Rosulek, Trieu, Efficient Batched Oblivious PRF, CCS 2016, figure 2 and section 5 (table 1 has
424 to 448 bits). Bins without an item carry the code of a random one.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import readable
from fedmkt.crypto import aes, cuckoo
from fedmkt.crypto.prg import derive

Words = NDArray[np.uint64]
HalfWords = NDArray[np.uint32]
Bytes = NDArray[np.uint8]

DISTANCE = 128
SECURITY_BITS = 40
NARROW, WIDE = 7, 8
CHUNK = 1024
"""Rows that are expanded and transposed together: eight blocks of each column."""
MOST_ITEMS = 2**30
_KEYS = 4
_BATCH = 64


def log2_near(words: int) -> float:
    """Return log2 of the probability that two random codes of 64 w bits differ in less than 128, exactly."""
    bits = 64 * words
    return math.log2(sum(math.comb(bits, i) for i in range(DISTANCE))) - bits


def code_words(items: int) -> int:
    """Return the width w of the code where the sender has `items`: 7 words (448 bits), or 8.

    Each of its items meets one item of the receiver in each of three bins; by the union bound over these 3 m
    pairs, two that differ are closer than 128 bits once in 2^40 runs at most. 448 bits do up to 31.9 million.
    """
    pairs = cuckoo.HASHES * max(1, items)
    for words in (NARROW, WIDE):
        if math.log2(pairs) + log2_near(words) <= -SECURITY_BITS:
            return words
    raise ValueError(f"{items} items are more than the code is wide enough for")


@dataclass(frozen=True)
class Keys:
    """Round keys that both parties derive from the session's key: of the code, of the hash, and of proofs."""

    code: Words = field(repr=False)
    hash: Words = field(repr=False)
    proof: Words = field(repr=False)


def session_keys(secret: bytes) -> Keys:
    """Derive the keys of a session."""
    material = np.frombuffer(
        derive(secret, b"fedmkt kkrt keys v1", length=16 * (2 * _KEYS + 1)), dtype=np.uint8
    )
    schedule = aes.round_keys(material.reshape(-1, 16))
    code, hashing = schedule[:_KEYS].reshape(-1), schedule[_KEYS : 2 * _KEYS].reshape(-1)
    return Keys(readable(code), readable(hashing), readable(schedule[2 * _KEYS]))


def proofs(values: Words, keys: Keys) -> Bytes:
    """Return what shows that one knows items (n, 2): a keyed hash of each, whatever bin it lies in; (n, 16)."""
    hashed = aes.encrypt_all(values, keys.proof)
    hashed ^= values
    return hashed.astype("<u8", copy=False).view(np.uint8)


@dataclass(frozen=True)
class Extension:
    """What the receiver makes of some bins: rows to send (bins, w), and outputs of its items there (items, 2)."""

    rows: Words
    outputs: Words


def extend(
    seeds: tuple[Words, Words], keys: Keys, values: Words, items: NDArray[np.int32], first: int, filler: Words
) -> Extension:
    """Make rows and own outputs of the bins from `first` on; `first` is a multiple of CHUNK.

    seeds : round keys of both columns of each transfer, (64 w, 22); values : own items (n, 2); items : which of
    them lies in each of these bins; filler : two random words, for bins without one.
    """
    if first % CHUNK:
        raise ValueError(f"bins are extended in chunks of {CHUNK}, not from {first}")
    width = len(seeds[0]) // 64
    rows = np.empty((len(items), width), dtype=np.uint64)
    outputs = np.empty((int(np.count_nonzero(items >= 0)), 2), dtype=np.uint64)
    zero, one = (readable(s).reshape(-1) for s in seeds)
    own = readable(values).reshape(-1)
    _extend(zero, one, keys.code, keys.hash, own, readable(items), first, readable(filler), rows, outputs)
    return Extension(rows, outputs)


@dataclass(frozen=True)
class Meetings:
    """In which block of bins each of the sender's items is, three times.

    entries : (3 m,), item x 4 + number of the hash, by block of bins; ends : of each block in `entries`.
    """

    entries: HalfWords = field(repr=False)
    ends: NDArray[np.int64] = field(repr=False)


def meet(values: Words, key: bytes, bins: int, block: int) -> Meetings:
    """Sort the bins of the sender's items (m, 2) by blocks of `block` bins, so that rows are used as they come."""
    if len(values) >= MOST_ITEMS:
        raise ValueError(f"at most 2^30 - 1 items, got {len(values)}")
    entries = np.empty(cuckoo.HASHES * len(values), dtype=np.uint32)
    ends = np.zeros(max(1, -(-bins // block)), dtype=np.int64)
    own, schedule = readable(values).reshape(-1), readable(cuckoo.hash_keys(key))
    _count(own, schedule, np.uint64(bins), np.uint64(block), ends)
    ends[:] = np.cumsum(ends) - ends
    _sort(own, schedule, np.uint64(bins), np.uint64(block), ends, entries)
    return Meetings(entries, ends)


def receive(seeds: Words, choices: Words, rows: Words, first: int) -> Words:
    """Return the sender's rows Q (bins, w) for the receiver's rows of the bins from `first` on.

    seeds : round keys of the chosen columns, (64 w, 22); choices : the chosen bits, (w,).
    """
    if first % CHUNK or rows.ndim != 2 or rows.shape[1] * 64 != len(seeds) or len(choices) * 64 != len(seeds):
        raise ValueError("rows, seeds and choices do not fit together")
    out = np.empty_like(rows, order="C")
    _receive(readable(seeds).reshape(-1), readable(choices), readable(rows), first, out)
    return out


def evaluate(
    rows: Words,
    choices: Words,
    keys: Keys,
    values: Words,
    placement: tuple[bytes, int],
    entries: HalfWords,
    first: int,
    tags: Bytes,
) -> None:
    """Write into `tags` (3, m, length) the outputs of the sender's items that lie in the bins of these rows.

    rows : Q of the bins from `first` on; placement : key of the bins' hash and number of bins; entries : those
    of `Meetings` for these bins. Other places of `tags` are left alone.
    """
    schedule, bins = readable(cuckoo.hash_keys(placement[0])), np.uint64(placement[1])
    own = readable(values).reshape(-1)
    _evaluate(
        readable(rows),
        readable(choices),
        keys.code,
        keys.hash,
        own,
        schedule,
        bins,
        readable(entries),
        np.uint64(first),
        tags,
    )


# Eight items are worked on at once. Their blocks lie side by side: word w of block j of item i is at 16 j + 2 i + w.


@aes.kernel
def _columns(keys: Words, group: int, chunk: int, counters: Words, flat: Words) -> None:
    """Expand 64 columns of one chunk and transpose them: word l of row i is then 64 bits of bin 64 l + i."""
    for i in range(8):
        counters[2 * i], counters[2 * i + 1] = np.uint64(8 * chunk + i), np.uint64(0)
    for i in range(64):
        aes.encrypt(counters, 0, flat, 16 * i, keys, 22 * (64 * group + i), 8)
    # Sixteen matrices of 64 x 64 bits side by side (Warren, Hacker's Delight, section 7-3).
    width = 32
    mask = np.uint64(0x00000000FFFFFFFF)
    while width:
        k = 0
        shift = np.uint64(width)
        while k < 64:
            for column in range(16):
                low, high = 16 * k + column, 16 * (k + width) + column
                swapped = (flat[low] >> shift ^ flat[high]) & mask
                flat[low] ^= swapped << shift
                flat[high] ^= swapped
            k = (k + width + 1) & ~width
        width >>= 1
        mask ^= mask << np.uint64(width)


@aes.kernel
def _encode(items: Words, first: int, keys: Words, codes: Words) -> None:
    """Write the codes of the eight items at items[first:]."""
    for j in range(4):
        aes.encrypt(items, first, codes, 16 * j, keys, 22 * j, 8)


@aes.kernel
def _hash(rows: Words, bins: Words, first: int, keys: Words, state: Words, mixed: Words) -> None:
    """Hash eight rows, each with its bin at bins[first:], into `state`."""
    for z in range(16):
        state[z] = 0
    for j in range(4):
        for z in range(16):
            state[z] ^= rows[16 * j + z]
        aes.encrypt(state, 0, mixed, 0, keys, 22 * j, 8)
        for z in range(16):
            state[z] ^= mixed[z]
        if j == 0:
            for i in range(8):
                state[2 * i] ^= bins[first + i]


@aes.kernel
def _extend(
    zero: Words,
    one: Words,
    code: Words,
    hashing: Words,
    values: Words,
    items: NDArray[np.int32],
    first: int,
    filler: Words,
    rows: Words,
    outputs: Words,
) -> None:
    count, width = rows.shape
    counters = np.empty(16, dtype=np.uint64)
    left, right = np.empty(1024, dtype=np.uint64), np.empty(1024, dtype=np.uint64)
    own = np.zeros((CHUNK, 8), dtype=np.uint64)
    x, codes = np.empty(16, dtype=np.uint64), np.empty(64, dtype=np.uint64)
    waiting, bins = np.zeros(64, dtype=np.uint64), np.zeros(8, dtype=np.uint64)
    state, mixed = np.empty(16, dtype=np.uint64), np.empty(16, dtype=np.uint64)
    queued, written = 0, 0
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        for group in range(width):
            _columns(zero, group, (first + start) // CHUNK, counters, left)
            _columns(one, group, (first + start) // CHUNK, counters, right)
            for r in range(size):
                at = 16 * (r % 64) + r // 64
                own[r, group] = left[at]
                rows[start + r, group] = left[at] ^ right[at]
        for r in range(0, size, 8):
            here = min(8, size - r)
            for i in range(here):
                item = np.int64(items[start + r + i])
                if item >= 0:
                    x[2 * i], x[2 * i + 1] = values[2 * item], values[2 * item + 1]
                else:
                    x[2 * i], x[2 * i + 1] = filler[0] + np.uint64(first + start + r + i), filler[1]
            _encode(x, 0, code, codes)
            for i in range(here):
                for w in range(width):
                    rows[start + r + i, w] ^= codes[16 * (w >> 1) + 2 * i + (w & 1)]
        for r in range(size):
            if items[start + r] < 0:
                continue
            for w in range(width):
                waiting[16 * (w >> 1) + 2 * queued + (w & 1)] = own[r, w]
            bins[queued] = np.uint64(first + start + r)
            queued += 1
            if queued == 8:
                _hash(waiting, bins, 0, hashing, state, mixed)
                for z in range(16):
                    outputs[written + (z >> 1), z & 1] = state[z]
                written, queued = written + 8, 0
    if queued:
        _hash(waiting, bins, 0, hashing, state, mixed)
        for z in range(2 * queued):
            outputs[written + (z >> 1), z & 1] = state[z]


@aes.kernel
def _receive(keys: Words, choices: Words, rows: Words, first: int, out: Words) -> None:
    count, width = rows.shape
    counters, flat = np.empty(16, dtype=np.uint64), np.empty(1024, dtype=np.uint64)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        for group in range(width):
            _columns(keys, group, (first + start) // CHUNK, counters, flat)
            for r in range(size):
                out[start + r, group] = (
                    flat[16 * (r % 64) + r // 64] ^ rows[start + r, group] & choices[group]
                )


@aes.kernel
def _count(values: Words, keys: Words, bins: np.uint64, block: np.uint64, counts: NDArray[np.int64]) -> None:
    x, hashed = np.zeros(16, dtype=np.uint64), np.empty(16, dtype=np.uint64)
    n = len(values) // 2
    for start in range(0, n, 8):
        here = min(8, n - start)
        for z in range(2 * here):
            x[z] = values[2 * start + z]
        aes.encrypt(x, 0, hashed, 0, keys, 0, 8)
        for i in range(here):
            for at in cuckoo.bins_of(hashed[2 * i], hashed[2 * i + 1], bins):
                counts[at // block] += 1


@aes.kernel
def _sort(
    values: Words,
    keys: Words,
    bins: np.uint64,
    block: np.uint64,
    ends: NDArray[np.int64],
    entries: HalfWords,
) -> None:
    """Write the entries of each block from ends[block] on, and leave there where they end."""
    x, hashed = np.zeros(16, dtype=np.uint64), np.empty(16, dtype=np.uint64)
    n = len(values) // 2
    for start in range(0, n, 8):
        here = min(8, n - start)
        for z in range(2 * here):
            x[z] = values[2 * start + z]
        aes.encrypt(x, 0, hashed, 0, keys, 0, 8)
        for i in range(here):
            for number, at in enumerate(cuckoo.bins_of(hashed[2 * i], hashed[2 * i + 1], bins)):
                entries[ends[at // block]] = 4 * (start + i) + number
                ends[at // block] += 1


@aes.kernel
def _evaluate(
    rows: Words,
    choices: Words,
    code: Words,
    hashing: Words,
    values: Words,
    placing: Words,
    bins: np.uint64,
    entries: HalfWords,
    first: np.uint64,
    tags: Bytes,
) -> None:
    width, length = rows.shape[1], tags.shape[2]
    x, hashed = np.zeros(2 * _BATCH, dtype=np.uint64), np.empty(16, dtype=np.uint64)
    at, own = np.zeros(_BATCH, dtype=np.uint64), np.zeros((_BATCH, 8), dtype=np.uint64)
    codes, masked = np.empty(64, dtype=np.uint64), np.zeros(64, dtype=np.uint64)
    state, mixed = np.empty(16, dtype=np.uint64), np.empty(16, dtype=np.uint64)
    for start in range(0, len(entries), _BATCH):
        here = min(_BATCH, len(entries) - start)
        for i in range(here):
            item = np.int64(entries[start + i] >> np.uint32(2))
            x[2 * i], x[2 * i + 1] = values[2 * item], values[2 * item + 1]
        for eight in range(0, here, 8):
            aes.encrypt(x, 2 * eight, hashed, 0, placing, 0, 8)
            for i in range(8):
                if eight + i < here:
                    number = entries[start + eight + i] & np.uint32(3)
                    one, two, three = cuckoo.bins_of(hashed[2 * i], hashed[2 * i + 1], bins)
                    at[eight + i] = one if number == 0 else two if number == 1 else three
        # A loop of its own, so short that the processor waits for many rows at a time.
        for i in range(here):
            row = at[i] - first
            for w in range(width):
                own[i, w] = rows[row, w]
        for eight in range(0, here, 8):
            _encode(x, 2 * eight, code, codes)
            for i in range(8):
                for w in range(width):
                    z = 16 * (w >> 1) + 2 * i + (w & 1)
                    masked[z] = own[eight + i, w] ^ codes[z] & choices[w]
            _hash(masked, at, eight, hashing, state, mixed)
            for i in range(min(8, here - eight)):
                entry = entries[start + eight + i]
                item, number = np.int64(entry >> np.uint32(2)), entry & np.uint32(3)
                for z in range(length):
                    word = state[2 * i + (z >> 3)]
                    tags[number, item, z] = word >> np.uint64(8 * (z & 7)) & np.uint64(0xFF)
