"""Silent VOLE over GF(2^128): one side gets random vectors A and C, the other a secret D and B, with C = A D + B.

`A` is 16 bytes long for each of millions of entries, yet some 2 MB are sent: A = G e is the syndrome of a
sparse secret vector e under a public code, and e D is shared by punctured trees (`ggm`).
Steps: 128 base transfers, in which the owner of D chooses by the bits of D; `draw` at the holder of e (Gilboa's
products e_i D, and the choices of OT extension, both from the same base transfers); `expand` at the owner of D;
`unfold` at the holder.

**Assumption.** Dual LPN over GF(2^128) with regular noise for the code below, and AES as an ideal cipher. The
noise: N positions in t equal parts of 2^d, t >= 400, one uniform non-zero element in each. The code, rate 1/2:
expand-convolute 21x24 of Raghuraman, Rindal and Tanguy, CRYPTO 2023 (eprint 2023/882), systematic, as its authors'
library osu-crypto/libOTe has it (`ExConvCode.h`; `ExConvConfigure` calls it conservative, beside the fast 7x24),
with three points of that library that are easily left out: it convolves twice and around the end, against
expansions that fall into one region; half of the expander is regular; and each step of the convolution multiplies
by a constant of GF(2^128), for a binary code falls apart into 128 codes over GF(2) that share their noise positions
(`mulConst`, against splitting attacks). The code is fresh for every session key.

**How t was chosen.** A linear test of relative weight d has bias (1 - d)^t where noise values are uniform in a
large field; for noise over GF(2) it is (1 - 2d)^t, so the tables for bits (t = 176 for this code and 128 bits) must
not be used here. The library takes the pseudo-distance d = 0.20 for 21x24 (0.15 for 7x24) and today asks of large
fields 64 bits against linear tests and 128 positions (`getRegNoiseWeight`: t = 200). We ask for all 128 bits, by
the same formula: t >= 400, and up to 802 where it takes that many parts of 2^d; more noise only makes the problem
harder. d is an estimate, not a bound: words of a code of rate 1/2 exist from d = 0.11 on over GF(2), but have to be
found. Regularity gains an attacker little here: to guess N - n positions without noise succeeds with probability
(n / N)^t <= 2^-400. Algebraic attacks (Briaud and Oygarden, EUROCRYPT 2023, eprint 2023/176) and decoders for regular
noise (Esser and Santini, CRYPTO 2024, eprint 2023/1568) win where positions are few or the rate is low: at rate 1/2
the library's authors find 128 bits with at most 107 positions. Liu, Wang, Yang and Yu (EUROCRYPT 2024, eprint
2022/712) estimate decoding over large fields. The assumption is younger than what OT extension rests on: a contract
has to name this engine.

**A holder that deviates.** What a base transfer j gives its owner is q_j = v_j + D_j u_j, where v_j (the stream of
bit 0) and u_j, its payload (noise values, choices of the sums, and 128 random bits), are fixed by what was sent. D
is hidden while all u_j are equal, whatever they are: the trees are full, so any choices leave one leaf of each tree
unknown, which masks what its total says of D. With different u_j the holder would read D (or need to know bits of
it). So the corrections are checked before the owner sends anything that depends on them. For a random linear hash h
over GF(2^128), sum of c_i times block i of a stream, with uniform c_i but 1 for the random last block, the holder
sends h(u) and all h(v_j), and the owner wants h(q_j) = h(v_j) + D_j h(u) of each j. The random block hides u; the
h(v_j) follow for the owner from what it has. Let b transfers be such that one of the two values of D_j would fail.
Then the check passes with probability <= 2^-b, and tells the holder these b bits, after which it is as if their
payload had been right; the other transfers have h(u_j) = h(u), hence equal u_j, but with probability C(128, 2)
2^-128 < 2^-115. So to have all of D is as likely as to guess it: 2^-128, and 2^-115 for each hash of Fiat-Shamir
tried before: the c_i are drawn from SHA-256 of session key and corrections, which costs no round and makes the
bound one on work. This is the check of Keller, Orsini and Scholl (CRYPTO 2015, eprint 2015/546) in the form of
Roy's SoftSpokenOT (CRYPTO 2022, eprint 2022/192), which hashes each transfer for itself: the original adds the
transfers up, and the proof has a gap there that Roy shows. A pad hashes a row with its number, as OT extension
against such holders needs (Guo et al., eprint 2019/074). The base transfers hide D from whoever offers them.

**An owner that deviates** is not checked: its sums need not be those of a tree. (Checks: Boyle et al., CCS 2019,
eprint 2019/1159; Weng, Yang, Katz, Wang, Wolverine, IEEE S&P 2021, eprint 2020/925.) So it can make C wrong in places
that depend on where the noise is, and if it sees where C was wrong it learns noisy positions: see `protocol.psi_vole`.
Letters: n entries, N positions, t parts and trees, d the depth of a tree, L = 2^d its leaves; elements as in `gf128`.
"""

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import readable
from fedmkt.crypto import aes, gf128, ggm, prg
from fedmkt.crypto.aes import encrypt, kernel
from fedmkt.crypto.prg import Random

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

BASE_TRANSFERS = 128
SECURITY_BITS = 128
PSEUDO_DISTANCE = 0.20
EXPANDER_WEIGHT = 21
WINDOW = 24
"""Random diagonals of the convolution; one more is all ones."""
MOST_ENTRIES = 1 << 30
_REGULAR = EXPANDER_WEIGHT - EXPANDER_WEIGHT // 2
_LEAST_DEPTH = 2
_CONSTANT = 4234123421  # of the library; any element that generates the field would do
_KEY_BYTES = 16
_BLOCK_BYTES = 16


def noise_weight(distance: float, bits: int) -> int:
    """Return the least t, a multiple of 8, with (1 - distance)^t <= 2^-bits: for noise over a large field."""
    if not 0 < distance <= 0.5:
        raise ValueError("the distance of a code is a share above 0, at most one half")
    return math.ceil(-bits / math.log2(1 - distance) / 8) * 8


NOISE_WEIGHT = noise_weight(PSEUDO_DISTANCE, SECURITY_BITS)
"""The least number of trees."""


class Inconsistent(ValueError):
    """The holder of the noise did not give the same payload to all base transfers."""


@dataclass(frozen=True)
class Size:
    """The sizes of one VOLE; both sides compute them from the number of entries."""

    entries: int
    depth: int
    trees: int

    @property
    def leaves(self) -> int:
        """L = 2^d."""
        return 1 << self.depth

    @property
    def half(self) -> int:
        """N / 2: entries that the code makes, of which the first n are used."""
        return self.trees // 2 * self.leaves

    @property
    def correction_bytes(self) -> int:
        """Bytes of the correction of one base transfer: noise values, choices in whole blocks, a random block."""
        return _BLOCK_BYTES * (self.trees + math.ceil(self.trees * self.depth / 128) + 1)


def size(entries: int) -> Size:
    """Return the sizes for this many entries: the deepest trees of which there are still enough."""
    if not 0 < entries <= MOST_ENTRIES:
        raise ValueError(f"a VOLE has 1 to {MOST_ENTRIES} entries, not {entries}")
    depth = max(_LEAST_DEPTH, (2 * entries // NOISE_WEIGHT).bit_length() - 1)
    return Size(entries, depth, max(NOISE_WEIGHT, 2 * math.ceil(entries / (1 << depth))))


def security_bits(entries: int) -> dict[str, float]:
    """Return the bits of work of the known attacks on the assumption, for the sizes of this many entries."""
    sizes = size(entries)
    return {
        "linear tests": -sizes.trees * math.log2(1 - PSEUDO_DISTANCE),
        "guessing positions without noise": sizes.trees * math.log2(2 * sizes.half / entries),
        "guessing the noisy positions": sizes.trees * sizes.depth,
    }


@dataclass(frozen=True)
class Noise:
    """The holder's secrets between `draw` and `unfold`.

    points : (t,) the noisy leaf of each tree; values : (t, 2) the noise; shares : (t, 2) of value times D;
    choices : (t, d); pads : (t, d, 2) of the taken sums.
    """

    points: ggm.Points = field(repr=False)
    values: Words = field(repr=False)
    shares: Words = field(repr=False)
    choices: Bytes = field(repr=False)
    pads: Words = field(repr=False)


@dataclass(frozen=True)
class Corrections:
    """What the holder of the noise sends.

    masked : (128, correction_bytes), the payload under the streams of each base transfer; check : (129, 2), the hashes
    of the streams of bit 0, then of the payload.
    """

    masked: Bytes
    check: Words


@dataclass(frozen=True)
class Sums:
    """What the owner of D sends for the trees.

    masked : (t, d, 4) sums of left and of right nodes, one of which the holder can read; totals : (t, 2), the sum
    of all leaves plus the owner's share of noise times D.
    """

    masked: Words
    totals: Words


def draw(zeros: Bytes, ones: Bytes, sizes: Size, random: Random, session: bytes) -> tuple[Noise, Corrections]:
    """Draw the noise at its holder, who offered the base transfers; return it and what to send.

    zeros, ones : (128, 16), the keys of bit 0 and 1; session : 32 bytes that both sides know and no other pair
    has.
    """
    points = _points(sizes, random)
    values = _uniform(sizes.trees, random)
    while not values.any(axis=1).all():
        values = _uniform(sizes.trees, random)
    choices = ggm.choices(points, sizes.depth)
    payload = _payload(values, choices, sizes, random)
    own = _streams(zeros, sizes, session)
    masked = own ^ _streams(ones, sizes, session) ^ payload
    check = hashes(np.concatenate([own, payload[None]]), masked, session)
    shares, columns = _split(own, sizes)
    pads = _pad(columns, _keys(session, b"transfer", 1)).reshape(sizes.trees, sizes.depth, 2)
    return Noise(points, values, shares, choices, pads), Corrections(masked, check)


def hashes(rows: Bytes, masked: Bytes, session: bytes) -> Words:
    """Hash rows (k, correction_bytes) of streams or payload to (k, 2), linearly, as the corrections `masked` say."""
    seed = hashlib.sha256(b"fedmkt vole v1 check" + session + masked.tobytes()).digest()
    factors = prg.words(seed, (rows.shape[1] // _BLOCK_BYTES, 2))
    # The last block is random: it hides the payload, under a factor that cannot be zero.
    factors[-1] = (1, 0)
    return gf128.combine(_elements(rows), factors)


def expand(
    chosen: Bytes, delta: Words, corrections: Corrections, sizes: Size, random: Random, session: bytes
) -> tuple[Words, Sums]:
    """Return B (n, 2) at the owner of D = delta (2,), and what to send.

    chosen : (128, 16), the keys of the bits of D. ValueError if the corrections have another shape, `Inconsistent`
    if the base transfers got different payloads; nothing has left the owner by then.
    """
    masked, check = corrections.masked, corrections.check
    if (
        masked.shape != (BASE_TRANSFERS, sizes.correction_bytes)
        or masked.dtype != np.uint8
        or check.shape != (BASE_TRANSFERS + 1, 2)
        or check.dtype != np.uint64
    ):
        raise ValueError("the corrections have another shape")
    bits = bits_of(delta)
    streams = _streams(chosen, sizes, session)
    streams ^= masked & (0 - bits)[:, None]
    expected = check[:-1] ^ check[-1] * bits.astype(np.uint64)[:, None]
    # All transfers are compared before anything is said: when and which failed would tell bits of D.
    if np.bitwise_or.reduce(hashes(streams, masked, session) ^ expected, axis=None):
        raise Inconsistent("the base transfers got different payloads")
    shares, columns = _split(streams, sizes)
    key = _keys(session, b"transfer", 1)
    pads = np.concatenate([_pad(columns, key), _pad(columns ^ delta, key)], axis=1)
    keys, cut = _keys(session, b"trees", ggm.KEYS), sizes.trees // 2
    roots = _uniform(sizes.trees, random)
    head, tail = (np.empty((sizes.half, 2), dtype=np.uint64) for _ in range(2))
    sums = np.concatenate(
        [
            ggm.grow(roots[:cut], sizes.depth, keys, head),
            ggm.grow(roots[cut:], sizes.depth, keys, tail),
        ]
    )
    totals = sums[:, -1, 0] ^ sums[:, -1, 1] ^ shares
    hidden = (sums.reshape(pads.shape) ^ pads).reshape(sizes.trees, sizes.depth, 4)
    return _compressed(head, tail, sizes, session), Sums(hidden, totals)


def unfold_values(noise: Noise, sizes: Size, session: bytes) -> Words:
    """Return A (n, 2) at the holder of the noise."""
    head, tail = (np.zeros((sizes.half, 2), dtype=np.uint64) for _ in range(2))
    at = np.arange(sizes.trees) * sizes.leaves + noise.points
    cut = sizes.trees // 2
    head[at[:cut]] = noise.values[:cut]
    tail[at[cut:] - sizes.half] = noise.values[cut:]
    return _compressed(head, tail, sizes, session)


def unfold_products(noise: Noise, sums: Sums, sizes: Size, session: bytes) -> Words:
    """Return C (n, 2) at the holder of the noise. ValueError if the sums have another shape."""
    if sums.masked.shape != (sizes.trees, sizes.depth, 4) or sums.totals.shape != (sizes.trees, 2):
        raise ValueError("the sums have another shape")
    taken = (
        np.where(noise.choices[:, :, None] == 1, sums.masked[:, :, 2:], sums.masked[:, :, :2]) ^ noise.pads
    )
    keys, cut, halves = _keys(session, b"trees", ggm.KEYS), sizes.trees // 2, []
    for part in (slice(0, cut), slice(cut, sizes.trees)):
        leaves = np.empty((sizes.half, 2), dtype=np.uint64)
        ggm.grow_punctured(noise.points[part], taken[part], sizes.depth, keys, leaves)
        # At its point a tree has the sum of the others: with the total it becomes the leaf plus value times D.
        at = np.arange(cut) * sizes.leaves + noise.points[part]
        leaves[at] ^= sums.totals[part] ^ noise.shares[part]
        halves.append(leaves)
    return _compressed(halves[0], halves[1], sizes, session)


def outputs(points: Words, items: Words, session: bytes) -> tuple[Words, Words]:
    """Hash each point (n, 2) with its item (n, 2) to two outputs (n, 2) that look independent and uniform.

    For s = E0(p) + p + x they are E1(s) + s and E2(s) + s, with AES under three keys of the session.
    """
    if points.shape != items.shape or points.ndim != 2 or points.shape[1] != 2:
        raise ValueError("points and items are (n, 2)")
    first, second = (np.empty(points.shape, dtype=np.uint64) for _ in range(2))
    flat = (readable(a).reshape(-1) for a in (points, items, _keys(session, b"outputs", 3)))
    _outputs(*flat, first.reshape(-1), second.reshape(-1))
    return first, second


def bits_of(delta: Words) -> Bytes:
    """Return the 128 bits of an element, the coefficient of X^0 first: the choices of the base transfers."""
    return np.unpackbits(delta.astype("<u8").view(np.uint8), bitorder="little")


def _uniform(count: int, random: Random) -> Words:
    return np.frombuffer(random(16 * count), "<u8").astype(np.uint64).reshape(count, 2)


def _points(sizes: Size, random: Random) -> ggm.Points:
    return (np.frombuffer(random(8 * sizes.trees), "<u8") % np.uint64(sizes.leaves)).astype(np.int64)


def _payload(values: Words, choices: Bytes, sizes: Size, random: Random) -> Bytes:
    payload = np.zeros(sizes.correction_bytes, dtype=np.uint8)
    cut = _BLOCK_BYTES * sizes.trees
    payload[:cut] = values.astype("<u8").view(np.uint8).reshape(-1)
    packed = np.packbits(choices.reshape(-1), bitorder="little")
    payload[cut : cut + len(packed)] = packed
    payload[-_BLOCK_BYTES:] = np.frombuffer(random(_BLOCK_BYTES), np.uint8)
    return payload


def _elements(rows: Bytes) -> Words:
    words = np.ascontiguousarray(rows).view("<u8").astype(np.uint64, copy=False)
    return words.reshape(len(rows), -1, 2)


def _keys(session: bytes, purpose: bytes, count: int) -> Words:
    derived = prg.derive(session, b"fedmkt vole v1 " + purpose, length=_KEY_BYTES * count)
    return aes.round_keys(np.frombuffer(derived, np.uint8).reshape(count, _KEY_BYTES))


def _streams(keys: Bytes, sizes: Size, session: bytes) -> Bytes:
    if keys.shape != (BASE_TRANSFERS, _KEY_BYTES):
        raise ValueError(f"a VOLE starts from {BASE_TRANSFERS} base transfers")
    info = b"fedmkt vole v1 stream"
    return np.stack(
        [prg.expand(prg.derive(k.tobytes(), info, session), sizes.correction_bytes) for k in keys]
    )


def _split(streams: Bytes, sizes: Size) -> tuple[Words, Words]:
    """Return the share of each product, (t, 2), and the rows of the OT extension, (t * d, 2)."""
    cut = _BLOCK_BYTES * sizes.trees
    shares = gf128.weighted_sum(_elements(streams[:, :cut]))
    bits = np.unpackbits(streams[:, cut:], axis=1, count=sizes.trees * sizes.depth, bitorder="little")
    rows = np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little")
    return shares, rows.view("<u8").astype(np.uint64, copy=False)


def _pad(rows: Words, key: Words) -> Words:
    """Hash row i to p(p(x) + i) + p(x), p being AES under the key (tweakable; Guo et al., eprint 2019/074)."""
    once = aes.encrypt_all(rows, key[0])
    tweaked = once.copy()
    tweaked[:, 0] ^= np.arange(len(rows), dtype=np.uint64)
    return aes.encrypt_all(tweaked, key[0]) ^ once


def _compressed(head: Words, tail: Words, sizes: Size, session: bytes) -> Words:
    """Return the first n entries of G (head, tail), in the memory of `head`; `tail` is used up."""
    keys = readable(_keys(session, b"code", 3)).reshape(-1)
    # Twice, and around the end: else an expansion into the last rows would stay there.
    _convolve(tail.reshape(-1), keys, 0)
    _convolve(tail.reshape(-1), keys, 22)
    found = head[: sizes.entries]
    _expand(found.reshape(-1), tail.reshape(-1), keys)
    return found


@kernel
def _outputs(points: Words, items: Words, keys: Words, first: Words, second: Words) -> None:
    n = points.size // 2
    source, hashed = np.zeros(16, np.uint64), np.empty(16, np.uint64)
    for start in range(0, n, 8):
        width = 2 * min(8, n - start)
        at = 2 * start
        for z in range(width):
            source[z] = points[at + z]
        encrypt(source, 0, hashed, 0, keys, 0, 8)
        for z in range(width):
            source[z] ^= hashed[z] ^ items[at + z]
        encrypt(source, 0, hashed, 0, keys, 22, 8)
        for z in range(width):
            first[at + z] = hashed[z] ^ source[z]
        encrypt(source, 0, hashed, 0, keys, 44, 8)
        for z in range(width):
            second[at + z] = hashed[z] ^ source[z]


@kernel
def _times_constant(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    # The constant has 32 bits, so what goes over X^128 has at most 31 and is folded once.
    l0, l1 = aes.multiply(a, np.uint64(_CONSTANT))
    h0, h1 = aes.multiply(b, np.uint64(_CONSTANT))
    folded = h1 ^ h1 << np.uint64(1) ^ h1 << np.uint64(2) ^ h1 << np.uint64(7)
    return l0 ^ folded, l1 ^ h0


@kernel
def _convolve(x: Words, keys: Words, key: int) -> None:
    """Add each row to the next 24 where a random bit says so, and to the 25th, which the constant multiplies."""
    n = x.size // 2
    counter, random = np.zeros(16, np.uint64), np.empty(16, np.uint64)
    one = np.uint64(1)
    for start in range(0, n, 32):
        for z in range(8):
            counter[2 * z] = np.uint64(start // 4 + z)
        encrypt(counter, 0, random, 0, keys, key, 8)
        for i in range(start, min(n, start + 32)):
            k = i - start
            bits = random[k >> 1] >> np.uint64(32 * (k & 1))
            a, b = x[2 * i], x[2 * i + 1]
            if i + WINDOW + 1 < n:
                p = np.uint64(2 * i + 2)
                for j in range(WINDOW):
                    mask = np.uint64(0) - (bits >> np.uint64(j) & one)
                    x[p + np.uint64(2 * j)] ^= a & mask
                    x[p + np.uint64(2 * j + 1)] ^= b & mask
                q = i + WINDOW + 1
            else:
                for j in range(WINDOW):
                    mask = np.uint64(0) - (bits >> np.uint64(j) & one)
                    q = (i + 1 + j) % n
                    x[2 * q] ^= a & mask
                    x[2 * q + 1] ^= b & mask
                q = (i + WINDOW + 1) % n
            c, d = _times_constant(x[2 * q] ^ a, x[2 * q + 1] ^ b)
            x[2 * q] = c
            x[2 * q + 1] = d


@kernel
def _expand(target: Words, x: Words, keys: Words) -> None:
    """Add 21 rows of x to each row of the target: one of each of 11 equal regions, and 10 from anywhere."""
    n = target.size // 2
    width = np.uint64(x.size // 2)
    region = width // np.uint64(_REGULAR)
    counter, random = np.zeros(16, np.uint64), np.empty(12 * 32, np.uint64)
    at = np.empty(2 * _REGULAR * 32, np.uint64)
    low, half, one = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(1)
    for start in range(0, n, 32):
        # First all places of 32 rows, then nothing but reading: dozens of reads are on their way at a time.
        for t in range(24):
            for z in range(8):
                counter[2 * z] = np.uint64(6 * start + 8 * t + z)
            encrypt(counter, 0, random, 16 * t, keys, 44, 8)
        for k in range(32):
            for z in range(_REGULAR):
                word, i = random[12 * k + z], 2 * _REGULAR * k + z
                at[i] = (np.uint64(z) * region + ((word & low) * region >> half)) << one
                at[i + _REGULAR] = ((word >> half) * width >> half) << one
        for k in range(min(32, n - start)):
            a, b = target[2 * (start + k)], target[2 * (start + k) + 1]
            for z in range(EXPANDER_WEIGHT):
                p = at[2 * _REGULAR * k + z]
                a ^= x[p]
                b ^= x[p + one]
            target[2 * (start + k)] = a
            target[2 * (start + k) + 1] = b
