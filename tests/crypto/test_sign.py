import random

import pytest

from fedmkt.crypto.prg import SeededRandom
from fedmkt.crypto.sign import Identity, fingerprint, verify

# RFC 8032 section 7.1, tests 1 to 3: secret, public, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]
ALICE, BOB = Identity(b"\x01" * 32), Identity(b"\x02" * 32)


@pytest.mark.parametrize("secret,public,message,signature", VECTORS)
def test_signatures_are_those_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    identity = Identity(bytes.fromhex(secret))
    assert identity.public.hex() == public
    assert identity.sign(bytes.fromhex(message)).hex() == signature
    verify(identity.public, bytes.fromhex(signature), bytes.fromhex(message))


def test_a_signature_under_another_key_or_message_is_refused() -> None:
    signature = ALICE.sign(b"message")
    for public, data in ((BOB.public, b"message"), (ALICE.public, b"messagf"), (ALICE.public, b"")):
        with pytest.raises(ValueError, match="signature"):
            verify(public, signature, data)


def test_no_single_flipped_bit_of_a_signature_is_accepted() -> None:
    signature = ALICE.sign(b"message")
    for bit in range(8 * len(signature)):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):
            verify(ALICE.public, bytes(flipped), b"message")


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_is_a_value_error(length: int) -> None:
    with pytest.raises(ValueError):
        verify(ALICE.public, bytes(length), b"message")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_public_key_of_another_length_is_a_value_error(length: int) -> None:
    with pytest.raises(ValueError):
        verify(bytes(length), ALICE.sign(b""), b"")


def test_random_bytes_are_never_a_signature() -> None:
    draw = random.Random(1)
    for _ in range(200):
        with pytest.raises(ValueError):
            verify(draw.randbytes(32), draw.randbytes(64), b"message")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Identity(bytes(length))


def test_an_identity_shows_its_fingerprint_and_nothing_of_its_secret() -> None:
    shown = repr(ALICE)
    assert fingerprint(ALICE.public) in shown
    assert ALICE.secret_bytes().hex() not in shown
    assert str(ALICE.secret_bytes()) not in shown


def test_a_fingerprint_is_eight_groups_of_four_digits_and_differs_between_keys() -> None:
    groups = fingerprint(ALICE.public).split(" ")
    assert [len(g) for g in groups] == [4] * 8
    assert fingerprint(ALICE.public) != fingerprint(BOB.public)


def test_identities_are_made_from_the_randomness_handed_in() -> None:
    one, other = (Identity.generate(SeededRandom(b"x")) for _ in range(2))
    assert one.public == other.public
    assert one.public != Identity.generate(SeededRandom(b"y")).public
