"""Which part of the job a finished round belongs to, how much of that part is done, and what comes next."""

from collections import Counter
from collections.abc import Mapping

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.align import scored_rows, train_rows
from fedmkt.protocol.alignment.hidden import expected_overlap
from fedmkt.protocol.core import Name, data_parties
from fedmkt.protocol.linear.penalties import all_passes
from fedmkt.protocol.prepare import Shape
from fedmkt.simulation.progress import Progress, ProgressEvent
from fedmkt.simulation.rehearsal import rehearse

STAGES = ("psi", "split", "prepare", "fit", "score", "close")
_STAGES_OF = {"train": STAGES, "overlap": ("overlap", "close")}
_BELONGS = {
    "model": "score", "run": "close", "histogram": "fit", "scorecard": "prepare", "totals": "prepare",
    "correlation": "prepare", "errors": "score", "nodes": "fit", "values": "fit", "scores": "score",
    "bins": "fit", "tags": "fit", "losses": "fit", "path": "fit", "gains": "fit", "leaves": "fit",
}  # fmt: skip


class Stages:
    """Turns rounds as they finish into signs of life of the job's stages, in order.

    The number of rounds comes from a rehearsal in which the shortest list is common: a stage may end a few
    rounds before it was expected to.
    """

    def __init__(self, progress: Progress, contract: Contract, lists: Mapping[Name, int]) -> None:
        overlap = expected_overlap(contract, tuple(lists.values()), min(lists.values()), 0)
        rounds = rehearse(contract, lists, overlap, {p: Shape(1, 1) for p in data_parties(contract)})
        self._progress = progress
        self._stages = _STAGES_OF[contract.task]
        self._totals = Counter(_stages_of(self._stages, [r[0].step.name for r in rounds]))
        self._rows = {
            "psi": sum(lists.values()),
            "overlap": sum(lists.values()),
            "fit": _passes(contract) * train_rows(contract, overlap),
            "score": scored_rows(contract, overlap),
        }
        self._stage = self._stages[0]
        self._done = 0
        self._bytes = 0
        self._tell()

    def __call__(self, event: ProgressEvent) -> None:
        """Take in one finished round: `stage` is the first part of its step's name."""
        found = _BELONGS.get(event.stage, event.stage)
        if found in self._stages and found != self._stage:
            self._stage, self._done = found, 0
        self._done += 1
        self._bytes = event.bytes
        self._tell()
        if self._done >= self._totals[self._stage] and self._stage != self._stages[-1]:
            self._stage, self._done = self._stages[self._stages.index(self._stage) + 1], 0
            self._tell()

    def _tell(self) -> None:
        total = self._totals[self._stage]
        done = min(self._done, total)
        rows = self._rows.get(self._stage, 0) * done // max(1, total)
        self._progress(ProgressEvent(self._stage, done, total, rows, self._bytes))


def _passes(contract: Contract) -> int:
    """Return how often training goes through its rows: a level of a tree is one pass."""
    if contract.model.kind == "trees":
        return contract.trees.trees * contract.trees.depth
    return all_passes(contract)


def _stages_of(stages: tuple[str, ...], steps: list[str]) -> list[str]:
    """Give each round its stage: a witness, a checkpoint or a range check belongs to the stage it stands in."""
    stage, found = stages[0], []
    for step in steps:
        prefix = step.partition(".")[0]
        name = _BELONGS.get(prefix, prefix)
        stage = name if name in stages else stage
        found.append(stage)
    return found
