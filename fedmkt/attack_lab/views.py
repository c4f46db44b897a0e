"""What every participant of a run is shown: each step's opened messages, what it sent, told, revealed and kept.

A party follows the script itself, so whoever stands between script and party sees every step with its arguments.
`Views.watch` is put around the script of a simulation (`simulate(watch=...)`). Nothing in a deployment calls it, and
no step can: it gets a turn and an inbox, not the script.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.between import Between
from fedmkt.contract.agreement import Contract
from fedmkt.privacy.disclosure import Disclosure
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Outcome,
    PublicValue,
    S,
    Script,
    State,
    Step,
    Turn,
)

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Moment:
    """One step at one party, after all that it got was opened."""

    party: Name
    step: str
    received: tuple[tuple[Name, Message], ...]
    sent: tuple[tuple[Name, Message], ...]
    told: PublicValue
    reveals: tuple[Disclosure, ...]
    kept: tuple[State, ...]


@dataclass
class Views:
    """The steps of a run, of each party in its order."""

    moments: dict[Name, list[Moment]] = field(default_factory=dict)

    def watch(self, script: Script) -> Script:
        """Return the same script, of which every step is written down here before it is answered."""

        @functools.wraps(script)
        def watched(call: Caller, contract: Contract) -> PublicValue:
            return script(Between(call, functools.partial(_seen, self)), contract)

        return watched

    def of(self, party: str) -> list[Moment]:
        """Return the steps of one party; none if it took none."""
        return self.moments.get(Name(party), [])

    @property
    def all(self) -> list[Moment]:
        """Return the steps of all participants."""
        return [moment for moments in self.moments.values() for moment in moments]

    def kept(self, party: str, kind: type[S]) -> list[S]:
        """Return what a party kept of one kind of state, in its order."""
        return [s for moment in self.of(party) for s in moment.kept if isinstance(s, kind)]

    def told(self, kind: type[PublicValue]) -> dict[Name, PublicValue]:
        """Return the last public value of a kind by each party that told one."""
        return {m.party: m.told for m in self.all if isinstance(m.told, kind)}

    def revealed(self, to: str) -> list[Disclosure]:
        """Return everything that was revealed to one reader, by whichever party."""
        return [d for moment in self.all for d in moment.reveals if d.to == to]

    def received(self, party: str) -> Iterator[tuple[str, Array]]:
        """Give every array that a party was sent, its sum with its own one of the step and shape, and what changed.

        Openings are shares under masks: only with the own share they may say something. A mask that served twice
        falls out of the difference to the array of the same kind before.
        """
        own: dict[tuple[str, tuple[int, ...], str], list[Array]] = {}
        for moment in self.of(party):
            for _, message in moment.sent:
                for array in arrays_of(message):
                    own.setdefault((type(message).__name__, array.shape, array.dtype.str), []).append(array)
        places: dict[tuple[str, tuple[int, ...], str], int] = {}
        before: dict[tuple[str, str, tuple[int, ...], str], Array] = {}
        for moment in self.of(party):
            for sender, message in moment.received:
                kind = type(message).__name__
                for array in arrays_of(message):
                    yield f"{kind} from {sender}", array
                    key = (kind, array.shape, array.dtype.str)
                    at = places[key] = places.get(key, -1) + 1
                    if array.dtype.kind == "u" and at < len(own.get(key, ())):
                        for found in _together(array, own[key][at], np.add):
                            yield f"sum of {kind} with {sender}", found
                    if array.dtype.kind in "ui":
                        if (sender, *key) in before:
                            for found in _together(array, before[sender, *key], np.subtract):
                                yield f"change of {kind} from {sender}", found
                        before[sender, *key] = array


def _together(one: Array, other: Array, numbers: np.ufunc) -> Iterator[Array]:
    """Put two arrays together as numbers, and as packed bits where they may be such: bytes and words of 32."""
    if one.dtype.itemsize > 1:
        yield numbers(one, other)
    if one.dtype.itemsize < 8:
        yield np.bitwise_xor(one, other)


def _seen(views: "Views", step: Step[Any, Any, Any]) -> Step[Any, Any, Any]:
    def run(turn: Turn, inbox: Inbox[Any]) -> Outcome[Any, Any]:
        outcome = step.run(turn, inbox)
        # Each party has a thread of its own, and a list of its own here.
        views.moments.setdefault(turn.me, []).append(
            Moment(
                turn.me, step.name, inbox.messages, tuple(outcome.send.items()), outcome.public,
                outcome.reveals, outcome.keep,
            )
        )  # fmt: skip
        return outcome

    return replace(step, run=run)


def arrays_of(value: object) -> Iterator[Array]:
    """Give all arrays in a message or state, however deep; bytes count as arrays of them."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, bytes):
        yield np.frombuffer(value, np.uint8)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from arrays_of(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from arrays_of(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            yield from arrays_of(getattr(value, part.name))
