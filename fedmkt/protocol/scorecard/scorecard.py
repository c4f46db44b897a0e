"""Weight of evidence of all parties' columns: what a scorecard is trained on, in place of the columns themselves.

Computes, for each column of each party, bins, their weight of evidence (WoE) and the column's information value
over the training rows; leaves out columns of little information, and of two alike in one party the weaker one.
A category becomes a number in this way only: target encoding is the WoE of the category's bins. Takes part:
all parties, and the dealer for the totals.

| learns | what |
|---|---|
| bank | what `totals` shows it of the partners' columns: rows and events by bin, column by column |
| partner | of its own columns alone: which stay, which of its bins were joined, WoE and information of what stays |
| everybody | what `totals` tells |

**What WoE tells the partner.** With its own rows by bin it computes how many events each group of its customers has,
and the overall rate. That are label aggregates. Each group has at least `limits.min_support` rows, and
`totals.least_events` events and as many others, which was compared on shares before; no label of one person follows
from one column. Two columns whose groups differ in a few rows tell the events among these few; a partner that makes
such columns up reads labels. Two runs whose rows differ in a few tell the same, so the bank tells a partner one WoE
under one contract: a later run with other rows or labels is refused. Whoever must not let the partner learn this takes
a model of kind `logistic` instead, in which no label aggregate is opened.

Bins are fitted once under a contract, by their owner on its own train rows, and remembered: edges that move by a row
from run to run would tell that row's label. A column with too few rows in one of its bins later on is left out.

Safe as `totals` is: against a semi-honest bank or partner, while the dealer colludes with neither. The partner checks
that what it is told fits its bins and what was agreed about them; that it is the WoE of the labels it cannot check.

Source: protocols.md section 3; redteam.md 2.8. Merging, WoE, selection: `learn.merging`, `learn.scorecard`.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.errors import DataError, PolicyRefused
from fedmkt.learn.bins import Binning, join
from fedmkt.learn.merging import (
    ChiMerge,
    Map,
    Minimum,
    Monotone,
    Order,
    Rule,
    Totals,
    count_totals,
    join_totals,
    merge,
)
from fedmkt.learn.scorecard import Candidate, Limits, select, weigh_evidence
from fedmkt.learn.woe import UNIT, WoeColumn, WoeColumns, in_units, place_rows
from fedmkt.privacy.disclosure import BinWeights
from fedmkt.protocol.alignment.align import Split
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
    ask,
    data_parties,
)
from fedmkt.protocol.prepare import OwnEvidence, own_columns, real, take
from fedmkt.protocol.scorecard.totals import (
    OwnBins,
    PartnerTotals,
    ShownBins,
    bin_totals,
    least_events,
    own_bins,
)
from fedmkt.protocol.shift import fine_bins, measure_shift
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.wire import encode
from fedmkt.protocol.witness import checkpoint, witness

LEFT_OUT = -1


# --- messages and state


@dataclass(frozen=True)
class WeighedBins(Message):
    """About the reader's columns, in the layout of its `BinSizes`, so that the length says nothing.

    groups : (width,) group of each bin that was shown, from the column's first place on; woe : (width,) of each
    group, in ten-thousandths of a nat; information : (columns,) in the same unit, -1 where the column is left out.
    """

    groups: NDArray[np.int32]
    woe: NDArray[np.int64]
    information: NDArray[np.int64]


@dataclass(frozen=True)
class EvidenceTable(State):
    """At the bank: rows and events of each joined bin, (bins, 2), by party and column; which it kept of them."""

    totals: Mapping[str, Mapping[str, NDArray[np.int64]]]
    kept: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class WeighedColumn:
    """One column after its bins were joined: totals and WoE in `woe.UNIT` of each joined bin, information value."""

    name: str
    mapping: Map
    totals: Totals
    units: tuple[int, ...]
    information: float


# --- bins


def _bin(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Cut the own columns into fine bins on the train rows, or take those of the first run under this contract."""
    rows = numbers, categories = take(own_columns(turn), real(turn.recall(Split).train))
    key = f"scorecard bins/{digest(turn.contract).hex()}"
    stored = turn.store.get(key)
    binning = Binning.from_json(stored.decode()) if stored else fine_bins(turn.contract, rows)
    shift = measure_shift(turn, binning, rows)
    moved = () if shift is None else shift.left_out
    least = turn.contract.limits.min_support
    usable = [
        bins
        for bins in binning.columns
        if bins.count > 1
        and bins.name not in moved
        and np.bincount(place_rows(bins, numbers, categories), minlength=bins.count).min() >= least
    ]
    if not usable:
        raise DataError(
            f"{turn.me}: no column has two bins of {least} train rows (limits.min_support)"
            + (f"; {len(moved)} moved too far (bins.max_shift)" if moved else "")
        )
    kept = OwnBins(Binning(tuple(usable)).to_json())
    keep = (kept,) if shift is None else (kept, shift)
    return Outcome(Silent(), keep=keep, remember={key: binning.to_json().encode()})


# --- WoE, at the bank


def rule_of(contract: Contract, rows: int, order: Order) -> Rule:
    """Return how bins of a column with so many rows are joined; a category's have no order that could be kept."""
    terms, least = contract.scorecard, least_events(contract)
    minimum = Minimum(max(contract.limits.min_support, math.ceil(terms.min_share * rows)), least, least)
    if terms.merge == "chimerge":
        return ChiMerge(minimum)
    return Monotone(minimum) if terms.merge == "monotone" and order != "levels" else minimum


def weigh_column(contract: Contract, name: str, totals: Totals, order: Order) -> WeighedColumn | None:
    """Join the bins of a column by the contract's rule and weigh them; None where they all weigh the same."""
    mapping = merge(totals, rule_of(contract, int(totals.rows.sum()), order), order)
    if max(mapping) == 0:
        return None
    joined = join_totals(totals, mapping)
    evidence = weigh_evidence(joined)
    units = in_units(evidence.woe)
    if len(set(units)) == 1:
        return None
    return WeighedColumn(name, mapping, joined, units, evidence.information_value)


def select_columns(contract: Contract, party: Name, columns: Sequence[WeighedColumn]) -> list[WeighedColumn]:
    """Keep the columns of enough information, and in any case the best one: without any a party has no matrix."""
    if not columns:
        raise DataError(f"{party}: no column has two bins with enough rows, events and others")
    best = max(c.information for c in columns)
    return [c for c in columns if c.information >= min(best, contract.scorecard.min_iv)]


def _own_totals(turn: Turn) -> dict[str, tuple[Totals, Order]]:
    columns, train = own_columns(turn), real(turn.recall(Split).train)
    if columns.label is None:
        raise ValueError(f"{turn.me} has no label")
    label, taken = columns.label[train], take(columns, train)
    return {
        bins.name: (count_totals(place_rows(bins, *taken), bins.count, label), bins.order)
        for bins in own_bins(turn).columns
    }


def _partner_totals(turn: Turn, partner: Name) -> dict[str, tuple[Totals, Order]]:
    """Return what was shown of a partner's columns, with the order of the bins: that follows from public sizes."""
    shown, sizes = turn.recall(PartnerTotals), turn.published(BinSizes, partner)
    public = dict(zip(shown.columns[partner], zip(sizes.sizes, sizes.apart, strict=True), strict=True))
    categories, found = turn.contract.party(partner).categories, {}
    for name, totals in shown.of(partner).items():
        size, apart = public[name]
        # Any other way to show a column joins the missing values to other bins.
        order: Order = (
            "rising values, then missing" if apart and len(totals.rows) == size else "rising values"
        )
        found[name] = (totals, "levels" if name in categories else order)
    return found


def _weigh(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[WeighedBins, Silent]:
    """At the bank: join, weigh and select all columns; tell each partner what concerns its own."""
    totals = {turn.me: _own_totals(turn)} | {p: _partner_totals(turn, p) for p in turn.others}
    weighed = {
        p: [c for c in (weigh_column(turn.contract, n, *t) for n, t in columns.items()) if c is not None]
        for p, columns in totals.items()
    }
    chosen = {p: select_columns(turn.contract, p, columns) for p, columns in weighed.items()}
    by_name = {bins.name: bins for bins in own_bins(turn).columns}
    own = WoeColumns(tuple(WoeColumn(join(by_name[c.name], c.mapping), c.units) for c in chosen[turn.me]))
    evidence = _without_likes(turn, own, [c.information for c in chosen[turn.me]])
    table = EvidenceTable(
        {
            p: {c.name: np.stack([c.totals.rows, c.totals.events], axis=1) for c in cs}
            for p, cs in weighed.items()
        },
        {p: tuple(c.name for c in cs) for p, cs in chosen.items()},
    )
    send = {p: _message(turn, p, chosen[p]) for p in turn.others}
    return Outcome(
        Silent(),
        send=send,
        remember=_told_once(turn, send),
        keep=(OwnEvidence(evidence.to_json()), table),
        forget=(OwnBins, PartnerTotals),
        reveals=tuple(
            BinWeights(
                to=p,
                columns=len(chosen[p]),
                bins=sum(len(c.units) for c in chosen[p]),
                minimum=turn.contract.limits.min_support,
                events=least_events(turn.contract),
            )
            for p in turn.others
        ),
    )


def _told_once(turn: Turn, send: Mapping[Name, WeighedBins]) -> dict[str, bytes]:
    """Return what was told, to be remembered; refuses to tell a partner anything else under the same contract."""
    told = {
        f"scorecard told/{digest(turn.contract).hex()}/{p}": hashlib.sha256(encode(message)).digest()
        for p, message in send.items()
    }
    if any(turn.store.get(key, made) != made for key, made in told.items()):
        raise PolicyRefused(
            "scorecard: rows or labels changed since WoE was told under this contract, and a change tells labels",
            "sign a new contract",
        )
    return told


def _message(turn: Turn, partner: Name, chosen: Sequence[WeighedColumn]) -> WeighedBins:
    sizes, names = turn.published(BinSizes, partner), turn.recall(PartnerTotals).columns[partner]
    groups, woe = np.zeros(sizes.width, np.int32), np.zeros(sizes.width, np.int64)
    information = np.full(len(sizes.sizes), LEFT_OUT, np.int64)
    for column in chosen:
        j = names.index(column.name)
        at = sizes.columns[j].start
        groups[at : at + len(column.mapping)] = column.mapping
        woe[at : at + len(column.units)] = column.units
        (information[j],) = in_units(np.array([column.information]))
    return WeighedBins(groups, woe, information)


def _without_likes(turn: Turn, found: WoeColumns, information: Sequence[float]) -> WoeColumns:
    """Leave out, of two own columns that are correlated beyond the contract's limit, the one of less information."""
    most = turn.contract.scorecard.max_correlation
    if most >= 1 or len(found.columns) < 2:
        return found
    taken = take(own_columns(turn), real(turn.recall(Split).train))
    correlation = np.atleast_2d(np.corrcoef(np.stack(list(found.weigh(*taken).values()))))
    names = [c.bins.name for c in found.columns]
    candidates = [Candidate(n, i) for n, i in zip(names, information, strict=True)]
    selected = select(candidates, correlation, Limits(-math.inf, stability=math.inf, correlation=most))
    return WoeColumns(tuple(c for c in found.columns if c.bins.name in selected.kept))


# --- WoE, at the partner


def _take(turn: Turn, inbox: Inbox[WeighedBins]) -> Outcome[Nothing, Silent]:
    """At the partner: check that what the bank says fits the bins that were shown, and keep the WoE columns."""
    sizes, told = turn.published(BinSizes, turn.me), inbox.one(turn.parties[0], WeighedBins)
    if not told.groups.shape == told.woe.shape == (sizes.width,) or told.information.shape != (
        len(sizes.sizes),
    ):
        raise ValueError("what the bank says of the own bins has another length than they have")
    shown = {b.name: b for b in Binning.from_json(turn.recall(ShownBins).binning).columns}
    columns, information = [], []
    for bins, where, iv in zip(own_bins(turn).columns, sizes.columns, told.information.tolist(), strict=True):
        if iv == LEFT_OUT:
            continue
        if bins.name not in shown or iv < 0:
            raise ValueError(f"the bank weighs {bins.name}, whose totals it was not shown")
        fine = shown[bins.name]
        joined = join(fine, tuple(told.groups[where][: fine.count].tolist()))
        columns.append(WoeColumn(joined, tuple(told.woe[where][: joined.count].tolist())))
        _check_column(turn, columns[-1])
        information.append(iv * UNIT)
    if not columns:
        raise ValueError("the bank left out every column")
    evidence = _without_likes(turn, WoeColumns(tuple(columns)), information)
    return Outcome(Silent(), keep=(OwnEvidence(evidence.to_json()),), forget=(OwnBins, ShownBins))


def _check_column(turn: Turn, column: WoeColumn) -> None:
    """Refuse joined bins that are smaller than agreed, and WoE beyond that of the fewest events or others agreed."""
    train, least = real(turn.recall(Split).train), least_events(turn.contract)
    rows = np.bincount(place_rows(column.bins, *take(own_columns(turn), train)), minlength=column.bins.count)
    if rows.min() < math.ceil(turn.contract.scorecard.min_share * len(train)):
        raise ValueError(
            f"the bank joined bins of {column.bins.name} to less than scorecard.min_share of the rows"
        )
    if np.abs(column.woe).max() > math.log(len(train) / least) + UNIT:
        raise ValueError(
            f"no bin of {column.bins.name} with {least} events and others has a WoE in that range"
        )


# --- script

BIN = Step("scorecard.bin", _bin, Silent)
WEIGH = Step("scorecard.weigh", _weigh, Silent, reveals=(BinWeights,))
TAKE = Step("scorecard.take", _take, Silent, reads=(WeighedBins,))


def weigh_columns(call: Caller, contract: Contract, overlap: Overlap) -> None:
    """Have each party bin its columns and give it their WoE: `OwnEvidence`, at the bank `EvidenceTable` too."""
    bank, *partners = data_parties(contract)
    call.all([ask(p, BIN) for p in (bank, *partners)])
    bin_totals(call, contract, overlap)
    witness(call, contract)
    weighed = call(bank, WEIGH)
    call.all([ask(p, TAKE, weighed.to(p)) for p in partners])
    checkpoint(call, contract)
