"""The page of one organisation's run: what its own folder tells, and no figure that needs another's data.

At the bank it has both models, measured on held-out rows; the joint one by the scores that were released to it.
Everybody else, and the bank where customers were only counted, has a page of what its log shows.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from fedmkt.audit.disclosures import REVEALED
from fedmkt.audit.disclosures import report as collect_disclosures
from fedmkt.audit.records import Record
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.crypto.prg import SeededRandom
from fedmkt.errors import ConfigError
from fedmkt.party.journal import write_atomically
from fedmkt.privacy.disclosure import SetSize, from_record
from fedmkt.report.build import PAGE, SUMMARY, build_report
from fedmkt.report.correlation import read_correlation
from fedmkt.report.folder import RunFiles, find_files
from fedmkt.report.logs import Logs, disclosure_lines, head_lines, logs_of, party_lines, shared_pairs
from fedmkt.report.page import render, render_log
from fedmkt.report.path import read_path
from fedmkt.report.reasons import read_rates
from fedmkt.report.scores import few_responders, lowered_limits, measure, measure_values, read_scores
from fedmkt.report.shapes import read_shapes
from fedmkt.report.stability import moved
from fedmkt.report.summary import LogSummary, Models, RunSummary, ValueModels


def report(run: Path) -> Path:
    """Write report.html: of a simulation beside its summary, of an organisation's run beside its results."""
    if (run / SUMMARY).exists():
        return build_report(run)
    files = find_files(run)
    if not files.owner and files.contract.task == "overlap":
        raise ConfigError(f"{run}: its job only counts: there is no page", f"fedmkt disclosures {run}")
    if not files.owner:
        return build_report(files.root)
    name = run_of(files.results)
    logs = logs_of(files)
    logs = logs.of_run(name or logs.run)
    if not logs.run:
        raise ConfigError(f"{files.root}: no run was begun yet")
    if files.owner == files.contract.bank.name and files.contract.task == "train":
        page = render(bank_summary(files, logs), files.owner)
    else:
        page = render_log(log_summary(files, logs), files.owner)
    path = (files.results if name else files.root) / PAGE
    write_atomically(path, page.encode())  # of our own: with us it lies beside models, not in a run folder
    return path


def run_of(model: Path) -> str:
    """Return the run that left a model folder; empty if there is none."""
    try:
        return str(json.loads((model / "model.json").read_bytes())["run"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{model / 'model.json'}: not what a run wrote") from None


def bank_summary(files: RunFiles, logs: Logs) -> RunSummary:
    """Measure what the bank can measure; equal folders give equal summaries. logs : of that run only."""
    contract, records = logs.contract, logs.records[files.owner]
    # The intervals are drawn from the run's own number: nothing here is secret, and a page can be built again.
    scores, interval = read_scores(files.results), None
    models: Models | ValueModels
    if scores.kind == "logistic":
        measured = measure(scores, SeededRandom(bytes.fromhex(logs.run)))
        models, interval = Models(bank=measured.bank, joint=measured.joint), measured.gain
        few = few_responders(measured.joint.metrics)
    else:
        models = measure_values(scores)
        few = few_responders(models.joint)
    return RunSummary(
        name=contract.name,
        purpose=contract.purpose,
        run=logs.run[:16],
        contract_digest=digest(contract).hex(),
        parties=party_lines(contract),
        common_band=_common_band(records),
        models=models,
        gain_interval=interval,
        disclosures=disclosure_lines(collect_disclosures(logs.records, contract)),
        heads=head_lines(files),
        seconds=_seconds(records),
        bytes_sent=_traffic(records, files.owner),
        finished=logs.finished,
        warnings=(*_warnings(contract, records), *few, *moved(files.results)),
        correlation=read_correlation(files.results),
        path=read_path(files.results),
        shapes=read_shapes(files.results, files.owner),
        shared_pairs=shared_pairs(contract),
        rates=read_rates(files.results),
    )


def log_summary(files: RunFiles, logs: Logs) -> LogSummary:
    """Sum up what the log of an organisation without scores shows of a run."""
    contract = logs.contract
    return LogSummary(
        name=contract.name,
        purpose=contract.purpose,
        run=logs.run[:16],
        contract_digest=digest(contract).hex(),
        parties=party_lines(contract),
        disclosures=disclosure_lines(collect_disclosures(logs.records, contract)),
        heads=head_lines(files),
        finished=logs.finished,
        warnings=(*_warnings(contract, logs.records[files.owner]), *moved(files.results)),
        shapes=read_shapes(files.results, files.owner),
        shared_pairs=shared_pairs(contract),
    )


def _common_band(records: Sequence[Record]) -> tuple[int, int] | None:
    """Find the band that the bank told everybody; None where the contract tells nobody."""
    for record in reversed(records):
        if record.type == REVEALED and isinstance(told := from_record(record.body), SetSize):
            return told.low, told.high
    return None


def _seconds(records: Sequence[Record]) -> dict[str, float]:
    """Add up by stage the time from record to record; a pause before a resumed run's epoch belongs to none."""
    seconds: dict[str, float] = {}
    steps = [r for r in records if r.type in ("epoch.started", "step.completed")]
    for before, record in pairwise(steps):
        if record.type == "step.completed":
            stage = str(record.body["step"]).partition(".")[0]
            passed = datetime.fromisoformat(record.time) - datetime.fromisoformat(before.time)
            seconds[stage] = round(seconds.get(stage, 0.0) + passed.total_seconds(), 3)
    return seconds


def _traffic(records: Sequence[Record], owner: str) -> dict[str, int]:
    """Add up the bytes of sealed messages: ours to others, and of each other to us."""
    sent: dict[str, int] = {f"{owner}, to others": 0}
    for record in records:
        size = record.body.get("bytes")
        if isinstance(size, int) and record.type in ("message.sent", "message.received"):
            ours = record.type == "message.sent"
            name = f"{owner}, to others" if ours else f"{record.body['from']}, to {owner}"
            sent[name] = sent.get(name, 0) + size
    return sent


def _warnings(contract: Contract, records: Sequence[Record]) -> tuple[str, ...]:
    warnings = lowered_limits(contract.limits)
    if contract.rehearsal:
        warnings.append("The contract is for rehearsals: keys and masks may follow from a known number.")
    if not any(record.type == "run.completed" for record in records):
        warnings.append("Our log does not show that this run was completed.")
    return tuple(warnings)
