"""A participant's end of a hub session: reliable messages to and from the other members, over one outgoing stream.

Three threads at most: ours connects again and again and reads; gRPC's own pulls the frames that are to be sent.
What a caller waits for has a deadline, and a connection that stays away too long fails everybody who waits.
"""

import hashlib
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc

from fedmkt.crypto.sign import Identity
from fedmkt.errors import ConfigError, FedmktError, PeerError, TransportError
from fedmkt.transport.hub_channel import open_channel, read_refusal
from fedmkt.transport.hub_frames import (
    DATA_SIZE,
    INCARNATION_BYTES,
    LEFT,
    METHOD,
    SESSION_BYTES,
    SIGNATURE_BYTES,
    Join,
    Kind,
    Welcome,
    plain,
    proof,
    read_challenge,
    read_head,
    read_welcome,
    write_join,
)
from fedmkt.transport.hub_identity import ClientTls, check_issued, der_of
from fedmkt.transport.hub_link import LinkLimits
from fedmkt.transport.hub_peers import Peer, Peers

Message = bytes | memoryview | Sequence[bytes | memoryview]
"""What can be sent: one buffer, or several that are sent as one message without being joined first."""

_HANDSHAKE_SECONDS = 10.0
_SILENCE_SECONDS = 20.0
_ACK_SECONDS = 0.02
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_LOOK = 0.5
_CLOSE_SECONDS = 5.0


class NothingCame(TransportError):
    """No message came before the deadline; the session goes on."""


@dataclass(frozen=True)
class SessionLimits:
    """The client's own deadlines in seconds, and its sizes in bytes.

    gone_seconds : how long our connection, or that of a member that was there, may stay away.
    send_seconds : how long `send` waits for room.
    """

    gone_seconds: float = 90.0
    send_seconds: float = 120.0
    window_bytes: int = 4 << 20
    outbox_bytes: int = 16 << 20
    message_bytes: int = 4 << 30


class HubSession:
    """One member of one session. The member that opens it gives the names of the others as `members`."""

    def __init__(
        self,
        address: str,
        tls: ClientTls,
        identity: Identity,
        session_id: bytes,
        me: str,
        members: Sequence[str] = (),
        limits: SessionLimits | None = None,
    ) -> None:
        if len(session_id) != SESSION_BYTES:
            raise ValueError(f"a session id has {SESSION_BYTES} bytes")
        self.me = me
        self.address = address
        self._tls = tls
        self._identity = identity
        self._id = session_id
        self._opens = tuple(members)
        self._limits = limits or SessionLimits()
        self._incarnation = secrets.token_bytes(INCARNATION_BYTES)
        self._pinned = der_of(tls.hub) if tls.hub is not None else None
        self._lock = threading.Lock()
        self._to_send = threading.Condition(self._lock)
        self._changed = threading.Condition(self._lock)
        self._control: deque[bytes] = deque()
        self._peers = Peers()
        self._welcome: Welcome | None = None
        self._stream = 0  # counts connections, so that what belongs to an earlier one is told apart
        self._is_up = False
        self._is_closing = False
        self._said_goodbye = False
        self._error: FedmktError | None = None
        self._since = time.monotonic()
        self._heard = time.monotonic()
        self._call: grpc.Call | None = None
        self._writers = 0
        self._last_trouble = "not tried yet"
        self.bytes_sent = 0
        self.bytes_received = 0
        self.frames_sent = 0
        self.frames_received = 0
        self.connections = 0
        self._thread = threading.Thread(target=self._run, name=f"fedmkt-hub-{me}", daemon=True)
        self._thread.start()

    # For the caller.

    def send(self, to: str, message: Message, timeout: float | None = None) -> None:
        """Hand a message over for delivery; waits only for room in the outbox, and at most `timeout` seconds.

        The buffers must not be changed until they are delivered: after a cut the same bytes go out again.
        """
        pieces = [message] if isinstance(message, bytes | memoryview) else list(message)
        until = time.monotonic() + (self._limits.send_seconds if timeout is None else timeout)
        with self._lock:
            while True:
                self._check(to)
                peer = self._peers.find(to)
                if peer is not None and peer.link.has_room:
                    break
                self._wait(until, f"{to}: takes no more messages" if peer else self._trouble())
            try:
                peer.link.push(pieces)
            except ValueError as error:
                raise TransportError(f"{to}: {error} of the hub") from None
            self._to_send.notify_all()

    def receive(self, timeout: float) -> tuple[str, memoryview]:
        """Return the next message of any member and its name; NothingCame after `timeout` seconds.

        The content is a read-only view that belongs to the caller.
        """
        until = time.monotonic() + timeout
        with self._lock:
            while True:
                for peer in self._peers.in_turn():
                    message = self._take(peer)
                    if message is not None:
                        return peer.name, message
                self._check(None)
                self._wait(until, "no message came")

    def receive_from(self, name: str, timeout: float) -> memoryview:
        """Return the next message of one member; NothingCame after `timeout` seconds."""
        until = time.monotonic() + timeout
        with self._lock:
            while True:
                peer = self._peers.find(name)
                message = self._take(peer) if peer is not None else None
                if message is not None:
                    return message
                self._check(name)
                self._wait(until, f"{name}: no message came")

    def wait_for(self, names: Sequence[str], timeout: float) -> None:
        """Wait until these members are connected to the hub, as we are; TransportError after `timeout` seconds."""
        until = time.monotonic() + timeout
        with self._lock:
            while True:
                for name in names:
                    self._check(name)
                found = {name: self._peers.find(name) for name in names}
                missing = [n for n, p in found.items() if p is None or not p.is_here]
                if self._is_up and not missing:
                    return
                text = f"{missing[0]}: is not connected to the hub" if self._is_up else self._trouble()
                self._wait(until, text)

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all members, the one that opened the session first; empty before the hub said so."""
        return self._welcome.members if self._welcome is not None else ()

    def is_here(self, name: str) -> bool:
        """Say whether a member is connected to the hub, as far as we know."""
        with self._lock:
            peer = self._peers.find(name)
            return self._is_up and peer is not None and peer.is_here

    def close(self, linger: float = 2.0) -> None:
        """Say goodbye after at most `linger` seconds for what is still to be delivered, and end all threads.

        The member that opened the session ends it for all.
        """
        until = time.monotonic() + linger
        with self._lock:
            while not self._peers.is_flushed and self._error is None and time.monotonic() < until:
                self._peers.acknowledge()
                self._to_send.notify_all()
                self._changed.wait(min(_ACK_SECONDS, max(0.0, until - time.monotonic())))
            self._is_closing = True
            self._to_send.notify_all()
            self._changed.notify_all()
        self._thread.join(1.0)  # the hub ends the stream when it read our goodbye
        with self._lock:
            call = self._call
            self._error = self._error or TransportError("the session is closed")
            self._stream += 1
            self._to_send.notify_all()
            self._changed.notify_all()
        if call is not None:
            call.cancel()
        self._thread.join(_CLOSE_SECONDS)
        until = time.monotonic() + _CLOSE_SECONDS
        with self._lock:
            while self._writers and time.monotonic() < until:
                self._changed.wait(0.05)

    def __enter__(self) -> "HubSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Waiting and failing; all under the lock.

    def _wait(self, until: float, text: str) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise NothingCame(f"{text} in time")
        self._changed.wait(min(left, _LOOK))

    def _check(self, name: str | None) -> None:
        """Raise if the session has failed, or if the link to this member has; for None, if that to anybody has."""
        self._look_for_gone()
        if self._error is not None:
            raise type(self._error)(str(self._error), self._error.hint)
        if name is not None and self._welcome is not None and self._peers.find(name) is None:
            raise TransportError(f"{name}: is no member of this session")
        self._peers.check(name)

    def _look_for_gone(self) -> None:
        now, longest = time.monotonic(), self._limits.gone_seconds
        if not self._is_up and self._error is None and now - self._since > longest:
            self._fail(
                TransportError(
                    f"hub at {self.address}: no connection for {longest:.0f} s ({self._last_trouble})",
                    "see that the coordinator is up and that its address and certificate are right",
                )
            )
        if self._is_up and self._peers.look_for_gone(self._since, longest):
            self._changed.notify_all()

    def _trouble(self) -> str:
        return f"hub at {self.address}: no connection ({self._last_trouble})"

    def _fail(self, error: FedmktError) -> None:
        self._error = self._error or error
        self._changed.notify_all()
        self._to_send.notify_all()

    def _take(self, peer: Peer) -> memoryview | None:
        message = peer.link.take()
        if message is not None:
            self._to_send.notify_all()  # there may be credit to grant
        return message

    # Our thread: connect, read, connect again.

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            was_welcome = self._connect_once()
            with self._lock:
                self._look_for_gone()
                if self._is_closing or self._error is not None:
                    self._fail(TransportError("the session is closed"))
                    return
                pause = _FIRST_PAUSE if was_welcome else min(_LONGEST_PAUSE, pause * 2)
                until = time.monotonic() + pause * random.uniform(0.5, 1.0)
                while time.monotonic() < until and not self._is_closing:
                    self._changed.wait(max(0.0, until - time.monotonic()))
                if self._is_closing:
                    return

    def _connect_once(self) -> bool:
        """Hold one stream to the hub until it ends; say whether the hub welcomed us."""
        with self._lock:
            self._stream += 1
            stream = self._stream
            self._control.clear()
            self._heard = time.monotonic()
        channel = open_channel(self.address, self._tls)
        call = None
        try:
            call = channel.stream_stream(METHOD)(self._frames(stream), wait_for_ready=False)
            with self._lock:
                self._call = call
                if self._stream != stream:
                    call.cancel()
            for frame in call:
                self._arrive(frame)
            self._note_end("the hub ended the stream")
        except grpc.RpcError as error:
            self._note_refusal(error)
        except (ValueError, ConfigError, PeerError) as error:
            with self._lock:
                self._fail(error if isinstance(error, FedmktError) else PeerError(f"hub: {error}"))
        finally:
            if call is not None:
                call.cancel()
            with self._lock:
                was_welcome = self._is_up
                self._step_down()
            channel.close()
        return was_welcome

    def _step_down(self) -> None:
        self._stream += 1
        self._call = None
        if self._is_up:
            self._is_up = False
            self._since = time.monotonic()
        self._to_send.notify_all()
        self._changed.notify_all()

    def _note_end(self, text: str) -> None:
        with self._lock:
            self._last_trouble = text

    def _note_refusal(self, error: grpc.RpcError) -> None:
        refusal = read_refusal(error)
        with self._lock:
            self._last_trouble = refusal.trouble
            if refusal.is_final or (refusal.is_aborted and self._is_up):
                self._fail(TransportError(f"hub at {self.address}: {self.me}: {refusal.reason}"))

    # Frames in.

    def _arrive(self, frame: bytes) -> None:
        head = read_head(frame)
        with self._lock:
            self._heard = time.monotonic()
            self.bytes_received += len(frame)
            self.frames_received += 1
            if head.kind in (Kind.DATA, Kind.HELLO, Kind.ACK):
                if self._peers.accept(head.source, frame):
                    self._changed.notify_all()
                self._to_send.notify_all()
            elif head.kind == Kind.CHALLENGE:
                self._control.append(self._answer(frame))
                self._to_send.notify_all()
            elif head.kind == Kind.WELCOME:
                self._settle(read_welcome(frame))
            elif head.kind in (Kind.UP, Kind.DOWN):
                self._peers.note_presence(head.source, head.kind == Kind.UP, bool(head.flags & LEFT))
                self._to_send.notify_all()
                self._changed.notify_all()

    def _answer(self, frame: bytes) -> bytes:
        challenge, certificate = read_challenge(frame)
        if self._pinned is not None and certificate != self._pinned:
            raise PeerError(f"hub at {self.address}: its certificate is not the pinned one")
        # A hub that passes on the challenge of another one would have to show that one's certificate.
        check_issued(certificate, self._tls.ca, self.address)
        digest = hashlib.sha256(certificate).digest()
        signature = self._identity.sign(proof(challenge, self._id, self.me, digest))
        assert len(signature) == SIGNATURE_BYTES
        return write_join(Join(self._id, signature, self._opens))

    def _settle(self, welcome: Welcome) -> None:
        if self._welcome is None:
            self._make_links(welcome)
        elif welcome.members != self._welcome.members or welcome.chunk_bytes < self._welcome.chunk_bytes:
            raise PeerError("hub: came back with other members or limits")
        self._welcome = welcome
        self._is_up = True
        self.connections += 1
        self._since = time.monotonic()
        self._peers.note_here(welcome.here)
        self._to_send.notify_all()
        self._changed.notify_all()

    def _make_links(self, welcome: Welcome) -> None:
        if welcome.members[welcome.me] != self.me:
            raise PeerError("hub: took us for somebody else")
        limits = LinkLimits(
            chunk=welcome.chunk_bytes,
            window=max(self._limits.window_bytes, welcome.chunk_bytes + DATA_SIZE),
            outbox=self._limits.outbox_bytes,
            message=min(self._limits.message_bytes, welcome.message_bytes),
        )
        self._peers.meet(welcome, self._incarnation, limits)

    # Frames out: pulled by gRPC's thread, one at a time.

    def _frames(self, stream: int) -> Iterator[bytes]:
        with self._lock:
            self._writers += 1
        clock = _Clock(time.monotonic() + _HANDSHAKE_SECONDS)
        try:
            while (frame := self._wait_for_frame(stream, clock)) is not None:
                yield frame
        finally:
            with self._lock:
                self._writers -= 1
                self._changed.notify_all()

    def _wait_for_frame(self, stream: int, clock: "_Clock") -> bytes | None:
        """Return the next frame of this stream, or None if nothing more will be sent on it."""
        with self._lock:
            while self._stream == stream:
                now = time.monotonic()
                if (not self._is_up and now > clock.welcome_by) or now - self._heard > _SILENCE_SECONDS:
                    self._last_trouble = "the hub does not answer"
                    if self._call is not None:
                        self._call.cancel()
                    return None
                frame = self._goodbye() if self._is_closing else self._next_frame(clock, now)
                if frame is not None:
                    self.bytes_sent += len(frame)
                    self.frames_sent += 1
                    return frame
                if self._is_closing:
                    return None
                self._to_send.wait(clock.pause(now))
            return None

    def _goodbye(self) -> bytes | None:
        if self._said_goodbye or not self._is_up:
            return None
        self._said_goodbye = True
        return plain(Kind.LEAVE)

    def _next_frame(self, clock: "_Clock", now: float) -> bytes | None:
        if self._control:
            return self._control.popleft()
        if not self._is_up or self._welcome is None:
            return None
        beat = self._welcome.heartbeat_ms / 1000
        if now >= clock.beat_at:
            is_first, clock.beat_at = clock.beat_at == 0.0, now + beat
            if not is_first:
                self._peers.nudge()
            return plain(Kind.BEAT)
        return self._peers.next_frame() or self._late_ack(clock, now)

    def _late_ack(self, clock: "_Clock", now: float) -> bytes | None:
        """Acknowledge what no message of ours acknowledged within a moment."""
        owing = self._peers.owing
        if not owing:
            clock.ack_at = None
        elif clock.ack_at is None:
            clock.ack_at = now + _ACK_SECONDS
        elif now >= clock.ack_at:
            clock.ack_at = None
            for peer in owing:
                peer.link.acknowledge()
            return owing[0].link.next_frame()
        return None


@dataclass
class _Clock:
    """When a stream must say something although nothing asks it to."""

    welcome_by: float
    beat_at: float = 0.0
    ack_at: float | None = None

    def pause(self, now: float) -> float:
        """Return how many seconds may pass before the next look."""
        at = _LOOK + now
        if self.beat_at:
            at = min(at, self.beat_at)
        if self.ack_at is not None:
            at = min(at, self.ack_at)
        return max(0.0, at - now)
