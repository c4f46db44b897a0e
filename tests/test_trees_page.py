"""The figures of docs/trees.md that follow from the budget."""

import math
import re
from pathlib import Path

import pytest

from fedmkt.protocol.trees.sides.histogram_terms import Batch, Terms
from fedmkt.ring.budget import finest_gradients
from fedmkt.ring.fields import gradient_fields
from fedmkt.ring.rlwe import DEGREE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "trees.md"
COSTS = re.findall(
    r"^\| ([\d,]+) \| (\d) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \| 2\^(-[\d.]+) \|$",
    PAGE.read_text(),
    re.MULTILINE,
)
BINS = 20 * 32


def levels(rows: int) -> list[tuple[int, ...]]:
    """List the bounds of rows of the five batches of a tree of depth 5."""
    return [(rows,), *(tuple(rows // (2 * k) for k in range(1, n + 1)) for n in (1, 2, 4, 8))]


@pytest.mark.parametrize("row", COSTS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_the_costs_on_the_page_are_those_of_the_budget(row: tuple[str, ...]) -> None:
    rows, bits = int(row[0].replace(",", "")), int(row[1])
    terms = Terms(rows, gradient_fields(bits, bits), 16 * 50, 50)
    plans = [plan for level in levels(rows) for plan in Batch(terms, level).budgets(20)]
    words = sum(plan.word_bits for plan in plans)
    megabytes = (rows * words / 8 + 16 * 8 * (DEGREE + 2 * BINS)) / 1e6
    rho = max(plan.rho(16 * 50) for plan in plans)
    assert len(plans) == 16
    assert rows < 50_000 or bits == finest_gradients(rows, 20, 16 * 50)
    assert (terms.packing().bits, plans[0].word_bits, words) == tuple(map(int, row[2:5]))
    assert megabytes == pytest.approx(float(row[5]), abs=0.1)
    assert math.log2(rho) == pytest.approx(float(row[6]), abs=0.051)


def test_the_page_has_figures_for_several_numbers_of_rows() -> None:
    assert [row[0] for row in COSTS] == ["31,647", "31,647", "200,000", "700,000", "1,000,000"]
