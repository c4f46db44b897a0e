"""The table of the lab: what its verdicts mean, and the three forms in which it is written."""

import json

from fedmkt.attack_lab.finding import Finding, Limit, Quality
from fedmkt.attack_lab.table import Report

AUC = Limit(0.55)


def finding(undefended, here, limit=AUC, **more):
    return Finding(1, "label by gradient norm, cosine", "leak AUC", undefended, here, limit, **more)


def test_a_verdict_says_no_more_than_the_figures():
    assert finding(0.9, 0.5).verdict == "held"
    assert finding(0.9, 0.8).verdict == "BROKEN"
    assert finding(0.9, 0.8, declared=("Scores",)).verdict == "declared"
    assert finding(0.9, 0.8, assumed="the dealer is honest").verdict == "assumed"
    assert finding(0.5, 0.8).verdict == finding(0.5, 0.5).verdict == "no control"
    assert finding(0.9, None).verdict == "-"
    assert finding(0.2, 0.95, Limit(0.9, is_least=True)).verdict == "held"
    assert finding(0.2, 0.85, Limit(0.9, is_least=True)).verdict == "BROKEN"


def test_a_figure_within_two_standard_errors_of_the_limit_breaks_nothing():
    assert finding(0.9, 0.58, error=0.02).verdict == "held"
    assert finding(0.9, 0.60, error=0.02).verdict == "BROKEN"


def test_the_score_of_a_defence_is_one_where_nothing_leaks_and_nothing_is_lost():
    found = finding(1.0, 0.5, guess=0.5, quality=Quality(0.8, 0.8)).dcs
    assert found is not None and found[1] == 1.0 and abs(found[0] - 1 / (1 + 0.5 / 2**0.5)) < 1e-12


def test_lines_fit_a_terminal_and_json_and_html_say_the_same(tmp_path):
    found = (finding(0.97, 0.51, note="a <b>"), finding(1, 0.8, declared=("Scores",)), finding(1.0, None))
    report = Report("run", "logistic", "ab" * 32, 1, found)
    assert all(len(line) <= 80 for line in report.lines())
    assert "1: declared in the contract: Scores" in report.lines()
    facts = json.loads(report.write(tmp_path).read_bytes())
    assert [f["verdict"] for f in facts["findings"]] == ["held", "declared", "-"]
    page = (tmp_path / "attack-lab.html").read_text()
    assert "a &lt;b&gt;" in page and page.count("<tr>") == 4
