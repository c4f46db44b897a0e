"""Weights of rows: residuals, which are shared, times numbers that the bank alone knows.

Computes shares of w r for every training row, for r shared modulo 2^64 and w whole sixteenths. Takes part: all parties
that hold data, and the dealer.

| learns | what |
|---|---|
| every party, dealer | nothing: w is shown under a mask, and the bank is shown each other share under one |

Safe against semi-honest parties, all but one of them together, while the dealer colludes with none (with a partner it
would read the weights, of which those of classes tell the labels). A row of weight 0 comes out as exactly 0. The masks
of w are drawn once per epoch, since w stays; those of shares once per pass. A bank that deviates could weigh rows
beyond the contract's bound and spoil the model.

Source: protocols.md section 4 (side bits), with a number in place of the bit: x w = w (x - v) + (w - u) v + u v, for x
the share of a partner, u and v masks that the dealer knows. Letters: u, v; d = w - u, shown; e = x - v, opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
    Name,
    Nothing,
    Outcome,
    Reply,
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
from fedmkt.protocol.layout import FIT, layout_of
from fedmkt.protocol.linear.identity import DealtPredictor, PredictorOpening
from fedmkt.protocol.linear.predictor import Forward
from fedmkt.protocol.linear.residuals import finish_values
from fedmkt.protocol.linear.sigmoid_blocks import LiftOpening
from fedmkt.protocol.linear.targets import Labels
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.shared import add_up, from_others
from fedmkt.ring.fixed import correction

_LABEL = "fit/row_weight"
Linked = LiftOpening | PredictorOpening | DealtPredictor
"""What the last round of a link sends."""


@dataclass(frozen=True)
class HiddenRowWeight(Message):
    """The bank's weights minus masks that only the dealer also knows, (n,)."""

    words: Masked[Words]


@dataclass(frozen=True)
class RowOpening(Message):
    """A partner's share of the values that are weighed minus its mask, (n,), for the bank."""

    words: Masked[Words]


@dataclass(frozen=True)
class DealtRowWeight(Message):
    """The bank's correction: shares of u v for all partners together, (n,)."""

    words: Words


@dataclass(frozen=True)
class ShownRowWeight(State):
    """What the bank showed of its weights, at all parties."""

    durable: ClassVar[bool] = False
    words: Words


@dataclass(frozen=True)
class RowValues(State):
    """The values that are being weighed: the bank's own share of them, a partner's mask; and the own share before."""

    durable: ClassVar[bool] = False
    words: Words
    values: Words


def _weight_mask(turn: Turn, rows: int) -> Words:
    """Draw u: a stream that the bank shares with the dealer."""
    return turn.masks.words(turn.parties[0], f"{_LABEL}/u", 0, rows)


def _share_mask(turn: Turn, party: Name, count: int, rows: int) -> Words:
    """Draw v of one partner: a stream that it shares with the dealer."""
    return turn.masks.words(party, f"{_LABEL}/v", count, rows)


def _hide(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[HiddenRowWeight, Silent]:
    """At the bank: show the others d = w - u."""
    units = turn.recall(Labels).units
    shown = units - _weight_mask(turn, len(units))
    message = HiddenRowWeight(Masked(shown))
    return Outcome(Silent(), send=to_all(turn.others, message), keep=(ShownRowWeight(shown),))


def _take(turn: Turn, inbox: Inbox[HiddenRowWeight]) -> Outcome[Nothing, Silent]:
    """At a partner: keep what the bank showed."""
    words = inbox.one(turn.parties[0], HiddenRowWeight).words.words
    if words.shape != (layout_of(turn, FIT).rows,):
        raise ValueError("the hidden weights have another length than the rows")
    return Outcome(Silent(), keep=(ShownRowWeight(words),))


def _open_rows(turn: Turn, inbox: Inbox[Linked]) -> Outcome[RowOpening, Silent]:
    """Finish the values of all rows; each partner opens its share of them to the bank under a fresh mask."""
    plan, count = layout_of(turn, FIT), turn.recall(Forward).count
    values = finish_values(turn, inbox)
    if turn.first:
        return Outcome(Silent(), keep=(RowValues(values, values),))
    v = _share_mask(turn, turn.me, count, plan.rows)
    opened = RowOpening(Masked(values - v))
    return Outcome(Silent(), send={turn.parties[0]: opened}, keep=(RowValues(v, values),))


def weigh_rows(turn: Turn, inbox: Inbox[Message]) -> Words:
    """Return the own share of w r, (n,), at the scale of r times that of the weights."""
    kept, shown = turn.recall(RowValues).words, turn.recall(ShownRowWeight).words
    count = turn.recall(Forward).count
    if not turn.first:
        return shown * kept + turn.masks.words(turn.me, f"{_LABEL}/uv", count, len(kept))
    dealt = inbox.one(dealer(turn.contract), DealtRowWeight).words
    found = from_others(turn, inbox, RowOpening, lambda m: m.words.words.shape == kept.shape, "the values")
    if dealt.shape != kept.shape:
        raise ValueError("the dealer's correction has another length")
    return turn.recall(Labels).units * add_up([kept, *(m.words.words for m in found.values())]) + dealt


def _deal(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtRowWeight, Silent]:
    rows, partners = layout_of(turn, FIT).rows, turn.parties[1:]
    count, counts = next_count(turn, _LABEL)
    v = add_up([_share_mask(turn, p, count, rows) for p in partners])
    theirs = [turn.masks.words(p, f"{_LABEL}/uv", count, rows) for p in partners]
    dealt = correction(_weight_mask(turn, rows) * v, theirs)
    return Outcome(Silent(), send={turn.parties[0]: DealtRowWeight(dealt)}, keep=(counts,))


HIDE = Step("fit.hide_row_weight", _hide, Silent)
TAKE = Step("fit.take_row_weight", _take, Silent, reads=(HiddenRowWeight,))
OPEN_ROWS = Step("fit.open_rows", _open_rows, Silent, reads=(LiftOpening, PredictorOpening, DealtPredictor))
DEAL = Step("fit.deal_row_weight", _deal, Silent)


def hide_row_weights(call: Caller, contract: Contract) -> None:
    """Show the partners the masked weights, once per epoch."""
    bank, *partners = data_parties(contract)
    hidden = call(bank, HIDE)
    call.all([ask(p, TAKE, hidden.to(p)) for p in partners])


def open_rows(
    call: Caller, contract: Contract, linked: Sequence[Reply[Linked, Silent]]
) -> tuple[list[Reply[RowOpening, Silent]], Reply[DealtRowWeight, Silent]]:
    """Begin the product of one pass: what the bank needs to finish it."""
    calls = [ask(p, OPEN_ROWS, *inbox_of(linked, p)) for p in data_parties(contract)]
    opened, (dealt,) = call.both(calls, [ask(dealer(contract), DEAL)])
    return opened, dealt
