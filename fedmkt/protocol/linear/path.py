"""A path of penalties: which one predicts best, measured on shares on rows that did not train.

Trains with each penalty of the contract, the largest first, each from the model of the one before; adds up the error on
the validation rows (`align.Validation`), chooses the penalty with the smallest, and trains on with it, on all rows,
from its model. The error is the squared residual; of counts, whose large ones alone would choose then, the deviance:
twice the sum of mu - y z, plus what the bank adds by itself. Takes part: all parties that hold data, and the dealer.

| learns | what |
|---|---|
| bank | one rounded sum for each penalty (`PenaltyCurve`) |
| every party, the coordinator | the choice (`ChosenPenalty`), and the bits of the range checks |
| every party | its own share of each model: uniform words |

Safe against semi-honest parties, all but one of them together, while the dealer colludes with none. A bank that
deviates can choose another penalty of the contract, and, as in all training, spoil the model. All sums are opened at
once, after the last penalty, so that no passes depend on an earlier one. Rows that stand for nobody are padding with
the predictor 0: the bank knows how many there are among the validation rows, and takes their error off.

Source: protocols.md section 2; the sum of squares is one product of shared vectors (Beaver 1991), rounded (ring/
rounding.py). Squared error, of answers the Brier score, and deviance: proper scores (Gneiting and Raftery 2007).
Letters: mu expected label, y label, z predictor of a validation row, times its weight; L padded number of these rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.contract.model_terms import ROW_WEIGHT_UNIT
from fedmkt.errors import DataError, PolicyRefused
from fedmkt.learn import glm
from fedmkt.privacy.disclosure import EVERYONE, ChosenPenalty, PenaltyCurve
from fedmkt.protocol.alignment.align import (
    joint_rows,
    train_rows,
    train_rows_at_least,
    validation_length,
    validation_rows,
)
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Call,
    Caller,
    Inbox,
    Masked,
    Message,
    Name,
    Nothing,
    Outcome,
    Reply,
    Sealed,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    dealer,
    inbox_of,
    to_all,
)
from fedmkt.protocol.layout import FIT, FRACTION_BITS, WEIGHT_BITS, Layout, layout, residual_bits, value_bits
from fedmkt.protocol.linear.gram import invert_gram
from fedmkt.protocol.linear.identity import DealtPredictor, PredictorOpening
from fedmkt.protocol.linear.links import (
    has_row_weights,
    most_offset,
    most_predictor,
    most_row_weight,
    most_value,
)
from fedmkt.protocol.linear.logistic import find_solver, make_passes, mask_rows, open_values, weigh_inbox
from fedmkt.protocol.linear.multiply import (
    DealtProduct,
    PairOpening,
    RoundOpening,
    deal_product,
    finish_product,
    multiply,
    open_pair,
    open_product,
    product_inbox,
    take_product,
)
from fedmkt.protocol.linear.penalties import PenaltyChoice, Trial, path_passes
from fedmkt.protocol.linear.predictor import Forward, Weights
from fedmkt.protocol.linear.residuals import finish_values
from fedmkt.protocol.linear.row_weights import (
    DealtRowWeight,
    Linked,
    RowOpening,
    RowValues,
    open_rows,
    weigh_rows,
)
from fedmkt.protocol.linear.sigmoid_blocks import LiftOpening
from fedmkt.protocol.linear.targets import Labels, Units, known_rows
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.prepare import Columns, real
from fedmkt.protocol.shared import (
    DealtRounding,
    Opening,
    deal_rounding,
    finish_rounding,
    from_others,
    open_masked,
    sum_openings,
)
from fedmkt.protocol.witness import checkpoint, witness
from fedmkt.ring.bounds import Bound
from fedmkt.ring.fixed import encode

_COUNT_BITS = 12
"""Scale of counts and of predictors where they are multiplied."""
_PREDICTOR_SHIFT = FRACTION_BITS + WEIGHT_BITS - _COUNT_BITS
MEAN_BITS = 17
"""A released sum is a multiple of 2^-17 of the power of two below its rows: of their mean about five decimals."""
_LABEL = "path"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class SquareShares(Message):
    """For the bank: shares of the rounded sums of all penalties, fresh from their roundings."""

    words: Words


@dataclass(frozen=True)
class PredictedOpening(Opening):
    """Of counts: a share of the predictors of the validation rows plus their mask, (L,)."""


@dataclass(frozen=True)
class Predicted(State):
    """Of counts: the own share of what is expected less what is counted, and the own opening of the predictors."""

    durable: ClassVar[bool] = False
    total: np.uint64
    own: Words


@dataclass(frozen=True)
class Tried(State):
    """The own shares of the models so far, (k, width), and of their sums, (k,), in the order of the path."""

    weights: Words
    sums: Words


@dataclass(frozen=True)
class Curve(State):
    """At the bank: the mean error of each penalty of the path, in units of the label, over `rows` rows."""

    errors: Array
    rows: int


# --- the error of one penalty


def _begin(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Count one penalty further; before the first, all make sure that there is enough to compare them by."""
    if turn.has(Trial):
        return Outcome(Silent(), keep=(Trial(turn.recall(Trial).place + 1, False),))
    if turn.first:
        _check_rows(turn)
    elif not turn.contract.align.hidden:
        _check_own(turn)
    return Outcome(Silent(), keep=(Trial(0, False),))


def _check_rows(turn: Turn) -> None:
    """Refuse validation rows of which too few count, or of which the rarer kind is too rare to compare by."""
    known, least = _validation_labels(turn), turn.contract.limits.min_support
    y = known.y[known.weight > 0]
    found = {
        "rows that count": _effective(known.weight),
        "of the rarer class": float(min((y == 0).sum(), (y == 1).sum())),
        "with a count above zero": float((y > 0).sum()),
    }
    kinds = {"logistic": ("of the rarer class",), "poisson": ("with a count above zero",)}
    for what in ("rows that count", *kinds.get(turn.contract.model.link, ())):
        if found[what] < least:
            raise DataError(
                f"{turn.me}: fewer than {least} {what} among the rows on which penalties are compared "
                "(limits.min_support)",
                "raise [model] validation_fraction, or name one penalty in place of penalties",
            )


def _check_own(turn: Turn) -> None:
    """At a partner: refuse a sum over few of its rows, whatever the bank says, or has besides in a left join."""
    least = turn.contract.limits.min_support
    if (joint_rows(turn, True)[_places(turn)] != NO_ROW).sum() < least:
        raise DataError(
            f"{turn.me}: fewer than {least} of its rows are among those on which penalties are compared "
            "(limits.min_support)",
            "raise [model] validation_fraction, or name one penalty in place of penalties",
        )


def _effective(weight: Array) -> float:
    """Return how many rows of equal weight tell as much (Kish 1965)."""
    total = float(np.square(weight).sum())
    return float(weight.sum()) ** 2 / total if total else 0.0


def _places(turn: Turn) -> NDArray[np.int64]:
    return np.flatnonzero(validation_rows(turn))


def _validation_labels(turn: Turn) -> glm.Rows:
    places = _places(turn)
    return known_rows(turn.contract.model, turn.recall(Columns), real(joint_rows(turn, True)[places]))


def _square(turn: Turn, inbox: Inbox[Linked]) -> Outcome[PairOpening, Silent]:
    values = finish_values(turn, inbox)
    return _open_squares(turn, values, values)


def _weighted_square(turn: Turn, inbox: Inbox[RowOpening | DealtRowWeight]) -> Outcome[PairOpening, Silent]:
    return _open_squares(turn, weigh_rows(turn, inbox), turn.recall(RowValues).values)


def _open_squares(turn: Turn, weighed: Words, plain: Words) -> Outcome[PairOpening, Silent]:
    """Open the residuals of the validation rows as both factors of a product; shares of what is beyond them are 0."""
    places, length = _places(turn), _length(turn)
    count, counts = next_count(turn, _LABEL)
    factors = np.zeros((2, length), np.uint64)
    factors[:, : len(places)] = weighed[places], plain[places]
    return open_pair(turn, _LABEL, count, factors[:1], factors[1:].reshape(-1, 1), counts)


def _predict(turn: Turn, inbox: Inbox[Linked]) -> Outcome[PredictedOpening, Silent]:
    return _open_predicted(turn, finish_values(turn, inbox))


def _weighted_predict(
    turn: Turn, inbox: Inbox[RowOpening | DealtRowWeight]
) -> Outcome[PredictedOpening, Silent]:
    return _open_predicted(turn, weigh_rows(turn, inbox))


def _open_predicted(turn: Turn, values: Words) -> Outcome[PredictedOpening, Silent]:
    """Of counts: add up what is expected less what is counted; open the predictors under the mask of a rounding."""
    places, count = _places(turn), _count(turn)
    z = np.zeros(_length(turn), np.uint64)
    z[: len(places)] = turn.recall(Forward).z[places]
    own = open_masked(turn, f"{_LABEL}/z", count, z)
    kept = Predicted(values[places].sum(dtype=np.uint64), own)
    return Outcome(Silent(), send=to_all(turn.others, PredictedOpening(Masked(own))), keep=(kept,))


def _count_out(turn: Turn, inbox: Inbox[PredictedOpening | DealtRounding]) -> Outcome[PairOpening, Silent]:
    """Open the bank's counts, as they weigh, and the rounded predictors as the factors of a product."""
    state, count = turn.recall(Predicted), _count(turn)
    dealt = inbox.one(dealer(turn.contract), DealtRounding) if turn.first else None
    opened = sum_openings(state.own, inbox, turn, PredictedOpening)
    z = finish_rounding(turn, f"{_LABEL}/z", count, opened, _PREDICTOR_SHIFT, dealt)
    y = np.zeros((1, len(z)), np.uint64)
    if turn.first:
        places, labels = _places(turn), turn.recall(Labels)
        counts = labels.y[places] * labels.units[places] * ROW_WEIGHT_UNIT
        y[0, : len(places)] = encode(counts, _COUNT_BITS)
    _, counts_used = next_count(turn, _LABEL)
    return open_pair(turn, _LABEL, count, y, z.reshape(-1, 1), counts_used)


def _subtract(turn: Turn, inbox: Inbox[PairOpening | DealtProduct]) -> Outcome[RoundOpening, Silent]:
    """Take the product off what is expected, and open the difference."""
    dealt = inbox.one(dealer(turn.contract), DealtProduct) if turn.first else None
    expected = turn.recall(Predicted).total << np.uint64(_COUNT_BITS)
    return open_product(turn, expected - multiply(turn, inbox, dealt), dealt)


def _count(turn: Turn) -> int:
    return next_count(turn, _LABEL)[0]


def _length(turn: Turn) -> int:
    return validation_length(turn.contract, turn.published(Overlap, turn.parties[0]))


def _keep(turn: Turn, inbox: Inbox[RoundOpening]) -> Outcome[Nothing, Silent]:
    """Keep the own shares of the sum and of the model that it is of."""
    total = finish_product(turn, inbox, _shift(turn.contract, _length(turn))).reshape(-1)
    w = turn.recall(Weights).w.reshape(1, -1)
    if turn.has(Tried):
        before = turn.recall(Tried)
        w, total = np.concatenate([before.weights, w]), np.concatenate([before.sums, total])
    return Outcome(Silent(), keep=(Tried(w, total),))


def _deal(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtProduct, Silent]:
    length = _length(turn)
    count, counts = next_count(turn, _LABEL)
    dealt = deal_product(turn, _LABEL, count, (1, length), (length, 1), _shift(turn.contract, length))
    return Outcome(Silent(), send={turn.parties[0]: dealt}, keep=(counts,))


def _deal_predicted(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtRounding, Silent]:
    dealt = deal_rounding(turn, f"{_LABEL}/z", _count(turn), _length(turn), _PREDICTOR_SHIFT)
    return Outcome(Silent(), send={turn.parties[0]: dealt})


def _sum_bits(contract: Contract) -> int:
    """Return the scale of the sum before it is rounded."""
    if _is_counted(contract):
        return residual_bits(contract) + _COUNT_BITS
    return residual_bits(contract) + value_bits(contract, FIT)


def _is_counted(contract: Contract) -> bool:
    return contract.model.link == "poisson"


def _power(length: int) -> int:
    return length.bit_length() - 1


def _shift(contract: Contract, length: int) -> int:
    return _sum_bits(contract) + _power(length) - MEAN_BITS


# --- the choice


def _release(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[SquareShares, Silent]:
    """At a partner: send the bank the own shares of all sums."""
    bank, shares = turn.parties[0], turn.recall(Tried).sums
    told = PenaltyCurve(to=bank, penalties=len(shares), minimum=turn.contract.limits.min_support)
    return Outcome(Silent(), send={bank: SquareShares(shares)}, reveals=(told,))


def _choose(turn: Turn, inbox: Inbox[SquareShares]) -> Outcome[Nothing, PenaltyChoice]:
    """At the bank: add up the sums and choose; of equal ones the larger penalty's."""
    total = turn.recall(Tried).sums.copy()
    found = from_others(turn, inbox, SquareShares, lambda m: m.words.shape == total.shape, "the sums")
    for message in found.values():
        total += message.words
    known, units, power = _validation_labels(turn), turn.recall(Units), 2
    sums = total.view(np.int64) * 2.0 ** (_power(_length(turn)) - MEAN_BITS) - _of_padding(turn, len(known.y))
    if _is_counted(turn.contract):
        own = units.scale.rows(known)
        power = 1
        sums = 2 * (sums + float(own.weight @ (own.y * np.log(np.where(own.y > 0, own.y, 1.0)))))
    errors = np.asarray(sums / known.weight.sum() * units.spread**power, np.float64)
    return Outcome(
        PenaltyChoice(int(np.argmin(errors))),
        keep=(Curve(errors, len(known.y)),),
        reveals=(ChosenPenalty(to=EVERYONE),),
    )


def _of_padding(turn: Turn, real_rows: int) -> float:
    """Return what rows that stand for nobody add to the sum: nothing where rows are weighed, since theirs is 0."""
    if has_row_weights(turn.contract) or turn.contract.align.hidden:
        return 0.0
    at_zero = float(glm.mean_label(turn.contract.model.link, np.zeros(1))[0])
    return (len(_places(turn)) - real_rows) * at_zero**2


def _take(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Go on with the model of the chosen penalty, on all rows."""
    place = turn.published(PenaltyChoice, turn.parties[0]).place
    tried = turn.recall(Tried).weights
    if not 0 <= place < len(tried):
        raise ValueError("the chosen penalty is not on the path")
    return Outcome(Silent(), keep=(Trial(place, True), Weights(tried[place])), forget=(Tried,))


BEGIN = Step("path.begin", _begin, Silent)
SQUARE = Step("path.square", _square, Silent, reads=(LiftOpening, PredictorOpening, DealtPredictor))
WEIGHTED_SQUARE = Step("path.weighted_square", _weighted_square, Silent, reads=(RowOpening, DealtRowWeight))
PREDICT = Step("path.predict", _predict, Silent, reads=(LiftOpening, PredictorOpening, DealtPredictor))
WEIGHTED_PREDICT = Step(
    "path.weighted_predict", _weighted_predict, Silent, reads=(RowOpening, DealtRowWeight)
)
DEAL_PREDICTED = Step("path.deal_predicted", _deal_predicted, Silent)
COUNT = Step("path.count", _count_out, Silent, reads=(PredictedOpening, DealtRounding))
SUBTRACT = Step("path.subtract", _subtract, Silent, reads=(PairOpening, DealtProduct))
DEAL = Step("path.deal", _deal, Silent)
MULTIPLY = Step("path.multiply", take_product, Silent, reads=(PairOpening, DealtProduct))
KEEP = Step("path.keep", _keep, Silent, reads=(RoundOpening,))
RELEASE = Step("path.release", _release, Silent, reveals=(PenaltyCurve,))
CHOOSE = Step("path.choose", _choose, PenaltyChoice, reads=(SquareShares,), reveals=(ChosenPenalty,))
TAKE = Step("path.take", _take, Silent)


def fit(call: Caller, contract: Contract, overlap: Overlap, columns: dict[Name, int]) -> None:
    """Train the joint model with each penalty, choose one, and train on with it on all rows."""
    check_rows(contract, overlap)
    parties, plan = data_parties(contract), layout(contract, overlap, columns, FIT)
    masked_in = 0
    for place in range(len(contract.model.path)):
        masked_in = mask_rows(call, contract, plan, masked_in)
        call.all([ask(p, BEGIN) for p in parties])
        if place == 0:
            find_solver(call, contract, plan)
        else:
            invert_gram(call, contract, plan, [])
        masked_in = make_passes(call, contract, plan, path_passes(contract, place), masked_in)
        masked_in = mask_rows(call, contract, plan, masked_in)
        _measure(call, contract, plan)
        checkpoint(call, contract)
    witness(call, contract)
    released = call.all([ask(p, RELEASE) for p in parties[1:]])
    call(parties[0], CHOOSE, *inbox_of(released, parties[0]))
    call.all([ask(p, TAKE) for p in parties])
    checkpoint(call, contract)
    masked_in = mask_rows(call, contract, plan, masked_in)
    invert_gram(call, contract, plan, [])
    make_passes(call, contract, plan, contract.model.iterations, masked_in)


def check_rows(contract: Contract, overlap: Overlap) -> None:
    """Refuse a path that would be measured on fewer rows than `limits.min_support`, as all parties can tell.

    Where the match is hidden the bank alone can (`_check_rows`).
    """
    rows = train_rows_at_least(contract, overlap) * contract.model.validation_fraction
    if rows < contract.limits.min_support and not contract.align.hidden:
        raise PolicyRefused(
            "too few customers may be common for the rows on which penalties are compared (limits.min_support)",
            "raise [model] validation_fraction, or name one penalty in place of penalties",
        )


def _measure(call: Caller, contract: Contract, plan: Layout) -> None:
    """Compute shares of the sum at the settled weights: one forward product, and one of vectors."""
    parties, maker = data_parties(contract), dealer(contract)
    factors = _factors(call, contract, open_values(call, contract, plan, []))
    opened, (dealt,) = call.both(factors, [ask(maker, DEAL)])
    last = SUBTRACT if _is_counted(contract) else MULTIPLY
    products = call.all([ask(p, last, *product_inbox(opened, dealt, p)) for p in parties])
    call.all([ask(p, KEEP, *inbox_of(products, p)) for p in parties])


def _factors(
    call: Caller, contract: Contract, linked: Sequence[Reply[Linked, Silent]]
) -> list[Call[PairOpening, Silent]]:
    """Prepare the calls that open the factors of the product."""
    parties, is_counted = data_parties(contract), _is_counted(contract)
    if has_row_weights(contract):
        rows, weighing = open_rows(call, contract, linked)
        inboxes = {p: weigh_inbox(rows, weighing, p) for p in parties}
        if not is_counted:
            return [ask(p, WEIGHTED_SQUARE, *inbox) for p, inbox in inboxes.items()]
        calls = [ask(p, WEIGHTED_PREDICT, *inbox) for p, inbox in inboxes.items()]
    elif not is_counted:
        return [ask(p, SQUARE, *inbox_of(linked, p)) for p in parties]
    else:
        calls = [ask(p, PREDICT, *inbox_of(linked, p)) for p in parties]
    predicted, (rounding,) = call.both(calls, [ask(dealer(contract), DEAL_PREDICTED)])
    return [ask(p, COUNT, *_count_inbox(predicted, rounding, p)) for p in parties]


def _count_inbox(
    predicted: Sequence[Reply[PredictedOpening, Silent]], dealt: Reply[DealtRounding, Silent], party: Name
) -> tuple[Sealed[PredictedOpening | DealtRounding], ...]:
    return (*inbox_of(predicted, party), *inbox_of([dealt], party))


def path_bound(contract: Contract, overlap: Overlap) -> Bound:
    """Bound the sum: of labels in standard deviations the mean square is one, of counts in means their mean."""
    rows, most, weight = validation_length(contract, overlap), most_value(contract), most_row_weight(contract)
    labels, bits = 2.0 * train_rows(contract, overlap), _sum_bits(contract)
    if contract.model.link == "logistic":
        largest, formula = rows * most**2, f"{rows} * {most:g}^2"
    elif contract.model.link == "linear":
        # (value - label)^2 <= 2 value^2 + 2 label^2
        largest, formula = 2 * rows * most**2 + labels, f"(2 * {rows} * {most:g}^2 + {labels:g})"
    else:
        reach = most_predictor(contract) + most_offset(contract)
        largest, formula = rows * most + labels * reach, f"({rows} * {most:g} + {labels:g} * {reach:g})"
    return Bound("errors", log2(largest * weight) + bits, f"{formula} * {weight:g} * 2^{bits}", 62)
