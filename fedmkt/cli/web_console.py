"""`fedmkt console`: the web console of one party, on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from fedmkt.cli import console, roles


def console_command(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="The party's folder.")] = Path("."),
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="On 127.0.0.1; 0 for any free one.")
    ] = 8470,
) -> None:
    """Serve the party's pages to browsers on this machine: contracts to review and approve, runs, budgets, acts.

    People sign in with the accounts of the folder, and may there what they may here. Ends with Ctrl-C.
    """
    from fedmkt.console.serve import serve_console
    from fedmkt.deploy.folders import PartyFolder

    commands = {name: may.roles for name, may in roles.COMMANDS.items()}
    serve_console(
        PartyFolder(folder),
        port,
        commands,
        roles.machine_user(),
        lambda address: console.say_lines([address, "end it with Ctrl-C"]),
    )
