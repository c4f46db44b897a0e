"""Trees in mode totals with two partners: who sees what, what two of three could put together, masks, a resume."""

from dataclasses import replace

import numpy as np
import pytest

from fedmkt.config.files import parse_job
from fedmkt.contract.agreement import Contract
from fedmkt.learn import boosting
from fedmkt.learn.cells import joined_cells, open_cuts
from fedmkt.learn.splits import best_splits
from fedmkt.learn.trees import goes_left, linear_predictor
from fedmkt.party.node import open_data
from fedmkt.privacy.disclosure import (
    BinCounts,
    BinTotals,
    CellBits,
    ChosenSplits,
    HistogramTotals,
    ValidationLosses,
)
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.linear.scoring import Released, ScoreOpening, ScoreShare
from fedmkt.protocol.prepare import real
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.side_product import MaskedSides
from fedmkt.protocol.trees.sides.boosting import OwnSplits, own_names, sides_of
from fedmkt.protocol.trees.sides.histogram import RowBins
from fedmkt.protocol.trees.sides.tree_growth import Forest, SplitRequest
from fedmkt.protocol.trees.totals import shared_cells, shared_growth
from fedmkt.protocol.trees.totals.cell_minimum import CellOpening, CellPasses, PlaneOpening
from fedmkt.protocol.trees.totals.duos import PartnerShares
from fedmkt.protocol.trees.totals.lane_plan import lanes_of
from fedmkt.protocol.trees.totals.shared_gradients import SharedScores, TreeAngles, TreeGradients
from fedmkt.protocol.trees.totals.shared_growth import NodeTotals
from fedmkt.protocol.trees.totals.shared_histogram import EncryptedShares, HintBlock, SharedTotals
from fedmkt.protocol.trees.totals.shared_scoring import ScoreAngles, ScoreLift, score
from fedmkt.simulation.world import generate, write_world
from tests.engine import Killed, Tap, world_of
from tests.protocol.plain_caller import DEALER, chi_square, start_aligned
from tests.protocol.shared_world import Watch, contract, grown, model_of, scores_of, splits_of
from tests.protocol.test_two_worlds import differing, relayed, view
from tests.protocol.tree_world import BANK, SHOP, TELECOM, by_owner, pooled, tree_caller, tree_data, validates

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
    PartnerShares: lambda m: [],
    ScoreAngles: lambda m: [m.angles.words],
    ScoreLift: lambda m: [m.halves.words],
    ScoreOpening: lambda m: [m.words.words],
    ScoreShare: lambda m: [m.words],
}
"""Numbers under a mask or shares, whose bytes may differ; the lanes of those passed on end within a byte."""


def other_labels(data):
    columns = data.local[BANK][1]
    labelled = np.flatnonzero(~np.isnan(columns.label))
    label = columns.label.copy()
    label[labelled] = columns.label[np.random.default_rng(3).permutation(labelled)]
    data.local[BANK] = (data.local[BANK][0], replace(columns, label=label))


def other_values(party):
    def change(data):
        columns = data.local[party][1]
        numbers = {k: v[::-1].copy() for k, v in columns.numbers.items()}
        data.local[party] = (data.local[party][0], replace(columns, numbers=numbers))

    return change


CHANGES = {
    "labels": (other_labels, (SHOP, TELECOM)),
    "the bank's columns": (other_values(BANK), (SHOP, TELECOM)),
    "the first partner's columns": (other_values(SHOP), (BANK, TELECOM)),
    "the second partner's columns": (other_values(TELECOM), (BANK, SHOP)),
}


@pytest.mark.parametrize(("change", "readers"), CHANGES.values(), ids=CHANGES)
def test_but_for_what_is_declared_nobody_sees_anything_of_another_partys(change, readers, monkeypatch):
    """Same splits, same cells open: partners alone and together see the same but for uniform words."""
    terms, chosen, worlds = contract(3, min_gain=0.0), [], []

    def recording(*given):
        chosen.append(best_splits(*given))
        return chosen[-1]

    monkeypatch.setattr(shared_growth, "best_splits", recording)
    # Which cells may be told apart depends on everybody's columns, and is declared: here all of them.
    monkeypatch.setattr(shared_cells, "read_cells", lambda state, found: np.ones(state.cells.groups, bool))
    for number in (0, 1):
        data = tree_data(terms)
        if number:
            change(data)
            monkeypatch.setattr(shared_growth, "best_splits", lambda *given: chosen.pop(0))
        caller = grown(start_aligned(data))
        score(caller, caller.contract, caller.overlap)
        worlds.append(caller)
    one, other = worlds
    owners = {owner for tree in one.recall(BANK, Forest).trees for _, owner in tree.owners}
    assert owners == {BANK, SHOP, TELECOM} and not chosen
    # The columns of a linear model, which the harness prepares as well, are not asked about.
    told = [[t for t in relayed(w) if t[1] != "prepare.fit"] for w in worlds]
    revealed = [[d for d in w.revealed if d[0] != "prepare.fit"] for w in worlds]
    assert told[0] == told[1] and revealed[0] == revealed[1]
    for reader in (*readers, DEALER):
        assert view(one, reader) == view(other, reader)
        # What the bank is shown of the totals is declared.
        allowed = {k.__name__ for k in UNIFORM} | ({"NodeTotals"} if reader == BANK else set())
        assert differing(one, other, reader) <= (allowed if reader != DEALER else set())
    for caller in worlds:
        for reader in (BANK, SHOP, TELECOM):
            for kind, parts_of in UNIFORM.items():
                found = [s.message for s in caller.seen_by(reader) if isinstance(s.message, kind)]
                joint = b"".join(p.tobytes() for m in found for p in parts_of(m))
                assert len(joint) < 4000 or abs(chi_square(joint)) < 5, kind.__name__


def test_each_partner_is_told_of_its_own_columns_alone_and_the_bank_of_all():
    caller = grown(tree_caller(contract(3, trees=2)))
    found = {(type(d), d.to, step) for step, d in caller.revealed if step.startswith("fit.")}
    assert {(kind, to) for kind, to, _ in found} >= {
        (CellBits, BANK), (CellBits, SHOP), (CellBits, TELECOM), (ChosenSplits, SHOP), (ChosenSplits, TELECOM),
        (HistogramTotals, BANK), (BinCounts, BANK), (BinTotals, BANK),
    }  # fmt: skip
    # The bits about a partner's cells go between the bank and that partner.
    pairs = {(s.sender, s.reader) for s in caller.sent if isinstance(s.message, CellPasses | PlaneOpening)}
    assert pairs == {(BANK, SHOP), (SHOP, BANK), (BANK, TELECOM), (TELECOM, BANK)}
    assert {s.reader for s in caller.sent if isinstance(s.message, NodeTotals)} == {BANK}
    for partner, counts in ((SHOP, 4), (TELECOM, 2)):
        for s in caller.sent:
            if isinstance(s.message, SplitRequest) and s.reader == partner and len(s.message.splits):
                assert s.message.splits[:, 1].max() < counts


def test_a_partner_whose_cells_are_all_joined_has_nothing_left_to_compare(monkeypatch):
    original = shared_cells.cuts_of

    def without_the_second_partners(passed, parents, table):
        cuts = original(passed, parents, table)
        if len(table.values) != 8:
            cuts[:, -2:] = False
        return cuts

    monkeypatch.setattr(shared_cells, "cuts_of", without_the_second_partners)
    caller = grown(tree_caller(contract(3, trees=1, bins=32)))
    groups = [t.value.groups for t in caller.told if t.step == "fit.open_counts" and t.party == BANK]
    assert groups[0][1] > 0 and {g[1] for g in groups[1:]} == {0} and all(g[0] for g in groups)
    owners = {owner for _, owner in caller.recall(BANK, Forest).trees[0].owners}
    assert owners == {BANK, SHOP}
    expected = linear_predictor(model_of(caller), by_owner(pooled(caller, lambda split: split.train)))
    assert np.allclose(scores_of(caller), expected, atol=1e-12)


# ------------------------------------------------------------------------------------------ against plain


def swapped(terms):
    """Put the second partner first."""
    bank, one, other = terms.parties
    return Contract.model_validate(terms.model_copy(update={"parties": (bank, other, one)}).model_dump())


def rows_of(caller, watch, tree):
    """Return g, h and 1 of the real rows of a tree: 0 where a row validates."""
    g, h = (watch.gradients[2 * tree] + watch.gradients[2 * tree + 1]).view(np.int32)
    rows = np.stack([g, h, np.ones_like(g)], axis=1)[: len(real(caller.recall(BANK, Split).train))]
    rows[validates(caller, BANK)] = 0
    return rows


def nodes_of(caller, tree, depth, table):
    """Return the node of each row at a depth, as the parts of the model say; -1 in a leaf further up."""
    places = {(c.owner, c.name): i for i, c in enumerate(table.columns)}
    splits = {node: rest for node, *rest in splits_of(caller, tree)}
    found = np.zeros(table.rows, np.int32)
    for _ in range(depth):
        after = np.full(table.rows, -1, np.int32)
        for node, (owner, name, last, missing_left) in splits.items():
            left = goes_left(table.values[places[owner, name]], table.bins, last, missing_left)
            after[found == node] = np.where(left, 2 * node + 1, 2 * node + 2)[found == node]
        found = after
    return found


@pytest.mark.parametrize("order", ["as agreed", "swapped"])
@pytest.mark.parametrize("seed", [1, 2])
def test_totals_are_exactly_those_of_the_pooled_table_whichever_partner_is_first(seed, order, monkeypatch):
    terms = contract(
        3, depth=4, bins=11, class_weights=(1.0, 3.0), patience=2, validation_fraction=0.3, trees=2
    )
    watch = Watch(monkeypatch)
    caller = grown(tree_caller(swapped(terms) if order == "swapped" else terms, seed=seed))
    first = data_parties(caller.contract)[1]
    assert first == (TELECOM if order == "swapped" else SHOP) and SharedScores in caller.states[first]
    table, tree, compared, above = pooled(caller, lambda split: split.train), -1, 0, {}
    least = shared_cells.settings_of(caller.contract).min_cell
    kept = len(caller.recall(BANK, Forest).trees)
    for (nodes, cuts), cells in zip(watch.cuts, watch.opened, strict=True):
        tree += nodes == (0,)
        if tree == kept:
            break
        at = nodes_of(caller, tree, (nodes[0] + 1).bit_length() - 1, table)
        slots = np.full(table.rows, -1, np.int32)
        for i, node in enumerate(nodes):
            slots[at == node] = i
        plain = boosting.histograms(table, slots, rows_of(caller, watch, tree), len(nodes))
        assert np.array_equal(cells, joined_cells(plain, cuts))
        every = np.ones((1, *cuts.shape[1:]), bool)
        parents = every if nodes == (0,) else np.stack([above[(node - 1) // 2] for node in nodes[::2]])
        assert np.array_equal(cuts, open_cuts(plain[..., 2], parents, least))
        above |= dict(zip(nodes, cuts, strict=True))
        compared += cells.size
    assert compared > 4000


# ------------------------------------------------------------------------------------------ two of three


class Levels:
    """The vectors of the nodes of each level, as every party holds them."""

    def __init__(self, monkeypatch):
        self.found = []
        original = shared_growth._children

        def children(turn, left):
            kept = original(turn, left)
            self.found.append((turn.me, kept[0]))
            return kept

        monkeypatch.setattr(shared_growth, "_children", children)

    def of(self, party):
        return [level for me, level in self.found if me == party]


def levels_of(monkeypatch):
    watch = Levels(monkeypatch)
    caller = grown(tree_caller(contract(3, trees=2, depth=4)))
    sizes = {p: caller.publics[p, BinSizes] for p in data_parties(caller.contract)}
    return watch, caller, lanes_of(caller.contract, caller.overlap, sizes)


def modulo(words, bits):
    return words & words.dtype.type((1 << bits) - 1)


def test_both_partners_hold_the_same_part_so_together_no_more_than_one(monkeypatch):
    watch, caller, lanes = levels_of(monkeypatch)
    compared = 0
    for one, other in zip(watch.of(SHOP), watch.of(TELECOM), strict=True):
        assert one.nodes == other.nodes and one.owners == other.owners
        for lane, bits in enumerate(lanes.bits):
            assert np.array_equal(modulo(one.vectors[lane], bits), modulo(other.vectors[lane], bits))
            # Uniform by itself: the top byte of each number.
            top = (modulo(other.vectors[lane], bits) >> (bits - 8)).astype(np.uint8)
            assert abs(chi_square(top)) < 5
            compared += 1
    assert compared >= 8
    assert SharedScores not in caller.states[TELECOM]


@pytest.mark.parametrize(("colluding", "victim"), [(SHOP, TELECOM), (TELECOM, SHOP)])
def test_the_bank_and_a_partner_together_read_the_sides_of_the_other_partners_splits(
    colluding, victim, monkeypatch
):
    """Not prevented, and said in the documentation: these two have both parts of everything that is shared."""
    watch, caller, lanes = levels_of(monkeypatch)
    codes, sizes = caller.recall(victim, RowBins).codes, caller.publics[victim, BinSizes]
    trees, bits = caller.recall(victim, OwnSplits).trees, lanes.bits[-1]
    tree, read = -1, 0
    for bank, partner in zip(watch.of(BANK), watch.of(colluding), strict=True):
        tree += bank.depth == 1
        rows = modulo(bank.vectors[-1] + partner.vectors[-1], bits).astype(bool)
        members = dict(zip(bank.nodes, rows, strict=True))
        for decision in trees[tree]:
            left, right = 2 * decision.node + 1, 2 * decision.node + 2
            if left in members:
                truth = sides_of(codes, (decision,), sizes, own_names(caller.turn(victim)))[0]
                inside = members[left] | members[right]
                assert np.array_equal(members[left][inside], truth[inside])
                read += 1
    assert read


def test_no_mask_serves_twice_and_the_dealer_knows_of_each():
    caller = tree_caller(contract(3, trees=2))
    drawn = {p: [] for p in (BANK, SHOP, TELECOM, DEALER)}
    for party, masks in caller.masks.items():
        key = masks._key

        def recording(of, address, party=party, key=key):
            drawn[party].append((of, bytes(address)))
            return key(of, address)

        masks._key = recording
    grown(caller)
    score(caller, caller.contract, caller.overlap)
    own = [address for p in (BANK, SHOP, TELECOM) for address in drawn[p]]
    assert len(own) == len(set(own)) > 500 and set(own) == set(drawn[DEALER])
    assert all(of == p for p in (BANK, SHOP, TELECOM) for of, _ in drawn[p])


@pytest.mark.parametrize(
    "terms",
    [{"class_weights": (1.0, 3.0)}, {"patience": 2, "validation_fraction": 0.3}],
    ids=["weights", "stop"],
)
def test_class_weights_and_early_stopping_go_with_two_partners(terms):
    caller = grown(tree_caller(contract(3, **terms)))
    trees = len(caller.recall(BANK, Forest).trees)
    assert trees and [len(caller.recall(p, OwnSplits).trees) for p in (SHOP, TELECOM)] == [trees, trees]
    expected = linear_predictor(model_of(caller), by_owner(pooled(caller, lambda split: split.train)))
    assert np.allclose(scores_of(caller), expected, atol=1e-12)


def test_each_partner_records_the_losses_and_may_refuse_them():
    """The first partner sends them; they are about the second one's columns just as well."""
    asked = []

    def leaves(party, step):
        asked.append((party, step))
        return False

    caller = grown(tree_caller(contract(3, patience=2, validation_fraction=0.3), leaves=leaves))
    told = [d for _, d in caller.revealed if isinstance(d, ValidationLosses)]
    trees = asked.count((BANK, "losses.judge"))
    assert trees and len(told) == 2 * trees and len(set(told)) == 1
    for step, party in (("losses.tell", SHOP), ("losses.agree", TELECOM)):
        assert [p for p, s in asked if s == step] == [party] * trees
    alone = grown(tree_caller(contract(patience=2, validation_fraction=0.3)))
    assert "losses.agree" not in {t.step for t in alone.told}


@pytest.mark.parametrize("terms", [{"checked_shares": True}, {"epsilon": 1.0}], ids=["checked", "noise"])
def test_checked_shares_and_noise_are_for_one_partner(terms):
    with pytest.raises(ValueError, match="one partner alone"):
        contract(3, **terms)


# ------------------------------------------------------------------------------------------ kill and resume

JOB = """kind = "trees"
checkpoint_every = 1

[trees]
reveal = "totals"
trees = 2
depth = 3
min_rows = 20
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    path = write_world(generate(1, 800, 800, 700, partners=2), folder, minimum=100)
    text = path.read_text().replace("[model]\npenalty = 1.0\n", f"[model]\n{JOB}\n")
    config = parse_job(text.replace("[limits]\n", "[limits]\nmin_support = 20\n"), str(path))
    return config, {p.name: open_data(p, folder) for p in config.parties}


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    tap = Tap()
    world = world_of(job[0], tmp_path_factory.mktemp("whole"), job[1], seed=5)
    world.run(tap)
    return world, [p.message.step for p in tap.requests]


def held_of(world):
    bank, *partners = (world.parties[p]._states for p in data_parties(world.contract))
    return bank[Forest], [p[OwnSplits] for p in partners], bank[Released]


@pytest.mark.parametrize("step", ["fit.take_root", "values.pool"])
def test_a_run_killed_within_the_second_tree_grows_it_again_under_new_masks(step, job, whole, tmp_path):
    before, steps = whole
    begins = [i for i, s in enumerate(steps) if s == "fit.open_angles"][2]
    at = steps.index(step, begins)
    world = world_of(job[0], tmp_path, job[1], seed=5)
    with pytest.raises(Killed):
        world.run(Tap(stop_after=at + 1))
    tap = Tap()
    world.run(tap, resume=True)
    again = [p.message.step for p in tap.requests]
    assert "psi.announce" not in again and again.count("nodes.begin_hints") == 3
    assert again.count("fit.open_angles") == 2 and again.count("score.join_round") == 1
    (forest, own, released), (old, old_own, old_released) = held_of(world), held_of(before)
    assert forest.trees[:1] == old.trees[:1] and len(forest.trees) == 2
    assert [o.trees[:1] for o in own] == [o.trees[:1] for o in old_own]
    assert np.abs(released.units - old_released.units).mean() < 10 and released.units.std() > 0
