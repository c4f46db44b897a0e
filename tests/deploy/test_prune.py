import json
from datetime import timedelta

import pytest

from fedmkt.audit.checkpoint import log_origin
from fedmkt.audit.own_log import verify_own
from fedmkt.cli.app import main
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import to_toml
from fedmkt.deploy.folders import PartyFolder
from fedmkt.deploy.prune import prune
from fedmkt.errors import AuditError
from fedmkt.party.audit_log import AuditLog
from fedmkt.party.journal import write_atomically
from tests.audit.conftest import IDENTITIES, NAMES, START, make_contract
from tests.contract.agreed import governance

LATER = START + timedelta(days=50)


@pytest.fixture(params=[30, None], ids=["30 days", "nothing agreed"])
def days(request):
    return request.param


@pytest.fixture
def folder(tmp_path, days):
    """A bank's folder with one contract: two runs of four records, 40 days apart, below a head."""
    countries = dict.fromkeys(NAMES, "CN")
    terms = governance(locations=countries, retention={"record_days": days}) if days else None
    signed, now = make_contract(terms), [START]
    place, root = PartyFolder(tmp_path), tmp_path / "state" / "contracts" / "spring-1"
    write_atomically(place.identity, IDENTITIES["bank"].secret_bytes())
    write_atomically(root / "contract.toml", to_toml(signed).encode())
    agreed = digest(signed.contract)
    origin = log_origin(agreed, "bank")
    log = AuditLog(root / "log", origin, IDENTITIES["bank"], lambda: now[0], "", "bank", agreed)
    for run in ("run1", "run2"):
        log.run = run
        log.append_all([("step.completed", {"index": i}) for i in range(4)])
        now[0] += timedelta(days=40)
    log.head()
    log.release()
    return place


def files_of(folder):
    (root,) = (folder.root / "state" / "contracts").iterdir()
    return {path.name: path.read_bytes() for path in [*root.glob("*.toml"), *(root / "log").iterdir()]}


def test_only_what_the_contract_keeps_no_longer_is_removed(folder, days):
    (done,) = prune(folder, lambda: LATER)
    assert (done.contract, done.records) == ("spring-1", 4 if days else 0)
    report = verify_own(files_of(folder))
    assert (report.records, report.pruned, report.signed) == ((9, 4, 8) if days else (8, 0, 8))
    assert [item.records for item in prune(folder, lambda: LATER)] == [0]


def test_the_command_asks_first(folder, days, capsys):
    before = files_of(folder)
    assert main(["audit", "prune", "--dir", str(folder.root)]) == 2
    assert files_of(folder) == before
    capsys.readouterr()
    assert main(["audit", "prune", "--dir", str(folder.root), "--yes", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["pruned"]) == ["spring-1"]


def test_another_organisations_folder_is_refused(folder):
    folder.identity.unlink()
    write_atomically(folder.identity, bytes([9]) * 32)
    with pytest.raises(AuditError, match="none of its signers has the key"):
        prune(folder, lambda: LATER)
