import json
import math
from pathlib import Path

import pytest

from fedmkt.cli import console
from fedmkt.simulation.progress import ProgressEvent

FACTS = {
    "common": {"band": [11_000, 13_000], "exact": 12_000},
    "models": {
        "bank": {"auc": 0.71234, "ks": 0.3, "brier": 0.09},
        "joint": {"auc": 0.81234, "ks": 0.5, "brier": 0.08},
        "centralised": None,
    },
    "lift": 3.456,
    "seconds": {"psi": 1.5, "fit": 2.25},
    "bytes": {"bank": 3 * 2**20, "partner": 1536},
    "rounds": 72,
    "run": "/somewhere/[bold]run",
}


def test_a_run_is_shown_with_its_models_and_folder(capsys: pytest.CaptureFixture[str]) -> None:
    console.say_run(FACTS)
    shown = capsys.readouterr().out
    for part in ("11,000 and 13,000", "0.7123", "0.8123", "3.46", "3.8 s", "3.0 MiB", "1.5 KiB", "72"):
        assert part in shown
    assert "centralised" not in shown
    assert "/somewhere/[bold]run" in shown


def test_a_run_with_little_to_say_is_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    console.say_run({})
    assert capsys.readouterr().out == ""


def test_a_long_folder_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.say_run({"run": "/" + "x" * 200})
    assert capsys.readouterr().out.count("\n") == 1


def test_json_has_null_for_what_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"a": math.nan, "b": math.inf, "c": Path("p"), "d": (1, None, True), "é": {"x": 1.5}}
    console.say_json(facts)
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"a": None, "b": None, "c": "p", "d": [1, None, True], "é": {"x": 1.5}}


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**20, "5.0 MiB"), (3 * 2**40, "3072.0 GiB")],
)
def test_bytes_are_written_as_people_read_them(count: int, text: str) -> None:
    assert console.human_bytes(count) == text


def test_progress_goes_to_stderr_once_per_stage_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_display() as progress:
        for stage in ("psi", "fit"):
            for done in range(3):
                progress(ProgressEvent(stage, done, 3, 100, 5000))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "fedmkt: psi\nfedmkt: fit\n"


def test_progress_on_a_terminal_shows_rows_and_bytes_in_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    with console.progress_display() as progress:
        progress(ProgressEvent("psi", 1, 4, 20_000, 2**20))
        progress(ProgressEvent("fit", 20, 20, 1_000_000, 2**31))
    shown = capsys.readouterr().err
    assert "20,000 rows" in shown and "1,000,000 rows" in shown and "2.0 GiB" in shown
