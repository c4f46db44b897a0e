"""Probes with which a preflight looks at the way to a server: the name and port, then TLS and a page.

Nothing private is sent, and what comes back is bounded in size and time.
"""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedmkt.errors import TransportError

TIMEOUT = 5.0  # seconds, for a whole probe
LARGEST_ANSWER = 64 << 10


@dataclass(frozen=True)
class Answer:
    """What a server said to one request.

    certificate : the server's, PEM. status : HTTP's, 0 if it said nothing. date : its `Date` header.
    """

    certificate: bytes
    status: int
    date: str
    body: bytes


def resolve(host: str, port: int) -> tuple[str, ...]:
    """Look a name up; TransportError if it has no address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise TransportError(f"{host} has no address") from None
    return tuple(dict.fromkeys(str(address[4][0]) for address in found))


def reach(host: str, port: int, timeout: float = TIMEOUT) -> None:
    """Open a connection and close it; TransportError if nobody listens or nobody answers."""
    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except ConnectionRefusedError:
        raise TransportError(f"{host}:{port} refuses: nothing listens there") from None
    except TimeoutError:
        raise TransportError(f"{host}:{port} does not answer within {timeout:.0f} s") from None
    except OSError as error:
        raise TransportError(f"{host}:{port} cannot be reached: {error.strerror or error}") from None


def greet(host: str, port: int, authority: Path, timeout: float = TIMEOUT) -> bytes:
    """Shake hands over TLS 1.3 and hang up; returns the server's certificate (PEM), TransportError as `ask`."""
    with _linked(host, port, authority, timeout) as link:
        return _certificate(link)


def ask(host: str, port: int, authority: Path, path: str, timeout: float = TIMEOUT) -> Answer:
    """Fetch one page over TLS 1.3, trusting one authority only; TransportError says which check failed."""
    deadline = time.monotonic() + timeout
    with _linked(host, port, authority, timeout) as link:
        return _converse(link, host, path, deadline)


@contextmanager
def _linked(host: str, port: int, authority: Path, timeout: float) -> Iterator[ssl.SSLSocket]:
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(authority)
        with (
            socket.create_connection((host, port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=host) as link,
        ):
            yield link
    except ssl.SSLCertVerificationError as error:
        raise TransportError(f"{host}:{port}: {_reason(error, host)}") from None
    except ssl.SSLError as error:
        reason = (error.reason or "no TLS").lower().replace("_", " ")
        raise TransportError(f"{host}:{port} does not speak our TLS: {reason}") from None
    except TimeoutError:
        raise TransportError(f"{host}:{port} does not answer within {timeout:.0f} s") from None
    except OSError as error:
        raise TransportError(f"{host}:{port} cannot be reached: {error.strerror or error}") from None


def _certificate(link: ssl.SSLSocket) -> bytes:
    return ssl.DER_cert_to_PEM_cert(link.getpeercert(binary_form=True) or b"").encode()


def _reason(error: ssl.SSLCertVerificationError, host: str) -> str:
    known = {
        9: "the certificate is not valid yet",
        10: "the certificate has expired",
        62: f"the certificate is not for the name {host}",
        64: f"the certificate is not for the address {host}",
    }
    return known.get(error.verify_code, "the certificate is not from our coordinator's authority")


def _converse(link: ssl.SSLSocket, host: str, path: str, deadline: float) -> Answer:
    certificate = _certificate(link)  # now: it is gone when the other side has closed
    name = f"[{host}]" if ":" in host else host
    request = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    link.sendall(request.encode("ascii"))
    data = _read(link, deadline)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    words = first.split(" ")
    status = int(words[1]) if words[0].startswith("HTTP/1.") and words[1:] and words[1].isdecimal() else 0
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunked(body)
    return Answer(certificate, status, headers.get("date", ""), body)


def _read(link: ssl.SSLSocket, deadline: float) -> bytes:
    """Read until the other side closes, our limit or the deadline, whichever is first."""
    data = b""
    while len(data) < LARGEST_ANSWER:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        link.settimeout(left)
        try:
            block = link.recv(LARGEST_ANSWER - len(data))
        except (ConnectionError, ssl.SSLError):
            break
        if not block:
            break
        data += block
    return data


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        try:
            count = int(size.split(b";")[0], 16)
        except ValueError:
            return whole
        if count <= 0:
            return whole
        whole, body = whole + rest[:count], rest[count + 2 :]
    return whole
