"""Cell minimum: the bits equal a plain comparison, and nothing else is to be seen."""

from dataclasses import replace

import numpy as np
import pytest

from fedmkt.protocol.core import Masked
from fedmkt.protocol.trees.totals.cell_minimum import (
    Cells,
    deal_cells,
    first_layer,
    open_cells,
    open_planes,
    own_passes,
    read_cells,
    take_planes,
)
from tests.protocol.plain_caller import BANK, DEALER, SHOP, PlainCaller, chi_square, contract_of


def cells_of(counts, scale=16, minimum=20, count=0):
    return Cells("least", count, SHOP, *counts.shape, scale, minimum)


def run(counts, cells, seed=1, change=lambda m: m):
    """Play all roles; counts : (groups, members). Returns the bits of both parties and what was sent."""
    caller = PlainCaller(contract_of(2), {}, seed=seed)
    share = np.random.default_rng(seed).integers(0, 2**32, counts.shape, np.uint32)
    shares = {SHOP: share, BANK: counts.astype(np.uint32) - share}
    other = {BANK: SHOP, SHOP: BANK}
    turns = {p: caller.turn(p) for p in other}
    dealt = {BANK: deal_cells(caller.turn(DEALER), cells), SHOP: None}
    sent, states = {}, {}
    for p in other:
        sent[p], states[p] = open_cells(turns[p], cells, shares[p])
    seen = [change(m) for m in sent.values()]
    states = {p: first_layer(turns[p], states[p], change(sent[other[p]]), dealt[p]) for p in other}
    for _ in cells.layer_bytes():
        opened = {p: open_planes(turns[p], states[p]) for p in other}
        seen += [m for m, _ in opened.values()]
        states = {p: take_planes(turns[p], opened[p][1], change(opened[other[p]][0])) for p in other}
    passes = {p: own_passes(s) for p, s in states.items()}
    return {p: read_cells(states[p], change(passes[other[p]])) for p in other}, seen, passes, dealt[BANK]


def expected(counts, minimum):
    return ((counts == 0) | (counts >= minimum)).all(axis=1)


@pytest.mark.parametrize("members", [2, 4])
@pytest.mark.parametrize(("scale", "minimum"), [(9, 20), (16, 2), (16, 50), (17, 50), (21, 1000), (31, 3)])
def test_bits_tell_which_groups_are_empty_or_large_enough(members, scale, minimum):
    random = np.random.default_rng(scale)
    most = (1 << (scale - 1)) - 1
    edges = np.array([0, 1, minimum - 1, minimum, minimum + 1, most // 2, most])
    counts = random.choice(edges, (700, members), p=[0.3, 0.05, 0.05, 0.2, 0.1, 0.1, 0.2])
    counts[:50] = 0
    found, *_ = run(counts, cells_of(counts, scale, minimum))
    assert np.array_equal(found[BANK], expected(counts, minimum))
    assert np.array_equal(found[SHOP], found[BANK]) and 0 < found[BANK].mean() < 1


def test_every_count_of_a_small_ring_is_compared_right():
    counts = np.arange(64)[:, None] * [1, 0]
    for minimum in range(1, 64):
        found, *_ = run(counts, cells_of(counts, 7, minimum), seed=minimum)
        assert np.array_equal(found[BANK], expected(counts, minimum))


def test_what_is_seen_is_uniform_and_of_the_same_size_whatever_the_counts():
    sizes = set()
    for counts in (np.zeros((4000, 4), int), np.full((4000, 4), 3), np.full((4000, 4), 30_000)):
        _, seen, passes, dealt = run(counts, cells_of(counts))
        parts = [m.values.words for m in seen[:2]]
        parts += [w.words for m in seen[2:] for w in (m.left, m.right)]
        parts += [dealt.r, *dealt.products, *(m.bits for m in passes.values())]
        assert all(abs(chi_square(p)) < 5 for p in parts)
        sizes.add(tuple(p.nbytes for p in parts))
    assert len(sizes) == 1


def test_a_second_comparison_has_masks_of_its_own():
    counts = np.zeros((500, 2), int)
    first, second = (run(counts, cells_of(counts, count=c))[1] for c in (0, 1))
    assert (first[0].values.words != second[0].values.words).any(axis=-1).mean() > 0.99
    assert (first[3].left.words != second[3].left.words).mean() > 0.9


def cut(message):
    if hasattr(message, "values"):
        return replace(message, values=Masked(message.values.words[:, :-1]))
    if hasattr(message, "left"):
        return replace(message, left=Masked(message.left.words[:-1]))
    return replace(message, bits=message.bits[:-1])


@pytest.mark.parametrize("name", ["CellOpening", "PlaneOpening", "CellPasses"])
def test_messages_of_another_length_are_refused(name):
    counts = np.zeros((9, 2), int)
    with pytest.raises(ValueError, match=r"length|are not"):
        run(counts, cells_of(counts), change=lambda m: cut(m) if type(m).__name__ == name else m)


def test_a_minimum_of_nothing_and_counts_of_another_shape_are_refused():
    counts = np.zeros((9, 2), int)
    # 2^8 + 1 of a ring of 2^9: an 1 would pass as enough.
    beyond = cells_of(counts, scale=9, minimum=257)
    for cells in (
        cells_of(counts, minimum=0), replace(cells_of(counts), groups=8), cells_of(counts, 32), beyond,
    ):  # fmt: skip
        with pytest.raises(ValueError, match="are not those"):
            run(counts, cells)
