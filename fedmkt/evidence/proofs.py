"""Proofs that single records stand in a log: what an auditor hands on for one event, without the rest of the log.

One text file for each record: its canonical bytes, its index, the path to the root (RFC 6962, base64), and the signed
head with its cosignatures. A record after the signed head has no proof.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass

from fedmkt.audit.checkpoint import parse_body, parse_note
from fedmkt.audit.records import Record, leaf
from fedmkt.crypto.tree import Tree, leaf_hash, verify_inclusion
from fedmkt.errors import AuditError
from fedmkt.evidence.facts import Facts
from fedmkt.report.folder import read_text

PROVED = ("contract.signed", "value.revealed", "scores.released", "model.exported", "run.completed")
FORMAT = "fedmkt-proof/1"


@dataclass(frozen=True)
class Proof:
    """One record of a log, its place and the path; `note` : the signed head, with cosignatures."""

    leaf: bytes
    index: int
    path: tuple[bytes, ...]
    note: str

    def to_json(self) -> str:
        """Write the proof."""
        values = {
            "format": FORMAT,
            "record": self.leaf.decode(),
            "index": self.index,
            "path": [base64.b64encode(node).decode() for node in self.path],
            "checkpoint": self.note,
        }
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def read_proof(text: str) -> Proof:
    """Read what `to_json` wrote and check the path; ValueError unless the record stands below the head's root.

    Who signed the head is checked with the logs, not here.
    """
    try:
        values = json.loads(text)
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"the format must be {FORMAT}")
        path = tuple(base64.b64decode(node, validate=True) for node in values["path"])
        proof = Proof(values["record"].encode(), values["index"], path, values["checkpoint"])
        head = parse_body(parse_note(proof.note.encode()).text)
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("not a proof") from None
    verify_inclusion(leaf_hash(proof.leaf), proof.index, head.size, proof.path, head.root)
    return proof


def proofs(facts: Facts) -> Mapping[str, Proof]:
    """Prove the records that matter most, by the name of their file: contract, disclosures, results, the end."""
    found = {}
    for party, records in facts.whole.records.items():
        path = facts.files.logs[party] / "checkpoint.txt"
        if not path.exists() or records[0].seq:
            continue  # no signed head, or a log whose first records expired: their hashes are not read here
        note = read_text(path)
        try:
            head = parse_body(parse_note(note.encode()).text)
        except ValueError as error:
            raise AuditError(f"{path}: {error}") from None
        tree = Tree(leaf(r) for r in records)
        for record in records[: head.size]:
            if _is_proved(record, facts.run):
                steps = tuple(tree.inclusion_proof(record.seq, head.size))
                name = f"{party}-{record.seq:06}-{record.type}.json"
                found[name] = Proof(leaf(record), record.seq, steps, note)
    return found


def _is_proved(record: Record, run: str) -> bool:
    return record.type in PROVED and record.run in ("", run)
