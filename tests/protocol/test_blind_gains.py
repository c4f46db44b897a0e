"""The split that is chosen on shares against the best one in plain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.protocol.trees.nothing.blind_gains import (
    D_BITS,
    U_BITS,
    Weighing,
    bits_for,
    gain_bounds,
    gain_phases,
    lifted_shares,
)
from fedmkt.ring.bounds import check
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


# ------------------------------------------------------------------------------------------ against whole numbers

MOST_G, LEAST_H, MOST_H = 34, -3, 67


def widths_of(rows):
    return tuple((2 * rows * limit).bit_length() + 1 for limit in (MOST_G, MOST_H, 1))


def within(random, low, high):
    """Draw a whole number between two, at the ends as often as not."""
    return int(random.choice([low, high, (low + high) // 2, random.integers(low, high, endpoint=True)]))


def any_totals(random, nodes, candidates, rows):
    """Draw any totals that rows within their limits may have, (3, nodes, candidates), some of them twice."""
    out = np.zeros((3, nodes, candidates), np.int64)
    for s in range(nodes):
        n = within(random, 0, rows)
        whole = within(random, -MOST_G * n, MOST_G * n), within(random, LEAST_H * n, MOST_H * n)
        out[:, s, 0] = *whole, n
        for c in range(1, candidates):
            left = within(random, 0, n)
            found = []
            for total, low, high in zip(whole, (-MOST_G, LEAST_H), (MOST_G, MOST_H), strict=True):
                least, most = (
                    max(low * left, total - high * (n - left)),
                    min(high * left, total - low * (n - left)),
                )
                found.append(within(random, least, most))
            out[:, s, c] = (*found, left) if random.random() < 0.8 else out[:, s, random.integers(c)]
    return out


def scaled(totals, plan):
    """Return, of one node, which candidates count, and u and a b of each as exact fractions of what is compared."""
    g, h, rows = ([int(x) for x in row] for row in totals)
    found, count = [], []
    for gl, hl, left in zip(g, h, rows, strict=True):
        sides = hl, h[0] - hl, left, rows[0] - left
        count.append(min(sides[:2]) >= plan.least_h and min(sides[2:]) >= plan.least_rows)
        a, b = hl + plan.penalty, h[0] - hl + plan.penalty
        found.append((abs(gl * b - (g[0] - gl) * a), a * b))
    both = max(1, h[0] + 2 * plan.penalty)
    m_g, m_h = (
        1 << plan.bits - x.bit_length() if x else 1 << plan.bits - 1 for x in (MOST_G * rows[0], both)
    )
    u_unit, d_unit = 1 << 2 * plan.bits - U_BITS, 1 << 2 * plan.bits - D_BITS
    return count, [(u * m_g * m_h / u_unit, d * m_h * m_h / d_unit) for u, d in found]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    nodes=st.integers(1, 3),
    candidates=st.sampled_from([1, 2, 3, 8, 9, 17, 66]),
    rows=st.sampled_from([1, 7, 50, 3000, 100_000, 15_000_000]),
    penalty=st.sampled_from([2, 256, 1 << 20, 256_000_000]),
    least_rows=st.sampled_from([1, 50, 3000]),
    least_h=st.sampled_from([1, 256]),
)
def test_whatever_the_totals_are_what_is_chosen_is_best_but_for_one_unit(
    seed, nodes, candidates, rows, penalty, least_rows, least_h
):
    totals = any_totals(np.random.default_rng(seed), nodes, candidates, rows)
    penalty = min(penalty, 1 << 28) if rows < 1_000_000 else min(penalty, 1 << 20)
    plan = Weighing(
        nodes,
        widths_of(rows),
        bits_for(rows, penalty),
        penalty,
        least_h,
        least_rows,
        tuple(range(candidates)),
    )
    check(gain_bounds(plan.bits))
    found = choose(totals, plan, seed % 1000)
    assert (found["node"] == totals[:2, :, 0]).all()
    for s, code in enumerate(found["chosen"][4, :, 0]):
        count, fractions = scaled(totals[:, s], plan)
        assert (found["chosen"][2:4, s, 0] == totals[:2, s, code]).all()
        assert code == 0 or count[code]
        u, d = fractions[code] if code else (0.0, 0.0)
        most = (u + 1) ** 2 / d if code else 0.0
        for (other, of), counts in zip(fractions, count, strict=True):
            assert not counts or most * (1 + 1e-9) >= max(0.0, other - 1) ** 2 / (of + 2)


def answers(seed, rows, rate, candidates):
    """Draw totals left of candidates: some by what answers depend on, most of them any rows, often few."""
    random = np.random.default_rng(seed)
    x = random.random(rows)
    y = random.random(rows) < rate * (0.5 + x)
    g = np.floor(32 * (rate - y) + random.random(rows))
    numbers = np.array([g, np.floor(256 * rate * (1 - rate) + random.random(rows)), np.ones(rows)], np.int64)
    out = np.zeros((3, 1, candidates), np.int64)
    for c in range(candidates):
        side = x < random.random() if c % 8 == 1 else random.random(rows) < 10 ** random.uniform(-3, -0.3)
        out[:, 0, c] = numbers[:, side if c else slice(None)].sum(axis=1)
    return out


@pytest.mark.parametrize("seed", range(4))
def test_of_many_rows_of_which_few_answered_no_side_of_chance_wins(seed):
    totals = answers(seed, 300_000, 0.003, 64)
    plan = Weighing(1, widths_of(300_000), bits_for(300_000, 256), 256, 256, 50, tuple(range(64)))
    _, h, rows = totals[:, 0]
    allowed = (rows >= 50) & (rows[0] - rows >= 50) & (h >= 256) & (h[0] - h >= 256)
    plain = np.where(allowed, gains(totals, 256)[0], 0)
    assert plain[choose(totals, plan)["chosen"][4, 0, 0]] >= 0.97 * plain.max() > 0
