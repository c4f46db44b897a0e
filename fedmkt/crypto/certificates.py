"""X.509 certificates for the links between parties and coordinator, and keys for Flower's nodes.

Everything is bytes in and bytes out; clock and randomness are arguments. TLS keys are EC P-256 (PEM, PKCS 8),
node keys EC P-384 as Flower 1.41 reads them: the private half in OpenSSH's format, the public half as one
OpenSSH line, which its SuperLink stores as PEM. Certificates follow RFC 5280: a client's cannot serve and a
server's cannot dial (extended key usage), and the authority signs nothing but leaves (path length 0).
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from fedmkt.crypto.prg import Random

AUTHORITY_DAYS = 3650
LEAF_DAYS = 365
_SLACK = timedelta(minutes=5)  # a certificate works at once on a machine whose clock is a little behind
_SERIAL_BYTES = 20  # RFC 5280, 4.1.2.2: at most 20 octets, positive


@dataclass(frozen=True)
class Issued:
    """A certificate and its facts: `serial` hexadecimal, `expires` in UTC."""

    pem: bytes
    serial: str
    expires: datetime


@dataclass(frozen=True, repr=False)
class NodeKey:
    """A key for Flower's node authentication: private half (OpenSSH format) and public half (one line)."""

    private: bytes
    public: str


def generate_tls_key(random: Random) -> bytes:
    """Make an EC P-256 key; PEM, PKCS 8, not encrypted."""
    return _draw(ec.SECP256R1(), random).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def generate_node_key(random: Random) -> NodeKey:
    """Make an EC P-384 key in the formats that `flower-supernode` and `flwr supernode register` read."""
    key = _draw(ec.SECP384R1(), random)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return NodeKey(private, _openssh(key.public_key()))


def _draw(curve: ec.EllipticCurve, random: Random) -> ec.EllipticCurvePrivateKey:
    order = curve.group_order
    wide = int.from_bytes(random((order.bit_length() + 7) // 8 + 8), "big")  # 64 bits more: no visible bias
    return ec.derive_private_key(wide % (order - 1) + 1, curve)


def _openssh(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def public_node_key(private: bytes) -> str:
    """Return the public line of a node's private key; ValueError unless it is an EC P-384 key."""
    return _openssh(_load_node_key(private).public_key())


def node_key_pem(public: str) -> bytes:
    """Turn a node's public line into the PEM that SuperLink stores; ValueError unless it is EC P-384."""
    return _load_public_node_key(public).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign_with_node_key(private: bytes, data: bytes) -> bytes:
    """Prove possession of a node key (ECDSA with SHA-256, deterministic)."""
    return _load_node_key(private).sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def check_node_signature(public: str, signature: bytes, data: bytes) -> None:
    """Raise ValueError unless `signature` over `data` was made with the private half of a node key."""
    try:
        _load_public_node_key(public).verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise ValueError("the signature of the node key does not verify") from None


def _load_node_key(private: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_ssh_private_key(private, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("not an EC P-384 private key in OpenSSH format")
    return key


def _load_public_node_key(public: str) -> ec.EllipticCurvePublicKey:
    try:
        key = load_ssh_public_key(public.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("not an EC P-384 public key in OpenSSH format")
    if _openssh(key) != public:  # one spelling per key: the registry compares text
        raise ValueError("the node key is not written as OpenSSH writes it")
    return key


def make_authority(name: str, key: bytes, random: Random, now: datetime) -> Issued:
    """Sign the certificate of a new authority with its own key."""
    private = _load_key(key)
    subject = _subject(f"fedmkt authority of {name}")
    usage = _key_usage(signs_certificates=True)
    builder = _builder(subject, subject, private.public_key(), random, now, AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _issue(builder.add_extension(usage, critical=True), private)


def make_signing_request(name: str, key: bytes) -> bytes:
    """Ask for a certificate for `name`; signed with the key itself, which proves its possession (PEM)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name))
    signed = builder.sign(_load_key(key), hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(Encoding.PEM)


def requested_key(request: bytes, name: str) -> bytes:
    """Return the key (DER) of a signing request; ValueError unless it is for `name`, P-256 and proved."""
    return _der(_requested_key(request, name))


def _requested_key(request: bytes, name: str) -> ec.EllipticCurvePublicKey:
    try:
        found = x509.load_pem_x509_csr(request)
        key, subject, is_proved = found.public_key(), found.subject, found.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("not a certificate signing request") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the signing request is not for an EC P-256 key")
    if not is_proved:
        raise ValueError("the signing request was not made with its own key")
    if subject != _subject(name):
        raise ValueError(f"the signing request is not for {name}")
    return key


def issue_client(
    request: bytes, name: str, authority: bytes, authority_key: bytes, random: Random, now: datetime
) -> Issued:
    """Issue a certificate with which `name` can dial; nothing but the key is taken from the request."""
    builder = _leaf(name, _requested_key(request, name), authority, random, now)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return _issue(builder.add_extension(usage, critical=False), _load_key(authority_key))


def issue_server(
    key: bytes, hosts: Sequence[str], authority: bytes, authority_key: bytes, random: Random, now: datetime
) -> Issued:
    """Issue a certificate with which a server answers for `hosts`: names, IPv4 and IPv6 addresses."""
    builder = _leaf(f"fedmkt {hosts[0]}"[:64], _load_key(key).public_key(), authority, random, now)
    names = x509.SubjectAlternativeName([general_name(host) for host in dict.fromkeys(hosts)])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = builder.add_extension(names, critical=False).add_extension(usage, critical=False)
    return _issue(builder, _load_key(authority_key))


def general_name(host: str) -> x509.DNSName | x509.IPAddress:
    """Write a server's name as certificates do: an address as an address, anything else as a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def check_client(certificate: bytes, name: str, authority: bytes, now: datetime) -> None:
    """Raise ValueError unless `authority` issued this client certificate to `name` and it is valid now."""
    found = _load_certificate(certificate)
    try:
        verifier = PolicyBuilder().store(Store([_load_certificate(authority)])).time(_naive(now))
        verified = verifier.build_client_verifier().verify(found, [])
    except (VerificationError, ValueError, UnsupportedAlgorithm):
        raise ValueError("the certificate was not issued by this authority, or is not valid now") from None
    if verified.subjects != [x509.DNSName(name)] or found.subject != _subject(name):
        raise ValueError(f"the certificate is not for {name}")


def check_server(certificate: bytes, host: str, authority: bytes, now: datetime) -> None:
    """Raise ValueError unless `authority` issued this server certificate for `host` and it is valid now."""
    subject = general_name(host)
    try:
        verifier = PolicyBuilder().store(Store([_load_certificate(authority)])).time(_naive(now))
        verifier.build_server_verifier(subject).verify(_load_certificate(certificate), [])
    except (VerificationError, UnsupportedAlgorithm):
        raise ValueError(f"the certificate is not this authority's for {host}, or not valid now") from None


def check_key_matches(key: bytes, certificate: bytes) -> None:
    """Raise ValueError unless the certificate was issued for this private key."""
    if public_tls_key(key) != certified_key(certificate):
        raise ValueError("the certificate was issued for another key")


def public_tls_key(key: bytes) -> bytes:
    """Return the public half (DER) of a TLS key; ValueError if it is none."""
    return _der(_load_key(key).public_key())


def certified_key(certificate: bytes) -> bytes:
    """Return the public key (DER) of a certificate."""
    return _der(_load_certificate(certificate).public_key())


def serial_of(certificate: bytes) -> str:
    """Return the serial number of a certificate, hexadecimal, as the registry writes it."""
    return f"{_load_certificate(certificate).serial_number:040x}"


def expiry_of(certificate: bytes) -> datetime:
    """Return until when a certificate is valid (UTC)."""
    return _load_certificate(certificate).not_valid_after_utc


def hosts_of(certificate: bytes) -> tuple[str, ...]:
    """Return the names and addresses that a server certificate answers for."""
    found = _load_certificate(certificate)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns = names.get_values_for_type(x509.DNSName)
    return (*dns, *(str(address) for address in names.get_values_for_type(x509.IPAddress)))


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _load_key(key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        found = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or not isinstance(found.curve, ec.SECP256R1):
        raise ValueError("not an EC P-256 private key in PEM")
    return found


def _load_certificate(certificate: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("not a certificate in PEM") from None


def _der(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not an EC key")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    random: Random,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    serial = int.from_bytes(random(_SERIAL_BYTES), "big") >> 1 | 1 << 152  # positive, and always 20 octets
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(_naive(now - _SLACK))
        .not_valid_after(_naive(now + timedelta(days=days)))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _leaf(
    name: str, key: ec.EllipticCurvePublicKey, authority: bytes, random: Random, now: datetime
) -> x509.CertificateBuilder:
    issuer = _load_certificate(authority)
    above = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _builder(_subject(name), issuer.subject, key, random, now, LEAF_DAYS)
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False)
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issue(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> Issued:
    made = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    pem = made.public_bytes(Encoding.PEM)
    return Issued(pem, serial_of(pem), made.not_valid_after_utc)
