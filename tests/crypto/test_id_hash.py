import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.crypto import id_hash
from fedmkt.crypto.id_hash import PackedIds, hash_ids, pack_ids

PREFIX = b"contract" * 4 + b"phone\0"


def plain(ids, prefix=PREFIX):
    """Hash as the docstring says, one by one."""
    head = b"fedmkt item v1\n" + len(prefix).to_bytes(4, "big") + prefix
    head += bytes(-len(head) % 64)
    return b"".join(hashlib.sha256(head + i.encode()).digest()[:16] for i in ids)


def as_bytes(items):
    return items.astype("<u8").tobytes()


def odd_ids(count):
    """Make ids of every length from 0 to beyond two blocks, some of them with characters of 2 to 4 bytes."""
    kinds = ("x", "é", "漢", "🙂", "\0")
    return tuple(kinds[i % 5] * (i % 140) + str(i) * (i % 2) for i in range(count))


@settings(max_examples=100)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.binary(max_size=200))
def test_items_are_sha256_of_prefix_and_id_cut_to_sixteen_bytes(ids, prefix):
    assert as_bytes(hash_ids(ids, prefix)) == plain(ids, prefix)
    assert as_bytes(hash_ids(pack_ids(ids), prefix)) == plain(ids, prefix)


@pytest.mark.parametrize("length", [0, 1, 44, 45, 46, 109, 110, 300])
def test_long_lists_give_the_same_bytes(monkeypatch, length):
    monkeypatch.setattr(id_hash, "_LONG", 1)
    ids, prefix = odd_ids(700), bytes(range(256))[:200] * 2
    assert as_bytes(hash_ids(ids, prefix[:length])) == plain(ids, prefix[:length])


def test_lists_of_several_chunks_give_the_same_bytes(monkeypatch):
    monkeypatch.setattr(id_hash, "_CHUNK", 100)
    for limit in (1, 10**6):
        monkeypatch.setattr(id_hash, "_LONG", limit)
        ids = odd_ids(730)
        assert as_bytes(hash_ids(ids, PREFIX)) == plain(ids)
        assert as_bytes(hash_ids(pack_ids(ids), PREFIX)) == plain(ids)


def test_prefixes_that_differ_in_zeros_at_the_end_differ():
    items = [hash_ids(["a"], PREFIX + bytes(n)) for n in range(70)]
    assert len({as_bytes(i) for i in items}) == 70


def test_packed_ids_are_the_same_ids():
    ids = odd_ids(300)
    packed = pack_ids(ids)
    assert len(packed) == 300 and tuple(packed[i] for i in range(300)) == ids
    assert tuple(packed.part(17, 60)[i] for i in range(43)) == ids[17:60]
    with pytest.raises(IndexError):
        packed[300]
    assert "x" not in repr(packed)


@pytest.mark.parametrize("ends", [[3, 2, 5], [1, 2, 4], [1, 2, 6], [-1, 2, 5], [5, 5, 6]])
def test_ends_that_leave_the_text_are_refused(ends):
    with pytest.raises(ValueError, match="ends"):
        PackedIds(np.zeros(5, np.uint8), np.array(ends, dtype=np.int64))


def test_arrays_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="packed"):
        PackedIds(np.zeros(5, np.int8), np.array([5]))
    with pytest.raises(ValueError, match="packed"):
        PackedIds(np.zeros(5, np.uint8), np.array([5], dtype=np.int32))


def test_text_that_utf8_cannot_hold_is_refused():
    with pytest.raises(ValueError):
        hash_ids(["\ud800"], PREFIX)


def test_no_ids_give_no_items():
    assert hash_ids((), PREFIX).shape == (0, 2)
    assert len(pack_ids(())) == 0


PROBE = """
import hashlib
from fedmkt.crypto import id_hash
ids = tuple("é" * (i % 150) + str(i) for i in range(40000))
print(hashlib.sha256(id_hash.hash_ids(ids, b"prefix").tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_portable_path_gives_the_same_bytes():
    def run(portable):
        environment = os.environ | {"FEDMKT_PORTABLE": portable}
        done = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert len(run("0")) == 65 and run("0") == run("1")
