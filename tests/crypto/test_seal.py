import hashlib
import random
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedmkt.crypto import seal as sealing
from fedmkt.crypto.prg import SeededRandom
from fedmkt.crypto.seal import MAX_MESSAGE_BYTES, PART_BYTES, Envelope, Place, Prekey, open_sealed, seal
from fedmkt.crypto.sign import Identity
from fedmkt.protocol import wire

PLACE = Place(
    contract=b"c" * 32,
    run=b"r" * 32,
    epoch=b"e" * 32,
    script="main_job",
    index=7,
    step="psi.blind",
    sender="bank",
    reader="shop",
    transcript=b"t" * 32,
)
BANK, SHOP, MALLORY = (Identity(bytes([i]) * 32) for i in (1, 2, 3))
SHOP_PREKEY, OTHER_PREKEY = Prekey(b"\x11" * 32), Prekey(b"\x12" * 32)
MESSAGE = b"a private message of the bank to the shop"
# Points of order 1, 2, 4 and 8 on Curve25519 and its twist, with their unreduced forms:
# cr.yp.to/ecdh.html#validate; zero is the first of them.
LOW_ORDER = tuple(
    bytes.fromhex(h)
    for h in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


def sealed(message: bytes = MESSAGE, place: Place = PLACE, seed: bytes = b"s") -> Envelope:
    return seal(message, place, BANK, SHOP_PREKEY.public, SeededRandom(seed))


def opened(envelope: Envelope, place: Place = PLACE) -> bytes:
    return bytes(open_sealed(envelope, place, BANK.public, SHOP_PREKEY))


def resigned(envelope: Envelope, place: Place, identity: Identity) -> Envelope:
    """Sign an envelope as its receiver will check it, as only the holder of `identity` can."""
    bound = sealing._bind(place, identity.public, envelope.length)
    clean = replace(envelope)  # a new object: the digest is not taken over
    return replace(clean, signature=identity.sign(bound + clean.digest))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "PART_BYTES", 16)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 32, 100])
def test_a_message_of_any_number_of_parts_comes_out_as_it_went_in(length: int, small_parts: None) -> None:
    message = bytes(range(256))[:length]
    envelope = sealed(message)
    assert opened(envelope) == message
    assert len(envelope.parts) == max(1, -(-length // 16))


def test_a_message_longer_than_one_part_of_four_mebibytes_comes_out_as_it_went_in() -> None:
    message = bytes(PART_BYTES) + b"end"
    envelope = sealed(message)
    assert len(envelope.parts) == 2
    assert opened(envelope) == message


def test_a_message_over_the_largest_size_is_not_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (MAX_MESSAGE_BYTES, PART_BYTES) == (64 << 20, 4 << 20)
    monkeypatch.setattr(sealing, "MAX_MESSAGE_BYTES", 10)
    with pytest.raises(ValueError, match="row blocks"):
        sealed(b"eleven byte")


def test_no_byte_of_the_message_is_in_its_envelope() -> None:
    envelope = sealed(b"0123456789abcdef" * 8)
    travelling = b"".join(envelope.parts) + envelope.ephemeral + envelope.signature
    assert not any(MESSAGE[i : i + 4] in travelling for i in range(len(MESSAGE) - 4))
    assert b"0123" not in travelling


def test_the_same_message_sealed_twice_shares_no_key_and_no_ciphertext() -> None:
    draw = SeededRandom(b"x")
    first, second = (seal(MESSAGE, PLACE, BANK, SHOP_PREKEY.public, draw) for _ in range(2))
    assert first.ephemeral != second.ephemeral
    assert first.parts != second.parts


MOVED: dict[str, object] = {
    "contract": b"d" * 32,
    "run": b"q" * 32,
    "epoch": b"f" * 32,
    "script": "other_job",
    "index": 8,
    "step": "psi.match",
    "sender": "telecom",
    "reader": "telecom",
    "transcript": b"u" * 32,
}


def test_every_field_of_a_place_is_among_those_that_are_moved_below() -> None:
    assert set(MOVED) == {f.name for f in fields(Place)}


@pytest.mark.parametrize("field", MOVED)
def test_an_envelope_opened_under_another(field: str) -> None:
    place = replace(PLACE, **{field: MOVED[field]})
    with pytest.raises(ValueError):
        opened(sealed(), place)
    # The names on the envelope are changed along: what is signed must still differ.
    with pytest.raises(ValueError, match="signature"):
        opened(replace(sealed(), sender=place.sender, reader=place.reader), place)


@pytest.mark.parametrize("field", MOVED)
def test_an_envelope_signed_again_by_its_own_sender_for_another(field: str) -> None:
    """The cipher binds the place by itself, not only the signature."""
    place = replace(PLACE, **{field: MOVED[field]})
    moved = replace(sealed(), sender=place.sender, reader=place.reader)
    with pytest.raises(ValueError, match="decrypt"):
        opened(resigned(moved, place, BANK), place)


def test_two_places_never_share_bytes() -> None:
    pairs = [
        (replace(PLACE, script="ab", step="c"), replace(PLACE, script="a", step="bc")),
        (replace(PLACE, sender="bank1", reader="x"), replace(PLACE, sender="bank", reader="1x")),
        (replace(PLACE, contract=b"ab", run=b""), replace(PLACE, contract=b"a", run=b"b")),
    ]
    for one, other in pairs:
        assert bytes(one) != bytes(other)


def test_a_reflected_envelope_is_refused() -> None:
    """The shop gets its own message back as if the bank had sent it."""
    own = seal(
        MESSAGE, replace(PLACE, sender="shop", reader="bank"), SHOP, SHOP_PREKEY.public, SeededRandom(b"s")
    )
    with pytest.raises(ValueError):
        opened(own)
    with pytest.raises(ValueError, match="signature"):
        opened(replace(own, sender="bank", reader="shop"))


def test_an_envelope_that_is_stripped_of_its_signature_and_signed_by_another_is_refused() -> None:
    place = replace(PLACE, sender="mallory")
    stolen = resigned(replace(sealed(), sender="mallory"), place, MALLORY)
    with pytest.raises(ValueError, match="decrypt"):
        open_sealed(stolen, place, MALLORY.public, SHOP_PREKEY)


def test_an_envelope_signed_by_another_under_the_senders_name_is_refused() -> None:
    with pytest.raises(ValueError, match="signature"):
        opened(resigned(sealed(), PLACE, MALLORY))


def test_the_sender_key_is_bound_even_where_the_sender_is_called_the_same() -> None:
    stolen = resigned(sealed(), PLACE, MALLORY)
    with pytest.raises(ValueError, match="decrypt"):
        open_sealed(stolen, PLACE, MALLORY.public, SHOP_PREKEY)


def test_a_reader_cannot_forward_a_message_as_sealed_by_its_sender() -> None:
    """Surreptitious forwarding: the shop seals what the bank wrote anew for the telecom, with the bank's signature."""
    original = sealed()
    place = replace(PLACE, reader="telecom")
    forwarded = seal(opened(original), place, SHOP, OTHER_PREKEY.public, SeededRandom(b"f"))
    forwarded = replace(forwarded, signature=original.signature)
    with pytest.raises(ValueError, match="signature"):
        open_sealed(forwarded, place, BANK.public, OTHER_PREKEY)


def test_an_envelope_for_another_prekey_is_refused() -> None:
    with pytest.raises(ValueError, match="decrypt"):
        open_sealed(sealed(), PLACE, BANK.public, OTHER_PREKEY)


def test_nothing_is_opened_once_the_prekey_is_erased() -> None:
    prekey = Prekey(b"\x13" * 32)
    envelope = seal(MESSAGE, PLACE, BANK, prekey.public, SeededRandom(b"s"))
    assert open_sealed(envelope, PLACE, BANK.public, prekey) == MESSAGE
    prekey.erase()
    with pytest.raises(ValueError, match="erased"):
        open_sealed(envelope, PLACE, BANK.public, prekey)


def test_a_prekey_shows_nothing_of_itself() -> None:
    assert repr(Prekey(b"\x13" * 32)) == "Prekey(hidden)"


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda p: p.hex()[:8])
def test_no_secret_is_shared_with_a_point_of_low_order(point: bytes) -> None:
    with pytest.raises(ValueError):
        SHOP_PREKEY.exchange(point)


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda p: p.hex()[:8])
def test_nothing_is_sealed_to_a_prekey_of_low_order(point: bytes) -> None:
    with pytest.raises(ValueError):
        seal(MESSAGE, PLACE, BANK, point, SeededRandom(b"s"))


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda p: p.hex()[:8])
def test_an_ephemeral_key_of_low_order_is_refused_though_its_sender_signed_it(point: bytes) -> None:
    envelope = resigned(replace(sealed(), ephemeral=point), PLACE, BANK)
    with pytest.raises(ValueError):
        opened(envelope)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_public_key_of_another_length_is_a_value_error(length: int) -> None:
    with pytest.raises(ValueError):
        SHOP_PREKEY.exchange(bytes([9]) * length)


def _drop_last(parts: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return parts[:-1]


ALTERED: dict[str, Callable[[tuple[bytes, ...]], tuple[bytes, ...]]] = {
    "reordered": lambda p: (p[1], p[0], *p[2:]),
    "truncated": _drop_last,
    "without_its_first_part": lambda p: p[1:],
    "extended_by_a_copy": lambda p: (*p, p[-1]),
    "extended_by_an_empty_part": lambda p: (*p, b""),
    "with_a_part_twice": lambda p: (p[0], p[0], *p[2:]),
    "with_a_short_part": lambda p: (p[0][:-1], *p[1:]),
    "with_a_long_part": lambda p: (p[0] + b"\0", *p[1:]),
    "with_a_moved_boundary": lambda p: (p[0] + p[1][:1], p[1][1:], *p[2:]),
    "with_a_part_shorter_than_its_tag": lambda p: (p[0] + p[1][:-4], p[1][-4:], *p[2:]),
    "with_one_part_of_all": lambda p: (b"".join(p),),
    "without_parts": lambda p: (),
}


@pytest.mark.parametrize("change", ALTERED)
def test_a_message_is_refused_when_it_is(change: str, small_parts: None) -> None:
    envelope = sealed(bytes(range(60)))
    altered = replace(envelope, parts=ALTERED[change](envelope.parts))
    with pytest.raises(ValueError):
        opened(altered)


@pytest.mark.parametrize("change", ALTERED)
def test_the_cipher_alone_refuses_a_message_that_is(change: str, small_parts: None) -> None:
    """The same with a valid signature: what is left is the associated data of the parts."""
    envelope = sealed(bytes(range(60)))
    altered = replace(envelope, parts=ALTERED[change](envelope.parts))
    with pytest.raises(ValueError, match=r"decrypt|number of parts|another length"):
        opened(resigned(altered, PLACE, BANK))


def test_an_envelope_opens_by_what_is_written_about_it_and_nothing_else(small_parts: None) -> None:
    """Put together again from the RFCs: part i of m is bound besides its nonce, and the length besides m."""
    envelope = sealed(bytes(range(40)))
    place = b"".join(
        len(f).to_bytes(4, "big") + f
        for f in (
            b"X25519-HKDF-SHA256-CHACHA20POLY1305-ED25519", b"\0\1", PLACE.contract, PLACE.run, PLACE.epoch,
            b"main_job", bytes(7) + b"\7", b"psi.blind", b"bank", b"shop", PLACE.transcript,
        )
    )  # fmt: skip
    bound = place + BANK.public + (40).to_bytes(8, "big")
    secret = X25519PrivateKey.from_private_bytes(b"\x11" * 32)
    shared = secret.exchange(X25519PublicKey.from_public_bytes(envelope.ephemeral))
    info = b"fedmkt seal v1\n" + envelope.ephemeral + SHOP_PREKEY.public + hashlib.sha256(bound).digest()
    cipher = ChaCha20Poly1305(HKDF(hashes.SHA256(), 32, b"", info).derive(shared))
    plain = b""
    for i, part in enumerate(envelope.parts):
        plain += cipher.decrypt(
            i.to_bytes(12, "big"), part, bound + i.to_bytes(4, "big") + (3).to_bytes(4, "big")
        )
    assert plain == bytes(range(40))


@pytest.mark.parametrize("length", [0, 16, 43, 44, 59, 61, 76, MAX_MESSAGE_BYTES])
def test_another_total_length_is_refused_even_if_signed(length: int, small_parts: None) -> None:
    altered = replace(sealed(bytes(range(60))), length=length)
    with pytest.raises(ValueError):
        opened(altered)
    with pytest.raises(ValueError):
        opened(resigned(altered, PLACE, BANK))


@pytest.mark.parametrize("length", [-1, MAX_MESSAGE_BYTES + 1, 1 << 64])
def test_an_envelope_of_an_impossible_length_is_none_before_anybody_asks_for_its_digest(length: int) -> None:
    """A coordinator asks before a party opens: a negative length was an OverflowError there."""
    data = wire.encode(sealed(MESSAGE))
    changed = data.replace(b'"shop",%d,' % len(MESSAGE), b'"shop",%d,' % length)
    header = int.from_bytes(data[:4], "big") + len(changed) - len(data)
    with pytest.raises(ValueError, match="an envelope holds at most"):
        wire.decode(header.to_bytes(4, "big") + changed[4:], Envelope)


def test_a_shorter_message_by_its_sender_does_not_pass_for_the_declared_length(small_parts: None) -> None:
    """Truncated at a part's end, with number and length put right and signed again."""
    envelope = sealed(bytes(range(48)))
    shorter = replace(envelope, parts=envelope.parts[:2], length=32)
    with pytest.raises(ValueError, match="decrypt"):
        opened(resigned(shorter, PLACE, BANK))


def test_a_part_of_another_message_is_refused(small_parts: None) -> None:
    one, other = sealed(bytes(range(60))), sealed(bytes(range(60)), seed=b"other")
    swapped = replace(one, parts=(one.parts[0], other.parts[1], *one.parts[2:]))
    with pytest.raises(ValueError, match="signature"):
        opened(swapped)
    with pytest.raises(ValueError, match="decrypt"):
        opened(resigned(swapped, PLACE, BANK))


def test_a_part_of_another_message_under_the_same_ephemeral_key_is_refused(small_parts: None) -> None:
    """A sender whose generator repeats itself must not lose more than that message."""
    one = sealed(bytes(range(60)))
    other = sealed(bytes(60), replace(PLACE, index=8))
    assert one.ephemeral == other.ephemeral
    swapped = replace(one, parts=(one.parts[0], other.parts[1], *one.parts[2:]))
    with pytest.raises(ValueError, match="decrypt"):
        opened(resigned(swapped, PLACE, BANK))


@pytest.mark.parametrize("region", ["ephemeral", "signature", "parts"])
def test_no_single_flipped_bit_is_accepted_in_its(region: str) -> None:
    envelope = sealed()
    whole = envelope.parts[0] if region == "parts" else getattr(envelope, region)
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        value = (bytes(flipped),) if region == "parts" else bytes(flipped)
        with pytest.raises(ValueError):
            opened(replace(envelope, **{region: value}))


def test_no_single_flipped_bit_of_a_signed_ciphertext_or_key_is_accepted() -> None:
    envelope = sealed()
    for byte in range(len(envelope.parts[0])):
        part = bytearray(envelope.parts[0])
        part[byte] ^= 0x80
        with pytest.raises(ValueError, match="decrypt"):
            opened(resigned(replace(envelope, parts=(bytes(part),)), PLACE, BANK))
    for bit in range(8 * 31):  # RFC 7748 ignores the top bit of a point: the key derivation must not
        point = bytearray(envelope.ephemeral)
        point[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):
            opened(resigned(replace(envelope, ephemeral=bytes(point)), PLACE, BANK))


def test_the_ignored_top_bit_of_an_ephemeral_key_is_bound_all_the_same() -> None:
    envelope = sealed()
    point = bytes([*envelope.ephemeral[:31], envelope.ephemeral[31] ^ 0x80])
    secret = X25519PrivateKey.from_private_bytes(b"\x11" * 32)
    shared = {secret.exchange(X25519PublicKey.from_public_bytes(p)) for p in (point, envelope.ephemeral)}
    assert len(shared) == 1
    with pytest.raises(ValueError, match="decrypt"):
        opened(resigned(replace(envelope, ephemeral=point), PLACE, BANK))


def _mutate(envelope: Envelope, draw: random.Random) -> Envelope:
    """Change one thing at random: a bit, a byte, a length, an order, a name."""

    def bent(data: bytes) -> bytes:
        way = draw.randrange(5)
        at = draw.randrange(len(data)) if data else 0
        if way == 0 and data:
            return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        if way == 1 and data:
            return data[:at] + data[at + 1 :]
        if way == 2:
            return data[:at] + bytes([draw.randrange(256)]) + data[at:]
        if way == 3 and data:
            return data[: at // 2] + draw.randbytes(1 + at // 3) + data[at:]
        return draw.randbytes(len(data))

    field = draw.choice(["length", "ephemeral", "signature", "parts", "order", "sender", "reader"])
    parts = list(envelope.parts)
    if field == "length":
        return replace(envelope, length=envelope.length + draw.choice([-2, -1, 1, 2, 16, 1 << 20, -9]))
    if field == "order":
        draw.shuffle(parts)
        return replace(envelope, parts=tuple(parts))
    if field == "parts":
        at = draw.randrange(len(parts))
        parts[at] = bent(parts[at])
        return replace(envelope, parts=tuple(parts))
    if field in ("sender", "reader"):
        return replace(envelope, **{field: draw.choice(["bank ", "Bank", "", "shop", "bank\0", "x"])})
    return replace(envelope, **{field: bent(getattr(envelope, field))})


def test_none_of_two_thousand_random_mutations_is_accepted(small_parts: None) -> None:
    draw = random.Random(20)
    envelope = sealed(bytes(range(60)))
    tried = 0
    while tried < 2000:
        mutated = _mutate(envelope, draw)
        if mutated == envelope:
            continue
        tried += 1
        with pytest.raises(ValueError):
            opened(mutated)
