"""The whole job with the match hidden: figures, files, logs and the plan."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedmkt.audit.verify import verify_run
from fedmkt.config.files import parse_job
from fedmkt.simulation import results
from fedmkt.simulation.plan import plan
from fedmkt.simulation.run import RunResult, simulate
from fedmkt.simulation.world import generate, write_world

HIDDEN = '\n[align]\nmatch = "hidden"\n'
LISTED = HIDDEN + "drop = 0.05\ndummies = 0.3\n"
KINDS = ("ListSize", "MatchedOwnRows", "MatrixShape", "RangeBit", "Scores", "SupersetList", "LastingNames")
ROWS = (4200, 6000, 3000)
"""Of the bank, of the partner, in common: enough responders for each column that all passes are enough."""


def written(folder: Path, terms: str) -> Path:
    path = write_world(generate(3, *ROWS), folder, minimum=300)
    path.write_text(f"disclosures = {json.dumps(KINDS)}\n{path.read_text()}{terms}")
    return path


@pytest.fixture(
    scope="module",
    params=[HIDDEN, pytest.param(LISTED, marks=pytest.mark.slow)],
    ids=["whole_list", "drops_and_dummies"],
)
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("hidden")
    job = written(folder / "files", request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            results, "build_report", lambda run: run / "report.html"
        )  # it takes longer than the run
        return job, simulate(job, out=folder / "run", seed=3)


def records(run: RunResult, party: str) -> list[dict[str, object]]:
    lines = (run.folder / "logs" / party / "log.jsonl").read_text().splitlines()
    return [r["body"] for r in map(json.loads, lines) if r["type"] == "value.revealed"]


def test_the_joint_model_is_as_good_as_the_centralised_one(finished: tuple[Path, RunResult]) -> None:
    models = finished[1].facts["models"]
    assert abs(models["joint_exact"]["auc"] - models["centralised"]["auc"]) < 1e-3
    assert models["joint"]["auc"] > models["bank"]["auc"] + 0.02
    assert finished[1].facts["weight_error"] < 1e-2


def test_the_bank_has_scores_of_its_own_common_customers_alone(finished: tuple[Path, RunResult]) -> None:
    job, run = finished
    model = run.folder / "parties" / "bank" / "model"
    scores = np.load(model / "scores.npz", allow_pickle=False)
    rows = {n: np.load(model / f"{n}.npy", allow_pickle=False) for n in ("train", "held_out", "unlabelled")}
    assert np.array_equal(scores["rows"], np.concatenate([rows["held_out"], rows["unlabelled"]]))
    assert scores["held_out"].sum() == len(rows["held_out"]) > 200
    assert scores["units"].min() >= 0 and scores["units"].max() <= 100
    common = sum(len(r) for r in rows.values())
    assert common == run.facts["common"]["exact"] <= ROWS[2]
    assert common == ROWS[2] or "drop" in job.read_text()


def test_the_partner_keeps_nothing_that_tells_who_is_common(finished: tuple[Path, RunResult]) -> None:
    job, run = finished
    model = run.folder / "parties" / "partner" / "model"
    found = {p.name for p in model.iterdir()}
    assert found == {
        "model.json", "share.npy", "transform.npy", "spread.npy", "train.npy", "held_out.npy", "unlabelled.npy",
        "expires.json", "people.key", "people.npz",
    }  # fmt: skip
    with np.load(model / "people.npz", allow_pickle=False) as people:
        # Whose data the run used is, at the partner, all that took part: as many as train, whoever of them is common.
        assert people["trained"].shape[0] == len(np.load(model / "train.npy", allow_pickle=False))
    train = np.load(model / "train.npy", allow_pickle=False)
    config = parse_job(job.read_text(), str(job))
    assert len(np.unique(train)) == len(train)
    (offered,) = [r["rows"] for r in records(run, "partner") if r["kind"] == "ListSize"]
    assert len(train) == offered if config.align.drop == 0 else 3200 < len(train) < 4300
    assert not len(np.load(model / "held_out.npy", allow_pickle=False))


def test_no_log_says_that_the_partner_learned_its_matched_rows(finished: tuple[Path, RunResult]) -> None:
    job, run = finished
    listed = "drop" in job.read_text()
    for party in ("bank", "partner"):
        told = records(run, party)
        assert {r["to"] for r in told if r["kind"] == "MatchedOwnRows"} <= {"bank"}
        assert not [r for r in told if r["kind"] in ("CampaignRows", "SetSize")]
    (names,) = [r for r in records(run, "partner") if r["kind"] == "LastingNames"] or [None]
    (sent,) = [r for r in records(run, "bank") if r["kind"] == "SupersetList"] or [None]
    assert (names is not None) == (sent is not None) == listed
    if sent is not None:
        assert sent["epsilon"] == "2.64", "ln(0.7 / 0.05), rounded up"


def test_the_logs_verify(finished: tuple[Path, RunResult]) -> None:
    assert verify_run(finished[1].folder)


def test_planned_bytes_and_rounds_are_those_of_the_run(finished: tuple[Path, RunResult]) -> None:
    job, run = finished
    shapes = {
        p: json.loads((run.folder / "parties" / p / "model" / "model.json").read_text())["columns"]
        for p in ("bank", "partner")
    }
    facts = run.facts["common"]
    labelled = facts["exact"] - facts["unlabelled"]
    made = plan(job, common=ROWS[2], labelled=labelled, columns={p: len(c) for p, c in shapes.items()})
    assert made.rounds == run.facts["rounds"]
    for party, sent in run.facts["bytes"].items():
        assert made.bytes_sent[party] == pytest.approx(sent, rel=0.15)
    assert made.hidden == ("2.64" if "drop" in job.read_text() else "0.00")
    text = "\n".join(made.lines())
    assert "the partner learns who is common: " in text and all(len(line) <= 80 for line in made.lines())
