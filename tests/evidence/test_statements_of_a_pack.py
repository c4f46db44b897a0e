"""Who approved, counted n of m, and the life of the contract, on the page and in the drafts of a pack."""

import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from fedmkt import sbom
from fedmkt.audit import statements
from fedmkt.audit.statements import Statement
from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import approval, denial, revocation
from fedmkt.contract.canonical import digest
from fedmkt.crypto.dsse import Envelope, to_json
from fedmkt.crypto.sign import Identity
from fedmkt.evidence.document import Language
from fedmkt.evidence.pack import make_pack, verify_pack
from tests.audit.conftest import IDENTITIES, NAMES, START, make_contract
from tests.contract.agreed import APPROVERS
from tests.evidence.offline import contract_of, play_run, terms

PEOPLE = {(a.party, a.role): a for a in terms().approvers}
LATER = START + timedelta(minutes=5)


@pytest.fixture(autouse=True)
def materials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbom, "installed", lambda: (sbom.Component("fedmkt", "1"), []))


@pytest.fixture
def agreed() -> Contract:
    return make_contract(terms()).contract


def signed(statement: Statement, key: Identity) -> Envelope:
    return statements.sign(statement, key)


def approves(agreed: Contract, party: str, role: str, key: Identity | None = None) -> Envelope:
    said = approval(agreed, PEOPLE[party, role], START)
    return signed(said, key or APPROVERS[party, role])


def page(run: Path, language: Language = "en") -> str:
    out = run.parent / f"pack-{language}"
    make_pack(run, out, "bank", IDENTITIES["bank"], language)
    verify_pack(out)
    return re.sub(r"\s+", " ", (out / "index.html").read_text())


def row(text: str, first: str) -> str:
    """Give the cells of the first row of a table that begins with this cell."""
    found = re.search(rf"<tr><td[^>]*>{re.escape(first)}</td>(.*?)</tr>", text)
    assert found is not None, first
    return " | ".join(re.sub("<[^>]+>", "", cell).strip() for cell in found[1].split("</td>")[:-1])


def test_approvals_are_counted_by_party(tmp_path: Path, agreed: Contract) -> None:
    given = [approves(agreed, *who) for who in APPROVERS if who != ("shop", "compliance")]
    run = play_run(tmp_path / "run", given)
    text = page(run)
    owner, second = (PEOPLE["bank", role].name for role in ("data-owner", "compliance"))
    assert row(text, "bank") == f"2 of 2 needed, of 2 approvers | {owner}, {second} | –"
    assert row(text, "shop").endswith("| shop: 1 of 2 approvals")
    assert text.count("<td>approved</td>") == 3
    record = (tmp_path / "pack-en/drafts/pipl-56-handling-record.md").read_text()
    assert "shop: 1 of 2 approvals needed" in record
    assert "已批准 1 人，需 2 人" in page(run, "zh")


def test_statements_that_stand_in_logs_alone_are_counted(tmp_path: Path, agreed: Contract) -> None:
    run = play_run(tmp_path / "run", [approves(agreed, *who) for who in APPROVERS])
    shutil.rmtree(run / "approvals")
    text = page(run)
    assert row(text, "shop").startswith("2 of 2 needed, of 2 approvers")
    assert "log of bank, record 2" in text


def test_a_statement_that_does_not_count_is_shown_as_such(tmp_path: Path, agreed: Contract) -> None:
    other = make_contract(terms(max_size_runs=3)).contract
    assert digest(other) != digest(agreed)
    forged = [
        approves(other, "bank", "compliance"),  # of another contract
        approves(agreed, "shop", "compliance", IDENTITIES["shop"]),  # the party in place of the person
        signed(revocation(agreed, "bank", START, "by a person"), APPROVERS["bank", "compliance"]),
        signed(
            Statement("approval", {"contract": digest(agreed).hex()}, {"by": "<b>bank</b>"}),
            IDENTITIES["bank"],
        ),
        approves(agreed, "shop", "data-owner", Identity(b"\x09" * 32)),
    ]
    text = page(play_run(tmp_path / "run", [approves(agreed, "bank", "data-owner")], forged))
    assert text.count("does not count") == len(forged)
    assert row(text, "bank").startswith("1 of 2 needed") and row(text, "shop").startswith("0 of 2 needed")
    assert "by a person" not in text and "<b>" not in text.split("<main>")[1].replace("<b>fedmkt</b>", "")


def test_a_life_of_a_contract_is_told_in_its_order(tmp_path: Path) -> None:
    old = make_contract(terms()).contract
    amended = terms(revision=2, amends=digest(old).hex())
    agreed = make_contract(amended).contract
    given = [
        approves(agreed, "bank", "data-owner"),
        signed(
            denial(agreed, PEOPLE["shop", "compliance"], LATER, "too wide"), APPROVERS["shop", "compliance"]
        ),
    ]
    ended = signed(revocation(agreed, "shop", LATER + timedelta(days=1), "sold"), IDENTITIES["shop"])
    run = play_run(tmp_path / "run", given, [ended], amended)
    text = page(run)
    told = [
        re.sub("<[^>]+>", "", cells).strip()
        for cells in re.findall(r"<tr><td>20.*?</td><td>(.*?)</td>", text)
    ]
    places = [next(i for i, line in enumerate(told) if part in line) for part in (
        f"drafted, revision 2, amends {digest(old).hex()}", 
        "signed by all; put into the logs of bank, shop, coordinator",
        "run run1 began", "run run1: completed", "denied: ", "revoked: shop: sold", "ends by its own terms",
    )]  # fmt: skip
    assert places == sorted(places)
    assert "too wide" in row(text, "denied")
    said = page(run, "zh")
    assert f"取代 {digest(old).hex()}" in said and "撤销：shop：sold" in said and "按约定到期" in said


def test_a_run_without_statements_says_whom_to_ask(tmp_path: Path) -> None:
    run = play_run(tmp_path / "run")
    assert "No signed statement lies beside the contract" in page(run)
    assert contract_of(run).governance is not None
    assert {name for name in NAMES} == {"bank", "coordinator", "shop"}


def test_a_file_that_is_no_statement_is_named(tmp_path: Path, agreed: Contract) -> None:
    from fedmkt.errors import AuditError

    run = play_run(tmp_path / "run", [approves(agreed, "bank", "data-owner")])
    (run / "approvals" / "x.dsse.json").write_bytes(to_json(approves(agreed, "bank", "data-owner"))[:-9])
    with pytest.raises(AuditError, match=r"x\.dsse\.json"):
        make_pack(run, tmp_path / "pack", "bank", IDENTITIES["bank"])
