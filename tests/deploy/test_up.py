import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmkt.crypto import certificates
from fedmkt.crypto.sign import fingerprint
from fedmkt.deploy.admission import admit, init_coordinator
from fedmkt.deploy.folders import (
    CoordinatorFolder,
    PartyFolder,
    load_coordinator_folder,
    load_party_config,
    read_file,
    read_identity,
)
from fedmkt.deploy.papers import read_bundle, read_request
from fedmkt.deploy.program_log import forms_of
from fedmkt.deploy.provision import init_party, join, read_coordinator
from fedmkt.deploy.up import (
    coordinator_programs,
    coordinator_status,
    environment,
    party_programs,
    party_status,
    party_up,
    write_runtime_certificate,
)
from fedmkt.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0


@dataclass(frozen=True)
class Place:
    """A coordinator's and a bank's folder, joined, with ports that were free a moment ago."""

    coordinator: CoordinatorFolder
    bank: PartyFolder
    front: int
    link: int
    runtime: int


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in found]


def with_values(path: Path, **values: object) -> None:
    lines = []
    for line in path.read_text().splitlines():
        name = line.partition("=")[0].strip()
        lines.append(f"{name} = {json.dumps(values[name])}" if name in values else line)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    front, hub, link, health, runtime, party_health = free_ports(6)
    coordinator, bank = CoordinatorFolder(tmp_path / "coordinator"), PartyFolder(tmp_path / "bank")
    now = datetime.now(UTC)
    init_coordinator(coordinator, "hub", "Neutral GmbH", ["localhost"], secrets.token_bytes, now)
    ports = {"front_port": front, "hub_port": hub, "superlink_port": link, "health_port": health}
    with_values(coordinator.config, **ports, listen="127.0.0.1")
    made = init_party(bank, "bank", "Bank AG", "bank", secrets.token_bytes, now)
    with_values(bank.config, runtime_port=runtime, health_port=party_health)
    assert made.request is not None
    request = read_request(made.request.read_bytes(), "request")
    admitted = admit(coordinator, request, made.fingerprint, secrets.token_bytes, now)
    bundle = read_bundle(read_file(admitted.bundle), "bundle")
    join(bank, bundle, fingerprint(read_identity(coordinator.identity).public), now)
    return Place(coordinator, bank, front, link, runtime)


def secrets_of(place: Place) -> set[str]:
    found = set()
    for path in (*place.coordinator.secrets, *place.bank.secrets):
        found |= set(forms_of(path.read_bytes())) | set(path.read_text("latin-1").split("\n"))
    return {form for form in found if len(form) >= 16 and not form.startswith("-----")}


def test_a_coordinator_runs_superlink_registration_executor_front_and_hub(place: Place) -> None:
    settings = load_coordinator_folder(place.coordinator)
    programs = coordinator_programs(place.coordinator, settings, os.environ)
    assert [p.name for p in programs] == ["superlink", "register", "executor", "front", "hub"]
    link = programs[0].command
    assert Path(link[0]).name == "flower-superlink" and Path(link[0]).parent == Path(sys.executable).parent
    assert link[link.index("--host") + 1] == "127.0.0.1"
    assert link[link.index("--isolation") + 1] == "process"
    assert {"--enable-supernode-auth", "--disable-runtime-dependency-installation"} <= set(link)
    assert "--insecure" not in link


def test_a_party_runs_its_node_and_its_executor(place: Place) -> None:
    config, card = load_party_config(place.bank), read_coordinator(place.bank)
    node, executor = party_programs(place.bank, config, card, os.environ)
    assert (node.name, executor.name) == ("supernode", "executor")
    command = node.command
    assert command[command.index("--superlink") + 1] == f"localhost:{place.front}"
    assert command[command.index("--root-certificates") + 1] == str(place.bank.authority)
    assert command[command.index("--host") + 1] == "127.0.0.1" and "--insecure" not in command


def test_no_secret_stands_on_a_command_line_or_in_an_environment(place: Place) -> None:
    settings, config = load_coordinator_folder(place.coordinator), load_party_config(place.bank)
    programs = (
        *coordinator_programs(place.coordinator, settings, os.environ),
        *party_programs(place.bank, config, read_coordinator(place.bank), os.environ),
    )
    text = json.dumps([[*p.command, *p.environment.values()] for p in programs])
    assert not [form for form in secrets_of(place) if form in text]


def test_a_child_sees_nothing_that_changes_flower_or_writes_down_tls_keys(tmp_path: Path) -> None:
    given = {
        "PATH": "/bin", "SSLKEYLOGFILE": "/tmp/keys", "FLWR_LOG_LEVEL": "DEBUG", "PYTHONSTARTUP": "/tmp/a.py",
        "FLWR_INTERNAL_GRPC_CONTROL_API": "1", "LD_PRELOAD": "/tmp/a.so", "SSL_CERT_FILE": "/tmp/ca",
        "NO_PROXY": "intranet", "HTTPS_PROXY": "http://proxy:3128",
    }  # fmt: skip
    found = environment(tmp_path, given)
    assert found["FLWR_TELEMETRY_ENABLED"] == "0" and found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found["FLWR_HOME"] == str(tmp_path) and found["HTTPS_PROXY"] == "http://proxy:3128"
    assert found["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    unwanted = {"SSLKEYLOGFILE", "FLWR_LOG_LEVEL", "PYTHONSTARTUP", "LD_PRELOAD", "SSL_CERT_FILE"}
    assert not (unwanted | {"FLWR_INTERNAL_GRPC_CONTROL_API"}) & set(found)


def test_the_runtime_certificate_is_for_loopback_and_private(place: Place) -> None:
    write_runtime_certificate(place.bank, secrets.token_bytes, datetime.now(UTC))
    state = place.bank.state
    authority, issued = ((state / name).read_bytes() for name in ("runtime.pem", "runtime-server.pem"))
    certificates.check_server(issued, "127.0.0.1", authority, datetime.now(UTC))
    with pytest.raises(ValueError):
        certificates.check_server(issued, "bank.example", authority, datetime.now(UTC))
    for name in ("runtime.pem", "runtime-server.pem", "runtime-server.key"):
        assert (state / name).stat().st_mode & 0o077 == 0


def test_a_party_that_has_not_joined_is_told_to(place: Place) -> None:
    place.bank.coordinator.unlink()
    with pytest.raises(ConfigError, match="no such file") as caught:
        party_up(place.bank.root, lambda line: None)
    assert "join" in caught.value.hint


def test_a_key_that_others_can_read_is_refused_before_anything_starts(place: Place) -> None:
    place.bank.node_key.chmod(0o644)
    with pytest.raises(ConfigError, match="others can open it"):
        party_up(place.bank.root, lambda line: None)


def test_the_status_of_a_folder_that_was_never_up(place: Place) -> None:
    status = party_status(place.bank.root)
    assert not status.is_up and not status.is_healthy and status.lines() == ["bank: not up"]


def test_the_command_ends_with_6_unless_all_runs(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    from fedmkt.cli.app import main

    assert main(["party", "status", "--config", str(place.bank.config), "--json"]) == 6
    assert json.loads(capsys.readouterr().out) == {"name": "bank", "up": False, "healthy": False}
    assert main(["coordinator", "status", "--dir", str(place.coordinator.root)]) == 6
    assert capsys.readouterr().out == "hub: not up\n"
    assert main(["coordinator", "status", "--config", "other.toml"]) == 2


# The rest runs real processes.


@dataclass
class Up:
    """`fedmkt coordinator up` and `fedmkt party up` of a place, as a user starts them."""

    place: Place
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def start(self, side: str) -> None:
        folder = self.place.coordinator.root if side == "coordinator" else self.place.bank.root
        self.processes[side] = subprocess.Popen(
            [sys.executable, "-m", "fedmkt", side, "up", "--dir", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )

    def program(self, side: str, name: str) -> dict[str, object]:
        status = (
            coordinator_status(self.place.coordinator.root)
            if side == "coordinator"
            else party_status(self.place.bank.root)
        )
        programs = status.report.get("programs", [])
        assert isinstance(programs, list)
        return next((p for p in programs if p["name"] == name), {})

    def is_healthy(self) -> bool:
        sides = (coordinator_status(self.place.coordinator.root), party_status(self.place.bank.root))
        return all(side.is_healthy for side in sides)

    def wait(self, is_so: Callable[[], object], what: str, seconds: float = SECONDS) -> float:
        before = time.monotonic()
        while not is_so():
            assert time.monotonic() < before + seconds, f"{what}\n{self.logs()}"
            time.sleep(0.2)
        return time.monotonic() - before

    def logs(self) -> str:
        folders = (self.place.coordinator.logs, self.place.bank.logs)
        return "\n".join(
            f"== {path}\n{path.read_text()[-1500:]}" for folder in folders for path in folder.glob("*.log")
        )

    def descendants(self) -> list[int]:
        parents: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        found = [process.pid for process in self.processes.values()]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found


@pytest.fixture
def up(place: Place) -> Iterator[Up]:
    running = Up(place)
    yield running
    for process in running.processes.values():
        if process.poll() is None:
            process.kill()  # its children go with it
        process.wait(10)
        if process.stdout:
            process.stdout.close()


def node_state(place: Place) -> str:
    """Ask SuperLink about its one node, in a process of its own: Flower's client is no guest in a test's."""
    code = (
        "import sys; from pathlib import Path; from fedmkt.deploy.folders import CoordinatorFolder\n"
        "from fedmkt.deploy.executor import control_of\n"
        "c = control_of(CoordinatorFolder(Path(sys.argv[1])))\n"
        "print([n.is_online for n in c.nodes()]); c.close()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(place.coordinator.root)],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    return found.stdout.strip()


def ask_front(place: Place, path: str) -> int:
    context = ssl.create_default_context(cafile=str(place.bank.authority))
    connection = http.client.HTTPSConnection("localhost", place.front, timeout=10, context=context)
    with contextlib.closing(connection):
        connection.request("POST", path, b"", {"content-type": "application/protobuf"})
        return connection.getresponse().status


@pytest.mark.slow
def test_coordinator_and_party_come_up_survive_kills_and_end_cleanly(up: Up, place: Place) -> None:
    up.start("party")  # before its coordinator: it waits
    up.start("coordinator")
    up.wait(up.is_healthy, "healthy")
    assert node_state(place) == "[True]"

    # From the party's side there is the fleet API and nothing else, though SuperLink has it all on one port.
    assert ask_front(place, "/v1/fleet/pull-messages") == 401
    for path in (
        "/v1/control/list-nodes", "/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet/register-node",
        "/v1/fleet/unregister-node", "/health", "/docs", "/openapi.json",
    ):  # fmt: skip
        assert ask_front(place, path) == 404
    for port in (place.link, place.runtime):
        for address in _own_addresses():
            with pytest.raises(OSError):
                socket.create_connection((address, port), timeout=2)

    # No secret on any command line or in any environment.
    hidden = secrets_of(place)
    pids = up.descendants()
    assert len(pids) >= 8
    for pid in pids:
        for name in ("cmdline", "environ"):
            text = Path(f"/proc/{pid}/{name}").read_bytes().decode("latin-1")
            assert not [form for form in hidden if form in text]

    # Each program is killed; all come back, SuperNode when its lease has run out.
    victims = [("coordinator", n) for n in ("superlink", "executor", "front", "hub")]
    victims += [("party", n) for n in ("executor", "supernode")]
    for side, name in victims:
        killed = up.program(side, name)["pid"]
        assert isinstance(killed, int)
        os.kill(killed, signal.SIGKILL)
        up.wait(lambda s=side, n=name, k=killed: up.program(s, n)["pid"] not in (None, k), f"{name} again")
    up.wait(up.is_healthy, "healthy again", 120)
    assert all(up.program(side, name)["restarts"] for side, name in victims)
    assert node_state(place) == "[True]"

    # A second `up` of the same folder is refused.
    second = subprocess.run(
        [sys.executable, "-m", "fedmkt", "party", "up", "--config", str(place.bank.config)],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 2 and "already up" in second.stderr and "Traceback" not in second.stderr

    # One end of each kind, then nothing is left.
    pids = up.descendants()
    for side in ("party", "coordinator"):
        up.processes[side].send_signal(signal.SIGTERM)
        assert up.processes[side].wait(30) == 0
    up.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "nothing left", 5)
    logged = "".join(path.read_text() for path in place.bank.root.parent.rglob("*.log*"))
    assert not [form for form in hidden if form in logged]


@pytest.mark.slow
def test_a_killed_supervisor_leaves_no_process(up: Up) -> None:
    up.start("coordinator")
    up.start("party")
    up.wait(up.is_healthy, "healthy")
    pids = up.descendants()
    for process in up.processes.values():
        process.kill()
        process.wait(10)
    up.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "nothing left", 5)


def _own_addresses() -> list[str]:
    """Return this machine's addresses that are not loopback."""
    found = {str(a[4][0]) for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    return sorted(address for address in found if not address.startswith("127."))
