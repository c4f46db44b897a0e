"""Say between which of its earlier heads a log was changed, after verification said that it was; pure.

A root names no record. But every head that a log's owner signed while a run went on lies beside the logs of those who
counter-signed it (`witness.jsonl`, `peers.json`). The largest of them that is still the root of the first records,
and the smallest that is not, enclose the first change. A head counts only with its owner's signature, and of what is
right every other signer must know: so an owner with the help of some others cannot move the range away from the change
as long as one of them kept what it saw, and who takes such lines away only makes the range wider.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedmkt.audit.checkpoint import Checkpoint, log_origin, parse_body, verify_note
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml
from fedmkt.crypto.tree import HASH_BYTES, Tree, leaf_hash
from fedmkt.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """The first change of a log: in its records `first` to `last`; `line` : of record `first`; 0 if it was removed."""

    party: str
    first: int
    last: int
    line: int

    def text(self) -> str:
        """Say it in a sentence."""
        where = (
            f" (lines {self.line} to {self.line + self.last - self.first} of log.jsonl)" if self.line else ""
        )
        return (
            f"log of {self.party}: the first change is in records {self.first} to {self.last}{where}: those before are "
            "below a head that its owner signed, these are not what the next such head says"
        )


def locate(files: Mapping[str, bytes]) -> tuple[Place, ...]:
    """Find the first change of each log that was changed below a head; nothing where the contract cannot be read.

    files : contract.toml, and of each signer logs/NAME/ with log.jsonl, witness.jsonl and the rest.
    """
    try:
        contract = from_toml(files["contract.toml"].decode(), "contract.toml").contract
    except (ConfigError, KeyError, UnicodeDecodeError):
        return ()
    found = []
    for signer in contract.signers:
        others = [s.name for s in contract.signers if s.name != signer.name]
        key, origin = bytes.fromhex(signer.key), log_origin(digest(contract), signer.name)
        kept = {
            name: {h for h in _heads(files, name, signer.name, key) if h.origin == origin}
            for name in (*others, signer.name)
        }
        if place := _place(signer.name, files, kept):
            found.append(place)
    return tuple(found)


def _place(party: str, files: Mapping[str, bytes], kept: Mapping[str, set[Checkpoint]]) -> Place | None:
    tree, pruned = Tree(), files.get(f"logs/{party}/pruned.hashes", b"")
    for i in range(0, len(pruned) // HASH_BYTES * HASH_BYTES, HASH_BYTES):
        tree.append_hash(pruned[i : i + HASH_BYTES])
    removed = tree.size
    for line in files.get(f"logs/{party}/log.jsonl", b"").split(b"\n")[:-1]:
        tree.append_hash(leaf_hash(line))
    everyones = set().union(*kept.values())
    bad = [h.size for h in everyones if h.size > tree.size or tree.root(h.size) != h.root]
    if not bad:
        return None
    end = min(bad)
    first = min(
        max((h.size for h in kept[name] if h.size < end), default=0) for name in kept if name != party
    )
    return Place(party, first, end - 1, max(first - removed + 1, 0))


def _heads(files: Mapping[str, bytes], keeper: str, party: str, key: bytes) -> Iterator[Checkpoint]:
    """Yield the heads with the signature of `party` that `keeper` keeps, in whatever shape its files are."""
    for note in _notes(files, keeper, party):
        try:
            yield parse_body(verify_note(note, party, key).text)
        except ValueError:
            continue


def _notes(files: Mapping[str, bytes], keeper: str, party: str) -> Iterator[bytes]:
    if keeper == party:
        yield files.get(f"logs/{party}/checkpoint.txt", b"")
        return
    yield _text(_json(files.get(f"logs/{keeper}/peers.json", b"")).get(party), "note")
    for line in files.get(f"logs/{keeper}/witness.jsonl", b"").split(b"\n"):
        body = _json(line).get("body") if b"head.cosigned" in line else None
        if isinstance(body, dict) and body.get("of") == party:
            yield _text(body, "note")


def _json(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(table: object, key: str) -> bytes:
    value = table.get(key) if isinstance(table, dict) else None
    return value.encode(errors="replace") if isinstance(value, str) else b""
