import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmkt.cli.app import main
from fedmkt.party.node import Sources
from fedmkt.party.store import Store
from fedmkt.transport.driver import last_epoch
from tests.simulation.kills import References, faults, kill_at, small_job

SEED = 7


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_job(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def references(job: Path, tmp_path_factory: pytest.TempPathFactory) -> References:
    return References(job, tmp_path_factory.mktemp("references"), SEED)


@pytest.fixture(scope="module")
def stopped(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed in its last pass, with two checkpoints at every party."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    assert kill_at("fit.update:8", *call(job, out))
    return out


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out figures and page: they take longer than a small run."""
    monkeypatch.setattr("fedmkt.simulation.results.write_results", lambda *_: (None, {}))


def call(job: Path, out: Path) -> list[object]:
    return ["simulate", job, "--out", out, "--seed", SEED, "--json"]


def resume(job: Path, out: Path) -> int:
    return main([*map(str, call(job, out)), "--resume"])


def copied(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def refused(job: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Resume, and return exit code and error; there must be exactly one."""
    code = resume(job, out)
    lines = [x for x in capsys.readouterr().err.splitlines() if not re.fullmatch("fedmkt: [a-z]+", x)]
    assert len([x for x in lines if x.startswith("fedmkt: error: ")]) == 1
    assert all(x.startswith(("fedmkt: error: ", "fedmkt: hint: ")) for x in lines)
    return code, lines[0].removeprefix("fedmkt: error: ")


def revealed(out: Path, party: str, kind: str) -> int:
    records = [json.loads(line) for line in (out / "logs" / party / "log.jsonl").read_text().splitlines()]
    return sum(r["type"] == "value.revealed" and r["body"]["kind"] == kind for r in records)


@pytest.mark.parametrize(
    "moment",
    [
        "opening:2",  # some have opened the first epoch, some have not
        "psi.oprf.evaluate:1",  # long before the first checkpoint
        "checkpoint.save:3",  # one party holds the second checkpoint, the other does not
        "checkpoint.save:4",  # both hold it, the coordinator does not know
        "run.close:2",  # some have logged the end, some have not
        "farewell:1",  # one has erased what a resume would need
    ],
)
def test_a_killed_run_ends_as_if_it_had_not_been_killed(
    moment: str, job: Path, references: References, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert kill_at(moment, *call(job, out))
    assert resume(job, out) == 0
    assert faults(out, references) == []


@pytest.mark.parametrize(("lost", "counted"), [(False, b"1"), (True, b"2")])
def test_scores_released_again_are_logged_again_and_counted_if_they_were_rounded_again(
    lost: bool, counted: bytes, job: Path, references: References, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert kill_at("score.release:1", *call(job, out))
    assert revealed(out, "partner", "Scores") == 1
    if lost:  # the checkpoint that holds the rounded shares: the run goes back to the one before
        max((out / "parties" / "partner" / "journal").glob("*.sealed")).unlink()
    assert resume(job, out) == 0
    assert faults(out, references) == []
    assert revealed(out, "partner", "Scores") == 2
    store = Store(out / "parties" / "partner" / "store")
    assert {store[name] for name in store if name.startswith("functionals/")} == {counted}


def test_a_resumed_run_that_is_killed_resumes_again(
    job: Path, references: References, stopped: Path, tmp_path: Path
) -> None:
    out = copied(stopped, tmp_path)
    assert kill_at("fit.update:3", *call(job, out), "--resume")
    assert resume(job, out) == 0
    assert last_epoch(out / "coordinator")[1] == 3
    assert faults(out, references) == []


def tear_log(out: Path) -> None:
    with (out / "logs" / "partner" / "log.jsonl").open("a") as log:
        log.write('{"body":{"by')


def tear_receipts(out: Path) -> None:
    receipts = out / "coordinator" / "receipts.bin"
    receipts.write_bytes(receipts.read_bytes()[:-7])


def tear_checkpoint(out: Path) -> None:
    newest = max((out / "parties" / "bank" / "journal").glob("*.sealed"))
    newest.write_bytes(newest.read_bytes()[:1000])


def lose_receipts(out: Path) -> None:
    (out / "coordinator" / "receipts.bin").write_bytes(b"")


@pytest.mark.parametrize("tear", [tear_log, tear_receipts, tear_checkpoint, lose_receipts])
def test_a_torn_file_costs_work_and_nothing_else(
    tear: Callable[[Path], None], job: Path, references: References, stopped: Path, tmp_path: Path
) -> None:
    out = copied(stopped, tmp_path)
    tear(out)
    assert resume(job, out) == 0
    assert faults(out, references) == []


def test_no_more_resumes_than_the_contract_allows(
    job: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(stopped, tmp_path)
    run, _ = last_epoch(out / "coordinator")
    (out / "coordinator" / "run.txt").write_text(f"{run.hex()} 4\n")  # three resumes were used
    assert refused(job, out, capsys) == (4, "the contract allows 3 resumes, all were used")


def test_a_run_folder_set_back_to_an_earlier_epoch_is_refused(
    job: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(stopped, tmp_path)
    assert kill_at("opening:3", *call(job, out), "--resume")
    shutil.copy(stopped / "coordinator" / "run.txt", out / "coordinator" / "run.txt")
    code, error = refused(job, out, capsys)
    assert code == 5
    assert "refused at invitation" in error


def other_job(job: Path, out: Path) -> None:
    job.write_text(job.read_text().replace("penalty = 1.0", "penalty = 2.0"))


def other_data(job: Path, out: Path) -> None:
    table = job.parent / "partner.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))


def other_key(job: Path, out: Path) -> None:
    (out / "parties" / "partner" / "identity.key").write_bytes(bytes(32))


def no_key(job: Path, out: Path) -> None:
    (out / "parties" / "bank" / "identity.key").unlink()


def other_contract(job: Path, out: Path) -> None:
    path = out / "contract.toml"
    path.write_text(path.read_text().replace("decimals = 2", "decimals = 4"))


def not_a_contract(job: Path, out: Path) -> None:
    (out / "contract.toml").write_bytes(b"\xff\xfe")


def other_receipts(job: Path, out: Path) -> None:
    path = out / "coordinator" / "receipts.bin"
    path.write_bytes(path.read_bytes().replace(b"psi.match", b"psi.watch"))


def other_epoch(job: Path, out: Path) -> None:
    (out / "coordinator" / "run.txt").write_text("yesterday\n")


def other_log(job: Path, out: Path) -> None:
    path = out / "logs" / "bank" / "log.jsonl"
    path.write_text(path.read_text().replace("run.started", "run.resumed"))


def no_job(job: Path, out: Path) -> None:
    (out / "job.json").unlink()


def complete(job: Path, out: Path) -> None:
    (out / "result.json").write_text("{}")


def nothing(job: Path, out: Path) -> None:
    shutil.rmtree(out)


def before_signing(job: Path, out: Path) -> None:
    (out / "contract.toml").unlink()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (other_job, 2, "job.toml: model: not as in the job that this run began with"),
        (other_data, 3, "partner.csv: not the file that this run began with"),
        (other_key, 2, "identity.key: not the key with which partner signed"),
        (no_key, 2, "identity.key: not the key with which bank signed"),
        (other_contract, 4, "the signature of bank on the contract does not verify"),
        (not_a_contract, 2, "contract.toml: not UTF-8 text"),
        (other_receipts, 7, "receipts.bin: receipt"),
        (other_epoch, 7, "run.txt: was changed"),
        (other_log, 7, "below its signed head"),
        (no_job, 2, "job.json: missing or changed"),
        (complete, 2, "this run is complete, nothing is left to resume"),
        (nothing, 2, "no run to resume"),
        (before_signing, 2, "the run was stopped before its contract was signed"),
    ],
)
def test_a_run_folder_that_is_not_as_it_was_left_gives_one_clear_line(
    change: Callable[[Path, Path], None], code: int, said: str, job: Path, stopped: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    world = Path(shutil.copytree(job.parent, tmp_path / "world"))
    out = copied(stopped, tmp_path)
    change(world / job.name, out)
    found, error = refused(world / job.name, out, capsys)
    assert (found, said in error) == (code, True), error


def test_an_epoch_of_a_seeded_run_never_draws_what_an_earlier_one_drew() -> None:
    drawn = [Sources.of(SEED, name, epoch).random(32) for name in ("bank", "partner") for epoch in range(102)]
    assert len(set(drawn)) == len(drawn)


def test_a_seeded_clock_goes_on_after_a_resume() -> None:
    first = Sources.of(SEED, "bank", 0).clock
    for _ in range(50_000):
        last = first()
    assert Sources.of(SEED, "bank", 1).clock() > last
