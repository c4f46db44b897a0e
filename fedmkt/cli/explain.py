"""`fedmkt explain`: why a customer of the bank has its score."""

from pathlib import Path
from typing import Annotated

import typer

from fedmkt.cli import console
from fedmkt.cli.roles import note_act


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
    from fedmkt.contract.canonical import digest
    from fedmkt.report.folder import find_files
    from fedmkt.report.reasons import explain

    found = explain(run, row)
    # Whose score it was is not said: the acts hold nothing about a customer.
    note_act(run, "decision.explained", {"contract": digest(find_files(run).contract).hex()})
    if as_json:
        console.say_json(found.to_json())
    else:
        console.say_lines(found.lines())
