"""Messages that are altered, moved, repeated or spliced on their way (row 13): how many are opened.

The messages of the run, sealed once more with keys of the lab's own: each is offered at another place, in another
epoch, run or contract, to its own sender, with one bit changed, cut, or with the body of another. Undefended:
the same messages under one session key, each authenticated by itself (ChaCha20-Poly1305), without place or signature.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Subject
from fedmkt.contract.canonical import digest
from fedmkt.crypto.seal import Envelope, Place, Prekey, open_sealed, seal
from fedmkt.crypto.sign import Identity
from fedmkt.protocol import wire

_SHORT = 20_000
_SAMPLE = 24


@dataclass(frozen=True)
class Sent:
    """One message as it travels: with its place, sealed, and under the control's key."""

    place: Place
    envelope: Envelope
    plain: bytes
    nonce: bytes


Change = Callable[[Sent, Sent, np.random.Generator], tuple[Envelope, Place]]


def _flip(data: bytes, random: np.random.Generator) -> bytes:
    at = int(random.integers(8 * len(data)))
    return data[: at // 8] + bytes([data[at // 8] ^ (1 << at % 8)]) + data[at // 8 + 1 :]


CHANGES: dict[str, Change] = {
    "flip body": lambda a, b, r: (replace(a.envelope, parts=(_flip(a.envelope.parts[0], r),)), a.place),
    "flip key": lambda a, b, r: (replace(a.envelope, ephemeral=_flip(a.envelope.ephemeral, r)), a.place),
    "flip signature": lambda a, b, r: (
        replace(a.envelope, signature=_flip(a.envelope.signature, r)),
        a.place,
    ),
    "cut": lambda a, b, r: (replace(a.envelope, parts=(a.envelope.parts[0][:-1],)), a.place),
    "longer": lambda a, b, r: (replace(a.envelope, length=a.envelope.length + 1), a.place),
    "splice": lambda a, b, r: (
        replace(a.envelope, parts=b.envelope.parts, length=b.envelope.length),
        a.place,
    ),
    "reorder": lambda a, b, r: (a.envelope, b.place),
    "replay later": lambda a, b, r: (
        a.envelope,
        replace(a.place, index=a.place.index + int(r.integers(1, 99))),
    ),
    "another epoch": lambda a, b, r: (a.envelope, replace(a.place, epoch=_flip(a.place.epoch, r))),
    "another run": lambda a, b, r: (a.envelope, replace(a.place, run=_flip(a.place.run, r))),
    "another contract": lambda a, b, r: (a.envelope, replace(a.place, contract=_flip(a.place.contract, r))),
    "another story": lambda a, b, r: (a.envelope, replace(a.place, transcript=_flip(a.place.transcript, r))),
    "reflect": lambda a, b, r: (a.envelope, replace(a.place, sender=a.place.reader, reader=a.place.sender)),
}
_MOVES = {
    "reorder",
    "replay later",
    "another epoch",
    "another run",
    "another contract",
    "another story",
    "reflect",
}


def altered(subject: Subject, effort: Effort) -> Finding:
    """Row 13: how many of so many altered messages are opened."""
    random = effort.random
    identity, prekey = Identity(random.bytes(32)), Prekey(random.bytes(32))
    cipher = ChaCha20Poly1305(random.bytes(32))
    sent = sealed_again(subject, identity, prekey, random)
    here = undefended = 0
    names = list(CHANGES)
    for number in range(effort.messages):
        name = names[number % len(names)]
        one, other = (sent[int(i)] for i in random.choice(len(sent), 2, replace=False))
        envelope, place = CHANGES[name](one, other, random)
        here += is_opened(envelope, place, identity.public, prekey)
        undefended += _is_opened_without_place(name, one, cipher, random)
    return Finding(
        13, "altered or repeated messages", "accepted", float(undefended), float(here), Limit(0),
        f"{effort.messages:,} of {len(CHANGES)} kinds, from {len(sent)} messages of the run",
    )  # fmt: skip


def sealed_again(
    subject: Subject, identity: Identity, prekey: Prekey, random: np.random.Generator
) -> list[Sent]:
    """Seal the first short messages of a run once more, each at a place of its own."""
    contract, found = digest(subject.contract), list[Sent]()
    for index, moment in enumerate(subject.views.all):
        for reader, message in moment.sent:
            plain = wire.encode(message)
            if len(plain) < _SHORT and len(found) < _SAMPLE:
                place = Place(
                    contract, random.bytes(32), random.bytes(16), "train", index, moment.step, moment.party, reader,
                    random.bytes(32),
                )  # fmt: skip
                sealed = seal(plain, place, identity, prekey.public, random.bytes)
                found.append(Sent(place, sealed, plain, random.bytes(12)))
    return found


def is_opened(envelope: Envelope, place: Place, public: bytes, prekey: Prekey) -> bool:
    """Tell whether a reader at this place accepts the envelope."""
    try:
        open_sealed(envelope, place, public, prekey)
    except ValueError:
        return False
    return True


def _is_opened_without_place(
    name: str, one: Sent, cipher: ChaCha20Poly1305, random: np.random.Generator
) -> bool:
    sealed = cipher.encrypt(one.nonce, one.plain, None)
    moved = sealed if name in _MOVES else _flip(sealed, random)
    try:
        cipher.decrypt(one.nonce, moved, None)
    except InvalidTag:
        return False
    return True
