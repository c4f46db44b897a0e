"""Witness: every participant's log head is counter-signed by all others.

Takes part: the parties that hold data, before each release; the dealer too when a run begins and closes. Each learns
the others' log heads: a size and a hash, no content. Afterwards a participant cannot drop or change what it logged
before without contradicting a signature that the others hold. It withstands any participant that rewrites its own
log; not one that never logged what it did. The dealer releases nothing, and its log is covered at the ends. Source:
C2SP tlog-cosignature; RFC 6962 heads.

Three rounds. What each counter-signed last, which the next head must continue, stands in the hellos of an epoch.
"""

from dataclasses import dataclass
from functools import partial

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    M,
    Message,
    Name,
    Nothing,
    Outcome,
    Silent,
    Step,
    Turn,
    ask,
    data_parties,
    everyone,
    inbox_of,
)


@dataclass(frozen=True)
class Head(Message):
    """A log head as a signed note, and the proof that it continues the head that the reader saw last."""

    note: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Cosignature(Message):
    """A signature under the reader's log head."""

    line: bytes


def _show_head(among: tuple[Name, ...], turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Head, Silent]:
    note = turn.notary.head()
    return Outcome(Silent(), send={p: Head(note, turn.notary.extension(p)) for p in _others(among, turn)})


def _cosign(among: tuple[Name, ...], turn: Turn, inbox: Inbox[Head]) -> Outcome[Cosignature, Silent]:
    heads = _from_all(among, turn, inbox.by_sender(Head))
    lines = turn.notary.cosign({p: (h.note, h.proof) for p, h in heads.items()})
    return Outcome(Silent(), send={p: Cosignature(line) for p, line in lines.items()})


def _collect(among: tuple[Name, ...], turn: Turn, inbox: Inbox[Cosignature]) -> Outcome[Nothing, Silent]:
    found = _from_all(among, turn, inbox.by_sender(Cosignature))
    turn.notary.collect({p: c.line for p, c in found.items()})
    return Outcome(Silent())


def _others(among: tuple[Name, ...], turn: Turn) -> tuple[Name, ...]:
    return tuple(p for p in among if p != turn.me)


def _from_all(among: tuple[Name, ...], turn: Turn, messages: dict[Name, M]) -> dict[Name, M]:
    if set(messages) != set(_others(among, turn)):
        raise ValueError("not exactly one message of every other participant")
    return messages


def witness(call: Caller, contract: Contract) -> None:
    """Have the log head of every party that holds data counter-signed by all others of them: three rounds."""
    _witness(call, data_parties(contract))


def witness_all(call: Caller, contract: Contract) -> None:
    """Have the heads of all participants counter-signed by all others, the dealer among them."""
    _witness(call, everyone(contract))


def _witness(call: Caller, among: tuple[Name, ...]) -> None:
    show = Step("witness.show_head", partial(_show_head, among), Silent, logged=False)
    cosign = Step("witness.cosign", partial(_cosign, among), Silent, reads=(Head,), logged=False)
    collect = Step(
        "witness.collect",
        partial(_collect, among),
        Silent,
        reads=(Cosignature,),
        logged=False,
        witnesses=True,
    )
    heads = call.all([ask(p, show) for p in among])
    signed = call.all([ask(p, cosign, *inbox_of(heads, p)) for p in among])
    call.all([ask(p, collect, *inbox_of(signed, p)) for p in among])


def _close(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent())


CLOSE = Step("run.close", _close, Silent, closes=True)


def close(call: Caller, contract: Contract) -> None:
    """Complete the run: every participant logs its end, then all heads are counter-signed a last time."""
    call.all([ask(p, CLOSE) for p in everyone(contract)])
    witness_all(call, contract)


def _save(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent())


SAVE = Step("checkpoint.save", _save, Silent, saves=True)


def checkpoint(call: Caller, contract: Contract) -> None:
    """Have every party that holds data write a checkpoint; a killed run resumes after the latest one all hold.

    No message crosses a checkpoint: the keys that could open it end with their epoch.
    """
    call.all([ask(p, SAVE) for p in data_parties(contract)])
