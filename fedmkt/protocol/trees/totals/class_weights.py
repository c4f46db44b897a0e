"""Class weights on shares: the gradients of rows with a response count more, and only the bank knows which they are.

Computes w_y (sigma(F) - y) and w_y sigma'(F) in place of the plain gradients of `shared_gradients`, before they are
rounded, where both classes do not weigh the same. Weights are relative to the larger one, so no bound on gradients or
totals grows. Who takes part, who learns what, and against whom it is safe: `class_waves`.

One round more for each tree. For each row the partner sends 8 bytes, the bank a bit, the dealer 8 bytes.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Nothing,
    Outcome,
    Reply,
    Silent,
    State,
    Step,
    Turn,
    ask,
    data_parties,
    dealer,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.row_blocks import RowBlock, of_rows
from fedmkt.protocol.trees.side_product import DealtSides, MaskedSides, deal_sides
from fedmkt.protocol.trees.totals.class_waves import (
    ClassFunction,
    ClassProduct,
    classes_batch,
    close_classes,
    open_classes,
    weighed,
)
from fedmkt.protocol.trees.totals.duos import counterpart
from fedmkt.protocol.trees.totals.shared_gradients import (
    DealtGradients,
    GradientShares,
    ScoreSeries,
    TrainAnswers,
    TreeAngles,
    TreeGradients,
    meet,
    open_values,
)
from fedmkt.protocol.trees.totals.shared_values import both


@dataclass(frozen=True)
class WeighedRows(State):
    """Gradients on their way to be weighed."""

    durable: ClassVar[bool] = False
    product: ClassProduct


def are_weighed(contract: Contract) -> bool:
    """Tell whether a row's class says how much it counts."""
    light, heavy = contract.trees.class_weights
    return light != heavy


def relative_weights(contract: Contract) -> tuple[float, float]:
    """Return the weights of both classes as shares of the larger one."""
    light, heavy = contract.trees.class_weights
    return light / max(light, heavy), heavy / max(light, heavy)


def _functions(turn: Turn, series: ScoreSeries) -> tuple[ClassFunction, ClassFunction]:
    return weighed(*relative_weights(turn.contract), series)


def _open_classes(turn: Turn, inbox: Inbox[TreeAngles | DealtGradients]) -> Outcome[MaskedSides, Silent]:
    """Evaluate the gradients of both classes; open what the choice between them needs."""
    state, other = turn.recall(GradientShares), counterpart(turn)
    dealt = inbox.one(dealer(turn.contract), DealtGradients) if turn.first else None
    waves = meet(
        turn, state.batch, state.own, inbox.one(other, TreeAngles), None if dealt is None else dealt.angles
    )
    count, used = next_count(turn, "classes")
    batch = classes_batch("classes", count, turn, state.batch.rows, 2)
    y = turn.recall(TrainAnswers).y if turn.first else None
    series = state.batch.series
    message, product = open_classes(turn, batch, series, waves, _functions(turn, series), y)
    kept = (WeighedRows(product), GradientShares(state.batch, state.own, dealt), used)
    return Outcome(Silent(), send={other: message}, keep=kept)


def _deal_classes(rows: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtSides, Silent]:
    """At the dealer: deal the product."""
    count, used = next_count(turn, "classes")
    dealt = deal_sides(turn, classes_batch("classes", count, turn, rows, 2))
    return Outcome(Silent(), send={turn.parties[0]: dealt}, keep=(used,))


def _open_weighed(turn: Turn, inbox: Inbox[MaskedSides | DealtSides]) -> Outcome[TreeGradients, Silent]:
    """Finish the product; open the weighed gradients under the masks of their roundings."""
    state, other = turn.recall(GradientShares), counterpart(turn)
    dealt = inbox.one(dealer(turn.contract), DealtSides) if turn.first else None
    y = turn.recall(TrainAnswers).y if turn.first else None
    product, functions = turn.recall(WeighedRows).product, _functions(turn, state.batch.series)
    value = close_classes(turn, product, inbox.one(other, MaskedSides), dealt, functions, y)
    message, own = open_values(turn, state.batch, value)
    kept = GradientShares(state.batch, own, state.dealt)
    return Outcome(Silent(), send={other: message}, keep=(kept,), forget=(WeighedRows,))


OPEN_CLASSES = Step("fit.open_classes", _open_classes, Silent, reads=(TreeAngles, DealtGradients))
OPEN_WEIGHED = Step("fit.open_weighed", _open_weighed, Silent, reads=(MaskedSides, DealtSides))


def weigh(
    call: Caller, contract: Contract, block: RowBlock,
    angles: list[Reply[TreeAngles, Silent]], dealt: Reply[DealtGradients, Silent],
) -> list[Reply[TreeGradients, Silent]]:  # fmt: skip
    """Weigh the gradients of a tree whose scores have been opened under t, for a block of rows."""
    parties, maker = data_parties(contract)[:2], dealer(contract)
    deal = Step("fit.deal_classes", partial(_deal_classes, block.length), Silent)
    opened, (shares,) = call.both(
        [ask(p, of_rows(block, OPEN_CLASSES), *both(angles, dealt, p)) for p in parties], [ask(maker, deal)]
    )
    return call.all([ask(p, of_rows(block, OPEN_WEIGHED), *both(opened, shares, p)) for p in parties])
