"""The README's table of families says what its file of figures says, and the bench that wrote both still runs."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import model_tables, models
from benchmarks.model_families import FAMILIES, Entry
from benchmarks.model_plain import GROWN, LOGISTIC, SPLINES
from benchmarks.model_worlds import Invented, log_odds

ROOT = Path(__file__).resolve().parents[1]
FIGURES: dict[str, Any] = json.loads((ROOT / "docs" / "models.json").read_text())
PAGE = (ROOT / "README.md").read_text()


def test_the_table_is_that_of_the_figures() -> None:
    assert model_tables.filled(PAGE, model_tables.markdown(FIGURES)) == PAGE
    rows = [line for line in PAGE.splitlines() if re.match(r"\| [\w-]+ \| (bank|synthetic)", line)]
    assert len(rows) == len(FIGURES["runs"])


def test_every_family_was_measured_and_is_near_its_twin() -> None:
    assert {run["family"] for run in FIGURES["runs"]} == {entry.name for entry in FAMILIES}
    for run in FIGURES["runs"]:
        assert abs(model_tables.difference(run)) < 0.002, (run["family"], run["data"])


def test_a_page_without_marks_is_not_written() -> None:
    with pytest.raises(ValueError, match="models: begin"):
        model_tables.filled("a page", [])


def test_a_run_again_takes_the_place_of_the_one_before() -> None:
    again = {**FIGURES["runs"][0], "measured": "2000-01-01"}
    figures = models.added(FIGURES, [again])
    assert [(r["family"], r["data"]) for r in figures["runs"]] == [
        (r["family"], r["data"]) for r in FIGURES["runs"]
    ]
    assert sum(r["measured"] == "2000-01-01" for r in figures["runs"]) == 1


def test_a_family_is_measured_from_files_to_figures(capsys: pytest.CaptureFixture[str]) -> None:
    entry = Entry(
        "logistic", {"model": {"kind": "logistic"}, "trees": {"trees": 20, "depth": 3}},
        (LOGISTIC, SPLINES, GROWN),
    )  # fmt: skip
    run = models.compare(entry, Invented(4000), seed=3)
    near, splines, grown = (found["auc"] for found in run["plain"])
    assert abs(run["models"]["centralised"]["auc"] - near) < 1e-3
    assert min(splines, grown) > near  # the signal bends
    assert run["models"]["joint"]["auc"] > run["models"]["bank"]["auc"]
    training, whole = run["training"], run["whole"]
    assert (
        list(training["bytes"])
        == ["bank", "partner", "coordinator"]
        == sorted(whole["bytes"], key=list(training["bytes"]).index)
    )
    assert all(0 < training["bytes"][n] < whole["bytes"][n] for n in whole["bytes"])
    assert 0 < training["rounds"] < whole["rounds"]
    assert ("bank", "Scores") in run["disclosed"]
    model_tables.say_tables({"runs": [run]})
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_the_invented_signal_is_more_than_lines() -> None:
    rng = np.random.default_rng(2)
    bank, partner = rng.standard_normal((2, 4000, 6))
    z = log_odds(bank, partner)
    x = np.column_stack([bank, partner, np.ones(4000)])
    left = z - x @ np.linalg.lstsq(x, z, rcond=None)[0]
    assert 0.3 < left.var() / z.var() < 0.9
