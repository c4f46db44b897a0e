"""Participants reached over a hub session: the driver's messages as numbered asks and their replies.

A letter is one message of the session: one byte that says what it is, seven zeros, a number of eight bytes
(big-endian), then the bytes of the wire. The reply to an ask carries its number.
"""

import logging
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from fedmkt.errors import FedmktError, PeerError, TransportError
from fedmkt.protocol import wire
from fedmkt.transport.driver import ASKS, REPLIES, Ask, Refusal, Told
from fedmkt.transport.hub_session import HubSession, NothingCame

_LOGGER = logging.getLogger("fedmkt.hub")
_HEAD = struct.Struct(">B7xQ")  # 16 bytes, so that arrays inside stay aligned
_ASK, _TOLD, _GOODBYE = 1, 2, 3
_LOOK = 1.0
_JOIN = 10.0


class HubEndpoint:
    """One participant behind a hub session; replies are read by a thread of its own."""

    def __init__(self, session: HubSession, party: str) -> None:
        self._session = session
        self._party = party
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Told]] = {}
        self._number = 0
        self._ended: FedmktError | None = None
        self._thread = threading.Thread(target=self._collect, name=f"fedmkt-endpoint-{party}", daemon=True)
        self._thread.start()

    def send(self, message: Ask) -> "Future[Told]":
        """Deliver one message and promise the reply; a participant that is lost fails the promise."""
        future: Future[Told] = Future()
        with self._lock:
            if self._ended is not None:
                future.set_exception(self._ended)
                return future
            self._number += 1
            number = self._number
            self._waiting[number] = future
        try:
            self._session.send(self._party, [_HEAD.pack(_ASK, number), *wire.encode_pieces(message)])
        except FedmktError as error:
            self._settle(number, error)
        return future

    def close(self) -> None:
        """Say goodbye to the participant and end the thread; promises that are still open fail."""
        try:
            self._session.send(self._party, _HEAD.pack(_GOODBYE, 0), timeout=_LOOK)
        except FedmktError:
            _LOGGER.debug("%s: is gone before its goodbye", self._party)
        self._fail(TransportError(f"{self._party}: the run has ended"))
        self._thread.join(_JOIN)

    def _collect(self) -> None:
        while self._ended is None:
            try:
                letter = self._session.receive_from(self._party, _LOOK)
                self._read(letter)
            except NothingCame:
                continue
            except FedmktError as error:
                self._fail(error)

    def _read(self, letter: memoryview) -> None:
        kind, number, body = _open(letter, self._party)
        if kind != _TOLD:
            raise PeerError(f"{self._party}: answered with something else")
        try:
            told: Told = wire.decode(body, *REPLIES)  # type: ignore[assignment]  # one of REPLIES
        except ValueError:
            self._settle(number, PeerError(f"{self._party}: answered with something else"))
        else:
            self._settle(number, told)

    def _settle(self, number: int, outcome: Told | FedmktError) -> None:
        with self._lock:
            future = self._waiting.pop(number, None)
        if future is None:
            return
        if isinstance(outcome, FedmktError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _fail(self, error: FedmktError) -> None:
        with self._lock:
            self._ended = self._ended or error
            left, self._waiting = self._waiting, {}
        for future in left.values():
            future.set_exception(error)


def serve_session(
    session: HubSession,
    coordinator: str,
    answer: Callable[[Ask], Told],
    silence_seconds: float = 1800.0,
    is_stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Answer the coordinator's asks one by one, on the calling thread, until its goodbye; return how many.

    TransportError if the session fails or nothing was asked for `silence_seconds`. `is_stopped` is looked at
    about once a second; a true one ends the serving as a goodbye does.
    """
    answered = 0
    heard = time.monotonic()
    while not is_stopped():
        try:
            letter = session.receive_from(coordinator, _LOOK)
        except NothingCame:
            if time.monotonic() - heard > silence_seconds:
                raise TransportError(f"{coordinator}: no word for {silence_seconds:.0f} s") from None
            continue
        kind, number, body = _open(letter, coordinator)
        if kind == _GOODBYE:
            break
        if kind != _ASK:
            raise PeerError(f"{coordinator}: sent something else than an ask")
        told = _answer(body, answer)
        del letter, body  # it may be large, and the next one too
        session.send(coordinator, [_HEAD.pack(_TOLD, number), *wire.encode_pieces(told)])
        answered += 1
        heard = time.monotonic()
    return answered


def _answer(body: memoryview, answer: Callable[[Ask], Told]) -> Told:
    try:
        message: Ask = wire.decode(body, *ASKS)  # type: ignore[assignment]  # one of ASKS
    except ValueError:
        return Refusal("PeerError", "message")
    try:
        return answer(message)
    except Exception as error:
        # Whoever asked must not wait for an answer that cannot come, and no text of ours may travel.
        _LOGGER.error("an answer failed: %s", type(error).__name__)
        return Refusal("PeerError", "message")


def _open(letter: memoryview, whose: str) -> tuple[int, int, memoryview]:
    """Split a letter into what it is, its number and the bytes of the wire."""
    if len(letter) < _HEAD.size:
        raise PeerError(f"{whose}: sent something else than a letter")
    kind, number = _HEAD.unpack_from(letter)
    return kind, number, letter[_HEAD.size :]
