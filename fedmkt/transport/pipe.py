"""Participants in processes of the same machine, reached over pipes.

A letter is eight bytes of length (big-endian), then that many bytes; an empty one is the goodbye. The
coordinator asks, the participant answers, one after the other: a pipe needs no numbers.
"""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

from fedmkt.errors import PeerError, TransportError
from fedmkt.protocol import wire
from fedmkt.transport.driver import ASKS, REPLIES, Ask, Refusal, Told

_HEAD = 8
_FIRST_ROOM = 16 << 20
_LONGEST = 1 << 32
"""Far more than any message: the envelopes of one answer, each at most 64 MiB, and the receipts of a round."""


def write_letter(to: IO[bytes], pieces: Sequence[bytes | memoryview]) -> None:
    """Write one letter that consists of these buffers; TransportError if nobody is there to read it."""
    try:
        to.write(sum(memoryview(p).nbytes for p in pieces).to_bytes(_HEAD, "big"))
        for piece in pieces:
            to.write(piece)
        to.flush()
    except OSError:
        raise TransportError("the process at the other end of the pipe has ended") from None


def read_letter(source: IO[bytes]) -> memoryview:
    """Read one letter; TransportError if the other end closed the pipe before its end."""
    length = int.from_bytes(_read(source, _HEAD), "big")
    if length > _LONGEST:
        raise PeerError("pipe: a letter is longer than any message")
    return _read(source, length)


def _read(source: IO[bytes], length: int) -> memoryview:
    # Room is made for what came, and as much again: whoever says 4 GiB has to send them.
    letter, at = bytearray(min(length, _FIRST_ROOM)), 0
    while at < length:
        if at == len(letter):
            letter.extend(bytes(min(length - at, at)))
        with memoryview(letter) as room:
            count = source.readinto(room[at:])  # type: ignore[attr-defined]  # every buffered reader has it
        if not count:
            raise TransportError("the process at the other end of the pipe has ended")
        at += count
    return memoryview(letter).toreadonly()


class PipeEndpoint:
    """One participant behind a pair of pipes, asked by a thread of its own."""

    def __init__(self, party: str, to: IO[bytes], source: IO[bytes]) -> None:
        self._party = party
        self._to = to
        self._source = source
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"fedmkt-pipe-{party}")

    def send(self, message: Ask) -> "Future[Told]":
        """Deliver one message and promise the reply; a process that ended fails the promise."""
        return self._thread.submit(self._exchange, message)

    def _exchange(self, message: Ask) -> Told:
        try:
            write_letter(self._to, wire.encode_pieces(message))
            letter = read_letter(self._source)
        except TransportError:
            raise TransportError(f"{self._party}: its process has ended") from None
        try:
            told: Told = wire.decode(letter, *REPLIES)  # type: ignore[assignment]  # one of REPLIES
        except ValueError:
            raise PeerError(f"{self._party}: answered with something else") from None
        return told

    def close(self) -> None:
        """Say goodbye after what is under way, so that the participant goes on to what comes next."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        with contextlib.suppress(TransportError):
            write_letter(self._to, [])


def serve_pipe(source: IO[bytes], to: IO[bytes], answer: Callable[[Ask], Told]) -> int:
    """Answer the coordinator's asks one by one, on the calling thread, until its goodbye; return how many."""
    answered = 0
    while letter := read_letter(source):
        told = _answer(letter, answer)
        del letter  # it may be large, and the next one too
        write_letter(to, wire.encode_pieces(told))
        answered += 1
    return answered


def _answer(letter: memoryview, answer: Callable[[Ask], Told]) -> Told:
    try:
        message: Ask = wire.decode(letter, *ASKS)  # type: ignore[assignment]  # one of ASKS
    except ValueError:
        return Refusal("PeerError", "message")
    return answer(message)
