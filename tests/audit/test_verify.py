import ast
import base64
import functools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedmkt.audit import verify
from fedmkt.audit.verified import lines
from fedmkt.audit.verify import VerifyError, verify_files, verify_run
from fedmkt.contract.canonical import digest

LOG = "logs/bank/log.jsonl"


def test_a_finished_run_verifies(write, events, signed, tmp_path):
    write(events)
    report = verify_run(tmp_path)
    assert report.contract == digest(signed.contract).hex()
    assert (report.run, report.outcome, report.messages, report.disclosures) == ("run1", "completed", 1, 2)
    assert [(log.party, log.records, log.cosigners) for log in report.logs] == [
        ("bank", 5, ("coordinator", "shop")),
        ("coordinator", 3, ("bank", "shop")),
        ("shop", 5, ("bank", "coordinator")),
    ]
    assert "coordinator: 3 records" in "\n".join(lines(report))


@pytest.fixture
def reads_a_contract_once(monkeypatch):
    """Thousands of changed runs with the same contract: the same bytes need to be parsed only once."""
    monkeypatch.setattr(verify, "_read_contract", functools.cache(verify._read_contract))


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_a_change_of_any_byte_of_any_file_is_found(write, events, reads_a_contract_once, step):
    files = write(events)
    verify_files(files)
    missed = []
    for name, data in files.items():
        for place in range(0, len(data), step):
            changed = bytearray(data)
            changed[place] ^= 1 << (place % 8)
            try:
                verify_files({**files, name: bytes(changed)})
                missed.append((name, place))
            except VerifyError:
                pass
    assert missed == []


def test_letters_in_the_other_case_are_found(write, events, reads_a_contract_once):
    files = write(events)
    for name in ("contract.toml", "logs/bank/checkpoint.txt", "logs/bank/peers.json"):
        data = files[name]
        for place in range(0, len(data), 3):
            # Letters in the other case: hexadecimal and base64 readers may take them for the same bytes.
            changed = data[:place] + data[place : place + 1].swapcase() + data[place + 1 :]
            if changed != data:
                with pytest.raises(VerifyError):
                    verify_files({**files, name: changed})


@pytest.mark.parametrize("insert", [b"\n", b" ", b"\r\n", b"#", b"\0", b"{}"])
def test_added_bytes_at_the_end_of_any_line_are_found(write, events, insert):
    files = write(events)
    for name, data in files.items():
        for place in [0, *(i for i, byte in enumerate(data) if byte == 10), len(data)]:
            with pytest.raises(VerifyError):
                verify_files({**files, name: data[:place] + insert + data[place:]})


def test_deleted_doubled_swapped_and_cut_lines_are_found(write, events):
    files = write(events)
    for name, data in files.items():
        lines = data.splitlines(keepends=True)
        for i in range(len(lines)):
            versions = [lines[:i] + lines[i + 1 :], lines[: i + 1] + lines[i:], lines[:i]]
            if i + 1 < len(lines) and lines[i] != lines[i + 1]:
                versions.append([*lines[:i], lines[i + 1], lines[i], *lines[i + 2 :]])
            for version in versions:
                with pytest.raises(VerifyError):
                    verify_files({**files, name: b"".join(version)})


def test_a_missing_or_additional_file_is_found(write, events):
    files = write(events)
    for name in files:
        with pytest.raises(VerifyError):
            verify_files({other: data for other, data in files.items() if other != name})
    with pytest.raises(VerifyError, match=r"logs/eve/log\.jsonl"):
        verify_files({**files, "logs/eve/log.jsonl": files[LOG]})


def test_another_partys_files_in_place_of_the_own_are_found(write, events):
    files = write(events)
    for file in ("log.jsonl", "checkpoint.txt", "peers.json"):
        with pytest.raises(VerifyError):
            verify_files({**files, f"logs/bank/{file}": files[f"logs/shop/{file}"]})


def test_a_message_that_nobody_sent_is_found(write, events):
    events["shop"].append(("message.received", {"from": "bank", "sha256": "11" * 32}))
    with pytest.raises(VerifyError, match=f"shop received {'11' * 32} from bank, whose log does not show it"):
        verify_files(write(events))


def test_a_message_that_never_arrived_is_found(write, events):
    events["bank"].append(("message.sent", {"to": "shop", "sha256": "11" * 32}))
    with pytest.raises(VerifyError, match=f"bank sent {'11' * 32} to shop, whose log does not show it"):
        verify_files(write(events))


def test_a_message_may_be_lost_when_the_run_is_aborted(write, events):
    events["bank"] += [("message.sent", {"to": "shop", "sha256": "11" * 32}), ("run.aborted", {})]
    assert verify_files(write(events)).outcome == "aborted"


def test_a_message_may_be_lost_with_the_epoch_that_was_given_up(write, events):
    events["bank"] += [("message.sent", {"to": "shop", "sha256": "11" * 32}), ("epoch.started", {"epoch": 2})]
    assert verify_files(write(events)).messages == 2


def test_a_disclosure_that_the_contract_does_not_allow_is_found(write, events):
    events["shop"].append(("value.revealed", {"kind": "Embeddings", "to": "bank", "width": 8, "openings": 1}))
    with pytest.raises(VerifyError, match="shop revealed Embeddings to bank, which the contract does not"):
        verify_files(write(events))


def test_a_disclosure_to_a_stranger_is_found(write, events):
    events["shop"].append(("value.revealed", {"kind": "RangeBit", "to": "eve"}))
    with pytest.raises(VerifyError, match="to eve, which the contract does not allow"):
        verify_files(write(events))


def test_a_record_moved_to_another_run_is_found(write, events):
    files = write(events)
    verify_files(files)
    other = {name: data.replace(b'"run":"run1"', b'"run":"run2"', 1) for name, data in files.items()}
    with pytest.raises(VerifyError):
        verify_files(other)


def test_a_second_run_in_the_same_logs_verifies(write, events):
    report = verify_files(write(events, events, runs=("run1", "run2")))
    assert [(run.run, run.outcome, run.messages) for run in report.runs] == [
        ("run1", "completed", 1),
        ("run2", "completed", 1),
    ]
    assert (report.run, report.messages, report.disclosures) == ("run2", 2, 4)


def test_what_was_sent_in_one_run_is_not_what_was_received_in_another(write, events):
    quiet = without(events, "shop", "message.received")
    with pytest.raises(VerifyError, match=r"bank sent .* to shop, whose log does not show it"):
        verify_files(write(quiet, events, runs=("run1", "run2")))


def test_a_completed_run_stays_verified_while_the_next_one_is_under_way(write, events):
    begun = {name: [("run.started", {"epoch": 1}), ("epoch.started", {"epoch": 1})] for name in events}
    files = write(events, begun, tail={"bank": [("run.aborted", {})]}, runs=("run1", "run2"))
    report = verify_files(files)
    assert [(run.run, run.outcome) for run in report.runs] == [("run1", "completed"), ("run2", "aborted")]
    peers = "logs/shop/peers.json"
    with pytest.raises(VerifyError):
        verify_files({name: data for name, data in files.items() if name != peers})


def without(events, party, kind):
    return {**events, party: [(found, body) for found, body in events[party] if found != kind]}


NEXT_EPOCH = [("run.resumed", {"epoch": 2}), ("epoch.started", {"epoch": 2}), ("run.completed", {})]


def gave_up(events, *more):
    """The same events, but the first epoch ends with these and without completion."""
    return {
        name: [event for event in items if event[0] != "run.completed"] + [*more]
        for name, items in events.items()
    }


def test_a_run_that_was_aborted_resumed_and_completed_is_completed(write, events):
    first = gave_up(without(events, "shop", "message.received"), ("run.aborted", {}))
    report = verify_files(write(first, {name: NEXT_EPOCH for name in events}))
    assert (report.outcome, report.runs[0].messages, report.runs[0].lost) == ("completed", 1, 1)
    assert "1 messages (1 lost in epochs that were given up)" in "\n".join(lines(report))


@pytest.mark.parametrize("party", ["bank", "coordinator", "shop"])
@pytest.mark.parametrize("place", [1, 3, -1, 99])
def test_a_record_of_an_abort_excuses_nothing_in_a_completed_epoch(write, events, party, place):
    quiet = without(events, "shop", "message.received")
    quiet[party] = [*quiet[party][:place], ("run.aborted", {}), *quiet[party][place:]]
    with pytest.raises(VerifyError, match=r"bank sent .* to shop, whose log does not show it"):
        verify_files(write(quiet))


def test_nothing_may_be_lost_before_a_checkpoint_of_its_sender(write, events):
    first = gave_up(without(events, "shop", "message.received"), ("checkpoint.saved", {}))
    with pytest.raises(VerifyError, match=r"bank sent .* to shop, whose log does not show it"):
        verify_files(write(first, {name: NEXT_EPOCH for name in events}))


def test_an_epoch_that_is_not_later_is_found(write, events):
    events["bank"].append(("epoch.started", {"epoch": 1}))
    with pytest.raises(VerifyError, match="an epoch that is not later"):
        verify_files(write(events))


@pytest.fixture
def aborted(write, events):
    """A run that ended after its first heads: the bank logged two more records, the last of them an abort."""
    tail = [("step.completed", {"index": 7}), ("run.aborted", {"index": 8})]
    return write(gave_up(events), tail={"bank": tail})


def test_an_aborted_run_verifies_up_to_its_heads(aborted):
    report = verify_files(aborted)
    assert report.outcome == "aborted"
    assert [(log.records, log.signed) for log in report.logs] == [(6, 4), (2, 2), (4, 4)]
    assert "not closed: 2 records after the signed head; a change may go unfound" in "\n".join(lines(report))


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_of_an_aborted_run_any_changed_byte_up_to_the_heads_is_found(aborted, reads_a_contract_once, step):
    signed_lines = sum(len(line) for line in aborted[LOG].splitlines(keepends=True)[:4])
    for name, data in aborted.items():
        for place in range(0, signed_lines if name == LOG else len(data), step):
            changed = bytearray(data)
            changed[place] ^= 1 << (place % 8)
            with pytest.raises(VerifyError):
                verify_files({**aborted, name: bytes(changed)})


def test_records_after_the_head_are_well_formed_or_found(aborted):
    data = aborted[LOG]
    kept = verify_files({**aborted, LOG: data.replace(b'"index":7', b'"index":9')})
    assert kept.logs[0].signed == 4
    for changed in (data[:-1], data + b"{}\n", data.replace(b'"index":7', b'"index": 7'), data + data[-90:]):
        with pytest.raises(VerifyError):
            verify_files({**aborted, LOG: changed})


def test_a_run_aborted_before_its_first_head_is_all_unsigned(aborted):
    bare = {name: data for name, data in aborted.items() if name.endswith(("log.jsonl", "contract.toml"))}
    report = verify_files(bare)
    assert report.outcome == "aborted"
    assert [(log.signed, log.cosigners) for log in report.logs] == [(0, ())] * 3
    assert "cosigned by nobody" in "\n".join(lines(report))


@pytest.mark.parametrize("file", ["checkpoint.txt", "peers.json"])
@pytest.mark.parametrize("party", ["bank", "coordinator", "shop"])
def test_a_cosigned_head_that_one_side_lost_is_found(aborted, party, file):
    gone = f"logs/{party}/{file}"
    with pytest.raises(VerifyError):
        verify_files({name: data for name, data in aborted.items() if name != gone})


def test_keys_that_are_not_the_pinned_ones_are_found(write, events, signed):
    files = write(events)
    pinned = {signer.name: signer.key for signer in signed.contract.signers}
    verify_files(files, pinned)
    with pytest.raises(VerifyError, match="not the pinned ones"):
        verify_files(files, {**pinned, "bank": "00" * 32})
    with pytest.raises(VerifyError, match="not the pinned ones"):
        verify_files(files, {**pinned, "more": "00" * 32})


@pytest.mark.parametrize("size", [*range(1, 20), 31, 32, 33, 100])
def test_the_root_is_the_one_of_the_hash_tree(size):
    from fedmkt.crypto.tree import leaf_hash, root_of

    leaves = [bytes([i]) * i for i in range(size)]
    hashes = [leaf_hash(leaf) for leaf in leaves]
    assert verify._root(hashes) == base64.b64encode(root_of(leaves)).decode()


def test_the_verifier_needs_nothing_of_this_package_and_is_short():
    text = Path(verify.__file__).read_text()
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names | {"cryptography"}
    assert len(text.splitlines()) <= 400


def test_the_verifier_runs_as_a_single_file(write, events, signed, tmp_path):
    (tmp_path / "run").mkdir()
    run = tmp_path / "run"
    for name, data in write(events).items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(data)
    alone = tmp_path / "elsewhere" / "verify.py"
    alone.parent.mkdir()
    alone.write_text(Path(verify.__file__).read_text())
    command = [sys.executable, str(alone), str(run)]
    env = {**os.environ, "PYTHONPATH": ""}
    good = subprocess.run(command, capture_output=True, text=True, cwd=alone.parent, env=env, timeout=60)
    assert (good.returncode, good.stderr) == (0, "")
    assert "completed" in good.stdout
    pins = [f"--pin={signer.name}={signer.key}" for signer in signed.contract.signers]
    assert subprocess.run([*command, *pins], capture_output=True, timeout=60).returncode == 0
    (run / LOG).write_bytes((run / LOG).read_bytes()[:-1])
    bad = subprocess.run(command, capture_output=True, text=True, cwd=alone.parent, env=env, timeout=60)
    assert (bad.returncode, bad.stdout) == (7, "")
    assert bad.stderr == "fedmkt: error: logs/bank/log.jsonl: the last line is cut\n"


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    assert verify.main([str(tmp_path)]) == 7
    assert capsys.readouterr().err.count("\n") == 1


def test_unused_bits_of_base64_are_not_free(write, events):
    files = write(events)
    name = "logs/bank/checkpoint.txt"
    root = files[name].split(b"\n")[2]
    # 32 bytes leave two unused bits in the last letter before the padding.
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = root[:-2] + bytes([letters[letters.index(root[-2]) ^ 1]]) + b"="
    assert base64.b64decode(other) == base64.b64decode(root)
    with pytest.raises(VerifyError):
        verify_files({**files, name: files[name].replace(root, other)})


def test_records_of_no_run_after_the_last_one_are_counted_as_unsigned(write, events):
    files = write(
        events, tail={"bank": [("contract.expired", {"expires": "2030-01-31T00:00:00Z"})]}, runs=("run1", "")
    )
    report = verify_files(files)
    assert report.outcome == "completed"
    assert [(log.records, log.signed) for log in report.logs] == [(6, 5), (3, 3), (5, 5)]


def test_records_of_a_run_after_its_completion_need_a_head(write, events):
    with pytest.raises(VerifyError, match="did not cosign it to its end"):
        verify_files(write(events, tail={"bank": [("step.completed", {"index": 7})]}, runs=("run1", "run1")))


@pytest.mark.parametrize("longer", [0, 1])
def test_a_record_has_at_most_16_kib(longer):
    fixed = {"v": 1, "seq": 0, "party": "bank", "contract": "c", "time": "t", "run": "", "type": "x"}
    body = "y" * ((1 << 14) - len(verify._canonical(fixed | {"body": {"a": ""}})) + longer)
    leaf = verify._canonical(fixed | {"body": {"a": body}}).encode()
    assert len(leaf) == (1 << 14) + longer
    contract = SimpleNamespace(digest="c")
    if longer:
        with pytest.raises(ValueError, match="at most 16 KiB"):
            verify._read_record(leaf, 0, "bank", contract, {})
    else:
        assert verify._read_record(leaf, 0, "bank", contract, {}).body == {"a": body}
