"""A TCP proxy on loopback that does to a connection what a bad or hostile network does.

Planned faults stand at byte offsets, so the same plan does the same whatever pieces the bytes come in:

    with FaultProxy(("127.0.0.1", port), faults=[Fault("flip", UP, at=5000)]) as proxy:
        client = connect(proxy.address)

An offset counts the bytes of one direction over all connections of the proxy; every fault happens once. UP
is from the client to the server. `random_faults` draws a plan from a seed. The network can also be changed by
hand, at any time: `cut` resets all connections, `freeze` lets nothing through and says nothing, `refuse` turns
new connections away, `heal` ends both. `seen` and `passed` count the bytes of each direction before and after
the faults.
"""

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Direction = Literal["up", "down"]
UP: Direction = "up"
DOWN: Direction = "down"

Kind = Literal["cut", "truncate", "delay", "drop", "duplicate", "swap", "flip"]
KINDS: tuple[Kind, ...] = ("cut", "truncate", "delay", "drop", "duplicate", "swap", "flip")

_PIECE = 64 << 10
_LOOK = 0.05
_JOIN = 5.0


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that goes wrong before the byte at offset `at` of a direction.

    cut : the connection is reset. truncate : the reader sees its end there, and the rest of the connection's
    bytes of this direction are swallowed. delay : nothing passes for `seconds`.
    drop, duplicate, flip : of the next `size` bytes (flip inverts one bit of each). swap : the next `size`
    bytes and the `size` bytes after them change places.
    """

    kind: Kind
    direction: Direction
    at: int
    size: int = 1
    seconds: float = 0.1


def random_faults(
    seed: int, count: int, first: int, last: int, kinds: Sequence[Kind] = KINDS, longest: float = 0.5
) -> list[Fault]:
    """Draw faults at offsets from `first` to `last`; the same seed gives the same plan."""
    drawn = random.Random(seed)
    return [
        Fault(
            kind=drawn.choice(list(kinds)),
            direction=drawn.choice([UP, DOWN]),
            at=drawn.randint(first, last),
            size=drawn.choice([1, 2, 16, 100, 1500]),
            seconds=drawn.uniform(0.01, longest),
        )
        for _ in range(count)
    ]


@dataclass
class _Plan:
    """The faults of one direction that are still to come, and how many bytes went by."""

    faults: list[Fault]
    position: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, faults: Sequence[Fault]) -> None:
        """Plan more faults; their offsets count from here."""
        with self.lock:
            later = [replace(f, at=self.position + f.at) for f in faults]
            self.faults = sorted([*self.faults, *later], key=lambda f: f.at)

    def forget(self) -> int:
        """Drop what has not happened yet; returns how many faults that were."""
        with self.lock:
            left, self.faults = self.faults, []
        return len(left)

    def split(self, data: bytes) -> list[bytes | Fault]:
        """Cut data where faults stand in it."""
        found: list[bytes | Fault] = []
        with self.lock:
            end = self.position + len(data)
            while self.faults and self.faults[0].at < end:
                fault = self.faults.pop(0)
                before = max(0, fault.at - self.position)
                found += [data[:before], fault]
                data = data[before:]
                self.position += before
            self.position = end
        return [*found, data]


class Mangler:
    """Applies the planned faults of one direction to the bytes of one connection."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._fault: Fault | None = None
        self._held = b""

    def feed(self, data: bytes) -> Iterator[bytes | Fault]:
        """Take in bytes; give out bytes to pass on, and the cuts, truncations and delays between them."""
        for part in self._plan.split(data):
            if isinstance(part, bytes):
                yield self._pass(part)
            elif part.kind in ("cut", "truncate", "delay"):
                yield part
            else:
                yield self.flush()
                self._fault = part

    def flush(self) -> bytes:
        """Give out what is held back for a fault that is not complete."""
        held, self._held, self._fault = self._held, b"", None
        return held

    def _pass(self, data: bytes) -> bytes:
        fault = self._fault
        if fault is None:
            return data
        self._held += data
        needed = 2 * fault.size if fault.kind == "swap" else fault.size
        if len(self._held) < needed:
            return b""
        touched, rest = self._held[:needed], self._held[needed:]
        self._held, self._fault = b"", None
        return _spoiled(fault, touched) + rest


def _spoiled(fault: Fault, data: bytes) -> bytes:
    if fault.kind == "drop":
        return b""
    if fault.kind == "duplicate":
        return data + data
    if fault.kind == "swap":
        return data[fault.size :] + data[: fault.size]
    return bytes(b ^ 1 << (fault.at + i) % 8 for i, b in enumerate(data))


class _Connection:
    """A client's connection and ours to the server. Whoever wants it to end sets `is_over`."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.is_over = threading.Event()
        self._pumps = 2
        self._lock = threading.Lock()
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(_LOOK)

    def receive(self, source: socket.socket) -> bytes | None:
        """Return the next bytes, none at the end; None if the connection is over."""
        while not self.is_over.is_set():
            with contextlib.suppress(TimeoutError):
                return source.recv(_PIECE)
        return None

    def send(self, sink: socket.socket, data: bytes) -> None:
        """Pass bytes on, however slowly they are read."""
        view = memoryview(data)
        while view and not self.is_over.is_set():
            with contextlib.suppress(TimeoutError):
                view = view[sink.send(view) :]

    def leave(self) -> None:
        """One direction is done; after both the sockets are closed, by a reset if the connection was cut."""
        with self._lock:
            self._pumps -= 1
            if self._pumps:
                return
        for end in (self.client, self.server):
            if self.is_over.is_set():
                _reset(end)
            end.close()


class FaultProxy:
    """Listens on a free port of loopback and passes connections on to `target`, with faults."""

    def __init__(self, target: tuple[str, int], faults: Sequence[Fault] = ()) -> None:
        self._target = target
        self._plans = {
            d: _Plan(sorted((f for f in faults if f.direction == d), key=lambda f: f.at)) for d in (UP, DOWN)
        }
        self._lock = threading.Lock()
        self._connections: list[_Connection] = []
        self._threads: list[threading.Thread] = []
        self._flows = threading.Event()
        self._flows.set()
        self._refuses = False
        self._is_closed = False
        self.seen: dict[Direction, int] = {UP: 0, DOWN: 0}
        self.passed: dict[Direction, int] = {UP: 0, DOWN: 0}
        self.connections = 0
        self.happened: list[Fault] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LOOK)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def address(self) -> str:
        """Where clients connect, as host:port."""
        return f"127.0.0.1:{self.port}"

    def plan(self, faults: Sequence[Fault]) -> None:
        """Plan more faults; their offsets count from the bytes that went by so far."""
        for direction, plan in self._plans.items():
            plan.add([f for f in faults if f.direction == direction])

    def forget(self) -> int:
        """Drop the faults that have not happened yet; returns how many."""
        return sum(plan.forget() for plan in self._plans.values())

    def cut(self) -> None:
        """Reset all connections that there are now."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.is_over.set()

    def freeze(self) -> None:
        """Let nothing through, silently, until `heal`."""
        self._flows.clear()

    def refuse(self) -> None:
        """Reset all connections, and new ones as soon as they are made, until `heal`."""
        self._refuses = True
        self.cut()

    def heal(self) -> None:
        """End what `freeze` and `refuse` began."""
        self._refuses = False
        self._flows.set()

    def close(self) -> None:
        """End all connections and threads."""
        self._is_closed = True
        self.heal()
        self.cut()
        for thread in self._threads:
            thread.join(_JOIN)
        self._listener.close()

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="fault-proxy", daemon=True)
        with self._lock:
            self._threads = [t for t in self._threads if t.is_alive() or not t.ident]
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                server = None if self._refuses else socket.create_connection(self._target, timeout=_JOIN)
            except OSError:
                server = None
            if server is None:
                _reset(client)
                continue
            connection = _Connection(client, server)
            with self._lock:
                self._connections.append(connection)
                self.connections += 1
            self._start(self._pump, connection, client, server, UP)
            self._start(self._pump, connection, server, client, DOWN)
        self.cut()

    def _pump(
        self, connection: _Connection, source: socket.socket, sink: socket.socket, direction: Direction
    ) -> None:
        mangler = Mangler(self._plans[direction])
        is_truncated = False
        try:
            while data := connection.receive(source):
                self.seen[direction] += len(data)
                self._await_flow(connection)
                for part in mangler.feed(data):
                    if isinstance(part, Fault):
                        self.happened.append(part)
                        is_truncated = is_truncated or part.kind == "truncate"
                        self._happen(part, connection, sink)
                    elif not is_truncated:
                        self._pass(connection, sink, part, direction)
            if not is_truncated and not connection.is_over.is_set():
                self._pass(connection, sink, mangler.flush(), direction)
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            connection.is_over.set()
        finally:
            connection.leave()

    def _await_flow(self, connection: _Connection) -> None:
        while not connection.is_over.is_set() and not self._flows.wait(_LOOK):
            pass

    def _pass(self, connection: _Connection, sink: socket.socket, data: bytes, direction: Direction) -> None:
        if data:
            connection.send(sink, data)
            self.passed[direction] += len(data)

    def _happen(self, fault: Fault, connection: _Connection, sink: socket.socket) -> None:
        if fault.kind == "delay":
            connection.is_over.wait(fault.seconds)
        elif fault.kind == "truncate":
            sink.shutdown(socket.SHUT_WR)
        else:
            connection.is_over.set()


def _reset(end: socket.socket) -> None:
    """Close a connection the way a crash does: with a reset, and without sending what waits."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
