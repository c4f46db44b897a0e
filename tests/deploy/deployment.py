"""A whole deployment on loopback: folders, keys, certificates, a contract, and the real programs as processes.

    with Deployment(folder, job) as it:      provisioned with the real commands, programs running and ready
        status = it.run()                     `fedmkt run CONTRACT --wait --json`
        it.worker("bank")                     the process that serves the run at the bank

Every command is the one that a person types; every process is ended by its number at the end.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from fedmkt.config.files import parse_job
from fedmkt.config.job import JobConfig
from fedmkt.config.tables import BankConfig

ROOT = Path(__file__).resolve().parents[2]
FEDMKT = (sys.executable, "-m", "fedmkt")
COORDINATOR = "coordinator"


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def fedmkt(*arguments: object, code: int = 0, timeout: float = 120) -> str:
    """Run a command of fedmkt; returns what it printed."""
    done = subprocess.run(
        [*FEDMKT, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Deployment:
    """Coordinator, bank and partners of one job, each in a folder of its own."""

    def __init__(
        self, folder: Path, job: Path, *, channel: str = "hub", rehearsal: bool = True,
        dialled: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        """dialled : by party, other ports than the coordinator's for front and hub (of a proxy between)."""
        self.folder = folder
        self.job_file = job
        self.job: JobConfig = parse_job(job.read_text(), str(job))
        self.channel = channel
        self.rehearsal = rehearsal
        self.names = [p.name for p in self.job.parties]
        self.front, self.hub, self.superlink, self.health, *rest = free_ports(4 + 2 * len(self.names))
        self.ports = {n: (rest[2 * i], rest[2 * i + 1]) for i, n in enumerate(self.names)}
        self.dialled = dict(dialled or {})
        self.ups: dict[str, subprocess.Popen[bytes]] = {}

    # ------------------------------------------------------------------------------------------- folders

    def place(self, name: str) -> Path:
        """Return a participant's folder."""
        return self.folder / name

    @property
    def contract(self) -> Path:
        """The signed contract."""
        return self.place(COORDINATOR) / "contracts" / f"{self.job.name}.toml"

    def provision(self) -> None:
        """Make keys, certificates, settings and the contract, with the commands that people use."""
        organisation = self.job.coordinator.organisation
        home, limits = self.place(COORDINATOR), self.job.limits
        made = json.loads(
            fedmkt("coordinator", "init", COORDINATOR, "--organisation", organisation, "--host", "127.0.0.1",
                   "--dir", home, "--json")
        )  # fmt: skip
        self._change(
            home / "coordinator.toml",
            {
                'listen = "0.0.0.0"': 'listen = "127.0.0.1"',
                "front_port = 8443": f"front_port = {self.front}",
                "hub_port = 8444": f"hub_port = {self.hub}",
                "superlink_port = 8000": f"superlink_port = {self.superlink}",
                "health_port = 8090": f"health_port = {self.health}",
                "purposes = []": f"purposes = [{json.dumps(self.job.purpose)}]\nrehearsals = true\n"
                f"disclosures = {json.dumps(list(self.job.disclosures))}\n"
                f"min_list = {limits.min_list}\nmin_common = {limits.min_common}\nmin_support = {limits.min_support}",
                "max_runs = 5": "max_runs = 1000",
                "max_resumes = 3": "max_resumes = 100",
            },
        )
        requests = {}
        for party in self.job.parties:
            own = self.place(party.name)
            role = "bank" if isinstance(party, BankConfig) else "partner"
            fedmkt(
                "party",
                "init",
                party.name,
                "--organisation",
                party.organisation,
                "--dir",
                own,
                "--role",
                role,
            )
            self._settle(party.name)
            requests[party.name] = own / f"{party.name}.request"
        for name, request in requests.items():
            said = json.loads(fedmkt("coordinator", "admit", request, "--dir", home, "--fingerprint",
                                     self.fingerprint(name), "--json"))  # fmt: skip
            fedmkt(
                "party",
                "join",
                said["bundle"],
                "--dir",
                self.place(name),
                "--fingerprint",
                made["fingerprint"],
            )
            if name in self.dialled:
                self._dial(name, *self.dialled[name])
        for name in self.names:
            for other in self.names:
                fedmkt("party", "pin", other, requests[other], "--dir", self.place(name), "--fingerprint",
                       self.fingerprint(other))  # fmt: skip
            fedmkt("party", "pin", COORDINATOR, self.key(COORDINATOR), "--dir", self.place(name),
                   "--fingerprint", made["fingerprint"])  # fmt: skip
        self._sign(requests)

    def _sign(self, requests: Mapping[str, Path]) -> None:
        text = self.job_file.read_text()
        head = f'channel = "{self.channel}"\n' + ("rehearsal = true\n" if self.rehearsal else "")
        job = self.folder / "job.toml"
        job.write_text(head + text)
        self.contract.parent.mkdir(parents=True, exist_ok=True)
        keys = [f"{n}={r}" for n, r in requests.items()] + [f"{COORDINATOR}={self.key(COORDINATOR)}"]
        fedmkt("contract", "new", job, *(a for k in keys for a in ("--key", k)), "--out", self.contract)
        for name in (*self.names, COORDINATOR):
            fedmkt("contract", "sign", self.contract, "--dir", self.place(name), "--yes")

    def key(self, name: str) -> str:
        """Return a participant's public identity key."""
        from fedmkt.crypto.sign import Identity

        return Identity((self.place(name) / "keys" / "identity.key").read_bytes()).public.hex()

    def fingerprint(self, name: str) -> str:
        """Return what the person there would read out."""
        from fedmkt.crypto.sign import fingerprint

        return fingerprint(bytes.fromhex(self.key(name)))

    def _settle(self, name: str) -> None:
        """Fill in what a party's data scientist would: table, policy, ports."""
        party, own = self.job.party(name), self.place(name)
        runtime, health = self.ports[name]
        self._change(
            own / "party.toml",
            {
                "runtime_port = 9094": f"runtime_port = {runtime}",
                "health_port = 9095": f"health_port = {health}",
            },
        )
        limits = self.job.limits
        (own / "policy.toml").write_text(
            f"purposes = [{json.dumps(self.job.purpose)}]\ncolumns = {json.dumps(list(party.columns))}\n"
            f"min_list = {limits.min_list}\nmin_common = {limits.min_common}\nmin_support = {limits.min_support}\n"
            f"max_size_runs = 1000\nmax_runs = {limits.max_runs}\nmax_resumes = {limits.max_resumes}\n"
            f"rehearsals = true\ndisclosures = {json.dumps(list(self.job.disclosures))}\n"
            f"auditors = {json.dumps([a.seal_key for a in (self.job.auditor,) if a is not None])}\n"
        )
        has_label = isinstance(party, BankConfig) and party.label is not None
        label = ""
        if has_label:
            label = f"label = {json.dumps(party.label)}\nlabel_kind = {json.dumps(party.label_kind)}\n"
        (own / "schema.toml").write_text(
            f"file = {json.dumps(party.file)}\nid = {json.dumps(party.id)}\nid_kind = {json.dumps(party.id_kind)}\n"
            f"country = {json.dumps(party.country)}\nnumbers = {json.dumps(list(party.numbers))}\n"
            f"categories = {json.dumps(list(party.categories))}\n{label}"
        )
        shutil.copy(self.job_file.parent / party.file, own / party.file)

    def _dial(self, name: str, front: int, hub: int) -> None:
        path = self.place(name) / "keys" / "coordinator.json"
        found = json.loads(path.read_text())
        path.write_text(json.dumps(found | {"front_port": front, "hub_port": hub}))

    @staticmethod
    def _change(path: Path, changes: Mapping[str, str]) -> None:
        text = path.read_text()
        for old, new in changes.items():
            assert old in text, (path, old)
            text = text.replace(old, new)
        path.write_text(text)

    # ------------------------------------------------------------------------------------------- processes

    def up(self, name: str) -> None:
        """Start a participant's programs."""
        role, config = ("coordinator", "coordinator.toml") if name == COORDINATOR else ("party", "party.toml")
        log = (self.folder / f"{name}.up.log").open("ab")
        self.ups[name] = subprocess.Popen(
            [*FEDMKT, role, "up", "--config", str(self.place(name) / config)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        log.close()

    def status(self, name: str) -> dict[str, object]:
        """Ask a participant's programs how they are."""
        role, config = ("coordinator", "coordinator.toml") if name == COORDINATOR else ("party", "party.toml")
        done = subprocess.run(
            [*FEDMKT, role, "status", "--config", str(self.place(name) / config), "--json"],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return (
            dict(json.loads(done.stdout)) | {"code": done.returncode}
            if done.stdout
            else {"code": done.returncode}
        )

    def wait_until_up(self, *names: str, seconds: float = 60) -> None:
        """Wait until these participants' programs all run."""
        until = time.monotonic() + seconds
        for name in names or (COORDINATOR, *self.names):
            while self.status(name)["code"] != 0:
                assert time.monotonic() < until, (name, self.status(name))
                time.sleep(0.5)

    def __enter__(self) -> Self:
        if not self.contract.exists():
            self.provision()
        self.up(COORDINATOR)
        self.wait_until_up(COORDINATOR)
        for name in self.names:
            self.up(name)
        self.wait_until_up(*self.names)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.ups.values()):
            process.send_signal(signal.SIGTERM)
        for process in self.ups.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *options: str, code: int = 0, timeout: float = 300) -> dict[str, object]:
        """Run the contract and wait for its end; returns its status."""
        home = self.place(COORDINATOR)
        return dict(
            json.loads(
                fedmkt(
                    "run",
                    self.contract,
                    "--dir",
                    home,
                    "--wait",
                    "--json",
                    *options,
                    code=code,
                    timeout=timeout,
                )
            )
        )

    def processes(self, name: str) -> Iterator[tuple[int, str]]:
        """List a participant's processes: number and command line."""
        mark = str(self.place(name))
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                if mark in command and int(entry.name) != os.getpid():
                    yield int(entry.name), command

    def process(self, name: str, part: str) -> int:
        """Return the number of the one process whose command holds `part`."""
        (found,) = [n for n, command in self.processes(name) if part in command]
        return found

    def worker(self, name: str) -> int:
        """Return the number of the process that serves the run at a participant."""
        return self.process(name, "fedmkt.deploy.worker")
