"""The disclosure report of a run: what each party learned, how much of it, from whom, under which clause.

It reads the `value.revealed` records of all logs. Those are written by whoever sends, before anything
leaves; policy and audit read the same events.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedmkt.audit.records import Record
from fedmkt.contract import Contract
from fedmkt.errors import AuditError
from fedmkt.privacy.disclosure import EVERYONE, Disclosure, from_record

REVEALED = "value.revealed"


@dataclass(frozen=True)
class Learned:
    """One thing that `reader` learned from `source`, `times` times, with the clause that allows it."""

    reader: str
    source: str
    disclosure: Disclosure
    times: int
    clause: str


@dataclass(frozen=True)
class DisclosureReport:
    """Everything that was revealed in a run; `readers` : all signers, also those who learned nothing."""

    readers: tuple[str, ...]
    learned: tuple[Learned, ...]

    def of(self, reader: str) -> tuple[Learned, ...]:
        """List what this reader learned, log by log in the order in which it happened."""
        return tuple(item for item in self.learned if item.reader == reader)

    def lines(self) -> list[str]:
        """Say it in plain words, one block per reader, each disclosure with its whole text."""
        lines: list[str] = []
        for reader in self.readers:
            lines.append(f"{reader}:")
            lines += [line for item in self.of(reader) for line in _item_lines(item)]
            if not self.of(reader):
                lines.append("  learned nothing")
        return lines


def report(logs: Mapping[str, Iterable[Record]], contract: Contract) -> DisclosureReport:
    """Collect what was revealed; AuditError for anything that the contract does not name.

    logs : the records of each signer's log, by name.
    """
    signers = tuple(signer.name for signer in contract.signers)
    counts: dict[tuple[str, str, Disclosure], int] = {}
    for source, records in logs.items():
        for record in records:
            if record.type == REVEALED:
                disclosure = _read(record, contract)
                for reader in _readers(disclosure, source, signers):
                    key = (reader, source, disclosure)
                    counts[key] = counts.get(key, 0) + 1
    learned = [
        Learned(reader, source, disclosure, times, _clause(disclosure))
        for (reader, source, disclosure), times in counts.items()
    ]
    return DisclosureReport(signers, tuple(learned))


def _read(record: Record, contract: Contract) -> Disclosure:
    where = f"log of {record.party}: record {record.seq}"
    try:
        disclosure = from_record(record.body)
    except ValueError as error:
        raise AuditError(f"{where}: {error}") from None
    if disclosure.kind not in contract.disclosures:
        raise AuditError(f"{where}: the contract does not allow {disclosure.kind}")
    return disclosure


def _readers(disclosure: Disclosure, source: str, signers: tuple[str, ...]) -> tuple[str, ...]:
    if disclosure.to == EVERYONE:
        return tuple(name for name in signers if name != source)
    if disclosure.to not in signers:
        raise AuditError(f"log of {source}: {disclosure.kind} went to {disclosure.to}, who is no signer")
    return (disclosure.to,)


def _clause(disclosure: Disclosure) -> str:
    return f'contract, disclosures: "{disclosure.kind}"'


def _item_lines(item: Learned) -> list[str]:
    often = "" if item.times == 1 else f", {item.times} times"
    text = [f"      {line}" if line else "" for line in item.disclosure.text.splitlines()]
    return [f"  {item.disclosure.describe()}{often} (from {item.source}; {item.clause})", *text]
