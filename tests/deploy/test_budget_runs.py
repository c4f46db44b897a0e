"""The budget of lists with drops and dummies, over runs in folders of organisations: spent, forgotten, put back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fedmkt.errors import AuditError, FedmktError
from fedmkt.party.store import Store
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.privacy.superset import epsilon
from fedmkt.protocol.budget_ledger import epsilon_together, read_entries
from tests.deploy.own_folders import Circle, circle

SHOWN = ("CampaignRows", "SetSize")
KINDS = [*(kind for kind in DEFAULT if kind not in SHOWN), "SupersetList", "LastingNames"]
LISTS = '\n[align]\nmatch = "hidden"\ndrop = 0.1\ndummies = 0.4\n'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Circle:
    """Three organisations after one run; for reading only."""
    found = circle(tmp_path_factory.mktemp("ran"), 1, LISTS, f"disclosures = {json.dumps(KINDS)}\n")
    found.run()
    return found


@pytest.fixture
def it(finished: Circle, tmp_path: Path) -> Circle:
    for name in ("bank", "partner", "coordinator"):
        shutil.copytree(finished.folder(name), tmp_path / name)
    return replace(finished, root=tmp_path)


def store_of(it: Circle) -> Store:
    return Store(it.folder("bank") / "state" / "store")


def test_a_store_whose_entry_was_removed_opens_no_run(it: Circle) -> None:
    ((run, _),) = read_entries(store_of(it))
    store_of(it).forget(f"listed/{run}")
    with pytest.raises(AuditError, match=f"says that run {run[:16]} took of it"):
        it.open("bank")


def test_a_folder_that_was_put_back_from_a_backup_is_noticed_by_those_who_signed_its_log(it: Circle) -> None:
    """Ledger and logs agree with each other then: the head that the partner signed is what tells."""
    shutil.copytree(it.folder("bank"), it.root / "backup")
    it.run(2)
    entries = [entry for _, entry in read_entries(store_of(it))]
    assert len(entries) == 2 and epsilon_together(entries) == pytest.approx(epsilon(0.1, 0.4)), (
        "the same list"
    )
    shutil.rmtree(it.folder("bank"))
    (it.root / "backup").rename(it.folder("bank"))
    it.open("bank").release()
    with pytest.raises(FedmktError, match="bank refused at opening"):
        it.run(3)
    assert len(list(read_entries(store_of(it)))) == 1
