"""One canonical spelling per person, so that two organisations mean the same one when they compare ids.

Kinds of id:
  phone         E.164 (`+8613800138000`); a number without + or 00 belongs to the country given by the caller
  email         NFKC, trimmed, lower case; otherwise as written
  national_id   mainland China, 18 characters with the check digit of GB 11643 (ISO 7064 MOD 11-2)
  raw           trimmed, nothing else
  compound      several columns at once, such as surname and date of birth: the letters and digits of each

Both sides must normalise alike, or common customers are silently lost: a change of what comes out here is a
change of protocol.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

KINDS: Final = ("phone", "email", "national_id", "raw")

# Whatever careless typing and copying from web pages puts between the characters of a number.
_INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff"
)
_DASHES: Final = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fc"
_BETWEEN_DIGITS: Final = " \t\r-"
_NATIONAL: Final[dict[str, str]] = {  # ITU-T E.164 numbering plans: national numbers without the trunk prefix
    "1": r"[2-9]\d{9}",
    "31": r"[1-9]\d{8}",
    "33": r"[1-9]\d{8}",
    "34": r"[5-9]\d{8}",
    "39": r"0[1-9]\d{4,9}|3\d{8,9}",  # the leading 0 of an Italian number is part of it
    "44": r"[1-9]\d{8,9}",
    "61": r"[1-9]\d{8}",
    "65": r"[3689]\d{7}",
    "81": r"[1-9]\d{8,9}",
    "82": r"[1-9]\d{7,9}",
    "86": r"1[3-9]\d{9}|10\d{8}|[2-9]\d{9,10}",
    "91": r"[1-9]\d{9}",
    "351": r"[2-9]\d{8}",
    "852": r"[2-9]\d{7}",
    "853": r"[2-9]\d{7}",
    "886": r"[2-9]\d{7,8}",
}
_NO_TRUNK_ZERO: Final = ("1", "39")
_BRACKETED_ZERO: Final = "\x1d"  # stands for the "(0)" of "+44 (0)20": dropped or kept by country
_NOT_IN_ADDRESS: Final = r"\s@<>()\[\],;:\"\\\x00-\x1f\x7f"
_EMAIL: Final = re.compile(
    rf"(?=.{{6,254}}$)[^{_NOT_IN_ADDRESS}]{{1,64}}@[^{_NOT_IN_ADDRESS}/.]+(?:\.[^{_NOT_IN_ADDRESS}/.]+)+"
)
_PUNYCODE: Final = re.compile(r"(?<=[@.])xn--[a-z0-9-]+")
_NATIONAL_ID: Final = re.compile(
    r"[1-9]\d{5}(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dX]", re.ASCII
)
_CHECK_WEIGHTS: Final = np.array([pow(2, 17 - i, 11) for i in range(17)], dtype=np.int64)
_CHECK_CHARACTERS: Final = np.frombuffer(b"10X98765432", dtype=np.uint8)
# Letters with a stroke or joined ones, which Unicode does not take apart.
_PLAIN_LETTERS: Final = {
    **{ord(letter): plain for letter, plain in zip("øđðłħŧı", "oddlhti", strict=True)},
    ord("æ"): "ae",
    ord("œ"): "oe",
    ord("þ"): "th",
}
# Marks that people leave out: Latin, Greek and Cyrillic accents, points of Hebrew and Arabic, variants of Han.
# Marks of other scripts are letters in all but name: without its dots が is か, and without vowels Thai is nothing.
_ACCENTS: Final = (
    (0x2B0, 0x36F), (0x591, 0x5C7), (0x610, 0x61A), (0x640, 0x640), (0x64B, 0x65F), (0x670, 0x670),
    (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE0F), (0xFE20, 0xFE2F),
    (0xE0100, 0xE01EF),
)  # fmt: skip
_PLAIN: Final = _PLAIN_LETTERS | {mark: "" for first, last in _ACCENTS for mark in range(first, last + 1)}


@dataclass(frozen=True)
class ValidationReport:
    """What normalisation did to one id column: counts only, nothing about any person.

    rows = kept + empty + invalid + duplicates. The other counts overlap with these: `wrong_type` cells were
    not text (whole numbers are read as their digits, the rest is invalid), `changed_case` had letters in
    another case, `rewritten` changed in any way, `case_twins` are kept raw ids that differ from another kept
    one in case alone, `label_conflicts` are dropped rows whose label is not that of the row kept for the id.
    """

    kind: str
    rows: int
    kept: int
    empty: int
    invalid: int
    duplicates: int
    wrong_type: int
    changed_case: int
    rewritten: int
    case_twins: int
    label_conflicts: int

    def report_lines(self) -> tuple[str, ...]:
        """Plain sentences for screen and report; counts of zero are left out, except the first two."""
        counts = (
            (self.empty, "dropped: no id"),
            (self.invalid, f"dropped: not a valid {self.kind.replace('_', ' ')}"),
            (self.duplicates, "dropped: an earlier row has the same id"),
            (self.label_conflicts, "of these duplicates carry another label than the row kept"),
            (self.wrong_type, "ids were not text"),
            (self.changed_case, "ids changed in upper or lower case"),
            (self.rewritten, "ids were not in canonical spelling"),
            (self.case_twins, "ids differ from another one in upper or lower case alone"),
        )
        head = (f"{self.rows:,} rows with a {self.kind.replace('_', ' ')} column", f"{self.kept:,} rows kept")
        return head + tuple(f"{count:,} {text}" for count, text in counts if count)


@dataclass(frozen=True, repr=False)
class NormalisedIds:
    """The usable ids of a table; `rows` are their positions (from 0, ascending) in the input.

    spelled : canonical spelling of every input row, None where it is empty or invalid
    """

    ids: tuple[str, ...]
    rows: NDArray[np.int64]
    report: ValidationReport
    spelled: Sequence[str | None]

    def __repr__(self) -> str:
        """Leave the ids out: a repr ends up in logs."""
        return f"NormalisedIds({len(self.ids)} ids)"


def normalise(kind: str, values: Sequence[object], country: str) -> list[str | None]:
    """Canonical spelling of each value, None where it is empty or invalid.

    kind : one of KINDS; ValueError for any other
    values : text; whole numbers are read as their digits, values of any other type are invalid
    country : calling code such as "86" or "351" of phone numbers written without one; other kinds ignore it

    phone: full-width, Arabic and all other decimal digits, spaces, dots, hyphens, parentheses, one slash after
    an area code, a leading 00 or +, a trunk 0 and, for the countries whose number lengths are known here, a bare
    country code are understood. Extensions are refused.
    email: a domain in Punycode is the one that it stands for, an ideographic full stop is a dot; dots and +tags
    before the @ are kept. Gmail ignores dots, but most providers deliver a.b@ and ab@ to two different people,
    and who runs its mail cannot be read from a domain's name: removing dots would join strangers, keeping them at
    worst misses a match.
    national_id: other forms than the 18 characters (15 digits, passports) are refused, for they carry no
    check digit that a typing error would break.
    """
    texts, _ = _read(values)
    return _canonical(kind, texts, country)


def normalise_compound(columns: Sequence[Sequence[object]]) -> list[str | None]:
    """Canonical spelling of one key made of several columns, None where any of them is empty or invalid.

    columns : the values of each column, all of one length, in the order that both parties agreed on

    Of each value the letters and digits remain, in lower case and without accents: `O'Brien` is `OBRIEN`,
    `José` is `Jose`, and 1980-02-01 is 19800201. Accents go because many systems have lost them, and the other
    columns of the key keep strangers apart; where a name stands alone that would not be so. What has more
    than one usual transcription (ü and ue, traditional and simplified characters) and another order of a
    date's parts are not understood. A missing part makes no key: the rest alone would join strangers.
    """
    if not columns or len({len(column) for column in columns}) != 1:
        raise ValueError("a compound key needs columns of one length")
    parts = [_fold(_read(column)[0]) for column in columns]
    return ["|".join(row) if all(row) else None for row in zip(*parts, strict=True)]


def normalise_ids(
    kind: str, values: Sequence[object], country: str, labels: NDArray[np.float64] | None = None
) -> NormalisedIds:
    """Normalise an id column and keep one row per id.

    The rule for several rows per id: **the FIRST row in file order is kept**, later rows of the same id are
    dropped and counted. It looks at no other column, so nobody can steer it by a value; sort the file
    beforehand if another row should win.

    labels : (rows,) 0, 1 or NaN, only to count the dropped rows that contradict the row kept (a missing
        label contradicts a present one)
    """
    texts, wrong_type = _read(values)
    canonical = _canonical(kind, texts, country)
    if labels is not None and len(labels) != len(texts):
        raise ValueError(f"{len(labels)} labels for {len(texts)} ids")
    valid = [row for row, one in enumerate(canonical) if one is not None]
    first: dict[str, int] = {}
    for row in valid:
        first.setdefault(canonical[row] or "", row)
    empty = sum(is_empty(values))
    report = ValidationReport(
        kind=kind,
        rows=len(texts),
        kept=len(first),
        empty=empty,
        invalid=len(texts) - len(valid) - empty,
        duplicates=len(valid) - len(first),
        wrong_type=wrong_type,
        changed_case=_count_changed_case(kind, texts, valid),
        rewritten=sum(canonical[row] != texts[row] for row in valid),
        case_twins=len(first) - len({one.lower() for one in first}) if kind == "raw" else 0,
        label_conflicts=0 if labels is None else _count_conflicts(labels, canonical, valid, first),
    )
    rows = np.fromiter(first.values(), np.int64, len(first))
    return NormalisedIds(tuple(first), rows, report, canonical)


def is_empty(values: Sequence[object]) -> list[bool]:
    """Tell which values hold nothing: missing, or white space only."""
    return [text is not None and not text.strip() for text in _read(values)[0]]


def _count_changed_case(kind: str, texts: Sequence[str | None], valid: Sequence[int]) -> int:
    fold = {"email": str.lower, "national_id": str.upper}.get(kind)
    if fold is None:
        return 0
    return sum(fold(text) != text for text in (texts[row] or "" for row in valid))


def _count_conflicts(
    labels: NDArray[np.float64], canonical: Sequence[str | None], valid: Sequence[int], first: dict[str, int]
) -> int:
    kept = labels[np.fromiter((first[canonical[row] or ""] for row in valid), np.int64, len(valid))]
    here = labels[np.asarray(valid, dtype=np.int64)]
    return int(((here != kept) & ~(np.isnan(here) & np.isnan(kept))).sum())


def _read(values: Sequence[object]) -> tuple[list[str | None], int]:
    """Each value as text ("" = missing, None = of a type that is no id), and how many were not text."""
    texts: list[str | None] = []
    wrong_type = 0
    for value in values:
        if isinstance(value, str):
            texts.append(value)
        elif value is None or (isinstance(value, float | np.floating) and value != value):
            texts.append("")
        else:
            texts.append(_digits_of(value))
            wrong_type += 1
    return texts, wrong_type


def _digits_of(value: object) -> str | None:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value) if value >= 0 else None
    if isinstance(value, float | np.floating) and float(value).is_integer() and 0 <= value < 2**53:
        return str(int(value))  # a column of whole numbers with gaps; above 2^53 digits are lost already
    return None


def _canonical(kind: str, texts: Sequence[str | None], country: str) -> list[str | None]:
    if not texts:
        return _canonical(kind, [""], country)[:0]  # an unknown kind is still refused
    if kind == "phone":
        return _phones(texts, country)
    kinds: dict[str, Callable[[Sequence[str | None]], list[str | None]]] = {
        "email": _emails,
        "national_id": _national_ids,
        "raw": _raw,
    }
    if kind not in kinds:
        raise ValueError(f"unknown kind of id {kind!r}; accepted: {', '.join(KINDS)}")
    return kinds[kind](texts)


def _raw(texts: Sequence[str | None]) -> list[str | None]:
    return [(text.strip() or None) if text and _is_encodable(text) else None for text in texts]


def _is_encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _lines(texts: Sequence[str | None]) -> str:
    """All values as one NFKC text, a line each: replacing in a whole column is far faster than row by row."""
    joined = "\n".join([text or "" for text in texts])
    if joined.count("\n") != max(len(texts) - 1, 0):
        joined = "\n".join([(text or "").replace("\n", " ") for text in texts])
    if joined.isascii():
        return joined
    if not _is_encodable(joined):
        joined = "\n".join([line if _is_encodable(line) else "" for line in joined.split("\n")])
    table = dict.fromkeys(map(ord, _INVISIBLE)) | dict.fromkeys(map(ord, _DASHES), "-")
    # A line break never combines with its neighbours, so the column may be normalised in one piece.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", joined).translate(table))


def _without(text: str, characters: str) -> str:
    for character in characters:
        text = text.replace(character, "")
    return text


def _fold(texts: Sequence[str | None]) -> list[str]:
    """Letters and digits of each text, "" where there are none."""
    if not texts:
        return []
    joined = _lines(texts).casefold()
    if not joined.isascii():
        for _ in range(2):  # a letter that was taken apart may have another lower case
            joined = unicodedata.normalize("NFKD", joined).translate(_PLAIN).casefold()
        joined = _plain_digits(unicodedata.normalize("NFC", joined))
    others = {character for character in set(joined) if unicodedata.category(character)[0] not in "LMN"}
    return joined.translate(dict.fromkeys(map(ord, others - {"\n"}))).split("\n")


def _plain_digits(text: str) -> str:
    """Write the decimal digits of all scripts as 0 to 9."""
    if text.isascii():
        return text
    digits = {ord(c): str(unicodedata.decimal(c)) for c in set(text) if c.isdecimal() and not c.isascii()}
    return text.translate(digits)


def _emails(texts: Sequence[str | None]) -> list[str | None]:
    lowered = _lines(texts).lower()
    if not lowered.isascii():
        lowered = unicodedata.normalize("NFKC", lowered).replace("\u3002", ".")
    if "xn--" in lowered:
        lowered = _PUNYCODE.sub(_domain_label, lowered)
    stripped = [line.strip() for line in lowered.split("\n")]
    return [line if _EMAIL.fullmatch(line) else None for line in stripped]


def _domain_label(match: re.Match[str]) -> str:
    """Return what a label of a domain in Punycode stands for; what stands for nothing remains as it is."""
    try:
        label = match[0][4:].encode("ascii").decode("punycode")
        # Also read as text it must stay what it is: a long vowel mark, say, is read as a dash.
        plain = _lines([label]).lower()
        is_canonical = label == unicodedata.normalize("NFKC", plain) and not label.isascii()
        is_reversible = label.encode("punycode").decode("ascii") == match[0][4:]
    except (UnicodeError, OverflowError):
        return match[0]
    return label if is_canonical and is_reversible and label.isalnum() else match[0]


def _national_ids(texts: Sequence[str | None]) -> list[str | None]:
    lines = _without(_plain_digits(_lines(texts)), _BETWEEN_DIGITS).upper().split("\n")
    shaped = [row for row, line in enumerate(lines) if _NATIONAL_ID.fullmatch(line)]
    joined = "".join([lines[row] for row in shaped]).encode("ascii")
    characters = np.frombuffer(joined, dtype=np.uint8).reshape(-1, 18)
    checks = (characters[:, :17].astype(np.int64) - ord("0")) @ _CHECK_WEIGHTS % 11
    right = characters[:, 17] == _CHECK_CHARACTERS[checks]
    result: list[str | None] = [None] * len(texts)
    for row, is_right in zip(shaped, right.tolist(), strict=True):
        if is_right:
            result[row] = lines[row]
    return result


def _phones(texts: Sequence[str | None], country: str) -> list[str | None]:
    if not re.fullmatch(r"[1-9][0-9]{0,2}", country):
        raise ValueError('country must be a calling code of 1 to 3 digits, such as "86"')
    joined = _plain_digits(_lines(texts))
    if "/" in joined:  # 0171/1234567: the old way to part an area code from the rest
        joined = re.sub(r"^([ +0(][^/\n]*)/([^/\n]*)$", r"\1\2", joined, flags=re.MULTILINE)
    if ".0" in joined:  # a number that went through a float column
        joined = re.sub(r"^([ +]*\d{7,}) *\.0(?=\s*$)", r"\1", joined, flags=re.MULTILINE | re.ASCII)
    if "(" in joined:
        joined = re.sub(r"\( *0 *\)", _BRACKETED_ZERO, joined)
    lines = _without(joined, _BETWEEN_DIGITS + ".()").split("\n")
    own, prefix = _own_pattern(country), "+" + country
    found = [own.fullmatch(line) for line in lines]
    numbers = [
        prefix + match[1] if match else (_foreign_phone(line, country) if line else None)
        for line, match in zip(lines, found, strict=True)
    ]
    if _BRACKETED_ZERO not in joined:
        return numbers
    return [number and number.replace(_BRACKETED_ZERO, "0") for number in numbers]


@cache
def _own_pattern(country: str) -> re.Pattern[str]:
    """Match a number of this country in any of its spellings; group 1 is the national number."""
    trunk = f"(?:{_BRACKETED_ZERO}|0)?" if country not in _NO_TRUNK_ZERO else ""
    national = _NATIONAL.get(country)
    if national is None:  # without known lengths a bare country code could as well be part of the number
        return re.compile(rf"(?:(?:\+|00){country})?{trunk}([1-9]\d{{5,{14 - len(country)}}})", re.ASCII)
    if country == "39":
        national = rf"{national}|{_BRACKETED_ZERO}[1-9]\d{{4,9}}"
    # Lazy: a number that is complete without taking its first digits for the country code is left whole.
    return re.compile(rf"(?:(?:\+|00|0)?{country})??{trunk}({national})", re.ASCII)


def _foreign_phone(line: str, country: str) -> str | None:
    match = re.fullmatch(rf"(?:\+|00)([1-9][0-9{_BRACKETED_ZERO}]*)", line)
    if match is None or match[1].startswith(country):
        return None
    digits = match[1]
    for length in (3, 2, 1):
        if digits[:length] in _NATIONAL:
            known = _own_pattern(digits[:length]).fullmatch("+" + digits)
            return f"+{digits[:length]}{known[1]}" if known else None
    digits = digits.replace(_BRACKETED_ZERO, "")
    return "+" + digits if 8 <= len(digits) <= 15 else None
