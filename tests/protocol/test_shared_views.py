"""Boosted trees in mode totals: what each side sees, what it refuses, what an attacker reads, and a resume."""

from dataclasses import replace

import numpy as np
import pytest

from fedmkt.config.files import parse_job
from fedmkt.learn.splits import best_splits
from fedmkt.learn.trees import Decision
from fedmkt.party.node import open_data
from fedmkt.privacy.disclosure import (
    BinCounts,
    BinTotals,
    CellBits,
    ChosenSplits,
    HistogramTotals,
    TreeShape,
)
from fedmkt.protocol import row_blocks
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.linear.scoring import Released
from fedmkt.protocol.row_blocks import BlockWork
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.side_product import MaskedSides
from fedmkt.protocol.trees.sides.boosting import OwnSplits, own_names, sides_of
from fedmkt.protocol.trees.sides.histogram import RowBins
from fedmkt.protocol.trees.sides.tree_growth import Forest, SplitRequest, columns_of
from fedmkt.protocol.trees.totals import shared_growth
from fedmkt.protocol.trees.totals.cell_minimum import CellOpening, CellPasses, PlaneOpening
from fedmkt.protocol.trees.totals.checked_bins import BinProof, BinShifts
from fedmkt.protocol.trees.totals.checked_sums import ShareSums
from fedmkt.protocol.trees.totals.lane_plan import lanes_of
from fedmkt.protocol.trees.totals.share_tags import OwnOpening
from fedmkt.protocol.trees.totals.shared_cells import COUNT, LevelShares, grid, settings_of
from fedmkt.protocol.trees.totals.shared_gradients import SharedScores, TreeAngles, TreeGradients
from fedmkt.protocol.trees.totals.shared_growth import NodeTotals
from fedmkt.protocol.trees.totals.shared_histogram import (
    EncryptedShares,
    HintBlock,
    SharedTotals,
    ShareVectors,
)
from fedmkt.protocol.trees.tree_columns import cut_columns
from fedmkt.ring.rlwe import NO_BIN
from fedmkt.simulation.world import generate, write_world
from tests.engine import Killed, Tap, world_of
from tests.protocol.plain_caller import DEALER, chi_square, start_aligned
from tests.protocol.shared_world import Watch, contract, grown
from tests.protocol.test_two_worlds import differing, relayed, view
from tests.protocol.tree_world import BANK, SHOP, tree_caller, tree_data

# ------------------------------------------------------------------------------------------ two worlds

UNIFORM = {
    HintBlock: lambda m: [m.rows.words],
    EncryptedShares: lambda m: [m.rows],
    SharedTotals: lambda m: [m.words.words],
    MaskedSides: lambda m: [m.bits.words, *(v.words for v in m.vectors)],
    TreeAngles: lambda m: [m.angles.words],
    TreeGradients: lambda m: [m.values.words],
    CellOpening: lambda m: [m.values.words],
    PlaneOpening: lambda m: [m.left.words, m.right.words],
    CellPasses: lambda m: [m.bits],
    NodeTotals: lambda m: [],
    ShareSums: lambda m: [m.sums.words, np.frombuffer(m.digest, np.uint8)],
    OwnOpening: lambda m: [lane.words for lane in m.lanes],
    # Uniform below as many as a column has places; the bank orders its categories by its labels.
    BinShifts: lambda m: [],
    BinProof: lambda m: [np.frombuffer(m.digest, np.uint8)],
}


@pytest.mark.parametrize(
    "changes", [{}, {"checked_shares": True}, {"epsilon": 4.0}], ids=["plain", "checked", "noisy"]
)
def test_but_for_the_chosen_splits_nobody_else_sees_anything_of_the_labels(changes, monkeypatch):
    """With the same splits chosen, another bank's labels change nothing but uniform words."""
    terms, chosen, worlds = contract(min_gain=0.0, **changes), [], []

    def recording(*given):
        chosen.append(best_splits(*given))
        return chosen[-1]

    monkeypatch.setattr(shared_growth, "best_splits", recording)
    for number in (0, 1):
        data = tree_data(terms)
        if number:
            columns = data.local[BANK][1]
            labelled = np.flatnonzero(~np.isnan(columns.label))
            label = columns.label.copy()
            label[labelled] = columns.label[np.random.default_rng(3).permutation(labelled)]
            data.local[BANK] = (data.local[BANK][0], replace(columns, label=label))
            monkeypatch.setattr(shared_growth, "best_splits", lambda *given: chosen.pop(0))
        worlds.append(grown(start_aligned(data)))
    one, other = worlds
    assert relayed(one) == relayed(other) and one.revealed == other.revealed
    for reader in (SHOP, DEALER):
        assert view(one, reader) == view(other, reader)
    assert differing(one, other, DEALER) == set()
    assert differing(one, other, SHOP) <= {k.__name__ for k in UNIFORM}
    for caller in worlds:
        for reader in (SHOP, BANK):
            for kind, parts_of in UNIFORM.items():
                found = [
                    p
                    for s in caller.seen_by(reader)
                    if isinstance(s.message, kind)
                    for p in parts_of(s.message)
                ]
                joint = np.concatenate(
                    [np.frombuffer(p.tobytes(), np.uint8) for p in found] or [np.empty(0, np.uint8)]
                )
                assert len(joint) < 4000 or abs(chi_square(joint)) < 5, kind.__name__


def test_what_is_opened_is_declared_and_no_more():
    caller = grown(tree_caller(contract(trees=2)))
    by_kind = {}
    for step, disclosure in caller.revealed:
        if step.startswith("fit."):
            by_kind.setdefault(type(disclosure), []).append(disclosure)
    assert set(by_kind) == {BinCounts, BinTotals, CellBits, ChosenSplits, HistogramTotals, TreeShape}
    assert len(by_kind[BinCounts]) == len(by_kind[BinTotals]) == 1 and by_kind[BinCounts][0].minimum == 20
    assert {d.to for d in by_kind[HistogramTotals]} == {BANK}
    assert {d.to for d in by_kind[CellBits]} == {BANK, SHOP}
    assert by_kind[BinCounts][0].bins <= sum(caller.recall(SHOP, RowBins).counts)
    # What the partner sends for cells that are not apart is nothing at all: their places are empty.
    sent = [s.message.cells for s in caller.sent if isinstance(s.message, NodeTotals)]
    shown = sum(int((cells != 0).any(axis=-1).sum()) for cells in sent)
    assert 0 < shown <= sum(d.totals for d in by_kind[HistogramTotals]) // 3


def test_the_partners_shares_say_nothing_of_the_bins_that_are_joined():
    """Sums of shares are modulo t: that they went around would compare a bin's rows with the bank's own mask."""
    caller = grown(tree_caller(contract(trees=2, depth=4, bins=16)))
    terms, sizes = caller.contract, {p: caller.publics[p, BinSizes] for p in (BANK, SHOP)}
    t = np.array([1 << bits for bits in lanes_of(terms, caller.overlap, sizes).bits], np.uint64)
    sent = [s.message.cells for s in caller.sent if isinstance(s.message, NodeTotals)]
    assert len(sent) >= 4 and all((cells < t).all() for cells in sent)


# ------------------------------------------------------------------------------------------ the partner's say


def only_the_banks(monkeypatch, first):
    """Make a bank that splits by its own columns alone."""

    def own(cells, level, settings, scale, trends, allowed):
        allowed[:, first:] = False
        return best_splits(cells, level, settings, scale, trends, allowed)

    monkeypatch.setattr(shared_growth, "best_splits", own)


def test_trees_without_a_split_of_the_partner_add_nothing_and_end_the_training(monkeypatch):
    only_the_banks(monkeypatch, first=4)
    caller = grown(tree_caller(contract(trees=12)))
    forest = caller.recall(BANK, Forest)
    # The bank knows all gradients in each of the three.
    assert sum(isinstance(d, BinTotals) for _, d in caller.revealed) == 3
    # One in five of twelve may be dropped; the third one ends the training.
    assert [len(t.owners) for t in forest.trees] == [0, 0, 0] and len(
        caller.recall(SHOP, OwnSplits).trees
    ) == 3
    scores = caller.recall(BANK, SharedScores).words + caller.recall(SHOP, SharedScores).words
    assert len(np.unique(scores)) == 1


def test_the_bank_gives_the_partner_a_split_before_a_tree_would_be_dropped(monkeypatch):
    """A gain too small to be chosen above is chosen at the last level, once, in place of the bank's own."""

    def mostly_own(cells, level, settings, scale, trends, allowed):
        if allowed[:, :4].any():
            allowed = allowed.copy()
            allowed[:, 4:] = False
        return best_splits(cells, level, settings, scale, trends, allowed)

    monkeypatch.setattr(shared_growth, "best_splits", mostly_own)
    caller = grown(tree_caller(contract(trees=3)))
    owners = [[owner for _, owner in tree.owners] for tree in caller.recall(BANK, Forest).trees]
    assert len(owners) == 3 and all(o.count(SHOP) == 1 and o.count(BANK) > 1 for o in owners)


def test_the_partner_refuses_a_split_that_was_not_opened():
    def closed(sent):
        if not isinstance(sent.message, SplitRequest) or not len(sent.message.splits):
            return sent.message
        splits = sent.message.splits.copy()
        state = caller.recall(SHOP, shared_growth.LevelShares)
        cuts = state.cuts[state.nodes.index(int(splits[0, 0])), 4:]
        inside = [(c, b) for c, b in np.argwhere(~cuts) if b < grid(caller.turn(SHOP)).values[4 + c] - 1]
        if inside:
            splits[0, 1:3] = inside[0]
            caller.tampered = True
        return SplitRequest(splits)

    caller = tree_caller(contract(depth=4, bins=16), change=closed)
    caller.tampered = False
    with pytest.raises(ValueError, match="no edge that was opened"):
        grown(caller)
    assert caller.tampered


def test_missing_values_go_left_of_an_edge_only_where_they_are_apart():
    """Else the rows on the left, less those of the values there, would be how many are missing: perhaps one."""
    caller = tree_caller(contract())
    cut_columns(caller, caller.contract)
    turn = caller.turn(SHOP)
    cuts = np.ones((1, 8, grid(turn).bins), bool)
    cuts[0, 4, -1] = False
    none = np.empty(0, np.uint64)
    state = LevelShares((0,), (), none, none.astype(bool), cuts, (), ())
    name = columns_of(turn.contract)[4].name
    assert grid(turn).apart[4]
    assert shared_growth._are_cuts(turn, state, (Decision(0, name, 0, False),))
    assert not shared_growth._are_cuts(turn, state, (Decision(0, name, 0, True),))
    cuts[0, 4, -1] = True
    assert shared_growth._are_cuts(turn, state, (Decision(0, name, 0, True),))


# ------------------------------------------------------------------------------------------ a malicious bank


def test_a_bank_that_adds_to_its_share_reads_the_open_cell_of_a_row(monkeypatch):
    """Redteam 1.5, offsets: not caught without checked_shares. It reads the open cell of a row, for every column."""
    watch, at, offset = Watch(monkeypatch), 7, 1 << 15
    caller = tree_caller(contract(trees=1, depth=1, penalty=1e5))
    original = shared_growth.root_shares

    def cheating(turn, root):
        level, vectors = original(turn, root)
        if turn.me == BANK:
            g, *others = (v.copy() for v in vectors.lanes)
            g[0, at] += g.dtype.type(offset)
            vectors = ShareVectors((g, *others))
        return level, vectors

    monkeypatch.setattr("fedmkt.protocol.trees.totals.shared_boosting.root_shares", cheating)
    grown(caller)
    (cells,), (nodes, cuts) = watch.opened, watch.cuts[0]
    table, codes = grid(caller.turn(BANK)), caller.recall(SHOP, RowBins).codes
    found = np.abs(cells[0, 4:, :, 0]) > offset // 2
    assert nodes == (0,) and (found.sum(axis=1) == 1).all()
    for column, places in enumerate(found):
        code = int(codes[column, at])
        values = table.values[4 + column]
        place = table.bins if code == values else code
        (open_cell,) = np.flatnonzero(places)
        # All bins from the cut before up to this one are one cell.
        before = [t for t in range(open_cell) if cuts[0, 4 + column, t]]
        assert (before[-1] if before else -1) < place <= open_cell
        assert cells[0, 4 + column, open_cell, COUNT] >= 20


# ------------------------------------------------------------------------------------------ between trees


def named_groups(caller, watch):
    """Put together what an honest bank may: the nodes above the partner's splits, whose rows it knows."""
    codes = caller.recall(BANK, RowBins).codes
    held = codes.shape[1]
    sizes, names, found, tree = caller.publics[BANK, BinSizes], own_names(caller.turn(BANK)), [], -1
    decisions = caller.recall(BANK, Forest).decisions
    for (nodes, cuts), cells in zip(watch.cuts, watch.opened, strict=True):
        if nodes == (0,):
            tree, known = tree + 1, {0: codes[1] != NO_BIN}
        found += [(known[n], cuts[i, 4:], cells[i, 4:, :, COUNT]) for i, n in enumerate(nodes) if n in known]
        for d in decisions[tree]:
            if d.node in nodes and d.node in known:
                left = sides_of(codes, (d,), sizes, names)[0].reshape(held)
                known |= {2 * d.node + 1: known[d.node] & left, 2 * d.node + 2: known[d.node] & ~left}
    return found


def test_between_trees_totals_of_few_rows_follow_where_the_bank_knows_who_is_in_two_nodes(monkeypatch):
    """Not prevented, and said in the documentation: the minimum holds within a tree."""
    watch = Watch(monkeypatch)
    caller = grown(tree_caller(contract(trees=20, depth=4, bins=16)))
    groups, codes, told = named_groups(caller, watch), caller.recall(SHOP, RowBins).codes, 0
    for inner, inner_cuts, inner_counts in groups:
        for outer, outer_cuts, outer_counts in groups:
            if inner.sum() == outer.sum() or (inner & ~outer).any():
                continue
            for column, code in enumerate(codes):
                both = np.flatnonzero(inner_cuts[column] & outer_cuts[column])
                both = both[both < grid(caller.turn(BANK)).values[4 + column] - 1]
                if not len(both):
                    continue
                # Rows up to the first edge that both show.
                up_to = slice(0, int(both[0]) + 1)
                rest = int(outer_counts[column, up_to].sum() - inner_counts[column, up_to].sum())
                assert rest == ((code <= both[0]) & outer & ~inner).sum()
                told += 0 < rest < settings_of(caller.contract).min_cell
    assert told > 0


# ------------------------------------------------------------------------------------------ kill and resume

JOB = """kind = "trees"
checkpoint_every = 1

[trees]
reveal = "totals"
trees = 3
depth = 2
min_rows = 20
column_share = 0.8
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    path = write_world(generate(1, 700, 700, 500), folder, minimum=100)
    text = path.read_text().replace("[model]\npenalty = 1.0\n", f"[model]\n{JOB}\n")
    config = parse_job(text.replace("[limits]\n", "[limits]\nmin_support = 20\n"), str(path))
    return config, {p.name: open_data(p, folder) for p in config.parties}


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    tap = Tap()
    world = world_of(job[0], tmp_path_factory.mktemp("whole"), job[1], seed=7)
    world.run(tap)
    return world, [p.message.step for p in tap.requests]


def model_of(world):
    bank, shop = (world.parties[p]._states for p in data_parties(world.contract))
    return bank[Forest], shop[OwnSplits], bank[Released]


@pytest.mark.parametrize(
    ("step", "trees"),
    [
        ("fit.open_gradients", 1),
        ("nodes.reply", 1),
        ("fit.next_layer", 2),
        ("fit.open_totals", 2),
        ("values.open", 1),
    ],
)
def test_a_run_killed_within_a_tree_resumes_at_its_beginning_under_new_masks(
    step, trees, job, whole, tmp_path
):
    before, steps = whole
    begins = [i for i, s in enumerate(steps) if s == "fit.open_angles"][2 * trees]
    at = steps.index(step, begins)
    world = world_of(job[0], tmp_path, job[1], seed=7)
    with pytest.raises(Killed):
        world.run(Tap(stop_after=at + 1))
    tap = Tap()
    world.run(tap, resume=True)
    again = [p.message.step for p in tap.requests]
    # Hints are masked anew; parties refuse to draw the mask of one address twice, so all other masks are new too.
    assert "psi.announce" not in again and again.count("nodes.begin_hints") == 2
    assert again.count("fit.open_angles") == 2 * (3 - trees)
    (forest, own, released), (old, old_own, old_released) = model_of(world), model_of(before)
    assert forest.trees[:trees] == old.trees[:trees] and own.trees[:trees] == old_own.trees[:trees]
    assert len(forest.trees) == len(own.trees) == 3
    assert released.units.shape == old_released.units.shape
    assert np.abs(released.units - old_released.units).mean() < 10


def test_a_run_killed_between_two_blocks_of_rows_grows_that_tree_again(job, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 1500)
    world = world_of(job[0], tmp_path, job[1], seed=7)
    trees = []

    def count(name, message):
        if getattr(message, "step", "") == "fit.take_sides":
            trees.append(len(world.parties[BANK].recall(Forest).trees))
        # Both had one block of the second tree's root parted, and the bank its second one.
        if trees.count(1) == 4:
            raise Killed
        return message

    with pytest.raises(Killed):
        world.run(Tap(change=count))
    assert world.parties[BANK].holds(BlockWork)
    again = Tap()
    world.run(again, resume=True)
    resumed = [p.message.step for p in again.requests]
    assert "psi.announce" not in resumed and resumed.count("nodes.begin_hints") == 2
    # Two trees of as many blocks each, at two parties.
    planted = resumed.count("fit.plant_shares")
    assert planted % 4 == 0 and planted > 20
    forest, own, released = model_of(world)
    assert len(forest.trees) == len(own.trees) == 3
    assert np.abs(released.units - model_of(whole[0])[2].units).mean() < 10
    assert not any(p.holds(BlockWork) for p in world.parties.values())
