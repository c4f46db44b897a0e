"""Compare logs that lie in two places: two copies of one log, and what two organisations sent each other; pure.

- Two copies: the same, one a continuation of the other, or a fork. A fork is proven where the log's owner signed a
  head on either side that holds what the other denies.
- Heads: what one counter-signed of the other's log must be a beginning of that log.
- Messages: what one says it sent the other says it received, by `fedmkt.audit.ledger`.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fedmkt.audit.checkpoint import Checkpoint, parse_body, parse_note, verify_note
from fedmkt.audit.ledger import Ledger, Mismatch, ledger
from fedmkt.audit.log_view import LogView
from fedmkt.errors import AuditError

Copies = Literal["same", "left continues right", "right continues left", "fork"]


@dataclass(frozen=True)
class CopyReport:
    """Two copies of one log. at : in a fork, the first record that differs; proof : both heads, signed by the owner."""

    party: str
    relation: Copies
    left: int
    right: int
    at: int = -1
    proof: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeadFault:
    """`cosigner` counter-signed `size` records of `party` that are not the beginning of the log that is here."""

    party: str
    cosigner: str
    size: int
    why: str


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared. messages : of which two logs do not say the same; matched : which both tell alike.

    lost : sent in an epoch that was given up, and not read.
    """

    copies: tuple[CopyReport, ...]
    heads: tuple[HeadFault, ...]
    messages: tuple[Mismatch, ...]
    matched: int
    lost: int

    @property
    def agrees(self) -> bool:
        """Tell whether nothing contradicts."""
        return not self.heads and not self.messages and all(c.relation != "fork" for c in self.copies)

    def lines(self) -> list[str]:
        """Say it in plain words."""
        lines = []
        for c in self.copies:
            lines.append(f"log of {c.party}: {c.relation} ({c.left} and {c.right} records)")
            if c.relation == "fork":
                lines.append(
                    f"  record {c.at} differs; {'proven' if c.proof else 'not proven: no two signed heads'}"
                )
                lines += [f"  {line}" for note in c.proof for line in note.splitlines()]
        lines += [f"log of {h.party}: {h.cosigner} cosigned {h.size} records: {h.why}" for h in self.heads]
        lines += [str(message) for message in self.messages]
        lost = f", {self.lost} lost in epochs that were given up" if self.lost else ""
        return [*lines, f"{self.matched} messages match{lost}, {len(self.messages)} do not"]


def compare(left: Sequence[LogView], right: Sequence[LogView], keys: Mapping[str, bytes]) -> Comparison:
    """Compare the logs of two folders; `keys` : of all signers, by name. AuditError for a head with a bad signature."""
    ours, theirs = {log.party: log for log in left}, {log.party: log for log in right}
    for log in (*left, *right):
        _check_heads(log, keys)
    copies = tuple(_compare_copies(ours[p], theirs[p]) for p in ours if p in theirs)
    longest = dict(ours)
    for party, log in theirs.items():
        if party not in ours or log.tree.size > ours[party].tree.size:
            longest[party] = log
    heads = tuple(fault for log in (*left, *right) for fault in _compare_heads(log, longest))
    told = _messages(longest)
    return Comparison(copies, tuple(dict.fromkeys(heads)), told.mismatches, told.matched, told.lost)


def _check_heads(log: LogView, keys: Mapping[str, bytes]) -> None:
    for party, note in [(log.party, log.note), *log.peers.items()]:
        try:
            if note:
                verify_note(note, party, keys[party])
        except (ValueError, KeyError) as error:
            raise AuditError(f"log of {log.party}: head of {party}: {error}") from None


def _compare_copies(left: LogView, right: LogView) -> CopyReport:
    sizes = left.tree.size, right.tree.size
    common = min(sizes)
    if left.tree.root(common) == right.tree.root(common):
        relations: tuple[Copies, ...] = ("same", "left continues right", "right continues left")
        return CopyReport(left.party, relations[(sizes[0] > sizes[1]) - (sizes[0] < sizes[1])], *sizes)
    at = next(i for i in range(common) if left.hash(i) != right.hash(i))
    is_proven = all(log.signed > at and _begins(log, _head(log.note)) for log in (left, right))
    notes = tuple(log.note.decode() for log in (left, right)) if is_proven else ()
    return CopyReport(left.party, "fork", *sizes, at, notes)


def _head(note: bytes) -> Checkpoint:
    return parse_body(parse_note(note).text)


def _begins(log: LogView, head: Checkpoint) -> bool:
    return head.size <= log.tree.size and log.tree.root(head.size) == head.root


def _compare_heads(log: LogView, logs: Mapping[str, LogView]) -> Iterator[HeadFault]:
    for party, note in log.peers.items():
        head = _head(note)
        if party not in logs or _begins(logs[party], head):
            continue
        size = logs[party].tree.size
        why = f"the log has only {size}" if head.size > size else f"with root {b64encode(head.root).decode()}"
        yield HeadFault(party, log.party, head.size, f"{why}, signed by {party}")


def _messages(logs: Mapping[str, LogView]) -> Ledger:
    try:
        return ledger({party: log.records for party, log in logs.items()})
    except ValueError as error:
        raise AuditError(str(error)) from None
