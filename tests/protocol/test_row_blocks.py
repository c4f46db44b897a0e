"""Row blocks: trees on shares are the same, bit for bit, whether their rows travel in one message or in many."""

import numpy as np
import pytest

from fedmkt.protocol import row_blocks
from fedmkt.protocol.alignment.align import scored_rows, train_rows
from fedmkt.protocol.linear.scoring import Released
from fedmkt.protocol.row_blocks import BlockWork, blocks_of, close_rows, of_rows
from fedmkt.protocol.session import AddressedMasks
from fedmkt.protocol.trees.nothing.blind_boosting import LeafShares
from fedmkt.protocol.trees.sides.boosting import OwnSplits
from fedmkt.protocol.trees.sides.tree_growth import Forest
from fedmkt.protocol.trees.totals import shared_gradients, shared_scoring, shared_stopping
from fedmkt.protocol.trees.totals.shared_boosting import OPEN_ANGLES
from fedmkt.protocol.trees.totals.shared_gradients import SharedScores
from fedmkt.protocol.trees.totals.shared_scoring import score
from fedmkt.protocol.trees.totals.shared_stopping import loss_rows
from tests.protocol import blind_world, shared_world
from tests.protocol.tree_world import BANK, SHOP, tree_caller

SMALL = 24_000
"""Bytes of a block: some hundred rows of what is dealt, less of a level with many splits."""


class RowMasks:
    """Masks of roundings that a row gets whatever its block is: the draws of one block, cut at the rows of a block.

    Rounding goes up or down as the masks are, so only then can runs be compared. What else is dealt is exact.
    """

    def __init__(self, inner, caller):
        self._inner = inner
        self._rows = {
            "gradients": (train_rows(caller.contract, caller.overlap), shared_gradients.ROW_BYTES),
            "losses": (loss_rows(caller.contract, caller.overlap), shared_stopping.ROW_BYTES),
            "score": (scored_rows(caller.contract, caller.overlap), shared_scoring.ROW_BYTES),
        }

    def words(self, *address, **where):
        return self._cut(self._inner.words, *address, **where)

    def half_words(self, *address, **where):
        return self._cut(self._inner.half_words, *address, **where)

    def _cut(self, draw, of, label, count, shape, **where):
        stage, what = label.split("/")[0], label.split("/")[-1]
        if stage not in self._rows or what in ("u", "v", "w"):
            return draw(of, label, count, shape, **where)
        blocks = blocks_of(*self._rows[stage])
        block = blocks[count % len(blocks)]
        shape = (shape,) if isinstance(shape, int) else shape
        assert shape[-1] == block.length
        whole = draw(of, label, count // len(blocks), (*shape[:-1], block.total), **where)
        return np.ascontiguousarray(whole[..., block.rows])


def trained(world, contract):
    caller = tree_caller(contract, n=2500)
    for party, masks in caller.masks.items():
        caller.masks[party] = RowMasks(AddressedMasks(masks._seeds, draws_again=True), caller)
    world.grown(caller)
    score(caller, contract, caller.overlap)
    return caller


def closed(caller):
    return sum(t.step.endswith(".close_rows") for t in caller.told)


def opened(caller, kind):
    return sum(caller.recall(p, kind).words.astype(np.uint32) for p in (BANK, SHOP))


@pytest.mark.parametrize(
    ("world", "terms"),
    [
        (shared_world, {"depth": 4}),
        (shared_world, {"class_weights": (1.0, 4.0), "patience": 2, "validation_fraction": 0.3, "rate": 0.8}),
        (shared_world, {"checked_shares": True}),
        (shared_world, {"parties": 3, "class_weights": (1.0, 2.0)}),
        (blind_world, {"trees": 2}),
    ],
    ids=["totals", "weighed, stopping", "checked", "two partners", "nothing"],
)
def test_trees_and_scores_do_not_depend_on_how_their_rows_travel(world, terms, monkeypatch):
    contract = world.contract(**terms)
    whole = trained(world, contract)
    assert not closed(whole)
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", SMALL)
    parts = trained(world, contract)
    assert closed(parts) > 40
    forests = [c.recall(BANK, Forest) for c in (whole, parts)]
    assert forests[0].trees == forests[1].trees and forests[0].decisions == forests[1].decisions
    for party in whole.contract.parties[1:]:
        assert whole.recall(party.name, OwnSplits) == parts.recall(party.name, OwnSplits)
    scores = [opened(c, SharedScores) << np.uint32(8) for c in (whole, parts)]
    assert np.array_equal(*scores) and len(np.unique(scores[0])) > 20
    if world is blind_world:
        assert np.array_equal(opened(whole, LeafShares), opened(parts, LeafShares))
    units = [c.recall(BANK, Released).units for c in (whole, parts)]
    assert np.array_equal(*units) and len(np.unique(units[0])) > 10
    assert not any(BlockWork in states for states in parts.states.values())
    # Nothing with rows in it is larger than a block: what is left are ciphertexts, hints, cells and few rows more.
    rows = (
        "fit.open_angles", "fit.deal_gradients", "fit.open_sides", "fit.deal_sides", "fit.take_sides",
        "values.open", "values.deal", "values.take", "tags.deal_sides", "losses.deal", "score.deal_trees",
    )  # fmt: skip
    sizes = [[len(s.data) for s in c.sent if s.step in rows] for c in (whole, parts)]
    assert max(sizes[0]) > 2 * SMALL and max(sizes[1]) < SMALL + 1000


def test_blocks_begin_at_whole_words_of_bits_and_one_is_enough_for_what_fits(monkeypatch):
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 1000)
    assert [b.rows for b in blocks_of(100, 10)] == [slice(0, 100)] and blocks_of(100, 10)[0].is_only
    assert [(b.start, b.stop) for b in blocks_of(250, 10)] == [(0, 96), (96, 192), (192, 250)]
    assert [b.is_last for b in blocks_of(250, 10)] == [False, False, True]
    assert [b.length for b in blocks_of(70, 999)] == [32, 32, 6]
    assert [b.length for b in blocks_of(10**9, 0)] == [10**9]


def test_a_block_that_is_not_the_next_one_is_refused(monkeypatch):
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", SMALL)
    caller = tree_caller(shared_world.contract())
    first, second, *_ = blocks_of(2000, 180)
    with pytest.raises(ValueError, match="out of order"):
        close_rows(caller, "fit", (BANK,), second)
    close_rows(caller, "fit", (BANK,), first)
    with pytest.raises(ValueError, match="out of order"):
        caller(BANK, of_rows(first, OPEN_ANGLES))
