"""What `fedmkt expire` leaves alone, what it removes of logs that go on, and what a kill leaves behind."""

import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from fedmkt.audit.acts import Actor
from fedmkt.audit.own_log import verify_own
from fedmkt.cli.app import main
from fedmkt.config.policy import PolicyConfig
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import to_toml
from fedmkt.deploy import expire as module
from fedmkt.deploy.expire import Expired, expire
from fedmkt.deploy.folders import CoordinatorFolder
from fedmkt.deploy.runs import RunFolder, RunStatus
from fedmkt.errors import AuditError
from fedmkt.party.acts_log import ActsLog
from fedmkt.party.release import Retention, retention_of, write_expiry
from fedmkt.party.store import Store
from fedmkt.report.folder import read_contract
from tests.audit.conftest import NAMES, START, make_contract
from tests.contract.agreed import governance
from tests.deploy.logged_folder import LATER, files_of, logged_folder

ANN = Actor("ann", "account", "password", ("operator",))


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    return logged_folder(tmp_path, 30)


def place_of(folder: CoordinatorFolder) -> Path:
    return folder.state / "contracts" / "spring-1"


def at(folder: CoordinatorFolder, day: datetime, dry_run: bool = False) -> Expired:
    return expire(folder, ANN, dry_run, lambda: day)


def age(path: Path, day: datetime) -> None:
    """Let a file, or all of a folder, be of a day."""
    for one in [*path.rglob("*"), path]:
        os.utime(one, (day.timestamp(), day.timestamp()), follow_symlinks=False)


def acts(folder: CoordinatorFolder) -> list[tuple[str, object]]:
    chain = ActsLog(folder.state, lambda: LATER).chain()
    return [(a.type, a.body.get("kind")) for a in chain.acts]


def results(folder: CoordinatorFolder, name: str = "model") -> Path:
    """Put results into the contract's folder whose time was over long ago."""
    model = place_of(folder) / name
    model.mkdir()
    (model / "share.npy").write_bytes(b"share")
    (model / "people.key").write_bytes(b"k" * 32)
    write_expiry(model / "expires.json", "ab" * 32, date(2020, 1, 1), Retention(1, 1, 1))
    return model


def test_both_the_contract_and_the_policy_hold() -> None:
    """What is allowed ends with the earlier of the two, what is demanded with the later."""
    terms = {"result_days": 90, "record_days": 2000, "transport_days": 200}
    signed = make_contract(governance(locations=dict.fromkeys(NAMES, "CN"), retention=terms)).contract
    own = PolicyConfig(result_days=60, record_days=1500, transport_days=300)
    assert retention_of(signed, own) == Retention(60, 2000, 300)
    own = PolicyConfig(result_days=100, record_days=2500, transport_days=100)
    assert retention_of(signed, own) == Retention(90, 2500, 200)
    own = PolicyConfig(result_days=7, record_days=8, transport_days=9)
    assert retention_of(make_contract(None).contract, own) == Retention(7, 8, 9)


def test_the_first_runs_of_a_log_that_goes_on_are_removed_counted_and_written_down(
    folder: CoordinatorFolder,
) -> None:
    before = files_of(folder)
    tried = at(folder, LATER, dry_run=True)
    assert [(p.contract, p.records) for p in tried.records] == [("spring-1", 4)]
    assert "would delete 4 records: log of spring-1; hashes stay" in tried.lines()
    assert files_of(folder) == before and acts(folder) == []
    done = at(folder, LATER)
    assert [p.records for p in done.records] == [4] and verify_own(files_of(folder)).pruned == 4
    chain = ActsLog(folder.state, lambda: LATER).chain().acts
    assert [(a.type, a.body["records"]) for a in chain] == [("retention.expired", 4), ("erasure.executed", 4)]
    assert at(folder, LATER).count == 0


def test_removing_records_does_not_make_the_rest_stay_longer(folder: CoordinatorFolder) -> None:
    age(place_of(folder), START)
    (before,) = (item.until for item in at(folder, LATER, dry_run=True).kept)
    at(folder, LATER)
    (after,) = (item.until for item in at(folder, LATER, dry_run=True).kept)
    assert before == after


def test_nothing_of_a_contract_goes_while_a_run_of_it_is_open(folder: CoordinatorFolder) -> None:
    model, before = results(folder), files_of(folder)
    running = Store(folder.state / "store")
    running.hold(digest(read_contract(place_of(folder))).hex())
    done = at(folder, LATER)
    assert done.in_use == ("spring-1",) and done.count == 0 and model.exists() and files_of(folder) == before
    assert "left alone, a run of it is open: spring-1" in done.lines()
    running.release()
    assert at(folder, LATER).count == 2 and not model.exists()


def test_a_party_that_is_open_and_has_not_begun_is_in_use_too(folder: CoordinatorFolder) -> None:
    import fcntl

    model = results(folder)
    with (place_of(folder) / "log" / "log.jsonl").open("rb") as log:
        fcntl.flock(log, fcntl.LOCK_SH)
        assert at(folder, LATER).in_use == ("spring-1",) and model.exists()
    assert at(folder, LATER).in_use == () and not model.exists()


@pytest.mark.parametrize("what", ["model", "journal", "spring-1"])
def test_a_kill_in_the_middle_of_a_deletion_is_finished_the_next_time(
    folder: CoordinatorFolder, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = START + timedelta(days=40_000) if what == "spring-1" else LATER
    if what == "model":
        results(folder)
    if what == "journal":
        (place_of(folder) / "journal").mkdir()
        (place_of(folder) / "journal" / "00000001.sealed").write_bytes(b"sealed")
        (place_of(folder) / "journal.key").write_bytes(b"k" * 32)
        age(place_of(folder), datetime(2020, 1, 1, tzinfo=UTC))

    def killed(path: Path) -> None:
        next(path.rglob("*")).touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        at(folder, day)
    left = list(folder.state.rglob("*.expired"))
    assert len(left) == 1
    assert not any(p.read_bytes() == b"k" * 32 for p in folder.state.rglob("*.key"))
    monkeypatch.undo()
    at(folder, day)
    assert not list(folder.state.rglob("*.expired")) and not list(folder.state.rglob("*.sealed"))


def test_a_link_in_the_place_of_results_is_not_followed_and_keeps_nothing_else_here(
    folder: CoordinatorFolder, tmp_path: Path
) -> None:
    target = results(folder)
    elsewhere = tmp_path / "elsewhere"
    target.rename(elsewhere)
    target.symlink_to(elsewhere)
    other = results(folder, "model-old")
    (other / "inside").symlink_to(elsewhere)
    with pytest.raises(AuditError, match=r"model: a link, which is not followed"):
        at(folder, LATER)
    assert (elsewhere / "people.key").read_bytes() == b"k" * 32 and (elsewhere / "share.npy").exists()
    assert not other.exists() and verify_own(files_of(folder)).pruned == 4


def test_a_coordinators_folders_of_runs_are_records(folder: CoordinatorFolder) -> None:
    signed = make_contract(None)
    run = RunFolder(folder.runs / "spring-1")
    run.root.mkdir(parents=True)
    run.contract.write_text(to_toml(signed))
    run.write(RunStatus(run.name, digest(signed.contract).hex(), "done"))
    day = max(datetime.now(UTC), signed.contract.expires) + timedelta(days=30)
    at(folder, day - timedelta(days=2))
    assert run.root.exists()
    at(folder, day)
    assert not run.root.exists() and ("erasure.executed", "records") in acts(folder)


def test_logs_of_programs_stay_as_long_as_any_contract_here_asks_for(folder: CoordinatorFolder) -> None:
    folder.logs.mkdir()
    (folder.logs / "hub.log").write_text("x")
    age(folder.logs, START)
    policy = folder.config.read_text() + "\ntransport_days = 10\n"
    folder.config.write_text(policy)
    asked = governance(locations=dict.fromkeys(NAMES, "CN")).retention.transport_days
    assert [i for i in at(folder, START + timedelta(days=asked - 1)).gone if i.kind == "program logs"] == []
    folder.config.write_text(policy.replace("transport_days = 10", f"transport_days = {asked + 50}"))
    assert [i for i in at(folder, START + timedelta(days=asked + 1)).gone if i.kind == "program logs"] == []
    folder.config.write_text(policy)
    assert [i.what for i in at(folder, START + timedelta(days=asked)).gone] == ["hub.log"]


def test_the_command_works_in_a_coordinators_folder(
    folder: CoordinatorFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["expire", "--yes", "--json", "--dir", str(folder.root)]) == 0
    assert json.loads(capsys.readouterr().out)["dry_run"] is False
