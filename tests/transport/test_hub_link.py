from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.transport.hub_frames import DATA_SIZE, Hello, Kind, write_hello
from fedmkt.transport.hub_link import Link, LinkBroken, LinkLimits, PeerRestarted

SMALL = LinkLimits(chunk=8, window=3 * (8 + DATA_SIZE), outbox=400, message=1000)
LEFT, RIGHT = b"left-one", b"right-on"


@dataclass
class Pair:
    """Two ends of a link and the frames between them; `wires[i]` holds what end i sent."""

    ends: list[Link] = field(default_factory=lambda: [Link(0, 1, LEFT, SMALL), Link(1, 0, RIGHT, SMALL)])
    wires: tuple[list[bytes], list[bytes]] = field(default_factory=lambda: ([], []))
    got: tuple[list[bytes], list[bytes]] = field(default_factory=lambda: ([], []))

    def connect(self) -> None:
        for end in self.ends:
            end.ask()

    def pull(self, end: int, most: int = 1000) -> int:
        """Let an end put its frames on the wire."""
        for count in range(most):
            frame = self.ends[end].next_frame()
            if frame is None:
                return count
            self.wires[end].append(frame)
        return most

    def deliver(self, end: int, at: int = 0) -> None:
        self.ends[1 - end].accept(self.wires[end].pop(at))

    def take(self, end: int) -> None:
        while (message := self.ends[end].take()) is not None:
            self.got[end].append(bytes(message))

    def settle(self, rounds: int = 400) -> None:
        """Run without faults until nothing is on its way any more."""
        for _ in range(rounds):
            moved = 0
            for end in (0, 1):
                moved += self.pull(end)
                while self.wires[end]:
                    self.deliver(end)
                self.take(1 - end)
            if not moved:
                if not any(e.unacknowledged for e in self.ends):
                    return
                for end in self.ends:
                    end.nudge()


@st.composite
def _actions(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    names = [
        "send",
        "send",
        "pull",
        "pull",
        "deliver",
        "deliver",
        "deliver",
        "drop",
        "repeat",
        "late",
        "take",
    ]
    names += ["nudge", "reconnect"]
    step = st.tuples(st.sampled_from(names), st.integers(0, 1), st.integers(0, 40))
    return draw(st.lists(step, min_size=60, max_size=200))


def _play(pair: Pair, actions: Sequence[tuple[str, int, int]]) -> tuple[list[bytes], list[bytes]]:
    """Do what was drawn, and return what each end sent."""
    sent: tuple[list[bytes], list[bytes]] = ([], [])
    for name, end, number in actions:
        wire = pair.wires[end]
        if name == "send" and pair.ends[end].has_room:
            message = bytes((len(sent[end]) + i) % 251 for i in range(number))
            half = number // 3
            pair.ends[end].push([message[:half], memoryview(message)[half:]])
            sent[end].append(message)
        elif name == "pull":
            pair.pull(end, 1 + number % 4)
        elif name == "deliver" and wire:
            for _ in range(min(len(wire), 1 + number % 3)):
                pair.deliver(end)
        elif name == "drop" and wire:
            wire.pop(number % len(wire))
        elif name == "repeat" and wire:
            wire.insert(0, wire[number % len(wire)])
        elif name == "late" and wire:
            wire.append(wire.pop(0))
        elif name == "take":
            pair.take(end)
        elif name == "nudge":
            pair.ends[end].nudge()
        elif name == "reconnect":
            del wire[: number % 5]
            pair.connect()
    return sent


@settings(max_examples=200)
@given(_actions())
def test_what_was_sent_arrives_once_and_in_order_whatever_the_network_does(
    actions: list[tuple[str, int, int]],
) -> None:
    pair = _connected()
    sent = _play(pair, actions)
    pair.connect()
    pair.settle()
    assert pair.got == (sent[1], sent[0])
    assert [e.unacknowledged for e in pair.ends] == [0, 0]


def _connected() -> Pair:
    pair = Pair()
    pair.connect()
    pair.settle()
    return pair


def test_pieces_arrive_as_one_message() -> None:
    pair = _connected()
    pair.ends[0].push([b"", b"one ", memoryview(b"message of several pieces"), b"", b"!"])
    pair.settle()
    assert pair.got[1] == [b"one message of several pieces!"]


def test_a_message_larger_than_the_window_passes() -> None:
    pair = _connected()
    pair.ends[0].push([bytes(range(250)) * 4])
    pair.settle()
    assert pair.got[1] == [bytes(range(250)) * 4]


def test_nothing_more_is_sent_to_a_reader_that_does_not_take() -> None:
    pair = _connected()
    for _ in range(10):
        pair.ends[0].push([bytes(20)])
    for _ in range(20):
        pair.pull(0)
        while pair.wires[0]:
            pair.deliver(0)
        pair.pull(1)
        while pair.wires[1]:
            pair.deliver(1)
        pair.ends[0].nudge()
    held = 0
    while pair.ends[1].take() is not None:
        held += 1
    assert 1 <= held <= 4


def test_a_lost_frame_is_repeated_with_the_same_bytes() -> None:
    pair = _connected()
    pair.ends[0].push([b"abcdefgh12345678"])
    pair.pull(0)
    lost = pair.wires[0].pop(0)
    pair.deliver(0)
    pair.pull(1)
    pair.deliver(1)
    pair.pull(0)
    pair.settle()
    assert pair.got[1] == [b"abcdefgh12345678"]
    assert lost[DATA_SIZE:] == b"abcdefgh"


def test_a_lost_last_frame_is_found_by_nudging() -> None:
    pair = _connected()
    pair.ends[0].push([b"alone"])
    pair.pull(0)
    pair.wires[0].clear()
    pair.settle()
    assert pair.got[1] == [b"alone"]


def test_resuming_repeats_only_what_was_under_way() -> None:
    pair = _connected()
    pair.ends[0].push([bytes(900)])
    frames = 0
    for step in range(400):
        frames += pair.pull(0)
        while pair.wires[0]:
            pair.deliver(0)
        if step == 20:
            pair.connect()
        pair.pull(1)
        while pair.wires[1]:
            pair.deliver(1)
    assert frames < -(-900 // 8) + 3 + 10


def test_a_new_life_of_the_other_end_breaks_the_link() -> None:
    pair = _connected()
    pair.ends[1] = Link(1, 0, b"new life", SMALL)
    pair.ends[1].ask()
    pair.pull(1)
    with pytest.raises(PeerRestarted):
        pair.deliver(1)


def test_a_new_life_ignores_what_was_meant_for_the_earlier_one() -> None:
    pair = _connected()
    pair.ends[0].push([b"for the old one"])
    pair.pull(0)
    pair.ends[1] = Link(1, 0, b"new life", SMALL)
    while pair.wires[0]:
        pair.deliver(0)
    assert pair.ends[1].take() is None


def test_late_frames_of_an_earlier_life_are_ignored() -> None:
    old = Pair()
    old.connect()
    old.settle()
    old.ends[1].push([b"too late"])
    old.pull(1)
    pair = _connected()
    pair.ends[1] = old.ends[1]
    fresh = Link(0, 1, LEFT, SMALL)
    fresh.accept(write_hello(Hello(1, 0, 0, 0, 999, 0, 0, b"new life", bytes(8))))
    for frame in old.wires[1]:
        if frame[0] == Kind.DATA:
            fresh.accept(frame)
    assert fresh.take() is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f[:10],  # cut short
        lambda f: f[:32] + (2000).to_bytes(8, "big") + f[40:],  # declares too much
        lambda f: f[:32] + (3).to_bytes(8, "big") + f[40:],  # declares too little
        lambda f: f[:3] + b"\0" + f[4:],  # goes on with a message that was never begun
        lambda f: f[:16] + (10**6).to_bytes(8, "big") + f[24:],  # acknowledges what was never sent
        lambda f: b"\x63" + f[1:],
        lambda f: f + bytes(8),
    ],
)
def test_an_end_that_breaks_the_rules_breaks_the_link(spoil: object) -> None:
    pair = _connected()
    pair.ends[0].push([b"12345678"])
    pair.pull(0)
    with pytest.raises(LinkBroken):
        pair.ends[1].accept(spoil(pair.wires[0][0]))  # type: ignore[operator]


def test_sending_more_than_was_granted_breaks_the_link() -> None:
    pair = _connected()
    greedy = Link(0, 1, LEFT, LinkLimits(chunk=500, window=1000, outbox=2000, message=1000))
    greedy.accept(write_hello(Hello(1, 0, 0, 0, 10**6, 0, 0, RIGHT, LEFT)))
    greedy.push([bytes(400)])
    frame = greedy.next_frame()
    assert frame is not None
    with pytest.raises(LinkBroken, match="credit"):
        pair.ends[1].accept(frame)


def test_a_message_over_the_limit_is_not_even_begun() -> None:
    with pytest.raises(ValueError, match="limit"):
        _connected().ends[0].push([bytes(1001)])


def test_memory_follows_what_arrives_not_what_is_declared() -> None:
    limits = LinkLimits(message=1 << 40)
    ends = [Link(0, 1, LEFT, limits), Link(1, 0, RIGHT, limits)]
    pair = Pair(ends=ends)
    pair.connect()
    pair.settle()
    ends[0].push([bytes(2 << 20)])
    frame = ends[0].next_frame()
    assert frame is not None
    ends[1].accept(frame[:32] + (1 << 33).to_bytes(8, "big") + frame[40:])  # 8 GiB are said to follow
