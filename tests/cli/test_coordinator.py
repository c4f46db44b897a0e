import json
from pathlib import Path

import pytest

from fedmkt.cli import app as commands


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def init(*more: str) -> int:
    return commands.main(["coordinator", "init", "coordinator", "--organisation", "Independent", *more])


def test_init_works_in_the_folder_where_one_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert init("--host", "c.example", "--host", "10.0.0.7") == 0
    shown = capsys.readouterr().out
    assert "answers for:  c.example, 10.0.0.7, localhost, 127.0.0.1, ::1" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert Path("coordinator.toml").exists() and Path("keys/ca.key").stat().st_mode & 0o777 == 0o600
    assert init() == 0  # again: nothing is made
    assert "made " not in capsys.readouterr().out


def test_init_without_an_address_or_with_a_wrong_one_makes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert init() == 2
    assert init("--host", "https://c.example") == 2
    assert "host" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_new_coordinator_lists_itself(capsys: pytest.CaptureFixture[str]) -> None:
    init("--host", "c.example")
    capsys.readouterr()
    assert commands.main(["coordinator", "parties", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parties"] == [] and len(found["coordinator"]["fingerprint"]) == 39


def test_preflight_looks_at_the_file_of_this_folder_and_ends_with_2_if_anything_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    init("--host", "localhost")
    capsys.readouterr()
    assert commands.main(["preflight", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["side"], found["name"], found["ready"]) == ("coordinator", "coordinator", False)
    assert {f["name"] for f in found["findings"] if not f["is_right"]} >= {"registry", "policy"}
    assert commands.main(["preflight"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and lines[-1].startswith("coordinator: ")
    assert commands.main(["preflight", "--config", "absent/party.toml"]) == 2
