"""The logs of a run as records, for reading: what happened, who learned what, and the lines that a page shows.

Nothing is verified here beyond the form of each line; that is `fedmkt.audit.verify`. Where one organisation's
folder is read, there is its own log only: what others revealed to it stands in theirs.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from fedmkt.audit.checkpoint import parse_body, parse_note
from fedmkt.audit.disclosures import DisclosureReport, report
from fedmkt.audit.records import Record, read_leaf
from fedmkt.contract.agreement import Contract
from fedmkt.errors import AuditError, ConfigError
from fedmkt.report.folder import RunFiles, find_files, read_text
from fedmkt.report.summary import DisclosureLine, HeadLine, PartyLine


@dataclass(frozen=True)
class Filter:
    """Which records to show: of one log, of an event (also message.*), of a run (its first digits), since when."""

    party: str | None = None
    type: str | None = None
    run: str | None = None
    since: str = ""

    def lets(self, record: Record) -> bool:
        """Tell whether a record is shown."""
        return (
            fnmatchcase(record.type, self.type or "*")
            and (self.run is None or (record.run != "" and record.run.startswith(self.run)))
            and record.time >= self.since
        )


@dataclass(frozen=True)
class Logs:
    """The contract of a run, and each signer's records in the order in which they were written."""

    contract: Contract
    records: Mapping[str, tuple[Record, ...]]

    @property
    def run(self) -> str:
        """The latest run, hexadecimal; empty if none was begun."""
        return next((r.run for records in self.records.values() for r in reversed(records) if r.run), "")

    @property
    def finished(self) -> str:
        """When the last record of all logs was written, as people write a time."""
        latest = max((records[-1].time for records in self.records.values() if records), default="")
        return f"{datetime.fromisoformat(latest):%Y-%m-%d %H:%M} UTC" if latest else ""

    def of_run(self, run: str) -> "Logs":
        """Keep the records of one run, and those that belong to none."""
        kept = {name: tuple(r for r in of if r.run in ("", run)) for name, of in self.records.items()}
        return Logs(self.contract, kept)

    def only(self, chosen: Filter) -> "Logs":
        """Keep what a filter lets through; ConfigError for a party whose log is not here."""
        if chosen.party is not None and chosen.party not in self.records:
            raise ConfigError(f"no log of {chosen.party!r} here", f"here: {', '.join(self.records)}")
        names = [chosen.party] if chosen.party is not None else list(self.records)
        return Logs(self.contract, {n: tuple(r for r in self.records[n] if chosen.lets(r)) for n in names})

    def to_json(self) -> dict[str, object]:
        """Give all records as plain data, by signer."""
        return {"logs": {name: [asdict(r) for r in records] for name, records in self.records.items()}}

    def lines(self) -> list[str]:
        """Give one line per record, signer by signer."""
        lines: list[str] = []
        for name, records in self.records.items():
            lines.append(f"{name}: {len(records)} records")
            lines += [f"{r.seq:>6} {r.time} {r.type} {json.dumps(dict(r.body))}" for r in records]
        return lines


def read_logs(run: Path) -> Logs:
    """Read a run's folder; ConfigError if it is none, AuditError naming file and line for a broken record."""
    return logs_of(find_files(run))


def logs_of(files: RunFiles) -> Logs:
    """Read the logs that are there."""
    return Logs(files.contract, {name: _records(log / "log.jsonl") for name, log in files.logs.items()})


def disclosures(run: Path) -> DisclosureReport:
    """Collect what each signer learned, from all logs of a folder."""
    logs = read_logs(run)
    return report(logs.records, logs.contract)


def _records(path: Path) -> tuple[Record, ...]:
    records = []
    for number, line in enumerate(read_text(path).encode().split(b"\n")[:-1], start=1):
        try:
            records.append(read_leaf(line))
        except ValueError as error:
            raise AuditError(f"{path}: line {number}: {error}") from None
    return tuple(records)


def party_lines(contract: Contract) -> tuple[PartyLine, ...]:
    """List the signers as a page shows them."""
    lines = [PartyLine(p.name, p.organisation, p.role) for p in contract.parties]
    return (*lines, PartyLine(contract.coordinator.name, contract.coordinator.organisation, "coordinator"))


def shared_pairs(contract: Contract) -> tuple[tuple[str, str], ...]:
    """Name the pairs of two parties whose products count in the model, PARTY/COLUMN each."""
    return tuple(("/".join(left), "/".join(right)) for left, right in contract.additive.across)


def disclosure_lines(found: DisclosureReport) -> tuple[DisclosureLine, ...]:
    """Turn what was learned into lines of a page: one for each reader and each fact."""
    facts = [
        DisclosureLine(
            item.reader,
            item.disclosure.kind,
            item.origin,
            f"{_sentence(item.disclosure.describe())}\n{item.disclosure.plain_text}",
            "disclosures",
        )
        for item in found.merged()
    ]
    unread = [
        DisclosureLine(item.reader, "not in this log", item.amount, _sentence(item.text), "disclosures")
        for item in found.unread
    ]
    return (*facts, *unread)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def head_lines(files: RunFiles) -> tuple[HeadLine, ...]:
    """List the heads of the logs that are there; beside an own log also those of others that its owner cosigned."""
    found = []
    for name, folder in files.logs.items():
        path = folder / "checkpoint.txt"
        found.append(_head_line(name, read_text(path), path))
        if files.owner:
            found += _cosigned_heads(folder / "peers.json", name)
    return tuple(found)


def _head_line(party: str, text: str, path: Path) -> HeadLine:
    try:
        note = parse_note(text.encode())
        head = parse_body(note.text)
    except ValueError as error:
        raise AuditError(f"{path}: {error}") from None
    cosigners = tuple(s.name for s in note.lines if s.name != party)
    return HeadLine(party, head.size, b64encode(head.root).decode(), cosigners)


def _cosigned_heads(path: Path, owner: str) -> list[HeadLine]:
    try:
        peers = json.loads(read_text(path)) if path.exists() else {}
        return [_head_line(name, peer["note"] + peer["cosignature"], path) for name, peer in peers.items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AuditError(f"{path}: not the heads that {owner} cosigned") from None
