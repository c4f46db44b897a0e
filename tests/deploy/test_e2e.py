from pathlib import Path

from tests.deploy.e2e import compare, invented_job


def test_a_deployment_gives_the_model_of_the_run_in_memory_to_the_last_bit(tmp_path: Path) -> None:
    found = compare(tmp_path, invented_job(tmp_path / "data", (2000, 2400, 1500), 1))
    assert found.differences == ()
    assert found.common[0] <= 1500 <= found.common[1]
