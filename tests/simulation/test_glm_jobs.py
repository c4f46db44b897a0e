"""Whole jobs of the GLM family beside plain logistic regression: run, plan, outputs, page, centralised twin."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fedmkt
from fedmkt.errors import ConfigError
from fedmkt.party.node import open_data
from fedmkt.report.build import read_summary
from fedmkt.report.scores import read_scores
from fedmkt.report.summary import ValueModels
from fedmkt.simulation.compare import compare
from fedmkt.simulation.run import RunResult, read_job, simulate
from fedmkt.simulation.world import generate, write_world

COMMON = 1800


def written(
    folder: Path, more: dict[str, Callable[[np.random.Generator], object]], edit: dict[str, str]
) -> Path:
    """Write a small world whose bank has more columns, and a job in which lines are edited."""
    job = write_world(generate(5, 2200, 2300, COMMON), folder, minimum=300)
    random, path = np.random.default_rng(2), folder / "bank.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {name: draw(random) for name, draw in more.items()}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    text = job.read_text()
    for old, new in edit.items():
        assert old in text
        text = text.replace(old, new)
    job.write_text(text)
    return job


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("weighted")
    more = {"risk": lambda r: f"{r.normal(0, 0.5):.3f}", "counts": lambda r: r.choice(["0.5", "1", "1.5"])}
    edit = {
        'label = "': 'offset = "risk"\nweight = "counts"\nlabel = "',
        "[model]\n": "[model]\niterations = 28\nclass_weights = [1.0, 4.0]\nmax_offset = 4.0\n",
    }
    return simulate(written(folder, more, edit), out=folder / "run", seed=1)


def planned_columns(run: RunResult) -> dict[str, int]:
    models = run.folder / "parties"
    return {
        p: len(json.loads((models / p / "model" / "model.json").read_text())["columns"])
        for p in ("bank", "partner")
    }


def check_plan(run: RunResult) -> None:
    """The plan knows rounds and bytes."""
    unlabelled = run.facts["common"]["unlabelled"]
    job = run.folder.parent / "job.toml"
    planned = fedmkt.plan(job, common=COMMON, labelled=COMMON - unlabelled, columns=planned_columns(run))
    assert planned.rounds == run.summary.rounds
    for party, real in run.summary.bytes_sent.items():
        assert planned.bytes_sent[party] == pytest.approx(real, rel=0.05), party


def test_a_job_with_offset_and_weights_ends_at_its_centralised_twin(weighted: RunResult) -> None:
    assert weighted.facts["weight_error"] < 5e-3
    models = weighted.summary.models
    assert models.centralised is not None
    assert abs(models.joint.metrics.auc - models.centralised.metrics.auc) < 2e-3
    assert models.joint.metrics.auc > models.bank.metrics.auc + 0.02
    held = read_scores(weighted.folder / "parties" / "bank" / "model").held_out
    assert held.sum() == models.joint.metrics.rows


def test_the_plan_of_a_job_with_weights_knows_its_rounds_and_bytes(weighted: RunResult) -> None:
    check_plan(weighted)


def test_released_scores_and_the_page_are_those_of_the_weighted_model(weighted: RunResult) -> None:
    path = weighted.folder.parent / "job.toml"
    config = read_job(path)
    exact = compare(config, weighted.folder, {p.name: open_data(p, path.parent) for p in config.parties})
    released = read_scores(weighted.folder / "parties" / "bank" / "model")
    assert np.abs(released.rounded[released.held_out] - exact.joint).max() < 0.011
    assert read_summary(weighted.folder) == weighted.summary
    assert weighted.report.read_text().startswith("<!DOCTYPE html>")


# ------------------------------------------------------------------------------------------ numbers and counts


def last_digits(phone: str) -> str:
    """Return what is the same in every way of writing a number."""
    return "".join(c for c in phone if c.isdigit())[-9:]


def valued(folder: Path, kind: str, model: str = "") -> RunResult:
    """Run a job whose label is a number or a count that depends on columns of both sides."""
    job = write_world(generate(5, 2200, 2300, COMMON), folder, minimum=300)
    path = folder / "bank.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "partner.csv").open(newline="") as file:
        orders = {last_digits(row["phone"]): float(row["orders"] or 0) for row in csv.DictReader(file)}
    random = np.random.default_rng(3)
    for row in rows:
        if not row["responded"]:
            continue
        z = 0.15 * min(orders.get(last_digits(row["phone"]), 0.0), 8) + 0.02 * (float(row["age"] or 40) - 40)
        money = round(200 + 80 * z + random.normal(0, 60))
        row["responded"] = str(random.poisson(np.exp(z - 1)) if kind == "poisson" else money)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    text = job.read_text().replace('label = "', 'label_kind = "number"\nlabel = "')
    job.write_text(text.replace("[model]\n", f'[model]\nkind = "{kind}"\niterations = 24\n{model}'))
    return simulate(job, out=folder / "run", seed=1)


@pytest.fixture(scope="module", params=["linear", "poisson"])
def values(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return valued(tmp_path_factory.mktemp(request.param), request.param)


def test_a_job_with_numbers_or_counts_ends_at_its_centralised_twin(values: RunResult) -> None:
    models = values.summary.models
    assert (
        isinstance(models, ValueModels) and models.centralised is not None and models.joint_exact is not None
    )
    assert values.facts["weight_error"] < 5e-3
    assert abs(models.joint_exact.r2 - models.centralised.r2) < 1e-3
    assert abs(models.joint.rmse / models.centralised.rmse - 1) < 2e-3
    assert models.joint.r2 > models.bank.r2 + 0.02, "the partner's orders explain some of it"
    if models.kind == "poisson":
        assert models.joint.deviance == pytest.approx(models.centralised.deviance, abs=1e-3)
    else:
        assert models.joint.deviance is None


def test_the_plan_of_such_a_job_knows_its_rounds_and_bytes(values: RunResult) -> None:
    check_plan(values)


def test_scores_of_numbers_are_in_the_labels_own_unit_and_have_no_probability(values: RunResult) -> None:
    path = fedmkt.score(values.folder)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "set", "score", "decile"]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    models = values.summary.models
    assert isinstance(models, ValueModels)
    assert np.mean(scores) == pytest.approx(models.joint.mean_label, rel=0.2)


def test_the_page_and_the_summary_say_what_is_explained(values: RunResult) -> None:
    page = values.report.read_text()
    assert "RMSE" in page and "AUC" not in page and "<svg" in page
    assert ("Poisson deviance" in page) == (values.facts["kind"] == "poisson")
    assert read_summary(values.folder) == values.summary
    with pytest.raises(ValueError, match="predicts values, not answers"):
        values.summary.partner_gain.auc  # noqa: B018  # the property itself is what refuses


def test_a_label_kind_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    job = write_world(generate(5, 600, 600, 300), tmp_path, minimum=100)
    job.write_text(job.read_text().replace("[model]\n", '[model]\nkind = "linear"\n'))
    with pytest.raises(ConfigError, match='label_kind = "number" where the model is linear'):
        read_job(job)
