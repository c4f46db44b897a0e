"""Boosted trees in mode nothing against the same trees in plain, and what each side gets to see."""

from dataclasses import replace

import numpy as np
import pytest

from fedmkt.contract.model_terms import TreeTerms
from fedmkt.errors import ConfigError
from fedmkt.learn import boosting
from fedmkt.learn.cells import enough_rows
from fedmkt.learn.splits import Level, best_splits, scale_of
from fedmkt.learn.trees import linear_predictor
from fedmkt.privacy.disclosure import ChosenSplits, TreeShape
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import Masked
from fedmkt.protocol.prepare import Columns, real
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.nothing import blind_growth
from fedmkt.protocol.trees.nothing.blind_boosting import blind_bounds
from fedmkt.protocol.trees.nothing.blind_boosting import leaves_of as leaf_plan
from fedmkt.protocol.trees.nothing.blind_growth import (
    ChosenShares,
    OwnerShares,
    candidates_of,
    settings_of,
)
from fedmkt.protocol.trees.nothing.blind_rounds import DealtPhases, PhaseOpening
from fedmkt.protocol.trees.side_product import MaskedSides
from fedmkt.protocol.trees.sides.boosting import own_names
from fedmkt.protocol.trees.sides.tree_growth import Forest, columns_of
from fedmkt.protocol.trees.totals.shared_gradients import TreeAngles, TreeGradients
from fedmkt.protocol.trees.totals.shared_growth import TreeOwners
from fedmkt.protocol.trees.totals.shared_histogram import EncryptedShares, HintBlock, SharedTotals
from fedmkt.ring.bounds import check
from tests.protocol.blind_world import contract, grown, leaves_of, model_of
from tests.protocol.plain_caller import DEALER, chi_square
from tests.protocol.shared_world import Watch, scores_of, splits_of
from tests.protocol.test_two_worlds import differing, relayed, view
from tests.protocol.tree_world import BANK, SHOP, by_owner, pooled, tree_caller

# ------------------------------------------------------------------------------------------ against plain


@pytest.mark.parametrize(
    "terms", [{"depth": 4}, {"bins": 13, "penalty": 3.0, "min_rows": 150}], ids=["deep", "fine"]
)
def test_splits_and_leaves_are_the_best_ones_of_the_pooled_table(terms, monkeypatch):
    watch = Watch(monkeypatch)
    caller = grown(tree_caller(contract(trees=2, **terms), seed=3))
    settings, columns = settings_of(caller.contract), columns_of(caller.contract)
    table, scale = pooled(caller, lambda split: split.train), scale_of(settings, 1.0)
    names, none, checked = [(c.owner, c.name) for c in columns], [0] * len(columns), 0
    for tree in range(2):
        rows, node_of_row = watch.rows(caller, tree), np.zeros(table.rows, np.int32)
        for node, owner, name, bin_, missing_left in sorted(splits_of(caller, tree)):
            inside = node_of_row == node
            cells = boosting.histograms(table, np.where(inside, 0, -1).astype(np.int32), rows, 1)
            totals = rows[inside, :2].sum(axis=0, dtype=np.int64)[None]
            level = Level(np.array([node], np.int32), totals, np.array([[-np.inf, np.inf]]))
            allowed = enough_rows(cells[..., 2], settings.min_rows)
            (best,) = best_splits(cells[..., :2], level, settings, scale, none, allowed)
            only, at = np.zeros_like(allowed), names.index((owner, name))
            only[0, at, bin_, 0 if missing_left else 1] = True
            (found,) = best_splits(cells[..., :2], level, settings, scale, none, only & allowed)
            if best is None or best.gain < 0.05:
                assert found is None or found.gain < 0.05
            else:
                assert found is not None and found.gain >= 0.99 * best.gain
                checked += 1
            values = table.values[at]
            left = (values <= bin_) | ((values == table.bins) & missing_left)
            node_of_row[inside] = np.where(left, 2 * node + 1, 2 * node + 2)[inside]
        leaves = leaves_of(caller)[tree]
        sums = [np.bincount(node_of_row - len(leaves) + 1, rows[:, i], len(leaves)) for i in (0, 1)]
        plain = -settings.rate * (sums[0] / scale.g) / (sums[1] / scale.h + settings.penalty)
        assert np.allclose(leaves, plain, rtol=0.004, atol=0.002 * settings.rate)
    assert checked > 5
    expected = linear_predictor(model_of(caller), by_owner(table))
    assert np.allclose(scores_of(caller), expected, atol=1e-9)


# ------------------------------------------------------------------------------------------ two worlds

UNIFORM = {
    HintBlock: lambda m: [m.rows.words],
    EncryptedShares: lambda m: [m.rows],
    SharedTotals: lambda m: [m.words.words],
    MaskedSides: lambda m: [m.bits.words, *(v.words for v in m.vectors)],
    TreeAngles: lambda m: [m.angles.words],
    TreeGradients: lambda m: [m.values.words],
    PhaseOpening: lambda m: [x.words for x in m.inputs],
    DealtPhases: lambda m: list(m.shares),
    ChosenShares: lambda m: [m.numbers],
    OwnerShares: lambda m: [np.packbits(m.bits)],
}


def other_labels(caller):
    """Deal the labels of the bank's train rows out anew."""
    rows, columns = real(caller.recall(BANK, Split).train), caller.recall(BANK, Columns)
    label = columns.label.copy()
    label[rows] = label[np.random.default_rng(3).permutation(rows)]
    caller.states[BANK][Columns] = replace(columns, label=label)


def other_columns(caller):
    """Deal the values of the partner's train rows out anew, column by column: bins stay what they are."""
    rows, columns = real(caller.recall(SHOP, Split).train), caller.recall(SHOP, Columns)
    found = {}
    for kind in ("numbers", "categories"):
        found[kind] = {name: values.copy() for name, values in getattr(columns, kind).items()}
        for i, values in enumerate(found[kind].values()):
            values[rows] = values[np.random.default_rng(i).permutation(rows)]
    caller.states[SHOP][Columns] = replace(columns, **found)


@pytest.mark.parametrize(
    "change, readers",
    [(other_labels, (SHOP, DEALER)), (other_columns, (BANK, DEALER))],
    ids=["labels", "columns"],
)
def test_but_for_the_chosen_splits_nobody_sees_anything_of_the_other_side(change, readers, monkeypatch):
    """With the same splits chosen, other labels or columns change nothing but uniform words, and none at the dealer."""
    numbers, worlds, last = [], [], blind_growth.last_values

    def recording(turn, *given):
        found = last(turn, *given)
        numbers.append(found["chosen"][4].copy())
        return found

    def the_same(turn, *given):
        # The bank's share stays what it is; the partner's becomes what it lacks to the number of the first world.
        found, before = last(turn, *given), numbers.pop(0)
        if turn.first:
            missing.append(before - found["chosen"][4])
        else:
            found["chosen"][4] = before + missing.pop(0)
        return found

    missing: list[np.ndarray] = []
    terms = contract(trees=2)
    for step in (recording, the_same):
        caller = tree_caller(terms)
        if worlds:
            change(caller)
        monkeypatch.setattr(blind_growth, "last_values", step)
        worlds.append(grown(caller))
    one, other = worlds
    assert relayed(one) == relayed(other) and one.revealed == other.revealed
    for reader in readers:
        assert view(one, reader) == view(other, reader)
    assert differing(one, other, DEALER) == set()
    assert set() < differing(one, other, readers[0]) <= {k.__name__ for k in UNIFORM}
    for caller in worlds:
        for reader in (SHOP, BANK):
            for kind, parts_of in UNIFORM.items():
                found = [
                    p
                    for s in caller.seen_by(reader)
                    if isinstance(s.message, kind)
                    for p in parts_of(s.message)
                ]
                joint = np.frombuffer(b"".join(p.tobytes() for p in found), np.uint8)
                assert len(joint) < 4000 or abs(chi_square(joint)) < 5, kind.__name__


def test_what_is_opened_is_declared_and_no_more():
    caller = grown(tree_caller(contract(trees=2)))
    found = [d for step, d in caller.revealed if not step.startswith("prepare.")]
    assert {type(d) for d in found} == {ChosenSplits, TreeShape}
    assert sum(d.splits for d in found if isinstance(d, TreeShape)) == 2 * 7
    assert sum(d.splits for d in found if isinstance(d, ChosenSplits)) == 2 * 7
    assert {d.to for d in found if isinstance(d, ChosenSplits)} == {BANK, SHOP}


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    "terms, said",
    [
        ({"column_share": 0.5}, "which columns a tree may use"),
        ({"min_gain": 1.0}, "compared with each other only"),
        ({"class_weights": (1.0, 5.0)}, "rows that weigh the same"),
        ({"patience": 3}, "could end a training"),
        ({"trends": ({"party": BANK, "column": "x0", "trend": 1},)}, "which trends bound"),
    ],
)
def test_terms_that_nobody_could_keep_are_refused(terms, said):
    with pytest.raises(ValueError, match=said):
        contract(**terms)
    assert contract().trees == TreeTerms(reveal="nothing", trees=3, depth=3, min_rows=20, rate=0.3)


def test_trees_that_could_leave_the_range_of_scores_are_refused():
    plan = leaf_plan(contract(trees=60, rate=0.3), 1000)
    assert plan.most * 60 * 0.3 <= 21
    with pytest.raises(ConfigError, match="leave the range"):
        leaf_plan(contract(trees=70, rate=0.3), 1000)
    check(blind_bounds(contract(), 15_000_000))
    with pytest.raises(ConfigError, match=r"u of a candidate.*limit 2\^62"):
        check(blind_bounds(contract(), 16_000_000))


def test_no_split_leaves_more_rows_on_a_side_than_there_are():
    caller = grown(tree_caller(contract(trees=1, depth=2, min_rows=1 << 32)))
    assert {owner for _, owner in caller.recall(BANK, TreeOwners).trees[0]} == {0}
    assert all(d.missing_left for d in caller.recall(BANK, Forest).decisions[0])
    assert np.ptp(linear_predictor(model_of(caller), by_owner(pooled(caller, lambda s: s.train)))) == 0


def test_a_number_that_is_none_of_the_own_splits_is_refused():
    def change(sent):
        if isinstance(sent.message, ChosenShares) and sent.reader == SHOP:
            return ChosenShares(sent.message.numbers + np.uint64(1 << 20))
        return sent.message

    with pytest.raises(ValueError, match="none of mine"):
        grown(tree_caller(contract(), change=change))


@pytest.mark.parametrize(
    "kind, said",
    [(PhaseOpening, "bytes are not"), (DealtPhases, "missing or too many"), (OwnerShares, "another number")],
)
def test_messages_of_another_shape_are_refused(kind, said):
    def change(sent):
        match sent.message:
            case PhaseOpening(inputs) if kind is PhaseOpening and sent.reader == SHOP:
                return PhaseOpening((Masked(inputs[0].words[:-4]), *inputs[1:]))
            case DealtPhases(shares) if kind is DealtPhases:
                return DealtPhases(shares[:-1])
            case OwnerShares(bits) if kind is OwnerShares:
                return OwnerShares(np.concatenate([bits, bits]))
        return sent.message

    with pytest.raises(ValueError, match=said):
        grown(tree_caller(contract(trees=1), change=change))


def test_a_partner_that_adds_to_its_share_of_a_choice_is_told_the_split_of_the_bank(monkeypatch):
    """What is written of malicious parties: one more, and a number of the bank's is one of the partner's."""
    honest = grown(tree_caller(contract(trees=1, depth=1)))
    ((split,),) = honest.recall(BANK, Forest).decisions
    last, shares = blind_growth.last_values, []

    def adding(turn, *given):
        found = last(turn, *given)
        if not turn.first:
            found["chosen"][4] += np.uint64(1)
            shares.append(found["chosen"][4, 0, 0])
        return found

    monkeypatch.setattr(blind_growth, "last_values", adding)
    caller = grown(tree_caller(contract(trees=1, depth=1)))
    (told,) = [s.message.numbers[0] for s in caller.seen_by(SHOP) if isinstance(s.message, ChosenShares)]
    read = candidates_of(caller.publics[BANK, BinSizes], True)[(int(shares[0]) + int(told)) % 2**64 // 2]
    assert own_names(caller.turn(BANK))[read.column] == split.column
    assert (read.bin, read.missing_left) == (split.bin, split.missing_left)
