"""A party's own table, read strictly from CSV or Parquet: what is not plainly right is refused.

Everything in a CSV file is text until its column's kind says otherwise, so ids keep their leading zeros. A
refusal is one line with file, column and row, and never a value: row is the line of the file for CSV (the
header is line 1) and the record, counted from 1, for Parquet.
"""

import codecs
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Final, Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fedmkt.errors import ConfigError, DataError
from fedmkt.learn.identifiers import ValidationReport
from fedmkt.learn.linkage import UnionReport
from fedmkt.party import filters, keys
from fedmkt.party.filters import Dropped, Filters
from fedmkt.party.keys import KeyColumns, Keyed, Listed
from fedmkt.party.parquet_pages import check_claims, check_text

_BLOCK: Final = 16 << 20  # bytes read at a time; also the longest row that can be read
_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".parquet", ".pq")
_SEPARATORS: Final = (",", ";", "\t")
_PARQUET_MAGIC: Final = b"PAR1"
_MOST_UNPACKED: Final = 20
_SMALL: Final = 64 << 20
"""Bytes up to which nobody asks how well they were packed."""
_FOREIGN_MAGIC: Final = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip or Excel",
    b"\xd0\xcf\x11\xe0": "old Excel",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    _PARQUET_MAGIC: "Parquet",
}
_NUMBER: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_NUMBER_ACCEPTED: Final = (
    "digits with an optional sign, decimal point and exponent, or an empty cell for missing"
)
_NO_ROWS: Final = "no rows below the column names"
_LABELS: Final = {
    **dict.fromkeys(("1", "1.0", "yes", "true"), 1.0),
    **dict.fromkeys(("0", "0.0", "no", "false"), 0.0),
    "": float("nan"),
}
_NO_LABEL: Final = "not a label; accepted: 0/1, yes/no, true/false, or an empty cell for unlabelled"
_NO_CONSENT: Final = "neither yes nor no; accepted: 0/1, yes/no, true/false, or an empty cell for no"
_DATE: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_FIRST_BIRTH: Final = np.datetime64("1900-01-01", "D")


@dataclass(frozen=True)
class Column:
    """A feature column: a number is imputed and standardised later, a category becomes a column per level."""

    name: str
    kind: Literal["number", "category"]


@dataclass(frozen=True)
class TableSchema:
    """What a file must hold; columns that it does not name are not read at all.

    more_ids : further ids, tried in this order for people who are not found by the first.
    label_kind : whether the label is an answer, yes or no, or a number.
    """

    id_column: str
    id_kind: str
    country: str
    columns: tuple[Column, ...]
    label: str | None = None
    filters: Filters | None = None
    more_ids: tuple[KeyColumns, ...] = ()
    offset: str | None = None
    weight: str | None = None
    label_kind: Literal["class", "number"] = "class"

    @property
    def keys(self) -> tuple[KeyColumns, ...]:
        """All ids in order of priority."""
        return (KeyColumns(self.id_kind, (self.id_column,)), *self.more_ids)

    @property
    def own_names(self) -> tuple[str, ...]:
        """Id, features, offset, weight and label."""
        special = [name for name in (self.offset, self.weight, self.label) if name]
        return (self.id_column, *(c.name for c in self.columns), *special)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns to read: ids, features, label, and what is filtered by; an age may be a feature too."""
        ids = [column for key in self.more_ids for column in key.columns]
        more = self.filters.columns if self.filters else ()
        return tuple(dict.fromkeys((*self.own_names, *ids, *more)))

    def is_date(self, name: str) -> bool:
        """Tell whether a column holds dates."""
        return self.filters is not None and name == self.filters.birth_date

    def may_be_date(self, name: str) -> bool:
        """Tell whether a column may hold dates: the parts of a compound id are told by their digits."""
        return any(key.is_compound and name in key.columns for key in self.more_ids)


@dataclass(frozen=True, repr=False)
class Table:
    """One row per usable id, in file order.

    ids : canonical spelling, distinct; None where a row has none and is found by another one
    more_ids : by further kind of id the same, None where it is empty, invalid or that of several rows
    numbers : float64, NaN = missing
    categories : object arrays of str, None = missing
    label : 0, 1, or a number where the schema says so, or NaN = unlabelled; None where the schema has no label
    offset, weight : of each row, no NaN; None where the schema has none
    reference : another table of the same columns, without a label, if the party has one
    rows : where each row stood: line of a CSV file, record (from 1) of a Parquet file
    report : counts of what happened to the id columns
    dropped : how many people withdrawal, consent, opt-out and age took off the list
    schema : what the file was read by; who is to be left out may be asked again
    """

    ids: tuple[str | None, ...]
    numbers: dict[str, NDArray[np.float64]]
    categories: dict[str, NDArray[np.object_]]
    label: NDArray[np.float64] | None
    rows: NDArray[np.int64]
    report: ValidationReport | UnionReport
    dropped: Dropped = field(default_factory=Dropped)
    more_ids: tuple[tuple[str | None, ...], ...] = ()
    offset: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = None
    reference: "Table | None" = None
    schema: TableSchema | None = None

    @property
    def people(self) -> tuple[str, ...]:
        """All ids of each row as one text, distinct: equal where the list of people is."""
        return keys.people((self.ids, *self.more_ids))

    def report_lines(self) -> tuple[str, ...]:
        """Plain sentences about what happened to the rows."""
        return (*self.report.report_lines(), *self.dropped.report_lines())

    def __repr__(self) -> str:
        """Leave ids and values out: a repr ends up in logs."""
        return f"Table({len(self.ids)} rows, {len(self.numbers)} numbers, {len(self.categories)} categories)"


def read_table(path: Path | str, schema: TableSchema) -> Table:
    """Read, check and key one party's file; ConfigError if there is none, DataError at its first mistake."""
    path = Path(path)
    _check_schema(schema)
    _check_file(path)
    source = _read_source(path, schema)
    label = _read_label(source, schema)
    keyed = keys.key_rows(schema.keys, schema.country, lambda name: _id_values(source, name), label)
    if not len(keyed.rows):
        _refuse_ids(source, schema, keyed.report.rows)
    stays, dropped = _admitted(source, schema, keyed)
    _forget_ids(source, schema)
    kept, ids, report = keyed.rows, keyed.ids, keyed.report
    if not stays.all():
        kept, ids = kept[stays], tuple(tuple(compress(one, stays.tolist())) for one in ids)
    del keyed
    if not len(kept):
        source.refuse("nobody is left on the list after withdrawal, consent, opt-out and age")
    if label is not None:
        label = label[kept]
        if schema.label_kind == "class":
            _check_classes(source, schema.label or "", label)
    numbers: dict[str, NDArray[np.float64]] = {}
    categories: dict[str, NDArray[np.object_]] = {}
    everything = len(kept) == len(source.rows)
    for column in schema.columns:
        if column.kind == "number":
            values = _numbers(source, column.name)
            numbers[column.name] = values if everything else values[kept]
        else:
            levels = _categories(source, column.name)
            categories[column.name] = levels if everything else levels[kept]
        source.forget(column.name)
    offset, weight = (_complete(source, name, kept) for name in (schema.offset, schema.weight))
    if weight is not None and (weight < 0).any():
        source.refuse(f"column {_quoted(schema.weight or '')}: a weight below 0")
    return Table(
        ids[0], numbers, categories, label, source.rows[kept], report, dropped, ids[1:], offset, weight,
        schema=schema,
    )  # fmt: skip


def _refuse_ids(source: "_Source", schema: TableSchema, rows: int) -> NoReturn:
    if schema.more_ids:
        kinds = ", ".join(key.said() for key in schema.keys)
        source.refuse(
            f"no valid id in {rows:,} rows, by none of {kinds}", "check id_kind, more_ids and country"
        )
    kind = schema.id_kind.replace("_", " ")
    source.refuse(
        f"column {_quoted(schema.id_column)}: no valid {kind} in {rows:,} rows", "check id_kind and country"
    )


def read_opt_out(path: Path, schema: TableSchema) -> Listed:
    """Read a file of ids, in columns named and written like the table's; DataError if one of them is none.

    An id that cannot be read would leave somebody on the list who wanted to be off it. A file without rows is a
    list of nobody.
    """
    _check_file(path)
    only_ids = TableSchema(schema.id_column, schema.id_kind, schema.country, (), more_ids=schema.more_ids)
    if _is_csv(path) and _scan(path).has_header_only:
        _header(path, only_ids)
        return Listed(tuple(frozenset() for _ in schema.keys))
    source = _read_source(path, only_ids)
    listed, mistake = keys.read_listed(schema.keys, schema.country, lambda name: _id_values(source, name))
    if mistake is not None:
        key, wrong = mistake
        source.refuse_cells(key.columns[0], wrong, f"no valid {key.said()}")
    return listed


def _admitted(source: "_Source", schema: TableSchema, keyed: Keyed) -> tuple[NDArray[np.bool_], Dropped]:
    """Tell for each usable row whether consent, opt-out and age leave it on the list."""
    asked, people = schema.filters, len(keyed.rows)
    if asked is None:
        return np.ones(people, np.bool_), Dropped()
    persons = keyed.persons()
    consent = age = listed = gone = None
    if asked.withdrawn is not None:
        gone = filters.of_any_row(asked.withdrawn.flags(schema.keys, keyed.spelled), persons, people)
    if asked.consent is not None:
        said = _labels(source, asked.consent, _NO_CONSENT)
        consent = filters.of_any_row(said != 1, persons, people)
    if asked.opt_out is not None:
        listed = filters.of_any_row(read_opt_out(asked.opt_out, schema).names(keyed.spelled), persons, people)
    if asked.birth_date is not None or asked.age is not None:
        too_young = ~(_ages(source, asked) >= asked.minimum_age)
        age = filters.of_any_row(too_young, persons, people)
    return filters.admit(people, consent, listed, age, asked.minimum_age, gone)


@dataclass
class _Source:
    """The columns of a file as Arrow arrays, and where each row stands in it."""

    path: Path
    columns: dict[str, pa.ChunkedArray]
    rows: NDArray[np.int64]

    def refuse(self, text: str, hint: str = "") -> NoReturn:
        raise DataError(f"{self.path}: {text}", hint)

    def refuse_cells(self, name: str, wrong: NDArray[np.bool_], text: str) -> NoReturn:
        """Point at the first wrong cell; how many more there are follows at the end."""
        places = np.flatnonzero(wrong)
        more = f" ({len(places):,} such rows)" if len(places) > 1 else ""
        self.refuse(f"column {_quoted(name)}, row {self.rows[places[0]]}: {text}{more}")

    def forget(self, name: str) -> None:
        """Free a column once it has been converted: text takes several times the memory of numbers."""
        self.columns.pop(name, None)


def _quoted(name: str) -> str:
    escaped = name.encode("unicode_escape").decode("ascii") if not name.isprintable() else name
    return f'"{escaped}"'


def _check_schema(schema: TableSchema) -> None:
    ids = {column for key in schema.more_ids for column in key.columns} - {schema.id_column}
    names = (*schema.own_names, *ids)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(
            f"column {_quoted(twice)} is named twice; accepted: different columns for id, label and features"
        )


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() not in (".parquet", ".pq")


def _read_source(path: Path, schema: TableSchema) -> _Source:
    return _read_csv(path, schema) if _is_csv(path) else _read_parquet(path, schema)


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, not a file") from None
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "cannot be opened"
        raise ConfigError(f"{path}: {reason}") from None
    if path.suffix.lower() not in _SUFFIXES:
        raise DataError(f"{path}: unknown kind of file; accepted: names ending in {', '.join(_SUFFIXES)}")
    if not head:
        raise DataError(f"{path}: empty file")
    if not _is_csv(path):
        if head != _PARQUET_MAGIC:
            raise DataError(f"{path}: not a Parquet file; accepted: Parquet, or a CSV file named .csv")
        return
    for magic, what in _FOREIGN_MAGIC.items():
        if head.startswith(magic):
            accepted = "CSV in UTF-8, or Parquet in a file named .parquet"
            raise DataError(f"{path}: holds {what}; accepted: {accepted}")


# CSV


@dataclass(frozen=True)
class _Scan:
    """What one pass over the bytes shows; `lines` counts a last line without its line break too."""

    lines: int
    has_quotes: bool
    has_lone_returns: bool

    @property
    def has_header_only(self) -> bool:
        """Whether there is no line below the column names."""
        return self.lines == 1 and not self.has_lone_returns


def _read_csv(path: Path, schema: TableSchema) -> _Source:
    scan = _scan(path)
    names, separator = _header(path, schema)
    if scan.has_header_only:
        raise DataError(f"{path}: {_NO_ROWS}")
    # Arrow takes the rest of the file for one cell where a quote is left open: the strict reader goes first.
    is_plain = not scan.has_quotes and not scan.has_lone_returns
    starts = None if is_plain else _line_starts(path, separator, len(names))
    options = pacsv.ConvertOptions(
        column_types={name: pa.string() for name in schema.names},
        include_columns=list(dict.fromkeys(schema.names)),
        strings_can_be_null=False,
    )
    try:
        table = pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(column_names=names, skip_rows=1, block_size=_BLOCK),
            parse_options=pacsv.ParseOptions(delimiter=separator, newlines_in_values=scan.has_quotes),
            convert_options=options,
        )
    except (pa.ArrowException, OSError):
        found = _line_starts(path, separator, len(names))  # says which line is wrong, if it sees it too
        reason = "a row is longer than 16 MiB" if len(found) else _NO_ROWS
        raise DataError(f"{path}: {reason}") from None
    if table.num_rows == 0:
        raise DataError(f"{path}: {_NO_ROWS}")
    if starts is None and scan.lines == table.num_rows + 1:
        starts = np.arange(2, table.num_rows + 2, dtype=np.int64)
    elif starts is None:  # blank lines
        starts = _line_starts(path, separator, len(names))
    if len(starts) != table.num_rows:
        raise DataError(f"{path}: rows cannot be told apart; is a line break or a quote out of place?")
    return _Source(path, {name: table.column(name) for name in schema.names}, starts)


def _scan(path: Path) -> _Scan:
    """Refuse what is not UTF-8 text before anything parses it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, has_quotes, has_returns, last = 1, False, False, b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if b"\0" in block:
                line += block[: block.index(b"\0")].count(b"\n")
                raise DataError(f"{path}: row {line}: NUL byte; accepted: text in UTF-8")
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                accepted = "UTF-8 with or without BOM"
                raise DataError(f"{path}: row {line}: not UTF-8; accepted: {accepted}") from None
            line += block.count(b"\n")
            has_quotes = has_quotes or b'"' in block
            has_returns = has_returns or block.count(b"\r") != block.count(b"\r\n")
            last = block[-1:]
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise DataError(f"{path}: row {line}: not UTF-8: the file ends within a character") from None
    return _Scan(line - (last == b"\n"), has_quotes, has_returns)


def _header(path: Path, schema: TableSchema) -> tuple[list[str], str]:
    """Names and separator of the first line: the separator yields the schema's names, else most names."""
    with path.open(encoding="utf-8-sig", newline=None) as file:
        line = file.readline(_BLOCK).rstrip("\n")
    if not line.strip():
        raise DataError(f"{path}: row 1: empty; accepted: column names in the first line")
    if line.count('"') % 2:
        raise DataError(f"{path}: row 1: a quote is not closed in the column names")
    splits = [(_split_header(line, separator), separator) for separator in _SEPARATORS]
    names, separator = max(splits, key=lambda s: (len(set(s[0]) & set(schema.names)), len(s[0])))
    wanted = {name: names.count(name) for name in schema.names}
    for name, count in wanted.items():
        if count == 0:
            _refuse_missing(path, name, names)
    # A file without header has values here: only names that the schema knows may be shown.
    for position, name in enumerate(names):
        if name in names[:position]:
            where = f"columns {names.index(name) + 1} and {position + 1}"
            shown = f" {_quoted(name)}" if name in wanted else ""
            raise DataError(f"{path}: row 1: {where} have the same name{shown}; accepted: different names")
    return names, separator


def _split_header(line: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=separator, strict=True))]
    except csv.Error:
        return []


def _refuse_missing(path: Path, name: str, present: Sequence[str]) -> NoReturn:
    similar = any(other.lower() == name.lower() for other in present)
    hint = "upper and lower case must be the same" if similar else "the first line must hold the column names"
    raise DataError(f"{path}: column {_quoted(name)} is missing; the file has {len(present)} columns", hint)


def _line_starts(path: Path, separator: str, width: int) -> NDArray[np.int64]:
    """Line on which each record begins, by a strict second reader: no ragged rows, no open quotes."""
    starts: list[int] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        before = 0
        try:
            for cells in reader:
                if cells and len(cells) != width:
                    raise DataError(f"{path}: row {before + 1}: {len(cells)} cells, the header has {width}")
                if cells:
                    starts.append(before + 1)
                before = reader.line_num
        except csv.Error:
            reason = "a quote is out of place or not closed, or a cell is longer than 131,072 characters"
            raise DataError(f"{path}: row {before + 1}: {reason}") from None
    return np.asarray(starts[1:], dtype=np.int64)


# Parquet


def _read_parquet(path: Path, schema: TableSchema) -> _Source:
    try:
        with pq.ParquetFile(path) as file:
            _check_parquet_names(path, schema, file.schema_arrow.names)
            for name in schema.names:
                kind = file.schema_arrow.field(name).type
                if not (schema.may_be_date(name) and pa.types.is_date(kind)):
                    _check_parquet_type(path, name, kind, schema.is_date(name))
            _check_parquet_size(path, file.metadata)
            texts = [name for name in schema.names if pa.types.is_string(file.schema_arrow.field(name).type)]
            large = check_claims(path, schema.names, texts)
        with pq.ParquetFile(path, read_dictionary=large) as file:
            table = file.read(columns=list(schema.names))
            table.validate(full=True)
            for name in schema.names:
                check_text(path, name, table.column(name))
            columns = {name: _plain(table.column(name)) for name in schema.names}
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError):
        raise DataError(f"{path}: damaged or truncated Parquet file") from None
    if table.num_rows == 0:
        raise DataError(f"{path}: no rows")
    rows = np.arange(1, table.num_rows + 1, dtype=np.int64)
    return _Source(path, columns, rows)


def _check_parquet_size(path: Path, metadata: pq.FileMetaData) -> None:
    # Of the columns of a damaged file pyarrow cannot be asked: it ends the process.
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    size = path.stat().st_size
    if unpacked > max(_SMALL, _MOST_UNPACKED * size):
        raise DataError(
            f"{path}: {size:,} bytes that unpack to {unpacked:,}: more than {_MOST_UNPACKED} times as many"
        )


def _check_parquet_names(path: Path, schema: TableSchema, names: Sequence[str]) -> None:
    for name in schema.names:
        if name not in names:
            _refuse_missing(path, name, names)
    if len(set(names)) != len(names):
        raise DataError(f"{path}: two columns have the same name; accepted: different names")


def _check_parquet_type(path: Path, name: str, kind: pa.DataType, is_date: bool) -> None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if is_date:
        readable = (pa.types.is_date, pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
        if not any(is_kind(kind) for is_kind in readable):
            accepted = "dates, or text like 1990-12-31"
            raise DataError(f"{path}: column {_quoted(name)}: holds no dates; accepted: {accepted}")
        return
    if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
        raise DataError(f"{path}: column {_quoted(name)}: holds nested values; accepted: numbers or text")
    if pa.types.is_temporal(kind):
        raise DataError(f"{path}: column {_quoted(name)}: holds dates or times; accepted: numbers or text")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        raise DataError(f"{path}: column {_quoted(name)}: holds bytes; accepted: numbers or text")


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as `string`, decimals and half floats as float64, whatever their encoding in the file."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    needs_float = pa.types.is_decimal(kind) or pa.types.is_float16(kind)
    return column.cast(pa.float64()) if needs_float else column


# Columns


def _id_values(source: _Source, name: str) -> Sequence[object]:
    column = source.columns[name]
    if pa.types.is_date(column.type):
        column = column.cast(pa.date32(), safe=False).cast(pa.string())
    values: list[object] = column.to_pylist()
    return values


def _forget_ids(source: _Source, schema: TableSchema) -> None:
    for key in schema.keys:
        for column in key.columns:
            source.forget(column)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_trim_whitespace(pc.fill_null(column, ""))


def _numbers(source: _Source, name: str) -> NDArray[np.float64]:
    column = source.columns[name]
    if pa.types.is_string(column.type):
        values = _parse_numbers(source, name, _text(column))
    elif pa.types.is_null(column.type):
        values = np.full(len(column), np.nan)
    else:
        values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    infinite = np.isinf(values)
    if infinite.any():
        source.refuse_cells(name, infinite, f"infinite, or beyond 1e308; accepted: {_NUMBER_ACCEPTED}")
    return values if values.flags.writeable else values.copy()


def _complete(source: _Source, name: str | None, kept: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Read a column of numbers of which none may be missing in the rows that stay."""
    if name is None:
        return None
    values = _numbers(source, name)
    missing = np.zeros(len(values), np.bool_)
    missing[kept] = np.isnan(values[kept])
    if missing.any():
        source.refuse_cells(name, missing, "empty; an offset or a weight is needed in every row")
    return np.asarray(values[kept], dtype=np.float64)


def _parse_numbers(source: _Source, name: str, text: pa.ChunkedArray) -> NDArray[np.float64]:
    missing = pc.equal(text, "")
    right = pc.or_(missing, pc.match_substring_regex(text, _NUMBER))
    if not pc.all(right).as_py():
        wrong = ~np.asarray(right.to_numpy(), dtype=np.bool_)
        source.refuse_cells(name, wrong, f"not a number; accepted: {_NUMBER_ACCEPTED}")
    unsigned = pc.replace_substring_regex(text, r"^\+", "")
    filled = pc.if_else(missing, pa.scalar(None, pa.string()), unsigned)
    return np.array(filled.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _categories(source: _Source, name: str) -> NDArray[np.object_]:
    column = source.columns[name]
    if pa.types.is_floating(column.type):
        values = column.to_numpy()
        broken = ~np.isnan(values) & ((np.abs(values) > 2**53) | (values != np.round(values)))
        if broken.any():
            source.refuse_cells(name, broken, "not a category; accepted: text, whole numbers or true/false")
        column = _without_nan(column).cast(pa.int64())
    text = _text(column if pa.types.is_string(column.type) else column.cast(pa.string()))
    encoded = pc.dictionary_encode(text)  # one str object per level instead of one per row
    return np.array(list(_levels(encoded)), dtype=np.object_)


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _levels(encoded: pa.ChunkedArray) -> Iterator[str | None]:
    for chunk in encoded.chunks:
        names = [name or None for name in chunk.dictionary.to_pylist()]
        yield from (names[code] for code in chunk.indices.to_pylist())


def _labels(source: _Source, name: str, refusal: str) -> NDArray[np.float64]:
    column = source.columns[name]
    if pa.types.is_floating(column.type):
        column = _without_nan(column)
    if not pa.types.is_string(column.type):
        column = column.cast(pa.string())
    text = [value.lower() for value in _text(column).to_pylist()]
    wrong = np.fromiter((value not in _LABELS for value in text), np.bool_, len(text))
    if wrong.any():
        source.refuse_cells(name, wrong, refusal)
    return np.fromiter((_LABELS[value] for value in text), np.float64, len(text))


def _read_label(source: _Source, schema: TableSchema) -> NDArray[np.float64] | None:
    if schema.label is None:
        return None
    if schema.label_kind == "number":
        return _numbers(source, schema.label)
    return _labels(source, schema.label, _NO_LABEL)


def _check_classes(source: _Source, name: str, label: NDArray[np.float64]) -> None:
    if not (label == 0).any() or not (label == 1).any():
        source.refuse(
            f"column {_quoted(name)}: both 0 and 1 must occur among the rows with a valid id",
            "a model cannot be trained on one class",
        )


def _ages(source: _Source, asked: Filters) -> NDArray[np.float64]:
    """Return completed years on the day of the filter, NaN where unknown."""
    if asked.birth_date is not None:
        return filters.years_old(_dates(source, asked.birth_date, np.datetime64(asked.day, "D")), asked.day)
    name = asked.age or ""
    ages = _numbers(source, name)
    wrong = (ages < 0) | (ages > filters.OLDEST)
    if wrong.any():
        source.refuse_cells(name, wrong, f"not an age; accepted: years from 0 to {filters.OLDEST}")
    return ages


def _dates(source: _Source, name: str, latest: np.datetime64) -> NDArray[np.datetime64]:
    column = source.columns[name]
    if pa.types.is_null(column.type):
        return np.full(len(column), np.datetime64("NaT", "D"))
    if pa.types.is_date(column.type):
        found = column.cast(pa.date32(), safe=False).to_numpy().astype("datetime64[D]")
    else:
        found = _parse_dates(source, name, _text(column))
    with_date = ~np.isnat(found)
    wrong = with_date & ((found < _FIRST_BIRTH) | (found > latest))
    if wrong.any():
        source.refuse_cells(name, wrong, f"not a date of birth; accepted: from {_FIRST_BIRTH} to {latest}")
    return np.asarray(found)


def _parse_dates(source: _Source, name: str, text: pa.ChunkedArray) -> NDArray[np.datetime64]:
    missing = np.asarray(pc.equal(text, "").to_numpy(), dtype=np.bool_)
    shaped = np.asarray(pc.match_substring_regex(text, _DATE).to_numpy(), dtype=np.bool_)
    safe = pc.if_else(pa.chunked_array([pa.array(shaped)]), text, "1900-01-01")
    year, month, day = (
        pc.utf8_slice_codeunits(safe, start, stop).cast(pa.int64()).to_numpy()
        for start, stop in ((0, 4), (5, 7), (8, 10))
    )
    months = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month - 1)
    found = months.astype("datetime64[D]") + (day - 1)
    # 30 February would be a day in March here.
    real = shaped & (month >= 1) & (month <= 12) & (day >= 1) & (found.astype("datetime64[M]") == months)
    wrong = ~(missing | real)
    if wrong.any():
        accepted = "like 1990-12-31, or an empty cell for missing"
        source.refuse_cells(name, wrong, f"not a date; accepted: {accepted}")
    return np.where(missing, np.datetime64("NaT", "D"), found)
