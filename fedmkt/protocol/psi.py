"""Private set intersection by an oblivious pseudorandom function (OPRF).

Computes which customers all parties share, and puts their rows in one order at every party.
Takes part: the bank (receiver) and one or two partners (senders).

| learns | what |
|---|---|
| bank | which of its rows each partner has; the length of each partner's list |
| partner | **which of its people bank there** (those all parties share), who of them is in the campaign |
| partner | the length of the bank's list |
| coordinator, dealer | bands: how many in common, with and without label |

Safe against semi-honest parties. A bank cannot claim rows that it does not have (each claimed match carries
its proof) and a malformed point is refused; it may still ask about people whom it only guesses, up to the
length of its list. A partner cannot enforce a minimum before the bank has seen the match; it checks before it
aligns. Two partners that put their lists together learn what their common people are.

Source: RFC 9497 (mode OPRF, ristretto255-SHA512), Jarecki et al. 2HashDH; the proof half: protocols.md
section 1. Letters: a point is 32 bytes, an output 64 bytes: tag (16), proof (16), rest unused. n is a number
of rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract import Contract, digest
from fedmkt.crypto import oprf
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.privacy.disclosure import EVERYONE, CampaignRows, Disclosure, ListSize, MatchedOwnRows, SetSize
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
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
from fedmkt.protocol.witness import witness

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]

TAG_BYTES = 16
NO_ROW = -1


@dataclass(frozen=True)
class Customers(State):
    """A party's own list: one normalised id per row, and for the bank which rows have a label."""

    durable = False
    ids: tuple[str, ...]
    labelled: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Blinded(Message):
    """Hashed ids times a secret: uniform group elements. points : (n, 32)."""

    points: Bytes


@dataclass(frozen=True)
class Evaluated(Message):
    """The bank's points under the sender's key, and the tags of the sender's own list in random order.

    points : (n, 32), tags : (m, 16).
    """

    points: Bytes
    tags: Bytes


@dataclass(frozen=True)
class Matched(Message):
    """Claimed matches: positions in the sender's tags with the proof halves, padded to the bands.

    positions : (high_l + high_u,), NO_ROW where padded; proofs : (high_l + high_u, 16). Rows with a label
    first.
    """

    positions: Rows
    proofs: Bytes


@dataclass(frozen=True)
class Overlap(PublicValue):
    """How many customers all parties share, as bands: with a label, and without."""

    labelled_low: int
    labelled_high: int
    unlabelled_low: int
    unlabelled_high: int


@dataclass(frozen=True)
class ReceiverSecrets(State):
    """The bank's blinds."""

    scalars: Bytes


@dataclass(frozen=True)
class SenderOutputs(State):
    """A partner's own outputs in the order of its tags, with the rows they belong to."""

    proofs: Bytes
    rows: Rows
    bank_rows: int


@dataclass(frozen=True)
class Aligned(State):
    """Own rows of the common customers, in the order that all parties share; NO_ROW where padded."""

    labelled: Rows
    unlabelled: Rows


def oprf_inputs(contract: Contract, ids: tuple[str, ...]) -> list[bytes]:
    """Prefix each id with the contract's digest and its type: equal people of two contracts look unrelated."""
    kind = contract.bank.id_kind
    prefix = digest(contract) + kind.encode() + b"\0"
    return [prefix + i.encode() for i in ids]


def band_width(bank_rows: int, partner_rows: int) -> int:
    """Return the width of a count's band: one percent of the shortest list, at least 10."""
    return max(10, -(-min(bank_rows, partner_rows) // 100))


def band(count: int, width: int) -> tuple[int, int]:
    """Return the band of a count: low < count <= high, both multiples of `width`; none is (0, 0)."""
    high = -(-count // width) * width
    return max(0, high - width), high


def _blind(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Blinded, Silent]:
    if turn.has(ReceiverSecrets) or turn.has(Aligned):
        raise PolicyRefused("a second intersection in one run")
    customers = turn.recall(Customers)
    if len(customers.ids) < turn.contract.limits.min_list:
        raise PolicyRefused("the list is shorter than the contract's minimum")
    scalars, points = oprf.blind_all(oprf_inputs(turn.contract, customers.ids), turn.random)
    sizes = tuple(ListSize(to=p, rows=len(customers.ids)) for p in turn.others)
    return Outcome(
        Silent(), send=to_all(turn.others, Blinded(points)), keep=(ReceiverSecrets(scalars),), reveals=sizes
    )


def _evaluate(turn: Turn, inbox: Inbox[Blinded]) -> Outcome[Evaluated, Silent]:
    if turn.has(SenderOutputs) or turn.has(Aligned):
        raise PolicyRefused("a second intersection in one run")
    customers = turn.recall(Customers)
    bank = turn.parties[0]
    points = _points(inbox.one(bank, Blinded).points)
    minimum = turn.contract.limits.min_list
    if len(customers.ids) < minimum or len(points) < minimum:
        raise PolicyRefused("a list is shorter than the contract's minimum")
    if len(points) > turn.contract.limits.max_list:
        raise PolicyRefused("the bank asks about more people than the contract's maximum")
    # A fresh key per run: equal ids of two runs have unrelated tags.
    key = oprf.new_key(turn.random)
    outputs = oprf.evaluate_inputs(key, oprf_inputs(turn.contract, customers.ids))
    order = np.lexsort(outputs[:, :8].T)
    evaluated = Evaluated(oprf.evaluate_all(key, points), np.ascontiguousarray(outputs[order, :TAG_BYTES]))
    kept = SenderOutputs(
        outputs[order, TAG_BYTES : 2 * TAG_BYTES].copy(), order.astype(np.int64), len(points)
    )
    reveals = (
        ListSize(to=bank, rows=len(customers.ids)),
        _may_match(turn, bank, len(customers.ids), len(points)),
    )
    return Outcome(Silent(), send={bank: evaluated}, keep=(kept,), reveals=reveals)


def _may_match(turn: Turn, bank: Name, own: int, theirs: int) -> MatchedOwnRows:
    # What the bank will learn is not known to the sender yet: at most the shorter list.
    return MatchedOwnRows(to=bank, low=0, high=min(own, theirs))


def _points(points: Bytes) -> Bytes:
    if points.ndim != 2 or points.shape[1] != 32:
        raise PeerError("bank: psi.blind: points are not (n, 32)")
    return points


def _match(turn: Turn, inbox: Inbox[Evaluated]) -> Outcome[Matched, Overlap]:
    customers = turn.recall(Customers)
    inputs = oprf_inputs(turn.contract, customers.ids)
    scalars = turn.recall(ReceiverSecrets).scalars
    found = [_match_one(inputs, scalars, inbox.one(p, Evaluated), p) for p in turn.others]
    common = np.flatnonzero(np.logical_and.reduce([positions != NO_ROW for positions, _, _ in found]))
    # An order that tells nothing: by a hash under the outputs, which only the parties know.
    outputs = found[0][2]
    common = common[np.lexsort(outputs[common, 32:40].T)]
    labelled = np.ones(len(customers.ids), bool) if customers.labelled is None else customers.labelled
    with_label, without = common[labelled[common]], common[~labelled[common]]
    if not turn.contract.scores.unlabelled:
        without = without[:0]
    if len(with_label) < turn.contract.limits.min_common:
        raise PolicyRefused("the intersection is smaller than the contract's minimum")
    width = band_width(len(customers.ids), min(len(m.tags) for m in inbox.every(Evaluated)))
    bands = Overlap(*band(len(with_label), width), *band(len(without), width))
    own = Aligned(_pad(with_label, bands.labelled_high), _pad(without, bands.unlabelled_high))
    rows = np.concatenate([own.labelled, own.unlabelled])
    send = {
        p: _claim(turn, rows, positions, proofs)
        for p, (positions, proofs, _) in zip(turn.others, found, strict=True)
    }
    return Outcome(
        bands, send=send, keep=(own,), forget=(ReceiverSecrets,), reveals=_match_disclosures(turn, bands)
    )


def _match_disclosures(turn: Turn, bands: Overlap) -> tuple[Disclosure, ...]:
    low, high = bands.labelled_low + bands.unlabelled_low, bands.labelled_high + bands.unlabelled_high
    everybody = SetSize(to=EVERYONE, low=low, high=high)
    rows = tuple(MatchedOwnRows(to=p, low=low, high=high) for p in turn.others)
    # Declared also where no matched row is without a label: then all of them were in the campaign.
    campaign = tuple(
        CampaignRows(to=p, low=bands.labelled_low, high=bands.labelled_high) for p in turn.others
    )
    return (everybody, *rows, *campaign)


def _match_one(
    inputs: list[bytes], scalars: Bytes, message: Evaluated, sender: Name
) -> tuple[Rows, Bytes, Bytes]:
    """Return for each own row its position in the sender's tags or NO_ROW, its proof, and the outputs."""
    if (
        message.points.shape != (len(inputs), 32)
        or message.tags.ndim != 2
        or message.tags.shape[1] != TAG_BYTES
    ):
        raise PeerError(f"{sender}: psi.evaluate: wrong number of points or tags of another length")
    outputs = oprf.finalize_all(inputs, scalars, message.points)
    known = {tag: position for position, tag in enumerate(_split(message.tags))}
    own = _split(outputs[:, :TAG_BYTES])
    positions = np.fromiter((known.get(tag, NO_ROW) for tag in own), dtype=np.int64, count=len(own))
    return positions, outputs[:, TAG_BYTES : 2 * TAG_BYTES], outputs


def _split(tags: Bytes) -> list[bytes]:
    flat = tags.tobytes()
    return [flat[i : i + TAG_BYTES] for i in range(0, len(flat), TAG_BYTES)]


def _pad(rows: Rows, length: int) -> Rows:
    out = np.full(length, NO_ROW, dtype=np.int64)
    out[: len(rows)] = rows
    return out


def _claim(turn: Turn, rows: Rows, positions: Rows, proofs: Bytes) -> Matched:
    real = rows != NO_ROW
    padded = np.frombuffer(turn.random(len(rows) * TAG_BYTES), np.uint8).reshape(len(rows), TAG_BYTES).copy()
    padded[real] = proofs[rows[real]]
    return Matched(np.where(real, positions[np.maximum(rows, 0)], NO_ROW), padded)


def _align(turn: Turn, inbox: Inbox[Matched]) -> Outcome[Nothing, Silent]:
    bank = turn.parties[0]
    claim = inbox.one(bank, Matched)
    own = turn.recall(SenderOutputs)
    bands = turn.published(Overlap, bank)
    positions = claim.positions
    if positions.shape != (bands.labelled_high + bands.unlabelled_high,) or claim.proofs.shape != (
        len(positions),
        TAG_BYTES,
    ):
        raise PeerError(f"{bank}: psi.match: the claim has another length than its band")
    real = positions != NO_ROW
    chosen = positions[real]
    if len(chosen) and (
        chosen.min() < 0 or chosen.max() >= len(own.rows) or len(np.unique(chosen)) != len(chosen)
    ):
        raise PeerError(f"{bank}: psi.match: a claimed row is foreign or claimed twice")
    if not np.array_equal(own.proofs[chosen], claim.proofs[real]):
        raise PeerError(f"{bank}: psi.match: a claimed match has no proof")
    rows = np.where(real, own.rows[np.maximum(positions, 0)], NO_ROW)
    aligned = Aligned(rows[: bands.labelled_high], rows[bands.labelled_high :])
    if bands.unlabelled_high and not turn.contract.scores.unlabelled:
        raise PolicyRefused("the contract does not allow customers without a label")
    _check_band(turn, aligned.labelled, (bands.labelled_low, bands.labelled_high), own)
    _check_band(turn, aligned.unlabelled, (bands.unlabelled_low, bands.unlabelled_high), own)
    if int((aligned.labelled != NO_ROW).sum()) < turn.contract.limits.min_common:
        raise PolicyRefused("the intersection is smaller than the contract's minimum")
    return Outcome(Silent(), keep=(aligned,), forget=(SenderOutputs,))


def _check_band(turn: Turn, rows: Rows, published: tuple[int, int], own: SenderOutputs) -> None:
    """Refuse a band that is not the count's: a narrower one would tell the count to everybody."""
    count, width = int((rows != NO_ROW).sum()), band_width(own.bank_rows, len(own.rows))
    if len(turn.parties) == 2:
        is_right = published == band(count, width)
    else:
        # Its width follows from the shortest of all lists, which this partner does not know.
        low, high = published
        is_right = count == low == high == 0 or (0 <= low < count <= high and 10 <= high - low <= width)
    if not is_right:
        raise PeerError(f"{turn.parties[0]}: psi.match: the published band does not hold")


BLIND = Step("psi.blind", _blind, Silent, reveals=(ListSize,))
EVALUATE = Step("psi.evaluate", _evaluate, Silent, reads=(Blinded,), reveals=(ListSize, MatchedOwnRows))
MATCH = Step(
    "psi.match", _match, Overlap, reads=(Evaluated,), reveals=(SetSize, MatchedOwnRows, CampaignRows)
)
ALIGN = Step("psi.align", _align, Silent, reads=(Matched,))


def psi(call: Caller, contract: Contract) -> Overlap:
    """Private set intersection of the bank and all partners; returns the bands of the common customers."""
    bank, *partners = data_parties(contract)
    blinded = call(bank, BLIND)
    witness(call, contract)
    evaluated = call.all([ask(p, EVALUATE, blinded.to(p)) for p in partners])
    witness(call, contract)
    matched = call(bank, MATCH, *inbox_of(evaluated, bank))
    call.all([ask(p, ALIGN, matched.to(p)) for p in partners])
    return matched.public.value
