"""Jobs on invented data, one for each family of models, for `fedmkt attack-lab --all`."""

from collections.abc import Mapping
from pathlib import Path

from fedmkt.simulation.world import generate, write_world

_TREES = (
    'kind = "trees"\n\n[trees]\nreveal = "{}"\ntrees = {}\ndepth = 3\nmin_rows = 50\n{}\n[bins]\ncount = 10\n'
)
MODELS: Mapping[str, str] = {
    "logistic": 'kind = "logistic"\niterations = 8\n',
    "scorecard": 'kind = "scorecard"\niterations = 8\n\n[bins]\ncount = 6\n',
    "additive": 'kind = "additive"\niterations = 8\n\n[additive]\nknots = 3\n',
    "linear": 'kind = "linear"\niterations = 8\n',
    "poisson": 'kind = "poisson"\niterations = 8\n',
    "trees-sides": _TREES.format("sides", 10, ""),
    "trees-totals": _TREES.format("totals", 10, ""),
    "trees-checked": _TREES.format("totals", 5, "checked_shares = true\n"),
    "trees-nothing": _TREES.format("nothing", 3, ""),
    "logistic-two": 'kind = "logistic"\niterations = 8\n',
    "trees-sides-two": _TREES.format("sides", 10, ""),
    "trees-totals-two": _TREES.format("totals", 5, ""),
}
"""The section [model] of each family's job, and those that belong to it; `-two` with a second partner."""
SIZES = (6000, 5500, 4500)
"""Rows of the bank, of the partner, and customers of both."""


def write_job(
    folder: Path, family: str, seed: int, sizes: tuple[int, int, int] = SIZES, minimum: int = 1000
) -> Path:
    """Write the files of a family's job into a folder; returns the job's path.

    minimum : smallest list and intersection; groups have at least 50 rows whatever it is.
    """
    partners = 2 if family.endswith("-two") else 1
    job = write_world(generate(seed, *sizes, partners), folder, minimum=minimum)
    before, found, after = job.read_text(encoding="utf-8").partition("[model]\n")
    _, limits, rest = after.partition("[limits]\n")
    if not (found and limits):
        raise ValueError("a job without sections for model and limits")
    if family in ("linear", "poisson"):  # an answer of 0 or 1 is a number and a count too
        before = before.replace('label = "responded"\n', 'label = "responded"\nlabel_kind = "number"\n')
    if "min_events" not in rest:  # few rows for the columns of splines: the attacks ask for no good model
        rest = f"min_events = 0\n{rest}"
    job.write_text(f"{before}[model]\n{MODELS[family]}\n[limits]\n{rest}", encoding="utf-8")
    return job
