"""A job of boosted trees in which all of the bank's customers take part, from the files to the report."""

import numpy as np
import pytest

import fedmkt
from fedmkt.audit.verify import verify_run
from fedmkt.contract.model_terms import ModelTerms, TreeTerms, needed_disclosures
from fedmkt.party.node import open_data
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.report.scores import read_scores
from fedmkt.simulation import compare_trees
from fedmkt.simulation.run import RunResult, read_job, simulate
from fedmkt.simulation.world import generate, write_world

COMMON = 900
TREES = """kind = "trees"

[trees]
reveal = "sides"
trees = 4
depth = 3
min_rows = 20
rate = 0.5
patience = 2
validation_fraction = 0.2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("left")
    job = write_world(generate(3, 1800, 1400, COMMON), folder, minimum=100)
    text = job.read_text().replace("[model]\npenalty = 1.0\n", f"[model]\n{TREES}")
    needed = needed_disclosures(ModelTerms(kind="trees"), TreeTerms(reveal="sides", patience=2))
    kinds = ", ".join(f'"{kind}"' for kind in (*DEFAULT, *needed, "JoinedRows"))
    job.write_text(f'disclosures = [{kinds}]\n{text}\n[align]\njoin = "left"\n')
    return simulate(job, out=folder / "run", seed=1)


def test_the_joint_trees_are_those_of_the_pooled_table_with_missing_values(run: RunResult) -> None:
    config = read_job(run.folder.parent / "job.toml")
    tables = {p.name: open_data(p, run.folder.parent) for p in config.parties}
    exact = compare_trees.compare(config, run.folder, tables)
    assert np.array_equal(exact.joint, exact.centralised)
    released = read_scores(run.folder / "parties" / "bank" / "model")
    assert np.array_equal(released.rounded[released.held_out], np.rint(100 * exact.joint) / 100)


def test_all_customers_take_part_and_the_bank_keeps_who_is_common(run: RunResult) -> None:
    folder = run.folder / "parties" / "bank" / "model"
    known, train = np.load(folder / "known.npy"), np.load(folder / "train.npy")
    assert known.sum() == COMMON and len(known) == len(train) + len(np.load(folder / "scores.npz")["rows"])
    assert {log.party for log in verify_run(run.folder).logs} == {"bank", "partner", "coordinator"}


def test_nothing_costs_more_than_planned(run: RunResult) -> None:
    planned = fedmkt.plan(run.folder.parent / "job.toml")
    assert all(planned.bytes_sent[p] >= real for p, real in run.summary.bytes_sent.items())
    assert planned.rounds >= run.summary.rounds
