from pathlib import Path

import pytest

import fedmkt
from fedmkt.audit.verify import verify_run
from fedmkt.errors import ConfigError
from fedmkt.simulation.progress import ProgressEvent
from fedmkt.simulation.run import RunResult
from fedmkt.simulation.stages import STAGES


@pytest.fixture(scope="module")
def shown() -> list[ProgressEvent]:
    return []


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory, shown: list[ProgressEvent]) -> RunResult:
    folder = tmp_path_factory.mktemp("demo") / "run"
    return fedmkt.demo(folder, bank_rows=900, partner_rows=1000, common=600, progress=shown.append)


def test_a_demo_leaves_its_world_a_report_and_logs_that_verify(demo_run: RunResult) -> None:
    folder = demo_run.folder
    assert {p.name for p in (folder / "world").iterdir()} == {"bank.csv", "partner.csv", "job.toml"}
    assert demo_run.report.read_text().startswith("<!DOCTYPE html>")
    assert verify_run(folder).outcome == "completed"
    assert demo_run.facts["common"]["exact"] == 600


def test_the_stages_of_a_demo_are_shown_in_order_with_rows_and_bytes(
    demo_run: RunResult, shown: list[ProgressEvent]
) -> None:
    order = list(dict.fromkeys(event.stage for event in shown))
    assert order == ["world", *STAGES, "report"]
    for stage in STAGES:
        own = [e for e in shown if e.stage == stage]
        assert own[-1].done == own[-1].total > 0, stage
        assert [e.done for e in own] == sorted(e.done for e in own)
    assert max(e.rows for e in shown if e.stage == "fit") > 12 * 300
    assert shown[-1].bytes == sum(demo_run.summary.bytes_sent.values())


def test_a_demo_can_be_repeated_in_another_folder_but_not_in_the_same(
    demo_run: RunResult, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="not empty"):
        fedmkt.demo(demo_run.folder, bank_rows=900, partner_rows=1000, common=600)
    again = fedmkt.demo(tmp_path / "again", bank_rows=900, partner_rows=1000, common=600)
    world = "world/bank.csv"
    assert (again.folder / world).read_bytes() == (demo_run.folder / world).read_bytes()
    assert again.summary.contract_digest != demo_run.summary.contract_digest  # fresh keys


def test_more_common_than_customers_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most the customers of either side"):
        fedmkt.demo(tmp_path / "run", bank_rows=500, partner_rows=1000, common=501)
    assert list(tmp_path.iterdir()) == []
