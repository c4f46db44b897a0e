"""Clocks that are wrong, or are set in the middle of a run, change no result; the log says that it happened."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.simulation.clocks import CASES, Case, play_all

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FEW = (Case("partner", -DAY, False), Case("bank", -HOUR, True))
"""One of a day at the start, which is refused, and one of an hour in the run: all of them are the slow form."""


def test_two_wrong_clocks_change_no_model_and_stand_in_the_log(tmp_path: Path) -> None:
    assert [fault for _, _, fault in play_all(FEW, tmp_path)] == ["", ""]


@pytest.mark.slow  # 24 whole jobs: half a minute
def test_no_wrong_clock_changes_a_model(tmp_path: Path) -> None:
    found = play_all(CASES, tmp_path)
    assert len(found) == 24 and not [(case, fault) for case, _, fault in found if fault]
