import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "assurance.md").read_text()
GOALS = [*(f"R{i}" for i in range(1, 13)), "K1", "K2", "K3", *(f"L{i}" for i in range(1, 6)),
         "P1", "P2", "P3", "C1", "S1", "A1"]  # fmt: skip
FILES = sorted(set(re.findall(r"`((?:tests|fedmkt)/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


def test_every_goal_has_one_row_whose_cells_all_say_something() -> None:
    rows = re.findall(r"^\| ([RKLPCSA]\d+) \|(.*)\|$", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == GOALS
    for name, cells in rows:
        assert len(cells.split(" | ")) == 3 and all(cell.strip() for cell in cells.split(" | ")), name


@pytest.mark.parametrize(("file", "test"), FILES)
def test_a_test_that_the_page_names_exists(file: str, test: str) -> None:
    text = (ROOT / file).read_text()
    assert not test or re.search(rf"^(?:async )?def {test}\(", text, re.MULTILINE)


def test_a_target_that_the_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", PAGE))
    assert named and named <= targets


def test_the_page_counts_the_locked_packages() -> None:
    counts = []
    for name in ("requirements.lock", "requirements-build.lock", "requirements-dev.lock"):
        counts.append(len(re.findall(r"^[a-z0-9-]+==", (ROOT / name).read_text(), re.MULTILINE)))
    assert f"{counts[0]} packages at run time, {counts[1]} to build, {counts[2]} more to test" in PAGE
