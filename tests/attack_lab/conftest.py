"""Three small watched runs, of which each attack is asked whether it works where it should and nowhere else."""

from pathlib import Path

import pytest

from fedmkt.attack_lab.jobs import write_job
from fedmkt.attack_lab.subject import Subject, watch_run

SIZES = (2600, 2400, 2000)


def watched(folder: Path, family: str, seed: int = 2) -> Subject:
    """Run the family's job on a small invented world, watched."""
    job = write_job(folder / "world", family, seed, SIZES, minimum=500)
    return watch_run(job, folder / "run", seed)


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A logistic regression."""
    return watched(tmp_path_factory.mktemp("logistic"), "logistic")


@pytest.fixture(scope="session")
def totals(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Trees of which totals are opened."""
    return watched(tmp_path_factory.mktemp("totals"), "trees-totals")


@pytest.fixture(scope="session")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Trees of which the bank is told the sides."""
    return watched(tmp_path_factory.mktemp("sides"), "trees-sides")
