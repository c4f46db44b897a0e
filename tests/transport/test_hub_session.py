import hashlib
import logging
import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from fedmkt.errors import FedmktError, PeerError, TransportError
from fedmkt.transport.hub_frames import METHOD, Join, Kind, proof, read_challenge, write_join
from fedmkt.transport.hub_server import HubLimits, MemberTraffic, takes_tls12
from fedmkt.transport.hub_session import HubSession, NothingCame, SessionLimits
from tests.transport.fault_proxy import DOWN, UP, Fault, FaultProxy, random_faults
from tests.transport.hub_world import COORDINATOR, QUICK, Authority, HubWorld, eventually, hub_world


@pytest.fixture(scope="module")
def shared() -> Iterator[HubWorld]:
    """One hub for tests that leave nothing behind but sessions with ids of their own."""
    with hub_world("bank", "partner", "telecom") as world:
        yield world


@pytest.fixture(autouse=True)
def sessions_end(request: pytest.FixtureRequest) -> Iterator[None]:
    """Close what a test opened at the shared hub."""
    yield
    if "shared" in request.fixturenames:
        request.getfixturevalue("shared").close_sessions()


def _open(world: HubWorld, *names: str, **options: object) -> list[HubSession]:
    """Open a session of its own for the coordinator and these members."""
    key = secrets.token_bytes(16)
    everyone = (COORDINATOR, *names)
    found = [
        world.session(n, key, members=names if n == COORDINATOR else (), **options)  # type: ignore[arg-type]
        for n in everyone
    ]
    for session in found:
        session.wait_for([n for n in everyone if n != session.me], 8.0)
    return found


# Messages.


def test_messages_arrive_in_order_from_each_member_to_each(shared: HubWorld) -> None:
    coordinator, bank, partner = _open(shared, "bank", "partner")
    for i in range(50):
        for sender in (coordinator, bank):
            sender.send("partner", f"{sender.me} {i}".encode())
    got: dict[str, list[bytes]] = {COORDINATOR: [], "bank": []}
    for _ in range(100):
        name, message = partner.receive(5)
        got[name].append(bytes(message))
    assert got == {n: [f"{n} {i}".encode() for i in range(50)] for n in got}


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 30_000_000])
def test_a_message_of_any_size_arrives_whole(shared: HubWorld, size: int) -> None:
    _, bank, partner = _open(shared, "bank", "partner")
    message = random.Random(size).randbytes(size)
    bank.send("partner", [message[: size // 2], memoryview(message)[size // 2 :]])
    assert partner.receive_from("bank", 20) == message


def test_several_sessions_do_not_hear_each_other(shared: HubWorld) -> None:
    _, first, _ = _open(shared, "bank", "partner")
    _, _, second = _open(shared, "bank", "partner")
    first.send("partner", b"for the first session")
    with pytest.raises(NothingCame):
        second.receive(0.3)


def test_every_byte_is_counted_alike_at_both_ends() -> None:
    with hub_world() as world:
        sessions = world.all_joined()
        sessions["bank"].send("partner", bytes(3_000_000))
        sessions["partner"].receive(10)
        sessions["bank"].close()  # a stream of its own is over, and still counted

        def at_hub() -> dict[str, tuple[int, int]]:
            in_session, before = world.hub.traffic()[world.session_id], world.hub.traffic()[b""]
            strays = {n: before.get(n, MemberTraffic()) for n in sessions}
            return {
                n: (t.received + strays[n].received, t.sent + strays[n].sent) for n, t in in_session.items()
            }

        eventually(lambda: at_hub() == {n: (s.bytes_sent, s.bytes_received) for n, s in sessions.items()})
        assert at_hub()["partner"][1] > 3_000_000


def test_a_member_that_comes_later_gets_what_was_sent_before(shared: HubWorld) -> None:
    key = secrets.token_bytes(16)
    coordinator = shared.session(COORDINATOR, key, members=("bank",))
    coordinator.send("bank", b"early")
    time.sleep(0.2)
    assert shared.session("bank", key).receive_from(COORDINATOR, 5) == b"early"


def test_a_reader_that_does_not_read_blocks_only_who_writes_to_it(shared: HubWorld) -> None:
    coordinator, bank, partner = _open(
        shared, "bank", "partner", limits=SessionLimits(gone_seconds=9, outbox_bytes=4 << 20)
    )
    with pytest.raises(TransportError, match="takes no more"):
        for _ in range(40):
            bank.send("partner", bytes(1 << 20), timeout=0.5)
    bank.send(COORDINATOR, b"small")
    coordinator.send("partner", b"small too")
    assert coordinator.receive(3) == ("bank", b"small")
    assert partner.receive_from(COORDINATOR, 3) == b"small too"
    held = shared.hub.traffic()[bank._id]["partner"].sent
    assert held < 20 << 20


def test_a_small_message_does_not_wait_behind_the_bulk_of_somebody_else(shared: HubWorld) -> None:
    coordinator, bank, partner = _open(shared, "bank", "partner")
    bulk = [bytes(1 << 20)] * 150
    bank.send("partner", bulk)
    started = time.monotonic()
    coordinator.send("partner", b"small")
    assert partner.receive_from(COORDINATOR, 5) == b"small"
    assert time.monotonic() - started < 0.5
    assert len(partner.receive_from("bank", 20)) == 150 << 20


# Cuts, faults and restarts.


def _transfer(sender: HubSession, reader: HubSession, count: int, meanwhile: Callable[[], None]) -> None:
    """Send messages both ways while something else happens; what arrives is what was sent."""
    drawn = random.Random(count)
    messages = [drawn.randbytes(drawn.choice([1, 1000, 300_000, 2_000_000])) for _ in range(count)]

    def send(session: HubSession, to: str) -> None:
        for message in messages:
            session.send(to, message)

    threads = [
        threading.Thread(target=send, args=(sender, reader.me)),
        threading.Thread(target=send, args=(reader, sender.me)),
        threading.Thread(target=meanwhile),
    ]
    for thread in threads:
        thread.start()
    for session, source in ((reader, sender.me), (sender, reader.me)):
        found = [hashlib.sha256(session.receive_from(source, 20)).digest() for _ in messages]
        assert found == [hashlib.sha256(m).digest() for m in messages]
    for thread in threads:
        thread.join(10)


def test_a_transfer_survives_cuts_on_both_sides() -> None:
    with (
        hub_world() as world,
        FaultProxy(("127.0.0.1", world.port)) as near,
        FaultProxy(("127.0.0.1", world.port)) as far,
    ):
        world.session(COORDINATOR)
        bank = world.session("bank", address=near.address)
        partner = world.session("partner", address=far.address)
        bank.wait_for(["partner"], 5)

        def cut() -> None:
            for proxy in (near, far, near, far, near):
                time.sleep(0.25)
                proxy.cut()

        _transfer(bank, partner, 60, cut)
        assert bank.connections + partner.connections > 3


def test_a_transfer_survives_a_restart_of_the_hub() -> None:
    with hub_world() as world:
        sessions = world.all_joined()
        _transfer(sessions["bank"], sessions["partner"], 60, world.restart_hub)
        assert sessions["bank"].connections > 1


@pytest.mark.parametrize("seed", range(3))
def test_a_transfer_survives_whatever_the_network_does_to_its_bytes(seed: int) -> None:
    kinds = ("drop", "duplicate", "swap", "flip", "truncate", "cut", "delay")
    faults = random_faults(seed, 8, 6_000, 12_000_000, kinds)
    with hub_world() as world, FaultProxy(("127.0.0.1", world.port), faults) as proxy:
        world.session(COORDINATOR)
        bank = world.session("bank", address=proxy.address)
        partner = world.session("partner")
        _transfer(bank, partner, 25, lambda: None)
        assert proxy.happened


@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("kind", ["flip", "drop", "swap", "duplicate", "truncate"])
def test_a_fault_while_joining_is_overcome(shared: HubWorld, kind: str, direction: str) -> None:
    fault = Fault(kind, direction, at=1_500, size=3)  # type: ignore[arg-type]
    with FaultProxy(("127.0.0.1", shared.port), [fault]) as proxy:
        key = secrets.token_bytes(16)
        coordinator = shared.session(COORDINATOR, key, members=("bank",))
        bank = shared.session("bank", key, address=proxy.address, limits=SessionLimits(gone_seconds=20))
        bank.send(COORDINATOR, b"made it", timeout=15)
        assert coordinator.receive(15) == ("bank", b"made it")
        bank.close(0)


def test_a_silent_cut_is_noticed_and_overcome() -> None:
    with hub_world() as world, FaultProxy(("127.0.0.1", world.port)) as proxy:
        coordinator = world.session(COORDINATOR)
        bank = world.session("bank", address=proxy.address, limits=SessionLimits(gone_seconds=20))
        bank.wait_for([COORDINATOR], 5)
        proxy.freeze()
        coordinator.send("bank", b"into the silence")
        eventually(lambda: not coordinator.is_here("bank"), 9)
        proxy.heal()
        assert bank.receive_from(COORDINATOR, 9) == b"into the silence"


def test_a_hub_that_stays_away_fails_everybody_who_waits() -> None:
    with hub_world() as world:
        bank = world.all_joined(limits=SessionLimits(gone_seconds=1.0))["bank"]
        errors: list[Exception] = []

        def wait() -> None:
            try:
                bank.receive(20)
            except FedmktError as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        world.hub.stop()
        thread.join(5)
        assert [type(e) for e in errors] == [TransportError]
        with pytest.raises(TransportError, match="no connection for 1 s"):
            bank.send("partner", b"x")


def test_a_member_that_stays_away_fails_who_waits_for_it() -> None:
    with hub_world() as world, FaultProxy(("127.0.0.1", world.port)) as proxy:
        coordinator = world.session(COORDINATOR, limits=SessionLimits(gone_seconds=1.0))
        bank = world.session("bank", address=proxy.address)
        partner = world.session("partner")
        coordinator.wait_for(["bank", "partner"], 5)
        proxy.refuse()
        with pytest.raises(TransportError, match="bank: was not connected"):
            coordinator.receive_from("bank", 9)
        partner.send(COORDINATOR, b"still here")
        assert coordinator.receive_from("partner", 3) == b"still here"
        bank.close(0)


def test_a_restarted_member_is_reported(shared: HubWorld) -> None:
    coordinator, bank = _open(shared, "bank")
    bank.send(COORDINATOR, b"before")
    coordinator.receive(5)
    again = shared.session("bank", bank._id)
    with pytest.raises(TransportError, match="bank: was restarted"):
        coordinator.receive_from("bank", 5)
    with pytest.raises(TransportError, match="newer stream"):
        bank.receive(5)
    again.close(0)


def test_a_member_that_leaves_is_reported_after_its_last_message(shared: HubWorld) -> None:
    coordinator, bank, _ = _open(shared, "bank", "partner")
    bank.send(COORDINATOR, bytes(2_000_000))
    bank.close()
    assert len(coordinator.receive_from("bank", 5)) == 2_000_000
    with pytest.raises(TransportError, match="bank: left"):
        coordinator.receive_from("bank", 5)
    assert coordinator.is_here("partner")


def test_the_end_of_a_session_is_told_to_all(shared: HubWorld) -> None:
    coordinator, bank = _open(shared, "bank")
    coordinator.send("bank", b"last words")
    coordinator.close()
    assert bank.receive(5) == (COORDINATOR, b"last words")
    with pytest.raises(TransportError, match=r"left the session|has ended"):
        bank.receive(5)
    late = shared.session("bank", bank._id)
    with pytest.raises(TransportError, match="has ended"):
        late.receive(5)


def test_waiting_ends_at_its_deadline(shared: HubWorld) -> None:
    coordinator, _ = _open(shared, "bank")
    started = time.monotonic()
    with pytest.raises(NothingCame):
        coordinator.receive(0.2)
    with pytest.raises(TransportError, match="is no member"):
        coordinator.send("stranger", b"x")
    assert time.monotonic() - started < 1


def test_closing_while_nobody_answers_is_quick(shared: HubWorld) -> None:
    lonely = shared.session("bank", address="127.0.0.1:1")
    time.sleep(0.2)
    started = time.monotonic()
    lonely.close()
    assert time.monotonic() - started < 2
    with pytest.raises(TransportError, match="closed"):
        lonely.send("partner", b"x")


# Limits.


def test_a_message_over_the_limit_is_refused_by_sender_and_hub() -> None:
    with hub_world("bank", limits=HubLimits(message_bytes=1000, heartbeat_seconds=0.2)) as world:
        coordinator, bank = world.session(COORDINATOR), world.session("bank")
        bank.wait_for([COORDINATOR], 5)
        with pytest.raises(TransportError, match="over the limit"):
            bank.send(COORDINATOR, bytes(1001))
        link = next(iter(bank._peers)).link
        object.__setattr__(link._limits, "message", 1 << 30)  # a client that does not keep to it
        bank.send(COORDINATOR, bytes(1001))
        with pytest.raises(TransportError, match="over the limit of 1000"):
            bank.receive(5)
        with pytest.raises(NothingCame):
            coordinator.receive(0.2)


def test_a_session_over_its_bytes_ends() -> None:
    with hub_world(limits=HubLimits(session_bytes=3 << 20, heartbeat_seconds=0.2)) as world:
        sessions = world.all_joined()
        sessions["bank"].send("partner", bytes(4 << 20))
        for session in sessions.values():
            with pytest.raises(TransportError, match="limit of 3145728 bytes"):
                session.receive(5)


# Who may be here. Raw streams stand for clients that are not ours.


def _refused(session: HubSession, seconds: float = 8.0) -> FedmktError:
    with pytest.raises(FedmktError) as caught:
        session.receive(seconds)
    assert not isinstance(caught.value, NothingCame)
    return caught.value


def test_a_member_that_is_not_named_is_refused(shared: HubWorld, caplog: pytest.LogCaptureFixture) -> None:
    coordinator, _ = _open(shared, "bank")
    with caplog.at_level(logging.WARNING, "fedmkt.hub"):
        error = _refused(shared.session("telecom", coordinator._id))
    assert "does not name it" in str(error)
    assert "telecom: the session does not name it" in caplog.text


def test_only_the_coordinator_opens_sessions(shared: HubWorld) -> None:
    error = _refused(shared.session("bank", secrets.token_bytes(16), members=("partner",)))
    assert "may not open" in str(error)


def test_the_coordinator_cannot_change_the_members(shared: HubWorld) -> None:
    coordinator, _ = _open(shared, "bank")
    again = shared.session(COORDINATOR, coordinator._id, members=("bank", "telecom"))
    assert "other members" in str(_refused(again))


def test_another_identity_key_is_refused(shared: HubWorld) -> None:
    coordinator, _ = _open(shared, "bank", "partner")[:2]
    thief = shared.session("partner", coordinator._id, identity=shared.identities["bank"])
    assert "did not sign" in str(_refused(thief))


def test_another_certificate_than_the_admitted_one_is_refused(shared: HubWorld) -> None:
    issued = shared.issued["bank"]
    shared.issued["bank"] = shared.authority.client("bank")
    try:
        assert "another certificate" in str(_refused(shared.session("bank")))
    finally:
        shared.issued["bank"] = issued


def test_a_name_that_is_not_admitted_is_refused(shared: HubWorld) -> None:
    shared.issued["stranger"] = shared.authority.client("stranger")
    error = _refused(shared.session("stranger", identity=shared.identities["bank"]))
    assert "is not admitted" in str(error)


def test_a_certificate_of_another_ca_never_connects(shared: HubWorld) -> None:
    foreign = Authority().client("bank")
    tls = replace(shared.tls("bank"), key=foreign.key, certificate=foreign.certificate)
    error = _refused(shared.session("bank", tls=tls, limits=SessionLimits(gone_seconds=1.0)))
    assert "no connection for 1 s" in str(error)


def test_a_hub_of_another_ca_is_not_talked_to(shared: HubWorld) -> None:
    tls = replace(shared.tls("bank"), ca=Authority().certificate)
    session = shared.session("bank", tls=tls, limits=SessionLimits(gone_seconds=1.0))
    assert "no connection for 1 s" in str(_refused(session))
    assert session.bytes_sent == session.bytes_received == 0


def test_a_hub_with_another_certificate_than_the_pinned_one_gets_no_signature(shared: HubWorld) -> None:
    tls = replace(shared.tls("bank"), hub=shared.authority.server().certificate)
    session = shared.session("bank", tls=tls)
    error = _refused(session)
    assert isinstance(error, PeerError) and "not the pinned one" in str(error)
    assert session.bytes_sent == 0


def _raw(
    world: HubWorld, name: str | None, talk: Callable[[Iterator[bytes]], Iterator[bytes]]
) -> grpc.RpcError:
    """Hold a stream with frames made by hand, and return how it ended."""
    if name is None:
        credentials = grpc.ssl_channel_credentials(world.authority.certificate)
    else:
        tls = world.tls(name)
        credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    with grpc.secure_channel(world.address, credentials) as channel:
        arrived: list[bytes] = []
        change = threading.Condition()

        def incoming() -> Iterator[bytes]:
            at = 0
            while True:
                with change:
                    if not change.wait_for(lambda at=at: len(arrived) > at, 5):
                        return
                    frame = arrived[at]
                at += 1
                yield frame

        call = channel.stream_stream(METHOD)(talk(incoming()), timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            for frame in call:
                with change:
                    arrived.append(frame)
                    change.notify_all()
        return caught.value


def test_a_client_without_a_certificate_is_refused(shared: HubWorld) -> None:
    error = _raw(shared, None, lambda incoming: iter([b"x"]))
    assert error.code() == grpc.StatusCode.UNAVAILABLE


def test_a_replayed_answer_to_an_earlier_challenge_is_refused(shared: HubWorld) -> None:
    coordinator, _ = _open(shared, "bank", "partner")[:2]
    answers: list[bytes] = []

    def answer(incoming: Iterator[bytes]) -> Iterator[bytes]:
        challenge, certificate = read_challenge(next(incoming))
        digest = hashlib.sha256(certificate).digest()
        signed = proof(challenge, coordinator._id, "partner", digest)
        answers.append(write_join(Join(coordinator._id, shared.identities["partner"].sign(signed), ())))
        yield answers[0]
        assert next(incoming)[0] == Kind.WELCOME
        yield b"\xff nonsense"

    assert _raw(shared, "partner", answer).code() == grpc.StatusCode.INVALID_ARGUMENT

    def replay(incoming: Iterator[bytes]) -> Iterator[bytes]:
        next(incoming)
        yield answers[0]

    error = _raw(shared, "partner", replay)
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED and "did not sign" in error.details()


def test_a_proof_for_another_hub_is_refused(shared: HubWorld) -> None:
    coordinator, _ = _open(shared, "bank", "partner")[:2]

    def relay(incoming: Iterator[bytes]) -> Iterator[bytes]:
        challenge, _ = read_challenge(next(incoming))
        signed = proof(challenge, coordinator._id, "partner", bytes(32))
        yield write_join(Join(coordinator._id, shared.identities["partner"].sign(signed), ()))

    assert _raw(shared, "partner", relay).code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("frame", [b"", b"\2\377\377\0", b"\22\0\1\0" + bytes(36), bytes(1000)])
def test_something_else_than_an_answer_ends_the_stream(shared: HubWorld, frame: bytes) -> None:
    def nonsense(incoming: Iterator[bytes]) -> Iterator[bytes]:
        next(incoming)
        yield frame

    assert _raw(shared, "bank", nonsense).code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_client_that_does_not_answer_the_challenge_is_sent_away(shared: HubWorld) -> None:
    def silence(incoming: Iterator[bytes]) -> Iterator[bytes]:
        next(incoming)
        threading.Event().wait(3)
        yield from ()

    started = time.monotonic()
    assert _raw(shared, "bank", silence).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 2.5


def test_a_member_that_writes_as_another_one_is_sent_away(shared: HubWorld) -> None:
    coordinator, _ = _open(shared, "bank", "partner")[:2]

    def forge(incoming: Iterator[bytes]) -> Iterator[bytes]:
        challenge, certificate = read_challenge(next(incoming))
        signed = proof(challenge, coordinator._id, "partner", hashlib.sha256(certificate).digest())
        yield write_join(Join(coordinator._id, shared.identities["partner"].sign(signed), ()))
        next(incoming)
        yield bytes([Kind.DATA, 1, 0, 0]) + bytes(36)  # partner is number 2

    assert _raw(shared, "partner", forge).code() == grpc.StatusCode.PERMISSION_DENIED


def test_a_revoked_member_is_cut_off_and_stays_out() -> None:
    with hub_world() as world:
        sessions = world.all_joined()
        world.revoke("partner")
        assert "was revoked" in str(_refused(sessions["partner"]))
        eventually(lambda: not sessions[COORDINATOR].is_here("partner"))
        assert "was revoked" in str(_refused(world.session("partner")))
        sessions["bank"].send(COORDINATOR, b"goes on")
        assert sessions[COORDINATOR].receive_from("bank", 5) == b"goes on"


def test_a_registry_that_cannot_be_read_lets_nobody_new_in_and_says_nothing_of_it() -> None:
    with hub_world("bank") as world:
        sessions = world.all_joined()

        def broken() -> dict[str, object]:
            raise OSError("/private/registry.json")

        world.hub._admitted = broken  # type: ignore[assignment]
        time.sleep(0.5)
        sessions["bank"].send(COORDINATOR, b"who is there stays")
        assert sessions[COORDINATOR].receive(5) == ("bank", b"who is there stays")
        error = _raw(world, "bank", lambda incoming: iter([b"x"]))
        assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "hub: failed")


def test_a_silent_client_is_sent_away() -> None:
    with hub_world("bank", limits=replace(QUICK, idle_seconds=0.5)) as world:
        coordinator = world.session(COORDINATOR)
        eventually(lambda: bool(coordinator.members))

        def join_and_be_silent(incoming: Iterator[bytes]) -> Iterator[bytes]:
            challenge, certificate = read_challenge(next(incoming))
            signed = proof(challenge, world.session_id, "bank", hashlib.sha256(certificate).digest())
            yield write_join(Join(world.session_id, world.identities["bank"].sign(signed), ()))
            threading.Event().wait(3)

        assert _raw(world, "bank", join_and_be_silent).code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_neither_keys_nor_messages_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), hub_world() as world:
        sessions = world.all_joined()
        sessions["bank"].send("partner", b"a body that nobody may log")
        sessions["partner"].receive(5)
        assert "PRIVATE" not in repr(world.tls("bank")) + repr(world.hub._tls)
    assert "a body" not in caplog.text and world.session_id.hex() not in caplog.text
    assert world.server.key.decode()[40:80] not in caplog.text


def test_a_fresh_process_refuses_tls_12() -> None:
    code = (
        "from tests.transport.hub_world import hub_world\n"
        "from fedmkt.transport.hub_identity import takes_tls12\n"
        "with hub_world() as world:\n"
        "    world.all_joined()\n"
        "    print(takes_tls12('127.0.0.1', world.port))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "False", done.stderr
    assert takes_tls12("127.0.0.1", 1) is False
