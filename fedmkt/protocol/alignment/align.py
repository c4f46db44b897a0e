"""Split: which common customers train the model and which are held out.

Computes a keyed hash of each person's normalised id under a key that all parties made together.
Takes part: all parties that hold data. Each learns the key; the coordinator learns nothing. The hash is of
the person, never of a position: rows do not wander between train and test when a list grows. Where boosted trees
stop early, or penalties are tried, a second hash, under a key that follows from this one and from the run's number,
says which of the train rows tell when, or which: other ones in each run.
Safe against parties that choose their part of the key after seeing the others' (commit, then reveal); a party
that reveals another value than it committed to is refused.
Source: protocols.md section 1; commitments by SHA-256 with a 32-byte random value.
"""

import hashlib
import hmac
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.errors import DataError, PeerError
from fedmkt.protocol.alignment.items import NO_ROW, Bytes, Rows
from fedmkt.protocol.alignment.psi import Aligned, Customers, Overlap
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Nothing,
    Outcome,
    PublicValue,
    Silent,
    State,
    Step,
    Turn,
    ask,
    data_parties,
    inbox_of,
    to_all,
)


@dataclass(frozen=True)
class Commitment(Message):
    """A hash of a part of the split key."""

    digest: bytes


@dataclass(frozen=True)
class Part(Message):
    """A part of the split key."""

    secret: bytes


@dataclass(frozen=True)
class KeyPart(State):
    """The own part of the split key, the same for every contract of one family."""

    secret: bytes


@dataclass(frozen=True)
class Commitments(State):
    """What the others committed to."""

    digests: dict[str, bytes]


@dataclass(frozen=True)
class Split(State):
    """Own rows in the common order, padded with NO_ROW: train, held out, and without label.

    Where the match is hidden they are not padded, and all of the partner's rows are in `train`.
    """

    train: Rows
    held_out: Rows
    unlabelled: Rows


@dataclass(frozen=True)
class Slots(State):
    """Hidden match: the own row of each joint row, for training and for scoring; NO_ROW where it counts for nothing.

    At the partner both are its whole list: the bank alone knows who is common, and who of them is held out.
    """

    train: Rows
    scored: Rows


@dataclass(frozen=True)
class Validation(State):
    """Which train rows, (n,) with padding, do not train: they tell when trees are enough, or which penalty is best.

    The same at all parties, other ones in each run. Drawn by person where all know who stands where; else by place,
    padding too.
    """

    rows: NDArray[np.bool_]


def validation_rows(turn: Turn) -> NDArray[np.bool_]:
    """Tell which train rows, padded, do not train."""
    if turn.has(Validation):
        return turn.recall(Validation).rows
    return np.zeros(len(joint_rows(turn, True)), np.bool_)


def check_validation(turn: Turn) -> None:
    """Refuse to stop early by few rows: DataError, which says no number but the one that is asked for."""
    limits, trees = turn.contract.limits, turn.contract.trees
    found = int((validation_rows(turn) & (joint_rows(turn, True) != NO_ROW)).sum())
    # On shares each tree, grown again after a resume too, tells a number about them: never more numbers than rows.
    again = limits.max_resumes * turn.contract.model.checkpoint_every
    least = max(limits.min_support, trees.trees + again if trees.reveal == "totals" else 0)
    if trees.patience and found < least:
        raise DataError(
            f"{turn.me}: fewer than {least} rows say when to stop",
            "give a larger trees.validation_fraction, or no trees.patience",
        )


def joint_rows(turn: Turn, training: bool) -> Rows:
    """Return the own row of each joint row of a stage, NO_ROW where there is none."""
    if turn.contract.align.hidden:
        slots = turn.recall(Slots)
        return slots.train if training else slots.scored
    found = turn.recall(Split)
    return found.train if training else np.concatenate([found.held_out, found.unlabelled])


def padded_rows(high: int, share: float) -> int:
    """Return how many rows hold a random `share` of `high` people but once in a thousand million (6 sigma)."""
    return min(high, math.ceil(high * share + 6 * math.sqrt(high * share * (1 - share))))


def train_rows(contract: Contract, overlap: Overlap) -> int:
    """Return the number of training rows, padded: a function of public values only."""
    return overlap.slots or padded_rows(overlap.labelled_high, 1 - contract.model.test_fraction)


def train_rows_at_least(contract: Contract, overlap: Overlap) -> float:
    """Return a number that the real training rows exceed but once in a thousand million (6 sigma)."""
    share, low = 1 - contract.model.test_fraction, overlap.labelled_low
    return low * share - 6 * math.sqrt(low * share * (1 - share))


def validation_fraction(contract: Contract) -> float:
    """Return the share of train rows that validate; 0 where training is neither stopped early nor repeated."""
    if contract.model.penalties:
        return contract.model.validation_fraction
    is_stopped = contract.model.kind == "trees" and contract.trees.patience
    return contract.trees.validation_fraction if is_stopped else 0.0


def validation_length(contract: Contract, overlap: Overlap) -> int:
    """Return the number of rows that validate, padded."""
    return padded_rows(train_rows(contract, overlap), validation_fraction(contract))


def scored_rows(contract: Contract, overlap: Overlap) -> int:
    """Return the number of rows to score, padded: held-out rows, then rows without label."""
    held_out = padded_rows(overlap.labelled_high, contract.model.test_fraction)
    return overlap.slots or held_out + overlap.unlabelled_high


def _store_key(contract: Contract) -> str:
    return f"split/{contract.family}"


def _commit(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Commitment, Silent]:
    kept = turn.store.get(_store_key(turn.contract))
    secret = kept or turn.random(32)
    sent = to_all(turn.others, Commitment(_digest(turn, turn.me, secret)))
    remember = {} if kept else {_store_key(turn.contract): secret}
    return Outcome(Silent(), send=sent, keep=(KeyPart(secret),), remember=remember)


@dataclass(frozen=True)
class SplitKey(PublicValue):
    """A hash of the split key: all parties must have the same one."""

    digest: bytes


def _reveal(turn: Turn, inbox: Inbox[Commitment]) -> Outcome[Part, Silent]:
    digests = {str(p): c.digest for p, c in inbox.by_sender(Commitment).items()}
    if set(digests) != set(turn.others):
        raise PeerError(f"{turn.me}: split: a commitment is missing")
    return Outcome(
        Silent(), send=to_all(turn.others, Part(turn.recall(KeyPart).secret)), keep=(Commitments(digests),)
    )


def _peers_key(turn: Turn) -> str:
    peers = ",".join(turn.contract.party(p).key for p in turn.others)
    return f"split peers/{turn.contract.family}/{peers}"


def _split(turn: Turn, inbox: Inbox[Part]) -> Outcome[Nothing, SplitKey]:
    parts = {turn.me: turn.recall(KeyPart).secret}
    for party, part in inbox.by_sender(Part).items():
        if not hmac.compare_digest(
            _digest(turn, party, part.secret), turn.recall(Commitments).digests[party]
        ):
            raise PeerError(f"{party}: split.reveal: not what it committed to")
        parts[party] = part.secret
    if set(parts) != set(turn.parties):
        raise PeerError(f"{turn.me}: split: a part of the key is missing")
    key = hashlib.sha256(b"fedmkt split key v1\n" + b"".join(parts[p] for p in turn.parties)).digest()
    # Parts are known to all since the family's first run: whoever changes its own now could choose the split.
    seen = hashlib.sha256(b"".join(parts[p] for p in turn.others)).digest()
    if turn.store.get(_peers_key(turn), seen) != seen:
        raise PeerError(
            f"{turn.me}: split.reveal: another part of the key than in earlier runs of the family"
        )
    overlap = turn.published(Overlap, turn.parties[0])
    digest = hashlib.sha256(b"fedmkt split key digest v1\n" + key).digest()
    return Outcome(
        SplitKey(digest),
        keep=_divide_hidden(turn, key) if turn.contract.align.hidden else _divide(turn, key, overlap),
        forget=(KeyPart, Commitments),
        remember={_peers_key(turn): seen},
    )


def _divide(turn: Turn, key: bytes, overlap: Overlap) -> tuple[State, ...]:
    aligned = turn.recall(Aligned)
    is_own = aligned.labelled != NO_ROW
    own = aligned.labelled[is_own]
    keys = aligned.keys[is_own] if len(aligned.keys) else np.zeros(len(own), np.uint8)
    ids = _matched_ids(turn, own, keys)
    held = held_out(key, ids, turn.contract.model.test_fraction)
    train = train_rows(turn.contract, overlap)
    test = scored_rows(turn.contract, overlap) - overlap.unlabelled_high
    divided = Split(_fill(own[~held], train), _fill(own[held], test), aligned.unlabelled)
    if turn.contract.align.join == "left":
        return (divided, *_validation_places(turn, key, train))
    names = tuple(i for i, is_held in zip(ids, held, strict=True) if not is_held)
    return (divided, *_validation(turn, key, names, train))


def _validation_places(turn: Turn, key: bytes, train: int) -> tuple[State, ...]:
    return _validation(turn, key, tuple(map(str, range(train))), train)


def _validation(turn: Turn, key: bytes, names: tuple[str, ...], train: int) -> tuple[State, ...]:
    """Draw the rows that validate by the names of the first rows, if the contract wants any."""
    if not (fraction := validation_fraction(turn.contract)):
        return ()
    rows = np.zeros(train, np.bool_)
    # Anew in each run: of two runs that draw the same rows and weigh one of them differently, the sums tell its error.
    own_key = hmac.digest(key, b"fedmkt validation rows v2\n" + turn.run, "sha256")
    rows[: len(names)] = held_out(own_key, names, fraction)
    return (Validation(rows),)


def _divide_hidden(turn: Turn, key: bytes) -> tuple[State, ...]:
    """Divide at the bank; the partner, who does not know whom to divide, takes its whole list for all of it."""
    aligned, none = turn.recall(Aligned), np.empty(0, np.int64)
    rows = aligned.labelled
    if not turn.first:
        return (Split(rows, none, none), Slots(rows, rows), *_validation_places(turn, key, len(rows)))
    customers = turn.recall(Customers)
    real = np.flatnonzero(rows != NO_ROW)
    labelled = np.ones(len(real), bool) if customers.labelled is None else customers.labelled[rows[real]]
    keys = aligned.keys[real] if len(aligned.keys) else np.zeros(len(real), np.uint8)
    held = held_out(key, _matched_ids(turn, rows[real], keys), turn.contract.model.test_fraction)
    train, scored = np.full((2, len(rows)), NO_ROW)
    train[real[labelled & ~held]] = rows[real[labelled & ~held]]
    scored[real[held | ~labelled]] = rows[real[held | ~labelled]]
    parts = (rows[real[labelled & ~held]], rows[real[labelled & held]], rows[real[~labelled]])
    return (Split(*parts), Slots(train, scored), *_validation_places(turn, key, len(rows)))


def _matched_ids(turn: Turn, rows: Rows, keys: Bytes) -> tuple[str, ...]:
    """Return the id by which each row was matched: with several keys the first one may differ between parties."""
    by_key = turn.recall(Customers).by_key
    return tuple(by_key[k][r] or "" for r, k in zip(rows.tolist(), keys.tolist(), strict=True))


def held_out(key: bytes, ids: tuple[str, ...], fraction: float) -> NDArray[np.bool_]:
    """Tell for each id whether it is held out: a keyed hash below `fraction`."""
    digests = b"".join(hmac.digest(key, i.encode(), "sha256")[:8] for i in ids)
    return np.frombuffer(digests, ">u8").astype(np.float64) < fraction * 2.0**64


def _fill(rows: Rows, length: int) -> Rows:
    if len(rows) > length:
        raise ValueError("more rows than their padded number: once in a thousand million splits")
    out = np.full(length, NO_ROW, dtype=np.int64)
    out[: len(rows)] = rows
    return out


def _digest(turn: Turn, party: str, secret: bytes) -> bytes:
    return hashlib.sha256(
        b"fedmkt split commitment v1\n" + turn.run + party.encode() + b"\0" + secret
    ).digest()


COMMIT = Step("split.commit", _commit, Silent)
REVEAL = Step("split.reveal", _reveal, Silent, reads=(Commitment,))
SPLIT = Step("split.divide", _split, SplitKey, reads=(Part,))


def split(call: Caller, contract: Contract) -> None:
    """Make the split key together and divide the common customers by it: three rounds."""
    parties = data_parties(contract)
    commitments = call.all([ask(p, COMMIT) for p in parties])
    parts = call.all([ask(p, REVEAL, *inbox_of(commitments, p)) for p in parties])
    keys = call.all([ask(p, SPLIT, *inbox_of(parts, p)) for p in parties])
    if len({k.public.value.digest for k in keys}) != 1:
        raise PeerError("split: the parties do not have the same key: one of them sent different parts")
