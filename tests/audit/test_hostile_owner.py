"""What one owner of a log, with its key and some of the others, may try against who verifies it."""

import json

import pytest

from fedmkt.audit import checkpoint
from fedmkt.audit.locate import locate
from fedmkt.audit.proof import Proof
from fedmkt.audit.records import canonical
from fedmkt.audit.verify import VerifyError, verify_files
from fedmkt.audit.verify_proof import ProofError, verify_proof
from fedmkt.contract.canonical import digest
from fedmkt.crypto.tree import root_of
from tests.audit import second_verifier
from tests.audit.conftest import IDENTITIES, NAMES, witness_of, write_run

P = 2**255 - 19
EIGHTH = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL = [
    (y | sign << 255).to_bytes(32, "little")
    for y in (0, 1, P - 1, P, P + 1, EIGHTH, P - EIGHTH)
    for sign in (0, 1)
]
"""The encodings of the points of small order of edwards25519, and those that are written as y + p."""


@pytest.mark.parametrize("key", SMALL, ids=lambda key: key.hex()[:4] + key.hex()[-2:])
def test_no_verifier_takes_a_key_of_small_order(write, events, key, signed):
    """Under such a key anybody signs anything, so who calls it his own could deny whatever he signed."""
    files = write(events)
    good = bytes.fromhex(signed.contract.coordinator.key)
    text = files["contract.toml"].decode().replace(good.hex(), key.hex())
    with pytest.raises(VerifyError, match="small order"):
        verify_files({**files, "contract.toml": text.encode()})
    with pytest.raises(ProofError, match="small order"):
        verify_proof(text.encode(), b"")
    assert (second_verifier.has_large_order(key), second_verifier.has_large_order(good)) == (False, True)


def test_no_record_is_proven_of_which_readers_may_differ(write, events, signed):
    """An owner may put any bytes into its tree: a name that stands there twice is read in two ways."""
    contract = write(events)["contract.toml"]
    record = {"v": 1, "seq": 0, "party": "bank", "contract": digest(signed.contract).hex()}
    plain = canonical({**record, "body": {"dropped": 7}})
    origin = checkpoint.log_origin(digest(signed.contract), "bank")
    for leaf, is_proven in (
        (plain, True),
        (plain.replace(b'{"body"', b'{"body":{"dropped":0},"body"'), False),
        (plain + b" ", False),
        (plain.replace(b":", b": "), False),
    ):
        text = checkpoint.body(origin, 1, root_of([leaf]))
        proof = bytes(Proof(leaf, 0, (), checkpoint.sign_note(text, "bank", IDENTITIES["bank"])))
        if is_proven:
            assert verify_proof(contract, proof).record == leaf.decode()
        else:
            with pytest.raises(ProofError, match="canonical"):
                verify_proof(contract, proof)


def test_a_head_or_a_cosignature_of_another_log_or_contract_is_refused(write, events):
    """Heads name their log and contract: those of the shop, or of the bank under other terms, are no heads here."""
    files = write(events)
    place, other = "logs/bank/checkpoint.txt", files["logs/shop/checkpoint.txt"]
    with pytest.raises(VerifyError, match="another log"):
        verify_files({**files, place: other})
    lines = files[place].splitlines(keepends=True)
    for changed in (
        files[place].replace(b"\n", b"\r\n"),
        b"".join([*lines, *lines[4:]]),  # every signature twice
        b"".join([*lines, *lines[-1:] * 14]),  # 17 signatures
        b"".join([*lines[:4], lines[5], lines[4], *lines[6:]]),
        files[place][:-2] + b"\n",  # base64 without its last character
        files[place][:-1] + b"=\n",
        b"\n".join([*files[place].split(b"\n")[:3], b"extension", b"", *files[place].split(b"\n")[4:]]),
    ):
        with pytest.raises(VerifyError, match="bank"):
            verify_files({**files, place: changed})
        with pytest.raises(second_verifier.Bad):
            second_verifier.verify({**files, place: changed})


@pytest.fixture
def long(tmp_path, events):
    """A run whose heads were cosigned after every four records, of which the bank has 45."""
    events["bank"][4:4] = [("step.completed", {"index": i}) for i in range(40)]
    files = write_run(tmp_path, events, every=4)
    return {**files, **witness_of(tmp_path)}


def changed_at(files, party, number):
    """Have the owner say something else in a record."""
    name = f"logs/{party}/log.jsonl"
    lines = files[name].split(b"\n")
    lines[number] = canonical({**json.loads(lines[number]), "body": {"index": 10**6}})
    return {**files, name: b"\n".join(lines)}


def test_a_changed_record_lies_between_the_two_heads_that_are_named(long):
    assert locate(long) == ()
    for number in range(45):
        (place,) = locate(changed_at(long, "bank", number))
        assert (place.party, place.first, place.last) == (
            "bank",
            number // 4 * 4,
            min(number // 4 * 4 + 3, 44),
        )
        assert place.line == place.first + 1 and f"records {place.first} to {place.last}" in place.text()


def test_who_takes_away_what_it_kept_makes_the_range_wider_and_moves_it_nowhere(long):
    changed = changed_at(long, "bank", 21)
    for cut in range(3):
        lines = changed["logs/shop/witness.jsonl"].split(b"\n")
        kept = {**changed, "logs/shop/witness.jsonl": b"\n".join(lines[:: cut + 1])}
        (place,) = locate(kept)
        assert place.first <= 21 <= place.last
    for name in ("shop", "coordinator"):
        changed[f"logs/{name}/witness.jsonl"] = b'{"body":[1],"type":"head.cosigned"}\n\xff\nhead.cosigned'
    (place,) = locate(changed)
    assert (place.first, place.last) == (0, 44)


def test_an_owner_who_signs_its_new_past_with_one_of_two_others_points_nowhere_else(long, signed):
    """The coordinator keeps heads of the changed log, made afterwards; the shop kept what it saw."""
    changed = changed_at(long, "bank", 10)
    leaves = changed["logs/bank/log.jsonl"].split(b"\n")[:-1]
    origin = checkpoint.log_origin(digest(signed.contract), "bank")
    forged = []
    for size in range(1, len(leaves) + 1):
        text = checkpoint.body(origin, size, root_of(leaves[:size]))
        note = checkpoint.sign_note(text, "bank", IDENTITIES["bank"]).decode()
        forged.append(
            canonical({"type": "head.cosigned", "run": "run1", "body": {"of": "bank", "note": note}})
        )
    changed["logs/coordinator/witness.jsonl"] = b"\n".join(forged)
    changed["logs/bank/checkpoint.txt"] = note.encode()
    (place,) = locate(changed)
    assert (place.first, place.last) == (8, 11)


def test_heads_that_the_owner_did_not_sign_point_to_nothing(long, signed):
    origin = checkpoint.log_origin(digest(signed.contract), "bank")
    for name, as_name, text in (
        ("shop", "bank", checkpoint.body(origin, 2, bytes(32))),
        ("bank", "bank", checkpoint.body(checkpoint.log_origin(bytes(32), "bank"), 2, bytes(32))),
    ):
        note = checkpoint.sign_note(text, as_name, IDENTITIES[name]).decode()
        line = canonical({"type": "head.cosigned", "body": {"of": "bank", "note": note}})
        assert locate({**long, "logs/shop/witness.jsonl": line}) == ()
    assert locate({**long, "contract.toml": b"x"}) == locate({}) == ()
    assert set(NAMES) == {"bank", "coordinator", "shop"}
