"""Small Parquet files that claim to be large ones: refused before Arrow makes room, honest ones read."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedmkt.errors import DataError
from fedmkt.party import parquet_pages
from fedmkt.party.table import Column, Table, TableSchema, read_table

SCHEMA = TableSchema("phone", "phone", "351", (Column("age", "number"), Column("job", "category")))
PHONES = [f"91{i:07d}" for i in range(500)]
AGES = [float(i % 90) for i in range(500)]
JOBS = [f"trade{i * 7919 % 400:03d}" for i in range(500)]

POOL = pa.proxy_memory_pool(pa.default_memory_pool())
"""Kept to the end: Arrow's objects may outlive a test."""


def file_of(*, phones: object = PHONES, ages: object = AGES, jobs: object = JOBS, **options: object) -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.table({"phone": phones, "age": ages, "job": jobs}), target, **options)
    return target.getvalue()


def varint(value: int) -> bytes:
    last = value < 128
    return bytes([value]) if last else bytes([value & 127 | 128]) + varint(value >> 7)


def lying(announced: int, codec: str, version: str) -> bytes:
    """A file of which one page says that it holds so many bytes, told at the cost of a text beside it."""
    data = file_of(compression=codec, use_dictionary=False, data_page_version=version)
    start = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(2).data_page_offset
    with io.BytesIO(data) as raw:
        raw.seek(start)
        size = parquet_pages._struct(raw)[2]
        end = raw.tell()
    header = data[start:end]
    assert isinstance(size, int)
    old, new = (b"\x15" + varint(2 * n) for n in (size, announced))
    lied = header.replace(old, new, 1)
    longest = b"\x08trade399"  # the greatest value, by its length
    shorter = b"\x08trade399"[len(lied) - len(header) + 1 :]
    lied = lied.replace(longest, bytes([len(shorter)]) + shorter, 1)
    assert len(lied) == len(header)
    return data[:start] + lied + data[end:]


def read(folder: Path, data: bytes) -> Table:
    (folder / "bank.parquet").write_bytes(data)
    return read_table(folder / "bank.parquet", SCHEMA)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["zstd", "snappy", "gzip"])
def test_a_page_that_announces_gigabytes_is_refused_before_room_is_made(
    tmp_path: Path, codec: str, version: str
) -> None:
    data = lying(2_000_000_000, codec, version)
    assert len(data) < 6000
    usual = pa.default_memory_pool()
    pa.set_memory_pool(POOL)
    try:
        with pytest.raises(DataError, match=r'column "job": a page of [0-9,]+ bytes claims 2,000,000,000'):
            read(tmp_path, data)
    finally:
        pa.set_memory_pool(usual)
    assert (POOL.max_memory() or 0) < 1 << 20


def test_more_rows_than_a_file_can_hold_are_refused(tmp_path: Path) -> None:
    """A writer told to make long pages needs a thousand bytes for any number of empty rows."""
    ages = pa.nulls(1_500_000)
    data = file_of(phones=ages, ages=ages, jobs=ages, max_rows_per_page=10**9)
    with pytest.raises(DataError, match=f"claims 1,500,000 rows in {len(data):,} bytes"):
        read(tmp_path, data)


def test_one_long_text_told_again_and_again_is_refused(tmp_path: Path) -> None:
    job = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), ["a" * 600_000])
    for jobs in (job, job.cast(pa.string())):
        data = file_of(jobs=jobs, compression="zstd")
        assert len(data) < 100_000
        with pytest.raises(DataError, match='column "job": 300,000,000 bytes of text'):
            read(tmp_path, data)


def test_an_honest_table_is_read_alike_however_it_is_written(tmp_path: Path) -> None:
    people = 8_000
    phones = [f"91{i:07d}" for i in range(people)]  # of which the dictionary alone could be 800 MB of text
    ages, jobs = [0.0] * people, [None if i % 9 == 0 else f"trade {i % 3000}" for i in range(people)]
    for options in (
        {}, {"compression": "none"}, {"use_dictionary": False, "compression": "zstd"},
        {"data_page_version": "2.0"}, {"data_page_size": 1000, "row_group_size": 3000},
        {"compression": "gzip", "write_page_index": True, "write_page_checksum": True},
    ):  # fmt: skip
        table = read(tmp_path, file_of(phones=phones, ages=ages, jobs=jobs, **options))
        assert table.ids == tuple(f"+351{phone}" for phone in phones)
        assert table.categories["job"].tolist() == jobs
        np.testing.assert_array_equal(table.numbers["age"], ages)


@pytest.mark.parametrize(
    "header",
    [
        b"", b"\x15\x00", b"\x15\x00\x15\x02\x00", b"\x15\x00\x15\x01\x15\x01\x00", b"\x1d\x00", b"\x1c" * 20,
        b"\x15" + b"\xff" * 12, b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x19\xf9" + b"\xf9" * 20,
        b"\x25\x02\x15\x00\x25\x02\x00",
    ],
)  # fmt: skip
def test_a_damaged_header_of_a_page_is_damage(header: bytes) -> None:
    """Cut short, without sizes, below zero, an unknown kind, too deep, a number without end, no struct for data."""
    with pytest.raises((ValueError, OverflowError)):
        list(parquet_pages._pages(io.BytesIO(header), {9: 0, 7: 100, 5: 1}))


def test_what_a_header_may_hold_beside_sizes_is_read_too() -> None:
    more = (
        b"\x11" b"\x12" b"\x13\x07" b"\x16\x80\x01" b"\x17" + bytes(8) + b"\x18\x03abc" b"\x19\x25\x02\x04"
        b"\x1a\x1c\x15\x02\x00" b"\x1c\x15\x04\x00" b"\x05\x78\x07\x00"
    )  # fmt: skip
    assert parquet_pages._struct(io.BytesIO(more)) == {
        1: True, 2: False, 3: b"\x07", 4: 64, 5: bytes(8), 6: b"abc", 7: [1, 2], 8: [{1: 1}], 9: {1: 2}, 60: -4,
    }  # fmt: skip


def test_a_chunk_without_its_parts_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "bank.parquet"
    whole = b"PAR1\x00"
    for footer in (
        b"", b"\x36\x02\x00", b"\x36\x02\x19\x15\x02\x00", b"\x36\x02\x19\x1c\x36\x02\x00\x00",
        b"\x36\x02\x19\x1c\x19\x1c\x00\x26\x02\x00\x00", b"\x36\x01\x19\x0c\x00",
    ):  # fmt: skip
        path.write_bytes(whole + footer + len(footer).to_bytes(4, "little") + b"PAR1")
        with pytest.raises(ValueError, match=r"ends within|is missing"):
            parquet_pages.check_claims(path, ["a"], [])
    footer = b"\x36\x02\x19\x1c\x19\x1c\x3c\x39\x15\x02\x00\x00\x26\x02\x00\x00"  # a name of numbers: fuzzing found it
    path.write_bytes(whole + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match="name is no text"):
        parquet_pages.check_claims(path, ["a"], [])
    path.write_bytes(whole + b"\xff\0\0\0PAR1")
    with pytest.raises(ValueError, match="longer than the file"):
        parquet_pages.check_claims(path, ["a"], [])
