"""`fedmkt runs`, `logs`, `stop` and `run` on a coordinator's folder without any process."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedmkt.cli.app import main
from fedmkt.deploy.runs import RunFolder, new_run
from tests.engine import toy_world


def nothing(call: object, contract: object) -> None:
    """A script without steps."""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    signed = toy_world(tmp_path / "world", nothing).signed  # type: ignore[arg-type]
    return new_run(tmp_path / "home" / "runs", signed, None)


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> list[str]:
    assert main([str(a) for a in arguments]) == code
    out = capsys.readouterr()
    lines = (out.out or out.err).splitlines()
    assert code or all(len(line) <= 80 for line in lines), lines  # an error names whole paths
    return lines


def test_runs_are_listed_at_80_columns(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = {"bank": 3_141_592_653, "shop": 1}
    run.write(replace(run.status(), state="running", step="witness.collect", rounds=9999, bytes_sent=sent))
    (line,) = said(capsys, "runs", "--dir", tmp_path / "home")
    assert run.name in line and "running" in line and "3141.6 MB" in line
    assert main(["runs", "--dir", str(tmp_path / "home"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert (found["run"], found["rounds"], found["bytes_sent"]) == (run.name, 9999, sent)


def test_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "runs", "--dir", tmp_path) == ["no run yet"]


def test_logs_end_with_how_the_run_stands(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.log.write_text("2030-01-01 10:00:00 psi\n")
    run.write(replace(run.status(), state="failed", error="TransportError: bank: is gone", exit_code=6))
    lines = said(capsys, "logs", run.name, "--dir", tmp_path / "home")
    assert lines[0].endswith("psi") and lines[-1] == "failed: TransportError: bank: is gone"


def test_a_run_that_is_not_there_names_those_that_are(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, "logs", "../../etc", "--dir", tmp_path / "home", code=2)
    assert "is no run here" in lines[0] and run.name in lines[1]


def test_a_run_without_a_process_stops_at_once(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedmkt.deploy import operate
    from fedmkt.errors import TransportError

    def away(folder: object) -> object:
        raise TransportError("SuperLink does not answer")

    monkeypatch.setattr(operate, "control_of", away)
    run.write(replace(run.status(), state="running", process=4_000_000))
    lines = said(capsys, "stop", run.name, "--dir", tmp_path / "home")
    assert lines[-1] == "stopped: stopped by the operator"
    assert run.status().state == "stopped" and run.stop.exists()


def test_a_contract_that_is_not_there_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, "run", tmp_path / "none.toml", "--dir", tmp_path, code=2)
    assert "no such file" in " ".join(lines)
    assert not (tmp_path / "runs").exists()
