import io
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import IO

import pytest

from fedmkt.contract.agreement import Contract
from fedmkt.errors import PeerError, TransportError
from fedmkt.protocol import wire
from fedmkt.protocol.core import Caller, Inbox, Nothing, Outcome, Silent, Step, Turn
from fedmkt.protocol.session import Hello, Invitation
from fedmkt.transport.driver import REPLIES, Coordinator, Refusal, serve
from fedmkt.transport.memory import MemoryEndpoint
from fedmkt.transport.pipe import PipeEndpoint, read_letter, serve_pipe, write_letter
from tests.engine import BANK, DEALER, SHOP, World, toy_world


def _note(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent())


NOTE = Step("toy.note", _note, Silent)


def noting(call: Caller, contract: Contract) -> Silent:
    """The bank and the shop take turns."""
    call(BANK, NOTE)
    call(SHOP, NOTE)
    return Silent()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return toy_world(tmp_path, noting)


@pytest.fixture
def pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    source, to = os.pipe()
    with os.fdopen(source, "rb") as reader, os.fdopen(to, "wb") as writer:
        yield reader, writer


@pytest.fixture
def other(pipe: object) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    source, to = os.pipe()
    with os.fdopen(source, "rb") as reader, os.fdopen(to, "wb") as writer:
        yield reader, writer


Pipe = tuple[IO[bytes], IO[bytes]]


def test_a_letter_arrives_as_it_was_written(pipe: Pipe) -> None:
    large = os.urandom(3_000_000)
    writing = Thread(target=write_letter, args=(pipe[1], [b"head", memoryview(large)]))
    writing.start()
    assert read_letter(pipe[0]) == b"head" + large
    writing.join()
    write_letter(pipe[1], [])
    assert read_letter(pipe[0]) == b""


def test_a_letter_that_is_cut_short_is_not_delivered(pipe: Pipe) -> None:
    pipe[1].write((100).to_bytes(8, "big") + b"only this")
    pipe[1].close()
    with pytest.raises(TransportError, match="has ended"):
        read_letter(pipe[0])


def test_a_letter_longer_than_any_message_is_refused_unread(pipe: Pipe) -> None:
    pipe[1].write(b"\xff" * 8)
    pipe[1].flush()
    with pytest.raises(PeerError, match="longer than any message"):
        read_letter(pipe[0])


def test_room_is_made_for_what_came_not_for_what_was_announced() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TransportError):
            read_letter(io.BytesIO((1 << 32).to_bytes(8, "big") + bytes(1000)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 64 << 20


def test_a_letter_longer_than_the_first_room_arrives_whole() -> None:
    letter = io.BytesIO()
    content = b"abcdefg" * (6 << 20)
    write_letter(letter, [content])
    letter.seek(0)
    assert read_letter(letter) == content


def test_nobody_to_read_a_letter_is_said(pipe: Pipe) -> None:
    pipe[0].close()
    with pytest.raises(TransportError, match="has ended"):
        write_letter(pipe[1], [bytes(1 << 20)])
    with pytest.raises(BrokenPipeError):
        pipe[1].close()


def test_a_script_runs_to_its_end_over_pipes(world: World, pipe: Pipe, other: Pipe) -> None:
    parties = world.open()
    answered: list[int] = []
    with closing(pipe[0]), closing(other[1]):

        def be_the_bank() -> None:
            answered.append(serve_pipe(pipe[0], other[1], lambda ask: serve(parties[BANK], ask)))

        bank = Thread(target=be_the_bank)
        bank.start()
        ends = {
            BANK: PipeEndpoint(BANK, pipe[1], other[0]),
            SHOP: MemoryEndpoint(parties[SHOP]),
            DEALER: MemoryEndpoint(parties[DEALER]),
        }
        assert Coordinator(world.contract, noting, ends, world.folder / "coordinator").run() == Silent()
        for end in ends.values():
            end.close()
        bank.join(10)
    assert answered == [4]  # invitation, opening, its one step, farewell
    parties[BANK].release()


def test_what_is_no_ask_is_refused_and_the_next_one_answered(world: World, pipe: Pipe, other: Pipe) -> None:
    party = world.open()[BANK]
    write_letter(pipe[1], [b"rubbish"])
    write_letter(pipe[1], wire.encode_pieces(Invitation(b"", 1)))
    write_letter(pipe[1], [])
    assert serve_pipe(pipe[0], other[1], lambda ask: serve(party, ask)) == 2
    assert wire.decode(read_letter(other[0]), *REPLIES) == Refusal("PeerError", "message")
    assert isinstance(wire.decode(read_letter(other[0]), *REPLIES), Hello)
    world.kill()


def test_an_answer_that_is_none_is_the_partys_fault(pipe: Pipe, other: Pipe) -> None:
    end = PipeEndpoint(BANK, pipe[1], other[0])
    write_letter(other[1], [b"rubbish"])
    with pytest.raises(PeerError, match="bank: answered with something else"):
        end.send(Invitation(b"", 1)).result(10)
    end.close()


def test_a_process_that_ended_fails_the_promise_by_name(pipe: Pipe, other: Pipe) -> None:
    end = PipeEndpoint(BANK, pipe[1], other[0])
    other[1].close()
    with pytest.raises(TransportError, match="bank: its process has ended"):
        end.send(Invitation(b"", 1)).result(10)
    end.close()
