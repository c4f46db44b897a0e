import socket
import threading
from collections.abc import Iterator

import pytest

from tests.transport.fault_proxy import DOWN, KINDS, UP, Fault, FaultProxy, random_faults

TEXT = bytes(range(100))


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    while data := connection.recv(4096):
                        connection.sendall(data)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def _exchange(proxy: FaultProxy, data: bytes, piece: int) -> bytes:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        for at in range(0, len(data), piece):
            connection.sendall(data[at : at + piece])
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(4096):
            answer += more
        return answer


@pytest.mark.parametrize("piece", [1, 7, 100])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("drop", UP, 10, 5), TEXT[:10] + TEXT[15:]),
        (Fault("duplicate", UP, 10, 5), TEXT[:15] + TEXT[10:]),
        (Fault("swap", UP, 10, 5), TEXT[:10] + TEXT[15:20] + TEXT[10:15] + TEXT[20:]),
        (Fault("flip", UP, 16, 1), TEXT[:16] + bytes([TEXT[16] ^ 1]) + TEXT[17:]),
        (Fault("truncate", DOWN, 30), TEXT[:30]),
        (Fault("delay", DOWN, 30, seconds=0.01), TEXT),
    ],
)
def test_a_fault_does_the_same_whatever_pieces_the_bytes_come_in(
    echo: tuple[str, int], fault: Fault, expected: bytes, piece: int
) -> None:
    with FaultProxy(echo, [fault]) as proxy:
        assert _exchange(proxy, TEXT, piece) == expected


def test_a_cut_resets_the_connection_and_the_next_one_works(echo: tuple[str, int]) -> None:
    with FaultProxy(echo, [Fault("cut", UP, 50)]) as proxy:
        with pytest.raises(OSError):  # a reset, or a shutdown that comes after it
            _exchange(proxy, TEXT, 100)
        assert _exchange(proxy, TEXT, 100) == TEXT


def test_all_bytes_are_counted_in_both_directions(echo: tuple[str, int]) -> None:
    with FaultProxy(echo, [Fault("drop", DOWN, 10, 5)]) as proxy:
        _exchange(proxy, TEXT, 9)
        assert (proxy.seen, proxy.passed) == ({UP: 100, DOWN: 100}, {UP: 100, DOWN: 95})


def test_a_frozen_network_says_nothing_until_it_is_healed(echo: tuple[str, int]) -> None:
    with FaultProxy(echo) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        proxy.freeze()
        connection.sendall(b"x")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.heal()
        connection.settimeout(5)
        assert connection.recv(1) == b"x"


def test_a_refusing_network_turns_new_connections_away(echo: tuple[str, int]) -> None:
    with FaultProxy(echo) as proxy:
        proxy.refuse()
        with pytest.raises(OSError):
            _exchange(proxy, TEXT, 100)
        proxy.heal()
        assert _exchange(proxy, TEXT, 100) == TEXT


def test_a_seed_fixes_the_plan() -> None:
    assert random_faults(7, 50, 0, 1000) == random_faults(7, 50, 0, 1000) != random_faults(8, 50, 0, 1000)
    assert {f.kind for f in random_faults(7, 200, 0, 1000)} == set(KINDS)
