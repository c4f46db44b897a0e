import io
import json
import sys
from pathlib import Path

import pytest

from fedmkt.cli import app as commands
from fedmkt.deploy.contracts import read_contract
from tests.deploy.signers import EVE, JOB, KEYS, write_all


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three signers' folders, a job and a draft, in the current directory."""
    write_all(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    assert commands.main(["contract", "new", "job.toml", "--dir", "bank", "--out", "c.toml"]) == 0
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = commands.main(["contract", *arguments])
    return code, *capsys.readouterr()


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def sign_by_all(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bank", "shop", "relay"):
        assert run(capsys, "sign", "c.toml", "--dir", name, "--yes")[0] == 0


def test_new_writes_the_draft_beside_the_reader_and_says_what_comes_next(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [word for name, key in KEYS.items() for word in ("--key", f"{name}={key.upper()}")]
    code, out, _ = run(capsys, "new", "job.toml", *keys, "--valid-days", "3")
    assert code == 0 and "fedmkt contract sign spring.contract.toml" in out
    contract = read_contract(place / "spring.contract.toml").contract
    assert (contract.expires - contract.created).days == 3
    code, _, err = run(capsys, "new", "job.toml", *keys)
    assert code == 2 and "exists already" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["new", "job.toml", "--out", "x"], "no identity key of bank, shop, relay"),
        (["new", "job.toml", "--key", "bank"], "is not NAME=KEY"),
        (["new", "job.toml", "--key", "bank=1", "--key", "bank=2"], "every name once"),
        (["new", "job.toml", "--key", "bank=abcd"], "abcd: no such file"),
        (["new", "none.toml", "--dir", "bank"], "none.toml: no such file"),
        (["new", "job.toml", "--dir", "bank", "--out", "x", "--valid-days", "0"], "accepted: 1 to 3660"),
        (["show", "none.toml"], "none.toml: no such file"),
        (["show", "job.toml"], "job.toml: family: missing"),
        (["sign", "c.toml"], "neither party.toml nor coordinator.toml"),
        (["sign", "c.toml", "--config", "bank/policy.toml"], "accepted: a party.toml or a coordinator.toml"),
        (["sign", "c.toml", "--config", "bank/party.toml", "--dir", "bank"], "not both"),
        (["verify", "c.toml", "--pin", "bank"], "is not NAME=KEY"),
    ],
)
def test_a_mistake_ends_with_2_and_one_line(
    place: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "") and said in err and "Traceback" not in err


def test_show_is_the_same_for_people_and_programs_and_fits_80_columns(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "show", "c.toml")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    facts = json.loads(run(capsys, "show", "c.toml", "--json")[1])
    assert facts["digest"] in out and all(s["fingerprint"] in out for s in facts["signers"])
    assert facts["missing"] == ["bank", "shop", "relay"] and "missing: bank, shop, relay" in out


@pytest.mark.parametrize("text", ["", "\n", "n\n", "no\n"])
def test_nobody_signs_without_a_yes(
    place: Path, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, text)
    before = (place / "c.toml").read_bytes()
    code, out, err = run(capsys, "sign", "c.toml", "--dir", "bank")
    assert (code, out) == (4, "") and "not signed" in err
    assert "who may learn what" in err and "you sign as bank" in err and "sign? [y/N]" in err
    assert (place / "c.toml").read_bytes() == before


def test_a_yes_signs_and_the_question_leaves_stdout_to_the_result(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "y\n")
    code, out, _ = run(capsys, "sign", "c.toml", "--config", "bank/party.toml", "--json")
    assert code == 0 and json.loads(out)["missing"] == ["shop", "relay"]
    code, out, err = run(capsys, "sign", "c.toml", "--dir", "bank")  # nobody is asked again
    assert (code, err) == (0, "") and "had signed already" in out


def test_the_folder_in_which_one_stands_signs(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "relay")
    code, out, _ = run(capsys, "sign", "../c.toml", "--yes")
    assert code == 0 and "signed as relay" in out


def test_a_contract_signed_by_all_verifies_and_its_absence_ends_with_4(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "verify", "c.toml")
    assert (code, out) == (4, "") and "missing bank, relay, shop" in err
    sign_by_all(capsys)
    code, out, _ = run(capsys, "verify", "c.toml")
    assert code == 0 and "compared with nobody's" in out
    pins = [word for name, key in KEYS.items() for word in ("--pin", f"{name}={key}")]
    code, out, _ = run(capsys, "verify", "c.toml", *pins)
    assert code == 0 and "compared with nobody's" not in out
    assert json.loads(run(capsys, "verify", "c.toml", "--dir", "relay", "--json")[1])["keys_compared"] is True
    code, _, err = run(capsys, "verify", "c.toml", *pins[:-1], f"relay={EVE.public.hex()}")
    assert code == 4 and "the key of relay is not the pinned one" in err


def test_copies_are_merged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = (place / "c.toml").read_bytes()
    for name in ("bank", "shop", "relay"):
        (place / f"{name}.toml").write_bytes(draft)
        assert run(capsys, "sign", f"{name}.toml", "--dir", name, "--yes")[0] == 0
    code, out, _ = run(capsys, "merge", "bank.toml", "shop.toml", "relay.toml", "--out", "all.toml")
    assert code == 0 and "complete: all have signed" in out
    assert run(capsys, "verify", "all.toml")[0] == 0


def test_a_rehearsal_is_said_in_capitals_by_every_command(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "job.toml").write_text("rehearsal = true" + JOB)
    run(capsys, "new", "job.toml", "--dir", "bank", "--out", "r.toml")
    assert "INVENTED DATA ONLY" in run(capsys, "show", "r.toml")[1]
    code, _, err = run(capsys, "sign", "r.toml", "--dir", "bank", "--yes")
    assert code == 4 and "rule rehearsal" in err
    for name, file in (("bank", "policy.toml"), ("shop", "policy.toml"), ("relay", "coordinator.toml")):
        path = place / name / file
        path.write_text(path.read_text() + "rehearsals = true\n")
        assert run(capsys, "sign", "r.toml", "--dir", name, "--yes")[0] == 0
    assert "INVENTED DATA ONLY" in run(capsys, "verify", "r.toml")[1]


def test_no_secret_key_is_ever_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sign_by_all(capsys)
    said = ""
    for command in ("show", "verify"):
        for more in ([], ["--json"]):
            said += "".join(run(capsys, command, "c.toml", *more)[1:])
    secrets = [(place / name / "keys" / "identity.key").read_bytes().hex() for name in KEYS]
    assert not any(secret in said for secret in secrets)
