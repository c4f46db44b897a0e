"""`fedmkt explain`: why a customer of the bank has its score."""

from pathlib import Path
from typing import Annotated

import typer

from fedmkt.cli import console


def explain_command(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="The run's folder, or the bank's own.", show_default=False),
    ],
    row: Annotated[
        int, typer.Argument(metavar="ROW", help="The row, as in the file of scores.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")] = False,
) -> None:
    """Say what each of the bank's columns does to one score, and what all other parties' do together."""
    from fedmkt.report.reasons import explain

    found = explain(run, row)
    if as_json:
        console.say_json(found.to_json())
    else:
        console.say_lines(found.lines())
