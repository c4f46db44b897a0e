import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.crypto import aes, okvs

KEYS = np.arange(48, dtype=np.uint8).reshape(3, 16)
SCHEDULES = aes.round_keys(KEYS)


def items(n, seed=1):
    return np.random.default_rng(seed).integers(0, 2**64, (n, 2), dtype=np.uint64)


def schedules(seed):
    return aes.round_keys(np.random.default_rng(seed).integers(0, 256, (3, 16), dtype=np.uint8))


def fill(seed):
    return np.random.default_rng(seed).bytes(32)


def encrypted(key, item):
    return Cipher(algorithms.AES(KEYS[key].tobytes()), modes.ECB()).encryptor().update(item)


def plain_decode(table, item, third):
    """Decode one item by the definition alone."""
    parts = np.frombuffer(encrypted(0, item), "<u4").tolist()
    rows = [j * third + (part * third >> 32) for j, part in enumerate(parts[:3])]
    dense = int.from_bytes(encrypted(1, item)[:8], "little")
    rows += [3 * third + j for j in range(64) if dense >> j & 1]
    return np.bitwise_xor.reduce(table[rows], axis=0)


def plain_value(item):
    return bytes(a ^ b for a, b in zip(encrypted(2, item), item, strict=True))


@given(st.integers(0, 500), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_item_decodes_to_its_value(n, seed):
    own, keys = items(n, seed), schedules(seed)
    table = okvs.encode(own, keys, fill(seed))
    assert table.shape == (okvs.shape(n).size, 2)
    assert np.array_equal(okvs.decode(table, own, keys, okvs.shape(n)), okvs.values(own, keys))


def test_decoding_follows_the_definition_for_own_and_foreign_items():
    own, others = items(50), items(50, seed=2)
    table, layout = okvs.encode(own, SCHEDULES, fill(1)), okvs.shape(50)
    for some in (own, others):
        decoded = okvs.decode(table, some, SCHEDULES, layout)
        assert decoded.tolist() == [plain_decode(table, x.tobytes(), layout.third).tolist() for x in some]
    assert okvs.values(own, SCHEDULES).tobytes() == b"".join(plain_value(x.tobytes()) for x in own)


def test_foreign_items_decode_to_noise_and_so_does_the_table_look():
    own, others = items(200), items(400, seed=2)
    tables = np.stack([okvs.encode(own, SCHEDULES, fill(seed)) for seed in range(40)])
    decoded = np.stack([okvs.decode(t, others, SCHEDULES, okvs.shape(200)) for t in tables])
    for noise in (tables, decoded):
        assert abs(chi_square(noise)) < 5
        # Over fresh fills, each element differs every time.
        assert len(np.unique(noise[:, :, 0].reshape(-1))) == noise[:, :, 0].size
    assert not np.isin(decoded[0], okvs.values(others, SCHEDULES)).any()


def chi_square(noise):
    counts = np.bincount(noise.view(np.uint8).reshape(-1), minlength=256)
    expected = counts.sum() / 256
    return (((counts - expected) ** 2 / expected).sum() - 255) / np.sqrt(510)


@pytest.mark.parametrize(
    ("n", "trials"),
    [(1, 300), (2, 300), (3, 300), (10, 300), (30, 300), (100, 300), (300, 100), (1000, 60), (5000, 10)],
)
def test_no_table_fails_and_no_item_is_dropped_over_many_keys(n, trials):
    for seed in range(trials):
        own, keys = items(n, seed), schedules(seed)
        table = okvs.encode(own, keys, fill(seed))
        assert np.array_equal(okvs.decode(table, own, keys, okvs.shape(n)), okvs.values(own, keys))


@pytest.mark.parametrize("rate", [0.95, 1.0, 1.1, 1.2])
def test_items_that_cannot_be_peeled_are_solved_by_elimination(rate, monkeypatch):
    monkeypatch.setattr(okvs, "expansion", lambda n: rate)
    for seed in range(5):
        own, keys = items(300, seed), schedules(seed)
        table = okvs.encode(own, keys, fill(seed))
        assert np.array_equal(okvs.decode(table, own, keys, okvs.shape(300)), okvs.values(own, keys))


def test_the_same_item_twice_does_no_harm():
    own = np.repeat(items(20), 2, axis=0)
    table = okvs.encode(own, SCHEDULES, fill(1))
    assert np.array_equal(okvs.decode(table, own, SCHEDULES, okvs.shape(40)), okvs.values(own, SCHEDULES))


def test_more_items_than_rows_are_not_solvable(monkeypatch):
    monkeypatch.setattr(okvs, "expansion", lambda n: 0.5)
    with pytest.raises(okvs.Unsolvable, match="sums of rows"):
        okvs.encode(items(500), SCHEDULES, fill(1))
    monkeypatch.setattr(okvs, "_LARGEST_CORE", 100)
    with pytest.raises(okvs.Unsolvable, match="too many"):
        okvs.encode(items(500), SCHEDULES, fill(1))


def test_the_sparse_part_is_never_shorter_than_published():
    for n in [*range(1, 200), 10**3, 10**4, 10**5, 10**6, 10**7, 2**29]:
        assert okvs.expansion(n) >= 1.27 and okvs.shape(n).sparse >= 1.27 * n
    # Raghuraman and Rindal's formula by hand: slope 2^(0.555 * 10 + 2.336) = 236.8 at n = 1024.
    assert okvs.expansion(1024) == pytest.approx(1.223 + 49.2 / 236.8, rel=1e-3)
    # Their largest gap is floor(40 / log2(e n)): never above 11, so 64 columns leave 2^-53.
    assert max(40 / np.log2(okvs.expansion(n) * n) for n in range(1, 5000)) < 12


def test_lists_and_tables_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="holds up to"):
        okvs.shape(okvs.MOST_ITEMS + 1)
    with pytest.raises(ValueError, match="items are"):
        okvs.encode(items(4).reshape(-1), SCHEDULES, fill(1))
    with pytest.raises(ValueError, match="has 3 keys"):
        okvs.encode(items(4), SCHEDULES[:2], fill(1))
    with pytest.raises(ValueError, match="rows was expected"):
        okvs.decode(items(4), items(4), SCHEDULES, okvs.shape(4))
