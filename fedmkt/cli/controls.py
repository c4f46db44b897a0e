"""`fedmkt controls`: what is asked of every contract and run, and what it says of one contract here."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedmkt.cli import console


def controls_command(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A contract's file.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", show_default=False, help="A party.toml or a coordinator.toml."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="FOLDER", show_default=False, help="The folder of that file instead."),
    ] = None,
    code: Annotated[
        bool, typer.Option("--code", help="Print the digest of the installed code: governance.code.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")] = False,
) -> None:
    """List the controls; with a contract, which of them it passes at this participant: exit code 4 if not all."""
    from fedmkt.deploy.contracts import folder_of
    from fedmkt.deploy.control_sheet import control_facts, control_lines, judge
    from fedmkt.party.controls.code import installed_code

    if config is not None and folder is not None:
        raise typer.BadParameter("--config or --dir, not both")
    if code:
        console.say_json({"code": installed_code()}) if as_json else console.say_lines([installed_code()])
        return
    if file is None:
        if as_json:
            console.say_json({"controls": control_facts()})
        else:
            console.say_lines(control_lines())
        return
    place = (folder or Path()) if config is None else folder_of(config)
    found = judge(file, place, datetime.now(UTC))
    if as_json:
        console.say_json({"file": str(file), **found.to_json()})
    else:
        console.say_lines(found.lines())
    if not found.passes:
        raise typer.Exit(4)
