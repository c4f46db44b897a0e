"""The coordinator's front: the one way from the parties to SuperLink, over TLS 1.3, for Flower's fleet API only.

SuperLink serves its control and runtime APIs, which have no authentication of their own, on the same port as the
fleet API. So it listens on loopback, and this front passes on POST requests to the paths in `FLEET`, compared byte
for byte, and nothing else: what is not in a list here is not passed on. Every request is framed anew, so how a
caller framed its own does not reach SuperLink. The body is streamed, never kept.

Against callers without a certificate of ours, who may send anything: limits for bodies, heads, connections and time.
"""

import asyncio
import json
import logging
import os
import re
import signal
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import h11
import httpx
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_LOGGER = logging.getLogger("fedmkt.front")

FLEET = (
    "activate-node",
    "confirm-message-received",
    "deactivate-node",
    "get-fab",
    "get-run",
    "pull-messages",
    "pull-object",
    "push-messages",
    "push-object",
    "send-node-heartbeat",
)
"""What a registered node needs. Nodes are registered by the operator: `register-node` and its opposite are not here."""

_PASSED_ON = {
    b"accept",
    b"content-type",
    b"flwr-component-name",
    b"flwr-package-name",
    b"flwr-package-version",
    b"flwr-public-key",
    b"flwr-signature",
    b"flwr-timestamp",
}
_PASSED_BACK = {b"content-type", b"content-length", b"flwr-version-incompatibility-message"}
_PATHS = {f"/v1/fleet/{name}".encode(): f"/v1/fleet/{name}" for name in FLEET}
_PREFLIGHT = re.compile(rb"/preflight/([a-z][a-z0-9-]{0,30})")
_PATH_SHOWN = 80
_STRANGERS_BYTES = 64 << 10


@dataclass(frozen=True)
class FrontLimits:
    """What one caller can take. Sizes in bytes, times in seconds.

    head_seconds : for a whole request head, counted from its first byte or from the connection. exchange_seconds :
    for one request and its answer. questions : preflight requests of one address at once, one more every second.
    """

    body_bytes: int = 64 << 20
    head_bytes: int = 16 << 10
    head_seconds: float = 10.0
    pause_seconds: float = 30.0
    exchange_seconds: float = 120.0
    idle_seconds: float = 30.0
    connections: int = 512
    connections_per_address: int = 64
    questions: int = 20


@dataclass(frozen=True)
class FrontFacts:
    """What a preflight is told: the releases here, and whether a name is admitted.

    is_node : whether a header `flwr-public-key` names a node that may take part; empty if there is none.
    """

    fedmkt: str
    flwr: str
    is_registered: Callable[[str], bool]
    is_node: Callable[[bytes], bool] = lambda key: True


class _Refused(Exception):
    """The request is answered with this status and nothing else."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class _Gone(Exception):
    """The caller hung up."""


@dataclass
class _Exchange:
    """One request as far as it came; for the log."""

    status: int = 0
    received: int = 0
    sent: int = 0
    is_started: bool = False


class Front:
    """The ASGI application. `upstream` is SuperLink's https origin on loopback; `hosts` are our own names."""

    def __init__(
        self,
        upstream: str,
        authority: Path,
        hosts: Iterable[str],
        facts: FrontFacts,
        limits: FrontLimits | None = None,
    ) -> None:
        self._upstream = upstream
        self._hosts = {host.lower().strip("[]").encode() for host in hosts}
        self._facts = facts
        self._limits = limits or FrontLimits()
        context = ssl.create_default_context(cafile=str(authority))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        timeout = httpx.Timeout(self._limits.pause_seconds, connect=5.0)
        pool = httpx.Limits(max_connections=128, max_keepalive_connections=32)
        self._client = httpx.AsyncClient(verify=context, timeout=timeout, limits=pool, trust_env=False)
        self._questions = _Rate(self._limits.questions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; nothing of its content reaches the log."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        exchange = _Exchange()
        try:
            await self._serve(scope, receive, send, exchange)
        except _Gone:
            exchange.status = exchange.status or 499
        except _Refused as refused:
            await _answer(send, exchange, refused.status)
        finally:
            _log(scope, exchange)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._client.aclose()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send, exchange: _Exchange) -> None:
        if scope["type"] != "http" or scope["http_version"] != "1.1":
            raise _Refused(400)
        headers = scope["headers"]
        # h11 only limits a head that comes in pieces.
        if sum(len(name) + len(value) for name, value in headers) > self._limits.head_bytes:
            raise _Refused(431)
        length = _check_framing(headers)
        self._check_host(headers)
        # The path as it came: one that only becomes ours by decoding or tidying is another path.
        path, query = scope["raw_path"], scope["query_string"]
        if query:
            raise _Refused(404)
        if scope["method"] == "POST" and path in _PATHS:
            if length is not None and length > self._longest(headers):
                raise _Refused(413)
            await self._pass_on(_PATHS[path], headers, length, receive, send, exchange)
            return
        asked = _PREFLIGHT.fullmatch(path)
        if scope["method"] != "GET" or asked is None or length:
            raise _Refused(404)
        await self._tell(asked[1].decode(), scope, send, exchange)

    def _check_host(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1:
            raise _Refused(400)
        found = re.fullmatch(rb"(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z.-]+)(:[0-9]{1,5})?", hosts[0])
        if found is None or found[1].strip(b"[]").lower() not in self._hosts:
            raise _Refused(421)

    async def _tell(self, name: str, scope: Scope, send: Send, exchange: _Exchange) -> None:
        if not self._questions.allows(_address(scope)):
            raise _Refused(429)
        now = datetime.now(UTC)
        facts = {
            "fedmkt": self._facts.fedmkt,
            "flwr": self._facts.flwr,
            "registered": self._facts.is_registered(name),
            "time": now.isoformat(timespec="seconds"),
        }
        head = [(b"content-type", b"application/json"), (b"date", format_datetime(now, usegmt=True).encode())]
        await _answer(send, exchange, 200, json.dumps(facts).encode(), head)

    async def _pass_on(
        self,
        path: str,
        headers: Iterable[tuple[bytes, bytes]],
        length: int | None,
        receive: Receive,
        send: Send,
        exchange: _Exchange,
    ) -> None:
        passed = [(name, value) for name, value in headers if name in _PASSED_ON]
        if len({name for name, _ in passed}) != len(passed):
            raise _Refused(400)
        if length is not None:
            passed.append((b"content-length", b"%d" % length))
        passed.append((b"host", self._upstream.partition("://")[2].encode()))
        body = self._body(receive, exchange, self._longest(headers))
        request = httpx.Request("POST", f"{self._upstream}{path}", headers=passed, content=body)
        try:
            async with asyncio.timeout(self._limits.exchange_seconds):
                answer = await self._client.send(request, stream=True)
                try:
                    await self._pass_back(answer, send, exchange)
                finally:
                    await answer.aclose()
        except (httpx.TimeoutException, TimeoutError):
            self._give_up(504, exchange)
        except (httpx.HTTPError, OSError):
            self._give_up(502, exchange)

    def _give_up(self, status: int, exchange: _Exchange) -> None:
        if exchange.is_started:  # half an answer is out: hang up, so that nobody takes it for a whole one
            raise _Gone
        raise _Refused(status)

    async def _pass_back(self, answer: httpx.Response, send: Send, exchange: _Exchange) -> None:
        head = [(n.lower(), v) for n, v in answer.headers.raw if n.lower() in _PASSED_BACK]
        exchange.status, exchange.is_started = answer.status_code, True
        await send({"type": "http.response.start", "status": answer.status_code, "headers": head})
        async for chunk in answer.aiter_raw(1 << 16):
            exchange.sent += len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _longest(self, headers: Iterable[tuple[bytes, bytes]]) -> int:
        """Say how long a body may be: SuperLink reads all of it before it looks whose it is."""
        keys = [value for name, value in headers if name == b"flwr-public-key"]
        is_node = self._facts.is_node(keys[0] if len(keys) == 1 else b"")
        return self._limits.body_bytes if is_node else min(_STRANGERS_BYTES, self._limits.body_bytes)

    async def _body(self, receive: Receive, exchange: _Exchange, longest: int) -> AsyncIterator[bytes]:
        while True:
            async with asyncio.timeout(self._limits.pause_seconds):
                message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            chunk = message.get("body", b"")
            exchange.received += len(chunk)
            if exchange.received > longest:
                raise _Refused(413)
            if chunk:
                yield chunk
            if not message.get("more_body"):
                return


def _check_framing(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the declared length, None for a chunked body; a request that could be read in two ways is refused."""
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (lengths or codings != [b"chunked"]):
        raise _Refused(400)
    if len(lengths) > 1 or any(not re.fullmatch(rb"[0-9]{1,15}", value) for value in lengths):
        raise _Refused(400)
    return None if codings else int(lengths[0]) if lengths else 0


async def _answer(
    send: Send,
    exchange: _Exchange,
    status: int,
    body: bytes = b"",
    head: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    if exchange.is_started:
        return
    exchange.status, exchange.sent, exchange.is_started = status, len(body), True
    # The rest of a refused request is not read, so nothing after it on this connection can be trusted.
    headers = [*head, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "?"


def _log(scope: Scope, exchange: _Exchange) -> None:
    if scope["type"] != "http":
        return
    method, path = scope["method"][:10], scope["raw_path"].decode("latin-1")
    shown = path if len(path) <= _PATH_SHOWN else f"{path[:_PATH_SHOWN]}..."
    _LOGGER.info(
        "%s %s %r %d in %d out %d",
        _address(scope),
        method,
        shown,
        exchange.status,
        exchange.received,
        exchange.sent,
    )


class _Rate:
    """So many at once for each address, and one more every second."""

    def __init__(self, burst: int) -> None:
        self._burst = burst
        self._seen: dict[str, tuple[float, float]] = {}

    def allows(self, address: str) -> bool:
        now = time.monotonic()
        if len(self._seen) > 10_000:
            self._seen.clear()
        left, at = self._seen.get(address, (float(self._burst), now))
        left = min(float(self._burst), left + now - at)
        self._seen[address] = (left - 1 if left >= 1 else left, now)
        return left >= 1


def guarded(limits: FrontLimits) -> type[H11Protocol]:
    """Make uvicorn's protocol with a deadline for request heads and a limit of connections for each address."""
    counts: Counter[str] = Counter()

    class Guarded(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _counted: str | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            address = self.client[0] if self.client else "?"
            if counts[address] >= limits.connections_per_address:
                _LOGGER.warning("%s: too many connections", address)
                transport.abort()
                return
            counts[address] += 1
            self._counted = address
            self._set_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._drop_timer()
            if self._counted is not None:
                counts[self._counted] -= 1
                if not counts[self._counted]:
                    del counts[self._counted]
                self._counted = None
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._counted is None:
                return
            super().data_received(data)
            # uvicorn's own timer stops at the first byte of a next request: a slow head would stay for ever.
            if self.conn.their_state is not h11.IDLE:
                self._drop_timer()
            elif self._timer is None:
                self._set_timer()

        def _set_timer(self) -> None:
            self._timer = self.loop.call_later(limits.head_seconds, self._too_slow)

        def _drop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            if not self.transport.is_closing():
                _LOGGER.info("%s: no request within %g s", self._counted, limits.head_seconds)
                self.transport.abort()

    return Guarded


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Make the TLS of the front: 1.3 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def serve_front(
    front: Front,
    host: str,
    port: int,
    certificate: Path,
    key: Path,
    limits: FrontLimits | None = None,
) -> None:
    """Serve on the public port until SIGTERM or SIGINT."""
    limits = limits or FrontLimits()
    context = server_context(certificate, key)
    config = uvicorn.Config(
        front,
        host=host,
        port=port,
        loop="asyncio",
        http=guarded(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=limits.connections,
        backlog=256,
        timeout_keep_alive=int(limits.idle_seconds),
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=limits.head_bytes,
        ssl_context_factory=lambda config, default: context,
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    # uvicorn handles a signal and then sends it to itself again, to end as by that signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: os._exit(0))
    uvicorn.Server(config).run()
