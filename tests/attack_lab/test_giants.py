"""Row 19: what peers should not send, offered to our readers and to readers without limits, each in a process."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from fedmkt.attack_lab.attacks import giant_readers, giants
from fedmkt.attack_lab.effort import quick
from fedmkt.attack_lab.subject import Subject
from fedmkt.errors import DataError
from fedmkt.party.table import Column, TableSchema, read_table


def test_nothing_giant_is_taken_and_memory_stays_below_the_limit(linear: Subject):
    found = giants.giants(linear, quick(1))
    assert found.verdict == "held" and found.here == 0
    assert found.undefended == 10  # nine offers, and growth over 256 MiB
    grown = float(found.note.partition("grown by ")[2].split()[0])
    assert 1 < grown <= giants.MOST_GROWTH


def test_what_was_taken_growth_and_large_messages_of_the_run_each_count(linear: Subject, monkeypatch):
    said = {"offered": 2, "taken": ["a"], "grown": 300.0}
    monkeypatch.setattr(giants, "read_by", lambda kind: said)
    monkeypatch.setattr(giants, "MAX_MESSAGE_BYTES", 100_000)
    large = sum(
        sum(map(len, giants.wire.encode_pieces(m))) > 100_000 for at in linear.views.all for _, m in at.sent
    )
    found = giants.giants(linear, quick(1))
    assert large > 0 and found.here == 2 + large and found.verdict == "BROKEN"


def test_offers_that_a_reader_does_not_refuse_are_named():
    def refuses() -> None:
        raise ValueError

    assert giant_readers.taken_by({"one": refuses, "other": lambda: None}) == ["other"]
    assert json.loads(giant_readers.many_containers(1000)[4:])["t"] == "Block"


def test_a_table_that_unpacks_to_more_than_twenty_times_its_bytes_is_refused(tmp_path):
    schema = TableSchema("phone", "phone", "86", (Column("x", "number"),), None)
    path = tmp_path / "table.parquet"
    giant_readers.write_packed_table(path)
    with pytest.raises(DataError, match=r"unpack to 8\d,\d{3},\d{3}: more than 20 times"):
        read_table(path, schema)
    phones = [f"138{number:08d}" for number in range(50)]
    parquet.write_table(pa.table({"phone": phones, "x": [0.0] * 50}), path, compression="zstd")
    assert len(read_table(path, schema).people) == 50
