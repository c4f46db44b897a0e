"""Participants reached over Flower: each message of the driver is one Flower message to one node.

Replies are collected by one thread, because Flower's grid can only be asked for them. Every message has a
deadline, and `cancel` ends all that are under way: nobody waits for a reply that cannot come.
"""

import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedmkt.errors import PeerError, TransportError
from fedmkt.protocol import wire
from fedmkt.transport.driver import REPLIES, Ask, Told
from fedmkt.transport.flower_words import ASK, BODY, LOST, RECORD, SECONDS, WHO

_TICK = 0.003
_JOIN = 10.0
_LATER = 60.0


@dataclass(frozen=True)
class _Waiting:
    future: "Future[bytes]"
    until: float
    seconds: float
    whose: str


class GridMail:
    """Pushes messages at once and keeps a promise for each until its reply is there or its deadline passed."""

    def __init__(self, grid: Grid, deadline: float, tick: float = _TICK) -> None:
        self._grid = grid
        self._tick = tick
        self._deadline = deadline
        self._waiting: dict[str, _Waiting] = {}
        self._change = threading.Condition()
        self._ended = ""
        self._thread = threading.Thread(target=self._collect, name="fedmkt-grid", daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be sent any more."""
        return bool(self._ended)

    def post(
        self, node: int, kind: str, body: bytes, whose: str, seconds: float | None = None
    ) -> "Future[bytes]":
        """Send bytes to a node and promise the bytes that it answers; `whose` names the reader in errors.

        seconds : after which nobody needs the answer any more, instead of the mail's own deadline.
        """
        deadline = self._deadline if seconds is None else seconds
        record = ConfigRecord({BODY: body, SECONDS: deadline})
        # Flower itself gives up later than we do: its reason would be less clear than ours.
        message = Message(RecordDict({RECORD: record}), node, kind, ttl=deadline + _LATER)
        future: Future[bytes] = Future()
        with self._change:
            if self._ended:
                raise TransportError(f"{whose}: {self._ended}")
            pushed = self._push(message, whose)
            self._waiting[pushed] = _Waiting(future, time.monotonic() + deadline, deadline, whose)
            self._change.notify()
        return future

    def _push(self, message: Message, whose: str) -> str:
        try:
            pushed = list(self._grid.push_messages([message]))
        except Exception as error:
            # Of Flower's many kinds; its text may quote what was sent.
            self._ended = f"flower's grid failed ({type(error).__name__})"
            raise TransportError(f"{whose}: {self._ended}") from None
        if len(pushed) != 1 or not pushed[0]:
            raise TransportError(f"{whose}: flower did not take the message")
        return pushed[0]

    def cancel(self, why: str) -> None:
        """Fail everything under way, and all that would be sent later."""
        with self._change:
            self._ended = self._ended or why
            left, self._waiting = self._waiting, {}
            self._change.notify()
        for waiting in left.values():
            waiting.future.set_exception(TransportError(f"{waiting.whose}: {self._ended}"))

    def close(self) -> None:
        """End the thread; promises that are still open fail."""
        self.cancel("the run has ended")
        self._thread.join(_JOIN)

    def _collect(self) -> None:
        while self._has_work():
            try:
                self._collect_once()
            except Exception as error:
                self.cancel(f"flower's grid failed ({type(error).__name__})")
            time.sleep(self._tick)

    def _has_work(self) -> bool:
        with self._change:
            while not self._waiting and not self._ended:
                self._change.wait()
            return not self._ended

    def _collect_once(self) -> None:
        with self._change:
            asked = list(self._waiting)
        for reply in self._grid.pull_messages(asked):
            with self._change:
                found = self._waiting.pop(reply.metadata.reply_to_message_id, None)
            if found is not None:
                _settle(found, reply)
        now = time.monotonic()
        with self._change:
            late = [self._waiting.pop(i) for i, w in list(self._waiting.items()) if w.until < now]
        for waiting in late:
            text = f"{waiting.whose}: no answer within {waiting.seconds:.0f} s"
            waiting.future.set_exception(TransportError(text))


def _settle(waiting: _Waiting, reply: Message) -> None:
    """Hand a reply over. Flower's text about a failure may quote private values: only its code is passed on."""
    whose, future = waiting.whose, waiting.future
    if reply.has_error():
        future.set_exception(TransportError(f"{whose}: not delivered, flower's error {reply.error.code}"))
        return
    record = reply.content.config_records.get(RECORD, ConfigRecord())
    body = record.get(BODY)
    lost = record.get(LOST)
    if isinstance(lost, str):
        future.set_exception(TransportError(f"{whose}: {ascii(lost[:100])[1:-1]}"))
    elif isinstance(body, bytes):
        future.set_result(body)
    else:
        future.set_exception(PeerError(f"{whose}: answered with something else"))


class FlowerEndpoint:
    """One participant behind one Flower node."""

    def __init__(self, mail: GridMail, node: int, name: str) -> None:
        self._mail = mail
        self._node = node
        self._name = name

    def send(self, message: Ask) -> "Future[Told]":
        """Deliver one message and promise the reply."""
        told: Future[Told] = Future()
        posted = self._mail.post(self._node, ASK, wire.encode(message), self._name)
        posted.add_done_callback(lambda done: self._read(done, told))
        return told

    def _read(self, done: "Future[bytes]", told: "Future[Told]") -> None:
        error = done.exception()
        if error is not None:
            told.set_exception(error)
            return
        try:
            told.set_result(decode_told(done.result()))
        except ValueError:
            told.set_exception(PeerError(f"{self._name}: answered with something else"))


def decode_told(body: bytes) -> Told:
    """Decode a participant's reply; ValueError if it is none."""
    told: Told = wire.decode(body, *REPLIES)  # type: ignore[assignment]  # one of REPLIES
    return told


def find_nodes(mail: GridMail, grid: Grid, names: tuple[str, ...], seconds: float) -> dict[str, int]:
    """Ask every node which seat it serves: node ids by party, for parties in the order of their seats."""
    until = time.monotonic() + seconds
    nodes: tuple[int, ...] = ()
    while len(nodes) < len(names):
        if time.monotonic() > until:
            raise TransportError(
                f"flower: {len(nodes)} of {len(names)} nodes are there after {seconds:.0f} s"
            )
        time.sleep(_TICK)
        nodes = tuple(grid.get_node_ids())
    asked = [(node, mail.post(node, WHO, b"", f"node {node}")) for node in nodes]
    try:
        seats = {int.from_bytes(f.result(max(0.0, until - time.monotonic())), "big"): n for n, f in asked}
    except FutureTimeout:
        raise TransportError(f"flower: not all nodes answered within {seconds:.0f} s") from None
    if set(seats) != set(range(len(names))):
        raise TransportError("flower: the nodes do not serve one party each")
    return {name: seats[seat] for seat, name in enumerate(names)}
