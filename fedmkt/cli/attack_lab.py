"""`fedmkt attack-lab`: known attacks against what each party of a simulated run was shown."""

from pathlib import Path
from typing import Annotated

import typer

from fedmkt.cli import console
from fedmkt.errors import ConfigError


def attack_lab_command(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]", help="The folder of a simulated run, or a job.toml.", show_default=False
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="A job on invented data of each family of models.")
    ] = False,
    attacks: Annotated[
        str, typer.Option(metavar="1,3,..", help="Only these rows of the table.", show_default=False)
    ] = "",
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="With --all: worst of so many worlds and runs.")
    ] = 1,
    harder: Annotated[
        bool, typer.Option("--long", help="10,000 altered messages, more ids and draws; minutes.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write; the run's folder.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")] = False,
) -> None:
    """Attack a run, each attack beside the same one without the defence, and write attack-lab.json beside it.

    The run's job is run once more, with all that each party is shown kept in memory. Exit code 4 where an attack
    works that the contract does not declare, or where its undefended control does not.
    """
    from fedmkt.attack_lab.effort import long, quick
    from fedmkt.attack_lab.lab import attack_all, attack_run

    if everything == (run is not None):
        raise ConfigError("one of RUN and --all", "fedmkt attack-lab RUN")
    rows = _rows(attacks)
    effort = long if harder else quick
    if run is not None:
        reports = [attack_run(run, rows, out, effort(1))]
    else:
        reports = attack_all(rows, out, seeds, effort=effort)
    if as_json:
        console.say_json({"reports": [r.to_json() for r in reports]})
    else:
        for report in reports:
            console.say_lines([*report.lines(), ""])
    if any(report.broken for report in reports):
        raise typer.Exit(4)


def _rows(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"--attacks {text}: accepted: numbers with commas between") from None
