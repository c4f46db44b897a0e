from pathlib import Path

import pytest

from tests.deploy.e2e import compare, invented_job
from tests.simulation.test_families import CASES


def test_a_deployment_gives_the_model_of_the_run_in_memory_to_the_last_bit(tmp_path: Path) -> None:
    found = compare(tmp_path, invented_job(tmp_path / "data", (2000, 2400, 1500), 1))
    assert found.differences == found.left == ()
    assert found.common[0] <= 1500 <= found.common[1]


@pytest.mark.slow  # a deployment of a minute for each
@pytest.mark.parametrize("family", CASES)
def test_each_family_gives_the_same_in_a_deployment(tmp_path: Path, family: str) -> None:
    found = compare(tmp_path, CASES[family].write(tmp_path / "data"))
    assert found.differences == found.left == ()


@pytest.mark.slow  # each step waits for Flower's polls: some 3 s a round
def test_steps_that_travel_as_flower_messages_give_the_same_model(tmp_path: Path) -> None:
    job = invented_job(tmp_path / "data", (600, 700, 400), 1)
    job.write_text(job.read_text().replace("[model]\n", "[model]\niterations = 2\n"))
    found = compare(tmp_path, job, channel="flower")
    assert found.differences == found.left == ()
