"""Class weights and squared residuals on shares, against floats, and trees that are grown with them."""

import numpy as np
import pytest
from pydantic import ValidationError

from fedmkt.learn import boosting
from fedmkt.learn.splits import leaf_values, scale_of
from fedmkt.learn.trees import linear_predictor
from fedmkt.protocol.trees.side_product import deal_sides
from fedmkt.protocol.trees.sides.tree_growth import Forest, columns_of
from fedmkt.protocol.trees.totals import shared_growth
from fedmkt.protocol.trees.totals.class_waves import (
    classes_batch,
    close_classes,
    open_classes,
    squared_residual,
    weighed,
)
from fedmkt.protocol.trees.totals.shared_cells import settings_of
from fedmkt.protocol.trees.totals.shared_gradients import (
    FAR,
    LIMITS,
    NEAR,
    UNIT,
    Gradients,
    TrainAnswers,
    deal_waves,
    meet,
    open_angles,
)
from tests.protocol.plain_caller import BANK, DEALER, SHOP, PlainCaller, chi_square, contract_of
from tests.protocol.shared_world import Watch, contract, grown, model_of, scores_of, splits_of
from tests.protocol.tree_world import by_owner, pooled, tree_caller


def run(scores, y, functions, series=FAR, seed=1):
    """Play all roles; scores : (n,) log odds. Returns the values, (functions, n), and what was sent."""
    batch = Gradients(0, SHOP, len(scores), series.period)
    caller = PlainCaller(contract_of(2), {}, seed=seed)
    turns = {p: caller.turn(p) for p in (BANK, SHOP)}
    other, labels = {BANK: SHOP, SHOP: BANK}, {BANK: y.astype(np.uint8), SHOP: None}
    share = np.random.default_rng(seed).integers(0, 2**32, len(scores), np.uint32)
    words = np.rint(scores / UNIT).astype(np.int64).astype(np.uint32)
    shares = {SHOP: share, BANK: words - share}
    dealt = {BANK: deal_waves(caller.turn(DEALER), batch), SHOP: None}
    angles = {p: open_angles(turns[p], batch, shares[p]) for p in other}
    waves = {p: meet(turns[p], batch, angles[p][1], angles[other[p]][0], dealt[p]) for p in other}
    products = {p: classes_batch("classes", 0, turns[p], len(scores), len(functions)) for p in other}
    opened = {p: open_classes(turns[p], products[p], series, waves[p], functions, labels[p]) for p in other}
    shared = {BANK: deal_sides(caller.turn(DEALER), products[BANK]), SHOP: None}
    values = [
        close_classes(turns[p], opened[p][1], opened[other[p]][0], shared[p], functions, labels[p])
        for p in other
    ]
    sent = [part.words for m, _ in opened.values() for part in (m.bits, *m.vectors)]
    return (values[0] + values[1]).view(np.int32) / 2**28, [*sent, *shared[BANK].products]


@pytest.mark.parametrize("series", [NEAR, FAR])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.2, 1.0), (1.0, 0.01)])
def test_values_of_both_classes_are_those_of_the_sigmoid(series, weights):
    random = np.random.default_rng(7)
    scores, y = random.uniform(-8, 8, 4000), (random.random(4000) < 0.3).astype(np.int64)
    p, w = 1 / (1 + np.exp(-scores)), np.array(weights)[y]
    (g, h), _ = run(scores, y, weighed(*weights, series), series)
    assert np.abs(g - w * (p - y)).max() < 1.3e-3 and np.abs(h - w * p * (1 - p)).max() < 2.2e-3
    (loss,), _ = run(scores, y, (squared_residual(*weights, series),), series)
    assert np.abs(loss - w * (p - y) ** 2).max() < 3e-3
    # Small weights are not lost in the rounding of coefficients.
    light = w < 1
    assert np.abs(g - w * (p - y))[light].max(initial=0) < 1e-3 * min(weights) + 2e-4


def test_what_is_seen_is_uniform_whatever_scores_and_labels():
    sizes = set()
    for scores, y in ((np.zeros(20_000), np.zeros(20_000)), (np.full(20_000, 5.0), np.ones(20_000))):
        _, sent = run(scores, y, weighed(0.5, 1.0, FAR))
        assert all(abs(chi_square(part)) < 5 for part in sent if part.size)
        sizes.add(tuple(part.nbytes for part in sent))
    assert len(sizes) == 1


@pytest.mark.parametrize("weights", [(1.0, 4.0), (6.0, 2.0)])
def test_trees_and_scores_are_those_of_the_pooled_table_with_the_same_rounding(weights, monkeypatch):
    watch = Watch(monkeypatch)
    caller = grown(tree_caller(contract(trees=3, class_weights=weights), seed=2))
    settings, columns = settings_of(caller.contract), columns_of(caller.contract)
    table, scale = pooled(caller, lambda split: split.train), scale_of(settings, max(weights))
    y = caller.recall(BANK, TrainAnswers).y[: table.rows]
    last = np.array(shared_growth.grid(caller.turn(BANK)).values) - 1
    p = 1 / (1 + np.exp(-caller.recall(BANK, Forest).base))
    share = np.array(weights)[y] / max(weights)
    first = watch.rows(caller, 0)
    assert np.abs(first[:, 0] - 32 * share * (p - y)).max() < 1.2
    assert np.abs(first[:, 1] - 256 * share * p * (1 - p)).max() < 2
    assert caller.recall(BANK, Forest).base == pytest.approx(
        boosting.base_score(y.astype(float), np.array(weights)[y]), abs=1e-5
    )
    for tree, found in enumerate(caller.recall(BANK, Forest).trees):
        rows = watch.rows(caller, tree)
        assert np.abs(rows[:, 0]).max() <= LIMITS[0] and np.abs(rows[:, 1]).max() <= LIMITS[1]
        plain = boosting.grow(table, rows, np.ones(len(columns), bool), settings, scale, [0] * len(columns))
        assert splits_of(caller, tree) == {
            (
                s.node,
                columns[s.column].owner,
                columns[s.column].name,
                min(s.bin, last[s.column]),
                s.missing_left,
            )
            for s in plain.splits
        }
        units = np.rint(leaf_values(plain.leaves, settings, scale) / UNIT)
        assert dict(found.leaves) == dict(
            zip(plain.leaves.nodes.tolist(), (units * UNIT).tolist(), strict=True)
        )
    expected = linear_predictor(model_of(caller), by_owner(table))
    assert np.allclose(scores_of(caller), expected, atol=1e-12)


def test_classes_that_weigh_the_same_take_no_round_more():
    rounds = [grown(tree_caller(contract(trees=1, class_weights=(w, w)))).rounds for w in (1.0, 3.0)]
    assert rounds[0] == rounds[1]


def test_weights_that_would_be_lost_in_rounding_are_refused():
    assert contract(class_weights=(0.01, 1.0)).trees.class_weights == (0.01, 1.0)
    with pytest.raises(ValidationError, match="at most 100 times the other"):
        contract(class_weights=(0.01, 2.0))
