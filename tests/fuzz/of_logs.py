"""Targets: logs, notes, statements and receipts, as an auditor or a peer reads them."""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedmkt.audit import checkpoint, statements, verify
from fedmkt.audit.own_log import verify_own
from fedmkt.audit.records import read_leaf
from fedmkt.crypto import dsse
from fedmkt.crypto.tree import leaf_hash, verify_consistency, verify_inclusion
from fedmkt.errors import AuditError
from fedmkt.party.list_ledger import Entry, _read_entries
from fedmkt.protocol.counterpart import Counterpart
from tests.audit.conftest import IDENTITIES, RUN, write_run
from tests.fuzz.target import Target

OWNER = dsse.Public(IDENTITIES["bank"].public)


@functools.cache
def run_files() -> Mapping[str, bytes]:
    """A small finished run of three signers, by the names of its files."""
    with tempfile.TemporaryDirectory() as folder:
        return write_run(Path(folder), RUN)


def _leaves() -> Sequence[bytes]:
    return run_files()["logs/bank/log.jsonl"].splitlines()


def _in_run(name: str) -> Callable[[bytes], None]:
    """Verify the run with one of its files replaced, with the stand-alone verifier and with the product's own."""

    def decode(data: bytes) -> None:
        files = dict(run_files()) | {name: data}
        accepted = 0
        own = {
            k.rpartition("/")[2]: v for k, v in files.items() if k.startswith("logs/bank/") or "/" not in k
        }
        for check in (lambda: verify.verify_files(files), lambda: verify_own(own)):
            try:
                check()
                accepted += 1
            except (verify.VerifyError, AuditError):
                continue
        if accepted and data != run_files()[name] and name != "logs/bank/peers.json":
            raise AssertionError(f"{name}: a change was accepted")

    return decode


def _note() -> bytes:
    text = checkpoint.body("origin of a log", 5, bytes(32))
    line = checkpoint.cosign(text, 1_900_000_000, "shop", IDENTITIES["shop"])
    return checkpoint.sign_note(text, "bank", IDENTITIES["bank"]) + line


def _read_note(data: bytes) -> None:
    note = checkpoint.parse_note(data)
    assert bytes(note) == data, "a note that is read is written as it was"
    checkpoint.parse_body(note.text)
    checkpoint.verify_note(data, "bank", IDENTITIES["bank"].public)
    for line in note.lines[1:]:
        checkpoint.verify_cosignature(note.text, bytes(line), "shop", IDENTITIES["shop"].public)


def _envelopes() -> Sequence[bytes]:
    statement = statements.Statement("approval", {"contract": "a" * 64}, {"role": "data-owner", "days": 30})
    envelope = statements.sign(statement, IDENTITIES["bank"])
    return [dsse.to_json(envelope), dsse.to_json(dsse.add_signature(envelope, IDENTITIES["shop"]))]


def _read_envelope(data: bytes) -> None:
    statements.read(dsse.from_json(data), {"bank": OWNER})


def _statements() -> Sequence[bytes]:
    return [dsse.from_json(_envelopes()[0]).payload]


def _read_statement(data: bytes) -> None:
    """Read what a known key signed: no signature keeps its holder from writing anything."""
    statements.read(dsse.sign(statements.PAYLOAD_TYPE, data, IDENTITIES["bank"]), {"bank": OWNER})


def _proofs() -> Sequence[bytes]:
    return [bytes([3, 7]) + bytes(32 * 4), bytes([0, 1]), bytes([6, 8]) + bytes(32 * 3)]


def _check_proof(data: bytes) -> None:
    if len(data) < 2:
        return
    proof = [data[i : i + 32] for i in range(2, len(data), 32)]
    for check in (
        lambda: verify_inclusion(b"leaf", data[0], data[1], proof, bytes(32)),
        lambda: verify_consistency(data[0], data[1], leaf_hash(b"a"), leaf_hash(b"b"), proof),
    ):
        try:
            check()
        except ValueError:
            continue
        if data[:1] != b"\0":  # every log extends the empty one
            raise AssertionError("a proof of nothing was accepted")


def _entries() -> Sequence[bytes]:
    now = datetime(2030, 1, 1, tzinfo=UTC).isoformat()
    entry = Entry("run1", "c" * 64, now, (Counterpart("Shop", "k" * 64),), "d" * 64, ("e" * 64,))
    return [entry.leaf() + b"\n", (entry.leaf() + b"\n") * 2]


FILES = ("contract.toml", *(f"logs/bank/{name}" for name in ("log.jsonl", "checkpoint.txt", "peers.json")))
TARGETS = (
    Target("record", read_leaf, _leaves, (ValueError,)),
    Target("note", _read_note, lambda: [_note()], (ValueError,)),
    Target("dsse", _read_envelope, _envelopes, (ValueError,)),
    Target("statement", _read_statement, _statements, (ValueError,)),
    Target("proof", _check_proof, _proofs, ()),
    Target("list-ledger", lambda d: list(_read_entries(d)), _entries),
    *(
        Target(
            f"verify-{name.rpartition('/')[2].partition('.')[0]}",
            _in_run(name),
            functools.partial(lambda n: [run_files()[n]], name),
            (),
            tried=40,  # each verifies a whole run twice
        )
        for name in FILES
    ),
)
