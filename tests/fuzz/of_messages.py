"""Targets: what arrives over a connection."""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedmkt.crypto.seal import Envelope, Place, Prekey, open_sealed, seal
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.messages import Outcome, Serve, decode_outcome, decode_serve, encode_outcome, encode_serve
from fedmkt.errors import PeerError
from fedmkt.party.journal import Snapshot
from fedmkt.protocol import wire
from fedmkt.protocol.alignment.items import Tags
from fedmkt.protocol.alignment.psi import Matched
from fedmkt.protocol.core import Masked, Name, Words
from fedmkt.protocol.session import Answer, Hello, Invitation, Opening, Request, check_signed
from fedmkt.protocol.turns import Receipt
from fedmkt.transport import hub_frames as frames
from fedmkt.transport.driver import ASKS, Refusal
from fedmkt.transport.flower_grid import decode_told
from fedmkt.transport.hub_link import Link, LinkBroken, LinkLimits
from fedmkt.transport.pipe import read_letter, write_letter
from fedmkt.transport.probe import _unchunked
from tests.contract.agreed import contract, signed
from tests.fuzz.target import Target

SENDER, PLACE = (
    Identity(bytes([1]) * 32),
    Place(b"c" * 32, b"r" * 32, b"e", "s", 3, "psi", "bank", "shop", b"t" * 32),
)
PREKEY = Prekey(bytes([7]) * 32)
RECEIPT = Receipt(3, 1, "bank", "psi.blind", b"d" * 32, b"p" * 80, (("shop", b"e" * 32, 9),), (), b"s" * 64)
KEYS = {Name("bank"): SENDER.public}


@dataclass(frozen=True)
class Mixed:
    """One field of each kind that a message may have."""

    number: int
    real: float
    flag: bool
    text: str
    key: bytes
    words: Words
    opening: Masked[Words]
    many: tuple[Receipt, ...]
    by_name: dict[str, bytes]
    maybe: Words | None


def _envelope() -> Envelope:
    return seal(b"the message" * 9, PLACE, SENDER, PREKEY.public, lambda n: bytes([5]) * n)


@functools.cache
def _asks() -> Sequence[bytes]:
    envelope = _envelope()
    return [
        wire.encode(message)
        for message in (
            Invitation(b"", 1),
            Request(4, "psi.match", (RECEIPT,), (envelope,)),
            Opening((_hello(),), (RECEIPT,)),
        )
    ]


def _hello() -> Hello:
    return Hello(b"c" * 32, b"", 1, "bank", b"n" * 32, b"p" * 32, (58,), (("shop", 7),), "0.1", b"s" * 64)


def _replies() -> Sequence[bytes]:
    return [
        wire.encode(message)
        for message in (_hello(), Answer(RECEIPT, (_envelope(),)), Refusal("PolicyRefused", "opening"))
    ]


def _messages() -> Sequence[bytes]:
    words = np.arange(6, dtype=np.uint64)
    mixed = Mixed(-3, 0.1, True, "Zürich", b"k" * 70, words, Masked(words), (RECEIPT,), {"a": b"1"}, None)
    matched = Matched(np.array([1, 2**32 - 1], np.uint32), bytes(32))
    snapshot = Snapshot(3, 2, b"t" * 32, {"Tags": b"x" * 40})
    return [wire.encode(message) for message in (mixed, matched, RECEIPT, snapshot)]


def _open(data: bytes) -> None:
    """Open an envelope as it came, and one signed anew: what its sender made of it, no signature forbids."""
    envelope = wire.decode(data, Envelope)
    anew = SENDER.sign(bytes(PLACE) + SENDER.public + envelope.length.to_bytes(8, "big") + envelope.digest)
    for one in (envelope, replace(envelope, sender="bank", reader="shop", signature=anew)):
        try:
            open_sealed(one, PLACE, SENDER.public, PREKEY)
        except ValueError:
            continue


def _check_signatures(data: bytes) -> None:
    """Check what the signatures of a hello and a receipt cover: their fields are still anything that the wire takes."""
    told = wire.decode(data, Hello, Receipt)
    if isinstance(told, Hello):
        check_signed(Name("bank"), told, KEYS)
    else:
        told.check(b"r" * 32, b"t" * 32, KEYS)


def _signed_words() -> Sequence[bytes]:
    hello, receipt = _hello(), RECEIPT
    return [
        wire.encode(replace(hello, signature=SENDER.sign(hello.signed_bytes()))),
        wire.encode(replace(receipt, signature=SENDER.sign(receipt.signed_bytes(b"r" * 32, b"t" * 32)))),
    ]


def _frames() -> Sequence[bytes]:
    session = bytes(range(frames.SESSION_BYTES))
    here = (True, False)
    return [
        frames.write_challenge(bytes(frames.CHALLENGE_BYTES), b"certificate"),
        frames.write_join(frames.Join(session, bytes(frames.SIGNATURE_BYTES), ("bank", "shop"))),
        frames.write_welcome(frames.Welcome(0, 1 << 26, 1 << 16, 5000, ("bank", "shop"), here)),
        frames.write_hello(frames.Hello(0, 1, 0, 5, 9, 1, 0, b"i" * 8, b"k" * 8)),
        frames.write_ack(frames.Ack(0, 1, 7, 5, 9)),
        frames.write_data_head(0, 1, frames.DataHead(0, 7, 0, 0, 9, 3)) + b"abc",
    ]


def _read_frame(data: bytes) -> None:
    readers = (
        frames.read_head, frames.read_challenge, frames.read_join, frames.read_welcome, frames.read_hello,
        frames.read_ack, frames.read_data_head,
    )  # fmt: skip
    for read in readers:
        try:
            read(data)
        except ValueError:
            continue


def _link() -> Link:
    return Link(0, 1, b"i" * 8, LinkLimits(chunk=1 << 10, window=4 << 10, outbox=8 << 10, message=1 << 16))


def _link_frames() -> Sequence[bytes]:
    """What the other end of a link sends, each frame behind its length."""
    here, there = _link(), Link(1, 0, b"j" * 8, LinkLimits(1 << 10, 4 << 10, 8 << 10, 1 << 16))
    there.push([b"x" * 3000])
    here.push([b"y" * 1500])
    sent = []
    for _ in range(6):
        while (frame := there.next_frame()) is not None:
            sent.append(frame)
            here.accept(frame)
        while (frame := here.next_frame()) is not None:
            there.accept(frame)
    return [b"".join(len(f).to_bytes(2, "big") + f for f in sent)]


def _accept(data: bytes) -> None:
    link, at = _link(), 0
    link.push([b"y" * 1500])
    while at + 2 <= len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        link.accept(data[at + 2 : end])
        while link.next_frame() is not None:
            pass
        link.take()
        at = end


def _letter() -> Sequence[bytes]:
    letter = io.BytesIO()
    write_letter(letter, [b"a letter" * 20])
    return [letter.getvalue()]


def _invitations() -> Sequence[bytes]:
    return [
        encode_serve(Serve(signed(contract()), b"s" * 16)),
        encode_serve(Serve(signed(contract()), b"", 7, 1)),
    ]


TARGETS = (
    Target("wire-asks", lambda d: wire.decode(d, *ASKS), _asks, (ValueError,)),
    Target("wire-replies", decode_told, _replies, (ValueError,)),
    Target(
        "wire-messages",
        lambda d: wire.decode(d, Mixed, Matched, Receipt, Snapshot, Tags),
        _messages,
        (ValueError,),
    ),
    Target(
        "signed-words",
        _check_signatures,
        _signed_words,
        (ValueError, PeerError),
    ),
    Target("envelope", _open, lambda: [wire.encode(_envelope())], (ValueError,)),
    Target("hub-frames", _read_frame, _frames, ()),
    Target("hub-link", _accept, _link_frames, (LinkBroken,)),
    Target("pipe-letter", lambda d: read_letter(io.BytesIO(d)), _letter),
    Target("serve-message", decode_serve, _invitations),
    Target("outcome-message", decode_outcome, lambda: [encode_outcome(Outcome("PeerError", "psi"))]),
    Target("http-chunks", _unchunked, lambda: [b"5\r\nhello\r\n0\r\n\r\n"], ()),
)
