"""Each primitive in use on the edge cases that are known to go wrong: an own table, its sources in the file.

The tables of project Wycheproof are not in this repository; tests/vectors/README.md says what is covered instead.
"""

import hashlib
import hmac
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedmkt.crypto.aes import encrypt_all, round_keys
from fedmkt.crypto.certificates import check_node_signature, public_node_key, sign_with_node_key
from fedmkt.crypto.prg import derive, expand
from fedmkt.crypto.seal import Prekey
from fedmkt.crypto.sign import Identity, verify

CASES = json.loads((Path(__file__).parents[1] / "vectors" / "edge_cases.json").read_text())
P = 2**255 - 19


def of(*texts: str) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


# ------------------------------------------------------------------------------------------- X25519


@pytest.mark.parametrize("case", CASES["x25519"]["products"])
def test_products_on_curve25519_are_those_of_rfc_7748(case: list[str]) -> None:
    scalar, u, product = of(*case)
    assert Prekey(scalar).exchange(u) == product
    assert Prekey(scalar).exchange(u[:31] + bytes([u[31] | 0x80])) == product  # the top bit is not looked at


def test_a_thousand_products_end_where_rfc_7748_says() -> None:
    k = u = (9).to_bytes(32, "little")
    for number in range(1, 1001):
        k, u = Prekey(k).exchange(u), k
        if (expected := CASES["x25519"]["iterated"].get(str(number))) is not None:
            assert k.hex() == expected


@pytest.mark.parametrize("top", [0, 0x80])
@pytest.mark.parametrize("point", CASES["x25519"]["low_order"])
def test_no_secret_is_shared_with_a_point_of_low_order_in_any_writing(point: str, top: int) -> None:
    (u,) = of(point)
    for scalar in (bytes(32), b"\xff" * 32, bytes(range(32))):
        with pytest.raises(ValueError):
            Prekey(scalar).exchange(u[:31] + bytes([u[31] | top]))


@pytest.mark.parametrize("u", range(2, 19))
def test_a_coordinate_written_beyond_p_is_taken_modulo_p(u: int) -> None:
    key = Prekey(b"\x07" * 32)
    assert key.exchange((P + u).to_bytes(32, "little")) == key.exchange(u.to_bytes(32, "little"))


# ------------------------------------------------------------------------------------------- Ed25519

SIGNER = Identity(b"\x03" * 32)
ORDER = int.from_bytes(bytes.fromhex(CASES["ed25519"]["order"]), "little")


@pytest.mark.parametrize("times", [1, 2, 3, 7, 15])
def test_a_signature_whose_scalar_is_written_beyond_the_order_is_refused(times: int) -> None:
    signature = SIGNER.sign(b"message")
    scalar = int.from_bytes(signature[32:], "little") + times * ORDER
    if scalar < 1 << 256:
        with pytest.raises(ValueError):
            verify(SIGNER.public, signature[:32] + scalar.to_bytes(32, "little"), b"message")


@pytest.mark.parametrize("scalar", [0, 1, ORDER - 1, ORDER, ORDER + 1, (1 << 252) - 1, (1 << 256) - 1])
def test_a_signature_with_another_scalar_is_refused(scalar: int) -> None:
    signature = SIGNER.sign(b"message")
    with pytest.raises(ValueError):
        verify(SIGNER.public, signature[:32] + scalar.to_bytes(32, "little"), b"message")


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("point", CASES["ed25519"]["low_order"])
def test_nothing_is_signed_under_a_key_of_low_order(point: str, sign: int) -> None:
    """With R the neutral point and S = 0 such a signature holds for one message in eight or more, whoever made it."""
    (y,) = of(point)
    public = y[:31] + bytes([y[31] | sign])
    for number in range(40):
        for first in of(CASES["ed25519"]["low_order"][0], point):
            with pytest.raises(ValueError):
                verify(public, first + bytes(32), b"%d" % number)


@pytest.mark.parametrize("length", [*range(0, 64, 9), 63, 65, 96, 128])
def test_a_signature_cut_or_drawn_out_is_refused(length: int) -> None:
    signature = (SIGNER.sign(b"message") * 2)[:length]
    with pytest.raises(ValueError):
        verify(SIGNER.public, signature, b"message")


def test_a_signature_of_another_first_half_or_second_half_is_refused() -> None:
    one, other = SIGNER.sign(b"message"), SIGNER.sign(b"massage")
    for mixed in (one[:32] + other[32:], other[:32] + one[32:], one[32:] + one[:32], bytes(64), b"\xff" * 64):
        with pytest.raises(ValueError):
            verify(SIGNER.public, mixed, b"message")


# ------------------------------------------------------------------------------------------- hashes and derivation


@pytest.mark.parametrize("case", CASES["hkdf_sha256"]["tests"])
def test_keys_are_derived_as_rfc_5869_says(case: list[str]) -> None:
    secret, salt, info, output = of(*case)
    assert derive(secret, info, salt, len(output)) == output


def test_as_much_is_derived_as_hkdf_allows_and_no_more() -> None:
    assert len(derive(b"secret", b"info", length=255 * 32)) == 255 * 32
    assert derive(b"secret", b"info", length=255 * 32)[:7] == derive(b"secret", b"info", length=7)
    with pytest.raises(ValueError):
        derive(b"secret", b"info", length=255 * 32 + 1)


@pytest.mark.parametrize("case", CASES["hmac_sha256"]["tests"])
def test_codes_are_those_of_rfc_4231(case: list[str]) -> None:
    key, data, code = of(*case)
    assert hmac.digest(key, data, "sha256")[: len(code)] == code


@pytest.mark.parametrize("case", CASES["sha256"]["tests"])
def test_digests_are_those_of_fips_180(case: list[str]) -> None:
    assert hashlib.sha256(case[0].encode()).hexdigest() == case[1]


# ------------------------------------------------------------------------------------------- ciphers


@pytest.mark.parametrize("case", CASES["aes"]["tests"])
def test_blocks_are_those_of_fips_197(case: list[str]) -> None:
    key, block, expected = of(*case)
    if len(key) == 16:
        words = np.frombuffer(block, np.uint64).reshape(1, 2)
        found = encrypt_all(words, round_keys(np.frombuffer(key, np.uint8).reshape(1, 16))).tobytes()
    else:  # what masks are expanded with: AES-256 of a counter
        found = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)
        first = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(bytes(16))
        assert bytes(expand(key, 16)) == first
    assert found == expected


AEAD = CASES["chacha20_poly1305"]
KEY, NONCE, BOUND, SEALED = of(AEAD["key"], AEAD["nonce"], AEAD["aad"], AEAD["sealed"])


def test_a_text_is_sealed_as_rfc_8439_says() -> None:
    assert ChaCha20Poly1305(KEY).encrypt(NONCE, AEAD["text"].encode(), BOUND) == SEALED
    assert ChaCha20Poly1305(KEY).decrypt(NONCE, SEALED, BOUND) == AEAD["text"].encode()


@pytest.mark.parametrize("cut", [1, 4, 8, 12, 15, 16, 17, 100, len(SEALED)])
def test_a_sealed_text_with_its_tag_cut_is_refused(cut: int) -> None:
    with pytest.raises((InvalidTag, ValueError)):
        ChaCha20Poly1305(KEY).decrypt(NONCE, SEALED[:-cut], BOUND)


def test_every_flipped_bit_of_tag_nonce_and_bound_text_is_refused() -> None:
    parts = {"tag": SEALED[-16:], "nonce": NONCE, "bound": BOUND}
    for name, part in parts.items():
        for bit in range(8 * len(part)):
            flipped = bytearray(part)
            flipped[bit // 8] ^= 1 << bit % 8
            now = parts | {name: bytes(flipped)}
            with pytest.raises(InvalidTag):
                ChaCha20Poly1305(KEY).decrypt(now["nonce"], SEALED[:-16] + now["tag"], now["bound"])


# ------------------------------------------------------------------------------------------- ECDSA of node keys

ECDSA = CASES["ecdsa_p384_sha256"]
R, S, N = (int(ECDSA[name], 16) for name in ("r", "s", "order"))
NODE = ec.derive_private_key(int(ECDSA["key"], 16), ec.SECP384R1()).private_bytes(
    Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
)


def test_a_node_signs_as_rfc_6979_says() -> None:
    signature = sign_with_node_key(NODE, ECDSA["text"].encode())
    assert decode_dss_signature(signature) == (R, S)
    check_node_signature(public_node_key(NODE), signature, ECDSA["text"].encode())


@pytest.mark.parametrize(
    "r,s",
    [(0, 0), (0, S), (R, 0), (N, S), (R, N), (R + N, S), (R, S + N), (-R, S), (R, -S), (1, 1), (S, R), (R + 1, S)],
)  # fmt: skip
def test_a_node_signature_out_of_its_range_is_refused(r: int, s: int) -> None:
    with pytest.raises(ValueError):
        check_node_signature(public_node_key(NODE), encode_dss_signature(r, s), ECDSA["text"].encode())


GOOD = encode_dss_signature(R, S)


@pytest.mark.parametrize(
    "signature",
    [
        b"", GOOD[:-1], GOOD + b"\0", GOOD + GOOD, b"\x30\x80" + GOOD[2:] + b"\0\0", b"\x30\x81" + GOOD[1:],
        b"\x31" + GOOD[1:], GOOD[:2] + b"\x02\x32\0" + GOOD[4:], b"\x30\x06\x02\x01\x00\x02\x01\x00", GOOD[:1],
    ],
)  # fmt: skip
def test_a_node_signature_in_another_encoding_is_refused(signature: bytes) -> None:
    with pytest.raises(ValueError):
        check_node_signature(public_node_key(NODE), signature, ECDSA["text"].encode())
