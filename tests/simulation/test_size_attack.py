"""security.md row 10: members inferred after 30 calls, without the rules and with them."""

from pathlib import Path

import numpy as np
import pytest

from fedmkt.attack_lab.attacks.set_sizes import Answer, World, check, deduce
from fedmkt.attack_lab.attacks.sizes import CALLS
from fedmkt.errors import PolicyRefused
from tests.simulation.size_attack import (
    HEAD,
    OVERLAPS,
    PEOPLE,
    Figures,
    defended,
    guarded,
    measure,
    stand_at_the_edge,
    undefended,
    world_of,
)

SEEDS = range(1, 6)


def share(overlap: float, calls: int) -> float:
    return float(np.mean([undefended(overlap, seed, calls).people / PEOPLE for seed in SEEDS]))


# Figures of the authors' code on 2,000 people (security.md row 10), each within half and one and a half times.
@pytest.mark.parametrize(
    ("overlap", "calls", "published"),
    [
        (0.01, 5, 0.100),
        (0.01, 10, 0.231),
        (0.01, 100, 0.96),
        (0.10, 10, 0.021),
        (0.50, 10, 0.002),
        (0.95, 10, 0.042),
    ],
)
def test_without_rules_the_attack_is_as_strong_as_the_published_one(
    overlap: float, calls: int, published: float
) -> None:
    assert published / 2 <= share(overlap, calls) <= 1.5 * published


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> list[Figures]:
    found = [measure(overlap, 1, tmp_path_factory.mktemp("attack")) for overlap in OVERLAPS]
    print(*HEAD, *(one.line() for one in found), sep="\n")
    return found


def test_under_the_rules_nobody_is_inferred_after_thirty_calls(figures: list[Figures]) -> None:
    for found in figures:
        assert found.guarded.people == 0
        assert (found.shown, found.refused) == (5, CALLS - 5)
        assert found.free[2].people > 0


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_nor_with_other_people_and_lists(overlap: float, seed: int, tmp_path: Path) -> None:
    found, side = defended(overlap, seed, tmp_path)
    assert found.people == 0 and side.shown == 5


def test_after_a_month_five_more_runs_are_shown(tmp_path: Path) -> None:
    found, side = defended(0.5, 1, tmp_path, hours=24.0)
    assert side.shown == 5 and found.people == 0  # 30 calls take 30 days: the 31st would be shown
    side(world_of(0.5, 1).targets)
    assert side.shown == 6


def test_an_attacker_that_reads_sizes_in_memory_has_five_of_them_and_what_they_tell(
    figures: list[Figures],
) -> None:
    # Honest figures: the rules of the other side cannot make it unsee an exact size, only ration it.
    limits = {0.01: 0.12, 0.10: 0.025, 0.50: 0.005, 0.95: 0.03}
    for found in figures:
        assert 0 < found.reader.people / PEOPLE <= limits[found.overlap] < found.free[3].people / PEOPLE


def test_the_honest_program_of_the_attacker_refuses_two_lists_that_differ_by_one_person(
    tmp_path: Path,
) -> None:
    world = world_of(0.5, 1)
    side = guarded(world, tmp_path / "honest")
    ids = side.filled(world.targets, 1000)
    side.ask(ids, 1000)
    with pytest.raises(PolicyRefused, match=r"C10 .* differs from this one"):
        side.ask(ids[1:], 1000)
    changed = guarded(world, tmp_path / "changed", reads_sizes=True)
    sizes = [changed.ask(ids, 1000).low, changed.ask(ids[1:], 1000).low]
    assert sizes[0] - sizes[1] == (ids[0] in world.members)


def test_one_person_a_run_is_told_to_whoever_can_stand_at_the_edge_of_a_band(tmp_path: Path) -> None:
    # Known, and not hidden: it takes over a thousand common customers whom the attacker knows already.
    world = world_of(0.5, 1)
    side = stand_at_the_edge(world, guarded(world, tmp_path))
    found = deduce(world, side.asked)
    check(found, world)
    assert found.people == side.shown == 5


def test_what_follows_from_bands_is_found_to_the_last_person() -> None:
    world = World(("a", "b", "c", "d"), frozenset("ab"), frozenset("ab"))
    both = deduce(world, [(("a", "b", "c"), Answer(2, 2)), (("c", "d"), Answer(0, 0))])
    assert both.members == {"a", "b"} and both.others == {"c", "d"}
    assert deduce(world, [(("a", "b", "c"), Answer(2, 2)), (("c", "d"), Answer(0, 1))]).people == 0
    assert deduce(world, [(("a", "b", "c"), Answer(2, 3)), (("c", "d"), Answer(0, 0))]).members == {"a", "b"}
