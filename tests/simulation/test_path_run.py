"""A job with a path of penalties from file to page: the curve, the twin, the plan, kill and resume, other kinds."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedmkt.config.job import JobConfig
from fedmkt.contract.agreement import AlignTerms
from fedmkt.party.node import open_data
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.report.build import read_summary
from fedmkt.report.path import draw_path
from fedmkt.report.summary import PenaltyPath, TriedPenalty
from fedmkt.ring.fixed import decode, reconstruct
from fedmkt.simulation.run import RunResult, simulate
from tests.engine import Killed, Tap, World, job_config, world_of
from tests.simulation.test_glm_jobs import check_plan, valued, written

PATH = "penalties = [1.0, 1000.0, 30.0]\npath_passes = 6\nvalidation_fraction = 0.4\n"
slow = pytest.mark.slow  # a whole job each, and here there are many
DISCLOSED = (*DEFAULT, "PenaltyCurve", "ChosenPenalty")


def tried(folder: Path, model: str = "", more: str = "") -> RunResult:
    """Run a small job along a path."""
    edit = {
        "[model]\n": f"[model]\n{PATH}{model}",
        "min_events = 0": f"min_events = 0\nmin_support = 20{more}",
    }
    return simulate(written(folder, {}, edit), out=folder / "run", seed=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return tried(tmp_path_factory.mktemp("path"))


def model_of(run: RunResult, party: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        (run.folder / "parties" / party / "model" / "model.json").read_text()
    )
    return found


def test_the_bank_keeps_the_curve_and_each_party_the_choice(run: RunResult) -> None:
    curve = run.summary.path
    assert curve is not None and [p.penalty for p in curve.points] == [1.0, 30.0, 1000.0]
    best = min(curve.points, key=lambda p: p.error)
    assert (
        curve.chosen
        == best.penalty
        == model_of(run, "bank")["penalty"]
        == model_of(run, "partner")["penalty"]
    )
    assert "penalties" in model_of(run, "bank") and "penalties" not in model_of(run, "partner")


def test_the_model_is_the_twin_of_that_penalty(run: RunResult) -> None:
    assert float(str(run.facts["weight_error"])) < 3e-3
    assert run.summary.convergence == ()


def test_the_plan_knows_rounds_and_bytes(run: RunResult) -> None:
    check_plan(run)


def test_the_page_draws_the_curve_and_says_who_was_told(run: RunResult) -> None:
    page = run.report.read_text()
    assert "How strong the penalty is" in page and 'id="path-' in page
    assert read_summary(run.folder) == run.summary
    told = {(line.reader, line.kind) for line in run.summary.disclosures}
    assert ("bank", "PenaltyCurve") in told and ("partner", "PenaltyCurve") not in told
    assert {r for r, kind in told if kind == "ChosenPenalty"} == {"partner", "coordinator"}


def test_equal_curves_are_drawn_alike() -> None:
    curve = PenaltyPath(300, 10.0, (TriedPenalty(1.0, 0.1), TriedPenalty(10.0, 0.09)))
    assert draw_path(curve) == draw_path(curve)


@slow
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ('kind = "additive"\niterations = 30\n', "\n[additive]\nknots = 2\n"),
        ('kind = "scorecard"\n', "\n[bins]\ncount = 6\n"),
    ],
)
def test_functions_and_scorecards_have_paths_too(tmp_path: Path, model: str, more: str) -> None:
    found = tried(tmp_path, model, more)
    assert float(str(found.facts["weight_error"])) < 5e-3
    assert found.summary.path is not None
    assert found.summary.path.chosen in {p.penalty for p in found.summary.path.points}


@slow
def test_counts_are_compared_by_their_deviance(tmp_path: Path) -> None:
    found = valued(tmp_path, "poisson", PATH)
    assert float(str(found.facts["weight_error"])) < 5e-3
    assert "Mean Poisson deviance of the joint model" in found.report.read_text()
    check_plan(found)


def test_where_the_match_is_hidden_the_files_say_which_rows_did_not_train(tmp_path: Path) -> None:
    """The bank's own are some of the places, and who validates is drawn by place."""
    world = small(tmp_path, AlignTerms(match="hidden"))
    world.run()
    bank, partner = (world.folder / "parties" / p.name / "model" for p in world.contract.parties)
    drawn = np.load(partner / "validates.npy")
    assert len(drawn) == len(np.load(partner / "train.npy")) and 0.3 < drawn.mean() < 0.7
    assert np.array_equal(np.load(bank / "validates.npy"), drawn[np.load(bank / "train_slots.npy")])


# ------------------------------------------------------------------------------------------ kill and resume


def small(folder: Path, align: AlignTerms | None = None) -> World:
    terms = {"penalties": (1.0, 1000.0, 30.0), "path_passes": 2, "validation_fraction": 0.5}
    config: JobConfig = job_config(folder / "data", iterations=3)
    config = config.model_copy(
        update={
            "model": config.model.model_copy(update=terms),
            "disclosures": DISCLOSED,
            "align": align or config.align,
        }
    )
    config = config.model_copy(update={"limits": config.limits.model_copy(update={"min_support": 5})})
    tables = {p.name: open_data(p, folder / "data") for p in config.parties}
    return world_of(config, folder / "run", tables, seed=7)


def weights(world: World) -> np.ndarray:
    folders = [world.folder / "parties" / p.name / "model" for p in world.contract.parties]
    return decode(reconstruct([np.load(f / "share.npy") for f in folders]), 20)


def curve_of(world: World) -> list[list[float]]:
    text = (world.folder / "parties" / "bank" / "model" / "model.json").read_text()
    found: list[list[float]] = json.loads(text)["penalties"]["errors"]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Tap]:
    world, tap = small(tmp_path_factory.mktemp("whole")), Tap()
    world.run(tap)
    return world, tap


MOMENTS = [("fit.update", 8), ("path.begin", 3), ("path.release", 0), ("fit.update", -1)]


@pytest.mark.parametrize(
    ("step", "time"), [("path.square", 2), *(pytest.param(*moment, marks=slow) for moment in MOMENTS)]
)
def test_a_run_killed_along_the_path_makes_the_same_choice_and_model(
    tmp_path: Path, whole: tuple[World, Tap], step: str, time: int
) -> None:
    at = [i for i, passing in enumerate(whole[1].requests) if passing.message.step == step][time]
    stopped = small(tmp_path)
    with pytest.raises(Killed):
        stopped.run(Tap(stop_after=at))
    stopped.run(resume=True)
    before, after = np.array(curve_of(whole[0])), np.array(curve_of(stopped))
    assert after == pytest.approx(before, rel=2e-3)
    assert np.abs(weights(stopped) - weights(whole[0])).max() < 5e-3
