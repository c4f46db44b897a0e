"""The console as a program: its address, its end, and a port that is taken."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from fedmkt.cli.roles import ACCOUNT, COMMANDS, PASSWORD_FILE
from fedmkt.console.serve import serve_console
from fedmkt.deploy.folders import PartyFolder
from fedmkt.errors import ConfigError
from fedmkt.party.acts_log import read_acts
from tests.console.world import WORD, add_accounts
from tests.deploy.signers import write_party

SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_party(tmp_path / "bank", "bank")
    add_accounts(folder)
    return folder


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow, id="slow: a second process, by Ctrl-C"),
    ],
)
def test_it_serves_this_machine_alone_until_it_is_told_to_end(folder: Path, number: int) -> None:
    word = folder.parent / "word"
    word.write_text(WORD)
    word.chmod(0o600)
    environment = {**os.environ, ACCOUNT: "olga", PASSWORD_FILE: str(word), "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-m", "fedmkt", "console", "--dir", str(folder), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as program:
        deadline = threading.Timer(SECONDS, program.kill)
        deadline.start()
        try:
            assert program.stdout is not None and program.stderr is not None
            address = program.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            answer = httpx.get(f"{address}sign-in", timeout=SECONDS)
            assert answer.status_code == 200 and "server" not in answer.headers
            assert httpx.get(address, headers={"host": "evil.example"}, timeout=SECONDS).status_code == 421
            with (
                pytest.raises(OSError),
                socket.create_connection(("127.0.0.2", int(address[17:-1])), timeout=5),
            ):
                pass
            program.send_signal(number)
            assert program.wait(SECONDS) == 0
            assert program.stderr.read() == ""
        finally:
            deadline.cancel()
            program.kill()
    said = [(a.type, a.body.get("outcome")) for a in read_acts(folder / "state").acts]
    assert said == [("act.begun", None), ("act.ended", "done")]


def test_a_port_that_is_taken_is_one_line(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        commands = {name: may.roles for name, may in COMMANDS.items()}
        with pytest.raises(ConfigError, match=f"port {port}: Address already in use"):
            serve_console(PartyFolder(folder), port, commands, "machine", print)
