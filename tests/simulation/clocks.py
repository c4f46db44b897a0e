"""A whole job with one participant's clock set wrong, before the run or in the middle of it.

python -m tests.simulation.clocks              24 cases: an hour and a day, ahead and back, at the start and in the run
                                               of the bank, the partner and the coordinator
"""

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from fedmkt.audit.verify import verify_run
from fedmkt.errors import FedmktError
from fedmkt.party.node import Sources
from fedmkt.simulation.run import simulate
from tests.simulation.kills import small_job

SEED = 7
LOOKS = 25
"""After so many looks at it the clock is set, which is in the middle of a run."""
MODEL_FILES = ("model.json", "scores.npz")


@dataclass(frozen=True)
class Case:
    """Whose clock is set by how much, and whether before the run or in the middle of it."""

    name: str
    by: timedelta
    in_run: bool


CASES = tuple(
    Case(name, by, in_run)
    for name, in_run, by in itertools.product(
        ("bank", "partner", "coordinator"),
        (False, True),
        (timedelta(hours=1), timedelta(hours=-1), timedelta(days=1), timedelta(days=-1)),
    )
)


class _SetClock:
    """A clock that is set once; `steady` says how much time really passed."""

    def __init__(self, clock: Callable[[], datetime], case: Case) -> None:
        self._clock, self._case, self._looks = clock, case, 0
        self._now = clock()

    def __call__(self) -> datetime:
        self._looks += 1
        self._now = self._clock()
        return self._now + (self._case.by if self._looks > LOOKS or not self._case.in_run else timedelta())

    def steady(self) -> float:
        return self._now.timestamp()


@contextmanager
def set_clock(case: Case) -> Iterator[None]:
    """Give one participant of simulated runs such a clock."""
    real = Sources.of

    def of(seed: int | None, name: str, *more: object) -> Sources:
        found = real(seed, name, *more)  # type: ignore[arg-type]
        if name != case.name:
            return found
        clock = _SetClock(found.clock, case)
        return Sources(found.random, clock, clock.steady)

    Sources.of = staticmethod(of)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Sources.of = staticmethod(real)  # type: ignore[method-assign]


@dataclass(frozen=True)
class Ended:
    """How a run ended: the models that it left, by file, the steps that logs tell of; or the words of a refusal."""

    models: dict[str, bytes]
    steps: dict[str, list[int]]
    refused: str = ""


def play(job: Path, out: Path) -> Ended:
    """Run the job; all logs must verify."""
    try:
        simulate(job, out=out, seed=SEED)
        verify_run(out)
        models = {
            str(path.relative_to(out)): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.name in MODEL_FILES
        }
        return Ended(models, _steps(out))
    except FedmktError as error:
        return Ended({}, {}, str(error))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _steps(out: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for log in sorted((out / "logs").glob("*/log.jsonl")):
        for record in map(json.loads, log.read_text().splitlines()):
            if record["type"] == "clock.stepped":
                found.setdefault(log.parent.name, []).append(record["body"]["seconds"])
    return found


def wrong(case: Case, plain: Ended, ended: Ended) -> str:
    """Say what is wrong with the end of a case beside that of a run with right clocks; nothing if nothing is."""
    if not case.in_run and case.by < timedelta():
        # By its clock the contract does not hold yet: it refuses before anything leaves.
        return "" if ended.refused.startswith("rule not-expired") else "a contract of tomorrow was taken up"
    if ended.refused:
        return f"refused: {ended.refused}"
    if ended.models != plain.models:
        return "another model"
    expected = {case.name: [round(case.by.total_seconds())]} if case.in_run else {}
    return "" if ended.steps == expected else f"logs tell of the steps {ended.steps}, not {expected}"


def play_all(cases: Sequence[Case], folder: Path) -> list[tuple[Case, Ended, str]]:
    """Play cases, and one run with right clocks before them."""
    job = small_job(folder / "world", iterations=2, every=1)
    plain = play(job, folder / "run")
    if plain.refused or plain.steps or not plain.models:
        raise AssertionError(f"with right clocks: {plain}")
    found = []
    for case in cases:
        with set_clock(case):
            ended = play(job, folder / "run")
        found.append((case, ended, wrong(case, plain, ended)))
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        results = play_all(CASES, Path(name))
    for case, ended, fault in results:
        facts = {"clock": case.name, "seconds": case.by.total_seconds(), "in the run": case.in_run}
        print(json.dumps(facts | {"wrong": fault, "steps": ended.steps, "refused": ended.refused}))
    bad = [fault for _, _, fault in results if fault]
    refused = sum(bool(ended.refused) for _, ended, _ in results)
    print(f"{len(results)} cases, {refused} of them refused at the start, {len(bad)} wrong")
    sys.exit(min(len(bad), 1))
