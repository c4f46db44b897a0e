import json
from pathlib import Path

import pytest
import typer

from fedmkt.cli import app as commands
from fedmkt.cli import asking


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert commands.main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def facts(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(said(capsys, *arguments, "--json"))
    return found


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Found a coordinator; short paths, so that lines can be measured."""
    monkeypatch.chdir(tmp_path)
    said(
        capsys,
        "coordinator",
        "init",
        "coordinator",
        "--organisation",
        "Independent",
        "--host",
        "localhost",
        "--dir",
        "c",
    )
    return Path()


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sit somebody at the terminal who says yes to what is asked."""
    asked: list[str] = []

    def confirm(question: str, **options: object) -> bool:
        asked.append(question)
        return True

    monkeypatch.setattr(asking.sys, "stdin", Terminal())
    monkeypatch.setattr(typer, "confirm", confirm)
    return asked


class Terminal:
    """Stands for a terminal."""

    def isatty(self) -> bool:
        return True


def test_three_offices_come_together_by_the_commands_of_the_manual(
    place: Path, capsys: pytest.CaptureFixture[str], person: list[str]
) -> None:
    for name, organisation, role in (("bank", "First Bank", "bank"), ("shop", "Shop GmbH", "partner")):
        said(capsys, "party", "init", name, "--organisation", organisation, "--role", role, "--dir", name)
        said(capsys, "coordinator", "admit", f"{name}/{name}.request", "--dir", "c")
        said(capsys, "party", "join", f"c/{name}.bundle", "--dir", name)
    said(capsys, "party", "pin", "coordinator", "c/bank.bundle", "--dir", "bank")
    said(capsys, "party", "pin", "shop", "shop/shop.request", "--dir", "bank")
    assert len(person) == 6
    said(capsys, "party", "init", "bank", "--rotate", "--dir", "bank")
    said(capsys, "coordinator", "admit", "bank/bank.request", "--dir", "c")
    said(capsys, "party", "join", "c/bank.bundle", "--dir", "bank")
    assert len(person) == 7  # the same coordinator is not compared twice
    said(capsys, "coordinator", "revoke", "shop", "--dir", "c")
    found = facts(capsys, "coordinator", "parties", "--dir", "c")
    assert [(p["name"], p["state"]) for p in found["parties"]] == [("bank", "admitted"), ("shop", "revoked")]  # type: ignore[attr-defined, index]


def test_every_command_prints_the_same_facts_as_json_and_fits_80_columns(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = facts(capsys, "party", "init", "bank", "--organisation", "First Bank", "--dir", "bank")
    assert made["request"] == "bank/bank.request" and "keys/identity.key" in made["made"]  # type: ignore[operator]
    lines = said(capsys, "party", "init", "bank", "--dir", "bank")
    assert str(made["fingerprint"]) in lines
    admit = ("coordinator", "admit", "bank/bank.request", "--dir", "c", "--fingerprint", made["fingerprint"])
    admitted = facts(capsys, *admit)
    assert (admitted["bundle"], admitted["registered"]) == ("c/bank.bundle", False)
    lines += said(capsys, *admit)
    ours = facts(capsys, "coordinator", "init", "coordinator", "--dir", "c")["fingerprint"]
    join = ("party", "join", "c/bank.bundle", "--dir", "bank", "--fingerprint", ours)
    assert facts(capsys, *join)["address"] == "localhost:8443"
    lines += said(capsys, *join)
    pin = ("party", "pin", "coordinator", "c/bank.bundle", "--dir", "bank", "--fingerprint", ours)
    assert facts(capsys, *pin)["fingerprint"] == ours
    lines += said(capsys, *pin)
    assert facts(capsys, "coordinator", "renew", "--dir", "c")["hosts"] == ["localhost", "127.0.0.1", "::1"]
    lines += said(capsys, "coordinator", "renew", "--dir", "c") + said(
        capsys, "coordinator", "parties", "--dir", "c"
    )
    assert max(map(len, lines.splitlines())) <= 80
    revoked = facts(capsys, "coordinator", "revoke", "bank", "--yes", "--dir", "c")
    assert (revoked["state"], revoked["unregistered"]) == ("revoked", False)


def test_the_fingerprint_is_compared_without_regard_to_case_and_spaces(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = facts(capsys, "party", "init", "bank", "--organisation", "First Bank", "--dir", "bank")[
        "fingerprint"
    ]
    typed = str(shown).upper().replace(" ", "")
    said(capsys, "coordinator", "admit", "bank/bank.request", "--dir", "c", "--fingerprint", typed)


def test_a_pipe_cannot_say_yes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "party", "init", "bank", "--organisation", "First Bank", "--dir", "bank")
    assert commands.main(["coordinator", "admit", "bank/bank.request", "--dir", "c"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "--fingerprint" in shown.err.splitlines()[1]
    assert not Path("c/bank.bundle").exists()


def test_a_no_changes_nothing_and_ends_with_4(
    place: Path, capsys: pytest.CaptureFixture[str], person: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said(capsys, "party", "init", "bank", "--organisation", "First Bank", "--dir", "bank")
    monkeypatch.setattr(typer, "confirm", lambda question, **options: False)
    assert commands.main(["coordinator", "admit", "bank/bank.request", "--dir", "c"]) == 4
    assert "was not confirmed" in capsys.readouterr().err
    assert facts(capsys, "coordinator", "parties", "--dir", "c")["parties"] == []


def test_what_is_wrong_ends_with_its_exit_code_and_one_line(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "party", "init", "bank", "--organisation", "First Bank", "--dir", "bank")
    Path("forged").write_bytes(Path("bank/bank.request").read_bytes().replace(b"First", b"Worst"))
    other = "0" * 32
    for arguments, code in (
        (["party", "init", "../x", "--organisation", "X"], 2),
        (["party", "init", "shop", "--dir", "new"], 2),
        (["party", "init", "shop", "--dir", "bank"], 2),
        (["party", "init", "bank", "--dir", "bank", "--role", "guest"], 2),
        (["party", "join", "bank/bank.request", "--dir", "bank"], 2),
        (["party", "join", "absent.bundle", "--dir", "bank"], 2),
        (["party", "pin", "shop", "nokey", "--dir", "bank"], 2),
        (["party", "pin", "shop", "ab" * 32, "--dir", "bank", "--fingerprint", other], 4),
        (["coordinator", "admit", "forged", "--dir", "c", "--fingerprint", other], 5),
        (["coordinator", "admit", "bank/bank.request", "--dir", "c", "--fingerprint", other], 4),
        (["coordinator", "revoke", "bank", "--dir", "c", "--yes"], 4),
        (["coordinator", "parties", "--dir", "nowhere"], 2),
    ):
        assert commands.main(arguments) == code, arguments
        shown = capsys.readouterr()
        assert shown.out == "" and shown.err.startswith("fedmkt: error: ") and shown.err.count("\n") <= 2
    assert not Path("new").exists() and not Path("c/bank.bundle").exists()


def test_no_secret_is_ever_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = ""
    for more in ((), ("--json",)):
        shown += said(capsys, "party", "init", "bank", "--organisation", "First Bank", "--dir", "bank", *more)
        shown += said(capsys, "coordinator", "parties", "--dir", "c", *more)
        commands.main(["preflight", "--config", "bank/party.toml", *more])
        shown += "".join(capsys.readouterr())
    for path in (*Path("bank/keys").iterdir(), *Path("c/keys").iterdir()):
        data = path.read_bytes()
        if path.suffix in (".key", ".secret"):
            assert data.hex() not in shown
            assert not any(line in shown.encode() for line in data.splitlines() if len(line) > 30)


def test_help_of_the_new_commands_is_short_and_fits_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    groups = {
        "party": ("init", "join", "pin"),
        "coordinator": ("init", "admit", "revoke", "renew", "parties"),
    }
    pages = [
        ["preflight"],
        *([group, command] for group, names in groups.items() for command in ("", *names)),
    ]
    for words in pages:
        lines = said(capsys, *filter(None, words), "--help").splitlines()
        assert max(map(len, lines)) <= 80 and len(lines) <= 40, words
