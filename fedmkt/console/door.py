"""What every request passes before a page is asked for, and every answer on its way out.

The console is reached by this machine's own address only. Names that somebody else's server gave this address (DNS
rebinding), forms of other sites, bodies that are too long or too slow are turned away here, in one line and unread.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK: Final = "127.0.0.1"
PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
DOCUMENT_POLICY: Final = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
"""Of reports and evidence, which bring their own style and drawings: no script, no form, an origin of their own."""
HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "content-security-policy": PAGE_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",  # "no-referrer" would hide our own origin from us too
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class DoorLimits:
    """What one request may take: bytes, and seconds until its body is here and until it is answered."""

    head_bytes: int = 16 << 10
    body_bytes: int = 64 << 10
    body_seconds: float = 10.0
    answer_seconds: float = 120.0


class _Refused(Exception):
    """The request is answered with this status and one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


class Door:
    """The outermost application. port : as soon as it is known, on which we are reached."""

    def __init__(self, inside: ASGIApp, port: Callable[[], int], limits: DoorLimits | None = None) -> None:
        self._inside = inside
        self._port = port
        self._limits = limits or DoorLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        is_begun = False

        async def guarded(message: Message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                message["headers"] = _with_headers(message.get("headers", ()))
            await send(message)

        try:
            self._check(scope)
            body = await self._body(scope, receive)
            async with asyncio.timeout(self._limits.answer_seconds):
                await self._inside(scope, _replay(body, receive), guarded)
        except _Refused as refused:
            await _answer(guarded, refused.status, str(refused))
        except TimeoutError:
            if not is_begun:
                await _answer(guarded, 503, "this takes too long: use the command line")

    def _check(self, scope: Scope) -> None:
        # h11 only limits a head that comes in pieces.
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._limits.head_bytes:
            raise _Refused(431, "too long")
        if _values(scope, b"transfer-encoding"):  # no browser sends it: two lengths could be read in two ways
            raise _Refused(411, "a body without its length")
        port = self._port()
        names = {f"{LOOPBACK}:{port}", f"localhost:{port}"}
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or hosts[0] not in names:
            raise _Refused(421, "this console has another address")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise _Refused(405, "not a method of this console")
        if scope["method"] == "POST" and _values(scope, b"origin") != [f"http://{hosts[0]}"]:
            raise _Refused(403, "a form of another site")
        # Another port of this address is another site too, and its pages' requests come with our cookies.
        if any(site not in ("same-origin", "none") for site in _values(scope, b"sec-fetch-site")):
            raise _Refused(403, "asked for by another site: type the address")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        lengths = _values(scope, b"content-length")
        if any(not length.isdigit() or int(length) > self._limits.body_bytes for length in lengths):
            raise _Refused(413, "too long")
        data = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Refused(400, "not a whole request")
                    data += message.get("body", b"")
                    if len(data) > self._limits.body_bytes:
                        raise _Refused(413, "too long")
                    if not message.get("more_body"):
                        return bytes(data)
        except TimeoutError:
            raise _Refused(408, "too slow") from None


def _values(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read to whoever reads it next."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


def _with_headers(given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Add what every answer says, unless it says it otherwise itself."""
    headers = list(given)
    own = {name.lower() for name, _ in headers}
    return headers + [
        (name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in own
    ]


async def _answer(send: Send, status: int, line: str) -> None:
    body = f"{line}\n".encode()
    # What is left of a refused request is not read: nothing after it on this connection can be trusted.
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
