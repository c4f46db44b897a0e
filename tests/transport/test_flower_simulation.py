"""Flower's simulation in processes of its own: Ray leaves open files and warnings behind that are not ours."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedmkt.audit.verify import verify_run
from fedmkt.contract.files import from_toml
from fedmkt.party.node import Place
from fedmkt.protocol import wire
from fedmkt.protocol.session import Hello, Invitation
from fedmkt.protocol.turns import Receipt
from fedmkt.simulation.progress import ProgressEvent
from fedmkt.simulation.run import party_settings, read_job, simulate
from fedmkt.transport.driver import REPLIES, Opened, Refusal
from tests.engine import job_config

ROOT = Path(__file__).resolve().parents[2]
SEED = 5
LONGEST = 240.0
PARTIES = ("bank", "partner", "partner2")

# Put beside the code of every process that Flower or Ray starts: notes which process opened which table.
WITNESS = """
import os, sys
def _hear(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        path = os.fspath(arguments[0])
        if isinstance(path, str) and path.endswith(".csv"):
            with open(os.environ["FEDMKT_TEST_OPENED"], "a") as file:
                file.write(f"{os.getpid()} {os.path.basename(path)}\\n")
sys.addaudithook(_hear)
"""


@dataclass(frozen=True)
class Ended:
    """A finished process, and which process opened which tables meanwhile."""

    pid: int
    code: int
    out: str
    err: str
    opened: dict[int, set[str]]


def run_python(folder: Path, *arguments: str) -> Ended:
    """Run Python with the witness; kills it when it takes too long."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(WITNESS)
    opened = folder / "opened.txt"
    opened.touch()
    own = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(folder), str(ROOT), *([own] if own else [])])
    environment = {**os.environ, "PYTHONPATH": path, "FEDMKT_TEST_OPENED": str(opened)}
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    found: dict[int, set[str]] = {}
    for line in opened.read_text().splitlines():
        number, name = line.split()
        found.setdefault(int(number), set()).add(name)
    return Ended(process.pid, process.returncode, out, err, found)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def files_of(folder: Path, *under: str) -> dict[str, bytes]:
    """All files below some folders of a run, by relative path."""
    paths = [p for u in under for p in sorted((folder / u).rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def receipts_of(folder: Path) -> list[Receipt]:
    data, at, found = (folder / "coordinator" / "receipts.bin").read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append(wire.decode(data[at + 4 : at + 4 + size], Receipt))
        at += 4 + size
    return found


@dataclass(frozen=True)
class Twins:
    """The same job with the same seed in memory and over Flower: a bank and two partners."""

    memory: Path
    flower: Path
    ended: Ended


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    folder = tmp_path_factory.mktemp("twins")
    job_config(folder / "data", partners=2, iterations=1)
    job = folder / "data" / "job.toml"
    simulate(job, out=folder / "memory", seed=SEED)
    words = ["-m", "fedmkt", "simulate", str(job), "--backend", "flower", "--out", str(folder / "flower")]
    ended = run_python(folder / "process", *words, "--seed", str(SEED), "--json")
    assert ended.code == 0, ended.err
    yield Twins(folder / "memory", folder / "flower", ended)


def test_memory_and_flower_give_the_same_model_and_scores_to_the_last_bit(twins: Twins) -> None:
    shares = [f"parties/{p}/model/share.npy" for p in PARTIES]
    memory, flower = (files_of(f, "parties") for f in (twins.memory, twins.flower))
    assert set(shares) <= set(memory) and "parties/bank/model/scores.npz" in memory
    models = {n for n in memory if "/model/" in n}
    assert models == {n for n in flower if "/model/" in n}
    assert all(memory[n] == flower[n] for n in models)
    share = np.load(twins.flower / shares[0], allow_pickle=False)
    assert share.dtype == np.uint64 and len(np.unique(share)) > 2


def test_memory_and_flower_have_the_same_transcript_and_logs(twins: Twins) -> None:
    memory, flower = receipts_of(twins.memory), receipts_of(twins.flower)
    assert len(memory) == len(flower) > 50
    assert [[(r, n) for r, _, n in x.parts] for x in memory] == [
        [(r, n) for r, _, n in x.parts] for x in flower
    ]
    assert memory == flower
    assert files_of(twins.memory, "logs") == files_of(twins.flower, "logs")
    verify_run(twins.flower)


def test_no_process_reads_two_tables_and_every_party_has_one_of_its_own(twins: Twins) -> None:
    readers = {pid: names for pid, names in twins.ended.opened.items() if pid != twins.ended.pid}
    assert sorted(sorted(names) for names in readers.values()) == [
        ["bank.csv"],
        ["partner.csv"],
        ["partner2.csv"],
    ]


def test_the_command_prints_one_object_and_nothing_of_flower_or_ray(twins: Twins) -> None:
    facts = json.loads(twins.ended.out)
    assert facts["run"] == str(twins.flower)
    assert {line.partition(":")[0] for line in twins.ended.err.splitlines()} <= {"fedmkt"}
    assert (twins.flower / "coordinator" / "flower.log").exists()


def test_no_process_of_the_parties_outlives_the_run(twins: Twins) -> None:
    assert not any(is_running(pid) for pid in twins.ended.opened)


class Stopped(Exception):
    """The test stops the run here."""


def stop_in_memory(job: Path, out: Path, signs: int) -> None:
    """Run in memory until the display was called `signs` times."""
    seen = 0

    def watch(event: ProgressEvent) -> None:
        nonlocal seen
        seen += 1
        if seen == signs:
            raise Stopped

    with pytest.raises(Stopped):
        simulate(job, out=out, seed=SEED, progress=watch)


@pytest.mark.slow
def test_a_stopped_run_goes_on_over_flower_as_it_would_in_memory(tmp_path: Path) -> None:
    job_config(tmp_path / "data", iterations=2)
    job = tmp_path / "data" / "job.toml"
    stop_in_memory(job, tmp_path / "stopped", 70)
    assert len(files_of(tmp_path / "stopped", "parties/bank/journal")) > 0
    for name in ("memory", "flower"):
        shutil.copytree(tmp_path / "stopped", tmp_path / name)
    simulate(job, out=tmp_path / "memory", seed=SEED, resume=True)
    words = ["-m", "fedmkt", "simulate", str(job), "--backend", "flower", "--out", str(tmp_path / "flower")]
    ended = run_python(tmp_path / "process", *words, "--seed", str(SEED), "--resume", "--json")
    assert ended.code == 0, ended.err
    assert (tmp_path / "flower" / "coordinator" / "run.txt").read_text().split()[1] == "2"
    for under in ("logs", "parties"):
        assert files_of(tmp_path / "memory", under) == files_of(tmp_path / "flower", under)
    assert receipts_of(tmp_path / "memory") == receipts_of(tmp_path / "flower")


KILLS = """
import json, os, signal, sys, time
from pathlib import Path
from fedmkt.simulation.run import simulate

seen, asked = 0, False

def interrupt(number, frame):
    raise KeyboardInterrupt("asked to end")

def watch(event):
    global seen, started
    seen += 1
    if seen == 20:
        import ray
        started = time.monotonic()
        if sys.argv[3] == "party":
            actor = ray.get_actor("fedmkt-seat-1")
            os.kill(ray.get(actor.process.remote()), signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, interrupt)
try:
    simulate(sys.argv[1], backend="flower", out=Path(sys.argv[2]), progress=watch)
except (Exception, KeyboardInterrupt) as error:
    print(json.dumps([type(error).__name__, str(error), time.monotonic() - started]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whom", "kind", "says"),
    [
        ("party", "TransportError", "partner: the process of this party has ended"),
        ("coordinator", "KeyboardInterrupt", "--resume"),
    ],
)
def test_a_run_whose_process_is_told_to_end_ends_at_once_and_can_be_resumed(
    whom: str, kind: str, says: str, tmp_path: Path
) -> None:
    job_config(tmp_path / "data", iterations=1)
    job = tmp_path / "data" / "job.toml"
    ended = run_python(tmp_path / "process", "-c", KILLS, str(job), str(tmp_path / "run"), whom)
    assert ended.code == 0, ended.err
    found, text, seconds = json.loads(ended.out)
    assert found == kind and says in text
    assert seconds < 30
    assert ended.err == ""
    assert len(ended.opened) == 3 and not any(is_running(pid) for pid in ended.opened)
    simulate(job, out=tmp_path / "run", resume=True)
    verify_run(tmp_path / "run")


# --------------------------------------------------------------------------- one actor, without its cluster


def test_a_party_that_cannot_open_refuses_and_keeps_the_reason_to_itself(
    twins: Twins, tmp_path: Path
) -> None:
    from fedmkt.transport.flower_party import ERRORS, PartySeat
    from fedmkt.transport.flower_seat import Seat

    path = twins.memory.parent / "data" / "job.toml"
    config = read_job(path)
    signed = from_toml((twins.memory / "contract.toml").read_text(), "contract.toml")
    table = tmp_path / config.bank.file
    table.write_bytes((path.parent / config.bank.file).read_bytes().replace(b"responded", b"secret-name", 1))
    place = Place(tmp_path / "private", tmp_path / "logs")
    settings = party_settings(config, signed, "bank")
    seat = PartySeat(Seat(signed, config.bank, settings, tmp_path, place, None, 0))
    told = wire.decode(seat.answer(wire.encode(Invitation(b"", 1))), *REPLIES)
    assert told == Refusal("DataError", "opening")
    assert (place.private / ERRORS).stat().st_mode & 0o077 == 0
    assert "responded" in (place.private / ERRORS).read_text()


def test_a_party_answers_a_senseless_message_with_a_refusal(twins: Twins, tmp_path: Path) -> None:
    from fedmkt.transport.flower_party import PartySeat
    from fedmkt.transport.flower_seat import Seat

    path = twins.memory.parent / "data" / "job.toml"
    config = read_job(path)
    signed = from_toml((twins.memory / "contract.toml").read_text(), "contract.toml")
    place = Place(tmp_path / "private", tmp_path / "logs")
    shutil.copytree(twins.memory / "parties" / "bank", place.private)
    shutil.copytree(twins.memory / "logs" / "bank", place.logs)  # without these it would not say hello
    settings = party_settings(config, signed, "bank")
    seat = PartySeat(Seat(signed, config.bank, settings, path.parent, place, SEED, 0))
    assert wire.decode(seat.answer(b"nonsense"), *REPLIES) == Refusal("PeerError", "message")
    assert wire.decode(seat.answer(wire.encode(Opened(b"x"))), *REPLIES) == Refusal("PeerError", "message")
    assert isinstance(wire.decode(seat.answer(wire.encode(Invitation(b"", 1))), *REPLIES), Hello)
