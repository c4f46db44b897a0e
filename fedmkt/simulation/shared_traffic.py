"""What a training of boosted trees in mode totals sends: full trees whose splits are all the partner's, all cells open.

Nothing costs more: fewer splits, splits of the bank's and cells that are not open only shorten messages.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fedmkt.contract import Contract
from fedmkt.crypto.prg import KEY_BYTES
from fedmkt.protocol.align import scored_rows
from fedmkt.protocol.cell_minimum import Cells
from fedmkt.protocol.cell_tests import Grid, grid_of, needed
from fedmkt.protocol.checked_bins import row_blocks
from fedmkt.protocol.core import PublicValue, data_parties
from fedmkt.protocol.histogram_terms import bin_blocks
from fedmkt.protocol.lanes import Lanes
from fedmkt.protocol.shared_boosting import lanes_of
from fedmkt.protocol.shared_cells import CellGroups
from fedmkt.protocol.shared_gradients import FAR, SCORE_BITS, SHARE_BITS, ScoreRange
from fedmkt.protocol.shared_growth import NodeOwners
from fedmkt.protocol.shared_scoring import TreesToScore, tree_groups
from fedmkt.protocol.shared_stopping import SUM_BITS, loss_rows
from fedmkt.protocol.side_product import width
from fedmkt.protocol.tree_columns import common_bins
from fedmkt.ring.rlwe import DEGREE
from fedmkt.ring.share_tags import SUBSETS
from fedmkt.ring.short_words import stream_length
from fedmkt.ring.side_bits import packed_words

if TYPE_CHECKING:
    from fedmkt.simulation.rehearsal import Planned
    from fedmkt.simulation.traffic import Sizes
    from fedmkt.simulation.tree_traffic import TreeFacts

WORD, HALF, DIGEST = 8, 4, 32
_SPLIT_BYTES = 16


def assumed(contract: Contract, facts: "TreeFacts", kind: type[PublicValue], call: int) -> PublicValue | None:
    """Return what the `call`-th step that tells this kind is taken to tell; None for other kinds."""
    depth = call % contract.trees.depth
    if kind is ScoreRange:
        return ScoreRange(FAR.period)
    if kind is CellGroups:
        return most_groups(contract, facts, depth)
    if kind is NodeOwners:
        return NodeOwners((2,) * 2**depth)
    if kind is TreesToScore:
        full = tuple((node, False) for node in range(2**contract.trees.depth - 1))
        return TreesToScore((full,) * contract.trees.trees)
    return None


def most_groups(contract: Contract, facts: "TreeFacts", depth: int) -> CellGroups:
    """Return how many groups a level compares whose parents have all cuts."""
    table = _grid(contract, facts)
    parents = np.ones((1, len(table.values), table.bins), np.bool_)
    groups = int(needed(parents, table).sum())
    return CellGroups(groups << max(0, depth - 1), 4 if depth else 2)


def _grid(contract: Contract, facts: "TreeFacts") -> Grid:
    sizes = [facts.bins[p] for p in data_parties(contract)]
    pairs = [pair for s in sizes for pair in zip(s.sizes, s.apart, strict=True)]
    return grid_of(pairs, common_bins(contract))


def _lanes(s: "Sizes") -> Lanes:
    return lanes_of(s.contract, s.overlap, s.trees.bins)


def _depth(s: "Sizes", call: "Planned") -> int:
    return call.before % s.contract.trees.depth


def _nodes(depth: int) -> int:
    return 1 << max(0, depth - 1)


def _cells(s: "Sizes", depth: int) -> Cells:
    found = most_groups(s.contract, s.trees, depth)
    return Cells("", 0, s.parties[1], found.groups, found.members, _lanes(s).bits[-1], 1)


Content = Callable[["Sizes", "Planned"], tuple[int, int]]


def _silent(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return 0, 0


def _hint(s: "Sizes", call: "Planned") -> tuple[int, int]:
    blocks = bin_blocks(s.trees.bins[call.party].width)
    if call.before >= len(blocks):
        return 0, 0
    return WORD * DEGREE * (blocks[call.before].stop - blocks[call.before].start), 1


def _dealt_hints(s: "Sizes", call: "Planned") -> tuple[int, int]:
    lanes = _lanes(s)
    vectors = len(lanes.limits) * _nodes(_depth(s, call))
    return WORD * vectors * sum(lanes.bins(p) for p in s.parties), 2


def _encrypted(s: "Sizes", call: "Planned") -> tuple[int, int]:
    lanes, (holder,) = _lanes(s), (p for p in s.parties if p != call.party)
    per_tree = [
        (depth, rows, i)
        for depth in range(s.contract.trees.depth)
        for i, rows in enumerate(lanes.row_blocks(_nodes(depth)))
    ]
    depth, rows, block = per_tree[call.before % len(per_tree)]
    plans = lanes.words(holder, _nodes(depth))
    stream = stream_length(rows.stop - rows.start, [plan.word_bits for plan in plans])
    # Dealt secrets are not sent under a mask.
    secrets = 0 if block or holder == lanes.checker else DEGREE * len(plans)
    return WORD * (stream + secrets), 1


def _replied(s: "Sizes", call: "Planned") -> tuple[int, int]:
    lanes = _lanes(s)
    return WORD * len(lanes.limits) * _nodes(_depth(s, call)) * lanes.bins(call.party), 1


def _rows(of_row: int) -> Content:
    return lambda s, call: (of_row * _lanes(s).rows, 1)


def _opened_counts(s: "Sizes", call: "Planned") -> tuple[int, int]:
    cells = _cells(s, _depth(s, call))
    return cells.groups * cells.members * cells.word_bits // 8, 1


def _dealt_counts(s: "Sizes", call: "Planned") -> tuple[int, int]:
    cells = _cells(s, _depth(s, call))
    return cells.groups * cells.members * cells.word_bits // 8 + sum(cells.layer_bytes()), 1


def _first_layer(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return 2 * _cells(s, _depth(s, call)).layer_bytes()[0], 1


def _layer(s: "Sizes", call: "Planned") -> tuple[int, int]:
    sizes = [size for depth in range(s.contract.trees.depth) for size in _cells(s, depth).layer_bytes()[1:]]
    return 2 * sizes[call.before % len(sizes)], 1


def _shared_bits(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return _cells(s, _depth(s, call)).row_bytes, 1


def _opened_totals(s: "Sizes", call: "Planned") -> tuple[int, int]:
    table = _grid(s.contract, s.trees)
    cells = len(table.values) * (table.bins + 1)
    return WORD * len(_lanes(s).limits) * cells * _nodes(_depth(s, call)), 1


def _noisy_totals(s: "Sizes", call: "Planned") -> tuple[int, int]:
    table = _grid(s.contract, s.trees)
    cells = len(table.values) * (table.bins + 1)
    return WORD * len(_lanes(s).limits) * cells << _depth(s, call), 1


def _requests(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return _SPLIT_BYTES << _depth(s, call), 1


def _sides(s: "Sizes", call: "Planned") -> tuple[int, int]:
    # Every level but the last one of a tree is followed by its products.
    lanes, depth = _lanes(s), call.before % max(1, s.contract.trees.depth - 1)
    return sum(map(width, lanes.share_bits)) * lanes.rows << depth, 1


def _place_tags(s: "Sizes", call: "Planned") -> tuple[int, int]:
    lanes, counts = _lanes(s), s.trees.bins[s.parties[0]].sizes
    places = sum(counts) + len(counts)
    blocks = row_blocks(lanes, places)
    rows = blocks[call.before % len(blocks)]
    return WORD * places * (rows.stop - rows.start), 1


def _masked_vectors(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return 2 * WORD * SUBSETS * _lanes(s).bins(s.parties[0]), 1


def _side_tags(s: "Sizes", call: "Planned") -> tuple[int, int]:
    lanes, depth = _lanes(s), call.before % max(1, s.contract.trees.depth - 1)
    return WORD * (2 + len(lanes.limits)) * lanes.rows << depth, 1


def _share_sums(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return WORD * SUBSETS * len(_lanes(s).limits) * _nodes(_depth(s, call)) + DIGEST, 1


def _pad_sums(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return WORD * SUBSETS * (len(_lanes(s).limits) + 1) * _nodes(_depth(s, call)), 1


def _values(s: "Sizes", call: "Planned") -> tuple[int, int]:
    depth = s.contract.trees.depth - 1 - _depth(s, call)
    return width(SCORE_BITS) * _lanes(s).rows << depth, 1


def _scored_values(s: "Sizes", call: "Planned") -> tuple[int, int]:
    terms, rows = s.contract.trees, scored_rows(s.contract, s.overlap)
    group, at = divmod(call.before, terms.depth)
    trees = list(tree_groups(terms.trees, terms.depth, rows))[group]
    return (trees.stop - trees.start) * width(SCORE_BITS) * rows << (terms.depth - 1 - at), 1


def _scored(of_row: int) -> Content:
    return lambda s, call: (of_row * scored_rows(s.contract, s.overlap), 1)


def _losses(of_row: int) -> Content:
    return lambda s, call: (of_row * loss_rows(s.contract, s.overlap), 1)


def _chosen(functions: int, rows: Callable[["Sizes"], int]) -> Content:
    """Count the masked labels of the bank's, or the partner's half words for each function."""

    def content(s: "Sizes", call: "Planned") -> tuple[int, int]:
        is_bank = call.party == s.parties[0]
        return HALF * (packed_words(rows(s)) if is_bank else functions * rows(s)), 1

    return content


_ANGLES = 2 * HALF * FAR.sines.harmonics
_QUIET = (
    "fit.load_shares", "nodes.begin_hints", "nodes.add", "nodes.decrypt", "fit.tell_range", "fit.plant_shares",
    "fit.record_splits", "fit.take_sides", "fit.begin_values", "values.take", "fit.add_tree", "fit.drop_tree",
    "losses.tell", "losses.judge", "losses.keep_trees",
    "bins.begin", "bins.add_places", "bins.check", "tags.begin", "tags.take_sides", "score.begin_trees",
    "score.begin_group", "scores.take", "score.add_group",
)  # fmt: skip

CONTENT: dict[str, Content] = {
    **dict.fromkeys(_QUIET, _silent),
    "nodes.exchange_hint": _hint,
    "nodes.deal": _dealt_hints,
    "nodes.encrypt": _encrypted,
    "nodes.reply": _replied,
    "bins.shift": lambda s, call: (len(s.trees.bins[s.parties[0]].sizes) * _lanes(s).rows, 1),
    "bins.draw_vectors": lambda s, call: (2 * KEY_BYTES, 2),
    "bins.deal_places": _place_tags,
    "bins.show": lambda s, call: (DIGEST, 1),
    "bins.mask_vectors": _masked_vectors,
    "tags.deal_gradients": _rows(4 * WORD),
    # Nothing where all splits are the partner's; one of the bank's costs it as much here, and nothing above.
    "tags.open_own": lambda s, call: (0, 1),
    "tags.deal_sides": _side_tags,
    "tags.draw_subsets": lambda s, call: (2 * KEY_BYTES, 2),
    "tags.add_up_shares": _share_sums,
    "tags.add_up_pads": _pad_sums,
    "tags.check": _replied,
    "fit.open_angles": _rows(width(SCORE_BITS)),
    "fit.deal_gradients": _rows(_ANGLES + 2 * sum(map(width, SHARE_BITS))),
    "fit.open_gradients": _rows(2 * HALF),
    "fit.open_classes": _chosen(2, lambda s: _lanes(s).rows),
    "fit.deal_classes": _rows(2 * HALF),
    "fit.open_weighed": _rows(2 * HALF),
    "losses.open": _losses(width(SCORE_BITS)),
    "losses.deal": _losses(_ANGLES + HALF + 2 * width(SUM_BITS)),
    "losses.choose": _chosen(1, lambda s: loss_rows(s.contract, s.overlap)),
    "losses.lift": _losses(HALF),
    "fit.open_counts": _opened_counts,
    "fit.deal_counts": _dealt_counts,
    "fit.begin_layers": _first_layer,
    "fit.next_layer": _layer,
    "fit.share_bits": _shared_bits,
    "fit.open_totals": _opened_totals,
    "fit.choose_splits": _requests,
    "fit.open_noisy": _noisy_totals,
    "fit.choose_noisy": _requests,
    "fit.open_sides": _sides,
    "fit.deal_sides": _sides,
    "values.open": _values,
    "values.deal": _values,
    "scores.open": _scored_values,
    "scores.deal": _scored_values,
    "score.open_trees": _scored(width(SCORE_BITS)),
    "score.deal_trees": _scored(_ANGLES + 2 * WORD),
    "score.lift_trees": _scored(HALF),
    "score.round_shares": _scored(WORD),
    "score.deal_tree_rounding": _scored(2 * WORD),
}
"""Bytes of the arrays that a call sends, and to how many readers."""
