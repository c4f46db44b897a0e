"""Who is on the other side's list, worked out from nothing but sizes of intersections: the attack and its figures.

    python -m tests.simulation.size_attack

The attack on a side that answers every list with an exact size is the binary splitting of Guo et al. (USENIX
Security 2022) with both signs of membership (anonpsi, arXiv 2311.18118): halve a group, ask about one half,
subtract, go on with the purer half; a group that is all members or none is known. The rules that it meets are the
real ones: `Policy`, `ListLedger` in a folder of each side, `check_common`, the bands of the overlap job. The
intersection itself is that of two Python sets.

The attacker may invent as many people as it likes (they make a list long, and different by 100 from each one
before) and knows many common customers from elsewhere (they carry it over the minimum of the intersection).
"""

import heapq
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count as numbers
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from fedmkt.config.drafts import draft_contract, simulated_party
from fedmkt.config.files import parse_job
from fedmkt.contract.agreement import Contract
from fedmkt.contract.checks import check_common
from fedmkt.crypto.prg import SeededRandom
from fedmkt.crypto.sign import Identity
from fedmkt.errors import PolicyRefused
from fedmkt.party.list_ledger import ListGuard, ListLedger
from fedmkt.party.policy import Policy
from fedmkt.party.store import Store
from fedmkt.protocol.alignment.cardinality import told_of

PEOPLE, CALLS, HOURS = 2000, 30, 1.0
OVERLAPS = (0.01, 0.10, 0.50, 0.95)
KNOWN = [f"known {i}" for i in range(1200)]
"""Customers of the other side whom the attacker knows for certain, from payments or because it made them up there."""
START = datetime(2030, 1, 1, tzinfo=UTC)
JOB = """
name = "attack"
purpose = "cards"
[bank]
name = "bank"
organisation = "Bank"
file = "b.csv"
id = "id"
id_kind = "raw"
label = "y"
numbers = ["a"]
[[partners]]
name = "shop"
organisation = "Shop"
file = "s.csv"
id = "id"
id_kind = "raw"
numbers = ["b"]
"""
KEYS = {name: Identity(bytes([i + 1]) * 32).public for i, name in enumerate(("bank", "shop", "coordinator"))}


@dataclass(frozen=True)
class World:
    """The people whom the attacker asks about, in a random order, and the other side's list."""

    targets: tuple[str, ...]
    members: frozenset[str]
    theirs: frozenset[str]

    @staticmethod
    def of(overlap: float, seed: int) -> "World":
        """Draw who is a member; the other side has as many customers besides, and those who are known."""
        order = np.random.default_rng(seed).permutation(PEOPLE)
        targets = tuple(f"person {i}" for i in order)
        members = frozenset(f"person {i}" for i in range(round(PEOPLE * overlap)))
        return World(targets, members, members | set(KNOWN) | {f"other {i}" for i in range(PEOPLE)})


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


@dataclass
class Guarded:
    """Two sides that keep the rules, each with a ledger of its own; every call has a new contract.

    reads_sizes : the attacker changed its own program. It asks no rule of its own and reads the size in memory; the
    other side's rules hold all the same. blur : what the side that counts makes of the count before it is shown.
    """

    world: World
    folder: Path
    reads_sizes: bool = False
    blur: Callable[[int], int] = int
    policy: dict[str, int] = field(default_factory=dict)
    shown: int = 0
    refused: int = 0
    asked: list[tuple[Sequence[str], Answer]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make both sides' places."""
        self._job = parse_job(JOB, "job.toml")
        self._now = START
        self._invented = numbers()
        self._draft = draft_contract(self._job, KEYS, START)
        self._hashes = {name: self._ledger(name).hashes for name in ("bank", "shop")}

    def _ledger(self, name: str) -> ListLedger:
        return ListLedger(Store(self.folder / name), SeededRandom(name.encode()))

    def _rules(self, name: str) -> Policy:
        config = simulated_party(self._job, name, KEYS)
        return Policy(config.model_copy(update={"policy": config.policy.model_copy(update=self.policy)}))

    def _count(self, name: str, ids: Sequence[str], contract: Contract, run: str) -> None:
        policy = self._rules(name)
        policy.check_list(len(ids), contract)
        own = self._hashes[name](ids)
        guard = ListGuard(self._ledger(name), policy, contract, name, own, lambda: self._now, ())
        guard.check()
        guard.count(run)

    def filled(self, group: Sequence[str], known: int) -> list[str]:
        """Make a list that the rules let through of the people who are asked about."""
        return [*group, *KNOWN[:known], *self.invent(max(100, 1000 - len(group) - known))]

    def invent(self, people: int) -> list[str]:
        """Return people who do not exist, and were on no list before."""
        return [f"nobody {next(self._invented)}" for _ in range(people)]

    def ask(self, ids: Sequence[str], known: int) -> Answer:
        """Go through one run of the overlap job; PolicyRefused if a rule stops it before anything is shown."""
        self._now += timedelta(hours=HOURS)
        run = f"{self._now:%Y%m%d%H}"
        contract = self._draft.model_copy(update={"name": f"job-{run}"})
        try:
            if not self.reads_sizes:
                self._count("bank", ids, contract, run)
            theirs = sorted(self.world.theirs)
            self._rules("shop").check_list(len(ids), contract)
            self._count("shop", theirs, contract, run)
        except PolicyRefused:
            self.refused += 1
            raise
        self.shown += 1
        answer = self._answer(len(self.world.theirs.intersection(ids)), ids, contract, known)
        self.asked.append((ids, answer))
        return answer

    def _answer(self, size: int, ids: Sequence[str], contract: Contract, known: int) -> Answer:
        if self.reads_sizes:
            return Answer(size - known, size - known)
        count = max(0, self.blur(size))
        try:
            check_common(contract.limits, count - 1, count)
        except PolicyRefused:
            return Answer(0, max(0, contract.limits.min_common - 1 - known))
        told = told_of(count, len(ids), len(self.world.theirs))
        return Answer(max(0, told.low + 1 - known), told.high - known)

    def __call__(self, group: Sequence[str]) -> Answer:
        """Ask about a group of targets."""
        known = 0 if self.reads_sizes else 1000
        found = self.ask(self.filled(group, known), known)
        return Answer(found.low, min(found.high, len(group)))


@dataclass(frozen=True)
class Inferred:
    """Whom the attacker knows to be members, and not to be."""

    members: frozenset[str]
    others: frozenset[str]

    @property
    def people(self) -> int:
        """All whose membership is known."""
        return len(self.members) + len(self.others)


def split(world: World, ask: Ask, first: int = PEOPLE) -> Inferred:
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
                group = next(fresh, None)
                if group is None:
                    break
                put(group, ask(group))
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


def stand_at_the_edge(world: World, side: Guarded) -> Guarded:
    """Ask about one person after the other, with so many known members that one more changes what is shown."""
    rows, theirs = 1200, len(world.theirs)
    edge = next(k for k in range(1050, 1190) if told_of(k, rows, theirs) != told_of(k + 1, rows, theirs))
    for person in world.targets[:CALLS]:
        ids = [person, *KNOWN[:edge]]
        try:
            side.ask([*ids, *side.invent(rows - len(ids))], edge)
        except PolicyRefused:
            break
    return side


def exact_reader(overlap: float, seed: int, folder: Path) -> Inferred:
    """Return the best that a changed program of the attacker reaches against a side that keeps the rules."""
    best = Inferred(frozenset(), frozenset())
    for first in (PEOPLE, 500, 100, 60, 30, 16, 8, 4, 2, 1):
        world = World.of(overlap, seed)
        side = Guarded(world, folder / f"reader-{overlap}-{first}", reads_sizes=True)
        found = split(world, side, first)
        check(found, world)
        best = max(best, found, key=lambda i: i.people)
    return best


def check(found: Inferred, world: World) -> None:
    """Make sure that an inference is right."""
    if not found.members <= world.members or found.others & world.members:
        raise AssertionError("an inference is wrong")


def undefended(overlap: float, seed: int, calls: int, first: int = PEOPLE) -> Inferred:
    """Run the attack on a side without rules."""
    world = World.of(overlap, seed)
    found = split(world, Exact(world, calls), first)
    check(found, world)
    return found


def defended(overlap: float, seed: int, folder: Path, **policy: int) -> tuple[Inferred, Guarded]:
    """Run it with honest programs on both sides: bands, at most 5 runs."""
    world = World.of(overlap, seed)
    side = Guarded(world, folder, policy=policy)
    split(world, side)
    while side.shown + side.refused < CALLS:  # the rest of the calls, whatever came of the first
        try:
            side(world.targets[side.refused :])
        except PolicyRefused:
            continue
    found = deduce(world, side.asked)
    check(found, world)
    return found, side


@dataclass(frozen=True)
class Figures:
    """What the attacker knows at one overlap. free : without rules, after 5, 10, 30 and 100 calls."""

    overlap: float
    free: tuple[Inferred, ...]
    guarded: Inferred
    shown: int
    refused: int
    reader: Inferred
    edge: Inferred

    def line(self) -> str:
        """Write one line of the table."""
        shares = " ".join(f"{100 * f.people / PEOPLE:5.2f}" for f in self.free)
        reader, edge = self.reader, self.edge
        return (
            f"{self.overlap:7.0%} | {shares} ({len(self.free[2].members):3} members) "
            f"| {100 * self.guarded.people / PEOPLE:.2f} ({self.shown} shown, {self.refused} refused) "
            f"| {100 * reader.people / PEOPLE:.2f} ({len(reader.members)} members) "
            f"| {100 * edge.people / PEOPLE:.2f} ({len(edge.members)} members)"
        )


HEAD = (
    f"{PEOPLE:,} people; percent of them of whom the attacker knows whether the other side has them",
    "overlap | no rules: 5, 10, 30 (members), 100 calls | rules | its program reads sizes | stands at an edge",
)


def measure(overlap: float, seed: int, folder: Path) -> Figures:
    """Run every attack at one overlap."""
    world = World.of(overlap, seed)
    free = tuple(undefended(overlap, seed, calls) for calls in (5, 10, CALLS, 100))
    guarded, side = defended(overlap, seed, folder / "guarded")
    edge = deduce(world, stand_at_the_edge(world, Guarded(world, folder / "edge")).asked)
    check(edge, world)
    reader = exact_reader(overlap, seed, folder)
    return Figures(overlap, free, guarded, side.shown, side.refused, reader, edge)


if __name__ == "__main__":
    print(*HEAD, sep="\n")
    for share in OVERLAPS:
        with tempfile.TemporaryDirectory() as place:
            seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
            print(measure(share, seed, Path(place)).line(), flush=True)
