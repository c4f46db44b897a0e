import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmkt.audit.verify import verify_run
from fedmkt.cli.app import main
from fedmkt.contract.files import to_toml
from fedmkt.errors import PeerError
from fedmkt.protocol.session import Request
from fedmkt.report.logs import disclosures, read_logs
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
