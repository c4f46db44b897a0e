"""The logs of a run folder as records, for reading: what happened, and who learned what.

Nothing is verified here beyond the form of each line; that is `fedmkt.audit.verify`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fedmkt.audit.disclosures import DisclosureReport, report
from fedmkt.audit.records import Record, read_leaf
from fedmkt.contract import Contract, from_toml
from fedmkt.errors import AuditError, ConfigError


@dataclass(frozen=True)
class Logs:
    """The contract of a run, and each signer's records in the order in which they were written."""

    contract: Contract
    records: Mapping[str, tuple[Record, ...]]

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
    """Read a run folder; ConfigError if it is none, AuditError naming file and line for a broken record."""
    contract = read_contract(run)
    names = [signer.name for signer in contract.signers]
    return Logs(contract, {name: _records(run / "logs" / name / "log.jsonl") for name in names})


def read_contract(run: Path) -> Contract:
    """Read the contract of a run folder; ConfigError if it is none."""
    path = run / "contract.toml"
    return from_toml(_read(path), str(path)).contract


def disclosures(run: Path) -> DisclosureReport:
    """Collect what each signer learned in the run, from all logs of its folder."""
    logs = read_logs(run)
    return report(logs.records, logs.contract)


def _records(path: Path) -> tuple[Record, ...]:
    records = []
    for number, line in enumerate(_read(path).encode().split(b"\n")[:-1], start=1):
        try:
            records.append(read_leaf(line))
        except ValueError as error:
            raise AuditError(f"{path}: line {number}: {error}") from None
    return tuple(records)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise AuditError(f"{path}: not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give the folder that a run wrote") from None
