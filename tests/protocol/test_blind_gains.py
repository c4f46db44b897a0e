"""The split that is chosen on shares against the best one in plain."""

import numpy as np
import pytest

from fedmkt.protocol.trees.nothing.blind_gains import Weighing, bits_for, gain_phases, lifted_shares
from tests.ring.two_parties import run, shared

WIDTHS = (24, 24, 17)


def world(seed, nodes=3, candidates=40, rows=3000, rate=0.1):
    """Draw totals left of candidates, of rows with g at scale 2^5 and h at scale 2^8; candidate 0 is all rows."""
    random = np.random.default_rng(seed)
    out = np.zeros((3, nodes, candidates), np.int64)
    for s in range(nodes):
        n = rows >> s
        p = np.clip(random.normal(rate, rate / 3, n), 0.002, 0.998)
        x = random.random(n)
        y = random.random(n) < p * (0.5 + x)
        numbers = np.array([np.rint(32 * (p - y)), np.rint(256 * p * (1 - p)), np.ones(n)], np.int64)
        for c in range(candidates):
            side = x < random.random() if c % 2 else random.random(n) < random.random()
            out[:, s, c] = numbers[:, side if c else slice(None)].sum(axis=1)
    return out


def gains(totals, penalty):
    g, h, _ = totals
    G, H = g[:, :1], h[:, :1]
    return 64 * (g**2 / (h + penalty) + (G - g) ** 2 / (H - h + penalty) - G**2 / (H + 2 * penalty)) / 16


def choose(totals, plan, seed=1):
    mine, theirs = {}, {}
    for i, (name, width) in enumerate(zip(("g", "h", "rows"), plan.widths, strict=True)):
        a, b = shared(totals[i], seed + i)
        mine[name], theirs[name] = (lifted_shares(s, width) for s in (a, b))
    first, second = run(gain_phases(plan), [mine, theirs], seed)
    return {k: (first[k] + second[k]).view(np.int64) for k in first}


def plan_of(nodes, candidates, rows, **terms):
    options = {"penalty": 256, "least_h": 256, "least_rows": 50} | terms
    return Weighing(nodes, WIDTHS, bits_for(rows, 256), codes=tuple(range(candidates)), **options)


@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_the_split_of_most_gain_is_chosen_where_gains_differ_by_one_percent(rate, seed):
    totals = world(seed, rate=rate)
    plan = plan_of(3, 40, 3000)
    found = choose(totals, plan)["chosen"][..., 0]
    g, h, rows = totals
    allowed = (rows >= 50) & (rows[:, :1] - rows >= 50) & (h >= 256) & (h[:, :1] - h >= 256)
    plain = np.where(allowed, gains(totals, 256), 0)
    for s, code in enumerate(found[4]):
        assert plain[s, code] >= 0.99 * plain[s].max() > 0
        assert found[2, s] == g[s, code] and found[3, s] == h[s, code]


def test_a_node_without_a_split_that_counts_is_left_whole():
    totals = world(5, rows=400)
    found = choose(totals, plan_of(3, 40, 400, least_rows=201))
    assert (found["chosen"][4, :, 0] == 0).all() and (found["node"] == totals[:2, :, 0]).all()
    totals[:] = 0
    assert (choose(totals, plan_of(3, 40, 400))["chosen"][4] == 0).all()
