"""The page docs/contract.md is followed word by word, by people who answer yes."""

import re
import shlex
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from fedmkt.cli import app as commands
from fedmkt.contract.reading.phrases_en import ENGLISH
from tests.deploy.own_folders import circle

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "contract.md").read_text()


class Person(StringIO):
    """Somebody at a terminal who types y, as often as asked."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Follow the page once, and return what each command said."""
    place = tmp_path_factory.mktemp("page")
    circle(place)
    (place / "examples").symlink_to(ROOT / "examples")
    found: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for kind, text in re.findall(r"^```(console|sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
            if kind == "sh":
                subprocess.run(["bash", "-euc", text], check=True, timeout=30, capture_output=True)
                continue
            for line in re.findall(r"^\$ fedmkt (.*)$", text, re.MULTILINE):
                out = StringIO()
                patch.setattr(sys, "stdin", Person("y\n"))
                patch.setattr(sys, "stdout", out)
                assert commands.main(shlex.split(line)) == 0, line
                patch.undo()
                patch.chdir(place)
                found[line] = out.getvalue()
    found["place"] = str(place)
    return found


def of(said: dict[str, str], start: str) -> str:
    return next(text for line, text in said.items() if line.startswith(start))


def test_every_command_of_the_page_ends_well(said: dict[str, str]) -> None:
    assert len(said) == len(re.findall(r"^\$ ", PAGE, re.MULTILINE)) + 1


def test_the_example_is_reviewed_without_a_grave_finding(said: dict[str, str]) -> None:
    text = of(said, "contract review")
    warnings = [line for line in text.splitlines() if line.startswith("! ")]
    assert len(warnings) == 2 and ENGLISH["changes_first"] in text
    assert "No digest of the program" in warnings[0] and "The partner learns which" in warnings[1]


def test_all_have_approved_and_signed(said: dict[str, str]) -> None:
    text = of(said, "contract verify")
    assert "bank: 2 of 2 approvals" in text and "partner: 2 of 2 approvals" in text
    assert "DENIED" in of(said, "contract deny") and "lacking" not in text


def test_the_review_of_the_amendment_says_the_one_change(said: dict[str, str]) -> None:
    text = of(said, "contract review spring-campaign-2.contract.toml")
    rows = text.partition("What changes\n")[2].partition("\n\n")[0].splitlines()[2:]
    terms = [row[2:].partition("  ")[0] for row in rows]
    # Drafted within the same second, both begin and end at once.
    assert [term for term in terms if term not in ("", "begins", "ends")] == ["runs, at most"]
    assert "3 becomes 4" in text


@pytest.mark.parametrize("name", ["bank", "partner", "coordinator"])
def test_after_the_revocation_everybody_refuses(
    said: dict[str, str], name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(said["place"])
    assert commands.main(["contract", "verify", "spring-campaign.contract.toml", "--dir", name]) == 4
    assert "rule revoked: partner ended the contract" in capsys.readouterr().err


def test_the_page_of_html_is_chinese(said: dict[str, str]) -> None:
    page = (Path(said["place"]) / "spring.zh.html").read_text()
    assert "隐私集合求交" in page and "出境" in page and "敏感个人信息" in page
