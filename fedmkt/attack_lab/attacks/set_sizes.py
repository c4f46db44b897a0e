"""Who is on the other side's list, worked out from sizes of intersections: binary splitting, and what follows.

The attack on a side that answers every list with an exact size is that of Guo et al. (USENIX Security 2022) with both
signs of membership (anonpsi, arXiv 2311.18118): halve a group, ask about one half, subtract, go on with the purer
half; a group that is all members or none is known. Where only bands are told, an integer program finds everybody whose
membership follows from all answers together.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as numbers

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from fedmkt.errors import PolicyRefused


@dataclass(frozen=True)
class World:
    """The people whom the attacker asks about, in a random order, and the other side's list.

    known : customers of the other side whom the attacker knows for certain, from payments or because it made them up.
    """

    targets: tuple[str, ...]
    members: frozenset[str]
    theirs: frozenset[str]
    known: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """How many of the asked targets are members, at least and at most."""

    low: int
    high: int


Ask = Callable[[Sequence[str]], Answer]


@dataclass
class Exact:
    """A side that answers whatever it is asked, with the size; `calls` : how often."""

    world: World
    calls: int

    def __call__(self, group: Sequence[str]) -> Answer:
        """Return the size, while there are calls left."""
        if self.calls == 0:
            raise PolicyRefused("no call is left to the attacker")
        self.calls -= 1
        size = len(self.world.theirs.intersection(group))
        return Answer(size, size)


@dataclass(frozen=True)
class Inferred:
    """Whom the attacker knows to be members, and not to be."""

    members: frozenset[str]
    others: frozenset[str]

    @property
    def people(self) -> int:
        """All whose membership is known."""
        return len(self.members) + len(self.others)


def split(world: World, ask: Ask, first: int) -> Inferred:
    """Split groups in halves until no call is left; begins with groups of `first` people.

    Of a band the middle stands for the size: then only what `deduce` finds is known.
    """
    members: set[str] = set()
    others: set[str] = set()
    fresh = iter([world.targets[i : i + first] for i in range(0, len(world.targets), first)])
    heap: list[tuple[float, int, Answer, Sequence[str]]] = []
    ties = numbers()

    def put(group: Sequence[str], found: Answer) -> None:
        if found.low == found.high == len(group):
            members.update(group)
        elif found.low == found.high == 0:
            others.update(group)
        elif len(group) > 1:
            share = (found.low + found.high) / 2 / len(group)
            heapq.heappush(heap, (-max(share, 1 - share), next(ties), found, group))

    try:
        while True:
            if not heap:
                another = next(fresh, None)
                if another is None:
                    break
                put(another, ask(another))
                continue
            *_, whole, group = heapq.heappop(heap)
            left, right = group[: len(group) // 2], group[len(group) // 2 :]
            found = ask(left)
            rest = Answer(max(0, whole.low - found.high), min(len(right), whole.high - found.low))
            put(left, found)
            put(right, rest)
    except PolicyRefused:
        pass
    return Inferred(frozenset(members), frozenset(others))


def deduce(world: World, asked: Sequence[tuple[Sequence[str], Answer]]) -> Inferred:
    """Find everybody whose membership follows from all answers together: sound, and nothing is left out.

    People who were on the same lists are one group; the largest and smallest number of members of each group is an
    integer program.
    """
    sets = [frozenset(ids) for ids, _ in asked]
    groups: dict[tuple[bool, ...], list[str]] = {}
    for person in world.targets:
        groups.setdefault(tuple(person in ids for ids in sets), []).append(person)
    if not asked:
        return Inferred(frozenset(), frozenset())
    sizes = np.array([len(people) for people in groups.values()])
    lists = np.array(list(groups), dtype=float).T
    low, high = ([getattr(answer, end) for _, answer in asked] for end in ("low", "high"))
    rules = LinearConstraint(lists, low, high)
    members: set[str] = set()
    others: set[str] = set()
    for place, people in enumerate(groups.values()):
        unit = np.eye(len(sizes))[place]
        least, most = (
            round(sign * milp(sign * unit, constraints=rules, bounds=Bounds(0, sizes), integrality=1).fun)
            for sign in (1.0, -1.0)
        )
        if least == len(people):
            members.update(people)
        elif most == 0:
            others.update(people)
    return Inferred(frozenset(members), frozenset(others))


def check(found: Inferred, world: World) -> None:
    """Make sure that an inference is right."""
    if not found.members <= world.members or found.others & world.members:
        raise AssertionError("an inference is wrong")
