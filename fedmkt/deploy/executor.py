"""What gives Flower's tasks to our workers: `python -m fedmkt.deploy.executor party|coordinator FOLDER`.

One worker process for each run, alive as long as the run: it gets the tokens of the run's tasks through a pipe,
and ends when that pipe is closed. So a token stands on no command line, and no worker outlives its executor.
"""

import contextlib
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from fedmkt.deploy.folders import (
    CoordinatorFolder,
    PartyFolder,
    load_coordinator_folder,
    load_party_folder,
    read_secret,
)
from fedmkt.deploy.runs import RunFolder, RunStatus, all_runs, is_worker, log_to_stderr
from fedmkt.deploy.take_part import announce_end
from fedmkt.errors import FedmktError, TransportError
from fedmkt.transport.flower_control import Control
from fedmkt.transport.flower_tasks import Kind, RuntimeAddress, TaskQueue

_LOGGER = logging.getLogger("fedmkt.executor")
_LOOK = 0.25
_KEEP_SECONDS = 5.0
_END_SECONDS = 10.0
MOST_WORKERS = 16
"""Runs at once: whoever starts more, their tasks expire at Flower."""
_SPARE = 5
_SUBMIT_SECONDS = 30.0
ROLES = ("party", "coordinator")


@dataclass(frozen=True)
class Runtime:
    """Where this participant's tasks come from, and with which secret."""

    address: RuntimeAddress
    secret: Path
    kind: Kind


def runtime_of(role: str, root: Path) -> Runtime:
    """Find the runtime API of a participant's folder."""
    if role == "party":
        party = PartyFolder(root)
        port = load_party_folder(party)[0].node.runtime_port
        address = RuntimeAddress(f"127.0.0.1:{port}", party.state / "runtime.pem")
        return Runtime(address, party.superexec_secret, "flwr-clientapp")
    coordinator = CoordinatorFolder(root)
    port = load_coordinator_folder(coordinator).superlink_port
    address = RuntimeAddress(f"127.0.0.1:{port}", coordinator.authority)
    return Runtime(address, coordinator.superexec_secret, "flwr-serverapp")


class Executor:
    """Takes tasks and hands them to the worker of their run."""

    def __init__(self, role: str, root: Path) -> None:
        self._role = role
        self._root = root
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._is_ending = threading.Event()
        self._is_due = threading.Event()
        self._lost: set[str] = set()

    def run(self) -> None:
        """Take tasks until told to end; then end the workers."""
        runtime = runtime_of(self._role, self._root)
        keeper = self._keep_runs if self._role == "coordinator" else self._keep_promises
        self._is_due.set()
        threading.Thread(target=self._every, args=(_KEEP_SECONDS, keeper), daemon=True).start()
        queue: TaskQueue | None = None
        is_heard = True
        try:
            while not self._is_ending.wait(_LOOK):
                self._forget_ended()
                try:
                    queue = queue or TaskQueue(runtime.address, read_secret(runtime.secret), runtime.kind)
                    task = queue.take()
                except (FedmktError, OSError) as error:
                    if is_heard:
                        _LOGGER.warning("no tasks: %s", error)
                    is_heard, queue = False, None
                    continue
                if not is_heard:
                    _LOGGER.info("tasks can be taken again")
                is_heard = True
                if task is not None:
                    self._give(*task)
        finally:
            self._end_workers()

    def end(self, number: int = 0, frame: FrameType | None = None) -> None:
        """End soon."""
        self._is_ending.set()
        self._is_due.set()

    def _give(self, run: int, token: str) -> None:
        worker = self._workers.get(run)
        if worker is None or worker.poll() is not None:
            if len(self._workers) >= MOST_WORKERS:
                _LOGGER.warning("a run is left alone: %d are at work", len(self._workers))
                return
            worker = subprocess.Popen(
                [sys.executable, "-m", "fedmkt.deploy.worker", self._role, str(self._root)],
                stdin=subprocess.PIPE,
            )
            self._workers[run] = worker
        if worker.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.write(f"{token}\n".encode())
                worker.stdin.flush()

    def _forget_ended(self) -> None:
        for run, worker in list(self._workers.items()):
            code = worker.poll()
            if code is not None:
                del self._workers[run]
                if worker.stdin is not None:
                    with contextlib.suppress(BrokenPipeError):
                        worker.stdin.close()
                if code != 0:
                    _LOGGER.warning("the worker of a run ended with %d", code)
                    self._is_due.set()

    def _end_workers(self) -> None:
        for worker in self._workers.values():
            if worker.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    worker.stdin.close()
        until = time.monotonic() + _END_SECONDS
        for worker in self._workers.values():
            try:
                worker.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def _every(self, seconds: float, look: Callable[[], None]) -> None:
        """Look every so many seconds, and at once if something is due."""
        while True:
            self._is_due.wait(seconds)
            self._is_due.clear()
            if self._is_ending.is_set():
                return
            try:
                look()
            except Exception as error:
                # Whatever it was, the next look may be better: nobody else keeps what we promised.
                text = error if isinstance(error, FedmktError) else type(error).__name__
                _LOGGER.warning("a look at the runs failed: %s", text)

    def _keep_promises(self) -> None:
        """At a party: say goodbye for a worker that died, so that the others need not wait for it."""
        folder = PartyFolder(self._root)
        for mark in sorted((folder.state / "serving").glob("*.json")):
            announce_end(folder, mark)

    def _keep_runs(self) -> None:
        """At the coordinator: take up a run again whose process died."""
        folder = CoordinatorFolder(self._root)
        for run in all_runs(folder.runs):
            if self._is_lost(folder, run):
                self._take_up(folder, run)

    def _is_lost(self, folder: CoordinatorFolder, run: RunFolder) -> bool:
        """Say whether a run is to go on and nobody is at work on it, now and at the look before.

        One that was submitted waits at Flower, or is in the hands of a worker that has not said so yet.
        """
        status = run.status()
        is_lost = not status.has_ended and not is_worker(status.process)
        if is_lost and status.state == "submitted" and not status.number:
            is_lost = (
                time.time() - status.updated > _SUBMIT_SECONDS
            )  # else a command is about to hand it over
        elif is_lost and status.state == "submitted":
            with contextlib.closing(control_of(folder)) as control:
                is_lost = control.status(status.number) != "pending" and status.number not in self._workers
        was_lost = run.name in self._lost
        (self._lost.add if is_lost else self._lost.discard)(run.name)
        return is_lost and (was_lost or status.state == "running")

    def _take_up(self, folder: CoordinatorFolder, run: RunFolder) -> None:
        status = run.status()
        if run.stop.exists():
            run.write(replace(status, state="stopped", error="stopped by the operator", exit_code=130))
        elif status.taken_up >= run.signed().contract.limits.max_resumes + _SPARE:
            error = f"its process ended {status.taken_up} times; see the executor's log"
            run.write(replace(status, state="failed", error=error, exit_code=TransportError.exit_code))
        else:
            _LOGGER.warning("%s: its process has ended; it is taken up again", run.name)
            submit(folder, run, replace(status, taken_up=status.taken_up + 1))
        self._lost.discard(run.name)


def submit(folder: CoordinatorFolder, run: RunFolder, status: RunStatus) -> None:
    """Hand a run over to Flower, and write down that it was."""
    status = replace(status, state="submitted", number=0, error="", exit_code=0, process=0)
    run.write(status)  # before: what the run's own process writes later must not be overwritten
    with contextlib.closing(control_of(folder)) as control:
        number = control.start(run.name)
    if run.status() == replace(status, updated=run.status().updated):
        run.write(replace(status, number=number))


def control_of(folder: CoordinatorFolder) -> Control:
    """Dial the own SuperLink."""
    settings = load_coordinator_folder(folder)
    return Control(f"127.0.0.1:{settings.superlink_port}", folder.authority.read_bytes())


def main(arguments: list[str]) -> int:
    """Run the executor of a folder until SIGTERM."""
    log_to_stderr()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every look at the queue
    if len(arguments) != 2 or arguments[0] not in ROLES:
        print(__doc__)
        return 2
    executor = Executor(arguments[0], Path(arguments[1]))
    signal.signal(signal.SIGTERM, executor.end)
    signal.signal(signal.SIGINT, executor.end)
    try:
        executor.run()
    except FedmktError as error:
        _LOGGER.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
