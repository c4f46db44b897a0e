"""Is it alive: a health endpoint on loopback, the questions to it, and probes of TLS listeners."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from fedmkt.errors import ConfigError

LOOPBACK = "127.0.0.1"
STALE_SECONDS = 15.0
_PROBE_SECONDS = 0.8
_CALLER_SECONDS = 4.0
_LARGEST_REPORT = 1 << 20


class _Server(HTTPServer):
    # One caller after the other, each for a few seconds at most: there is nothing here to wait for.
    report: Callable[[], Mapping[str, object]]

    def finish_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Serve one caller; one that sends a byte now and then must not keep the others, or our end, waiting."""
        timer = threading.Timer(_CALLER_SECONDS, _hang_up, (request,))
        timer.daemon = True
        timer.start()
        try:
            super().finish_request(request, client_address)
        finally:
            timer.cancel()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a caller that hangs up is no news."""


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    timeout = 2.0
    server: _Server
    server_version, sys_version = "fedmkt", ""

    def do_GET(self) -> None:
        """Answer /health: 200 when everything runs, else 503."""
        if self.path != "/health":
            self.send_error(404)
            return
        report = self.server.report()
        body = json.dumps(report, ensure_ascii=False).encode()
        self.send_response(200 if is_healthy(report, datetime.now(UTC)) else 503)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep no log: a monitor asks every few seconds."""


class HealthServer:
    """Answers GET /health on loopback with what `report` returns; port 0 for any free one."""

    def __init__(self, port: int, report: Callable[[], Mapping[str, object]]) -> None:
        try:
            self._server = _Server((LOOPBACK, port), _Handler)
        except OSError:
            hint = "another program listens there; change health_port"
            raise ConfigError(f"health_port {port}: cannot listen on {LOOPBACK}", hint) from None
        self._server.report = report
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


def is_healthy(report: Mapping[str, object], now: datetime) -> bool:
    """Say whether a report says that everything runs, and is not an old one."""
    return report.get("state") == "healthy" and age_of(report, now) < STALE_SECONDS


def age_of(report: Mapping[str, object], now: datetime) -> float:
    """Return the seconds since the report's heartbeat; infinity if it has none."""
    try:
        beat = datetime.fromisoformat(str(report.get("heartbeat")))
    except ValueError:
        return float("inf")
    return (now - beat).total_seconds() if beat.tzinfo else float("inf")


def ask_health(port: int, timeout: float = 2.0) -> dict[str, object] | None:
    """Ask the health endpoint of this machine; None if nobody answers sensibly."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout)
    try:
        connection.request("GET", "/health")
        report = json.loads(connection.getresponse().read(_LARGEST_REPORT))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return report if isinstance(report, dict) else None


def listens_with_tls(host: str, port: int, name: str, authority: Path) -> bool:
    """Say whether somebody listens who shows a certificate of `authority` for `name`."""
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with (
            socket.create_connection((host, port), timeout=_PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=name),
        ):
            return True
    except OSError:
        return False


def answers_health_with_tls(port: int, authority: Path) -> bool:
    """Say whether a server of this machine, with a certificate of `authority`, answers /health with 200."""
    try:
        context = ssl.create_default_context(cafile=str(authority))
        connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=_PROBE_SECONDS, context=context)
    except OSError:
        return False
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
