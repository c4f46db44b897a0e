from datetime import UTC, datetime, timedelta

import pytest

from fedmkt.audit.own_log import verify_own
from fedmkt.audit.records import Record, timestamp
from fedmkt.audit.retention import expired_below
from fedmkt.audit.verified import lines
from fedmkt.audit.verify import VerifyError, verify_files, verify_run
from fedmkt.errors import AuditError

NOW = datetime(2040, 1, 1, tzinfo=UTC)


def log(*runs_and_ages):
    times = [timestamp(NOW - timedelta(days=age)) for _, age in runs_and_ages]
    return [
        Record(i, times[i], "bank", run, "step.completed", "ab", {})
        for i, (run, _) in enumerate(runs_and_ages)
    ]


def test_a_run_goes_as_a_whole_and_only_when_its_last_record_is_old():
    records = log(("", 90), ("a", 80), ("b", 70), ("a", 60), ("b", 50), ("c", 5))
    below = {days: expired_below(records, 6, days, NOW) for days in (85, 75, 55, 48, 10, 1)}
    assert below == {85: 1, 75: 1, 55: 1, 48: 5, 10: 5, 1: 5}


def test_nothing_goes_that_no_head_covers():
    records = log(("a", 90), ("b", 80), ("b", 70), ("c", 5))
    assert [expired_below(records, signed, 10, NOW) for signed in (4, 3, 2, 1, 0)] == [3, 3, 1, 1, 0]


def test_a_day_more_is_waited_for_the_clocks_of_others():
    records = log(("a", 11), ("b", 1))
    assert expired_below(records, 2, 10, NOW) == 1
    assert expired_below(records, 2, 10, NOW - timedelta(seconds=1)) == 0


@pytest.fixture
def pruned(write_governed):
    """Two runs 100 days apart, under a contract that keeps records for 30 days; the bank removed the first."""
    return write_governed()


def test_a_pruned_log_verifies_and_says_what_expired(pruned):
    report = verify_files(pruned)
    assert [(run.run, run.outcome) for run in report.runs] == [("run1", "completed"), ("run2", "completed")]
    assert [(log.party, log.records, log.pruned, log.signed) for log in report.logs] == [
        ("bank", 11, 5, 10),
        ("coordinator", 6, 0, 6),
        ("shop", 10, 0, 10),
    ]
    assert "  expired: records 0 to 4 were removed, their hashes verify" in lines(report)


def test_the_owner_verifies_a_pruned_log_too(pruned):
    files = {name.split("/")[-1]: data for name, data in pruned.items() if "/bank/" in name}
    report = verify_own(files | {"contract.toml": pruned["contract.toml"]})
    assert (report.records, report.pruned, report.signed, report.outcome) == (11, 5, 10, "completed")
    with pytest.raises(AuditError, match="changed below its signed head"):
        changed = bytes([files["pruned.hashes"][0] ^ 1]) + files["pruned.hashes"][1:]
        verify_own(files | {"contract.toml": pruned["contract.toml"], "pruned.hashes": changed})


def test_a_change_of_any_hash_of_removed_records_is_found(pruned):
    name = "logs/bank/pruned.hashes"
    for place in range(len(pruned[name])):
        changed = bytearray(pruned[name])
        changed[place] ^= 1
        with pytest.raises(VerifyError):
            verify_files({**pruned, name: bytes(changed)})
    for other in (b"", pruned[name][:-1], pruned[name][:-32], pruned[name] + bytes(32)):
        with pytest.raises(VerifyError):
            verify_files({**pruned, name: other})


def test_records_that_went_before_their_time_are_found(write_governed):
    with pytest.raises(VerifyError, match="bank removed run run1 before its 30 days were over"):
        verify_files(write_governed(age=29))


def test_a_removal_that_says_it_was_done_in_the_future_counts_as_done_now(write_governed):
    """An owner may write any time into its own record, and so remove a run before its time."""
    files = write_governed()
    assert verify_files(files).outcome == "completed"
    verify_files(files, now=datetime(2031, 1, 1, tzinfo=UTC))
    with pytest.raises(VerifyError, match="bank removed run run1 before its 30 days were over"):
        verify_files(files, now=datetime(2030, 1, 20, tzinfo=UTC))


def test_records_that_went_without_a_record_of_it_are_found(pruned):
    name = "logs/bank/log.jsonl"
    rest = pruned[name].splitlines(keepends=True)
    with pytest.raises(VerifyError, match="without its first 5 records"):
        verify_files({**pruned, name: b"".join(rest[:-1])})


def test_records_may_not_go_where_the_contract_says_nothing_of_it(write_governed):
    with pytest.raises(VerifyError, match="no contract"):
        verify_files(write_governed(is_governed=False))


def test_what_the_other_side_still_has_of_an_expired_run_is_verified(pruned):
    name = "logs/shop/log.jsonl"
    data = pruned[name].replace(b'"from":"bank"', b'"from":"bonk"', 1)
    with pytest.raises(VerifyError):
        verify_files({**pruned, name: data})


def test_the_verifier_of_a_folder_reads_the_hashes_of_what_was_removed(pruned, tmp_path):
    """The fixture's files lie in the folder that is verified."""
    assert verify_run(tmp_path) == verify_files(pruned)
