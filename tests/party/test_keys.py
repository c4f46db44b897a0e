import io
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedmkt.errors import ConfigError, DataError
from fedmkt.learn.linkage import UnionReport
from fedmkt.party.filters import Filters
from fedmkt.party.keys import KeyColumns, people
from fedmkt.party.table import Column, Table, TableSchema, read_table

EMAIL = KeyColumns("email", ("email",))
NAME = KeyColumns("compound", ("surname", "born"))
SCHEMA = TableSchema("phone", "phone", "86", (Column("age", "number"),), more_ids=(EMAIL, NAME))
HEADER = "phone,email,surname,born,age\n"
ROWS = (
    "13800138000,a@x.cn,Li,1980-02-01,40\n"
    ",b@x.cn,Wang,,41\n"
    "no phone,,O'Brien,1985-05-05,42\n"
    ",,,,43\n"
    "13900139000,home@x.cn,Li,19800201,44\n"
    "13700137000,Home@x.cn,Zhao,1990-01-01,45\n"
)


def read(folder: Path, text: str = HEADER + ROWS, schema: TableSchema = SCHEMA) -> Table:
    (folder / "bank.csv").write_text(text, encoding="utf-8")
    return read_table(folder / "bank.csv", schema)


def test_a_row_stays_that_has_any_of_several_ids(tmp_path: Path) -> None:
    table = read(tmp_path)
    assert table.ids == ("+8613800138000", None, None, "+8613900139000", "+8613700137000")
    assert table.more_ids == (
        ("a@x.cn", "b@x.cn", None, None, None),
        (None, None, "obrien|19850505", None, "zhao|19900101"),
    )
    assert table.numbers["age"].tolist() == [40, 41, 42, 44, 45]
    assert table.rows.tolist() == [2, 3, 4, 6, 7]


def test_the_report_counts_each_id(tmp_path: Path) -> None:
    report = read(tmp_path).report
    assert isinstance(report, UnionReport)
    assert (report.rows, report.kept, report.duplicates, report.keyless) == (6, 5, 0, 1)
    assert [(k.kind, k.used, k.ambiguous) for k in report.keys] == [
        ("phone", 3, 0), ("email", 2, 2), ("compound", 2, 2),
    ]  # fmt: skip


def test_lists_of_the_same_people_are_told_apart_by_any_id(tmp_path: Path) -> None:
    one = read(tmp_path)
    other = read(tmp_path, HEADER + ROWS.replace("a@x.cn", "new@x.cn"))
    assert one.ids == other.ids
    assert len(set(one.people)) == len(one.people) == 5
    assert len(set(one.people) ^ set(other.people)) == 2


def test_people_with_one_id_are_that_id() -> None:
    assert people([("a", "b")]) == ("a", "b")
    assert people([("a", "a"), ("b", None)]) == ("1:a1:b", "1:a0:")
    assert people([("1:a", None)] * 2) != people([("", "a")] * 2)


def test_a_table_with_several_ids_shows_none_of_them(tmp_path: Path) -> None:
    table = read(tmp_path)
    text = repr(table) + " ".join(table.report_lines())
    assert "138" not in text and "x.cn" not in text and "obrien" not in text


def test_a_list_without_any_valid_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no valid id in 1 rows, by none of phone, email, surname\+born"):
        read(tmp_path, HEADER + "1,2,,3,4\n")


def test_a_column_of_an_id_that_the_file_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='column "born" is missing'):
        read(tmp_path, "phone,email,surname,age\n13800138000,a@x.cn,Li,40\n")


def test_a_column_of_an_id_is_no_feature(tmp_path: Path) -> None:
    schema = TableSchema("phone", "phone", "86", (Column("born", "number"),), more_ids=(NAME,))
    with pytest.raises(ConfigError, match='"born" is named twice'):
        read(tmp_path, HEADER + ROWS, schema)


def test_the_id_may_be_a_part_of_another(tmp_path: Path) -> None:
    schema = TableSchema("phone", "phone", "86", (), more_ids=(KeyColumns("compound", ("phone", "surname")),))
    assert read(tmp_path, HEADER + ROWS, schema).more_ids[0][0] == "13800138000|li"


def test_dates_of_a_parquet_file_are_parts_of_an_id(tmp_path: Path) -> None:
    target = io.BytesIO()
    columns = {
        "phone": [None, None], "email": [None, None], "surname": ["Li", "Wang"], "age": [1, 2],
        "born": [date(1980, 2, 1), None],
    }  # fmt: skip
    pq.write_table(pa.table(columns), target)
    (tmp_path / "bank.parquet").write_bytes(target.getvalue())
    table = read_table(tmp_path / "bank.parquet", SCHEMA)
    assert table.more_ids[1] == ("li|19800201",)


# Who opted out

DAY = date(2030, 1, 1)


def without(folder: Path, opt_out: str, rows: str = ROWS) -> Table:
    (folder / "out.csv").write_text("phone,email,surname,born\n" + opt_out, encoding="utf-8")
    schema = TableSchema(
        "phone", "phone", "86", (Column("age", "number"),),
        filters=Filters(DAY, opt_out=folder / "out.csv"), more_ids=(EMAIL, NAME),
    )  # fmt: skip
    return read(folder, HEADER + rows, schema)


@pytest.mark.parametrize(
    ("opt_out", "ages"),
    [
        ("", [40, 41, 42, 44, 45]),
        ("+86 138 0013 8000,,,\n", [41, 42, 44, 45]),
        (",B@x.cn,,\n", [40, 42, 44, 45]),
        (",,o brien,1985/05/05\n", [40, 41, 44, 45]),
        # An address of two people matches neither of them, but both may have asked.
        (",home@x.cn,,\n", [40, 41, 42]),
        (",,Li,1980.02.01\n", [41, 42, 45]),
        ("13600136000,nobody@x.cn,,\n", [40, 41, 42, 44, 45]),
        ("13700137000,b@x.cn,,\n", [40, 42, 44]),
    ],
)
def test_whoever_opted_out_by_any_id_is_off_the_list(tmp_path: Path, opt_out: str, ages: list[int]) -> None:
    table = without(tmp_path, opt_out)
    assert table.numbers["age"].tolist() == ages
    assert len(table.ids) == len(table.more_ids[0]) == len(table.more_ids[1]) == len(ages)
    assert table.dropped.opt_out == 5 - len(ages)


def test_a_repeated_row_that_opted_out_takes_its_person_off(tmp_path: Path) -> None:
    table = without(tmp_path, ",old@x.cn,,\n", ROWS + "13800138000,old@x.cn,,,46\n")
    assert table.numbers["age"].tolist() == [41, 42, 44, 45]


@pytest.mark.parametrize("row", [",,Li,\n", "123,a@x.cn,,\n", "13800138000,no address,,\n"])
def test_an_opt_out_that_cannot_be_read_is_refused(tmp_path: Path, row: str) -> None:
    with pytest.raises(DataError, match="row 2: no valid "):
        without(tmp_path, row)
