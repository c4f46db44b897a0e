import dataclasses
import io
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmkt.errors import ConfigError, DataError, FedmktError
from fedmkt.party.table import Column, Table, TableSchema, read_table

SECRET = "77secret77"  # stands for a person's value in malformed files: no message may contain it
SCHEMA = TableSchema(
    id_column="phone",
    id_kind="phone",
    country="351",
    columns=(Column("age", "number"), Column("job", "category")),
    label="bought",
)
HEADER = "phone,age,job,bought\n"
GOOD = HEADER + "912000001,40,office,1\n912000002,50,trade,0\n912000003,,,\n"
PHONES = ["912000001", "912000002", "912000003"]
GOOD_COLUMNS: dict[str, object] = {
    "phone": PHONES,
    "age": [40.0, 50.0, None],
    "job": ["office", "trade", None],
    "bought": [1, 0, None],
}


def read(folder: Path, content: str | bytes, name: str = "bank.csv", schema: TableSchema = SCHEMA) -> Table:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return read_table(folder / name, schema)


def parquet(**changes: object) -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.table({**GOOD_COLUMNS, **changes}), target)
    return target.getvalue()


def cell(row: int, column: int, value: str) -> str:
    """GOOD with one cell replaced; row 0 is the header."""
    lines = [line.split(",") for line in GOOD.splitlines()]
    lines[row][column] = value
    return "\n".join(",".join(line) for line in lines) + "\n"


def test_a_plain_csv_is_read(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)
    assert table.ids == ("+351912000001", "+351912000002", "+351912000003")
    np.testing.assert_array_equal(table.numbers["age"], [40, 50, np.nan])
    assert table.categories["job"].tolist() == ["office", "trade", None]
    assert table.label is not None
    np.testing.assert_array_equal(table.label, [1, 0, np.nan])
    assert table.rows.tolist() == [2, 3, 4]
    assert table.report.kept == 3


VARIANTS: dict[str, bytes] = {
    "with_bom": b"\xef\xbb\xbf" + GOOD.encode(),
    "semicolons": GOOD.replace(",", ";").encode(),
    "tabs": GOOD.replace(",", "\t").encode(),
    "windows_lines": GOOD.replace("\n", "\r\n").encode(),
    "old_mac_lines": GOOD.replace("\n", "\r").encode(),
    "no_last_line_break": GOOD.rstrip("\n").encode(),
    "quoted": b"\n".join(b",".join(b'"%s"' % c for c in r.split(b",")) for r in GOOD.encode().splitlines()),
    "other_columns_too": "\n".join(f"x{i},{line},y" for i, line in enumerate(GOOD.splitlines())).encode(),
    "spaces_around_cells": GOOD.replace(",", " , ").encode(),
    "commas_in_quotes": GOOD.replace("phone,", '"a,b",phone,').replace("\n912", '\n"1,2",912').encode(),
    "yes_and_no": GOOD.replace(",1\n", ",YES\n").replace(",0\n", ",no\n").encode(),
    "true_and_false": GOOD.replace(",1\n", ",True\n").replace(",0\n", ",FALSE\n").encode(),
    "whole_floats_as_labels": GOOD.replace(",1\n", ",1.0\n").replace(",0\n", ",0.0\n").encode(),
    "signs_and_exponents": GOOD.replace("40", "+4.e1").replace("50", "5.0E+01").encode(),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_harmless_variants_are_read_alike(tmp_path: Path, variant: str) -> None:
    expected, table = read(tmp_path, GOOD), read(tmp_path, VARIANTS[variant], "variant.csv")
    assert table.ids == expected.ids and table.report.kept == 3
    np.testing.assert_array_equal(table.numbers["age"], expected.numbers["age"])
    assert table.categories["job"].tolist() == expected.categories["job"].tolist()
    np.testing.assert_array_equal(table.label, expected.label)
    assert table.rows.tolist() == [2, 3, 4]


PARQUETS: dict[str, bytes] = {
    "plain": parquet(),
    "float_label": parquet(bought=[1.0, 0.0, float("nan")]),
    "boolean_label": parquet(bought=[True, False, None]),
    "text_label": parquet(bought=["yes", "no", None]),
    "phones_as_numbers": parquet(phone=[int(p) for p in PHONES]),
    "phones_as_floats": parquet(phone=[float(p) for p in PHONES]),
    "numbers_as_text": parquet(age=["40", " 50 ", ""]),
    "decimals": parquet(age=[Decimal("40.0"), Decimal("50.0"), None]),
    "small_integers": parquet(age=pa.array([40, 50, None], pa.int8())),
    "half_floats": parquet(age=pa.array(np.array([40, 50, np.nan], dtype=np.float16))),
    "nan_for_missing": parquet(age=[40.0, 50.0, float("nan")]),
    "dictionary": parquet(job=pa.array(["office", "trade", None]).dictionary_encode()),
    "large_text": parquet(job=pa.array(["office", "trade", None], pa.large_string())),
    "other_columns_of_any_type": parquet(extra=[[1], [2], [3]], born=[date(2000, 1, 1)] * 3),
}


@pytest.mark.parametrize("variant", PARQUETS)
def test_parquet_is_read_like_csv_but_counts_records(tmp_path: Path, variant: str) -> None:
    expected, table = read(tmp_path, GOOD), read(tmp_path, PARQUETS[variant], "bank.parquet")
    assert table.ids == expected.ids
    np.testing.assert_array_equal(table.numbers["age"], expected.numbers["age"])
    assert table.categories["job"].tolist() == expected.categories["job"].tolist()
    np.testing.assert_array_equal(table.label, expected.label)
    assert table.rows.tolist() == [1, 2, 3]


def test_categories_of_whole_numbers_or_booleans_become_text(tmp_path: Path) -> None:
    table = read(tmp_path, parquet(job=[3.0, 0.0, float("nan")]), "a.parquet")
    assert table.categories["job"].tolist() == ["3", "0", None]
    table = read(tmp_path, parquet(job=[True, False, None]), "b.parquet")
    assert table.categories["job"].tolist() == ["true", "false", None]


def test_ids_keep_their_leading_zeros(tmp_path: Path) -> None:
    schema = TableSchema("id", "raw", "351", (Column("age", "number"),))
    assert read(tmp_path, "id,age\n00351,1\n007,2\n", schema=schema).ids == ("00351", "007")
    assert read(tmp_path, GOOD.replace("912000001", "00351912000001")).ids[0] == "+351912000001"


def test_rows_are_the_lines_of_the_file_even_after_blank_lines_and_long_cells(tmp_path: Path) -> None:
    text = HEADER + "912000001,1,a,1\n\n912000002,2,b,0\n\n\n912000003,3,c,\n\n"
    assert read(tmp_path, text).rows.tolist() == [2, 4, 7]
    text = HEADER + '912000001,1,"a\nb",1\n912000002,2,b,0\n912000003,3,c,\n'
    table = read(tmp_path, text)
    assert table.rows.tolist() == [2, 4, 5]
    assert table.categories["job"][0] == "a\nb"


def test_rows_without_a_usable_or_new_id_are_dropped_and_counted(tmp_path: Path) -> None:
    text = HEADER + (
        "912000001,1,a,1\n,2,b,0\nnobody,3,c,0\n+351 912 000 001,4,d,0\n912000002,5,e,0\n912000001,6,f,1\n"
    )
    table = read(tmp_path, text)
    assert table.rows.tolist() == [2, 6]
    np.testing.assert_array_equal(table.numbers["age"], [1, 5])
    assert table.categories["job"].tolist() == ["a", "e"]
    report = table.report
    assert (report.rows, report.empty, report.invalid, report.duplicates, report.label_conflicts) == (
        6,
        1,
        1,
        2,
        1,
    )


def test_a_table_without_label_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD, schema=dataclasses.replace(SCHEMA, label=None)).label is None


def test_a_repr_shows_no_id_and_no_value(tmp_path: Path) -> None:
    assert repr(read(tmp_path, GOOD)) == "Table(3 rows, 1 numbers, 1 categories)"


def test_numbers_may_be_written_to(tmp_path: Path) -> None:
    for name, content in (("a.csv", GOOD.encode()), ("a.parquet", parquet())):
        read(tmp_path, content, name).numbers["age"][0] = 0.0


@given(
    st.lists(
        st.tuples(
            st.floats(allow_infinity=False, allow_nan=False) | st.none(),
            st.sampled_from(["a", "b c", "é", ""]),
        ),
        min_size=2,
        max_size=30,
    ),
    st.sampled_from([",", ";", "\t"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_what_pandas_writes_is_read_bit_for_bit(
    tmp_path: Path, rows: list[tuple[float | None, str]], separator: str
) -> None:
    frame = pd.DataFrame(rows, columns=["age", "job"]).astype({"age": float})
    frame["phone"] = [912000000 + i for i in range(len(rows))]
    frame["bought"] = [i % 2 for i in range(len(rows))]
    frame.to_csv(tmp_path / "bank.csv", index=False, sep=separator)
    table = read_table(tmp_path / "bank.csv", SCHEMA)
    np.testing.assert_array_equal(table.numbers["age"], frame["age"].to_numpy())
    assert table.categories["job"].tolist() == [job or None for job in frame["job"]]


# Malformed files: name of the case -> (file name, content, what the one line must say).

CSV_CASES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "empty file"),
    "header_only": (HEADER, "no rows"),
    "header_without_line_break": (HEADER.strip(), "no rows"),
    "header_and_blank_lines": (HEADER + "\n\n", "no rows"),
    "only_a_bom": (b"\xef\xbb\xbf", "row 1: empty"),
    "only_blank_lines": ("\n\n\n", "row 1: empty"),
    "blank_first_line": ("\n" + GOOD, "row 1: empty"),
    "no_header": ("\n".join(GOOD.splitlines()[1:]), "is missing"),
    "no_header_and_equal_values": (f"{SECRET},{SECRET},1,2\n" * 3, "is missing"),
    "missing_id": (GOOD.replace("phone", "fone"), 'column "phone" is missing; the file has 4 columns'),
    "missing_number": (GOOD.replace("age", "Age"), 'column "age" is missing'),
    "missing_category": (GOOD.replace("job", "work"), 'column "job" is missing'),
    "missing_label": (GOOD.replace("bought", "sold"), 'column "bought" is missing'),
    "name_twice": (GOOD.replace("job", "age"), "is missing"),
    "known_name_twice": (
        "\n".join(f"{line},{line.split(',')[1]}" for line in GOOD.splitlines()),
        'columns 2 and 5 have the same name "age"',
    ),
    "unknown_name_twice": (
        "\n".join(f"{line},{SECRET},{SECRET}" for line in GOOD.splitlines()),
        "columns 5 and 6 have the same name;",
    ),
    "unnamed_twice": ("\n".join(f"{line},," for line in GOOD.splitlines()), "columns 5 and 6"),
    "short_row": (GOOD + f"912000004,{SECRET}\n", "row 5: 2 cells, the header has 4"),
    "long_row": (GOOD + f"912000004,1,{SECRET},1,9\n", "row 5: 5 cells, the header has 4"),
    "ragged_in_the_middle": (GOOD.replace("50,", "50,,"), "row 3: 5 cells"),
    "ragged_after_a_long_cell": (GOOD + '912000004,1,"a\nb",1\n912000005\n', "row 7: 1 cells"),
    "spaces_for_a_row": (GOOD + "   \n", "row 5: 1 cells"),
    "decimal_comma": (GOOD.replace("40", "40,5"), "row 2: 5 cells"),
    "other_separator_below": (GOOD.replace("50,", "50;"), "row 3: 3 cells"),
    "open_quote": (GOOD.replace("office", f'"{SECRET}'), "row 2: a quote is out of place"),
    "open_quote_in_the_last_row": (GOOD + f'912000004,1,"{SECRET},1\n', "row 5: a quote is out of place"),
    "text_after_a_quote": (GOOD.replace("office", f'"{SECRET}"x'), "row 2: a quote is out of place"),
    "open_quote_in_the_header": ('"' + GOOD, "row 1: a quote is not closed"),
    "huge_quoted_cell": (GOOD.replace("office", '"' + "x" * 200_000 + '"'), "row 2: a quote is out of place"),
    "nul": (GOOD.replace("trade", "tr\0de"), "row 3: NUL byte"),
    "nul_in_the_header": ("\0" + GOOD, "row 1: NUL byte"),
    "latin_1": (GOOD.replace("trade", "métier").encode("latin-1"), "row 3: not UTF-8"),
    "gbk": (GOOD.replace("trade", "销售").encode("gbk"), "row 3: not UTF-8"),
    "utf_16": (GOOD.encode("utf-16"), "UTF-16"),
    "utf_16_big_endian": (b"\xfe\xff" + GOOD.encode("utf-16-be"), "UTF-16"),
    "utf_16_without_mark": (GOOD.encode("utf-16-le"), "NUL byte"),
    "utf_32": (GOOD.encode("utf-32"), "UTF-16"),
    "overlong_utf_8": (GOOD.encode().replace(b"trade", b"\xc0\xaf"), "row 3: not UTF-8"),
    "surrogate_in_utf_8": (GOOD.encode().replace(b"trade", b"\xed\xa0\x80"), "row 3: not UTF-8"),
    "cut_within_a_character": (GOOD.encode() + b"912000004,1,\xe8\x81", "not UTF-8"),
    "gzip": (b"\x1f\x8b\x08\x00" + b"\x00" * 20, "gzip"),
    "excel": (b"PK\x03\x04" + b"\x00" * 20, "Excel"),
    "old_excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel"),
    "parquet_named_csv": (parquet(), "holds Parquet"),
    "all_ids_invalid": (GOOD.replace("912", "x12"), "no valid phone in 3 rows"),
    "all_ids_empty": (
        GOOD.replace("912000001", "").replace("912000002", "").replace("912000003", ""),
        "no valid",
    ),
    "one_class": (GOOD.replace(",0\n", ",1\n"), 'column "bought": both 0 and 1'),
    "no_label_at_all": (GOOD.replace(",0\n", ",\n").replace(",1\n", ",\n"), 'column "bought": both 0 and 1'),
    "the_other_class_without_id": (GOOD.replace("912000002", ""), 'column "bought": both 0 and 1'),
    "one_wide_row": (GOOD + "," * 100_000 + "\n", "row 5: 100001 cells"),
    "binary": (bytes(range(1, 256)), "not UTF-8"),
    "html": ("<html><body>401 Unauthorized</body></html>\n", "is missing"),
    "json": ('{"phone": "912000001"}\n', "is missing"),
}
NOT_NUMBERS = [
    *("abc", "1_000", "1e", "e5", ".", "-", "+", "--1", "0x10", "1 000", "12%", "€5", "2024-01-31", "1/2"),
    *("nan", "NaN", "NA", "N/A", "null", "None", "inf", "-Infinity", "1.2.3", "١٢", "\u2212 5", "1\u00a0000"),
    *("=1+1", "true", "#REF!", "1e5x", "\uff11\uff12"),
]
NOT_LABELS = ["2", "-1", "0.5", "y", "maybe", "nan", "NULL", "1.5", "on", "01", "\uff11", "yes!", "0 1"]
PARQUET_CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty file"),
    "csv_named_parquet": (GOOD.encode(), "not a Parquet file"),
    "wrong_magic": (b"PAR2" + parquet()[4:], "not a Parquet file"),
    "encrypted_magic": (b"PARE" + parquet()[4:], "not a Parquet file"),
    "magic_only": (b"PAR1", "damaged or truncated"),
    "magic_twice": (b"PAR1PAR1", "damaged or truncated"),
    "half": (parquet()[: len(parquet()) // 2], "damaged or truncated"),
    "without_last_byte": (parquet()[:-1], "damaged or truncated"),
    "with_more_bytes": (parquet() + b"\0", "damaged or truncated"),
    "wrong_footer_length": (parquet()[:-8] + b"\xff\xff\xff\x7fPAR1", "damaged or truncated"),
    "zero_footer_length": (parquet()[:-8] + b"\0\0\0\0PAR1", "damaged or truncated"),
    "data_overwritten": (parquet()[:4] + b"\xff" * 60 + parquet()[64:], "damaged or truncated"),
    "no_rows": (parquet(phone=[], age=[], job=[], bought=[]), "no rows"),
    "list": (parquet(age=[[1], [2], [3]]), 'column "age": holds nested values'),
    "struct": (parquet(job=[{"a": 1}, {"a": 2}, {"a": 3}]), 'column "job": holds nested values'),
    "map": (
        parquet(job=pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64()))),
        'column "job": holds nested values',
    ),
    "nested_id": (parquet(phone=[[p] for p in PHONES]), 'column "phone": holds nested values'),
    "date": (parquet(age=[date(2000, 1, 1)] * 3), 'column "age": holds dates'),
    "timestamp": (parquet(age=[datetime(2000, 1, 1)] * 3), 'column "age": holds dates'),
    "duration": (parquet(age=[timedelta(1)] * 3), 'column "age": holds dates'),
    "date_as_category": (parquet(job=[date(2000, 1, 1)] * 3), 'column "job": holds dates'),
    "date_as_label": (parquet(bought=[date(2000, 1, 1)] * 3), 'column "bought": holds dates'),
    "bytes": (parquet(job=[b"a", b"b", b"c"]), 'column "job": holds bytes'),
    "bytes_as_id": (parquet(phone=[p.encode() for p in PHONES]), 'column "phone": holds bytes'),
    "fixed_bytes": (parquet(job=pa.array([b"ab"] * 3, pa.binary(2))), 'column "job": holds bytes'),
    "infinite": (parquet(age=[1.0, float("-inf"), 2.0]), 'column "age", row 2: infinite'),
    "half_categories": (parquet(job=[1.0, 2.5, 3.0]), 'column "job", row 2: not a category'),
    "infinite_category": (parquet(job=[1.0, float("inf"), 3.0]), 'column "job", row 2: not a category'),
    "text_as_number": (parquet(age=["1", "2", SECRET]), 'column "age", row 3: not a number'),
    "label_2": (parquet(bought=[1, 0, 2]), 'column "bought", row 3: not a label'),
    "label_half": (parquet(bought=[1.0, 0.5, None]), 'column "bought", row 2: not a label'),
    "one_class": (parquet(bought=[1, 1, None]), "both 0 and 1"),
    "labels_all_null": (parquet(bought=pa.nulls(3)), "both 0 and 1"),
    "boolean_ids": (parquet(phone=[True, False, True]), "no valid phone"),
    "null_ids": (parquet(phone=pa.nulls(3)), "no valid phone"),
    "missing_column": (parquet(age=[1, 2, 3]).replace(b"bought", b"bougth"), "is missing"),
}


def refusal(folder: Path, name: str, content: str | bytes) -> str:
    """The message of the refusal, after checking what holds for all of them."""
    with pytest.raises(DataError) as caught:
        read(folder, content, name)
    error = caught.value
    assert error.exit_code == 3
    for text in (str(error), error.hint):
        assert "\n" not in text and SECRET not in text and "912000" not in text
    assert str(error).startswith(f"{folder / name}: ")
    assert error.__cause__ is None  # nothing of a parser's own message, which may quote the row
    assert [path.name for path in folder.iterdir()] == [name]
    return str(error)


@pytest.mark.parametrize("case", CSV_CASES)
def test_a_malformed_csv_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, expected = CSV_CASES[case]
    assert expected in refusal(tmp_path, "bank.csv", content)


@pytest.mark.parametrize("case", PARQUET_CASES)
def test_a_malformed_parquet_file_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, expected = PARQUET_CASES[case]
    assert expected in refusal(tmp_path, "bank.parquet", content)


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_what_is_no_number_is_refused_by_row(tmp_path: Path, value: str) -> None:
    message = refusal(tmp_path, "bank.csv", cell(2, 1, value))
    assert 'column "age", row 3: not a number; accepted: digits' in message


@pytest.mark.parametrize("value", ["1e999", "-1e400", "9" * 400])
def test_a_number_beyond_float64_is_refused_by_row(tmp_path: Path, value: str) -> None:
    assert 'column "age", row 3: infinite' in refusal(tmp_path, "bank.csv", cell(2, 1, value))


@pytest.mark.parametrize("value", NOT_LABELS)
def test_what_is_no_label_is_refused_by_row(tmp_path: Path, value: str) -> None:
    message = refusal(tmp_path, "bank.csv", cell(3, 3, value))
    assert 'column "bought", row 4: not a label; accepted: 0/1, yes/no, true/false' in message


def test_the_row_of_a_bad_cell_counts_lines_not_records(tmp_path: Path) -> None:
    text = HEADER + '\n912000001,1,"a\nb",1\n\n912000002,x,b,0\n'
    assert "row 6: not a number" in refusal(tmp_path, "bank.csv", text)


def test_several_bad_cells_are_counted(tmp_path: Path) -> None:
    text = GOOD.replace("40", SECRET).replace("50", SECRET)
    assert refusal(tmp_path, "bank.csv", text).endswith("(2 such rows)")


def test_a_bad_line_beyond_the_first_block_is_found(tmp_path: Path) -> None:
    rows = [f"912{i:06d},{i},{'x' * 80},{i % 2}" for i in range(200_000)]
    rows[190_000] = f"912190000,{SECRET}"
    assert "row 190002: 2 cells" in refusal(tmp_path, "bank.csv", HEADER + "\n".join(rows))
    rows[190_000] = f"912190000,{SECRET},a,1"
    assert "row 190002: not a number" in refusal(tmp_path, "bank.csv", HEADER + "\n".join(rows))
    data = (HEADER + "\n".join(rows)).encode().replace(SECRET.encode(), b"\xff")
    assert "row 190002: not UTF-8" in refusal(tmp_path, "bank.csv", data)


@pytest.mark.parametrize("name", ["bank.csv", "bank.parquet", "bank"])
def test_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="is a folder, not a file"):
        read_table(tmp_path / name, SCHEMA)


@pytest.mark.parametrize(
    "name", ["bank.csv", "bank.parquet", "no/such/folder.csv", "a" * 300 + ".csv", "a\0.csv"]
)
def test_a_missing_file_is_a_mistake_of_configuration(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_table(tmp_path / name, SCHEMA)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["bank.xlsx", "bank", "bank.csv.gz", "bank.json"])
def test_other_kinds_of_file_are_refused(tmp_path: Path, name: str) -> None:
    assert "accepted: names ending in" in refusal(tmp_path, name, GOOD)


def test_one_column_in_two_roles_is_a_mistake_of_configuration(tmp_path: Path) -> None:
    schema = dataclasses.replace(SCHEMA, label="age")
    with pytest.raises(ConfigError, match='column "age" is named twice'):
        read(tmp_path, GOOD, schema=schema)


def test_a_name_with_a_line_break_stays_on_one_line(tmp_path: Path) -> None:
    schema = dataclasses.replace(SCHEMA, columns=(Column("a\nb", "number"),))
    with pytest.raises(DataError) as caught:
        read(tmp_path, GOOD, schema=schema)
    assert 'column "a\\nb" is missing' in str(caught.value)


def _flip(data: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[place % len(data)] ^= 1 << bit
    return bytes(changed)


@given(st.integers(0, 10_000), st.integers(0, 7), st.sampled_from(["bank.csv", "bank.parquet"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_flipped_bit_is_read_or_refused_but_never_a_crash(
    tmp_path: Path, place: int, bit: int, name: str
) -> None:
    make: Callable[[], bytes] = parquet if name.endswith("parquet") else GOOD.encode
    try:
        read(tmp_path, _flip(make(), place, bit), name)
    except FedmktError as error:
        assert error.exit_code in (2, 3) and "\n" not in str(error)


@given(st.binary(max_size=60) | st.text(alphabet='912,;\t\n\r" ageéx', max_size=60).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_bytes_below_a_header_are_read_or_refused(tmp_path: Path, body: bytes) -> None:
    try:
        table = read(tmp_path, HEADER.encode() + b"912000001,1,a,1\n912000002,2,b,0\n" + body)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert table.rows[:2].tolist() == [2, 3]


def test_at_least_sixty_malformed_files_are_tried() -> None:
    assert len(CSV_CASES) + len(PARQUET_CASES) + len(NOT_NUMBERS) + len(NOT_LABELS) >= 60


def test_offset_and_weight_are_read_and_must_be_complete(tmp_path: Path) -> None:
    schema = dataclasses.replace(SCHEMA, columns=(), offset="age", weight="w")
    text = "phone,age,w,bought\n912000001,-0.5,1,1\n912000002,2,0.25,0\nno phone,,,\n"
    table = read(tmp_path, text, schema=schema)
    assert table.offset is not None and table.weight is not None
    assert table.offset.tolist() == [-0.5, 2.0] and table.weight.tolist() == [1.0, 0.25]
    with pytest.raises(DataError, match=r'column "w", row 3: empty; an offset or a weight'):
        read(tmp_path, text.replace("0.25", ""), schema=schema)
    with pytest.raises(DataError, match='column "w": a weight below 0'):
        read(tmp_path, text.replace("0.25", "-1"), schema=schema)
    plain = read(tmp_path, text, schema=dataclasses.replace(SCHEMA, columns=()))
    assert plain.offset is None and plain.weight is None
