"""An attacker's tools against a real deployment on loopback, and the long form of the hostile tests.

    python -m tests.deploy.hostile            every scenario
    python -m tests.deploy.hostile NAMES      some of them; --list names them all

`test_hostile.py` uses the same tools against one shared deployment.
"""

import asyncio
import contextlib
import io
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock

import httpx

from fedmkt.contract.agreement import Contract
from fedmkt.contract.files import from_toml
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto import certificates
from fedmkt.crypto.sign import Identity
from fedmkt.deploy import up, worker
from fedmkt.deploy.executor import control_of, runtime_of
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, load_coordinator_folder, read_identity
from fedmkt.deploy.messages import SERVE, Outcome, Serve, decode_outcome
from fedmkt.deploy.places import place_of
from fedmkt.deploy.registry import read_registry
from fedmkt.deploy.worker import CoordinatorWorker
from fedmkt.errors import FedmktError
from fedmkt.party.handle import Party
from fedmkt.party.node import Sources, open_party
from fedmkt.protocol.core import Name
from fedmkt.protocol.pipeline import main_job
from fedmkt.protocol.session import Answer, Request
from fedmkt.transport import driver, flower_control, flower_tasks
from fedmkt.transport.driver import Ask, Endpoint, Told
from fedmkt.transport.flower_words import BODY, RECORD
from fedmkt.transport.hub_endpoint import HubEndpoint
from fedmkt.transport.hub_frames import DATA_SIZE, Kind
from fedmkt.transport.hub_identity import ClientTls
from fedmkt.transport.hub_server import Hub
from fedmkt.transport.hub_session import HubSession, SessionLimits
from fedmkt.transport.memory import MemoryEndpoint
from tests.deploy import deployment
from tests.deploy.deployment import COORDINATOR, Deployment

PLANTED = "Zebra4711Crossing"
"""A value of a party's table that must be in nothing that leaves it, and in no log."""
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
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # Flower's own
        return _hostile_bundles(trap)


def _hostile_bundles(trap: Trap) -> dict[str, bytes]:
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

    def pull(self, numbers: Sequence[str], seconds: float = 150.0) -> dict[str, "Reply"]:
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
            self.session.wait_for(names, 150)
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
        folder = self._folder / f"{self.session_id.hex()[:8]}-{self._attempts}"
        party = _dealer_of(self.it, self.signed)
        with contextlib.ExitStack() as stack:
            dealer = MemoryEndpoint(party)
            stack.callback(party.release)
            stack.callback(dealer.close)
            everybody = {n: Meddler(n, e, change) for n, e in self.endpoints.items()} | {
                COORDINATOR: Meddler(COORDINATOR, dealer, change)
            }
            endpoints = {Name(n): e for n, e in everybody.items()}
            return driver.Coordinator(self.signed.contract, main_job, endpoints, folder, 60.0).run()


def _dealer_of(it: QuickDeployment, signed: SignedContract) -> Party:
    """Open the coordinator's own participant, from its own folder: the parties remember the heads of its log."""
    settings = load_coordinator_folder(it.home)
    pins = read_registry(it.home.registry).pins([p.name for p in signed.contract.parties])
    config = settings.party(pins | {settings.name: it.identity(COORDINATOR).public.hex()})
    sources = Sources.of(None, settings.name)
    return open_party(settings.name, signed, config, None, place_of(it.home, signed.contract), sources)


class _Task:
    """A message as `ClientTask` would bring it, without Flower."""

    def __init__(self, kind: str, body: bytes) -> None:
        self._message = kind, body
        self.reply: Callable[[bytes], None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def receive(self) -> tuple[str, bytes]:
        return self._message


def direct(folder: Path, kind: str, body: bytes) -> bytes:
    """Hand a message to a party's worker in this process; returns its answer. What it logs is logged here."""
    task, told = _Task(kind, body), list[bytes]()
    task.reply = told.append
    with mock.patch.object(worker, "ClientTask", lambda *_: task):
        worker.PartyWorker(folder, lambda: False).work("token")
    eventually(lambda: told)
    return told[0]


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


# ------------------------------------------------------------------------------------- the long form: tools


class Glass:
    """A proxy that ends TLS on both sides with keys of the deployment, so that all a party sends is seen."""

    def __init__(self, it: QuickDeployment, name: str, port: int) -> None:
        self._home, self._party, self._port = it.home, PartyFolder(it.place(name)), port
        self.seen = bytearray()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Listen on a free port."""
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ours.load_cert_chain(self._home.server_certificate, self._home.server_key)
        self._theirs = ssl.create_default_context(cafile=str(self._home.authority))
        self._theirs.load_cert_chain(self._party.tls_certificate, self._party.tls_key)
        for context in (ours, self._theirs):
            context.set_alpn_protocols(["h2"])
        asyncio.set_event_loop(self._loop)
        serving = asyncio.start_server(self._link, "127.0.0.1", 0, ssl=ours)
        server = self._loop.run_until_complete(serving)
        self.port = int(server.sockets[0].getsockname()[1])
        self._ready.set()
        self._loop.run_forever()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await asyncio.open_connection(
                "127.0.0.1", self._port, ssl=self._theirs, server_hostname="127.0.0.1"
            )
            up = self._pump(reader, far[1], True)
            await asyncio.gather(up, self._pump(far[0], writer, False))
        except (OSError, asyncio.CancelledError):
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_up: bool) -> None:
        while data := await reader.read(1 << 16):
            if is_up:
                self.seen += data
            writer.write(data)
            await writer.drain()
        writer.close()


class ProcessRun(HostileRun):
    """Parties as processes of their own that serve a session at once, without Flower; they can be made to fail.

    hub : the port that the coordinator dials.
    """

    def __init__(self, it: QuickDeployment, folder: Path, hub: int) -> None:
        self.it, self._folder, self._hub = it, folder, hub
        self.signed, self._attempts, self.session_id = it.signed, 0, secrets.token_bytes(16)
        self.processes_of: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """Open the session, start the parties, and wait for them."""
        it = self.it
        self._folder.mkdir(parents=True, exist_ok=True)
        self.session = HubSession(
            f"127.0.0.1:{self._hub}", it.tls(COORDINATOR), it.identity(COORDINATOR), self.session_id,
            COORDINATOR, it.names, SessionLimits(gone_seconds=15.0),
        )  # fmt: skip
        for name in it.names:
            log = (self._folder / f"{name}.log").open("ab")
            self.processes_of[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.deploy.hostile", "--serve", str(it.place(name)),
                 self.session_id.hex(), str(it.contract), str(self._folder / "fail")],
                cwd=deployment.ROOT, stdout=log, stderr=log,
            )  # fmt: skip
            log.close()
        self.session.wait_for(it.names, 120)
        self.endpoints = {n: HubEndpoint(self.session, n) for n in it.names}
        return self

    def __exit__(self, *error: object) -> None:
        """Say goodbye; the parties end by themselves."""
        super().__exit__(*error)
        for process in self.processes_of.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def fail_at(self, party: str, step: str, error: int) -> None:
        """Let a party's step raise, the next time that it is run."""
        (self._folder / "fail").write_text(json.dumps([party, step, error]))


_ERRORS: tuple[Callable[[], Exception], ...] = (
    lambda: ValueError(f"could not convert {PLANTED!r}"),
    lambda: KeyError(PLANTED),
    lambda: OSError(5, f"Failed to open local file '/data/{PLANTED}.parquet'"),
    lambda: OSError(f"IOError: {PLANTED}"),
    lambda: UnicodeDecodeError("utf-8", PLANTED.encode() + b"\xff", 17, 18, PLANTED),
    lambda: MemoryError(PLANTED),
    lambda: ZeroDivisionError(PLANTED),
    lambda: AssertionError(PLANTED),
)


def serve_for_tests(folder: Path, session: bytes, contract: Path, fail: Path) -> None:
    """Be a party that serves one session, and that fails where the file says; every release counts as the first."""
    from fedmkt.deploy.runs import log_to_stderr
    from fedmkt.deploy.take_part import take_part
    from fedmkt.protocol.linear import scoring

    real = Party._run

    def run(self: Party, live: object, call: object, inbox: object) -> object:
        planned = json.loads(fail.read_text()) if fail.exists() else ["", "", 0]
        if planned[:2] == [self.me, call.step.name]:  # type: ignore[attr-defined]
            raise _ERRORS[planned[2] % len(_ERRORS)]()
        return real(self, live, call, inbox)  # type: ignore[arg-type]

    log_to_stderr()
    signed = from_toml(contract.read_text(), str(contract))
    with (
        mock.patch.object(Party, "_run", run),
        mock.patch.object(scoring, "_count_release", lambda turn, share: {}),
    ):
        take_part(PartyFolder(folder), Serve(signed, session), lambda outcome: None, lambda: False)


@contextlib.contextmanager
def hub_process(it: QuickDeployment) -> Iterator[None]:
    """Run the deployment's hub alone."""
    log = (it.folder / "hub.log").open("ab")
    command = [sys.executable, "-m", "fedmkt.deploy.serve", "hub", str(it.place(COORDINATOR))]
    process = subprocess.Popen(command, cwd=deployment.ROOT, stdout=log, stderr=log)
    log.close()
    try:
        eventually(lambda: b"hub: listens on" in (it.folder / "hub.log").read_bytes(), 30)
        yield
    finally:
        process.terminate()
        process.wait(20)


def make(folder: Path, partners: int = 1, kind: type[QuickDeployment] = QuickDeployment) -> QuickDeployment:
    """Write a small world and provision a deployment of it."""
    from tests.engine import job_config

    (folder / "data").mkdir(parents=True)
    (folder / "world").mkdir()
    job_config(folder / "data", iterations=1, partners=partners)
    made = kind(folder / "world", folder / "data" / "job.toml")
    made.provision()
    return made


def redial(it: QuickDeployment, ports: Mapping[str, int]) -> None:
    """Let parties dial other ports than the hub's."""
    for name, port in ports.items():
        it._dial(name, it.front, port)


# --------------------------------------------------------------------------------- the long form: scenarios


def scenario_bundles(folder: Path) -> str:
    """Every hostile bundle, at the coordinator and at both parties."""
    with make(folder) as it, Trap(folder / "written") as trap:
        bundles = hostile_bundles(trap)
        numbers = [submit(it, content) for content in bundles.values()]
        for number in numbers:
            eventually(lambda n=number: run_state(it, n) == "finished:failed", 120)  # type: ignore[misc]
        with Frozen(it), contextlib.ExitStack() as stack:
            for content in bundles.values():
                app = stack.enter_context(HostileServerApp(it, content))
                asked = [app.serve(n, Serve(it.signed, secrets.token_bytes(16))) for n in it.names]
                for reply in app.pull(asked).values():
                    assert (reply.outcome.branch, reply.outcome.step) == ("PolicyRefused", "invitation")
        assert not trap.sprung
        held = {path.name for path, content in it.files() if MARK.encode() in content}
        assert held <= {"flower.db", "flower.db-wal"}, held
        return f"{len(bundles)} bundles refused by the coordinator and by {len(it.names)} parties"


def scenario_steps(folder: Path) -> str:
    """Every step of every party fails once with a planted value in its error; all that leaves is searched."""
    it = make(folder)
    secrets_of = {PLANTED.encode()} | _ids(it)
    with contextlib.ExitStack() as stack:
        stack.enter_context(hub_process(it))
        glasses = {n: stack.enter_context(Glass(it, n, it.hub)) for n in it.names}
        redial(it, {n: g.port for n, g in glasses.items()})
        attempts = folder / "attempts"
        with ProcessRun(it, attempts, it.hub) as run:
            steps: dict[tuple[str, str], None] = {}

            def note(name: str, message: Ask) -> Ask:
                if isinstance(message, Request) and name != COORDINATOR:
                    steps[name, message.step] = None
                return message

            run.run(note)
            missed = []
            for i, (party, step) in enumerate(steps):
                run.fail_at(party, step, i)
                try:
                    run.run()
                    missed.append((party, step, "did not fail"))
                except FedmktError as error:
                    text = str(error) + error.hint
                    if PLANTED in text or party not in text:
                        missed.append((party, step, text))
                print(f"  {party} {step}", flush=True)
        assert not missed, missed
        sent = {n: bytes(g.seen) for n, g in glasses.items()}
    assert all(len(s) > 100_000 for s in sent.values())
    for secret in secrets_of:
        for name, content in sent.items():
            assert secret not in content, (name, secret)
    for path, content in it.files():
        if path.suffix != ".csv" and path.name != "fail":
            assert PLANTED.encode() not in content, path
    for path in attempts.glob("*.log"):
        assert PLANTED.encode() not in path.read_bytes(), path
        assert b"Traceback" not in path.read_bytes(), path
    total = sum(map(len, sent.values()))
    return (
        f"{len(steps)} steps failed once; {len(secrets_of)} values are in none of {total:,} bytes that left"
    )


def _ids(it: QuickDeployment) -> set[bytes]:
    """Take every id of every table, as it stands there."""
    found: set[bytes] = set()
    for party in it.job.parties:
        lines = (it.place(party.name) / party.file).read_text().splitlines()
        at = lines[0].split(",").index(party.id)
        found |= {line.split(",")[at].strip('"').encode() for line in lines[1:]}
    return {i for i in found if len(i) >= 7}


class HostileHub(Hub):
    """A relay that does what it likes with the frames between honest ends."""

    mode = "honest"
    done = 0
    _held: dict[tuple[int, int], bytes]

    def _relay(self, session: object, stream: object, frame: bytes) -> None:
        pass_on = super()._relay
        count = self.done
        if frame[0] != Kind.DATA or self.mode == "honest":
            pass_on(session, stream, frame)  # type: ignore[arg-type]
            return
        self.done += 1
        if self.mode == "alters" and count % 40 == 39:
            frame = flipped(frame, DATA_SIZE + (len(frame) - DATA_SIZE) * 3 // 4)
        if self.mode == "loses" and count % 20 == 19:
            return
        if self.mode == "holds back":
            held = self.__dict__.setdefault("_held", {})
            before = held.pop((frame[1], frame[2]), None)
            if before is None and count % 10 == 0:
                held[frame[1], frame[2]] = frame
                return
            pass_on(session, stream, frame)  # type: ignore[arg-type]
            if before is not None:
                pass_on(session, stream, before)  # type: ignore[arg-type]
            return
        pass_on(session, stream, frame)  # type: ignore[arg-type]
        if self.mode == "repeats":
            pass_on(session, stream, frame)  # type: ignore[arg-type]


def scenario_hub(folder: Path) -> str:
    """A hub that repeats, loses, delays or alters what honest ends send."""
    it = make(folder)
    said = []
    for mode in ("honest", "repeats", "loses", "holds back", "alters"):
        hub = _hostile_hub(it)
        hub.mode = mode
        port = hub.start()
        redial(it, dict.fromkeys(it.names, port))
        try:
            with ProcessRun(it, folder / mode.replace(" ", "-"), port) as run:
                ended = "done"
                try:
                    run.run()
                except FedmktError as error:
                    ended = type(error).__name__
        finally:
            hub.stop()
        assert ended == "done" if mode != "alters" else ended in ("PeerError", "TransportError"), (
            mode,
            ended,
        )
        said.append(f"{mode}: {ended} ({hub.done} frames)")
    return "; ".join(said)


def _hostile_hub(it: QuickDeployment) -> HostileHub:
    from fedmkt.deploy.registry import read_registry
    from fedmkt.transport.hub_identity import Admitted, ServerTls

    own = PartyFolder(it.place(COORDINATOR)).tls_certificate.read_bytes()
    serial = int(certificates.serial_of(own), 16)
    admitted = {COORDINATOR: Admitted(COORDINATOR, it.identity(COORDINATOR).public, serial)}
    for party in read_registry(it.home.registry).parties:
        admitted[party.name] = Admitted(party.name, bytes.fromhex(party.identity), int(party.serial, 16))
    home = it.home
    tls = ServerTls(
        home.server_key.read_bytes(), home.server_certificate.read_bytes(), home.authority.read_bytes()
    )
    return HostileHub(lambda: admitted, tls, "127.0.0.1:0", COORDINATOR)


def scenario_three(folder: Path) -> str:
    """A cheating coordinator against a bank and two partners: five processes with the hub."""
    from tests.deploy import test_hostile as short

    it = make(folder, partners=2)
    with hub_process(it), ProcessRun(it, folder / "attempts", it.hub) as run:
        refused = 0
        for count in (2, 7, 15):
            for what, spoil in short.SPOILED.items():
                change, hit = at_mail(count, spoil)
                missed = short._attempt(run, f"{what} at {count}", change, hit)
                assert not missed, missed
                refused += 1
        assert type(run.run()).__name__ == "Finished"
    return f"{refused} of {refused} refused, and an honest run after them came to its end"


def scenario_sessions(folder: Path) -> str:
    """Two sessions of one contract at once: a party serves the later one, and one process of it works."""
    with make(folder) as it, Frozen(it), contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(HostileServerApp(it)) for _ in range(2))
        with HostileRun(one, folder / "one") as first:
            workers = {n: it.worker(n) for n in it.names}
            with HostileRun(two, folder / "two") as second:
                for name in it.names:
                    assert it.worker(name) != workers[name]  # one process, and another one
                try:
                    first.run()
                    raise AssertionError("the first session went on")
                except FedmktError as error:
                    ended = str(error)
                assert type(second.run()).__name__ == "Finished"
    return f"the first ended ({ended}), the second came to its end"


def scenario_flood(folder: Path) -> str:
    """Hundreds of idle, slow and senseless connections to front and hub while a run is under way."""
    with make(folder) as it, contextlib.ExitStack() as stack:
        before = {p: _memory(it.process(COORDINATOR, p)) for p in ("superlink", "serve front", "serve hub")}
        for i in range(600):
            with contextlib.suppress(OSError):
                plain = socket.create_connection(("127.0.0.1", (it.front, it.hub)[i % 2]), timeout=2)
                stack.callback(plain.close)
                with contextlib.suppress(OSError):
                    plain.sendall(
                        (
                            b"",
                            b"\x16\x03\x01\xff\xff" + b"a" * 40_000,
                            b"GET / HTTP/1.1\r\nx: " + b"y" * 9999,
                        )[i % 3]
                    )
        strangers = [threading.Thread(target=_push_bodies, args=(it,), daemon=True) for _ in range(20)]
        for stranger in strangers:
            stranger.start()
        status = it.run(timeout=240)
        for stranger in strangers:
            stranger.join(60)
        after = {p: _memory(it.process(COORDINATOR, p)) for p in before}
        assert status["state"] == "done"
        grown = {p: after[p] - before[p] for p in before}
        assert all(g < 200 for g in grown.values()), grown
    return f"600 connections, the run was done; memory grew by {grown} MB"


def _push_bodies(it: QuickDeployment) -> None:
    """Send SuperLink large bodies without any key, through the front."""
    context = ssl.create_default_context(cafile=str(it.home.authority))
    with httpx.Client(verify=context, trust_env=False, timeout=60) as client:
        for _ in range(3):
            with contextlib.suppress(httpx.HTTPError):
                client.post(
                    f"https://127.0.0.1:{it.front}/v1/fleet/push-object",
                    content=(b"x" * (1 << 20) for _ in range(60)),
                    headers={"content-type": "application/protobuf"},
                )


def _memory(pid: int) -> int:
    fields = Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()
    return int(fields[0]) // 1024


class NetDeployment(QuickDeployment):
    """Each participant in a network namespace of its own, joined by a bridge in the coordinator's.

    A party has one route, to the coordinator's address.
    """

    address = "10.77.0.1"

    def space(self, name: str) -> str:
        """Name a participant's namespace."""
        return f"fedmkt-{os.getpid()}-{name}"

    def provision(self) -> None:
        def there(*arguments: object, code: int = 0, timeout: float = 120) -> str:
            return quick_fedmkt(
                *(self.address if a == "127.0.0.1" else a for a in arguments), code=code, timeout=timeout
            )

        with mock.patch.object(deployment, "fedmkt", there):
            Deployment.provision(self)

    @staticmethod
    def _change(path: Path, changes: Mapping[str, str]) -> None:
        open_ = {k: v.replace('listen = "127.0.0.1"', 'listen = "0.0.0.0"') for k, v in changes.items()}
        Deployment._change(path, open_)

    def net(self) -> None:
        """Make the namespaces."""
        home = self.space(COORDINATOR)
        for name in (COORDINATOR, *self.names):
            _ip("netns", "add", self.space(name))
            _ip("-n", self.space(name), "link", "set", "lo", "up")
        _ip("-n", home, "link", "add", "br0", "type", "bridge")
        _ip("-n", home, "addr", "add", f"{self.address}/24", "dev", "br0")
        _ip("-n", home, "link", "set", "br0", "up")
        for i, name in enumerate(self.names):
            own = self.space(name)
            _ip("-n", own, "link", "add", "eth0", "type", "veth", "peer", "name", f"v{i}", "netns", home)
            _ip("-n", home, "link", "set", f"v{i}", "master", "br0")
            _ip("-n", home, "link", "set", "dev", f"v{i}", "type", "bridge_slave", "isolated", "on")
            _ip("-n", home, "link", "set", f"v{i}", "up")
            _ip("-n", own, "addr", "add", f"10.77.0.{i + 2}/32", "dev", "eth0")
            _ip("-n", own, "link", "set", "eth0", "up")
            _ip("-n", own, "route", "add", f"{self.address}/32", "dev", "eth0")

    def unnet(self) -> None:
        """Remove them."""
        for name in (COORDINATOR, *self.names):
            subprocess.run(["ip", "netns", "del", self.space(name)], capture_output=True, check=False)

    def inside(self, name: str, *command: str, timeout: float = 240) -> str:
        """Run a command in a participant's namespace; returns what it prints."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.space(name), *command],
            cwd=deployment.ROOT, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def up(self, name: str) -> None:
        role = "coordinator" if name == COORDINATOR else "party"
        log = (self.folder / f"{name}.up.log").open("ab")
        config = str(self.place(name) / f"{role}.toml")
        self.ups[name] = subprocess.Popen(
            ["ip", "netns", "exec", self.space(name), *deployment.FEDMKT, role, "up", "--config", config],
            cwd=deployment.ROOT, stdout=log, stderr=log,
        )  # fmt: skip
        log.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


_SCAN = """
import socket, sys, json, concurrent.futures as f
def look(port):
    with socket.socket() as s:
        s.settimeout(3)
        return port if s.connect_ex((sys.argv[1], port)) == 0 else 0
with f.ThreadPoolExecutor(64) as pool:
    print(json.dumps([p for p in pool.map(look, range(1, 65536)) if p]))
"""
_TRY = """
import socket, sys
with socket.socket() as s:
    s.settimeout(3)
    print(s.connect_ex((sys.argv[1], int(sys.argv[2]))))
"""


def scenario_namespaces(folder: Path) -> str:
    """A run between four namespaces: a party reaches the coordinator's two ports and nothing else."""
    it = make(folder, partners=2, kind=NetDeployment)
    assert isinstance(it, NetDeployment)
    try:
        it.net()
        with it:
            python = sys.executable
            for name in it.names:
                found = json.loads(it.inside(name, python, "-c", _SCAN, it.address))
                assert sorted(found) == sorted((it.front, it.hub)), (name, found)
                for other in ("10.77.0.2", "10.77.0.3", "10.77.0.4", "8.8.8.8"):
                    number = it.names.index(name) + 2
                    if other != f"10.77.0.{number}":
                        assert int(it.inside(name, python, "-c", _TRY, other, "22")) in (101, 113), other
                listening = it.inside(name, "cat", "/proc/net/tcp", "/proc/net/tcp6")
                local = [line.split()[1] for line in listening.splitlines() if " 0A " in line]
                assert local and all(
                    a.startswith(("0100007F:", "0000000000000000FFFF00000100007F:")) for a in local
                )
                for port in it.ports[name]:
                    address = f"10.77.0.{it.names.index(name) + 2}"
                    assert int(it.inside(COORDINATOR, python, "-c", _TRY, address, str(port))) == 111
            home = str(it.place(COORDINATOR))
            said = it.inside(
                COORDINATOR, *deployment.FEDMKT, "run", str(it.contract), "--dir", home, "--wait", "--json"
            )
            assert json.loads(said)["state"] == "done"
    finally:
        it.unnet()
    return "65,535 ports tried from each of three parties: two are open; the run was done; nothing listens at a party"


SCENARIOS: dict[str, Callable[[Path], str]] = {
    "bundles": scenario_bundles,
    "steps": scenario_steps,
    "hub": scenario_hub,
    "three": scenario_three,
    "sessions": scenario_sessions,
    "flood": scenario_flood,
    "namespaces": scenario_namespaces,
}


def main(arguments: Sequence[str]) -> int:
    """Run scenarios and print a line for each; ends with 1 if one did not hold."""
    if list(arguments[:1]) == ["--serve"]:
        folder, session, contract, fail = arguments[1:]
        serve_for_tests(Path(folder), bytes.fromhex(session), Path(contract), Path(fail))
        return 0
    if list(arguments) == ["--list"] or set(arguments) - set(SCENARIOS):
        print("\n".join(f"{name:<12} {run.__doc__}" for name, run in SCENARIOS.items()))
        return 0 if list(arguments) == ["--list"] else 2
    failed = 0
    for name in arguments or SCENARIOS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fedmkt-hostile-") as place:
            try:
                said = "ok      " + SCENARIOS[name](Path(place))
            except Exception as error:
                traceback.print_exc()
                said, failed = f"FAILED  {type(error).__name__}: {str(error)[:300]}", 1
        print(f"{name:<12} {time.monotonic() - started:6.0f} s  {said}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
