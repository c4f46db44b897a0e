"""`fedmkt overlap`: how many customers the parties of a job share, as a band, before a project is agreed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import click
import typer

from fedmkt.cli import console


def overlap_command(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="The job.toml.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The folder to make.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            metavar="N",
            show_default=False,
            help="Make the run repeatable. Keys follow from N: never with real data.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the stopped run in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")] = False,
) -> None:
    """Count the customers that a job's parties share, on this machine; shows a band and nothing else.

    Columns and model of the job are ignored. Parties on machines of their own sign a contract whose task is
    "overlap" instead, and run it: fedmkt run CONTRACT.
    """
    from fedmkt.simulation.overlap import count_overlap

    try:
        with console.progress_display() as progress:
            result = count_overlap(job, out=out, seed=seed, resume=resume, progress=progress)
    except KeyboardInterrupt as stop:  # typer would drop what it says
        raise click.Abort(*stop.args) from stop
    facts = result.to_json()
    if as_json:
        console.say_json(facts)
    else:
        console.say_lines(list(overlap_lines(facts)))


def overlap_lines(facts: Mapping[str, object]) -> Iterator[str]:
    """Say each pair's band and rate, from the object that `--json` prints."""
    pairs = facts.get("overlap")
    for pair in pairs if isinstance(pairs, Sequence) else ():
        low, high = pair["common"]
        yield f"{pair['partner']}: between {low:,} and {high:,} customers in common"
        yield f"{pair['partner']}: {_rate(*pair['rate'])} of the bank's list"


def _rate(low: int, high: int) -> str:
    from fedmkt.privacy.bands import RateBand

    return str(RateBand(low, high))
