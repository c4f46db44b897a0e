"""300 malformed files of every kind; `make malformed` tries 5,000."""

import random
from dataclasses import replace
from pathlib import Path

from tests import malformed
from tests.malformed import broken_csv, cases, settings, wrong


def test_three_hundred_malformed_files_end_in_a_line_that_says_where(tmp_path: Path) -> None:
    found = [(case, wrong(case, tmp_path)) for case in cases(300, seed=2)]
    assert not [(case.kind, fault) for case, fault in found if fault]
    assert len({case.kind for case, _ in found}) > 40
    assert {case.code for case, _ in found} == {2, 3}


def test_what_they_are_made_of_is_right(tmp_path: Path) -> None:
    """A settings file that was refused before it was broken would show nothing."""
    for which, (text, read) in settings().items():
        path = tmp_path / which.split()[-1]
        path.write_text(text)
        read(path)
    (tmp_path / "table.csv").write_bytes(malformed._csv(malformed._rows()))
    assert malformed._read(tmp_path / "table.csv") is not None


def test_a_message_without_the_place_is_noticed(tmp_path: Path) -> None:
    case = broken_csv(random.Random(1))
    assert wrong(case, tmp_path) == ""
    assert wrong(replace(case, said=("row 99",)), tmp_path).startswith("does not say")
    assert wrong(replace(case, code=2), tmp_path).startswith("exit code 3")
    assert wrong(replace(case, read=lambda path: int("x")), tmp_path).startswith("ValueError")
    assert wrong(replace(case, read=lambda path: None), tmp_path) == "accepted"
