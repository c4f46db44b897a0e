"""Standard errors of each party's own weights, where they were opened to it.

Computes sqrt(inflation_j / H_jj) as `learn.inference` says: the bank has the correlations of all columns, and so the
inflation of each; H_jj needs the mean of p(1 - p) over held-out rows, weighted by the squares of column j, which for a
partner's column is one shared product of the bank's p(1 - p), from the scores released to it, with those squares.
Takes part: all parties that hold data, and the dealer; only where the contract lists `StandardErrors`, which
`CrossCorrelation` and `ModelPart` go with.

| learns | what |
|---|---|
| partner | of each of its columns the inflation, and that weighted mean; so the error of its weight |
| bank, coordinator, dealer | nothing |

Safe against semi-honest parties, all but one of them together, while the dealer colludes with none. What the numbers
give away stands at `StandardErrors` in privacy/disclosure.py. Source: protocols.md section 2 (what may be opened).
Letters: W = p(1 - p); Q the squares of columns of norm 1, times min_support, at most 1: no row that trained has more,
as at least so many rows carry each column. Of a column that fewer held-out rows carry, one of which could be read so,
its owner takes 0 in every row: its weight has no error. Two columns that differ by one row still tell it together.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.errors import PeerError
from fedmkt.learn import inference
from fedmkt.privacy.disclosure import StandardErrors
from fedmkt.protocol.alignment.align import Split, padded_rows
from fedmkt.protocol.alignment.items import NO_ROW, Rows
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    Reply,
    Sealed,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    inbox_of,
)
from fedmkt.protocol.linear.correlation import ColumnNorms, Correlations, unit_columns
from fedmkt.protocol.linear.cross_product import (
    CrossShare,
    Factors,
    Widths,
    cross_product,
    pair_slices,
    steps_of,
)
from fedmkt.protocol.linear.penalties import penalty_of
from fedmkt.protocol.linear.scoring import Released
from fedmkt.protocol.prepare import shapes
from fedmkt.protocol.witness import checkpoint, witness
from fedmkt.ring.fixed import decode

CURVATURE_BITS = 20
SUM_BITS = 12
"""Scale of the released sums: about three digits."""
_DIGITS = 3
Array = NDArray[np.float64]


@dataclass(frozen=True)
class CurvatureShare(Message):
    """For the owner of columns: a share of its sums of W Q, (d,), fresh from their rounding."""

    words: Words


@dataclass(frozen=True)
class Inflations(Message):
    """From the bank, for the owner of columns: the inflation of each, (d,), and the bank's share of its sums."""

    values: Array
    words: Words


@dataclass(frozen=True)
class OwnErrors(State):
    """Standard errors of the own weights on prepared columns, (d,), not of the intercept; nan where there is none."""

    values: Array


def held_out_rows(contract: Contract, overlap: Overlap) -> int:
    """Return the number of held-out rows, padded: a function of public values only."""
    return padded_rows(overlap.labelled_high, contract.model.test_fraction)


def _held_out(turn: Turn) -> Rows:
    return turn.recall(Split).held_out


def _curvature(turn: Turn, rows: Rows) -> Array:
    """At the bank: p(1 - p) of the held-out rows, zero where padded, (len(rows),)."""
    released = turn.recall(Released)
    p = released.units[: released.held_out] / 10.0**released.decimals
    out = np.zeros(len(rows))
    out[rows != NO_ROW] = p * (1 - p)
    return out


def _squares(turn: Turn) -> Array:
    """Return Q of the held-out rows, (n, d), zero where padded: all zero for a column that few of them carry."""
    rows, least = _held_out(turn), turn.contract.limits.min_support
    q = np.minimum(np.square(unit_columns(turn, rows)) * least, 1.0)
    squares = np.maximum(np.square(q).sum(axis=0), 1e-300)
    q[:, np.square(q.sum(axis=0)) / squares < least] = 0.0
    return np.asarray(q, np.float64)


def _values(turn: Turn, block: slice) -> Array:
    return _curvature(turn, _held_out(turn))[block, None] if turn.first else _squares(turn)[block]


def _widths(columns: Widths) -> dict[Name, int]:
    return {p: 1 if i == 0 else d for i, (p, d) in enumerate(columns.items())}


CURVATURE = Factors(
    name="errors",
    bits=CURVATURE_BITS,
    factor=1,
    shift=2 * CURVATURE_BITS - SUM_BITS,
    rows=held_out_rows,
    widths=_widths,
    pairs=lambda parties: [(parties[0], p) for p in parties[1:]],
    values=_values,
)


def _release(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[CurvatureShare, Silent]:
    """At a partner: send each other partner the own share of its sums."""
    where = pair_slices(CURVATURE, {p: s.columns for p, s in shapes(turn).items()})
    share, bank = turn.recall(CrossShare).words, turn.parties[0]
    owners = [p for p in turn.others if p != bank]
    reveals = tuple(StandardErrors(to=p, weights=shapes(turn)[p].columns) for p in owners)
    return Outcome(Silent(), send={p: CurvatureShare(share[where[bank, p]]) for p in owners}, reveals=reveals)


def _inflate(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Inflations, Silent]:
    """At the bank: send each partner the inflation of its columns and a share of its sums; compute the own errors."""
    where = pair_slices(CURVATURE, {p: s.columns for p, s in shapes(turn).items()})
    share = turn.recall(CrossShare).words
    found, rows = turn.recall(Correlations), _held_out(turn)
    w = _curvature(turn, rows)
    mean = float(w.sum()) / max(1, int((rows != NO_ROW).sum()))
    # Scores that are all 0 or 1 to their last decimal leave the penalty alone to hold the weights.
    ridge = penalty_of(turn) / (found.rows * max(mean, 1e-6))
    inflated = np.round(inference.inflation(found.matrix, ridge), _DIGITS)
    owners = np.array(found.owners)
    squares = _squares(turn)
    own = _errors(turn, inflated[owners == turn.me], w @ squares, squares.sum(axis=0))
    send = {p: Inflations(inflated[owners == p], share[where[turn.me, p]]) for p in turn.others}
    reveals = tuple(StandardErrors(to=p, weights=int((owners == p).sum())) for p in turn.others)
    return Outcome(Silent(), send=send, keep=(own,), forget=(CrossShare,), reveals=reveals)


def _errors(turn: Turn, inflated: Array, weighted: Array, plain: Array) -> OwnErrors:
    norms = turn.recall(ColumnNorms).norms
    means = np.divide(weighted, plain, out=np.zeros(len(plain)), where=plain > 0)
    return OwnErrors(inference.standard_errors(inflated, means, norms))


def _take(turn: Turn, inbox: Inbox[CurvatureShare | Inflations]) -> Outcome[Nothing, Silent]:
    """At a partner: add up the shares of its sums, and compute the errors of its weights."""
    bank, d = turn.parties[0], shapes(turn)[turn.me].columns
    where = pair_slices(CURVATURE, {p: s.columns for p, s in shapes(turn).items()})[bank, turn.me]
    total = turn.recall(CrossShare).words[where].copy()
    told = inbox.one(bank, Inflations)
    shares = {q: m.words for q, m in inbox.by_sender(CurvatureShare).items()} | {bank: told.words}
    if set(shares) != set(turn.others) or any(words.shape != (d,) for words in shares.values()):
        raise PeerError(
            f"{turn.me}: errors.take: the shares of the others are missing or have another length"
        )
    if told.values.shape != (d,) or not (np.isfinite(told.values) & (told.values > 0)).all():
        raise PeerError(f"{bank}: errors.inflate: inflations of this kind are not accepted")
    for words in shares.values():
        total += words
    own = _errors(turn, told.values, decode(total, SUM_BITS), _squares(turn).sum(axis=0))
    return Outcome(Silent(), keep=(own,), forget=(CrossShare,))


STEPS = steps_of(CURVATURE)
RELEASE = Step("errors.release", _release, Silent, reveals=(StandardErrors,))
INFLATE = Step("errors.inflate", _inflate, Silent, reveals=(StandardErrors,))
TAKE = Step("errors.take", _take, Silent, reads=(CurvatureShare, Inflations))


def give_errors(call: Caller, contract: Contract, overlap: Overlap, columns: dict[Name, int]) -> None:
    """Let each party know the standard errors of its own weights, where the contract lists them."""
    if "StandardErrors" not in contract.disclosures:
        return
    bank, *partners = data_parties(contract)
    cross_product(call, contract, overlap, columns, STEPS)
    checkpoint(call, contract)
    witness(call, contract)
    shares = call.all([ask(p, RELEASE) for p in partners]) if len(partners) > 1 else []
    inflated = call(bank, INFLATE)
    call.all([ask(p, TAKE, *_take_inbox(shares, inflated, p)) for p in partners])
    checkpoint(call, contract)


def _take_inbox(
    shares: list[Reply[CurvatureShare, Silent]], inflated: Reply[Inflations, Silent], party: Name
) -> tuple[Sealed[CurvatureShare | Inflations], ...]:
    return (*inbox_of(shares, party), *inbox_of([inflated], party))
