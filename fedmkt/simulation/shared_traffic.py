"""What a training of boosted trees in mode totals sends: full trees, all cells open, splits of whomever costs most.

Nothing costs more: fewer splits and cells that are not open only shorten messages. Whose splits cost a party most
depends on the party: its own cost bits, those of others shares of vectors. A second partner is taken to have half of
all splits. Where it is known whose splits were, `TreeFacts.owners`, all side products cost what they did.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import KEY_BYTES
from fedmkt.protocol.alignment.align import scored_rows
from fedmkt.protocol.core import Name, PublicValue, data_parties
from fedmkt.protocol.row_blocks import RowBlock, blocks_of
from fedmkt.protocol.trees.nothing.blind_boosting import blind_lanes
from fedmkt.protocol.trees.side_product import width
from fedmkt.protocol.trees.sides.histogram_terms import bin_blocks
from fedmkt.protocol.trees.totals import shared_gradients, shared_scoring, shared_stopping
from fedmkt.protocol.trees.totals.cell_minimum import Cells
from fedmkt.protocol.trees.totals.cell_tests import Grid, grid_of, needed
from fedmkt.protocol.trees.totals.checked_bins import row_blocks
from fedmkt.protocol.trees.totals.duos import Products, asked, holders
from fedmkt.protocol.trees.totals.lane_plan import lanes_of
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.level_sides import side_blocks
from fedmkt.protocol.trees.totals.shared_cells import CellGroups
from fedmkt.protocol.trees.totals.shared_gradients import FAR, SCORE_BITS, SHARE_BITS, ScoreRange
from fedmkt.protocol.trees.totals.shared_growth import NodeOwners
from fedmkt.protocol.trees.totals.shared_scoring import TreesToScore, tree_groups
from fedmkt.protocol.trees.totals.shared_stopping import SUM_BITS, loss_rows
from fedmkt.protocol.trees.totals.shared_values import Forests, value_blocks
from fedmkt.protocol.trees.tree_columns import common_bins
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


def assumed(
    contract: Contract, facts: "TreeFacts", party: Name, kind: type[PublicValue], call: int
) -> PublicValue | None:
    """Return what the `call`-th step of a party that tells this kind is taken to tell; None for other kinds."""
    depth = call % contract.trees.depth
    if kind is ScoreRange:
        return ScoreRange(FAR.period)
    if kind is CellGroups:
        groups = most_groups(contract, facts, depth)
        bank, *partners = data_parties(contract)
        own = partners if party == bank else [party]
        return CellGroups(tuple(groups[p] for p in own), _members(depth))
    if kind is NodeOwners:
        return NodeOwners(_owners(contract)[2**depth - 1 : 2 ** (depth + 1) - 1])
    if kind is TreesToScore:
        full = tuple((node, owner - 1) for node, owner in enumerate(_owners(contract)))
        return TreesToScore((full,) * contract.trees.trees)
    return None


def _owners(contract: Contract) -> tuple[int, ...]:
    """Return who splits each node: the first partner; of two, the second the root, so that all below is passed on."""
    nodes = 2**contract.trees.depth - 1
    return (len(contract.parties), *[2] * (nodes - 1))


def most_groups(contract: Contract, facts: "TreeFacts", depth: int) -> dict[Name, int]:
    """Return how many groups a level compares with each partner, where its parents have all cuts."""
    found = {}
    for partner in data_parties(contract)[1:]:
        table = _grid(contract, facts, partner)
        parents = np.ones((1, len(table.values), table.bins), np.bool_)
        found[partner] = int(needed(parents, table).sum()) << max(0, depth - 1)
    return found


def _members(depth: int) -> int:
    return 4 if depth else 2


def _grid(contract: Contract, facts: "TreeFacts", partner: Name) -> Grid:
    sizes = [facts.bins[p] for p in holders(contract, partner)]
    pairs = [pair for s in sizes for pair in zip(s.sizes, s.apart, strict=True)]
    return grid_of(pairs, common_bins(contract))


def _lanes(s: "Sizes") -> Lanes:
    lanes = blind_lanes if s.contract.trees.reveal == "nothing" else lanes_of
    return lanes(s.contract, s.overlap, s.trees.bins)


def _depth(s: "Sizes", call: "Planned") -> int:
    return call.before % s.contract.trees.depth


def _nodes(depth: int) -> int:
    return 1 << max(0, depth - 1)


def _cells(s: "Sizes", party: Name, depth: int) -> list[Cells]:
    """Return the comparisons that a party takes part in: all of them at the bank and the dealer."""
    found, bits = most_groups(s.contract, s.trees, depth), _lanes(s).bits[-1]
    own = [party] if party in s.parties[1:] else s.parties[1:]
    return [Cells("", 0, p, found[p], _members(depth), bits, 1) for p in own]


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
    lanes, holders_ = _lanes(s), asked(s.contract, call.party)
    per_tree = [
        (depth, rows, i)
        for depth in range(s.contract.trees.depth)
        for i, rows in enumerate(lanes.row_blocks(_nodes(depth)))
    ]
    depth, rows, block = per_tree[call.before % len(per_tree)]
    plans = lanes.words(holders_[0], _nodes(depth))
    stream = stream_length(rows.stop - rows.start, [plan.word_bits for plan in plans])
    readers = len(holders_)
    # Dealt secrets are not sent under a mask.
    secrets = 0 if block or holders_[0] == lanes.checker else DEGREE * len(plans)
    return readers * WORD * (stream + secrets), readers


def _replied(s: "Sizes", call: "Planned") -> tuple[int, int]:
    lanes = _lanes(s)
    return WORD * len(lanes.limits) * _nodes(_depth(s, call)) * lanes.bins(call.party), 1


def _block(blocks: Sequence[RowBlock], call: "Planned") -> int:
    """Return how many rows the call is about, of a step that is called for each block in turn."""
    return blocks[call.before % len(blocks)].length


def _train(s: "Sizes", call: "Planned") -> int:
    return _block(blocks_of(_lanes(s).rows, shared_gradients.ROW_BYTES), call)


def _lost(s: "Sizes", call: "Planned") -> int:
    return _block(blocks_of(loss_rows(s.contract, s.overlap), shared_stopping.ROW_BYTES), call)


def _to_score(s: "Sizes", call: "Planned") -> int:
    return _block(blocks_of(scored_rows(s.contract, s.overlap), shared_scoring.ROW_BYTES), call)


Rows = Callable[["Sizes", "Planned"], int]


def _rows(of_row: int, rows: Rows = _train) -> Content:
    return lambda s, call: (of_row * rows(s, call), 1)


def _root(s: "Sizes", call: "Planned") -> tuple[int, int]:
    if len(s.parties) == 2 or call.party != s.parties[1]:
        return 0, 0
    return sum(map(width, _lanes(s).bits)) * _train(s, call), 1


def _opened_counts(s: "Sizes", call: "Planned") -> tuple[int, int]:
    found = _cells(s, call.party, _depth(s, call))
    return sum(c.groups * c.members * c.word_bits // 8 for c in found), len(found)


def _dealt_counts(s: "Sizes", call: "Planned") -> tuple[int, int]:
    found = _cells(s, call.party, _depth(s, call))
    return sum(c.groups * c.members * c.word_bits // 8 + sum(c.layer_bytes()) for c in found), 1


def _first_layer(s: "Sizes", call: "Planned") -> tuple[int, int]:
    found = _cells(s, call.party, _depth(s, call))
    return sum(2 * c.layer_bytes()[0] for c in found), len(found)


def _layer(s: "Sizes", call: "Planned") -> tuple[int, int]:
    levels = [_cells(s, call.party, depth) for depth in range(s.contract.trees.depth)]
    sizes = [
        sum(layer) for found in levels for layer in zip(*(c.layer_bytes()[1:] for c in found), strict=True)
    ]
    return 2 * sizes[call.before % len(sizes)], len(levels[0])


def _shared_bits(s: "Sizes", call: "Planned") -> tuple[int, int]:
    found = _cells(s, call.party, _depth(s, call))
    return sum(c.row_bytes for c in found), len(found)


def _opened_totals(s: "Sizes", call: "Planned") -> tuple[int, int]:
    table = _grid(s.contract, s.trees, call.party)
    cells = len(table.values) * (table.bins + 1)
    return WORD * len(_lanes(s).limits) * cells * _nodes(_depth(s, call)), 1


def _noisy_totals(s: "Sizes", call: "Planned") -> tuple[int, int]:
    table = _grid(s.contract, s.trees, call.party)
    cells = len(table.values) * (table.bins + 1)
    return WORD * len(_lanes(s).limits) * cells << _depth(s, call), 1


def _requests(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return _SPLIT_BYTES << _depth(s, call), len(s.parties) - 1


Part = Callable[[int, Sequence[int], Sequence[bool], int, int], int]
"""Bytes of side products at one party: its place, whose the bits are, which are passed on, bits and vector of one."""


def _opened(place: int, owners: Sequence[int], passed: Sequence[bool], bits: int, vector: int) -> int:
    """Count own bits, and vectors for those of whom the party multiplies with."""
    whose = [owner for owner in owners if place in (0, owner, max(owner, 1))]
    return sum(bits if owner == place else vector for owner in whose)


def _dealt(place: int, owners: Sequence[int], passed: Sequence[bool], bits: int, vector: int) -> int:
    return vector * len(owners)


def _passed_on(place: int, owners: Sequence[int], passed: Sequence[bool], bits: int, vector: int) -> int:
    return vector * sum(place == max(owner, 1) and on for owner, on in zip(owners, passed, strict=True))


def _costliest(place: int, splits: int) -> list[int]:
    """Return whose splits cost a party most: others' at the bank, the bank's at the first partner.

    A second partner has half of them: it passes on its own, and cannot have all where the bank and the first have any.
    """
    if place == 0:
        return [1] * splits
    return [0] * splits if place == 1 else [2] * -(-splits // 2)


def _products(
    s: "Sizes", call: "Planned", part: Part, found: Products, splits: int, of_row: int
) -> tuple[int, int]:
    """Count what one party sends for products; found : with the owners that are known, else none and `splits`."""
    parties = s.parties
    place = parties.index(call.party) if call.party in parties else 0
    owners, passed = found.owners, found.passed
    if not s.trees.owners:
        owners = (0,) * splits if part is _dealt else tuple(_costliest(place, splits))
        passed = (True,) * len(owners)
    if part is _passed_on and (len(parties) == 2 or place == 0):
        return 0, 0
    size = part(place, owners, passed, HALF * packed_words(found.rows), of_row * found.rows)
    return size, len(parties) - 1 if place == 0 and part is _opened else 1


def _place_tags(s: "Sizes", call: "Planned") -> tuple[int, int]:
    lanes, counts = _lanes(s), s.trees.bins[s.parties[0]].sizes
    places = sum(counts) + len(counts)
    blocks = row_blocks(lanes, places)
    rows = blocks[call.before % len(blocks)]
    return WORD * places * (rows.stop - rows.start), 1


def _masked_vectors(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return 2 * WORD * SUBSETS * _lanes(s).bins(s.parties[0]), 1


def _side_rows(s: "Sizes", call: "Planned") -> tuple[int, int]:
    """Return the depth and the rows of a call: every level but the last one of a tree is followed by its products."""
    found = [
        (depth, block.length)
        for depth in range(s.contract.trees.depth - 1)
        for block in side_blocks(_lanes(s), 1 << depth)
    ]
    return found[call.before % len(found)]


def _side_tags(s: "Sizes", call: "Planned") -> tuple[int, int]:
    depth, rows = _side_rows(s, call)
    return WORD * (2 + len(_lanes(s).limits)) * rows << depth, 1


def _share_sums(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return WORD * SUBSETS * len(_lanes(s).limits) * _nodes(_depth(s, call)) + DIGEST, 1


def _pad_sums(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return WORD * SUBSETS * (len(_lanes(s).limits) + 1) * _nodes(_depth(s, call)), 1


def _sides(part: Part) -> Content:
    def content(s: "Sizes", call: "Planned") -> tuple[int, int]:
        lanes = _lanes(s)
        of_row = sum(map(width, lanes.share_bits))
        if not s.trees.owners:
            depth, rows = _side_rows(s, call)
            none = Products("", 0, (), rows, lanes.share_bits, ())
            return _products(s, call, part, none, 1 << depth, of_row)
        levels = [
            tuple(owner for node, owner in tree if (node + 1).bit_length() == depth + 1)
            for tree in s.trees.owners
            for depth in range(s.contract.trees.depth - 1)
        ]
        owners, rows = [
            (level, block.length) for level in levels if level for block in side_blocks(lanes, len(level))
        ][call.before]
        found = Products("", 0, owners, rows, lanes.share_bits, (True,) * len(owners))
        return _products(s, call, part, found, 0, of_row)

    return content


def _folded(s: "Sizes", call: "Planned", part: Part, groups: Sequence[slice], rows: int) -> tuple[int, int]:
    """Count what one party sends for a block of rows of a depth of one group of trees, the deepest first."""
    depths = list(reversed(range(s.contract.trees.depth)))
    if not s.trees.owners:
        assumed_splits = [(trees.stop - trees.start) << depth for trees in groups for depth in depths]
        splits, length = [
            (many, block.length) for many in assumed_splits for block in value_blocks(rows, many)
        ][call.before]
        none = Products("", 0, (), length, (SCORE_BITS,), ())
        return _products(s, call, part, none, splits, width(SCORE_BITS))
    rounds = []
    for trees in groups:
        forest = Forests("", rows, s.trees.owners[trees])
        for depth in reversed(range(forest.depth)):
            products = forest.products(depth, 0)
            # A depth without products is asked for, but neither dealt nor taken.
            if products.owners or part is _opened:
                blocks = value_blocks(rows, len(products.owners))
                rounds += [replace(products, rows=block.length) for block in blocks]
    return _products(s, call, part, rounds[call.before], 0, width(SCORE_BITS))


def _values(part: Part) -> Content:
    def content(s: "Sizes", call: "Planned") -> tuple[int, int]:
        trees = [slice(i, i + 1) for i in range(s.contract.trees.trees)]
        return _folded(s, call, part, trees, _lanes(s).rows)

    return content


def _scored_values(part: Part) -> Content:
    def content(s: "Sizes", call: "Planned") -> tuple[int, int]:
        terms, rows = s.contract.trees, scored_rows(s.contract, s.overlap)
        return _folded(s, call, part, list(tree_groups(terms.trees, terms.depth, rows)), rows)

    return content


def _rounded(s: "Sizes", call: "Planned") -> tuple[int, int]:
    readers = len(s.parties) - 1
    return readers * WORD * _to_score(s, call), readers


def _chosen(functions: int, rows: Rows) -> Content:
    """Count the masked labels of the bank's, or the partner's half words for each function."""

    def content(s: "Sizes", call: "Planned") -> tuple[int, int]:
        is_bank = call.party == s.parties[0]
        return HALF * (packed_words(rows(s, call)) if is_bank else functions * rows(s, call)), 1

    return content


_ANGLES = 2 * HALF * FAR.sines.harmonics
_QUIET = (
    "fit.load_shares", "nodes.begin_hints", "nodes.add", "nodes.decrypt", "fit.tell_range", "fit.take_root",
    "fit.record_splits", "fit.pool_sides", "fit.begin_values", "values.pool", "fit.add_tree", "fit.drop_tree",
    "losses.add", "losses.tell", "losses.agree", "losses.judge", "losses.keep_trees",
    "bins.begin", "bins.add_places", "bins.check", "tags.begin", "tags.take_sides", "score.begin_trees",
    "score.begin_group", "scores.pool", "score.add_group", "fit.close_rows", "values.close_rows",
    "scores.close_rows", "score.close_rows",
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
    "fit.open_classes": _chosen(2, _train),
    "fit.deal_classes": _rows(2 * HALF),
    "fit.open_weighed": _rows(2 * HALF),
    "losses.open": _rows(width(SCORE_BITS), _lost),
    "losses.deal": _rows(_ANGLES + HALF + 2 * width(SUM_BITS), _lost),
    "losses.choose": _chosen(1, _lost),
    "losses.lift": _rows(HALF, _lost),
    "fit.open_counts": _opened_counts,
    "fit.deal_counts": _dealt_counts,
    "fit.begin_layers": _first_layer,
    "fit.next_layer": _layer,
    "fit.share_bits": _shared_bits,
    "fit.open_totals": _opened_totals,
    "fit.choose_splits": _requests,
    "fit.open_noisy": _noisy_totals,
    "fit.choose_noisy": _requests,
    "fit.plant_shares": _root,
    "fit.open_sides": _sides(_opened),
    "fit.deal_sides": _sides(_dealt),
    "fit.take_sides": _sides(_passed_on),
    "values.open": _values(_opened),
    "values.deal": _values(_dealt),
    "values.take": _values(_passed_on),
    "scores.open": _scored_values(_opened),
    "scores.deal": _scored_values(_dealt),
    "scores.take": _scored_values(_passed_on),
    "score.open_trees": _rows(width(SCORE_BITS), _to_score),
    "score.deal_trees": _rows(_ANGLES + 2 * WORD, _to_score),
    "score.lift_trees": _rows(HALF, _to_score),
    "score.round_shares": _rounded,
    "score.join_round": _rounded,
    "score.deal_tree_rounding": _rows(2 * WORD, _to_score),
}
"""Bytes of the arrays that a call sends, and to how many readers."""
