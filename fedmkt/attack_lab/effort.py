"""How hard the lab tries: a generator of its own, and how many messages, payloads and draws."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Effort:
    """Sizes of the attacks that may be made longer; random : drawn from by all, one after the other.

    messages : altered, moved or repeated ones. draws : of the rows that an attacker happens to know. ids : of each list
    that are looked for. shadows : models that an attacker trains, an even number.
    """

    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    messages: int = 300
    draws: int = 20
    ids: int = 2000
    shadows: int = 8


def quick(seed: int) -> Effort:
    """Return what CI tries."""
    return Effort(np.random.default_rng(seed))


def long(seed: int) -> Effort:
    """Return what `make attack-lab` tries."""
    return Effort(np.random.default_rng(seed), messages=10_000, draws=50, ids=10_000, shadows=16)
