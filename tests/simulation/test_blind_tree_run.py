"""A job of boosted trees in mode nothing from the files to the report, and its plan."""

from collections import Counter

import numpy as np
import pytest

import fedmkt
from fedmkt.audit.verify import verify_run
from fedmkt.party.node import open_data
from fedmkt.report.build import read_summary
from fedmkt.report.scores import read_scores
from fedmkt.simulation import compare_trees
from fedmkt.simulation.run import RunResult, read_job, simulate
from tests.simulation.test_tree_run import tree_job


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("nothing")
    job = tree_job(folder, 3000, 2500, 2200)
    text = (
        job.read_text().replace('reveal = "sides"', 'reveal = "nothing"').replace("trees = 10", "trees = 4")
    )
    job.write_text(text)
    return simulate(job, out=folder / "run", seed=1)


def test_scores_are_those_of_both_parties_leaves_rounded_up_or_down(run: RunResult) -> None:
    config = read_job(run.folder.parent / "job.toml")
    exact = compare_trees.compare(
        config, run.folder, {p.name: open_data(p, run.folder.parent) for p in config.parties}
    )
    released = read_scores(run.folder / "parties" / "bank" / "model")
    assert np.abs(released.rounded[released.held_out] - exact.joint).max() < 0.011
    assert exact.joint.std() > 0.01 and np.abs(exact.joint - exact.centralised).max() < 0.2


def test_neither_share_of_the_leaves_is_near_what_they_are_worth(run: RunResult) -> None:
    shares = [
        np.load(run.folder / "parties" / p / "model" / compare_trees.LEAF_SHARES) % 2**24
        for p in ("bank", "partner")
    ]
    assert all(s.shape == (4, 8) and 0.2 < s.mean() / 2**24 < 0.8 for s in shares)
    values = (sum(shares) << np.uint32(8)).view(np.int32) / 2.0**26
    assert 0 < np.abs(values).max() < 1


def test_the_logs_verify_and_name_nothing_but_chosen_splits(run: RunResult) -> None:
    assert {log.party for log in verify_run(run.folder).logs} == {"bank", "partner", "coordinator"}
    kinds = Counter((d.reader, d.kind) for d in read_summary(run.folder).disclosures)
    assert kinds["bank", "ChosenSplits"] == kinds["partner", "ChosenSplits"] == kinds["bank", "Scores"] == 1
    assert not {kind for _, kind in kinds} & {
        "SplitSides",
        "HistogramTotals",
        "CellBits",
        "BinCounts",
        "BinTotals",
    }


def test_nothing_costs_more_than_planned(run: RunResult) -> None:
    planned = fedmkt.plan(run.folder.parent / "job.toml")
    assert all(planned.bytes_sent[p] >= real for p, real in run.summary.bytes_sent.items())
    assert planned.rounds >= run.summary.rounds
    assert all(bound.holds for bound in planned.bounds)
    assert max(map(len, planned.lines())) <= 80
