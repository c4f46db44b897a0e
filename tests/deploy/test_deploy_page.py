"""The page docs/deploy.md is followed word by word, as three people with a telephone would."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "deploy.md"
NAMES = ("coordinator", "bank", "partner")


@dataclass(frozen=True)
class Block:
    """One block of the page: `kind` console, sh or toml, and the number of its section."""

    section: int
    kind: str
    text: str


def blocks() -> list[Block]:
    section, found = 0, []
    parts = re.split(r"^(## \d+|```\w*$.*?^```$)", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    for part in parts:
        if part.startswith("## "):
            section = int(part[3:])
        elif part.startswith("```"):
            kind, _, text = part[3:].partition("\n")
            found.append(Block(section, kind, text.removesuffix("```")))
    return found


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class Reader:
    """Somebody who types what the page says; `up` stays in the background."""

    folder: Path
    said: dict[str, str] = field(default_factory=dict)
    up: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def follow(self, block: Block) -> None:
        if block.kind == "toml":
            self.write(block.text)
        elif block.kind == "sh":
            command = ["bash", "-euc", block.text]
            subprocess.run(command, cwd=self.folder, check=True, timeout=60, capture_output=True)
        else:
            for line in re.findall(r"^\$ (.*)$", block.text, re.MULTILINE):
                self.type(line)

    def write(self, text: str) -> None:
        name = text.splitlines()[0].removeprefix("# ")
        path = self.folder / name
        if name.endswith("coordinator.toml"):  # the page shows what to change in it
            (purposes,) = re.findall(r"^purposes = .*$", text, re.MULTILINE)
            path.write_text(re.sub(r"^purposes = .*$", purposes, path.read_text(), flags=re.MULTILINE))
        else:
            path.write_text(text)

    def type(self, line: str) -> None:
        words = shlex.split(line, comments=True)
        assert words[0] == "fedmkt"
        command = [sys.executable, "-m", "fedmkt", *words[1:]]
        if words[2:3] == ["up"]:
            with (self.folder / f"{words[-1]}.up").open("wb") as log:
                self.up[words[-1]] = subprocess.Popen(
                    command, cwd=self.folder, env=self.environment, stdout=log, stderr=log
                )
            return
        if self.up and words[2:3] == ["status"]:
            self.wait_until_healthy()
        self.said[line] = self.answer_yes(command, line)
        if words[2:3] == ["init"] and "--rotate" not in words:
            self.take_free_ports(words)

    def answer_yes(self, command: list[str], line: str) -> str:
        """Run a command with a terminal as its input, at which somebody types y."""
        ours, theirs = os.openpty()
        os.write(ours, b"y\n")
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=theirs,
                capture_output=True,
                text=True,
                timeout=240,
            )
        finally:
            os.close(ours)
            os.close(theirs)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def take_free_ports(self, words: list[str]) -> None:
        """Take ports that nothing else on this machine uses: the page has the defaults."""
        side = words[1]
        path = self.folder / words[-1] / f"{side}.toml"
        text = path.read_text()
        names = re.findall(r"^(\w+_port) = \d+", text, re.MULTILINE)
        for name, port in zip(names, free_ports(len(names)), strict=True):
            text = re.sub(rf"^{name} = \d+", f"{name} = {port}", text, flags=re.MULTILINE)
        path.write_text(text)

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + 120
        for name in NAMES:
            side = "coordinator" if name == "coordinator" else "party"
            command = [sys.executable, "-m", "fedmkt", side, "status", "--dir", name]
            while subprocess.run(
                command, cwd=self.folder, env=self.environment, capture_output=True
            ).returncode:
                assert time.monotonic() < deadline, (self.folder / f"{name}.up").read_text()
                time.sleep(0.5)

    def stop(self) -> None:
        for program in self.up.values():
            program.send_signal(signal.SIGTERM)
        for program in self.up.values():
            try:
                program.wait(45)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait(10)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    found = Reader(tmp_path_factory.mktemp("deploy"))
    yield found
    found.stop()


@pytest.mark.slow
def test_the_page_leads_to_a_joint_model_scores_and_an_audit(reader: Reader) -> None:
    for block in blocks():
        if 2 <= block.section <= 10 or (block.section == 1 and "fedmkt demo" in block.text):
            reader.follow(block)
    said = reader.said
    assert "complete: all have signed" in said["fedmkt contract sign spring.contract.toml --dir coordinator"]
    assert "who may learn what" in said["fedmkt contract sign spring.contract.toml --dir bank"]
    assert "common customers: between" in said["fedmkt run spring.contract.toml --dir coordinator --wait"]
    assert "completed" in said["fedmkt audit verify audit"]
    assert "one log of 3" in said["fedmkt audit verify bank"]
    assert "learned nothing" not in said["fedmkt disclosures bank"]
    assert Path(reader.folder / said["fedmkt report bank"].strip()).read_text().startswith("<!DOCTYPE html>")
    assert (reader.folder / "scores.csv").read_text().startswith("row,set,score,decile,probability\n")
    for config in ("coordinator/coordinator.toml", "bank/party.toml", "partner/party.toml"):
        assert "is ready" in said[f"fedmkt preflight --config {config}"]
    for block in blocks():
        if block.section == 12:  # rotation, then revocation
            reader.follow(block)
    # SuperLink was told at once, both times.
    assert "registered\n" in said["fedmkt coordinator admit bank/bank.request --dir coordinator"]
    assert "bank is revoked\nnode: refused now" in said["fedmkt coordinator revoke bank --dir coordinator"]
    reader.stop()
    for name in NAMES:
        assert (reader.folder / f"{name}.up").read_text().splitlines()[-1] == "stopped"
        assert reader.up[name].returncode == 0


def test_the_page_writes_every_file_that_a_person_has_to_fill_in() -> None:
    written = {block.text.splitlines()[0].removeprefix("# ") for block in blocks() if block.kind == "toml"}
    parties = {f"{name}/{file}" for name in ("bank", "partner") for file in ("schema.toml", "policy.toml")}
    assert written == {"coordinator/coordinator.toml", *parties}


def test_the_page_has_a_section_for_everything_that_an_operator_meets() -> None:
    text = PAGE.read_text()
    for word in (
        "firewall", "telephone", "Rotation", "Revocation", "Upgrade", "Must be saved", "Never saved", "--resume",
        "fedmkt stop", "preflight", "systemd", "compose.yaml", "health",
    ):  # fmt: skip
        assert word in text
