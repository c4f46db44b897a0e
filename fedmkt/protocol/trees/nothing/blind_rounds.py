"""Phases as steps: bank and partner go through a list of phases on shares, round by round; the dealer deals at once.

Takes part: the bank, one partner, and the dealer. Nobody learns anything: what is opened is under masks of one use, and
dealt shares are uniform one by one. Safe against a semi-honest bank or partner, while the dealer colludes with neither;
a party that changes its share changes the result, and nothing shows it.

Phases are `ring.phases`, their operations `ring.dealt_rounds`. `label` and `count` number a list of phases within the
epoch; a mask's block is the operation's place in it. Bytes go one way as `phases.opened` counts them, from the dealer
to the bank as `phases.dealt` does. Source: Beaver 1991. Letters: R the masks of what is opened, D what is dealt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import ClassVar

import numpy as np

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
    ask,
    data_parties,
    dealer,
    inbox_of,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.trees.side_product import Bytes
from fedmkt.protocol.trees.totals.shared_values import both
from fedmkt.ring.dealt_rounds import KINDS, Field, Flat, add, subtract
from fedmkt.ring.phases import Phase, Values


@dataclass(frozen=True)
class PhaseOpening(Message):
    """The sender's part of what a phase opens, input by input, each under a mask."""

    inputs: tuple[Masked[Bytes], ...]


@dataclass(frozen=True)
class DealtPhases(Message):
    """The bank's shares of what is dealt: of all operations of all phases, field by field."""

    shares: tuple[Bytes, ...]


@dataclass(frozen=True)
class PhaseState(State):
    """Phases under way: the own shares; of the phase that is open, the own masks and openings; what was dealt."""

    durable: ClassVar[bool] = False
    count: int
    at: int
    values: Values
    masks: tuple[tuple[Flat, ...], ...]
    opened: tuple[tuple[Flat, ...], ...]
    dealt: tuple[Bytes, ...]


def _draw(turn: Turn, of: Name, label: str, count: int, block: int, field: Field) -> Flat:
    to = turn.parties[1]
    if field.kind == "words":
        return turn.masks.words(of, label, count, field.size, to=to, block=block)
    if field.kind == "halves":
        return turn.masks.half_words(of, label, count, field.size, to=to, block=block)
    found = turn.masks.half_words(of, label, count, -(-field.size // 4), to=to, block=block)
    return found.astype("<u4", copy=False).view(np.uint8)[: field.size]


def _blocks(phases: Sequence[Phase]) -> list[int]:
    """Return the number of the first operation of each phase."""
    return [0, *accumulate(len(p.operations) for p in phases)]


def _raw(flat: Flat) -> Bytes:
    return np.ascontiguousarray(flat).view(np.uint8)


def _read(raw: Bytes, field: Field) -> Flat:
    kind = KINDS[field.kind]
    if raw.shape != (field.size * kind.itemsize,):
        raise ValueError(f"{raw.shape} bytes are not {field.size} {field.kind}")
    return raw.view(kind)


def open_phase(
    turn: Turn, label: str, phases: Sequence[Phase], state: PhaseState, *states: State
) -> Outcome[PhaseOpening, Silent]:
    """Open the inputs of the next phase; `states` are kept too."""
    phase, block = phases[state.at], _blocks(phases)[state.at]
    masks, opened = [], []
    for i, (operation, inputs) in enumerate(
        zip(phase.operations, phase.inputs(state.values, turn.first), strict=True)
    ):
        own = operation.prepare(
            turn.first, [x.astype(KINDS[f.kind]) for x, f in zip(inputs, operation.opened, strict=True)]
        )
        drawn = tuple(
            _draw(turn, turn.me, f"{label}/R{k}", state.count, block + i, field)
            for k, field in enumerate(operation.opened)
        )
        masks.append(drawn)
        opened.append(tuple(add(f.kind, x, r) for f, x, r in zip(operation.opened, own, drawn, strict=True)))
    message = PhaseOpening(tuple(Masked(_raw(x)) for of in opened for x in of))
    kept = replace(state, masks=tuple(masks), opened=tuple(opened))
    (other,) = turn.others
    return Outcome(Silent(), send={other: message}, keep=(kept, *states))


def take_phase(
    turn: Turn, label: str, phases: Sequence[Phase], state: PhaseState, found: PhaseOpening
) -> PhaseState:
    """Take in what the other party opened: the own shares after the phase."""
    phase, block = phases[state.at], _blocks(phases)[state.at]
    theirs = [x.words for x in found.inputs]
    if len(theirs) != sum(len(o.opened) for o in phase.operations):
        raise ValueError("a phase opens another number of inputs")
    dealt_before = sum(len(o.dealt) for p in phases[: state.at] for o in p.operations)
    results = []
    for i, operation in enumerate(phase.operations):
        opened = [
            add(f.kind, own, _read(theirs.pop(0), f))
            for f, own in zip(operation.opened, state.opened[i], strict=True)
        ]
        dealt = []
        for k, field in enumerate(operation.dealt):
            if not turn.first:
                dealt.append(_draw(turn, turn.me, f"{label}/D{k}", state.count, block + i, field))
            elif len(state.dealt) != sum(len(o.dealt) for p in phases for o in p.operations):
                raise ValueError("the dealer's shares are missing or too many")
            else:
                dealt.append(_read(state.dealt[dealt_before + k], field))
        dealt_before += len(operation.dealt)
        results.append(operation.take(turn.first, opened, state.masks[i], dealt))
    return replace(
        state, at=state.at + 1, values=phase.results(state.values, turn.first, results), masks=(), opened=()
    )


def deal_phases(turn: Turn, label: str, phases: Sequence[Phase], count: int) -> DealtPhases:
    """At the dealer: deal for all phases."""
    bank, partner = turn.parties
    shares = []
    for block, operation in enumerate(o for p in phases for o in p.operations):
        masks = [
            add(f.kind, *(_draw(turn, p, f"{label}/R{k}", count, block, f) for p in (bank, partner)))
            for k, f in enumerate(operation.opened)
        ]
        for k, (field, value) in enumerate(zip(operation.dealt, operation.deal(masks), strict=True)):
            other = _draw(turn, partner, f"{label}/D{k}", count, block, field)
            shares.append(_raw(subtract(field.kind, value.astype(KINDS[field.kind], copy=False), other)))
    return DealtPhases(tuple(shares))


# --- steps and script


Start = Callable[[Turn], Values]
"""Returns the shares that a party begins with."""


def _open_first(
    label: str, phases: Sequence[Phase], start: Start, turn: Turn, inbox: Inbox[Nothing]
) -> Outcome[PhaseOpening, Silent]:
    count, used = next_count(turn, label)
    return open_phase(turn, label, phases, PhaseState(count, 0, start(turn), (), (), ()), used)


def _open_next(
    label: str, phases: Sequence[Phase], turn: Turn, inbox: Inbox[PhaseOpening | DealtPhases]
) -> Outcome[PhaseOpening, Silent]:
    state, (other,) = turn.recall(PhaseState), turn.others
    if turn.first and state.at == 0:
        state = replace(state, dealt=inbox.one(dealer(turn.contract), DealtPhases).shares)
    return open_phase(
        turn, label, phases, take_phase(turn, label, phases, state, inbox.one(other, PhaseOpening))
    )


def _deal(
    label: str, phases: Sequence[Phase], turn: Turn, inbox: Inbox[Nothing]
) -> Outcome[DealtPhases, Silent]:
    count, used = next_count(turn, label)
    return Outcome(Silent(), send={turn.parties[0]: deal_phases(turn, label, phases, count)}, keep=(used,))


def last_values(turn: Turn, label: str, phases: Sequence[Phase], inbox: Inbox[PhaseOpening]) -> Values:
    """Take in the last phase: the own shares at the end. The step that does so forgets `PhaseState`."""
    (other,) = turn.others
    state = take_phase(turn, label, phases, turn.recall(PhaseState), inbox.one(other, PhaseOpening))
    if state.at != len(phases):
        raise ValueError("the phases have not come to their end")
    return state.values


def run_phases(
    call: Caller, contract: Contract, label: str, phases: Sequence[Phase], start: Start
) -> list[Reply[PhaseOpening, Silent]]:
    """Go through all phases, two at least; what is returned is read by a step of the caller's, by `last_values`."""
    parties = data_parties(contract)
    deal = Step(f"{label}.deal", partial(_deal, label, phases), Silent)
    first = Step(f"{label}.open", partial(_open_first, label, phases, start), Silent)
    rest = Step(
        f"{label}.next", partial(_open_next, label, phases), Silent, reads=(PhaseOpening, DealtPhases)
    )
    opened, (dealt,) = call.both([ask(p, first) for p in parties], [ask(dealer(contract), deal)])
    opened = call.all([ask(p, rest, *both(opened, dealt, p)) for p in parties])
    for _ in phases[2:]:
        opened = call.all([ask(p, rest, *inbox_of(opened, p)) for p in parties])
    return opened
