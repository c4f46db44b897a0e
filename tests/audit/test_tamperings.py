from pathlib import Path

import pytest

from fedmkt.audit.verify import verify_files
from tests.audit import second_verifier
from tests.audit.tamperings import KINDS, clean_runs, try_all


def test_tamperings_are_found_and_named_by_two_verifiers_without_a_false_alarm():
    tally = try_all(clean=12, per_run=16, seed=1)
    assert tally.missed == tally.unnamed == tally.disagreed == tally.alarms == []
    assert sum(tally.found.values()) == 12 * 16 and set(tally.found) == set(KINDS)
    assert tally.named["log"] == 0 and tally.named["line"] + tally.named["range"] > 100, tally.named


def test_the_two_verifiers_report_the_same_of_clean_runs():
    for files, _, _ in clean_runs(12, seed=2):
        logs, runs = second_verifier.verify(files)
        report = verify_files(files)
        assert {r.run: (r.outcome, r.messages, r.lost, r.disclosures) for r in report.runs} == runs
        assert {
            log.party: (log.records, log.pruned, log.signed, log.root, log.cosigners) for log in report.logs
        } == logs


def test_the_second_verifier_shares_no_code_with_the_first():
    assert "fedmkt.audit.verify" not in Path(second_verifier.__file__).read_text().split('"""', 2)[2]
    assert "import fedmkt" not in Path(second_verifier.__file__).read_text()


@pytest.mark.slow  # a thousand runs are played and verified twice: minutes; `make tamper`
def test_a_thousand_tamperings_and_a_thousand_clean_runs():
    tally = try_all(clean=1000, per_run=1, seed=7)
    assert tally.missed == tally.unnamed == tally.disagreed == tally.alarms == []
