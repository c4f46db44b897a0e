"""A run whose process ended is taken up again, once, and not for ever."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fedmkt.contract.signatures import SignedContract
from fedmkt.deploy import executor as executors
from fedmkt.deploy.executor import Executor
from fedmkt.deploy.folders import CoordinatorFolder
from fedmkt.deploy.runs import RunFolder, is_worker, new_run
from fedmkt.errors import TransportError
from tests.engine import toy_world


def nothing(call: object, contract: object) -> None:
    """A script without steps."""


class Flower:
    """A Control API in memory."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.states: dict[int, str] = {}
        self.is_away = False

    def start(self, run: str) -> int:
        if self.is_away:
            raise TransportError("SuperLink does not answer")
        self.started.append(run)
        self.states[len(self.started)] = "pending"
        return len(self.started)

    def status(self, number: int) -> str:
        return self.states.get(number, "")

    def close(self) -> None:
        pass


@pytest.fixture
def flower(monkeypatch: pytest.MonkeyPatch) -> Flower:
    found = Flower()
    monkeypatch.setattr(executors, "control_of", lambda folder: found)
    return found


@pytest.fixture
def signed(tmp_path: Path) -> SignedContract:
    return toy_world(tmp_path / "world", nothing).signed  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path, signed: SignedContract) -> RunFolder:
    return new_run(CoordinatorFolder(tmp_path / "home").runs, signed, None)


@pytest.fixture
def executor(tmp_path: Path) -> Executor:
    return Executor("coordinator", tmp_path / "home")


NOBODY = 4_000_000
"""More than any process number."""


def test_a_run_under_way_without_a_process_is_taken_up(
    flower: Flower, run: RunFolder, executor: Executor
) -> None:
    run.write(replace(run.status(), state="running", process=NOBODY))
    executor._keep_runs()
    found = run.status()
    assert flower.started == [run.name]
    assert (found.state, found.number, found.process, found.taken_up) == ("submitted", 1, 0, 1)


def test_the_number_of_another_program_is_no_sign_of_life(
    flower: Flower, run: RunFolder, executor: Executor
) -> None:
    assert not is_worker(os.getpid())
    run.write(replace(run.status(), state="running", process=os.getpid()))
    executor._keep_runs()
    assert flower.started == [run.name]


def test_a_run_that_waits_at_flower_is_left_there(flower: Flower, run: RunFolder, executor: Executor) -> None:
    run.write(replace(run.status(), number=7))
    flower.states[7] = "pending"
    executor._keep_runs()
    executor._keep_runs()
    assert flower.started == []


def test_a_task_that_was_taken_and_lost_is_submitted_again_at_the_second_look(
    flower: Flower, run: RunFolder, executor: Executor
) -> None:
    run.write(replace(run.status(), number=7))
    flower.states[7] = "running"
    executor._keep_runs()
    assert flower.started == []
    executor._keep_runs()
    assert flower.started == [run.name]


def test_a_command_has_time_to_hand_a_run_over(
    flower: Flower, run: RunFolder, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor._keep_runs()
    executor._keep_runs()
    assert flower.started == []
    now = time.time()
    monkeypatch.setattr(executors.time, "time", lambda: now + 60)
    executor._keep_runs()
    executor._keep_runs()
    assert flower.started == [run.name]


def test_a_run_is_taken_up_when_superlink_is_back(
    flower: Flower, run: RunFolder, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write(replace(run.status(), state="running", process=NOBODY))
    flower.is_away = True
    with pytest.raises(TransportError):
        executor._keep_runs()
    assert not run.status().has_ended
    flower.is_away = False
    now = time.time()
    monkeypatch.setattr(executors.time, "time", lambda: now + 60)
    executor._keep_runs()
    executor._keep_runs()
    assert flower.started == [run.name]


def test_a_run_whose_process_ends_again_and_again_fails_with_one_line(
    flower: Flower, run: RunFolder, executor: Executor
) -> None:
    for _ in range(100):
        if run.status().has_ended:
            break
        run.write(replace(run.status(), state="running", process=NOBODY))
        executor._keep_runs()
    found = run.status()
    assert found.state == "failed" and found.exit_code == 6 and "ended" in found.error
    assert len(flower.started) == run.signed().contract.limits.max_resumes + 5


def test_a_run_that_was_to_stop_is_stopped_and_not_taken_up(
    flower: Flower, run: RunFolder, executor: Executor
) -> None:
    run.write(replace(run.status(), state="running", process=NOBODY))
    run.stop.write_text("stop\n")
    executor._keep_runs()
    assert run.status().state == "stopped" and flower.started == []
