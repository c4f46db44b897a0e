"""Shared values of trees against following each row down the tree."""

import numpy as np
import pytest

from fedmkt.protocol.core import Outcome, Silent, data_parties
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.trees.side_product import MaskedSides
from fedmkt.protocol.trees.totals.duos import PartnerShares
from fedmkt.protocol.trees.totals.shared_values import (
    Folding,
    Forests,
    fold,
    open_values,
    start,
    total,
)
from tests.protocol.plain_caller import BANK, SHOP, TELECOM, PlainCaller, chi_square, contract_of

TREES = {
    "one of each": (((0, 0), (1, 1), (2, 0)),),
    "the bank's alone": (((0, 0), (1, 0), (2, 0), (5, 0)),),
    "the partner's alone": (((0, 1), (2, 1)),),
    "a leaf": ((),),
    "each with two partners": (
        ((0, 0), (1, 1), (2, 2), (5, 0)),
        ((0, 2), (1, 1), (2, 2), (4, 2), (9, 1)),
        ((0, 2),),
    ),
    "the first partner's, with two": (((0, 1), (1, 0), (2, 1)),),
    "several": (((0, 0), (2, 1), (5, 0), (6, 0), (12, 1)), ((0, 1), (1, 0)), ()),
}


names = {trees: name for name, trees in TREES.items()}


def leaves_of(tree, random):
    nodes = {n for n, _ in tree}
    found = {c for n in nodes for c in (2 * n + 1, 2 * n + 2)} | {0}
    return {n: int(random.integers(-(2**22), 2**22)) for n in found - nodes}


def above(node):
    return {(node + 1 >> k) - 1 for k in range(1, (node + 1).bit_length())}


def run(trees, rows=300, seed=1):
    forest = Forests("values", rows, trees)
    random = np.random.default_rng(seed)
    leaves = {(t, n): v for t, tree in enumerate(trees) for n, v in leaves_of(tree, random).items()}
    sides = {(t, n): random.random(rows) < 0.5 for t, tree in enumerate(trees) for n, _ in tree}
    owner = {(t, n): (BANK, SHOP, TELECOM)[o] for t, tree in enumerate(trees) for n, o in tree}
    seconds = {place for place, party in owner.items() if party == TELECOM}
    parties = 3 if "two" in names[trees] else 2
    caller = PlainCaller(contract_of(parties), {}, seed=seed)
    for party in data_parties(caller.contract):
        caller.states[party][Folding] = start(leaves if party == BANK else {})

    # Values that are folded are dropped: what each held on the way.
    held = {party: {} for party in data_parties(caller.contract)}

    def open_(forest, depth, turn, inbox):
        held[turn.me] |= turn.recall(Folding).values
        own = {place: side for place, side in sides.items() if owner[place] == turn.me}
        count, used = next_count(turn, "values")
        send, state = open_values(turn, forest, depth, count, turn.recall(Folding), own)
        return Outcome(Silent(), send=send, keep=(state, used) if state.products else (state,))

    fold(caller, caller.contract, forest, open_)
    states = {p: caller.recall(p, Folding) for p in data_parties(caller.contract)}
    for party, state in states.items():
        held[party] |= state.values
        assert {node for _, node in state.values} <= {0}
    found = total(forest, states[BANK]) + total(forest, states[SHOP])
    # What the second partner holds of the values below its own splits, the first does too.
    if parties == 3:
        inside = {p for p in sides if owner[p] == TELECOM or any((p[0], a) in seconds for a in above(p[1]))}
        for place in inside:
            share = held[TELECOM][place] - held[SHOP][place]
            assert not (share & 0xFFFFFF).any()
    expected = np.zeros(rows, np.int64)
    for t in range(len(trees)):
        for i in range(rows):
            node = 0
            while (t, node) in sides:
                node = 2 * node + (1 if sides[t, node][i] else 2)
            expected[i] += leaves[t, node]
    return found & 0xFFFFFF, expected % 2**24, caller, states


@pytest.mark.parametrize("trees", TREES.values(), ids=TREES)
@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_the_leaves_that_rows_end_in(trees, seed):
    found, expected, _, _ = run(trees, seed=seed)
    assert np.array_equal(found, expected)


def test_only_what_the_partner_may_not_be_told_costs_anything():
    assert run(TREES["the bank's alone"])[2].sent == []
    forest = Forests("values", 10, TREES["several"])
    assert [len(forest.shared(d)) for d in range(4)] == [2, 1, 1, 1]
    assert [len(forest.splits(d)) for d in range(4)] == [2, 2, 2, 1]


@pytest.mark.parametrize("name", ["several", "each with two partners"])
def test_what_is_sent_and_what_is_held_is_uniform(name):
    _, _, caller, states = run(TREES[name], rows=20_000)
    masked = [s.message for s in caller.sent if isinstance(s.message, MaskedSides)]
    parts = [m.bits.words for m in masked] + [v.words for m in masked for v in m.vectors]
    passed = [s for s in caller.sent if isinstance(s.message, PartnerShares)]
    assert {(s.sender, s.reader) for s in passed} <= {(SHOP, TELECOM), (TELECOM, SHOP)}
    parts += [v for s in passed for v in s.message.vectors]
    assert all(abs(chi_square(p)) < 5 for p in parts if p.nbytes)
    share = states[SHOP].values[0, 0] & 0xFFFFFF
    assert abs(chi_square((share >> 16).astype(np.uint8))) < 5


def test_a_partner_is_passed_on_no_more_than_it_needs():
    _, _, caller, _ = run(TREES["each with two partners"], rows=300)
    passed = {SHOP: 0, TELECOM: 0}
    for s in caller.sent:
        if isinstance(s.message, PartnerShares):
            passed[s.reader] += len(s.message.vectors[0])
    # All five splits of the second partner's; of the first one's the two below them.
    assert passed == {SHOP: 5, TELECOM: 2}
    _, _, caller, _ = run(TREES["the first partner's, with two"])
    assert not [s for s in caller.sent if isinstance(s.message, PartnerShares)]


def test_the_first_partner_multiplies_with_the_banks_bits_and_each_with_its_own():
    _, _, caller, _ = run(TREES["each with two partners"])
    opened = [s for s in caller.sent if isinstance(s.message, MaskedSides)]
    bits = {(s.sender, s.reader): 0 for s in opened}
    for s in opened:
        bits[s.sender, s.reader] += len(s.message.bits.words)
    # Of the bank's two splits one has none of a partner's below: nobody multiplies for it.
    assert bits == {(BANK, SHOP): 1, (SHOP, BANK): 3, (BANK, TELECOM): 0, (TELECOM, BANK): 5}
