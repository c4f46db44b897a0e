"""What a finished run leaves for people: the summary, the page, and the facts that `--json` prints."""

import secrets
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fedmkt.audit.checkpoint import parse_body, parse_note
from fedmkt.audit.disclosures import DisclosureReport
from fedmkt.config import JobConfig
from fedmkt.contract import Contract, Limits, SignedContract, digest
from fedmkt.crypto.prg import Random, SeededRandom
from fedmkt.errors import ConfigError
from fedmkt.learn.metrics import Interval, Metrics, auc_gain_interval
from fedmkt.party.journal import write_atomically
from fedmkt.party.table import Table
from fedmkt.protocol.psi import Overlap
from fedmkt.report.build import SUMMARY, build_report
from fedmkt.report.summary import (
    DisclosureLine,
    HeadLine,
    Models,
    PartyLine,
    RunSummary,
    measure_model,
)
from fedmkt.simulation.compare import Comparison, compare
from fedmkt.simulation.logs import Logs, disclosures, read_logs
from fedmkt.transport.driver import Progress

"""Of 183 random small jobs 16 ended more than .002 AUC from their optimum, all with fewer than 5 of these."""
_FEW_RESPONDERS = 100


@dataclass(frozen=True)
class ReleasedScores:
    """What the bank got: one line per row; `held_out` rows have a label, the others may not.

    file_rows : line of a CSV file or number in a Parquet file; rounded : (n,) in [0, 1]
    """

    file_rows: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    label: NDArray[np.float64]
    rounded: NDArray[np.float64]
    bank_only: NDArray[np.float64]
    decimals: int


def read_scores(folder: Path, bank: str) -> ReleasedScores:
    """Read the scores that a run released to its bank; ConfigError if the run has none."""
    path = folder / "parties" / bank / "model" / "scores.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            decimals = int(stored["decimals"])
            return ReleasedScores(
                stored["file_rows"], stored["held_out"], stored["label"], stored["units"] / 10.0**decimals,
                stored["bank_only"], decimals,
            )  # fmt: skip
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror or 'not readable'}", "give the folder of a finished run"
        ) from None
    except (ValueError, KeyError, EOFError, BadZipFile):
        raise ConfigError(f"{path}: not the scores that a run wrote") from None


def write_results(
    config: JobConfig, signed: SignedContract, folder: Path, tables: dict[str, Table], overlap: Overlap,
    costs: Progress, seconds: Mapping[str, float], seed: int | None,
) -> tuple[RunSummary, dict[str, object]]:  # fmt: skip
    """Measure the models, write summary.json and report.html; return the summary and the facts of the run."""
    started = time.perf_counter()
    random: Random = secrets.token_bytes if seed is None else SeededRandom(seed.to_bytes(16, "big"))
    exact = compare(config, folder, tables)
    models, gain = _models(read_scores(folder, config.bank.name), exact, random)
    logs = read_logs(folder)
    compared = time.perf_counter()
    stages = {k: round(v, 3) for k, v in seconds.items()} | {"compare": round(compared - started, 3)}
    summary = RunSummary(
        name=config.name,
        purpose=config.purpose,
        run=_run_of(logs)[:16],
        contract_digest=digest(signed.contract).hex(),
        parties=_parties(signed.contract),
        common_band=(
            overlap.labelled_low + overlap.unlabelled_low,
            overlap.labelled_high + overlap.unlabelled_high,
        ),
        common_exact=_exact_common(folder, config),
        models=models,
        gain_interval=gain,
        convergence=exact.convergence,
        convergence_measure="loss",
        disclosures=disclosure_lines(disclosures(folder)),
        heads=_heads(folder, signed.contract),
        seconds=stages,
        bytes_sent=dict(costs.bytes_sent),
        rounds=costs.rounds,
        simulated=True,
        seed=seed,
        finished=_finished(logs),
        warnings=_warnings(config, models.joint.metrics, exact, seed),
    )
    write_atomically(folder / SUMMARY, summary.to_json().encode(), mode=0o644)
    page = build_report(folder)
    unlabelled = len(_own_rows(folder, config.bank.name, "unlabelled"))
    facts = _facts(folder, page, summary, exact, tables, unlabelled)
    facts["seconds"] = stages | {"report": round(time.perf_counter() - compared, 3)}
    return summary, facts


def _models(scores: ReleasedScores, exact: Comparison, random: Random) -> tuple[Models, Interval]:
    held = scores.held_out
    y, bank, joint = scores.label[held], scores.bank_only[held], scores.rounded[held]
    models = Models(
        bank=measure_model(y, bank, random),
        joint=measure_model(y, joint, random),
        joint_exact=measure_model(exact.label, exact.joint, random),
        centralised=measure_model(exact.label, exact.centralised, random),
    )
    return models, auc_gain_interval(y, bank, joint)


def _run_of(logs: Logs) -> str:
    return next((r.run for records in logs.records.values() for r in reversed(records) if r.run), "")


def _finished(logs: Logs) -> str:
    """Return when the last record of all logs was written, as people write a time."""
    latest = max((records[-1].time for records in logs.records.values() if records), default="")
    return f"{datetime.fromisoformat(latest):%Y-%m-%d %H:%M} UTC" if latest else ""


def _parties(contract: Contract) -> tuple[PartyLine, ...]:
    lines = [PartyLine(p.name, p.organisation, p.role) for p in contract.parties]
    return (*lines, PartyLine(contract.coordinator.name, contract.coordinator.organisation, "coordinator"))


def _exact_common(folder: Path, config: JobConfig) -> int:
    names = ("train", "held_out", "unlabelled")
    return sum(len(_own_rows(folder, config.bank.name, n)) for n in names)


def _own_rows(folder: Path, party: str, name: str) -> NDArray[np.int64]:
    rows: NDArray[np.int64] = np.load(
        folder / "parties" / party / "model" / f"{name}.npy", allow_pickle=False
    )
    return rows


def disclosure_lines(found: DisclosureReport) -> tuple[DisclosureLine, ...]:
    """Turn what was learned into lines of the report: one for each reader and each fact."""
    return tuple(
        DisclosureLine(
            item.reader,
            item.disclosure.kind,
            item.origin,
            f"{_sentence(item.disclosure.describe())}\n{item.disclosure.plain_text}",
            "disclosures",
        )
        for item in found.merged()
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _heads(folder: Path, contract: Contract) -> tuple[HeadLine, ...]:
    found = []
    for signer in contract.signers:
        note = parse_note((folder / "logs" / signer.name / "checkpoint.txt").read_bytes())
        head = parse_body(note.text)
        cosigners = tuple(s.name for s in note.lines if s.name != signer.name)
        found.append(HeadLine(signer.name, head.size, b64encode(head.root).decode(), cosigners))
    return tuple(found)


def _warnings(config: JobConfig, joint: Metrics, exact: Comparison, seed: int | None) -> tuple[str, ...]:
    limits, usual = config.limits, Limits()
    lowered = [n for n in ("min_list", "min_common", "min_support") if getattr(limits, n) < getattr(usual, n)]
    warnings = []
    if lowered:
        warnings.append(
            f"Minimum sizes are lowered in this job ({', '.join(lowered)}): small groups tell more."
        )
    if seed is not None:
        warnings.append(
            f"Keys and masks follow from the seed {seed}: whoever knows it can undo the protection."
        )
    if joint.responders < _FEW_RESPONDERS:
        warnings.append(f"Only {joint.responders} responders are held out: the figures are rough.")
    if exact.events_per_column < usual.min_events:
        warnings.append(
            f"Only {exact.events_per_column:.1f} training rows of the rarer class per column, as limits.min_events "
            "allows: the passes of the contract may end before the optimum."
        )
    return tuple(warnings)


def _facts(
    folder: Path,
    page: Path,
    summary: RunSummary,
    exact: Comparison,
    tables: dict[str, Table],
    unlabelled: int,
) -> dict[str, object]:
    models, gain = summary.models, summary.gain_interval
    measured = {
        "bank": models.bank, "joint": models.joint, "joint_exact": models.joint_exact,
        "centralised": models.centralised,
    }  # fmt: skip
    return {
        "run": str(folder),
        "report": str(page),
        "contract": summary.contract_digest,
        "common": {
            "band": list(summary.common_band),
            "exact": summary.common_exact,
            "unlabelled": unlabelled,
        },
        "models": {n: _figures(m.metrics) for n, m in measured.items() if m is not None},
        "lift": models.joint.metrics.top_lift,
        "gain": {"auc": summary.partner_gain.auc, **(asdict(gain) if gain is not None else {})},
        "weight_error": exact.weight_error,
        "tables": {name: asdict(table.report) for name, table in tables.items()},
        "seconds": summary.seconds,
        "bytes": summary.bytes_sent,
        "rounds": summary.rounds,
        "simulated": True,
        "seed": summary.seed,
        "warnings": list(summary.warnings),
    }


def _figures(found: Metrics) -> dict[str, object]:
    return {
        "auc": found.auc, "auc_low": found.auc_low, "auc_high": found.auc_high, "ks": found.ks,
        "brier": found.brier, "log_loss": found.log_loss, "lift": found.top_lift, "rows": found.rows,
        "responders": found.responders,
    }  # fmt: skip
