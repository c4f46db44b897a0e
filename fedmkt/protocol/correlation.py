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
of Euclidean norm 1 over its training rows, so that V_pᵀ V_q holds correlations and no count of rows is needed;
E_p = V_p - U_p masked, block of rows by block, each forgotten when its products are added up.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract import Contract
from fedmkt.errors import ConfigError, PeerError, PolicyRefused
from fedmkt.learn import prepare
from fedmkt.privacy.disclosure import CrossCorrelation
from fedmkt.protocol.align import Split, joint_rows, train_rows
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
    Name,
    Nothing,
    Outcome,
    Reply,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    dealer,
    inbox_of,
    to_all,
)
from fedmkt.protocol.items import NO_ROW, Rows
from fedmkt.protocol.layout import BLOCK_BYTES
from fedmkt.protocol.prepare import Prepared, own_columns, prepared_rows, real, shapes
from fedmkt.protocol.psi import Overlap
from fedmkt.protocol.shared import (
    DealtRounding,
    Opening,
    deal_rounding,
    deal_value,
    finish_rounding,
    open_masked,
    shared_from_seeds,
    sum_openings,
)
from fedmkt.protocol.witness import checkpoint, witness
from fedmkt.ring import product
from fedmkt.ring.fixed import encode32
from fedmkt.ring.kernels import gram

DECIMALS = 4
UNIT = 10**DECIMALS
COLUMN_BITS = 24
"""Scale of the columns of norm 1: a correlation times `UNIT` stays below 2^62, at its rounding too."""
_CHUNK = 1 << 16
Array = NDArray[np.float64]


@dataclass(frozen=True)
class MaskedColumns(Message):
    """A block of rows of E = V - U."""

    block: int
    rows: Masked[Words]


@dataclass(frozen=True)
class DealtCorrelation(Message):
    """The first party's corrections: of the products of masks, and of the rounding."""

    product: Words
    rounding: DealtRounding


@dataclass(frozen=True)
class CorrelationOpening(Opening):
    """A share of the correlations between parties plus its mask, for their rounding."""


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
class Crossing(State):
    """Products under way: blocks sent, the own share so far, and the own block whose answer is awaited."""

    durable: ClassVar[bool] = False
    sent: int
    share: Words
    block: NDArray[np.int32]
    mask: Words


@dataclass(frozen=True)
class ColumnNorms(State):
    """Euclidean norm of each own prepared column over the training rows, (d,), and the number of these."""

    norms: Array
    rows: int


@dataclass(frozen=True)
class CorrelationRounding(State):
    """The own opening of the rounding under way."""

    durable: ClassVar[bool] = False
    own: Words


@dataclass(frozen=True)
class CorrelationCorrections(State):
    """The first party's corrections of the rounding under way."""

    durable: ClassVar[bool] = False
    dealt: DealtRounding | None


@dataclass(frozen=True)
class RoundedCorrelation(State):
    """The own share of the rounded correlations. In a checkpoint before it leaves: a resume sends the same again."""

    words: Words


@dataclass(frozen=True)
class Correlations(State):
    """At the bank: the correlation of all prepared columns, (d, d), its own first, and the owner and name of each."""

    matrix: Array
    owners: tuple[str, ...]
    names: tuple[str, ...]
    rows: int


def _widths(turn: Turn) -> dict[Name, int]:
    return {p: s.columns for p, s in shapes(turn).items()}


def _blocks(rows: int, widths: dict[Name, int]) -> list[slice]:
    size = BLOCK_BYTES // (8 * max(widths.values()))
    return [slice(start, min(rows, start + size)) for start in range(0, rows, size)]


def row_blocks(contract: Contract, overlap: Overlap, widths: dict[Name, int]) -> list[slice]:
    """Say in which blocks the padded training rows travel: a function of public values only."""
    return _blocks(train_rows(contract, overlap), widths)


def _own_blocks(turn: Turn) -> list[slice]:
    return row_blocks(turn.contract, turn.published(Overlap, turn.parties[0]), _widths(turn))


def pair_slices(widths: dict[Name, int]) -> dict[tuple[Name, Name], slice]:
    """Say where the block of each two parties stands in the vector of all shared correlations; bank first."""
    at, found = 0, {}
    for p, q in combinations(widths, 2):
        found[p, q] = slice(at, at + widths[p] * widths[q])
        at = found[p, q].stop
    return found


def _fitted(turn: Turn) -> prepare.Preparation:
    return prepare.Preparation.from_json(turn.recall(Prepared).preparation)


def _norms(turn: Turn) -> ColumnNorms:
    fitted, columns, train = _fitted(turn), own_columns(turn), real(turn.recall(Split).train)
    squares = np.zeros(len(fitted.columns))
    for start in range(0, len(train), _CHUNK):
        squares += np.square(prepared_rows(fitted, columns, train[start : start + _CHUNK])).sum(axis=0)
    return ColumnNorms(np.sqrt(squares), len(train))


def _unit_columns(turn: Turn, rows: Rows, norms: Array) -> Array:
    """Return the own columns of norm 1 for some of the real training rows, (len(rows), d)."""
    return prepared_rows(_fitted(turn), own_columns(turn), rows) / norms


def _encoded(turn: Turn, rows: Rows, norms: Array) -> NDArray[np.int32]:
    out = np.zeros((len(rows), len(norms)), np.int32)
    out[rows != NO_ROW] = encode32(_unit_columns(turn, real(rows), norms), COLUMN_BITS)
    return out


def _mask_columns(turn: Turn, inbox: Inbox[MaskedColumns]) -> Outcome[MaskedColumns, Silent]:
    """Take in the others' block and add up its products, send the own next one; the last call only takes in."""
    widths, blocks = _widths(turn), _own_blocks(turn)
    if turn.has(Crossing):
        norms, state = turn.recall(ColumnNorms), turn.recall(Crossing)
        share = state.share + _products(turn, inbox, state, widths)
    else:
        norms, state = _norms(turn), None
        share = np.zeros(pair_slices(widths)[turn.parties[-2], turn.parties[-1]].stop, np.uint64)
    sent = state.sent if state else 0
    if sent == len(blocks):
        empty = np.empty((0, 0), np.uint64)
        return Outcome(Silent(), keep=(Crossing(sent, share, empty.astype(np.int32), empty),))
    block = _encoded(turn, joint_rows(turn, True)[blocks[sent]], norms.norms)
    mask = turn.masks.words(turn.me, "correlation/U", 0, block.shape, block=sent)
    message = MaskedColumns(sent, Masked(product.mask_matrix(block, mask)))
    return Outcome(
        Silent(), send=to_all(turn.others, message), keep=(Crossing(sent + 1, share, block, mask), norms)
    )


def _products(turn: Turn, inbox: Inbox[MaskedColumns], state: Crossing, widths: dict[Name, int]) -> Words:
    """Return what a block adds to the own share: U_pᵀ E_q for the first of a pair, E_pᵀ V_q for the second."""
    found = inbox.by_sender(MaskedColumns)
    n = len(state.block)
    if set(found) != set(turn.others) or any(
        m.block != state.sent - 1 or m.rows.words.shape != (n, widths[p]) for p, m in found.items()
    ):
        raise ValueError("the masked columns of the others are missing or have another shape than agreed")
    pairs = pair_slices(widths)
    out = np.zeros_like(state.share)
    for (p, q), where in pairs.items():
        if turn.me == p:
            out[where] = product.gram_first(state.mask, found[q].rows.words).reshape(-1)
        elif turn.me == q:
            out[where] = product.gram_second(found[p].rows.words, state.block).reshape(-1)
    return out


def _deal(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtCorrelation, Silent]:
    widths = _widths(turn)
    pairs = pair_slices(widths)
    size = pairs[turn.parties[-2], turn.parties[-1]].stop
    total = np.zeros(size, np.uint64)
    for i, rows in enumerate(_own_blocks(turn)):
        n = rows.stop - rows.start
        masks = {p: turn.masks.words(p, "correlation/U", 0, (n, d), block=i) for p, d in widths.items()}
        for (p, q), where in pairs.items():
            total[where] += gram(masks[p], masks[q]).reshape(-1)
    dealt = DealtCorrelation(
        deal_value(turn, "correlation/product", 0, total),
        deal_rounding(turn, "correlation/round", 0, size, 2 * COLUMN_BITS),
    )
    return Outcome(Silent(), send={turn.parties[0]: dealt})


def _open(turn: Turn, inbox: Inbox[DealtCorrelation]) -> Outcome[CorrelationOpening, Silent]:
    dealt = inbox.one(dealer(turn.contract), DealtCorrelation) if turn.first else None
    share = turn.recall(Crossing).share
    share = share + shared_from_seeds(
        turn, "correlation/product", 0, len(share), dealt.product if dealt else None
    )
    own = open_masked(turn, "correlation/round", 0, share * np.uint64(UNIT))
    return Outcome(
        Silent(),
        send=to_all(turn.others, CorrelationOpening(Masked(own))),
        keep=(CorrelationRounding(own), CorrelationCorrections(dealt.rounding if dealt else None)),
        forget=(Crossing,),
    )


def _share(turn: Turn, inbox: Inbox[CorrelationOpening]) -> Outcome[Nothing, Silent]:
    opened = sum_openings(turn.recall(CorrelationRounding).own, inbox, turn, CorrelationOpening)
    dealt = turn.recall(CorrelationCorrections).dealt
    share = finish_rounding(turn, "correlation/round", 0, opened, 2 * COLUMN_BITS, dealt)
    return Outcome(
        Silent(), keep=(RoundedCorrelation(share),), forget=(CorrelationRounding, CorrelationCorrections)
    )


# --- release


def _own_correlation(turn: Turn) -> Array:
    norms, train = turn.recall(ColumnNorms).norms, real(turn.recall(Split).train)
    total = np.zeros((len(norms), len(norms)))
    for start in range(0, len(train), _CHUNK):
        v = _unit_columns(turn, train[start : start + _CHUNK], norms)
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
    bank, widths = turn.parties[0], _widths(turn)
    own = np.rint(_own_correlation(turn) * UNIT).astype(np.int64)
    message = CorrelationShare(turn.recall(RoundedCorrelation).words, own, _raw_columns(turn))
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
    widths, units = _widths(turn), turn.recall(RoundedCorrelation).words.copy()
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
    for (p, q), at in pair_slices(widths).items():
        block = between[at].reshape(widths[p], widths[q])
        matrix[where[p], where[q]], matrix[where[q], where[p]] = block, block.T
    names = list(_fitted(turn).columns)
    for party in turn.others:
        names += column_names(turn.contract.party(party).columns, found[party].raw)
    owners = [p for p, d in widths.items() for _ in range(d)]
    kept = Correlations(matrix, tuple(owners), tuple(names), turn.recall(ColumnNorms).rows)
    return Outcome(Silent(), keep=(kept,), forget=(RoundedCorrelation,))


def _check_share(turn: Turn, party: Name, message: CorrelationShare, shape: tuple[int, ...], d: int) -> None:
    own, columns = message.own, len(turn.contract.party(party).columns)
    fits = message.share.shape == shape and own.shape == (d, d) and len(message.raw) == d
    if not (
        fits
        and (own == own.T).all()
        and (np.diag(own) == UNIT).all()
        and np.abs(own).max() <= UNIT
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


MASK_COLUMNS = Step("correlation.mask_columns", _mask_columns, Silent, reads=(MaskedColumns,))
DEAL = Step("correlation.deal", _deal, Silent)
OPEN = Step("correlation.open", _open, Silent, reads=(DealtCorrelation,))
SHARE = Step("correlation.share", _share, Silent, reads=(CorrelationOpening,))
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
    sent: list[Reply[MaskedColumns, Silent]] = []
    for _ in range(len(row_blocks(contract, overlap, columns)) + 1):
        sent = call.all([ask(p, MASK_COLUMNS, *inbox_of(sent, p)) for p in parties])
    dealt = call(dealer(contract), DEAL)
    opened = call.all([ask(p, OPEN, *inbox_of([dealt], p)) for p in parties])
    call.all([ask(p, SHARE, *inbox_of(opened, p)) for p in parties])
    checkpoint(call, contract)
    witness(call, contract)
    released = call.all([ask(p, RELEASE) for p in parties[1:]])
    call(parties[0], READ, *inbox_of(released, parties[0]))
    checkpoint(call, contract)
