"""Every place in a party, and in a coordinator, that writes to disk, on a disk that fails there."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedmkt.audit.verify import FILES, verify_files
from fedmkt.contract.agreement import Contract, Limits
from fedmkt.contract.files import to_toml
from fedmkt.errors import FedmktError
from fedmkt.party.journal import write_atomically
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Nothing,
    Outcome,
    PublicValue,
    State,
    Step,
    Turn,
    ask,
    data_parties,
    inbox_of,
    to_all,
)  # fmt: skip
from fedmkt.protocol.witness import checkpoint, close, witness_all
from tests.engine import BANK, SHOP, World, toy_world
from tests.failing_disk import FAULTS, Disk, Ended, first_of_each, forked


@dataclass(frozen=True)
class Number(Message):
    value: int


@dataclass(frozen=True)
class Sum(PublicValue):
    value: int


@dataclass(frozen=True)
class Carried(State):
    value: int


def _say(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Number, Sum]:
    peers = [p for p in data_parties(turn.contract) if p != turn.me]
    return Outcome(Sum(0), send=to_all(peers, Number(len(turn.me))), keep=(Carried(len(turn.me)),))


def _add(turn: Turn, inbox: Inbox[Number]) -> Outcome[Nothing, Sum]:
    return Outcome(Sum(sum(m.value for m in inbox.every(Number)) + turn.recall(Carried).value))


SAY = Step("toy.say", _say, Sum)
ADD = Step("toy.add", _add, Sum, reads=(Number,))


def both_add(call: Caller, contract: Contract) -> Sum:
    """Bank and shop tell each other a number and add them, twice, a checkpoint after each; all cosign at both ends."""
    total = 0
    witness_all(call, contract)
    for _ in range(2):
        said = call.all([ask(p, SAY) for p in (BANK, SHOP)])
        added = call.all([ask(p, ADD, *inbox_of(said, p)) for p in (BANK, SHOP)])
        total += added[0].public.value.value
        checkpoint(call, contract)
    close(call, contract)
    return Sum(total)


TOTAL = Sum(2 * (len(BANK) + len(SHOP)))


def toy(folder: Path) -> World:
    limits = Limits(max_resumes=3, max_runs=3)
    return toy_world(folder, both_add, limits=limits, random=lambda name: os.urandom)


def play(folder: Path, resume: bool = False) -> int:
    """Do what a command does: the result is checked, a refusal is one line and its exit code."""
    try:
        assert toy(folder).run(resume=resume) == TOTAL
    except FedmktError as error:
        print(f"fedmkt: error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # the command line names file and reason
        print(f"fedmkt: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def on_disk(folder: Path, number: int, fault: str) -> Ended:
    def run() -> int:
        Disk(folder, number, fault).attach()
        return play(folder)

    return forked(run)


def outcome(folder: Path) -> str:
    """Verify all logs of the toy world."""
    world = toy(folder)
    files = {"contract.toml": to_toml(world.signed).encode()}
    for name in world.identities:
        for file in FILES:
            path = folder / "parties" / name / "log" / file
            if path.exists():
                files[f"logs/{name}/{file}"] = path.read_bytes()
    return verify_files(files).outcome


def writes(folder: Path) -> list[str]:
    disk = Disk(folder)
    disk.attach()
    try:
        assert play(folder) == 0
    finally:
        disk.detach()
    return disk.sites


def suffer(folder: Path, number: int, fault: str) -> str:
    """Let a write fail and go on; returns how it came out, and asserts that it came out well."""
    ended = on_disk(folder, number, fault)
    assert not ended.fault, ended.fault
    if ended.code == 0:
        assert outcome(folder) == "completed"
        return "ended in spite of it"
    began = (folder / "coordinator" / "run.txt").exists()
    again = forked(lambda: play(folder, resume=began))
    assert not again.fault, again.fault
    if again.code == 0:
        assert outcome(folder) == "completed"
        return "went on" if began else "begun anew"
    return f"refused: {again.said}"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return writes(tmp_path_factory.mktemp("whole"))


def test_one_write_of_each_place_fails_and_the_run_goes_on_to_the_same_result(
    places: list[str], tmp_path: Path
) -> None:
    chosen = first_of_each(places)
    assert len(chosen) > 35
    for turn, number in enumerate(chosen):
        fault = FAULTS[turn % len(FAULTS)]
        came = suffer(tmp_path, number, fault)
        assert not came.startswith("refused"), (fault, places[number - 1], came)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


@pytest.mark.slow  # every write in each of three ways: three minutes
@pytest.mark.parametrize("fault", FAULTS)
def test_every_write_fails_and_the_run_goes_on_to_the_same_result(
    fault: str, places: list[str], tmp_path: Path
) -> None:
    for number in range(1, len(places) + 1):
        came = suffer(tmp_path, number, fault)
        assert not came.startswith("refused"), (fault, places[number - 1], came)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


# ------------------------------------------------------------------------------------------- the disk itself


@pytest.mark.parametrize("number", range(1, 5))
def test_a_crash_leaves_the_old_file_or_the_new_one(number: int, tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write() -> int:
        disk = Disk(tmp_path)
        disk.attach()
        write_atomically(path, b"old" * 100)
        disk.fail_at, disk.fault = len(disk.sites) + number, "torn"
        write_atomically(path, b"new" * 100)
        return 0

    assert forked(write).code is None
    assert path.read_bytes() == b"old" * 100


def test_a_crash_takes_what_nobody_synced(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write() -> int:
        disk = Disk(tmp_path, fail_at=4, fault="torn")
        disk.attach()
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(file, b"synced ")
        os.fsync(file)
        os.write(file, b"abcdef")
        return 0

    assert forked(write).code is None
    assert path.read_bytes() == b"synced abc"
