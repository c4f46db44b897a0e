"""How many customers the parties of a job share, counted by their real programs on one machine.

What comes out is what a deployment would show: bands and rates. The exact number is nowhere: a simulation is
how people try what they will allow.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from fedmkt.config.job import overlap_of
from fedmkt.party.journal import write_atomically
from fedmkt.party.outputs import pair_facts
from fedmkt.protocol.alignment.cardinality import Overlaps
from fedmkt.simulation.progress import Progress
from fedmkt.simulation.run import carry_out, in_plain_words, layout_of, read_job


@dataclass(frozen=True)
class OverlapResult:
    """A finished count: its folder, and the bands."""

    folder: Path
    overlaps: Overlaps

    def to_json(self) -> dict[str, object]:
        """Return the facts that `--json` prints: partner, common customers and rate of each pair."""
        return {"overlap": pair_facts(self.overlaps)}


def count_overlap(
    job: Path | str,
    backend: str = "memory",
    out: Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> OverlapResult:
    """Count the common customers of a job's parties, all on this machine; columns and model of the job are ignored.

    Arguments and errors are those of `run.simulate`.
    """
    path = Path(job)
    config = overlap_of(read_job(path))
    layout = layout_of(f"{config.name}-overlap", out, resume)
    with in_plain_words(layout):
        run = carry_out(config, path, layout, backend, seed, resume, progress)
        if not isinstance(run.outcome, Overlaps):
            raise ValueError("the job returned something else")
        result = OverlapResult(layout.folder, run.outcome)
        write_atomically(layout.result, json.dumps(result.to_json(), indent=1).encode(), mode=0o644)
    return result
