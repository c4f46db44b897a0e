"""Cell tests: taken apart and put together again they are `open_cuts`."""

import numpy as np
import pytest

from fedmkt.learn.cells import open_cuts
from fedmkt.protocol.trees.totals.cell_tests import cuts_of, grid_of, group_sums, needed, passes


def drawn(grid, s, k, seed, scale=60):
    """Draw counts with many empty and small cells; nothing where a column has no bin."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, scale, (s, k, len(grid.values), grid.bins + 1))
    counts *= random.random(counts.shape) < 0.6
    for column, (size, apart) in enumerate(zip(grid.values, grid.apart, strict=True)):
        counts[:, :, column, size : grid.bins] = 0
        counts[:, :, column, -1] *= apart
        # All columns of a node have its rows, which are enough.
        counts[:, :, column, 0] += 3000 - counts[:, :, column].sum(axis=-1)
    return counts


GRIDS = [
    grid_of([(8, False), (5, True), (2, True), (1, False), (9, True)], 8),
    grid_of([(6, False), (7, True), (2, False)], 6),
    grid_of([(1, False), (2, True)], 1),
    grid_of([(5, False), (6, True), (3, True)], 5),
]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("minimum", [1, 20, 50])
@pytest.mark.parametrize("seed", range(6))
def test_cuts_of_root_children_and_grandchildren_are_those_of_open_cuts(grid, minimum, seed):
    cuts = np.ones((1, len(grid.values), grid.bins), bool)
    for k, s in ((1, 1), (2, 1), (2, 2)):
        counts = drawn(grid, s, k, seed + 10 * k + s, 20 + 40 * seed)
        expected = open_cuts(counts.reshape(-1, *counts.shape[2:]), cuts, minimum)
        sums = group_sums(counts.astype(np.uint32), grid).astype(np.int64)
        compared = needed(cuts, grid)
        cuts = np.repeat(cuts_of(passes(sums, minimum) | ~compared, cuts, grid), k, axis=0)
        assert np.array_equal(cuts, expected)
        if k == 2:
            assert compared.mean() < 1


@pytest.mark.parametrize("grid", GRIDS)
def test_sums_of_shares_are_shares_of_sums(grid):
    random = np.random.default_rng(3)
    counts = drawn(grid, 2, 2, 5).astype(np.uint32)
    share = random.integers(0, 2**32, counts.shape, np.uint32)
    assert np.array_equal(
        group_sums(share, grid) + group_sums(counts - share, grid), group_sums(counts, grid)
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_what_is_not_compared_passes_for_certain_or_does_not_matter(grid):
    """Whatever bits stand where nothing is compared, with true ones everywhere the cuts are the same."""
    counts = drawn(grid, 1, 1, 7)
    parents = np.random.default_rng(1).random((1, len(grid.values), grid.bins)) < 0.7
    bits = passes(group_sums(counts.astype(np.uint32), grid).astype(np.int64), 20)
    assert np.array_equal(cuts_of(bits, parents, grid), cuts_of(bits | ~needed(parents, grid), parents, grid))


def test_totals_are_laid_out_with_the_missing_last():
    grid = grid_of([(3, True), (2, False)], 4)
    assert grid.cells(np.arange(1, 6)).tolist() == [[1, 2, 0, 0, 3], [4, 5, 0, 0, 0]]
    with pytest.raises(ValueError, match="1 to 4 bins"):
        grid_of([(1, True)], 4)
    with pytest.raises(ValueError, match="1 to 4 bins"):
        grid_of([(5, False)], 4)
