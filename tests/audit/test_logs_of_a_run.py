import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmkt.cli.app import main
from fedmkt.simulation.logs import disclosures, read_logs

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
