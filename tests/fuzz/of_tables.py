"""Targets: tables of a party, and what lies beside them and beside its runs."""

import functools
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fedmkt.party.filters import Filters
from fedmkt.party.keys import KeyColumns
from fedmkt.party.table import Column, TableSchema, read_opt_out, read_table
from fedmkt.transport import driver
from tests.fuzz.of_messages import RECEIPT
from tests.fuzz.target import Target

SCHEMA = TableSchema(
    "phone", "phone", "351", (Column("age", "number"), Column("job", "category")), "bought",
    Filters(date(2030, 1, 1), consent="agreed", birth_date="born"),
    (KeyColumns("email", ("mail",)),), None, "weight",
)  # fmt: skip
CSV = b"phone,mail,age,job,bought,agreed,born,weight\n" + b"".join(
    f'91200000{i},p{i}@x.pt,{20 + i},"of,{i % 2}",{i % 2},yes,1990-12-0{1 + i % 9},1.5\n'.encode()
    for i in range(8)
)


def _parquets() -> Sequence[bytes]:
    columns = {
        "phone": [f"91200000{i}" for i in range(8)], "mail": [f"p{i}@x.pt" for i in range(8)],
        "age": [20.5 + i for i in range(8)], "job": pa.array(["a", "b"] * 4).dictionary_encode(),
        "bought": [0, 1] * 4, "agreed": [True] * 8, "born": [date(1990, 12, 1 + i) for i in range(8)],
        "weight": [1.5] * 8,
    }  # fmt: skip
    made = []
    for options in ({"compression": "none"}, {"compression": "zstd"}, {"use_dictionary": False}):
        target = io.BytesIO()
        pq.write_table(pa.table(columns), target, **options)
        made.append(target.getvalue())
    return made


@functools.cache
def _folder(process: int) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f"fuzz-{process}-")


def _through_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        path = Path(_folder(os.getpid()).name) / name
        path.write_bytes(data)
        return read(path)

    return decode


def _receipts(path: Path) -> None:
    """Read a coordinator's receipts, the file of a run that is gone on with."""
    book = driver._RunFile(path.parent)
    try:
        book.receipts()
    finally:
        book.close()


def _receipt_files() -> Sequence[bytes]:
    return [b"".join(driver._framed(r) for r in (RECEIPT, replace(RECEIPT, index=4)))]


_CSV_OF = _through_file("table.csv", lambda path: read_table(path, SCHEMA))
_PARQUET_OF = _through_file("table.parquet", lambda path: read_table(path, SCHEMA))
TARGETS = (
    Target("table-csv", _CSV_OF, lambda: [CSV, CSV.replace(b",", b";"), CSV.replace(b"\n", b"\r\n")]),
    Target("table-parquet", _PARQUET_OF, _parquets),
    Target("opt-out-csv", _through_file("out.csv", lambda p: read_opt_out(p, SCHEMA)), lambda: [CSV]),
    Target("receipts", _through_file("receipts.bin", _receipts), _receipt_files),
)
