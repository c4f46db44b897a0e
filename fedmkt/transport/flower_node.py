"""A node of Flower's simulation: it passes each message on to the actor that holds its party.

Flower gives every message to any free worker process, so a node can keep nothing. The actor of a seat
(`flower_party`) is one process that lives as long as the run; a node talks to that of its own seat only, whatever
a message says. Little is imported here, since every worker process imports it.
"""

from typing import TYPE_CHECKING

import ray
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedmkt.transport.flower_words import ASK, BODY, LOST, RECORD, SECONDS, WHO

if TYPE_CHECKING:
    from ray.actor import ActorProxy

    from fedmkt.transport.flower_party import PartySeat


def seat_name(seat: int) -> str:
    """Name the actor of a seat; every run has a cluster of its own, so the name need not say which run."""
    return f"fedmkt-seat-{seat}"


app = ClientApp()


@app.query(WHO.removeprefix("query."))
def who(message: Message, context: Context) -> Message:
    """Say which seat this node serves."""
    return _reply(message, {BODY: _seat_of(context).to_bytes(4, "big")})


@app.query(ASK.removeprefix("query."))
def ask(message: Message, context: Context) -> Message:
    """Pass a message on to the party of this node's seat, whatever it says, and its answer back."""
    record = message.content.config_records[RECORD]
    body, seconds = record[BODY], record[SECONDS]
    if not isinstance(body, bytes) or not isinstance(seconds, float):
        return _reply(message, {LOST: "not a message of fedmkt"})
    try:
        actor: ActorProxy[PartySeat] = ray.get_actor(seat_name(_seat_of(context)))
        answer = ray.get(actor.answer.remote(body), timeout=seconds)
    except ray.exceptions.GetTimeoutError:
        return _reply(message, {LOST: "no answer in time"})
    except (ray.exceptions.RayError, ValueError):
        return _reply(message, {LOST: "the process of this party has ended"})
    return _reply(message, {BODY: answer})


def _seat_of(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _reply(message: Message, values: dict[str, bytes | str]) -> Message:
    return Message(RecordDict({RECORD: ConfigRecord(dict(values))}), reply_to=message)
