"""`fedmkt coordinator up` and `fedmkt party up`: which programs belong to a folder, and how they stand.

The coordinator runs SuperLink, the registration of nodes (once), the executor of its tasks, the front and the hub;
a party runs SuperNode and its executor. Only front and hub listen to the world.
"""

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from fedmkt.config.settings import ANY_ADDRESS, CoordinatorSettings, PartyConfig
from fedmkt.crypto import certificates
from fedmkt.crypto.prg import Random
from fedmkt.deploy.folders import (
    CoordinatorFolder,
    PartyFolder,
    keep_or_write,
    load_coordinator_folder,
    load_party_config,
    make_private,
    read_file,
    read_secret,
)
from fedmkt.deploy.papers import Coordinator
from fedmkt.deploy.program import Program
from fedmkt.deploy.provision import read_coordinator
from fedmkt.deploy.registry import read_registry
from fedmkt.deploy.serve import HUB_LISTENS, bracketed
from fedmkt.deploy.supervise import STATUS, Supervisor, is_up
from fedmkt.errors import ConfigError
from fedmkt.party.journal import write_atomically
from fedmkt.transport.health import (
    HealthServer,
    answers_health_with_tls,
    ask_health,
    is_healthy,
    listens_with_tls,
)

Say = Callable[[str], None]
LOOPBACK = "127.0.0.1"
RUNTIME_CA, RUNTIME_CERTIFICATE, RUNTIME_KEY = "runtime.pem", "runtime-server.pem", "runtime-server.key"

# Kept from the caller's environment: what finds programs, files, language, time zone and the way out.
_KEPT = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "HTTPS_PROXY", "https_proxy",
    "MPLCONFIGDIR",
)  # fmt: skip
# How numbers are crunched: with another kernel of OpenBLAS sums of floats have another last bit.
_KEPT_KINDS = ("FEDMKT_", "NUMBA_", "OMP_", "OPENBLAS_")
_MEANINGS = {
    r"Exit Code: 305": "the coordinator did not take our node: it is not registered, or its last session has yet to "
    "run out",
    r"Giving up reconnection|SSL/TLS handshake error": "the connection to the coordinator broke",
    # It ends itself, with 0, when its signature is refused.
    r"SuperNode terminated gracefully": "the coordinator refused our node: it was revoked, or our clock is off "
    "(see preflight)",
}


# One broken record of TLS, or one answer that Flower did not expect: its thread ends, and its process stays.
_OVER = r"Giving up reconnection|SSL/TLS handshake error detected|ERROR +: +(Client|Server) error '|Exception in thread"


def environment(flower_home: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return all that a child sees of the environment: nothing that changes Flower or writes down TLS keys."""
    kept = {name: given[name] for name in _KEPT if name in given}
    kept |= {name: value for name, value in given.items() if name.startswith(_KEPT_KINDS)}
    no_proxy = ",".join(
        filter(None, (given.get("NO_PROXY", given.get("no_proxy", "")), "127.0.0.1,localhost"))
    )
    package = Path(__file__).resolve().parents[2]
    if not package.is_relative_to(Path(sys.prefix).resolve()):
        kept["PYTHONPATH"] = str(package)  # not installed: children run the same files as we do
    return kept | {
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "NO_PROXY": no_proxy,
        "PYTHONSAFEPATH": "1",  # a file in the working folder is no module
        "PYTHONUNBUFFERED": "1",
        "no_proxy": no_proxy,
    }


def console_script(name: str) -> str:
    """Find a program that was installed beside this Python."""
    path = Path(sys.executable).parent / name
    if not os.access(path, os.X_OK):
        raise ConfigError(f"{path}: no such program", "install fedmkt, with Flower, into this environment")
    return str(path)


def coordinator_programs(
    folder: CoordinatorFolder, settings: CoordinatorSettings, given: Mapping[str, str]
) -> tuple[Program, ...]:
    """List the coordinator's programs in the order of their start."""
    at, authority = settings.superlink_port, folder.authority
    link = (
        console_script("flower-superlink"),
        *("--ssl-certfile", str(folder.server_certificate), "--ssl-keyfile", str(folder.server_key)),
        *("--ssl-ca-certfile", str(authority), "--host", LOOPBACK, "--port", str(at)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(folder.superexec_secret)),
        *("--database", str(folder.state / "flower.db"), "--enable-supernode-auth"),
        "--disable-runtime-dependency-installation",
    )
    near = {ANY_ADDRESS: LOOPBACK, "::": "::1"}.get(settings.listen, settings.listen)
    front_answers = partial(listens_with_tls, near, settings.front_port, settings.host, authority)
    make = partial(_program, folder.root, folder.state, folder.logs, given)
    return (
        make("superlink", link, ready=partial(answers_health_with_tls, at, authority)),
        make("register", _ours("fedmkt.deploy.serve", "register", folder.root), runs_once=True),
        make("executor", _ours("fedmkt.deploy.executor", "coordinator", folder.root), stop_seconds=15.0),
        make("front", _ours("fedmkt.deploy.serve", "front", folder.root), ready=front_answers),
        make("hub", _ours("fedmkt.deploy.serve", "hub", folder.root), ready_line=f"^{HUB_LISTENS}"),
    )


def party_programs(
    folder: PartyFolder, config: PartyConfig, card: Coordinator, given: Mapping[str, str]
) -> tuple[Program, ...]:
    """List a party's programs in the order of their start; `card` : how it finds the coordinator."""
    node = (
        console_script("flower-supernode"),
        *("--root-certificates", str(folder.authority)),
        *("--superlink", f"{bracketed(card.host)}:{card.front_port}"),
        *("--host", LOOPBACK, "--port", str(config.node.runtime_port)),
        *("--ssl-certfile", str(folder.state / RUNTIME_CERTIFICATE)),
        *("--ssl-keyfile", str(folder.state / RUNTIME_KEY)),
        *("--ssl-ca-certfile", str(folder.state / RUNTIME_CA)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(folder.superexec_secret)),
        *("--auth-supernode-private-key", str(folder.node_key)),
    )
    make = partial(_program, folder.root, folder.state, folder.logs, given)
    return (
        make(
            "supernode",
            node,
            ready_line=r"SuperNode ID: \d+",
            offline_line=r"Connection attempt failed, retrying",
            online_line=r"Connection successful after|SuperNode ID: \d+|(Received|Sent) successfully|`RUNNING` status",
            over_line=_OVER,
            deadline=None,  # it waits for a coordinator that is not there yet
            meanings=_MEANINGS,
        ),
        make("executor", _ours("fedmkt.deploy.executor", "party", folder.root), stop_seconds=15.0),
    )


def _ours(module: str, what: str, root: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", module, what, str(root))


def _program(
    root: Path,
    state: Path,
    logs: Path,
    given: Mapping[str, str],
    name: str,
    command: tuple[str, ...],
    *,
    ready: Callable[[], bool] | None = None,
    ready_line: str | None = None,
    offline_line: str | None = None,
    online_line: str | None = None,
    over_line: str | None = None,
    deadline: float | None = 60.0,
    runs_once: bool = False,
    stop_seconds: float = 10.0,
    meanings: Mapping[str, str] | None = None,
) -> Program:
    return Program(
        name=name,
        command=command,
        environment=environment(state / "flower", given),
        folder=root,
        log=logs / f"{name}.log",
        ready=ready,
        ready_line=ready_line,
        offline_line=offline_line,
        online_line=online_line,
        over_line=over_line,
        deadline=deadline,
        runs_once=runs_once,
        stop_seconds=stop_seconds,
        meanings=meanings or {},
    )


def coordinator_up(root: Path, say: Say) -> None:
    """Run a coordinator until SIGTERM; ConfigError if its folder is not complete or in use."""
    folder = CoordinatorFolder(root.resolve())
    settings = load_coordinator_folder(folder)
    read_registry(folder.registry)
    for path in (folder.authority, folder.server_certificate, folder.tls_certificate):
        read_file(path)
    make_private(folder.state)
    _complete_secret(folder.superexec_secret)
    hidden = [read_secret(path) for path in (folder.superexec_secret, folder.identity)]
    read_secret(folder.server_key)
    programs = coordinator_programs(folder, settings, os.environ)
    facts = {"role": "coordinator", "name": settings.name, "folder": str(folder.root)}
    _run(programs, folder.state, folder.logs, facts, settings.health_port, hidden, say)


def party_up(root: Path, say: Say, random: Random = secrets.token_bytes) -> None:
    """Run a party's node until SIGTERM; ConfigError if it has not joined, or its folder is in use."""
    folder = PartyFolder(root.resolve())
    config, card = load_party_config(folder), read_coordinator(folder)
    read_file(folder.authority)
    make_private(folder.state)
    _complete_secret(folder.superexec_secret)
    hidden = [read_secret(path) for path in (folder.superexec_secret, folder.identity)]
    read_secret(folder.node_key)
    write_runtime_certificate(folder, random, datetime.now(UTC))
    programs = party_programs(folder, config, card, os.environ)
    facts = {"role": "party", "name": config.name, "folder": str(folder.root)}
    _run(programs, folder.state, folder.logs, facts, config.node.health_port, hidden, say)


def write_runtime_certificate(folder: PartyFolder, random: Random, now: datetime) -> None:
    """Make a certificate for SuperNode's port on loopback, by an authority whose key is thrown away."""
    issuer, key = certificates.generate_tls_key(random), certificates.generate_tls_key(random)
    authority = certificates.make_authority("runtime", issuer, random, now).pem
    issued = certificates.issue_server(key, (LOOPBACK, "localhost"), authority, issuer, random, now).pem
    for name, data in ((RUNTIME_KEY, key), (RUNTIME_CERTIFICATE, issued), (RUNTIME_CA, authority)):
        write_atomically(folder.state / name, data)


def _complete_secret(path: Path) -> None:
    make_private(path.parent)
    keep_or_write(path, secrets.token_bytes(32).hex().encode())


def _run(
    programs: tuple[Program, ...],
    state: Path,
    logs: Path,
    facts: Mapping[str, object],
    health_port: int,
    hidden: list[bytes],
    say: Say,
) -> None:
    make_private(logs)
    if is_up(state):
        raise ConfigError(f"{state.parent}: fedmkt is already up here", "see its status, or end it")
    supervisor = Supervisor(programs, state, logs / "supervisor.log", facts, secrets=hidden, say=say)
    health = HealthServer(health_port, supervisor.report)
    say(
        f"{facts['name']}: {', '.join(p.name for p in programs)}; logs in {logs}; health on port {health_port}"
    )
    try:
        supervisor.run()
    finally:
        health.close()
    say("stopped")


@dataclass(frozen=True)
class Status:
    """How the programs of a folder stand: `report` as the supervisor wrote it, empty if it never ran."""

    name: str
    is_up: bool
    is_healthy: bool
    report: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """Give the facts of the printed lines as plain data."""
        return {**self.report, "name": self.name, "up": self.is_up, "healthy": self.is_healthy}

    def lines(self) -> list[str]:
        """Give one line per program: what runs since when, restarts, and its last error."""
        if not self.is_up:
            since = f", last seen {self.report['heartbeat']}" if "heartbeat" in self.report else ""
            return [f"{self.name}: not up{since}"]
        head = f"{self.name}: {self.report.get('state')} since {self.report.get('since')}"
        return [f"{head}, pid {self.report.get('pid')}", *self._programs()]

    def _programs(self) -> Iterator[str]:
        programs = self.report.get("programs")
        for program in programs if isinstance(programs, list) else []:
            pid = f"pid {program.get('pid')}" if program.get("pid") else ""
            line = (
                f"{program.get('name', ''):<10} {program.get('state', ''):<10} {program.get('since')} {pid}"
            )
            yield f"{line}, restarts {program.get('restarts')}" if program.get("restarts") else line.rstrip()
            if program.get("error"):
                yield f"{'':<10} last failure {program.get('failed')}: {program['error']}"
            elif program.get("state") not in ("running", "done") and program.get("line"):
                yield f"{'':<10} says: {program['line']}"


def coordinator_status(root: Path) -> Status:
    """Say how a coordinator's programs stand."""
    folder = CoordinatorFolder(root.resolve())
    settings = load_coordinator_folder(folder)
    return _status(settings.name, folder.root, folder.state, settings.health_port)


def party_status(root: Path) -> Status:
    """Say how a party's programs stand."""
    folder = PartyFolder(root.resolve())
    config = load_party_config(folder)
    return _status(config.name, folder.root, folder.state, config.node.health_port)


def _status(name: str, root: Path, state: Path, health_port: int) -> Status:
    up = is_up(state)
    report = ask_health(health_port) if up else None
    if report is None or report.get("folder") != str(
        root
    ):  # another folder's, or none: what was written last
        report = _written(state / STATUS)
    return Status(name, up, up and is_healthy(report, datetime.now(UTC)), report)


def _written(path: Path) -> dict[str, object]:
    try:
        report = json.loads(read_file(path))
    except (ConfigError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
