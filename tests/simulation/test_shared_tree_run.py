"""A job of boosted trees in mode totals from the files to the report, and its plan."""

import pathlib
import re
from collections import Counter

import numpy as np
import pytest

import fedmkt
from fedmkt.audit.verify import verify_run
from fedmkt.party.node import open_data
from fedmkt.protocol import row_blocks
from fedmkt.report.build import read_summary
from fedmkt.report.scores import read_scores
from fedmkt.simulation import compare_trees
from fedmkt.simulation.run import RunResult, read_job, simulate
from tests.simulation.test_tree_run import tree_job


@pytest.fixture(scope="module", params=[1, 2], ids=["one partner", "two partners"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("totals")
    job = tree_job(folder, 3000, 2500, 2200, partners=request.param)
    text = job.read_text().replace('reveal = "sides"', 'reveal = "totals"').replace("trees = 10", "trees = 5")
    job.write_text(text)
    return simulate(job, out=folder / "run", seed=1)


def test_scores_are_those_of_outline_and_parts_rounded_up_or_down(run: RunResult) -> None:
    config = read_job(run.folder.parent / "job.toml")
    exact = compare_trees.compare(
        config, run.folder, {p.name: open_data(p, run.folder.parent) for p in config.parties}
    )
    released = read_scores(run.folder / "parties" / "bank" / "model")
    assert np.abs(released.rounded[released.held_out] - exact.joint).max() < 0.011
    assert exact.joint.std() > 0.01 and np.abs(exact.joint - exact.centralised).max() < 0.2


def test_the_logs_verify_and_say_that_nobody_learned_sides(run: RunResult) -> None:
    partners = [p.name for p in read_job(run.folder.parent / "job.toml").partners]
    assert {log.party for log in verify_run(run.folder).logs} == {"bank", *partners, "coordinator"}
    kinds = Counter((d.reader, d.kind) for d in read_summary(run.folder).disclosures)
    assert kinds["bank", "HistogramTotals"] == kinds["bank", "CellBits"] == len(partners)
    assert kinds["bank", "BinCounts"] == kinds["bank", "BinTotals"] == len(partners)
    assert kinds["bank", "Scores"] == 1
    assert (
        not [kind for _, kind in kinds if kind == "SplitSides"] and ("coordinator", "CellBits") not in kinds
    )
    for partner in partners:
        assert kinds[partner, "CellBits"] == kinds[partner, "ChosenSplits"] == 1
        assert (partner, "HistogramTotals") not in kinds


def test_nothing_costs_more_than_planned(run: RunResult) -> None:
    planned = fedmkt.plan(run.folder.parent / "job.toml")
    assert all(planned.bytes_sent[p] >= real for p, real in run.summary.bytes_sent.items())
    assert planned.rounds >= run.summary.rounds
    assert all(bound.holds for bound in planned.bounds)
    lines = planned.lines()
    assert max(map(len, lines)) <= 80
    most = re.search(r"cannot hold more than ([0-9.]+) bits about", " ".join(" ".join(lines).split()))
    assert most and 0 < float(most[1]) <= np.log2(planned.train_rows) + 0.05


@pytest.mark.parametrize("run", [1], ids=["one partner"], indirect=True)
def test_with_checked_shares_the_same_trees_grow_and_nothing_costs_more_than_planned(
    run: RunResult, tmp_path: pathlib.Path
) -> None:
    job = tree_job(tmp_path, 3000, 2500, 2200)
    text = job.read_text().replace('reveal = "sides"', 'reveal = "totals"\nchecked_shares = true')
    job.write_text(text.replace("trees = 10", "trees = 5"))
    checked, planned = simulate(job, out=tmp_path / "run", seed=1), fedmkt.plan(job)
    assert all(planned.bytes_sent[p] >= real for p, real in checked.summary.bytes_sent.items())
    assert planned.rounds >= checked.summary.rounds > run.summary.rounds
    assert {(d.reader, d.kind) for d in checked.summary.disclosures} == {
        (d.reader, d.kind) for d in run.summary.disclosures
    }
    assert checked.summary.bytes_sent["coordinator"] > run.summary.bytes_sent["coordinator"]


@pytest.mark.parametrize("terms", ['"totals"', '"totals"\nchecked_shares = true', '"nothing"'])
def test_rows_in_many_blocks_cost_no_more_than_planned(
    terms: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tree_job(tmp_path, 3000, 2500, 2200)
    text = job.read_text().replace('reveal = "sides"', f"reveal = {terms}").replace("trees = 10", "trees = 2")
    job.write_text(text)
    whole = fedmkt.plan(job)
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 40_000)
    found, planned = simulate(job, out=tmp_path / "run", seed=1).summary, fedmkt.plan(job)
    assert planned.rounds >= found.rounds > whole.rounds + 50
    for party, planned_bytes in planned.bytes_sent.items():
        assert planned_bytes >= found.bytes_sent[party]
        # Blocks add headers and receipts, and take nothing away.
        assert whole.bytes_sent[party] <= planned_bytes < 1.5 * whole.bytes_sent[party]
