"""Correlations between the parties' columns: a shared product over all training rows, rounded, for the bank.

Computes the Pearson correlation of every two prepared columns of all parties, not whitened, over the training rows.
Takes part: all parties that hold data, and the dealer; only where the contract lists `CrossCorrelation`.

| learns | what |
|---|---|
| bank | each correlation of two columns, to four decimals; of which column of the contract each one was made |
| partner, coordinator, dealer | nothing |

Safe against semi-honest parties, all but one of them together, while the dealer colludes with none. What the numbers
give away stands at `CrossCorrelation` in privacy/disclosure.py: opened for columns of one row they are a table of rows,
so both sides leave out columns of little support when they prepare theirs. Nobody can check the bank's: it does not
withstand a bank that deviates. The ledger counts, for each own column, one functional of its rows for each column of
the bank, and ends at one for each `min_support` rows: means of disjoint groups that large would tell as much. The cap
of `scoring` counts functionals of a row's columns, which is another budget.

Source: protocols.md section 2 (Gram block); redteam.md 1.3. Letters: V_p the party's columns, (n, d_p), centred and
of Euclidean norm 1 over its training rows, so that V_pᵀ V_q (`cross_product`) holds correlations and no count of rows
is needed.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.errors import ConfigError, PeerError, PolicyRefused
from fedmkt.learn import prepare
from fedmkt.privacy.disclosure import CrossCorrelation
from fedmkt.protocol.alignment.align import Split, joint_rows, train_rows
from fedmkt.protocol.alignment.items import NO_ROW, Rows
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    inbox_of,
)
from fedmkt.protocol.linear.cross_product import CrossShare, Factors, cross_product, pair_slices, steps_of
from fedmkt.protocol.prepare import Prepared, model_columns, prepared_rows, real, shapes
from fedmkt.protocol.witness import checkpoint, witness

DECIMALS = 4
UNIT = 10**DECIMALS
COLUMN_BITS = 24
"""Scale of the columns of norm 1: a correlation times `UNIT` stays below 2^62, at its rounding too."""
_CHUNK = 1 << 16
Array = NDArray[np.float64]


@dataclass(frozen=True)
class CorrelationShare(Message):
    """For the bank: a share of the correlations between parties, fresh from their rounding, and the sender's own.

    share : in units of the last decimal; own : (d, d) int64, in the same units; raw : of each prepared column, which
    column of the contract it was made from.
    """

    share: Words
    own: NDArray[np.int64]
    raw: tuple[int, ...]


@dataclass(frozen=True)
class ColumnNorms(State):
    """Euclidean norm of each own prepared column over the training rows, (d,), and the number of these."""

    norms: Array
    rows: int


@dataclass(frozen=True)
class Correlations(State):
    """At the bank: the correlation of all prepared columns, (d, d), its own first, and the owner and name of each."""

    matrix: Array
    owners: tuple[str, ...]
    names: tuple[str, ...]
    rows: int


def _fitted(turn: Turn) -> prepare.Preparation:
    return prepare.Preparation.from_json(turn.recall(Prepared).preparation)


def _measure(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    fitted, columns, train = _fitted(turn), model_columns(turn), real(turn.recall(Split).train)
    squares = np.zeros(len(fitted.columns))
    for start in range(0, len(train), _CHUNK):
        squares += np.square(prepared_rows(fitted, columns, train[start : start + _CHUNK])).sum(axis=0)
    return Outcome(Silent(), keep=(ColumnNorms(np.sqrt(squares), len(train)),))


def unit_columns(turn: Turn, rows: Rows) -> Array:
    """Return the own columns, of norm 1 over the training rows, for some rows; zero where padded, (len(rows), d)."""
    norms = turn.recall(ColumnNorms).norms
    out = np.zeros((len(rows), len(norms)))
    out[rows != NO_ROW] = prepared_rows(_fitted(turn), model_columns(turn), real(rows)) / norms
    return out


CORRELATION = Factors(
    name="correlation",
    bits=COLUMN_BITS,
    factor=UNIT,
    shift=2 * COLUMN_BITS,
    rows=train_rows,
    widths=dict,
    pairs=lambda parties: list(combinations(parties, 2)),
    values=lambda turn, block: unit_columns(turn, joint_rows(turn, True)[block]),
)


# --- release


def _own_correlation(turn: Turn) -> Array:
    width, train = len(turn.recall(ColumnNorms).norms), real(turn.recall(Split).train)
    total = np.zeros((width, width))
    for start in range(0, len(train), _CHUNK):
        v = unit_columns(turn, train[start : start + _CHUNK])
        total += v.T @ v
    np.fill_diagonal(total, 1.0)
    return np.clip(total, -1.0, 1.0)


def _raw_columns(turn: Turn) -> tuple[int, ...]:
    """Say of each own prepared column which column of the contract it was made from, without any level's name."""
    fitted, terms = _fitted(turn), turn.contract.party(turn.me).columns
    found: list[int] = []
    for number in fitted.numbers:
        found += [terms.index(number.name)] * ((number.value is not None) + (number.missing is not None))
    for category in fitted.categories:
        found += [terms.index(category.name)] * len(category.indicators)
    return tuple(found)


def correlation_keys(turn: Turn) -> tuple[str, ...]:
    """Name the ledger entries, one for each own column, that count functionals of its rows told to the bank."""
    bank = " ".join(turn.contract.bank.organisation.casefold().split())
    return tuple(f"correlations/{bank}/{c}" for c in turn.contract.party(turn.me).columns)


def _count(turn: Turn, message: CorrelationShare) -> dict[str, bytes]:
    """Count this run's release before anything leaves; refuse beyond the cap. Sent again, it counts once."""
    done = f"correlated/{turn.run.hex()}"
    made = hashlib.sha256(message.share.tobytes() + message.own.tobytes()).digest()
    if turn.store.get(done) == made:
        return {}
    functionals = shapes(turn)[turn.parties[0]].columns
    counts = {key: int(turn.store.get(key, b"0")) + functionals for key in correlation_keys(turn)}
    cap = turn.recall(ColumnNorms).rows // turn.contract.limits.min_support
    if max(counts.values()) > cap:
        raise PolicyRefused(
            "correlations of these columns with as many of this bank as the ledger allows were released: one for "
            f"each {turn.contract.limits.min_support} training rows",
            "leave CrossCorrelation out of the contract",
        )
    # The mark comes last: killed between two of these, a party counts too much rather than too little.
    return {key: str(count).encode() for key, count in counts.items()} | {done: made}


def _release(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[CorrelationShare, Silent]:
    bank, widths = turn.parties[0], {p: s.columns for p, s in shapes(turn).items()}
    own = np.rint(_own_correlation(turn) * UNIT).astype(np.int64)
    message = CorrelationShare(turn.recall(CrossShare).words, own, _raw_columns(turn))
    reveals = CrossCorrelation(
        to=bank,
        bank_columns=widths[bank],
        columns=widths[turn.me],
        other_columns=sum(widths.values()) - widths[bank] - widths[turn.me],
        rows=train_rows(turn.contract, turn.published(Overlap, bank)),
        decimals=DECIMALS,
    )
    remember = _count(turn, message)
    return Outcome(Silent(), send={bank: message}, reveals=(reveals,), remember=remember)


def _read(turn: Turn, inbox: Inbox[CorrelationShare]) -> Outcome[Nothing, Silent]:
    """At the bank: put the blocks together, its own computed by itself."""
    widths, units = {p: s.columns for p, s in shapes(turn).items()}, turn.recall(CrossShare).words.copy()
    found = inbox.by_sender(CorrelationShare)
    if set(found) != set(turn.others):
        raise PeerError(f"{turn.me}: correlation.read: the correlations of a party are missing")
    for party, message in found.items():
        _check_share(turn, party, message, units.shape, widths[party])
        units += message.share
    ends = np.cumsum([0, *widths.values()])
    where = {p: slice(a, b) for p, a, b in zip(widths, ends, ends[1:], strict=False)}
    matrix = np.eye(ends[-1])
    matrix[where[turn.me], where[turn.me]] = _own_correlation(turn)
    for party, message in found.items():
        matrix[where[party], where[party]] = message.own / UNIT
    between = np.clip(units.view(np.int64), -UNIT, UNIT) / UNIT
    for (p, q), at in pair_slices(CORRELATION, widths).items():
        block = between[at].reshape(widths[p], widths[q])
        matrix[where[p], where[q]], matrix[where[q], where[p]] = block, block.T
    names = list(_fitted(turn).columns)
    for party in turn.others:
        names += column_names(turn.contract.party(party).columns, found[party].raw)
    owners = [p for p, d in widths.items() for _ in range(d)]
    kept = Correlations(matrix, tuple(owners), tuple(names), turn.recall(ColumnNorms).rows)
    return Outcome(Silent(), keep=(kept,), forget=(CrossShare,))


def _check_share(turn: Turn, party: Name, message: CorrelationShare, shape: tuple[int, ...], d: int) -> None:
    own, columns = message.own, len(turn.contract.party(party).columns)
    fits = message.share.shape == shape and own.shape == (d, d) and len(message.raw) == d
    if not (
        fits
        and (own == own.T).all()
        and (np.diag(own) == UNIT).all()
        and (own >= -UNIT).all()
        and (own <= UNIT).all()
        and all(0 <= i < columns for i in message.raw)
    ):
        raise PeerError(f"{party}: correlation.release: correlations of this kind are not accepted")


def column_names(raw: tuple[str, ...], of: tuple[int, ...]) -> list[str]:
    """Name prepared columns by the column of the contract each was made from, numbered where it became several."""
    counts, seen, names = Counter(of), Counter[int](), []
    for i in of:
        seen[i] += 1
        names.append(raw[i] if counts[i] == 1 else f"{raw[i]} {seen[i]}")
    return names


MEASURE = Step("correlation.measure", _measure, Silent)
STEPS = steps_of(CORRELATION)
RELEASE = Step("correlation.release", _release, Silent, reveals=(CrossCorrelation,))
READ = Step("correlation.read", _read, Silent, reads=(CorrelationShare,))


def _check_rows(contract: Contract, overlap: Overlap, columns: dict[Name, int]) -> None:
    """Refuse before any work what the ledger of a partner would refuse at the first release."""
    width, rows = columns[data_parties(contract)[0]], train_rows(contract, overlap)
    if width * contract.limits.min_support > rows:
        raise ConfigError(
            f"correlations with {width} columns of the bank need {contract.limits.min_support} training rows for each, "
            f"and there are at most {rows}",
            "use fewer columns or more customers, or leave CrossCorrelation out of disclosures",
        )


def cross_correlation(call: Caller, contract: Contract, overlap: Overlap, columns: dict[Name, int]) -> None:
    """Release the correlations of all parties' prepared columns to the bank, where the contract lists them."""
    if "CrossCorrelation" not in contract.disclosures:
        return
    parties = data_parties(contract)
    _check_rows(contract, overlap, columns)
    call.all([ask(p, MEASURE) for p in parties])
    cross_product(call, contract, overlap, columns, STEPS)
    checkpoint(call, contract)
    witness(call, contract)
    released = call.all([ask(p, RELEASE) for p in parties[1:]])
    call(parties[0], READ, *inbox_of(released, parties[0]))
    checkpoint(call, contract)
