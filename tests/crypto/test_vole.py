import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedmkt.crypto import gf128, ggm, okvs, vole
from fedmkt.crypto.aes import round_keys
from fedmkt.crypto.prg import SeededRandom, derive

SESSION = bytes(range(32))
ROOT = Path(__file__).resolve().parents[2]


def base_keys(seed=1):
    """Make what base transfers give: two keys for each bit of D, and the one of each bit."""
    random = np.random.default_rng(seed)
    zeros, ones = (random.integers(0, 256, (128, 16), dtype=np.uint8) for _ in range(2))
    delta = random.integers(0, 2**64, 2, dtype=np.uint64)
    chosen = np.where(vole.bits_of(delta)[:, None] == 1, ones, zeros)
    return zeros, ones, chosen, delta


def run(entries, seed=1):
    zeros, ones, chosen, delta = base_keys(seed)
    sizes = vole.size(entries)
    noise, corrections = vole.draw(zeros, ones, sizes, SeededRandom(b"holder%d" % seed), SESSION)
    B, sums = vole.expand(chosen, delta, corrections, sizes, SeededRandom(b"owner%d" % seed), SESSION)
    A = vole.unfold_values(noise, sizes, SESSION)
    C = vole.unfold_products(noise, sums, sizes, SESSION)
    return A, B, C, delta


def multiply(a, b):
    total = 0
    for i in range(128):
        total ^= (a << i) * (b >> i & 1)
    for i in range(254, 127, -1):
        total ^= ((1 << 128 | 0x87) << (i - 128)) * (total >> i & 1)
    return total


def stream(key, counters):
    blocks = b"".join(int(c).to_bytes(8, "little") + bytes(8) for c in counters)
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks)


def plain_compressed(head, tail):
    """Multiply by the code, written for reading; elements are integers."""
    n = len(tail)
    keys = derive(SESSION, b"fedmkt vole v1 code", length=48)
    for key in (keys[:16], keys[16:32]):
        # Four rows share one block of random bits.
        bits = np.frombuffer(stream(key, range(-(-n // 4))), "<u4").tolist()
        for i in range(n):
            for j in range(24):
                if bits[i] >> j & 1:
                    tail[(i + 1 + j) % n] ^= tail[i]
            tail[(i + 25) % n] = multiply(tail[(i + 25) % n] ^ tail[i], 4234123421)
    region = n // 11
    for k in range(len(head)):
        parts = np.frombuffer(stream(keys[32:], range(6 * k, 6 * k + 6)), "<u4").tolist()
        rows = [z * region + (parts[2 * z] * region >> 32) for z in range(11)]
        rows += [parts[2 * z + 1] * n >> 32 for z in range(10)]
        for row in rows:
            head[k] ^= tail[row]
    return head


def numbers(array):
    return [int(low) | int(high) << 64 for low, high in array]


@pytest.mark.parametrize("entries", [1, 2, 76, 799, 800, 801, 1500, 40_000])
def test_c_is_a_times_d_plus_b_in_every_entry(entries):
    A, B, C, delta = run(entries)
    assert A.shape == B.shape == C.shape == (entries, 2)
    assert np.array_equal(C, gf128.multiply_all(A, delta) ^ B)


def test_a_looks_uniform_and_is_fresh_every_time():
    A = np.concatenate([run(10_000, seed)[0] for seed in (1, 2)])
    counts = np.bincount(A.view(np.uint8).reshape(-1), minlength=256)
    expected = counts.sum() / 256
    assert abs(((counts - expected) ** 2 / expected).sum() - 255) / np.sqrt(510) < 5
    assert len(np.unique(A, axis=0)) == len(A)


def test_the_code_is_the_one_written_down():
    random = np.random.default_rng(3)
    sizes = vole.size(700)
    head, tail = (random.integers(0, 2**64, (sizes.half, 2), dtype=np.uint64) for _ in range(2))
    expected = plain_compressed(numbers(head[:700]), numbers(tail))
    assert numbers(vole._compressed(head, tail, sizes, SESSION)) == expected


def generator(sizes):
    """Return the code's matrix as columns: what each single noise position of the second half adds."""
    found = np.empty((sizes.half, sizes.entries, 2), np.uint64)
    for i in range(sizes.half):
        head, tail = (np.zeros((sizes.half, 2), np.uint64) for _ in range(2))
        tail[i, 0] = 1
        found[i] = vole._compressed(head, tail, sizes, SESSION)
    return found


def test_no_row_of_the_code_is_lighter_than_its_pseudo_distance_and_none_is_binary():
    sizes = vole.size(800)
    columns = generator(sizes)
    weights = 1 + (columns != 0).any(axis=2).sum(axis=0)
    assert weights.min() >= vole.PSEUDO_DISTANCE * 2 * sizes.half
    # Over one bit of the field alone, as an attacker on parts of it would see it, rows are heavy too.
    bit = 1 + (columns[:, :, 0] & np.uint64(1)).sum(axis=0)
    assert bit.min() >= vole.PSEUDO_DISTANCE * 2 * sizes.half
    is_binary = (columns[:, :, 1] == 0) & (columns[:, :, 0] <= 1)
    assert is_binary.mean() < 0.01
    # No position of noise, the last ones neither, reaches only few entries: the convolution goes around the end.
    assert (columns != 0).any(axis=2).sum(axis=1).min() > 0.9 * sizes.entries


def test_the_noise_weight_follows_the_published_formulas():
    assert vole.NOISE_WEIGHT == vole.noise_weight(0.20, 128) == 400
    # libOTe, getRegNoiseWeight: 64 bits over a large field; 128 bits over GF(2), where the bias is (1 - 2d)^t.
    assert vole.noise_weight(0.20, 64) == 200
    assert vole.noise_weight(2 * 0.20, 128) == 176
    assert vole.noise_weight(2 * 0.15, 128) == 256
    assert (1 - 0.20) ** 400 <= 2**-128
    with pytest.raises(ValueError, match="distance"):
        vole.noise_weight(0.6, 128)


@pytest.mark.parametrize("entries", [1, 76, 800, 801, 10**4, 10**6, 10**7, vole.MOST_ENTRIES])
def test_every_size_keeps_128_bits_against_the_known_attacks(entries):
    assert min(vole.security_bits(entries).values()) >= 128
    sizes = vole.size(entries)
    # Rate one half or less, and at least 128 noise positions, as the authors ask of every code.
    assert sizes.half >= entries and vole.NOISE_WEIGHT * sizes.leaves == 2 * sizes.half
    assert sizes.leaves >= 4 and vole.NOISE_WEIGHT >= 128
    assert sizes.half <= entries + 200 or entries < 800


def test_a_vole_has_at_least_one_entry_and_not_too_many():
    for entries in (0, -1, vole.MOST_ENTRIES + 1):
        with pytest.raises(ValueError, match="entries"):
            vole.size(entries)


def test_messages_of_another_shape_are_refused():
    zeros, ones, chosen, delta = base_keys()
    sizes = vole.size(10)
    noise, corrections = vole.draw(zeros, ones, sizes, SeededRandom(b"1"), SESSION)
    for wrong in (corrections[:127], corrections[:, 1:], corrections.astype(np.int64)):
        with pytest.raises(ValueError, match="corrections"):
            vole.expand(chosen, delta, wrong, sizes, SeededRandom(b"2"), SESSION)
    _, sums = vole.expand(chosen, delta, corrections, sizes, SeededRandom(b"2"), SESSION)
    for wrong in (vole.Sums(sums.masked[:-1], sums.totals), vole.Sums(sums.masked, sums.totals[:, :1])):
        with pytest.raises(ValueError, match="sums"):
            vole.unfold_products(noise, wrong, sizes, SESSION)
    with pytest.raises(ValueError, match="base transfers"):
        vole.draw(zeros[:100], ones, sizes, SeededRandom(b"1"), SESSION)


def test_corrections_show_nothing_of_the_noise_without_both_keys():
    zeros, ones, _, _ = base_keys()
    sizes = vole.size(5000)
    first, second = (vole.draw(zeros, ones, sizes, SeededRandom(s), SESSION)[1] for s in (b"1", b"2"))
    # One-time pads by session: under the same keys another session masks otherwise.
    other = vole.draw(zeros, ones, sizes, SeededRandom(b"1"), bytes(32))[1]
    for masked in (first, other ^ first):
        counts = np.bincount(masked.reshape(-1), minlength=256)
        expected = masked.size / 256
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) / np.sqrt(510) < 5
    # Two noises under one pad would differ by the same payload in every row: a session is used once.
    assert len(np.unique(first ^ second, axis=0)) == 1


def test_secrets_are_not_printed():
    zeros, ones, _, _ = base_keys()
    noise, _ = vole.draw(zeros, ones, vole.size(5), SeededRandom(b"1"), SESSION)
    assert repr(noise) == "Noise()"


def test_outputs_depend_on_point_item_and_session():
    random = np.random.default_rng(1)
    points, items = (random.integers(0, 2**64, (20, 2), dtype=np.uint64) for _ in range(2))
    found = [
        np.concatenate(vole.outputs(*given))
        for given in ((points, items, SESSION), (points ^ 1, items, SESSION), (points, items ^ 1, SESSION))
    ]
    found.append(np.concatenate(vole.outputs(points, items, bytes(32))))
    assert len(np.unique(np.concatenate(found), axis=0)) == 160
    with pytest.raises(ValueError, match="points and items"):
        vole.outputs(points, items[:-1], SESSION)


def fingerprint():
    """Hash what all kernels of the engine return for fixed inputs."""
    digest = hashlib.sha256()
    for part in run(900)[:3]:
        digest.update(part.tobytes())
    keys = round_keys(np.arange(48, dtype=np.uint8).reshape(3, 16))
    items = np.random.default_rng(1).integers(0, 2**64, (333, 2), dtype=np.uint64)
    table = okvs.encode(items, keys, bytes(32))
    for part in (table, okvs.decode(table, items ^ 1, keys, okvs.shape(333)), okvs.values(items, keys)):
        digest.update(part.tobytes())
    leaves = np.empty((4 * 37, 2), np.uint64)
    digest.update(ggm.grow(items[:4], 37, keys[:2], leaves).tobytes() + leaves.tobytes())
    for part in vole.outputs(items, items[::-1], SESSION):
        digest.update(part.tobytes())
    return digest.hexdigest()


def test_the_portable_path_gives_the_same_bytes():
    program = "from tests.crypto.test_vole import fingerprint; print(fingerprint())"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FEDMKT_PORTABLE": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == fingerprint()
