"""The formats against published examples, and against signatures made by the library directly."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmkt.audit import checkpoint
from fedmkt.crypto.sign import Identity

# Test vectors of Go's golang.org/x/mod/sumdb/note (note_test.go): signer key, text and signed note.
SECRET = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
PUBLIC = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:]
TEXT = (
    b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
PETER = (
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
ENOCH = (
    "— EnochRoot "
    "rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
).encode()
NOTE = TEXT + b"\n" + PETER
# The example of the C2SP tlog-cosignature page: its checkpoint and lines (its keys are not published).
EXAMPLE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
).encode()


def test_the_note_of_the_reference_implementation_comes_out_byte_for_byte():
    assert checkpoint.sign_note(TEXT, "PeterNeumann", Identity(SECRET)) == NOTE


def test_the_published_note_verifies_with_its_published_key():
    assert checkpoint.verify_note(NOTE, "PeterNeumann", PUBLIC).text == TEXT


def test_signatures_of_unknown_keys_are_left_alone():
    assert len(checkpoint.verify_note(NOTE + ENOCH, "PeterNeumann", PUBLIC).lines) == 2


def test_a_note_without_a_signature_of_the_key_is_refused():
    with pytest.raises(ValueError, match="0 signatures of PeterNeumann"):
        checkpoint.verify_note(TEXT + b"\n" + ENOCH, "PeterNeumann", PUBLIC)


@pytest.mark.parametrize(
    "bad",
    [
        TEXT,
        TEXT + b"\n",
        NOTE[:-1],
        b"\x01" + NOTE,
        b"\xff" + NOTE,
        TEXT + b"\n" + PETER.replace(b"PeterNeumann", b"Bad Name"),
        NOTE + b"Unexpected line.\n",
        TEXT + b"\n" + PETER * 101,
    ],
)
def test_a_malformed_note_is_refused(bad):
    with pytest.raises(ValueError):
        checkpoint.verify_note(bad, "PeterNeumann", PUBLIC)


def test_every_flipped_byte_of_a_note_is_found():
    for place in range(len(NOTE)):
        changed = bytearray(NOTE)
        changed[place] ^= 1
        with pytest.raises(ValueError):
            checkpoint.verify_note(bytes(changed), "PeterNeumann", PUBLIC)


def test_the_published_checkpoint_is_read_as_published():
    note = checkpoint.parse_note(EXAMPLE)
    head = checkpoint.parse_body(note.text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert bytes(note) == EXAMPLE
    # The page gives the time of this cosignature in its signed message.
    assert int.from_bytes(note.lines[1].value[:8], "big") == 1679315147


def test_a_cosignature_signs_the_message_that_the_format_says():
    identity = Identity(bytes(range(32)))
    text = checkpoint.body("fedmkt/x", 7, bytes(32))
    line = checkpoint.cosign(text, 1679315147, "bank", identity)
    data = base64.b64decode(line.decode().split()[-1])
    message = b"cosignature/v1\ntime 1679315147\n" + text
    assert data[:4] == hashlib.sha256(b"bank\n\x04" + identity.public).digest()[:4]
    assert data[4:12] == (1679315147).to_bytes(8, "big")
    assert data[12:] == Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(message)
    assert checkpoint.verify_cosignature(text, line, "bank", identity.public) == 1679315147


def test_every_flipped_byte_of_a_cosignature_is_found():
    identity = Identity(bytes(range(32)))
    text = checkpoint.body("fedmkt/x", 7, bytes(32))
    line = checkpoint.cosign(text, 1679315147, "bank", identity)
    for place in range(len(line)):
        changed = bytearray(line)
        changed[place] ^= 1
        with pytest.raises(ValueError):
            checkpoint.verify_cosignature(text, bytes(changed), "bank", identity.public)


def test_a_cosignature_of_another_text_or_key_is_refused():
    identity = Identity(bytes(range(32)))
    text = checkpoint.body("fedmkt/x", 7, bytes(32))
    line = checkpoint.cosign(text, 1679315147, "bank", identity)
    with pytest.raises(ValueError, match="does not verify"):
        checkpoint.verify_cosignature(
            checkpoint.body("fedmkt/x", 8, bytes(32)), line, "bank", identity.public
        )
    with pytest.raises(ValueError, match="no cosignature of bank"):
        checkpoint.verify_cosignature(text, line, "bank", Identity(bytes(32)).public)


@pytest.mark.parametrize(
    "text",
    [
        b"o\n1\n" + base64.b64encode(bytes(32)),
        b"o\n01\n" + base64.b64encode(bytes(32)) + b"\n",
        b"o\n-1\n" + base64.b64encode(bytes(32)) + b"\n",
        b"o\n1\n" + base64.b64encode(bytes(31)) + b"\n",
        b"o\n1\n" + base64.b64encode(bytes(32)) + b"\nextension\n",
        b"\n1\n" + base64.b64encode(bytes(32)) + b"\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text):
    with pytest.raises(ValueError):
        checkpoint.parse_body(text)


@pytest.mark.parametrize("text", [b"", b"origin", b"origin\n", b"origin\n5\n", b"origin\n5\nAAAA\n\n\n"])
def test_a_checkpoint_of_too_few_or_too_many_lines_is_refused_in_its_own_words(text: bytes) -> None:
    with pytest.raises(ValueError, match="three lines"):
        checkpoint.parse_body(text)


def test_a_size_of_nineteen_digits_is_no_size() -> None:
    root = base64.b64encode(bytes(32)).decode()
    assert checkpoint.parse_body(f"origin\n{'9' * 18}\n{root}\n".encode()).size == 10**18 - 1
    with pytest.raises(ValueError, match="three lines"):
        checkpoint.parse_body(f"origin\n{'9' * 19}\n{root}\n".encode())


def test_a_signature_line_without_a_signature_is_refused():
    empty = "— PeterNeumann " + base64.b64encode(b"\0\1\2\3").decode() + "\n"
    with pytest.raises(ValueError):
        checkpoint.parse_line(empty.encode())


@pytest.mark.parametrize("size", ["+5", "1_0", " 5", "\u0665", "\u00b2", "", "1" * 19, "05"])
def test_a_size_in_another_writing_is_refused(size):
    root = base64.b64encode(bytes(32)).decode()
    with pytest.raises(ValueError):
        checkpoint.parse_body(f"origin\n{size}\n{root}\n".encode())


@pytest.mark.parametrize("time", [0, -1, 1 << 63])
def test_a_cosignature_has_a_time_after_1970_in_eight_bytes(time):
    with pytest.raises(ValueError, match="POSIX seconds"):
        checkpoint.cosign(checkpoint.body("origin", 1, bytes(32)), time, "shop", Identity(SECRET))


@pytest.mark.parametrize("name", ["", "a+b", "a b", "a\tb", "a\u2003b"])
def test_a_key_has_a_name_without_spaces_and_plus_signs(name):
    with pytest.raises(ValueError, match="no space and no plus sign"):
        checkpoint.sign_note(TEXT, name, Identity(SECRET))


@pytest.mark.parametrize("cut", [1, 8, 63])
def test_a_cosignature_of_another_length_is_refused(cut):
    text = checkpoint.body("origin", 1, bytes(32))
    line = checkpoint.parse_line(checkpoint.cosign(text, 5, "PeterNeumann", Identity(SECRET)))
    shorter = bytes(checkpoint.SignatureLine(line.name, line.key_id, line.value[:-cut]))
    with pytest.raises(ValueError):
        checkpoint.verify_cosignature(text, shorter, "PeterNeumann", PUBLIC)
