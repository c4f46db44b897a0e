import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmkt.audit import verify_proof
from fedmkt.audit.verify import verify_run
from fedmkt.cli.app import main
from fedmkt.contract.files import to_toml
from fedmkt.errors import PeerError
from fedmkt.protocol.session import Request
from fedmkt.report.logs import disclosures, read_logs
from tests.audit.conftest import write_run
from tests.engine import Tap, job_world

Write = Callable[[Any], dict[str, bytes]]


def test_every_record_of_every_signer_is_listed(write: Write, events: Any, tmp_path: Path) -> None:
    write(events)
    logs = read_logs(tmp_path)
    assert {name: [r.type for r in records] for name, records in logs.records.items()} == {
        name: [kind for kind, _ in listed] for name, listed in events.items()
    }
    assert len(logs.lines()) == sum(len(listed) + 1 for listed in events.values())
    assert disclosures(tmp_path).readers == tuple(logs.records)


def test_the_commands_print_lines_and_json(
    write: Write, events: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(events)
    for command in (["audit", "verify"], ["audit", "show"], ["disclosures"]):
        assert main([*command, str(tmp_path)]) == 0
        assert capsys.readouterr().out
        assert main([*command, str(tmp_path), "--json"]) == 0
        assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_a_changed_log_ends_with_7_and_one_line(
    write: Write, events: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(events)
    log = tmp_path / "logs" / "bank" / "log.jsonl"
    assert b"run.started" in log.read_bytes()
    log.write_bytes(log.read_bytes().replace(b"run.started", b"run.stopped", 1))
    for command in ("verify", "show"):
        assert main(["audit", command, str(tmp_path)]) == 7
        assert "Traceback" not in capsys.readouterr().err


def test_a_run_is_verified_when_aborted_resumed_and_run_again(tmp_path: Path) -> None:
    world = job_world(tmp_path, iterations=1)
    (tmp_path / "contract.toml").write_text(to_toml(world.signed))

    def spoil(name: str, message: Any) -> Any:
        if isinstance(message, Request) and message.step == "fit.residual":
            return Request(message.index, message.step, message.news, ())
        return message

    with pytest.raises(PeerError):
        world.run(Tap(change=spoil))
    aborted = verify_run(tmp_path)
    assert aborted.outcome == "aborted"
    assert any(log.signed < log.records for log in aborted.logs)
    world.run(resume=True)
    assert verify_run(tmp_path).outcome == "completed"
    world.run()
    report = verify_run(tmp_path)
    assert [run.outcome for run in report.runs] == ["completed", "completed"]
    assert all(log.signed == log.records for log in report.logs)


def said(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    assert main(["audit", *map(str, command)]) == 0
    return capsys.readouterr().out


def test_show_filters_by_log_event_run_and_time(
    write: Write, events: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(events)
    assert "shop: " not in said(capsys, "show", tmp_path, "--party", "bank")
    lines = said(capsys, "show", tmp_path, "--type", "message.*").splitlines()
    assert [line.split()[2] for line in lines if line.startswith(" ")] == ["message.sent", "message.received"]
    assert said(capsys, "show", tmp_path, "--run", "run1").count("run.started") == 3
    assert "run.started" not in said(capsys, "show", tmp_path, "--run", "run2")
    assert said(capsys, "show", tmp_path, "--since", "2030-01-01").count("run.started") == 3
    assert "run.started" not in said(capsys, "show", tmp_path, "--since", "2030-01-01T00:00:01Z")
    assert main(["audit", "show", str(tmp_path), "--since", "yesterday"]) != 0
    assert main(["audit", "show", str(tmp_path), "--party", "eve"]) != 0


def test_a_record_is_proven_and_the_proof_verified_by_the_program(
    write: Write, events: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(events)
    out = tmp_path / "a.tlog-proof"
    assert str(out) in said(capsys, "prove", tmp_path, "bank:2", "--out", out)
    assert verify_proof.main([str(tmp_path / "contract.toml"), str(out)]) == 0
    for wrong in ("bank:99", "eve:1", "2", "bank:x"):
        assert main(["audit", "prove", str(tmp_path), wrong, "--out", str(out)]) != 0
        assert "Traceback" not in capsys.readouterr().err


def test_two_folders_are_compared(
    write: Write, events: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kept in (("a", 5), ("b", 2)):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name, {party: listed[:kept] for party, listed in events.items()})
    assert "same" in said(capsys, "compare", tmp_path / "a", tmp_path / "a")
    assert "left continues right" in said(capsys, "compare", tmp_path / "a", tmp_path / "b")
    log = tmp_path / "b" / "logs" / "bank" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"run.started", b"run.resumed"))
    assert main(["audit", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 7
    assert json.loads(capsys.readouterr().out)["copies"][0]["relation"] == "fork"


@pytest.mark.parametrize("form", ["ocsf", "openlineage", "csv", "tiles"])
def test_logs_are_exported(
    write: Write, events: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    write(events)
    made = said(capsys, "export", tmp_path, tmp_path / "out", "--format", form).splitlines()
    assert len(made) == 3 and all(Path(path).exists() for path in made)
    if form == "tiles":
        assert (tmp_path / "out" / "bank" / "tile" / "entries" / "000.p" / "5").exists()
