"""Witness: every participant's log head is counter-signed by all others.

Takes part: all parties and the dealer. Each learns the others' log heads: a size and a hash, no content.
Afterwards a participant cannot drop or change what it logged before without contradicting a signature that
the others hold. It withstands any participant that rewrites its own log; not one that never logged what it
did. Source: C2SP tlog-cosignature; RFC 6962 heads. Run before each release and at close.
"""

from dataclasses import dataclass

from fedmkt.contract import Contract
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
class Seen(Message):
    """How many records of the reader's log the sender counter-signed last."""

    size: int


@dataclass(frozen=True)
class Head(Message):
    """A log head as a signed note, and the proof that it continues the head that the reader saw last."""

    note: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Cosignature(Message):
    """A signature under the reader's log head."""

    line: bytes


def _tell_seen(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Seen, Silent]:
    return Outcome(Silent(), send={p: Seen(turn.notary.seen(p)) for p in _others(turn)})


def _show_head(turn: Turn, inbox: Inbox[Seen]) -> Outcome[Head, Silent]:
    seen = _from_all(turn, inbox.by_sender(Seen))
    note = turn.notary.head()
    return Outcome(Silent(), send={p: Head(note, turn.notary.extension(s.size)) for p, s in seen.items()})


def _cosign(turn: Turn, inbox: Inbox[Head]) -> Outcome[Cosignature, Silent]:
    heads = _from_all(turn, inbox.by_sender(Head))
    return Outcome(
        Silent(), send={p: Cosignature(turn.notary.cosign(p, h.note, h.proof)) for p, h in heads.items()}
    )


def _collect(turn: Turn, inbox: Inbox[Cosignature]) -> Outcome[Nothing, Silent]:
    turn.notary.collect({p: c.line for p, c in _from_all(turn, inbox.by_sender(Cosignature)).items()})
    return Outcome(Silent())


def _others(turn: Turn) -> tuple[Name, ...]:
    return tuple(p for p in everyone(turn.contract) if p != turn.me)


def _from_all(turn: Turn, messages: dict[Name, M]) -> dict[Name, M]:
    if set(messages) != set(_others(turn)):
        raise ValueError("not exactly one message of every other participant")
    return messages


TELL_SEEN = Step("witness.tell_seen", _tell_seen, Silent, logged=False)
SHOW_HEAD = Step("witness.show_head", _show_head, Silent, reads=(Seen,), logged=False)
COSIGN = Step("witness.cosign", _cosign, Silent, reads=(Head,), logged=False)
COLLECT = Step("witness.collect", _collect, Silent, reads=(Cosignature,), logged=False, witnesses=True)


def witness(call: Caller, contract: Contract) -> None:
    """Have every participant's log head counter-signed by all others: four rounds."""
    names = everyone(contract)
    seen = call.all([ask(p, TELL_SEEN) for p in names])
    heads = call.all([ask(p, SHOW_HEAD, *inbox_of(seen, p)) for p in names])
    signed = call.all([ask(p, COSIGN, *inbox_of(heads, p)) for p in names])
    call.all([ask(p, COLLECT, *inbox_of(signed, p)) for p in names])


def _close(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent())


CLOSE = Step("run.close", _close, Silent, closes=True)


def close(call: Caller, contract: Contract) -> None:
    """Complete the run: every participant logs its end, then all heads are counter-signed a last time."""
    call.all([ask(p, CLOSE) for p in everyone(contract)])
    witness(call, contract)


def _save(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent())


SAVE = Step("checkpoint.save", _save, Silent, saves=True)


def checkpoint(call: Caller, contract: Contract) -> None:
    """Have every party that holds data write a checkpoint; a killed run resumes after the latest one all hold.

    No message crosses a checkpoint: the keys that could open it end with their epoch.
    """
    call.all([ask(p, SAVE) for p in data_parties(contract)])
