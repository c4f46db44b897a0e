"""Growing a tree on totals with noise: mode `totals` where the contract gives `trees.epsilon`.

Computes the splits of one level from totals of g and h of every cell of every node, to which the partner has added
noise. Takes part: the bank and the partner; it stands in the place of `shared_growth`'s turns compare and open.

| learns | what |
|---|---|
| bank | totals of g and h per cell, of both parties' columns, with noise (`NoisyTotals`) |
| partner | which edges of its own bins were chosen (`ChosenSplits`) |
| everybody | which nodes are split, and by whom (`TreeShape`) |

What the totals of a whole training tell the bank about one row of the partner's bins is bounded, whatever else it
knows: (epsilon, delta) as `privacy.noise` states it, with its conditions. So cells are neither compared with a minimum
nor joined, nothing is counted, and no bit says which cells are small: a pattern of cells that are open would be
computed from rows, and would need noise of its own. **That the bank's own columns have noise too is needed**: of a
node below a split of the partner's they tell who is in it.

Noise is drawn for each release, at the partner, which never tells it: of what the bank gets, its own share of a total
and the partner's share with noise, only the sum says anything. A reply is kept and sent again as it was, within one
epoch. A run that goes back to a checkpoint grows trees again, with new noise: these levels are planned for, counted in
the store, and refused beyond the plan. The partner counts what all trainings with one bank add up to, over all
contracts, and refuses beyond `limits.max_epsilon` (`noise_ledger`).

Safe against: a semi-honest bank. One that adds to its share of g on a row makes that row count for more than the noise
is for; one that takes other numbers than 0 and 1 for labels as well. The partner could leave the noise out: it protects
nobody but the partner's people. Source: redteam.md 1.5; protocols.md section 4. Letters as in `shared_growth`.
"""

from dataclasses import replace

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import Random
from fedmkt.learn import boosting
from fedmkt.learn.cells import Counts, at_cuts
from fedmkt.learn.noisy import Bins, with_parents, with_totals
from fedmkt.learn.splits import Settings, root_level
from fedmkt.privacy.disclosure import ChosenSplits, NoisyTotals, TreeShape
from fedmkt.privacy.noise import NoisePlan, plan_noise
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Nothing,
    Outcome,
    Reply,
    Silent,
    Step,
    Turn,
    Words,
    data_parties,
    inbox_of,
)
from fedmkt.protocol.trees.sides.tree_growth import SplitRequest, columns_of
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.noise_ledger import Counted, count_level, count_training
from fedmkt.protocol.trees.totals.shared_cells import (
    APART,
    TOGETHER,
    LevelShares,
    grid,
    level_cells,
    settings_of,
)
from fedmkt.protocol.trees.totals.shared_gradients import LIMITS
from fedmkt.protocol.trees.totals.shared_growth import BankTree, NodeOwners, NodeTotals, choose_allowed
from fedmkt.protocol.trees.totals.shared_histogram import TotalShares
from fedmkt.protocol.witness import witness
from fedmkt.ring import discrete_gaussian


def plan_of(contract: Contract, rows: int) -> NoisePlan | None:
    """Return the noise of a training on so many padded rows; None where the contract wants none."""
    terms = contract.trees
    if terms.epsilon is None:
        return None
    again = contract.limits.max_resumes * contract.model.checkpoint_every
    levels = terms.depth * (terms.trees + again)
    return plan_noise(terms.epsilon, rows, levels, len(columns_of(contract)), LIMITS)


def begin_noise(turn: Turn, rows: int) -> Counted:
    """At the partner: count the training, if it has noise, before anything is computed."""
    plan = plan_of(turn.contract, rows)
    return Counted({}, ()) if plan is None or turn.first else count_training(turn, plan)


def with_room(lanes: Lanes, plan: NoisePlan) -> Lanes:
    """Return the lanes of g and h alone, with room for noise: nothing is counted."""
    spare = tuple(map(discrete_gaussian.most, plan.deviations))
    return replace(lanes, limits=lanes.limits[:-1], spare=spare)


def noisy_settings(contract: Contract) -> Settings:
    """Return how trees are grown where nobody counts rows: h is at most 1/4, so a total of h bounds them from below."""
    least = max(contract.trees.min_rows / 4, 1e-6)
    return replace(settings_of(contract), min_rows=0, min_cell=0, min_weight=least)


def bins_of(turn: Turn) -> Bins:
    """Return which cells the columns of both parties have."""
    table = grid(turn)
    return Bins(table.values, table.apart, table.bins)


def draw_noise(plan: NoisePlan, bins: Bins, nodes: int, random: Random) -> Counts:
    """Draw the noise of the cells of so many nodes, (nodes, F, B + 1, 2): of g and h, 0 where no bin is."""
    places = bins.places
    out = np.zeros((nodes, *places.shape, 2), np.int64)
    for field, deviation in enumerate(plan.deviations):
        out[:, places, field] = discrete_gaussian.draw(random, deviation, (nodes, int(places.sum())))
    return out


# --- steps


def _open(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[NodeTotals, Silent]:
    """At the partner: add noise to the own shares of all cells of the level, and send them."""
    bins, bank = bins_of(turn), turn.parties[0]
    state = _with_cells(turn, bins)
    plan, lanes = _agreed(turn.contract, state)
    remember = count_level(turn, plan)
    shares = noisy_shares(lanes, state.cells, draw_noise(plan, bins, len(state.nodes), turn.random))
    totals = 2 * len(state.nodes) * int(bins.places.sum())
    reveals = (NoisyTotals(to=bank, totals=totals, event=f"{plan}, all of this training"),)
    message = NodeTotals(shares.reshape(len(state.nodes), -1, len(state.cells)))
    return Outcome(
        Silent(),
        send={bank: message},
        keep=(state,),
        forget=(TotalShares,),
        reveals=reveals,
        remember=remember,
    )


def noisy_shares(lanes: Lanes, cells: Words, noise: Counts) -> Words:
    """Add noise, (nodes, F, B + 1, 2), to shares of cells, (lanes, nodes, F, B + 1): (nodes, F, B + 1, lanes)."""
    joined = np.stack([lane.astype(np.uint64) for lane in lanes.join([*np.moveaxis(noise, -1, 0)])], axis=-1)
    # How often a sum goes around t would tell of the total without its noise.
    masks = np.array([(1 << bits) - 1 for bits in lanes.bits], np.uint64)
    return (np.moveaxis(cells, 0, -1) + joined) & masks


def _choose(turn: Turn, inbox: Inbox[NodeTotals]) -> Outcome[SplitRequest, NodeOwners]:
    """At the bank: read the totals, choose splits, tell the partner those of its columns."""
    (partner,) = turn.others
    bins, settings = bins_of(turn), noisy_settings(turn.contract)
    state = _with_cells(turn, bins)
    own, found = np.moveaxis(state.cells, 0, -1), inbox.one(partner, NodeTotals).cells
    if found.shape != (len(own), own[0, ..., 0].size, own.shape[-1]):
        raise ValueError("the totals of the partner have another shape than agreed")
    _, lanes = _agreed(turn.contract, state)
    cells = lanes.split(own + found.reshape(own.shape))
    tree = turn.recall(BankTree) if turn.has(BankTree) else None
    if tree is not None:
        cells = with_parents(cells, tree.opened, state.depth)
    else:
        usable = boosting.draw_columns(len(bins.values), settings.column_share, turn.random)
        tree = BankTree(root_level(np.zeros(2, np.int64)), cells[:0], usable, (), ())
    tree = replace(tree, level=with_totals(tree.level, cells, bins))
    allowed = np.repeat(at_cuts(bins.cuts)[None], len(cells), axis=0)
    # Totals of h with noise may be below 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        outcome = choose_allowed(turn, state, tree, cells, settings, allowed)
    return replace(outcome, forget=(*outcome.forget, TotalShares))


def _agreed(contract: Contract, state: LevelShares) -> tuple[NoisePlan, Lanes]:
    """Return the noise, and the lanes of the level's shares: of so many rows there is one way to have so many lanes."""
    rows, apart = state.vectors[0].shape[1], len(state.vectors) > 1
    plan = plan_of(contract, rows)
    if plan is None or state.cells.shape[2] != len(columns_of(contract)):
        raise ValueError("the contract asks for no noise, or for other columns than have totals")
    return plan, with_room(Lanes(rows, {}, APART if apart else TOGETHER, 0), plan)


def _with_cells(turn: Turn, bins: Bins) -> LevelShares:
    state = turn.recall(LevelShares)
    cuts = np.repeat(bins.cuts[None], len(state.nodes), axis=0)
    return replace(state, cells=level_cells(turn), cuts=cuts)


OPEN_NOISY = Step("fit.open_noisy", _open, Silent, reveals=(NoisyTotals,))
CHOOSE_NOISY = Step(
    "fit.choose_noisy", _choose, NodeOwners, reads=(NodeTotals,), reveals=(TreeShape, ChosenSplits)
)


def open_level(call: Caller, contract: Contract) -> Reply[SplitRequest, NodeOwners]:
    """Open the totals of a level with noise, and let the bank choose."""
    bank, partner = data_parties(contract)
    witness(call, contract)
    opened = call(partner, OPEN_NOISY)
    return call(bank, CHOOSE_NOISY, *inbox_of([opened], bank))
