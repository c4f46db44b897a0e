import csv
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fedmkt.config.files import parse_job

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "febrl"
DATA = Path(os.environ.get("FEDMKT_DATA", ROOT.parent / "shared" / "data"))
PEOPLE = 1300
LEFT_OUT = 0.15


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("febrl_link", FOLDER / "link.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["febrl_link"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


link = load()


def febrl(name: str) -> Path:
    for path in (DATA / f"{name}.csv.gz", DATA / f"{name}.csv"):
        if path.is_file():
            return path
    pytest.skip(f"the Febrl file {name}.csv(.gz) is not at $FEDMKT_DATA or ../shared/data")


def invented(path: Path, seed: int, suffix: str) -> Path:
    """A file in Febrl's form: the same people for every seed, other gaps and another order."""
    people, careless = np.random.default_rng(0), np.random.default_rng(seed)
    columns = {name: people.permutation(9000)[:PEOPLE] + 1000 for name in link.COLUMNS}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rec_id", *(f" {name}" for name in columns)])
        for person in careless.permutation(PEOPLE):
            gaps = careless.random(len(columns)) < LEFT_OUT
            cells = ["" if gap else f" {v[person]}" for v, gap in zip(columns.values(), gaps, strict=True)]
            writer.writerow([f"rec-{person}-{suffix}", *cells])
    return path


def figures(line: str) -> list[float]:
    return [float(part.replace(",", "")) for part in line.split()[-3:]]


def test_a_union_of_four_keys_finds_nearly_everybody_in_febrl() -> None:
    own, other = (link.read_febrl(febrl(f"dataset4{letter}")) for letter in "ab")
    lines = link.lines_of(own, other)
    union = lines[-1].quality
    assert union.true == 5000
    assert union.recall >= 0.986 and union.precision >= 0.999
    assert union.recall > max(line.quality.recall for line in lines[: len(link.KEYS)])
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for line in lines:
        found = line.quality
        recall, precision = f"{found.recall:.4f}".lstrip("0"), f"{found.precision:.4f}"
        assert f"| {line.key} | {recall} | {precision} | {found.found:,} |" in readme


def test_the_protocol_finds_the_pairs_of_a_join_in_the_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(invented(tmp_path / f"{s}.csv", n, s)) for n, s in ((1, "org"), (2, "dup-0"))]
    monkeypatch.setattr(sys, "argv", ["link.py", *files, "--folder", str(tmp_path / "parties")])
    assert link.main() == 0
    *_, union, protocol = capsys.readouterr().out.strip().splitlines()
    assert figures(protocol) == figures(union)
    recall, precision, pairs = figures(union)
    # Each key misses a pair if any of its columns is left out on either side.
    assert recall > 0.9 and precision == 1 and pairs > 1000
    job = (tmp_path / "parties" / "job.toml").read_text(encoding="utf-8")
    assert job == (FOLDER / "job.toml").read_text(encoding="utf-8")


def test_both_parties_of_the_example_agree_on_the_kinds_of_ids() -> None:
    job = parse_job((FOLDER / "job.toml").read_text(encoding="utf-8"), "job.toml")
    kinds = [[key.agreed for key in party.more_ids] for party in job.parties]
    assert kinds[0] == kinds[1] == [
        "compound:surname+date_of_birth",
        "compound:date_of_birth+postcode",
        "compound:street_number+address_1+postcode",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "rec_id,surname\n1,li\n"])
def test_a_file_that_is_not_febrl_s_is_refused(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["link.py", *[str(tmp_path / "a.csv")] * 2])
    assert link.main() == 2
    assert "no Febrl file" in capsys.readouterr().err
