"""What the contract's auditor states of the dealer, in a pack."""

from pathlib import Path

import pytest

from fedmkt import sbom
from fedmkt.audit import statements
from fedmkt.audit.statements import Statement
from fedmkt.contract.agreement import AuditorTerms
from fedmkt.contract.canonical import digest
from fedmkt.crypto.dsse import to_json
from fedmkt.crypto.sign import Identity
from fedmkt.errors import AuditError
from fedmkt.evidence.pack import make_pack, verify_pack
from fedmkt.report.deals import statement_file
from tests.audit.conftest import IDENTITIES
from tests.evidence.offline import contract_of, play_run

KEY = Identity(b"\x55" * 32)
AUDITOR = AuditorTerms(name="auditor", organisation="Trusted Audit", key=KEY.public.hex(), seal_key="77" * 32)


@pytest.fixture(autouse=True)
def materials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbom, "installed", lambda: (sbom.Component("fedmkt", "1"), []))


def state(run: Path, name: str = "run1", outcome: str = "right", key: Identity = KEY) -> None:
    """Write the statement of an auditor about a run."""
    subject = {"contract": digest(contract_of(run)).hex(), "receipts": "ab" * 32}
    predicate = {
        "run": name, "auditor": "auditor", "outcome": outcome, "wrong": "" if outcome == "right" else "message 7",
        "messages": 12, "bytes": 99, "lost": 0, "epochs": 1,
    }  # fmt: skip
    path = statement_file(run, "run1")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(to_json(statements.sign(Statement("deals", subject, predicate), key)))


def page(run: Path) -> str:
    out = run.parent / f"pack-{len(list(run.parent.iterdir()))}"
    make_pack(run, out, "bank", IDENTITIES["bank"])
    verify_pack(out)
    assert (out / "run/deals/run1.dsse.json").exists() == statement_file(run, "run1").exists()
    return (out / "index.html").read_text()


def test_the_auditors_statement_is_in_the_pack_and_without_it_the_page_says_whom_to_ask(
    tmp_path: Path,
) -> None:
    run = play_run(tmp_path / "run", auditor=AUDITOR)
    assert "no statement of the auditor is in this folder; ask Trusted Audit" in page(run)
    state(run)
    assert "every message of the dealer was right" in page(run)
    state(run, outcome="wrong")
    assert "a message of the dealer was WRONG: message 7" in page(run)


def test_a_statement_of_somebody_else_or_of_another_run_is_refused(tmp_path: Path) -> None:
    run = play_run(tmp_path / "run", auditor=AUDITOR)
    for name, key, why in (
        ("run1", IDENTITIES["bank"], "0 valid signatures"),
        ("run2", KEY, "of another run"),
    ):
        state(run, name, key=key)
        with pytest.raises(AuditError, match=why):
            make_pack(run, tmp_path / "pack", "bank", IDENTITIES["bank"])


def test_a_contract_without_an_auditor_has_no_such_part(tmp_path: Path) -> None:
    assert "Audit of the dealer" not in page(play_run(tmp_path / "run"))
