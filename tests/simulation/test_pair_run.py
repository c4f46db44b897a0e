"""A job with pairs of two parties from file to page: the twin, kill and resume, the plan, refusals in one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedmkt.cli.app import main
from fedmkt.errors import ConfigError, DataError
from fedmkt.simulation.plan import plan
from fedmkt.simulation.run import RunResult, simulate
from fedmkt.simulation.world import generate, write_world
from tests.simulation.kills import References, faults, kill_at, small_job
from tests.simulation.test_additive_run import additive

PAIR = 'knots = 3\npairs = [["bank/age", "partner/spend"]]'
COLUMNS = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run in which each owner is given its own part of the model."""
    folder = tmp_path_factory.mktemp("pairs")
    job = write_world(generate(3, 2500, 3000, 1800), folder / "files", minimum=300)

    return simulate(additive(job, PAIR, disclosures=("ModelPart",)), out=folder / "run", seed=3)


def job_of(run: RunResult) -> Path:
    return run.folder.parent / "files" / "job.toml"


def test_the_joint_model_is_the_centralised_one_on_the_same_products(run: RunResult) -> None:
    models = run.summary.responses
    assert models.joint_exact is not None and models.centralised is not None
    assert models.joint_exact.metrics.auc == pytest.approx(models.centralised.metrics.auc, abs=1e-3)
    weight_error = run.facts["weight_error"]
    assert isinstance(weight_error, float) and weight_error < 1e-2


def test_no_owner_is_given_a_weight_of_the_products(run: RunResult) -> None:
    for party, intercept in (("bank", 1), ("partner", 0)):
        model = run.folder / "parties" / party / "model"
        own = len(json.loads((model / "model.json").read_text())["columns"])
        assert len(np.load(model / "own_weights.npy")) == own + intercept
        assert json.loads((model / "shapes.json").read_text())["pairs"] == []


def test_the_page_says_which_products_count_and_that_nobody_sees_them(run: RunResult) -> None:
    page = run.report.read_text()
    assert "bank/age × partner/spend" in page and "nobody is shown them" in page
    assert run.summary.shared_pairs == (("bank/age", "partner/spend"),)


def test_the_passes_in_clear_arithmetic_end_at_the_same_loss(run: RunResult) -> None:
    measured, joint = run.summary.convergence, run.summary.responses.joint_exact
    assert len(measured) == 20 and measured[-1].change < 1e-2 and joint is not None
    assert measured[-1].value is not None and measured[0].value is not None
    assert measured[-1].value < measured[0].value


def test_the_plan_tells_what_a_pair_costs(run: RunResult) -> None:
    job, widths = job_of(run), {}
    for party in ("bank", "partner"):
        header = run.folder / "parties" / party / "model" / "model.json"
        widths[party] = len(json.loads(header.read_text())["columns"])
    unlabelled = run.facts["common"]["unlabelled"]  # type: ignore[index]
    found = plan(job, common=1800, labelled=1800 - unlabelled, columns=widths)
    assert found.rounds == run.summary.rounds
    for party, real in run.summary.bytes_sent.items():
        assert found.bytes_sent[party] == pytest.approx(real, rel=0.15), party
    without = job.with_name("without.toml")
    without.write_text(job.read_text().replace(PAIR, "knots = 3"))
    before = plan(without, common=1800, labelled=1800 - unlabelled, columns=widths)
    masked = 8 * COLUMNS * (found.train_rows + found.scored_rows)
    assert found.bytes_sent["partner"] - before.bytes_sent["partner"] > masked
    assert found.bytes_sent["coordinator"] - before.bytes_sent["coordinator"] > masked
    assert found.memory > before.memory and any("pair of two parties" in text for text in found.assumptions)


@pytest.mark.parametrize("where", ["fit.update:6", "score.share_pairs:3"])
def test_a_killed_run_with_a_pair_ends_as_if_it_had_not_been_killed(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmkt.simulation.results.write_results", lambda *_: (None, {}))
    job = additive(small_job(tmp_path / "files", rows=(1000, 1100, 800)), PAIR)
    call = ["simulate", str(job), "--out", str(tmp_path / "run"), "--seed", "8", "--json"]
    assert kill_at(where, *call)
    assert main([*call, "--resume"]) == 0
    assert faults(tmp_path / "run", References(job, tmp_path, 8)) == []


def test_a_pair_whose_number_few_rows_carry_is_refused_in_one_line(tmp_path: Path) -> None:
    job = additive(small_job(tmp_path / "files", rows=(1000, 1100, 800)), PAIR)
    table = job.parent / "partner.csv"
    header, *lines = table.read_text().splitlines()
    at = header.split(",").index("spend")
    cells = [line.split(",") for line in lines]
    for row in cells[: len(cells) * 3 // 5]:
        row[at] = ""
    table.write_text("\n".join([header, *(",".join(row) for row in cells)]) + "\n")
    with pytest.raises(DataError, match=r"refused at prepare\.fit") as refused:
        simulate(job, out=tmp_path / "run", seed=3)
    assert "'spend' cannot be paired" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ('[["bank/age", "partner/nothing"]]', "not partner/nothing"),
        ('[["bank/age", "partner/device"]]', "not partner/device"),
        ('[["bank/age", "partner/spend"], ["partner/spend", "bank/age"]]', "every pair once"),
    ],
)
def test_pairs_that_nobody_can_make_are_refused_before_anything_runs(
    pairs: str, said: str, tmp_path: Path
) -> None:
    job = additive(small_job(tmp_path / "files"), f"pairs = {pairs}")
    with pytest.raises(ConfigError, match=said):
        simulate(job, out=tmp_path / "run", seed=3)
