import contextlib
import http.client
import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fedmkt.crypto import certificates
from fedmkt.transport.front import FLEET
from fedmkt.transport.health import answers_health_with_tls, listens_with_tls

SERVE = """
import json, logging, sys
from pathlib import Path
from fedmkt.transport.front import Front, FrontFacts, FrontLimits, serve_front
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
logging.getLogger("httpx").setLevel(logging.WARNING)
keys, upstream, port, limits = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
limits = FrontLimits(**limits)
facts = FrontFacts("1.2.3", "4.5.6", lambda name: name == "bank")
front = Front(upstream, keys / "ca.pem", ("front.test", "localhost"), facts, limits)
serve_front(front, "127.0.0.1", port, keys / "server.pem", keys / "server.key", limits)
"""
PULL = "/v1/fleet/pull-messages"
LIMITS = {
    "body_bytes": 2 << 20,
    "head_seconds": 1.5,
    "connections_per_address": 8,
    "questions": 6,
    "pause_seconds": 2.0,
    "idle_seconds": 2.0,
}


@dataclass
class Seen:
    """What reached the stand-in for SuperLink."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class World:
    """A front in a process of its own, and a SuperLink that answers everything with 200."""

    keys: Path
    front_port: int
    link_port: int
    log: Path
    seen: list[Seen] = field(default_factory=list)

    def open(self, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.keys / "ca.pem"))
        if version is not None:
            context.maximum_version = version
        plain = socket.create_connection(("127.0.0.1", self.front_port), timeout=10)
        try:
            return context.wrap_socket(plain, server_hostname="front.test")
        except OSError:
            plain.close()
            raise

    def send(self, raw: bytes) -> bytes:
        """Send bytes and return all that comes back until the other side hangs up."""
        found = b""
        with self.open() as link:
            link.sendall(raw)
            with contextlib.suppress(OSError):
                while chunk := link.recv(65536):
                    found += chunk
        return found

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection(
            "localhost", self.front_port, timeout=10,
            context=ssl.create_default_context(cafile=str(self.keys / "ca.pem")),
        )  # fmt: skip
        try:
            connection.request(method, path, body, {n.replace("_", "-"): v for n, v in headers.items()})
            answer = connection.getresponse()
            answer.body = answer.read()  # type: ignore[attr-defined]
            return answer
        finally:
            connection.close()


def make_keys(folder: Path, *hosts: str) -> Path:
    folder.mkdir()
    now = datetime.now(UTC)
    issuer, key = (certificates.generate_tls_key(secrets.token_bytes) for _ in range(2))
    authority = certificates.make_authority("test", issuer, secrets.token_bytes, now).pem
    issued = certificates.issue_server(key, hosts, authority, issuer, secrets.token_bytes, now).pem
    for name, data in (("ca.pem", authority), ("server.pem", issued), ("server.key", key)):
        (folder / name).write_bytes(data)
    return folder


class Link(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5

    def handle_any(self) -> None:
        chunked = self.headers.get("transfer-encoding") == "chunked"
        size = int(self.headers.get("content-length", 0))
        body = self._chunks() if chunked else self.rfile.read(size)
        if not chunked and len(body) < size:
            raise ConnectionError("the caller hung up")
        if self.path != "/health":
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.seen.append(Seen(self.command, self.path, headers, body))
        answer = body[::-1] or b"nothing"
        self.send_response(200)
        for name, value in (
            ("content-type", "application/protobuf"),
            ("set-cookie", "a=b"),
            ("x-inner", "yes"),
        ):
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = handle_any

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class LinkServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def link_server(keys: Path, seen: list[Seen]) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.pem", keys / "server.key")
    server = LinkServer(("127.0.0.1", 0), Link)
    server.seen = seen  # type: ignore[attr-defined]
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def front_process(keys: Path, link_port: int, log: Path, **limits: float) -> Iterator[int]:
    port = free_port()
    upstream = f"https://127.0.0.1:{link_port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(keys), upstream, str(port), json.dumps({**LIMITS, **limits})],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        try:
            deadline = time.monotonic() + 15
            while not listens_with_tls("127.0.0.1", port, "front.test", keys / "ca.pem"):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            assert process.wait(10) == 0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("front")
    keys = make_keys(folder / "keys", "front.test", "localhost", "127.0.0.1")
    seen: list[Seen] = []
    with (
        link_server(keys, seen) as link_port,
        front_process(keys, link_port, folder / "log") as front_port,
    ):
        yield World(keys, front_port, link_port, folder / "log", seen)


@pytest.fixture
def world(running: World) -> World:
    running.seen.clear()
    return running


def request(
    target: str, method: str = "POST", host: str = "front.test", headers: str = "", body: bytes = b""
) -> bytes:
    length = f"content-length: {len(body)}\r\n" if "ength" not in headers and "ncoding" not in headers else ""
    head = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n{length}{headers}connection: close\r\n\r\n"
    return head.encode("latin-1") + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


def test_the_paths_are_those_of_flowers_fleet_api_without_registration() -> None:
    from flwr.superlink.routers.fleet.router import router

    theirs = {route.path for route in router.routes}  # type: ignore[attr-defined]
    assert theirs - {f"/v1/fleet/{name}" for name in FLEET} == {
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
    }
    assert {f"/v1/fleet/{name}" for name in FLEET} <= theirs


@pytest.mark.parametrize("name", FLEET)
def test_each_fleet_call_is_passed_on(world: World, name: str) -> None:
    answer = world.ask("POST", f"/v1/fleet/{name}", b"abc")
    assert answer.status == 200 and answer.body == b"cba"  # type: ignore[attr-defined]
    assert [(s.method, s.path, s.body) for s in world.seen] == [("POST", f"/v1/fleet/{name}", b"abc")]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_arrives_unchanged_however_it_is_framed(world: World, is_chunked: bool) -> None:
    data = secrets.token_bytes(1_500_000)
    connection = http.client.HTTPSConnection(
        "localhost", world.front_port, timeout=10,
        context=ssl.create_default_context(cafile=str(world.keys / "ca.pem")),
    )  # fmt: skip
    with contextlib.closing(connection):
        pieces = [data[i : i + 70_000] for i in range(0, len(data), 70_000)]
        if is_chunked:
            connection.request("POST", PULL, iter(pieces), encode_chunked=True)
        else:
            connection.request("POST", PULL, data)
        assert connection.getresponse().read() == data[::-1]
    assert world.seen[0].body == data
    assert ("transfer-encoding" in world.seen[0].headers) is is_chunked


def test_only_listed_headers_pass_in_either_direction(world: World) -> None:
    answer = world.ask(
        "POST", PULL, b"x",
        flwr_public_key="k", flwr_signature="s", flwr_timestamp="t", accept="application/protobuf",
        flwr_task_token="stolen", flwr_superexec_signature="forged", cookie="c=d", authorization="Bearer x",
        x_forwarded_for="10.0.0.1", accept_encoding="gzip", user_agent="me",
    )  # fmt: skip
    assert {name.lower() for name in world.seen[0].headers} == {
        "accept", "content-length", "flwr-public-key", "flwr-signature", "flwr-timestamp", "host",
    }  # fmt: skip
    assert world.seen[0].headers["host"] == f"127.0.0.1:{world.link_port}"
    assert {name.lower() for name, _ in answer.getheaders()} == {"content-type", "content-length"}


@pytest.mark.parametrize(
    "target",
    [
        "/", "/v1", "/v1/fleet", "/v1/fleet/", "/health", "/docs", "/openapi.json", "/metrics",
        "/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/fleet/nothing",
        "/v1/control/list-nodes", "/v1/control/start-run", "/v1/control/register-node",
        "/v1/runtime/acquire-task", "/v1/runtime/pull-task-input", "/v1/responses",
        "/v1/fleet/../control/list-nodes", "/v1/fleet/pull-messages/../../control/list-nodes",
        "/v1/fleet/./pull-messages", "/./v1/fleet/pull-messages", "/v1/control/../fleet/pull-messages",
        "/v1/fleet/%2e%2e/control/list-nodes", "/v1/fleet/..%2fcontrol%2flist-nodes",
        "/v1/fleet%2fpull-messages", "/v1%2Ffleet%2Fpull-messages", "/v1/fleet/pull%2dmessages",
        "/v1/fleet/%70ull-messages", "/v1/fleet/..%252fcontrol", "/v1/fleet/..%c0%afcontrol",
        "//v1/fleet/pull-messages", "/v1//fleet/pull-messages", "/v1/fleet//pull-messages",
        "/v1/fleet/pull-messages/", "/v1/fleet/pull-messages%00", "/v1/fleet/pull-messages%20",
        "/v1/fleet/pull-messages;a=b", "/v1/fleet/pull-messages?a=b", "/v1/fleet/pull-messages#a",
        "/V1/fleet/pull-messages", "/v1/FLEET/pull-messages", "/v1/fleet/PULL-MESSAGES",
        "\\v1\\fleet\\pull-messages", "/v1\\fleet\\pull-messages", "v1/fleet/pull-messages", "*",
        "https://front.test/v1/fleet/pull-messages", "http://127.0.0.1:8000/v1/control/list-nodes",
        "http://front.test@127.0.0.1/v1/fleet/pull-messages", "//127.0.0.1/v1/fleet/pull-messages",
        "front.test:443", "/preflight/bank",
    ],
)  # fmt: skip
def test_no_other_path_is_passed_on_whatever_it_looks_like(world: World, target: str) -> None:
    answer = world.send(request(target, body=b"x"))
    assert status(answer) in (400, 404)
    assert world.seen == []


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post", "POSTS", "PRI"]
)
def test_no_other_method_is_passed_on(world: World, method: str) -> None:
    assert status(world.send(request(PULL, method=method))) in (400, 404)
    assert world.seen == []


@pytest.mark.parametrize(
    "host",
    [
        "evil.test", "127.0.0.1:8000", "front.test.evil.test", "front.test@evil.test", "evil.test#front.test",
        "front.test:443:443", "front.test:x", "front.test/v1", "[front.test]", "", "front.test, evil.test",
        "front.test:999999", "_",
    ],
)  # fmt: skip
def test_a_foreign_host_is_refused(world: World, host: str) -> None:
    assert status(world.send(request(PULL, host=host))) in (400, 421)
    assert world.seen == []


@pytest.mark.parametrize(
    "head",
    [
        "POST {} HTTP/1.1\r\nhost: front.test\r\nhost: front.test\r\ncontent-length: 1\r\n\r\nx",
        "POST {} HTTP/1.1\r\nhost: front.test\r\nhost: evil.test\r\ncontent-length: 1\r\n\r\nx",
        "POST {} HTTP/1.1\r\ncontent-length: 1\r\n\r\nx",
        "POST {} HTTP/1.1\r\nhost: front.test\r\nflwr-public-key: a\r\nflwr-public-key: b\r\n\r\n",
        "POST {} HTTP/1.0\r\ncontent-length: 1\r\n\r\nx",
        "POST {}\r\n\r\n",
        "POST  {} HTTP/1.1\r\nhost: front.test\r\ncontent-length: 1\r\n\r\nx",
        "POST {} HTTP/1.1 HTTP/1.1\r\nhost: front.test\r\ncontent-length: 1\r\n\r\nx",
        "POST {} HTTP/2.0\r\nhost: front.test\r\ncontent-length: 1\r\n\r\nx",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_a_malformed_head_is_refused(world: World, head: str) -> None:
    assert status(world.send(head.format(PULL).encode("latin-1"))) in (0, 400)
    assert world.seen == []


INNER = b"POST /v1/control/list-nodes HTTP/1.1\r\nhost: front.test\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 0\r\ncontent-length: 90\r\n",
        "content-length: 0, 90\r\n",
        "content-length: +5\r\n",
        "content-length: -1\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5 5\r\n",
        "content-length: 1_0\r\n",
        "content-length : 5\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: identity, chunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: x\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding:\x0bchunked\r\n",
        "x: y\n transfer-encoding: chunked\r\ncontent-length: 0\r\ntransfer-encoding\x00: chunked\r\n",
    ],
)
def test_a_body_that_could_be_read_in_two_ways_is_refused(world: World, framing: str) -> None:
    answer = world.send(request(PULL, headers=framing, body=b"0\r\n\r\n" + INNER))
    assert status(answer) in (400, 413)
    assert answer.count(b"HTTP/1.1 ") == 1  # what followed was not taken for a request
    assert world.seen == []


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nx\r\n0\r\n\r\n",
        b"-1\r\nx\r\n0\r\n\r\n",
        b"1\r\nxx\r\n0\r\n\r\n",
        b"ffffffffffffffffffffffff\r\nx",
        b"1" * 5000,
        b"1 1\r\nx\r\n0\r\n\r\n",
    ],
)
def test_malformed_chunks_never_complete_a_request(world: World, chunks: bytes) -> None:
    answer = world.send(request(PULL, headers="transfer-encoding: chunked\r\n", body=chunks))
    assert status(answer) != 200
    assert world.seen == []


def test_requests_behind_each_other_are_each_checked(world: World) -> None:
    good = f"POST {PULL} HTTP/1.1\r\nhost: front.test\r\ncontent-length: 3\r\n\r\nabc".encode()
    answer = world.send(good + INNER + good)
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 404]
    assert [s.path for s in world.seen] == [PULL]


def test_an_upgrade_is_not_negotiated(world: World) -> None:
    for wish in ("websocket", "h2c"):
        head = f"connection: upgrade\r\nupgrade: {wish}\r\ncontent-length: 0\r\n"
        assert status(world.send(request(PULL, headers=head))) != 101
        assert status(world.send(request("/v1/control/list-nodes", headers=head))) == 404
    assert all("upgrade" not in {n.lower() for n in s.headers} and s.path == PULL for s in world.seen)


@pytest.mark.parametrize("framing", ["content-length: 2097153\r\n", "transfer-encoding: chunked\r\n"])
def test_a_body_over_the_limit_is_refused_and_does_not_arrive(world: World, framing: str) -> None:
    size = (2 << 20) + 1
    body = b"x" * size if "length" in framing else b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
    with world.open() as link:
        with contextlib.suppress(OSError):
            link.sendall(request(PULL, headers=framing) + (b"" if "length" in framing else body))
        found = b""
        with contextlib.suppress(OSError):
            found = link.recv(4096)
    assert status(found) in (0, 413)  # 0: cut while it was still being sent
    deadline = time.monotonic() + 5
    while b" 413 " not in world.log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b" 413 " in world.log.read_bytes()
    assert world.seen == []


def test_a_large_head_is_refused(world: World) -> None:
    assert status(world.send(request(PULL, headers="x: " + "y" * 40_000 + "\r\n"))) in (0, 400, 431)
    assert world.seen == []


def test_tls_below_1_3_is_refused(world: World) -> None:
    with pytest.raises(ssl.SSLError):
        world.open(ssl.TLSVersion.TLSv1_2)
    with world.open() as link:
        assert link.version() == "TLSv1.3"


@pytest.mark.parametrize("begin", [b"", b"POST ", b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: "])
def test_a_caller_that_does_not_go_on_is_cut_off(world: World, begin: bytes) -> None:
    before = time.monotonic()
    assert world.send(begin) == b""
    assert 1 < time.monotonic() - before < 5


def test_a_second_slow_head_on_one_connection_is_cut_off_too(world: World) -> None:
    good = f"POST {PULL} HTTP/1.1\r\nhost: front.test\r\ncontent-length: 3\r\n\r\nabc".encode()
    before = time.monotonic()
    assert world.send(good + b"POST /").count(b"HTTP/1.1 200") == 1
    assert time.monotonic() - before < 5


def test_a_body_that_stops_does_not_hold_the_front_for_ever(world: World) -> None:
    before = time.monotonic()
    found = world.send(request(PULL, headers="content-length: 9\r\n", body=b"abc"))
    assert status(found) == 504 and time.monotonic() - before < 6
    assert world.seen == []


def test_one_address_cannot_take_all_connections(world: World) -> None:
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(world.open()) for _ in range(9)]
        refused = 0
        for link in links:
            with contextlib.suppress(OSError):
                link.sendall(request(PULL, body=b"a"))
                refused += status(link.recv(4096)) == 0
                continue
            refused += 1
        assert refused == 1
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if world.ask("POST", PULL).status == 200:
                return
    pytest.fail("the connections were not given back")


def test_a_preflight_tells_releases_time_and_who_is_registered(world: World) -> None:
    answer = world.ask("GET", "/preflight/bank")
    facts = json.loads(answer.body)  # type: ignore[attr-defined]
    moment = datetime.fromisoformat(facts.pop("time"))
    assert facts == {"fedmkt": "1.2.3", "flwr": "4.5.6", "registered": True}
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 5
    assert parsedate_to_datetime(answer.getheader("date", "")) == moment
    assert not json.loads(world.ask("GET", "/preflight/stranger").body)["registered"]  # type: ignore[attr-defined]
    for path in (
        "/preflight/",
        "/preflight/Bank",
        "/preflight/../bank",
        "/preflight/bank/",
        "/preflight/bank?a",
    ):
        assert world.ask("GET", path).status == 404
    assert world.seen == []


def test_a_curious_caller_is_slowed_down(world: World) -> None:
    found = [world.ask("GET", f"/preflight/name{i}").status for i in range(12)]
    assert 429 in found and set(found) <= {200, 429}
    assert world.ask("POST", PULL).status == 200


def test_the_log_names_address_path_and_sizes_but_no_content(world: World) -> None:
    world.ask("POST", PULL, b"private body", flwr_signature="private-signature")
    world.ask("POST", "/v1/fleet/\x7fnothing".replace("\x7f", "%0a"))
    deadline = time.monotonic() + 5
    while "%0a" not in (text := world.log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert f"127.0.0.1 POST '{PULL}' 200 in 12 out 12" in text
    assert "private" not in text and "ydob" not in text
    assert "POST '/v1/fleet/%0anothing' 404 in 0 out 0" in text


def test_a_superlink_that_is_gone_or_false_gives_502(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "ours", "front.test", "localhost", "127.0.0.1")
    false = make_keys(tmp_path / "false", "127.0.0.1")
    seen: list[Seen] = []
    with link_server(false, seen) as port, front_process(keys, port, tmp_path / "log") as front_port:
        world = World(keys, front_port, port, tmp_path / "log")
        assert world.ask("POST", PULL, b"secret").status == 502
        assert not answers_health_with_tls(port, keys / "ca.pem")
        assert answers_health_with_tls(port, false / "ca.pem")
    with front_process(keys, free_port(), tmp_path / "log") as front_port:
        assert World(keys, front_port, 0, tmp_path / "log").ask("POST", PULL).status == 502
    assert seen == []
