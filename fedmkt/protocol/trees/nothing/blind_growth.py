"""Growing a tree blindly: the steps of one tree in mode `nothing`, of which `blind_boosting` says who learns what.

Bank and partner hold shares of g, h and membership of every node of a level, and of the totals of all its cells, as in
`shared_growth`. A level is grown in three turns:

    add up      totals of the left children over all bins, shared (`shared_histogram`); of the right ones, what is left
    choose      the number of the best candidate of each node, shared (`blind_gains`); one bit of it, whose it is, to
                everybody, all of it to the owner
    split       membership, g and h of the children (`side_product`, as in `shared_growth`)

All trees are complete. A node without a split worth it is the bank's, which sends all its rows left.

A candidate's number is 2 i for the bank's i-th one, 2 i + 1 for the partner's; the bank's 0 is no split.
Letters: as in `blind_gains`; F columns, the bank's first; B bins and the missing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.learn.splits import Settings
from fedmkt.learn.trees import Decision
from fedmkt.privacy.disclosure import EVERYONE, ChosenSplits, Disclosure, TreeShape
from fedmkt.protocol.core import (
    Caller,
    Inbox,
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
    inbox_of,
)
from fedmkt.protocol.layout import BLOCK_BYTES
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.nothing.blind_gains import Weighing, bits_for, gain_phases, lifted_shares
from fedmkt.protocol.trees.nothing.blind_rounds import PhaseOpening, PhaseState, last_values, run_phases
from fedmkt.protocol.trees.side_product import Bytes
from fedmkt.protocol.trees.sides.boosting import own_names
from fedmkt.protocol.trees.totals import shared_cells
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.level_sides import part_rows
from fedmkt.protocol.trees.totals.shared_cells import LevelShares, grid
from fedmkt.protocol.trees.totals.shared_growth import (
    NodeOwners,
    split_nodes,
)
from fedmkt.protocol.trees.totals.shared_histogram import TotalShares, add_up_nodes
from fedmkt.protocol.trees.totals.shared_values import Owners
from fedmkt.protocol.witness import countersign, showing
from fedmkt.ring import phases
from fedmkt.ring.phases import Phase, Values

H_SCALE = 256
"""Units of h, as `shared_gradients` rounds it."""
LABEL = "gains"


@dataclass(frozen=True)
class Candidate:
    """A split by a party's own column: rows up to `bin` go left, and the missing if `missing_left`."""

    column: int
    bin: int
    missing_left: bool


@dataclass(frozen=True)
class OwnerShares(Message):
    """The lowest bit of the sender's share of each node's chosen number, which is fresh: (nodes,)."""

    bits: Bytes


@dataclass(frozen=True)
class ChosenShares(Message):
    """The sender's shares of the chosen numbers of the reader's nodes, (nodes,)."""

    numbers: Words


@dataclass(frozen=True)
class LevelChoice(State):
    """The own shares, node by node, of what was chosen, (3, nodes): its number, G and H left; of G and H of all."""

    durable: ClassVar[bool] = False
    chosen: Words
    nodes: Words


# --- candidates


def settings_of(contract: Contract) -> Settings:
    """Return how trees are grown where no cell is seen, so that none needs to be large enough."""
    return replace(shared_cells.settings_of(contract), min_cell=0)


@lru_cache(maxsize=8)
def candidates_of(sizes: BinSizes, is_bank: bool) -> tuple[Candidate, ...]:
    """List what a party's columns may be split by, in their order; the bank's first one is no split."""
    found = [Candidate(0, sizes.sizes[0] - sizes.apart[0] - 1, True)] if is_bank else []
    for column, (size, apart) in enumerate(zip(sizes.sizes, sizes.apart, strict=True)):
        values = size - apart
        for bin_ in range(values - 1):
            found += [Candidate(column, bin_, left) for left in ((True, False) if apart else (True,))]
        if apart:
            found.append(Candidate(column, values - 1, False))
    return tuple(found)


def weighing(contract: Contract, lanes: Lanes, sizes: Mapping[Name, BinSizes], nodes: int) -> Weighing:
    """Plan the choice of so many nodes."""
    settings, (bank, partner) = settings_of(contract), data_parties(contract)
    penalty = penalty_units(contract)
    codes = [2 * i for i in range(len(candidates_of(sizes[bank], True)))]
    codes += [2 * i + 1 for i in range(len(candidates_of(sizes[partner], False)))]
    g, h, rows = (width for lane in lanes.fields for width in lane)
    # Numbers of rows are compared in 32 bits; more rows than all of them need not be told from these.
    least_rows = min(settings.min_rows, lanes.rows + 1)
    return Weighing(
        nodes, (g, h, rows), bits_for(lanes.rows, penalty), penalty,
        max(1, round(settings.min_weight * H_SCALE)), least_rows, tuple(codes),
    )  # fmt: skip


def penalty_units(contract: Contract) -> int:
    """Return the penalty in units of h; cut-off shares of H make 1 less of it, and it stays above 0."""
    return max(2, round(contract.trees.penalty * H_SCALE))


def groups_of(plan: Weighing) -> Iterator[slice]:
    """Split the nodes of a level, so that what is dealt for some of them fits into one message."""
    step = _at_once(replace(plan, nodes=1))
    yield from (slice(i, min(plan.nodes, i + step)) for i in range(0, plan.nodes, step))


@lru_cache(maxsize=8)
def _at_once(node: Weighing) -> int:
    return max(1, BLOCK_BYTES // phases.dealt(gain_phases(node)))


def field_shares(lanes: Lanes, totals: Words) -> list[tuple[Words, int]]:
    """Tell the fields of shared lanes, (lanes, ...), apart: each with its bits; an upper one is up to 2 too low."""
    found = []
    for lane, fields, bits in zip(totals, lanes.fields, lanes.bits, strict=True):
        rest = lane & np.uint64((1 << bits) - 1)
        for width in fields:
            found.append((rest & np.uint64((1 << width) - 1), width))
            rest = rest >> np.uint64(width)
    return found


# --- steps


def take_totals(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Work out the own shares of the cells of all nodes of the level."""
    state, table, totals = turn.recall(LevelShares), grid(turn), turn.recall(TotalShares).values
    joint = np.concatenate([totals[str(p)] for p in turn.parties], axis=-1)
    cells = table.cells(joint).astype(np.uint64, copy=False)
    if len(state.nodes) > 1:
        left, cells = cells, np.empty((len(cells), len(state.nodes), *cells.shape[2:]), np.uint64)
        cells[:, 0::2], cells[:, 1::2] = left, state.cells - left
    none = np.empty((len(state.nodes), 0, 0), np.bool_)
    kept = replace(state, cells=cells, above=none, cuts=none)
    return Outcome(Silent(), keep=(kept,), forget=(TotalShares, LevelChoice))


def start_choice(lanes: Lanes, nodes: slice, turn: Turn) -> Values:
    """Return the own shares of the totals left of all candidates of some nodes."""
    cells = turn.recall(LevelShares).cells[:, nodes]
    present, missing = cells[..., :-1].cumsum(axis=-1, dtype=np.uint64), cells[..., -1]
    columns, before = [], 0
    for party in turn.parties:
        sizes = turn.published(BinSizes, party)
        for c in candidates_of(sizes, party == turn.parties[0]):
            at = before + c.column
            left = present[:, :, at, c.bin]
            columns.append(left + missing[:, :, at] if c.missing_left else left)
        before += len(sizes.sizes)
    fields = field_shares(lanes, np.stack(columns, axis=-1))
    return {
        name: lifted_shares(shares, width)
        for name, (shares, width) in zip(("g", "h", "rows"), fields, strict=True)
    }


def keep_choice(
    plan: tuple[Phase, ...], turn: Turn, inbox: Inbox[PhaseOpening]
) -> Outcome[OwnerShares, Silent]:
    """Keep what was chosen of some nodes, behind that of those before; tell the own shares of whose it is."""
    found = last_values(turn, LABEL, plan, inbox)
    table = phases.words(found["chosen"])[..., 0]
    state, (other,) = LevelChoice(table[[4, 2, 3]], phases.words(found["node"])), turn.others
    owners = OwnerShares((state.chosen[0] & np.uint64(1)).astype(np.uint8))
    if turn.has(LevelChoice):
        before = turn.recall(LevelChoice)
        chosen = np.concatenate([before.chosen, state.chosen], axis=1)
        state = LevelChoice(chosen, np.concatenate([before.nodes, state.nodes], axis=1))
    return Outcome(Silent(), send={other: owners}, keep=(state,), forget=(PhaseState,))


def tell_owners(turn: Turn, inbox: Inbox[OwnerShares]) -> Outcome[ChosenShares, NodeOwners]:
    """Tell everybody whose splits were chosen, and the other party which of its own."""
    (other,), own = turn.others, turn.recall(LevelChoice).chosen[0]
    found = np.concatenate([m.bits for m in inbox.every(OwnerShares, other)])
    if found.shape != own.shape:
        raise ValueError("the shares of the owners are of another number of nodes")
    is_partner = ((own ^ found.astype(np.uint64)) & np.uint64(1)).astype(np.bool_)
    theirs = is_partner == turn.first
    reveals: tuple[Disclosure, ...] = (TreeShape(to=EVERYONE, splits=len(own)),) if turn.first else ()
    if theirs.any():
        reveals = (*reveals, ChosenSplits(to=other, splits=int(theirs.sum())))
    owners = NodeOwners(tuple(2 if p else 1 for p in is_partner.tolist()))
    return Outcome(owners, send={other: ChosenShares(own[theirs])}, reveals=reveals)


def record_choice(turn: Turn, inbox: Inbox[ChosenShares]) -> Outcome[Nothing, Silent]:
    """Write down who splits which node, and the own splits."""
    (other,), state, own = turn.others, turn.recall(LevelShares), turn.recall(LevelChoice).chosen[0]
    told = turn.published(NodeOwners, turn.parties[0])
    if told != turn.published(NodeOwners, turn.parties[1]) or len(told.owners) != len(state.nodes):
        raise ValueError("bank and partner do not agree on whose splits were chosen")
    level = split_nodes(state.nodes, told.owners)
    mine = np.array([turn.parties[owner] == turn.me for _, owner in level], np.bool_)
    found = inbox.one(other, ChosenShares).numbers
    if found.shape != (int(mine.sum()),):
        raise ValueError("the shares of the chosen splits are of another number of nodes")
    numbers = (own[mine] + found).tolist()
    decisions = _decisions(turn, np.array(state.nodes)[mine].tolist(), numbers)
    kept = replace(state, owners=(*state.owners, *level), decisions=(*state.decisions, *decisions))
    return Outcome(Silent(), keep=(kept,))


def _decisions(turn: Turn, nodes: list[int], numbers: list[int]) -> tuple[Decision, ...]:
    known, names = candidates_of(turn.published(BinSizes, turn.me), turn.first), own_names(turn)
    if any(n % 2 == turn.first or n // 2 >= len(known) for n in numbers):
        raise ValueError("a chosen split is none of mine")
    chosen = [known[n // 2] for n in numbers]
    return tuple(
        Decision(node, names[c.column], c.bin, c.missing_left) for node, c in zip(nodes, chosen, strict=True)
    )


# --- script

TAKE_TOTALS = Step("fit.take_totals", take_totals, Silent)
TELL_OWNERS = Step(
    "fit.tell_owners", tell_owners, NodeOwners, reads=(OwnerShares,), reveals=(TreeShape, ChosenSplits)
)
RECORD_CHOICE = Step("fit.record_choice", record_choice, Silent, reads=(ChosenShares,))


def grow(call: Caller, contract: Contract, lanes: Lanes, sizes: Mapping[Name, BinSizes]) -> Owners:
    """Grow a complete tree level by level."""
    parties, owners = data_parties(contract), list[tuple[int, int]]()
    for depth in range(contract.trees.depth):
        nodes = range((1 << depth) - 1, (2 << depth) - 1)
        add_up_nodes(call, contract, lanes, (len(nodes) + 1) // 2)
        call.all([ask(p, TAKE_TOTALS) for p in parties])
        plan, shared = weighing(contract, lanes, sizes, len(nodes)), list[Reply[OwnerShares, Silent]]()
        for group in groups_of(plan):
            todo = gain_phases(replace(plan, nodes=group.stop - group.start))
            last = run_phases(call, contract, LABEL, todo, partial(start_choice, lanes, group))
            keep = Step("fit.share_owners", partial(keep_choice, todo), Silent, reads=(PhaseOpening,))
            keep = showing(keep) if group.stop == plan.nodes else keep
            shared += call.all([ask(p, keep, *inbox_of(last, p)) for p in parties])
        countersign(call, parties)
        told = call.all([ask(p, TELL_OWNERS, *inbox_of(shared, p)) for p in parties])
        call.all([ask(p, RECORD_CHOICE, *inbox_of(told, p)) for p in parties])
        owners += split_nodes(nodes, told[0].public.value.owners)
        if depth + 1 < contract.trees.depth:
            part_rows(call, contract, lanes, len(nodes))
    return tuple(owners)
