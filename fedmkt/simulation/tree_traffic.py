"""What a training of boosted trees sends: sizes that follow from bins, levels of trees and padded rows.

Before a run nobody knows how many bins columns have and how many splits levels: `expected` takes the most that the
contract allows, so nothing costs more than planned.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.align import scored_rows, train_rows
from fedmkt.protocol.core import Name, data_parties
from fedmkt.protocol.shift import MAX_LEVELS
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.sides.boosting import histogram_terms
from fedmkt.protocol.trees.sides.histogram_terms import Batch, bin_blocks
from fedmkt.protocol.trees.sides.tree_growth import LevelSplits, most_rows
from fedmkt.protocol.trees.sides.tree_scoring import packed, tree_blocks
from fedmkt.ring.rlwe import DEGREE
from fedmkt.ring.short_words import stream_length

if TYPE_CHECKING:
    from fedmkt.simulation.rehearsal import Planned
    from fedmkt.simulation.traffic import Sizes

WORD = 8
_SPLIT_BYTES = 16
"""Of one split in a request."""


@dataclass(frozen=True)
class TreeFacts:
    """The public values that a training of trees meets: bins of each party, levels of all trees in turn.

    owners : on shares, of each tree who splits which node, as `shared_values.Owners`; none where it is not known.
    """

    bins: Mapping[Name, BinSizes]
    levels: tuple[LevelSplits, ...]
    owners: tuple[tuple[tuple[int, int], ...], ...] = ()

    def trees(self) -> list[tuple[LevelSplits, ...]]:
        """Return the levels tree by tree."""
        return [tuple(levels) for _, levels in groupby(self.levels, lambda level: level.tree)]

    def widths(self) -> list[int]:
        """Return the vectors of each batch."""
        return [nodes for _, nodes in self.batches()]

    def batches(self) -> list[tuple[int, int]]:
        """Return the depth and the nodes of each batch: one vector for each node that is asked for."""
        return [(d, tree[d - 1].splits if d else 1) for tree in self.trees() for d in range(len(tree))]

    def told(self, contract: Contract, party: Name) -> list[int]:
        """Return how many splits of a partner each level has, of the levels that have any."""
        place = data_parties(contract).index(party) - 1
        return [level.partners[place] for level in self.levels if level.partners[place]]


def expected(contract: Contract) -> TreeFacts:
    """Assume full trees that split by partners' columns only, and as many bins as the contract allows."""
    bins = {p: _most_bins(contract, p) for p in data_parties(contract)}
    partners = len(bins) - 1
    levels = [
        LevelSplits(tree, d, 2**d, tuple((2**d + i) // partners for i in range(partners))[::-1])
        for tree in range(contract.trees.trees)
        for d in range(contract.trees.depth)
    ]
    return TreeFacts(bins, tuple(levels))


def _most_bins(contract: Contract, party: Name) -> BinSizes:
    terms = contract.party(party)
    levels = min(contract.limits.max_levels, MAX_LEVELS)
    sizes = (*[contract.bins.count + 1] * len(terms.numbers), *[levels] * len(terms.categories))
    return BinSizes(sizes, (True,) * len(sizes))


Content = Callable[["Sizes", "Planned"], tuple[int, int]]


def _silent(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
    return 0, 0


def _partners(sizes: "Sizes") -> tuple[Name, ...]:
    return sizes.parties[1:]


def _hint(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
    rows = bin_blocks(sizes.trees.bins[call.party].width)[call.before]
    return WORD * DEGREE * (rows.stop - rows.start), 1


def _dealt(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
    width = sizes.trees.widths()[call.before]
    return WORD * width * sum(sizes.trees.bins[p].width for p in _partners(sizes)), 1


def _encrypted(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
    terms = histogram_terms(sizes.contract, sizes.overlap, sizes.trees.bins)
    at, partners = call.before, len(_partners(sizes))
    columns = max(len(sizes.trees.bins[p].sizes) for p in _partners(sizes))
    for depth, width in sizes.trees.batches():
        batch = Batch(terms, most_rows(terms.rows, depth, width))
        blocks = batch.row_blocks()
        if at < len(blocks):
            rows = blocks[at].stop - blocks[at].start
            secrets = WORD * DEGREE * width if at == 0 else 0
            words = stream_length(rows, [plan.word_bits for plan in batch.budgets(columns)])
            return partners * (WORD * words + secrets), partners
        at -= len(blocks)
    raise ValueError("more batches than the trees have levels")


def _totals(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
    width = sizes.trees.widths()[call.before]
    return WORD * width * sizes.trees.bins[call.party].width, 1


def _requests(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
    splits = sizes.trees.levels[call.before].partners
    return _SPLIT_BYTES * sum(splits), sum(n > 0 for n in splits)


def _sides(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
    splits = sizes.trees.told(sizes.contract, call.party)[call.before]
    return splits * packed(train_rows(sizes.contract, sizes.overlap)), 1


def _scored_sides(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
    rows = scored_rows(sizes.contract, sizes.overlap)
    trees = sizes.trees.trees()[tree_blocks(sizes.contract, rows)[call.before]]
    place = sizes.parties.index(call.party) - 1
    return packed(rows) * sum(level.partners[place] for tree in trees for level in tree), 1


CONTENT: dict[str, Content] = {
    "prepare.bins": _silent,
    "fit.load_table": _silent,
    "fit.load_bins": _silent,
    "fit.plant": _silent,
    "fit.choose": _requests,
    "fit.sides": _sides,
    "fit.grow": _silent,
    "fit.measure": _silent,
    "fit.settle_trees": _silent,
    "histogram.describe": _silent,
    "histogram.mask_hint": _hint,
    "histogram.take_hints": _silent,
    "histogram.deal": _dealt,
    "histogram.encrypt": _encrypted,
    "histogram.add": _silent,
    "histogram.reply": _totals,
    "histogram.decrypt": _silent,
    "score.sides": _scored_sides,
    "score.add_leaves": _silent,
    "score.round_trees": _silent,
}
"""Bytes of the arrays that a call sends, and to how many readers."""
