"""What a Parquet file claims, before Arrow believes it: a few bytes may announce gigabytes.

Arrow makes room for what the header of a page announces, and for as many rows as the footer tells. Both are read here
first, and refused where no table that somebody wrote would say so. Sources: parquet-format, `parquet.thrift`, and the
compact protocol of Thrift, read by the few lines that it takes.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc

from fedmkt.errors import DataError

PAGE_BYTES: Final = 16 << 20
"""A page may always announce this much: writers make pages of 1 MiB."""
PAGE_RATIO: Final = 20
"""And this many times its own bytes."""
ROWS_PER_BYTE: Final = 1000
"""Of the file. A million consecutive numbers, each told by its difference to the last, take 100 rows a byte."""
TEXT_BYTES: Final = 256 << 20
"""Text that one column may always hold when every cell is written out."""
TEXT_RATIO: Final = 64
"""And this many times the file's bytes."""
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS: Final = (4, 5, 6)
_DEEPEST: Final = 8
# Fields by their numbers in parquet.thrift: of a page's header, the footer, a row group, a column's chunk.
_ANNOUNCED, _STORED, _DATA, _DICTIONARY, _DATA_2 = 2, 3, 5, 7, 8
_ROWS, _GROUPS = 3, 4
_CHUNKS, _GROUP_ROWS = 1, 3
_OF_CHUNK, _PATH, _VALUES, _LENGTH, _FIRST_DATA, _FIRST = 3, 3, 5, 7, 9, 11

Fields = dict[int, Any]


def check_claims(path: Path, names: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Refuse more rows or larger pages than a file can hold, as DataError; ValueError or OSError where it is damaged.

    Arrow is not asked: of a damaged column it ends the process. Returns those of `texts` that could become large by
    repetition: to be read as dictionaries, for `check_text`.
    """
    size = path.stat().st_size
    large = set()
    with path.open("rb") as raw:
        footer = _footer(raw)
        groups = [_fields(group) for group in _list(footer, _GROUPS)]
        rows = max(_number(footer, _ROWS), sum(_number(group, _GROUP_ROWS) for group in groups))
        if rows > ROWS_PER_BYTE * size:
            raise DataError(f"{path}: claims {rows:,} rows in {size:,} bytes")
        for group in groups:
            for at in _list(group, _CHUNKS):
                chunk = _fields(_fields(at).get(_OF_CHUNK))
                parts = _list(chunk, _PATH)
                if not all(isinstance(part, bytes) for part in parts):
                    raise ValueError("a column's name is no text")
                name = b".".join(parts).decode()
                if name not in names:
                    continue
                for announced, stored, is_dictionary in _pages(raw, chunk):
                    if announced > PAGE_BYTES + PAGE_RATIO * stored:
                        raise DataError(
                            f'{path}: column "{name}": a page of {stored:,} bytes claims {announced:,}',
                            "write the table with pages of 1 MiB",
                        )
                    if is_dictionary and name in texts and announced * rows > TEXT_BYTES:
                        large.add(name)
    return sorted(large)


def check_text(path: Path, name: str, column: pa.ChunkedArray) -> None:
    """Refuse a column in the form of a dictionary that would be out of all proportion with each cell written out."""
    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type) and not pa.types.is_primitive(chunk.type.value_type):
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    if total > TEXT_BYTES + TEXT_RATIO * path.stat().st_size:
        raise DataError(f'{path}: column "{name}": {total:,} bytes of text, mostly one text again and again')


def _footer(raw: BinaryIO) -> Fields:
    end = raw.seek(-8, 2)
    start = end - int.from_bytes(raw.read(4), "little")
    if start < 0:
        raise ValueError("a footer longer than the file")
    raw.seek(start)
    return _struct(io.BytesIO(raw.read(end - start)))


def _pages(raw: BinaryIO, chunk: Fields) -> Iterator[tuple[int, int, bool]]:
    """Yield of each page that Arrow would read: bytes announced, bytes stored, whether it is a dictionary."""
    start = _number(chunk, _FIRST_DATA)
    first = chunk.get(_FIRST)
    if isinstance(first, int) and 0 < first < start:
        start = first
    end, wanted, values = start + _number(chunk, _LENGTH), _number(chunk, _VALUES), 0
    raw.seek(start)
    while values < wanted and raw.tell() < end:
        header = _struct(raw)
        stored = _number(header, _STORED)
        yield _number(header, _ANNOUNCED), stored, _DICTIONARY in header
        of_data = header.get(_DATA, header.get(_DATA_2))
        values += _number(_fields(of_data), 1) if of_data is not None else 0
        raw.seek(stored, 1)


def _number(fields: Fields, at: int) -> int:
    value = fields.get(at)
    if not isinstance(value, int) or value < 0:
        raise ValueError("a number is missing, or below zero")
    return value


def _fields(value: object) -> Fields:
    if not isinstance(value, dict):
        raise ValueError("a part is missing")
    return value


def _list(fields: Fields, at: int) -> list[Any]:
    value = fields.get(at)
    if not isinstance(value, list):
        raise ValueError("a list is missing")
    return value


def _struct(raw: BinaryIO, depth: int = 0) -> Fields:
    """Read one struct in the compact protocol: its values by their fields."""
    if depth > _DEEPEST:
        raise ValueError("structs within structs")
    fields: Fields = {}
    at = 0
    while head := _byte(raw):
        kind = head & 15
        at = at + (head >> 4) if head >> 4 else _signed(raw)
        fields[at] = kind == _TRUE if kind in (_TRUE, _FALSE) else _value(raw, kind, depth)
    return fields


def _value(raw: BinaryIO, kind: int, depth: int) -> object:
    if kind in _INTEGERS:
        return _signed(raw)
    if kind == _STRUCT:
        return _struct(raw, depth + 1)
    if kind in (_TRUE, _FALSE, _BYTE):
        return _bytes(raw, 1)
    if kind == _DOUBLE:
        return _bytes(raw, 8)
    if kind == _BINARY:
        return _bytes(raw, _varint(raw))
    if kind in (_LIST, _SET) and depth < _DEEPEST:
        head = _byte(raw)
        count = head >> 4 if head >> 4 < 15 else _varint(raw)
        return [_value(raw, head & 15, depth + 1) for _ in range(count)]
    raise ValueError("a kind of value that Parquet has not")


def _bytes(raw: BinaryIO, count: int) -> bytes:
    found = raw.read(count)
    if len(found) != count:
        raise ValueError("the file ends within a value")
    return found


def _byte(raw: BinaryIO) -> int:
    return _bytes(raw, 1)[0]


def _varint(raw: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        one = _byte(raw)
        value |= (one & 127) << shift
        if one < 128:
            return value
    raise ValueError("a number without an end")


def _signed(raw: BinaryIO) -> int:
    value = _varint(raw)
    return (value >> 1) ^ -(value & 1)
