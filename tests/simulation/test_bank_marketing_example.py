import gzip
import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from fedmkt.party.table import Column, Table, TableSchema, read_table

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "bank_marketing"
DATA = Path(os.environ.get("FEDMKT_DATA", ROOT.parent / "shared" / "data"))
FILES = ("bank-full", "bank-additional-full")


def uci(name: str) -> Path:
    for path in (DATA / f"{name}.csv.gz", DATA / f"{name}.csv"):
        if path.is_file():
            return path
    pytest.skip(f"the UCI file {name}.csv(.gz) is not at $FEDMKT_DATA or ../shared/data")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_parties", FOLDER / "make_parties.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_parties = load()


def read_parties(job: Path) -> list[Table]:
    text = tomllib.loads(job.read_text(encoding="utf-8"))
    tables = []
    for party in (text["bank"], *text["partners"]):
        columns = [Column(n, "number") for n in party["numbers"]]
        columns += [Column(n, "category") for n in party["categories"]]
        schema = TableSchema(
            party["id"], party["id_kind"], party["country"], tuple(columns), party.get("label")
        )
        tables.append(read_table(job.parent / party["file"], schema))
    return tables


def invented(rows: int) -> pd.DataFrame:
    """A table with bank-full's columns and nothing of its data."""
    random = np.random.default_rng(0)
    names = (
        *("age", "job", "marital", "education", "default", "balance", "housing", "loan", "contact"),
        *("day", "month", "duration", "campaign", "pdays", "previous", "poutcome"),
    )
    table = pd.DataFrame({name: random.integers(1, 5, rows).astype(str) for name in names})
    return table.assign(y=np.where(np.arange(rows) % 9, "no", "yes"))


def test_the_job_beside_the_script_is_the_one_it_writes() -> None:
    assert (FOLDER / "job.toml").read_text(encoding="utf-8") == make_parties.job_of(make_parties.FULL)


def test_no_data_file_lies_in_the_example() -> None:
    names = {p.name for p in FOLDER.iterdir() if p.name != "__pycache__"}
    assert names == {"make_parties.py", "job.toml", "scorecard.toml", "README.md"}


def test_the_script_splits_a_file_given_by_path(tmp_path: Path) -> None:
    invented(3_000).to_csv(tmp_path / "uci.csv", sep=";", index=False)
    done = subprocess.run(
        [sys.executable, str(FOLDER / "make_parties.py"), str(tmp_path / "uci.csv"), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(tmp_path / "out" / "job.toml")
    bank, partner = read_parties(tmp_path / "out" / "job.toml")
    assert len(set(bank.ids) & set(partner.ids)) == pytest.approx(0.68 * 3_000, rel=0.05)


def test_a_gzipped_file_gives_the_same_parties(tmp_path: Path) -> None:
    plain, packed = tmp_path / "uci.csv", tmp_path / "uci.csv.gz"
    invented(500).to_csv(plain, sep=";", index=False)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    make_parties.write(plain, tmp_path / "a", seed=3)
    make_parties.write(packed, tmp_path / "b", seed=3)
    make_parties.write(plain, tmp_path / "c", seed=4)
    for name in ("bank.csv", "partner.csv"):
        first = (tmp_path / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes() != (tmp_path / "c" / name).read_bytes()


@pytest.mark.parametrize("content", ["", "a;b\n1;2\n", "age,job\n1,x\n"])
def test_another_file_is_refused_without_a_traceback(tmp_path: Path, content: str) -> None:
    (tmp_path / "other.csv").write_text(content)
    done = subprocess.run(
        [sys.executable, str(FOLDER / "make_parties.py"), str(tmp_path / "other.csv"), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("make_parties: error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FILES)
def test_uci_rows_are_split_as_the_readme_says(name: str, tmp_path: Path) -> None:
    source = uci(name)
    rows = pd.read_csv(source, sep=";")
    bank, partner = read_parties(make_parties.write(source, tmp_path, seed=1))
    others = make_parties.OTHERS
    assert bank.report.invalid == bank.report.duplicates == partner.report.invalid == 0
    assert len(bank.ids) == pytest.approx(0.85 * len(rows) + others, rel=0.01)
    assert len(partner.ids) == pytest.approx(0.80 * len(rows) + others, rel=0.01)
    assert len(set(bank.ids) & set(partner.ids)) == pytest.approx(0.68 * len(rows), rel=0.02)
    assert bank.label is not None
    assert int(np.isnan(bank.label).sum()) == others
    assert np.nanmean(bank.label) == pytest.approx((rows["y"] == "yes").mean(), abs=0.003)
    assert not {"duration", "y"} & {*bank.numbers, *bank.categories, *partner.numbers, *partner.categories}


@pytest.mark.parametrize("name", FILES)
def test_joined_parties_are_rows_of_the_uci_file(name: str, tmp_path: Path) -> None:
    source = uci(name)
    bank, partner = read_parties(make_parties.write(source, tmp_path, seed=1))
    place = {one: row for row, one in enumerate(partner.ids)}
    pairs = np.array([(row, place[one]) for row, one in enumerate(bank.ids) if one in place])
    assert bank.label is not None
    joined = pd.DataFrame(
        {n: v[pairs[:, 0]] for n, v in (*bank.numbers.items(), *bank.categories.items())}
        | {n: v[pairs[:, 1]] for n, v in (*partner.numbers.items(), *partner.categories.items())}
        | {"y": np.where(bank.label[pairs[:, 0]] == 1, "yes", "no")}
    )
    rows = pd.read_csv(source, sep=";", dtype=str, keep_default_na=False)[joined.columns]
    for column in (*bank.numbers, *partner.numbers):
        rows[column] = rows[column].astype(float)
    known = rows.value_counts()
    found = joined.value_counts()
    assert (known.reindex(found.index).fillna(0) >= found).all()
    order = pairs[:, 1] - pairs[:, 0]
    assert len(np.unique(order)) > 1_000  # each side has an order of its own
