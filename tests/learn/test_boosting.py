"""Boosted trees against scikit-learn, and against a tree grown by brute force in exact fractions."""

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from fedmkt.crypto.prg import SeededRandom
from fedmkt.learn.boosting import (
    Labelled,
    draw_columns,
    draw_rows,
    fit,
    gradients,
    grow,
    histograms,
)
from fedmkt.learn.cells import at_cuts, enough_rows, joined_cells, left_of, open_cuts
from fedmkt.learn.splits import Scale, Settings, best_splits, leaf_values, root_level, scale_of, stop_at
from fedmkt.learn.trees import Column, Decision, Model, Outline, Part, Table, linear_predictor, predict

Floats = NDArray[np.float64]
SMALL = Settings(trees=5, depth=3, min_rows=5, min_weight=0.5)
BANK_FULL = (
    Path(os.environ.get("FEDMKT_DATA") or Path(__file__).parents[3] / "shared" / "data") / "bank-full.csv.gz"
)
BANK = ("age", "job", "marital", "education", "default", "balance", "housing", "loan")


def table(values: NDArray[np.integer], bins: int, trends: dict[int, int] | None = None) -> Table:
    """Name the columns c0, c1, ...; the first half belongs to the bank."""
    half = (len(values) + 1) // 2
    columns = [
        Column(f"c{i}", "bank" if i < half else "partner", (trends or {}).get(i, 0))
        for i in range(len(values))
    ]
    return Table(tuple(columns), np.ascontiguousarray(values, dtype=np.uint8), bins)


def sample(rows: int, columns: int, bins: int, seed: int = 1, missing: float = 0.1) -> Labelled:
    """Draw columns with missing values that tell something, and labels of about three in ten."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, bins, (columns, rows))
    z = np.sin(values[0] / bins * 5) + 2 * (values[1 % columns] > bins / 2) * (values[0] < bins / 3) - 1.5
    absent = rng.random((columns, rows)) < missing
    z += 1.5 * absent[0]
    values[absent] = bins
    y = (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(float)
    y[:2] = 0, 1
    return Labelled(table(values, bins), y)


def some(data: Labelled, rows: NDArray[np.bool_]) -> Labelled:
    """Take some rows."""
    values = np.ascontiguousarray(data.table.values[:, rows])
    return Labelled(Table(data.table.columns, values, data.table.bins), data.y[rows])


def both(t: Table) -> dict[str, Table]:
    """Give each owner a table with its own columns only."""

    def own(owner: str) -> Table:
        places = [i for i, c in enumerate(t.columns) if c.owner == owner]
        return Table(tuple(t.columns[i] for i in places), np.ascontiguousarray(t.values[places]), t.bins)

    return {owner: own(owner) for owner in ("bank", "partner")}


def seeded(seed: int = 1) -> SeededRandom:
    return SeededRandom(seed.to_bytes(4, "big"))


def rounded(data: Labelled, chosen: Settings, seed: int = 1) -> tuple[NDArray[np.int32], Scale]:
    scale = scale_of(chosen, 1.0)
    n = data.table.rows
    return gradients(np.full(n, -1.0), data.y, np.ones(n), scale, seeded(seed)), scale


# Against scikit-learn.


def peer(data: Labelled, chosen: Settings) -> HistGradientBoostingClassifier:
    """Fit scikit-learn's trees on the same bins with the same settings."""
    model = HistGradientBoostingClassifier(
        learning_rate=chosen.rate,
        max_iter=chosen.trees,
        max_leaf_nodes=None,
        max_depth=chosen.depth,
        min_samples_leaf=chosen.min_rows,
        l2_regularization=chosen.penalty,
        early_stopping=False,
    )
    with threadpool_limits(1):  # on busy cores its threads wait for each other far longer than they work
        return model.fit(as_numbers(data.table), data.y)


def as_numbers(t: Table) -> Floats:
    """Bins as numbers, missing as NaN, (n, columns)."""
    return np.where(t.values == t.bins, np.nan, t.values.astype(float)).T


def test_scores_rank_synthetic_rows_as_well_as_those_of_scikit_learn() -> None:
    data = sample(30_000, 6, 32)
    train = np.random.default_rng(5).random(30_000) < 0.6
    chosen = Settings(trees=40, min_weight=0.001)
    held = some(data, ~train)
    expected = peer(some(data, train), chosen).predict_proba(as_numbers(held.table))[:, 1]
    got = predict(fit(some(data, train), chosen, seeded()).model, both(held.table))
    assert roc_auc_score(held.y, got) == pytest.approx(roc_auc_score(held.y, expected), abs=0.003)
    assert np.corrcoef(got, expected)[0, 1] > 0.99
    four = replace(chosen, gradient_bits=4, hessian_bits=4)
    coarse = predict(fit(some(data, train), four, seeded()).model, both(held.table))
    assert roc_auc_score(held.y, coarse) == pytest.approx(roc_auc_score(held.y, expected), abs=0.003)


def bank_full(train_share: float, seed: int) -> tuple[Labelled, NDArray[np.bool_]]:
    """Read the rows, `duration` dropped, in 32 bins; categories stand in the order of their train rates."""
    frame = pd.read_csv(BANK_FULL, sep=";").drop(columns="duration")
    y = (frame.pop("y") == "yes").to_numpy(float)
    train = np.random.default_rng(seed).random(len(y)) < train_share
    values = []
    for _, column in frame.items():
        if column.dtype.kind == "i":
            edges = np.unique(np.quantile(column[train], np.arange(1, 32) / 32, method="lower"))
            values.append(np.searchsorted(edges, column, side="left"))
        else:
            rates = pd.Series(y[train]).groupby(column[train].to_numpy()).mean()
            values.append(column.map(rates.rank(method="first") - 1).to_numpy(int))
    columns = tuple(Column(str(n), "bank" if n in BANK else "partner") for n in frame)
    return Labelled(Table(columns, np.stack(values).astype(np.uint8), 32), y), train


@pytest.mark.skipif(not BANK_FULL.exists(), reason="needs UCI bank-full.csv.gz in the folder FEDMKT_DATA")
def test_scores_rank_the_bank_data_as_well_as_those_of_scikit_learn() -> None:
    ours, theirs, alone = [], [], []
    for seed in range(2):
        data, train = bank_full(0.7, seed)
        held, chosen = some(data, ~train), Settings()
        expected = peer(some(data, train), chosen).predict_proba(as_numbers(held.table))[:, 1]
        got = predict(fit(some(data, train), chosen, seeded()).model, both(held.table))
        own = Labelled(both(some(data, train).table)["bank"], data.y[train])
        bank = predict(fit(own, chosen, seeded()).model, {"bank": both(held.table)["bank"]})
        ours.append(roc_auc_score(held.y, got))
        theirs.append(roc_auc_score(held.y, expected))
        alone.append(roc_auc_score(held.y, bank))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.003)
    assert np.mean(ours) > np.mean(alone) + 0.05


# Against brute force.


def brute_score(G: int, H: int, scale: Scale, chosen: Settings) -> Fraction:
    return (G / Fraction(scale.g)) ** 2 / (H / Fraction(scale.h) + Fraction(chosen.penalty))


def brute_force(data: Labelled, rows: NDArray[np.int32], chosen: Settings, scale: Scale) -> list[tuple]:
    """Grow one tree row by row with exact gains: (node, column, bin, missing left), parents first."""
    out, open_nodes = [], [(0, list(range(data.table.rows)))]
    for _ in range(chosen.depth):
        below = []
        for node, members in open_nodes:
            best = None
            for column in range(len(data.table.columns)):
                for last in range(data.table.bins):
                    for missing_left in (True, False):
                        left, right = [], []
                        for i in members:
                            v = int(data.table.values[column, i])
                            is_left = missing_left if v == data.table.bins else v <= last
                            (left if is_left else right).append(i)
                        if min(len(left), len(right)) < max(chosen.min_rows, 1):
                            continue
                        sums = [
                            (sum(int(rows[i, 0]) for i in s), sum(int(rows[i, 1]) for i in s))
                            for s in (left, right, members)
                        ]
                        if min(s[1] for s in sums[:2]) < chosen.min_weight * scale.h:
                            continue
                        scores = [brute_score(*s, scale, chosen) for s in sums]
                        gain = scores[0] + scores[1] - scores[2]
                        if gain > chosen.min_gain and (best is None or gain > best[0]):
                            best = (gain, column, last, missing_left, left, right)
            if best is not None:
                out.append((node, *best[1:4]))
                below += [(2 * node + 1, best[4]), (2 * node + 2, best[5])]
        open_nodes = below
    return out


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 6), st.sampled_from([0.0, 0.3]))
@settings(max_examples=40)
def test_the_splits_are_those_of_brute_force(seed: int, columns: int, bins: int, missing: float) -> None:
    data = sample(80, columns, bins, seed, missing)
    chosen = replace(
        SMALL,
        min_rows=1 + seed % 9,
        penalty=0.5 + seed % 3,
        min_gain=0.25 * (seed % 2),
        min_weight=float(seed % 5),
    )
    rows, scale = rounded(data, chosen, seed)
    grown = grow(data.table, rows, np.ones(columns, bool), chosen, scale, [0] * columns)
    got = [(s.node, s.column, s.bin, s.missing_left) for s in grown.splits]
    assert got == brute_force(data, rows, chosen, scale)


def test_a_leaf_adds_its_newton_step_times_the_rate() -> None:
    data = sample(300, 2, 5)
    rows, scale = rounded(data, SMALL)
    grown = grow(data.table, rows, np.ones(2, bool), SMALL, scale, [0, 0])
    values = leaf_values(grown.leaves, SMALL, scale)
    for node, totals, value in zip(grown.leaves.nodes, grown.leaves.totals, values, strict=True):
        members = rows[grown.node_of_row == node]
        assert totals.tolist() == members[:, :2].sum(axis=0).tolist()
        G, H = members[:, 0].sum() / scale.g, members[:, 1].sum() / scale.h
        assert value == pytest.approx(-SMALL.rate * G / (H + SMALL.penalty), rel=1e-12)


# Totals.


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 40))
@settings(max_examples=30)
def test_a_parent_without_one_child_is_exactly_the_other(seed: int, columns: int, bins: int) -> None:
    data = sample(5000, columns, bins, seed)
    rows, _ = rounded(data, SMALL)
    side = (np.random.default_rng(seed).random(5000) < 0.3).astype(np.int32)
    parent = histograms(data.table, np.zeros(5000, np.int32), rows, 1)[0]
    left, right = histograms(data.table, side, rows, 2)
    assert (parent - left == right).all()
    assert (histograms(data.table, side - 1, rows, 1)[0] == right).all()
    for column in range(columns):
        for k in range(3):
            expected = np.bincount(data.table.values[column], weights=rows[:, k], minlength=bins + 1)
            assert (parent[column, :, k] == expected).all()


def test_rounding_is_right_in_the_mean_and_never_off_by_a_unit() -> None:
    n, chosen = 40_000, replace(SMALL, gradient_bits=4, hessian_bits=4)
    scale, scores = scale_of(chosen, 1.0), np.full(n, 0.3)
    y = np.zeros(n)
    got = gradients(scores, y, np.ones(n), scale, seeded())
    p = 1 / (1 + np.exp(-0.3))
    for column, exact in ((0, p * scale.g), (1, p * (1 - p) * scale.h)):
        assert np.abs(got[:, column] - exact).max() < 1
        assert got[:, column].mean() == pytest.approx(exact, abs=5 * 0.5 / np.sqrt(n))
    assert (got[:, 2] == 1).all()


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_gradients_stay_within_their_bits(bits: int) -> None:
    scores = np.linspace(-40, 40, 4001)
    chosen = replace(SMALL, gradient_bits=bits, hessian_bits=bits)
    weights = np.where(np.arange(4001) % 2, 3.0, 0.7)
    for label in (0.0, 1.0):
        y = np.full(4001, label)
        got = gradients(scores, y, weights, scale_of(chosen, 3.0), seeded())
        assert np.abs(got[:, 0]).max() <= 2 ** (bits - 1)
        assert got[:, 1].min() >= 0 and got[:, 1].max() <= 2**bits


# Least rows.


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(0, 4))
@settings(max_examples=30)
def test_no_leaf_has_fewer_rows_than_agreed(seed: int, minimum: int, depth: int) -> None:
    data = sample(400, 3, 8, seed)
    chosen = replace(SMALL, min_rows=minimum, depth=depth + 1, min_weight=0.0)
    rows, scale = rounded(data, chosen, seed)
    grown = grow(data.table, rows, np.ones(3, bool), chosen, scale, [0] * 3)
    sizes = np.bincount(grown.node_of_row, minlength=int(grown.leaves.nodes.max()) + 1)
    assert sizes[grown.leaves.nodes].min() >= minimum
    assert sizes.sum() == sizes[grown.leaves.nodes].sum() == 400


@given(st.integers(0, 10_000), st.integers(1, 17), st.integers(2, 30), st.integers(1, 3))
@settings(max_examples=60)
def test_no_cell_that_follows_from_open_ones_is_small(seed: int, bins: int, minimum: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    # A tree whose rows wander at random, of two skewed columns.
    values = np.minimum(rng.geometric(0.15, (2, 600)) - 1, bins)
    leaf = rng.integers(0, 2**depth, 600)
    cuts, at_ends = np.ones((1, 2, bins), bool), None
    for level in range(depth + 1):
        node = leaf >> (depth - level)
        counts = histograms(
            table(values, bins), node.astype(np.int32), np.ones((600, 3), np.int32), 2**level
        )[..., 2]
        parents = cuts
        cuts = open_cuts(counts, parents, minimum)
        if level:
            above = np.repeat(parents, 2, axis=0)
            assert not (cuts & ~above).any()
            assert (cuts[0::2] == cuts[1::2]).all()
        at_ends = joined_cells(counts, cuts)
        if counts.sum(axis=-1).min() >= minimum:
            assert ((at_ends == 0) | (at_ends >= minimum)).all()
        assert (at_ends.sum(axis=-1) == counts.sum(axis=-1)).all()


def test_without_a_minimum_every_cut_is_open() -> None:
    counts = np.random.default_rng(1).integers(0, 3, (4, 3, 12))
    assert open_cuts(counts, np.ones((2, 3, 11), bool), 0).all()
    assert open_cuts(counts, np.ones((2, 3, 11), bool), 1).all()


def test_a_cell_that_the_complement_test_would_give_away_stays_hidden() -> None:
    # Two bins; the left child's right child has 10 rows in bin 0. Each other cell, and what ancestors leave
    # beside it, has 50 or more, so a test of those alone would open bins in both children of the right child.
    right = np.array([[[60, 60, 0]], [[60, 60, 0]]])
    left = np.array([[[10, 120, 0]]])
    root = right.sum(axis=0, keepdims=True) + left
    cuts = open_cuts(root, np.ones((1, 1, 2), bool), 50)
    assert cuts[0, 0, 0]
    below = open_cuts(np.concatenate([left, right.sum(axis=0, keepdims=True)]), cuts, 50)
    assert not below[:, 0, 0].any()
    assert not open_cuts(right, below[1:], 50)[:, 0, 0].any()


@pytest.mark.parametrize("missing", [0.02, 0.2])
def test_joined_cells_lead_to_the_same_splits_as_single_ones(missing: float) -> None:
    data = sample(2000, 3, 16, missing=missing)
    rows, scale = rounded(data, SMALL)
    cells = histograms(data.table, (np.arange(2000) % 2).astype(np.int32), rows, 2)
    cuts = open_cuts(cells[..., 2], np.ones((1, 3, 16), bool), 80)
    assert cuts.any() and not cuts.all()
    level = root_level(np.zeros(2, np.int64))
    level = replace(
        level,
        nodes=np.array([1, 2], np.int32),
        totals=cells[:, 0, :, :2].sum(axis=1),
        bounds=np.repeat(level.bounds, 2, axis=0),
    )
    joined = joined_cells(cells, cuts)
    for k in range(3):
        assert (left_of(joined[..., k]) == left_of(cells[..., k]))[at_cuts(cuts)].all()
    assert cuts[..., -1].any() == (missing == 0.2)
    allowed = enough_rows(joined[..., 2], 80) & at_cuts(cuts)
    got = best_splits(joined[..., :2], level, SMALL, scale, [0] * 3, allowed)
    assert got == best_splits(cells[..., :2], level, SMALL, scale, [0] * 3, allowed)
    assert all(split is not None and cuts[0, split.column, split.bin] for split in got)


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_a_tree_splits_only_where_its_joined_cells_are_parted(seed: int) -> None:
    data = sample(1500, 3, 12, seed, missing=0.05)
    chosen = replace(SMALL, depth=5, min_rows=20, min_cell=20)
    rows, scale = rounded(data, chosen)
    grown = grow(data.table, rows, np.ones(3, bool), chosen, scale, [0] * 3)
    cuts = {0: open_cuts(cells_of(data.table, [np.ones(1500, bool)]), np.ones((1, 3, 12), bool), 20)[0]}
    inside = {0: np.ones(1500, bool)}
    for split in grown.splits:  # parents first
        node, v = split.node, data.table.values[split.column]
        assert cuts[node][split.column, split.bin]
        assert cuts[node][split.column, -1] or not split.missing_left
        left = np.where(v == 12, split.missing_left, v <= split.bin)
        inside |= {2 * node + 1: inside[node] & left, 2 * node + 2: inside[node] & ~left}
        pair = cells_of(data.table, [inside[2 * node + 1], inside[2 * node + 2]])
        cuts[2 * node + 1], cuts[2 * node + 2] = open_cuts(pair, cuts[node][None], 20)
    for leaf in grown.leaves.nodes.tolist():
        assert ((grown.node_of_row == leaf) == inside[leaf]).all()


def cells_of(t: Table, nodes: list[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Count the rows of each node by column and bin."""
    return np.array([[np.bincount(v[rows], minlength=t.bins + 1) for v in t.values] for rows in nodes])


# Missing values, trends, weights, samples.


def test_missing_rows_go_to_the_side_where_they_gain_most() -> None:
    for label, side in ((1.0, False), (0.0, True)):
        values = np.repeat([0, 1, 2], 100)[None]  # 2 is missing; bin 1 responds, bin 0 does not
        y = np.repeat([0.0, 1.0, label], 100)
        model = fit(Labelled(table(values, 2), y), replace(SMALL, trees=1, depth=1), seeded()).model
        assert model.parts[0].trees[0] == (Decision(0, "c0", 0, side),)
        scores = linear_predictor(model, {"bank": table(np.array([[0, 1, 2]]), 2)})
        assert scores[2] == scores[int(label)] != scores[1 - int(label)]


def test_missing_can_be_parted_from_all_values() -> None:
    values = np.repeat([0, 1, 2, 3], 50)[None]
    y = np.repeat([0.0, 0.0, 0.0, 1.0], 50)
    y[0] = 1
    model = fit(Labelled(table(values, 3), y), replace(SMALL, trees=1, depth=1), seeded()).model
    assert model.parts[0].trees[0] == (Decision(0, "c0", 2, False),)


@given(st.integers(0, 10_000), st.sampled_from([1, -1]), st.integers(1, 4))
@settings(max_examples=25)
def test_scores_follow_the_trend_of_a_column_wherever_the_others_stand(
    seed: int, trend: int, depth: int
) -> None:
    data = sample(500, 3, 6, seed)
    columns = table(data.table.values, 6, {0: trend})
    chosen = replace(SMALL, trees=8, depth=depth, rate=0.5)
    model = fit(Labelled(columns, data.y), chosen, seeded(seed)).model
    grid = np.stack(np.meshgrid(np.arange(7), np.arange(7), np.arange(6), indexing="ij")).reshape(3, -1)
    scores = linear_predictor(model, both(table(grid[::-1], 6, {0: trend}))).reshape(7, 7, 6)
    assert (trend * np.diff(scores, axis=-1) >= -1e-12).all()


def test_a_trend_against_the_data_leaves_the_column_unused() -> None:
    values = np.tile(np.arange(4), 100)[None]
    y = (values[0] >= 2).astype(float)
    y[:4] = 1, 1, 0, 0
    falling = fit(Labelled(table(values, 4, {0: -1}), y), SMALL, seeded()).model
    assert all(not tree for tree in falling.parts[0].trees)
    rising = fit(Labelled(table(values, 4, {0: 1}), y), SMALL, seeded()).model
    assert rising.parts[0].trees == fit(Labelled(table(values, 4), y), SMALL, seeded()).model.parts[0].trees


def test_rows_of_weight_zero_count_for_nothing() -> None:
    data = sample(2000, 3, 8)
    weights = np.ones(2000)
    weights[1000:] = 0
    changed = data.y.copy()
    changed[1000:] = 1 - changed[1000:]
    one = fit(Labelled(data.table, data.y, weights), SMALL, seeded())
    two = fit(Labelled(data.table, changed, weights), SMALL, seeded())
    assert one.model == two.model


def test_class_weights_move_the_mean_prediction_as_repeated_rows_do() -> None:
    data = sample(4000, 3, 8)
    chosen = replace(SMALL, class_weights=(1.0, 4.0), gradient_bits=16, hessian_bits=16, min_rows=0)
    weighted = fit(data, chosen, seeded()).scores
    again = np.concatenate([np.arange(4000), *[np.flatnonzero(data.y == 1)] * 3])
    repeated = Labelled(table(data.table.values[:, again], 8), data.y[again])
    plain = fit(repeated, replace(chosen, class_weights=(1.0, 1.0)), seeded()).scores[:4000]
    assert np.abs(weighted - plain).max() < 0.02
    assert weighted.mean() > fit(data, SMALL, seeded()).scores.mean() + 1


def test_samples_have_the_size_that_was_asked_for() -> None:
    assert draw_rows(100_000, 0.3, seeded()).mean() == pytest.approx(0.3, abs=0.01)
    assert draw_rows(10, 1.0, lambda n: b"").all()
    assert draw_columns(10, 1.0, lambda n: b"").all()
    drawn = [draw_columns(10, 0.25, seeded(k)) for k in range(300)]
    assert {int(d.sum()) for d in drawn} == {3}
    assert np.sum(drawn, axis=0).min() > 50


def test_a_tree_uses_drawn_columns_and_drawn_rows_only() -> None:
    data = sample(3000, 6, 8)
    model = fit(data, replace(SMALL, trees=12, column_share=0.3), seeded()).model
    for t in range(12):
        assert len({d.column for part in model.parts for d in part.trees[t]}) <= 2
    chosen, random = replace(SMALL, trees=1, row_share=0.5), seeded()
    drawn, scale = draw_rows(3000, 0.5, random), scale_of(chosen, 1.0)
    first = np.full(3000, np.log(data.y.mean() / (1 - data.y.mean())))
    rows = gradients(first, data.y, drawn.astype(float), scale, random)
    assert not rows[~drawn].any()
    tree = fit(data, chosen, seeded()).model.outline.trees[0]
    grown = grow(data.table, rows, np.ones(6, bool), chosen, scale, [0] * 6)
    values = leaf_values(grown.leaves, chosen, scale)
    assert dict(tree.leaves) == dict(zip(grown.leaves.nodes.tolist(), values.tolist(), strict=True))


# When to stop.


def test_training_stops_by_the_held_out_loss_and_keeps_the_best() -> None:
    data = sample(1500, 4, 16, 3)
    train, held = some(data, np.arange(1500) < 500), some(data, np.arange(1500) >= 500)
    chosen = replace(SMALL, trees=200, rate=0.5, depth=4, patience=4)
    fitted = fit(train, chosen, seeded(), held)
    best = int(np.argmin(fitted.losses)) + 1
    assert len(fitted.losses) == best + 4 < 200
    assert len(fitted.model.outline.trees) == best
    assert fitted.scores == pytest.approx(linear_predictor(fitted.model, both(train.table)), abs=1e-12)
    p = predict(fitted.model, both(held.table))
    loss = -np.mean(held.y * np.log(p) + (1 - held.y) * np.log(1 - p))
    assert fitted.losses[best - 1] == pytest.approx(loss, abs=0.6e-4)
    full = fit(train, replace(chosen, trees=best, patience=0), seeded())
    assert full.model == fitted.model


@pytest.mark.parametrize(
    ("losses", "patience", "kept"),
    [([], 2, None), ([3, 2, 1], 2, None), ([3, 1, 2], 2, None), ([3, 1, 2, 1], 2, 2), ([1, 1], 0, None)],
)
def test_stopping_waits_for_its_patience(losses: list[float], patience: int, kept: int | None) -> None:
    assert stop_at(losses, patience) == kept


# Models in parts.


def test_each_part_holds_the_thresholds_of_its_owner_and_the_outline_none() -> None:
    data = sample(2000, 4, 8)
    fitted = fit(data, SMALL, seeded())
    for part in fitted.model.parts:
        own = {c.name for c in data.table.columns if c.owner == part.owner}
        used = {d.column for tree in part.trees for d in tree}
        assert used and used <= own
        assert Part.from_json(part.to_json()) == part
    outline = fitted.model.outline
    assert Outline.from_json(outline.to_json()) == outline
    assert "c0" not in outline.to_json()
    assert fitted.scores == pytest.approx(linear_predictor(fitted.model, both(data.table)), abs=1e-12)


def test_the_same_draws_give_the_same_model() -> None:
    data = sample(2000, 4, 8)
    chosen = replace(SMALL, row_share=0.8, column_share=0.6)
    assert fit(data, chosen, seeded()).model == fit(data, chosen, seeded()).model
    assert fit(data, chosen, seeded()).model != fit(data, chosen, seeded(2)).model


PART = '{"owner":"bank","bins":4,"trees":[[{"node":0,"column":"a","bin":1,"missing_left":true}]]}'
OUTLINE = '{"base":0.5,"trees":[{"owners":[[0,"bank"]],"leaves":[[1,0.1],[2,-0.1]]}]}'


def test_the_texts_that_others_are_made_from_are_accepted() -> None:
    model = Model(Outline.from_json(OUTLINE), (Part.from_json(PART),))
    got = linear_predictor(
        model, {"bank": Table((Column("a", "bank"),), np.array([[0, 1, 2, 4]], np.uint8), 4)}
    )
    assert got.tolist() == [0.6, 0.6, 0.4, 0.6]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"node":0', '"node":-1'),
        ('"node":0', '"node":0.0'),
        ('"node":0', '"node":8191'),
        ('"bin":1', '"bin":4'),
        ('"bin":1', '"bin":true'),
        ('"missing_left":true', '"missing_left":1'),
        ('"column":"a"', '"column":7'),
        ('"bins":4', '"bins":256'),
        ('"owner":"bank"', '"owner":null'),
        ('"trees":[[', '"more":1,"trees":[['),
        ("}]]", '},{"node":0,"column":"a","bin":1,"missing_left":true}]]'),
        ("}]]}", "}]"),
        (PART, "[]"),
        (PART, "null"),
    ],
)
def test_a_changed_part_is_refused(old: str, new: str) -> None:
    assert old in PART
    with pytest.raises(ValueError):
        Part.from_json(PART.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[1,0.1]", "[1,NaN]"),
        ("[1,0.1]", '[1,"0.1"]'),
        ("[1,0.1],", ""),
        ("[1,0.1]", "[3,0.1]"),
        ("[1,0.1]", "[1,0.1],[1,0.1]"),
        ('[0,"bank"]', ""),
        ('[0,"bank"]', '[0,"bank",1]'),
        ('[0,"bank"]', "[0,1]"),
        ("0.5", "Infinity"),
        ("0.5", "true"),
        ('"base"', '"bias"'),
        (OUTLINE, "7"),
    ],
)
def test_a_changed_outline_is_refused(old: str, new: str) -> None:
    assert old in OUTLINE
    with pytest.raises(ValueError):
        Outline.from_json(OUTLINE.replace(old, new))


def test_parts_that_do_not_fit_the_outline_are_refused() -> None:
    outline = Outline.from_json(OUTLINE)
    part = Part.from_json(PART)
    for wrong in (
        (),
        (replace(part, owner="partner"),),
        (replace(part, trees=((),)),),
        (replace(part, trees=()),),
    ):
        with pytest.raises(ValueError):
            Model(outline, wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"trees": 0}, {"depth": 0}, {"depth": 13}, {"gradient_bits": 1}, {"hessian_bits": 17}, {"rate": 0.0},
        {"penalty": 0.0}, {"row_share": 0.0}, {"column_share": 1.5}, {"min_cell": 51}, {"min_gain": -1.0},
        {"class_weights": (1.0, 0.0)}, {"min_weight": float("nan")}, {"patience": -1},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Settings(**change)


def test_rows_that_cannot_be_trained_on_are_refused() -> None:
    data = sample(100, 2, 4)
    with pytest.raises(ValueError, match="bin above"):
        table(np.full((1, 3), 5), 4)
    with pytest.raises(ValueError, match="both labels"):
        fit(Labelled(data.table, np.zeros(100)), SMALL, seeded())
    with pytest.raises(ValueError, match="labels of 0 and 1"):
        fit(Labelled(data.table, data.y + 1), SMALL, seeded())
    with pytest.raises(ValueError, match="held-out"):
        fit(data, replace(SMALL, patience=1), seeded())
    with pytest.raises(ValueError, match="weights"):
        fit(replace(data, weights=-np.ones(100)), SMALL, seeded())
