"""Boosted trees in mode `nothing`: gradients, membership, totals, gains and leaves stay shared; only splits are opened.

Computes gradient-boosted trees of the columns of the bank and one partner. As in mode `totals` (`shared_boosting`)
scores, gradients and membership are shared; here totals are never opened, the split of most gain is found on shares,
and so are the leaves' values. Takes part: the bank, one partner, and the dealer.

| learns | what |
|---|---|
| bank, partner | which edges of its own bins were chosen, at which node of which tree (`ChosenSplits`); the bank also \
which nodes have no split that gains anything |
| everybody | who splits which node (`TreeShape`) |
| dealer, coordinator | nothing else |

Who holds what of the model: each its own splits, and shares of the leaves' values; the bank the score before all trees.
All trees are complete, so their shape says nothing. Both sides of a split have `min_rows` rows and `min_support` at
least, which is compared on shares too, and nobody learns of which candidate it was not so.

A chosen split says that no other one gained more, on rows of which its owner knows part. That is no total, and it is
not nothing: 31 splits of a tree are at most 31 times the logarithm of the candidates. The bank knows the gradients of
the first tree, and who is in a node above which all splits are its own.

Safe against: a semi-honest bank or partner, as far as the table says, and a semi-honest dealer that colludes with
neither; with either it would read everything. **Not safe against a malicious party**: it may add numbers to its shares,
so that splits depend on a few rows, or on one, and to its share of a chosen number, so that the other
party's split counts as its own and is told to it; labels are the bank's to choose. The refusal of a number that is none
of the own splits tells whoever changed it something about it, once for each resume; nothing else of that shows.

Nobody knows the leaves' values, so nobody could see scores leave the range of the series for sigma: values are kept
within a bound that follows from the contract (`blind_leaves.most_value`), and the series for each tree with it.

Source: protocols.md section 4. Letters: g, h as in learn/splits.py; F the shared scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.errors import DataError
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    HalfWords,
    Inbox,
    Name,
    Nothing,
    Outcome,
    Silent,
    State,
    Step,
    Turn,
    ask,
    data_parties,
    inbox_of,
)
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.nothing.blind_gains import bits_for, gain_bounds
from fedmkt.protocol.trees.nothing.blind_growth import LevelChoice, grow, penalty_units
from fedmkt.protocol.trees.nothing.blind_leaves import (
    MOST_BASE,
    Leaves,
    leaf_bounds,
    leaf_phases,
    leaf_values,
    most_value,
)
from fedmkt.protocol.trees.nothing.blind_rounds import PhaseOpening, PhaseState, last_values, run_phases
from fedmkt.protocol.trees.sides.tree_growth import Forest
from fedmkt.protocol.trees.totals.lane_plan import lanes_of
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.shared_boosting import (
    LOAD,
    extended,
    open_node_values,
    plant,
)
from fedmkt.protocol.trees.totals.shared_cells import APART, TOGETHER, LevelShares
from fedmkt.protocol.trees.totals.shared_gradients import FAR, NEAR, ScoreRange, SharedScores
from fedmkt.protocol.trees.totals.shared_growth import TreeOwners
from fedmkt.protocol.trees.totals.shared_histogram import send_hints
from fedmkt.protocol.trees.totals.shared_values import Folding, Forests, Owners, fold, start_shared, total
from fedmkt.protocol.witness import checkpoint
from fedmkt.ring.bounds import Bound, check
from fedmkt.ring.phases import Phase, Values, words

LABEL = "leaves"
LIMITS = (
    tuple(tuple(2 * limit for limit in lane) for lane in TOGETHER),
    tuple(tuple(2 * limit for limit in lane) for lane in APART),
)
"""Limits of totals by lane, with g and h in one and in two: twice their size, which moving them to words needs."""


@dataclass(frozen=True)
class LeafShares(State):
    """The own shares of the leaves of all trees so far, (trees, leaves), modulo 2^24 units, in the order of nodes."""

    words: HalfWords


@dataclass(frozen=True)
class NewLeaves(State):
    """Those of the tree under way, (leaves,)."""

    durable: ClassVar[bool] = False
    words: HalfWords


def leaves_of(contract: Contract, rows: int) -> Leaves:
    """Plan the leaves of a tree."""
    terms = contract.trees
    bits = bits_for(rows, penalty_units(contract))
    return Leaves(1 << terms.depth, bits, terms.rate, most_value(contract))


def blind_bounds(contract: Contract, rows: int) -> list[Bound]:
    """Return how large what is rounded on shares can get, of so many train rows."""
    bits = bits_for(rows, penalty_units(contract))
    return [*gain_bounds(bits), *leaf_bounds(bits)]


def blind_lanes(contract: Contract, overlap: Overlap, sizes: Mapping[Name, BinSizes]) -> Lanes:
    """Plan the encrypted vectors."""
    return lanes_of(contract, overlap, sizes, LIMITS)


def tell_range(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, ScoreRange]:
    """Tell which series is long enough for all scores that there can be, whatever the trees are."""
    if abs(turn.recall(Forest).base) > MOST_BASE:
        raise DataError(f"{turn.me}: of the training rows too few answered, or too many, for trees")
    grown, terms = len(turn.recall(TreeOwners).trees), turn.contract.trees
    reach = MOST_BASE + grown * terms.rate * most_value(turn.contract)
    return Outcome(ScoreRange(NEAR.period if reach <= NEAR.most else FAR.period))


def start_leaves(plan: Leaves, turn: Turn) -> Values:
    """Return the own shares of G and H + penalty of all leaves, left and right in turn."""
    state = turn.recall(LevelChoice)
    left, right = state.chosen[1:], state.nodes - state.chosen[1:]
    g, h = np.stack([left, right], axis=-1).reshape(2, -1)
    return leaf_values(plan, g, h + np.uint64(penalty_units(turn.contract) * turn.first), turn.first)


def _begin_values(
    phases: tuple[Phase, ...], turn: Turn, inbox: Inbox[PhaseOpening]
) -> Outcome[Nothing, Silent]:
    """Take in the leaves' values, and begin to add them to the scores."""
    shares = words(last_values(turn, LABEL, phases, inbox)["values"]).astype(np.uint32)
    first = len(shares) - 1
    kept = start_shared({(0, first + i): share for i, share in enumerate(shares)})
    return Outcome(Silent(), keep=(kept, NewLeaves(shares)), forget=(PhaseState, LevelChoice))


def _add_tree(forest: Forests, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Add the tree to the scores and to the own part of the model."""
    scores = turn.recall(SharedScores).words + total(forest, turn.recall(Folding))
    (owners,) = forest.trees
    leaves = turn.recall(NewLeaves).words[None]
    if turn.has(LeafShares):
        leaves = np.concatenate([turn.recall(LeafShares).words, leaves])
    nodes = np.arange(len(leaves[0]), dtype=np.int32) + np.int32(len(leaves[0]) - 1)
    # What a leaf is worth is in no outline: nobody knows it.
    kept = extended(turn, owners, turn.recall(LevelShares).decisions, nodes, np.zeros(len(nodes)))
    forget = (Folding, LevelShares, NewLeaves)
    return Outcome(Silent(), keep=(SharedScores(scores), LeafShares(leaves), *kept), forget=forget)


TELL_RANGE = Step("fit.tell_range", tell_range, ScoreRange)


def fit(call: Caller, contract: Contract, overlap: Overlap, sizes: Mapping[Name, BinSizes]) -> None:
    """Grow the contract's number of trees, with a checkpoint every few."""
    parties, lanes = data_parties(contract), blind_lanes(contract, overlap, sizes)
    check(blind_bounds(contract, lanes.rows))
    leaves_of(contract, lanes.rows)
    loaded_in = 0
    for tree in range(contract.trees.trees):
        if call.epoch != loaded_in:
            # Hints and masks live for one epoch.
            loaded_in = call.epoch
            call.all([ask(p, LOAD) for p in parties])
            send_hints(call, contract, lanes)
        plant(call, contract, lanes, TELL_RANGE)
        add_tree(call, contract, lanes, grow(call, contract, lanes, sizes))
        if (tree + 1) % contract.model.checkpoint_every == 0 or tree + 1 == contract.trees.trees:
            checkpoint(call, contract)


def add_tree(call: Caller, contract: Contract, lanes: Lanes, owners: Owners) -> None:
    """Work out the leaves of a tree, and add their values to the shared scores."""
    parties = data_parties(contract)
    plan = leaves_of(contract, lanes.rows)
    todo = leaf_phases(plan)
    forest = Forests("values", lanes.rows, (owners,), True)
    last = run_phases(call, contract, LABEL, todo, partial(start_leaves, plan))
    begin = Step("fit.begin_values", partial(_begin_values, todo), Silent, reads=(PhaseOpening,))
    call.all([ask(p, begin, *inbox_of(last, p)) for p in parties])
    fold(call, contract, forest, open_node_values)
    add = Step("fit.add_tree", partial(_add_tree, forest), Silent)
    call.all([ask(p, add) for p in parties])
