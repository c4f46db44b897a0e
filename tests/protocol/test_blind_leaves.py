"""Values of leaves on shares against those in plain."""

import numpy as np

from fedmkt.protocol.trees.nothing.blind_gains import bits_for
from fedmkt.protocol.trees.nothing.blind_leaves import Leaves, leaf_phases, leaf_values
from fedmkt.protocol.trees.totals.shared_gradients import UNIT
from tests.ring.two_parties import run, shared


def test_values_are_those_of_the_totals_within_their_bounds():
    random = np.random.default_rng(1)
    h = np.concatenate([[0, 10, 100], random.integers(256, 256 * 1000, 45)])
    g = (h * random.normal(0, 0.1, len(h))).astype(np.int64)
    g[3:6] = h[3:6] * [2, -2, 1]
    plan, (g1, g2), (a1, a2) = Leaves(48, bits_for(30000, 256), 0.1, 4.0), shared(g), shared(h + 256, 5)
    first, second = run(
        leaf_phases(plan), [leaf_values(plan, g1, a1, True), leaf_values(plan, g2, a2, False)]
    )
    found = (first["values"] + second["values"]).view(np.int64) * UNIT
    plain = 0.1 * np.clip(-(g / 32) / ((h + 256) / 256), -4, 4)
    assert np.abs(found - plain).max() <= 0.003 * np.abs(plain).max() and len(found) == 48
    assert np.allclose(found, plain, rtol=0.003, atol=2e-4)
    assert found[3] == np.float64(-0.4).round(3) or abs(found[3] + 0.4) < 1e-4


def test_a_node_of_a_single_row_and_one_of_all_rows_stay_in_range():
    rows = 6_000_000
    plan = Leaves(8, bits_for(rows, 256), 1.0, 8.0)
    g = np.array([34, -34, 34 * rows, -34 * rows, 1, 0, 0, -1])
    a = np.array([257, 257, 67 * rows, 67 * rows, 256, 2, 1 << 20, 67 * rows])
    (g1, g2), (a1, a2) = shared(g), shared(a, 5)
    first, second = run(
        leaf_phases(plan), [leaf_values(plan, g1, a1, True), leaf_values(plan, g2, a2, False)]
    )
    found = (first["values"] + second["values"]).view(np.int64) * UNIT
    assert np.allclose(found, np.clip(-8 * g / a, -8, 8), rtol=0.003, atol=2e-4)
