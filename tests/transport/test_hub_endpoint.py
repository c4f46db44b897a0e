import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.seal import Envelope
from fedmkt.errors import FedmktError, PeerError, TransportError
from fedmkt.protocol.core import Caller, Inbox, Name, Nothing, Outcome, Silent, Step, Turn
from fedmkt.protocol.session import Invitation, Request
from fedmkt.transport.driver import Ask, Coordinator, Opened, Refusal, Told, serve
from fedmkt.transport.hub_endpoint import HubEndpoint, serve_session
from fedmkt.transport.hub_session import HubSession, SessionLimits
from fedmkt.transport.memory import MemoryEndpoint
from tests.engine import BANK, DEALER, SHOP, toy_world
from tests.transport.fault_proxy import FaultProxy
from tests.transport.hub_world import COORDINATOR, HubWorld, eventually, hub_world


@dataclass
class Served:
    """How a participant's serving ended, and on which threads it answered."""

    answered: int | None = None
    error: FedmktError | None = None
    threads: frozenset[int] = frozenset()


@contextmanager
def _serving(session: HubSession, answer: Callable[[Ask], Told], **options: float) -> Iterator[Served]:
    served = Served()

    def note(message: Ask) -> Told:
        served.threads |= {threading.get_ident()}
        return answer(message)

    def run() -> None:
        try:
            served.answered = serve_session(session, COORDINATOR, note, **options)  # type: ignore[arg-type]
        except FedmktError as error:
            served.error = error

    thread = threading.Thread(target=run)
    thread.start()
    yield served
    thread.join(10)
    assert not thread.is_alive()


def _echo(message: Ask) -> Told:
    assert isinstance(message, Invitation)
    return Opened(message.run)


@pytest.fixture
def world() -> Iterator[HubWorld]:
    with hub_world("bank", "shop") as world:
        yield world


def test_replies_match_their_asks_and_come_from_one_thread(world: HubWorld) -> None:
    sessions = world.all_joined()
    with _serving(sessions["bank"], _echo) as served:
        endpoint = HubEndpoint(sessions[COORDINATOR], "bank")
        futures = [endpoint.send(Invitation(bytes([i]) * 32, 1)) for i in range(20)]
        assert [f.result(5) for f in futures] == [Opened(bytes([i]) * 32) for i in range(20)]
        endpoint.close()
    assert served.answered == 20 and served.error is None and len(served.threads) == 1


def test_large_messages_arrive_as_they_were_sent(world: HubWorld) -> None:
    sessions = world.all_joined()
    body = np.random.default_rng(1).bytes(20_000_000)
    envelope = Envelope(*[_example(f.type, body) for f in Envelope.__dataclass_fields__.values()])
    request = Request(7, "toy.step", (), (envelope,))
    got: list[Ask] = []

    def keep(message: Ask) -> Told:
        got.append(message)
        return Refusal("DataError", "toy.step")

    with _serving(sessions["bank"], keep):
        endpoint = HubEndpoint(sessions[COORDINATOR], "bank")
        assert endpoint.send(request).result(20) == Refusal("DataError", "toy.step")
        endpoint.close()
    assert got == [request]


def _example(kind: object, body: bytes) -> object:
    return body if kind is bytes else 3 if kind is int else "bank" if kind is str else ()


def test_an_ask_that_cannot_be_read_is_refused_and_the_next_one_answered(world: HubWorld) -> None:
    sessions = world.all_joined()
    with _serving(sessions["bank"], _echo):
        sessions[COORDINATOR].send("bank", bytes([1]) + bytes(7) + (9).to_bytes(8, "big") + b"nonsense")
        letter = sessions[COORDINATOR].receive_from("bank", 5)
        assert int.from_bytes(letter[8:16], "big") == 9 and b"Refusal" in bytes(letter)
        endpoint = HubEndpoint(sessions[COORDINATOR], "bank")
        assert endpoint.send(Invitation(b"r" * 32, 1)).result(5) == Opened(b"r" * 32)
        endpoint.close()


def test_a_failing_answer_becomes_a_refusal_without_any_text(world: HubWorld) -> None:
    sessions = world.all_joined()

    def fail(message: Ask) -> Told:
        raise RuntimeError("customer 4711 earns too little")

    with _serving(sessions["bank"], fail):
        endpoint = HubEndpoint(sessions[COORDINATOR], "bank")
        assert endpoint.send(Invitation(b"r" * 32, 1)).result(5) == Refusal("PeerError", "message")
        endpoint.close()


def test_an_answer_that_cannot_be_read_fails_its_promise(world: HubWorld) -> None:
    sessions = world.all_joined()
    endpoint = HubEndpoint(sessions[COORDINATOR], "bank")
    future = endpoint.send(Invitation(b"r" * 32, 1))
    number = sessions["bank"].receive_from(COORDINATOR, 5)[8:16]
    sessions["bank"].send(COORDINATOR, [bytes([2]) + bytes(7), number, b"nonsense"])
    with pytest.raises(PeerError, match="bank: answered with something else"):
        future.result(5)
    endpoint.close()


def test_a_lost_participant_fails_the_promises_to_it_and_no_others(world: HubWorld) -> None:
    with FaultProxy(("127.0.0.1", world.port)) as proxy:
        coordinator = world.session(COORDINATOR, limits=SessionLimits(gone_seconds=1.0))
        bank, shop = world.session("bank", address=proxy.address), world.session("shop")
        coordinator.wait_for(["bank", "shop"], 5)
        with _serving(shop, _echo):
            to_bank, to_shop = HubEndpoint(coordinator, "bank"), HubEndpoint(coordinator, "shop")
            future = to_bank.send(Invitation(b"r" * 32, 1))
            proxy.refuse()
            with pytest.raises(TransportError, match="bank: was not connected to the hub for 1 s"):
                future.result(9)
            with pytest.raises(TransportError):
                to_bank.send(Invitation(b"r" * 32, 1)).result(1)
            assert to_shop.send(Invitation(b"s" * 32, 1)).result(5) == Opened(b"s" * 32)
            to_shop.close()
            to_bank.close()
        bank.close(0)


def test_a_participant_does_not_wait_for_a_silent_coordinator_for_ever(world: HubWorld) -> None:
    sessions = world.all_joined()
    started = time.monotonic()
    with _serving(sessions["bank"], _echo, silence_seconds=0.5) as served:
        pass
    assert isinstance(served.error, TransportError) and "no word" in str(served.error)
    assert time.monotonic() - started < 3


def test_a_participant_hears_that_the_session_ended(world: HubWorld) -> None:
    sessions = world.all_joined()
    with _serving(sessions["bank"], _echo) as served:
        sessions[COORDINATOR].close()
    assert isinstance(served.error, TransportError)


def test_closing_fails_what_is_still_open(world: HubWorld) -> None:
    sessions = world.all_joined()
    endpoint = HubEndpoint(sessions[COORDINATOR], "bank")
    future: Future[Told] = endpoint.send(Invitation(b"r" * 32, 1))
    endpoint.close()
    with pytest.raises(TransportError, match="the run has ended"):
        future.result(0)


def _nothing(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent())


NOTE = Step("toy.note", _nothing, Silent)


def taking_turns(call: Caller, contract: Contract) -> Silent:
    """The bank and the shop take turns."""
    for _ in range(30):
        call(BANK, NOTE)
        call(SHOP, NOTE)
    return Silent()


def test_a_run_over_the_hub_survives_cuts_and_a_restart_of_the_hub(world: HubWorld, tmp_path: Path) -> None:
    toy = toy_world(tmp_path, taking_turns)
    parties = toy.open()
    with FaultProxy(("127.0.0.1", world.port)) as proxy:
        coordinator = world.session(COORDINATOR)
        sessions = {Name(n): world.session(n, address=proxy.address) for n in ("bank", "shop")}
        coordinator.wait_for(list(sessions), 8)
        trouble = {5: proxy.cut, 10: proxy.cut, 20: world.restart_hub}
        asked = 0

        def answer(message: Ask) -> Told:
            nonlocal asked
            asked += 1
            if asked in trouble:
                threading.Thread(target=trouble[asked]).start()
            return serve(parties[BANK], message)

        with (
            _serving(sessions[BANK], answer) as bank,
            _serving(sessions[SHOP], lambda m: serve(parties[SHOP], m)) as shop,
        ):
            endpoints = {n: HubEndpoint(coordinator, n) for n in sessions}
            dealer = MemoryEndpoint(parties[DEALER])
            driver = Coordinator(
                toy.contract, toy.script, {**endpoints, DEALER: dealer}, tmp_path / "coordinator", deadline=20
            )
            assert driver.run() == Silent()
            for endpoint in endpoints.values():
                endpoint.close()
            dealer.close()
        assert (bank.answered, shop.answered) == (33, 33) and len(bank.threads) == 1
        eventually(lambda: sessions[BANK].connections > 1)
