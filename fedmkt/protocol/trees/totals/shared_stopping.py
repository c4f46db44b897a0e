"""Early stopping on shares: the loss of validation rows, in mode `totals`, where nobody knows a score.

Computes, after each tree, the mean over the validation rows of (sigma(F) - y)^2, times the weight of the row's class,
for scores F that the bank and one partner share and labels y of the bank. Takes part: the bank, that partner (of
two the first), and the dealer. By that number the bank tells all whether training goes on (`early_stop`).
A second partner, about whose columns a loss is as well, records each, or refuses it.

| learns | what |
|---|---|
| bank | the mean in steps of 2^-17 to 2^-18, once for each tree (`ValidationLosses`) |
| everybody | after each tree whether training goes on, and in the end how many trees stay (`StopBits`) |
| dealer, coordinator | nothing but the number of rows, padded |

Each number is one equation about all validation rows: about the leaves in which they are, and so about the partner's
bins of them. Rows that validate are in no other total: at the root their g, h and membership are 0 at both parties. The
partner counts them: they are at least `limits.min_support`, and at least as many as trees may be grown, those that
resumes grow again included. A tree that is grown again is rounded anew: its loss is another equation, and the decision
after it may be another.

Safe against a semi-honest bank or partner, while the dealer colludes with neither. **Not safe against a malicious
bank**: it may use other labels than its own, or one set of labels for one tree and another for the next, and so learn
the sum of sigma over rows of its choice; or add to its share. Nothing shows it, `trees.checked_shares` neither.

Four rounds. F - t is opened for the validation rows alone; `class_waves` makes of it shares of the squared residuals,
at scale 2^28 modulo 2^32; `ring.rounding` lifts them to scale 2^16 modulo 2^48, where they can be added up; the partner
sends its share of the sum without the low bits, so that the bank learns the mean in steps of 2^-18 or more. The series
are off by up to 1e-3, but nearly as much for one tree as for the next: what that does to the choice, docs/trees.md.

Source: protocols.md sections 2 and 4, redteam.md 3 (leakage by stopping). Letters: F, t, R as in `shared_gradients`.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.errors import DataError
from fedmkt.privacy.disclosure import StopBits, ValidationLosses
from fedmkt.protocol.alignment.align import joint_rows, validation_length, validation_rows
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    HalfWords,
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
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.row_blocks import RowBlock, blocks_of
from fedmkt.protocol.trees.side_product import (
    Bytes,
    DealtSides,
    MaskedSides,
    deal_sides,
    narrow,
    widen,
    width,
)
from fedmkt.protocol.trees.sides.boosting import OwnSplits
from fedmkt.protocol.trees.sides.early_stop import TreesKept, judge, read_kept
from fedmkt.protocol.trees.totals.class_waves import (
    ClassFunction,
    ClassProduct,
    classes_batch,
    close_classes,
    open_classes,
    squared_residual,
)
from fedmkt.protocol.trees.totals.class_weights import relative_weights
from fedmkt.protocol.trees.totals.duos import counterpart
from fedmkt.protocol.trees.totals.shared_cells import settings_of
from fedmkt.protocol.trees.totals.shared_gradients import (
    FAR,
    Gradients,
    SharedScores,
    TrainAnswers,
    TreeAngles,
    deal_waves,
    meet,
    open_angles,
)
from fedmkt.protocol.trees.totals.shared_growth import TreeOwners
from fedmkt.protocol.trees.totals.shared_values import both
from fedmkt.protocol.witness import witness
from fedmkt.ring import rounding, sigmoid

LOSS_BITS = 16
"""Squared residuals are added up at scale 2^16."""
SUM_BITS = 48
"""Sums are shared modulo 2^48: of up to 2^31 rows."""
ROW_BYTES = 8 * FAR.sines.harmonics + 4 + 2 * width(SUM_BITS)
"""Most bytes of a row in one message: what is dealt."""
_SHIFT = sigmoid.RESULT_BITS - LOSS_BITS
DROPPED_SHARE = 5
"""Of so many agreed trees one may be without a split of the partner's, and one in any case."""


@dataclass(frozen=True)
class DealtLosses(Message):
    """The bank's shares of sines and cosines, (2 K, n), of the product, and of R >> s and msb(R), (n, bytes)."""

    angles: HalfWords
    product: tuple[Bytes, ...]
    high: Bytes
    top: Bytes


@dataclass(frozen=True)
class LossOpening(Message):
    """The sender's shares of the squared residuals under its mask R, (n,)."""

    values: Masked[HalfWords]


@dataclass(frozen=True)
class LossShare(Message):
    """The partner's share of the sum, modulo 2^48, without its low bits."""

    total: int


@dataclass(frozen=True)
class LossShares(State):
    """Losses under way: the own opening of F - t, then of the residuals; at the bank the dealer's shares.

    before : the own share of the sum over the blocks of rows before this one, modulo 2^48
    """

    durable: ClassVar[bool] = False
    block: RowBlock
    before: int
    count: int
    own: HalfWords
    dealt: DealtLosses | None
    product: ClassProduct | None = None


def is_over(contract: Contract, trees: int, dropped: int) -> bool:
    """Tell whether training ends with this many trees, of which some were dropped, whatever the loss."""
    most = contract.trees.trees
    return trees == most or dropped > max(1, most // DROPPED_SHARE)


def loss_rows(contract: Contract, overlap: Overlap) -> int:
    """Return the number of validation rows, padded: a function of public values only."""
    return validation_length(contract, overlap)


def low_bits(rows: int) -> int:
    """Return how many bits of a sum over so many rows are not told: 2^-17 of each row, 2^16 to one, is half of it."""
    return max(0, (rows // 2).bit_length() - 1)


def _places(turn: Turn) -> NDArray[np.intp]:
    """Return where the validation rows stand among the train rows, without padding."""
    is_real = joint_rows(turn, True) != NO_ROW
    return np.flatnonzero(validation_rows(turn) & is_real)


def check_weights(turn: Turn, y: Bytes) -> None:
    """At the bank: refuse losses that few rows of the heavier class make up; y : (n,), of the train rows."""
    weights, least = (
        np.array(relative_weights(turn.contract))[y[_places(turn)]],
        turn.contract.limits.min_support,
    )
    # How many rows of equal weight tell as much (Kish 1965).
    if turn.contract.trees.patience and weights.sum() ** 2 < least * np.square(weights).sum():
        raise DataError(
            f"{turn.me}: of the rows that say when to stop, fewer than {least} make up the loss, as classes weigh",
            "give a larger trees.validation_fraction, class_weights that differ less, or no trees.patience",
        )


def _rows(turn: Turn) -> int:
    return loss_rows(turn.contract, turn.published(Overlap, turn.parties[0]))


def _taken(turn: Turn, values: HalfWords, block: RowBlock) -> HalfWords:
    """Take a block of the validation rows, which are padded with 0, of numbers of all train rows."""
    places, rows = _places(turn), _rows(turn)
    if len(places) > rows:
        raise ValueError("more rows than their padded number: once in a thousand million splits")
    out = np.zeros(rows, np.uint32)
    out[: len(places)] = values[places]
    return out[block.rows]


def _gradients(turn: Turn, count: int, rows: int) -> Gradients:
    return Gradients(count, turn.parties[1], rows, FAR.period, "losses")


def _functions(turn: Turn) -> tuple[ClassFunction]:
    return (squared_residual(*relative_weights(turn.contract), FAR),)


def _mask(turn: Turn, of: Name, count: int, rows: int) -> HalfWords:
    return turn.masks.half_words(of, "losses/R", count, (rows,), to=turn.parties[1])


def _wide(turn: Turn, of: Name, what: str, count: int, rows: int) -> Words:
    return turn.masks.words(of, f"losses/{what}", count, rows, to=turn.parties[1])


# --- steps


def _open(block: RowBlock, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[TreeAngles, Silent]:
    """Open the own share of the scores of the validation rows."""
    scores, other = _taken(turn, turn.recall(SharedScores).words, block), counterpart(turn)
    before = turn.recall(LossShares).before if block.index else 0
    count, used = next_count(turn, "losses")
    message, own = open_angles(turn, _gradients(turn, count, len(scores)), scores)
    state = LossShares(block, before, count, own, None)
    return Outcome(Silent(), send={other: message}, keep=(state, used))


def _deal(rows: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtLosses, Silent]:
    """At the dealer: deal all that one loss takes."""
    bank, partner = turn.parties[:2]
    count, used = next_count(turn, "losses")
    lift = rounding.deal_lift(_mask(turn, bank, count, rows) + _mask(turn, partner, count, rows), _SHIFT)
    high, top = (
        narrow(value - _wide(turn, partner, what, count, rows), SUM_BITS)
        for what, value in (("high", lift.high), ("top", lift.top))
    )
    product = deal_sides(turn, classes_batch("losses", count, turn, rows, 1)).products
    angles = deal_waves(turn, _gradients(turn, count, rows))
    return Outcome(Silent(), send={bank: DealtLosses(angles, product, high, top)}, keep=(used,))


def _answers(turn: Turn, block: RowBlock) -> Bytes | None:
    if not turn.first:
        return None
    return _taken(turn, turn.recall(TrainAnswers).y.astype(np.uint32), block).astype(np.uint8)


def _choose(turn: Turn, inbox: Inbox[TreeAngles | DealtLosses]) -> Outcome[MaskedSides, Silent]:
    """Evaluate the squared residuals of both classes; open what the choice between them needs."""
    state, other = turn.recall(LossShares), counterpart(turn)
    rows = state.block.length
    dealt = inbox.one(dealer(turn.contract), DealtLosses) if turn.first else None
    batch = _gradients(turn, state.count, rows)
    waves = meet(
        turn, batch, state.own, inbox.one(other, TreeAngles), None if dealt is None else dealt.angles
    )
    product = classes_batch("losses", state.count, turn, rows, 1)
    message, kept = open_classes(turn, product, FAR, waves, _functions(turn), _answers(turn, state.block))
    state = replace(state, dealt=dealt, product=kept)
    return Outcome(Silent(), send={other: message}, keep=(state,))


def _lift(turn: Turn, inbox: Inbox[MaskedSides]) -> Outcome[LossOpening, Silent]:
    """Finish the product; open the squared residuals under R."""
    state, other = turn.recall(LossShares), counterpart(turn)
    if state.product is None:
        raise ValueError("no losses are under way")
    dealt = DealtSides(state.dealt.product) if state.dealt else None
    found = inbox.one(other, MaskedSides)
    (value,) = close_classes(turn, state.product, found, dealt, _functions(turn), _answers(turn, state.block))
    opened = rounding.prepare_lift(value, _mask(turn, turn.me, state.count, len(value)), first=turn.first)
    kept = replace(state, own=opened, product=None)
    return Outcome(Silent(), send={other: LossOpening(Masked(opened))}, keep=(kept,))


def _sum(turn: Turn, found: LossOpening) -> int:
    """Return the own share of the sum over the validation rows up to this block, modulo 2^48."""
    state = turn.recall(LossShares)
    own, theirs, rows = state.own, found.values.words, len(state.own)
    if theirs.shape != own.shape:
        raise ValueError("the losses of the other party have another shape")
    if state.dealt is None:
        high, top = (_wide(turn, turn.me, what, state.count, rows) for what in ("high", "top"))
    else:
        high, top = (
            widen(d, (rows,), SUM_BITS).astype(np.uint64) for d in (state.dealt.high, state.dealt.top)
        )
    lifted = rounding.finish_lift(own + theirs, rounding.DealtRounding(high, top), _SHIFT, first=turn.first)
    # Padding is not counted: the validation rows come first.
    real = max(0, len(_places(turn)) - state.block.start)
    return (state.before + int(lifted[:real].sum())) % (1 << SUM_BITS)


def _add(turn: Turn, inbox: Inbox[LossOpening]) -> Outcome[Nothing, Silent]:
    """Add up a block of rows that is not the last."""
    total = _sum(turn, inbox.one(counterpart(turn), LossOpening))
    return Outcome(Silent(), keep=(replace(turn.recall(LossShares), before=total),))


def _tell(turn: Turn, inbox: Inbox[LossOpening]) -> Outcome[LossShare, Silent]:
    """At the partner: send the own share of the sum to the bank, without its low bits."""
    bank, rows = turn.parties[0], len(_places(turn))
    total = _sum(turn, inbox.one(bank, LossOpening)) >> low_bits(rows) << low_bits(rows)
    return Outcome(Silent(), send={bank: LossShare(total)}, forget=(LossShares,), reveals=(_told(turn),))


def _told(turn: Turn) -> ValidationLosses:
    return ValidationLosses(
        to=turn.parties[0], losses=1, low=turn.contract.limits.min_support, high=_rows(turn)
    )


def _agree(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """At a second partner: record, or refuse, what the first one tells, as it is about the own columns too."""
    return Outcome(Silent(), reveals=(_told(turn),))


def _judge(turn: Turn, inbox: Inbox[LossOpening | LossShare]) -> Outcome[Message, TreesKept]:
    """At the bank: read the mean, tell whether training goes on."""
    partner = counterpart(turn)
    total = _sum(turn, inbox.one(partner, LossOpening)) + inbox.one(partner, LossShare).total
    y, weights = turn.recall(TrainAnswers).y[_places(turn)], relative_weights(turn.contract)
    rows = float(np.array(weights)[y].sum())
    # The series may leave a sum of hardly anything below 0.
    signed = (total + (1 << SUM_BITS - 1)) % (1 << SUM_BITS) - (1 << SUM_BITS - 1)
    loss = signed / 2**LOSS_BITS / rows
    owners = turn.recall(TreeOwners).trees
    ends = is_over(turn.contract, len(owners), owners.count(()))
    found = judge(turn, round(loss, settings_of(turn.contract).loss_digits), ends)
    return replace(found, forget=(LossShares,))


def _keep(kept: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Keep the first trees of the own part; the bank has cut its forest already."""
    keep: tuple[State, ...] = (TreeOwners(turn.recall(TreeOwners).trees[:kept]),)
    if not turn.first:
        keep = (*keep, OwnSplits(turn.recall(OwnSplits).trees[:kept]))
    return Outcome(Silent(), keep=keep)


CHOOSE = Step("losses.choose", _choose, Silent, reads=(TreeAngles, DealtLosses))
LIFT = Step("losses.lift", _lift, Silent, reads=(MaskedSides,))
ADD = Step("losses.add", _add, Silent, reads=(LossOpening,))
TELL = Step("losses.tell", _tell, Silent, reads=(LossOpening,), reveals=(ValidationLosses,))
AGREE = Step("losses.agree", _agree, Silent, reveals=(ValidationLosses,))
JUDGE = Step("losses.judge", _judge, TreesKept, reads=(LossOpening, LossShare), reveals=(StopBits,))


def stop_after(call: Caller, contract: Contract, overlap: Overlap, tree: int, dropped: int) -> int:
    """Ask whether training ends with a tree, counted from 0: how many trees stay, or 0."""
    ends = is_over(contract, tree + 1, dropped)
    if not contract.trees.patience:
        return tree + 1 if ends else 0
    parties = data_parties(contract)
    bank, partner = first = parties[:2]
    lifted: list[Reply[LossOpening, Silent]] = []
    for block in blocks_of(loss_rows(contract, overlap), ROW_BYTES):
        if block.index:
            call.all([ask(p, ADD, *inbox_of(lifted, p)) for p in first])
        lifted = _lift_rows(call, contract, block)
    witness(call, contract)
    (told,), _ = call.both(
        [ask(partner, TELL, *inbox_of(lifted, partner))], [ask(p, AGREE) for p in parties[2:]]
    )
    inbox: tuple[Sealed[LossOpening | LossShare], ...] = (*inbox_of(lifted, bank), *inbox_of([told], bank))
    kept = read_kept(contract, tree, ends, call(bank, JUDGE, *inbox).public)
    if kept:
        keep = Step("losses.keep_trees", partial(_keep, kept), Silent)
        call.all([ask(p, keep) for p in parties])
    return kept


def _lift_rows(call: Caller, contract: Contract, block: RowBlock) -> list[Reply[LossOpening, Silent]]:
    """Open the squared residuals of a block of rows under R."""
    first, maker = data_parties(contract)[:2], dealer(contract)
    opens = Step("losses.open", partial(_open, block), Silent)
    deal = Step("losses.deal", partial(_deal, block.length), Silent)
    angles, (dealt,) = call.both([ask(p, opens) for p in first], [ask(maker, deal)])
    chosen = call.all([ask(p, CHOOSE, *both(angles, dealt, p)) for p in first])
    return call.all([ask(p, LIFT, *inbox_of(chosen, p)) for p in first])
