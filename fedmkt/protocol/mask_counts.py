"""How often each kind of mask was used in an epoch: parties and dealer count alike, so that no mask comes twice."""

from dataclasses import dataclass
from typing import ClassVar

from fedmkt.protocol.core import State, Turn


@dataclass(frozen=True)
class Counts(State):
    """How often each kind of mask was used in this epoch: parties and dealer count alike."""

    durable: ClassVar[bool] = False
    used: dict[str, int]


def next_count(turn: Turn, kind: str) -> tuple[int, Counts]:
    """Return how often this kind of mask was used in this epoch, and the state to keep once it is used again."""
    used = turn.recall(Counts).used if turn.has(Counts) else {}
    return used.get(kind, 0), Counts(used | {kind: used.get(kind, 0) + 1})
