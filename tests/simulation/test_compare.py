import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fedmkt.audit.verify import verify_run
from fedmkt.learn.metrics import auc
from fedmkt.party.node import open_data
from fedmkt.report.build import read_summary
from fedmkt.report.scores import read_scores
from fedmkt.simulation.compare import compare, load_side, retrace
from fedmkt.simulation.run import RunResult, read_job


@pytest.fixture(scope="module")
def parts(small_run: RunResult):
    path = small_run.folder.parent / "files" / "job.toml"
    config = read_job(path)
    return config, {p.name: open_data(p, path.parent) for p in config.parties}


def test_the_reconstructed_model_is_the_optimum_of_scikit_learn(small_run: RunResult, parts) -> None:
    config, tables = parts
    found = compare(config, small_run.folder, tables)
    sides = [
        load_side(small_run.folder / "parties" / p.name / "model", tables[p.name]) for p in config.parties
    ]
    x, test = (np.hstack([getattr(s, n) for s in sides]) for n in ("train", "held_out"))
    model = LogisticRegression(C=1 / config.model.penalty, tol=1e-10, max_iter=1000)
    model.fit(x, sides[0].label_train)
    best = model.predict_proba(test)[:, 1]
    assert np.allclose(found.centralised, best, atol=1e-6)
    assert found.weight_error < 1e-2
    assert abs(auc(found.label, found.joint) - auc(found.label, best)) < 1e-3


def test_convergence_is_retraced_down_to_the_optimum(small_run: RunResult, parts) -> None:
    config, tables = parts
    sides = [
        load_side(small_run.folder / "parties" / p.name / "model", tables[p.name]) for p in config.parties
    ]
    points = retrace(sides, sides[0].known_train, config.model)
    assert [p.iteration for p in points] == list(range(1, config.model.iterations + 1))
    assert points[-1].change < 1e-2 < points[0].change
    x = np.hstack([s.train for s in sides])
    best = LogisticRegression(C=1 / config.model.penalty, tol=1e-10).fit(x, sides[0].label_train)
    p = best.predict_proba(x)[:, 1]
    y = sides[0].label_train
    assert points[-1].value == pytest.approx(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), rel=1e-3)


def test_a_descent_that_runs_off_ends_with_its_last_finite_step(small_run: RunResult, parts) -> None:
    config, tables = parts
    sides = [
        load_side(small_run.folder / "parties" / p.name / "model", tables[p.name]) for p in config.parties
    ]
    rows, model = sides[0].known_train, config.model.model_copy(update={"kind": "poisson", "iterations": 40})
    rows = replace(rows, y=np.where(np.arange(len(rows.y)) < 3, 5000.0, 0.0))
    points = retrace(sides, rows, model)
    assert 0 < len(points) < 40
    assert all(np.isfinite(p.change) for p in points)
    assert points[-1].value is None
    assert all(p.value is None or np.isfinite(p.value) for p in points)


def test_the_facts_hold_what_json_promises(small_run: RunResult) -> None:
    facts = json.loads((small_run.folder / "result.json").read_text())
    low, high = facts["common"]["band"]
    assert low < facts["common"]["exact"] == 700 <= high
    for model in ("bank", "joint", "joint_exact", "centralised"):
        assert {"auc", "ks", "brier"} <= set(facts["models"][model])
    assert facts["lift"] == facts["models"]["joint"]["lift"]
    assert facts["gain"]["low"] < facts["gain"]["auc"] < facts["gain"]["high"]
    assert {"psi", "fit", "score", "report"} <= set(facts["seconds"])
    assert set(facts["bytes"]) == {"bank", "partner", "coordinator"}
    assert facts["rounds"] > 100
    assert facts["run"] == str(small_run.folder)
    assert facts["tables"]["bank"]["kept"] + facts["tables"]["bank"]["duplicates"] <= 1000


def test_the_exact_number_of_common_customers_is_that_of_the_tables(small_run: RunResult, parts) -> None:
    _, tables = parts
    common = set(tables["bank"].ids) & set(tables["partner"].ids)
    assert small_run.summary.common_exact == len(common)


def test_released_scores_are_the_exact_ones_rounded(small_run: RunResult, parts) -> None:
    config, tables = parts
    released = read_scores(small_run.folder / "parties" / "bank" / "model")
    exact = compare(config, small_run.folder, tables)
    held = released.rounded[released.held_out]
    assert np.abs(held - exact.joint).max() < 0.011  # half a hundredth, and the sigmoid's own error
    assert np.array_equal(released.label[released.held_out], exact.label)


def test_the_summary_shows_heads_that_verify(small_run: RunResult) -> None:
    verified = {log.party: log for log in verify_run(small_run.folder).logs}
    heads = read_summary(small_run.folder).heads
    assert {h.party for h in heads} == {"bank", "partner", "coordinator"}
    for head in heads:
        assert (head.size, head.root) == (verified[head.party].records, verified[head.party].root)
        assert set(head.cosigners) == {h.party for h in heads} - {head.party}


def test_a_seeded_run_with_lowered_limits_says_so(small_run: RunResult) -> None:
    notes = " ".join(small_run.summary.warnings)
    assert "Minimum sizes are lowered" in notes and "seed 3" in notes


def test_a_world_with_few_responders_per_column_is_warned_about(small_run):
    (note,) = [w for w in small_run.summary.warnings if "per column" in w]
    assert "before the optimum" in note
