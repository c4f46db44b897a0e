import pytest

from fedmkt.crypto.second import SECOND_KEY_BYTES, SECOND_SIGNATURE_BYTES, SecondKey, verify_second
from fedmkt.crypto.sign import Identity

IDENTITY = Identity(bytes(range(32)))


def test_the_second_key_follows_from_the_identity_and_has_the_sizes_of_fips_204():
    key = SecondKey(IDENTITY)
    assert key.public == SecondKey(Identity(bytes(range(32)))).public
    assert key.public != SecondKey(Identity(bytes(32))).public
    assert (
        (len(key.public), len(key.sign(b"a"))) == (SECOND_KEY_BYTES, SECOND_SIGNATURE_BYTES) == (1312, 2420)
    )
    assert IDENTITY.secret_bytes().hex() not in repr(vars(key))


def test_a_second_signature_holds_for_its_key_and_its_text_alone():
    key = SecondKey(IDENTITY)
    value = key.sign(b"text")
    verify_second(key.public, value, b"text")
    other = SecondKey(Identity(bytes(32))).public
    for public, signature, text in (
        (other, value, b"text"),
        (key.public, value, b"texts"),
        (key.public, value[:-1] + bytes([value[-1] ^ 1]), b"text"),
        (key.public, value[:-1], b"text"),
        (key.public, b"", b"text"),
        (key.public[:-1], value, b"text"),
    ):
        with pytest.raises(ValueError):
            verify_second(public, signature, text)
