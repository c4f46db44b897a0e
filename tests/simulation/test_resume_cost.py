"""What a kill costs: after it at most one checkpoint's interval is asked again."""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from tests.engine import Killed, Tap
from tests.party.test_write_faults import TOTAL, toy


def asked(tap: Tap) -> dict[int, str]:
    """Return what parties were asked: the step of each call, by its index."""
    return {p.message.index: p.message.step for p in tap.requests}


@pytest.mark.parametrize("apart", [5, pytest.param(1, marks=pytest.mark.slow)])  # 1: three seconds
def test_a_kill_redoes_at_most_what_lies_between_two_checkpoints(tmp_path: Path, apart: int) -> None:
    whole = Tap()
    assert toy(tmp_path / "whole").run(whole) == TOTAL
    calls = asked(whole)
    saves = [index for index, step in sorted(calls.items()) if step.endswith(".save")]
    ends = sorted({0, *(i + 1 for i in saves if i + 1 not in saves), len(calls)})
    longest = max(after - before for before, after in pairwise(ends))
    assert len(ends) == 4  # two checkpoints: three stretches
    redone = []
    for requests in range(1, len(whole.requests), apart):
        world, before, after = toy(tmp_path / "cut"), Tap(stop_after=requests), Tap()
        with pytest.raises(Killed):
            world.run(before)
        assert world.run(after, resume=True) == TOTAL
        again = asked(before).keys() & asked(after).keys()
        assert asked(before).keys() | asked(after).keys() == calls.keys()
        redone.append(len(again))
        shutil.rmtree(tmp_path / "cut")
    assert 0 < max(redone) <= longest, (redone, ends)
