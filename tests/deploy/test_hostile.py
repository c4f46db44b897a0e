"""Hostile code, hostile messages, hostile neighbours, against real processes. Long form: `tests.deploy.hostile`."""

import base64
import contextlib
import json
import logging
import os
import pickle
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from flwr.proto import control_pb2, runtime_pb2
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from fedmkt.contract.agreement import Contract
from fedmkt.contract.signatures import SignedContract
from fedmkt.crypto import certificates
from fedmkt.crypto.sign import Identity
from fedmkt.deploy import executor, take_part
from fedmkt.deploy.executor import control_of, runtime_of
from fedmkt.deploy.folders import PartyFolder
from fedmkt.deploy.messages import SERVE, Serve, decode_outcome, encode_serve
from fedmkt.deploy.runs import RunFolder, RunStatus, began, is_worker, log_to
from fedmkt.deploy.serve import main as register_again
from fedmkt.deploy.take_part import Serving
from fedmkt.deploy.up import console_script, environment
from fedmkt.errors import FedmktError, PeerError, PolicyRefused
from fedmkt.party.journal import write_atomically
from fedmkt.protocol import wire
from fedmkt.protocol.session import Invitation, Opening, Request
from fedmkt.transport import flower_control
from fedmkt.transport.driver import Ask, Coordinator, Refusal
from fedmkt.transport.flower_tasks import check_bundle
from fedmkt.transport.flower_words import ASK, RECORD
from fedmkt.transport.health import HealthServer, ask_health
from fedmkt.transport.hub_frames import Welcome, read_welcome, write_welcome
from fedmkt.transport.hub_identity import ClientTls
from tests.deploy.deployment import COORDINATOR, free_ports
from tests.deploy.hostile import (
    MARK,
    Frozen,
    HostileRun,
    HostileServerApp,
    QuickDeployment,
    Trap,
    at_mail,
    direct,
    eventually,
    flipped,
    hostile_bundles,
    now_seconds,
    quick_fedmkt,
    run_state,
    submit,
)
from tests.engine import job_config


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuickDeployment]:
    """Provisioned and started by somebody whose umask protects nothing."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "data").mkdir()
    job_config(folder / "data", iterations=1)
    (folder / "world").mkdir()
    before = os.umask(0)
    try:
        made = QuickDeployment(folder / "world", folder / "data" / "job.toml")
        made.provision()
        started = made.__enter__()
    finally:
        os.umask(before)
    try:
        yield started
    finally:
        made.__exit__(None, None, None)


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trap]:
    """What hostile code would do."""
    with Trap(tmp_path_factory.mktemp("trap") / "written") as made:
        yield made


@dataclass
class Taken:
    """The coordinator in the hands of an attacker, until it is given back."""

    app: HostileServerApp
    stack: contextlib.ExitStack


@pytest.fixture(scope="module")
def taken(it: QuickDeployment) -> Iterator[Taken]:
    """Take over a coordinator's executor and one run with the right bundle."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(Frozen(it))
        yield Taken(stack.enter_context(HostileServerApp(it)), stack)


# ------------------------------------------------------------------------------------- only our own code


@pytest.mark.parametrize("which", range(5))
def test_a_bundle_that_flower_takes_and_that_is_not_ours_is_refused(which: int, trap: Trap) -> None:
    what, content = list(hostile_bundles(trap).items())[which]
    with pytest.raises(PolicyRefused, match=r"accepts .* only") as refused:
        check_bundle(content)
    assert refused.value.exit_code == 4 and not trap.sprung, what


def test_a_coordinator_runs_nothing_of_a_foreign_bundle(it: QuickDeployment, trap: Trap) -> None:
    said = it.mark(COORDINATOR, "executor")
    # Each claims to be ours: Flower, and we, go by what it holds.
    numbers = {
        what: submit(it, content, digest=flower_control.bundle_digest())
        for what, content in list(hostile_bundles(trap).items())[:4:3]
    }
    for what, number in numbers.items():
        eventually(lambda n=number: run_state(it, n).startswith("finished"), 120, what)  # type: ignore[misc]
        assert run_state(it, number) == "finished:failed", what

    def refusals() -> set[str]:
        return set(
            re.findall(r"a run came with the bundle ([0-9a-f]{16}), this installation accepts", said())
        )

    # Flower hears of a failure before the worker has written why.
    eventually(lambda: len(refusals()) == len(numbers), 30, "a line for each refusal")
    assert not trap.sprung


def test_a_party_runs_nothing_of_a_foreign_bundle(it: QuickDeployment, trap: Trap) -> None:
    """The coordinator itself is the attacker, so only the parties can refuse."""
    bundles = list(hostile_bundles(trap).values())
    said = {name: it.mark(name, "executor") for name in it.names}
    with Frozen(it), contextlib.ExitStack() as stack:
        asked = []
        for i, content in enumerate(bundles[:4:3]):
            app = stack.enter_context(HostileServerApp(it, content))
            party = it.names[i % 2]
            asked.append((app, app.serve(party, Serve(it.signed, secrets.token_bytes(16)))))
        for app, message in asked:
            outcome = app.pull([message])[message].outcome
            assert (outcome.branch, outcome.step) == ("PolicyRefused", "invitation")
    for name in it.names:
        assert said[name]().count("this installation accepts") == 1
    assert not trap.sprung
    held = {path.name for path, content in it.files() if MARK.encode() in content}
    assert held <= {"flower.db", "flower.db-wal"}  # where Flower keeps what it was given, as bytes
    assert not list(it.folder.rglob("sitecustomize*")) and not list(it.folder.rglob("evil*"))


def test_our_own_bundle_under_a_foreign_digest_starts_nothing_but_our_own_code(
    it: QuickDeployment, trap: Trap
) -> None:
    said = it.mark(COORDINATOR, "executor")
    number = submit(it, flower_control.bundle(), run="../../../tmp/x-1", digest="f" * 64)
    eventually(lambda: run_state(it, number).startswith("finished"), 90)
    assert run_state(it, number) == "finished:failed"
    eventually(lambda: "'../../../tmp/x-1' is no run here" in said())
    assert not trap.sprung


# ------------------------------------------------------------------------------------- hostile messages


class _Unpickled:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/fedmkt-unpickled",)


def _deep(depth: int) -> bytes:
    return b'{"contract":' + b"[" * depth + b"]" * depth + b"}"


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "a pickle": pickle.dumps(_Unpickled()),
    "deep json": _deep(200_000),
    "a long number": b'{"contract":"","session":"","seed":' + b"9" * 100_000 + b',"epoch":0}',
    "not a number": b'{"contract":"","session":"","seed":NaN,"epoch":0}',
    "three megabytes": b'{"contract":"' + b"x" * (3 << 20) + b'"}',
    "a list": b"[1, 2]",
    "other types": b'{"contract":7,"session":[],"seed":"0","epoch":null}',
    "a session of 15 bytes": json.dumps(
        {"contract": "", "session": "00" * 15, "seed": None, "epoch": 0}
    ).encode(),
    "a negative epoch": json.dumps({"contract": "", "session": "", "seed": None, "epoch": -1}).encode(),
    "true for a seed": json.dumps({"contract": "", "session": "", "seed": True, "epoch": 0}).encode(),
    "a contract that is none": json.dumps(
        {"contract": 'name = "x"\n"a\\u001b[2J\\nb" = 1', "session": "", "seed": None, "epoch": 0}
    ).encode(),
    "utf-16": "{}".encode("utf-16"),
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("what", BODIES)
def test_an_invitation_that_is_none_is_refused(
    what: str, it: QuickDeployment, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fedmkt"):
        outcome = decode_outcome(direct(it.place("bank"), SERVE, BODIES[what]))
    assert (outcome.branch, outcome.step) in (("PeerError", "invitation"), ("ConfigError", "invitation"))
    (said,) = [r.getMessage() for r in caplog.records if r.name.startswith("fedmkt")]
    assert said.isprintable() and len(said) < 300
    assert not Path("/tmp/fedmkt-unpickled").exists()


def test_hostile_messages_over_flower_are_refused_and_the_node_goes_on(
    it: QuickDeployment, taken: Taken
) -> None:
    from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

    said = {name: it.mark(name, "executor") for name in it.names}
    app = taken.app
    bank = {
        app.serve("bank", BODIES["a pickle"]): ("PeerError", "invitation"),
        app.push("bank", "train", b"x"): ("PeerError", "invitation"),
        app.push("bank", SERVE, RecordDict({RECORD: MetricRecord({"a": 1.0})})): (
            "PeerError", "invitation",
        ),
    }  # fmt: skip
    partner = {
        app.serve("partner", BODIES["three megabytes"]): ("PeerError", "invitation"),
        app.push("partner", SERVE, RecordDict({RECORD: ConfigRecord({"body": "text"})})): (
            "PeerError", "invitation",
        ),
        app.push("partner", "evaluate", RecordDict({"other": ArrayRecord()})): (
            "PeerError", "invitation",
        ),
    }  # fmt: skip
    asked = app.push("partner", ASK, b"\0" * 100)
    found = app.pull([*bank, *partner, asked], 90)
    for message, expected in (bank | partner).items():
        outcome = found[message].outcome
        assert (outcome.branch, outcome.step) == expected
    told = wire.decode(found[asked].body or b"", Refusal)
    assert told.branch == "TransportError"
    assert said["bank"]().count("coordinator: sent") == 3
    assert said["partner"]().count("coordinator: sent") == 3
    assert "asked before it was invited" in said["partner"]()


# ------------------------------------------------------------------------------------- hostile contracts


def _foreign_signature(it: QuickDeployment) -> SignedContract:
    forged = Identity(b"f" * 32).sign(b"x" * 32).hex()
    return SignedContract(contract=it.signed.contract, signatures={**it.signed.signatures, "partner": forged})


def _without(it: QuickDeployment, name: str) -> SignedContract:
    given = {n: s for n, s in it.signed.signatures.items() if n != name}
    return SignedContract(contract=it.signed.contract, signatures=given)


def _and_another(it: QuickDeployment) -> SignedContract:
    given = {**it.signed.signatures, "mallory": next(iter(it.signed.signatures.values()))}
    return SignedContract(contract=it.signed.contract, signatures=given)


def _changed(it: QuickDeployment, **changes: object) -> SignedContract:
    """The old signatures below another text."""
    contract = Contract.model_validate(it.signed.contract.model_dump() | changes)
    return SignedContract(contract=contract, signatures=it.signed.signatures)


def _agreed(it: QuickDeployment, **changes: object) -> SignedContract:
    """Signed by all, whatever it says: only the parties' own settings are against it."""
    return it.agree(Contract.model_validate(it.signed.contract.model_dump() | changes))


def _of_another_coordinator(it: QuickDeployment) -> SignedContract:
    eve = Identity(b"e" * 32)
    other = {"name": "relay", "organisation": "Other Notary", "key": eve.public.hex()}
    contract = Contract.model_validate(it.signed.contract.model_dump() | {"coordinator": other})
    signed = it.agree(contract, *it.names)
    from fedmkt.contract.signatures import sign

    return SignedContract(
        contract=contract, signatures={**signed.signatures, "relay": sign(contract, "relay", eve)}
    )


def _with_a_swapped_key(it: QuickDeployment) -> SignedContract:
    eve = Identity(b"e" * 32)
    parties = [
        p.model_dump() | ({"key": eve.public.hex()} if p.name == "partner" else {})
        for p in it.signed.contract.parties
    ]
    contract = Contract.model_validate(it.signed.contract.model_dump() | {"parties": parties})
    from fedmkt.contract.signatures import sign

    signed = it.agree(contract, "bank", COORDINATOR)
    return SignedContract(
        contract=contract, signatures={**signed.signatures, "partner": sign(contract, "partner", eve)}
    )


CONTRACTS: dict[str, tuple[Callable[[QuickDeployment], SignedContract], str]] = {
    "a missing signature": (lambda it: _without(it, "partner"), "missing partner, extra none"),
    "the coordinator's missing": (lambda it: _without(it, COORDINATOR), "missing coordinator"),
    "a foreign signature": (_foreign_signature, "the signature of partner on the contract does not verify"),
    "one signature more": (_and_another, "extra mallory"),
    "a changed purpose": (lambda it: _changed(it, purpose="other"), "signature of bank .*does not verify"),
    "a changed limit": (
        lambda it: _changed(it, limits=it.signed.contract.limits.model_dump() | {"max_runs": 7}),
        "signature of bank .*does not verify",
    ),
    "expired": (
        lambda it: _agreed(it, created=now_seconds() - timedelta(days=9), expires=now_seconds() - timedelta(seconds=2)),
        "rule not-expired",
    ),
    "not valid yet": (
        lambda it: _agreed(it, created=now_seconds() + timedelta(hours=1), expires=now_seconds() + timedelta(days=9)),
        "rule not-expired",
    ),
    "another coordinator": (_of_another_coordinator, "rule coordinator: we joined coordinator"),
    "a party's key that is not the pinned one": (_with_a_swapped_key, "rule signers-pinned: the key of partner"),
    "another purpose that all signed": (lambda it: _agreed(it, purpose="other"), "C01 purpose limitation"),
    "smaller groups than the policy wants": (
        lambda it: _agreed(it, limits=it.signed.contract.limits.model_dump() | {"min_common": 1}),
        "C09 minimum match",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CONTRACTS)
def test_a_party_refuses_to_serve_a_contract_with(
    what: str, it: QuickDeployment, caplog: pytest.LogCaptureFixture
) -> None:
    make, reason = CONTRACTS[what]
    signed = make(it)
    before = it.log(COORDINATOR, "hub")
    body = encode_serve(Serve(signed, secrets.token_bytes(16)))
    with caplog.at_level(logging.INFO, "fedmkt"):
        outcome = decode_outcome(direct(it.place("bank"), SERVE, body))
    assert (outcome.branch, outcome.step) == ("PolicyRefused", "opening")
    assert re.search(reason, caplog.text), caplog.text
    assert it.log(COORDINATOR, "hub") == before  # it did not even dial


@pytest.mark.parametrize("what", ["a missing signature", "expired", "another coordinator"])
def test_the_operators_command_refuses_it_too(what: str, it: QuickDeployment, tmp_path: Path) -> None:
    from fedmkt.contract.files import to_toml

    path = tmp_path / "c.toml"
    path.write_text(to_toml(CONTRACTS[what][0](it)))
    said = quick_fedmkt("run", path, "--dir", it.place(COORDINATOR), code=4)
    assert said.count("\n") <= 2 and said.startswith("fedmkt: error: ")
    assert not list(it.home.runs.glob("*"))


# ------------------------------------------------------------------------------------- hostile coordinator


def _swap_inbox(request: Request) -> Request:
    first = request.inbox[0]
    return replace(request, inbox=(replace(first, sender="partner", reader=first.sender), *request.inbox[1:]))


def _truncate(request: Request) -> Request:
    first = request.inbox[0]
    return replace(
        request, inbox=(replace(first, parts=(first.parts[0][:-1], *first.parts[1:])), *request.inbox[1:])
    )


def _alter(request: Request) -> Request:
    first = request.inbox[0]
    return replace(
        request, inbox=(replace(first, parts=(flipped(first.parts[0]), *first.parts[1:])), *request.inbox[1:])
    )


def _forge_receipt(request: Request) -> Request:
    last = request.news[-1]
    return replace(request, news=(*request.news[:-1], replace(last, public=flipped(last.public))))


SPOILED: dict[str, Callable[[Request], Request]] = {
    "altered": _alter,
    "truncated": _truncate,
    "claimed for another sender": _swap_inbox,
    "left out": lambda r: replace(r, inbox=r.inbox[1:]),
    "given twice": lambda r: replace(r, inbox=(*r.inbox, r.inbox[0])),
    "with a public value changed": _forge_receipt,
    "with a receipt held back": lambda r: replace(r, news=r.news[:-1]),
    "with receipts in another order": lambda r: replace(r, news=tuple(reversed(r.news))),
    "out of turn": lambda r: replace(r, index=r.index + 1),
    "for another step": lambda r: replace(r, step="run.export"),
    "with an absurd step": lambda r: replace(r, step="\x1b[2J\nbank: all is well" * 9),
    "with a senseless length": lambda r: replace(r, inbox=(replace(r.inbox[0], length=1 << 26), *r.inbox[1:])),
}  # fmt: skip


def _replayer() -> Callable[[str, Ask], Ask]:
    """Give a party the message of an earlier call in place of a later one."""
    kept: dict[str, Request] = {}

    def change(name: str, message: Ask) -> Ask:
        if name == COORDINATOR or not isinstance(message, Request) or not message.inbox:
            return message
        old = kept.setdefault(name, message)
        return message if old is message else replace(message, inbox=old.inbox)

    return change


def _old_hello() -> Callable[[str, Ask], Ask]:
    """Open an epoch with the bank's hello of the run before."""
    kept: list[Opening] = []

    def change(name: str, message: Ask) -> Ask:
        if not isinstance(message, Opening):
            return message
        if len(kept) < 3:  # one for each participant of the run before
            kept.append(message)
            return message
        old = next(h for h in kept[0].hellos if h.party == "partner")
        return replace(message, hellos=tuple(old if h.party == "partner" else h for h in message.hellos))

    return change


@pytest.fixture(scope="module")
def finished(it: QuickDeployment, taken: Taken, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A coordinator that cheats over real hub sessions with two parties; returns the session's number."""
    folder = tmp_path_factory.mktemp("attempts")
    said = {name: it.mark(name, "executor") for name in it.names}
    missed: dict[str, str] = {}
    app = taken.app
    with HostileRun(app, folder) as run:
        _go_on_for(run, 40)  # an honest one passes
        for what, spoil in SPOILED.items():
            change, hit = at_mail(4, spoil)
            missed |= _attempt(run, what, change, hit)
        missed |= _attempt(run, "replayed", _replayer(), [])
        change = _old_hello()
        _go_on_for(run, 3, change)
        missed |= _attempt(run, "an old hello", change, [])
        _go_on_for(run, 40)  # and none of this did harm
        number = run.session_id
    assert missed == {}
    ends = app.pull(list(run.served.values()))
    assert all(ends[m].outcome.branch == "" for m in run.served.values())
    _check_equivocation(it, app, folder)
    for name in it.names:
        assert re.search(rf"fedmkt.party {name}: ", said[name]())
        assert "\x1b" not in said[name]() and "\nbank: all is well" not in said[name]()
    logs = [path for path, _ in it.files() if path.name == "log.jsonl"]
    rejected = sum(path.read_text().count('"message.rejected"') for path in logs)
    assert rejected >= len(SPOILED)
    return number


class _Enough(Exception):
    """The test has seen enough of this run."""


def _go_on_for(
    run: HostileRun, requests: int, change: Callable[[str, Ask], Ask] = lambda name, message: message
) -> None:
    """Run honestly, as far as so many requests; scores are released only so often."""
    seen = [0]

    def counted(name: str, message: Ask) -> Ask:
        seen[0] += isinstance(message, Request)
        if seen[0] > requests:
            raise _Enough
        return change(name, message)

    with pytest.raises(_Enough):
        run.run(counted)


def _attempt(run: HostileRun, what: str, change: Callable[[str, Ask], Ask], hit: list[str]) -> dict[str, str]:
    try:
        run.run(change)
    except FedmktError as error:
        named = not hit or str(error).startswith(hit[0])
        return {} if isinstance(error, PeerError) and named and error.exit_code == 5 else {what: repr(error)}
    return {what: "went through"}


def _check_equivocation(it: QuickDeployment, app: HostileServerApp, folder: Path) -> None:
    """Serve two contracts, both signed by all, to the two parties of one session."""
    other = _agreed(it, family="another-family")
    said = it.mark("partner", "executor")
    with HostileRun(app, folder, {"partner": other}) as run, pytest.raises(PeerError) as refused:
        run.run()
    assert "refused at opening" in str(refused.value)
    app.pull(list(run.served.values()))
    eventually(lambda: "says hello for another contract" in said() + it.log("bank", "executor"))


def test_a_coordinator_that_cheats_over_real_sessions_is_refused_by_the_parties(finished: bytes) -> None:
    assert len(finished) == 16  # all is checked while it happens, in the fixture


# ------------------------------------------------------------------------------------- front and runtime API


def _front(it: QuickDeployment) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(it.home.authority))
    return httpx.Client(base_url=f"https://127.0.0.1:{it.front}", verify=context, trust_env=False)


def test_neither_registration_nor_control_nor_tasks_are_reachable_through_the_front(
    it: QuickDeployment,
) -> None:
    from flwr.superlink.routers.control.router import router as control
    from flwr.superlink.routers.fleet.router import router as fleet

    paths = {str(r.path) for r in (*control.routes, *fleet.routes)}  # type: ignore[attr-defined]
    closed = sorted(
        {p for p in paths if "/control/" in p or "register" in p}
        | {f"/v1/runtime/{n}" for n in ("acquire-task", "pull-task-input", "push-object", "send-task-heartbeat")}
    )  # fmt: skip
    assert "/v1/fleet/register-node" in closed and len(closed) > 30
    before = _nodes(it)
    said = it.mark(COORDINATOR, "front")
    with _front(it) as client:
        found = {p: client.post(p, content=b"\x0a\x00").status_code for p in closed}
    assert set(found.values()) == {404}
    assert _nodes(it) == before
    eventually(lambda: "POST '/v1/fleet/register-node' 404" in said())


def test_a_stranger_cannot_fill_the_memory_of_superlink_through_the_front(it: QuickDeployment) -> None:
    """SuperLink reads a whole body before it looks whose it is."""
    own = PartyFolder(it.place("bank")).node_pub.read_text().strip()
    key = base64.b64encode(certificates.node_key_pem(own)).decode()
    with _front(it) as client:
        for length, shown, status in (
            (60_000, "", 401),
            (100_000, "", 413),
            (100_000, key[:-4] + "AAA=", 413),
        ):
            answer = client.post("/v1/fleet/push-object", content=b"x" * length, headers=_shown(shown))
            assert answer.status_code == status or (status == 401 and answer.status_code < 500), answer
        answer = client.post("/v1/fleet/push-object", content=b"x" * 100_000, headers=_shown(key))
        assert answer.status_code != 413  # a node may; whether it is that node, SuperLink finds out


def _shown(key: str) -> dict[str, str]:
    return {"content-type": "application/protobuf"} | ({"flwr-public-key": key} if key else {})


def _nodes(it: QuickDeployment) -> set[bytes]:
    with contextlib.closing(control_of(it.home)) as control:
        found = control._client.ListNodes(control_pb2.ListNodesRequest()).nodes_info
    return {n.public_key.strip() for n in found if n.status != "unregistered"}


def test_nothing_listens_beyond_loopback_but_front_and_hub(it: QuickDeployment) -> None:
    ports = {it.front, it.hub, it.superlink, it.health} | {p for two in it.ports.values() for p in two}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.rsplit(":", 1)
            if state == "0A" and int(port, 16) in ports:
                assert address in ("0100007F", "0000000000000000FFFF00000100007F"), (address, int(port, 16))
    outside = _own_address()
    if outside:
        for port in (it.superlink, it.health, *(p for two in it.ports.values() for p in two)):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((outside, port), timeout=2).close()


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return ""
        address = str(probe.getsockname()[0])
        return "" if address.startswith("127.") else address


def test_a_node_that_nobody_registered_is_refused(it: QuickDeployment, tmp_path: Path) -> None:
    key = certificates.generate_node_key(secrets.token_bytes)
    (tmp_path / "node.key").write_bytes(key.private)
    (tmp_path / "node.key").chmod(0o600)
    own = PartyFolder(it.place("bank"))
    before = _nodes(it)
    done = subprocess.run(
        [
            console_script("flower-supernode"), "--root-certificates", str(own.authority),
            "--superlink", f"127.0.0.1:{it.front}", "--host", "127.0.0.1", "--port", str(free_ports(1)[0]),
            "--isolation", "process", "--superexec-auth-secret-file", str(own.superexec_secret),
            "--ssl-certfile", str(own.state / "runtime-server.pem"),
            "--ssl-keyfile", str(own.state / "runtime-server.key"),
            "--ssl-ca-certfile", str(own.state / "runtime.pem"),
            "--auth-supernode-private-key", str(tmp_path / "node.key"),
        ],
        env=environment(tmp_path / "flower", os.environ), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Exit Code: 305" in done.stdout + done.stderr  # which our supervisor explains, see up.py
    assert _nodes(it) == before


def test_a_revoked_party_is_out_everywhere(it: QuickDeployment, tmp_path: Path) -> None:
    home = it.place(COORDINATOR)
    quick_fedmkt(
        "party", "init", "thief", "--organisation", "Thief Ltd", "--dir", tmp_path, "--role", "partner"
    )
    from fedmkt.crypto.sign import fingerprint

    shown = fingerprint(it_identity(tmp_path).public)
    request = tmp_path / "thief.request"
    admitted = json.loads(
        quick_fedmkt("coordinator", "admit", request, "--dir", home, "--fingerprint", shown, "--json")
    )
    own = fingerprint(it.identity(COORDINATOR).public)
    quick_fedmkt("party", "join", admitted["bundle"], "--dir", tmp_path, "--fingerprint", own)
    node = certificates.node_key_pem(PartyFolder(tmp_path).node_pub.read_text().strip()).strip()
    assert node in _nodes(it)
    tls = ClientTls(
        PartyFolder(tmp_path).tls_key.read_bytes(), PartyFolder(tmp_path).tls_certificate.read_bytes(),
        PartyFolder(tmp_path).authority.read_bytes(),
    )  # fmt: skip
    said = it.mark(COORDINATOR, "hub")
    session = it.session("bank", secrets.token_bytes(16), tls=tls, identity=it_identity(tmp_path), me="thief")
    eventually(lambda: "thief: the session is not open" in said())  # admitted, it came as far as that
    session.close(0)
    quick_fedmkt("coordinator", "revoke", "thief", "--dir", home, "--yes")
    assert node not in _nodes(it)
    assert register_again(["register", str(home)]) == 0  # as when the coordinator comes up again
    assert node not in _nodes(it)
    said = it.mark(COORDINATOR, "hub")
    with it.session(
        "bank", secrets.token_bytes(16), tls=tls, identity=it_identity(tmp_path), me="thief"
    ) as session:
        with pytest.raises(FedmktError, match="was revoked") as refused:
            session.wait_for(("bank",), 10)
        assert refused.value.exit_code == 6
    eventually(lambda: "thief: was revoked" in said())
    again = quick_fedmkt("coordinator", "admit", request, "--dir", home, "--fingerprint", shown, code=4)
    assert "revo" in again


def it_identity(folder: Path) -> Identity:
    """Return the identity of a folder that is none of the deployment's."""
    return Identity((folder / "keys" / "identity.key").read_bytes())


def test_a_second_party_of_the_same_name_is_not_admitted(it: QuickDeployment, tmp_path: Path) -> None:
    quick_fedmkt("party", "init", "bank", "--organisation", "First Bank", "--dir", tmp_path, "--role", "bank")
    from fedmkt.crypto.sign import fingerprint

    shown = fingerprint(it_identity(tmp_path).public)
    said = quick_fedmkt(
        "coordinator", "admit", tmp_path / "bank.request", "--dir", it.place(COORDINATOR), "--fingerprint", shown,
        code=4,
    )  # fmt: skip
    assert "the name bank belongs to another identity" in said


def test_a_task_token_is_worth_nothing_after_its_task_or_through_the_front(it: QuickDeployment) -> None:
    runtime = runtime_of("coordinator", it.place(COORDINATOR))
    with Frozen(it), HostileServerApp(it) as app:
        token = app.token
    for address, codes in ((runtime.address.address, (401, 403)), (f"127.0.0.1:{it.front}", (404,))):
        thief = RuntimeHttpClient.from_server_address(
            address, False, runtime.address.authority.read_bytes(),
            [RuntimeVersionHttpInterceptor(component_name="thief"), RuntimeTokenHttpInterceptor(token)],
        )  # fmt: skip
        tries: list[Callable[[], object]] = [
            lambda t=thief: t.PullTaskInput(runtime_pb2.PullTaskInputRequest()),  # type: ignore[misc]
            lambda t=thief: t.PushTaskOutput(runtime_pb2.PushTaskOutputRequest()),  # type: ignore[misc]
            lambda t=thief: t.GetNodes(runtime_pb2.GetNodesRequest()),  # type: ignore[misc]
            lambda t=thief: t.AcquireTask(  # type: ignore[misc]
                runtime_pb2.AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
            ),
        ]
        for i, ask in enumerate(tries):
            with pytest.raises(httpx.HTTPStatusError) as refused:
                ask()
            assert refused.value.response.status_code in codes, (address, i)
        thief.close()


# ------------------------------------------------------------------------------------- hub


def test_impostors_at_the_hub_are_refused_and_logged(it: QuickDeployment) -> None:
    number = secrets.token_bytes(16)
    with it.session(COORDINATOR, number, ["partner"]) as opened:
        eventually(lambda: opened.members)
        tries: dict[str, tuple[dict[str, object], str, str]] = {
            "not named by the session": ({}, "bank", "bank: the session does not name it"),
            "another identity": (
                {"identity": Identity(b"e" * 32)}, "partner",
                "partner: did not sign the challenge with the admitted identity",
            ),
            "the certificate of another": (
                {"tls": it.tls("bank")}, "partner", "bank: did not sign the challenge with the admitted identity",
            ),
        }  # fmt: skip
        for what, (options, me, line) in tries.items():
            said = it.mark(COORDINATOR, "hub")
            with it.session(me, number, **options) as session, pytest.raises(FedmktError) as refused:
                session.wait_for((COORDINATOR,), 8)
            assert refused.value.exit_code == 6, what
            eventually(lambda s=said, t=line: t in s(), 5, what)  # type: ignore[misc]
        said = it.mark(COORDINATOR, "hub")
        with it.session("bank", secrets.token_bytes(16), ["partner"]) as session, pytest.raises(FedmktError):
            session.wait_for(("partner",), 8)
        eventually(lambda: "bank: may not open a session" in said())


def _greets(it: QuickDeployment, port: int, certificate: bytes, key: bytes, tmp_path: Path) -> bytes:
    (tmp_path / "c.pem").write_bytes(certificate)
    (tmp_path / "k.pem").write_bytes(key)
    context = ssl.create_default_context(cafile=str(it.home.authority))
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as link,
        contextlib.suppress(ConnectionError, ssl.SSLError),  # refused, and hung up
    ):
        link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        return link.recv(100)
    return b""


def test_a_foreign_or_expired_certificate_does_not_pass_tls(it: QuickDeployment, tmp_path: Path) -> None:
    own = PartyFolder(it.place("bank"))
    key = own.tls_key.read_bytes()
    request = certificates.make_signing_request("bank", key)
    random, now = secrets.token_bytes, datetime.now(UTC)
    foreign_key = certificates.generate_tls_key(random)
    foreign = certificates.make_authority("coordinator", foreign_key, random, now).pem
    wrong = certificates.issue_client(request, "bank", foreign, foreign_key, random, now).pem
    authority, authority_key = it.home.authority.read_bytes(), it.home.authority_key.read_bytes()
    expired = certificates.issue_client(
        request, "bank", authority, authority_key, random, now - timedelta(days=4000)
    ).pem
    assert _greets(it, it.hub, own.tls_certificate.read_bytes(), key, tmp_path)  # the right one does
    for certificate in (wrong, expired):
        assert not _greets(it, it.hub, certificate, key, tmp_path)


@pytest.mark.parametrize("port", ["front", "hub"])
def test_tls_below_1_3_is_refused_by_the_running(port: str, it: QuickDeployment, tmp_path: Path) -> None:
    own = PartyFolder(it.place("bank"))
    context = ssl.create_default_context(cafile=str(it.home.authority))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(own.tls_certificate, own.tls_key)
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        socket.create_connection(("127.0.0.1", getattr(it, port)), timeout=5) as plain,
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1").close()


def test_a_partys_certificate_does_not_make_a_hub(it: QuickDeployment, tmp_path: Path) -> None:
    """Who may dial is not thereby one who may be dialled, even with the coordinator's host for a name."""
    own = PartyFolder(it.place("partner"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(own.tls_certificate, own.tls_key)
    client = ssl.create_default_context(cafile=str(it.home.authority))
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(ours, theirs, server_hostname="partner")
    two = server.wrap_bio(theirs, ours, server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        for _ in range(4):
            for end in (one, two):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()


# ------------------------------------------------------------------------------------- secrets


_SECRET_FILES = ("identity.key", "node.key", "tls.key", "superexec.secret", "ca.key", "server.key")


def _secrets_of(it: QuickDeployment) -> dict[str, bytes]:
    """All forms of all keys and secrets that could stand somewhere."""
    found: dict[str, bytes] = {}
    for name in (COORDINATOR, *it.names):
        for path in (it.place(name) / "keys").iterdir():
            if path.name not in _SECRET_FILES:
                continue
            content = path.read_bytes()
            if b"PRIVATE KEY" in content:
                lines = [line for line in content.splitlines() if b"-----" not in line]
                found |= {f"{name}/{path.name}/{i}": line for i, line in enumerate(lines) if len(line) > 20}
                if b"OPENSSH" in content:  # its first lines are the public half
                    found.pop(f"{name}/{path.name}/0"), found.pop(f"{name}/{path.name}/1", None)
            else:
                found[f"{name}/{path.name}"] = content.strip()
                found[f"{name}/{path.name}/hex"] = content.strip().hex().encode()
    return found


@dataclass
class Spy:
    """Looks again and again at the command lines and environments of all our processes."""

    it: QuickDeployment
    seen: dict[str, bytes] = field(default_factory=dict)
    open_files: set[str] = field(default_factory=set)
    is_over: bool = False

    def watch(self) -> None:
        while not self.is_over:
            for pid in list(self.it.pids()):
                for what in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        content = Path(f"/proc/{pid}/{what}").read_bytes()
                        self.seen[f"{pid}/{what}/{hash(content)}"] = content
            time.sleep(0.15)


@pytest.fixture(scope="module")
def spied(it: QuickDeployment, taken: Taken, finished: bytes) -> tuple[Spy, dict[str, object]]:
    """One real run, watched, once the coordinator is its own again."""
    taken.stack.close()
    spy = Spy(it)
    thread = threading.Thread(target=spy.watch)
    thread.start()
    try:
        status = it.run(timeout=120)
    finally:
        spy.is_over = True
        thread.join()
    return spy, status


def test_keys_and_tokens_stand_on_no_command_line_in_no_environment_and_in_no_log(
    it: QuickDeployment, spied: tuple[Spy, dict[str, object]]
) -> None:
    spy, status = spied
    assert status["state"] == "done"
    assert sum(b"fedmkt.deploy.worker" in c for c in spy.seen.values()) >= 3
    known = _secrets_of(it)
    with sqlite3.connect(f"file:{it.home.state / 'flower.db'}?mode=ro", uri=True) as database:
        tables = [t for (t,) in database.execute("select name from sqlite_master where type='table'")]
        for table in tables:
            columns = [row[1] for row in database.execute(f"pragma table_info({table})")]
            if "token" in columns:
                for (token,) in database.execute(f"select token from {table} where token is not null"):
                    known[f"token of {table}"] = str(token).encode()
    texts = spy.seen | {
        str(path.relative_to(it.folder)): content
        for path, content in it.files()
        if "logs" in path.parts or path.suffix == ".log" or path.name in ("status.json", "run.log")
    }
    assert len(texts) > 20
    leaks = {
        (what, where) for what, secret in known.items() for where, text in texts.items() if secret in text
    }
    assert leaks == set()
    long_hex = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")  # what Flower's tokens look like
    assert {
        w for w, t in texts.items() if "/cmdline/" in w or "/environ/" in w if long_hex.search(t)
    } == set()


def test_no_file_or_folder_is_open_to_others_whatever_the_umask_was(
    it: QuickDeployment, spied: tuple[Spy, dict[str, object]]
) -> None:
    for name in (COORDINATOR, *it.names):
        root = it.place(name)
        assert root.stat().st_mode & 0o077 == 0  # so nobody else comes as far as what is inside
        for path in root.rglob("*"):
            mode = path.stat().st_mode & 0o777
            assert mode & 0o022 == 0 or path.suffix == ".csv", (path, oct(mode))
            if path.parent.name in ("keys", "store", "journal") or path.name.endswith(
                (".key", ".secret", ".db")
            ):
                assert mode & 0o077 == 0, (path, oct(mode))


def test_an_invitation_to_a_session_that_has_ended_is_not_served_again(
    it: QuickDeployment, finished: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    body = encode_serve(Serve(it.signed, finished))
    said = it.mark(COORDINATOR, "hub")
    with caplog.at_level(logging.INFO, "fedmkt"):
        outcome = decode_outcome(direct(it.place("bank"), SERVE, body))
    assert outcome.branch == ""  # to the contract there is no objection
    assert "serving: hub at" in caplog.text and "the session has ended" in caplog.text
    eventually(lambda: "bank: the session has ended" in said())


# ------------------------------------------------------------------------------------- planted values

PLANTED = "Zebra4711Crossing"


@pytest.fixture
def copy(it: QuickDeployment, tmp_path: Path) -> Path:
    """A copy of the bank's folder, to be spoiled."""
    shutil.copytree(
        it.place("bank"), tmp_path / "bank", symlinks=True, ignore=shutil.ignore_patterns("*.lock")
    )
    return tmp_path / "bank"


def _spoil_cell(row: int, column: int, value: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / "bank.csv"
        lines = path.read_text().splitlines()
        cells = lines[row].split(",")
        cells[column] = value
        lines[row] = ",".join(cells)
        path.write_text("\n".join(lines) + "\n")

    return spoil


def _column(root: Path, kind: str) -> int:
    import tomllib

    schema = tomllib.loads((root / "schema.toml").read_text())
    name = {"id": schema["id"], "number": schema["numbers"][0], "label": schema["label"]}[kind]
    return (root / "bank.csv").read_text().splitlines()[0].split(",").index(name)


def _at(kind: str, value: str) -> Callable[[Path], None]:
    return lambda root: _spoil_cell(7, _column(root, kind), value)(root)


def _twice(root: Path) -> None:
    path = root / "bank.csv"
    lines = path.read_text().splitlines()
    cells = lines[5].split(",")
    cells[_column(root, "id")] = "+4915199" + "4711471"
    path.write_text("\n".join([*lines, ",".join(cells), ",".join(cells)]) + "\n")


def _many_ids(root: Path) -> None:
    path = root / "bank.csv"
    lines = path.read_text().splitlines()
    at = _column(root, "id")
    rows = [line.split(",") for line in lines[1:]]
    spoiled = [",".join([*cells[:at], PLANTED, *cells[at + 1 :]]) for cells in rows]
    path.write_text("\n".join([lines[0], *spoiled]) + "\n")


def _encoded(root: Path) -> None:
    path = root / "bank.csv"
    path.write_bytes(path.read_bytes() + PLANTED.encode() + b"\xff\xfe\x80,\x00\n")


def _ragged(root: Path) -> None:
    path = root / "bank.csv"
    path.write_text(path.read_text() + f'{PLANTED},{PLANTED},"{PLANTED}\n')


def _schema(old: str, new: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / "schema.toml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return spoil


def _as_parquet(root: Path) -> None:
    (root / "bank.parquet").write_bytes(b"PAR1" + PLANTED.encode() * 50 + b"PAR1")
    _schema("bank.csv", "bank.parquet")(root)


SPOILS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a number that is none": (_at("number", PLANTED), "DataError"),
    "a label that is none": (_at("label", PLANTED), "DataError"),
    "ids that are none": (_many_ids, "DataError"),
    "an id in many columns": (_at("id", f"{PLANTED},{PLANTED}"), "DataError"),
    "bytes that are no text": (_encoded, "DataError"),
    "an open quote": (_ragged, "DataError"),
    "a file that is no parquet": (_as_parquet, "DataError"),
}


@pytest.mark.parametrize("what", SPOILS)
def test_a_value_of_the_table_is_in_no_answer_and_no_log_when_there_is(
    what: str, it: QuickDeployment, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, branch = SPOILS[what]
    spoil(copy)
    body = encode_serve(Serve(it.signed, secrets.token_bytes(16)))
    with caplog.at_level(logging.DEBUG):
        answer = direct(copy, SERVE, body)
    outcome = decode_outcome(answer)
    assert (outcome.branch, outcome.step) == (branch, "opening"), caplog.text
    assert PLANTED.encode() not in answer
    assert PLANTED not in caplog.text, caplog.text
    spoiled = {"bank.csv", "bank.parquet"}
    for path in copy.rglob("*"):
        assert path.is_dir() or path.name in spoiled or PLANTED.encode() not in path.read_bytes(), path


def test_a_path_of_the_party_does_not_leave_it(
    it: QuickDeployment, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _schema("bank.csv", f"{PLANTED}.csv")(copy)
    answer = direct(copy, SERVE, encode_serve(Serve(it.signed, secrets.token_bytes(16))))
    assert PLANTED.encode() not in answer and decode_outcome(answer).step == "opening"


def test_what_a_party_says_cannot_draw_on_the_operators_screen(it: QuickDeployment, tmp_path: Path) -> None:
    """Branch and step of a refusal are the party's own words."""
    from concurrent.futures import Future

    class Rude:
        def send(self, message: Ask) -> "Future[object]":
            future: Future[object] = Future()
            future.set_result(
                Refusal("PeerError", "psi\x1b[2J\n2030-01-01 run: done \u202eevil" + "x" * 5000)
            )
            return future

    from fedmkt.protocol.core import Name
    from fedmkt.protocol.pipeline import main_job

    names = [Name(s.name) for s in it.signed.contract.signers]
    coordinator = Coordinator(
        it.signed.contract,
        main_job,
        {n: Rude() for n in names},
        tmp_path / "r",  # type: ignore[dict-item]
    )
    with pytest.raises(PeerError) as told:
        coordinator.run()
    assert str(told.value).isprintable() and len(str(told.value)) < 300


def test_an_invitation_of_the_driver_is_no_invitation_to_serve(it: QuickDeployment) -> None:
    told = wire.decode(direct(it.place("bank"), ASK, wire.encode(Invitation(b"", 1))), Refusal)
    assert told.branch == "TransportError"


# ------------------------------------------------------------------------------------- whom we end ourselves


def _pretend_worker(stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    """Start something that looks like a worker of ours to a reader of command lines."""
    code = "import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, "fedmkt.deploy.worker"])
    stack.callback(process.wait)
    stack.callback(process.kill)
    eventually(lambda: is_worker(process.pid))
    return process


def test_a_process_that_only_has_the_number_of_ours_is_neither_ended_nor_taken_for_it(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        stranger = _pretend_worker(stack)
        mark = tmp_path / "mark.json"
        mark.write_text(json.dumps(Serving(stranger.pid, "an earlier boot 7", "00", "00" * 16).__dict__))
        take_part._take_over(mark)
        assert stranger.poll() is None
        found = take_part.read_serving(mark)
        assert found is not None and not found.is_at_work
        mark.write_text(json.dumps(Serving(stranger.pid, began(stranger.pid), "00", "00" * 16).__dict__))
        take_part._take_over(mark)
        assert stranger.wait(5) == -signal.SIGTERM


def test_an_unsigned_copy_of_a_contract_does_not_end_the_process_that_serves_it(it: QuickDeployment) -> None:
    folder = PartyFolder(it.place("bank"))
    mark = take_part.serving_file(folder, it.signed.contract)
    with contextlib.ExitStack() as stack:
        ours = _pretend_worker(stack)
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(json.dumps(Serving(ours.pid, began(ours.pid), "00", "00" * 16).__dict__))
        stack.callback(lambda: mark.unlink(missing_ok=True))
        body = encode_serve(Serve(_without(it, "partner"), secrets.token_bytes(16)))
        assert decode_outcome(direct(it.place("bank"), SERVE, body)).branch == "PolicyRefused"
        assert ours.poll() is None


# ------------------------------------------------------------------------------------- logs and files


def test_a_text_of_the_other_side_adds_no_line_to_a_log(tmp_path: Path) -> None:
    handler = log_to(tmp_path / "run.log")
    try:
        logging.getLogger("fedmkt.run").error(
            "hub: %s", "bad\n2030-01-01 00:00:00 all is well\x1b[2J\u202e\x85"
        )
    finally:
        logging.getLogger("fedmkt").removeHandler(handler)
        handler.close()
    (line,) = (tmp_path / "run.log").read_text().splitlines()
    assert line.isprintable()


def test_a_link_beside_a_file_does_not_lead_what_is_written_elsewhere(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "c.toml.new").symlink_to(victim)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "c.toml", b"contract")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_leftover_that_others_can_read_does_not_open_a_new_secret(mode: int, tmp_path: Path) -> None:
    (tmp_path / "k.new").write_text("half")
    (tmp_path / "k.new").chmod(0o666)
    write_atomically(tmp_path / "k", b"secret", mode=mode)
    assert (tmp_path / "k").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    "change",
    [{"heartbeat_ms": 0}, {"heartbeat_ms": 1 << 31}, {"chunk_bytes": 0}, {"chunk_bytes": 1 << 31}, {"me": 9}],
    ids=str,
)
def test_a_hub_cannot_choose_limits_that_keep_a_client_busy_or_blind(change: dict[str, int]) -> None:
    good = Welcome(1, 1 << 30, 1 << 20, 2000, ("coordinator", "bank"), (True, True))
    assert read_welcome(write_welcome(good)) == good
    with pytest.raises(ValueError):
        read_welcome(write_welcome(replace(good, **change)))


def test_a_status_holds_one_line_whatever_a_party_says(tmp_path: Path) -> None:
    RunFolder(tmp_path).write(
        RunStatus("r-1", "00", state="failed", error="bank: \x1b[2J\nall is well " + "x" * 9999)
    )
    shown = RunFolder(tmp_path).status
    error = json.loads((tmp_path / "status.json").read_text())["error"]
    assert error.isprintable() and len(error) < 1100 and shown().state == "failed"


def test_a_caller_that_drips_does_not_keep_the_health_endpoint(tmp_path: Path) -> None:
    beat = datetime.now(UTC).isoformat()
    server = HealthServer(0, lambda: {"state": "healthy", "heartbeat": beat})
    with socket.create_connection(("127.0.0.1", server.port)) as drip:
        is_over = threading.Event()

        def send() -> None:
            while not is_over.wait(0.3):
                with contextlib.suppress(OSError):
                    drip.sendall(b"x")

        thread = threading.Thread(target=send)
        thread.start()
        try:
            started = time.monotonic()
            eventually(lambda: ask_health(server.port), 12)
            server.close()
            assert time.monotonic() - started < 15
        finally:
            is_over.set()
            thread.join()


def test_a_coordinator_cannot_make_a_party_start_processes_without_end(
    it: QuickDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Process:
        stdin = None

        def __init__(self, *_: object, **__: object) -> None:
            started.append(self)

        def poll(self) -> None:
            return None

    monkeypatch.setattr(executor.subprocess, "Popen", Process)
    taker = executor.Executor("party", it.place("bank"))
    for run in range(200):
        taker._give(run, "token")
    assert len(started) == executor.MOST_WORKERS
