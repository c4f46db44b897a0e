"""The report: its JSON form, its sentences, and the page itself."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest

from fedmkt.learn.metrics import Interval, auc_gain_interval
from fedmkt.report.page import headline, render, show_number, show_seconds, show_size
from fedmkt.report.summary import (
    ConvergencePoint,
    DisclosureLine,
    HeadLine,
    ModelResult,
    Models,
    PartyLine,
    RunSummary,
    measure_model,
)

HOSTILE = '<script>alert("x")</script> & <img src=http://evil.example/x onerror=y> $\\frac{1}{0}$'


def seeded(seed: int) -> Callable[[int], bytes]:
    """Return a stream of bytes for one test."""
    return np.random.default_rng(seed).bytes


def simulated_run(partner_weight: float = 1.0, rows: int = 5400, seed: int = 7) -> RunSummary:
    """Build a summary as a simulation of the demo would: real scores, invented sizes."""
    rng = np.random.default_rng(seed)
    own, foreign = rng.standard_normal(rows), rng.standard_normal(rows)
    z = 0.75 * own + partner_weight * foreign - 2.3
    y = (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(float)
    exact = 1 / (1 + np.exp(-z))
    bank = 1 / (1 + np.exp(-(0.68 * own - 2.05)))
    noisy = 1 / (1 + np.exp(-(z + 0.002 * rng.standard_normal(rows))))
    models = Models(
        bank=measure_model(y, bank, seeded(1)),
        joint=measure_model(y, np.round(noisy, 2), seeded(2)),
        joint_exact=measure_model(y, noisy, seeded(3)),
        centralised=measure_model(y, exact, seeded(4)),
    )
    return RunSummary(
        name="Autumn savings campaign",
        purpose="Select the bank's own customers for one campaign on savings accounts, by expected response",
        run="2f81c0de-9a41",
        contract_digest="8c1f4f0a5f7e1d1c9be0f3a2d4476b0c1e88a1cf5a90cb1d3fb5b0f6ef3c2a71",
        parties=(
            PartyLine("bank", "Northbank AG", "bank"),
            PartyLine("shop", "Kaufgut Handels GmbH", "partner"),
            PartyLine("coordinator", "Trustworks Ltd", "coordinator"),
        ),
        common_band=(10_000, 15_000),
        common_exact=12_000,
        models=models,
        convergence=tuple(
            ConvergencePoint(i, float(0.36 + 0.333 * 0.42**i), float(0.9 * 0.38**i)) for i in range(1, 13)
        ),
        gain_interval=auc_gain_interval(y, bank, noisy),
        disclosures=(
            DisclosureLine(
                "bank", "SupersetList", "10 000–15 000 customers",
                "Which of its own customers the partner also has. It learned nothing about any other "
                "customer of the partner.", "3.1",
            ),
            DisclosureLine(
                "bank", "Scores", "5 400 customers, 2 decimals, once each",
                "How likely each of these customers is to respond, rounded before it was opened. With its "
                "own model, the bank can estimate what the partner's columns add to each score.", "3.4",
            ),
            DisclosureLine(
                "shop", "MatchedOwnRows", "10 000–15 000 customers",
                "Which of its own customers bank with Northbank. It learned no label, no score and no "
                "column of the bank.", "3.1",
            ),
            DisclosureLine("shop", "RangeBit", "3 bits", "That no prediction left the safe range.", "3.3"),
        ),
        heads=(
            HeadLine("bank", 214, "rM0d2mG8Vb0wT8sfJm0e0k3xWm0XxT8Yh7p0Qy2bG1s=", ("shop", "coordinator")),
            HeadLine("shop", 198, "hVZ2n5y1cWl0Gv4q6mZkqkq0tX4q1YbTgk0pQbJw3aE=", ("bank", "coordinator")),
            HeadLine("coordinator", 187, "Zk3W9Qv8Qm5yq2bqv0J5xv1m8b0V9eKq7Wn0uXx2c4U=", ("bank", "shop")),
        ),
        seconds={
            "contract": 0.11, "psi": 6.42, "align": 0.63, "prepare": 0.48, "fit": 4.9, "score": 0.71,
            "report": 1.2, "close": 0.09,
        },
        bytes_sent={"bank": 48_213_004, "shop": 51_771_230, "coordinator": 12_400_112},
        rounds=131,
        simulated=True,
        seed=7,
        finished="2031-05-14 09:21 UTC",
        warnings=("Minimum sizes are lowered in this job: it is a demonstration.",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def summary() -> RunSummary:
    """One simulated run, built once."""
    return simulated_run()


@pytest.fixture(scope="module")
def page(summary: RunSummary) -> str:
    """Its page, drawn once."""
    return render(summary)


def deployed(summary: RunSummary) -> RunSummary:
    """Return the same run as a deployment would know it."""
    models = Models(summary.models.bank, summary.models.joint)
    return dataclasses.replace(
        summary, models=models, common_exact=None, convergence=(), simulated=False, seed=None, warnings=()
    )


class Collector(HTMLParser):
    """Reads a page the way a browser would: tags with attributes, visible text, and nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag and that it is open."""
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "img", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that closes itself."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Insist that tags close in order."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self.text += data


def read(page: str) -> Collector:
    """Parse a whole page."""
    collector = Collector()
    collector.feed(page)
    collector.close()
    assert collector.open == []
    return collector


@pytest.mark.parametrize("change", [lambda s: s, deployed], ids=["simulated", "deployed"])
def test_a_summary_survives_json(summary: RunSummary, change: Callable[[RunSummary], RunSummary]) -> None:
    before = change(summary)
    after = RunSummary.from_json(before.to_json())
    assert after == before
    assert list(after.seconds) == list(before.seconds)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), "fedmkt-summary/2", "format must be"),
        (("rounds",), "many", r"summary\.rounds: int is needed, not str"),
        (("rounds",), True, r"summary\.rounds: int is needed, not bool"),
        (("models", "bank", "metrics", "deciles", 3, "lift"), None, r"deciles\[3\]\.lift"),
        (("common_band",), [1, 2, 3], r"summary\.common_band: 2 values"),
        (("parties", 0, "shoe"), "size", r"parties\[0\]\.shoe: unknown"),
        (("seconds", "psi"), "long", r"summary\.seconds\.psi"),
        (("warnings",), {}, r"summary\.warnings: a list"),
        (("models",), None, r"summary\.models: an object"),
    ],
)  # fmt: skip
def test_a_wrong_summary_is_refused_by_the_name_of_the_field(
    summary: RunSummary, path: tuple[str | int, ...], value: object, message: str
) -> None:
    facts = json.loads(summary.to_json())
    place = facts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        RunSummary.from_json(json.dumps(facts))


def test_a_missing_field_is_named(summary: RunSummary) -> None:
    facts = json.loads(summary.to_json())
    del facts["models"]["joint"]
    with pytest.raises(ValueError, match=r"summary\.models\.joint: missing"):
        RunSummary.from_json(json.dumps(facts))


def test_the_headline_gives_both_models_and_both_lifts(summary: RunSummary, page: str) -> None:
    bank, joint = summary.models.bank.metrics, summary.models.joint.metrics
    expected = (
        f"The partner’s columns raise AUC from {bank.auc:.3f} to {joint.auc:.3f}; "
        f"top-decile lift from {bank.deciles[0].lift:.2f} to {joint.deciles[0].lift:.2f}."
    )
    assert headline(summary) == expected
    assert expected in read(page).text


def test_the_headline_claims_nothing_that_the_rows_do_not_support(summary: RunSummary) -> None:
    unclear = dataclasses.replace(summary, gain_interval=Interval(-0.001, 0.004))
    assert "make no clear difference" in headline(unclear)


def test_a_partner_without_signal_gets_no_praise() -> None:
    assert "raise" not in headline(simulated_run(partner_weight=0.0))


def test_the_headline_admits_a_loss(summary: RunSummary) -> None:
    models = Models(bank=summary.models.joint, joint=summary.models.bank)
    worse = dataclasses.replace(summary, models=models, gain_interval=Interval(-0.2, -0.1))
    assert headline(worse).startswith("The partner’s columns lower AUC")


def test_the_page_needs_nothing_from_outside_and_runs_nothing(page: str) -> None:
    for tag, attributes in read(page).tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "img", "image", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "action"}:
                assert value is not None and value.startswith("#")
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\((?!#)", page)


def test_the_page_is_small(page: str) -> None:
    assert len(page.encode()) < 500_000


def test_equal_summaries_give_equal_bytes(summary: RunSummary, page: str) -> None:
    assert render(summary) == page


def test_no_identifier_is_used_twice(page: str) -> None:
    identifiers = [attributes["id"] for _, attributes in read(page).tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    referenced = set(re.findall(r'(?:url\(#|href="#)([^")]+)', page))
    assert referenced <= set(identifiers)


def test_text_in_figures_stays_text(page: str) -> None:
    for words in ("decile of score, 1 = highest", "predicted response rate", "responders found"):
        assert words in read(page).text


def test_text_from_outside_is_escaped_everywhere(summary: RunSummary) -> None:
    hostile = dataclasses.replace(
        summary,
        name=HOSTILE, purpose=HOSTILE, run=HOSTILE, contract_digest=HOSTILE, finished=HOSTILE,
        parties=tuple(PartyLine(HOSTILE + str(i), HOSTILE, HOSTILE) for i in range(3)),
        convergence_measure=HOSTILE,
        disclosures=(DisclosureLine(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        heads=(HeadLine(HOSTILE, 3, HOSTILE, (HOSTILE,)),),
        seconds={HOSTILE: 1.0}, bytes_sent={HOSTILE: 1}, warnings=(HOSTILE,),
    )  # fmt: skip
    parsed = read(render(hostile))
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "img"})
    assert parsed.text.count(HOSTILE) >= 15


def test_every_signer_is_listed_with_what_it_learned(page: str) -> None:
    text = read(page).text
    for expected in (
        "Northbank AG", "Kaufgut Handels GmbH", "Trustworks Ltd", "MatchedOwnRows", "SupersetList", "Scores",
        "Only public values, and sizes and times of sealed messages.", "3 bits",
    ):  # fmt: skip
        assert expected in text


def test_a_deployed_run_shows_no_figure_that_only_a_simulation_can_know(summary: RunSummary) -> None:
    text = read(render(deployed(summary))).text
    assert "Centralised" not in text
    assert "exact scores" not in text
    assert "12\u202f000" not in text
    assert "neither weights nor loss are opened while the model trains" in text


def test_a_tiny_run_renders() -> None:
    y, p = np.array([0.0, 1, 0]), np.array([0.0, 1.0, 0.5])
    one: ModelResult = measure_model(y, p, seeded(1))
    tiny = RunSummary("t", "p", "r", "d", (), (0, 10), Models(one, one))
    assert "make no clear difference" in render(tiny)


def test_importing_the_page_does_not_load_the_drawing_library() -> None:
    code = "import sys, fedmkt.report.page; sys.exit('matplotlib' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numbers_are_written_for_people() -> None:
    assert show_number(1234567) == "1\u202f234\u202f567"
    assert [show_seconds(s) for s in (0.123, 12.34, 125)] == ["0.12 s", "12.3 s", "2 min 05 s"]
    assert [show_size(b) for b in (999, 1000, 48_213_004, 512_000_000, 3.2e12)] == [
        "999 B", "1.0 kB", "48.2 MB", "512 MB", "3200 GB",
    ]  # fmt: skip
