import io
import json
import stat
import sys
from pathlib import Path

import pytest

from fedmkt.cli import app as commands
from fedmkt.contract.canonical import digest
from fedmkt.crypto.dsse import from_json, to_json
from fedmkt.crypto.key_file import from_pem
from fedmkt.deploy.contracts import read_contract
from fedmkt.deploy.statement_files import LARGEST_STATEMENT, folder_beside
from tests.deploy.governed import GOVERNED, PEOPLE, write_governed

FILE = "spring.contract.toml"
SIGNERS = ("bank", "shop", "relay")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three signers' folders, a job with governance, the keys of four people, and a proposal."""
    write_governed(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert commands.main(["contract", "propose", "job.toml", "--dir", "bank"]) == 0
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = commands.main(["contract", *arguments])
    return code, *capsys.readouterr()


def approve_by_all(capsys: pytest.CaptureFixture[str], file: str = FILE) -> None:
    for _, name, _ in PEOPLE:
        assert run(capsys, "approve", file, "--as", name, "--key", f"{name}.key", "--yes")[0] == 0


def sign_by_all(capsys: pytest.CaptureFixture[str], file: str = FILE) -> None:
    for name in SIGNERS:
        assert run(capsys, "sign", file, "--dir", name, "--yes")[0] == 0


def test_a_proposal_that_all_approve_and_sign_verifies(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    approve_by_all(capsys)
    sign_by_all(capsys)
    code, out, _ = run(capsys, "verify", FILE)
    assert code == 0 and "bank: 2 of 2 approvals (2 approvers)" in out
    assert out.count(": approved") == 4 and "lacking" not in out
    facts = json.loads(run(capsys, "verify", FILE, "--dir", "bank", "--json")[1])
    assert facts["approvals"][1]["approved"] == ["cleo", "dan"]
    assert [d["decision"] for d in facts["decisions"]] == ["approval"] * 4 and facts["revoked"] == []


def test_nobody_signs_for_a_party_whose_people_have_not_approved(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "approve", FILE, "--as", "ann", "--key", "ann.key", "--yes")
    assert code == 0 and "lacking: bank: 1 of 2 approvals" in out
    code, _, err = run(capsys, "sign", FILE, "--dir", "bank", "--yes")
    assert code == 4 and "C18 approvals: bank: 1 of 2 approvals" in err
    assert run(capsys, "approve", FILE, "--as", "ben", "--key", "ben.key", "--yes")[0] == 0
    sign = ["sign", FILE, "--yes", "--dir"]
    assert run(capsys, *sign, "bank")[0] == 0 and run(capsys, *sign, "relay")[0] == 0
    assert run(capsys, *sign, "shop")[0] == 4


def test_a_signed_contract_with_one_approval_fewer_does_not_verify(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    approve_by_all(capsys)
    sign_by_all(capsys)
    (folder_beside(place / FILE) / "shop.dan.approval.dsse.json").unlink()
    code, out, err = run(capsys, "verify", FILE)
    assert (code, out) == (4, "") and "C18 approvals: shop: 1 of 2 approvals" in err


def test_a_denial_says_why_and_undoes_the_approval_of_that_person(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    approve_by_all(capsys)
    sign_by_all(capsys)
    reason = ["--reason", "the impact assessment is of last year"]
    code, out, _ = run(capsys, "deny", FILE, "--as", "dan", "--key", "dan.key", *reason)
    assert code == 0 and "shop/dan (compliance)" in out and "DENIED: the impact assessment" in out
    assert run(capsys, "verify", FILE)[0] == 4


def test_a_revoked_contract_neither_verifies_nor_is_approved_or_signed_again(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    approve_by_all(capsys)
    for name in ("bank", "shop"):
        assert run(capsys, "sign", FILE, "--dir", name, "--yes")[0] == 0
    why = ["--reason", "the campaign was called off", "--yes"]
    code, out, _ = run(capsys, "revoke", FILE, "--dir", "shop", *why)
    assert code == 0 and "REVOKED by shop" in out and "revocations/" in out
    assert (place / "shop" / "revocations" / f"{_digest(place)[:16]}.shop.dsse.json").exists()
    for command in (
        ["approve", FILE, "--as", "ann", "--key", "ann.key", "--yes"],
        ["sign", FILE, "--dir", "relay", "--yes"],
    ):
        code, _, err = run(capsys, *command)
        assert code == 4 and "rule revoked: shop" in err


def test_a_kept_revocation_counts_though_the_one_beside_the_file_is_gone(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    approve_by_all(capsys)
    sign_by_all(capsys)
    run(capsys, "revoke", FILE, "--dir", "shop", "--reason", "an end", "--yes")
    (folder_beside(place / FILE) / "shop.revocation.dsse.json").unlink()
    assert run(capsys, "verify", FILE, "--dir", "bank")[0] == 0  # nobody told the bank
    code, _, err = run(capsys, "verify", FILE, "--dir", "shop")
    assert code == 4 and "rule revoked: shop ended the contract" in err and "an end" in err


def test_an_amendment_names_what_it_amends_and_begins_without_approvals(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    approve_by_all(capsys)
    (place / "next.toml").write_text(GOVERNED.replace("max_runs", "").replace('"letters"', '"telephone"'))
    code, out, _ = run(capsys, "amend", FILE, "next.toml", "--dir", "bank")
    assert code == 0 and "spring-2.contract.toml, revision 2" in out
    new = read_contract(place / "spring-2.contract.toml").contract
    assert new.governance is not None and new.governance.recipients[0].use == "telephone"
    assert (new.governance.revision, new.governance.amends) == (2, _digest(place))
    code, _, err = run(capsys, "sign", "spring-2.contract.toml", "--dir", "bank", "--yes")
    assert code == 4 and "bank: 0 of 2 approvals" in err


def test_a_renewal_changes_dates_and_nothing_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = run(capsys, "renew", FILE, "--valid-days", "90")
    assert code == 0
    old, new = (read_contract(place / f).contract for f in (FILE, "spring-2.contract.toml"))
    assert (new.expires - new.created).days == 90 and new.created >= old.created
    assert old.governance is not None and new.governance is not None
    version = {"revision": 1, "amends": None}
    assert new.governance.model_copy(update=version) == old.governance
    same = {"created": old.created, "expires": old.expires, "governance": old.governance}
    assert new.model_copy(update=same) == old
    assert new.governance.amends == _digest(place)
    run(capsys, "renew", "spring-2.contract.toml")
    third = read_contract(place / "spring-3.contract.toml").contract
    assert (third.expires - third.created).days == 90


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["approve", FILE, "--as", "eve", "--key", "ann.key", "--yes"], 2, "no approver is called 'eve'"),
        (["approve", FILE, "--as", "ben", "--key", "ann.key", "--yes"], 4, "another key for bank/ben"),
        (["approve", FILE, "--as", "ann", "--party", "shop", "--key", "ann.key"], 2, "no approver is"),
        (["approve", FILE, "--as", "ann", "--key", "none.key", "--yes"], 2, "none.key: no such file"),
        (["approve", FILE, "--as", "ann", "--key", "open.key", "--yes"], 2, "others can open it"),
        (["approve", FILE, "--as", "ann", "--key", "bank/keys/identity.key"], 2, "no private key in PEM"),
        (["approve", FILE, "--as", "ann", "--key", "ann.key"], 2, "nobody is there to answer"),
        (["deny", FILE, "--as", "ann", "--key", "ann.key", "--reason", ""], 2, "1 to 200 printable"),
        (["deny", FILE, "--as", "ann", "--key", "ann.key", "--reason", "a\nb"], 2, "1 to 200 printable"),
        (["revoke", FILE, "--dir", "bank", "--reason", "x"], 2, "nobody is there to answer"),
        (["propose", "plain.toml", "--dir", "bank"], 2, "no section [governance]"),
        (["propose", "job.toml", "--dir", "bank"], 2, "exists already"),
        (["amend", FILE, "plain.toml", "--dir", "bank"], 2, "only a contract with terms of governance"),
        (["renew", FILE, "--valid-days", "0"], 2, "accepted: 1 to 3660"),
        (["approver-key", "ann"], 2, "ann.key: exists already"),
        (["approver-key", "x", "--encrypt"], 2, "nobody is there to type a passphrase"),
        (["approver-key", "x", "--passphrase-file", "empty"], 2, "passphrase: "),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    place: Path,
    arguments: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    (place / "plain.toml").write_text(GOVERNED.partition("[governance]")[0])
    (place / "open.key").write_bytes((place / "ann.key").read_bytes())
    (place / "open.key").chmod(0o644)
    (place / "empty").write_text("\n")
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "") and said in err
    assert not folder_beside(place / FILE).exists()


def test_a_key_is_private_and_a_passphrase_protects_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "phrase").write_text("correct horse\nmore\n")
    code, out, _ = run(capsys, "approver-key", "eva", "--passphrase-file", "phrase", "--json")
    facts = json.loads(out)
    data = (place / "eva.key").read_bytes()
    assert code == 0 and facts["encrypted"] and stat.S_IMODE((place / "eva.key").stat().st_mode) == 0o600
    assert data.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert from_pem(data, "correct horse").public.hex() == facts["key"]
    for wrong in ("correct", None):
        with pytest.raises(ValueError, match="passphrase"):
            from_pem(data, wrong)
    (place / "job.toml").write_text(
        GOVERNED.replace(PEOPLE["bank", "ann", "data-owner"].public.hex(), facts["key"])
    )
    assert run(capsys, "propose", "job.toml", "--dir", "bank", "--out", "eva.toml")[0] == 0
    approve = ["approve", "eva.toml", "--as", "ann", "--key", "eva.key", "--yes", "--passphrase-file"]
    assert run(capsys, *approve, "job.toml")[0] == 2
    code, out, _ = run(capsys, *approve, "phrase")
    assert code == 0 and "bank/ann (data-owner)" in out


def test_a_plain_key_is_printed_as_the_job_wants_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "approver-key", "eva")
    public = from_pem((place / "eva.key").read_bytes(), None).public.hex()
    assert code == 0 and f'key = "{public}"' in out
    assert (place / "eva.pub").read_text() == f'key = "{public}"\n'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{}", "an envelope has payload"),
        (b"x" * (LARGEST_STATEMENT + 1), "at most"),
        (b"", "Expecting value"),
    ],
)
def test_a_file_that_is_no_statement_is_named(
    place: Path, data: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_beside(place / FILE).mkdir()
    (folder_beside(place / FILE) / "bank.eve.approval.dsse.json").write_bytes(data)
    sign = ["sign", FILE, "--dir", "bank", "--yes"]
    code, _, err = run(capsys, *sign)
    assert code == 2 and "bank.eve.approval.dsse.json" in err and said in err


def test_an_approval_of_another_version_counts_for_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    approve_by_all(capsys)
    sign_by_all(capsys)
    run(capsys, "renew", FILE)
    new = place / "spring-2.contract.toml"
    folder_beside(new).mkdir()
    for path in folder_beside(place / FILE).iterdir():
        (folder_beside(new) / path.name).write_bytes(to_json(from_json(path.read_bytes())))
    code, _, err = run(capsys, "sign", new.name, "--dir", "bank", "--yes")
    assert code == 4 and "bank: 0 of 2 approvals" in err


def _digest(place: Path) -> str:
    return digest(read_contract(place / FILE).contract).hex()
