"""Every family of joint models beside its plain twin: how well it predicts, what it costs, what it discloses.

    python -m benchmarks.models --uci bank-full.csv.gz --json docs/models.json --readme README.md

Each family runs its whole job in memory, from files to scores, on each data set; then the plain models train on the
same rows and columns in the same process. The figures of training leave out reading, intersection and scores: they
begin when the rows are in their common order. CPU seconds are those of the one process in which all parties run,
sealing, signatures and logs included. With --json a file that exists is added to: a row is measured again or stays.
"""

import argparse
import json
import os
import platform
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.model_families import FAMILIES, Entry
from benchmarks.model_plain import Array, Plain, Pooled, pool
from benchmarks.model_tables import filled, markdown, say_tables
from benchmarks.model_worlds import Invented, Uci
from fedmkt.errors import FedmktError
from fedmkt.learn.metrics import calibration_error
from fedmkt.learn.regression import ValueFit, evaluate_values
from fedmkt.protocol import wire
from fedmkt.protocol.turns import Receipt
from fedmkt.report.summary import ModelResult, RunSummary, measure_model
from fedmkt.simulation.progress import ProgressEvent
from fedmkt.simulation.results import write_results
from fedmkt.simulation.run import Layout, carry_out, read_job

Facts = dict[str, Any]
World = Uci | Invented
AFTER = ("score", "close")
"""Stages of a job that come after its training."""
VALUES = ("linear", "poisson")
"""Kinds of models whose labels are numbers or counts."""
WARM_UP = Invented(12_000, columns=6)


class Stopwatch:
    """When the rounds of a job ended, by stage, from its signs of life."""

    def __init__(self) -> None:
        self._ends: list[tuple[str, float, float]] = []

    def __call__(self, event: ProgressEvent) -> None:
        """Note the end of a round; `done` is 0 where a stage is only announced."""
        if event.done > 0:
            self._ends.append((event.stage, time.perf_counter(), time.process_time()))

    def training(self) -> Facts:
        """Return wall and CPU seconds and rounds from the rows in their common order to the first score."""
        stages = [stage for stage, _, _ in self._ends]
        first = max(i for i, stage in enumerate(stages) if stage == "split")
        # A stage that has more rounds than expected may be taken for the next one, until its own name comes again.
        last = max(i for i, stage in enumerate(stages) if stage not in AFTER)
        (_, wall, cpu), (_, end, used) = self._ends[first], self._ends[last]
        return {"wall_s": end - wall, "cpu_s": used - cpu, "rounds": last - first}


def compare(entry: Entry, world: World, seed: int) -> Facts:
    """Run one family's job on one data set, then its plain models."""
    with tempfile.TemporaryDirectory(prefix="models-") as name:
        data, folder = Path(name) / "data", Path(name) / "run"
        job = world.write(data, entry.sections, seed, entry.targets.get(world.name))
        config, watch = read_job(job), Stopwatch()
        run = carry_out(config, job, Layout(folder), "memory", seed, False, watch)
        summary, _ = write_results(
            config, run.signed, folder, run.tables, run.outcome.overlap, run.costs, run.seconds, None
        )
        pooled = pool(config, folder, run.tables)
        plain = [measure_plain(model, pooled) for model in entry.plain if model.is_there]
        sent = sent_in_training(folder, [*run.tables, config.coordinator.name])
        training = {**watch.training(), "bytes": sent}
    return {
        "family": entry.name,
        "data": world.name,
        "target": entry.targets[world.name].column if world.name in entry.targets else "",
        "rows": {"train": len(pooled.train), "held_out": len(pooled.held_out)},
        "columns": {p.name: len(p.numbers) + len(p.categories) for p in config.parties},
        "models": _figures_of(summary),
        "plain": plain,
        "training": training,
        "whole": {"bytes": dict(run.costs.bytes_sent), "rounds": run.costs.rounds},
        "disclosed": sorted({(line.reader, line.kind) for line in summary.disclosures}),
        "measured": datetime.now(UTC).date().isoformat(),
    }


def measure_plain(model: Plain, pooled: Pooled) -> Facts:
    """Train one plain model; reading and preparing the columns is not counted."""
    fit = model.begin(pooled)
    wall, cpu = time.perf_counter(), time.process_time()
    predict = fit()
    costs = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return {"name": model.name, **costs, **figures(_measured(pooled, predict()))}


def _measured(pooled: Pooled, predicted: Array) -> ModelResult | ValueFit:
    kind = pooled.config.model.kind
    if kind in VALUES:
        return evaluate_values(pooled.y_held_out, predicted, kind == "poisson")
    return measure_model(pooled.y_held_out, predicted, secrets.token_bytes)


def figures(model: ModelResult | ValueFit) -> Facts:
    """Return what the table says of one model on the held-out rows."""
    if isinstance(model, ValueFit):
        return {"r2": model.r2, "rmse": model.rmse, "deviance": model.deviance, "explained": model.explained}
    found = model.metrics
    return {
        "auc": found.auc, "ks": found.ks, "log_loss": found.log_loss,
        "calibration_error": calibration_error(found.calibration),
    }  # fmt: skip


def _figures_of(summary: RunSummary) -> Facts:
    models = vars(summary.models)
    return {
        name: figures(found) for name, found in models.items() if isinstance(found, ModelResult | ValueFit)
    }


def sent_in_training(folder: Path, names: Sequence[str]) -> dict[str, int]:
    """Add up the sealed messages that each participant sent between the split of the rows and the scores."""
    receipts = list(_receipts((folder / "coordinator" / "receipts.bin").read_bytes()))
    stages = [r.step.partition(".")[0] for r in receipts]
    first = max(i for i, stage in enumerate(stages) if stage == "split") + 1
    last = next((i for i, stage in enumerate(stages) if stage == "score"), len(stages))
    sent = dict.fromkeys(names, 0)
    for receipt in receipts[first:last]:
        sent[receipt.party] += sum(size for _, _, size in receipt.parts)
    return sent


def _receipts(data: bytes) -> list[Receipt]:
    at, found = 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append(wire.decode(data[at + 4 : at + 4 + size], Receipt))
        at += 4 + size
    return found


def worlds_of(options: argparse.Namespace) -> list[World]:
    """Read the UCI files that are there; say which are not."""
    worlds: list[World] = []
    for path in options.uci:
        try:
            worlds.append(Uci.read(path))
        except (OSError, ValueError) as error:
            print(f"{path}: skipped: {error}", file=sys.stderr)
    if not options.uci:
        print("no UCI file was given (--uci bank-full.csv.gz): real data are skipped", file=sys.stderr)
    return [*worlds, Invented(options.rows)] if options.rows else worlds


def measure(entries: Sequence[Entry], worlds: Sequence[World], seed: int) -> list[Facts]:
    """Compare every family on every data set, after a small job that compiles and imports what is needed."""
    runs = []
    for entry in entries:
        compare(entry, WARM_UP, seed)
        for world in worlds:
            if isinstance(world, Invented):
                world = Invented(min(world.rows, entry.most_rows))
            try:
                runs.append(compare(entry, world, seed))
            except FedmktError as error:
                print(f"{entry.name}, {world.name}: {error}", file=sys.stderr)
                continue
            spent = runs[-1]["training"]["cpu_s"]
            load = os.getloadavg()[0]
            print(f"{entry.name}, {world.name}: {spent:.1f} CPU s, load {load:.1f}", file=sys.stderr)
    return runs


def added(figures: Facts, runs: Sequence[Facts]) -> Facts:
    """Put runs in place of earlier ones of the same family and data set, in the order of the families."""
    kept = {(r["family"], r["data"]): r for r in [*figures.get("runs", []), *runs]}
    order = [entry.name for entry in FAMILIES]
    rows = sorted((r for r in kept.values() if r["family"] in order), key=lambda r: order.index(r["family"]))
    return {"how": " ".join(__doc__.partition("README.md\n")[2].split()), "machine": machine(), "runs": rows}


def machine() -> Facts:
    """Say on what this was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    absent = sorted({p.name for e in FAMILIES for p in e.plain if not p.is_there})
    return {
        "cpu": model, "cores": os.cpu_count(), "python": platform.python_version(),
        "load": os.getloadavg()[0], "not_installed": absent,
    }  # fmt: skip


def main() -> None:
    """Read options, measure, print the tables, and write file and page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--uci", type=Path, nargs="*", default=[], help="bank-full.csv, bank-additional-full.csv, .gz"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the invented data; 0 leaves them out")
    parser.add_argument("--families", default=",".join(e.name for e in FAMILIES))
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="of people, data and all that is drawn: each family has the same rows",
    )
    parser.add_argument("--json", type=Path, help="the file of figures to add this to")
    parser.add_argument("--readme", type=Path, help="the page whose table is written anew")
    options = parser.parse_args()
    entries = [e for e in FAMILIES if e.name in options.families.split(",")]
    before = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    figures = added(before, measure(entries, worlds_of(options), options.seed))
    say_tables(figures)
    if figures["machine"]["not_installed"]:
        print(f"not installed, so not compared: {', '.join(figures['machine']['not_installed'])}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.readme:
        page = options.readme.read_text(encoding="utf-8")
        options.readme.write_text(filled(page, markdown(figures)), encoding="utf-8")


if __name__ == "__main__":
    main()
