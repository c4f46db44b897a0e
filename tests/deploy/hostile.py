"""An attacker's tools against a real deployment on loopback, and the long form of the hostile tests.

    python -m tests.deploy.hostile            every scenario
    python -m tests.deploy.hostile NAMES      some of them; --list names them all

`test_hostile.py` uses the same tools against one shared deployment.
"""

import contextlib
import io
import json
import logging
import os
import re
import secrets
import signal
import socket
import ssl
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock

from fedmkt.contract import Contract, SignedContract, from_toml, sign, to_toml
from fedmkt.crypto.sign import Identity
from fedmkt.deploy import up
from fedmkt.deploy.executor import control_of, runtime_of
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, read_identity
from fedmkt.deploy.messages import SERVE, Outcome, Serve, decode_outcome
from fedmkt.deploy.worker import CoordinatorWorker
from fedmkt.protocol.core import Name
from fedmkt.protocol.pipeline import main_job
from fedmkt.protocol.session import Answer, Request
from fedmkt.transport import driver, flower_control, flower_tasks
from fedmkt.transport.driver import Ask, Endpoint, Told
from fedmkt.transport.flower_words import BODY, RECORD
from fedmkt.transport.hub_endpoint import HubEndpoint
from fedmkt.transport.hub_session import ClientTls, HubSession, SessionLimits
from fedmkt.transport.memory import MemoryEndpoint
from tests.deploy import deployment
from tests.deploy.deployment import COORDINATOR, Deployment

MARK = "hostile-code-was-here"
"""Stands in every hostile bundle; nothing but Flower's own database may ever hold it."""


# --------------------------------------------------------------------------------------------- a deployment


def quick_fedmkt(*arguments: object, code: int = 0, timeout: float = 120) -> str:
    """Run a command of fedmkt in this process: a deployment takes some twenty, at a second each as processes."""
    from fedmkt.cli.app import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        found = main([str(a) for a in arguments])
    assert found == code, f"{arguments}: {found}\n{said.getvalue()}"
    return said.getvalue()


class QuickDeployment(Deployment):
    """A deployment that is provisioned and looked at without a new process for every question."""

    def provision(self) -> None:
        with mock.patch.object(deployment, "fedmkt", quick_fedmkt):
            super().provision()

    def status(self, name: str) -> dict[str, object]:
        found = (up.coordinator_status if name == COORDINATOR else up.party_status)(self.place(name))
        return found.to_json() | {"code": 0 if found.is_healthy else 1}

    def wait_until_up(self, *names: str, seconds: float = 90) -> None:
        super().wait_until_up(*names, seconds=seconds)

    def __enter__(self) -> Self:
        if not self.contract.exists():
            self.provision()
        for name in (COORDINATOR, *self.names):  # all at once: nodes wait for their coordinator
            self.up(name)
        self.wait_until_up()
        return self

    @property
    def home(self) -> CoordinatorFolder:
        """The coordinator's folder."""
        return CoordinatorFolder(self.place(COORDINATOR))

    @property
    def signed(self) -> SignedContract:
        """The contract that all signed."""
        return from_toml(self.contract.read_text(), str(self.contract))

    def identity(self, name: str) -> Identity:
        """Return a participant's identity key."""
        return read_identity(PartyFolder(self.place(name)).identity)

    def agree(self, contract: Contract, *signers: str) -> SignedContract:
        """Let participants sign a contract, all of them by default, whatever it says."""
        names = signers or tuple(s.name for s in contract.signers)
        return SignedContract(
            contract=contract, signatures={n: sign(contract, n, self.identity(n)) for n in names}
        )

    def tls(self, name: str) -> ClientTls:
        """Return what a participant dials the hub with."""
        folder = PartyFolder(self.place(name))
        return ClientTls(
            folder.tls_key.read_bytes(), folder.tls_certificate.read_bytes(), folder.authority.read_bytes()
        )

    def session(self, name: str, number: bytes, members: Sequence[str] = (), **options: object) -> HubSession:
        """Dial the hub as a participant; `options` : tls, identity or limits other than its own."""
        limits = SessionLimits(gone_seconds=8.0, send_seconds=20.0)
        return HubSession(
            f"127.0.0.1:{self.hub}",
            options.get("tls", self.tls(name)),  # type: ignore[arg-type]
            options.get("identity") or self.identity(name),  # type: ignore[arg-type]
            number,
            str(options.get("me", name)),
            members,
            limits,
        )

    def log(self, name: str, program: str) -> str:
        """Read the log of one program."""
        path = self.place(name) / "logs" / f"{program}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def mark(self, name: str, program: str) -> Callable[[], str]:
        """Return what gives the lines that a program logs from now on."""
        before = len(self.log(name, program))
        return lambda: self.log(name, program)[before:]

    def pids(self) -> dict[int, str]:
        """List all processes of this deployment and those below them: number and command line."""
        found: dict[int, str] = {}
        for name in (COORDINATOR, *self.names):
            found |= dict(self.processes(name))
        return found

    def files(self) -> Iterator[tuple[Path, bytes]]:
        """Read every file of the deployment."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                with contextlib.suppress(OSError):
                    yield path, path.read_bytes()


def eventually(found: Callable[[], object], seconds: float = 15.0, what: str = "") -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until, what or "it did not happen in time"
        time.sleep(0.05)


# --------------------------------------------------------------------------------------------- hostile code

_EVIL = """\
# {mark}
import pathlib, socket
pathlib.Path({file!r}).write_text("{mark}")
socket.create_connection(("127.0.0.1", {port}), timeout=1).close()
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
app = ClientApp()
server = ServerApp()
"""


@dataclass
class Trap:
    """What hostile code would do if it ran: write a file, call home. `sprung` says whether any of it happened."""

    file: Path
    calls: list[object] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Listen for the call."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.port = int(self._listener.getsockname()[1])
        self._is_over = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def _listen(self) -> None:
        while not self._is_over:
            with contextlib.suppress(TimeoutError):
                connection, address = self._listener.accept()
                connection.close()
                self.calls.append(address)

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._is_over = True
        self._thread.join(5)
        self._listener.close()

    @property
    def code(self) -> bytes:
        """The module that does both as soon as it is imported."""
        return _EVIL.format(mark=MARK, file=str(self.file), port=self.port).encode()

    @property
    def sprung(self) -> bool:
        """Whether hostile code ran."""
        return self.file.exists() or bool(self.calls)


def hostile_bundles(trap: Trap) -> dict[str, bytes]:
    """Make bundles that Flower itself takes, by what is wrong with each."""
    ours = flower_control._PYPROJECT
    evil = ours.replace(b"fedmkt.transport.flower_tasks:nothing", b"evil:app").replace(
        b'serverapp = "evil:app"', b'serverapp = "evil:server"'
    )
    build = flower_control.build_fab_from_files
    return {
        "a module that writes and calls home": build({"pyproject.toml": evil, "evil.py": trap.code})[0],
        "our file names with other bytes": build(
            {"pyproject.toml": ours.replace(b"every participant", b"every Participant")}
        )[0],
        "our module's name inside": build(
            {
                "pyproject.toml": ours,
                "fedmkt/__init__.py": trap.code,
                "fedmkt/transport/__init__.py": b"",
                "fedmkt/transport/flower_tasks.py": trap.code,
            }
        )[0],
        "files that Python runs at its start": _with_files(
            build({"pyproject.toml": ours})[0],
            {
                "sitecustomize.py": trap.code,
                "usercustomize.py": trap.code,
                "a.pth": b"import sitecustomize\n# " + MARK.encode(),
                "../../../../sitecustomize.py": trap.code,
                "/tmp/" + MARK + ".py": trap.code,
            },
        ),
        "our bundle and one byte more": flower_control.bundle() + b"\0",
    }


def _with_files(bundle: bytes, files: Mapping[str, bytes]) -> bytes:
    whole = io.BytesIO(bundle)
    with zipfile.ZipFile(whole, "a") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return whole.getvalue()


def submit(it: QuickDeployment, content: bytes, run: str = "", digest: str = "") -> int:
    """Start a run with any bundle, as whoever reaches the Control API can; returns Flower's number."""
    from flwr.common.serde import user_config_to_proto
    from flwr.proto import control_pb2
    from flwr.proto.fab_pb2 import Fab

    with contextlib.closing(control_of(it.home)) as control:
        answer = control._client.StartRun(
            control_pb2.StartRunRequest(
                fab=Fab(hash_str=digest or "0" * 64, content=content),
                override_config=user_config_to_proto({"run": run}),
            )
        )
    assert answer.HasField("run_id"), "Flower itself refused the bundle"
    return int(answer.run_id)


def run_state(it: QuickDeployment, number: int) -> str:
    """Return Flower's word for a run's state."""
    with contextlib.closing(control_of(it.home)) as control:
        return control.status(number)


class Frozen:
    """The coordinator's executor stands still, so that an attacker there takes the tasks in its place."""

    def __init__(self, it: QuickDeployment) -> None:
        self._pid = it.process(COORDINATOR, "fedmkt.deploy.executor")

    def __enter__(self) -> Self:
        """Stop it."""
        os.kill(self._pid, signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go on."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGCONT)


class HostileServerApp:
    """One run in the hands of an attacker who took over the coordinator: any bundle, any message, any order.

    Use it while the executor is `Frozen`.
    """

    def __init__(self, it: QuickDeployment, bundle: bytes | None = None, digest: str = "") -> None:
        self.it = it
        self.number = submit(it, flower_control.bundle() if bundle is None else bundle, digest=digest)
        runtime = runtime_of("coordinator", it.place(COORDINATOR))
        queue = flower_tasks.TaskQueue(runtime.address, runtime.secret.read_bytes(), runtime.kind)
        taken: list[tuple[int, str]] = []
        eventually(lambda: self._take(queue, taken), what="the task of a run was not given out")
        queue.close()
        self.run_number, self.token = taken[0]
        assert self.run_number == self.number
        with mock.patch.object(flower_tasks, "check_bundle", lambda content: None):
            self.task = flower_tasks.ServerTask(runtime.address, self.token)
            self.task.__enter__()
            self.task.run()
        self._identity = self._now()
        self.nodes = CoordinatorWorker(it.place(COORDINATOR))._nodes()

    @staticmethod
    def _take(queue: flower_tasks.TaskQueue, taken: list[tuple[int, str]]) -> bool:
        found = queue.take()
        taken += [found] if found else []
        return bool(found)

    @staticmethod
    def _now() -> tuple[object, ...]:
        from flwr.supercore.task_identity import TaskIdentity

        return TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id

    def _be(self) -> None:
        """Flower keeps in one place whose process this is: several runs here take turns."""
        from flwr.supercore.task_identity import TaskIdentity

        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = self._identity  # type: ignore[assignment]

    def push(self, party: str, kind: str, content: object) -> str:
        """Send a party anything: bytes stand where ours would, a record dictionary as it is."""
        from flwr.app import ConfigRecord, Message, RecordDict

        if not isinstance(content, RecordDict):
            content = RecordDict({RECORD: ConfigRecord({BODY: content, "seconds": 60.0})})  # type: ignore[dict-item]
        self._be()
        (number,) = self.task.grid.push_messages([Message(content, self.nodes[party], kind, ttl=300.0)])
        return str(number)

    def serve(self, party: str, serve: Serve | bytes) -> str:
        """Invite a party to serve a contract."""
        from fedmkt.deploy.messages import encode_serve

        return self.push(party, SERVE, serve if isinstance(serve, bytes) else encode_serve(serve))

    def pull(self, numbers: Sequence[str], seconds: float = 60.0) -> dict[str, "Reply"]:
        """Wait for the replies to these messages."""
        until, found = time.monotonic() + seconds, dict[str, Reply]()
        while len(found) < len(numbers):
            assert time.monotonic() < until, f"{len(numbers) - len(found)} of {len(numbers)} without a reply"
            self._be()
            for reply in self.task.grid.pull_messages([n for n in numbers if n not in found]):
                found[reply.metadata.reply_to_message_id] = Reply.of(reply)
            time.sleep(0.2)
        return found

    def __enter__(self) -> Self:
        """Nothing: the run is under way already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run for Flower."""
        self._be()
        self.task.__exit__(kind, error, trace)


@dataclass(frozen=True)
class Reply:
    """All that a party's node sent back for one message."""

    body: bytes | None
    error: int | None
    whole: bytes
    """The message as it travelled, to be searched."""

    @staticmethod
    def of(message: object) -> "Reply":
        """Read one reply."""
        has_error = message.has_error()  # type: ignore[attr-defined]
        if has_error:
            error = message.error  # type: ignore[attr-defined]
            return Reply(None, int(error.code), f"{error.code} {error.reason}".encode())
        content = message.content  # type: ignore[attr-defined]
        body = content.config_records[RECORD][BODY]
        return Reply(body, None, b"".join(bytes(o) for o in (content.deflate(), body)))

    @property
    def outcome(self) -> Outcome:
        """Read it as a party's outcome."""
        assert self.body is not None, f"error {self.error}"
        return decode_outcome(self.body)


# ------------------------------------------------------------------------------------- hostile coordinator

Change = Callable[[str, Ask], Ask]


class Meddler:
    """A coordinator between the script and one party that changes what passes; nothing else is different."""

    def __init__(self, name: str, endpoint: Endpoint, change: Change) -> None:
        self._name = name
        self._endpoint = endpoint
        self._change = change

    def send(self, message: Ask) -> "Future[Told]":
        """Pass a message on, changed."""
        return self._endpoint.send(self._change(self._name, message))


class HostileRun:
    """A coordinator that dials the real hub, invites real parties, and then does what it wants.

    serves : the contract that each party is served, where it is not the deployment's.
    """

    def __init__(
        self, app: HostileServerApp, folder: Path, serves: Mapping[str, SignedContract] | None = None
    ) -> None:
        self.it, self.app, self._folder = app.it, app, folder
        self.signed = app.it.signed
        self.session_id = secrets.token_bytes(16)
        self._serves = dict(serves or {})
        self._attempts = 0

    def __enter__(self) -> Self:
        """Open the session and wait for all parties."""
        names = self.it.names
        self.session = self.it.session(COORDINATOR, self.session_id, names)
        self.served = {
            n: self.app.serve(n, Serve(self._serves.get(n, self.signed), self.session_id)) for n in names
        }
        try:
            self.session.wait_for(names, 60)
        except BaseException:
            self.session.close()
            raise
        self.endpoints: dict[str, Endpoint] = {n: HubEndpoint(self.session, n) for n in names}
        return self

    def __exit__(self, *_: object) -> None:
        """Say goodbye."""
        for endpoint in self.endpoints.values():
            endpoint.close()  # type: ignore[attr-defined]
        self.session.close()

    def run(self, change: Change = lambda name, message: message) -> object:
        """Run the script from its beginning, in a new run of its own."""
        self._attempts += 1
        folder = self._folder / f"attempt-{self._attempts}"
        worker = _dealer_of(self.it, self.signed, folder)
        with contextlib.ExitStack() as stack:
            dealer = MemoryEndpoint(worker)
            stack.callback(worker.release)
            stack.callback(dealer.close)
            everybody = {n: Meddler(n, e, change) for n, e in self.endpoints.items()} | {
                COORDINATOR: Meddler(COORDINATOR, dealer, change)
            }
            endpoints = {Name(n): e for n, e in everybody.items()}
            return driver.Coordinator(
                self.signed.contract, main_job, endpoints, folder / "receipts", 60.0
            ).run()


def _dealer_of(it: QuickDeployment, signed: SignedContract, folder: Path) -> "object":
    from fedmkt.deploy.folders import load_coordinator_folder
    from fedmkt.deploy.places import ContractPlace
    from fedmkt.deploy.registry import read_registry
    from fedmkt.party.node import Sources, open_party

    settings = load_coordinator_folder(it.home)
    pins = read_registry(it.home.registry).pins([p.name for p in signed.contract.parties])
    config = settings.party(pins | {settings.name: it.identity(COORDINATOR).public.hex()})
    place = ContractPlace(folder / "dealer", folder / "dealer" / "log", it.home.identity, folder / "store")
    return open_party(settings.name, signed, config, None, place, Sources.of(None, settings.name))


def answers_of(told: Told) -> Answer:
    """Demand an answer."""
    assert isinstance(told, Answer), told
    return told


def at_mail(count: int, spoil: Callable[[Request], Request]) -> tuple[Change, list[str]]:
    """Spoil the n-th request to a party that brings messages; returns what says whom it hit."""
    seen, hit = [0], list[str]()

    def change(name: str, message: Ask) -> Ask:
        if name == COORDINATOR or not isinstance(message, Request) or not message.inbox or hit:
            return message
        seen[0] += 1
        if seen[0] < count:
            return message
        hit.append(name)
        return spoil(message)

    return change, hit


def flipped(data: bytes, at: int = -1) -> bytes:
    """Turn one bit of some bytes."""
    whole = bytearray(data)
    whole[at] ^= 1
    return bytes(whole)


def now_seconds() -> datetime:
    """Return the time as contracts write it."""
    return datetime.now(UTC).replace(microsecond=0)


