import io
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.config.files import parse_schema
from fedmkt.config.tables import PartnerConfig
from fedmkt.errors import ConfigError, DataError
from fedmkt.party.filters import Dropped, Filters, years_old
from fedmkt.party.node import local_states, open_data
from fedmkt.party.table import Column, Table, TableSchema, read_table
from fedmkt.protocol.alignment.psi import Customers
from fedmkt.protocol.prepare import Columns

DAY = date(2030, 6, 15)
SECRET = "77secret77"  # stands for a person's value: no message may contain it
HEADER = "phone,spend,agreed,born,years\n"
ROWS = (
    "912000001,1,yes,2000-01-01,30",
    "912000002,2,no,2000-01-01,30",
    "912000003,3,1,2012-06-16,17",
    "912000004,4,true,2012-06-15,18",
    "912000005,5,,2000-01-01,30",
    "912000006,6,1.0,,",
)
PEOPLE = HEADER + "".join(f"{row}\n" for row in ROWS)


def table(folder: Path, people: str = PEOPLE, opt_out: str | None = None, **asked: object) -> Table:
    """Read a shop's table with filters; an opt-out list is written beside it."""
    (folder / "shop.csv").write_text(people)
    if opt_out is not None:
        (folder / "out.csv").write_text(opt_out)
        asked["opt_out"] = folder / "out.csv"
    return read_table(folder / "shop.csv", schema(**asked))


def schema(**asked: object) -> TableSchema:
    filters = Filters(DAY, **asked)  # type: ignore[arg-type]
    return TableSchema("phone", "phone", "351", (Column("spend", "number"),), filters=filters)


def who(found: Table) -> list[int]:
    return [int(one[-1]) for one in found.ids]


def test_without_filters_everybody_stays(tmp_path: Path) -> None:
    found = table(tmp_path)
    assert who(found) == [1, 2, 3, 4, 5, 6]
    assert found.dropped == Dropped() and found.report_lines() == found.report.report_lines()


def test_only_who_said_yes_stays_and_silence_is_no_yes(tmp_path: Path) -> None:
    found = table(tmp_path, consent="agreed")
    assert who(found) == [1, 3, 4, 6]
    assert found.numbers["spend"].tolist() == [1, 3, 4, 6]
    assert found.rows.tolist() == [2, 4, 5, 7]
    assert found.dropped == Dropped(consent=2)
    assert found.report_lines()[-1] == "2 dropped: no consent"
    assert found.report.kept == 6  # what happened to the id column is another matter


def test_whoever_is_on_the_opt_out_list_goes_however_the_id_is_written_there(tmp_path: Path) -> None:
    wide = "912000006".translate({c: c + 0xFEE0 for c in range(ord("0"), ord("9") + 1)})
    listed = f"phone,since\n+351 912-000-002,2029\n00351912000004,2028\n{wide},\n912000099,\n"
    found = table(tmp_path, opt_out=listed)
    assert who(found) == [1, 3, 5] and found.dropped == Dropped(opt_out=3)
    assert found.report_lines()[-1] == "3 dropped: on the opt-out list"


@pytest.mark.parametrize("text", ["phone\n", "phone", "phone,since\r\n"])
def test_an_opt_out_list_of_nobody_drops_nobody_and_says_so(tmp_path: Path, text: str) -> None:
    found = table(tmp_path, opt_out=text)
    assert len(found.ids) == 6
    assert found.report_lines()[-1] == "0 dropped: on the opt-out list"


def test_whoever_is_a_day_too_young_or_of_unknown_age_goes(tmp_path: Path) -> None:
    found = table(tmp_path, birth_date="born")
    assert who(found) == [1, 2, 4, 5] and found.dropped == Dropped(age=2)
    assert found.report_lines()[-1] == "2 dropped: under 18 years, or of unknown age"
    assert who(table(tmp_path, birth_date="born", minimum_age=17)) == [1, 2, 3, 4, 5]
    assert who(table(tmp_path, birth_date="born", minimum_age=19)) == [1, 2, 5]


def test_a_column_of_ages_does_as_well_and_may_be_a_feature_too(tmp_path: Path) -> None:
    assert who(table(tmp_path, age="years")) == [1, 2, 4, 5]
    (tmp_path / "shop.csv").write_text(PEOPLE)
    both = TableSchema(
        "phone",
        "phone",
        "351",
        (Column("years", "number"),),
        filters=Filters(DAY, age="years", minimum_age=20),
    )
    assert read_table(tmp_path / "shop.csv", both).numbers["years"].tolist() == [30, 30, 30]


def test_who_has_several_reasons_is_counted_once_under_the_first(tmp_path: Path) -> None:
    found = table(tmp_path, opt_out="phone\n912000002\n912000003\n", consent="agreed", birth_date="born")
    assert who(found) == [1, 4]
    assert found.dropped == Dropped(consent=2, opt_out=1, age=1) and found.dropped.people == 4
    assert [body["dropped"] for _, body in found.dropped.events()] == [2, 1, 1]


def test_of_several_rows_of_one_person_each_must_let_it_through(tmp_path: Path) -> None:
    again = HEADER + "912000001,1,yes,2000-01-01,30\n912000002,2,yes,2000-01-01,30\n"
    again += "+351912000001,9,no,2000-01-01,30\n912000002,9,yes,2000-01-01,30\n,9,no,,\n"
    assert who(table(tmp_path, again, consent="agreed")) == [2]
    later_young = again.replace("9,no,2000-01-01", "9,yes,2020-01-01")
    assert who(table(tmp_path, later_young, birth_date="born")) == [2]


def test_a_row_without_a_valid_id_is_not_counted_as_dropped_by_a_filter(tmp_path: Path) -> None:
    found = table(tmp_path, PEOPLE + "not a phone,1,no,2020-01-01,10\n", consent="agreed", birth_date="born")
    assert found.report.invalid == 1 and found.dropped == Dropped(consent=2, age=2)


def test_a_list_on_which_nobody_is_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="nobody is left on the list after withdrawal, consent, opt-out and age"
    ):
        table(tmp_path, birth_date="born", minimum_age=120)


def test_a_label_needs_both_classes_among_those_who_stay(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(
        "phone,spend,agreed,bought\n912000001,1,1,1\n912000002,2,0,0\n912000003,3,1,\n"
    )
    bank = TableSchema(
        "phone", "phone", "351", (Column("spend", "number"),), "bought", Filters(DAY, consent="agreed")
    )
    with pytest.raises(DataError, match="both 0 and 1 must occur"):
        read_table(tmp_path / "b.csv", bank)


# ------------------------------------------------------------------------------- mistakes

MISTAKES: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "consent_of_another_sort": (
        lambda f: table(f, PEOPLE.replace("1,yes", f"1,{SECRET}"), consent="agreed"),
        DataError,
        'shop.csv: column "agreed", row 2: neither yes nor no; accepted: 0/1, yes/no, true/false',
    ),
    "consent_missing": (
        lambda f: table(f, consent="agrees"), DataError, 'shop.csv: column "agrees" is missing',
    ),
    "no_date": (
        lambda f: table(f, PEOPLE.replace("2012-06-16", SECRET), birth_date="born"),
        DataError,
        'shop.csv: column "born", row 4: not a date; accepted: like 1990-12-31',
    ),
    "a_day_that_never_was": (
        lambda f: table(f, PEOPLE.replace("2012-06-16", "2012-02-30"), birth_date="born"),
        DataError,
        'shop.csv: column "born", row 4: not a date;',
    ),
    "a_month_that_never_was": (
        lambda f: table(f, PEOPLE.replace("2012-06-16", "2012-13-01"), birth_date="born"),
        DataError,
        'column "born", row 4: not a date;',
    ),
    "two_digits_of_a_year": (
        lambda f: table(f, PEOPLE.replace("2012-06-16", "12-06-16"), birth_date="born"),
        DataError,
        'column "born", row 4: not a date;',
    ),
    "born_tomorrow": (
        lambda f: table(f, PEOPLE.replace("2012-06-16", "2030-06-16"), birth_date="born"),
        DataError,
        'column "born", row 4: not a date of birth; accepted: from 1900-01-01 to 2030-06-15',
    ),
    "born_in_the_middle_ages": (
        lambda f: table(f, PEOPLE.replace("2000-01-01", "1200-01-01"), birth_date="born"),
        DataError,
        'column "born", row 2: not a date of birth; accepted: from 1900-01-01 to 2030-06-15 (3 such rows)',
    ),
    "an_age_below_zero": (
        lambda f: table(f, PEOPLE.replace("-01,30", "-01,-30"), age="years"),
        DataError,
        'column "years", row 2: not an age; accepted: years from 0 to 130 (3 such rows)',
    ),
    "an_age_in_words": (
        lambda f: table(f, PEOPLE.replace(",17", f",{SECRET}"), age="years"),
        DataError,
        'column "years", row 4: not a number',
    ),
    "no_opt_out_list": (
        lambda f: read_table(written(f, PEOPLE), schema(opt_out=f / "none.csv")),
        ConfigError,
        "none.csv: no such file",
    ),
    "an_empty_opt_out_file": (lambda f: table(f, opt_out=""), DataError, "out.csv: empty file"),
    "an_opt_out_list_with_another_header": (
        lambda f: table(f, opt_out=f"telephone\n{SECRET}\n"),
        DataError,
        'out.csv: column "phone" is missing; the file has 1 columns',
    ),
    "an_opt_out_list_of_nobody_with_another_header": (
        lambda f: table(f, opt_out="telephone\n"), DataError, 'out.csv: column "phone" is missing',
    ),
    "an_opt_out_that_is_no_id": (
        lambda f: table(f, opt_out=f"phone\n912000002\n{SECRET}\n"),
        DataError,
        'out.csv: column "phone", row 3: no valid phone',
    ),
    "an_opt_out_without_id": (
        lambda f: table(f, opt_out="phone,since\n912000002,2029\n,2029\n,2028\n"),
        DataError,
        'out.csv: column "phone", row 3: no valid phone (2 such rows)',
    ),
}  # fmt: skip


def written(folder: Path, text: str) -> Path:
    (folder / "shop.csv").write_text(text)
    return folder / "shop.csv"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_file_column_and_row_and_never_a_value(tmp_path: Path, name: str) -> None:
    read, kind, said = MISTAKES[name]
    with pytest.raises(kind) as found:
        read(tmp_path)
    message = str(found.value)
    assert said in message and "\n" not in message
    assert SECRET not in message + getattr(found.value, "hint", "")


# -------------------------------------------------------------------------------- parquet


def parquet(folder: Path, **changes: object) -> Path:
    columns: dict[str, object] = {
        "phone": [f"91200000{i}" for i in range(1, 5)],
        "spend": [1.0, 2.0, 3.0, 4.0],
        "agreed": [True, False, None, True],
        "born": [date(2000, 1, 1), date(2000, 1, 1), date(2000, 1, 1), date(2012, 6, 16)],
    }
    target = io.BytesIO()
    pq.write_table(pa.table(columns | changes), target)
    (folder / "shop.parquet").write_bytes(target.getvalue())
    return folder / "shop.parquet"


BIRTHS: dict[str, object] = {
    "dates": [date(2000, 1, 1), None, date(2012, 6, 15), date(2012, 6, 16)],
    "long_dates": pa.array(
        [datetime(2000, 1, 1), None, datetime(2012, 6, 15), datetime(2012, 6, 16)], pa.date64()
    ),
    "text": ["2000-01-01", "", " 2012-06-15 ", "2012-06-16"],
    "dictionary": pa.array(["2000-01-01", None, "2012-06-15", "2012-06-16"]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", BIRTHS)
def test_dates_of_birth_are_read_from_parquet_too(tmp_path: Path, kind: str) -> None:
    assert who(read_table(parquet(tmp_path, born=BIRTHS[kind]), schema(birth_date="born"))) == [1, 3]


@pytest.mark.parametrize("consent", [[True, False, None, True], [1, 0, None, 1], ["yes", "no", "", "1"]])
def test_consent_is_read_from_parquet_too(tmp_path: Path, consent: list[object]) -> None:
    assert who(read_table(parquet(tmp_path, agreed=consent), schema(consent="agreed"))) == [1, 4]


def test_a_column_of_nothing_lets_nobody_through(tmp_path: Path) -> None:
    empty = pa.array([None] * 4, pa.null())
    for asked in ({"birth_date": "born"}, {"consent": "born"}, {"age": "born"}):
        path = parquet(tmp_path, born=empty)
        with pytest.raises(DataError, match="nobody is left"):
            read_table(path, schema(**asked))


def test_an_opt_out_list_may_be_a_parquet_file(tmp_path: Path) -> None:
    target = io.BytesIO()
    pq.write_table(pa.table({"phone": [912000002, 912000004]}), target)
    (tmp_path / "out.parquet").write_bytes(target.getvalue())
    found = read_table(parquet(tmp_path), schema(opt_out=tmp_path / "out.parquet"))
    assert who(found) == [1, 3]


@pytest.mark.parametrize("born", [[20000101] * 4, [datetime(2000, 1, 1)] * 4, [[1]] * 4])
def test_a_column_that_holds_no_dates_is_refused_by_its_type(tmp_path: Path, born: list[object]) -> None:
    path = parquet(tmp_path, born=born)
    with pytest.raises(
        DataError, match=r'column "born": holds no dates; accepted: dates, or text like 1990-12-31'
    ):
        read_table(path, schema(birth_date="born"))


# --------------------------------------------------------------------------------- oracles

BIRTHDAYS = st.dates(date(1900, 1, 1), date(2060, 12, 31))


@given(BIRTHDAYS, BIRTHDAYS)
def test_years_are_those_that_calendars_count(born: date, day: date) -> None:
    expected = day.year - born.year - ((day.month, day.day) < (born.month, born.day))
    found = years_old(np.array([born, "NaT"], "datetime64[D]"), day)
    assert found[0] == expected and np.isnan(found[1])


PERSON = st.tuples(
    st.integers(1, 30),
    st.sampled_from(["yes", "no", ""]),
    st.one_of(st.none(), st.dates(date(2008, 1, 1), DAY)),
)


@given(st.lists(PERSON, min_size=1, max_size=40), st.frozensets(st.integers(1, 30), max_size=5))
def test_who_stays_is_decided_as_by_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, people: list[tuple[int, str, date | None]], out: frozenset[int]
) -> None:
    def stays(number: int) -> bool:
        rows = [p for p in people if p[0] == number]
        agreed = all(said == "yes" for _, said, _ in rows)
        grown = all(
            born is not None and (born.year + 18, born.month, born.day) <= (DAY.year, DAY.month, DAY.day)
            for *_, born in rows
        )
        return agreed and grown and number not in out

    text = HEADER + "".join(f"9120001{n:02},1,{said},{born or ''},30\n" for n, said, born in people)
    listed = "phone\n" + "".join(f"9120001{n:02}\n" for n in sorted(out))
    expected = [n for n in dict.fromkeys(n for n, *_ in people) if stays(n)]
    folder = tmp_path_factory.mktemp("people")
    if not expected:
        with pytest.raises(DataError, match="nobody is left"):
            table(folder, text, listed, consent="agreed", birth_date="born")
        return
    found = table(folder, text, listed, consent="agreed", birth_date="born")
    assert [int(one[-2:]) for one in found.ids] == expected
    assert found.dropped.people == len({n for n, *_ in people}) - len(expected)


# -------------------------------------------------------------------------------- settings

SHOP = """
file = "shop.csv"
id = "phone"
id_kind = "phone"
country = "351"
numbers = ["spend"]
"""


def settings_of(more: str) -> PartnerConfig:
    return parse_schema(SHOP + more, "shop/schema.toml", "shop", "The Shop")


def test_a_partys_schema_names_its_filters_and_those_who_are_dropped_reach_no_step(tmp_path: Path) -> None:
    written(tmp_path, PEOPLE)
    (tmp_path / "out.csv").write_text("phone\n912000001\n")
    config = settings_of('consent = "agreed"\nopt_out = "out.csv"\nbirth_date = "born"\nminimum_age = 18\n')
    found = open_data(config, tmp_path, DAY)
    customers, columns = local_states(found)
    assert isinstance(customers, Customers) and isinstance(columns, Columns)
    assert list(customers.ids) == ["+351912000004"] and columns.numbers["spend"].tolist() == [4]
    assert found.dropped == Dropped(consent=2, opt_out=1, age=2)


def test_eighteen_is_the_age_where_none_is_named(tmp_path: Path) -> None:
    written(tmp_path, PEOPLE)
    assert len(open_data(settings_of('birth_date = "born"\n'), tmp_path, DAY).ids) == 4
    assert len(open_data(settings_of('age = "years"\n'), tmp_path, DAY).ids) == 4


def test_a_day_later_whoever_had_a_birthday_is_old_enough(tmp_path: Path) -> None:
    written(tmp_path, PEOPLE)
    config = settings_of('birth_date = "born"\n')
    assert len(open_data(config, tmp_path, date(2030, 6, 14)).ids) == 3
    assert len(open_data(config, tmp_path, date(2030, 6, 16)).ids) == 5


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('birth_date = "born"\nage = "years"\n', "one of birth_date and age"),
        ("minimum_age = 18\n", "minimum_age needs the column that tells the age"),
        ('consent = "spend"\n', "consent and birth_date are columns of their own"),
        ('birth_date = "phone"\n', "consent and birth_date are columns of their own"),
        ('consent = "born"\nbirth_date = "born"\n', "consent and birth_date are columns of their own"),
        ('age = "phone"\n', "age is a column of its own, or one in numbers"),
        ('age = "agreed"\nconsent = "agreed"\n', "age is a column of its own, or one in numbers"),
        ('age = "years"\nminimum_age = 0\n', "minimum_age = 0: accepted: greater than or equal to 1"),
        ('opt_outs = "out.csv"\n', "opt_outs: unknown key; accepted: age, birth_date,"),
    ],
)
def test_settings_that_cannot_hold_are_refused(more: str, said: str) -> None:
    with pytest.raises(ConfigError) as found:
        settings_of(more)
    assert str(found.value).startswith("shop/schema.toml: ") and said in str(found.value)
    assert found.value.exit_code == 2


def test_an_age_among_the_numbers_may_be_filtered_by() -> None:
    assert settings_of('age = "spend"\n').age == "spend"
