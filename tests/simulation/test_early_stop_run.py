"""Jobs of boosted trees that stop early, in both modes, from the files to the report, and their plan."""

import json
from collections import Counter

import numpy as np
import pytest

import fedmkt
from fedmkt.audit.verify import verify_run
from fedmkt.party.node import open_data
from fedmkt.report.build import read_summary
from fedmkt.simulation import compare_trees
from fedmkt.simulation.run import RunResult, read_job, simulate
from tests.simulation.test_tree_run import tree_job

MOST = 8
STOPS = f"trees = {MOST}\nrate = 0.9\npatience = 1\nvalidation_fraction = 0.3\nclass_weights = [1.0, 2.0]"


@pytest.fixture(scope="module", params=["sides", "totals"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp(request.param)
    job = tree_job(folder, 2000, 1900, 1700)
    text = job.read_text().replace('reveal = "sides"', f'reveal = "{request.param}"')
    job.write_text(text.replace("trees = 10\ndepth = 3", f"{STOPS}\ndepth = 2"))
    return simulate(job, out=folder / "run", seed=1)


def mode_of(run: RunResult) -> str:
    return str(read_job(run.folder.parent / "job.toml").trees.reveal)


def test_all_parties_keep_the_same_trees_and_rows_and_the_twin_stops_likewise(run: RunResult) -> None:
    config = read_job(run.folder.parent / "job.toml")
    tables = {p.name: open_data(p, run.folder.parent) for p in config.parties}
    exact = compare_trees.compare(config, run.folder, tables)
    folders = [run.folder / "parties" / p.name / "model" for p in config.parties]
    headers = [json.loads((f / "model.json").read_text()) for f in folders]
    kept = len(headers[0]["outline"]["trees"])
    assert [len(h["part"]["trees"]) for h in headers] == [kept, kept]
    assert kept < MOST
    masks = [np.load(f / "validates.npy", allow_pickle=False) for f in folders]
    assert np.array_equal(*masks) and len(masks[0]) == len(np.load(folders[0] / "train.npy"))
    assert 0.2 < masks[0].mean() < 0.4
    if mode_of(run) == "sides":
        assert np.array_equal(exact.joint, exact.centralised)
        assert kept <= len(exact.convergence) <= kept + 1
    else:
        assert np.abs(exact.joint - exact.centralised).mean() < 0.1


def test_the_logs_verify_and_the_page_says_when_training_ended(run: RunResult) -> None:
    assert {log.party for log in verify_run(run.folder).logs} == {"bank", "partner", "coordinator"}
    kinds = Counter((d.reader, d.kind) for d in read_summary(run.folder).disclosures)
    assert kinds["bank", "ValidationLosses"] == (mode_of(run) == "totals")
    assert kinds["partner", "StopBits"] == kinds["coordinator", "StopBits"] == 1
    assert ("partner", "ValidationLosses") not in kinds
    page = run.report.read_text()
    assert "whether training goes on" in page
    assert ("mean losses" in page) == (mode_of(run) == "totals")


def test_the_plan_reckons_with_all_trees(run: RunResult) -> None:
    planned = fedmkt.plan(run.folder.parent / "job.toml")
    assert all(planned.bytes_sent[p] >= real for p, real in run.summary.bytes_sent.items())
    assert planned.rounds >= run.summary.rounds
    assert all(bound.holds for bound in planned.bounds)
    assert "no training stops early" in " ".join(planned.lines())
