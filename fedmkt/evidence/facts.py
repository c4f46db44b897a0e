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
from typing import Final

from fedmkt.audit.disclosures import DisclosureReport
from fedmkt.audit.disclosures import report as collect_disclosures
from fedmkt.audit.ledger import Ledger
from fedmkt.audit.records import Record
from fedmkt.audit.statements import Statement
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml
from fedmkt.contract.governance import GovernanceTerms
from fedmkt.contract.signatures import SignedContract
from fedmkt.errors import AuditError, ConfigError
from fedmkt.evidence.life import Statements, read_statements
from fedmkt.report.build import SUMMARY, read_summary
from fedmkt.report.deals import read_statement, statement_file
from fedmkt.report.folder import CONTRACT, RunFiles, find_files, read_text
from fedmkt.report.logs import Logs, head_lines, logs_of
from fedmkt.report.message_ledger import ledger_of
from fedmkt.report.own import bank_summary, run_of
from fedmkt.report.summary import HeadLine, RunSummary, ValueModels

ATTACK_LAB = "attack-lab.json"
LARGEST_REPORT = 1 << 22
Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


MEASURES: Final = (
    "AUC", "KS", "Brier", "log loss", "lift of the first decile", "AUC gained", "R²", "RMSE", "explained deviance",
)  # fmt: skip
"""Names of figures; a pack has no other."""


@dataclass(frozen=True)
class Figure:
    """One measure of the joint model and the bank's own; text, since intervals stand beside."""

    name: str
    bank: str
    joint: str


@dataclass(frozen=True)
class Facts:
    """Everything that a pack says.

    whole : all records of the logs; logs, ledger : of this run. measured_on : held-out rows and, of answers,
    responders. attack_lab : None if the lab was not run. deals : what the contract's auditor states of this run's deals.
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
    statements: Statements
    attack_lab: dict[str, Json] | None
    deals: Statement | None

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
        """How it ended, by the logs that are here: by the last word of each in the run's last epoch."""
        ends = {name: _end(of) for name, of in self.logs.records.items() if not self._expired(name)}
        epoch = max((epoch for epoch, _ in ends.values()), default=0)
        if epoch and set(ends.values()) == {(epoch, "run.completed")}:
            return "completed"
        return "aborted" if (epoch, "run.aborted") in ends.values() else "not completed by everyone"

    def _expired(self, name: str) -> bool:
        """Tell whether a log's records of the run were removed when their time was over."""
        whole = self.whole.records[name]
        return whole[0].seq > 0 and all(r.run != self.run for r in whole)


def _end(records: Sequence[Record]) -> tuple[int, str]:
    """Return the last epoch that a log knows, and what it says of it last; no epoch and nothing if it knows none."""
    epoch, said = 0, ""
    for r in records:
        if r.type == "epoch.started" and isinstance(number := r.body.get("epoch"), int):
            epoch, said = number, r.type
        elif r.type in ("run.completed", "run.aborted"):
            said = r.type
    return epoch, said


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
        statements=read_statements(files, logs.records),
        attack_lab=read_attack_lab(files.root / ATTACK_LAB, files.contract),
        deals=_deals(files, name),
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


def _deals(files: RunFiles, run: str) -> Statement | None:
    """Read what the contract's auditor states of a run's deals; AuditError for a statement that is not the auditor's."""
    path = statement_file(files.root, run)
    if files.contract.auditor is None or not path.exists():
        return None
    try:
        said = read_statement(path.read_bytes(), files.contract)
        if said.predicate.get("run") != run:
            raise ValueError("of another run")
    except ValueError as error:
        raise AuditError(f"{path}: {error}") from None
    return said


def read_attack_lab(path: Path, contract: Contract) -> dict[str, Json] | None:
    """Read the report of the attack lab; None if there is none, ConfigError for one on another contract."""
    if not path.exists():
        return None
    try:
        data = path.read_bytes()
        if len(data) > LARGEST_REPORT:
            raise ValueError(f"more than {LARGEST_REPORT} bytes")
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("an object is needed")
        json.dumps(value, ensure_ascii=False).encode()
        if value.get("contract") != digest(contract).hex():
            raise ValueError("of another contract than that of this run")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", "fedmkt attack-lab RUN writes it again") from None
    return value
