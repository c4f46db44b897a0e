"""The pack of logs from which records were removed when their time was over."""

from datetime import timedelta
from pathlib import Path

import pytest

from fedmkt import sbom
from fedmkt.audit.own_log import verify_own
from fedmkt.audit.verify_proof import verify_proof
from fedmkt.errors import AuditError
from fedmkt.evidence.pack import make_pack, verify_pack
from fedmkt.evidence.seal import seal
from tests.audit.conftest import (
    IDENTITIES,
    NAMES,
    START,
    cosign_all,
    files_of,
    make_contract,
    open_logs,
    play,
)
from tests.evidence.offline import EVENTS, terms


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A contract's second run; the bank has removed its records of the first one, the others have not."""
    folder, now = tmp_path / "run", [START]
    folder.mkdir()
    logs = open_logs(folder, make_contract(terms(retention={"record_days": 30})), lambda: now[0])
    for name in ("run1", "run2"):
        play(logs, name, EVENTS)
        cosign_all(logs)
        now[0] = START + timedelta(days=100)
    logs["bank"].prune(len(EVENTS["bank"]), 30)
    files_of(folder, logs)
    return folder


@pytest.fixture(autouse=True)
def materials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbom, "installed", lambda: (sbom.Component("fedmkt", "1"), []))


def test_a_pack_of_pruned_logs_verifies_and_every_proof_stands_alone(run: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    make_pack(run, pack, "bank", IDENTITIES["bank"])
    found = verify_pack(pack)
    assert found.proofs == 4
    assert "  expired: records 0 to 4 were removed, their hashes verify" in found.logs
    assert (pack / "run/logs/bank/pruned.hashes").stat().st_size == 5 * 32
    contract = (pack / "run/contract.toml").read_bytes()
    reports = [verify_proof(contract, p.read_bytes()) for p in sorted((pack / "proofs").iterdir())]
    assert [(r.party, r.index, r.signed) for r in reports] == [
        ("bank", 7, 10), ("bank", 9, 10), ("coordinator", 5, 6), ("shop", 7, 8),
    ]  # fmt: skip
    assert [set(r.cosigners) for r in reports] == [set(NAMES) - {r.party} for r in reports]


def test_a_pack_of_the_one_pruned_log_of_an_organisation_verifies(run: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (run / "logs" / "bank").rename(own / "log")
    (run / "contract.toml").rename(own / "contract.toml")
    make_pack(own, tmp_path / "pack", "bank", IDENTITIES["bank"])
    files = {p.name: p.read_bytes() for p in (own / "log").iterdir()}
    assert verify_own({**files, "contract.toml": (own / "contract.toml").read_bytes()}).pruned == 5
    assert verify_pack(tmp_path / "pack").proofs == 2


def test_a_hash_that_was_exchanged_in_a_pack_of_pruned_logs_is_found(run: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    make_pack(run, pack, "bank", IDENTITIES["bank"])
    path = pack / "run/logs/bank/pruned.hashes"
    path.write_bytes(path.read_bytes()[:64] + bytes(32) + path.read_bytes()[96:])
    (pack / "manifest.json").unlink()
    (pack / "manifest.dsse.json").unlink()
    sealed_run, agreed = "run2", (pack / "run/logs/bank/checkpoint.txt").read_text().split("/")[1]
    seal(pack, "bank", IDENTITIES["bank"], sealed_run, agreed)
    with pytest.raises(AuditError, match="not the root of the first 10 of these 11 records of bank"):
        verify_pack(pack)
