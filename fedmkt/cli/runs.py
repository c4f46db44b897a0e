"""`fedmkt run`, `runs`, `logs` and `stop`: what the operator of a coordinator does with runs."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmkt.cli import console
from fedmkt.cli.overlap import overlap_lines
from fedmkt.simulation.progress import ProgressEvent

if TYPE_CHECKING:
    from fedmkt.deploy.runs import RunStatus

Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The coordinator's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's name.", show_default=False)]


def run_command(
    contract: Annotated[
        Path, typer.Argument(metavar="CONTRACT", help="The signed contract.", show_default=False)
    ],
    folder: Folder = Path("."),
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, and end with its code.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the contract's latest run.")] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", show_default=False, help="Of a rehearsal: keys and masks follow from N."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start a run of a contract that all its parties signed."""
    from fedmkt.deploy.folders import CoordinatorFolder
    from fedmkt.deploy.operate import start_run, wait_for

    run = start_run(CoordinatorFolder(folder), contract, resume, seed)
    if not wait:
        if as_json:
            console.say_json(asdict(run.status()))
        else:
            console.say_lines([run.name, f"next:  fedmkt logs {run.name}"])
        return
    with console.progress_display() as progress:
        status = wait_for(run, lambda s: progress(_event(s)))
    if as_json:
        console.say_json(asdict(status))
    else:
        console.say_lines(_lines(status))
    if status.exit_code:
        raise typer.Exit(status.exit_code)


def runs_command(folder: Folder = Path("."), as_json: Json = False) -> None:
    """List the runs of this coordinator."""
    from fedmkt.deploy.folders import CoordinatorFolder
    from fedmkt.deploy.runs import all_runs

    found = [run.status() for run in all_runs(CoordinatorFolder(folder).runs)]
    if as_json:
        console.say_json({"runs": [asdict(status) for status in found]})
    else:
        console.say_lines([_line(status) for status in found] or ["no run yet"])


def logs_command(run: RunName, folder: Folder = Path("."), as_json: Json = False) -> None:
    """Show what happened in a run, as the coordinator saw it."""
    from fedmkt.deploy.folders import CoordinatorFolder
    from fedmkt.deploy.runs import find_run

    found = find_run(CoordinatorFolder(folder).runs, run)
    lines = found.log.read_text(encoding="utf-8").splitlines() if found.log.exists() else []
    if as_json:
        console.say_json({"status": asdict(found.status()), "lines": lines})
    else:
        console.say_lines([*lines, *_lines(found.status())])


def stop_command(run: RunName, folder: Folder = Path("."), as_json: Json = False) -> None:
    """Stop a run after the call under way; `fedmkt run --resume` goes on with it."""
    from fedmkt.deploy.folders import CoordinatorFolder
    from fedmkt.deploy.operate import stop_run
    from fedmkt.deploy.runs import find_run

    place = CoordinatorFolder(folder)
    status = stop_run(place, find_run(place.runs, run))
    if as_json:
        console.say_json(asdict(status))
    else:
        console.say_lines(_lines(status))


def _event(status: "RunStatus") -> ProgressEvent:
    stage = status.step.split(".")[0] or status.state
    return ProgressEvent(stage, status.rounds, 0, 0, sum(status.bytes_sent.values()))


def _line(status: "RunStatus") -> str:
    sent = sum(status.bytes_sent.values()) / 1e6
    return f"{status.run:<27} {status.state:<9} {status.step:<18} {status.rounds:>4} rounds {sent:>7.1f} MB"


def _lines(status: "RunStatus") -> list[str]:
    lines = [_line(status)]
    if status.common_band is not None:
        lines.append(f"common customers: between {status.common_band[0]:,} and {status.common_band[1]:,}")
    lines += overlap_lines({"overlap": status.overlap})
    return [*lines, *([f"{status.state}: {status.error}"] if status.error else [])]
