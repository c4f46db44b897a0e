"""The attack lab's report as the page shows it."""

from typing import get_args

import pytest

from fedmkt.attack_lab.finding import Verdict
from fedmkt.attack_lab.registry import ATTACKS
from fedmkt.evidence.attacks import _NAMES_ZH, table
from fedmkt.evidence.document import Words

EN, ZH = Words("en"), Words("zh")
HELD = {
    "row": 1, "attack": "label by norm", "metric": "leak AUC", "undefended": 1.0, "here": 0.4861,
    "limit": {"value": 0.55, "is_least": False}, "verdict": "held", "declared": [], "assumed": "", "note": "n",
}  # fmt: skip


def test_every_verdict_and_every_attack_has_words() -> None:
    lines = [HELD | {"verdict": verdict} for verdict in get_args(Verdict)]
    for say in (EN, ZH):
        found = table({"findings": lines}, say)
        assert len(found.legend) == len(lines) == len({word for word, _ in found.legend})
        assert [a.is_bad for a in found.attacks] == [v in ("BROKEN", "no control") for v in get_args(Verdict)]
    assert {str(row) for row in ATTACKS} <= set(_NAMES_ZH)


def test_a_line_has_its_figures_and_by_what_an_attack_works() -> None:
    by = HELD | {"verdict": "declared", "declared": ["Scores"], "here": 3}
    found = table({"findings": [HELD, by]}, EN)
    first, second = found.attacks
    assert (first.row, first.undefended, first.here, first.limit) == ("1", "1", "0.486", "≤ 0.55")
    assert (second.note, second.here) == ("by Scores; n", "3")
    assert found.summary == "1 held, 1 declared"
    assert table({"findings": [HELD]}, ZH).summary == "未得手 1 项"


@pytest.mark.parametrize("report", [None, {}, {"findings": 3}, {"findings": ["x", None]}])
def test_what_has_another_form_has_no_lines(report: dict[str, object] | None) -> None:
    assert table(report, EN).attacks == ()  # type: ignore[arg-type]


def test_strange_values_are_shown_and_an_unknown_verdict_is_bad() -> None:
    (line,) = table({"findings": [{"row": [1], "verdict": {"a": 1}, "limit": {}, "declared": 4}]}, EN).attacks
    assert line.is_bad and line.row == "[1]" and line.limit == "≤ –"


def test_no_sign_of_a_report_turns_a_line_around() -> None:
    line = {
        "row": "1",
        "attack": "\u202edleh",
        "verdict": "\u2066held",
        "note": "a\u202eb\x00",
        "declared": ["\u200f"],
    }
    (found,) = table({"findings": [line]}, EN).attacks
    assert (found.name, found.note, found.is_bad) == ("dleh", "by ; ab", True)
    assert all(text.isprintable() for text in (found.name, found.note, found.verdict))
