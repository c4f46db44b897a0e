"""Every byte between a party and its coordinator has a name, and every sealed byte stands in the party's ledger.

`python -m tests.deploy.test_accounting` runs a deployment on loopback with a tap before each party and prints the
tables.
"""

import contextlib
import hashlib
import json
import re
import shutil
import ssl
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.proto.message_pb2 import PullObjectResponse

from fedmkt.contract.agreement import Contract
from fedmkt.deploy import messages
from fedmkt.deploy.messages import decode_outcome, decode_serve
from fedmkt.protocol import wire
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Nothing,
    Outcome,
    Silent,
    Step,
    Turn,
)
from fedmkt.protocol.turns import Receipt
from fedmkt.protocol.witness import close, witness
from fedmkt.transport.driver import Coordinator, Opened, serve
from fedmkt.transport.flower_control import bundle_digest
from fedmkt.transport.hub_endpoint import HubEndpoint, serve_session
from fedmkt.transport.hub_frames import Kind, plain
from fedmkt.transport.memory import MemoryEndpoint
from tests.deploy.accounting import WAYS, HubAccount, Ledger, account_of_hub, ledger_of, told_by
from tests.deploy.deployment import COORDINATOR, Deployment
from tests.deploy.front_accounting import FrontAccount, account_of_front, our_content
from tests.deploy.wire_tap import (
    Connection,
    Flow,
    WireTap,
    read_grpc,
    read_head_fields,
    read_http1,
    read_http2,
)
from tests.engine import BANK, DEALER, SHOP, World, job_config, toy_world
from tests.transport.hub_world import hub_world

GRPC_FIELDS = {
    "up": {
        ":method",
        ":scheme",
        ":path",
        ":authority",
        "content-type",
        "te",
        "grpc-accept-encoding",
        "user-agent",
    },
    "down": {":status", "content-type", "grpc-accept-encoding", "grpc-status", "grpc-message"},
}
LOG, BESIDE = "log.jsonl", "witness.jsonl"
LETTER = b"\2" + bytes(15)


# ------------------------------------------------------------------------------------------- a deployed run


def serving(keys: Path, protocol: str) -> Callable[[], ssl.SSLContext]:
    """Make the coordinator's side of TLS: front ("http/1.1") or hub ("h2")."""

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(keys / "server.pem", keys / "server.key")
        context.set_alpn_protocols([protocol])
        if protocol == "h2":
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(keys / "ca.pem")
        return context

    return make


def dialling(keys: Path, protocol: str) -> Callable[[], ssl.SSLContext]:
    """Make a party's side of TLS."""

    def make() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(keys / "ca.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols([protocol])
        if protocol == "h2":
            context.load_cert_chain(keys / "tls.pem", keys / "tls.key")
        return context

    return make


@dataclass(frozen=True)
class Tapped:
    """A deployed run that has ended, and what the taps saw of each party."""

    deployment: Deployment
    status: dict[str, object]
    hub: dict[str, HubAccount]
    front: dict[str, FrontAccount]

    def ledger(self, name: str, file: str, way: str) -> Ledger:
        """Read a participant's own ledger of messages."""
        (log,) = self.deployment.place(name).glob(f"state/contracts/*/log/{file}")
        return ledger_of(log.read_bytes(), way)  # type: ignore[arg-type]

    def receipts(self) -> list[Receipt]:
        """Read what the coordinator keeps of the run: the signed receipts."""
        (path,) = self.deployment.place(COORDINATOR).glob("runs/*/coordinator/receipts.bin")
        data, found, at = path.read_bytes(), [], 0
        while at < len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            found.append(wire.decode(data[at + 4 : end], Receipt))
            at = end
        return found

    def lines(self) -> Iterator[str]:
        """Show all tables."""
        for name in self.hub:
            for port, account in (("hub", self.hub[name]), ("front", self.front[name])):
                yield f"{name} and the {port}"
                yield from account.lines()
                yield ""


def run_tapped(folder: Path) -> Tapped:
    """Run the main job of a small world in a deployment, with taps between each party and the coordinator."""
    (folder / "data").mkdir(parents=True)
    job_config(folder / "data", iterations=2)
    it = Deployment(folder, folder / "data" / "job.toml")
    ours = it.place(COORDINATOR) / "keys"
    with contextlib.ExitStack() as stack:
        taps = {}
        for name in it.names:
            keys = it.place(name) / "keys"
            taps[name] = tuple(
                stack.enter_context(
                    WireTap(("127.0.0.1", port), serving(ours, protocol), dialling(keys, protocol))
                )
                for port, protocol in ((it.front, "http/1.1"), (it.hub, "h2"))
            )
            it.dialled[name] = (taps[name][0].port, taps[name][1].port)
        with it:
            status = it.run()
    return Tapped(
        it,
        status,
        {name: account_of_hub(hub.connections, name) for name, (_, hub) in taps.items()},
        {name: account_of_front(front.connections) for name, (front, _) in taps.items()},
    )


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Tapped:
    found = run_tapped(tmp_path_factory.mktemp("tapped"))
    assert found.status["state"] == "done"
    return found


@pytest.mark.slow
def test_every_byte_of_a_deployed_run_has_a_kind(tapped: Tapped) -> None:
    for account in (*tapped.hub.values(), *tapped.front.values()):
        for way in WAYS:
            assert account.seen[way] > 1000 and account.remainder(way) == 0


@pytest.mark.slow
def test_the_ledgers_of_a_deployed_run_hold_every_envelope_and_no_other(tapped: Tapped) -> None:
    for name, account in tapped.hub.items():
        for way in WAYS:
            assert account.passed(way, is_witness=False) == tapped.ledger(name, LOG, way) != Counter()
            assert account.passed(way, is_witness=True) == tapped.ledger(name, BESIDE, way) != Counter()


@pytest.mark.slow
def test_the_log_names_every_value_that_a_party_told_in_clear(tapped: Tapped) -> None:
    for name, account in tapped.hub.items():
        (log,) = tapped.deployment.place(name).glob(f"state/contracts/*/log/{LOG}")
        found = Counter({told: n for told, n in account.told.items() if not told[1].startswith("witness.")})
        assert found == told_by(log.read_bytes()) != Counter()
        assert {told[3] for told in account.told - found} == {"Silent"}


@pytest.mark.slow
def test_the_coordinator_holds_a_receipt_for_every_envelope_and_no_other(tapped: Tapped) -> None:
    made = [(r.party, reader, d.hex()) for r in tapped.receipts() for reader, d, _ in (*r.parts, *r.riders)]
    for name, account in tapped.hub.items():
        assert Counter((name, s.peer, s.digest) for s in account.sent) == Counter(
            m for m in made if m[0] == name
        )
        assert Counter((s.peer, name, s.digest) for s in account.received) == Counter(
            m for m in made if m[1] == name
        )


@pytest.mark.slow
def test_a_partys_own_count_of_the_hubs_frames_is_the_taps(tapped: Tapped) -> None:
    for name, account in tapped.hub.items():
        log = (tapped.deployment.place(name) / "logs" / "executor.log").read_text()
        ((sent, received),) = re.findall(r"(\d+) bytes sent, (\d+) received", log)
        # What is said after the line: the goodbye, and at most a few acknowledgements.
        assert 4 <= account.frames["up"] - int(sent) < 200
        assert 0 <= account.frames["down"] - int(received) < 200


@pytest.mark.slow
def test_the_heads_of_the_hubs_calls_are_grpcs(tapped: Tapped) -> None:
    for account in tapped.hub.values():
        for way in WAYS:
            assert {name for name, _ in account.heads[way]} <= GRPC_FIELDS[way]
        said = [value for name, value in account.heads["down"] if name == "grpc-message"]
        assert said and all(text.startswith("hub: ") for text in said)


@pytest.mark.slow
def test_the_front_carries_flowers_messages_one_invitation_and_its_outcome(tapped: Tapped) -> None:
    # By digest: SuperLink does not take an object that it has; a nonce makes every outcome another one.
    objects = {digest: o for account in tapped.front.values() for digest, o in account.objects.items()}
    for account in tapped.front.values():
        assert set(account.statuses) == {"HTTP/1.1 200 OK"}
        assert (
            len(account.named["down"]) == len(account.named["up"]) == 3
        )  # a message, its list of records, ours
        assert set(account.objects) <= {*account.named["down"], *account.named["up"]} <= set(objects)
        (invitation,) = _ours(objects, account.named["down"])
        (outcome,) = _ours(objects, account.named["up"])
        assert account.ours["down"] == [invitation] and account.ours["up"] in ([outcome], [])
        assert decode_serve(invitation).contract.contract.name == tapped.deployment.job.name
        assert decode_outcome(outcome) == messages.Outcome()
        assert set(json.loads(invitation)) == {"contract", "session", "seed", "epoch", "statements"}
        assert set(json.loads(outcome)) == {"branch", "nonce", "step"}
        assert {hashlib.sha256(bundle).hexdigest() for bundle in account.bundles} == {bundle_digest()}
    assert any(account.ours["up"] for account in tapped.front.values())


def _ours(objects: Mapping[str, bytes], digests: Sequence[str]) -> list[bytes]:
    return [our_content(objects[d]) for d in digests if objects[d].startswith(b"ConfigRecord")]


@pytest.mark.slow
def test_the_fronts_log_holds_every_exchange_that_the_tap_saw(tapped: Tapped) -> None:
    log = (tapped.deployment.place(COORDINATOR) / "logs" / "front.log").read_text()
    lines = re.findall(r"POST '/v1/fleet/([a-z-]+)' 200 in (\d+) out (\d+)", log)
    logged = Counter((path, int(into), int(out)) for path, into, out in lines)
    seen = sum((account.exchanges for account in tapped.front.values()), Counter())
    assert not seen - logged
    assert (logged - seen).total() <= sum(account.unanswered for account in tapped.front.values())


# ------------------------------------------------------------------------------------------- a hub and a short script


@dataclass(frozen=True)
class Parcel(Message):
    """Something of many bytes, and of few."""

    content: bytes


def _hand_over(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Parcel, Silent]:
    other = SHOP if turn.me == BANK else BANK
    return Outcome(Silent(), send={other: Parcel(bytes(3_000_000)), DEALER: Parcel(b"few")})


def _take(turn: Turn, inbox: Inbox[Parcel]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent())


HAND_OVER = Step("toy.hand_over", _hand_over, Silent)
TAKE = Step("toy.take", _take, Silent, reads=(Parcel,))


def handing_over(call: Caller, contract: Contract) -> Silent:
    """Bank and shop hand parcels to each other and to the dealer."""
    for giver, taker in ((BANK, SHOP), (SHOP, BANK)):
        given = call(giver, HAND_OVER)
        call(taker, TAKE, given.to(taker))
        call(DEALER, TAKE, given.to(DEALER))
        witness(call, contract)
    close(call, contract)
    return Silent()


@dataclass(frozen=True)
class Short:
    """A run of the short script over a real hub, with a tap before the bank."""

    world: World
    connections: list[Connection]

    def account(self) -> HubAccount:
        """Account for what the tap saw."""
        return account_of_hub(self.connections, BANK)

    def ledger(self, file: str, way: str) -> Ledger:
        """Read the bank's ledger."""
        return ledger_of((self.world.folder_of(BANK) / "log" / file).read_bytes(), way)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Short:
    folder = tmp_path_factory.mktemp("short")
    toy = toy_world(folder, handing_over)
    parties = toy.open()
    with hub_world(BANK, SHOP) as world:
        ours, bank = folder / "hub" / "keys", folder / "bank" / "keys"
        for keys, name, issued in ((ours, "server", world.server), (bank, "tls", world.issued[BANK])):
            keys.mkdir(parents=True)
            (keys / f"{name}.key").write_bytes(issued.key)
            (keys / f"{name}.pem").write_bytes(issued.certificate)
            (keys / "ca.pem").write_bytes(world.authority.certificate)
        with WireTap(("127.0.0.1", world.port), serving(ours, "h2"), dialling(bank, "h2")) as tap:
            coordinator = world.session(COORDINATOR)
            sessions = {BANK: world.session(BANK, address=f"127.0.0.1:{tap.port}"), SHOP: world.session(SHOP)}
            threads = [threading.Thread(target=_serve, args=(s, parties[n])) for n, s in sessions.items()]
            for thread in threads:
                thread.start()
            coordinator.wait_for(list(sessions), 8)
            endpoints = {n: HubEndpoint(coordinator, n) for n in sessions}
            dealer = MemoryEndpoint(parties[DEALER])
            driver = Coordinator(
                toy.contract, toy.script, {**endpoints, DEALER: dealer}, folder / "coordinator", deadline=30
            )
            assert driver.run() == Silent()
            for endpoint in (*endpoints.values(), dealer):
                endpoint.close()
            for thread in threads:
                thread.join(10)
            world.close_sessions()
    for party in parties.values():
        party.release()
    return Short(toy, tap.connections)


def _serve(session: object, party: object) -> None:
    serve_session(session, COORDINATOR, lambda ask: serve(party, ask))  # type: ignore[arg-type]
    session.close()  # type: ignore[attr-defined]


def test_every_byte_of_a_short_run_has_a_kind(short: Short) -> None:
    account = short.account()
    assert account.seen["up"] > 3_000_000 and account.seen["down"] > 3_000_000
    assert (account.remainder("up"), account.remainder("down")) == (0, 0)
    assert not [c.trouble for c in short.connections if c.trouble]


def test_the_ledgers_of_a_short_run_hold_every_envelope_and_no_other(short: Short) -> None:
    account = short.account()
    for way, count in (("up", 2), ("down", 1)):
        assert account.passed(way, is_witness=False) == short.ledger(LOG, way)  # type: ignore[arg-type]
        assert account.passed(way, is_witness=True) == short.ledger(BESIDE, way)  # type: ignore[arg-type]
        assert short.ledger(LOG, way).total() == count
        # Head and cosignature: twice to the other party, at the close to the coordinator too.
        assert short.ledger(BESIDE, way).total() == 2 * (2 * 1 + 2)


def test_the_heads_of_a_short_run_are_grpcs(short: Short) -> None:
    account = short.account()
    for way in WAYS:
        assert {name for name, _ in account.heads[way]} <= GRPC_FIELDS[way]


def with_another(short: Short, change: Callable[[Connection], Connection]) -> HubAccount:
    """Account for the run with its longest connection changed: on a busy machine a session may have had several."""
    longest = max(short.connections, key=lambda c: len(c.up.plain))
    return account_of_hub([change(c) if c is longest else c for c in short.connections], BANK)


def test_a_changed_byte_of_an_envelope_is_not_in_the_ledger(short: Short) -> None:
    def spoil(connection: Connection) -> Connection:
        changed = bytearray(connection.up.plain)
        changed[len(changed) // 2] ^= 1
        return Connection(up=replace(connection.up, plain=changed), down=connection.down)

    account = with_another(short, spoil)
    assert account.remainder("up") == 0
    assert account.passed("up", is_witness=False) != short.ledger(LOG, "up")


def test_a_byte_more_on_the_socket_is_a_remainder(short: Short) -> None:
    def lengthen(connection: Connection) -> Connection:
        return Connection(up=replace(connection.up, tcp=connection.up.tcp + 1), down=connection.down)

    assert with_another(short, lengthen).remainder("up") == 1


def test_a_letter_with_room_for_more_than_its_fields_is_refused() -> None:
    body = wire.encode(Opened(b"run"))
    HubAccount().read_letter(LETTER + body, "up")
    padded = (int.from_bytes(body[:4], "big") + 8).to_bytes(4, "big") + body[4:] + b" " * 8
    assert wire.decode(padded, Opened) == Opened(b"run")
    with pytest.raises(ValueError, match="another form"):
        HubAccount().read_letter(LETTER + padded, "up")


@pytest.mark.parametrize("kind", [Kind.BEAT, Kind.LEAVE, Kind.UP, Kind.HELLO, Kind.ACK])
def test_a_frame_with_more_than_its_fields_is_refused(kind: Kind) -> None:
    with pytest.raises(ValueError):
        HubAccount().read_frame(plain(kind) + b"more", "up")


@pytest.mark.parametrize(
    "read",
    [
        lambda: list(read_http2(b"\0\0\1\0\0\0\0\0\1", is_client=False)),
        lambda: list(read_http2(b"\0\0\0\x0b\0\0\0\0\1", is_client=False)),
        lambda: list(read_http2(b"\0\0\1\0\x08\0\0\0\1\0", is_client=False)),
        lambda: list(read_http2(b"GET / HTTP/1.1\r\n\r\n", is_client=True)),
        lambda: list(read_grpc(read_http2(b"\0\0\6\0\0\0\0\0\1\0\0\0\0\2x", is_client=False))),
        lambda: list(read_grpc(read_http2(b"\0\0\5\0\0\0\0\0\1\1\0\0\0\0", is_client=False))),
        lambda: read_head_fields(b"\x40\x85abcde\1x"),
        lambda: read_head_fields(b"\xbe"),
        lambda: list(read_http1(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nx")),
        lambda: list(read_http1(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")),
        lambda: Flow().add_records([5 + 3 + 17 + 4], b"abc", is_handshake=False),
    ],
)
def test_a_reader_refuses_what_it_cannot_name(read: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        read()


# ------------------------------------------------------------------------------------------- a front that cheats


def _exchange(path: str, asked: bytes, answered: bytes, head: str = "") -> Connection:
    def flow(line: str, body: bytes) -> Flow:
        text = f"{line}\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body
        return Flow(tcp=len(text), plain=bytearray(text))

    return Connection(up=flow(f"POST {path} HTTP/1.1", asked), down=flow("HTTP/1.1 200 OK", answered))


def _pulled(content: bytes) -> bytes:
    answer = PullObjectResponse(object_found=True, object_available=True, object_content=content)
    return bytes(answer.SerializeToString())


def test_an_exchange_of_the_fleet_api_is_accounted_for() -> None:
    record = ConfigRecord({"body": b"an invitation", "seconds": 1.0})
    account = account_of_front([_exchange("/v1/fleet/pull-object", b"", _pulled(record.deflate()))])
    assert account.ours == {"up": [], "down": [b"an invitation"]}
    assert (account.remainder("up"), account.remainder("down")) == (0, 0)


@pytest.mark.parametrize(
    "connection",
    [
        _exchange("/v1/fleet/register-node", b"", b""),
        _exchange("/v1/control/start-run", b"", b""),
        _exchange("/v1/fleet/get-run?more", b"", b""),
        _exchange("/v1/fleet/get-run", b"", b"", head="x-more: 1\r\n"),
        _exchange("/v1/fleet/get-run", b"\xfa\x07\4more", b""),
        _exchange("/v1/fleet/pull-messages", b"\x0a\x07\xfa\x07\4more", b""),
        _exchange("/v1/fleet/pull-object", b"", _pulled(ConfigRecord({"body": b"", "more": b"x"}).deflate())),
        _exchange("/v1/fleet/pull-object", b"", _pulled(ConfigRecord({"body": "text"}).deflate())),
        _exchange("/v1/fleet/pull-object", b"", _pulled(MetricRecord({"loss": 0.5}).deflate())),
        _exchange("/v1/fleet/pull-object", b"", _pulled(RecordDict({"more": ConfigRecord()}).deflate())),
        Connection(down=_exchange("/v1/fleet/get-run", b"", b"").down),
    ],
)
def test_what_is_not_of_the_fleet_api_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError):
        account_of_front([connection])


def main() -> int:
    """Run a deployment and print where every byte went."""
    folder = Path(tempfile.mkdtemp(prefix="fedmkt-accounting-"))
    try:
        tapped = run_tapped(folder)
        print(*tapped.lines(), sep="\n")
        accounts = [*tapped.hub.values(), *tapped.front.values()]
        left = sum(abs(account.remainder(way)) for account in accounts for way in WAYS)
        same = all(
            account.passed(way, is_witness) == tapped.ledger(name, file, way)
            for name, account in tapped.hub.items()
            for way in WAYS
            for file, is_witness in ((LOG, False), (BESIDE, True))
        )
        print(
            f"{left} bytes without a kind; ledgers and wire hold {'the same' if same else 'OTHER'} envelopes"
        )
        return int(left > 0 or not same)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
