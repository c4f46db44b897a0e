"""A whole job whose contract lists CrossCorrelation and StandardErrors: files, page, plan, kill and resume."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

import fedmkt
from fedmkt.cli.app import main
from fedmkt.config.files import parse_job
from fedmkt.errors import ConfigError
from fedmkt.learn import glm
from fedmkt.learn.collinear import variance_inflation
from fedmkt.party.node import open_data
from fedmkt.party.store import Store
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.report.correlation import read_correlation
from fedmkt.simulation.compare import load_side
from fedmkt.simulation.run import RunResult, simulate
from fedmkt.simulation.world import generate, write_world
from tests.simulation.kills import kill_at
from tests.simulation.test_scorecard_run import NAMES, scorecard_job

KINDS = ("CrossCorrelation", "ModelPart", "StandardErrors")
SEED = 3


def write_job(folder: Path, *kinds: str, common: int = 1500) -> Path:
    """Write a small world and a job that lists further disclosures."""
    job = write_world(generate(3, common + 300, common + 400, common), folder, minimum=300)
    listed = ", ".join(f'"{kind}"' for kind in (*DEFAULT, *kinds))
    text = job.read_text().replace("[bank]", f"disclosures = [{listed}]\n\n[bank]", 1)
    job.write_text(text.replace("[model]\n", "[model]\niterations = 8\n"))
    return job


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_job(tmp_path_factory.mktemp("world"), *KINDS)


@pytest.fixture(scope="module")
def run(job: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return simulate(job, out=tmp_path_factory.mktemp("out") / "run", seed=SEED)


def model(folder: Path, party: str) -> Path:
    return folder / "parties" / party / "model"


def facts(folder: Path, party: str, name: str) -> dict:
    return json.loads((model(folder, party) / name).read_text())


def pooled(job: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    config = parse_job(job.read_text(), str(job))
    sides = [load_side(model(folder, p.name), open_data(p, job.parent)) for p in config.parties]
    return np.concatenate([s.train for s in sides], axis=1), sides[0].label_train


def test_the_bank_has_the_pooled_tables_correlations_and_inflations_to_a_thousandth(job, run):
    found, (x, _) = facts(run.folder, "bank", "correlation.json"), pooled(job, run.folder)
    expected = np.corrcoef(x.T)
    assert np.abs(np.array(found["matrix"]) - expected).max() < 1.01e-4
    inflation = np.array([c["vif"] for c in found["columns"]])
    assert np.abs(inflation / variance_inflation(expected) - 1).max() < 1e-3
    assert found["rows"] == len(x) and found["decimals"] == 4
    assert not (model(run.folder, "partner") / "correlation.json").exists()


def test_columns_of_the_partner_are_named_as_in_the_contract_and_no_level_is(job, run):
    found = facts(run.folder, "bank", "correlation.json")["columns"]
    own = facts(run.folder, "bank", "model.json")["columns"]
    partner = facts(run.folder, "partner", "model.json")
    assert [c["name"] for c in found if c["owner"] == "bank"] == own
    names = [c["name"] for c in found if c["owner"] == "partner"]
    raw = parse_job(job.read_text(), str(job)).partners[0].columns
    assert len(names) == len(partner["columns"]) and {n.rstrip("0123456789 ") for n in names} <= set(raw)
    assert any("=" in n for n in partner["columns"]) and not any("=" in n for n in names)


def test_each_party_has_errors_and_p_values_of_its_own_weights(job, run):
    x, y = pooled(job, run.folder)
    w = glm.fit_logistic(x, y, 1.0)
    p = glm.predict(w, x)
    design = np.column_stack([np.ones(len(x)), x])
    information = (design * (p * (1 - p))[:, None]).T @ design + np.diag([0.0, *[1.0] * x.shape[1]])
    exact = np.sqrt(np.diag(np.linalg.inv(information)))[1:]
    found = [c for q in ("bank", "partner") for c in facts(run.folder, q, "coefficients.json")["columns"]]
    # Of a column that fewer than 50 held-out rows carry there is none.
    ratio = np.array([c["error"] for c in found], np.float64) / exact
    given = np.isfinite(ratio)
    assert given.mean() > 0.6 and not given.all()
    assert all((c["z"] is None) == (c["p"] is None) == (c["error"] is None) for c in found)
    # 300 held-out rows with responders: the means of p(1 - p) that they give are rough themselves.
    assert np.abs(ratio[given] - 1).mean() < 0.1 and np.abs(ratio[given] - 1).max() < 0.35
    names = [n for q in ("bank", "partner") for n in facts(run.folder, q, "model.json")["columns"]]
    assert [c["name"] for c in found] == names
    for c in (c for c in found if c["error"] is not None):
        assert c["z"] == c["weight"] / c["error"]
        assert math.isclose(c["p"], 2 * norm.sf(abs(c["z"])), rel_tol=1e-9)


def test_rounds_and_bytes_are_those_of_the_plan(job, run):
    common = run.facts["common"]
    columns = {q: len(facts(run.folder, q, "model.json")["columns"]) for q in ("bank", "partner")}
    planned = fedmkt.plan(
        job, common=common["exact"], labelled=common["exact"] - common["unlabelled"], columns=columns
    )
    assert planned.rounds == run.summary.rounds
    for party, real in run.summary.bytes_sent.items():
        assert planned.bytes_sent[party] == pytest.approx(real, rel=0.05), party
    assert {b.name for b in planned.bounds} >= {"correlations", "curvature"} and all(
        b.holds for b in planned.bounds
    )
    releases = {d.kind: d.releases for d in planned.disclosures}
    assert releases["CrossCorrelation"] == 1 and releases["StandardErrors"] == 1


def test_the_log_and_the_page_say_what_the_bank_received(run):
    lines = {(line.reader, line.kind) for line in run.summary.disclosures}
    assert {("bank", "CrossCorrelation"), ("partner", "StandardErrors")} <= lines
    assert ("bank", "StandardErrors") not in lines and ("partner", "CrossCorrelation") not in lines
    page = run.report.read_text()
    table = run.summary.correlation
    assert "Variance inflation (VIF)" in page and table is not None and len(table.pairs) == 10
    assert all(f"<td>{p.first}</td><td>{p.second}</td>" in page for p in table.pairs)


def test_a_job_without_the_disclosures_leaves_neither_file_nor_field(small_run):
    folder = model(small_run.folder, "bank")
    assert not (folder / "correlation.json").exists() and not (folder / "coefficients.json").exists()
    assert '"correlation"' not in (small_run.folder / "summary.json").read_text()
    assert "Variance inflation" not in small_run.report.read_text()
    steps = {json.loads(line)["body"].get("step", "") for line in log_of(small_run.folder, "bank")}
    assert not any(s.startswith(("correlation.", "errors.")) for s in steps)


def log_of(folder: Path, party: str) -> list[str]:
    return (folder / "logs" / party / "log.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    "moment",
    [
        "correlation.release:1",
        pytest.param("errors.inflate:1", marks=pytest.mark.slow),  # five seconds for each killed process
        pytest.param("correlation.deal:1", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_there_ends_with_the_same_correlations_counted_once(
    moment, job, run, tmp_path, monkeypatch
):
    monkeypatch.setattr("fedmkt.simulation.results.write_results", lambda *_: (None, {}))
    arguments = ["simulate", str(job), "--out", str(tmp_path / "run"), "--seed", str(SEED), "--json"]
    assert kill_at(moment, *arguments)
    assert main([*arguments, "--resume"]) == 0
    before, after = (
        np.array(facts(f, "bank", "correlation.json")["matrix"]) for f in (run.folder, tmp_path / "run")
    )
    # Begun again, it is rounded again; once its shares are in a checkpoint, these are released.
    assert np.abs(before - after).max() < (2.01e-4 if moment == "correlation.deal:1" else 1e-12)
    store = Store(tmp_path / "run" / "parties" / "partner" / "store")
    counted = {store[name] for name in store if name.startswith("correlations/")}
    bank_columns = len(facts(run.folder, "bank", "model.json")["columns"])
    assert counted == {str(bank_columns).encode()}
    errors = [
        [c["error"] for c in facts(f, "partner", "coefficients.json")["columns"]]
        for f in (run.folder, tmp_path / "run")
    ]
    assert np.allclose(*np.array(errors, np.float64), rtol=0.02, equal_nan=True)


def test_a_scorecard_has_the_correlations_of_its_woe_columns(tmp_path, monkeypatch):
    monkeypatch.setattr("fedmkt.simulation.results.build_report", lambda folder: folder)
    job = scorecard_job(tmp_path / "files", 1, (*NAMES, "CrossCorrelation", "StandardErrors"))
    run = simulate(job, out=tmp_path / "run", seed=1)
    x, _ = pooled(job, run.folder)
    found = facts(run.folder, "bank", "correlation.json")
    assert np.abs(np.array(found["matrix"]) - np.corrcoef(x.T)).max() < 1.01e-4
    config = parse_job(job.read_text(), str(job))
    for party in config.parties:
        assert {c["name"] for c in found["columns"] if c["owner"] == party.name} <= set(party.columns)
    errors = [c["error"] for c in facts(run.folder, "partner", "coefficients.json")["columns"]]
    assert any(errors) and all(e is None or 0.01 < e < 1 for e in errors)


def test_a_file_that_no_run_wrote_is_refused_in_one_line(run, tmp_path):
    assert read_correlation(tmp_path) is None
    good = (model(run.folder, "bank") / "correlation.json").read_text()
    for text in (
        "[",
        "[]",
        "{}",
        good.replace('"matrix": [[1.0', '"matrix": [[7.0'),
        good.replace('"vif": ', '"wif": '),
    ):
        (tmp_path / "correlation.json").write_text(text)
        with pytest.raises(ConfigError, match="not what a run wrote"):
            read_correlation(tmp_path)
