import json

import pytest

from fedmkt.audit.own_log import verify_own
from fedmkt.cli.app import main
from fedmkt.deploy.prune import prune
from fedmkt.errors import AuditError
from fedmkt.party.journal import write_atomically
from tests.deploy.logged_folder import LATER, files_of, logged_folder


@pytest.fixture(params=[30, None], ids=["30 days", "nothing agreed"])
def days(request):
    return request.param


@pytest.fixture
def folder(tmp_path, days):
    return logged_folder(tmp_path, days)


def test_only_what_the_contract_keeps_no_longer_is_removed(folder, days):
    (done,) = prune(folder, 30, lambda: LATER)
    assert (done.contract, done.records) == ("spring-1", 4 if days else 0)
    report = verify_own(files_of(folder))
    assert (report.records, report.pruned, report.signed) == ((9, 4, 8) if days else (8, 0, 8))
    assert [item.records for item in prune(folder, 30, lambda: LATER)] == [0]


def test_what_the_own_policy_keeps_longer_stays_longer(folder, days):
    assert [item.records for item in prune(folder, 1096, lambda: LATER)] == [0]
    assert [item.records for item in prune(folder, 48, lambda: LATER)] == [4 if days else 0]
    assert verify_own(files_of(folder)).pruned == (4 if days else 0)


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
        prune(folder, 30, lambda: LATER)
