import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from fedmkt.contract.agreement import Contract
from fedmkt.party.handle import Party
from fedmkt.protocol.core import Caller, Inbox, Nothing, Outcome, Silent, Step, Turn
from fedmkt.protocol.session import Hello, Invitation, Opening
from fedmkt.transport.driver import Coordinator, Opened, Refusal
from fedmkt.transport.memory import MemoryEndpoint
from tests.engine import BANK, SHOP, World, toy_world

THREADS: dict[str, set[str]] = {}


def _note(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    THREADS.setdefault(turn.me, set()).add(threading.current_thread().name)
    return Outcome(Silent())


NOTE = Step("toy.note", _note, Silent)


def noting(call: Caller, contract: Contract) -> Silent:
    """The bank and the shop take turns."""
    for _ in range(5):
        call(BANK, NOTE)
        call(SHOP, NOTE)
    return Silent()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return toy_world(tmp_path, noting)


def test_every_party_is_driven_by_one_thread_of_its_own(world: World) -> None:
    THREADS.clear()
    endpoints = {name: MemoryEndpoint(party) for name, party in world.open().items()}
    coordinator = Coordinator(world.contract, world.script, endpoints, world.folder / "coordinator")
    assert coordinator.run() == Silent()
    for endpoint in endpoints.values():
        endpoint.close()
    assert {name: len(threads) for name, threads in THREADS.items()} == {BANK: 1, SHOP: 1}
    assert not THREADS[BANK] & THREADS[SHOP]
    assert threading.current_thread().name not in THREADS[BANK] | THREADS[SHOP]


def test_messages_of_one_party_are_answered_in_their_order(world: World) -> None:
    endpoints = {name: MemoryEndpoint(party) for name, party in world.open().items()}
    sent = {name: e.send(Invitation(b"", 1)) for name, e in endpoints.items()}
    hellos = tuple(h for h in (f.result(10) for f in sent.values()) if isinstance(h, Hello))
    opening = Opening(hellos, ())
    first, second = endpoints[BANK].send(opening), endpoints[BANK].send(opening)
    assert isinstance(first.result(10), Opened)
    assert second.result(10) == Refusal("PeerError", "opening")
    for endpoint in endpoints.values():
        endpoint.close()


def test_closing_waits_for_the_message_under_way_and_drops_the_others(world: World) -> None:
    party = world.open()[BANK]
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        me = BANK
        released = False

        def hello(self, invitation: Invitation) -> Hello:
            begun.set()
            go_on.wait(10)
            assert not self.released
            return Party.hello(party, invitation)

        def release(self) -> None:
            self.released = True

    slow = Slow()
    endpoint = MemoryEndpoint(slow)  # type: ignore[arg-type]
    under_way, waiting = endpoint.send(Invitation(b"", 1)), endpoint.send(Invitation(b"", 1))
    assert begun.wait(10)
    closing = threading.Thread(target=endpoint.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(10)
    go_on.set()
    closing.join(10)
    assert isinstance(under_way.result(0), Hello) and slow.released
    world.kill()


def test_a_closed_endpoint_lets_the_next_run_of_the_contract_begin(world: World) -> None:
    for _ in range(2):
        endpoints = {name: MemoryEndpoint(party) for name, party in world.open().items()}
        folder = world.folder / f"coordinator{len(list(world.folder.glob('coordinator*')))}"
        try:
            assert Coordinator(world.contract, world.script, endpoints, folder).run() == Silent()
        finally:
            for endpoint in endpoints.values():
                endpoint.close()
        world.parties = {}
