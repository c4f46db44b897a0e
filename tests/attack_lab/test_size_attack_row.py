"""Row 10: sizes of intersections, against the policies and ledgers of a run, and against none."""

from pathlib import Path

from fedmkt.attack_lab.attacks import sizes
from fedmkt.attack_lab.attacks.set_sizes import deduce, split
from fedmkt.attack_lab.effort import quick
from fedmkt.attack_lab.subject import Subject


def test_nobody_is_inferred_under_the_rules_of_a_run_and_some_are_without(linear: Subject):
    found = sizes.size_differencing(linear, quick(1))
    assert found.verdict == "held" and found.here == 0 and found.undefended > 0
    assert "5 answered with a band, 25 refused" in found.note


def test_without_its_rules_the_same_side_tells_who_is_a_member(linear: Subject, tmp_path: Path):
    world = sizes.world_of_run(linear, quick(1))
    free = {"max_size_runs": 30, "min_difference": 1}
    side = sizes.Guarded(world, tmp_path, linear.config, "partner", reads_sizes=True, policy=free)
    assert split(world, side, 8).people > 10 and side.shown == 30
    assert deduce(world, side.asked).people >= 1
