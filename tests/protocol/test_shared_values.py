"""Shared values of trees against following each row down the tree."""

import numpy as np
import pytest

from fedmkt.protocol.shared_values import (
    Forests,
    deal_values,
    open_values,
    start,
    take_values,
    total,
)
from tests.protocol.plain_caller import BANK, DEALER, SHOP, PlainCaller, chi_square, contract_of

TREES = {
    "one of each": (((0, True), (1, False), (2, True)),),
    "the bank's alone": (((0, True), (1, True), (2, True), (5, True)),),
    "the partner's alone": (((0, False), (2, False)),),
    "a leaf": ((),),
    "several": (((0, True), (2, False), (5, True), (6, True), (12, False)), ((0, False), (1, True)), ()),
}


def leaves_of(tree, random):
    nodes = {n for n, _ in tree}
    found = {c for n in nodes for c in (2 * n + 1, 2 * n + 2)} | {0}
    return {n: int(random.integers(-(2**22), 2**22)) for n in found - nodes}


def run(trees, rows=300, seed=1):
    forest = Forests("values", SHOP, rows, trees)
    random = np.random.default_rng(seed)
    leaves = {(t, n): v for t, tree in enumerate(trees) for n, v in leaves_of(tree, random).items()}
    sides = {(t, n): random.random(rows) < 0.5 for t, tree in enumerate(trees) for n, _ in tree}
    owner = {(t, n): BANK if of_bank else SHOP for t, tree in enumerate(trees) for n, of_bank in tree}
    caller = PlainCaller(contract_of(2), {}, seed=seed)
    turns = {p: caller.turn(p) for p in (BANK, SHOP)}
    own = {p: {k: v for k, v in sides.items() if owner[k] == p} for p in turns}
    states, sent = {BANK: start(leaves), SHOP: start({})}, []
    for depth in reversed(range(forest.depth)):
        opened = {p: open_values(turns[p], forest, depth, depth, states[p], own[p]) for p in turns}
        states = {p: s for p, (_, s) in opened.items()}
        if forest.products(depth):
            dealt = {BANK: deal_values(caller.turn(DEALER), forest, depth, depth), SHOP: None}
            messages = {BANK: opened[SHOP][0], SHOP: opened[BANK][0]}
            sent += [*messages.values()]
            states = {
                p: take_values(turns[p], forest, depth, states[p], messages[p], dealt[p]) for p in turns
            }
        else:
            assert opened[BANK][0] is None
    found = total(forest, states[BANK]) + total(forest, states[SHOP])
    expected = np.zeros(rows, np.int64)
    for t in range(len(trees)):
        for i in range(rows):
            node = 0
            while (t, node) in sides:
                node = 2 * node + (1 if sides[t, node][i] else 2)
            expected[i] += leaves[t, node]
    return found & 0xFFFFFF, expected % 2**24, sent, states


@pytest.mark.parametrize("trees", TREES.values(), ids=TREES)
@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_the_leaves_that_rows_end_in(trees, seed):
    found, expected, _, _ = run(trees, seed=seed)
    assert np.array_equal(found, expected)


def test_only_what_the_partner_may_not_be_told_costs_anything():
    assert run(TREES["the bank's alone"])[2] == []
    forest = Forests("values", SHOP, 10, TREES["several"])
    assert [len(forest.products(d)) for d in range(4)] == [2, 1, 1, 1]
    assert [len(forest.splits(d)) for d in range(4)] == [2, 2, 2, 1]


def test_what_is_sent_and_what_is_held_is_uniform():
    _, _, sent, states = run(TREES["several"], rows=20_000)
    parts = [m.bits.words for m in sent] + [v.words for m in sent for v in m.vectors]
    assert all(abs(chi_square(p)) < 5 for p in parts if p.nbytes)
    share = states[SHOP].values[0, 0] & 0xFFFFFF
    assert abs(chi_square((share >> 16).astype(np.uint8))) < 5
