import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedmkt.crypto import gf128, ggm, okvs, vole
from fedmkt.crypto.aes import encrypt_all, round_keys
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


@pytest.mark.parametrize("entries", [1, 76, 800, 801, 1599, 1600, 10**4, 10**6, 10**7, vole.MOST_ENTRIES])
def test_every_size_keeps_128_bits_against_the_known_attacks(entries):
    assert min(vole.security_bits(entries).values()) >= 128
    sizes = vole.size(entries)
    # Rate one half or less, and at least 128 noise positions, as the authors ask of every code.
    assert sizes.half >= entries and sizes.trees * sizes.leaves == 2 * sizes.half
    assert sizes.leaves == 2**sizes.depth >= 4
    assert vole.NOISE_WEIGHT <= sizes.trees <= 2 * vole.NOISE_WEIGHT + 2 and vole.NOISE_WEIGHT >= 128
    assert sizes.half <= 1.005 * entries or entries < 800


def test_a_vole_has_at_least_one_entry_and_not_too_many():
    for entries in (0, -1, vole.MOST_ENTRIES + 1):
        with pytest.raises(ValueError, match="entries"):
            vole.size(entries)


def test_messages_of_another_shape_are_refused():
    zeros, ones, chosen, delta = base_keys()
    sizes = vole.size(10)
    noise, corrections = vole.draw(zeros, ones, sizes, SeededRandom(b"1"), SESSION)
    masked, check = corrections.masked, corrections.check
    for wrong in (
        replace(corrections, masked=masked[:127]),
        replace(corrections, masked=masked[:, 1:]),
        replace(corrections, masked=masked.astype(np.int64)),
        replace(corrections, check=check[1:]),
        replace(corrections, check=check[:, :1]),
        replace(corrections, check=check.astype(np.uint8)),
    ):
        with pytest.raises(ValueError, match="corrections"):
            vole.expand(chosen, delta, wrong, sizes, SeededRandom(b"2"), SESSION)
    _, sums = vole.expand(chosen, delta, corrections, sizes, SeededRandom(b"2"), SESSION)
    for wrong in (vole.Sums(sums.masked[:-1], sums.totals), vole.Sums(sums.masked, sums.totals[:, :1])):
        with pytest.raises(ValueError, match="sums"):
            vole.unfold_products(noise, wrong, sizes, SESSION)
    with pytest.raises(ValueError, match="base transfers"):
        vole.draw(zeros[:100], ones, sizes, SeededRandom(b"1"), SESSION)


def grown_by_hand(size, taken, keys):
    """Grow every leaf that follows from the left sums of all levels, (d, 2): all that lie off the rightmost path."""
    nodes = {0: None}
    for k in range(size.depth):
        below = {}
        for i, node in nodes.items():
            for b in (0, 1):
                # Nodes behind the last leaf are not grown.
                if (2 * i + b) << (size.depth - 1 - k) < size.leaves:
                    grown = None if node is None else encrypt_all(node[None], keys[b])[0] ^ node
                    below[2 * i + b] = grown
        other = 2 * ((1 << k) - 1)
        if other in below:
            known = [node for i, node in below.items() if i % 2 == 0 and i != other]
            below[other] = np.bitwise_xor.reduce(np.array([taken[k], *known]), axis=0)
        nodes = below
    return [nodes[i] for i in range(size.leaves)]


@pytest.mark.parametrize("entries", [5, 900, 3000])
def test_a_holder_that_takes_the_left_sum_of_every_level_still_lacks_a_leaf(entries):
    zeros, ones, chosen, delta = base_keys()
    sizes = vole.size(entries)
    keys = vole._keys(SESSION, b"trees", 2)
    random = SeededRandom(b"1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ggm, "choices", lambda points, depth: np.zeros((len(points), sizes.depth), np.uint8))
        noise, corrections = vole.draw(zeros, ones, sizes, random, SESSION)
    choices = noise.choices
    assert not choices.any()
    _, sums = vole.expand(chosen, delta, corrections, sizes, random, SESSION)
    for tree in (0, len(choices) - 1):
        taken = sums.masked[tree, :, :2] ^ noise.pads[tree]
        leaves = grown_by_hand(sizes, taken, keys)
        # The total would be the sum of all leaves and the owner's share of noise times D: the last one hides it.
        assert [i for i, leaf in enumerate(leaves) if leaf is None] == [sizes.leaves - 1]
        known = np.bitwise_xor.reduce(np.array(leaves[:-1]), axis=0)
        shown = sums.totals[tree] ^ known ^ noise.shares[tree]
        product = gf128.multiply_all(noise.values[tree : tree + 1], delta)[0]
        assert not np.array_equal(shown, product)


def deviating(zeros, ones, sizes, errors, guess):
    """Send base transfer j the payload plus errors[j], with the hashes that pass if all bits D_j are guess[j]."""
    noise, honest = vole.draw(zeros, ones, sizes, SeededRandom(b"1"), SESSION)
    masked = honest.masked ^ errors
    streams = vole._streams(zeros, sizes, SESSION)
    payload = (
        vole._streams(zeros, sizes, SESSION)[0] ^ vole._streams(ones, sizes, SESSION)[0] ^ honest.masked[0]
    )
    rows = np.concatenate([streams ^ np.where(guess[:, None] == 1, errors, np.uint8(0)), payload[None]])
    return noise, vole.Corrections(masked, vole.hashes(rows, masked, SESSION))


@pytest.mark.parametrize("where", ["noise", "choices", "everywhere"])
def test_a_holder_that_gives_each_base_transfer_other_noise_is_refused(where):
    zeros, ones, chosen, delta = base_keys()
    sizes, random = vole.size(900), np.random.default_rng(1)
    part = {"noise": slice(0, 16 * 7), "choices": slice(-96, -90), "everywhere": slice(None)}[where]
    errors = np.zeros((128, sizes.correction_bytes), np.uint8)
    errors[:, part] = random.integers(0, 256, errors[:, part].shape)
    for guess in (np.zeros(128, np.uint8), np.ones(128, np.uint8), random.integers(0, 2, 128)):
        _, corrections = deviating(zeros, ones, sizes, errors, guess)
        with pytest.raises(vole.Inconsistent):
            vole.expand(chosen, delta, corrections, sizes, SeededRandom(b"2"), SESSION)


@pytest.mark.parametrize("transfers", [1, 2, 3])
def test_other_noise_passes_only_with_the_right_guess_of_these_bits_of_d(transfers):
    sizes, passed = vole.size(20), []
    errors = np.zeros((128, sizes.correction_bytes), np.uint8)
    errors[40 : 40 + transfers, 5] = 1 + np.arange(transfers)
    for seed in range(24):
        zeros, ones, chosen, delta = base_keys(seed)
        guess = np.zeros(128, np.uint8)
        guess[40 : 40 + transfers] = 1
        _, corrections = deviating(zeros, ones, sizes, errors, guess)
        is_right = bool(vole.bits_of(delta)[40 : 40 + transfers].all())
        try:
            vole.expand(chosen, delta, corrections, sizes, SeededRandom(b"2"), SESSION)
            passed.append(True)
        except vole.Inconsistent:
            passed.append(False)
        assert passed[-1] == is_right
    assert 0 < sum(passed) < 24


def test_any_change_of_corrections_or_hashes_is_refused():
    zeros, ones, chosen, delta = base_keys()
    sizes, random = vole.size(20), np.random.default_rng(1)
    _, honest = vole.draw(zeros, ones, sizes, SeededRandom(b"1"), SESSION)
    for name in ("masked", "check"):
        for _ in range(20):
            changed = getattr(honest, name).copy()
            flat = changed.reshape(-1)
            flat[random.integers(flat.size)] ^= flat.dtype.type(1 << int(random.integers(8)))
            with pytest.raises(vole.Inconsistent):
                # Other corrections, other factors: not even the transfers whose bit of D is 0 pass.
                corrections = replace(honest, **{name: changed})
                vole.expand(chosen, delta, corrections, sizes, SeededRandom(b"2"), SESSION)


def test_the_check_is_the_one_written_down():
    zeros, ones, _, _ = base_keys()
    sizes = vole.size(20)
    noise, corrections = vole.draw(zeros, ones, sizes, SeededRandom(b"1"), SESSION)
    seed = hashlib.sha256(b"fedmkt vole v1 check" + SESSION + corrections.masked.tobytes()).digest()
    blocks = sizes.correction_bytes // 16
    counters = b"".join(i.to_bytes(16, "big") for i in range(blocks))
    factors = Cipher(algorithms.AES(seed), modes.ECB()).encryptor().update(counters)
    factors = [int.from_bytes(factors[16 * i : 16 * i + 16], "little") for i in range(blocks - 1)] + [1]
    info = b"fedmkt vole v1 stream"

    def plain_hash(row):
        total = 0
        for i, factor in enumerate(factors):
            total ^= multiply(int.from_bytes(row[16 * i : 16 * i + 16], "little"), factor)
        return total

    for j in (0, 5, 127):
        key = derive(zeros[j].tobytes(), info, SESSION)
        stream_of_zero = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(counters)
        assert numbers(corrections.check[j : j + 1]) == [plain_hash(stream_of_zero)]
    # The payload: values, then choices, then what hides them.
    key = derive(ones[0].tobytes(), info, SESSION)
    stream_of_one = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(counters)
    key = derive(zeros[0].tobytes(), info, SESSION)
    stream_of_zero = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(counters)
    sent = corrections.masked[0].tobytes()
    payload = bytes(a ^ b ^ c for a, b, c in zip(sent, stream_of_zero, stream_of_one, strict=True))
    assert payload[: 16 * sizes.trees] == noise.values.tobytes()
    assert numbers(corrections.check[128:]) == [plain_hash(payload)]


def test_hashes_of_one_payload_look_uniform():
    zeros, ones, _, _ = base_keys()
    sizes = vole.size(20)
    made = []
    for i in range(300):
        constant = SeededRandom(b"same")
        # The same noise each time; only the block that hides it, 16 bytes, is drawn afresh.
        _, corrections = vole.draw(
            zeros, ones, sizes,
            lambda n, i=i, c=constant: SeededRandom(b"%d" % i)(n) if n == 16 else c(n), SESSION,
        )  # fmt: skip
        made.append(corrections.check[-1])
    made = np.array(made)
    assert len(np.unique(made, axis=0)) == len(made)
    ones_share = np.unpackbits(made.view(np.uint8)).mean()
    assert abs(ones_share - 0.5) < 5 * 0.5 / np.sqrt(300 * 128)


def test_corrections_show_nothing_of_the_noise_without_both_keys():
    zeros, ones, _, _ = base_keys()
    sizes = vole.size(5000)
    first, second = (vole.draw(zeros, ones, sizes, SeededRandom(s), SESSION)[1].masked for s in (b"1", b"2"))
    # One-time pads by session: under the same keys another session masks otherwise.
    other = vole.draw(zeros, ones, sizes, SeededRandom(b"1"), bytes(32))[1].masked
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
    leaves = np.empty((4 * 32, 2), np.uint64)
    digest.update(ggm.grow(items[:4], 5, keys[:2], leaves).tobytes() + leaves.tobytes())
    _, corrections = vole.draw(*base_keys()[:2], vole.size(900), SeededRandom(b"1"), SESSION)
    digest.update(corrections.masked.tobytes() + corrections.check.tobytes())
    for part in vole.outputs(items, items[::-1], SESSION):
        digest.update(part.tobytes())
    return digest.hexdigest()


@pytest.mark.slow
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
