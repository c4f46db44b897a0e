"""Many runs in one process: memory and open files must stay as they were.

python -m tests.simulation.soak --minutes 10              runs of a small job in memory, one after the other
python -m tests.simulation.soak --minutes 10 --runs 500   both: as many runs, and as long, at the least
"""

import argparse
import gc
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t

WARM_UP = 5
MIB_PER_HOUR = 1.0
"""Goal R11 of the longest form; over minutes the allocator's own steps are more than this."""


@dataclass(frozen=True)
class Held:
    """What the process held after a run: memory in MiB, open files; and when, seconds from the start."""

    at: float
    mib: float
    files: int


def held(began: float) -> Held:
    """Measure this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(
        time.monotonic() - began,
        pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20),
        len(os.listdir("/proc/self/fd")),
    )


def soak(run: Callable[[int], object], goes_on: Callable[[int], bool]) -> list[Held]:
    """Run again and again; returns what was held after each run, the first ones (imports, compiling) left out."""
    began, found, number = time.monotonic(), list[Held](), 0
    while goes_on(number):
        run(number)
        number += 1
        gc.collect()
        if number > WARM_UP:
            found.append(held(began))
    return found


def growth_per_run(found: list[Held]) -> float:
    """Return the slope of memory over runs in MiB, by least squares."""
    return float(np.polyfit(np.arange(len(found)), [h.mib for h in found], 1)[0])


def growth_per_hour(found: list[Held], blocks: int = 20) -> tuple[float, float]:
    """Return the slope of memory over time in MiB per hour, by least squares, and half its 95 % interval.

    The interval is that of the slope through the means of `blocks` equal stretches: the memory of neighbouring runs
    goes together, so that single runs would promise too narrow a one.
    """
    stretches = np.array_split(np.array([(h.at / 3600, h.mib) for h in found]), blocks)
    hours, mib = np.array([s.mean(axis=0) for s in stretches]).T
    (slope, _), spread = np.polyfit(hours, mib, 1, cov=True)
    return float(slope), float(t.ppf(0.975, blocks - 2) * np.sqrt(spread[0, 0]))


def main() -> int:
    from fedmkt.simulation import results
    from fedmkt.simulation.run import simulate
    from tests.simulation.kills import small_job

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=0, help="go on until there were so many")
    chosen = parser.parse_args()
    results.write_results = lambda *_: (None, {})  # type: ignore[assignment,return-value]
    ends = time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory() as folder:
        job = small_job(Path(folder) / "world")

        def run(number: int) -> None:
            simulate(job, out=Path(folder) / "run", seed=number)
            shutil.rmtree(Path(folder) / "run")

        found = soak(run, lambda number: time.monotonic() < ends or number < chosen.runs)
    half = found[len(found) // 2 :]
    slope, margin = growth_per_hour(half)
    facts = {
        "runs": len(found) + WARM_UP,
        "MiB": [round(h.mib, 1) for h in (found[0], half[0], found[-1])],
        "MiB per run, second half": round(growth_per_run(half), 4),
        "minutes": round(found[-1].at / 60, 1),
        "MiB per hour, second half": f"{slope:.2f} +- {margin:.2f}",
        "open files": sorted({h.files for h in found}),
    }
    print(json.dumps(facts), flush=True)
    return int(len(set(facts["open files"])) > 1)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
