"""The parties' side of Flower's simulation: a node's ClientApp, and the actor that holds one party.

Flower gives each message to any free worker process, so a node can keep nothing. It passes the message to the
actor of its own seat: one process per party, which reads that party's file only and lives as long as the run.
"""

import os
import traceback

import ray
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedmkt.errors import FedmktError
from fedmkt.party.handle import Party
from fedmkt.party.node import Sources, open_data, open_party
from fedmkt.protocol import wire
from fedmkt.protocol.session import Invitation, Opening, Request
from fedmkt.transport.driver import Ask, Refusal, Told, serve
from fedmkt.transport.flower_grid import ASK, BODY, LOST, RECORD, SECONDS, WHO
from fedmkt.transport.flower_seat import Seat

ERRORS = "errors.log"
"""In the party's private folder: what went wrong, in words that must not leave the party."""


class PartySeat:
    """One party in a process of its own. Ray calls it from one thread, as a party's script requires."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._party: Party | None = None
        self._refusal = Refusal("PeerError", "opening")
        try:
            table = open_data(seat.data, seat.files)
            sources = Sources.of(seat.seed, seat.name, seat.epoch)
            self._party = open_party(seat.name, seat.signed, seat.settings, table, seat.place, sources)
        except Exception as error:
            self._refusal = self._note(error, "opening")

    def answer(self, body: bytes) -> bytes:
        """Answer one encoded message of the driver; whatever goes wrong becomes a refusal without any text."""
        try:
            told: Told = self._answer(wire.decode(body, Invitation, Opening, Request))  # type: ignore[arg-type]
        except Exception as error:
            told = self._note(error, "message")
        return wire.encode(told)

    def process(self) -> int:
        """Return the number of the process that holds this party."""
        return os.getpid()

    def _answer(self, message: Ask) -> Told:
        return self._refusal if self._party is None else serve(self._party, message)

    def _note(self, error: Exception, step: str) -> Refusal:
        path = self._seat.place.private / ERRORS
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write("".join(traceback.format_exception(error)))
        return Refusal(type(error).__name__ if isinstance(error, FedmktError) else "PeerError", step)


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
    try:
        actor = ray.get_actor(seat_name(_seat_of(context)))
        body = ray.get(actor.answer.remote(record[BODY]), timeout=record[SECONDS])
    except ray.exceptions.GetTimeoutError:
        return _reply(message, {LOST: "no answer in time"})
    except (ray.exceptions.RayError, ValueError):
        return _reply(message, {LOST: "the process of this party has ended"})
    return _reply(message, {BODY: body})


def _seat_of(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _reply(message: Message, values: dict[str, bytes | str]) -> Message:
    return Message(RecordDict({RECORD: ConfigRecord(dict(values))}), reply_to=message)
