import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmkt.crypto import certificates
from fedmkt.crypto.prg import SeededRandom
from fedmkt.errors import TransportError
from fedmkt.transport.probe import ask, greet, reach, resolve

RANDOM = SeededRandom(bytes(32))
KEY = certificates.generate_tls_key(RANDOM)
PAGE = b"HTTP/1.1 200 OK\r\nDate: Tue, 01 Jan 2030 12:00:00 GMT\r\n\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(certificates.make_authority("coordinator", KEY, RANDOM, datetime.now(UTC)).pem)
    return path


def server_context(
    authority: Path, *, hosts: tuple[str, ...] = ("127.0.0.1",), age: timedelta = timedelta()
) -> ssl.SSLContext:
    pem = authority.read_bytes()
    issued = certificates.issue_server(KEY, hosts, pem, KEY, RANDOM, datetime.now(UTC) - age)
    both = authority.with_name("server.pem")
    both.write_bytes(KEY + issued.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context


@contextmanager
def serving(context: ssl.SSLContext | None, answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Answer one connection on loopback; a failure of the other side's is its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        try:
            link, _ = listener.accept()
            link.settimeout(10)
            with link, context.wrap_socket(link, server_side=True) if context else link as inner:
                answer(inner)
        except OSError:
            return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(10)


def saying(data: bytes) -> Callable[[socket.socket], None]:
    def answer(link: socket.socket) -> None:
        link.recv(65536)
        link.sendall(data)

    return answer


def test_a_page_comes_with_date_body_and_the_certificate_of_its_server(authority: Path) -> None:
    with serving(server_context(authority), saying(PAGE + b'{"registered": true}')) as port:
        answer = ask("127.0.0.1", port, authority, "/preflight/bank")
    assert (answer.status, answer.body) == (200, b'{"registered": true}')
    assert answer.date == "Tue, 01 Jan 2030 12:00:00 GMT"
    certificates.check_server(answer.certificate, "127.0.0.1", authority.read_bytes(), datetime.now(UTC))


def test_a_page_in_chunks_is_put_together(authority: Path) -> None:
    head = PAGE.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    with serving(server_context(authority), saying(head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")) as port:
        assert ask("127.0.0.1", port, authority, "/").body == b"abcde"


@pytest.mark.parametrize("data", [b"", b"\x00" * 9, b"HTTP/1.1", b"HTTP/1.1 abc\r\n\r\n"], ids=repr)
def test_a_server_that_speaks_something_else_has_status_0(data: bytes, authority: Path) -> None:
    with serving(server_context(authority), saying(data)) as port:
        assert ask("127.0.0.1", port, authority, "/").status == 0


def test_an_endless_answer_is_cut(authority: Path) -> None:
    def flood(link: socket.socket) -> None:
        link.recv(65536)
        for _ in range(10_000):
            link.sendall(bytes(65536))

    with serving(server_context(authority), flood) as port:
        assert len(ask("127.0.0.1", port, authority, "/").body) <= 64 << 10


@pytest.mark.parametrize("with_tls", [True, False])
def test_a_server_that_says_nothing_or_drips_ends_in_time(with_tls: bool, authority: Path) -> None:
    def drip(link: socket.socket) -> None:
        for _ in range(100):
            link.sendall(b"x")
            time.sleep(0.05)

    def silent(link: socket.socket) -> None:
        time.sleep(1.5)

    context = server_context(authority) if with_tls else None
    started = time.monotonic()
    with serving(context, drip if with_tls else silent) as port, pytest.raises(TransportError) as caught:
        ask("127.0.0.1", port, authority, "/", timeout=0.5)
    assert "does not answer within" in str(caught.value)
    assert time.monotonic() - started < 4


def refused(context: ssl.SSLContext, authority: Path, host: str = "127.0.0.1") -> str:
    with serving(context, saying(PAGE)) as port, pytest.raises(TransportError) as caught:
        greet(host, port, authority)
    return str(caught.value)


def test_each_fault_of_a_certificate_is_told_apart(authority: Path, tmp_path: Path) -> None:
    assert "not for the address" in refused(server_context(authority, hosts=("c.example",)), authority)
    assert "not for the name localhost" in refused(server_context(authority), authority, "localhost")
    assert "has expired" in refused(server_context(authority, age=timedelta(days=366)), authority)
    assert "not valid yet" in refused(server_context(authority, age=timedelta(hours=-1)), authority)
    other = tmp_path / "other.pem"
    key = certificates.generate_tls_key(RANDOM)
    other.write_bytes(certificates.make_authority("coordinator", key, RANDOM, datetime.now(UTC)).pem)
    assert "not from our coordinator's authority" in refused(server_context(authority), other)


def test_tls_below_1_3_is_refused(authority: Path) -> None:
    context = server_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "does not speak our TLS" in refused(context, authority)


def test_a_server_that_wants_a_certificate_of_ours_still_shows_its_own(authority: Path) -> None:
    context = server_context(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority)
    with serving(context, saying(PAGE)) as port:
        pem = greet("127.0.0.1", port, authority)
    certificates.check_server(pem, "127.0.0.1", authority.read_bytes(), datetime.now(UTC))


def test_a_port_is_reached_or_refused(authority: Path) -> None:
    with serving(None, saying(b"")) as port:
        reach("127.0.0.1", port)
    with pytest.raises(TransportError, match="nothing listens there"):
        reach("127.0.0.1", port)
    with pytest.raises(TransportError, match="cannot be reached"):
        greet("127.0.0.1", port, authority)


def test_names_have_addresses_or_not() -> None:
    assert "127.0.0.1" in resolve("127.0.0.1", 443)
    for host in ("name.invalid", "x" * 300, "a..b"):
        with pytest.raises(TransportError, match="has no address"):
            resolve(host, 443)
