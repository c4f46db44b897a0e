"""Boosted trees in mode `totals`: nobody learns which side of another's split a row takes.

Computes gradient-boosted trees of the columns of the bank and one or two partners. Scores of train rows, gradients and
membership of nodes stay shared between the bank and the partners; totals per bin are opened to the bank, in each node
only where two made sure, on shares, that they are of enough rows. Takes part: the bank, the partners, and the dealer.

| learns | what |
|---|---|
| bank | totals of g, h and rows per cell, of all parties' columns, each of no row or of `min_support` \
(`HistogramTotals`); until a tree is added it knows g: these are rows and events, of roots `BinCounts`, `BinTotals` |
| bank, partner | which groups of cells of a node's children are empty or large enough (`CellBits`), of two partners \
each of its own columns, the first of the bank's as well |
| partner | which edges of its own bins were chosen, at which node of which tree (`ChosenSplits`) |
| everybody | which nodes are split, and by whom (`TreeShape`); how many groups of cells are compared; whether the \
largest leaves of all trees so far add up to more than 12.8; when training ends (`shared_stopping`) |
| dealer, coordinator | nothing else |

Who holds what of the model: the bank the outline, the leaves' values and its own splits, the partner its own splits.

**The minimum.** A cell is a range of bins of a column in a node; the missing count as a bin. Both children of a node
have the same cells, and none that their parent lacks, so whatever follows from a tree's open totals by adding and
subtracting is 0 rows or at least `min_support` (`learn.cells.open_cuts`). What is not opened is not sent. Counts of the
opened cells are opened too; a child has `min_rows`.

**The partner's say.** A bank that split by its own columns alone would know the scores of all rows, and so their
gradients and who is in each node. So a tree without a split of a partner's adds nothing to the scores: all drop it
(and the bank, so that it need not, gives the last level's best split by a column of a partner's a node). Training
ends with the tree by which more than one in `DROPPED_SHARE` of the agreed trees would have been dropped. The script,
which every party runs for itself, counts them. That is a say in each tree, not in each node: totals of nodes above
the first split of a partner's are of rows that the bank can name, cell by cell of at least `min_support` rows.

Safe against: a semi-honest bank or partner, two partners together, as far as the table says, and a semi-honest dealer
that colludes with nobody; with a partner it would read gradients and so labels, with the bank the partners' bins. **Of
two partners neither may collude with the bank**: these two would know who is in every node (`duos`). **Not safe against
a malicious bank**: labels are its own to choose. One that adds numbers to its share of g on a few rows, before it is
encrypted, reads the cells of those rows, of every column of the partners at once, as finely as the cells are open; one
that adds to the noise of a ciphertext, or to the shares of counts that are compared, reads single bins; and one whose
columns are no bins reads g of rows; one whose own splits take rows of its choice left reads, by nodes of two trees that
differ by one row, in which open cells that row is. With `trees.checked_shares` a single partner notices all of that but
for the counts and the sides (`checked_sums`). Of a malicious partner's totals is checked only that all columns add up
to the same; what it can do to another partner stands in `duos`.

All trees are of all rows: rows drawn anew for each tree (`row_share`), by lots that everybody knows, would be as many
known groups, and of 206 rows 120 trees' counts told every bin (a bounded least-squares fit); contracts refuse it.

Of one bin of one node the totals are exact. Differences between trees or runs are of fewer rows than the minimum where
the bank knows who is in two nodes, that is above the partners' splits, and these differ by few rows. That is no rare
case and needs no deviation: 50 trees of depth 4 with 16 bins on 928 rows showed 292 such cells, some of one row.
`limits.max_runs` bounds the runs, nothing the trees. What closes it is noise: with `trees.epsilon` the table above is
that of `noisy_growth`, and nothing is compared or counted.

A run that is killed within a tree goes back to the last checkpoint, masks and hints anew, and grows that tree again:
its rounding is drawn again, so its totals are other ones, of the same rows.

Source: protocols.md section 4, redteam.md 1.5. Letters: g, h as in learn/splits.py; F the shared scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import KEY_BYTES
from fedmkt.errors import DataError
from fedmkt.learn import boosting
from fedmkt.learn.splits import leaf_values, scale_of
from fedmkt.learn.trees import Decision, Floats, Nodes, Tree
from fedmkt.privacy.disclosure import (
    BinCounts,
    BinTotals,
    ChosenSplits,
    HistogramTotals,
    TreeShape,
)
from fedmkt.protocol.alignment.align import check_validation, joint_rows, validation_rows
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Name,
    Nothing,
    Outcome,
    Reply,
    Sealed,
    Silent,
    State,
    Step,
    Turn,
    ask,
    data_parties,
    dealer,
    inbox_of,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.prepare import own_columns, real
from fedmkt.protocol.row_blocks import RowBlock, blocks_of, close_rows, of_rows
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.side_product import MaskedSides
from fedmkt.protocol.trees.sides.boosting import OwnSplits
from fedmkt.protocol.trees.sides.histogram import RowBins
from fedmkt.protocol.trees.sides.tree_growth import Forest, SplitRequest
from fedmkt.protocol.trees.totals.cell_minimum import CellPasses
from fedmkt.protocol.trees.totals.checked_bins import check_own_bins
from fedmkt.protocol.trees.totals.checked_sums import checked_replies
from fedmkt.protocol.trees.totals.class_weights import are_weighed, weigh
from fedmkt.protocol.trees.totals.duos import (
    PartnerShares,
    copies,
    counterpart,
    read_copies,
)
from fedmkt.protocol.trees.totals.lane_plan import lanes_of
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.level_sides import part_rows
from fedmkt.protocol.trees.totals.noisy_growth import begin_noise, open_level
from fedmkt.protocol.trees.totals.share_tags import (
    DealtTags,
    begin_tags,
    deal_root,
    tag_gradients,
)
from fedmkt.protocol.trees.totals.shared_cells import LevelShares, compare, settings_of
from fedmkt.protocol.trees.totals.shared_gradients import (
    FAR,
    ROW_BYTES,
    SCORE_BITS,
    UNIT,
    DealtGradients,
    GradientShares,
    ScoreRange,
    ScoreReach,
    SharedScores,
    TrainAnswers,
    TreeAngles,
    TreeGradients,
    begin_gradients,
    deal_step,
    next_gradients,
    take_gradients,
    tell_range,
)
from fedmkt.protocol.trees.totals.shared_growth import (
    BankTree,
    NodeOwners,
    NodeTotals,
    TreeOwners,
    choose,
    open_totals,
    own_sides,
    record_splits,
    root_shares,
    root_vectors,
    split_nodes,
)
from fedmkt.protocol.trees.totals.shared_histogram import add_up_nodes, plain_replies, send_hints
from fedmkt.protocol.trees.totals.shared_stopping import check_weights, stop_after
from fedmkt.protocol.trees.totals.shared_values import (
    Folding,
    Forests,
    Owners,
    both,
    fold,
    open_values,
    start,
    total,
)
from fedmkt.protocol.trees.tree_columns import own_codes
from fedmkt.protocol.witness import checkpoint, countersign, others_sign

# --- load


def _load(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Read the own train rows into bins, and begin the forest if there is none yet."""
    check_validation(turn)
    rows = joint_rows(turn, True)
    keep: list[State] = [RowBins(own_codes(turn, rows), turn.published(BinSizes, turn.me).sizes)]
    y = np.zeros(len(rows), np.uint8)
    if turn.first:
        y[rows != NO_ROW] = _labels(turn)
        check_weights(turn, y)
        keep.append(TrainAnswers(y))
    if not turn.has(TreeOwners):
        share = np.zeros(len(rows), np.uint32)
        keep.append(TreeOwners(()))
        if turn.first:
            base = round(_base(turn) / UNIT)
            share[:] = base % 2**SCORE_BITS
            none = np.empty(0, np.float64), np.empty((0, 0), np.bool_)
            forest = Forest(turn.random(KEY_BYTES), base * UNIT, (), (), *none)
            keep += [forest, ScoreReach(abs(base * UNIT))]
        else:
            keep.append(OwnSplits(()))
        if turn.me in turn.parties[:2]:
            keep.append(SharedScores(share))
    noise = begin_noise(turn, len(rows))
    return Outcome(Silent(), keep=tuple(keep), remember=noise.remember, spends=noise.spends)


def _labels(turn: Turn) -> Floats:
    label = own_columns(turn).label
    if label is None:
        raise ValueError(f"{turn.me} has no label")
    return label[real(joint_rows(turn, True))]


def _base(turn: Turn) -> float:
    (light, heavy), y = turn.contract.trees.class_weights, _labels(turn)
    y = y[~validation_rows(turn)[: len(y)]]
    events, least = int(y.sum()), max(1, turn.contract.limits.min_events)
    if min(events, len(y) - events) < least:
        raise DataError(
            f"{turn.me}: of customers who answered, or of those who did not, the training rows have fewer than {least}"
        )
    return boosting.base_score(y, np.where(y == 1, heavy, light))


# --- begin


def _plant(
    lanes: Lanes, turn: Turn, inbox: Inbox[TreeGradients | DealtTags]
) -> Outcome[PartnerShares, Silent]:
    state = turn.recall(GradientShares)
    found = inbox.one(counterpart(turn), TreeGradients)
    vectors = root_vectors(lanes, turn, take_gradients(turn, state.batch, state.own, found, state.dealt))
    tags = () if lanes.checker is None else tag_gradients(lanes, turn, inbox)
    keep = (*root_shares(turn, vectors), *tags)
    send = copies(turn, vectors, lanes.bits)
    return Outcome(Silent(), send=send, keep=keep, forget=(GradientShares, BankTree))


def _take_root(lanes: Lanes, turn: Turn, inbox: Inbox[PartnerShares]) -> Outcome[Nothing, Silent]:
    """At a second partner: begin the tree with what the first one passed on: g and h of the rows that train."""
    found = read_copies(inbox.one(turn.parties[1], PartnerShares), (1, lanes.length), lanes.bits)
    # Who is in the root everybody knows: the partners' part of 1 is 0, and of rows that validate all is.
    if found[-1].any() or any(lane[:, validation_rows(turn)[lanes.here]].any() for lane in found):
        raise ValueError("the members of the root are not the rows that train")
    return Outcome(Silent(), keep=root_shares(turn, found))


# --- scores


def is_kept(owners: Owners) -> bool:
    """Tell whether a tree has a split of a partner's."""
    return any(owner for _, owner in owners)


def _leaves(turn: Turn) -> tuple[Nodes, Floats]:
    """Return the leaves of the tree under way with their values, in whole units: at the bank."""
    tree, settings = turn.recall(BankTree), settings_of(turn.contract)
    grown = boosting.joined((*tree.leaves, tree.level))
    values = leaf_values(grown, settings, scale_of(settings, max(settings.class_weights)))
    return grown.nodes, np.rint(values / UNIT)


def _begin_values(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Begin to add the tree to the scores; the bank looks to it that they stay in range."""
    if not turn.first:
        return Outcome(Silent(), keep=(start({}),))
    nodes, units = _leaves(turn)
    reach = turn.recall(ScoreReach).bound + float(np.abs(units).max()) * UNIT
    if reach > FAR.most:
        raise DataError(
            f"{turn.me}: scores may leave the range of {FAR.most}",
            hint="use fewer trees, a lower rate or a larger penalty",
        )
    leaves = {(0, node): int(unit) for node, unit in zip(nodes.tolist(), units.tolist(), strict=True)}
    return Outcome(Silent(), keep=(start(leaves), ScoreReach(reach)))


def open_node_values(
    forest: Forests, depth: int, turn: Turn, inbox: Inbox[Nothing]
) -> Outcome[MaskedSides, Silent]:
    """Open what the products at a depth of the tree under way need."""
    nodes = {node for (_, node), _ in forest.splits(depth)}
    decisions = tuple(d for d in turn.recall(LevelShares).decisions if d.node in nodes)
    own = dict(zip(((0, d.node) for d in decisions), own_sides(turn, decisions), strict=True))
    count, used = next_count(turn, forest.label)
    send, state = open_values(turn, forest, depth, count, turn.recall(Folding), own)
    return Outcome(Silent(), send=send, keep=(state, used) if state.products else (state,))


def _add_tree(forest: Forests, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Add the tree to the scores and to the own part of the model."""
    keep: tuple[State, ...] = ()
    if turn.has(SharedScores):
        keep = (SharedScores(turn.recall(SharedScores).words + total(forest, turn.recall(Folding))),)
    nodes, values = _leaves(turn) if turn.first else (np.empty(0, np.int32), np.empty(0))
    (owners,) = forest.trees
    kept = extended(turn, owners, turn.recall(LevelShares).decisions, nodes, values * UNIT)
    return Outcome(Silent(), keep=(*keep, *kept), forget=(Folding, LevelShares, BankTree))


def _drop_tree(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Leave a tree without a split of a partner's out: a leaf that adds nothing stands in its place."""
    kept = extended(turn, (), (), np.zeros(1, np.int32), np.zeros(1))
    return Outcome(Silent(), keep=kept, forget=(LevelShares, BankTree))


def extended(
    turn: Turn, owners: Owners, decisions: tuple[Decision, ...], nodes: Nodes, values: Floats
) -> tuple[State, ...]:
    """Put a tree behind those before: its owners, the own splits, and at the bank its leaves with their values."""
    after = TreeOwners((*turn.recall(TreeOwners).trees, owners))
    if not turn.first:
        return after, OwnSplits((*turn.recall(OwnSplits).trees, decisions))
    forest = turn.recall(Forest)
    names = tuple((node, str(turn.parties[owner])) for node, owner in sorted(owners))
    tree = Tree(names, tuple(sorted(zip(nodes.tolist(), values.tolist(), strict=True))))
    return after, replace(forest, trees=(*forest.trees, tree), decisions=(*forest.decisions, decisions))


# --- script

LOAD = Step("fit.load_shares", _load, Silent)
TELL_RANGE = Step("fit.tell_range", tell_range, ScoreRange)
OPEN_ANGLES = Step("fit.open_angles", begin_gradients, Silent)
OPEN_GRADIENTS = Step("fit.open_gradients", next_gradients, Silent, reads=(TreeAngles, DealtGradients))
RECORD = Step("fit.record_splits", record_splits, Silent, reads=(SplitRequest,))
DROP_TREE = Step("fit.drop_tree", _drop_tree, Silent)
BEGIN_VALUES = Step("fit.begin_values", _begin_values, Silent)


def fit(call: Caller, contract: Contract, overlap: Overlap, sizes: Mapping[Name, BinSizes]) -> None:
    """Grow the contract's number of trees, with a checkpoint every few."""
    parties, lanes = data_parties(contract), lanes_of(contract, overlap, sizes)
    loaded_in = dropped = 0
    for tree in range(contract.trees.trees):
        if call.epoch != loaded_in:
            # Hints and masks live for one epoch.
            loaded_in = call.epoch
            call.all([ask(p, LOAD) for p in parties])
            send_hints(call, contract, lanes)
            if lanes.checker is not None:
                check_own_bins(call, contract, lanes)
                call(lanes.checker, Step("tags.begin", partial(begin_tags, lanes), Silent))
        plant(call, contract, lanes)
        owners = grow(call, contract, lanes)
        if is_kept(owners):
            add_tree(call, contract, lanes, owners)
        else:
            dropped += 1
            call.all([ask(p, DROP_TREE) for p in parties])
        kept = stop_after(call, contract, overlap, tree, dropped)
        if kept or (tree + 1) % contract.model.checkpoint_every == 0:
            checkpoint(call, contract)
        if kept:
            break


def plant(
    call: Caller, contract: Contract, lanes: Lanes, tell: Step[Nothing, Nothing, ScoreRange] = TELL_RANGE
) -> None:
    """Share the gradients of all rows: the root of a tree; `tell` is how the bank tells which series to use."""
    call(data_parties(contract)[0], tell)
    for block in blocks_of(lanes.rows, ROW_BYTES):
        _plant_rows(call, contract, lanes.of(block), block)


def _plant_rows(call: Caller, contract: Contract, lanes: Lanes, block: RowBlock) -> None:
    parties, maker = data_parties(contract), dealer(contract)
    first, others = parties[:2], parties[2:]
    deal = Step("fit.deal_gradients", partial(deal_step, block.length), Silent)
    angles, (dealt,) = call.both([ask(p, of_rows(block, OPEN_ANGLES)) for p in first], [ask(maker, deal)])
    if are_weighed(contract):
        values = weigh(call, contract, block, angles, dealt)
    else:
        values = call.all([ask(p, of_rows(block, OPEN_GRADIENTS), *both(angles, dealt, p)) for p in first])
    begin = of_rows(
        block, Step("fit.plant_shares", partial(_plant, lanes), Silent, reads=(TreeGradients, DealtTags))
    )
    tags = [] if lanes.checker is None else [deal_root(call, contract, lanes)]
    planted = call.all([ask(p, begin, *inbox_of(values, p), *inbox_of(tags, p)) for p in first])
    take = of_rows(block, Step("fit.take_root", partial(_take_root, lanes), Silent, reads=(PartnerShares,)))
    if others:
        call.all([ask(p, take, *inbox_of(planted, p)) for p in others])
    close_rows(call, "fit", parties, block)


def grow(call: Caller, contract: Contract, lanes: Lanes) -> Owners:
    """Grow a tree level by level; it ends early where no node has a split that is worth it."""
    parties = data_parties(contract)
    bank, *partners = parties
    split = Step(
        "fit.choose_splits",
        partial(choose, lanes),
        NodeOwners,
        (CellPasses, NodeTotals),
        (TreeShape, ChosenSplits),
    )
    open_cells = Step(
        "fit.open_totals",
        partial(open_totals, lanes),
        Silent,
        (CellPasses,),
        (HistogramTotals, BinCounts, BinTotals),
    )
    owners: list[tuple[int, int]] = []
    nodes = [0]
    for depth in range(contract.trees.depth):
        answers = plain_replies if lanes.checker is None else checked_replies
        add_up_nodes(call, contract, lanes, (len(nodes) + 1) // 2, answers)
        if contract.trees.epsilon is not None:
            chosen = open_level(call, contract)
        else:
            passes = compare(call, contract, lanes)
            # All showed their logs with their shares of the bits; a single partner signs when asked for its cells.
            countersign(call, [bank, *others_sign(partners)])
            opened = call.all([ask(p, open_cells, *inbox_of(passes, p)) for p in partners])
            chosen = call(bank, split, *_totals_inbox(passes, opened, bank))
        call.all([ask(p, RECORD, *inbox_of([chosen], p)) for p in parties])
        level = split_nodes(nodes, chosen.public.value.owners)
        owners += level
        nodes = [child for node, _ in level for child in (2 * node + 1, 2 * node + 2)]
        if not level or depth + 1 == contract.trees.depth:
            break
        part_rows(call, contract, lanes, len(level))
    return tuple(owners)


def _totals_inbox(
    passes: Sequence[Reply[CellPasses, Silent]], opened: Sequence[Reply[NodeTotals, Silent]], bank: Name
) -> tuple[Sealed[CellPasses | NodeTotals], ...]:
    return (*inbox_of(passes, bank), *inbox_of(opened, bank))


def add_tree(call: Caller, contract: Contract, lanes: Lanes, owners: Owners) -> None:
    """Add the values of a tree to the shared scores."""
    parties = data_parties(contract)
    forest = Forests("values", lanes.rows, (owners,))
    call.all([ask(p, BEGIN_VALUES) for p in parties])
    fold(call, contract, forest, open_node_values)
    add = Step("fit.add_tree", partial(_add_tree, forest), Silent)
    call.all([ask(p, add) for p in parties])
