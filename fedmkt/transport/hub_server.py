"""The hub: a relay that passes frames between the members of a session and understands none of them.

Who may be here, and how it is shown: a client certificate of the coordinator's CA whose name is admitted and whose
serial is the admitted one; then a signature by the pinned identity key over a challenge that is new for every
stream. The coordinator opens a session and names its members; everybody else may join a session that names it.

The hub keeps no message: each stream has a queue of bounded size, served in turn by sender, and what does not fit
or has no reader is dropped, since the links of the members repeat it. After a restart of the hub its clients open
and join again, and go on. Logger `fedmkt.hub` says who came, who was refused and why; never a body.

TLS is 1.3 if the hub's key is an EC key and `TLS13_ONLY` was in the environment before gRPC was imported; importing
this module first sees to it, and `Hub.start` tries it out. A client that TLS turns away (no certificate, another CA,
1.2) never reaches this code and is not logged here.
"""

# Before all others: it sets what gRPC reads when it is imported.
from fedmkt.transport.hub_identity import (
    TLS13_ONLY,
    Admitted,
    Refused,
    ServerTls,
    check_admitted,
    der_of,
    read_certificate,
    takes_tls12,
)

# isort: split

import hashlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

from fedmkt.crypto.sign import verify
from fedmkt.errors import ConfigError
from fedmkt.transport.hub_channel import KEEPALIVE
from fedmkt.transport.hub_frames import (
    CHALLENGE_BYTES,
    DATA_SIZE,
    HUB,
    HUB_SAYS,
    LEFT,
    MAX_MEMBERS,
    RELAYED,
    Join,
    Kind,
    Welcome,
    plain,
    proof,
    read_data_head,
    read_head,
    read_join,
    write_challenge,
    write_welcome,
)
from fedmkt.transport.hub_queue import FairQueue

_LOGGER = logging.getLogger("fedmkt.hub")
_SERVICE, _NAME = "fedmkt.Hub", "Link"
_STOP_SECONDS = 5.0
_ENDED_KEPT = 1024
_Code = grpc.StatusCode


@dataclass(frozen=True)
class HubLimits:
    """What one hub carries. Sizes in bytes, times in seconds.

    message_bytes : declared size of one message. session_bytes : all frames of one session, None for no limit.
    queue_bytes : what may wait for one stream. forget_seconds : after which a session without streams is forgotten.
    """

    message_bytes: int = 4 << 30
    chunk_bytes: int = 1 << 20
    session_bytes: int | None = None
    queue_bytes: int = 64 << 20
    streams: int = 128
    streams_per_party: int = 16
    sessions: int = 64
    heartbeat_seconds: float = 2.0
    idle_seconds: float = 30.0
    handshake_seconds: float = 10.0
    forget_seconds: float = 600.0


@dataclass
class MemberTraffic:
    """Bytes of frames that one member's streams sent to the hub and got from it, and frames that were dropped."""

    received: int = 0
    sent: int = 0
    dropped: int = 0


class _Stream:
    """One gRPC stream of one participant."""

    def __init__(self, name: str, serial: int, context: grpc.ServicerContext, limits: HubLimits) -> None:
        self.name = name
        self.serial = serial
        self.context = context
        self.queue = FairQueue(limits.queue_bytes)
        self.number = HUB
        self.challenge = secrets.token_bytes(CHALLENGE_BYTES)
        self.heard = time.monotonic()
        self.started = self.heard
        self.session: _Session | None = None
        # Each counter is written by one thread only: `received` by the reader, `sent` by gRPC's.
        self.traffic = MemberTraffic()
        self.has_left = False
        self.is_condemned = False


class _Session:
    """The members of one session and their streams, one each."""

    def __init__(self, key: bytes, members: tuple[str, ...]) -> None:
        self.key = key
        self.label = key[:4].hex()
        self.members = members
        self.streams: dict[int, _Stream] = {}
        self.empty_since = time.monotonic()
        self.ended_at = 0.0
        self.traffic: dict[str, list[MemberTraffic]] = {name: [] for name in members}

    def total(self) -> dict[str, MemberTraffic]:
        """Add up the streams of each member, those that are over too."""
        return {name: _sum(parts) for name, parts in self.traffic.items()}


class Hub:
    """A relay of framed bytes over gRPC; many sessions and participants at once.

    `admitted` is asked at every new stream and at each heartbeat, and must be quick. If it raises, nobody new is
    let in, and who is there stays.
    `coordinator` is the one name that may open sessions. `address` is host:port, with port 0 for any free one.
    """

    def __init__(
        self,
        admitted: Callable[[], Mapping[str, Admitted]],
        tls: ServerTls,
        address: str,
        coordinator: str,
        limits: HubLimits | None = None,
    ) -> None:
        self._admitted = admitted
        self._tls = tls
        self._address = address
        self._coordinator = coordinator
        self._limits = limits or HubLimits()
        self._certificate = der_of(tls.certificate)
        self._digest = hashlib.sha256(self._certificate).digest()
        self._lock = threading.Lock()
        self._streams: set[_Stream] = set()
        self._sessions: dict[bytes, _Session] = {}
        self._ended: deque[bytes] = deque(maxlen=_ENDED_KEPT)
        self._strays: dict[str, MemberTraffic] = {}
        self._readers: set[threading.Thread] = set()
        self._stopping = threading.Event()
        self._server: grpc.Server | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._keeper: threading.Thread | None = None

    def start(self) -> int:
        """Listen, and return the port; ConfigError if that cannot be."""
        limits = self._limits
        self._pool = ThreadPoolExecutor(limits.streams, thread_name_prefix="fedmkt-hub-stream")
        options = (
            *KEEPALIVE,
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limits.chunk_bytes + DATA_SIZE),
            ("grpc.max_send_message_length", limits.chunk_bytes + DATA_SIZE),
        )
        server = grpc.server(self._pool, options=options, maximum_concurrent_rpcs=limits.streams)
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_NAME: handler}),))
        credentials = grpc.ssl_server_credentials(
            [(self._tls.key, self._tls.certificate)], self._tls.ca, require_client_auth=True
        )
        try:
            port = int(server.add_secure_port(self._address, credentials))
        except RuntimeError:
            port = 0
        if not port:
            self._pool.shutdown()
            raise ConfigError(f"hub: cannot listen on {self._address}", "see whether another program does")
        server.start()
        self._server = server
        self._keeper = threading.Thread(target=self._keep, name="fedmkt-hub-keeper", daemon=True)
        self._keeper.start()
        _LOGGER.info("listens on port %d", port)
        if takes_tls12(self._address.rpartition(":")[0], port):
            _LOGGER.warning("takes TLS 1.2 too; have %s=%s in the environment", *TLS13_ONLY)
        return port

    def stop(self) -> None:
        """End all streams and threads."""
        if self._server is None or self._pool is None or self._keeper is None:
            return
        self._stopping.set()
        with self._lock:
            streams = list(self._streams)
            self._sessions.clear()
        for stream in streams:
            stream.queue.end(Refused(_Code.UNAVAILABLE, "the hub stops"), at_once=True)
        self._server.stop(0.2).wait(_STOP_SECONDS)
        self._pool.shutdown()
        self._keeper.join(_STOP_SECONDS)
        for reader in list(self._readers):
            reader.join(_STOP_SECONDS)
        self._server = None

    def traffic(self) -> dict[bytes, dict[str, MemberTraffic]]:
        """Return what each member of each open session sent and got so far, by session id and name.

        Under the empty id stand the streams that ended before they joined a session, since the hub was started.
        """
        with self._lock:
            found = {key: session.total() for key, session in self._sessions.items()}
            found[b""] = {name: _sum([t]) for name, t in self._strays.items()}
            return found

    # A stream, on a thread of gRPC's pool.

    def _serve(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        who = "somebody"
        stream = None
        try:
            name, serial = read_certificate(context)
            who = ascii(name[:64])[1:-1]
            stream = _Stream(name, serial, context, self._limits)
            self._take_in(stream)
            stream.queue.put_own(write_challenge(stream.challenge, self._certificate))
            self._start_reader(stream, frames)
            while True:
                frame = stream.queue.get()
                stream.traffic.sent += len(frame)
                yield frame
        except Refused as end:
            _LOGGER.log(logging.INFO if end.is_ordinary else logging.WARNING, "%s: %s", who, end)
            context.set_code(end.code)
            context.set_details(HUB_SAYS + str(end))
        except Exception as error:
            _LOGGER.error("%s: the hub failed: %s", who, type(error).__name__)  # and its text does not travel
            context.set_code(_Code.INTERNAL)
            context.set_details(HUB_SAYS + "failed")
        finally:
            if stream is not None:
                self._let_go(stream)

    def _take_in(self, stream: _Stream) -> None:
        self._check_admitted(stream)
        with self._lock:
            same = sum(s.name == stream.name for s in self._streams)
            if self._stopping.is_set() or same >= self._limits.streams_per_party:
                raise Refused(_Code.UNAVAILABLE, "too many streams")
            self._streams.add(stream)
        # Called at once if the stream is over already.
        if not stream.context.add_callback(lambda: self._cut(stream)):
            self._cut(stream)

    def _cut(self, stream: _Stream) -> None:
        stream.queue.end(Refused(_Code.CANCELLED, "the connection ended"), at_once=True)

    def _check_admitted(self, stream: _Stream) -> Admitted:
        return check_admitted(self._admitted().get(stream.name), stream.name, stream.serial)

    def _let_go(self, stream: _Stream) -> None:
        with self._lock:
            self._streams.discard(stream)
            session = stream.session
            if session is None:
                before = self._strays.get(stream.name, MemberTraffic())
                self._strays[stream.name] = _sum([before, stream.traffic])
                return
            if session.streams.get(stream.number) is not stream:
                return
            del session.streams[stream.number]
            session.empty_since = time.monotonic()
            self._tell(session, stream.number, Kind.DOWN, LEFT if stream.has_left else 0)
        _LOGGER.info("%s: left session %s", stream.name, session.label)

    # Frames of a stream, on a thread of ours.

    def _start_reader(self, stream: _Stream, frames: Iterator[bytes]) -> None:
        thread = threading.Thread(
            target=self._read, args=(stream, frames), name="fedmkt-hub-reader", daemon=True
        )
        with self._lock:
            self._readers = {t for t in self._readers if t.is_alive()}
            self._readers.add(thread)
            thread.start()

    def _read(self, stream: _Stream, frames: Iterator[bytes]) -> None:
        end = Refused(_Code.OK, "said goodbye")
        try:
            join = next(frames, None)
            if join is None:
                raise Refused(_Code.INVALID_ARGUMENT, "did not answer the challenge")
            stream.traffic.received += len(join)
            session = self._join(stream, join)
            for frame in frames:
                stream.heard = time.monotonic()
                stream.traffic.received += len(frame)
                self._relay(session, stream, frame)
            if not stream.has_left:
                end = Refused(_Code.CANCELLED, "ended its stream without a goodbye")
        except Refused as error:
            end = error
        except ValueError as error:
            end = Refused(_Code.INVALID_ARGUMENT, f"sent something else than frames: {error}")
        except Exception as error:
            # gRPC raises a bare Exception when the connection is gone; anything else must not end the hub either.
            end = Refused(_Code.CANCELLED, f"the connection ended ({type(error).__name__})")
        stream.queue.end(end, at_once=end.code != _Code.OK)

    def _join(self, stream: _Stream, frame: bytes) -> _Session:
        try:
            join = read_join(frame)
        except ValueError as error:
            raise Refused(
                _Code.INVALID_ARGUMENT, f"answered the challenge with something else: {error}"
            ) from None
        admitted = self._check_admitted(stream)
        try:
            signed = proof(stream.challenge, join.session, stream.name, self._digest)
            verify(admitted.identity, join.signature, signed)
        except ValueError:
            raise Refused(
                _Code.UNAUTHENTICATED, "did not sign the challenge with the admitted identity"
            ) from None
        with self._lock:
            session = self._open(stream, join) if join.members else self._find(stream, join)
            number = session.members.index(stream.name)
            older = session.streams.get(number)
            stream.number, stream.session = number, session
            stream.heard = time.monotonic()
            here = tuple(i in session.streams or i == number for i in range(len(session.members)))
            limits = self._limits
            beat = int(limits.heartbeat_seconds * 1000)
            welcome = Welcome(number, limits.message_bytes, limits.chunk_bytes, beat, session.members, here)
            stream.queue.put_own(write_welcome(welcome))
            session.streams[number] = stream
            session.traffic[stream.name].append(stream.traffic)
            self._tell(session, number, Kind.UP, 0)
        if older is not None:
            older.queue.end(Refused(_Code.ABORTED, "replaced by a newer stream"), at_once=True)
        _LOGGER.info("%s: joined session %s", stream.name, session.label)
        return session

    def _open(self, stream: _Stream, join: Join) -> _Session:
        if stream.name != self._coordinator:
            raise Refused(_Code.PERMISSION_DENIED, "may not open a session")
        members = (stream.name, *join.members)
        if len(set(members)) != len(members) or len(members) > MAX_MEMBERS:
            raise Refused(_Code.INVALID_ARGUMENT, "names a member twice, or too many")
        session = self._sessions.get(join.session)
        if session is None:
            self._check_not_ended(join.session)
            if len(self._sessions) >= self._limits.sessions:
                raise Refused(_Code.UNAVAILABLE, "too many sessions")
            session = self._sessions[join.session] = _Session(join.session, members)
            _LOGGER.info("%s: opened session %s for %d members", stream.name, session.label, len(members))
        elif session.members != members:
            raise Refused(_Code.PERMISSION_DENIED, "names other members than before")
        return session

    def _find(self, stream: _Stream, join: Join) -> _Session:
        session = self._sessions.get(join.session)
        if session is None:
            self._check_not_ended(join.session)
            raise Refused(_Code.NOT_FOUND, "the session is not open")
        if stream.name not in session.members or stream.name == session.members[0]:
            raise Refused(_Code.PERMISSION_DENIED, "the session does not name it")
        return session

    def _check_not_ended(self, key: bytes) -> None:
        if key in self._ended:
            raise Refused(_Code.FAILED_PRECONDITION, "the session has ended")

    def _relay(self, session: _Session, stream: _Stream, frame: bytes) -> None:
        head = read_head(frame)
        if head.kind == Kind.LEAVE:
            stream.has_left = True
            if stream.number == 0:
                end = Refused(_Code.FAILED_PRECONDITION, "the session has ended", is_ordinary=True)
                self._end(session, end, at_once=False)
            return
        if head.kind not in RELAYED:
            if head.kind != Kind.BEAT:
                raise Refused(_Code.INVALID_ARGUMENT, "sent a frame that is not for a client to send")
            return
        if head.source != stream.number or head.destination >= len(session.members):
            raise Refused(_Code.PERMISSION_DENIED, "sent a frame of somebody else, or for nobody")
        if head.kind == Kind.DATA:
            self._check_message(read_data_head(frame).total)
        self._check_session(session)
        reader = session.streams.get(head.destination)
        if reader is None or not reader.queue.put(stream.number, frame):
            stream.traffic.dropped += 1

    def _check_message(self, total: int) -> None:
        if total > self._limits.message_bytes:
            raise Refused(
                _Code.FAILED_PRECONDITION,
                f"a message of {total} bytes is over the limit of {self._limits.message_bytes}",
            )

    def _check_session(self, session: _Session) -> None:
        limit = self._limits.session_bytes
        if limit is not None and sum(t.received for t in session.total().values()) > limit:
            end = Refused(_Code.FAILED_PRECONDITION, f"the session is over its limit of {limit} bytes")
            self._end(session, end, at_once=True)
            raise end

    def _end(self, session: _Session, why: Refused, at_once: bool) -> None:
        with self._lock:
            if self._sessions.pop(session.key, None) is None:
                return
            self._ended.append(session.key)
            session.ended_at = time.monotonic()
            streams = list(session.streams.values())
            parts = [f"{n} {t.received} in {t.sent} out" for n, t in session.total().items()]
        _LOGGER.info("session %s: %s; bytes: %s", session.label, why, ", ".join(parts))
        for stream in streams:
            stream.queue.end(why, at_once)

    def _tell(self, session: _Session, number: int, kind: Kind, flags: int) -> None:
        """Tell the other members that one came or went, after what it sent before; under the lock."""
        for other, stream in session.streams.items():
            if other != number:
                stream.queue.put_notice(number, plain(kind, number, other, flags))

    # Once per heartbeat, on a thread of ours.

    def _keep(self) -> None:
        while not self._stopping.wait(self._limits.heartbeat_seconds):
            try:
                admitted = self._admitted()
            except Exception as error:
                _LOGGER.error("the registry cannot be read: %s", type(error).__name__)
                continue
            with self._lock:
                streams = list(self._streams)
            now = time.monotonic()
            for stream in streams:
                self._keep_stream(stream, admitted, now)
            self._forget_sessions(now)

    def _keep_stream(self, stream: _Stream, admitted: Mapping[str, Admitted], now: float) -> None:
        limits = self._limits
        try:
            check_admitted(admitted.get(stream.name), stream.name, stream.serial)
            if stream.session is None and now - stream.started > limits.handshake_seconds:
                raise Refused(_Code.DEADLINE_EXCEEDED, "did not answer the challenge in time")
            if now - stream.heard > limits.idle_seconds:
                raise Refused(_Code.DEADLINE_EXCEEDED, "was silent for too long")
            ended = stream.session.ended_at if stream.session is not None else 0.0
            if ended and now - ended > limits.idle_seconds:
                raise Refused(_Code.FAILED_PRECONDITION, "the session has ended")
        except Refused as end:
            if stream.is_condemned:
                stream.context.cancel()  # it did not even read that it is over
            stream.is_condemned = True
            stream.queue.end(end, at_once=True)
            return
        if stream.session is not None:
            stream.queue.put_own(plain(Kind.BEAT))

    def _forget_sessions(self, now: float) -> None:
        with self._lock:
            for key, session in list(self._sessions.items()):
                if not session.streams and now - session.empty_since > self._limits.forget_seconds:
                    del self._sessions[key]
                    _LOGGER.info("session %s: forgotten, nobody was there", session.label)


def _sum(parts: Sequence[MemberTraffic]) -> MemberTraffic:
    return MemberTraffic(
        sum(t.received for t in parts), sum(t.sent for t in parts), sum(t.dropped for t in parts)
    )
