"""How many bytes each step of a job sends: a function of the contract and of public sizes alone.

Every message has a size that its content cannot change, so the traffic of a run can be told before it. The
sizes are those of the arrays in the messages; headers, seals and signatures are a measured constant each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedmkt.contract.agreement import Contract
from fedmkt.learn.factors import COLUMNS
from fedmkt.protocol.alignment.align import validation_length
from fedmkt.protocol.alignment.hidden import lists_all
from fedmkt.protocol.alignment.items import BLOCK, block_of
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import Name, data_parties
from fedmkt.protocol.layout import FIT, SCORE, Layout, Stage, layout
from fedmkt.protocol.linear.links import harmonics
from fedmkt.protocol.linear.matrices import gram_rows
from fedmkt.protocol.linear.range import TABLE_BITS
from fedmkt.protocol.prepare import Shape
from fedmkt.ring.side_bits import packed_words
from fedmkt.simulation import bin_traffic, blind_traffic, correlation_traffic, shared_traffic, tree_traffic
from fedmkt.simulation.rehearsal import Planned
from fedmkt.simulation.tree_traffic import TreeFacts, expected

WORD = 8
_PER_MESSAGE = 240
"""Header, key, tag and signature of one message, in bytes."""
_HEAD = 830
"""A log head with its proof, and the signature that comes back for it, in bytes."""
_PER_CALL = 64
"""The public value of one call, in bytes."""


@dataclass(frozen=True)
class Sizes:
    """What the sizes of messages follow from; `lists` : distinct ids of each party; `given` : bins and splits."""

    contract: Contract
    overlap: Overlap
    shapes: Mapping[Name, Shape]
    lists: Mapping[Name, int]
    given: TreeFacts | None = None

    @cached_property
    def trees(self) -> TreeFacts:
        """What a training of trees meets: as given, or the most that the contract allows."""
        return self.given or expected(self.contract)

    def plan(self, stage: Stage) -> Layout:
        """Return the padded rows and the columns of a stage."""
        columns = {p: s.columns for p, s in self.shapes.items()}
        return layout(self.contract, self.overlap, columns, stage)

    @property
    def parties(self) -> tuple[Name, ...]:
        """All parties that hold data, the bank first."""
        return data_parties(self.contract)

    def items(self, party: Name) -> int:
        """Return what a party matches with: one item for each key of each customer."""
        return self.lists[party] * len(self.contract.bank.id_kinds)

    @property
    def others(self) -> int:
        """How many parties there are besides one that holds data."""
        return len(self.parties) - 1

    @property
    def pairs(self) -> int:
        """Number of entries of the Gram blocks on shares: between parties, and the partner's own with hidden match."""
        plan = self.plan(FIT)
        widths = [plan.columns_of(p) for p in self.parties]
        own = widths[1] ** 2 if self.contract.align.hidden else plan.width * (plan.width - plan.own_width)
        return _between(widths) + own

    @property
    def matrix_pairs(self) -> int:
        """Number of entries of the products of two parties' matrices, shares of pairs' columns among them."""
        plan = self.plan(FIT)
        return _between([plan.held_of(p) for p in self.parties])

    @property
    def weighted_cells(self) -> int:
        """Number of the partner's cells from which the Gram matrix is estimated."""
        plan = self.plan(FIT)
        return gram_rows(self.contract, plan) * plan.columns_of(self.parties[1])


def _between(widths: list[int]) -> int:
    return (sum(widths) ** 2 - sum(w * w for w in widths)) // 2


def bytes_sent(sizes: Sizes, call: Planned) -> int:
    """Return the bytes of all messages of one call; ValueError for a step whose size is not known."""
    name = call.step.name
    if name not in _CONTENT:
        raise ValueError(f"the size of what {name} sends is not known")
    content, readers = _CONTENT[name](sizes, call)
    if call.step.shows is not None:
        # Each reader gets the head and a proof, and gives its signature with its next answer.
        riders = len(call.step.shows(sizes.contract)) - 1
        content, readers = content + riders * _HEAD, readers + 2 * riders
    return content + readers * _PER_MESSAGE + _PER_CALL


Content = Callable[[Sizes, Planned], tuple[int, int]]
"""Bytes of the arrays that a call sends, and to how many readers."""


def _silent(sizes: Sizes, call: Planned) -> tuple[int, int]:
    return 0, 0


def _to_others(size: Callable[[Sizes], int]) -> Content:
    return lambda s, call: (s.others * size(s), s.others)


def _dealt(size: Callable[[Sizes], int]) -> Content:
    return lambda s, call: (size(s), 1)


def _block(sizes: Sizes, call: Planned, party: Name) -> int:
    """Return the items of a party's list that the call is about: its first call is about the first block."""
    return _in_block(call.before, sizes.items(party))


def _in_block(index: int, items: int) -> int:
    here = block_of(index, items)
    return max(0, int(here.stop) - int(here.start))


def _ot_choices(sizes: Sizes, call: Planned) -> tuple[int, int]:
    from fedmkt.crypto import kkrt

    return 32 + 32 * 64 * kkrt.code_words(sizes.items(call.party)), 1


def _ot_rows(sizes: Sizes, call: Planned) -> tuple[int, int]:
    from fedmkt.crypto import cuckoo, kkrt

    bank, *partners = sizes.parties
    bins = _in_block(call.before, cuckoo.bins_for(sizes.items(bank)))
    words = sum(kkrt.code_words(sizes.items(p)) for p in partners)
    return WORD * words * bins + 64 * len(partners), len(partners)


def _tags(per_item: int) -> Content:
    def content(sizes: Sizes, call: Planned) -> tuple[int, int]:
        from fedmkt.crypto import tags

        length = tags.tag_bytes(sizes.items(sizes.parties[0]), sizes.items(call.party))
        return per_item * length * _block(sizes, call, call.party), 1

    return content


def _vole_size(sizes: Sizes) -> Any:
    from fedmkt.crypto import okvs, vole

    return vole.size(okvs.shape(sizes.items(sizes.parties[0])).size)


def _vole_sums(sizes: Sizes, call: Planned) -> tuple[int, int]:
    size = _vole_size(sizes)
    return WORD * size.trees * (4 * size.depth + 2), 1


def _vole_corrections(sizes: Sizes) -> int:
    from fedmkt.crypto import vole

    transfers = vole.BASE_TRANSFERS
    return 32 + transfers * int(_vole_size(sizes).correction_bytes) + 16 * (transfers + 1)


def _vole_rows(sizes: Sizes, call: Planned) -> tuple[int, int]:
    return 16 * sizes.others * _in_block(call.before, _vole_size(sizes).entries), sizes.others


def _points(sizes: Sizes, call: Planned) -> int:
    return 32 * _block(sizes, call, sizes.parties[0])


def _returned(sizes: Sizes, call: Planned) -> tuple[int, int]:
    """Return what the bank sends back of one block of a partner's list: partner by partner, block by block."""
    found = [size for p in sizes.parties[1:] for size in _block_sizes(sizes.lists[p])]
    return 16 * found[call.before], 1


def _block_sizes(rows: int) -> list[int]:
    return [min(BLOCK, rows - start) for start in range(0, rows, BLOCK)]


def _asked(sizes: Sizes, call: Planned) -> tuple[int, int]:
    """Return what the bank sends of one block of its own list, which it sends to each partner."""
    found = _block_sizes(sizes.lists[sizes.parties[0]])
    return 32 * found[call.before % len(found)], 1


def _match(s: Sizes) -> int:
    return 4 * (s.overlap.labelled_high + s.overlap.unlabelled_high) + 32


def _masked_rows(stage: Stage) -> Content:
    def content(sizes: Sizes, call: Planned) -> tuple[int, int]:
        plan = sizes.plan(stage)
        blocks = plan.matrix_blocks()
        if call.before >= len(blocks):
            return 0, 0
        rows = blocks[call.before].stop - blocks[call.before].start
        return sizes.others * WORD * rows * plan.held_of(call.party), sizes.others

    return content


def _weights(stage: Stage) -> Content:
    def content(sizes: Sizes, call: Planned) -> tuple[int, int]:
        plan = sizes.plan(stage)
        return WORD * sum(plan.held_of(p) for p in sizes.parties if p != call.party), sizes.others

    return content


def _own_weights(sizes: Sizes, call: Planned) -> tuple[int, int]:
    plan = sizes.plan(SCORE)
    return WORD * (plan.own_width - plan.columns_of(call.party)), sizes.others


def _shared_pairs(stage: Stage) -> Content:
    """Give the size of a block of a party's bases for its pairs, to each other owner."""

    def content(sizes: Sizes, call: Planned) -> tuple[int, int]:
        plan = sizes.plan(stage)
        rows = _pair_rows(plan, call.before)
        others = [pair.other(call.party) for pair in plan.pairs if rows and call.party in pair.owners]
        return WORD * COLUMNS * rows * len(others), len(set(others))

    return content


def _dealt_pairs(stage: Stage) -> Content:
    def content(sizes: Sizes, call: Planned) -> tuple[int, int]:
        plan = sizes.plan(stage)
        cells = sum(pair.width for pair in plan.pairs) * _pair_rows(plan, call.before)
        return WORD * cells, len({pair.owners[0] for pair in plan.pairs})

    return content


def _pair_rows(plan: Layout, block: int) -> int:
    blocks = plan.pair_blocks()
    return blocks[block].stop - blocks[block].start if block < len(blocks) else 0


def _sigmoid_rows(sizes: Sizes, stage: Stage, call: Planned) -> int:
    blocks = sizes.plan(stage).sigmoid_blocks(sizes.contract)
    block = blocks[call.before % len(blocks)]
    return int(block.stop - block.start)


def _sigmoid(stage: Stage) -> Content:
    def content(sizes: Sizes, call: Planned) -> tuple[int, int]:
        weighted = 4 if sizes.contract.align.hidden else 0
        per_row = 8 * harmonics(sizes.contract) + 2 * WORD + weighted
        return per_row * _sigmoid_rows(sizes, stage, call), 1

    return content


def _lift(stage: Stage) -> Content:
    return lambda s, call: (s.others * 4 * _sigmoid_rows(s, stage, call), s.others)


def _bits(stage: Stage) -> Content:
    """Give the size of the bank's hidden weights, packed block by block."""

    def content(sizes: Sizes, call: Planned) -> tuple[int, int]:
        blocks = sizes.plan(stage).sigmoid_blocks(sizes.contract)
        return sum(4 * packed_words(b.stop - b.start) for b in blocks), 1

    return content


def _side(stage: Stage) -> Content:
    return lambda s, call: (0, 0) if call.party == s.parties[0] else (4 * _sigmoid_rows(s, stage, call), 1)


def _listed(sizes: Sizes, call: Planned) -> tuple[int, int]:
    return (0, 0) if lists_all(sizes.contract) else (4 * sizes.overlap.slots, 1)


def _scaled(s: Sizes) -> int:
    """Count what a hidden match divides by its rows."""
    return s.pairs + (s.plan(FIT).columns_of(s.parties[1]) if s.contract.model.penalties else 0)


def _multiply(sizes: Sizes, call: Planned) -> tuple[int, int]:
    """Give the size of a product: of width^2, but the first of a hidden match divides the Gram blocks."""
    is_first = sizes.contract.align.hidden and call.before == 0
    return sizes.others * WORD * (_scaled(sizes) if is_first else _width(sizes) ** 2), sizes.others


def _angles(stage: Stage) -> Callable[[Sizes], int]:
    return lambda s: 4 * s.plan(stage).rows + WORD * s.plan(stage).penalty_rows


def _forward(stage: Stage) -> Callable[[Sizes], int]:
    return lambda s: WORD * (s.plan(stage).total + s.plan(stage).width + 2 * s.plan(stage).penalty_rows)


def _width(s: Sizes) -> int:
    return s.plan(FIT).width


def _validation(s: Sizes) -> int:
    return validation_length(s.contract, s.overlap)


def _about_columns(content: correlation_traffic.Content) -> Content:
    def of_sizes(sizes: Sizes, call: Planned) -> tuple[int, int]:
        columns = {p: sizes.shapes[p].columns for p in sizes.parties}
        return content(correlation_traffic.Columns(sizes.contract, sizes.overlap, columns), call)

    return of_sizes


_CONTENT: dict[str, Content] = {
    "witness.show_head": _silent,
    "witness.cosign": _silent,
    "witness.collect": _silent,
    "run.close": _silent,
    "checkpoint.save": _silent,
    "psi.announce": _silent,
    "psi.admit": _silent,
    "psi.oprf.keep": _silent,
    "psi.oprf.know": _silent,
    "psi.oprf.offer": lambda s, call: (16 * _block(s, call, call.party), 1),
    "psi.oprf.take": _silent,
    "psi.oprf.blind": lambda s, call: (s.others * _points(s, call), s.others),
    "psi.oprf.evaluate": lambda s, call: (_points(s, call), 1),
    "psi.oprf.finish": _silent,
    "psi.ot.offer": _to_others(lambda s: 64),
    "psi.ot.choose": _ot_choices,
    "psi.ot.extend": _ot_rows,
    "psi.ot.absorb": _silent,
    "psi.ot.send": _tags(3),
    "psi.ot.look": _silent,
    "psi.vole.offer": _to_others(lambda s: 64),
    "psi.vole.choose": lambda s, call: (32 + 32 * 128, 1),
    "psi.vole.correct": _to_others(_vole_corrections),
    "psi.vole.mask": _silent,
    "psi.vole.expand": _vole_sums,
    "psi.vole.send": _vole_rows,
    "psi.vole.absorb": _silent,
    "psi.vole.tags": _tags(1),
    "psi.vole.unfold": _silent,
    "psi.vole.look": _silent,
    "psi.match": _to_others(_match),
    "psi.align": _silent,
    "psi.name_slots": lambda s, call: (8 * _block(s, call, call.party), 1),
    "psi.take_names": _silent,
    "psi.place": _listed,
    "psi.take_slots": _silent,
    "overlap.admit": _silent,
    "overlap.offer": lambda s, call: (32 * _block(s, call, call.party), 1),
    "overlap.answer": _silent,
    "overlap.return": _returned,
    "overlap.keep": _silent,
    "overlap.ask": _asked,
    "overlap.compare": _silent,
    "overlap.count": _silent,
    "overlap.read": _silent,
    "split.commit": _to_others(lambda s: 64),
    "split.reveal": _to_others(lambda s: 64),
    "split.divide": _silent,
    "prepare.fit": _silent,
    **{name: _about_columns(content) for name, content in correlation_traffic.CONTENT.items()},
    "prepare.tell_start": _silent,
    "fit.load_labels": _silent,
    "fit.share_pairs": _shared_pairs(FIT),
    "fit.deal_pairs": _dealt_pairs(FIT),
    "fit.mask_rows": _masked_rows(FIT),
    "fit.deal_gram": _dealt(lambda s: WORD * (s.matrix_pairs + 4 * s.pairs)),
    "fit.gram": _to_others(lambda s: WORD * s.pairs),
    "fit.scale_gram": _to_others(lambda s: WORD * s.pairs),
    "fit.hide_weight": _bits(FIT),
    "fit.take_weight": _silent,
    "fit.deal_weighted_gram": _dealt(lambda s: WORD * (s.weighted_cells + 3 * s.pairs)),
    "fit.weigh_rows": _dealt(lambda s: WORD * s.weighted_cells),
    "fit.weighted_gram": _to_others(lambda s: WORD * s.pairs),
    "fit.scale_weighted_gram": _to_others(lambda s: WORD * (_scaled(s) + 1)),
    "fit.deal_gram_scale": _dealt(lambda s: 3 * WORD * _scaled(s)),
    "fit.open_inverse": _to_others(lambda s: 2 * WORD * _width(s) ** 2),
    "fit.deal_inverse": _dealt(lambda s: 3 * WORD * _width(s) ** 2),
    "fit.multiply": _multiply,
    "fit.begin": _silent,
    "fit.open_weights": _weights(FIT),
    "fit.deal_forward": _dealt(_forward(FIT)),
    "fit.angle": _to_others(_angles(FIT)),
    "fit.deal_sigmoid": _sigmoid(FIT),
    "fit.lift": _lift(FIT),
    "fit.begin_side": _side(FIT),
    "fit.weigh": _lift(FIT),
    "fit.open_predictor": _to_others(lambda s: WORD * s.plan(FIT).total),
    "fit.deal_predictor": _dealt(lambda s: 2 * WORD * s.plan(FIT).rows),
    "score.round_predictor": _to_others(lambda s: WORD * s.plan(SCORE).rows),
    "fit.hide_row_weight": _to_others(lambda s: WORD * s.plan(FIT).rows),
    "fit.take_row_weight": _silent,
    "fit.open_rows": lambda s, call: (0, 0) if call.party == s.parties[0] else (WORD * s.plan(FIT).rows, 1),
    "fit.deal_row_weight": _dealt(lambda s: WORD * s.plan(FIT).rows),
    "fit.weighted_residual": _to_others(lambda s: WORD * s.plan(FIT).total),
    "fit.residual": _to_others(lambda s: WORD * s.plan(FIT).total),
    "fit.deal_step": _dealt(lambda s: 5 * WORD * _width(s)),
    "fit.gradient": _to_others(lambda s: WORD * _width(s)),
    "fit.solve": _to_others(lambda s: WORD * (_width(s) ** 2 + _width(s))),
    "fit.update": _to_others(lambda s: WORD * _width(s)),
    "fit.settle": _silent,
    "path.begin": _silent,
    "path.square": _to_others(lambda s: 2 * WORD * _validation(s)),
    "path.weighted_square": _to_others(lambda s: 2 * WORD * _validation(s)),
    "path.predict": _to_others(lambda s: WORD * _validation(s)),
    "path.weighted_predict": _to_others(lambda s: WORD * _validation(s)),
    "path.deal_predicted": _dealt(lambda s: 2 * WORD * _validation(s)),
    "path.count": _to_others(lambda s: 2 * WORD * _validation(s)),
    "path.subtract": _to_others(lambda s: WORD),
    "path.deal": _dealt(lambda s: 3 * WORD),
    "path.multiply": _to_others(lambda s: WORD),
    "path.keep": _silent,
    "path.release": lambda s, call: (WORD * len(s.contract.model.penalties), 1),
    "path.choose": _silent,
    "path.take": _silent,
    "range.deal": _dealt(lambda s: WORD * (2 * (1 << TABLE_BITS) + 2 * _width(s) + 9)),
    "range.open_weights": _to_others(lambda s: WORD * _width(s)),
    "range.open_squares": _to_others(lambda s: 2 * WORD * _width(s)),
    "range.open_sum": _to_others(lambda s: WORD),
    "range.open_lookup": _to_others(lambda s: 2 * WORD),
    "range.open_count": _to_others(lambda s: WORD),
    "range.share_bit": _to_others(lambda s: WORD),
    "range.read_bit": _silent,
    "score.share_pairs": _shared_pairs(SCORE),
    "score.deal_pairs": _dealt_pairs(SCORE),
    "score.mask_rows": _masked_rows(SCORE),
    "score.open_weights": _weights(SCORE),
    "score.deal_forward": _dealt(_forward(SCORE)),
    "score.angle": _to_others(_angles(SCORE)),
    "score.deal_sigmoid": _sigmoid(SCORE),
    "score.lift": _lift(SCORE),
    "score.hide_weight": _bits(SCORE),
    "score.take_weight": _silent,
    "score.begin_side": _side(SCORE),
    "score.weigh": _lift(SCORE),
    "score.round": _to_others(lambda s: WORD * s.plan(SCORE).rows),
    "score.deal_rounding": _dealt(lambda s: 2 * WORD * s.plan(SCORE).rows),
    "score.share": _silent,
    "score.release": lambda s, call: (0, 0) if call.party == s.parties[0] else (WORD * s.plan(SCORE).rows, 1),
    "score.read": _silent,
    "model.give_part": _own_weights,
    "model.take_part": _silent,
    **tree_traffic.CONTENT,
    **shared_traffic.CONTENT,
    **blind_traffic.CONTENT,
    **bin_traffic.CONTENT,
}
