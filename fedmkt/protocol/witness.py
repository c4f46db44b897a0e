"""Witness: every participant's log head is counter-signed by all others.

Takes part: the parties that hold data, before each release; the dealer too when a run begins and closes. Each learns
the others' log heads: a size and a hash, no content. Afterwards a participant cannot drop or change what it logged
before without contradicting a signature that the others hold. It withstands any participant that rewrites its own
log; not one that never logged what it did. The dealer releases nothing, and its log is covered at the ends. Source:
C2SP tlog-cosignature; RFC 6962 heads.

No step reads or writes any of it: heads and counter-signatures are riders (`Rider`). A step that `shows` its party's
head gives it to the others with its answer, sealed, but apart from the step's messages: the head covers that these
were sent. Whoever is called next finds it beside its messages, counter-signs, and so gives back its line. A party
releases nothing until the lines of all others under a head are there that covers its last release (`party.handle`).
What each counter-signed last, which the next head must continue, stands in the hellos of an epoch.

`witness` is two rounds of turns without any content; a script whose own steps show the heads and come back to the
same parties needs fewer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.core import (
    Caller,
    In,
    Inbox,
    Message,
    Name,
    Nothing,
    Out,
    Outcome,
    Silent,
    Step,
    Turn,
    V,
    ask,
    data_parties,
    everyone,
)

Group = Callable[[Contract], tuple[Name, ...]]


@dataclass(frozen=True)
class Head:
    """A log head as a signed note, and the proof that it continues the head that the reader was shown last."""

    note: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Cosignature:
    """A signature under the reader's log head of so many records."""

    records: int
    line: bytes


@dataclass(frozen=True)
class Rider(Message):
    """What one participant's log tells another's: its head, or a signature under the reader's, or both."""

    head: Head | None
    cosignature: Cosignature | None


def _nothing(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent())


COSIGN = Step("witness.cosign", _nothing, Silent, logged=False)
COLLECT = Step("witness.collect", _nothing, Silent, logged=False)


def witness(call: Caller, contract: Contract) -> None:
    """Have the log head of every party that holds data counter-signed by all others of them: two rounds."""
    _witness(call, contract, data_parties)


def witness_all(call: Caller, contract: Contract) -> None:
    """Have the heads of all participants counter-signed by all others, the dealer among them."""
    _witness(call, contract, everyone)


def _witness(call: Caller, contract: Contract, among: Group) -> None:
    show = Step("witness.show_head", _nothing, Silent, logged=False, shows=among)
    call.all([ask(p, show) for p in among(contract)])
    countersign(call, among(contract))


def countersign(call: Caller, parties: Sequence[Name]) -> None:
    """Give these a turn to counter-sign the heads that they were shown; they go on with their next call."""
    call.all([ask(p, COSIGN) for p in parties])


def showing(step: Step[In, Out, V]) -> Step[In, Out, V]:
    """Return the same step, after which its party shows its log head to all that hold data."""
    return replace(step, shows=data_parties)


def others_sign(partners: Sequence[Name]) -> Sequence[Name]:
    """Return which partners need a turn of their own to sign for one another: a single one has nobody to sign for."""
    return partners if len(partners) > 1 else ()


def _close(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent())


CLOSE = Step("run.close", _close, Silent, closes=True)


def close(call: Caller, contract: Contract) -> None:
    """Complete the run: every participant logs its end, then all heads are counter-signed a last time."""
    call.all([ask(p, CLOSE) for p in everyone(contract)])
    witness_all(call, contract)
    call.all([ask(p, COLLECT) for p in everyone(contract)])


def _save(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent())


SAVE = Step("checkpoint.save", _save, Silent, saves=True)


def checkpoint(call: Caller, contract: Contract) -> None:
    """Have every party that holds data write a checkpoint; a killed run resumes after the latest one all hold.

    No message crosses a checkpoint: the keys that could open it end with their epoch.
    """
    call.all([ask(p, SAVE) for p in data_parties(contract)])
