"""Totals per bin: how many rows and events fall into each bin of a partner's columns, to the bank alone.

Computes Xᵀ y for the partner's one-hot bins X of the training rows and the bank's labels y, and opens it column by
column where every bin holds enough. Takes part: the bank and one partner after the other, and the dealer.

| learns | what |
|---|---|
| bank | rows and events of each bin of the partner's columns that pass, by column name; edges and levels it does not |
| bank, that partner | for each column which of a few maps passes first, if any: in how many bins it may be shown |
| everybody | how many bins each column of the partner has, and whether one of them is for missing values |
| dealer, coordinator, other partners | nothing else: not even which columns passed |

What the totals say: a bin's rows and events are exact. A bank that runs again with one label changed reads the bins
of that row: the minimum holds for each run by itself, only the contract's `max_runs` limits their number. A column
that was shown once is shown in other bins under another contract only: edges one row apart would tell of that row.

Two minimums. Rows: `limits.min_support` in every bin, counted by the partner, who knows its bins, before anything
leaves; fewer, and it refuses, and has to merge. Events, and rows without one: `least_events` in every bin, compared
on shares, because neither side knows both bins and labels. A column that falls short is compared with its bins
joined as well, in up to three ways that follow from their number (`maps_of`), and shown in the finest that passes;
where none does, neither totals nor counts are sent. All comparisons are one: joining only adds, so their bits tell
how far a column had to be joined, and no more; that much the partner learns about labels. So a bank that keeps to
the protocol cannot label one person alone and read that person's bins.

Safe against a semi-honest bank or partner, while the dealer colludes with neither (with the bank it would read every
row's bins, with the partner every label). Nothing that is sent is proved: a partner can send other totals, of which
the bank sees only that they must add up, and a bank that adds to its share passes the comparison.

Where the match is hidden the partner does not know how many common rows its bins have, so these totals are refused.

Source: protocols.md section 3; redteam.md 1.5, 2.8. The product: `bin_product`; the comparison: `minimum`; the ways to
show a column: `bin_layout`. Everything is exact.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.errors import DataError, PeerError, PolicyRefused
from fedmkt.learn.bins import Binning, Bins, NumberBins, join
from fedmkt.learn.merging import Totals
from fedmkt.privacy.disclosure import EVERYONE, BinCounts, BinTotals, Disclosure, MatrixShape, MinimumBits
from fedmkt.protocol.alignment.align import joint_rows, train_rows
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    HalfWords,
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
    dealer,
    inbox_of,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.prepare import MAX_COLUMNS, own_columns, real
from fedmkt.protocol.scorecard.bin_product import LABEL, BankSide, PartnerSide, deal_product, exchange
from fedmkt.protocol.scorecard.minimum import (
    BitOpening,
    Comparison,
    DealtMinimum,
    PassShare,
    ValueOpening,
    deal_minimum,
    layer_sizes,
    open_layer,
    open_values,
    read_passes,
    share_passes,
)
from fedmkt.protocol.trees.bin_layout import (
    MAX_BINS,
    MAX_WIDTH,
    BinSizes,
    cells_of,
    chosen_maps,
    is_accepted,
    is_apart,
    joined,
)
from fedmkt.protocol.witness import witness

LEAST_EVENTS = 10
"""Of both kinds in every bin: at one response in a hundred most bins of 50 rows hold no event at all."""

_MAX_ROWS = 1 << 30
"""Twice as many still have a sign modulo 2^32, which the comparison reads."""


# --- messages and state


@dataclass(frozen=True)
class DealtTotals(Message):
    """The bank's corrections: of Uᵀ v, and of the comparison."""

    product: HalfWords
    minimum: DealtMinimum


@dataclass(frozen=True)
class ReleasedTotals(Message):
    """The partner's rows per bin and its share of the events; zero throughout a column that does not pass."""

    names: tuple[str, ...]
    rows: Words
    events: HalfWords


@dataclass(frozen=True)
class OwnBins(State):
    """How the own columns fall into bins: a `Binning` as JSON, fitted on the own train rows before."""

    binning: str


@dataclass(frozen=True)
class ShownBins(State):
    """At the partner: the bins whose totals the bank was shown, as a `Binning` in JSON; without withheld columns."""

    binning: str


@dataclass(frozen=True)
class PartnerTotals(State):
    """At the bank: what it was shown, by partner and column.

    totals : (bins, 2), rows and events of each bin; withheld : columns with a bin short of events or others;
    columns : both, in the order of the partner's `BinSizes`.
    """

    totals: Mapping[str, Mapping[str, NDArray[np.int64]]]
    withheld: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, tuple[str, ...]]

    def of(self, partner: str) -> dict[str, Totals]:
        """Return the totals of one partner's columns."""
        return {n: Totals(t[:, 0].copy(), t[:, 1].copy()) for n, t in self.totals[partner].items()}


def least_events(contract: Contract) -> int:
    """Return how many events, and how many rows without one, every bin that is opened holds."""
    return max(LEAST_EVENTS, contract.limits.min_events)


def own_bins(turn: Turn) -> Binning:
    """Return the own binning."""
    return Binning.from_json(turn.recall(OwnBins).binning)


# --- partner


def _begin(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, BinSizes]:
    """Place the own rows in bins and count them; refuses when a bin is too small, before anything leaves."""
    if turn.contract.align.hidden:
        raise PolicyRefused("totals: not where the match is hidden: nobody can count the rows of a bin there")
    binning, columns, rows = own_bins(turn), own_columns(turn), joint_rows(turn, True)
    sizes = BinSizes(tuple(b.count for b in binning.columns), tuple(map(is_apart, binning.columns)))
    if not is_accepted(sizes) or len(rows) > _MAX_ROWS:
        raise DataError(
            f"{turn.me}: totals want 1 to {MAX_COLUMNS} columns of at most {MAX_BINS} bins, {MAX_WIDTH} in all, "
            f"and at most {_MAX_ROWS} rows"
        )
    places = np.full((len(rows), len(sizes.sizes)), sizes.width, np.int32)
    is_real = rows != NO_ROW
    for j, (bins, where) in enumerate(zip(binning.columns, sizes.columns, strict=True)):
        if isinstance(bins, NumberBins):
            found = bins.assign(columns.numbers[bins.name][real(rows)])
        else:
            found = bins.assign(columns.categories[bins.name][real(rows)])
        places[is_real, j] = where.start + found
    counts = np.bincount(places.reshape(-1), minlength=sizes.width + 1)[: sizes.width]
    for bins, where in zip(binning.columns, sizes.columns, strict=True):
        if counts[where].min() < turn.contract.limits.min_support:
            raise PolicyRefused(
                f"totals: a bin of {bins.name} has fewer rows than limits.min_support",
                "merge its bins, or leave the column out",
            )
    _check_pins(turn, binning)
    count, counted = next_count(turn, f"{LABEL}/{turn.me}")
    names = tuple(b.name for b in binning.columns)
    share = np.zeros(sizes.width, np.uint32)
    side = PartnerSide(count, sizes, names, places, counts.astype(np.int64), share, 0)
    shape = MatrixShape(to=EVERYONE, columns=sizes.width, row_norm=math.ceil(math.sqrt(len(names))))
    return Outcome(sizes, keep=(side, counted), reveals=(shape,))


def _pin(turn: Turn, bins: Bins) -> tuple[str, bytes]:
    """Return where the party remembers that a column was shown, and in which bins."""
    return f"{LABEL}/{digest(turn.contract).hex()}/{bins.name}", Binning((bins,)).digest.encode()


def _check_pins(turn: Turn, binning: Binning) -> None:
    for bins in binning.columns:
        key, found = _pin(turn, bins)
        if turn.store.get(key, found) != found:
            raise PolicyRefused(
                f"totals: {bins.name} was shown in other bins under this contract",
                "use the bins of the earlier run, or sign a new contract",
            )


# --- dealer


def _deal(partner: Name, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtTotals, Silent]:
    sizes = turn.published(BinSizes, partner)
    count, counted = next_count(turn, f"{LABEL}/{partner}")
    minimum = deal_minimum(turn, partner, f"{LABEL}/least", count, sizes.compared)
    dealt = DealtTotals(deal_product(turn, partner, count), minimum)
    return Outcome(Silent(), send={turn.parties[0]: dealt}, keep=(counted,))


# --- minimum of events, and release


def _open_values(turn: Turn, inbox: Inbox[DealtTotals]) -> Outcome[ValueOpening, Silent]:
    """Begin to compare, for every bin of every map, events and other rows with the least number."""
    label = f"{LABEL}/least"
    if not turn.first:
        own = turn.recall(PartnerSide)
        cells = cells_of(own.sizes, own.share, own.rows.astype(np.uint32) - own.share, 0)
        return open_values(turn, turn.parties[0], label, own.count, cells, None)
    side = turn.recall(BankSide)
    sizes = turn.published(BinSizes, side.partner)
    dealt = inbox.one(dealer(turn.contract), DealtTotals)
    if dealt.product.shape != side.share.shape:
        raise ValueError("the dealer's correction has another length")
    share = side.share + dealt.product
    cells = cells_of(sizes, share, np.uint32(0) - share, least_events(turn.contract))
    outcome = open_values(turn, side.partner, label, side.count, cells, dealt.minimum)
    return replace(outcome, keep=(*outcome.keep, replace(side, share=share)))


def _share_passes(turn: Turn, inbox: Inbox[BitOpening]) -> Outcome[PassShare, Silent]:
    message, state = share_passes(turn, inbox)
    partner, least = state.peer if turn.first else turn.me, least_events(turn.contract)
    sizes = turn.published(BinSizes, partner)
    bits = MinimumBits(to=state.peer, columns=len(sizes.sizes), bits=state.shape[0], minimum=least)
    return Outcome(Silent(), send={state.peer: message}, keep=(state,), reveals=(bits,))


def _release(turn: Turn, inbox: Inbox[PassShare]) -> Outcome[ReleasedTotals, Silent]:
    """At the partner: send rows and the own share of the events of the columns that passed, joined as they passed."""
    side, bank = turn.recall(PartnerSide), turn.parties[0]
    rows, events = np.zeros(side.sizes.width, np.uint64), np.zeros(side.sizes.width, np.uint32)
    shown: list[Bins] = []
    pins: dict[str, bytes] = {}
    columns = zip(side.sizes.columns, chosen_maps(side.sizes, read_passes(turn, inbox)), strict=True)
    for bins, (where, mapping) in zip(own_bins(turn).columns, columns, strict=True):
        if mapping is not None:
            shown.append(join(bins, mapping))
            pins |= [_pin(turn, bins)]
            at = slice(where.start, where.start + shown[-1].count)
            rows[at] = joined(side.rows[where].astype(np.uint64), mapping)
            events[at] = joined(side.share[where], mapping)
    reveals: tuple[Disclosure, ...] = ()
    if shown:
        size = {"columns": len(shown), "bins": sum(b.count for b in shown)}
        minimum = turn.contract.limits.min_support
        reveals = (BinCounts(to=bank, minimum=minimum, **size), BinTotals(to=bank, minimum=minimum, **size))
    kept = ShownBins(Binning(tuple(shown)).to_json())
    return Outcome(
        Silent(),
        send={bank: ReleasedTotals(side.names, rows, events)},
        keep=(kept,),
        reveals=reveals,
        forget=(PartnerSide, Comparison),
        remember=pins,
    )


def _take(turn: Turn, inbox: Inbox[PassShare | ReleasedTotals]) -> Outcome[Nothing, Silent]:
    """At the bank: add the partner's share; refuses totals that cannot be those of its own rows."""
    side = turn.recall(BankSide)
    sizes = turn.published(BinSizes, side.partner)
    found, chosen = inbox.one(side.partner, ReleasedTotals), chosen_maps(sizes, read_passes(turn, inbox))
    allowed = turn.contract.party(side.partner)
    if (
        len(found.names) != len(sizes.sizes)
        or len(set(found.names)) != len(found.names)
        or not {*found.names} <= {*allowed.numbers, *allowed.categories}
        or not found.rows.shape == found.events.shape == (sizes.width,)
    ):
        raise ValueError("the released totals are of other columns than the contract's")
    totals, withheld, labelled = {}, [], int(side.labels.sum())
    for name, where, mapping in zip(found.names, sizes.columns, chosen, strict=True):
        if mapping is None:
            withheld.append(name)
            continue
        own = joined(side.share[where], mapping)
        at = slice(where.start, where.start + len(own))
        shown = Totals(found.rows[at].astype(np.int64), (own + found.events[at]).astype(np.int64))
        if (int(shown.rows.sum()), int(shown.events.sum())) != (side.rows, labelled):
            raise PeerError(f"{side.partner}: totals.release: the totals do not add up to all rows")
        totals[name] = np.stack([shown.rows, shown.events], axis=1)
    before = turn.recall(PartnerTotals) if turn.has(PartnerTotals) else PartnerTotals({}, {}, {})
    kept = PartnerTotals(
        {**before.totals, side.partner: totals},
        {**before.withheld, side.partner: tuple(withheld)},
        {**before.columns, side.partner: found.names},
    )
    return Outcome(Silent(), keep=(kept,), forget=(BankSide, Comparison))


# --- script

BEGIN = Step("totals.begin", _begin, BinSizes, reveals=(MatrixShape,))
OPEN_VALUES = Step("totals.open_values", _open_values, Silent, reads=(DealtTotals,))
OPEN_LAYER = Step("totals.open_layer", open_layer, Silent, reads=(ValueOpening, BitOpening))
SHARE_PASSES = Step("totals.share_passes", _share_passes, Silent, reads=(BitOpening,), reveals=(MinimumBits,))
RELEASE = Step("totals.release", _release, Silent, reads=(PassShare,), reveals=(BinCounts, BinTotals))
TAKE = Step("totals.take", _take, Silent, reads=(PassShare, ReleasedTotals))
NEEDED = ("MatrixShape", "MinimumBits", "BinCounts", "BinTotals")
"""Disclosures that a contract must name."""


def bin_totals(call: Caller, contract: Contract, overlap: Overlap) -> None:
    """Show the bank the totals of each partner's bins, one partner after the other: `PartnerTotals`."""
    missing = [kind for kind in NEEDED if kind not in contract.disclosures]
    if missing:
        raise PolicyRefused(f"totals: the contract does not allow {', '.join(missing)}")
    for partner in data_parties(contract)[1:]:
        _totals_of(call, contract, partner, train_rows(contract, overlap))


def _totals_of(call: Caller, contract: Contract, partner: Name, rows: int) -> None:
    bank = data_parties(contract)[0]
    witness(call, contract)
    sizes = call(partner, BEGIN).public.value
    if not is_accepted(sizes):
        raise PeerError(f"{partner}: totals.begin: bins of these sizes are not accepted")
    dealt = call(dealer(contract), Step("totals.deal", partial(_deal, partner), Silent))
    exchange(call, bank, partner, len(sizes.blocks(rows)))
    opened: list[Reply[ValueOpening | BitOpening, Silent]] = []
    opened += call.all([ask(p, OPEN_VALUES, *inbox_of([dealt], p)) for p in (bank, partner)])
    bits: list[Reply[BitOpening, Silent]] = []
    for _ in layer_sizes(sizes.compared):
        bits = call.all([ask(p, OPEN_LAYER, *inbox_of(opened, p)) for p in (bank, partner)])
        opened = [*bits]
    witness(call, contract)
    passes = call.all([ask(p, SHARE_PASSES, *inbox_of(bits, p)) for p in (bank, partner)])
    witness(call, contract)
    released = call(partner, RELEASE, *inbox_of(passes, partner))
    call(bank, TAKE, *_take_inbox(passes, released, bank))


def _take_inbox(
    passes: list[Reply[PassShare, Silent]], released: Reply[ReleasedTotals, Silent], bank: Name
) -> tuple[Sealed[PassShare | ReleasedTotals], ...]:
    return (*inbox_of(passes, bank), *inbox_of([released], bank))
