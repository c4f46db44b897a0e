"""What a call leaves in a party's log: events with their names and bodies, never a content."""

from collections.abc import Iterator, Mapping
from typing import Any

from fedmkt.audit.records import Json
from fedmkt.errors import FedmktError, PeerError, PolicyRefused
from fedmkt.protocol.core import Call, Outcome
from fedmkt.protocol.session import Answer, Request

Event = tuple[str, Mapping[str, Json]]
"""What is logged: the name of the event and its body."""


def answered(
    call: Call[Any, Any], request: Request, outcome: Outcome[Any, Any], answer: Answer
) -> Iterator[Event]:
    """Say all that an answered call did: what came, what it revealed, how it ended, what was sent."""
    where: dict[str, Json] = {"index": request.index, "step": call.step.name}
    yield from received(call, request)
    for disclosure in outcome.reveals:
        yield "value.revealed", {**where, **disclosure.record()}
    yield (
        "step.completed",
        {**where, "request": answer.receipt.request.hex(), "tells": type(outcome.public).__name__},
    )
    if call.step.saves:
        yield "checkpoint.saved", where
    yield from sent(call, request, answer)
    if call.step.closes:
        yield "run.completed", {"index": request.index}


def spent(call: Call[Any, Any], request: Request, outcome: Outcome[Any, Any]) -> Iterator[Event]:
    """Say what a call takes of privacy budgets."""
    for spending in outcome.spends:
        yield "budget.spent", {"index": request.index, "step": call.step.name, **spending.record()}


def received(call: Call[Any, Any], request: Request) -> Iterator[Event]:
    """Say what came for a call."""
    for sealed, envelope in zip(call.inbox, request.inbox, strict=True):
        body: dict[str, Json] = {
            "from": envelope.sender,
            "index": sealed.index,
            "sha256": envelope.digest.hex(),
            "bytes": envelope.size,
        }
        yield "message.received", body


def sent(call: Call[Any, Any], request: Request, answer: Answer) -> Iterator[Event]:
    """Say what was sent for a call."""
    where: dict[str, Json] = {"index": request.index, "step": call.step.name}
    for envelope in answer.envelopes:
        yield (
            "message.sent",
            {**where, "to": envelope.reader, "sha256": envelope.digest.hex(), "bytes": envelope.size},
        )


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
