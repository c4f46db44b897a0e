"""A dealer that deals anything else than it had to is named by the audit; an honest one never is."""

import dataclasses
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fedmkt.attack_lab import jobs
from fedmkt.attack_lab.attacks import deals as attacks
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.subject import Subject
from fedmkt.attack_lab.views import Views
from fedmkt.audit.verify import verify_run
from fedmkt.cli.app import main
from fedmkt.config.job import JobConfig
from fedmkt.config.policy import PolicyConfig
from fedmkt.contract.files import to_toml
from fedmkt.crypto.key_file import to_pem
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.expire import items
from fedmkt.deploy.folders import PartyFolder
from fedmkt.errors import AuditError, ConfigError, PeerError
from fedmkt.party.deal_records import DealRecords, read_receipts, written
from fedmkt.party.handle import DataSeen
from fedmkt.party.journal import write_atomically
from fedmkt.party.node import open_data
from fedmkt.protocol import deals, wire
from fedmkt.protocol.session import Farewell, Request
from fedmkt.report import deals as report_deals
from fedmkt.report.collect import collect
from fedmkt.report.deals import OpenedRun, audit_deals, first_wrong, read_statement
from fedmkt.report.folder import find_files
from fedmkt.simulation.run import read_job, simulate_job
from fedmkt.transport.driver import Ask
from tests.engine import Killed, Tap, world_of

AUDITOR = attacks._AUDITOR
TREES = (
    'kind = "trees"\n\n[trees]\nreveal = "{}"\ntrees = 1\ndepth = 2\nmin_rows = 20\n{}\n[bins]\ncount = 4\n'
)
MODELS = {
    "logistic": 'kind = "logistic"\niterations = 2\n',
    "trees-totals": TREES.format("totals", ""),
    "trees-nothing": TREES.format("nothing", ""),
    "scorecard": 'kind = "scorecard"\niterations = 2\n\n[bins]\ncount = 4\n',
    "linear": 'kind = "linear"\niterations = 2\n',
    "poisson": 'kind = "poisson"\niterations = 2\n',
    "additive": 'kind = "additive"\niterations = 2\n\n[additive]\nknots = 3\n',
    "trees-sides": TREES.format("sides", ""),
}
QUICK = "trees-totals"  # products, high bits, sines and bits are dealt there


def small_job(folder: Path, family: str) -> tuple[JobConfig, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "MODELS", MODELS)
        path = jobs.write_job(folder, family, 2, (760, 700, 640), minimum=100)
    path.write_text(path.read_text().replace("[limits]\n", "[limits]\nmin_support = 20\n"))
    return read_job(path), path


def honest(folder: Path, family: str) -> Path:
    config, path = small_job(folder / "world", family)
    assert attacks.run_job(attacks.audited(config), path, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return honest(tmp_path_factory.mktemp(QUICK), QUICK)


@pytest.fixture(scope="module")
def opened(recorded: Path) -> OpenedRun:
    return attacks.open_audited(recorded)


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be spoilt."""
    return collect(tmp_path / "copy", [recorded]).folder


def test_an_honest_dealer_is_right_in_every_message(run):
    (done,) = audit_deals(run, AUDITOR)
    assert not done.wrong
    assert (done.messages, done.lost) == (_dealt(run), 0)
    said = read_statement(done.statement.read_bytes(), find_files(run).contract)
    assert set(said.subject) == {"contract", "receipts-1", "log-bank", "log-partner", "log-coordinator"}


def _dealt(folder: Path) -> int:
    """How many messages the dealer's log says it sent, those of logs' heads left out."""
    text = (folder / "logs" / "coordinator" / "log.jsonl").read_text()
    return sum(json.loads(line)["type"] == "message.sent" for line in text.splitlines())


def test_a_thousand_corrupted_deals_are_named_each_as_the_first_wrong_message(opened):
    counts = attacks.corrupted(opened, 1000, np.random.default_rng(7))
    assert all(number > 10 for number, _ in counts.values())
    assert tuple(sum(pair[i] for pair in counts.values()) for i in (0, 1)) == (1000, 1000)


def test_of_two_logs_that_differ_one_is_said_to_lie(opened):
    dealt = list(opened.again())
    slot = (dealt[3].epoch, dealt[3].index, str(dealt[3].reader))
    other = dataclasses.replace(opened.logged.sent[slot], mark="ab" * 32)
    received = {**opened.logged.received, slot: other}
    wrong = first_wrong(dealt, dataclasses.replace(opened.logged, received=received), lambda _: None)
    assert wrong.startswith(f"{dealt[3].where}: ")
    assert "one of the two is not true" in wrong


@pytest.mark.slow  # eight runs, a thousand corruptions of each
@pytest.mark.parametrize("family", MODELS)
def test_a_thousand_corrupted_deals_of_each_family_are_named(tmp_path, family):
    folder = honest(tmp_path, family)
    counts = attacks.corrupted(attacks.open_audited(folder), 1000, np.random.default_rng(8))
    assert sum(tried for tried, _ in counts.values()) == 1000
    assert all(tried == named for tried, named in counts.values())
    assert not attacks.is_caught(folder)


def test_wrong_scores_pass_unseen_until_the_auditor_names_the_deal(tmp_path, capsys):
    config, path = small_job(tmp_path / "world", "trees-totals")
    change = attacks.scramble_scores(np.random.default_rng(1))
    run, key = tmp_path / "run", tmp_path / "auditor.key"
    assert attacks.run_job(attacks.audited(config), path, run, change)
    write_atomically(key, to_pem(AUDITOR, None))
    assert main(["audit", "deals", str(run), "--key", str(key)]) == 7
    said = capsys.readouterr()
    assert "score.deal_tree_rounding, to bank: the dealer sent another message" in said.err
    contract = find_files(run).contract
    (path,) = (run / "deals").iterdir()
    statement = read_statement(path.read_bytes(), contract)
    assert (statement.predicate["outcome"], statement.predicate["run"]) == ("wrong", path.name.split(".")[0])
    with pytest.raises(ValueError):
        read_statement(path.read_bytes().replace(b"payload", b"payloaD", 1), contract)


@pytest.mark.slow  # a run more, for the same comparison
def test_a_dealer_that_logs_the_right_mark_of_a_wrong_message_contradicts_its_reader(tmp_path, monkeypatch):
    config, path = small_job(tmp_path / "world", "trees-totals")
    right, note = {}, DealRecords.note
    scramble = attacks.scramble_scores(np.random.default_rng(1))

    def remember(step, message):
        right[step] = wire.encode(message)
        return scramble(step, message)

    def lying(self, envelope, index, step, plain):
        lies = (self._me, step) == ("coordinator", "score.deal_tree_rounding")
        note(self, envelope, index, step, [right[step]] if lies else plain)

    monkeypatch.setattr(DealRecords, "note", lying)
    attacks.run_job(attacks.audited(config), path, tmp_path / "run", remember)
    (done,) = audit_deals(tmp_path / "run", AUDITOR)
    assert "score.deal_tree_rounding, to bank" in done.wrong
    assert "one of the two is not true" in done.wrong


def test_a_run_that_was_killed_and_resumed_is_audited_over_both_epochs(tmp_path):
    config, path = small_job(tmp_path / "world", "trees-totals")
    config = attacks.audited(config)
    tables = {p.name: open_data(p, path.parent) for p in config.parties}
    world = world_of(config, tmp_path / "run", tables, seed=7)
    write_atomically(world.folder / "contract.toml", to_toml(world.signed).encode())
    with pytest.raises(Killed):
        world.run(Tap(stop_at=145))  # the tree is saved, its scores are being dealt
    with pytest.raises(ConfigError, match="no such run"):
        audit_deals(world.folder, AUDITOR)
    with pytest.raises(Killed):
        world.run(Tap(change=_only_the_bank_closes), resume=True)
    (done,) = audit_deals(world.folder, AUDITOR)  # its results are written
    assert (done.wrong, done.epochs) == ("", 2)
    assert done.lost > 0
    world.run(Tap(change=_farewell_with_a_lie), resume=True)
    assert audit_deals(world.folder, AUDITOR) == (done,)  # nothing was dealt between the two closes


def _only_the_bank_closes(name: str, message: Ask) -> Ask:
    if isinstance(message, Request) and message.step == "run.close" and name != "bank":
        raise Killed("the coordinator has what it wants")
    return message


def _farewell_with_a_lie(name: str, message: Ask) -> Ask:
    """Say farewell with a first receipt that nobody signed: parties look at those only that they have not seen."""
    if not isinstance(message, Farewell):
        return message
    forged = dataclasses.replace(message.receipts[0], public=b"", signature=b"")
    return Farewell(message.run, (forged, *message.receipts[1:]))


def test_a_commitment_of_another_seed_is_not_believed(run, monkeypatch):
    for who in ("coordinator", "partner"):

        def lied(*of, logged=report_deals.logged_deals, who=who):
            found = logged(*of)
            said = {1: {**found.commitments[1, "partner"], who: "ab" * 32}}
            return dataclasses.replace(found, commitments={**found.commitments, (1, "partner"): said[1]})

        with (
            monkeypatch.context() as patch,
            pytest.raises(AuditError, match=f"log of {who} commits to another"),
        ):
            patch.setattr(report_deals, "logged_deals", lied)
            audit_deals(run, AUDITOR)


@pytest.mark.slow  # two runs more, for the same comparison
@pytest.mark.parametrize("liar", ["partner", "coordinator"])
def test_nobody_can_frame_the_other_with_another_seed(tmp_path, monkeypatch, liar):
    config, path = small_job(tmp_path / "world", "trees-sides")
    begin = DealRecords.begin

    def lying(self, epoch, seeds):
        other = {party: bytes(32) if party == "partner" else seed for party, seed in seeds.items()}
        return begin(self, epoch, other if self._me == liar else seeds)

    monkeypatch.setattr(DealRecords, "begin", lying)
    assert attacks.run_job(attacks.audited(config), path, tmp_path / "run")
    with pytest.raises(AuditError, match="coordinator commits to another seed of partner"):
        audit_deals(tmp_path / "run", AUDITOR)


@pytest.mark.parametrize("what", ["public", "parts"])
def test_receipts_that_nobody_signed_accuse_nobody(run, what):
    kept = sorted(run.glob("logs/*/deals/*.receipts"))
    assert len(kept) == 2
    right = read_receipts(kept[0].read_bytes())
    at = next(i for i, r in enumerate(right) if r.party == "coordinator" and r.parts)
    reader, envelope, length = right[at].parts[0]
    forged = {
        "public": dataclasses.replace(right[at], public=wire.encode(DataSeen(b""))),
        "parts": dataclasses.replace(right[at], parts=((reader, envelope, length + 8),)),
    }[what]
    data = written([*right[:at], forged, *right[at + 1 :]])
    kept[1].write_bytes(data)
    (done,) = audit_deals(run, AUDITOR)  # of two that differ, those count which all signed
    assert not done.wrong
    done.statement.unlink()
    kept[0].write_bytes(data)
    with pytest.raises(AuditError, match="as all signed them"):
        audit_deals(run, AUDITOR)
    assert not done.statement.exists()


def test_what_is_missing_or_changed_is_said_and_nothing_is_stated(run):
    contract = find_files(run).contract
    receipts, other = sorted(run.glob("logs/*/deals/*.receipts"))
    data = receipts.read_bytes()
    for path in (receipts, other):
        path.write_bytes(data[:-9])
    with pytest.raises(AuditError, match="is cut"):
        audit_deals(run, AUDITOR)
    for path in (receipts, other):
        path.unlink()
    with pytest.raises(AuditError, match="no party kept the receipts"):
        audit_deals(run, AUDITOR)
    receipts.write_bytes(data)
    (seed,) = (run / "logs" / "partner" / "deals").glob("*.seed")
    assert seed.stat().st_mode & 0o777 == 0o600
    seed.unlink()
    with pytest.raises(AuditError, match=r"partner.*\.seed"):
        audit_deals(run, AUDITOR)
    assert not (run / "deals").exists()
    with pytest.raises(ConfigError, match="not the key of auditor"):
        audit_deals(run, Identity(bytes(32)))
    assert contract.auditor is not None


def test_receipts_that_end_early_or_were_altered_are_no_run(opened):
    (whole,) = opened.receipts.values()
    altered = dataclasses.replace(whole[0], public=b"")
    for receipts in (whole[:-1], whole[:-4], whole[:0], [altered, *whole[1:]]):
        with pytest.raises(
            (PeerError, ValueError), match=r"do not lead to|got \d|not signed|public value is refused"
        ):
            list(dataclasses.replace(opened, receipts={1: receipts}).again())


def test_the_seeds_of_runs_that_are_right_can_be_deleted_with_the_statement(run):
    audit_deals(run, AUDITOR, delete=True)
    assert not list(run.rglob("*.seed"))
    assert verify_run(run).outcome == "completed"
    with pytest.raises(AuditError, match="seed"):
        audit_deals(run, AUDITOR)


def test_a_mark_depends_on_key_place_and_every_byte():
    key = deals.mark_key(bytes(32))
    marks = {
        deals.mark(*args)
        for args in (
            (key, 1, "a", [b"xy"]), (key, 2, "a", [b"xy"]), (key, 1, "b", [b"xy"]), (key, 1, "a", [b"xz"]),
            (deals.mark_key(bytes(31) + b"1"), 1, "a", [b"xy"]),
        )
    }  # fmt: skip
    assert len(marks) == 5
    assert deals.mark(key, 1, "a", [b"x", b"y"]) in marks


def test_sealed_seeds_go_with_the_results_or_with_the_auditors_statement(run, tmp_path):
    root = PartyFolder(tmp_path / "bank")
    place = root.state / "contracts" / "x"
    shutil.copytree(run / "logs" / "bank", place / "log")
    shutil.copy(run / "contract.toml", place)
    (seed,) = (place / "log" / "deals").glob("*.seed")
    half = seed.with_name(seed.name + ".new")  # what a crash left: it goes as well
    half.touch(mode=0o600)

    def kept_until():
        found = [item for item in items(root, PolicyConfig()) if item.kind == "dealer seeds"]
        assert [item.paths for item in found] == [(seed,), (half,)]
        assert found[0].until == found[1].until
        return found[0].until

    assert kept_until() > datetime.now(UTC).date() + timedelta(days=178)
    (done,) = audit_deals(run, AUDITOR)
    shutil.copy(done.statement, place / "log" / "deals")
    assert kept_until() <= datetime.now(UTC).date()


@pytest.mark.slow  # two watched runs, and four more that the attack makes of each
def test_the_lab_says_whom_it_trusts_where_nobody_audits_and_names_every_deal_where_one_does(tmp_path):
    def finding(config, folder):
        views = Views()
        simulate_job(config, path, out=folder, watch=views.watch)
        tables = {p.name: open_data(p, path.parent) for p in config.parties}
        subject = Subject(config, tables, folder, folder, views)
        return attacks.cheating_dealer(subject, Effort(np.random.default_rng(1), messages=50))

    config, path = small_job(tmp_path / "world", "trees-totals")
    found = finding(config, tmp_path / "plain")
    assert (found.verdict, found.undefended, found.here) == ("assumed", 1.0, 1.0)
    assert found.assumed == "the dealer"
    found = finding(attacks.audited(config), tmp_path / "audited")
    assert (found.verdict, found.undefended, found.here) == ("held", 1.0, 0.0)
    assert "51 of 51 named" in found.note
