import json
import shutil
from pathlib import Path

import pytest

from fedmkt.cli import app as commands
from fedmkt.simulation.run import RunResult


@pytest.fixture
def run(small_run: RunResult, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(small_run.folder, folder)
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert commands.main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def test_simulate_prints_one_json_object(
    small_run: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.toml"
    source = small_run.folder.parent / "files"
    for name in ("bank.csv", "partner.csv"):
        shutil.copy(source / name, tmp_path)
    text = (source / "job.toml").read_text().replace("[model]\n", "[model]\niterations = 3\n")
    job.write_text(text)
    facts = json.loads(said(capsys, "simulate", job, "--out", tmp_path / "out", "--json"))
    low, high = facts["common"]["band"]
    assert low < facts["common"]["exact"] <= high
    assert {"bank", "joint", "centralised"} <= set(facts["models"])
    assert {"lift", "seconds", "bytes", "rounds", "run"} <= set(facts)
    assert facts["run"] == str(tmp_path / "out")
    assert commands.main(["simulate", str(job), "--out", str(tmp_path / "out")]) == 2
    assert "not empty" in capsys.readouterr().err


def test_the_pages_of_the_command_line_fit_80_columns(
    small_run: RunResult, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = small_run.folder.parent / "files" / "job.toml"
    for arguments in (["disclosures", run], ["plan", job], ["audit", "verify", run]):
        text = said(capsys, *arguments)
        assert max(map(len, text.splitlines())) <= 80, arguments


def test_every_command_on_a_run_speaks_json_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learned = json.loads(said(capsys, "disclosures", run, "--json"))
    assert learned["readers"] == ["bank", "partner", "coordinator"]
    assert json.loads(said(capsys, "audit", "verify", run, "--json"))["outcome"] == "completed"
    assert set(json.loads(said(capsys, "audit", "show", run, "--json"))["logs"]) == {
        "bank", "partner", "coordinator",
    }  # fmt: skip
    scores = json.loads(said(capsys, "score", run, "--json"))["scores"]
    assert Path(scores).read_text().startswith("row,set,score,decile,probability\n")
    report = json.loads(said(capsys, "report", run, "--json"))["report"]
    assert Path(report).read_text().startswith("<!DOCTYPE html>")


def test_one_changed_byte_of_a_log_ends_with_7(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = run / "logs" / "partner" / "log.jsonl"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(bytes(data))
    assert commands.main(["audit", "verify", str(run)]) == 7
    assert capsys.readouterr().err.count("\n") == 2  # the error and the hint


@pytest.mark.parametrize("command", ["report", "score", "disclosures", "audit show"])
def test_a_folder_that_is_no_run_ends_with_2_and_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main([*command.split(), str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("fedmkt: error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_names_what_exists_in_a_simulation_only(
    small_run: RunResult, capsys: pytest.CaptureFixture[str]
) -> None:
    from fedmkt.cli import console

    console.say_run(small_run.to_json())
    text = capsys.readouterr().out
    for part in ("bank alone", "centralised *", "* exists in a simulation only", "exactly 700", "note: "):
        assert part in text
