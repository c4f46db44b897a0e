"""One program that a supervisor keeps running: what it is, and what its process did so far."""

import ctypes
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO

from fedmkt.deploy.program_log import LONGEST_LINE, ProgramLog

FIRST_DELAY = 0.5
STOP_SECONDS = 10.0
_ALIVE_SECONDS = 0.5  # how long a program without a sign of readiness has to live
_LINE_SHOWN = 300
_COMPLAINT = re.compile(
    r"\b(error|errno|exception|critical|fatal|cannot|refused|exit code)\b|Error\b", re.IGNORECASE
)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class State(StrEnum):
    """How a program stands; `offline` runs without its other end, `done` was to end and did."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    OFFLINE = "offline"
    RESTARTING = "restarting"
    FAILING = "failing"
    DONE = "done"
    STOPPING = "stopping"
    STOPPED = "stopped"


GOOD = (State.RUNNING, State.DONE)


@dataclass(frozen=True)
class Program:
    """One child process. `environment` is all that it gets.

    ready : asked until it says yes; it answers within a second. ready_line : a pattern in its output instead.
    offline_line, online_line : patterns in its output that say that it lost, and found, its other end.
    over_line : a pattern after which it does nothing more although it stays: it is ended, and started again.
    deadline : seconds after which one that is not ready is killed and started again; None for never.
    runs_once : it is ready when it ends with 0, and is not started again.
    stop_seconds : it has between SIGTERM and SIGKILL.
    meanings : patterns in its output, and what they mean once it has ended.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    ready: Callable[[], bool] | None = None
    ready_line: str | None = None
    offline_line: str | None = None
    online_line: str | None = None
    over_line: str | None = None
    deadline: float | None = 60.0
    runs_once: bool = False
    stop_seconds: float = STOP_SECONDS
    meanings: Mapping[str, str] = field(default_factory=dict)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when `parent`, which started it, is gone; called in the child."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before we could ask
        os.kill(os.getpid(), signal.SIGKILL)


class Child:
    """A program, its process if it has one, and what happened so far."""

    def __init__(self, program: Program, log: ProgramLog) -> None:
        self.program = program
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.reader: threading.Thread | None = None
        self.state = State.WAITING
        self.since = now_text()
        self.restarts = 0
        self.quick_deaths = 0
        self.delay = FIRST_DELAY
        self.next_start = 0.0
        self.started = self.ready_at = 0.0
        self.was_ready = False
        self.exit: int | None = None
        self.line = self.complaint = self.error = self.failed = ""
        self.is_said_ready = self.is_offline = self.is_explained = self.is_over = False
        self.kill_at = 0.0
        self._patterns = [
            re.compile(text) if text else None
            for text in (program.ready_line, program.offline_line, program.online_line, program.over_line)
        ]

    def read(self, pipe: IO[bytes]) -> None:
        """Write what the process says to its log; runs on a thread of its own until the process ends."""
        ready, offline, online, over = self._patterns
        with pipe:
            for raw in iter(lambda: pipe.readline(LONGEST_LINE), b""):
                line = self.log.write(raw.decode("utf-8", "replace"))
                if not line:
                    continue
                self.line = line[:_LINE_SHOWN]
                self._keep_complaint(self.line)
                if ready and ready.search(line):
                    self.is_said_ready = True
                if offline and offline.search(line):
                    self.is_offline = True
                if online and online.search(line):
                    self.is_offline = False
                if over and over.search(line):
                    self.is_over = True

    def _keep_complaint(self, line: str) -> None:
        meant = next(
            (text for pattern, text in self.program.meanings.items() if re.search(pattern, line)), ""
        )
        if self.is_explained:  # what was understood first is the cause of the rest
            return
        if meant:
            self.complaint, self.is_explained = meant, True
        elif _COMPLAINT.search(line):
            self.complaint = line

    def why(self, code: int) -> str:
        """Say why it ended: what its output means, its last complaint, or else its last line."""
        return "" if code < 0 else self.complaint or self.line

    def begin(self, now: float) -> None:
        """Forget what the process before said."""
        self.started, self.ready_at, self.kill_at = now, 0.0, 0.0
        self.is_said_ready = self.is_offline = self.is_explained = self.is_over = False
        self.line = self.complaint = ""

    def is_ready(self, now: float) -> bool:
        """Say whether the next program may start."""
        if self.program.ready_line is not None:
            return self.is_said_ready
        if self.program.ready is not None:
            return self.program.ready()
        return now - self.started >= _ALIVE_SECONDS

    def set_state(self, state: State) -> bool:
        """Change the state; tells whether it is another one."""
        if state is self.state:
            return False
        self.state, self.since = state, now_text()
        return True

    def report(self) -> dict[str, object]:
        """Return the facts that the status shows."""
        return {
            "name": self.program.name,
            "state": self.state.value,
            "since": self.since,
            "pid": self.process.pid if self.process else None,
            "restarts": self.restarts,
            "exit": self.exit,
            "error": self.error,
            "failed": self.failed,
            "line": self.line,
        }


def now_text() -> str:
    """Return the time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
