import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedmkt.crypto import certificates
from fedmkt.crypto.certificates import Issued
from fedmkt.crypto.prg import SeededRandom

NOW = datetime(2030, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
RANDOM = SeededRandom(bytes(32))
AUTHORITY_KEY = certificates.generate_tls_key(RANDOM)
AUTHORITY = certificates.make_authority("coordinator", AUTHORITY_KEY, RANDOM, NOW)
KEY = certificates.generate_tls_key(RANDOM)
HOSTS = ("coordinator.example", "10.0.0.7", "localhost", "127.0.0.1", "::1")


def client(name: str = "bank", key: bytes = KEY, now: datetime = NOW) -> Issued:
    request = certificates.make_signing_request(name, key)
    return certificates.issue_client(request, name, AUTHORITY.pem, AUTHORITY_KEY, RANDOM, now)


def server(*hosts: str) -> Issued:
    return certificates.issue_server(KEY, hosts or HOSTS, AUTHORITY.pem, AUTHORITY_KEY, RANDOM, NOW)


def test_a_client_certificate_says_whose_it_is_until_when_and_what_for():
    issued = client()
    found = x509.load_pem_x509_certificate(issued.pem)
    assert found.subject.rfc4514_string() == "CN=bank"
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("bank")]
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert issued.serial == f"{found.serial_number:040x}" == certificates.serial_of(issued.pem)
    assert found.serial_number.bit_length() <= 159  # RFC 5280: positive, at most 20 octets
    assert issued.expires == NOW.replace(microsecond=0) + timedelta(days=365)
    assert issued.expires == certificates.expiry_of(issued.pem)
    certificates.check_client(issued.pem, "bank", AUTHORITY.pem, NOW)
    certificates.check_key_matches(KEY, issued.pem)


def test_openssl_loads_the_authority_and_its_leaves_verify_by_signature():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    above = x509.load_pem_x509_certificate(AUTHORITY.pem)
    assert context.get_ca_certs()[0]["serialNumber"].lower() == AUTHORITY.serial
    for issued in (client(), server()):
        x509.load_pem_x509_certificate(issued.pem).verify_directly_issued_by(above)
    limits = above.extensions.get_extension_for_class(x509.BasicConstraints)
    assert limits.critical and limits.value == x509.BasicConstraints(ca=True, path_length=0)


@pytest.mark.parametrize("host", HOSTS)
def test_a_server_certificate_answers_for_each_of_its_hosts(host):
    certificates.check_server(server().pem, host, AUTHORITY.pem, NOW)


def test_a_server_certificate_answers_for_no_other_host():
    assert set(certificates.hosts_of(server().pem)) == set(HOSTS)
    for host in ("evil.example", "10.0.0.8", "bank", "sub.coordinator.example"):
        with pytest.raises(ValueError, match="not this authority's"):
            certificates.check_server(server().pem, host, AUTHORITY.pem, NOW)


def test_a_client_cannot_serve_and_a_server_cannot_dial():
    with pytest.raises(ValueError, match="not this authority's"):
        certificates.check_server(client("localhost").pem, "localhost", AUTHORITY.pem, NOW)
    with pytest.raises(ValueError, match="not issued by this authority"):
        certificates.check_client(server("bank").pem, "bank", AUTHORITY.pem, NOW)


def test_a_certificate_holds_from_a_little_before_its_making_until_its_end_and_not_beyond():
    issued = client()
    for moment in (NOW - timedelta(minutes=4), issued.expires - timedelta(seconds=1)):
        certificates.check_client(issued.pem, "bank", AUTHORITY.pem, moment)
    for moment in (NOW - timedelta(minutes=6), issued.expires + timedelta(seconds=1)):
        with pytest.raises(ValueError, match="not valid now"):
            certificates.check_client(issued.pem, "bank", AUTHORITY.pem, moment)


def test_another_authority_of_the_same_name_is_another_authority():
    key = certificates.generate_tls_key(RANDOM)
    other = certificates.make_authority("coordinator", key, RANDOM, NOW)
    with pytest.raises(ValueError, match="not issued by this authority"):
        certificates.check_client(client().pem, "bank", other.pem, NOW)


def test_a_party_cannot_sign_certificates_with_its_own():
    request = certificates.make_signing_request("shop", KEY)
    forged = certificates.issue_client(request, "shop", client().pem, KEY, RANDOM, NOW)
    for authority in (AUTHORITY.pem, client().pem):
        with pytest.raises(ValueError, match="not issued by this authority"):
            certificates.check_client(forged.pem, "shop", authority, NOW)


def test_a_certificate_is_for_one_name_and_one_key():
    with pytest.raises(ValueError, match="not for shop"):
        certificates.check_client(client().pem, "shop", AUTHORITY.pem, NOW)
    with pytest.raises(ValueError, match="another key"):
        certificates.check_key_matches(certificates.generate_tls_key(RANDOM), client().pem)


def test_a_signing_request_proves_its_key_and_is_for_its_name():
    request = certificates.make_signing_request("bank", KEY)
    assert certificates.requested_key(request, "bank") == certificates.public_tls_key(KEY)
    with pytest.raises(ValueError, match="not for shop"):
        certificates.requested_key(request, "shop")


def test_a_signing_request_that_was_changed_or_has_another_kind_of_key_is_refused():
    der = bytearray(
        x509.load_pem_x509_csr(certificates.make_signing_request("bank", KEY)).public_bytes(Encoding.DER)
    )
    der[-1] ^= 1
    changed = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode()
    with pytest.raises(ValueError, match="signing request"):
        certificates.requested_key(changed, "bank")
    with pytest.raises(ValueError, match="not for an EC P-256 key"):
        certificates.requested_key(other_request(ec.SECP384R1()), "bank")
    for junk in (b"", b"x" * 100, KEY, client().pem):
        with pytest.raises(ValueError, match="not a certificate signing request"):
            certificates.requested_key(junk, "bank")


def other_request(curve: ec.EllipticCurve) -> bytes:
    subject = x509.Name.from_rfc4514_string("CN=bank")
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    made = builder.sign(ec.derive_private_key(7, curve), hashes.SHA256())
    return made.public_bytes(Encoding.PEM)


def test_what_a_request_asks_for_beyond_its_key_is_not_granted():
    subject = x509.Name.from_rfc4514_string("CN=bank")
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("shop")]), critical=False)
    request = builder.sign(load_pem_private_key(KEY, None), hashes.SHA256()).public_bytes(Encoding.PEM)
    issued = certificates.issue_client(request, "bank", AUTHORITY.pem, AUTHORITY_KEY, RANDOM, NOW)
    found = x509.load_pem_x509_certificate(issued.pem).extensions
    assert found.get_extension_for_class(x509.BasicConstraints).value.ca is False
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["bank"]


def test_a_node_key_has_the_formats_that_flower_reads():
    made = certificates.generate_node_key(RANDOM)
    private, public = load_ssh_private_key(made.private, None), load_ssh_public_key(made.public.encode())
    assert isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP384R1)
    assert private.public_key() == public == load_pem_public_key(certificates.node_key_pem(made.public))
    assert certificates.public_node_key(made.private) == made.public
    assert "PRIVATE" not in repr(made)


def test_a_node_key_proves_itself_and_no_other():
    made, other = certificates.generate_node_key(RANDOM), certificates.generate_node_key(RANDOM)
    signature = certificates.sign_with_node_key(made.private, b"data")
    certificates.check_node_signature(made.public, signature, b"data")
    for public, signed, data in (
        (other.public, signature, b"data"),
        (made.public, signature, b"date"),
        (made.public, b"", b"data"),
    ):
        with pytest.raises(ValueError, match="does not verify"):
            certificates.check_node_signature(public, signed, data)


@pytest.mark.parametrize("spelling", ["{} comment", " {}", "{}\n", "{}=", "ssh-ed25519 AAAA", "", "x" * 9000])
def test_a_node_key_has_one_spelling(spelling):
    public = certificates.generate_node_key(RANDOM).public
    with pytest.raises(ValueError, match=r"node key|P-384"):
        certificates.node_key_pem(spelling.format(public))


@pytest.mark.parametrize(
    "junk", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_junk_is_a_value_error_everywhere(junk):
    for act in (
        lambda: certificates.public_tls_key(junk),
        lambda: certificates.serial_of(junk),
        lambda: certificates.certified_key(junk),
        lambda: certificates.public_node_key(junk),
        lambda: certificates.check_client(junk, "bank", AUTHORITY.pem, NOW),
        lambda: certificates.check_client(client().pem, "bank", junk, NOW),
        lambda: certificates.check_server(junk, "localhost", AUTHORITY.pem, NOW),
        lambda: certificates.check_server(server().pem, "localhost", junk, NOW),
    ):
        with pytest.raises(ValueError, match=r"not (a|an|issued|this)"):
            act()


def test_keys_follow_from_the_randomness_that_is_given():
    assert certificates.generate_tls_key(SeededRandom(bytes(32))) == AUTHORITY_KEY
    assert certificates.generate_tls_key(SeededRandom(b"\1" * 32)) != AUTHORITY_KEY
