"""Who is on the other side's list, worked out from nothing but sizes of intersections: the attack and its figures.

    python -m tests.simulation.size_attack

The attack, and the sides that it meets, are those of row 10 of the attack lab (`fedmkt.attack_lab.attacks.sizes`),
here on people of a known overlap and beyond what the lab prints. The rules are the
real ones: `Policy`, `ListLedger` in a folder of each side, `check_common`, the bands of the overlap job. The
intersection itself is that of two Python sets.

The attacker may invent as many people as it likes (they make a list long, and different by 100 from each one
before) and knows many common customers from elsewhere (they carry it over the minimum of the intersection).
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedmkt.attack_lab.attacks.set_sizes import Exact, Inferred, World, check, deduce, split
from fedmkt.attack_lab.attacks.sizes import CALLS, Guarded, insist
from fedmkt.config.files import parse_job
from fedmkt.errors import PolicyRefused
from fedmkt.protocol.alignment.cardinality import told_of

PEOPLE = 2000
OVERLAPS = (0.01, 0.10, 0.50, 0.95)
KNOWN = tuple(f"known {i}" for i in range(1200))
"""Customers of the other side whom the attacker knows for certain, from payments or because it made them up there."""
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


def world_of(overlap: float, seed: int) -> World:
    """Draw who is a member; the other side has as many customers besides, and those who are known."""
    order = np.random.default_rng(seed).permutation(PEOPLE)
    targets = tuple(f"person {i}" for i in order)
    members = frozenset(f"person {i}" for i in range(round(PEOPLE * overlap)))
    return World(targets, members, members.union(KNOWN, (f"other {i}" for i in range(PEOPLE))), KNOWN)


def guarded(world: World, folder: Path, **settings: Any) -> Guarded:
    """Return two sides that keep the rules of the job above."""
    return Guarded(world, folder, parse_job(JOB, "job.toml"), "shop", **settings)


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
        world = world_of(overlap, seed)
        side = guarded(world, folder / f"reader-{overlap}-{first}", reads_sizes=True)
        found = split(world, side, first)
        check(found, world)
        best = max(best, found, key=lambda i: i.people)
    return best


def undefended(overlap: float, seed: int, calls: int, first: int = PEOPLE) -> Inferred:
    """Run the attack on a side without rules."""
    world = world_of(overlap, seed)
    found = split(world, Exact(world, calls), first)
    check(found, world)
    return found


def defended(overlap: float, seed: int, folder: Path, **settings: Any) -> tuple[Inferred, Guarded]:
    """Run it with honest programs on both sides: bands, at most 5 runs."""
    side = guarded(world_of(overlap, seed), folder, **settings)
    return insist(side, CALLS), side


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
    world = world_of(overlap, seed)
    free = tuple(undefended(overlap, seed, calls) for calls in (5, 10, CALLS, 100))
    honest, side = defended(overlap, seed, folder / "guarded")
    edge = deduce(world, stand_at_the_edge(world, guarded(world, folder / "edge")).asked)
    check(edge, world)
    reader = exact_reader(overlap, seed, folder)
    return Figures(overlap, free, honest, side.shown, side.refused, reader, edge)


if __name__ == "__main__":
    print(*HEAD, sep="\n")
    for share in OVERLAPS:
        with tempfile.TemporaryDirectory() as place:
            seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
            print(measure(share, seed, Path(place)).line(), flush=True)
