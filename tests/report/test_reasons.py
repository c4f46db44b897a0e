from pathlib import Path

import pytest

from fedmkt import simulate
from fedmkt.cli import app as commands
from fedmkt.errors import ConfigError
from fedmkt.report.reasons import explain, read_rates
from fedmkt.report.scores import read_scores
from fedmkt.report.summary import RunSummary
from tests.engine import job_config

TERMS = """
[governance]
countries = ["CN"]
locations = { bank = "CN", partner = "CN", coordinator = "CN" }
groups = ["region", "age"]
use = "service"
[governance.impact]
sha256 = "abababababababababababababababababababababababababababababababab"
purpose = "marketing-response"
parties = ["bank", "partner"]
expires = 2099-01-01T00:00:00Z
[[governance.recipients]]
result = "scores"
to = "bank"
use = "letters"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under terms of governance, simulated: nobody approves there, and no list says who consented."""
    folder = tmp_path_factory.mktemp("governed")
    job = job_config(folder, rows=(450, 520, 300), iterations=1)
    text = TERMS
    for party in job.parties:
        grants = ", ".join(f'{{ name = "{c}", level = 2, kind = "habits" }}' for c in party.columns)
        text += (
            f'[[governance.datasets]]\nparty = "{party.name}"\nname = "customers"\npeople = "customers"\n'
            f'purposes = ["marketing-response"]\nbasis = ["PIPL-13-2"]\ncolumns = [{grants}]\n'
        )
    path = folder / "job.toml"
    path.write_text(path.read_text() + text)
    return simulate(path, out=folder / "run", seed=4).folder


def test_the_page_and_the_summary_have_the_rates_of_each_declared_group(run: Path) -> None:
    rates = read_rates(run / "parties" / "bank" / "model")
    assert [group.column for group in rates] == ["region", "age"]
    released = len(read_scores(run / "parties" / "bank" / "model").rounded)
    assert 0 < sum(r.rows for r in rates[1].rates) <= released and all(r.rows >= 20 for r in rates[1].rates)
    page = (run / "report.html").read_text()
    assert "<dt>Best tenth by region</dt>" in page and "<dt>Best tenth by age</dt>" in page
    summary = RunSummary.from_json((run / "summary.json").read_text())
    assert summary.rates == rates and RunSummary.from_json(summary.to_json()) == summary


def test_one_score_is_explained_by_the_banks_columns_and_one_number_for_the_rest(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = int(read_scores(run / "parties" / "bank" / "model").file_rows[0])
    found = explain(run, row)
    assert {one.column for one in found.own} >= {"age", "region"} and found.unit == "log odds"
    assert [abs(one.part) for one in found.own] == sorted((abs(one.part) for one in found.own), reverse=True)
    assert commands.main(["explain", str(run), str(row)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"row {row}: score ") and "the other parties' columns" in out.splitlines()[-1]


def test_a_row_without_a_score_has_no_reasons(run: Path) -> None:
    with pytest.raises(ConfigError, match="row 99999: no score was released"):
        explain(run, 99999)
