import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.crypto import dsse
from fedmkt.crypto.dsse import Envelope, Public, Signature
from fedmkt.crypto.sign import Identity

ANN, BEN = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
KEYS = {"ann": Public(ANN.public), "ben": Public(BEN.public)}
KIND = "application/vnd.test+json"


def test_what_is_signed_is_that_of_the_specification() -> None:
    # DSSE protocol.md 1.0.2, section "Test Vectors".
    found = dsse.encoded("http://example.com/HelloWorld", b"hello world")
    assert found == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_an_envelope_of_the_specification_is_read() -> None:
    # The same section; its signature is ECDSA, which is none of ours.
    text = (
        b'{"payload": "aGVsbG8gd29ybGQ=", "payloadType": "http://example.com/HelloWorld", "signatures": [{"sig": '
        b'"A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}'
    )
    envelope = dsse.from_json(text)
    assert envelope.payload == b"hello world"
    with pytest.raises(ValueError, match="0 valid signatures"):
        dsse.verify(envelope, envelope.payload_type, KEYS, 1)


def test_lengths_are_of_bytes_not_of_characters() -> None:
    assert dsse.encoded("é", b"\xff") == b"DSSEv1 2 \xc3\xa9 1 \xff"


def test_two_people_sign_and_both_are_named() -> None:
    envelope = dsse.add_signature(dsse.sign(KIND, b"yes", BEN), ANN)
    assert dsse.verify(envelope, KIND, KEYS, 2) == ("ann", "ben")
    assert dsse.from_json(dsse.to_json(envelope)) == envelope


def test_one_person_counts_once() -> None:
    envelope = dsse.sign(KIND, b"yes", ANN)
    assert dsse.add_signature(envelope, ANN) == envelope
    twice = Envelope(KIND, b"yes", (envelope.signatures[0], Signature("other", envelope.signatures[0].value)))
    with pytest.raises(ValueError, match="1 valid signatures"):
        dsse.verify(twice, KIND, KEYS | {"again": Public(ANN.public)}, 2)


@pytest.mark.parametrize(
    "changed",
    [
        lambda e: Envelope(KIND, b"no", e.signatures),
        lambda e: Envelope(KIND, b"yes", (Signature("", bytes(64)),)),
        lambda e: Envelope(KIND, b"yes", (Signature("", b""),)),
    ],
)
def test_what_was_not_signed_does_not_verify(changed) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="0 valid signatures"):
        dsse.verify(changed(dsse.sign(KIND, b"yes", ANN)), KIND, KEYS, 1)


def test_a_signature_for_another_kind_is_none() -> None:
    envelope = dsse.sign("application/other", b"yes", ANN)
    with pytest.raises(ValueError, match="holds no"):
        dsse.verify(envelope, KIND, KEYS, 1)
    with pytest.raises(ValueError, match="0 valid"):
        dsse.verify(Envelope(KIND, b"yes", envelope.signatures), KIND, KEYS, 1)


def test_a_signature_of_a_stranger_counts_for_nothing() -> None:
    with pytest.raises(ValueError, match="0 valid"):
        dsse.verify(dsse.sign(KIND, b"yes", Identity(b"\x03" * 32)), KIND, KEYS, 1)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"3", b"{}", b"\xff", b"[" * 100_000,
        b'{"payload": 1, "payloadType": "a", "signatures": [{"sig": ""}]}',
        b'{"payload": "", "payloadType": 1, "signatures": [{"sig": ""}]}',
        b'{"payload": "", "payloadType": "a", "signatures": []}',
        b'{"payload": "", "payloadType": "a", "signatures": [{}]}',
        b'{"payload": "", "payloadType": "a", "signatures": [3]}',
        b'{"payload": "%", "payloadType": "a", "signatures": [{"sig": ""}]}',
        b'{"payload": "", "payloadType": "a", "signatures": [{"sig": "", "keyid": 3}]}',
        b'{"payload": "", "payloadType": "a", "signatures": [{"sig": ""}], "more": 1}',
        b" " * (dsse.MAX_BYTES + 1),
    ],
)  # fmt: skip
def test_what_is_no_envelope_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        dsse.from_json(text)


def test_both_alphabets_of_base64_are_read() -> None:
    envelope = dsse.sign(KIND, b"\xfb\xff\xfe", ANN)
    value = json.loads(dsse.to_json(envelope))
    value["payload"] = value["payload"].replace("+", "-").replace("/", "_")
    assert dsse.from_json(json.dumps(value).encode()) == envelope


@given(st.text(max_size=20), st.binary(max_size=50), st.text(max_size=20), st.binary(max_size=50))
def test_no_two_payloads_are_signed_alike(kind: str, payload: bytes, other: str, body: bytes) -> None:
    assert (dsse.encoded(kind, payload) == dsse.encoded(other, body)) == ((kind, payload) == (other, body))


def test_an_envelope_is_written_in_one_way() -> None:
    one = Envelope("text/plain; ü", b"yes", (Signature("k", b"\x00\xff"),))
    expected = '{"payload":"eWVz","payloadType":"text/plain; ü","signatures":[{"keyid":"k","sig":"AP8="}]}\n'
    assert dsse.to_json(one) == expected.encode()
    assert dsse.from_json(expected.encode()) == one


def test_an_envelope_has_at_most_a_mebibyte() -> None:
    text = dsse.to_json(dsse.sign(KIND, b"yes", ANN))
    whole = text + b" " * ((1 << 20) - len(text))
    assert dsse.from_json(whole) == dsse.from_json(text)
    with pytest.raises(ValueError, match="at most 1048576 bytes"):
        dsse.from_json(whole + b" ")


@pytest.mark.parametrize("signatures", [0, 65, "text", {"keyid": "k", "sig": "AP8="}, None])
def test_an_envelope_has_a_list_of_1_to_64_signatures(signatures: object) -> None:
    one = {"keyid": "k", "sig": "AP8="}
    listed = [one] * signatures if isinstance(signatures, int) else signatures
    with pytest.raises(ValueError, match="an envelope has 1 to 64 signatures"):
        dsse.from_json(json.dumps({"payload": "", "payloadType": "x", "signatures": listed}).encode())


def test_sixty_four_signatures_are_read() -> None:
    listed = [{"keyid": "k", "sig": "AP8="}] * 64
    text = json.dumps({"payload": "", "payloadType": "x", "signatures": listed})
    assert len(dsse.from_json(text.encode()).signatures) == 64
