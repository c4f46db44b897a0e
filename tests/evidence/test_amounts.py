"""The amounts of disclosures in Chinese say the numbers that the English sentences say."""

import re
from dataclasses import fields

import pytest

from fedmkt.audit.disclosures import DisclosureReport, Fact, Learned, Unread
from fedmkt.contract.reading.disclosures_zh import DISCLOSURES_ZH
from fedmkt.evidence.amounts_zh import AMOUNTS_ZH, amount_zh, lines_zh, origin_zh, unread_zh
from fedmkt.privacy.disclosure import Disclosure, RangeBit, from_record, lookup


def filled(kind: str) -> Disclosure:
    """Make a disclosure whose numbers all differ, larger than a thousand where they are counts."""
    values: dict[str, object] = {"kind": kind, "to": "bank"}
    for place, one in enumerate(fields(lookup(kind))):
        if one.name != "to":
            values[one.name] = f"{place}.25" if one.type is str else 1000 + 37 * place
    return from_record(values)


def numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d[\d,.]*\d|\d", text))


def test_every_kind_has_a_sentence() -> None:
    assert set(AMOUNTS_ZH) == set(DISCLOSURES_ZH)


@pytest.mark.parametrize("kind", sorted(DISCLOSURES_ZH))
def test_both_languages_say_the_same_numbers(kind: str) -> None:
    found = filled(kind)
    assert numbers(amount_zh(found)) == numbers(found.describe())
    latin = re.findall(r"[A-Za-z]+", amount_zh(found))
    assert set(latin) <= {"epsilon"}


def test_origins_are_said_as_in_english() -> None:
    def said(*times: int) -> str:
        names = ("bank", "shop")[: len(times)]
        return origin_zh(Fact("x", RangeBit(to="x"), names, times, ""))

    assert said(1) == "来自 bank"
    assert said(3) == "来自 bank，3 次"
    assert said(2, 2) == "来自 bank、shop，各 2 次"
    assert said(1, 4) == "来自 bank、shop，共 5 次"
    assert unread_zh(Unread("x", ("shop",), ("RangeBit",)))[1] == "见 shop 的日志，不在此处"


def test_a_report_names_every_reader() -> None:
    learned = (Learned("bank", "shop", filled("Scores"), 1, ""),)
    text = "\n".join(lines_zh(DisclosureReport(("bank", "shop"), learned)))
    assert "bank：\n  - 收到" in text and "shop：\n  未获知任何内容" in text
