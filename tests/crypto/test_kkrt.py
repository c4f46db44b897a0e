import math
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedmkt.crypto import aes, cuckoo, kkrt
from fedmkt.crypto.prg import derive

SECRET = b"session" + bytes(25)


def words(shape, seed=0):
    return np.random.default_rng([seed, 5]).integers(0, 2**64, shape, dtype=np.uint64)


def encrypt(key, block):
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return cipher.update(block)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


class World:
    """One session by plain bytes and whole numbers, against which the kernels are compared."""

    def __init__(self, n, m, width=7, seed=0):
        random = np.random.default_rng(seed)
        self.width, self.keys = width, kkrt.session_keys(SECRET)
        self.values, self.other = words((n, 2), seed), words((m, 2), seed + 1)
        shared = min(n, m) // 2
        self.other[:shared] = self.values[n - shared :]
        self.bins = cuckoo.bins_for(n)
        self.placement = cuckoo.place(self.values, self.bins, random.bytes)
        pairs = random.integers(0, 256, (2, 64 * width, 16), dtype=np.uint8)
        self.bits = random.integers(0, 2, 64 * width, dtype=np.uint8)
        self.columns = pairs
        self.zero, self.one = (aes.round_keys(p) for p in pairs)
        self.chosen = aes.round_keys(np.where(self.bits[:, None] == 1, pairs[1], pairs[0]))
        self.choices = np.packbits(self.bits, bitorder="little").view("<u8").astype(np.uint64)
        self.filler = words(2, 9)
        material = derive(SECRET, b"fedmkt kkrt keys v1", length=144)
        self.code_keys = [material[16 * i : 16 * i + 16] for i in range(4)]
        self.hash_keys = [material[16 * i : 16 * i + 16] for i in range(4, 8)]
        self.proof_key = material[128:]

    def block(self, which, values):
        return (int(values[which, 0]).to_bytes(8, "little")) + int(values[which, 1]).to_bytes(8, "little")

    def code(self, item):
        return b"".join(encrypt(k, item) for k in self.code_keys)[: 8 * self.width]

    def row(self, side, r):
        """Return row r of a side's columns: bit r of each column's counter-mode stream."""
        bits = []
        for key in self.columns[side]:
            block = encrypt(key.tobytes(), (r // 128).to_bytes(16, "little"))
            bits.append(int.from_bytes(block, "little") >> (r % 128) & 1)
        return np.packbits(bits, bitorder="little").tobytes()

    def hash(self, r, row):
        row = row + bytes(64 - len(row))
        state = bytes(16)
        for i, key in enumerate(self.hash_keys):
            state = xor(state, row[16 * i : 16 * i + 16])
            state = xor(state, encrypt(key, state))
            if i == 0:
                state = xor(state, r.to_bytes(16, "little"))
        return state

    def output(self, r, item, sender_row):
        """Compute the sender's output of an item in bin r."""
        mask = np.packbits(self.bits, bitorder="little").tobytes()
        return self.hash(r, xor(sender_row, bytes(c & s for c, s in zip(self.code(item), mask, strict=True))))

    def extend(self, first, stop):
        part = self.placement.items[first:stop]
        return kkrt.extend((self.zero, self.one), self.keys, self.values, part, first, self.filler)


def as_bytes(row):
    return row.astype("<u8").tobytes()


@pytest.mark.parametrize("width", [7, 8])
def test_rows_and_outputs_are_those_of_the_docstring(width):
    world = World(1500, 10, width)
    first, stop = 1024, min(world.bins, 1024 + 801)
    made = world.extend(first, stop)
    full = [r for r in range(first, stop) if world.placement.items[r] >= 0]
    assert made.rows.shape == (stop - first, width) and made.outputs.shape == (len(full), 2)
    for r in (1024, 1025, 1087, 1088, 1151, 1152, 1500, stop - 1):
        item = int(world.placement.items[r])
        if item >= 0:
            block = world.block(item, world.values)
        else:
            low = (int(world.filler[0]) + r) % 2**64
            block = low.to_bytes(8, "little") + int(world.filler[1]).to_bytes(8, "little")
        zero = world.row(0, r)
        assert as_bytes(made.rows[r - first]) == xor(xor(zero, world.row(1, r)), world.code(block))
        if item >= 0:
            assert as_bytes(made.outputs[full.index(r)]) == world.hash(r, zero)


@pytest.mark.parametrize("width", [7, 8])
def test_sender_has_the_first_row_plus_the_chosen_bits_of_the_code(width):
    world = World(700, 10, width)
    made = world.extend(0, world.bins)
    rows = kkrt.receive(world.chosen, world.choices, made.rows, 0)
    for r in (
        (0, 63, 64, 640, 1023, world.bins - 1) if world.bins > 1023 else (0, 63, 64, 640, world.bins - 1)
    ):
        item = int(world.placement.items[r])
        if item < 0:
            continue
        code = np.frombuffer(world.code(world.block(item, world.values)), "<u8")
        masked = xor(world.row(0, r), (code & world.choices).astype("<u8").tobytes())
        assert as_bytes(rows[r]) == masked


@pytest.mark.parametrize("width", [7, 8])
@pytest.mark.parametrize(
    ("n", "m", "block"), [(1, 1, 1024), (300, 90, 1024), (2500, 700, 1024), (2500, 700, 2048)]
)
def test_outputs_agree_exactly_where_the_items_are_equal(width, n, m, block):
    world = World(n, m, width)
    tags = np.zeros((3, m, 16), np.uint8)
    own = np.empty((0, 2), np.uint64)
    meetings = kkrt.meet(world.other, world.placement.key, world.bins, block)
    start = 0
    for number, end in enumerate(meetings.ends):
        first = number * block
        made = world.extend(first, min(first + block, world.bins))
        own = np.concatenate([own, made.outputs])
        rows = kkrt.receive(world.chosen, world.choices, made.rows, first)
        kkrt.evaluate(
            rows,
            world.choices,
            world.keys,
            world.other,
            (world.placement.key, world.bins),
            meetings.entries[start:end],
            first,
            tags,
        )
        start = int(end)
    assert start == 3 * m
    full = np.flatnonzero(world.placement.items >= 0)
    mine = {
        world.block(world.placement.items[r], world.values): (world.placement.numbers[r], as_bytes(own[i]))
        for i, r in enumerate(full)
    }
    outputs = {as_bytes(o) for o in own}
    for s in range(m):
        found = [tags[j, s].tobytes() for j in range(3)]
        item = world.block(s, world.other)
        if item in mine:
            number, output = mine[item]
            assert found[number] == output
            found.pop(number)
        assert not outputs & set(found)
    assert len({t.tobytes() for t in tags.reshape(-1, 16)}) == 3 * m


def test_tags_are_the_senders_outputs_cut_to_their_length():
    world = World(200, 60)
    made = world.extend(0, world.bins)
    rows = kkrt.receive(world.chosen, world.choices, made.rows, 0)
    meetings = kkrt.meet(world.other, world.placement.key, world.bins, 1024)
    where = cuckoo.places(world.other, world.placement.key, world.bins)
    for length in (5, 8, 11):
        tags = np.zeros((3, 60, length), np.uint8)
        place = (world.placement.key, world.bins)
        kkrt.evaluate(rows, world.choices, world.keys, world.other, place, meetings.entries, 0, tags)
        for s in (0, 7, 59):
            for j in range(3):
                r = int(where[s, j])
                output = world.output(r, world.block(s, world.other), as_bytes(rows[r]))
                assert tags[j, s].tobytes() == output[:length]


@pytest.mark.parametrize(("bins", "block"), [(3, 1024), (1024, 1024), (1025, 1024), (5000, 1024)])
def test_meetings_name_each_bin_of_each_item_once_and_by_block(bins, block):
    values = words((333, 2))
    meetings = kkrt.meet(values, b"k" * 16, bins, block)
    where = cuckoo.places(values, b"k" * 16, bins)
    assert len(meetings.ends) == -(-bins // block) and meetings.ends[-1] == 999
    assert np.array_equal(np.sort(meetings.entries), [4 * s + j for s in range(333) for j in range(3)])
    at = where[meetings.entries >> 2, meetings.entries & 3] // block
    assert np.array_equal(at, np.repeat(np.arange(len(meetings.ends)), np.diff(meetings.ends, prepend=0)))


def test_proofs_are_a_keyed_hash_of_the_item():
    world = World(20, 3)
    proofs = kkrt.proofs(world.values, world.keys)
    for i in range(20):
        block = world.block(i, world.values)
        assert proofs[i].tobytes() == xor(encrypt(world.proof_key, block), block)


def near(bits, items):
    """Bound exactly how likely it is that codes of two items that meet are closer than 128 bits."""
    return Fraction(3 * items * sum(math.comb(bits, d) for d in range(128)), 2**bits)


@pytest.mark.parametrize("items", [1, 10**6, 10**7, 31_975_314])
def test_448_bits_are_enough_up_to_32_million_items(items):
    assert kkrt.code_words(items) == 7
    assert near(448, items) <= Fraction(1, 2**40)


@pytest.mark.parametrize("items", [31_975_315, 10**8, 10**9])
def test_longer_lists_get_512_bits(items):
    assert kkrt.code_words(items) == 8
    assert near(448, items) > Fraction(1, 2**40) >= near(512, items)


def test_384_bits_would_not_do_for_any_list():
    assert near(384, 1) > Fraction(1, 2**40)


def test_log2_near_is_the_exact_tail():
    for width in (7, 8):
        tail = float(near(64 * width, 1) / 3)
        assert math.isclose(kkrt.log2_near(width), math.log2(tail), rel_tol=1e-12)


def test_codes_of_two_items_differ_in_half_of_their_bits():
    # Mean 224 and standard deviation 10.6 of 448 bits, as of independent bits.
    world = World(2, 2)
    codes = [world.code(i.to_bytes(16, "little")) for i in range(600)]
    bits = np.unpackbits(np.frombuffer(b"".join(codes), np.uint8).reshape(600, 56), axis=1)
    distances = (bits[::2] != bits[1::2]).sum(axis=1)
    assert abs(distances.mean() - 224) < 4 and 9 < distances.std() < 12.3 and distances.min() > 160


def test_shapes_that_do_not_fit_are_refused():
    world = World(50, 5)
    made = world.extend(0, world.bins)
    for rows in (made.rows[:, :6], made.rows.reshape(-1)):
        with pytest.raises(ValueError, match="fit"):
            kkrt.receive(world.chosen, world.choices, rows, 0)
    with pytest.raises(ValueError, match="fit"):
        kkrt.receive(world.chosen, world.choices, made.rows, 512)
    with pytest.raises(ValueError, match="chunks"):
        world.extend(100, 200)


def test_secrets_do_not_show():
    assert "array" not in repr(kkrt.session_keys(SECRET))
