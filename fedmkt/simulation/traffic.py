"""How many bytes each step of the main job sends: a function of the contract and of public sizes alone.

Every message has a size that its content cannot change, so the traffic of a run can be told before it. The
sizes are those of the arrays in the messages; headers, seals and signatures are a measured constant each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedmkt.contract import Contract
from fedmkt.protocol.core import Name, data_parties
from fedmkt.protocol.layout import FIT, SCORE, Layout, Stage, layout
from fedmkt.protocol.prepare import Shape
from fedmkt.protocol.psi import Overlap
from fedmkt.protocol.range import TABLE_BITS
from fedmkt.ring import sigmoid
from fedmkt.simulation.rehearsal import Planned

WORD = 8
_PER_MESSAGE = 240
"""Header, key, tag and signature of one message, in bytes."""
_PER_CALL = 64
"""The public value of one call, in bytes."""


@dataclass(frozen=True)
class Sizes:
    """What the sizes of messages follow from; `lists` : distinct ids of each party."""

    contract: Contract
    overlap: Overlap
    shapes: Mapping[Name, Shape]
    lists: Mapping[Name, int]

    def plan(self, stage: Stage) -> Layout:
        """Return the padded rows and the columns of a stage."""
        columns = {p: s.columns for p, s in self.shapes.items()}
        return layout(self.contract, self.overlap, columns, stage)

    @property
    def parties(self) -> tuple[Name, ...]:
        """All parties that hold data, the bank first."""
        return data_parties(self.contract)

    @property
    def others(self) -> int:
        """How many parties there are besides one that holds data."""
        return len(self.parties) - 1

    @property
    def pairs(self) -> int:
        """Number of entries of the Gram blocks between parties."""
        plan = self.plan(FIT)
        widths = [plan.columns_of(p) for p in self.parties]
        return (sum(widths) ** 2 - sum(w * w for w in widths)) // 2


def bytes_sent(sizes: Sizes, call: Planned) -> int:
    """Return the bytes of all messages of one call; ValueError for a step whose size is not known."""
    name = call.step.name
    if name not in _CONTENT:
        raise ValueError(f"the size of what {name} sends is not known")
    content, readers = _CONTENT[name](sizes, call)
    return content + readers * _PER_MESSAGE + _PER_CALL


Content = Callable[[Sizes, Planned], tuple[int, int]]
"""Bytes of the arrays that a call sends, and to how many readers."""


def _silent(sizes: Sizes, call: Planned) -> tuple[int, int]:
    return 0, 0


def _to_others(size: Callable[[Sizes], int]) -> Content:
    return lambda s, call: (s.others * size(s), s.others)


def _dealt(size: Callable[[Sizes], int]) -> Content:
    return lambda s, call: (size(s), 1)


def _to_signers(size: int) -> Content:
    return lambda s, call: ((s.others + 1) * size, s.others + 1)


def _evaluate(sizes: Sizes, call: Planned) -> tuple[int, int]:
    return 32 * sizes.lists[sizes.parties[0]] + 16 * sizes.lists[call.party], 1


def _match(s: Sizes) -> int:
    return 24 * (s.overlap.labelled_high + s.overlap.unlabelled_high)


def _masked_rows(stage: Stage) -> Content:
    def content(sizes: Sizes, call: Planned) -> tuple[int, int]:
        plan = sizes.plan(stage)
        blocks = plan.matrix_blocks()
        if call.before >= len(blocks):
            return 0, 0
        rows = blocks[call.before].stop - blocks[call.before].start
        return sizes.others * WORD * rows * plan.columns_of(call.party), sizes.others

    return content


def _weights(stage: Stage) -> Content:
    def content(sizes: Sizes, call: Planned) -> tuple[int, int]:
        plan = sizes.plan(stage)
        return WORD * (plan.width - plan.columns_of(call.party)), sizes.others

    return content


def _sigmoid_rows(sizes: Sizes, stage: Stage, call: Planned) -> int:
    blocks = sizes.plan(stage).sigmoid_blocks(sizes.contract)
    block = blocks[call.before % len(blocks)]
    return int(block.stop - block.start)


def _sigmoid(stage: Stage) -> Content:
    def content(sizes: Sizes, call: Planned) -> tuple[int, int]:
        per_row = 8 * sigmoid.series(sizes.contract.model.period).harmonics + 2 * WORD
        return per_row * _sigmoid_rows(sizes, stage, call), 1

    return content


def _lift(stage: Stage) -> Content:
    return lambda s, call: (s.others * 4 * _sigmoid_rows(s, stage, call), s.others)


def _angles(stage: Stage) -> Callable[[Sizes], int]:
    return lambda s: 4 * s.plan(stage).rows + WORD * s.plan(stage).penalty_rows


def _forward(stage: Stage) -> Callable[[Sizes], int]:
    return lambda s: WORD * (s.plan(stage).total + s.plan(stage).width + 2 * s.plan(stage).penalty_rows)


def _width(s: Sizes) -> int:
    return s.plan(FIT).width


_CONTENT: dict[str, Content] = {
    "witness.tell_seen": _to_signers(8),
    "witness.show_head": _to_signers(700),
    "witness.cosign": _to_signers(130),
    "witness.collect": _silent,
    "run.close": _silent,
    "checkpoint.save": _silent,
    "psi.blind": _to_others(lambda s: 32 * s.lists[s.parties[0]]),
    "psi.evaluate": _evaluate,
    "psi.match": _to_others(_match),
    "psi.align": _silent,
    "split.commit": _to_others(lambda s: 64),
    "split.reveal": _to_others(lambda s: 64),
    "split.divide": _silent,
    "prepare.fit": _silent,
    "fit.load_labels": _silent,
    "fit.mask_rows": _masked_rows(FIT),
    "fit.deal_gram": _dealt(lambda s: 5 * WORD * s.pairs),
    "fit.gram": _to_others(lambda s: WORD * s.pairs),
    "fit.scale_gram": _to_others(lambda s: WORD * s.pairs),
    "fit.open_inverse": _to_others(lambda s: 2 * WORD * _width(s) ** 2),
    "fit.deal_inverse": _dealt(lambda s: 3 * WORD * _width(s) ** 2),
    "fit.multiply": _to_others(lambda s: WORD * _width(s) ** 2),
    "fit.begin": _silent,
    "fit.open_weights": _weights(FIT),
    "fit.deal_forward": _dealt(_forward(FIT)),
    "fit.angle": _to_others(_angles(FIT)),
    "fit.deal_sigmoid": _sigmoid(FIT),
    "fit.lift": _lift(FIT),
    "fit.residual": _to_others(lambda s: WORD * s.plan(FIT).total),
    "fit.deal_step": _dealt(lambda s: 5 * WORD * _width(s)),
    "fit.gradient": _to_others(lambda s: WORD * _width(s)),
    "fit.solve": _to_others(lambda s: WORD * (_width(s) ** 2 + _width(s))),
    "fit.update": _to_others(lambda s: WORD * _width(s)),
    "fit.settle": _silent,
    "range.deal": _dealt(lambda s: WORD * (2 * (1 << TABLE_BITS) + 2 * _width(s) + 9)),
    "range.open_weights": _to_others(lambda s: WORD * _width(s)),
    "range.open_squares": _to_others(lambda s: 2 * WORD * _width(s)),
    "range.open_sum": _to_others(lambda s: WORD),
    "range.open_lookup": _to_others(lambda s: 2 * WORD),
    "range.open_count": _to_others(lambda s: WORD),
    "range.share_bit": _to_others(lambda s: WORD),
    "range.read_bit": _silent,
    "score.mask_rows": _masked_rows(SCORE),
    "score.open_weights": _weights(SCORE),
    "score.deal_forward": _dealt(_forward(SCORE)),
    "score.angle": _to_others(_angles(SCORE)),
    "score.deal_sigmoid": _sigmoid(SCORE),
    "score.lift": _lift(SCORE),
    "score.round": _to_others(lambda s: WORD * s.plan(SCORE).rows),
    "score.deal_rounding": _dealt(lambda s: 2 * WORD * s.plan(SCORE).rows),
    "score.share": _silent,
    "score.release": lambda s, call: (0, 0) if call.party == s.parties[0] else (WORD * s.plan(SCORE).rows, 1),
    "score.read": _silent,
    "model.give_part": _weights(SCORE),
    "model.take_part": _silent,
}
