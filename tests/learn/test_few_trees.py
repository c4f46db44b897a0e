"""Which leaves a bank can name from the scores of few trees, as an attack with the leaf values and its own splits.

The bank holds the outline: every leaf with its value. At its own splits it knows the side of a row, at the partner's
it knows nothing. A score is the sum of one leaf of each tree, so it counts the sums that fit. Before: scores of 20
bits, of few trees. After: two decimals of a probability, which is what leaves a run (redteam.md 1.4).
"""

import numpy as np
import pytest

from fedmkt.crypto.prg import SeededRandom
from fedmkt.learn.boosting import Labelled, fit
from fedmkt.learn.splits import Settings
from fedmkt.learn.trees import Column, Table, Tree, linear_predictor, sides_of

ROWS = 40


def world(trees):
    """Train on columns of a bank and a partner that matter alike; return model, tables and the scores of some rows."""
    random = np.random.default_rng(4)
    values = random.integers(0, 16, (6, 4000)).astype(np.uint8)
    z = np.sin(values[0] / 3) + np.cos(values[3] / 2) * (values[1] > 5) + (values[4] > values[2]) - 0.8
    y = (random.random(4000) < 1 / (1 + np.exp(-z))).astype(np.float64)
    columns = tuple(Column(f"c{i}", "bank" if i < 3 else "partner") for i in range(6))
    model = fit(
        Labelled(Table(columns, values, 16), y), Settings(trees=trees, depth=4), SeededRandom(b"w")
    ).model
    few = np.ascontiguousarray(values[:, :ROWS])
    tables = {
        "bank": Table(columns[:3], few[:3].copy(), 16),
        "partner": Table(columns[3:], few[3:].copy(), 16),
    }
    return model, tables, linear_predictor(model, tables)


def possible(tree: Tree, own, row: int) -> list[float]:
    """List the values of the leaves that a row can be in, as far as the bank knows."""
    values, owners, found, places = dict(tree.leaves), dict(tree.owners), [], [0]
    while places:
        place = places.pop()
        if place not in owners:
            found.append(values[place])
        elif place in own:
            places.append(2 * place + 1 + int(not own[place][row]))
        else:
            places += [2 * place + 1, 2 * place + 2]
    return found


def sums(lists) -> np.ndarray:
    out = np.zeros(1)
    for values in lists:
        out = np.add.outer(out, values).ravel()
    return out


def explanations(model, tables, low, high) -> list[int]:
    """Count for each row the choices of one leaf per tree whose sum lies in low..high, log odds."""
    bank = next(part for part in model.parts if part.owner == "bank")
    own = [sides_of(bank, t, tables["bank"]) for t in range(len(model.outline.trees))]
    counts = []
    for row in range(ROWS):
        lists = [possible(tree, own[t], row) for t, tree in enumerate(model.outline.trees)]
        half = len(lists) // 2
        left, right = sums(lists[:half]) + model.outline.base, np.sort(sums(lists[half:]))
        fitting = np.searchsorted(right, high[row] - left, "right") - np.searchsorted(right, low[row] - left)
        counts.append(int(fitting.sum()))
    return counts


def log_odds(p) -> np.ndarray:
    return np.log(p / (1 - p))


def as_bits(scores, bits):
    """Return the log odds that rounding to so many bits after the point leaves possible."""
    units = np.rint(scores * 2.0**bits)
    return (units - 0.51) / 2.0**bits, (units + 0.51) / 2.0**bits


def as_hundredths(scores):
    """Return the log odds that a probability of two decimals leaves possible."""
    p = np.rint(100 / (1 + np.exp(-scores))) / 100
    return log_odds(np.maximum(p - 0.0051, 1e-9)), log_odds(np.minimum(p + 0.0051, 1 - 1e-9))


@pytest.mark.parametrize(("trees", "least", "most"), [(5, 1, 1), (10, 0.8, 1), (14, 0.2, 0.6)])
def test_a_score_of_twenty_bits_names_the_leaves_of_few_trees(trees: int, least: float, most: float) -> None:
    model, tables, scores = world(trees)
    counts = explanations(model, tables, *as_bits(scores, 20))
    assert min(counts) >= 1  # the truth is among them
    assert least <= np.mean([c == 1 for c in counts]) <= most


def test_two_decimals_of_three_trees_still_name_the_leaves_of_a_third_of_the_rows() -> None:
    model, tables, scores = world(3)
    counts = explanations(model, tables, *as_hundredths(scores))
    assert np.mean([c == 1 for c in counts]) > 0.25


@pytest.mark.parametrize(("trees", "most", "usual"), [(5, 0.05, 10), (10, 0.05, 500), (12, 0, 5000)])
def test_two_decimals_of_more_trees_name_almost_no_row_s_leaves(trees: int, most: float, usual: int) -> None:
    # What is left are scores at the ends of the range, which only few sums of leaves reach.
    model, tables, scores = world(trees)
    counts = explanations(model, tables, *as_hundredths(scores))
    assert min(counts) >= 1
    assert np.mean([c == 1 for c in counts]) <= most and np.median(counts) > usual
