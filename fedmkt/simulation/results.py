"""What a finished run leaves for people: the summary, the page, and the facts that `--json` prints."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.audit.disclosures import report
from fedmkt.config.job import JobConfig
from fedmkt.contract.agreement import Limits
from fedmkt.contract.canonical import digest
from fedmkt.contract.signatures import SignedContract
from fedmkt.crypto.prg import Random, SeededRandom
from fedmkt.learn.metrics import Interval, Metrics
from fedmkt.learn.regression import evaluate_values
from fedmkt.party.journal import write_atomically
from fedmkt.party.table import Table
from fedmkt.protocol.alignment.psi import Overlap, common_band
from fedmkt.report.build import SUMMARY, build_report
from fedmkt.report.correlation import read_correlation
from fedmkt.report.folder import find_files
from fedmkt.report.logs import disclosure_lines, head_lines, logs_of, party_lines, shared_pairs
from fedmkt.report.path import read_path
from fedmkt.report.reasons import read_rates
from fedmkt.report.scores import (
    ReleasedScores,
    few_responders,
    lowered_limits,
    measure,
    measure_values,
    read_scores,
)
from fedmkt.report.shapes import read_shapes
from fedmkt.report.stability import moved
from fedmkt.report.summary import Models, RunSummary, ValueModels, measure_model
from fedmkt.simulation import compare, compare_trees
from fedmkt.simulation.comparison import Comparison
from fedmkt.transport.driver import Progress

_COMPARE: Mapping[str, Callable[[JobConfig, Path, dict[str, Table]], Comparison]] = {
    "logistic": compare.compare,
    "linear": compare.compare,
    "poisson": compare.compare,
    "scorecard": compare.compare,
    "additive": compare.compare,
    "trees": compare_trees.compare,
}
"""How the joint model of a kind is compared with a centralised one."""


def write_results(
    config: JobConfig, signed: SignedContract, folder: Path, tables: dict[str, Table], overlap: Overlap,
    costs: Progress, seconds: Mapping[str, float], seed: int | None,
) -> tuple[RunSummary, dict[str, object]]:  # fmt: skip
    """Measure the models, write summary.json and report.html; return the summary and the facts of the run."""
    started = time.perf_counter()
    random: Random = secrets.token_bytes if seed is None else SeededRandom(seed.to_bytes(16, "big"))
    exact = _COMPARE[config.model.kind](config, folder, tables)
    files = find_files(folder)
    models, gain = _measured(read_scores(files.model(config.bank.name)), exact, random)
    logs = logs_of(files)
    compared = time.perf_counter()
    stages = {k: round(v, 3) for k, v in seconds.items()} | {"compare": round(compared - started, 3)}
    summary = RunSummary(
        name=config.name,
        purpose=config.purpose,
        run=logs.run[:16],
        contract_digest=digest(signed.contract).hex(),
        parties=party_lines(signed.contract),
        common_band=common_band(signed.contract, overlap),
        common_exact=_exact_common(folder, config),
        models=models,
        gain_interval=gain,
        convergence=exact.convergence,
        convergence_measure="loss",
        disclosures=disclosure_lines(report(logs.records, logs.contract)),
        heads=head_lines(files),
        seconds=stages,
        bytes_sent=dict(costs.bytes_sent),
        rounds=costs.rounds,
        simulated=True,
        seed=seed,
        finished=logs.finished,
        warnings=(*_warnings(config, models, exact, seed), *moved(files.model(config.bank.name))),
        correlation=read_correlation(files.model(config.bank.name)),
        path=read_path(files.model(config.bank.name)),
        shapes=tuple(s for p in config.parties for s in read_shapes(files.model(p.name), p.name)),
        shared_pairs=shared_pairs(signed.contract),
        rates=read_rates(files.model(config.bank.name)),
    )
    write_atomically(folder / SUMMARY, summary.to_json().encode(), mode=0o644)
    page = build_report(folder)
    unlabelled = len(_own_rows(folder, config.bank.name, "unlabelled"))
    facts = _facts(folder, page, summary, exact, tables, unlabelled)
    facts["seconds"] = stages | {"report": round(time.perf_counter() - compared, 3)}
    return summary, facts


def _measured(
    scores: ReleasedScores, exact: Comparison, random: Random
) -> tuple[Models | ValueModels, Interval | None]:
    """Measure all models, and the gain in AUC where there is one."""
    if scores.kind != "logistic":
        counts, least = scores.kind == "poisson", scores.step / 2
        return replace(
            measure_values(scores),
            joint_exact=evaluate_values(exact.label, exact.joint, counts, least),
            centralised=evaluate_values(exact.label, exact.centralised, counts, least),
        ), None
    measured = measure(scores, random)
    models = Models(
        bank=measured.bank,
        joint=measured.joint,
        joint_exact=measure_model(exact.label, exact.joint, random),
        centralised=measure_model(exact.label, exact.centralised, random),
    )
    return models, measured.gain


def _exact_common(folder: Path, config: JobConfig) -> int:
    names = ("train", "held_out", "unlabelled")
    # Where all of the bank's customers take part, the partner's rows are the common ones.
    party = config.partners[0].name if config.align.join == "left" else config.bank.name
    return sum(len(_own_rows(folder, party, n)) for n in names)


def _own_rows(folder: Path, party: str, name: str) -> NDArray[np.int64]:
    rows: NDArray[np.int64] = np.load(
        folder / "parties" / party / "model" / f"{name}.npy", allow_pickle=False
    )
    return rows


def _warnings(
    config: JobConfig, models: Models | ValueModels, exact: Comparison, seed: int | None
) -> tuple[str, ...]:
    warnings = lowered_limits(config.limits)
    if seed is not None:
        warnings.append(
            f"Keys and masks follow from the seed {seed}: whoever knows it can undo the protection."
        )
    warnings += few_responders(models.joint if isinstance(models, ValueModels) else models.joint.metrics)
    # Of 183 random small jobs 16 ended more than .002 AUC from their optimum, all with fewer than 5 per column.
    if exact.events_per_column is not None and exact.events_per_column < Limits().min_events:
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
    return {
        "run": str(folder),
        "report": str(page),
        "contract": summary.contract_digest,
        "common": {
            "band": None if summary.common_band is None else list(summary.common_band),
            "exact": summary.common_exact,
            "unlabelled": unlabelled,
        },
        **_model_facts(summary),
        "weight_error": exact.weight_error,
        "tables": {name: _table_facts(table) for name, table in tables.items()},
        "seconds": summary.seconds,
        "bytes": summary.bytes_sent,
        "rounds": summary.rounds,
        "simulated": True,
        "seed": summary.seed,
        "warnings": list(summary.warnings),
    }


def _model_facts(summary: RunSummary) -> dict[str, object]:
    models, gain = summary.models, summary.gain_interval
    names = ("bank", "joint", "joint_exact", "centralised")
    if isinstance(models, ValueModels):
        found = {n: asdict(fit) for n in names if (fit := getattr(models, n)) is not None}
        return {"kind": models.kind, "models": found, "gain": {"r2": models.joint.r2 - models.bank.r2}}
    return {
        "models": {n: _figures(m.metrics) for n in names if (m := getattr(models, n)) is not None},
        "lift": models.joint.metrics.top_lift,
        "gain": {"auc": summary.partner_gain.auc, **(asdict(gain) if gain is not None else {})},
    }


def _table_facts(table: Table) -> dict[str, object]:
    dropped = {key: count for key, count in asdict(table.dropped).items() if count is not None}
    filtered = dropped if len(dropped) > 1 else {}  # minimum_age alone: nothing was filtered by
    return asdict(table.report) | ({"filtered": filtered} if filtered else {})


def _figures(found: Metrics) -> dict[str, object]:
    return {
        "auc": found.auc, "auc_low": found.auc_low, "auc_high": found.auc_high, "ks": found.ks,
        "brier": found.brier, "log_loss": found.log_loss, "lift": found.top_lift, "rows": found.rows,
        "responders": found.responders,
    }  # fmt: skip
