"""A small job on a disk that fails (tests/failing_disk.py): each write of it fails once, and the run is gone on with.

python -m tests.simulation.write_faults            every write in each way: two hours
python -m tests.simulation.write_faults 20         every twentieth write in each way
python -m tests.simulation.write_faults sites      one write of each place in the code, in each way
python -m tests.simulation.write_faults turn 0     every write once, the ways in turn; turn 1 and turn 2 are the rest
"""

import collections
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.failing_disk import FAULTS, Disk, first_of_each, forked
from tests.simulation.kills import References, faults, quick, small_job


def _on_disk(disk: Disk, call: Sequence[str]) -> int:
    disk.attach()
    return quick(call)


def writes_of(call: Sequence[str], out: Path, listing: Path) -> list[str]:
    """Return the place of every write of an uninterrupted run, in order."""

    def record() -> int:
        disk = Disk(out)
        code = _on_disk(disk, call)
        disk.detach()
        listing.write_text("\n".join(disk.sites))
        return code

    ended = forked(record)
    if ended.code:
        raise AssertionError(ended.said)
    return listing.read_text().split("\n")


@dataclass
class Bench:
    """A small job, what its uninterrupted run writes, and what came of faults in it."""

    folder: Path
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)

    def __post_init__(self) -> None:
        self.job = small_job(self.folder / "world", iterations=2, every=1)
        self.out = self.folder / "run"
        self.call = ["simulate", str(self.job), "--out", str(self.out), "--seed", "7", "--json"]
        self.references = References(self.job, self.folder, seed=7)
        self.references.like()
        self.writes = writes_of(self.call, self.out, self.folder / "writes")
        shutil.rmtree(self.out)

    def suffer(self, number: int, fault: str) -> list[str]:
        """Let one write fail, go on with the run, and return what is wrong; nothing if nothing is."""
        try:
            return self._suffer(number, fault)
        finally:
            shutil.rmtree(self.out, ignore_errors=True)

    def _suffer(self, number: int, fault: str) -> list[str]:
        ended = forked(lambda: _on_disk(Disk(self.out, number, fault), self.call))
        if ended.fault:
            return [f"while it failed: {ended.fault}"]
        if not (self.out / "result.json").exists():
            if ended.code == 0:
                return ["ended well without a result"]
            again = [*self.call, "--resume"] if (self.out / "contract.toml").exists() else self.call
            if again is self.call:
                shutil.rmtree(self.out, ignore_errors=True)  # nothing was begun: a person starts anew
            went_on = forked(lambda: quick(again))
            if went_on.fault:
                return [f"while it went on: {went_on.fault}"]
            if went_on.code:
                self.outcomes["refused"] += 1
                print(
                    f"{fault} at {self.writes[number - 1]}: refused: {went_on.said.strip()[:200]}", flush=True
                )
                return []
            self.outcomes["begun anew" if again is self.call else "went on"] += 1
        else:
            self.outcomes["ended in spite of it"] += 1
        return faults(self.out, self.references)


Case = tuple[int, str]
"""The number of a write, from 1, and the way in which it fails."""


def each_way(numbers: Sequence[int]) -> list[Case]:
    """Return the cases in which each of these writes fails in every way."""
    return [(number, fault) for fault in FAULTS for number in numbers]


def in_turn(writes: int, turn: int) -> list[Case]:
    """Return the cases in which every write fails once; over three turns each fails in every way."""
    return [(number, FAULTS[(number + turn) % len(FAULTS)]) for number in range(1, writes + 1)]


def sweep(cases: Callable[[Bench], Sequence[Case]]) -> int:
    """Run these cases; returns how many times something was wrong, and prints what came of them."""
    bad, done = 0, collections.Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        chosen = cases(bench)
        for number, fault in chosen:
            if wrong := bench.suffer(number, fault):
                bad += 1
                facts = {"fault": fault, "write": number, "site": bench.writes[number - 1], "wrong": wrong}
                print(json.dumps(facts), flush=True)
            done[fault] += 1
            if done.total() % 50 == 0 or done.total() == len(chosen):
                print(json.dumps({**done, **bench.outcomes, "wrong": bad}), flush=True)
        print(
            f"{len(set(bench.writes))} places, {len(bench.writes)} writes, {len(chosen)} faults; {bad} wrong"
        )
    return bad


def _chosen(arguments: Sequence[str]) -> Callable[[Bench], Sequence[Case]]:
    match arguments:
        case ["sites"]:
            return lambda bench: each_way(first_of_each(bench.writes))
        case ["turn", turn]:
            return lambda bench: in_turn(len(bench.writes), int(turn))
        case _:
            step = int(arguments[0]) if arguments else 1
            return lambda bench: each_way(range(1, len(bench.writes) + 1, step))


if __name__ == "__main__":
    sys.exit(min(sweep(_chosen(sys.argv[1:])), 1))
