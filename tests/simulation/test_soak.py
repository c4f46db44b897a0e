"""Many runs in one process leave nothing behind in it; `make soak` is the long form with whole jobs."""

import shutil
from pathlib import Path

from tests.party.test_write_faults import TOTAL, toy
from tests.simulation.soak import growth_per_run, soak


def test_twelve_runs_leave_no_file_open_and_no_memory_behind(tmp_path: Path) -> None:
    def run(_: int) -> None:
        assert toy(tmp_path / "toy").run() == TOTAL
        shutil.rmtree(tmp_path / "toy")

    found = soak(run, lambda number: number < 12)
    assert len({h.files for h in found}) == 1
    assert growth_per_run(found) < 0.5  # MiB: the allocator moves in steps of a quarter
