import contextlib
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedmkt.deploy.program import Program
from fedmkt.deploy.program_log import HIDDEN, ProgramLog, Scrubber
from fedmkt.deploy.supervise import check_commands, is_up, only_one
from fedmkt.errors import ConfigError
from fedmkt.transport.health import HealthServer, ask_health, is_healthy

# The supervisor owns its process (signals, umask), so the tests run it in one of its own; programs come as JSON.
HARNESS = """
import json, os, sys
from pathlib import Path
from fedmkt.deploy import program, supervise
from fedmkt.errors import ConfigError
root, programs, settings = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
program.STOP_SECONDS = 1.0
for name, value in settings.items():
    setattr(supervise, name, value)
made = []
for name, code, extra in programs:
    ready = extra.pop("ready_file", None)
    if ready:
        extra["ready"] = (root / ready).exists
    made.append(program.Program(
        name=name, command=(sys.executable, "-u", "-c", code), environment=dict(os.environ), folder=root,
        log=root / "logs" / (name + ".log"), **extra))
supervisor = supervise.Supervisor(
    made, root / "state", root / "logs" / "supervisor.log", {"name": "test"}, say=print,
    log_bytes=2000, log_files=3)
try:
    supervisor.run()
except ConfigError as error:
    print("fedmkt: error:", error)
    sys.exit(error.exit_code)
"""
SLEEPS = "import time\nwhile True: time.sleep(0.1)"
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\n" + SLEEPS
Made = tuple[str, str, dict[str, object]]


class Supervised:
    """A supervisor in a process of its own."""

    def __init__(self, root: Path, programs: list[Made], **settings: float) -> None:
        self.root = root
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HARNESS, str(root), json.dumps(programs), json.dumps(settings)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def status(self) -> dict[str, object]:
        try:
            return dict(json.loads((self.root / "state" / "status.json").read_text()))
        except FileNotFoundError:
            return {"state": "none", "programs": []}

    def program(self, name: str) -> dict[str, object]:
        programs = self.status()["programs"]
        assert isinstance(programs, list)
        return next((p for p in programs if p["name"] == name), {})

    def pid(self, name: str) -> int:
        found = self.program(name).get("pid")
        return found if isinstance(found, int) else 0

    def wait(self, is_so: Callable[[], object], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.05)

    def wait_healthy(self) -> None:
        self.wait(lambda: self.status()["state"] == "healthy")

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read()


Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Supervised] = []

    def begin(*programs: Made, **settings: float) -> Supervised:
        running.append(Supervised(tmp_path, list(programs), **settings))
        return running[-1]

    yield begin
    for supervised in running:
        if supervised.process.poll() is None:
            supervised.process.kill()
        supervised.process.wait(10)
        if supervised.process.stdout:
            supervised.process.stdout.close()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def log(root: Path, name: str) -> str:
    with contextlib.suppress(FileNotFoundError):
        return (root / "logs" / f"{name}.log").read_text()
    return ""


def test_each_program_waits_until_the_one_before_is_ready(start: Start, tmp_path: Path) -> None:
    slow = "import pathlib, time\ntime.sleep(0.6)\npathlib.Path('mark').touch()\n" + SLEEPS
    late = "import pathlib\nprint('there' if pathlib.Path('mark').exists() else 'too early')\n" + SLEEPS
    supervised = start(("first", slow, {"ready_file": "mark"}), ("second", late, {}))
    supervised.wait_healthy()
    assert log(tmp_path, "second").strip().endswith("there")


def test_a_line_of_output_can_say_that_a_program_is_ready(start: Start, tmp_path: Path) -> None:
    slow = "import time\ntime.sleep(0.7)\nprint('node 17 is online')\n" + SLEEPS
    supervised = start(("first", slow, {"ready_line": r"node \d+ is online"}), ("second", SLEEPS, {}))
    supervised.wait(lambda: supervised.program("first").get("state") == "starting")
    assert supervised.program("second")["state"] == "waiting"
    supervised.wait_healthy()


def test_a_program_that_must_run_once_is_tried_until_it_succeeds(start: Start, tmp_path: Path) -> None:
    once = "import pathlib, sys\np = pathlib.Path('n')\nn = int(p.read_text()) if p.exists() else 0\n"
    once += "p.write_text(str(n + 1))\nsys.exit(0 if n == 2 else 6)"
    supervised = start(("once", once, {"runs_once": True}), ("next", SLEEPS, {}), FIRST_DELAY=0.05)
    supervised.wait_healthy()
    assert (tmp_path / "n").read_text() == "3"
    assert supervised.program("once")["state"] == "done" and supervised.program("once")["restarts"] == 2


def test_a_killed_program_is_started_again(start: Start, tmp_path: Path) -> None:
    supervised = start(("first", SLEEPS, {}), ("second", SLEEPS, {}))
    supervised.wait_healthy()
    first, second = supervised.pid("first"), supervised.pid("second")
    os.kill(first, signal.SIGKILL)
    supervised.wait(lambda: supervised.pid("first") not in (0, first))
    supervised.wait_healthy()
    assert supervised.pid("second") == second
    assert supervised.program("first")["restarts"] == 1
    assert supervised.program("first")["error"] == "ended by SIGKILL"


def test_a_restart_takes_what_the_program_had_started_along(start: Start, tmp_path: Path) -> None:
    parent = f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', {SLEEPS!r}])\n"
    parent += "open('inner', 'w').write(str(p.pid))\nprint('begun')\n" + SLEEPS
    supervised = start(("outer", parent, {"ready_line": "begun"}))
    supervised.wait_healthy()
    inner = int((tmp_path / "inner").read_text())
    assert is_alive(inner)
    os.kill(supervised.pid("outer"), signal.SIGKILL)
    supervised.wait(lambda: not is_alive(inner))


def test_a_program_that_keeps_dying_is_failing_and_tried_on_with_growing_delays(
    start: Start, tmp_path: Path
) -> None:
    dies = "import sys, time\nopen('starts', 'a').write(f'{time.time()}\\n')\n"
    dies += "print('Error: the disk is upside down')\nprint('good bye')\nsys.exit(3)"
    supervised = start(("bad", dies, {}), FIRST_DELAY=0.1, LONGEST_DELAY=0.8)
    supervised.wait(lambda: supervised.status()["state"] == "failing")
    found = supervised.program("bad")
    assert found["exit"] == 3 and found["error"] == "ended with 3: Error: the disk is upside down"
    restarts = found["restarts"]
    assert isinstance(restarts, int) and restarts >= 5
    supervised.wait(lambda: int(str(supervised.program("bad")["restarts"])) >= restarts + 2)
    assert supervised.end() == 0
    assert supervised.said().count("failing") == 1
    starts = [float(line) for line in (tmp_path / "starts").read_text().split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(gap >= least for gap, least in zip(gaps, [0.1, 0.2, 0.4, 0.8, 0.8], strict=False))
    assert max(gaps) < 2.5


def test_the_meaning_of_a_line_is_shown_instead_of_the_line(start: Start) -> None:
    dies = "import sys\nprint('Exit Code: 305')\nprint('some Error')\nsys.exit(1)"
    supervised = start(("node", dies, {"meanings": {"Exit Code: 305": "the lease has not run out"}}))
    supervised.wait(lambda: supervised.program("node").get("error"))
    assert supervised.program("node")["error"] == "ended with 1: the lease has not run out"


def test_a_program_that_is_never_ready_is_killed_at_its_deadline(start: Start, tmp_path: Path) -> None:
    supervised = start(("hangs", SLEEPS, {"ready_file": "never", "deadline": 0.5}), FIRST_DELAY=0.1)
    supervised.wait(lambda: int(str(supervised.program("hangs").get("restarts", 0))) >= 2)
    assert "not ready within 0.5 s" in log(tmp_path, "supervisor")


def test_a_program_that_says_it_is_over_but_stays_is_ended_and_started_again(
    start: Start, tmp_path: Path
) -> None:
    gives_up = "import time\nprint('node 1')\ntime.sleep(1)\nprint('giving up')\n" + SLEEPS
    options = {"ready_line": "node", "over_line": "giving up", "meanings": {"giving up": "the line broke"}}
    supervised = start(("node", gives_up, options), FIRST_DELAY=0.1)
    supervised.wait(lambda: supervised.program("node").get("restarts"))
    assert supervised.program("node")["error"] == "ended by SIGTERM"
    assert "node: does nothing more, is ended" in log(tmp_path, "supervisor")


def test_a_program_that_lost_its_other_end_makes_the_whole_unhealthy(start: Start, tmp_path: Path) -> None:
    node = "import pathlib, time\nprint('online')\nwhile not pathlib.Path('cut').exists(): time.sleep(0.05)\n"
    node += (
        "print('retrying')\nwhile pathlib.Path('cut').exists(): time.sleep(0.05)\nprint('online')\n" + SLEEPS
    )
    lines = {"ready_line": "online", "offline_line": "retrying", "online_line": "online"}
    supervised = start(("node", node, lines))
    supervised.wait_healthy()
    (tmp_path / "cut").touch()
    supervised.wait(lambda: supervised.status()["state"] == "degraded")
    assert supervised.program("node")["state"] == "offline"
    (tmp_path / "cut").unlink()
    supervised.wait_healthy()
    assert supervised.program("node")["restarts"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_in_reverse_order_within_seconds(start: Start, tmp_path: Path, number: int) -> None:
    polite = "import signal, sys, time\n"
    polite += "signal.signal(signal.SIGTERM, lambda *a: (open('ends', 'a').write('NAME '), sys.exit(0)))\n"
    made = [(name, polite.replace("NAME", name) + SLEEPS, {}) for name in ("one", "two", "three")]
    supervised = start(*made)
    supervised.wait_healthy()
    pids = [supervised.pid(name) for name, *_ in made]
    before = time.monotonic()
    assert supervised.end(number) == 0
    assert time.monotonic() - before < 5
    assert not any(is_alive(pid) for pid in pids)
    assert (tmp_path / "ends").read_text().split() == ["three", "two", "one"]
    assert supervised.status()["state"] == "stopped"


def test_a_program_that_ignores_the_signal_is_killed(start: Start, tmp_path: Path) -> None:
    supervised = start(("deaf", STUBBORN, {"ready_line": "deaf", "stop_seconds": 0.5}))
    supervised.wait_healthy()
    pid = supervised.pid("deaf")
    assert supervised.end() == 0
    assert not is_alive(pid) and "does not end, killed" in log(tmp_path, "supervisor")


def test_a_killed_supervisor_takes_its_children_along(start: Start) -> None:
    supervised = start(("polite", SLEEPS, {}), ("deaf", STUBBORN, {"ready_line": "deaf"}))
    supervised.wait_healthy()
    pids = [supervised.pid("polite"), supervised.pid("deaf")]
    supervised.process.kill()
    supervised.process.wait(5)
    supervised.wait(lambda: not any(is_alive(pid) for pid in pids), 5)
    assert not is_up(supervised.root / "state")


def test_a_second_supervisor_of_a_folder_is_refused_with_one_line(start: Start, tmp_path: Path) -> None:
    first = start(("only", SLEEPS, {}))
    first.wait_healthy()
    second = start(("only", SLEEPS, {}))
    assert second.process.wait(20) == ConfigError.exit_code
    assert second.said() == f"fedmkt: error: {tmp_path}: fedmkt is already up here\n"
    assert first.status()["state"] == "healthy" and is_up(tmp_path / "state")


def test_the_lock_is_free_after_the_end_of_its_holder(tmp_path: Path) -> None:
    with only_one(tmp_path):
        assert is_up(tmp_path)
        with pytest.raises(ConfigError, match="already up"), only_one(tmp_path):
            pass
    assert not is_up(tmp_path)


def test_the_heartbeat_goes_on_while_nothing_changes(start: Start) -> None:
    supervised = start(("only", SLEEPS, {}), HEARTBEAT_SECONDS=0.3)
    supervised.wait_healthy()
    first = supervised.status()["heartbeat"]
    supervised.wait(lambda: supervised.status()["heartbeat"] != first, 5)


def test_logs_rotate_and_old_ones_go(start: Start, tmp_path: Path) -> None:
    talks = "for i in range(400): print('line', i, 'x' * 40)\nprint('said all')\n" + SLEEPS
    supervised = start(("talks", talks, {"ready_line": "said all"}))
    supervised.wait_healthy()
    supervised.end()
    files = sorted(path.name for path in (tmp_path / "logs").glob("talks.log*"))
    assert files == ["talks.log", "talks.log.1", "talks.log.2", "talks.log.3"]
    assert all((tmp_path / "logs" / name).stat().st_size <= 2000 for name in files)
    assert all((tmp_path / "logs" / name).stat().st_mode & 0o077 == 0 for name in files)


def test_no_token_reaches_a_log_or_the_status(start: Start, tmp_path: Path) -> None:
    token = secrets.token_hex(128)
    talks = f"import sys\nprint('Error: token {token} refused')\nsys.exit(1)"
    supervised = start(("talks", talks, {}), FIRST_DELAY=0.1)
    supervised.wait(lambda: supervised.program("talks").get("error"))
    supervised.end()
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert token[:32] not in written and f"Error: token {HIDDEN} refused" in written


@pytest.mark.parametrize(
    "token",
    [
        "9f3c1b7e2a60d58c" * 4,
        "9f3c1b7e2a60d58c" * 16,
        "kQzl0bYkI5m1i8bVw2Xn7pEoR4sTuA9cDfGhJ6KxLvM",
        "MHcCAQEEIBm9y+0sVJk/3X5aQmEo1H2tZ8uW7vPq4rLc6NfKdYgToAoGCCqGSM49",
    ],
)
def test_what_looks_like_a_secret_is_hidden(token: str) -> None:
    assert Scrubber().scrub(f"key={token}, next") in (f"key={HIDDEN}, next", f"{HIDDEN}, next")


@pytest.mark.parametrize(
    "line",
    [
        "INFO : SuperNode ID: 9384573874339969121",
        "/opt/fedmkt/lib/fedmkt/transport/flower_simulation.py:120 in run",
        "run 3f2b9c0d4e5f6a7b on 2026-11-22T07:39:20.863Z for bank-and-partner-campaign-spring",
        "550e8400-e29b-41d4-a716-446655440000",
        "fingerprint 08eb b349 ec4d 82f8 71cf 4a37 5d45 fc5c",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert Scrubber().scrub(line) == line


def test_a_secret_that_was_told_is_hidden_in_each_form() -> None:
    scrubber = Scrubber([b"correct horse", bytes(range(16))])
    assert scrubber.scrub("it is correct horse!") == f"it is {HIDDEN}!"
    assert scrubber.scrub("it is 000102030405060708090a0b0c0d0e0f!") == f"it is {HIDDEN}!"
    assert "horse" not in repr(scrubber)


def test_control_characters_cannot_forge_a_line_or_colour_a_terminal(tmp_path: Path) -> None:
    written = ProgramLog(tmp_path / "a.log", Scrubber())
    written.write("\x1b[31mred\x1b[0m\nforged\r\x07\u2028line")
    written.close()
    (line,) = (tmp_path / "a.log").read_text().splitlines()
    assert line.endswith("red forged  \u0020line".replace("\u0020line", " line"))


def test_a_full_disk_does_not_stop_the_writer(tmp_path: Path) -> None:
    (tmp_path / "full.log").symlink_to("/dev/full")
    written = ProgramLog(tmp_path / "full.log", Scrubber(), size=0)
    assert written.write("a line") == "a line"
    with contextlib.suppress(OSError):
        written.close()


def test_a_secret_on_a_command_line_is_refused(tmp_path: Path) -> None:
    program = Program("bad", ("run", "--token=hunter2hunter2"), {}, tmp_path, tmp_path / "log")
    with pytest.raises(ValueError, match="bad: a secret stands on its command line") as caught:
        check_commands([program], [b"hunter2hunter2"])
    assert "hunter2" not in str(caught.value)


def test_health_answers_200_only_when_everything_runs() -> None:
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    report = {"state": "healthy", "heartbeat": now.isoformat()}
    assert is_healthy(report, now)
    assert not is_healthy(report, now + timedelta(minutes=1))
    assert not is_healthy({**report, "state": "degraded"}, now)
    assert not is_healthy({"state": "healthy"}, now)
    server = HealthServer(0, lambda: report)
    try:
        assert ask_health(server.port) == report
        assert _code(server.port, "/health") == 200
        assert _code(server.port, "/status") == 404
        report["state"] = "failing"
        assert _code(server.port, "/health") == 503
        with pytest.raises(ConfigError, match=f"health_port {server.port}"):
            HealthServer(server.port, lambda: report)
    finally:
        server.close()
    assert ask_health(server.port) is None


def _code(port: int, path: str) -> int:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
