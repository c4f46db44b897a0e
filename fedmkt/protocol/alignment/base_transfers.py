"""How the engines `ot` and `vole` begin: a session key that both sides toss, and the base transfers.

Takes part: the bank and one partner; with two partners the bank begins a session with each. The bank commits to its
half of the session key and offers a point, the partner shows its own half with its choices, the bank then opens its
half: neither chooses the key, nor anything that follows from it. The choices stay with the partner, of each pair of
keys it knows the one it chose, the bank both (`crypto.base_ot`).
Semi-honest parties; a half other than the committed one and malformed points are refused. Everything is bound to the
engine, the run, the epoch and the two names.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

from fedmkt.crypto import base_ot
from fedmkt.crypto.prg import derive
from fedmkt.errors import PeerError
from fedmkt.protocol.alignment.items import Bytes
from fedmkt.protocol.core import Message, Name, Turn

SEED_BYTES = 32
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Offer(Message):
    """The bank begins: its point for the transfers, and a hash of its half of the session key."""

    point: bytes
    commitment: bytes


@dataclass(frozen=True)
class Choice(Message):
    """The partner's points for the transfers, (k, 32), and its half of the session key."""

    points: Bytes
    seed: bytes


@dataclass(frozen=True)
class Begun:
    """What the bank keeps of its offer: its half of the session key, and the secret of its point."""

    seed: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    point: bytes


@dataclass(frozen=True)
class Chosen:
    """What a partner keeps of its answer: the keys it chose, (k, 16), its half, and the bank's commitment."""

    keys: Bytes = field(repr=False)
    seed: bytes = field(repr=False)
    commitment: bytes


def begin(turn: Turn, engine: str, partner: Name) -> tuple[Begun, Offer]:
    """Make the bank's offer to one partner."""
    begun = Begun(turn.random(SEED_BYTES), *base_ot.offer(turn.random))
    return begun, Offer(begun.point, _commitment(turn, engine, partner, begun.seed))


def answer(turn: Turn, engine: str, offer: Offer, bits: Bytes) -> tuple[Chosen, Choice]:
    """Choose by `bits` (k,) at the partner. PeerError for a point that is none."""
    bank = turn.parties[0]
    if len(offer.commitment) != _DIGEST_BYTES:
        raise PeerError(f"{bank}: psi.{engine}.offer: a commitment of another length")
    seed = turn.random(SEED_BYTES)
    binding = _binding(turn, engine, turn.me, offer.commitment, seed)
    try:
        points, keys = base_ot.choose(bits, offer.point, turn.random, binding)
    except ValueError:
        raise PeerError(f"{bank}: psi.{engine}.offer: not a point of the group") from None
    return Chosen(keys, seed, offer.commitment), Choice(points, seed)


def both_keys(
    turn: Turn, engine: str, partner: Name, begun: Begun, choice: Choice, transfers: int
) -> tuple[Bytes, Bytes]:
    """Return both keys of each transfer at the bank, (k, 16) each. PeerError for a malformed choice."""
    if choice.points.shape != (transfers, 32) or len(choice.seed) != SEED_BYTES:
        raise PeerError(
            f"{partner}: psi.{engine}.choose: wrong number of points, or a seed of another length"
        )
    commitment = _commitment(turn, engine, partner, begun.seed)
    binding = _binding(turn, engine, partner, commitment, choice.seed)
    try:
        return base_ot.derive(begun.secret, begun.point, choice.points, binding)
    except ValueError:
        raise PeerError(f"{partner}: psi.{engine}.choose: not a point of the group") from None


def check_opened(turn: Turn, engine: str, step: str, chosen: Chosen, seed: bytes) -> None:
    """Refuse, at the partner, a half of the session key, opened by `step`, that is not the committed one."""
    opened = _commitment(turn, engine, turn.me, seed)
    if len(seed) != SEED_BYTES or not hmac.compare_digest(opened, chosen.commitment):
        raise PeerError(f"{turn.parties[0]}: psi.{engine}.{step}: not the seed that it committed to")


def session_key(turn: Turn, engine: str, partner: Name, banks: bytes, partners: bytes) -> bytes:
    """Join both halves of the session key: 32 bytes."""
    return derive(banks + partners, _context(turn, engine, partner) + b"session")


def _context(turn: Turn, engine: str, partner: Name) -> bytes:
    """Name one session of one run, with lengths, so that no two names share bytes."""
    parts = (turn.run, turn.epoch.to_bytes(8, "big"), turn.parties[0].encode(), partner.encode())
    return f"fedmkt psi {engine} v1\n".encode() + b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def _commitment(turn: Turn, engine: str, partner: Name, seed: bytes) -> bytes:
    return hashlib.sha256(_context(turn, engine, partner) + b"commitment" + seed).digest()


def _binding(turn: Turn, engine: str, partner: Name, commitment: bytes, seed: bytes) -> bytes:
    """Name the session of the transfers: before its key is known, but in no other run the same."""
    return hashlib.sha256(_context(turn, engine, partner) + b"transfers" + commitment + seed).digest()
