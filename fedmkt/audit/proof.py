"""The proof of one record of a log, as a text that anyone checks offline (C2SP tlog-proof); pure.

It holds the record as extra data, its number, the path from its hash to the root, and the head that the log's owner
and its peers signed. `fedmkt.audit.verify_proof` checks it with the contract alone.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from fedmkt.audit.checkpoint import parse_body, parse_note
from fedmkt.crypto.tree import Tree, leaf_hash, verify_inclusion

FIRST_LINE = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class Proof:
    """leaf : the record's bytes; index : its number; path : 32-byte hashes, nearest first; note : the signed head."""

    leaf: bytes
    index: int
    path: tuple[bytes, ...]
    note: bytes

    def __bytes__(self) -> bytes:
        """Encode as the format says."""
        lines = [FIRST_LINE, f"extra {b64encode(self.leaf).decode()}", f"index {self.index}"]
        lines += [b64encode(node).decode() for node in self.path]
        return "\n".join([*lines, "", ""]).encode() + self.note


def tree_of(hashes: Iterable[bytes]) -> Tree:
    """Build a log's tree of the hashes of its records, removed ones too."""
    tree = Tree()
    for node in hashes:
        tree.append_hash(node)
    return tree


def prove(leaf: bytes, index: int, tree: Tree, note: bytes) -> Proof:
    """Prove a record below a signed head; ValueError if the head does not cover it or is of another tree."""
    head = parse_body(parse_note(note).text)
    if index >= head.size:
        raise ValueError(f"record {index} came after the last head, which covers {head.size}")
    proof = Proof(leaf, index, tuple(tree.inclusion_proof(index, head.size)), note)
    verify_inclusion(leaf_hash(leaf), index, head.size, proof.path, head.root)
    return proof


def parse_proof(data: bytes) -> Proof:
    """Read a proof; ValueError unless it is in the one form that `bytes(Proof)` writes."""
    head, _, note = data.partition(b"\n\n")
    lines = head.decode().split("\n")
    if len(lines) < 3 or not (lines[1].startswith("extra ") and lines[2].startswith("index ")):
        raise ValueError("no proof of a record")
    path = tuple(b64decode(line) for line in lines[3:])
    proof = Proof(b64decode(lines[1][6:]), int(lines[2][6:]), path, note)
    if bytes(proof) != data:
        raise ValueError("the proof is not in canonical form")
    return proof
