"""An additive job from file to page: shapes at their owners, the functions of the twin, kill and resume, the plan."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedmkt.cli.app import main
from fedmkt.learn import glm
from fedmkt.learn.additive import Additive
from fedmkt.learn.shapes import Shapes, shapes
from fedmkt.party.node import open_data
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.protocol.prepare import read_fitted
from fedmkt.report.shapes import read_shapes
from fedmkt.simulation.compare import load_side
from fedmkt.simulation.plan import plan
from fedmkt.simulation.run import RunResult, read_job, simulate
from fedmkt.simulation.world import generate, write_world
from tests.simulation.kills import References, faults, kill_at, small_job

PAIRS = 'pairs = [["bank/age", "bank/job"], ["partner/orders", "partner/spend"]]'


def additive(job: Path, more: str, model: str = "", disclosures: tuple[str, ...] = ()) -> Path:
    """Make a job one of kind additive."""
    text = job.read_text().replace("[model]\n", f'[model]\nkind = "additive"\n{model}')
    kinds = f"disclosures = {json.dumps([*DEFAULT, *disclosures])}\n" if disclosures else ""
    job.write_text(f"{kinds}{text}\n[additive]\n{more}\n")
    return job


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run in which each owner is given its part of the model."""
    folder = tmp_path_factory.mktemp("additive")
    job = write_world(generate(3, 2500, 3000, 1800), folder / "files", minimum=300)
    return simulate(
        additive(job, "knots = 3\n" + PAIRS, "iterations = 40\n", ("ModelPart",)), out=folder / "run", seed=3
    )


@pytest.fixture(scope="module")
def job(opened: RunResult) -> Path:
    return opened.folder.parent / "files" / "job.toml"


def own_shapes(run: RunResult, party: str) -> Shapes:
    (found,) = read_shapes(run.folder / "parties" / party / "model", party)
    return found.shapes


def test_every_owners_shapes_are_those_of_the_centralised_twin(opened: RunResult, job: Path) -> None:
    config = read_job(job)
    tables = [open_data(p, job.parent) for p in config.parties]
    folders = [opened.folder / "parties" / p.name / "model" for p in config.parties]
    sides = [load_side(folder, table) for folder, table in zip(folders, tables, strict=True)]
    assert sides[0].label_train is not None
    twin = glm.fit_logistic(np.hstack([s.train for s in sides]), sides[0].label_train, config.model.penalty)
    at, compared = 0, 0
    for party, folder, table, side in zip(config.parties, folders, tables, sides, strict=True):
        fitted = read_fitted(json.dumps(json.loads((folder / "model.json").read_text())["preparation"]))
        assert isinstance(fitted, Additive)
        train = np.load(folder / "train.npy")
        weights = twin.coefficients[at : at + side.train.shape[1]]
        at += len(weights)
        own = ({n: v[train] for n, v in values.items()} for values in (table.numbers, table.categories))
        wanted, found = shapes(fitted, weights, *own), own_shapes(opened, party.name)
        assert [s.column for s in found.columns] == [s.column for s in wanted.columns]
        for ours, theirs in zip(found.columns, wanted.columns, strict=True):
            assert ours.values == theirs.values
            assert np.allclose(ours.effects, theirs.effects, atol=2e-2)
            assert np.allclose([v.effect for v in ours.levels], [v.effect for v in theirs.levels], atol=2e-2)
            compared += len(ours.effects) + len(ours.levels)
        for one, two in zip(found.pairs, wanted.pairs, strict=True):
            assert one.size == pytest.approx(two.size, abs=2e-2)
    assert compared > 500


def test_the_page_of_a_simulation_draws_the_columns_of_every_party(opened: RunResult) -> None:
    page = opened.report.read_text()
    for party in ("bank", "partner"):
        assert f"What each column of {party} adds" in page
        for shape in own_shapes(opened, party).columns:
            assert f"<h3>{shape.column}</h3>" in page
    assert page.count('aria-label="') >= 16 and "orders × spend" in page


def test_without_the_disclosure_no_owner_has_shapes_or_weights(tmp_path: Path) -> None:
    job = additive(small_job(tmp_path / "files"), "knots = 2")
    run = simulate(job, out=tmp_path / "run", seed=3)
    left = {p.name for p in run.folder.rglob("*") if p.parent.name == "model"}
    assert "share.npy" in left and not {"shapes.json", "own_weights.npy"} & left
    assert run.summary.shapes == () and "What each column" not in run.report.read_text()


def test_a_killed_additive_run_ends_as_if_it_had_not_been_killed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fedmkt.simulation.results.write_results", lambda *_: (None, {}))
    job = additive(small_job(tmp_path / "files"), "knots = 3")
    call = ["simulate", str(job), "--out", str(tmp_path / "run"), "--seed", "7", "--json"]
    assert kill_at("fit.update:6", *call)
    assert main([*call, "--resume"]) == 0
    assert faults(tmp_path / "run", References(job, tmp_path, 7)) == []


def test_the_plan_counts_the_columns_of_functions(job: Path) -> None:
    found = {p.name: p.columns for p in plan(job).parties}
    config = read_job(job)
    for party in config.parties:
        header = json.loads((job.parent.parent / "run/parties" / party.name / "model/model.json").read_text())
        assert len(header["columns"]) <= 1.1 * found[party.name] <= 1.5 * len(header["columns"])
