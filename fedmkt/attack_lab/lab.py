"""`fedmkt attack-lab`: watch a run, run the attacks on it, write what they found beside it."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fedmkt.attack_lab.effort import Effort, quick
from fedmkt.attack_lab.finding import Finding, mean_of
from fedmkt.attack_lab.jobs import MODELS, SIZES, write_job
from fedmkt.attack_lab.registry import attack
from fedmkt.attack_lab.subject import Subject, seed_of, watch_run
from fedmkt.attack_lab.table import Report
from fedmkt.contract.canonical import digest
from fedmkt.errors import ConfigError


def attack_run(
    run: Path, rows: Sequence[int] = (), out: Path | None = None, effort: Effort | None = None
) -> Report:
    """Attack a simulated run, or a job, and write attack-lab.json and attack-lab.html.

    run : folder of a simulation, whose job is run once more under watch (with the seed that it had, bit for bit), or
    a job.toml. rows : of the table, all by default. out : where to write, by default the run's folder.
    """
    if run.is_file() and out is None:
        raise ConfigError(f"{run}: a job has no folder to write into", "name one: --out DIR")
    with tempfile.TemporaryDirectory() as name:
        subject = watch_run(run, Path(name) / "run", seed_of(run))
        found = report_of(subject, run.name, attack(subject, effort or quick(1), rows))
    found.write(out or run)
    return found


def attack_all(
    rows: Sequence[int] = (), out: Path | None = None, seeds: int = 1, sizes: tuple[int, int, int] = SIZES,
    families: Sequence[str] = tuple(MODELS), effort: Callable[[int], Effort] = quick,
) -> list[Report]:  # fmt: skip
    """Attack a job on invented data of each family, `seeds` times each; `finding.mean_of` puts these together.

    effort : how hard to try, from the seed
    """
    reports = []
    for family in families:
        of_seeds = [_attack_invented(family, rows, sizes, seed, effort(seed)) for seed in range(1, seeds + 1)]
        findings = tuple(mean_of(same) for same in zip(*(r.findings for r in of_seeds), strict=True))
        report = replace(of_seeds[0], seeds=seeds, findings=findings)
        if out is not None:
            report.write(out / family)
        reports.append(report)
    return reports


def _attack_invented(
    family: str, rows: Sequence[int], sizes: tuple[int, int, int], seed: int, effort: Effort
) -> Report:
    with tempfile.TemporaryDirectory() as name:
        job = write_job(Path(name) / "world", family, seed, sizes, min(1000, sizes[2] // 2))
        subject = watch_run(job, Path(name) / "run", seed)
        return replace(report_of(subject, "invented data", attack(subject, effort, rows)), family=family)


def report_of(subject: Subject, run: str, findings: Sequence[Finding]) -> Report:
    """Put findings and what they are about together."""
    return Report(run, subject.family, digest(subject.contract).hex(), 1, tuple(findings))
