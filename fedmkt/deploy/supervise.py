"""Keep the programs of one folder running: in order, restarted when they die, ended together.

One supervisor per folder, held by a lock. Children are started from the main thread, since the kernel ends them
with the thread that started them: a killed supervisor takes them along.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from fedmkt.deploy.program import (
    FIRST_DELAY,
    GOOD,
    Child,
    Program,
    State,
    die_with_parent,
    now_text,
)
from fedmkt.deploy.program_log import LOG_BYTES, LOG_FILES, ProgramLog, Scrubber, forms_of
from fedmkt.errors import ConfigError

LONGEST_DELAY = 15.0
STEADY_SECONDS = 60.0
QUICK_DEATHS = 5
RECOVERED_SECONDS = 3.0
HEARTBEAT_SECONDS = 2.0
STATUS, LOCK = "status.json", "supervisor.lock"

_PAUSE = 0.1


class Supervisor:
    """Runs programs until SIGTERM, SIGINT or SIGHUP; a second signal does not wait for them.

    facts : stands in the status beside the programs, for example name and role.
    secrets : never on a command line, never in a log. say : gets the few lines for the terminal.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        state: Path,
        log: Path,
        facts: Mapping[str, object],
        *,
        secrets: Sequence[bytes] = (),
        say: Callable[[str], None] = lambda line: None,
        log_bytes: int = LOG_BYTES,
        log_files: int = LOG_FILES,
    ) -> None:
        check_commands(programs, secrets)
        scrubber = Scrubber(secrets)
        self._state, self._facts, self._say = state, dict(facts), say
        self._log = ProgramLog(log, scrubber, log_bytes, log_files)
        self._children = [Child(p, ProgramLog(p.log, scrubber, log_bytes, log_files)) for p in programs]
        self._since = now_text()
        self._signals = 0
        self._is_stopping = self._was_healthy = False
        self._written = 0.0
        self._report: dict[str, object] = {}
        self._make_report()

    def report(self) -> dict[str, object]:
        """Return the latest status; callable from other threads."""
        return self._report

    def run(self) -> None:
        """Start everything and stay until a signal; ConfigError if this folder has a supervisor already."""
        before = os.umask(0o077)  # what children write is ours alone
        try:
            with only_one(self._state), self._on_signals():
                try:
                    self._note(f"supervisor: started, pid {os.getpid()}")
                    self._watch()
                finally:
                    self._stop()
        finally:
            os.umask(before)

    def stop(self) -> None:
        """Ask `run` to end, as a signal does."""
        self._signals += 1

    def _watch(self) -> None:
        while not self._signals:
            is_changed = self._step()
            if is_changed or time.monotonic() - self._written >= HEARTBEAT_SECONDS:
                self._write_status()
            time.sleep(_PAUSE)

    def _step(self) -> bool:
        is_changed = False
        for child in self._children:
            is_changed |= self._tend(child, time.monotonic())
            if not child.was_ready:
                break
        return is_changed

    def _tend(self, child: Child, now: float) -> bool:
        if child.process is None:
            return child.state is not State.DONE and now >= child.next_start and self._start(child, now)
        if _has_ended(child.process.pid):
            return self._bury(child, now)
        if child.is_over:
            return self._let_go(child, child.process.pid, now)
        if not child.ready_at:
            return self._await_ready(child, now)
        if now - child.started >= STEADY_SECONDS:
            child.delay, child.quick_deaths = FIRST_DELAY, 0
        if child.quick_deaths >= QUICK_DEATHS and now - child.ready_at < RECOVERED_SECONDS:
            return False
        return self._settle(child)

    def _let_go(self, child: Child, pid: int, now: float) -> bool:
        """Ask a program that does nothing more to end, and kill it if it does not."""
        if not child.kill_at:
            child.kill_at = now + child.program.stop_seconds
            self._note(f"{child.program.name}: does nothing more, is ended")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        elif now > child.kill_at:
            _kill_group(pid)
        return child.set_state(State.OFFLINE)

    def _settle(self, child: Child) -> bool:
        is_changed = child.set_state(State.OFFLINE if child.is_offline else State.RUNNING)
        if is_changed:
            self._note(f"{child.program.name}: {child.state}")
        return is_changed

    def _start(self, child: Child, now: float) -> bool:
        program = child.program
        child.begin(now)
        parent = os.getpid()
        try:
            child.process = subprocess.Popen(
                program.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(program.environment),
                cwd=program.folder,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end them in order
                preexec_fn=lambda: die_with_parent(parent),
            )
        except (OSError, subprocess.SubprocessError) as error:
            return self._count_death(child, now, None, f"cannot be started: {type(error).__name__}")
        if child.process.stdout is not None:
            name = f"log of {program.name}"
            child.reader = threading.Thread(
                target=child.read, args=(child.process.stdout,), name=name, daemon=True
            )
            child.reader.start()
        self._note(f"{program.name}: started, pid {child.process.pid}")
        if child.quick_deaths < QUICK_DEATHS:
            child.set_state(State.STARTING)
        return True

    def _await_ready(self, child: Child, now: float) -> bool:
        program = child.program
        if not program.runs_once and child.is_ready(now):
            child.ready_at, child.was_ready = time.monotonic(), True
            return child.quick_deaths < QUICK_DEATHS and self._settle(child)
        if program.deadline is not None and now - child.started > program.deadline and child.process:
            self._note(f"{program.name}: not ready within {program.deadline:g} s, killed")
            _kill_group(child.process.pid)
        return False

    def _bury(self, child: Child, now: float) -> bool:
        code = self._reap(child)
        if child.program.runs_once and code == 0:
            child.was_ready = True
            child.exit = code
            self._note(f"{child.program.name}: done")
            return child.set_state(State.DONE)
        return self._count_death(child, now, code, child.why(code))

    def _reap(self, child: Child) -> int:
        process = child.process
        assert process is not None
        _kill_group(process.pid)  # what it started does not outlive it; its number is ours until it is reaped
        code = process.wait()
        if child.reader is not None:
            child.reader.join(1.0)
        child.process = child.reader = None
        return code

    def _count_death(self, child: Child, now: float, code: int | None, why: str) -> bool:
        is_quick = now - child.started < STEADY_SECONDS
        child.quick_deaths = child.quick_deaths + 1 if is_quick else 1
        child.delay = child.delay if is_quick else FIRST_DELAY
        child.exit, child.failed = code, now_text()
        child.error = f"{_ended(code)}: {why}" if why else _ended(code)
        child.restarts += 1
        child.next_start = now + child.delay
        name = child.program.name
        self._note(f"{name}: again in {child.delay:g} s: {child.error}")
        child.delay = min(2 * child.delay, LONGEST_DELAY)
        is_failing = child.quick_deaths >= QUICK_DEATHS
        if child.set_state(State.FAILING if is_failing else State.RESTARTING) and is_failing:
            self._say(f"{name}: failing, but tried on: {child.error}")
        return True

    def _note(self, line: str) -> None:
        self._log.write(line)

    # The end.

    def _stop(self) -> None:
        self._is_stopping = True
        for child in reversed(self._children):
            if child.process is not None:
                self._end(child)
            child.set_state(State.STOPPED)
            child.log.close()
            self._write_status()
        self._note("supervisor: stopped")
        self._log.close()

    def _end(self, child: Child) -> None:
        process = child.process
        assert process is not None
        child.set_state(State.STOPPING)
        self._write_status()
        asked = self._signals
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + child.program.stop_seconds
        while not _has_ended(process.pid) and time.monotonic() < deadline and self._signals <= max(asked, 1):
            time.sleep(0.02)
        if not _has_ended(process.pid):
            self._note(f"{child.program.name}: does not end, killed")
            _kill_group(process.pid)
        child.exit = self._reap(child)
        self._note(f"{child.program.name}: {_ended(child.exit)}")

    @contextlib.contextmanager
    def _on_signals(self) -> Iterator[None]:
        def asked(number: int, frame: FrameType | None) -> None:
            self._signals += 1

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = [signal.signal(number, asked) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    # What others can see.

    def _make_report(self) -> None:
        programs = [child.report() for child in self._children]
        self._report = {
            "version": 1,
            **self._facts,
            "state": self._overall(),
            "pid": os.getpid(),
            "since": self._since,
            "heartbeat": now_text(),
            "programs": programs,
        }

    def _overall(self) -> str:
        states = [child.state for child in self._children]
        if self._is_stopping:
            return "stopped" if all(state is State.STOPPED for state in states) else "stopping"
        if all(state in GOOD for state in states):
            return "healthy"
        if State.FAILING in states:
            return "failing"
        return "degraded" if self._was_healthy else "starting"

    def _write_status(self) -> None:
        self._make_report()
        self._written = time.monotonic()
        if self._report["state"] == "healthy" and not self._was_healthy:
            self._was_healthy = True
            self._say("healthy")
        path = self._state / STATUS
        beside = path.with_name(path.name + ".new")
        # A full disk must not end what runs; the health endpoint still tells the truth.
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps(self._report, indent=2, ensure_ascii=False) + "\n", "utf-8")
            os.replace(beside, path)


def check_commands(programs: Sequence[Program], secrets: Sequence[bytes]) -> None:
    """ValueError if a secret stands on a command line, where everybody on this machine can read it."""
    for program in programs:
        for form in (form for secret in secrets for form in forms_of(secret)):
            if any(form in part for part in program.command):
                raise ValueError(f"{program.name}: a secret stands on its command line")


@contextlib.contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the folder's lock; ConfigError if another supervisor does."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{state.parent}: fedmkt is already up here", "see its status, or end it"
            ) from None
        yield
    finally:
        os.close(descriptor)


def is_up(state: Path) -> bool:
    """Say whether a supervisor holds the folder's lock."""
    try:
        descriptor = os.open(state / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _has_ended(pid: int) -> bool:
    """Say whether a child has ended, and leave its number in use."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _ended(code: int | None) -> str:
    if code is None:
        return "not started"
    return f"ended with {code}" if code >= 0 else f"ended by {_signal_name(-code)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
