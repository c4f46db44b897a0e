"""Columns that moved from a party's reference are left out by their owner: jobs of several kinds, files to files."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedmkt.audit.verify import verify_run
from fedmkt.errors import DataError
from fedmkt.learn.bins import quantile_bins
from fedmkt.learn.scorecard import stability_index
from fedmkt.party.node import data_digest, open_data
from fedmkt.report.build import read_summary
from fedmkt.simulation.run import RunResult, read_job, simulate
from fedmkt.simulation.world import generate, write_world

KINDS = {
    "logistic": "[model]",
    "additive": '[model]\nkind = "additive"',
    "scorecard": '[model]\nkind = "scorecard"',
    "trees": '[model]\nkind = "trees"\n[trees]\nreveal = "totals"\ntrees = 2\ndepth = 2\nmin_rows = 30',
}
MOVED, STAYS = "spend", "orders"


def shift_job(folder: Path, kind: str = "logistic", most: str = "max_shift = 0.25") -> Path:
    """Write a job whose partner brings its table again as a reference, with one column doubled in it."""
    job = write_world(generate(5, 2600, 2700, 2200), folder, minimum=300)
    reference = pd.read_csv(folder / "partner.csv", dtype=str)
    reference[MOVED] = (2 * reference[MOVED].astype(float)).astype(str)
    reference.to_csv(folder / "earlier.csv", index=False)
    text = job.read_text().replace("[model]\npenalty = 1.0\n", KINDS[kind] + "\n")
    text = text.replace('file = "partner.csv"', 'file = "partner.csv"\nreference = "earlier.csv"')
    job.write_text(f"{text}\n[bins]\ncount = 10\n{most}\n")
    return job


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("shift")
    return simulate(shift_job(folder, request.param), out=folder / "run", seed=1)


def files(run: RunResult, party: str = "partner") -> Path:
    return run.folder / "parties" / party / "model"


def test_the_column_that_moved_is_left_out_and_its_owner_sees_the_index_of_each(run: RunResult) -> None:
    facts = json.loads((files(run) / "shift.json").read_text())
    assert facts["left_out"] == [MOVED] and facts["columns"][MOVED] > 0.25 > facts["columns"][STAYS]
    assert not (files(run, "bank") / "shift.json").exists()
    header = json.loads((files(run) / "model.json").read_text())
    if header.get("kind") == "trees":
        (flat,) = (b for b in header["binning"]["columns"] if b["name"] == MOVED)
        assert flat["edges"] == [] and MOVED not in json.dumps(header["part"])
        return
    assert not [name for name in header["columns"] if name.startswith(MOVED)]
    assert [name for name in header["columns"] if name.startswith(STAYS)]


def test_the_index_is_that_of_the_training_bins_from_the_definition(run: RunResult) -> None:
    job = read_job(run.folder.parent / "job.toml")
    table, facts = (
        open_data(job.party("partner"), run.folder.parent),
        json.loads((files(run) / "shift.json").read_text()),
    )
    train = table.numbers[MOVED][np.load(files(run) / "train.npy")]
    bins = quantile_bins(MOVED, train, 10, job.limits.min_support)
    assert table.reference is not None
    cells = [
        np.histogram(v, [-np.inf, *bins.edges, np.inf])[0] for v in (train, table.reference.numbers[MOVED])
    ]
    assert facts["columns"][MOVED] == pytest.approx(stability_index(*cells), abs=1e-6)


def test_others_see_how_many_columns_are_left_and_nobody_but_the_owner_an_index(run: RunResult) -> None:
    assert {log.party for log in verify_run(run.folder).logs} == {"bank", "partner", "coordinator"}
    text = b"".join(p.read_bytes() for p in run.folder.glob("logs/*/*"))
    assert not re.search(rb"shift|earlier\.csv", text)
    assert "MatrixShape" in {d.kind for d in read_summary(run.folder).disclosures}
    assert not any(MOVED in warning for warning in run.summary.warnings)
    assert run.summary.models is not None


def test_the_joint_model_is_still_that_of_the_pooled_columns(run: RunResult) -> None:
    models = run.summary.models
    assert models.joint_exact is not None and models.centralised is not None
    assert abs(models.joint_exact.metrics.auc - models.centralised.metrics.auc) < 0.01


def test_without_a_limit_the_index_is_shown_and_nothing_left_out(tmp_path: Path) -> None:
    done = simulate(shift_job(tmp_path, most=""), out=tmp_path / "run", seed=1)
    facts = json.loads((files(done) / "shift.json").read_text())
    assert facts["left_out"] == [] and facts["columns"][MOVED] > 0.25
    assert MOVED in json.loads((files(done) / "model.json").read_text())["columns"]


def test_a_pair_of_a_column_that_moved_ends_the_run_with_a_reason(tmp_path: Path) -> None:
    job = shift_job(tmp_path, "additive")
    job.write_text(job.read_text() + f'[additive]\npairs = [["partner/{STAYS}", "partner/{MOVED}"]]\n')
    with pytest.raises(DataError, match=r"prepare\.fit"):
        simulate(job, out=tmp_path / "run", seed=1)


def test_another_reference_is_other_data(tmp_path: Path) -> None:
    job = read_job(shift_job(tmp_path))
    one = data_digest(open_data(job.party("partner"), tmp_path))
    (tmp_path / "earlier.csv").write_bytes((tmp_path / "partner.csv").read_bytes())
    assert data_digest(open_data(job.party("partner"), tmp_path)) != one
