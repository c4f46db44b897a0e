"""Withdrawal, opt-out at scoring and the end of retention, in folders of organisations that ran a job."""

import contextlib
import csv
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmkt
from fedmkt.audit.acts import Actor
from fedmkt.cli.app import main
from fedmkt.config.tables import PartnerConfig
from fedmkt.contract.words import comparable
from fedmkt.deploy.expire import expire
from fedmkt.deploy.folders import PartyFolder, load_party_folder
from fedmkt.deploy.rights import read_rights, withdraw, withdrawals_of
from fedmkt.errors import ConfigError, DataError
from fedmkt.party import outputs
from fedmkt.party.acts_log import ActsLog
from fedmkt.party.node import open_data
from fedmkt.party.release import read_expiry
from fedmkt.party.store import Store
from fedmkt.privacy.noise import epsilon_of
from fedmkt.protocol.core import Name
from fedmkt.protocol.pipeline import main_job
from fedmkt.transport.driver import Coordinator
from fedmkt.transport.memory import MemoryEndpoint
from tests.deploy.own_folders import Circle, circle

ANN = Actor("ann", "account", "password", ("operator",))
NOW = datetime(2031, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Circle:
    """Three organisations after one run; for reading only."""
    found = circle(tmp_path_factory.mktemp("ran"))
    found.run()
    return found


@pytest.fixture
def copied(finished: Circle, tmp_path: Path) -> Circle:
    for name in ("bank", "partner", "coordinator"):
        shutil.copytree(finished.folder(name), tmp_path / name)
    return replace(finished, root=tmp_path)


def ids_of(it: Circle, name: str) -> list[str]:
    """Read the ids of a party's file as they are written there; the file lies with the first copy."""
    party = it.job.party(name)
    schema = PartyFolder(it.folder(name)).schema.read_text()
    file = next(json.loads(line.partition("=")[2]) for line in schema.splitlines() if line.startswith("file"))
    with Path(file).open(newline="") as rows:
        return [row[party.id] for row in csv.DictReader(rows)]


def table_of(folder: PartyFolder) -> tuple[PartnerConfig, Path]:
    config, table = load_party_folder(folder)
    return table, folder.root / config.node.data


def test_a_withdrawn_customer_loses_the_score_and_flags_the_model(copied: Circle) -> None:
    bank = PartyFolder(copied.folder("bank"))
    before = len(fedmkt.score(bank.root).read_text().splitlines())
    ids = ids_of(copied, "bank")
    stored = np.load(copied.own("bank") / "model" / "scores.npz")
    scored = ids[int(stored["file_rows"][0]) - 2]
    assert withdraw(bank, [scored], None, ANN, lambda: NOW).new == 1
    (state,) = read_rights(bank).models
    assert (state.trained, state.scored) == (0, 1) and not state.is_flagged
    assert [path.name for path in state.stale] == ["scores.csv"]
    lines = fedmkt.score(bank.root).read_text().splitlines()
    assert len(lines) == before - 1
    assert str(int(stored["file_rows"][0])) not in {line.split(",")[0] for line in lines[1:]}
    assert read_rights(bank).models[0].stale == ()
    everybody = [one for one in open_data(*table_of(bank)).ids if one is not None]
    taken = withdraw(bank, everybody, None, ANN, lambda: NOW)
    assert taken.known == 1 and taken.new == len(everybody) - 1
    (state,) = read_rights(bank).models
    train = len(np.load(copied.own("bank") / "model" / "train.npy"))
    assert state.trained == train and state.first == state.last == NOW.date() and state.is_flagged
    assert state.run == json.loads((copied.own("bank") / "model" / "model.json").read_text())["run"]


def test_the_list_keeps_no_id_and_is_for_its_owner_only(copied: Circle) -> None:
    bank = PartyFolder(copied.folder("bank"))
    ids = ids_of(copied, "bank")[:20]
    withdraw(bank, ids, None, ANN, lambda: NOW)
    digits = {one.strip().lstrip("+").removeprefix("86")[-8:].encode() for one in ids}
    for path in [p for p in bank.state.rglob("*") if p.is_file()]:
        assert not [one for one in digits if len(one) == 8 and one in path.read_bytes()], path
        assert path.stat().st_mode & 0o077 == 0 or path.suffix == ".lock"
    again = withdraw(bank, ids, None, ANN, lambda: NOW + timedelta(days=9))
    assert again.new == 0 and {e.since for e in withdrawals_of(bank).entries()} == {NOW.date()}


def test_an_id_that_cannot_be_read_changes_nothing_and_is_not_repeated(copied: Circle) -> None:
    bank = PartyFolder(copied.folder("bank"))
    with pytest.raises(DataError, match="id 2 of 2: no valid") as caught:
        withdraw(bank, [ids_of(copied, "bank")[0], "nobody-7"], None, ANN)
    assert "nobody-7" not in str(caught.value) and not withdrawals_of(bank).entries()
    with pytest.raises(ConfigError, match="one of the two"):
        withdraw(bank, [], None, ANN)


def test_who_withdrew_is_out_of_the_next_run_and_the_log_says_how_many(copied: Circle) -> None:
    partner = PartyFolder(copied.folder("partner"))
    rows = len(ids_of(copied, "partner"))
    withdraw(partner, ids_of(copied, "partner")[:150], None, ANN)
    again = copied.open("partner")
    try:
        people = [len(s.ids) for s in again._local.values() if hasattr(s, "ids")]
        assert people[0] <= rows - 140
    finally:
        again.release()


def test_opt_out_that_came_after_training_is_asked_again_at_scoring(copied: Circle) -> None:
    bank = PartyFolder(copied.folder("bank"))
    column = copied.job.bank.id
    before = len(fedmkt.score(bank.root).read_text().splitlines())
    stored = np.load(copied.own("bank") / "model" / "scores.npz")
    chosen = [ids_of(copied, "bank")[int(row) - 2] for row in stored["file_rows"][:3]]
    (bank.root / "out.csv").write_text("\n".join([column, *chosen]) + "\n")
    bank.schema.write_text(bank.schema.read_text() + f'opt_out = "{bank.root / "out.csv"}"\n')
    assert len(fedmkt.score(bank.root).read_text().splitlines()) == before - 3
    (bank.root / "out.csv").unlink()
    with pytest.raises(ConfigError, match="no such file"):
        fedmkt.score(bank.root)


def test_results_go_on_their_day_and_records_stay_for_theirs(copied: Circle) -> None:
    bank = PartyFolder(copied.folder("bank"))
    model = copied.own("bank") / "model"
    ended = read_expiry(model / "expires.json").ended

    def on(days: int) -> datetime:
        return datetime.combine(ended + timedelta(days=days), datetime.min.time(), UTC)

    assert expire(bank, ANN, clock=lambda: on(179)).gone == ()
    tried = expire(bank, ANN, dry_run=True, clock=lambda: on(180))
    assert [item.kind for item in tried.gone] == ["results"] and model.exists()
    assert any("withdrawal list" in line for line in tried.lines())
    expire(bank, ANN, clock=lambda: on(180))
    assert not model.exists() and (copied.own("bank") / "log").exists()
    acts = ActsLog(bank.state, lambda: NOW).chain().acts
    assert [a.type for a in acts] == ["retention.expired", "erasure.executed"]
    assert acts[1].body["files"] >= 10 and acts[1].body["bytes"] > 0
    place = copied.own("bank")
    valid = (copied.signed.contract.expires.date() - ended).days
    assert expire(bank, ANN, clock=lambda: on(valid + 1095)).gone == ()
    (records,) = expire(bank, ANN, clock=lambda: on(valid + 1096)).gone
    assert records.kind == "records" and not place.exists()
    assert (bank.state / "store").exists(), "budgets and withdrawals outlive everything"


def test_the_commands_say_what_they_do_in_80_columns(
    copied: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(copied.folder("bank"))
    assert main(["withdraw", ids_of(copied, "bank")[0], "--dir", root]) == 0
    assert main(["withdraw", "--list", "--dir", root]) == 0
    assert main(["expire", "--dry-run", "--dir", root]) == 0
    said = capsys.readouterr().out
    assert "withdrawn: 1 ids" in said and "nothing is over" in said and "not reached: backups" in said
    acts = ActsLog(PartyFolder(Path(root)).state, lambda: NOW).chain().acts
    assert [a.type for a in acts] == ["act.begun", "consent.withdrawn", "erasure.requested", "act.ended"]


def run_while(it: Circle, between: Callable[[], None]) -> None:
    """Run the job once more; `between` happens when all have opened their tables."""
    with contextlib.ExitStack() as stack:
        endpoints = {}
        for signer in it.signed.contract.signers:
            endpoints[Name(signer.name)] = MemoryEndpoint(it.open(signer.name))
            stack.callback(endpoints[Name(signer.name)].close)
        between()
        Coordinator(it.signed.contract, main_job, endpoints, it.root / "receipts-again").run()


def logged(it: Circle, name: str, event: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (it.own(name) / "log" / "log.jsonl").read_text().splitlines()]
    return [r["body"] for r in records if r["type"] == event]


def test_who_leaves_while_a_run_is_under_way_gets_no_score_and_flags_its_model(
    copied: Circle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opt-out and withdrawal are asked again when scores are written; the log has numbers only.

    Whoever withdraws just then waits until they are written, and is noted in them.
    """
    bank, column = PartyFolder(copied.folder("bank")), copied.job.bank.id
    stored = np.load(copied.own("bank") / "model" / "scores.npz")
    lines = [int(row) for row in stored["file_rows"]]
    ids = ids_of(copied, "bank")
    out = bank.root / "out.csv"
    out.write_text(column + "\n")
    bank.schema.write_text(bank.schema.read_text() + f'opt_out = "{out}"\n')
    train = np.load(copied.own("bank") / "model" / "train.npy")
    people = open_data(*table_of(bank)).ids
    trained = str(people[int(train[0])])

    def leave() -> None:
        out.write_text("\n".join([column, *(ids[line - 2] for line in lines[:40])]) + "\n")
        withdraw(bank, [*(ids[line - 2] for line in lines[40:60]), trained], None, ANN, lambda: NOW)

    late = threading.Thread(target=lambda: withdraw(bank, [ids[lines[60] - 2]], None, ANN, lambda: NOW))
    write = outputs._write_scores

    def write_slowly(*given: Any) -> Any:
        late.start()
        late.join(0.5)
        assert late.is_alive(), "it must wait"
        return write(*given)

    monkeypatch.setattr(outputs, "_write_scores", write_slowly)
    run_while(copied, leave)
    late.join(20)
    after = np.load(copied.own("bank") / "model" / "scores.npz")
    assert not set(after["file_rows"].tolist()) & set(lines[:60]) and len(after["file_rows"]) > 50
    assert all(len(after[name]) == len(after["file_rows"]) for name in ("rows", "units", "label", "held_out"))
    told = [logged(copied, "bank", event) for event in ("consent.withdrawn", "optout.applied")]
    salts = [body.pop("salt") for bodies in told for body in bodies]
    assert len(set(salts)) == len(salts) > 2 and all(len(bytes.fromhex(salt)) == 16 for salt in salts)
    assert {"at": "release", "dropped": 21} in told[0]
    assert {"at": "release", "dropped": 40} in told[1]
    assert lines[60] in after["file_rows"]
    said = fedmkt.score(copied.own("bank")).read_text().splitlines()
    assert str(lines[60]) not in {line.split(",")[0] for line in said[1:]} and len(said) > 50
    states = read_rights(bank).models
    assert len(states) == 2 and any(s.trained for s in states)


def test_the_log_of_a_run_says_how_many_acts_there_were(
    copied: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = PartyFolder(copied.folder("bank"))
    withdraw(bank, ids_of(copied, "bank")[:1], None, ANN, lambda: NOW)
    for path in copied.own("bank").glob("log/*"):
        path.unlink()  # as for a contract that was not run yet
    (bank.state / "store").rename(bank.state / "aside")
    withdrawals_of(bank)
    copied.open("bank").release()
    chain = ActsLog(bank.state, lambda: NOW).chain()
    (loaded,) = logged(copied, "bank", "policy.loaded")
    assert isinstance(loaded, dict) and loaded["acts"] == {"count": 2, "head": chain.head}
    assert loaded["party"] == "bank"
    assert main(["audit", "acts", "--dir", str(bank.root)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert (
        len(said) == 2 and "ann  consent.withdrawn  known=0  new=1" in said[0] and max(map(len, said)) <= 80
    )
    path = bank.state / "acts.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert main(["audit", "acts", "--dir", str(bank.root)]) == 7
    assert "1 acts, " in capsys.readouterr().err


def test_the_budget_says_what_each_counterpart_had_and_what_is_left(
    copied: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    partner = PartyFolder(copied.folder("partner"))
    bank = copied.signed.contract.bank
    entry = {"organisation": comparable(bank.organisation), "key": bank.key, "rho": 0.3, "delta": 1e-6}
    Store(partner.state / "store").put(f"noise/{'aa' * 32}", json.dumps(entry).encode())
    assert main(["budget", "--dir", str(partner.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    eps = epsilon_of(0.3, 1e-6)
    assert lines[1] == f"  1 runs, epsilon {eps:.2f} at delta 1.0e-06; {8 - eps:.2f} of 8 left"
    assert lines[2].startswith("contract ") and lines[2].endswith("1 of 5 runs used")
    assert max(map(len, lines)) <= 80
