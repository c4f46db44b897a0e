import hashlib
import time

import numpy as np
import pytest

from fedmkt.crypto import base_ot, group
from fedmkt.crypto.prg import SeededRandom

SESSION = b"run 1, bank, shop"


def transfer(bits, seed=b"ot"):
    random = SeededRandom(seed)
    secret, point = base_ot.offer(random)
    points, keys = base_ot.choose(bits, point, random, SESSION)
    return secret, point, points, keys


def some_bits(count, seed=1):
    return np.random.default_rng(seed).integers(0, 2, count, dtype=np.uint8)


def test_the_chooser_has_the_key_of_its_bit_and_not_the_other():
    bits = some_bits(40)
    secret, point, points, keys = transfer(bits)
    pair = np.stack(base_ot.derive(secret, point, points, SESSION))
    assert pair.shape == (2, 40, 16)
    assert np.array_equal(pair[bits, np.arange(40)], keys)
    assert not (pair[1 - bits, np.arange(40)] == keys).all(axis=1).any()


def test_all_keys_of_one_session_differ():
    secret, point, points, _ = transfer(some_bits(40))
    keys = np.concatenate(base_ot.derive(secret, point, points, SESSION))
    assert len(np.unique(keys, axis=0)) == 80


def test_keys_are_the_hash_that_the_docstring_names():
    secret, point, points, _ = transfer(np.array([0, 1], dtype=np.uint8))
    first, second = base_ot.derive(secret, point, points, SESSION)
    for i in range(2):
        response = points[i].tobytes()
        head = b"fedmkt base ot v1\n" + len(SESSION).to_bytes(4, "big") + SESSION + point
        head += i.to_bytes(4, "big") + response
        zero = group.multiply(secret, response)
        one = group.multiply(secret, group.subtract(response, point))
        assert first[i].tobytes() == hashlib.sha256(head + zero).digest()[:16]
        assert second[i].tobytes() == hashlib.sha256(head + one).digest()[:16]


def test_points_that_were_sent_twice_give_unrelated_keys():
    secret, point, points, _ = transfer(some_bits(2))
    keys = np.concatenate(base_ot.derive(secret, point, points[[0, 0, 0]], SESSION))
    assert len(np.unique(keys, axis=0)) == 6


def test_another_session_gives_other_keys():
    secret, point, points, _ = transfer(some_bits(8))
    first = np.concatenate(base_ot.derive(secret, point, points, SESSION))
    second = np.concatenate(base_ot.derive(secret, point, points, SESSION + b"x"))
    assert not (first == second).all(axis=1).any()


@pytest.mark.parametrize("bad", [bytes(32), b"\1" + bytes(31), b"\xff" * 32, bytes(31)])
def test_chooser_refuses_a_bad_point(bad):
    with pytest.raises(ValueError):
        base_ot.choose(some_bits(4), bad, SeededRandom(b"bad"), SESSION)


@pytest.mark.parametrize("bad", [bytes(32), b"\1" + bytes(31), b"\xff" * 32])
def test_sender_refuses_a_bad_point_and_names_it(bad):
    secret, point, points, _ = transfer(some_bits(8))
    points[5] = np.frombuffer(bad, np.uint8)
    with pytest.raises(ValueError, match="point 5"):
        base_ot.derive(secret, point, points, SESSION)


def test_choices_must_be_bits():
    _, point = base_ot.offer(SeededRandom(b"bits"))
    for bad in (np.array([0, 2], np.uint8), np.zeros(3, np.int64), np.zeros((2, 2), np.uint8)):
        with pytest.raises(ValueError, match="choices"):
            base_ot.choose(bad, point, SeededRandom(b"bits"), SESSION)


def test_no_transfers_give_no_keys():
    secret, point, points, keys = transfer(np.zeros(0, np.uint8))
    assert points.shape == (0, 32) and keys.shape == (0, 16)
    assert base_ot.derive(secret, point, points, SESSION)[0].shape == (0, 16)


def test_512_transfers_take_less_than_a_second():
    start = time.process_time()
    bits = some_bits(512)
    secret, point, points, _ = transfer(bits)
    base_ot.derive(secret, point, points, SESSION)
    assert time.process_time() - start < 1
