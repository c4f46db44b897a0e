from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedmkt.learn.identifiers import KINDS, NormalisedIds, normalise, normalise_compound, normalise_ids


def wide(text: str) -> str:
    """Full-width forms of the printable ASCII characters but the space."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def arabic(digits: str) -> str:
    return "".join(chr(0x660 + int(c)) for c in digits)


CHINESE_SPELLINGS = [
    "13800138000",
    " 138 0013 8000 ",
    "138-0013-8000",
    "138.0013.8000",
    "+8613800138000",
    "+86 138 0013 8000",
    "+86-138-0013-8000",
    "008613800138000",
    "0086 138 0013 8000",
    "8613800138000",
    "86 138 0013 8000",
    "(+86) 138 0013 8000",
    "(86)13800138000",
    "013800138000",
    "+86 0138 0013 8000",
    "+86 (0) 138 0013 8000",
    "0 86 138 0013 8000",
    wide("13800138000"),
    wide("+86 138-0013-8000"),
    "+86\u00a0138\u20090013\u20138000",
    "\ufeff138\u200b00138000",
    "13800138000.0",
    "138\n0013 8000",
    "١٣٨٠٠١٣٨٠٠٠",
    "+۸۶ ۱۳۸ ۰۰۱۳ ۸۰۰۰",
    "\u2066+86 138 0013 8000\u2069",
    "\u202a138\u202c\u2060\u061c0013\ufe0f8000",
    "\uff0b86\u3000\uff08138\uff09\uff0d0013\uff0d8000",
    "\U0001d7d9\U0001d7db\U0001d7e0 0013 8000",
    "+86/13800138000",
]


@pytest.mark.parametrize("written", CHINESE_SPELLINGS)
def test_every_spelling_of_a_chinese_mobile_is_one_number(written: str) -> None:
    assert normalise("phone", [written], "86") == ["+8613800138000"]


def test_spellings_in_one_column_do_not_disturb_each_other() -> None:
    assert set(normalise("phone", CHINESE_SPELLINGS, "86")) == {"+8613800138000"}


@pytest.mark.parametrize(
    ("written", "country", "expected"),
    [
        ("912 345 678", "351", "+351912345678"),
        ("351912345678", "351", "+351912345678"),
        ("00351 912 345 678", "351", "+351912345678"),
        ("+351 912-345-678", "86", "+351912345678"),
        ("010 8888 8888", "86", "+861088888888"),
        ("+86 (0)10 8888 8888", "351", "+861088888888"),
        ("0755-8888 8888", "86", "+8675588888888"),
        ("+44 (0)20 7946 0018", "86", "+442079460018"),
        ("0044 020 7946 0018", "86", "+442079460018"),
        ("020 7946 0018", "44", "+442079460018"),
        ("+39 (0)6 1234 5678", "86", "+390612345678"),
        ("06 1234 5678", "39", "+390612345678"),
        ("1 (212) 555-0100", "1", "+12125550100"),
        ("(212) 555-0100", "1", "+12125550100"),
        ("+852 2345 6789", "86", "+85223456789"),
        ("+49 171 1234567", "86", "+491711234567"),
        ("0171 1234567", "49", "+491711234567"),
        ("0171/1234567", "49", "+491711234567"),
        ("(0171)/123 45 67", "49", "+491711234567"),
        ("+49 171/1234567", "86", "+491711234567"),
        ("+999 1234 5678", "86", "+99912345678"),
    ],
)
def test_phones_of_other_countries_become_e164(written: str, country: str, expected: str) -> None:
    assert normalise("phone", [written], country) == [expected]


@pytest.mark.parametrize(
    "written",
    [
        "12345",
        "1380013800",
        "138001380001",
        "12800138000",
        "+86 12345",
        "13800138000 ext 5",
        "13800138000/13800138001",
        "phone",
        "1.38E+10",
        "+",
        "00",
        "++8613800138000",
        "+08613800138000",
        "+1234567",
        "+1234567890123456",
        "+351 112 345 678",
        "138001/38000",
        "+86/138/00138000",
        "+8613800138000/+8613800138001",
        "-13800138000x",
        "\ud800",
    ],
)
def test_what_is_no_phone_is_refused(written: str) -> None:
    assert normalise("phone", [written], "86") == [None]


@given(
    st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True),
    st.sampled_from(["", "+86", "0086", "86", "0", "(+86)", "+86 0", "86 "]),
    st.lists(st.sampled_from(["", " ", "-", ".", "\u00a0", "\u2013"]), min_size=11, max_size=11),
    st.booleans(),
)
def test_prefixes_and_separators_never_change_a_number(
    number: str, prefix: str, separators: list[str], is_wide: bool
) -> None:
    digits = wide(number) if is_wide else number
    written = prefix + "".join(a + b for a, b in zip(separators, digits, strict=True))
    if written.endswith(".0"):
        written += " "
    assert normalise("phone", [written, None], "86")[0] == "+86" + number


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("A.Person@Example.COM", "a.person@example.com"),
        ("  a@example.com\t", "a@example.com"),
        ("a.b+shop@gmail.com", "a.b+shop@gmail.com"),
        (wide("a@example.com"), "a@example.com"),
        ("\ufeffa@example.com\u200b", "a@example.com"),
        ("JOSÉ@example.org", "josé@example.org"),
        ("Jose\u0301@example.org", "josé@example.org"),
        ("a@Bücher.example", "a@bücher.example"),
        ("a@xn--bcher-kva.example", "a@bücher.example"),
        ("A@XN--BCHER-KVA.example", "a@bücher.example"),
        ("a@mail.xn--fiqs8s", "a@mail.中国"),
        ("a\uff20mail\u3002中国", "a@mail.中国"),
        ("a@mail\uff61中国", "a@mail.中国"),
        ("xn--bcher-kva@example.org", "xn--bcher-kva@example.org"),
        ("a@xn--example.org", "a@xn--example.org"),
        ("a@xn--e28h\u200b.example", "a@xn--e28h.example"),
        ("a@xn--999999999999.example", "a@xn--999999999999.example"),
        ("googlemail.is.not.gmail@googlemail.com", "googlemail.is.not.gmail@googlemail.com"),
    ],
)
def test_emails_are_trimmed_and_lowered_but_keep_their_dots(written: str, expected: str) -> None:
    assert normalise("email", [written], "86") == [expected]


@pytest.mark.parametrize(
    "written",
    [
        *("a", "a@b", "@example.com", "a@", "a@@example.com", "a b@example.com", "A <a@example.com>"),
        *("a@example..com", "a@.com", "a@example.com.", "mailto:a@example.com", "a,b@example.com"),
        *("x" * 65 + "@example.com", "a@" + "x" * 260 + ".com", "a\x00@example.com", "a@exa\nmple.com"),
    ],
)
def test_what_is_no_email_is_refused(written: str) -> None:
    assert normalise("email", [written], "86") == [None]


def check_character(first: str) -> str:
    """ISO 7064 MOD 11-2 by its recursive definition."""
    rest = 0
    for digit in first:
        rest = (rest + int(digit)) * 2 % 11
    value = (12 - rest) % 11
    return "X" if value == 10 else str(value)


# The two examples printed in GB 11643-1999, appendix.
STANDARD_IDS = ["11010519491231002X", "440524188001010014"]


@pytest.mark.parametrize("number", STANDARD_IDS)
def test_ids_printed_in_the_standard_are_accepted(number: str) -> None:
    assert check_character(number[:17]) == number[17]
    assert normalise("national_id", [number, f" {number.lower()}"], "86") == [number, number]


@given(
    st.from_regex(
        r"[1-9][0-9]{5}(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|1[0-9]|2[0-8])[0-9]{3}", fullmatch=True
    ),
    st.sampled_from("0123456789Xx"),
)
def test_exactly_the_right_check_character_is_accepted(first: str, last: str) -> None:
    is_right = check_character(first) == last.upper()
    assert normalise("national_id", [first + last], "86") == [(first + last).upper() if is_right else None]


@given(st.sampled_from(STANDARD_IDS), st.integers(0, 17), st.sampled_from("0123456789"))
def test_one_mistyped_digit_of_a_national_id_is_always_found(number: str, place: int, digit: str) -> None:
    mistyped = number[:place] + digit + number[place + 1 :]
    assert (normalise("national_id", [mistyped], "86")[0] is not None) == (mistyped == number)


@pytest.mark.parametrize(
    "written",
    [
        "130503670401001",
        "E12345678",
        "110105194912310021",
        "11010519491331002X",
        "1101051949123100",
        "X" * 18,
    ],
)
def test_other_national_ids_are_refused(written: str) -> None:
    assert normalise("national_id", [written], "86") == [None]


def test_full_width_and_grouped_national_ids_are_read() -> None:
    written = [wide("11010519491231002x"), "110105 19491231 002X", "440524-18800101-0014"]
    assert normalise("national_id", written, "") == [STANDARD_IDS[0], *STANDARD_IDS]
    typed = [
        "\u202a11010519491231002\uff58\u202c",
        arabic("11010519491231002") + "X",
        "440524\u200b188001010014",
    ]
    assert normalise("national_id", typed, "") == [STANDARD_IDS[0], *STANDARD_IDS]


# One person's id in as many careless spellings as one likes.

GAPS = st.sampled_from(
    ["", "", "", " ", "\u00a0", "\u3000", "\u200b", "\u2060", "\ufeff", "\u202a", "\u2069"]
)
DIGIT_FORMS = ["0123456789", wide("0123456789"), "٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹", "०१२३४५६७८९"]


def with_gaps(draw: st.DrawFn, text: str, gaps: st.SearchStrategy[str]) -> str:
    return draw(gaps) + "".join(c + draw(gaps) for c in text)


def typed_digits(draw: st.DrawFn, text: str) -> str:
    forms = draw(st.sampled_from(DIGIT_FORMS))
    return "".join(forms[int(c)] if c.isdecimal() else c for c in text)


@st.composite
def careless_phones(draw: st.DrawFn, number: str) -> str:
    prefix = draw(st.sampled_from(["", "0", "86", "+86", "0086", "(+86)", "+86 (0)", "\uff0b86", "86-"]))
    between = GAPS | st.sampled_from(["-", ".", "\u2013", "\u2212", "\uff0d"])
    return prefix + with_gaps(draw, typed_digits(draw, number), between) + " "


@st.composite
def careless_emails(draw: st.DrawFn, address: str) -> str:
    text = "".join(draw(st.sampled_from([c, c.upper(), wide(c)])) for c in address)
    text = text.replace(".", draw(st.sampled_from([".", "\uff0e"])))
    invisible = st.sampled_from(["", "", "\u200b", "\u2060", "\ufeff", "\u202a", "\u2069"])
    return draw(GAPS) + with_gaps(draw, text, invisible) + draw(GAPS)


@st.composite
def careless_national_ids(draw: st.DrawFn, number: str) -> str:
    text = typed_digits(draw, number)
    text = text.replace("X", draw(st.sampled_from(["X", "x", "\uff38", "\uff58"])))
    return with_gaps(draw, text, GAPS | st.just("-"))


@pytest.mark.parametrize(
    ("kind", "right", "spellings"),
    [
        ("phone", "+8613900139000", careless_phones("13900139000")),
        ("phone", "+861088888888", careless_phones("1088888888")),
        ("email", "li.lei+shop@mail.example.cn", careless_emails("li.lei+shop@mail.example.cn")),
        ("national_id", STANDARD_IDS[0], careless_national_ids(STANDARD_IDS[0])),
        ("national_id", STANDARD_IDS[1], careless_national_ids(STANDARD_IDS[1])),
    ],
)
@given(data=st.data())
def test_one_person_in_many_careless_spellings_has_one_id(
    kind: str, right: str, spellings: st.SearchStrategy[str], data: st.DataObject
) -> None:
    written = data.draw(st.lists(spellings, min_size=1, max_size=8))
    assert set(normalise(kind, written, "86")) == {right}


@given(st.emails(domains=st.just("gmail.com")), st.sampled_from([".", "+", "-", "_"]), st.integers(1, 10))
def test_no_sign_before_the_at_is_taken_away(address: str, sign: str, at: int) -> None:
    local, domain = address.lower().rsplit("@", 1)
    other = f"{local[:at]}{sign}{local[at:]}@{domain}"
    one, two = normalise("email", [f"{local}@{domain}", other], "")
    assert two is None or one != two


# Keys of several columns


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("O'Brien", "1980-02-01"), ("OBRIEN", "19800201")),
        (("José Núñez", "1980/02/01"), ("jose  nunez", "1980.02.01")),
        (("Smith-Jones", "1"), ("smith jones", wide("1"))),
        (("Straße", "1"), ("STRASSE", "1")),
        (("Łukasz Bjørn", "1"), ("lukasz bjorn", "1")),
        (("\u0130nci I\u015f\u0131k", "1"), ("inci isik", "1")),
        (("d\u2019Angelo", "1"), ("D'ANGELO", "1")),
        (("Kahau\u02bbula", "1"), ("Kahauula", "1")),
        (("أحمد", "١٩٨٠"), ("احمد", "1980")),
        (("ｶﾞｷﾞ", "1"), ("ガギ", "1")),
        (("李 雷", "１９８０年２月１日"), ("李雷", "1980年2月1日")),
        (("\u200bLi\u00adLei", "1"), ("li lei", "1")),
        (("Ёлкин", "1"), ("ЕЛКИН", "1")),
    ],
)
def test_compound_keys_of_one_person_are_equal(one: tuple[str, str], other: tuple[str, str]) -> None:
    first, second = normalise_compound([[one[0], other[0]], [one[1], other[1]]])
    assert first == second is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("が", "1"), ("か", "1")),
        (("ดี", "1"), ("ดู", "1")),
        (("Müller", "1"), ("Mueller", "1")),
        (("a", "1980-02-01"), ("a", "1980-01-02")),
    ],
)
def test_compound_keys_of_two_people_differ(one: tuple[str, str], other: tuple[str, str]) -> None:
    first, second = normalise_compound([[one[0], other[0]], [one[1], other[1]]])
    assert first is not None and second is not None and first != second


@pytest.mark.parametrize(
    "missing", ["", "  ", None, "-", "'", "\u200b", "\u0301", "\ud800", float("nan"), True, 1.5]
)
def test_a_missing_part_makes_no_compound_key(missing: object) -> None:
    assert normalise_compound([["a", missing], [missing, "b"]]) == [None, None]


def test_numbers_are_parts_of_a_compound_key_by_their_digits() -> None:
    assert normalise_compound([["li", "li"], [19800201, 19800201.0]]) == ["li|19800201"] * 2


@given(st.lists(st.tuples(st.text(), st.text(), st.none() | st.text() | st.integers()), max_size=10))
def test_compound_keys_are_made_row_by_row_and_stay_as_they_are(rows: list[tuple[object, ...]]) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    found = normalise_compound(columns)
    assert found == [normalise_compound([[part] for part in row])[0] for row in rows]
    for key in found:
        if key is not None:
            parts = key.split("|")
            assert len(parts) == 3 and all(parts)
            assert normalise_compound([[part] for part in parts]) == [key]


@pytest.mark.parametrize("columns", [[], [["a"], ["a", "b"]]])
def test_compound_columns_of_different_lengths_are_refused(columns: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="one length"):
        normalise_compound(columns)


def test_raw_ids_are_trimmed_and_nothing_else() -> None:
    assert normalise("raw", [" aB-1 ", "00351", "", "  "], "") == ["aB-1", "00351", None, None]


def test_whole_numbers_are_read_as_their_digits_and_other_types_refused() -> None:
    values: list[object] = [
        13800138000,
        np.int64(13800138000),
        13800138000.0,
        True,
        b"13800138000",
        1.5,
        -13800138000,
        ["13800138000"],
        1e300,
    ]
    assert normalise("phone", values, "86") == ["+8613800138000"] * 3 + [None] * 6
    report = normalise_ids("phone", values, "86").report
    assert (report.wrong_type, report.invalid, report.kept, report.duplicates) == (9, 6, 1, 2)


@pytest.mark.parametrize("kind", KINDS)
@given(values=st.lists(st.one_of(st.none(), st.text(), st.integers(), st.floats()), max_size=20))
def test_a_column_equals_its_rows_one_by_one(kind: str, values: list[object]) -> None:
    column = normalise(kind, values, "86")
    assert column == [normalise(kind, [value], "86")[0] for value in values]


@pytest.mark.parametrize("kind", KINDS)
@given(
    values=st.lists(
        st.one_of(
            st.text(),
            st.emails(),
            st.from_regex(r"[+0]{0,2}[0-9() ]{6,16}", fullmatch=True),
            st.text(st.characters(codec="utf-8"), max_size=8).map(lambda text: f"{text}@example.com"),
        ),
        max_size=20,
    )
)
@example(values=["0@0.XN--1CK1E1B"])  # a long vowel mark, which would be read as a dash
def test_normalising_twice_is_normalising_once(kind: str, values: list[str]) -> None:
    once = [one for one in normalise(kind, values, "86") if one is not None]
    assert normalise(kind, once, "86") == once
    assert all(one.encode("utf-8") for one in once)


@pytest.mark.parametrize("kind", ["", "Phone", "ssn"])
@pytest.mark.parametrize("values", [[], ["13800138000"]])
def test_an_unknown_kind_is_refused_even_for_an_empty_column(kind: str, values: list[str]) -> None:
    with pytest.raises(ValueError, match="accepted: phone, email, national_id, raw"):
        normalise(kind, values, "86")


@pytest.mark.parametrize("country", ["", "CN", "+86", "0086", "086", "12345", "8\uff16"])
def test_a_country_that_is_no_calling_code_is_refused(country: str) -> None:
    with pytest.raises(ValueError, match="calling code"):
        normalise("phone", ["13800138000"], country)


def test_the_first_of_several_rows_with_one_id_is_kept() -> None:
    written = ["x", "138 0013 8001", "13800138000", "", "+8613800138001", "13800138000", None]
    kept = normalise_ids("phone", written, "86")
    assert kept.ids == ("+8613800138001", "+8613800138000")
    assert kept.rows.tolist() == [1, 2]
    assert kept.rows.dtype == np.int64
    report = kept.report
    assert (report.rows, report.kept, report.empty, report.invalid, report.duplicates) == (7, 2, 2, 1, 2)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef") | st.none(), st.sampled_from([0.0, 1.0, float("nan")])),
        max_size=40,
    )
)
def test_duplicates_and_contradicting_labels_are_counted_as_pandas_would(
    rows: list[tuple[str | None, float]],
) -> None:
    frame = pd.DataFrame(rows, columns=["id", "label"]).astype({"id": object, "label": float})
    labels = frame["label"].to_numpy()
    kept = normalise_ids("raw", frame["id"].tolist(), "", labels)
    present = frame[frame["id"].notna()]
    first = present.drop_duplicates("id")
    assert list(kept.ids) == first["id"].tolist()
    assert kept.rows.tolist() == first.index.tolist()
    dropped = present[present.duplicated("id")]
    label_of = dict(zip(first["id"], first["label"], strict=True))
    contradictions = sum(
        str(label) != str(label_of[name]) for name, label in zip(dropped["id"], dropped["label"], strict=True)
    )
    assert kept.report.duplicates == len(dropped)
    assert kept.report.label_conflicts == contradictions


@given(st.sampled_from(KINDS), st.lists(st.one_of(st.none(), st.text(), st.integers(), st.booleans())))
def test_every_row_is_kept_or_counted_once(kind: str, values: list[object]) -> None:
    kept = normalise_ids(kind, values, "86")
    report = kept.report
    assert report.rows == len(values) == report.kept + report.empty + report.invalid + report.duplicates
    assert len(kept.ids) == len(kept.rows) == len(set(kept.ids)) == report.kept


def test_changes_of_case_are_counted() -> None:
    emails = normalise_ids("email", ["A@example.com", "b@example.com", "C@EXAMPLE.COM", "Not an address"], "")
    assert (emails.report.changed_case, emails.report.rewritten) == (2, 2)
    assert normalise_ids("national_id", ["11010519491231002x"], "").report.changed_case == 1
    raw = normalise_ids("raw", ["ab", "AB", "cd", "aB"], "")
    assert (raw.report.changed_case, raw.report.case_twins) == (0, 2)


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 labels for 1 ids"):
        normalise_ids("raw", ["a"], "", np.zeros(2))


def test_a_report_holds_counts_and_no_id() -> None:
    kept = normalise_ids("phone", ["13800138000", "13800138000", "junk77", 5, None], "86")
    text = " ".join(kept.report.report_lines()) + repr(kept) + repr(kept.report)
    assert "138" not in text and "junk" not in text
    assert all(isinstance(value, int) for name, value in asdict(kept.report).items() if name != "kind")
    assert "1 dropped: an earlier row has the same id" in kept.report.report_lines()


def test_a_report_of_a_clean_column_is_two_lines() -> None:
    kept: NormalisedIds = normalise_ids("raw", ["a", "b"], "")
    assert kept.report.report_lines() == ("2 rows with a raw column", "2 rows kept")
