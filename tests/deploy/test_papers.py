import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.crypto.sign import Identity, verify
from fedmkt.deploy import papers
from fedmkt.deploy.papers import Bundle, Request, check_compared, encode, read_bundle, read_request
from fedmkt.errors import ConfigError, FedmktError, PeerError, PolicyRefused
from fedmkt.privacy.disclosure import EVERYONE
from tests.deploy.offices import Office, bank, coordinator, shop


@pytest.fixture(scope="module")
def offices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Office]:
    place = tmp_path_factory.mktemp("offices")
    return {"coordinator": coordinator(place), "bank": bank(place), "shop": shop(place)}


@pytest.fixture(scope="module")
def request_paper(offices: dict[str, Office]) -> Request:
    return offices["bank"].request()


@pytest.fixture(scope="module")
def bundle_paper(offices: dict[str, Office], request_paper: Request) -> Bundle:
    return offices["coordinator"].admit(request_paper)


def test_a_request_is_canonical_json_signed_over_all_but_its_signature(request_paper: Request) -> None:
    values = json.loads(encode(request_paper))
    assert encode(request_paper) == rfc8785.dumps(values) + b"\n"
    signature = bytes.fromhex(values.pop("signature"))
    signed = b"fedmkt request v1 signature\n" + rfc8785.dumps(values)
    verify(bytes.fromhex(values["identity"]), signature, signed)
    assert read_request(encode(request_paper), "bank.request") == request_paper


@pytest.mark.parametrize("paper", ["request_paper", "bundle_paper"])
def test_neither_paper_holds_a_secret(
    paper: str, offices: dict[str, Office], request: pytest.FixtureRequest
) -> None:
    text = encode(request.getfixturevalue(paper))
    assert b"PRIVATE" not in text
    for office in (offices["bank"], offices["coordinator"]):
        for path in office.folder.keys.glob("*.key"):
            secret = path.read_bytes()
            for line in (secret, secret.hex().encode(), *(s for s in secret.splitlines() if len(s) > 60)):
                assert line not in text


def changed(paper: Request | Bundle, path: str, value: object) -> bytes:
    values = json.loads(encode(paper))
    inner = values
    *above, last = path.split(".")
    for part in above:
        inner = inner[part]
    assert inner[last] is not value
    inner[last] = value
    return rfc8785.dumps(values)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "shop"),
        ("organisation", "Second Bank"),
        ("identity", "00" * 32),
        ("fedmkt", "9.9"),
        ("created", "2030-01-02T12:00:00Z"),
        ("node_proof", "00"),
        ("signature", "00" * 64),
    ],
)
def test_a_request_with_any_field_changed_is_refused(key: str, value: str, request_paper: Request) -> None:
    with pytest.raises(PeerError, match=r"the signature does not verify|point of small order"):
        read_request(changed(request_paper, key, value), "bank.request")


@pytest.mark.parametrize("key", ["node", "csr"])
def test_a_request_with_a_key_of_another_is_refused(
    key: str, request_paper: Request, offices: dict[str, Office]
) -> None:
    other = getattr(offices["shop"].request(), key)
    with pytest.raises(PeerError, match=r"the signature does not verify|point of small order"):
        read_request(changed(request_paper, key, other), "bank.request")


def test_nobody_can_bring_the_node_key_of_another_even_under_their_own_signature(
    request_paper: Request, offices: dict[str, Office]
) -> None:
    thief = Identity(b"\7" * 32)
    for proof in (request_paper.node_proof, "00"):
        stolen = request_paper.model_copy(
            update={"identity": thief.public.hex(), "name": "shop", "node_proof": proof}
        )
        signed = b"fedmkt request v1 signature\n" + papers.canonical(stolen, "signature")
        forged = stolen.model_copy(update={"signature": thief.sign(signed).hex()})
        with pytest.raises(PeerError, match="signature of the node key"):
            read_request(encode(forged), "shop.request")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("party", "shop"),
        ("identity", "00" * 32),
        ("coordinator.host", "evil.example"),
        ("coordinator.front_port", 443),
        ("coordinator.name", "mallory"),
        ("coordinator.bundle", "00" * 32),
        ("coordinator.versions.protocol", 2),
        ("coordinator.identity", "00" * 32),
        ("signature", "00" * 64),
    ],
)
def test_a_bundle_with_any_field_changed_is_refused(key: str, value: object, bundle_paper: Bundle) -> None:
    with pytest.raises(PeerError, match=r"the signature does not verify|point of small order"):
        read_bundle(changed(bundle_paper, key, value), "bank.bundle")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../../etc/passwd"),
        ("name", "/etc/passwd"),
        ("name", "a" * 40),
        ("name", "bank\n"),
        ("name", 7),
        ("name", None),
        ("name", ["bank"]),
        ("name", EVERYONE),
        ("organisation", "First\u202eBank"),
        ("organisation", "x" * 300),
        ("organisation", ""),
        ("created", 1893499260),
        ("created", "2030-01-01"),
        ("created", "2030-01-01T12:00:00"),
        ("created", "2030-01-01T12:00:00.5Z"),
        ("csr", "x" * 20_000),
        ("node", "ssh-ed25519 AAAA"),
        ("version", 2),
        ("kind", "fedmkt bundle"),
        ("identity", "FF" * 32),
        ("signature", "00"),
    ],
)
def test_a_hostile_value_in_a_request_is_one_short_line(
    key: str, value: object, request_paper: Request
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_request(changed(request_paper, key, value), "bank.request")
    assert str(caught.value).startswith(f"bank.request: {key}")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "host", ["-oProxy=x", "a b", "a:1", "http://a", "a/b", "1.2.3", "fe80::1%x y", "", "a" * 300]
)
def test_a_bundle_cannot_name_an_address_that_would_be_an_option_or_a_path(
    host: str, bundle_paper: Bundle
) -> None:
    with pytest.raises(ConfigError, match=r"coordinator\.host"):
        read_bundle(changed(bundle_paper, "coordinator.host", host), "bank.bundle")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\x00" * 50,
        b"\xff\xfe",
        b"null",
        b"[]",
        b"7",
        b'"x"',
        b"{}",
        b"[" * 30_000,
        b'{"a":' * 5_000,
        b'{"version":' + b"9" * 30_000 + b"}",
        b'{"version":NaN}',
        b" " * 40_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_junk_is_refused_in_one_line(data: bytes) -> None:
    for read in (read_request, read_bundle):
        with pytest.raises(ConfigError) as caught:
            read(data, "paper")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_one_meaning_has_one_spelling(request_paper: Request) -> None:
    text = encode(request_paper)
    spaced = json.dumps(json.loads(text)).encode()
    doubled = text.replace(b'{"created"', b'{"created":"2029-01-01T00:00:00Z","created"', 1)
    for other in (spaced, doubled, b" " + text, text + b"\n", text + b" "):
        with pytest.raises(PeerError, match="not written as fedmkt writes it"):
            read_request(other, "bank.request")


def test_a_request_with_any_byte_changed_is_never_accepted(request_paper: Request) -> None:
    text = encode(request_paper)
    for at in range(len(text) - 1):
        altered = text[:at] + bytes([text[at] ^ (1 + at % 255)]) + text[at + 1 :]
        with pytest.raises(FedmktError):
            read_request(altered, "bank.request")


@given(junk=st.binary(max_size=200))
def test_random_bytes_are_never_accepted(junk: bytes) -> None:
    with pytest.raises(FedmktError):
        read_bundle(junk, "bank.bundle")


def test_a_fingerprint_is_compared_whatever_its_spacing_and_case(offices: dict[str, Office]) -> None:
    shown, key = offices["bank"].fingerprint, offices["bank"].request().identity
    for said in (shown, shown.upper(), shown.replace(" ", ""), shown.replace(" ", ":"), f" {shown}\n"):
        check_compared(said, key, "bank")
    for said in ("", shown[:-1], shown + "0", offices["coordinator"].fingerprint, "ünï", shown[:4]):
        with pytest.raises(PolicyRefused, match="the fingerprint is not that of bank"):
            check_compared(said, key, "bank")
