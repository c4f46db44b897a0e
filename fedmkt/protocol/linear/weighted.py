"""Weighted rows: a secret 0/1 weight of the bank multiplies what all rows of the hidden match are shared as.

Computes shares of beta (sigma(z) - y), or of beta sigma(z), for rows of which the bank alone knows the weight beta:
1 where it has that customer and uses it in this stage, 0 for everybody else on the partner's list. Takes part: the
bank, one partner, and the dealer.

| learns | what |
|---|---|
| bank, partner, dealer | nothing: the partner is shown beta under a mask, the bank the partner's share under one |

Safe against a semi-honest bank or partner, while the dealer colludes with neither (with one of them it would read
beta or the share). Masks of beta are drawn once per stage and epoch, so that no two weights share one; masks of a
share once per pass and block. Rows of weight 0 come out as exactly 0, also after any later rounding: neither
gradients nor scores contain anything of people whom the bank does not have. A bank that deviates could set beta to 1
for strangers, and would get their scores.

Source: protocols.md section 1 (hidden match) and 4 (side bits); ring/side_bits.py. Letters there: beta, c, u, v; x is
the partner's share of the sigmoid, modulo 2^32 as it comes out of the series, before it is lifted to 64 bits.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.align import joint_rows
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.core import (
    Caller,
    HalfWords,
    Inbox,
    Masked,
    Message,
    Name,
    Nothing,
    Outcome,
    Silent,
    State,
    Step,
    Turn,
    data_parties,
)
from fedmkt.protocol.layout import FIT, SCORE, Stage, layout_of
from fedmkt.ring.fixed import correction
from fedmkt.ring.side_bits import Bits, chosen, pack, packed_words, signed, unpack


@dataclass(frozen=True)
class HiddenWeight(Message):
    """The bank's weights, each bit with a mask that only the dealer also knows; packed block by block."""

    bits: Masked[HalfWords]


@dataclass(frozen=True)
class SideOpening(Message):
    """The partner's share of one block minus a mask that only the dealer also knows, modulo 2^32."""

    halves: Masked[HalfWords]


@dataclass(frozen=True)
class Weight(State):
    """The weights of one stage: `hidden` as the partner was shown them, `own` in clear at the bank alone."""

    durable: ClassVar[bool] = False
    stage: str
    hidden: Bits
    own: Bits | None


def _blocks(turn: Turn, stage: Stage) -> list[slice]:
    return layout_of(turn, stage).sigmoid_blocks(turn.contract)


def _mask(turn: Turn, stage: Stage, block: int, rows: int) -> Bits:
    """Draw u of one block: a stream that the bank shares with the dealer."""
    words = turn.masks.half_words(turn.parties[0], f"{stage.name}/u", 0, packed_words(rows), block=block)
    return unpack(words, rows)


def first_mask_bits(turn: Turn, stage: Stage, count: int) -> Bits:
    """At the dealer: draw u of the first rows again."""
    drawn, found = 0, []
    for block, rows in enumerate(_blocks(turn, stage)):
        if drawn < count:
            found.append(_mask(turn, stage, block, rows.stop - rows.start))
            drawn += len(found[-1])
    return np.concatenate(found)[:count]


def _hide(stage: Stage, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[HiddenWeight, Silent]:
    """At the bank: show the partner beta xor u."""
    own = joint_rows(turn, stage.penalised) != NO_ROW
    masks = [_mask(turn, stage, b, r.stop - r.start) for b, r in enumerate(_blocks(turn, stage))]
    hidden = own ^ np.concatenate(masks)
    packed = np.concatenate([pack(hidden[r]) for r in _blocks(turn, stage)])
    (partner,) = turn.others
    kept = Weight(stage.name, hidden, own)
    return Outcome(Silent(), send={partner: HiddenWeight(Masked(packed))}, keep=(kept,))


def _take(stage: Stage, turn: Turn, inbox: Inbox[HiddenWeight]) -> Outcome[Nothing, Silent]:
    """At the partner: keep what the bank showed."""
    words = inbox.one(turn.parties[0], HiddenWeight).bits.words
    sizes = [r.stop - r.start for r in _blocks(turn, stage)]
    ends = np.cumsum([packed_words(n) for n in sizes])
    if words.shape != (int(ends[-1]),):
        raise ValueError("the hidden weights have another length than the rows")
    parts = np.split(words, ends[:-1])
    hidden = np.concatenate([unpack(part, n) for part, n in zip(parts, sizes, strict=True)])
    return Outcome(Silent(), keep=(Weight(stage.name, hidden, None),))


def _weight(turn: Turn, stage: Stage) -> Weight:
    found = turn.recall(Weight)
    if found.stage != stage.name:
        raise ValueError(f"{turn.me} has no weights for {stage.name} yet")
    return found


def _share_mask(turn: Turn, stage: Stage, count: int, block: int, rows: int) -> HalfWords:
    """Draw v of one block: a stream that the partner shares with the dealer."""
    return turn.masks.half_words(turn.parties[1], f"{stage.name}/v", count, rows, block=block)


def open_side(
    turn: Turn, stage: Stage, count: int, block: int, share: HalfWords
) -> tuple[HalfWords, dict[Name, SideOpening]]:
    """Return what to keep of a block until `weigh`, and what to send: the bank its share, the partner x - v and v."""
    if turn.first:
        return share, {}
    v = _share_mask(turn, stage, count, block, len(share))
    return v, {turn.parties[0]: SideOpening(Masked(share - v))}


def weigh(
    turn: Turn,
    stage: Stage,
    count: int,
    block: int,
    kept: HalfWords,
    inbox: Inbox[Message],
    dealt: HalfWords | None,
) -> HalfWords:
    """Return the own share of beta times the block's value; `dealt` : the bank's share of u v."""
    rows = _blocks(turn, stage)[block]
    weight = _weight(turn, stage)
    c = weight.hidden[rows]
    if weight.own is None:
        uv = turn.masks.half_words(turn.me, f"{stage.name}/uv", count, len(kept), block=block)
        return chosen(c, kept) + signed(c, uv)
    opened = inbox.one(turn.parties[1], SideOpening).halves.words
    if dealt is None or not kept.shape == opened.shape == dealt.shape:
        raise ValueError("the partner's share or the dealer's correction is missing or has another length")
    return chosen(weight.own[rows], kept + opened) + signed(c, dealt)


def deal_weight(turn: Turn, stage: Stage, count: int, block: int, rows: int) -> HalfWords:
    """At the dealer: return the bank's share of u v of one block."""
    uv = chosen(_mask(turn, stage, block, rows), _share_mask(turn, stage, count, block, rows))
    partner = turn.parties[1]
    return correction(uv, [turn.masks.half_words(partner, f"{stage.name}/uv", count, rows, block=block)])


_HIDE = {s.name: Step(f"{s.name}.hide_weight", partial(_hide, s), Silent) for s in (FIT, SCORE)}
_TAKE = {
    s.name: Step(f"{s.name}.take_weight", partial(_take, s), Silent, reads=(HiddenWeight,))
    for s in (FIT, SCORE)
}


def hide_weight(call: Caller, contract: Contract, stage: Stage) -> None:
    """Show the partner the masked weights of a stage, once per epoch."""
    bank, partner = data_parties(contract)
    hidden = call(bank, _HIDE[stage.name])
    call(partner, _TAKE[stage.name], hidden.to(partner))
