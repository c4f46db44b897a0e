"""What a folder knows about one run, gathered once: contract, logs, ledger, figures, statements.

Nothing here is about a person: names of columns, bands, counts that logs have, figures over held-out rows.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from fedmkt.audit import statements
from fedmkt.audit.disclosures import DisclosureReport
from fedmkt.audit.disclosures import report as collect_disclosures
from fedmkt.audit.ledger import Ledger
from fedmkt.audit.records import Record
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml
from fedmkt.contract.governance import GovernanceTerms
from fedmkt.contract.signatures import SignedContract
from fedmkt.crypto import dsse
from fedmkt.crypto.dsse import Public
from fedmkt.errors import AuditError, ConfigError
from fedmkt.report.build import SUMMARY, read_summary
from fedmkt.report.folder import CONTRACT, RunFiles, find_files, read_text
from fedmkt.report.logs import Logs, head_lines, logs_of
from fedmkt.report.message_ledger import ledger_of
from fedmkt.report.own import bank_summary, run_of
from fedmkt.report.summary import HeadLine, RunSummary, ValueModels

ATTACK_LAB = "attack-lab.json"
APPROVALS = "approvals"
LARGEST_REPORT = 1 << 22
Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True)
class Figure:
    """One measure of the joint model and the bank's own; text, since intervals stand beside."""

    name: str
    bank: str
    joint: str


@dataclass(frozen=True)
class Said:
    """A signed statement about the contract; by : whose key of the contract signed it, "" if nobody's."""

    kind: str
    by: str
    predicate: Mapping[str, object]
    file: str


@dataclass(frozen=True)
class Facts:
    """Everything that a pack says.

    whole : all records of the logs; logs, ledger : of this run. measured_on : held-out rows and, of answers,
    responders. attack_lab : None if the lab was not run.
    """

    files: RunFiles
    signed: SignedContract
    whole: Logs
    logs: Logs
    run: str
    ledger: Ledger
    disclosures: DisclosureReport
    heads: tuple[HeadLine, ...]
    figures: tuple[Figure, ...]
    measured_on: tuple[int, int]
    simulated: bool
    statements: tuple[Said, ...]
    attack_lab: dict[str, Json] | None

    @property
    def contract(self) -> Contract:
        """What is agreed."""
        return self.signed.contract

    @property
    def digest(self) -> str:
        """The contract's digest, hexadecimal."""
        return digest(self.contract).hex()

    @property
    def governance(self) -> GovernanceTerms | None:
        """The terms of governance, if the contract has them."""
        return self.contract.governance

    @property
    def missing_logs(self) -> tuple[str, ...]:
        """Signers whose logs are not here."""
        return tuple(s.name for s in self.contract.signers if s.name not in self.logs.records)

    @cached_property
    def events(self) -> Mapping[str, int]:
        """How often each event stands in the logs of this run."""
        return Counter(r.type for records in self.logs.records.values() for r in records)

    def bodies(self, event: str) -> Sequence[Record]:
        """List the records of an event, log by log."""
        return [r for records in self.logs.records.values() for r in records if r.type == event]

    @property
    def began(self) -> str:
        """When the run began, as people write a time; empty if it did not."""
        times = [r.time for r in self.bodies("run.started")]
        return _time(min(times)) if times else ""

    @property
    def ended(self) -> str:
        """When its last record was written."""
        times = [r.time for of in self.logs.records.values() for r in of if r.run == self.run]
        return _time(max(times)) if times else ""

    @property
    def outcome(self) -> str:
        """How it ended, by the logs that are here."""
        ends = {
            name: next((r.type for r in reversed(of) if r.type in ("run.completed", "run.aborted")), "")
            for name, of in self.logs.records.items()
        }
        if ends and set(ends.values()) == {"run.completed"}:
            return "completed"
        return "aborted" if "run.aborted" in ends.values() else "not completed by everyone"


def gather(folder: Path, run: str = "") -> Facts:
    """Read a run's folder, or an organisation's; ConfigError where there is no run, AuditError for broken logs.

    run : which of the contract's runs, hexadecimal; by default that of the results, else the latest.
    """
    files = find_files(folder)
    missing = [name for name, log in files.logs.items() if not (log / "log.jsonl").exists()]
    if missing:
        raise ConfigError(
            f"{files.root}: no log of {', '.join(missing)}", "fedmkt audit collect puts logs together"
        )
    whole = logs_of(files)
    name = run or run_of(files.results) or whole.run
    if not name:
        raise ConfigError(f"{files.root}: no run was begun yet")
    logs = whole.of_run(name)
    summary = _summary(files, logs)
    figures, measured_on = _figures(summary)
    return Facts(
        files=files,
        signed=from_toml(read_text(files.root / CONTRACT), str(files.root / CONTRACT)),
        whole=whole,
        logs=logs,
        run=name,
        ledger=ledger_of(files, whole).of_run(name),
        disclosures=collect_disclosures(logs.records, files.contract),
        heads=head_lines(files) if all((f / "checkpoint.txt").exists() for f in files.logs.values()) else (),
        figures=figures,
        measured_on=measured_on,
        simulated=(files.root / SUMMARY).exists() and not files.owner,
        statements=_statements(files),
        attack_lab=_attack_lab(files.root / ATTACK_LAB),
    )


def _time(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"


def _summary(files: RunFiles, logs: Logs) -> RunSummary | None:
    if not files.owner:
        return read_summary(files.root) if (files.root / SUMMARY).exists() else None
    has_scores = (files.results / "scores.npz").exists() and files.owner == files.contract.bank.name
    return bank_summary(files, logs) if has_scores else None


def _figures(summary: RunSummary | None) -> tuple[tuple[Figure, ...], tuple[int, int]]:
    if summary is None:
        return (), (0, 0)
    if isinstance(summary.models, ValueModels):
        return _value_figures(summary.models), (summary.models.joint.rows, 0)
    bank, joint = summary.responses.bank.metrics, summary.responses.joint.metrics
    found = [
        Figure("AUC", *(f"{m.auc:.4f} (95 %: {m.auc_low:.4f} to {m.auc_high:.4f})" for m in (bank, joint))),
        Figure("KS", f"{bank.ks:.4f}", f"{joint.ks:.4f}"),
        Figure("Brier", f"{bank.brier:.4f}", f"{joint.brier:.4f}"),
        Figure("log loss", f"{bank.log_loss:.4f}", f"{joint.log_loss:.4f}"),
        Figure("lift of the first decile", f"{bank.top_lift:.2f}", f"{joint.top_lift:.2f}"),
    ]
    if summary.gain_interval is not None:
        low, high = summary.gain_interval.low, summary.gain_interval.high
        gained = f"{joint.auc - bank.auc:+.4f} (95 %: {low:+.4f} to {high:+.4f})"
        found.append(Figure("AUC gained", "", gained))
    return tuple(found), (joint.rows, joint.responders)


def _value_figures(models: ValueModels) -> tuple[Figure, ...]:
    bank, joint = models.bank, models.joint
    found = [
        Figure("R²", f"{bank.r2:.4f}", f"{joint.r2:.4f}"),
        Figure("RMSE", f"{bank.rmse:.4g}", f"{joint.rmse:.4g}"),
    ]
    if bank.explained is not None and joint.explained is not None:
        found.append(Figure("explained deviance", f"{bank.explained:.4f}", f"{joint.explained:.4f}"))
    return tuple(found)


def _statements(files: RunFiles) -> tuple[Said, ...]:
    """Read the statements beside the contract, with whose key of the contract signed each."""
    keys = {s.name: Public(bytes.fromhex(s.key)) for s in files.contract.signers}
    terms = files.contract.governance
    if terms is not None:
        keys |= {f"{a.name} ({a.party}, {a.role})": Public(bytes.fromhex(a.key)) for a in terms.approvers}
    found = []
    for path in statement_files(files):
        try:
            envelope = dsse.from_json(path.read_bytes())
            said, names = statements.read(envelope, keys, needed=1)
        except ValueError as error:
            raise AuditError(f"{path}: {error}", "not signed by anybody whom the contract names") from None
        found.append(Said(said.kind, ", ".join(names), dict(said.predicate), path.name))
    return tuple(found)


def statement_files(files: RunFiles) -> list[Path]:
    """List the files of signed statements that lie beside the contract of a run."""
    folder = files.root / APPROVALS
    return sorted(folder.glob("*.dsse.json")) if folder.is_dir() else []


def _attack_lab(path: Path) -> dict[str, Json] | None:
    if not path.exists():
        return None
    try:
        data = path.read_bytes()
        if len(data) > LARGEST_REPORT:
            raise ValueError(f"more than {LARGEST_REPORT} bytes")
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("an object is needed")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", "fedmkt attack-lab RUN writes it again") from None
    return value
