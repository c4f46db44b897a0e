import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

import fedmkt
from fedmkt.errors import ConfigError
from fedmkt.simulation.run import RunResult


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_file_has_one_line_for_each_released_score(small_run: RunResult, tmp_path: Path) -> None:
    path = fedmkt.score(small_run.folder, out=tmp_path / "scores.csv")
    stored = np.load(small_run.folder / "parties" / "bank" / "model" / "scores.npz")
    rows = rows_of(path)
    released = {int(r["row"]): (r["score"], r["set"]) for r in rows}
    assert len(released) == len(rows) == len(stored["units"])
    for row, units, held in zip(stored["file_rows"], stored["units"], stored["held_out"], strict=True):
        assert released[int(row)] == (f"{units / 100:.2f}", "held-out" if held else "unlabelled")


def test_deciles_and_probabilities_follow_the_scores(small_run: RunResult, tmp_path: Path) -> None:
    rows = rows_of(fedmkt.score(small_run.folder, out=tmp_path / "s.csv"))
    scores, deciles, chances = (
        np.array([float(r[name]) for r in rows]) for name in ("score", "decile", "probability")
    )
    assert np.all(np.diff(scores) <= 0) and np.all(np.diff(deciles) >= 0) and np.all(np.diff(chances) <= 0)
    assert deciles.min() == 1 and deciles.max() <= 10
    assert np.all((chances > 0) & (chances < 1))


def test_parquet_holds_the_same_as_csv(small_run: RunResult, tmp_path: Path) -> None:
    table = parquet.read_table(fedmkt.score(small_run.folder, format="parquet", out=tmp_path / "s.parquet"))
    rows = rows_of(fedmkt.score(small_run.folder, out=tmp_path / "s.csv"))
    assert table.column_names == list(rows[0])
    assert table["row"].to_pylist() == [int(r["row"]) for r in rows]
    assert table["score"].to_pylist() == [float(r["score"]) for r in rows]


def test_no_cell_would_be_run_by_a_spreadsheet(small_run: RunResult, tmp_path: Path) -> None:
    rows = rows_of(fedmkt.score(small_run.folder, out=tmp_path / "s.csv"))
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for r in rows for cell in r.values())


def test_scoring_twice_gives_the_same_bytes(small_run: RunResult, tmp_path: Path) -> None:
    first, second = (fedmkt.score(small_run.folder, out=tmp_path / n) for n in ("a.csv", "b.csv"))
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mode & 0o077 == 0  # the bank's own


def test_stored_scores_that_were_cut_short_are_refused(small_run: RunResult, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run.folder, run)
    path = run / "parties" / "bank" / "model" / "scores.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"scores\.npz"):
        fedmkt.score(run)
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        fedmkt.score(run)
    assert not (run / "parties" / "bank" / "scores.csv").exists()


def test_another_format_or_a_folder_is_refused(small_run: RunResult, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="csv, parquet"):
        fedmkt.score(small_run.folder, format="xls")
    with pytest.raises(ConfigError, match="a folder"):
        fedmkt.score(small_run.folder, out=tmp_path)
    with pytest.raises(ConfigError, match=r"contract\.toml"):
        fedmkt.score(tmp_path)
