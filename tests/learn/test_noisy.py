"""Trees on totals with noise in plain: what attackers read from all totals together, and how far noise bounds them.

The attackers know more than a bank is told. Both have a control that shows what they would read without the noise.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from fedmkt.crypto.prg import SeededRandom
from fedmkt.learn import boosting, noisy
from fedmkt.learn.boosting import Labelled
from fedmkt.learn.noisy import Bins
from fedmkt.learn.splits import Settings, root_level
from fedmkt.learn.trees import Column, Table
from fedmkt.privacy.noise import delta_of, epsilon_of, plan_noise
from fedmkt.protocol.trees.totals.noisy_growth import draw_noise
from fedmkt.protocol.trees.totals.shared_gradients import LIMITS


def settings(trees, depth, penalty=20.0):
    return Settings(
        trees=trees, depth=depth, rate=0.3, penalty=penalty, min_rows=0, min_weight=1.0,
        gradient_bits=6, hessian_bits=6,
    )  # fmt: skip


def people(n, columns, bins, seed):
    random = np.random.default_rng(seed)
    values = random.integers(0, bins, (columns, n)).astype(np.uint8)
    score = values[0] / bins + values[-1] / bins - 1
    y = (random.random(n) < 1 / (1 + np.exp(-2 * score))).astype(float)
    owners = ["bank"] * (columns // 2) + ["shop"] * (columns - columns // 2)
    table = Table(tuple(Column(f"x{i}", o) for i, o in enumerate(owners)), values, bins)
    return Labelled(table, y), Bins((bins,) * columns, (False,) * columns, bins)


class Seen:
    """Watches the plain trees: rows and slots of each batch of totals, and its totals without noise."""

    def __init__(self, monkeypatch):
        self.batches = []
        original = boosting.histograms

        def histograms(table, slots, rows, nodes):
            found = original(table, slots, rows, nodes)
            self.batches.append((slots, rows, found[..., :2]))
            return found

        monkeypatch.setattr(boosting, "histograms", histograms)


def test_a_nodes_total_is_the_mean_of_what_its_columns_say():
    bins = Bins((4, 1, 3), (False, False, True), 4)
    cells = np.zeros((2, 3, 5, 2), np.int64)
    cells[:, 0, :4, 0], cells[:, 1, 0, 0], cells[:, 2, 4, 0] = 5, 22, 24
    cells[1, :, 0, 1] = -9
    found = noisy.with_totals(root_level(np.zeros(2, np.int64)), cells, bins)
    # Columns of 4, 1 and 4 cells say 20, 22 and 24.
    assert found.totals[:, 0].tolist() == [22, 22] and found.totals[1, 1] == 0
    assert bins.cuts.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1]]


def test_children_that_are_moved_towards_their_parents_are_less_noisy_and_still_right_on_average():
    random, truth = np.random.default_rng(5), np.array([400, 300, 150, 250])
    parts = truth.reshape(4, 1, 1, 1) * np.ones((1, 1, 50_000, 1))
    below = np.rint(parts + random.normal(0, 100, parts.shape)).astype(np.int64)
    root = np.rint(parts.sum(axis=0, keepdims=True) + random.normal(0, 100, (1, 1, 50_000, 1))).astype(
        np.int64
    )
    above = np.rint(parts[0::2] + parts[1::2] + random.normal(0, 100, (2, 1, 50_000, 1))).astype(np.int64)
    children = noisy.with_parents(above, root, 1)
    found = noisy.with_parents(below, children, 2)
    assert np.abs(found.mean(axis=2)[:, 0, 0] - truth).max() < 3
    # Of one level variance falls to 2/3, and below it to 5/8.
    assert children.std(axis=2).max() == pytest.approx(100 * (2 / 3) ** 0.5, rel=0.02)
    assert found.std(axis=2).max() == pytest.approx(100 * (5 / 8) ** 0.5, rel=0.02)


def test_without_noise_they_are_the_trees_of_the_other_modes():
    train, bins = people(2000, 4, 8, 1)
    plain = settings(5, 3)

    def none(nodes):
        return np.zeros((nodes, *bins.places.shape, 2), np.int64)

    found = noisy.fit(train, bins, plain, none, SeededRandom(b"1" * 32))
    expected = boosting.fit(train, plain, SeededRandom(b"1" * 32))
    # Of columns that nobody lacks, missing values go right here and left there.
    assert found.model.outline == expected.model.outline
    assert np.array_equal(found.scores, expected.scores)


# ------------------------------------------------------------------------------------------ between trees


def told(train, seen, opened, column):
    """Guess which bin of two each row is in, by least squares over all nodes of all trees with known g and h."""
    n = train.table.rows
    equations, found = [], []
    for (slots, rows, _), cells in zip(seen.batches, opened, strict=True):
        for node in range(len(cells)):
            for field, limit in enumerate(LIMITS):
                equations.append(np.where(slots == node, rows[:, field], 0) / limit)
                found.append(cells[node, column, 0, field] / limit)
    a, b = np.array(equations), np.array(found)
    x, z, k, step = np.full(n, 0.5), np.full(n, 0.5), 1.0, 1 / np.linalg.norm(a, 2) ** 2
    for _ in range(3000):
        after = np.clip(z - step * a.T @ (a @ z - b), 0, 1)
        k, last = (1 + math.sqrt(1 + 4 * k * k)) / 2, k
        x, z = after, after + (last - 1) / k * (after - x)
    truth = train.table.values[column] == 0
    return float(((x > np.median(x)) == truth).mean())


@pytest.mark.parametrize("epsilon", [None, 8.0, 2.0])
def test_totals_of_many_trees_tell_rows_without_noise_and_none_with_it(epsilon, monkeypatch):
    """The attack between trees: totals of groups that differ by few rows, all together, are solved for the rows.

    The attacker knows everything but one column that no tree splits: who is in each node, g and h of each row.
    """
    trees, (train, bins) = 90, people(200, 4, 2, 2)
    seen, opened, random = Seen(monkeypatch), [], SeededRandom(b"2" * 32)
    monkeypatch.setattr(boosting, "draw_columns", lambda *given: np.array([True, True, True, False]))
    plan = plan_noise(epsilon, 200, 2 * trees, 4, LIMITS) if epsilon else None

    def noise(nodes):
        none = np.zeros((nodes, *bins.places.shape, 2), np.int64)
        drawn = none if plan is None else draw_noise(plan, bins, nodes, random)
        opened.append(seen.batches[-1][2] + drawn)
        return drawn

    noisy.fit(train, bins, settings(trees, 2, 200.0), noise, random)
    right, truth = told(train, seen, opened, 3), train.table.values[3] == 0
    if epsilon is None:
        assert right > 0.9
    else:
        # Chance, and four standard deviations of 200 guesses.
        assert right < max(truth.mean(), 1 - truth.mean()) + 4 * math.sqrt(0.25 / 200)


# ------------------------------------------------------------------------------------------ one row


class World:
    """Trees of a few rows, grown again and again; one row is in one bin or in the other."""

    def __init__(self, monkeypatch, plan):
        self.seen, self.plan = Seen(monkeypatch), plan
        train, self.bins = people(40, 2, 2, 3)
        at = int(np.flatnonzero(train.y == 1)[0])
        self.worlds = []
        for value in (0, 1):
            values = train.table.values.copy()
            values[1, at] = value
            self.worlds.append(Labelled(Table(train.table.columns, values, 2), train.y))

    def grow(self, world, noise):
        # The rounding is the same each time: whoever knows it can only tell more.
        self.seen.batches.clear()
        noisy.fit(self.worlds[world], self.bins, settings(2, 2), noise, SeededRandom(b"3" * 32))

    def score(self, world, random):
        """Grow in a world; return how much more likely what was opened is in world 1, by its logarithm."""
        opened, squares = [], []

        def fresh(nodes):
            drawn = draw_noise(self.plan, self.bins, nodes, random)
            opened.append(self.seen.batches[-1][2] + drawn)
            return drawn

        self.grow(world, fresh)
        for other in (0, 1):
            left, square = list(opened), [0.0]

            def same(nodes, left=left, square=square):
                # What was opened is opened again, whatever the rows are.
                noise = left.pop(0) - self.seen.batches[-1][2]
                square[0] += float(((noise / self.plan.deviations) ** 2).sum())
                return noise

            self.grow(other, same)
            squares.append(square[0])
        return (squares[0] - squares[1]) / 2


def least_epsilon(scores, delta):
    """Bound epsilon from below with 99 % confidence: the best threshold of one half, measured on the other half."""
    zero, one = scores
    half = len(zero) // 2
    best, at = -np.inf, 0.0
    for threshold in np.quantile(np.concatenate([zero[:half], one[:half]]), np.arange(0.02, 1, 0.02)):
        hit, false = (one[:half] > threshold).mean(), (zero[:half] > threshold).mean()
        value = math.log(max(hit - delta, 1e-9) / max(false, 1 / half))
        best, at = max((best, at), (value, threshold))
    hits, falses = int((one[half:] > at).sum()), int((zero[half:] > at).sum())
    size = len(zero) - half
    hit = beta.ppf(0.005, hits, size - hits + 1) if hits else 0.0
    false = beta.ppf(0.995, falses + 1, size - falses)
    return math.log(max(hit - delta, 1e-9) / false)


@pytest.mark.parametrize(("epsilon", "shrunk", "holds"), [(1.0, 1, True), (4.0, 1, True), (1.0, 10, False)])
def test_whoever_knows_all_but_one_row_learns_no_more_of_it_than_epsilon(epsilon, shrunk, holds, monkeypatch):
    """The best test there is, on what a training opens; noise that is ten times too small is found out."""
    plan = plan_noise(epsilon, 40, 4, 2, LIMITS)
    used = replace(plan, deviations=tuple(max(1, d // shrunk) for d in plan.deviations))
    world, random = World(monkeypatch, used), SeededRandom(b"4" * 32)
    scores = [np.array([world.score(w, random) for _ in range(400)]) for w in (0, 1)]
    found = least_epsilon(scores, delta_of(40))
    assert (found < epsilon) == holds
    # In either world the logarithm is nearly normal, with twice what the accountant adds up as variance, at most.
    spread = max(s.std() for s in scores)
    assert (spread < 1.1 * math.sqrt(2 * plan.rho)) == holds
    assert epsilon_of(plan.rho, plan.delta) <= epsilon
