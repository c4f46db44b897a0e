import json
from pathlib import Path

import pytest

from fedmkt.cli import app as commands
from fedmkt.party.controls.code import installed_code
from fedmkt.party.controls.registry import CONTROLS
from tests.deploy.signers import JOB, write_all

BAD = """
[governance]
countries = ["CN"]
locations = { bank = "CN", shop = "SG", relay = "CN" }
suite = "gm"
use = "pricing"
[[governance.datasets]]
party = "bank"
name = "customers of the bank"
people = "customers"
purposes = ["cards"]
basis = ["PIPL-13-2"]
columns = [{ name = "age", level = 2, kind = "demography" }, { name = "answered", level = 5, kind = "answer" }]
[[governance.datasets]]
party = "shop"
name = "buyers"
people = "buyers"
purposes = ["loans"]
basis = ["PIPL-13-2"]
columns = [{ name = "spent", level = 2, kind = "purchases" }, { name = "device", kind = "religious goods" }]
[[governance.recipients]]
result = "scores"
to = "bank"
use = "letters"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    return commands.main(["controls", *arguments]), capsys.readouterr().out


def draft(place: Path, job: str) -> None:
    (place / "job.toml").write_text(job)
    assert commands.main(["contract", "new", "job.toml", "--dir", "bank", "--out", "c.toml"]) == 0


def test_the_table_names_every_control_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys)
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    starts = [line[:31].split()[0] for line in out.splitlines()[1:] if line[:31].strip()]
    assert sorted(starts) == sorted(CONTROLS) and starts[:22] == [f"C{n:02}" for n in range(1, 23)]


def test_the_digest_of_the_installed_code_is_printed_as_a_contract_has_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(capsys, "--code") == (0, f"{installed_code()}\n") and len(installed_code()) == 64


def test_all_that_breaks_a_contract_is_listed_at_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft(place, JOB + BAD)
    code, out = run(capsys, "c.toml", "--dir", "bank")
    refused = [line.split()[1] for line in out.splitlines() if line.startswith("REFUSED")]
    assert code == 4 and max(map(len, out.splitlines())) <= 80
    assert refused == ["C01", "C07", "C08", "C14", "C17", "C18", "C19", "C22", "rule"]  # rule signatures
    assert "of level 5: it never takes part" in out and "tells of religion" in out
    assert out.splitlines()[-1] == "bank refuses it by 9 controls"
    facts = json.loads(run(capsys, "c.toml", "--dir", "bank", "--json")[1])
    assert [c["id"] for c in facts["controls"] if c["breaches"]] == ["signatures", *refused[:-1]]


def test_a_contract_that_passes_is_told_so_with_exit_code_0(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft(place, JOB)
    for name in ("bank", "shop", "relay"):
        assert commands.main(["contract", "sign", "c.toml", "--dir", name, "--yes"]) == 0
    code, out = run(capsys, "c.toml", "--dir", "shop")
    assert code == 0 and "REFUSED" not in out and out.splitlines()[-1] == "shop runs this contract"
