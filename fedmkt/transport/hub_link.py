"""A reliable, ordered link between two members over frames that may be lost, repeated or come late.

One `Link` is one member's end: no socket, no clock, no thread; whoever owns it moves the frames. Per direction:

- Every DATA frame has a position: how many bytes of DATA frames came before it. The receiver takes exactly the
  position it waits for, drops what it already has, and calls what comes too early a gap.
- It acknowledges cumulatively and grants credit, the position up to which it has room. Both ride on DATA frames
  the other way, or travel as ACK.
- The sender keeps messages until they are acknowledged. After a new connection, a gap, or a `nudge` without
  progress it asks (HELLO) where the other end stands, waits for the answer and goes on from there with the same
  bytes.
- An incarnation is one life of a process. A member that comes back with another one has lost its state: the link
  fails, saying so.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmkt.transport.hub_frames import (
    DATA_SIZE,
    INCARNATION_BYTES,
    RESEND,
    START,
    Ack,
    DataHead,
    Hello,
    Kind,
    read_ack,
    read_data_head,
    read_head,
    read_hello,
    tag_of,
    write_ack,
    write_data_head,
    write_hello,
)

_NOBODY = bytes(INCARNATION_BYTES)


class LinkBroken(Exception):
    """The link cannot go on, because the other end breaks its rules."""


class PeerRestarted(LinkBroken):
    """The link cannot go on, because the other end lost its state."""


@dataclass(frozen=True)
class LinkLimits:
    """Sizes in bytes: of a chunk, of what may be under way unread, of what waits to be acknowledged, of a message."""

    chunk: int = 1 << 20
    window: int = 4 << 20
    outbox: int = 16 << 20
    message: int = 4 << 30

    def __post_init__(self) -> None:
        if not 0 < self.chunk + DATA_SIZE <= self.window:
            raise ValueError("a window must have room for a chunk")


class _Outgoing:
    """One message on its way, and where its frames stand in the stream of positions."""

    def __init__(self, pieces: Sequence[bytes | memoryview], start: int, chunk: int) -> None:
        self.pieces = [memoryview(p).cast("B") for p in pieces if memoryview(p).nbytes]
        self.ends = np.cumsum([v.nbytes for v in self.pieces]).tolist()
        self.total = self.ends[-1] if self.ends else 0
        self.start = start
        self.chunk = chunk
        frames = max(1, -(-self.total // chunk))
        self.end = start + self.total + frames * DATA_SIZE

    def content_at(self, position: int) -> tuple[int, int]:
        """Return which bytes of the message the frame at `position` holds; ValueError if none begins there."""
        index, rest = divmod(position - self.start, self.chunk + DATA_SIZE)
        if rest:
            raise ValueError("no frame begins there")
        return index * self.chunk, min(self.total, (index + 1) * self.chunk)

    def slices(self, first: int, end: int) -> list[memoryview]:
        """Return bytes `first` to `end` of the message as views of its pieces."""
        found = []
        at = bisect_right(self.ends, first)
        while first < end:
            begin = self.ends[at] - self.pieces[at].nbytes
            stop = min(end, self.ends[at])
            found.append(self.pieces[at][first - begin : stop - begin])
            first, at = stop, at + 1
        return found


class _Assembly:
    """A message whose frames are still coming in. Memory is used as it is filled, whatever size was declared."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.filled = 0
        self._room = np.empty(total, np.uint8).data.cast("B")

    def add(self, content: memoryview) -> None:
        end = self.filled + content.nbytes
        self._room[self.filled : end] = content
        self.filled = end

    def message(self) -> memoryview:
        return self._room.toreadonly()


class Link:
    """One end of a link. Not safe for several threads: its owner holds a lock."""

    def __init__(self, me: int, peer: int, incarnation: bytes, limits: LinkLimits) -> None:
        if len(incarnation) != INCARNATION_BYTES or incarnation == _NOBODY:
            raise ValueError(f"an incarnation has {INCARNATION_BYTES} bytes, not all zero")
        self._me, self._peer = me, peer
        self._incarnation = incarnation
        self._tag = tag_of(incarnation)
        self._limits = limits
        self._known = _NOBODY  # the other end's incarnation
        # Sending: messages begun and not acknowledged; those from the cursor on; positions.
        self._sent: deque[_Outgoing] = deque()
        self._pending: deque[_Outgoing] = deque()
        self._cursor = 0
        self._high = 0
        self._end = 0
        self._acked = 0
        self._credit = 0
        # Receiving.
        self._inbox: deque[memoryview] = deque()
        self._untaken = 0
        self._expected = 0
        self._granted = limits.window
        self._reported = 0  # the position and credit that the other end was told last
        self._reported_credit = 0
        self._assembly: _Assembly | None = None
        # What the next frames must say.
        self._question = 0
        self._is_asking = False
        self._question_due = False
        self._echo_due = 0
        self._resend_due = False
        self._gap_at = -1
        self._ack_due = False
        self._progress = (-1, -1)

    # What the owner asks.

    @property
    def unacknowledged(self) -> int:
        """How many bytes of frames the other end has not acknowledged."""
        return self._end - self._acked

    @property
    def has_room(self) -> bool:
        """Whether another message may be pushed."""
        return self.unacknowledged < self._limits.outbox

    @property
    def has_message(self) -> bool:
        """Whether a whole message came in."""
        return bool(self._inbox)

    @property
    def owes_ack(self) -> bool:
        """Whether the other end could be told something that it does not know yet."""
        return self._known != _NOBODY and self._reported < self._expected

    def push(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Add a message, given as one or more buffers that nobody changes until they are acknowledged."""
        message = _Outgoing(pieces, self._end, self._limits.chunk)
        if message.total > self._limits.message:
            raise ValueError(f"a message of {message.total} bytes is over the limit")
        self._end = message.end
        self._pending.append(message)

    def take(self) -> memoryview | None:
        """Return the next whole message, or None."""
        if not self._inbox:
            return None
        message = self._inbox.popleft()
        self._untaken -= DATA_SIZE + message.nbytes
        self._grant()
        return message

    # What happens to the connection.

    def ask(self) -> None:
        """Find out where the other end stands: frames may have been lost, since one of the two connected anew."""
        self._question = self._question % 0xFFFFFFFF + 1
        self._is_asking = self._question_due = True

    def nudge(self) -> None:
        """Ask if nothing moved since the last nudge though something should have."""
        progress = (self._acked, self._credit)
        if self._is_asking or (self._acked < self._end and progress == self._progress):
            self.ask()
        self._progress = progress
        self.acknowledge()

    def acknowledge(self) -> None:
        """Send what is owed as an acknowledgement of its own, since no message goes the other way."""
        self._ack_due = self._ack_due or self.owes_ack

    # Frames out.

    def next_frame(self) -> bytes | None:
        """Return the next frame to send, or None if there is nothing to send now."""
        if self._question_due or self._echo_due or self._resend_due:
            return self._say_hello()
        frame = self._next_data()
        if frame is None and self._ack_due:
            self._told()
            return write_ack(Ack(self._me, self._peer, self._tag, self._expected, self._granted))
        return frame

    def _say_hello(self) -> bytes:
        flags = RESEND if self._resend_due else 0
        question = self._question if self._question_due else 0
        hello = Hello(
            self._me, self._peer, flags, self._expected, self._granted, question, self._echo_due,
            self._incarnation, self._known,
        )  # fmt: skip
        self._question_due = self._resend_due = False
        self._echo_due = 0
        self._told()
        return write_hello(hello)

    def _next_data(self) -> bytes | None:
        if self._is_asking or not self._pending:
            return None
        message = self._pending[0]
        first, end = message.content_at(self._cursor)
        after = self._cursor + DATA_SIZE + end - first
        if after > self._credit:
            return None
        head = DataHead(
            0 if first else START, self._tag, self._cursor, self._expected, self._granted, message.total
        )
        self._cursor = after
        self._high = max(self._high, after)
        if after == message.end:
            self._sent.append(self._pending.popleft())
        self._told()
        return b"".join((write_data_head(self._me, self._peer, head), *message.slices(first, end)))

    def _told(self) -> None:
        self._ack_due = False
        self._reported = self._expected
        self._reported_credit = self._granted

    # Frames in.

    def accept(self, frame: bytes) -> None:
        """Take in a frame of the other end; LinkBroken if the link cannot go on."""
        try:
            kind = read_head(frame).kind
            if kind == Kind.DATA:
                self._accept_data(frame)
            elif kind == Kind.ACK:
                self._accept_ack(read_ack(frame))
            elif kind == Kind.HELLO:
                self._accept_hello(read_hello(frame))
            else:
                raise ValueError("a frame of an unknown kind")
        except ValueError as error:
            raise LinkBroken(f"broke the rules of a link: {error}") from None

    def _accept_hello(self, hello: Hello) -> None:
        if hello.known not in (_NOBODY, self._incarnation):
            return  # meant for our predecessor; our own hello says that it is no more
        if self._known == _NOBODY:
            self._known = hello.incarnation
        elif self._known != hello.incarnation:
            raise PeerRestarted("was restarted")
        if hello.known == self._incarnation:
            self._note_progress(hello.expected, hello.credit)
            if self._is_asking and hello.echo == self._question:
                self._is_asking = False
                self._go_to(max(hello.expected, self._acked))
        if hello.question:
            self._echo_due = hello.question
        if hello.flags & RESEND and not self._is_asking:
            self.ask()

    def _accept_ack(self, ack: Ack) -> None:
        if ack.tag == tag_of(self._known):
            self._note_progress(ack.expected, ack.credit)

    def _note_progress(self, expected: int, credit: int) -> None:
        if expected > self._high:
            raise ValueError("acknowledges what was not sent")
        self._credit = max(self._credit, credit)
        if expected <= self._acked:
            return
        self._acked = expected
        while self._sent and self._sent[0].end <= expected:
            self._sent.popleft()
        if self._cursor < expected:
            self._go_to(expected)

    def _go_to(self, position: int) -> None:
        """Send from `position` on, which is behind nothing acknowledged and before nothing unsent."""
        while self._sent and self._sent[-1].end > position:
            self._pending.appendleft(self._sent.pop())
        while self._pending and self._pending[0].end <= position:
            message = self._pending.popleft()
            if message.end > self._acked:
                self._sent.append(message)
        if self._pending:
            self._pending[0].content_at(position)
        self._cursor = position

    def _accept_data(self, frame: bytes) -> None:
        head = read_data_head(frame)
        if head.tag != tag_of(self._known):
            return  # an earlier life of the other end, or its hello is still to come
        self._note_progress(head.expected, head.credit)
        if head.position != self._expected:
            self._miss(head.position)
            return
        if self._expected + len(frame) > self._granted:
            raise ValueError("sends more than it has credit for")
        self._add(head, memoryview(frame)[DATA_SIZE:])
        self._expected += len(frame)
        self._grant()

    def _miss(self, position: int) -> None:
        if position < self._expected:
            self._ack_due = True  # it does not know how far we are
        elif self._gap_at != self._expected:
            self._gap_at = self._expected
            self._resend_due = True

    def _add(self, head: DataHead, content: memoryview) -> None:
        begun = self._assembly
        if (begun is None) != bool(head.flags & START) or (begun is not None and begun.total != head.total):
            raise ValueError("the frames of two messages are mixed")
        filled = begun.filled if begun is not None else 0
        if head.total > self._limits.message:
            raise ValueError(f"a message of {head.total} bytes is over the limit")
        if filled + content.nbytes > head.total or (head.total and not content.nbytes):
            raise ValueError("a message has another length than it declares")
        if begun is None and content.nbytes == head.total:
            self._finish(content)
            return
        if begun is None:
            begun = self._assembly = _Assembly(head.total)
        begun.add(content)
        if begun.filled == begun.total:
            self._assembly = None
            self._finish(begun.message())

    def _finish(self, message: memoryview) -> None:
        self._inbox.append(message)
        self._untaken += DATA_SIZE + message.nbytes  # so that empty ones count too

    def _grant(self) -> None:
        """Give credit for a window beyond what was received, less what nobody took yet."""
        self._granted = max(self._granted, self._expected + self._limits.window - self._untaken)
        # Told at once only when the other end may be near its limit; else with the next message, or soon.
        if self._granted - self._reported_credit >= self._limits.window // 4:
            self._ack_due = True
