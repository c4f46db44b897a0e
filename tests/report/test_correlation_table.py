import dataclasses
import json

import pytest

from fedmkt.report.page import render
from fedmkt.report.summary import CorrelatedPair, CorrelationTable, InflatedColumn, RunSummary
from tests.report.test_page import HOSTILE, read, simulated_run

TABLE = CorrelationTable(
    18_000,
    (
        CorrelatedPair("bank: age", "shop: spend 2", -0.4127),
        CorrelatedPair("bank: " + HOSTILE, "shop: x", 0.31),
    ),
    (InflatedColumn("shop: copy", None), InflatedColumn("bank: age", 3.25)),
    ("shop: copy is made up by other columns",),
)


@pytest.fixture(scope="module")
def summary() -> RunSummary:
    return dataclasses.replace(simulated_run(), correlation=TABLE)


def test_a_summary_with_correlations_survives_json_and_one_without_has_no_such_field(summary):
    assert RunSummary.from_json(summary.to_json()) == summary
    without = dataclasses.replace(summary, correlation=None)
    assert "correlation" not in json.loads(without.to_json())
    assert RunSummary.from_json(without.to_json()) == without


def test_the_page_shows_correlations_and_inflation_as_tables_that_can_be_read_aloud(summary):
    page = read(render(summary))
    assert "−0.413" in page.text and "made up by others" in page.text and "3.25" in page.text
    assert (
        "shop: copy is made up by other columns" in page.text
        and "18\u202f000 training customers" in page.text
    )
    # Each bar's length stands beside it as a number, and every head says what its column holds.
    heads = [tag for tag, attributes in page.tags if tag == "th" and attributes.get("scope") == "col"]
    assert len(heads) == 6


def test_names_of_columns_are_text_on_the_page(summary):
    page = render(summary)
    assert HOSTILE in read(page).text and "<script>alert" not in page
    assert "<script" not in page


def test_a_page_without_correlations_says_nothing_about_them():
    assert "Variance inflation" not in render(simulated_run())
