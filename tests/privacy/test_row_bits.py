"""Bits per row against their definitions by counting, and bounds against every transcript of small worlds."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.privacy.row_bits import (
    ColumnBins,
    bits_of_guesses,
    bits_per_row,
    entropy,
    most_from_sides,
    most_from_totals,
)


def counted(known, hidden):
    """Compute mutual information from its definition, by counting tuples."""
    n = known.shape[1]
    a, b = list(map(tuple, known.T.tolist())), list(map(tuple, hidden.T.tolist()))
    both, left, right = Counter(zip(a, b, strict=True)), Counter(a), Counter(b)
    return sum(c / n * math.log2(c * n / (left[x] * right[y])) for (x, y), c in both.items())


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32))
def test_bits_per_row_are_the_mutual_information_by_its_definition(n, known, hidden, seed) -> None:
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 3, (known, n)), random.integers(0, 4, (hidden, n)).astype(np.uint8)
    assert bits_per_row(a, b) == pytest.approx(counted(a, b), abs=1e-9)
    assert bits_per_row(b, b) == pytest.approx(entropy(b), abs=1e-9)


def test_what_follows_from_the_hidden_columns_tells_its_own_entropy_and_a_constant_nothing() -> None:
    random = np.random.default_rng(1)
    hidden = random.integers(0, 16, (3, 5000))
    sides = np.stack([hidden[0] <= 7, hidden[1] <= 3])
    assert bits_per_row(sides, hidden) == pytest.approx(entropy(sides))
    assert entropy(sides) == pytest.approx(1 + 0.811, abs=0.01)
    assert bits_per_row(np.zeros((1, 5000), np.int64), hidden) == pytest.approx(0, abs=1e-9)
    assert entropy(hidden) <= math.log2(5000)


def test_guesses_are_measured_against_the_frequencies_of_the_bins() -> None:
    hidden = np.array([[0, 0, 1, 2], [1, 1, 0, 0]])
    shares = [np.array([0.5, 0.25, 0.25]), np.array([0.5, 0.5])]
    nothing = [np.tile(s, (4, 1)) for s in shares]
    assert bits_of_guesses(nothing, hidden) == pytest.approx(0)
    certain = [np.eye(3)[hidden[0]], np.eye(2)[hidden[1]]]
    assert bits_of_guesses(certain, hidden) == pytest.approx(1.5 + 1)
    wrong = [nothing[0], np.array([[0.9, 0.1]] * 4)]
    assert bits_of_guesses(wrong, hidden) < -0.5
    assert bits_of_guesses([nothing[0], np.eye(2)[1 - hidden[1]]], hidden) == -math.inf


def all_values(columns):
    """Let every combination of values of the columns occur once: (columns, n)."""
    return np.array(list(product(*(range(c.count) for c in columns)))).T


COLUMNS = st.builds(ColumnBins, st.integers(2, 5), st.booleans())


@settings(deadline=None)
@given(st.lists(COLUMNS, min_size=1, max_size=3), st.integers(0, 4), st.integers(0, 8), st.integers(0, 2**32))
def test_no_splits_within_the_bounds_tell_more_than_bounded(columns, edges, splits, seed) -> None:
    random, hidden = np.random.default_rng(seed), all_values(columns)
    opened = [set() for _ in columns]
    sides = [np.zeros(hidden.shape[1], np.bool_)]
    for _ in range(splits):
        column = int(random.integers(len(columns)))
        missing, values = columns[column].count - 1, hidden[column]
        edge = int(random.integers(columns[column].count))
        if len(opened[column] | {edge}) > edges:
            continue
        opened[column].add(edge)
        left = values <= edge
        if columns[column].apart:
            left = np.where(values == missing, random.random() < 0.5, left)
        sides.append(left)
    told = bits_per_row(np.stack(sides), hidden)
    assert told <= most_from_sides(columns, edges, splits, hidden.shape[1]) + 1e-9


@pytest.mark.parametrize(
    "counts, edges, splits, expected",
    [
        ((32, 32), 31, 10**6, 10.0),
        ((32, 32), 3, 10**6, 4.0),
        ((32, 4), 7, 10**6, 5.0),
        ((32, 32), 31, 2, 2.0),
        ((32, 32), 31, 6, 4.0),
        ((32,), 31, 0, 0.0),
    ],
)
def test_the_bound_of_sides_is_that_of_the_best_choice_of_edges(counts, edges, splits, expected) -> None:
    columns = [ColumnBins(c) for c in counts]
    assert most_from_sides(columns, edges, splits, 10**6) == pytest.approx(expected)
    # Every choice of how many edges of which column, by force.
    ways = product(*(range(min(edges, c - 1, splits) + 1) for c in counts))
    best = max(sum(math.log2(t + 1) for t in way) for way in ways if sum(way) <= splits)
    assert min(best, splits) == pytest.approx(expected)


def test_a_bin_of_missing_values_may_be_told_apart_besides_the_edges() -> None:
    column = ColumnBins(5, apart=True)
    assert [column.classes(t) for t in range(6)] == [1, 3, 4, 5, 5, 5]
    # One edge asked for twice, missing left and missing right: three classes.
    hidden = np.array([[0, 1, 2, 3, 4]])
    sides = np.stack([(hidden[0] <= 1), (hidden[0] <= 1) | (hidden[0] == 4)])
    assert entropy(sides) <= math.log2(3)
    assert len(np.unique(sides, axis=1).T) == 3


def test_rows_and_totals_bound_what_there_is_to_learn() -> None:
    columns = [ColumnBins(32)] * 7
    assert most_from_sides(columns, 128, 10**4, 31_647) == pytest.approx(math.log2(31_647))
    assert most_from_totals(columns, 10**15, 40, 2**40) == pytest.approx(35)
    assert most_from_totals(columns, 1000, 40, 100_000) == pytest.approx(0.4)
    assert most_from_totals(columns, 0, 40, 100_000) == 0


def test_senseless_input_is_a_mistake() -> None:
    for act in (
        lambda: ColumnBins(0),
        lambda: ColumnBins(1, apart=True),
        lambda: most_from_sides([], 1, 1, 1),
        lambda: most_from_sides([ColumnBins(3)], 1, 1, 0),
        lambda: most_from_totals([ColumnBins(3)], -1, 1, 5),
        lambda: bits_per_row(np.zeros((1, 3)), np.zeros((1, 4))),
        lambda: entropy(np.zeros(3, np.int64)),
        lambda: bits_of_guesses([np.ones((2, 2))], np.zeros((1, 2), np.int64)),
    ):
        with pytest.raises(ValueError):
            act()
