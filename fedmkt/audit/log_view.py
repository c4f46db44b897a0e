"""One party's log as its files have it: records, hashes of all records, signed heads; pure, for readers.

The form of each line is checked, and nothing else: `fedmkt.audit.verify` verifies.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedmkt.audit.checkpoint import parse_body, parse_note
from fedmkt.audit.records import Record, read_leaf
from fedmkt.crypto.tree import HASH_BYTES, Tree, leaf_hash
from fedmkt.errors import AuditError


@dataclass(frozen=True)
class LogView:
    """What a folder holds of a log. leaves : the bytes of each record that is there; tree : of all, removed ones too.

    note : the signed head, empty if there is none; peers : by name, heads of others that the owner counter-signed.
    """

    party: str
    records: Sequence[Record]
    leaves: Sequence[bytes]
    tree: Tree = field(repr=False)
    note: bytes = b""
    peers: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def pruned(self) -> int:
        """How many first records were removed."""
        return self.tree.size - len(self.records)

    @property
    def signed(self) -> int:
        """How many records the signed head covers."""
        return parse_body(parse_note(self.note).text).size if self.note else 0

    def hash(self, index: int) -> bytes:
        """Return the hash of a record, removed or not."""
        return self.tree.hashes(0, index, index + 1)

    def leaf(self, index: int) -> bytes:
        """Return the bytes of a record; AuditError if it is not there."""
        if not self.pruned <= index < self.tree.size:
            what = "was removed when its time was over" if 0 <= index < self.pruned else "does not exist"
            raise AuditError(f"record {index} of {self.party} {what}")
        return self.leaves[index - self.pruned]

    def epochs(self) -> list[int]:
        """Return the epoch of its run in which each record was written; 0 before the first one."""
        found, now = [], dict[str, int]()
        for record in self.records:
            epoch = record.body.get("epoch")
            if record.type == "epoch.started" and isinstance(epoch, int):
                now[record.run] = epoch
            found.append(now.get(record.run, 0))
        return found


def read_view(files: Mapping[str, bytes], where: str) -> LogView:
    """Read a log's files, by their names; AuditError naming file and line for what is not well-formed.

    files : log.jsonl; pruned.hashes, checkpoint.txt and peers.json if they are there.
    """
    tree, records = Tree(), list[Record]()
    hashes = files.get("pruned.hashes", b"")
    for i in range(0, len(hashes), HASH_BYTES):
        tree.append_hash(hashes[i : i + HASH_BYTES].ljust(HASH_BYTES, b"\0"))
    leaves = files["log.jsonl"].split(b"\n")[:-1]
    for number, leaf in enumerate(leaves, start=1):
        try:
            records.append(read_leaf(leaf))
        except ValueError as error:
            raise AuditError(f"{where}/log.jsonl: line {number}: {error}") from None
        if records[-1].seq != tree.size:
            raise AuditError(
                f"{where}/log.jsonl: line {number}: record {records[-1].seq} in place of {tree.size}"
            )
        tree.append_hash(leaf_hash(leaf))
    if not records:
        raise AuditError(f"{where}/log.jsonl: empty")
    try:
        peers = {
            name: entry["note"].encode() for name, entry in json.loads(files.get("peers.json", b"{}")).items()
        }
        note = files.get("checkpoint.txt", b"")
        for head in filter(None, (note, *peers.values())):
            parse_body(parse_note(head).text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AuditError(f"{where}: checkpoint.txt or peers.json: {error}") from None
    return LogView(records[0].party, records, leaves, tree, note, peers)
