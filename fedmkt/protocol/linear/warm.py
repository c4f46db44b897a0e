"""Warm start: training begins at the shares of an earlier model, on its preparation, with new rows.

Computes nothing by itself: each party keeps its share of the weights of a released model, and the preparation in whose
columns they are, in its store; a contract that names the earlier one's digest begins there. Takes part: all parties
that hold data. Everybody is told which run the kept shares are of, a number that all knew then; nothing else is sent.
Safe as training is: shares are uniform, the old ones are never opened, and every mask is of the new epoch. A party
that keeps another share than it had spoils the start, which the passes then mend or the range check ends.

Source: protocols.md section 2. Old columns on new rows are not quite white: the passes still converge while variances
stay within a factor of two or so, and each column must still be carried by enough of the new rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.protocol import wire
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Nothing,
    Outcome,
    PublicValue,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class KeptModel:
    """What a party keeps of a model: the run, what it was a model of, and the own part of it.

    layout : parties in order, each with its prepared columns; columns : the own ones, as the contract names them.
    """

    run: bytes
    link: str
    layout: tuple[str, ...]
    columns: tuple[str, ...]
    preparation: str
    transform: Array
    spread: Array
    share: Words


@dataclass(frozen=True)
class StartedFrom(PublicValue):
    """The run whose shares a party begins with."""

    run: bytes


def _key(contract: str) -> str:
    return f"model/{contract}"


def kept_as(turn: Turn, model: KeptModel) -> dict[str, bytes]:
    """Return what a party's store shall remember of a model of this contract."""
    return {_key(digest(turn.contract).hex()): wire.encode(model)}


def own_columns_of(turn: Turn) -> tuple[str, ...]:
    """Name the own columns that a preparation is of."""
    terms = turn.contract.party(turn.me)
    return (*terms.numbers, *terms.categories)


def earlier(turn: Turn) -> KeptModel | None:
    """Return the model that the contract starts from; None if it starts anew. PolicyRefused if it does not fit."""
    start = turn.contract.model.start
    if start is None:
        return None
    found = turn.store.get(_key(start))
    if found is None:
        raise PolicyRefused(
            f"{turn.me}: no model of contract {start[:16]} is kept here",
            "leave out [model] start, or name a contract whose run was finished",
        )
    model = wire.decode(found, KeptModel)
    if model.link != turn.contract.model.link or model.columns != own_columns_of(turn):
        raise PolicyRefused(
            f"{turn.me}: contract {start[:16]} is of another kind of model or of other columns",
            "leave out [model] start: with other columns a model is trained anew",
        )
    if tuple(name.partition(" ")[0] for name in model.layout) != turn.parties:
        raise PolicyRefused(f"{turn.me}: contract {start[:16]} is of other parties")
    return model


def _tell(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, StartedFrom]:
    model = earlier(turn)
    if model is None:
        raise ValueError("the contract names no model to start from")
    return Outcome(StartedFrom(model.run))


TELL_START = Step("prepare.tell_start", _tell, StartedFrom)


def check_start(call: Caller, contract: Contract) -> None:
    """Make sure that all parties begin with shares of one run."""
    told = call.all([ask(p, TELL_START) for p in data_parties(contract)])
    if len({t.public.value.run for t in told}) > 1:
        raise PeerError("the parties keep shares of different runs of the contract that this one starts from")
