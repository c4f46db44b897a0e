"""What a call leaves in a party's log: events with their names and bodies, never a content."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedmkt.audit.records import Json
from fedmkt.crypto.seal import Envelope
from fedmkt.errors import FedmktError, PeerError, PolicyRefused
from fedmkt.protocol.core import Call, Outcome, Sealed
from fedmkt.protocol.session import Request

RIDER = "witness/"
"""Before a step's name: the place of what rode with its messages, and how the file beside the log names it."""
Event = tuple[str, Mapping[str, Json]]
"""What is logged: the name of the event and its body."""


def answered(
    call: Call[Any, Any],
    request: Request,
    outcome: Outcome[Any, Any],
    asked: bytes,
    envelopes: Sequence[Envelope],
) -> Iterator[Event]:
    """Say all that an answered call did: what came, what it revealed, how it ended, what was sent."""
    where: dict[str, Json] = {"index": request.index, "step": call.step.name}
    yield from received(call.inbox, request.inbox[: len(call.inbox)])
    for disclosure in outcome.reveals:
        yield "value.revealed", {**where, **disclosure.record()}
    yield (
        "step.completed",
        {**where, "request": asked.hex(), "tells": type(outcome.public).__name__},
    )
    if call.step.saves:
        yield "checkpoint.saved", where
    yield from sent(request.index, call.step.name, envelopes)
    if call.step.closes:
        yield "run.completed", {"index": request.index}


def spent(call: Call[Any, Any], request: Request, outcome: Outcome[Any, Any]) -> Iterator[Event]:
    """Say what a call takes of privacy budgets."""
    for spending in outcome.spends:
        yield "budget.spent", {"index": request.index, "step": call.step.name, **spending.record()}


def received(messages: Sequence[Sealed[Any]], envelopes: Sequence[Envelope]) -> Iterator[Event]:
    """Say what came for a call."""
    for sealed, envelope in zip(messages, envelopes, strict=True):
        body: dict[str, Json] = {
            "from": envelope.sender,
            "index": sealed.index,
            "sha256": envelope.digest.hex(),
            "bytes": envelope.size,
        }
        yield "message.received", body


def sent(index: int, step: str, envelopes: Sequence[Envelope]) -> Iterator[Event]:
    """Say what was sent for a call; `step` is the one in the envelopes' place."""
    for envelope in envelopes:
        body: dict[str, Json] = {
            "index": index,
            "step": step,
            "to": envelope.reader,
            "sha256": envelope.digest.hex(),
            "bytes": envelope.size,
        }
        yield "message.sent", body


def failed(request: Request, error: Exception) -> Iterator[Event]:
    """Say that a call ended its run, and by which kind of error; only a refusal says its rule."""
    branch = type(error).__name__ if isinstance(error, FedmktError) else "ValueError"
    # Number and name come from the coordinator: what a record cannot hold must not keep it from being written.
    index, step = max(-1, min(request.index, 1 << 40)), ascii(request.step[:64])[1:-1]
    where: dict[str, Json] = {"index": index, "step": step, "why": branch}
    if isinstance(error, PolicyRefused):
        yield "policy.refused", where | {"rule": str(error)}
    elif isinstance(error, PeerError | ValueError):
        yield "message.rejected", where
    yield "run.aborted", where
