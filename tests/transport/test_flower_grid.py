import time
from concurrent.futures import Future

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedmkt.errors import PeerError, TransportError
from fedmkt.protocol import wire
from fedmkt.protocol.session import Invitation
from fedmkt.transport.driver import Opened, Refusal, Told
from fedmkt.transport.flower_grid import FlowerEndpoint, GridMail, find_nodes


class Shelf:
    """A grid that keeps what is pushed; the test puts replies beside it."""

    def __init__(self) -> None:
        self.pushed: dict[str, Message] = {}
        self.replies: list[Message] = []
        self.broken = False

    def push_messages(self, messages: list[Message]) -> list[str]:
        names = []
        for message in messages:
            name = f"message-{len(self.pushed)}"
            message.metadata.__dict__["_message_id"] = name
            self.pushed[name] = message
            names.append(name)
        return names

    def pull_messages(self, names: list[str]) -> list[Message]:
        if self.broken:
            raise RuntimeError("private text")
        found, self.replies = self.replies, []
        return found

    def reply(self, name: str, **values: object) -> None:
        record = ConfigRecord(values)
        content = RecordDict({"fedmkt": record})
        self.replies.append(Message(content, reply_to=self.pushed[name]))


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def send(shelf: Shelf, deadline: float, count: int = 1) -> tuple[GridMail, list[Future[Told]]]:
    mail = GridMail(shelf, deadline)
    endpoints = [FlowerEndpoint(mail, 10 + i, f"party{i}") for i in range(count)]
    return mail, [e.send(Invitation(b"", 1)) for e in endpoints]


def test_the_messages_of_a_round_are_all_on_their_way_before_a_reply_is_awaited() -> None:
    shelf = Shelf()
    mail, (first, second) = send(shelf, 30, count=2)
    assert [m.metadata.dst_node_id for m in shelf.pushed.values()] == [10, 11]
    shelf.reply("message-1", body=wire.encode(Opened(b"second")))
    assert second.result(5) == Opened(b"second") and not first.done()
    shelf.reply("message-0", body=wire.encode(Refusal("DataError", "opening")))
    assert first.result(5) == Refusal("DataError", "opening")
    mail.close()


def test_a_reply_that_does_not_come_is_an_error_at_its_deadline() -> None:
    mail, (future,) = send(Shelf(), 0.2)
    started = time.monotonic()
    with pytest.raises(TransportError, match="party0: no answer within"):
        future.result(5)
    assert time.monotonic() - started < 3
    mail.close()


def test_what_flower_says_about_a_failure_is_not_passed_on() -> None:
    shelf = Shelf()
    mail, (future,) = send(shelf, 30)
    error = Error(code=2, reason="ValueError: customer 4711")
    shelf.replies.append(Message(error, reply_to=shelf.pushed["message-0"]))
    with pytest.raises(TransportError, match="flower's error 2") as caught:
        future.result(5)
    assert "4711" not in str(caught.value)
    mail.close()


@pytest.mark.parametrize(
    "values", [{}, {"body": "text"}, {"body": b"nonsense"}, {"body": wire.encode(Invitation(b"", 1))}]
)
def test_a_reply_that_is_none_is_the_peers_error(values: dict[str, object]) -> None:
    shelf = Shelf()
    mail, (future,) = send(shelf, 30)
    shelf.reply("message-0", **values)
    with pytest.raises(PeerError, match="answered with something else"):
        future.result(5)
    mail.close()


@pytest.mark.parametrize("how", ["close", "cancel", "broken"])
def test_nobody_waits_once_the_mail_has_ended(how: str) -> None:
    shelf = Shelf()
    mail, (future,) = send(shelf, 30)
    if how == "close":
        mail.close()
    elif how == "cancel":
        mail.cancel("interrupted")
    else:
        shelf.broken = True
    with pytest.raises(TransportError) as caught:
        future.result(5)
    assert "private" not in str(caught.value)
    with pytest.raises(TransportError):
        mail.post(1, "query.ask", b"", "party0")
    mail.close()


def test_nodes_are_found_by_the_seat_they_say_not_by_their_number() -> None:
    class Nodes(Shelf):
        def __init__(self, seats: dict[int, int]) -> None:
            super().__init__()
            self.seats = seats

        def get_node_ids(self) -> list[int]:
            return list(self.seats)

        def push_messages(self, messages: list[Message]) -> list[str]:
            names = super().push_messages(messages)
            for name in names:
                seat = self.seats[self.pushed[name].metadata.dst_node_id]
                self.reply(name, body=seat.to_bytes(4, "big"))
            return names

    grid = Nodes({70: 1, 80: 0})
    mail = GridMail(grid, 30)
    assert find_nodes(mail, grid, ("bank", "shop"), 5) == {"bank": 80, "shop": 70}
    grid.seats = {70: 1, 80: 1}
    with pytest.raises(TransportError, match="one party each"):
        find_nodes(mail, grid, ("bank", "shop"), 5)
    with pytest.raises(TransportError, match="2 of 3 nodes"):
        find_nodes(mail, grid, ("bank", "shop", "telecom"), 0.1)
    mail.close()
