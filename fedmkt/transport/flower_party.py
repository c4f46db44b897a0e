"""The actor that holds one party in Flower's simulation: a process of its own, with that party's data and state."""

import os
import traceback

import ray

from fedmkt.errors import FedmktError
from fedmkt.party.handle import Party
from fedmkt.party.node import Sources, open_data, open_party
from fedmkt.protocol import wire
from fedmkt.transport.driver import ASKS, Ask, Refusal, serve
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
            table = open_data(seat.data, seat.files, seat.signed.contract.created.date())
            sources = Sources.of(seat.seed, seat.name, seat.epoch)
            self._party = open_party(seat.name, seat.signed, seat.settings, table, seat.place, sources)
        except Exception as error:
            self._refusal = self._note(error, "opening")

    @ray.method
    def answer(self, body: bytes) -> bytes:
        """Answer one encoded message of the driver; whatever goes wrong becomes a refusal without any text."""
        try:
            message: Ask = wire.decode(body, *ASKS)  # type: ignore[assignment]  # one of ASKS
            told = self._refusal if self._party is None else serve(self._party, message)
        except Exception as error:
            told = self._note(error, "message")
        return wire.encode(told)

    @ray.method
    def process(self) -> int:
        """Return the number of the process that holds this party."""
        return os.getpid()

    def _note(self, error: Exception, step: str) -> Refusal:
        path = self._seat.place.private / ERRORS
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write("".join(traceback.format_exception(error)))
        return Refusal(type(error).__name__ if isinstance(error, FedmktError) else "PeerError", step)
