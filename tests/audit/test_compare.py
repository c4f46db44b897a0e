from pathlib import Path

import pytest

from fedmkt.audit.compare import CopyReport, compare
from fedmkt.audit.ledger import ledger
from fedmkt.audit.log_view import read_view
from fedmkt.errors import AuditError
from tests.audit.conftest import IDENTITIES, SEALED, write_run

KEYS = {name: identity.public for name, identity in IDENTITIES.items()}
SENT = ("message.sent", {"index": 4, "step": "fit.sum", "to": "shop", "sha256": SEALED, "bytes": 9})
RECEIVED = ("message.received", {"index": 4, "from": "bank", "sha256": SEALED, "bytes": 9})


def with_messages(events, sent=(SENT,), received=(RECEIVED,)):
    begun = [("run.started", {"epoch": 1}), ("epoch.started", {"epoch": 1})]
    return {
        "bank": [*begun, *sent, ("run.completed", {})],
        "coordinator": [*begun, ("run.completed", {})],
        "shop": [*begun, *received, ("run.completed", {})],
    }


def views(folder: Path, *phases, **more):
    folder.mkdir(exist_ok=True)
    files = write_run(folder, *phases, **more)
    found = {}
    for party in ("bank", "coordinator", "shop"):
        prefix = f"logs/{party}/"
        own = {n.removeprefix(prefix): d for n, d in files.items() if n.startswith(prefix)}
        found[party] = read_view(own, prefix)
    return found


@pytest.fixture
def logs(events, tmp_path):
    return views(tmp_path / "a", with_messages(events))


def test_two_copies_of_the_same_logs_agree(logs):
    found = compare([*logs.values()], [*logs.values()], KEYS)
    assert found.agrees and found.matched == 1 and found.lost == 0
    assert [c.relation for c in found.copies] == ["same"] * 3


def test_a_continuation_is_told_from_what_it_continues(logs, events, tmp_path):
    longer = views(tmp_path / "b", with_messages(events), tail={"bank": [("step.completed", {})]})
    found = compare([longer["bank"]], [logs["bank"]], KEYS)
    assert found.agrees and found.copies == (CopyReport("bank", "left continues right", 5, 4),)
    found = compare([logs["bank"]], [longer["bank"]], KEYS)
    assert found.copies == (CopyReport("bank", "right continues left", 4, 5),)


def test_a_fork_is_proven_by_two_heads_of_its_owner(logs, events, tmp_path):
    other = views(tmp_path / "b", with_messages(events, sent=()))
    found = compare([logs["bank"]], [other["bank"]], KEYS)
    (copy,) = found.copies
    assert not found.agrees and (copy.relation, copy.at, len(copy.proof)) == ("fork", 2, 2)
    assert all(note.startswith("fedmkt/") and "— bank " in note for note in copy.proof)
    assert "  record 2 differs; proven" in found.lines()


def test_a_fork_after_the_heads_is_not_called_proven(logs, events, tmp_path):
    one = views(tmp_path / "b", with_messages(events), tail={"bank": [("step.completed", {"n": 1})]})
    two = views(tmp_path / "c", with_messages(events), tail={"bank": [("step.completed", {"n": 2})]})
    found = compare([one["bank"]], [two["bank"]], KEYS)
    assert not found.agrees and (found.copies[0].at, found.copies[0].proof) == (4, ())


def test_a_log_that_lost_what_others_cosigned_is_found(logs, events, tmp_path):
    short = views(tmp_path / "b", with_messages(events, sent=()))["bank"]
    found = compare([logs["shop"]], [short], KEYS)
    assert [(h.party, h.cosigner, h.size) for h in found.heads] == [("bank", "shop", 4)]
    assert "the log has only 3" in found.heads[0].why


def test_messages_of_two_organisations_match(logs):
    found = compare([logs["bank"]], [logs["shop"]], KEYS)
    assert found.agrees and found.matched == 1 and found.copies == ()


OTHER = "11" * 32


@pytest.mark.parametrize(
    ("sent", "received", "named"),
    [
        ((SENT,), (), [(SEALED, "bank sent it, the log of shop does not show it")]),
        ((), (RECEIVED,), [(SEALED, "shop received it, the log of bank does not show it")]),
        (
            (SENT,),
            ((RECEIVED[0], {**RECEIVED[1], "sha256": OTHER}),),
            [
                (SEALED, "bank sent it, the log of shop does not show it"),
                (OTHER, f"the log of bank does not show it but sha256 {SEALED} under that number"),
            ],
        ),
        (
            (SENT,),
            ((RECEIVED[0], {**RECEIVED[1], "bytes": 10}),),
            [(SEALED, "bank sent 9 bytes as number 4, shop received 10 bytes as number 4")],
        ),
    ],
)
def test_a_message_that_differs_is_named_as_the_ledger_names_it(events, tmp_path, sent, received, named):
    step = ("step.completed", {"index": 4, "step": "fit.sum"})
    logs = views(tmp_path / "b", with_messages(events, (*sent, step), received))
    found = compare([logs["bank"]], [logs["shop"]], KEYS)
    assert found.messages == ledger({n: logs[n].records for n in ("bank", "shop")}).mismatches
    for message, (digest, why) in zip(found.messages, named, strict=True):
        place = (message.run, message.epoch, message.step, message.sender, message.reader, message.number)
        assert place == ("run1", 1, "fit.sum", "bank", "shop", 4)
        assert message.digest == digest and why in message.why
        assert str(message) in found.lines()


def test_a_record_of_a_message_without_its_number_is_refused(events, tmp_path):
    broken = (SENT[0], {k: v for k, v in SENT[1].items() if k != "index"})
    logs = views(tmp_path / "b", with_messages(events, (broken,), ()))
    with pytest.raises(AuditError, match="'index'"):
        compare([logs["bank"]], [logs["shop"]], KEYS)


def test_a_message_lost_with_an_epoch_that_was_given_up_is_no_fault(events, tmp_path):
    lost = with_messages(events, received=())
    lost["bank"][-1] = lost["shop"][-1] = lost["coordinator"][-1] = ("run.aborted", {})
    logs = views(tmp_path / "b", lost)
    found = compare([logs["bank"]], [logs["shop"]], KEYS)
    assert found.agrees and (found.matched, found.lost) == (0, 1)


def test_a_head_that_its_owner_did_not_sign_is_refused(logs):
    with pytest.raises(AuditError, match="head of bank"):
        compare([logs["bank"]], [logs["bank"]], {**KEYS, "bank": KEYS["shop"]})
