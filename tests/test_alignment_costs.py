"""The page on what an intersection costs says what its file of figures says, and the file is what the scripts write."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import hashed_ids, psi_chart, spu_pair
from fedmkt.crypto import sha256

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIGURES: dict[str, Any] = json.loads((DOCS / "psi.json").read_text())
PAGE = (DOCS / "alignment-costs.md").read_text()


def both(result: dict[str, Any], key: str) -> float:
    return float(result["receiver"][key]) + float(result["sender"][key])


TRIALS = {rows: trial for rows, trial in FIGURES.items() if rows.isdecimal()}


def test_the_table_is_that_of_the_figures() -> None:
    rows = psi_chart.table(FIGURES)
    assert len(rows) == sum(len(trial["results"]) for trial in TRIALS.values())
    assert psi_chart.filled(PAGE, rows) == PAGE
    one = next(r for r in TRIALS["1000000"]["results"] if r["engine"] == "RR22")
    shown = f"| 1,000,000 | SPU RR22 | {both(one, 'cpu_s'):.1f} ({both(one, 'online_cpu_s'):.1f}) |"
    assert sum(row.startswith(shown) for row in rows) == 1


def test_every_trial_says_how_and_on_what_it_was_measured() -> None:
    for trial in TRIALS.values():
        assert "without TLS" in trial["how"]
        assert {"cpu", "cores", "python", "spu", "measured", "load"} <= set(trial["machine"])
        assert all(r["cpu_s"]["least"] == pytest.approx(both(r, "cpu_s")) for r in trial["results"])


def test_the_chart_shows_the_figures_and_its_text_is_text() -> None:
    svg = (DOCS / "psi.svg").read_text()
    for result in TRIALS["1000000"]["results"]:
        assert f"{both(result, 'cpu_s'):.1f}" in svg and f"{result['bytes'] / 1e6:.0f}" in svg
    assert "SPU RR22" in svg and len(svg) < 30_000
    assert psi_chart.draw(TRIALS["1000000"]).axes[0].get_title(loc="left").startswith("CPU seconds")


def test_the_part_without_files_is_read_from_the_peers_log() -> None:
    log = "\n".join(
        (
            "[2030-01-01 10:00:01.500] [info] [sender.cc:83] [Rr22PsiSender::Online] start",
            "[2030-01-01 10:00:02.000] [info] [rr22_oprf.cc:421] begin vole recv",
            "[2030-01-01 10:00:04.250] [info] [sender.cc:135] [Rr22PsiSender::Online] end",
        )
    )
    start, end = spu_pair.online(log)
    assert end - start == pytest.approx(2.75)


@pytest.mark.skipif(not sha256.IN_HARDWARE, reason="needs the processor's SHA-256")
def test_hashed_numbers_are_read_back_by_trying_all() -> None:
    rng = np.random.default_rng(1)
    customers = np.unique(hashed_ids.FIRST + rng.integers(0, 20_000, 300))
    hashed = rng.permutation(hashed_ids.plain_hashes(customers))
    found, _ = hashed_ids.search(hashed, hashed_ids.FIRST, 20_000)
    assert np.array_equal(found, customers)
    assert len(hashed_ids.search(hashed, hashed_ids.FIRST + 20_000, 5000)[0]) == 0
