import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from fedmkt.audit import checkpoint
from fedmkt.audit.records import read_leaf
from fedmkt.crypto.sign import Identity
from fedmkt.crypto.tree import leaf_hash, root_of, verify_consistency, verify_inclusion
from fedmkt.errors import AuditError
from fedmkt.party import audit_log
from fedmkt.party.audit_log import CHECKPOINT, LOG, PEERS, PRUNED, WITNESS, AuditLog
from fedmkt.party.notary import LogNotary
from fedmkt.party.store import Store
from fedmkt.protocol.core import Name
from fedmkt.protocol.witness import Head, Rider

DIGEST = b"c" * 32
START = datetime(2030, 1, 1, tzinfo=UTC)
IDENTITIES = {name: Identity(bytes([i + 1]) * 32) for i, name in enumerate(("bank", "shop", "notary"))}
KEYS = {name: identity.public for name, identity in IDENTITIES.items()}


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def open_log(tmp_path):
    """Open the log of a party; asked again for the same name it opens the same folder."""

    def opened(name, folder=None, digest=DIGEST):
        origin = checkpoint.log_origin(digest, name)
        return AuditLog(tmp_path / (folder or name), origin, IDENTITIES[name], Clock(), "r", name, digest)

    return opened


def cosign(log, note, key, name, proof=()):
    return log.cosign({name: (note, proof)}, {name: key})[name]


def note_of(log, size_events=1):
    log.append_all([("step.completed", {"n": i}) for i in range(size_events)])
    return log.head()


def test_a_record_is_on_disk_when_append_returns(open_log, tmp_path):
    log = open_log("bank")
    for event in ("run.started", "checkpoint.saved"):
        record = log.append(event, {"index": log.size})
        lines = (tmp_path / "bank" / LOG).read_bytes().splitlines()
        assert read_leaf(lines[-1]) == record
    assert [read_leaf(line).seq for line in lines] == [0, 1]
    assert record.time == "2030-01-01T00:00:02.000000Z"


def test_every_append_waits_for_the_disk_once(open_log, monkeypatch):
    log = open_log("bank")
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    log.append("run.started", {})
    log.append_all([("checkpoint.saved", {}), ("step.completed", {})])
    assert len(synced) == 2


def test_of_a_batch_with_one_bad_record_nothing_is_written(open_log, tmp_path):
    log = open_log("bank")
    with pytest.raises(ValueError, match="unknown event"):
        log.append_all([("run.started", {}), ("no.event", {})])
    assert (log.size, (tmp_path / "bank" / LOG).read_bytes()) == (0, b"")


def test_the_head_signs_the_root_over_the_lines(open_log, tmp_path):
    log = open_log("bank")
    note = note_of(log, 5)
    head = checkpoint.parse_body(checkpoint.verify_note(note, "bank", KEYS["bank"]).text)
    lines = (tmp_path / "bank" / LOG).read_bytes().splitlines()
    assert (head.size, head.root) == (5, root_of(lines))
    assert log.head() == note == (tmp_path / "bank" / CHECKPOINT).read_bytes()


def test_an_opened_folder_continues_its_log(open_log):
    log = open_log("bank")
    note_of(log, 3)
    log.append("checkpoint.saved", {})
    log.release()
    again = open_log("bank")
    assert again.size == 4
    assert again.append("step.completed", {}).seq == 4
    straight = open_log("shop")
    straight.append_all([("checkpoint.saved", {})] * 5)
    assert again.size == straight.size


def test_half_a_line_of_a_crash_is_cut_and_the_cut_is_recorded(open_log, tmp_path):
    log = open_log("bank")
    note_of(log, 2)
    log.release()
    path = tmp_path / "bank" / LOG
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"body":{"x"')
    again = open_log("bank")
    assert path.read_bytes().startswith(whole)
    last = read_leaf(path.read_bytes().splitlines()[-1])
    assert (last.type, last.seq, last.body) == ("log.cut", 2, {"bytes": 12})
    again.release()
    assert open_log("bank").size == 3


def test_whole_lines_after_the_last_head_are_kept(open_log):
    log = open_log("bank")
    note_of(log, 2)
    log.append("checkpoint.saved", {})
    log.release()
    assert open_log("bank").size == 3


def test_a_signed_record_that_is_missing_or_cut_stops_the_party(open_log, tmp_path):
    log = open_log("bank")
    note_of(log, 3)
    log.release()
    path = tmp_path / "bank" / LOG
    whole = path.read_bytes()
    for kept in (b"", whole[:-1], whole[: whole.index(b"\n") + 1]):
        path.write_bytes(kept)
        with pytest.raises(AuditError, match="signed 3 records"):
            open_log("bank")
        assert path.read_bytes() == kept


def test_any_changed_byte_below_the_signed_head_stops_the_party(open_log, tmp_path):
    log = open_log("bank")
    note_of(log, 2)
    log.release()
    for name in (LOG, CHECKPOINT):
        path = tmp_path / "bank" / name
        whole = path.read_bytes()
        for place in range(len(whole)):
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(bytes(changed))
            with pytest.raises(AuditError):
                open_log("bank")
        path.write_bytes(whole)
    open_log("bank")


def test_a_log_of_another_contract_or_party_is_not_continued(open_log):
    note_of(open_log("bank"))
    with pytest.raises(AuditError):
        open_log("bank", digest=b"d" * 32)
    with pytest.raises(AuditError):
        open_log("shop", folder="bank")


def test_a_head_that_extends_the_last_one_is_cosigned(open_log):
    bank, shop = open_log("bank"), open_log("shop")
    for _ in range(6):
        note = note_of(bank, 3)
        seen = shop.peer_size("bank")
        line = cosign(shop, note, KEYS["bank"], "bank", bank.extension(seen))
        text = checkpoint.parse_note(note).text
        assert checkpoint.verify_cosignature(text, line, "shop", KEYS["shop"]) > START.timestamp()
        bank.add_cosignatures({"shop": line}, {name: KEYS[name] for name in ("bank", "shop")})
        assert shop.peer_size("bank") == bank.size


def test_the_same_head_is_cosigned_again(open_log):
    bank, shop = open_log("bank"), open_log("shop")
    note = note_of(bank, 3)
    cosign(shop, note, KEYS["bank"], "bank")
    cosign(shop, note, KEYS["bank"], "bank")


def test_a_shorter_log_is_not_cosigned(open_log):
    bank, shop = open_log("bank"), open_log("shop")
    short, long = note_of(bank, 2), note_of(bank, 2)
    cosign(shop, long, KEYS["bank"], "bank")
    with pytest.raises(AuditError, match="2 records, 4 were signed before"):
        cosign(shop, short, KEYS["bank"], "bank")


def test_a_forked_log_of_the_same_size_is_not_cosigned(open_log):
    shop = open_log("shop")
    cosign(shop, note_of(open_log("bank", "one"), 2), KEYS["bank"], "bank")
    fork = open_log("bank", "two")
    fork.append_all([("run.started", {}), ("run.aborted", {})])
    with pytest.raises(AuditError, match="two roots for one size"):
        cosign(shop, fork.head(), KEYS["bank"], "bank")


def test_a_longer_log_that_changed_the_past_is_not_cosigned(open_log):
    shop = open_log("shop")
    cosign(shop, note_of(open_log("bank", "one"), 2), KEYS["bank"], "bank")
    fork = open_log("bank", "two")
    fork.append_all([("run.started", {}), ("run.aborted", {}), ("run.completed", {})])
    for proof in (fork.extension(2), []):
        with pytest.raises(AuditError, match="does not extend the last one"):
            cosign(shop, fork.head(), KEYS["bank"], "bank", proof)


def test_the_last_head_of_a_peer_outlives_the_process(open_log):
    shop = open_log("shop")
    cosign(shop, note_of(open_log("bank", "one"), 4), KEYS["bank"], "bank")
    shop.release()
    again = open_log("shop")
    assert again.peer_size("bank") == 4
    with pytest.raises(AuditError, match="2 records, 4 were signed before"):
        cosign(again, note_of(open_log("bank", "two"), 2), KEYS["bank"], "bank")


def test_a_log_under_another_origin_is_not_cosigned(open_log):
    shop = open_log("shop")
    cosign(shop, note_of(open_log("bank", "one"), 2), KEYS["bank"], "bank")
    other = note_of(open_log("bank", "two", digest=b"d" * 32), 3)
    with pytest.raises(AuditError, match="origin"):
        cosign(shop, other, KEYS["bank"], "bank")


def test_a_head_with_a_foreign_signature_is_not_cosigned(open_log):
    bank, shop = open_log("bank"), open_log("shop")
    with pytest.raises(AuditError, match="0 signatures of bank"):
        cosign(shop, note_of(bank), KEYS["notary"], "bank")
    with pytest.raises(AuditError, match="0 signatures of notary"):
        cosign(shop, note_of(bank), KEYS["bank"], "notary")


def test_changed_heads_of_peers_stop_the_party(open_log, tmp_path):
    shop = open_log("shop")
    cosign(shop, note_of(open_log("bank"), 2), KEYS["bank"], "bank")
    shop.release()
    path = tmp_path / "shop" / PEERS
    for bad in (b"[]", b"nonsense", b'{"bank":{}}', path.read_bytes().replace(b"\\n2\\n", b"\\n1\\n")):
        path.write_bytes(bad)
        with pytest.raises(AuditError, match="not the heads that shop cosigned"):
            open_log("shop")


def test_cosignatures_are_taken_from_known_peers_for_this_head_only(open_log):
    bank, shop, notary = open_log("bank"), open_log("shop"), open_log("notary")
    head = note_of(bank)
    old = {
        "shop": cosign(shop, head, KEYS["bank"], "bank"),
        "notary": cosign(notary, head, KEYS["bank"], "bank"),
    }
    seen = bank.size
    head = note_of(bank)
    with pytest.raises(AuditError, match="does not verify"):
        bank.add_cosignatures(old, KEYS)
    proof = bank.extension(seen)
    lines = {
        "shop": cosign(shop, head, KEYS["bank"], "bank", proof),
        "notary": cosign(notary, head, KEYS["bank"], "bank", proof),
    }
    with pytest.raises(AuditError, match="not asked for: notary"):
        bank.add_cosignatures(lines, {"bank": KEYS["bank"], "shop": KEYS["shop"]})
    bank.add_cosignatures(lines, KEYS)


def test_every_peer_must_send_its_own_cosignature(open_log):
    bank, shop, notary = open_log("bank"), open_log("shop"), open_log("notary")
    head = note_of(bank)
    shops = cosign(shop, head, KEYS["bank"], "bank")
    with pytest.raises(AuditError, match="cosignature from notary: the line is no cosignature of notary"):
        bank.add_cosignatures({"shop": shops, "notary": shops}, KEYS)
    with pytest.raises(AuditError, match="missing or not asked for: notary"):
        bank.add_cosignatures({"shop": shops}, KEYS)
    bank.add_cosignatures({"shop": shops, "notary": cosign(notary, head, KEYS["bank"], "bank")}, KEYS)


def test_the_first_head_of_a_peer_must_be_of_its_log_under_this_contract(open_log):
    shop = open_log("shop")
    for origin in (checkpoint.log_origin(b"d" * 32, "bank"), checkpoint.log_origin(DIGEST, "notary"), "bank"):
        text = checkpoint.body(origin, 3, bytes(32))
        with pytest.raises(AuditError, match=f"origin {origin}, it must be"):
            cosign(shop, checkpoint.sign_note(text, "bank", IDENTITIES["bank"]), KEYS["bank"], "bank")
    assert shop.peer_size("bank") == 0


def test_a_party_whose_peers_heads_were_removed_says_so(open_log, tmp_path):
    store, digest = Store(tmp_path / "store"), DIGEST.hex()
    bank, shop = open_log("bank"), open_log("shop")
    notary = LogNotary("shop", shop, KEYS, store, digest)
    notary.take([(Name("bank"), Rider(Head(note_of(bank, 3), ()), None))])
    assert LogNotary("shop", open_log("shop"), KEYS, store, digest).seen() == {"bank": 3, "notary": 0}
    (tmp_path / "shop" / PEERS).unlink()
    forgetful = LogNotary("shop", open_log("shop"), KEYS, store, digest)
    fork = note_of(open_log("bank", "two"), 2)
    for ask in (forgetful.seen, lambda: forgetful.take([(Name("bank"), Rider(Head(fork, ()), None))])):
        with pytest.raises(AuditError, match=r"3 records were cosigned, peers.json has 0"):
            ask()


def test_a_closed_log_has_its_head_with_all_cosignatures_in_order(open_log, tmp_path):
    bank, shop, notary = open_log("bank"), open_log("shop"), open_log("notary")
    head = note_of(bank, 4)
    peers = {"shop": shop, "notary": notary}
    lines = {name: cosign(peer, head, KEYS["bank"], "bank") for name, peer in peers.items()}
    bank.add_cosignatures(lines, KEYS)
    bank.add_cosignatures(lines, KEYS)
    note = checkpoint.parse_note(bank.close())
    assert bytes(note) == (tmp_path / "bank" / CHECKPOINT).read_bytes()
    assert [line.name for line in note.lines] == ["bank", "notary", "shop"]
    with pytest.raises(ValueError, match="closed"):
        bank.append("run.completed", {})


def test_a_log_with_records_after_its_head_is_not_closed(open_log):
    log = open_log("bank")
    with pytest.raises(ValueError, match="sign the head"):
        log.close()
    note_of(log)
    log.append("run.completed", {})
    with pytest.raises(ValueError, match="sign the head"):
        log.close()


def test_after_a_full_disk_the_log_must_be_opened_again(open_log, tmp_path, monkeypatch):
    log = open_log("bank")
    note_of(log, 2)

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            log.append("checkpoint.saved", {})
    with pytest.raises(ValueError, match="closed"):
        log.append("checkpoint.saved", {})
    assert open_log("bank").size == 3


def test_what_no_head_can_cover_stands_beside_the_log(open_log, tmp_path):
    log = open_log("bank")
    note = note_of(log)
    log.append_beside([("message.sent", {"to": "shop", "bytes": 3}), ("message.received", {"from": "shop"})])
    log.append_beside([("message.sent", {"to": "notary", "bytes": 4})])
    assert (log.size, log.head()) == (1, note)
    path = tmp_path / "bank" / WITNESS
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [
        {"run": "r", "type": "message.sent", "body": {"to": "shop", "bytes": 3}},
        {"run": "r", "type": "message.received", "body": {"from": "shop"}},
        {"run": "r", "type": "message.sent", "body": {"to": "notary", "bytes": 4}},
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_beside_the_log_that_was_cut_in_a_crash_spoils_no_other(open_log, tmp_path):
    log = open_log("bank")
    log.append_beside([("message.sent", {"to": "shop"})])
    path = tmp_path / "bank" / WITNESS
    path.write_bytes(path.read_bytes() + b'{"body":{"to"')
    log = open_log("bank")
    log.append_beside([("message.sent", {"to": "notary"})])
    first, cut, last = path.read_bytes().splitlines()
    assert (json.loads(first)["body"], cut, json.loads(last)["body"]) == (
        {"to": "shop"}, b'{"body":{"to"', {"to": "notary"},
    )  # fmt: skip


@pytest.fixture
def long_log(open_log):
    """A log of twelve records of which ten lie below a signed head."""
    log = open_log("bank")
    note_of(log, 10)
    log.append_all([("step.completed", {"n": i}) for i in range(2)])
    return log


def test_a_pruned_log_goes_on_with_the_same_root_and_proofs(long_log, open_log, tmp_path):
    root, leaves = long_log._tree.root(12), (tmp_path / "bank" / LOG).read_bytes().splitlines()
    long_log.prune(7, 30)
    long_log.append("step.completed", {"n": 12})
    long_log.release()
    again = open_log("bank")
    assert (again.size, again._tree.root(12)) == (14, root)
    verify_inclusion(leaf_hash(leaves[3]), 3, 12, again._tree.inclusion_proof(3, 12), root)
    verify_consistency(3, 14, root_of(leaves[:3]), again._tree.root(), again.extension(3))
    kept = [read_leaf(line) for line in (tmp_path / "bank" / LOG).read_bytes().splitlines()]
    assert [record.seq for record in kept] == list(range(7, 14))
    assert (kept[5].type, kept[5].run, dict(kept[5].body)) == (
        "retention.expired",
        "",
        {"below": 7, "days": 30},
    )
    again.run = "r"
    again.prune(9, 30)
    assert open_log("bank").size == 15


@pytest.mark.parametrize("below", [0, 7, 11])
def test_only_signed_records_that_are_there_are_pruned(long_log, below):
    if below == 7:
        long_log.prune(7, 30)
    with pytest.raises(ValueError, match="cannot go"):
        long_log.prune(below, 30)


def test_nothing_is_pruned_while_another_has_the_log_open(long_log, open_log):
    other = open_log("bank")
    with pytest.raises(AuditError, match="in use"):
        long_log.prune(7, 30)
    other.release()
    long_log.prune(7, 30)


@pytest.mark.parametrize("stop", [PRUNED, LOG])
def test_a_crash_while_pruning_loses_nothing(long_log, open_log, tmp_path, monkeypatch, stop):
    root, written = long_log._tree.root(12), audit_log.write_atomically

    def write(path, data):
        if path.name == stop:
            raise OSError("the machine stopped")
        written(path, data)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the machine stopped"):
        patch.setattr(audit_log, "write_atomically", write)
        long_log.prune(7, 30)
    long_log.release()
    again = open_log("bank")
    assert (again.size, again._tree.root(12)) == (13, root)
    again.prune(7, 30)
    assert open_log("bank").size == 14
    assert len((tmp_path / "bank" / PRUNED).read_bytes()) == 7 * 32


def test_fewer_hashes_than_records_were_removed_are_found(long_log, open_log, tmp_path):
    long_log.prune(7, 30)
    long_log.release()
    path = tmp_path / "bank" / PRUNED
    path.write_bytes(path.read_bytes()[:-32])
    with pytest.raises(AuditError, match="the first record that is left is number 7"):
        open_log("bank")


def test_a_clock_that_was_put_back_stands_in_the_log_before_what_comes_after_it(open_log, tmp_path):
    log = open_log("bank")
    log.append_all([("run.started", {}), *[("step.completed", {"n": i}) for i in range(3)]])
    path = tmp_path / "bank" / LOG
    log.release()
    log = open_log("bank")
    log._clock.now = START - timedelta(hours=1)
    (told,) = log.append_all([("checkpoint.saved", {})])
    records = [read_leaf(line) for line in path.read_bytes().splitlines()]
    assert (told.type, told.seq) == ("checkpoint.saved", 5)
    assert (records[4].type, records[4].body) == ("clock.stepped", {"seconds": -3600})
    assert log.append("step.completed", {}).seq == 6  # told once


def test_a_log_without_a_head_has_nothing_to_be_cosigned(open_log):
    bank = open_log("bank")
    bank.append("run.started", {})
    with pytest.raises(ValueError, match="no head to cosign yet"):
        bank.add_cosignatures({}, {"bank": KEYS["bank"]})


def test_a_head_that_is_shown_has_its_owners_signature_alone(open_log):
    """The cosignatures on it are each peer's to give, to whoever asks for the next one."""
    bank, shop = open_log("bank"), open_log("shop")
    head = note_of(bank)
    keys = {name: KEYS[name] for name in ("bank", "shop")}
    bank.add_cosignatures({"shop": cosign(shop, head, KEYS["bank"], "bank")}, keys)
    assert bank.head() == head
    assert [line.name for line in checkpoint.parse_note(bank.head()).lines] == ["bank"]


def test_a_log_that_was_pruned_holds_one_file_open_and_a_released_one_none(open_log):
    before = len(os.listdir("/proc/self/fd"))
    log = open_log("bank")
    note_of(log, 5)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    log.prune(2, 30)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    log.release()
    assert len(os.listdir("/proc/self/fd")) == before
