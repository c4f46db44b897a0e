import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedmkt.audit.ledger import Line, ledger
from fedmkt.audit.records import Record
from fedmkt.cli.app import main
from fedmkt.contract.files import to_toml
from fedmkt.report.message_ledger import read_ledger, to_csv
from tests.engine import Killed, Tap, job_world

RUN = "ab" * 32
ONE, TWO = "01" * 32, "02" * 32


def log(party: str, *events: tuple[str, dict[str, Any]]) -> Sequence[Record]:
    listed = [("epoch.started", {"epoch": 1}), *events]
    return [Record(i, "", party, RUN, event, "", body) for i, (event, body) in enumerate(listed)]


def sent(digest: str, number: int = 4, size: int = 9) -> tuple[str, dict[str, Any]]:
    return "message.sent", {
        "to": "shop",
        "step": "fit.open",
        "index": number,
        "sha256": digest,
        "bytes": size,
    }


def received(digest: str, number: int = 4, size: int = 9) -> tuple[str, dict[str, Any]]:
    return "message.received", {"from": "bank", "index": number, "sha256": digest, "bytes": size}


DONE: tuple[str, dict[str, Any]] = ("run.completed", {"index": 9})


def test_a_message_in_both_logs_is_one_message_and_matches() -> None:
    found = ledger({"bank": log("bank", sent(ONE), DONE), "shop": log("shop", received(ONE), DONE)})
    (message,) = found.messages
    assert (message.seen, message.stage, message.size) == ("matched", "fit", 9)
    assert (found.matched, found.comparable, found.mismatches) == (1, 1, ())


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ([received(TWO)], "the log of shop does not show it"),
        ([received(ONE, size=10)], "bank sent 9 bytes as number 4, shop received 10 bytes as number 4"),
        ([received(ONE, number=5)], "as number 5"),
        ([], "the log of shop does not show it"),
    ],
)
def test_a_message_that_two_logs_tell_differently_is_named_whole(
    theirs: list[tuple[str, dict[str, Any]]], said: str
) -> None:
    found = ledger({"bank": log("bank", sent(ONE), DONE), "shop": log("shop", *theirs, DONE)})
    first = found.mismatches[0]
    assert (first.run, first.epoch, first.number, first.step) == (RUN, 1, 4, "fit.open")
    assert (first.sender, first.reader, first.digest) == ("bank", "shop", ONE)
    assert said in first.why
    for part in (RUN[:16], "epoch 1", "number 4", "fit.open", "bank to shop", ONE):
        assert part in str(first)


def test_the_first_mismatch_by_number_comes_first() -> None:
    mine = log("bank", sent(ONE, 8), sent(TWO, 7), DONE)
    assert [m.number for m in ledger({"bank": mine, "shop": log("shop", DONE)}).mismatches] == [7, 8]


def test_a_message_that_nobody_sent_names_the_one_in_its_place() -> None:
    found = ledger({"bank": log("bank", sent(ONE)), "shop": log("shop", received(TWO))})
    assert ONE in found.mismatches[0].why and found.mismatches[0].digest == TWO


def test_a_message_without_a_checkpoint_after_it_may_be_lost() -> None:
    found = ledger({"bank": log("bank", sent(ONE)), "shop": log("shop")})
    assert (found.lost, found.mismatches) == (1, ())


def test_one_log_has_nothing_to_match_with() -> None:
    found = ledger({"shop": log("shop", received(ONE), DONE)})
    assert [m.seen for m in found.messages] == ["one log"]
    assert (found.comparable, found.size) == (0, 9)


def test_a_run_whose_records_expired_in_one_log_is_compared_with_nothing() -> None:
    later = Record(7, "", "shop", "cd" * 32, "epoch.started", "", {"epoch": 1})
    found = ledger({"bank": log("bank", sent(ONE), DONE), "shop": [later]})
    assert ([m.seen for m in found.messages], found.mismatches) == (["one log"], ())
    whole = ledger({"bank": log("bank", sent(ONE), DONE), "shop": [replace(later, seq=0)]})
    assert len(whole.mismatches) == 1


def test_a_head_that_only_its_reader_has_is_a_mismatch() -> None:
    body = {"from": "bank", "index": 1, "sha256": ONE, "bytes": 9}
    lines: dict[str, list[Line]] = {"bank": [], "shop": [Line(RUN, "message.received", body)]}
    assert len(ledger({"bank": log("bank"), "shop": log("shop")}, lines).mismatches) == 1


def test_what_a_call_told_without_a_message_is_listed() -> None:
    told = ("value.revealed", {"index": 2, "step": "psi.announce", "kind": "ListSize", "to": "all"})
    with_it = ("value.revealed", {"index": 4, "step": "fit.open", "kind": "RangeBit", "to": "all"})
    found = ledger({"bank": log("bank", told, with_it, sent(ONE))})
    assert [(t.step, t.what) for t in found.told] == [("psi.announce", "ListSize")]
    assert found.messages[0].revealed == ("RangeBit",)


def test_a_record_without_its_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="'index'"):
        ledger({"bank": log("bank", ("message.sent", {"to": "shop", "sha256": ONE, "bytes": 3}))})


def test_the_ledger_of_a_run_holds_every_byte_of_its_envelopes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world, tap = job_world(tmp_path, iterations=1), Tap()
    (tmp_path / "contract.toml").write_text(to_toml(world.signed))
    with pytest.raises(Killed):
        world.run(tap_before := Tap(stop_after=40))
    world.kill()
    world.run(tap, resume=True)
    found = read_ledger(tmp_path)
    assert found.size == sum(e.size for e in [*tap_before.envelopes, *tap.envelopes])
    assert found.mismatches == () and found.matched + found.lost == len(found.messages)
    assert {m.epoch for m in found.messages if m.kind == "protocol"} == {1, 2}

    assert main(["audit", "ledger", str(tmp_path)]) == 0
    assert f"{found.size:,} bytes" in capsys.readouterr().out
    assert main(["audit", "ledger", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["bytes"] == found.size
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert sum(int(r["bytes"]) for r in rows) == found.size

    path = tmp_path / "logs" / "bank" / "log.jsonl"
    digest = next(m.digest for m in found.messages if m.epoch == 2 and m.reader == "bank")
    path.write_bytes(path.read_bytes().replace(digest.encode(), b"0" * 64))
    capsys.readouterr()
    assert main(["audit", "ledger", str(tmp_path), "--csv"]) == 7
    assert "epoch 2" in (said := capsys.readouterr().err) and (digest in said or "0" * 64 in said)


def test_a_folder_that_holds_no_run_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "ledger", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_step_that_looks_like_a_formula_is_tamed_in_the_table() -> None:
    bad = ("message.sent", {"to": "shop", "step": "=1+1", "index": 4, "sha256": ONE, "bytes": 9})
    table = to_csv(ledger({"bank": log("bank", bad)}))
    assert ",'=1+1," in table and ",=1+1," not in table
