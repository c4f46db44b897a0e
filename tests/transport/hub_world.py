"""A small world for tests of the hub: a CA, certificates and identities made on the spot, and a hub on loopback."""

import ipaddress
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedmkt.crypto.sign import Identity
from fedmkt.transport.hub_identity import Admitted, ClientTls, ServerTls
from fedmkt.transport.hub_server import Hub, HubLimits
from fedmkt.transport.hub_session import HubSession, SessionLimits

COORDINATOR = "coordinator"
QUICK = HubLimits(heartbeat_seconds=0.2, handshake_seconds=1.0, idle_seconds=3.0)
IMPATIENT = SessionLimits(gone_seconds=4.0, send_seconds=4.0)


@dataclass(frozen=True)
class Issued:
    """A key and its certificate, both PEM, and the certificate's serial."""

    key: bytes
    certificate: bytes
    serial: int


class Authority:
    """A CA that lives as long as a test."""

    def __init__(self, name: str = "test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, 0), True)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        self._certificate = builder.add_extension(usage, True).sign(self._key, SHA256())
        self.certificate = self._certificate.public_bytes(Encoding.PEM)

    def client(self, name: str) -> Issued:
        """Issue a certificate for a participant."""
        return self._issue(name, [x509.DNSName(name)], ExtendedKeyUsageOID.CLIENT_AUTH)

    def server(self, *hosts: str) -> Issued:
        """Issue a certificate for a server at localhost and 127.0.0.1, and other names."""
        loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        names = [x509.DNSName("localhost"), loopback, *map(x509.DNSName, hosts)]
        return self._issue("hub", names, ExtendedKeyUsageOID.SERVER_AUTH)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(identifier, False)
            .add_extension(issuer, False)
        )

    def _issue(self, name: str, alternatives: list[x509.GeneralName], usage: x509.ObjectIdentifier) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, key)
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(x509.SubjectAlternativeName(alternatives), False)
            .add_extension(x509.ExtendedKeyUsage([usage]), False)
            .sign(self._key, SHA256())
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Issued(pem, certificate.public_bytes(Encoding.PEM), certificate.serial_number)


@dataclass
class HubWorld:
    """A hub with admitted participants, and sessions to it; everything that it started ends with it."""

    names: tuple[str, ...] = ("bank", "partner")
    limits: HubLimits = QUICK
    port: int = 0
    authority: Authority = field(default_factory=Authority)
    sessions: list[HubSession] = field(default_factory=list)

    def __post_init__(self) -> None:
        everyone = (COORDINATOR, *self.names)
        self.identities = {n: Identity.generate(secrets.token_bytes) for n in everyone}
        self.issued = {n: self.authority.client(n) for n in everyone}
        self.admitted = {n: Admitted(n, self.identities[n].public, self.issued[n].serial) for n in everyone}
        self.server = self.authority.server()
        self.hub = self._hub()
        self.port = self.hub.start()
        self.session_id = secrets.token_bytes(16)

    def _hub(self) -> Hub:
        tls = ServerTls(self.server.key, self.server.certificate, self.authority.certificate)
        return Hub(lambda: dict(self.admitted), tls, f"127.0.0.1:{self.port}", COORDINATOR, self.limits)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def restart_hub(self, pause: float = 0.1) -> None:
        """Stop the hub and start another one in its place, which knows nothing of the first."""
        self.hub.stop()
        time.sleep(pause)
        self.hub = self._hub()
        self.hub.start()

    def revoke(self, name: str) -> None:
        self.admitted[name] = replace(self.admitted[name], revoked=True)

    def tls(self, name: str) -> ClientTls:
        return ClientTls(self.issued[name].key, self.issued[name].certificate, self.authority.certificate)

    def session(
        self,
        name: str,
        session_id: bytes | None = None,
        members: tuple[str, ...] | None = None,
        address: str | None = None,
        limits: SessionLimits = IMPATIENT,
        identity: Identity | None = None,
        tls: ClientTls | None = None,
    ) -> HubSession:
        """Open a session as the coordinator, or join one as anybody else."""
        if members is None:
            members = self.names if name == COORDINATOR else ()
        session = HubSession(
            address or self.address,
            tls or self.tls(name),
            identity or self.identities[name],
            session_id or self.session_id,
            name,
            members,
            limits,
        )
        self.sessions.append(session)
        return session

    def all_joined(self, **options: object) -> dict[str, HubSession]:
        """Open a session and let every member join it; return when everybody sees everybody."""
        everyone = (COORDINATOR, *self.names)
        sessions = {n: self.session(n, **options) for n in everyone}  # type: ignore[arg-type]
        for name, session in sessions.items():
            session.wait_for([n for n in everyone if n != name], 8.0)
        return sessions

    def close_sessions(self) -> None:
        while self.sessions:
            self.sessions.pop().close(linger=0.0)

    def close(self) -> None:
        self.close_sessions()
        self.hub.stop()


@contextmanager
def hub_world(*names: str, limits: HubLimits = QUICK) -> Iterator[HubWorld]:
    """Build a world and tear it down; nothing of it is left, not even a thread."""
    before = set(threading.enumerate())
    world = HubWorld(names or ("bank", "partner"), limits)
    try:
        yield world
    finally:
        world.close()
    eventually(
        lambda: not [t for t in threading.enumerate() if t not in before and t.name.startswith("fedmkt")]
    )


def eventually(is_so: Callable[[], bool], seconds: float = 8.0) -> None:
    """Wait until something is so; AssertionError if it never is."""
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.01)
