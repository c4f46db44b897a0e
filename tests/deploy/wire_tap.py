"""A tap between a party and its coordinator that opens the TLS, keeps what it saw, and passes it on unchanged.

A test owns all keys, so the tap shows the coordinator's server certificate to the party and the party's client
certificate to the coordinator:

    with WireTap(("127.0.0.1", port), serve=..., dial=...) as tap:
        client = connect(tap.port)
    for connection in tap.connections: connection.up.plain ...

Counted is the party's side of the tap: every TCP byte belongs to one TLS record, and every record is one of a
handshake, of application data, or another one (an alert). `read_http2` and `read_http1` cut the opened bytes
further. UP is from the party to the coordinator. What a reader here cannot name is a ValueError.
"""

import contextlib
import selectors
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_PIECE = 64 << 10
_LOOK = 0.1
_JOIN = 5.0
_LAST_WORDS = 2.0
_FULL = 4 << 20  # what may wait for one end before the other is read on
_RECORD_HEAD = 5
_APPLICATION = 23
TLS13_OVERHEAD = _RECORD_HEAD + 1 + 16
"""Head, inner type and tag of a record of TLS 1.3 without padding (RFC 8446 section 5.2)."""


@dataclass
class Flow:
    """One direction of one connection. tcp, handshake, heads and alerts are bytes; `records` of application data."""

    tcp: int = 0
    handshake: int = 0
    records: int = 0
    heads: int = 0
    alerts: int = 0
    plain: bytearray = field(default_factory=bytearray)

    def add_records(self, sizes: list[int], plain: bytes, is_handshake: bool) -> None:
        """Count whole records that hold `plain` together; ValueError if their overhead is not that of TLS 1.3."""
        if is_handshake:
            self.handshake += sum(sizes)
        elif not plain:
            self.alerts += sum(sizes)
        else:
            if sum(sizes) != len(plain) + TLS13_OVERHEAD * len(sizes):
                raise ValueError("a record of application data has padding, or another overhead than TLS 1.3")
            self.records += len(sizes)
            self.heads += TLS13_OVERHEAD * len(sizes)
            self.plain += plain


@dataclass
class Connection:
    """What one connection of the party carried, each way."""

    up: Flow = field(default_factory=Flow)
    down: Flow = field(default_factory=Flow)
    trouble: str = ""


class _End:
    """One end of the tap: a socket and the TLS on it, without any waiting."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, host: str | None, into: Flow, out: Flow
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=host is None, server_hostname=host)
        self._into, self._outof = into, out
        self._raw = bytearray()
        self._waiting = bytearray()  # plain bytes for which the handshake is not done yet
        self._ready: deque[tuple[bytes, bytes, bool]] = deque()  # records, what they hold, of a handshake?
        self._at = 0
        self._is_secure = False
        self.is_at_end = False
        self.waits = 0
        self._shake()

    @property
    def has_output(self) -> bool:
        return bool(self._ready)

    def receive(self) -> bytes:
        """Read what came, and return it opened; sets `is_at_end` after the last."""
        try:
            data = self.sock.recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            return b""
        if not data:
            self.is_at_end = True
        self._into.tcp += len(data)
        self._raw += data
        plain = bytearray()
        while (record := self._next_record()) is not None:
            plain += self._open(record)
        return bytes(plain)

    def _next_record(self) -> bytes | None:
        if len(self._raw) < _RECORD_HEAD:
            return None
        size = _RECORD_HEAD + int.from_bytes(self._raw[3:5], "big")
        if len(self._raw) < size:
            return None
        record = bytes(self._raw[:size])
        del self._raw[:size]
        return record

    def _open(self, record: bytes) -> bytes:
        self._in.write(record)
        if not self._is_secure:
            self._into.add_records([len(record)], b"", is_handshake=True)
            self._shake()
            return b""
        plain = bytearray()
        try:
            while piece := self._tls.read(_PIECE):
                plain += piece
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.is_at_end = True
        # A ticket comes after the handshake, alone in its record.
        self._into.add_records([len(record)], bytes(plain), is_handshake=False)
        self._take_out(b"", is_handshake=False)
        return bytes(plain)

    def _shake(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
            self._is_secure = True
        self._take_out(b"", is_handshake=True)
        if self._is_secure and self._waiting:
            waiting, self._waiting = bytes(self._waiting), bytearray()
            self.send(waiting)

    def _take_out(self, plain: bytes, is_handshake: bool) -> None:
        raw = self._out.read()
        if raw:
            self._ready.append((raw, plain, is_handshake))
            self.waits += len(raw)

    def send(self, plain: bytes) -> None:
        """Seal bytes for this end."""
        if not self._is_secure:
            self._waiting += plain
            return
        self._tls.write(plain)
        self._take_out(plain, is_handshake=False)

    def say_end(self) -> None:
        """Seal the alert that says that nothing more comes."""
        if self._is_secure:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._take_out(b"", is_handshake=False)

    def flush(self) -> None:
        """Write what can be written now; counted is what went out whole."""
        while self._ready:
            raw, plain, is_handshake = self._ready[0]
            try:
                sent = self.sock.send(memoryview(raw)[self._at :])
            except (BlockingIOError, InterruptedError):
                return
            self._at += sent
            self.waits -= sent
            self._outof.tcp += sent
            if self._at == len(raw):
                self._at = 0
                self._ready.popleft()
                self._outof.add_records(_sizes(raw), plain, is_handshake)


def _sizes(raw: bytes) -> list[int]:
    """Return the sizes of the records that bytes consist of."""
    sizes, at = [], 0
    while at < len(raw):
        sizes.append(_RECORD_HEAD + int.from_bytes(raw[at + 3 : at + 5], "big"))
        at += sizes[-1]
    if at != len(raw):
        raise ValueError("bytes are no whole records")
    return sizes


class WireTap:
    """Listens on a free port of loopback. The contexts are asked for when the first connection comes.

    serve : as the coordinator's server. dial : as the party.
    """

    def __init__(
        self, target: tuple[str, int], serve: Callable[[], ssl.SSLContext], dial: Callable[[], ssl.SSLContext]
    ) -> None:
        self._target = target
        self._serve, self._dial = serve, dial
        self._is_closed = False
        self._threads: list[threading.Thread] = []
        self.connections: list[Connection] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LOOK)
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def close(self) -> None:
        """End all connections and threads."""
        self._is_closed = True
        for thread in self._threads:
            thread.join(_JOIN)
        self._listener.close()

    def __enter__(self) -> "WireTap":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="wire-tap", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                far = socket.create_connection(self._target, timeout=_JOIN)
            except OSError:
                near.close()
                continue
            seen = Connection()
            self.connections.append(seen)
            self._start(self._relay, near, far, seen)

    def _relay(self, near: socket.socket, far: socket.socket, seen: Connection) -> None:
        with near, far, selectors.DefaultSelector() as selector:
            try:
                party = _End(near, self._serve(), None, seen.up, seen.down)
                server = _End(far, self._dial(), self._target[0], Flow(), Flow())
                self._pump(selector, party, server)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                seen.trouble = f"{type(error).__name__}: {error}"

    def _pump(self, selector: selectors.BaseSelector, party: _End, server: _End) -> None:
        for end in (party, server):
            selector.register(end.sock, selectors.EVENT_READ, end)
        until = float("inf")
        has_told = False
        while not self._is_closed and not party.is_at_end and time.monotonic() < until:
            if server.is_at_end and not has_told:
                # The party may still say something to a server that has gone: it is heard, and goes nowhere.
                party.say_end()
                selector.unregister(server.sock)
                has_told, until = True, time.monotonic() + _LAST_WORDS
            for end, other in ((party, server), (server, party)):
                if end is server and has_told:
                    continue
                events = selectors.EVENT_WRITE if end.has_output else 0
                events |= 0 if other.waits > _FULL else selectors.EVENT_READ
                selector.modify(end.sock, events or selectors.EVENT_WRITE, end)
            for key, events in selector.select(_LOOK):
                end = key.data
                if events & selectors.EVENT_READ:
                    plain = end.receive()
                    other = server if end is party else party
                    if plain and not other.is_at_end:
                        other.send(plain)
            for end in (party, server):
                if not end.is_at_end:
                    end.flush()
        if not server.is_at_end:
            server.say_end()
            server.flush()


# ------------------------------------------------------------------------------------------- what was opened

_FRAME = struct.Struct(">BHBBI")  # length in three bytes, type, flags, stream
_FRAME_KINDS = (
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
    "CONTINUATION",
)  # fmt: skip
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD = _FRAME.size
GRPC_PREFIX = 5
_PADDED = 8


@dataclass(frozen=True)
class Http2Frame:
    """One frame (RFC 9113 section 4.1): its kind, its stream, and what follows the nine bytes of its head."""

    kind: str
    stream: int
    content: bytes


def read_http2(plain: bytes, is_client: bool) -> Iterator[Http2Frame]:
    """Cut one direction of a connection into its frames; ValueError unless they fill it to the last byte."""
    at = 0
    if is_client:
        if not plain.startswith(PREFACE):
            raise ValueError("no connection of HTTP/2")
        at = len(PREFACE)
    while at < len(plain):
        if at + FRAME_HEAD > len(plain):
            raise ValueError("the head of a frame is cut short")
        high, low, number, flags, stream = _FRAME.unpack_from(plain, at)
        end = at + FRAME_HEAD + (high << 16) + low
        if end > len(plain) or number >= len(_FRAME_KINDS):
            raise ValueError("a frame is cut short, or of an unknown kind")
        if _FRAME_KINDS[number] == "DATA" and flags & _PADDED:
            raise ValueError("a frame is padded")
        yield Http2Frame(_FRAME_KINDS[number], stream, plain[at + FRAME_HEAD : end])
        at = end


def read_grpc(frames: Iterator[Http2Frame] | list[Http2Frame]) -> Iterator[bytes]:
    """Put together the messages in DATA frames; ValueError for a compressed one, or for bytes left over."""
    begun: dict[int, bytearray] = {}
    for frame in frames:
        if frame.kind != "DATA":
            continue
        held = begun.setdefault(frame.stream, bytearray())
        held += frame.content
        while len(held) >= GRPC_PREFIX and len(held) >= (
            end := GRPC_PREFIX + int.from_bytes(held[1:5], "big")
        ):
            if held[0]:
                raise ValueError("a message is compressed")
            yield bytes(held[GRPC_PREFIX:end])
            del held[:end]
    if any(begun.values()):
        raise ValueError("a message is cut short")


_INDEXED = {0x83: (":method", "POST"), 0x87: (":scheme", "https"), 0x88: (":status", "200")}
_LITERAL = (0x00, 0x10, 0x40)


def read_head_fields(block: bytes) -> list[tuple[str, str]]:
    """Read the head of a first request or answer of a connection (RFC 7541), as gRPC writes it.

    That is in plain text, but for three entries of the static table; anything else is a ValueError.
    """
    found, at = [], 0
    while at < len(block):
        if block[at] in _INDEXED:
            found.append(_INDEXED[block[at]])
            at += 1
            continue
        if block[at] not in _LITERAL:
            raise ValueError("a head is written in another way than gRPC's")
        texts = []
        at += 1
        for _ in range(2):
            if at >= len(block) or block[at] >= 0x7F or at + 1 + block[at] > len(block):
                raise ValueError("a text in a head is compressed, too long, or cut short")
            texts.append(block[at + 1 : at + 1 + block[at]].decode("ascii"))
            at += 1 + block[at]
        found.append((texts[0], texts[1]))
    return found


@dataclass(frozen=True)
class HttpMessage:
    """A request or an answer of HTTP/1.1: first line, names and values of its head, size of the head, body."""

    line: str
    fields: tuple[tuple[str, str], ...]
    head: int
    body: bytes

    def field(self, name: str) -> str:
        """Return the one value of a field; ValueError if it is missing or repeated."""
        (value,) = [v for n, v in self.fields if n == name]
        return value


def read_http1(plain: bytes) -> Iterator[HttpMessage]:
    """Cut one direction of a connection into its messages; ValueError unless they fill it to the last byte.

    All have a declared length: a chunked one has none and is a ValueError.
    """
    at = 0
    while at < len(plain):
        end = plain.find(b"\r\n\r\n", at)
        if end < 0:
            raise ValueError("a head is cut short")
        line, *rest = plain[at:end].decode("ascii").split("\r\n")
        fields = tuple((n.lower(), v.strip()) for n, _, v in (text.partition(":") for text in rest))
        found = HttpMessage(line, fields, end + 4 - at, b"")
        begin, at = end + 4, end + 4 + int(found.field("content-length"))
        if at > len(plain):
            raise ValueError("a body is cut short")
        yield HttpMessage(line, fields, found.head, plain[begin:at])
