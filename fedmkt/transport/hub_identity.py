"""Who is at the other end of a hub's stream, by TLS and the registry: for the hub and for its clients.

The signature by the identity key comes after this, in the session's first frames.
"""

import contextlib
import os
import socket
import ssl
from dataclasses import dataclass, field

# gRPC for Python has no option for the lowest version of TLS and takes 1.2 if a client insists. This leaves 1.2 with
# a suite that needs an RSA key: with our EC keys 1.3 is all that is left. It does not concern the suites of 1.3.
os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384")

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fedmkt.config.settings import ANY_ADDRESS
from fedmkt.errors import ConfigError, PeerError

TLS13_ONLY = ("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384")
"""Variable and value for the environment of a process that runs a hub, if it imports gRPC before this module."""
_TLS_HANDSHAKE = b"\x16"
_ANSWER_SECONDS = 5.0
_Code = grpc.StatusCode
_ORDINARY = (_Code.OK, _Code.UNAVAILABLE, _Code.NOT_FOUND, _Code.CANCELLED, _Code.ABORTED)


@dataclass(frozen=True)
class Admitted:
    """What the registry says about one participant, the coordinator among them.

    identity : the Ed25519 public key. serial : of the one certificate that it may show.
    """

    name: str
    identity: bytes
    serial: int
    revoked: bool = False


@dataclass(frozen=True)
class ServerTls:
    """PEM of the hub's key and certificate, and of the CA that signs the clients' certificates."""

    key: bytes = field(repr=False)
    certificate: bytes
    ca: bytes


@dataclass(frozen=True)
class ClientTls:
    """PEM of a participant: its key, its certificate, the coordinator's CA.

    hub : PEM of the hub's certificate if it was pinned; without it any certificate that the CA signed for the
    hub's address counts as the hub's.
    """

    key: bytes = field(repr=False)
    certificate: bytes
    ca: bytes
    hub: bytes | None = None


class Refused(Exception):
    """A stream ends with this status and text; one that is ordinary is no reason to warn."""

    def __init__(self, code: grpc.StatusCode, text: str, is_ordinary: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.is_ordinary = is_ordinary or code in _ORDINARY


def check_admitted(admitted: Admitted | None, name: str, serial: int) -> Admitted:
    """Refuse whoever is not admitted, was revoked, or shows a certificate that is not in force."""
    if admitted is None or admitted.name != name:
        raise Refused(_Code.UNAUTHENTICATED, "is not admitted")
    if admitted.revoked:
        raise Refused(_Code.UNAUTHENTICATED, "was revoked")
    if admitted.serial != serial:
        raise Refused(_Code.UNAUTHENTICATED, "shows another certificate than the admitted one")
    return admitted


def read_certificate(context: grpc.ServicerContext) -> tuple[str, int]:
    """Return name and serial of the client's certificate, which TLS has checked against the CA."""
    try:
        (pem,) = context.auth_context()["x509_pem_cert"]
        certificate = x509.load_pem_x509_certificate(pem)
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value), certificate.serial_number
    except (KeyError, ValueError):
        raise Refused(_Code.UNAUTHENTICATED, "shows no certificate with a name") from None


def takes_tls12(host: str, port: int) -> bool:
    """Say whether a server answers a TLS 1.2 greeting with anything but a refusal."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is told or believed: only the first answer is looked at
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    local = {"": "127.0.0.1", ANY_ADDRESS: "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    try:
        with socket.create_connection((local, port), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(outgoing.read())
            return connection.recv(1) == _TLS_HANDSHAKE
    except OSError:
        return False


def der_of(pem: bytes) -> bytes:
    """Return the DER of the hub's certificate; ConfigError for another text."""
    try:
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    except ValueError:
        raise ConfigError("the hub's certificate is not PEM of a certificate") from None


def check_issued(certificate: bytes, ca: bytes, address: str) -> None:
    """Refuse a hub whose certificate (DER) our coordinator's CA (PEM) did not issue."""
    try:
        own = x509.load_der_x509_certificate(certificate)
        roots = x509.load_pem_x509_certificates(ca)
    except ValueError:
        raise PeerError(f"hub at {address}: sent no certificate") from None
    for root in roots:
        with contextlib.suppress(ValueError, TypeError, InvalidSignature):
            own.verify_directly_issued_by(root)
            return
    raise PeerError(f"hub at {address}: its certificate is not of our coordinator's CA")
