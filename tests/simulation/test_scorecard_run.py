"""A scorecard from files to files: points equal a plain scorecard's, plan and run agree."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import fedmkt
from fedmkt.config.files import parse_job
from fedmkt.learn import glm
from fedmkt.learn.scorecard import Scale, assign_points, stability_index
from fedmkt.learn.woe import WoeColumns, place_rows
from fedmkt.party.node import open_data
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.report.scores import read_scores, score
from fedmkt.simulation.compare import load_side
from fedmkt.simulation.run import RunResult, simulate
from fedmkt.simulation.world import generate, write_world

SCALE = Scale(500.0, 0.1, 30.0)
TERMS = "[scorecard]\nbase_score = 500.0\nbase_odds = 0.1\npoints_to_double = 30.0\nmin_iv = 0.005\n"
NAMES = (*DEFAULT, "ModelPart", "MinimumBits", "BinCounts", "BinTotals", "BinWeights")


def scorecard_job(folder: Path, partners: int, disclosures: tuple[str, ...] | None = NAMES) -> Path:
    job = write_world(generate(5, 2600, 2700, 2200, partners), folder, minimum=300)
    text = job.read_text().replace("[model]\n", '[model]\nkind = "scorecard"\n') + TERMS
    named = "" if disclosures is None else f"disclosures = {json.dumps(disclosures)}\n"
    job.write_text(named + text)
    return job


@pytest.fixture(scope="module", params=[1, 2])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("scorecard")
    job = scorecard_job(folder / "files", request.param)
    with pytest.MonkeyPatch.context() as patch:
        if request.param > 1:  # figures and page take longer than the run
            patch.setattr("fedmkt.simulation.results.build_report", lambda folder: folder)
        return simulate(job, out=folder / "run", seed=request.param)


def files_of(run: RunResult) -> Path:
    return run.folder.parent / "files" / "job.toml"


def parties(run: RunResult) -> list[str]:
    return [p.name for p in parse_job(files_of(run).read_text(), "job").parties]


def folder_of(run: RunResult, party: str) -> Path:
    return run.folder / "parties" / party / "model"


def read(run: RunResult, party: str, name: str = "scorecard.json"):
    return json.loads((folder_of(run, party) / name).read_text())


def table_of(run: RunResult, party: str):
    config = parse_job(files_of(run).read_text(), "job")
    return open_data(config.party(party), files_of(run).parent)


def evidence_of(run: RunResult, party: str) -> WoeColumns:
    return WoeColumns.from_json(json.dumps(read(run, party, "model.json")["evidence"]))


def plain(run: RunResult):
    """Fit a scorecard as one would with all columns in one place: scikit-learn on standardised WoE, then points."""
    woe: dict[str, NDArray[np.float64]] = {}
    bins, columns = {}, []
    for party in parties(run):
        table, rows = table_of(run, party), np.load(folder_of(run, party) / "train.npy")
        numbers = {n: v[rows] for n, v in table.numbers.items()}
        categories = {n: v[rows] for n, v in table.categories.items()}
        if table.label is not None:
            y = table.label[rows]
        for column in evidence_of(run, party).columns:
            name = f"{party} {column.bins.name}"
            placed = place_rows(column.bins, numbers, categories)
            events, others = np.bincount(placed, y), np.bincount(placed, 1 - y)
            woe[name] = np.log(events / events.sum() / (others / others.sum()))
            bins[name] = placed
            columns.append(woe[name][placed])
    x = np.stack(columns, axis=1)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit((x - x.mean(0)) / x.std(0), y)
    w = theirs.coef_[0] / x.std(0)
    weights = glm.Weights(float(theirs.intercept_[0] - w @ x.mean(0)), w)
    return assign_points(weights, woe, SCALE), bins, glm.linear_predictor(weights, x)


def test_points_are_a_plain_scorecards(run: RunResult) -> None:
    card, bins, z = plain(run)
    expected = {c.name: list(c.points) for c in card.columns}
    found: dict[str, list[int]] = {}
    for party in parties(run):
        for line in read(run, party)["bins"]:
            found.setdefault(f"{party} {line['column']}", []).append(line["points"])
    assert list(found) == list(expected) and len(found) > 2 * len(parties(run))
    differences = np.concatenate([np.subtract(found[n], expected[n]) for n in expected])
    assert np.abs(differences).max() <= 1 and (differences == 0).mean() > 0.8
    bases = [read(run, p)["base"] for p in parties(run)]
    assert abs(sum(bases) - card.base) <= len(bases)
    total = sum(bases) + sum(np.array(found[n])[placed] for n, placed in bins.items())
    assert np.abs(total - (SCALE.offset + SCALE.factor * z)).max() <= 0.5 * (len(found) + len(bases)) + 1
    assert np.ptp(total) > 50


def test_the_joint_model_is_the_centralised_one(run: RunResult) -> None:
    models = run.summary.models
    assert models.joint_exact is not None and models.centralised is not None
    assert abs(models.joint_exact.metrics.auc - models.centralised.metrics.auc) < 1e-3
    assert run.facts["weight_error"] < 5e-3
    sides = [load_side(folder_of(run, p), table_of(run, p)) for p in parties(run)]
    assert [s.train.shape[1] for s in sides] == [len(evidence_of(run, p).columns) for p in parties(run)]


def test_scores_are_released_as_points_too(run: RunResult, tmp_path: Path) -> None:
    scores = read_scores(folder_of(run, "bank"))
    assert scores.points is not None
    p = np.clip(scores.rounded, 0.005, 0.995)
    assert np.abs(scores.points - SCALE.score(p)).max() <= 0.5
    with score(run.folder, out=tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(scores.points)
    assert sorted(int(r["points"]) for r in rows) == sorted(scores.points.tolist())
    assert [float(r["score"]) for r in rows] == sorted(scores.rounded, reverse=True)


def test_the_page_says_what_a_partner_learned(run: RunResult) -> None:
    if run.report.exists():
        assert "Learned the weight of evidence of" in run.report.read_text()


def test_each_party_finds_its_own_columns_and_how_far_they_moved(run: RunResult) -> None:
    for party in parties(run):
        table, columns = table_of(run, party), evidence_of(run, party).columns
        moved = read(run, party, "stability.json")
        with (folder_of(run, party) / "scorecard.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert [(r["column"], r["bin"]) for r in lines] == [
            (c.bins.name, t) for c in columns for t in c.bins.labels
        ]
        for column in columns:
            counts = []
            for rows in (np.load(folder_of(run, party) / f"{n}.npy") for n in ("train", "unlabelled")):
                numbers = {n: v[rows] for n, v in table.numbers.items()}
                placed = place_rows(column.bins, numbers, {n: v[rows] for n, v in table.categories.items()})
                counts.append(np.bincount(placed, minlength=column.bins.count))
            assert moved["columns"][column.bins.name] == pytest.approx(stability_index(*counts), abs=1e-5)
            rows = [int(r["train_rows"]) for r in lines if r["column"] == column.bins.name]
            assert rows == counts[0].tolist()
        assert ("scores" in moved) == (party == "bank")
    assert 0 <= read(run, "bank", "stability.json")["scores"] < 0.25


def test_the_bank_knows_information_and_totals_of_all_columns_and_no_text_of_a_partners_bins(
    run: RunResult,
) -> None:
    facts = read(run, "bank")
    assert set(facts["evidence"]) == set(parties(run))
    for party in parties(run):
        kept = {n: c for n, c in facts["evidence"][party].items() if c["kept"]}
        assert set(kept) >= {c.bins.name for c in evidence_of(run, party).columns}
        assert all(c["information_value"] >= 0.005 for c in kept.values()) or len(kept) == 1
        for column in evidence_of(run, party).columns:
            assert np.abs(np.array(kept[column.bins.name]["woe"]) - column.woe).max() < 1e-3
    assert "evidence" not in read(run, "partner") and "scale" not in read(run, "partner")


def test_plan_and_run_have_about_the_same_rounds_and_nothing_costs_more(run: RunResult) -> None:
    planned = fedmkt.plan(files_of(run))
    # More bins are assumed than there are: one block more of a partner's rows, and one layer more to compare them.
    assert 0 <= planned.rounds - run.summary.rounds <= 2 * (len(parties(run)) - 1)
    assert all(planned.bytes_sent[p] >= real for p, real in run.summary.bytes_sent.items())
    assert {"BinTotals", "BinWeights"} <= {d.kind for d in planned.disclosures}
    assert {p.name: p.columns for p in planned.parties} == {p: 8 for p in parties(run)}


def test_without_model_part_there_is_no_points_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmkt.simulation.results.build_report", lambda folder: folder)
    job = scorecard_job(tmp_path / "files", 1, None)
    job.write_text(job.read_text().replace("[model]\n", "[model]\niterations = 2\n"))
    found = simulate(job, out=tmp_path / "run", seed=1)
    told = {line.kind for line in found.summary.disclosures}
    assert "ModelPart" not in told and {"BinCounts", "BinTotals", "BinWeights", "MinimumBits"} <= told
    for party in ("bank", "partner"):
        facts = read(found, party)
        assert facts["base"] is None and {line["points"] for line in facts["bins"]} == {None}
    assert read_scores(folder_of(found, "bank")).points is not None
