"""The demonstration: invent a world, run the whole job on it, write the report."""

from pathlib import Path

from fedmkt.errors import ConfigError
from fedmkt.simulation.progress import Progress, ProgressEvent
from fedmkt.simulation.run import WORLD, RunResult, new_folder, simulate
from fedmkt.simulation.world import USUAL_MINIMUM, generate, write_world

_WORLD_SEED = 1


def demo(
    out: Path | None = None,
    seed: int | None = None,
    bank_rows: int = 20_000,
    partner_rows: int = 25_000,
    common: int = 12_000,
    progress: Progress | None = None,
) -> RunResult:
    """Invent a bank and a partner, run the job on them, write report.html; all of it in one new folder.

    seed : for the world and the run; without it the world is always the same and the run's keys are fresh.
    Small worlds lower the job's minimum sizes, which its report then says.
    """
    if common > min(bank_rows, partner_rows):
        raise ConfigError(
            f"common = {common:,}: accepted: at most the customers of either side "
            f"({min(bank_rows, partner_rows):,})"
        )
    folder = out or new_folder("demo")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder}: the folder is not empty", "give a new folder: a demo starts from nothing"
        )
    if progress is not None:
        progress(ProgressEvent("world", 0, 1, bank_rows + partner_rows, 0))
    world = generate(_WORLD_SEED if seed is None else seed, bank_rows, partner_rows, common)
    job = write_world(world, folder / WORLD, min(USUAL_MINIMUM, common // 2))
    return simulate(job, out=folder, seed=seed, progress=progress)
