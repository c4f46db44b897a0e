"""`fedmkt preflight`: is this side ready for a run."""

from pathlib import Path
from typing import Annotated

import typer

from fedmkt.cli import console


def preflight_command(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="PATH",
            show_default=False,
            help="party.toml or coordinator.toml; by default the one in this folder.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")] = False,
) -> None:
    """Check keys, certificates, network, clock, versions, data and disk of this side."""
    from fedmkt.deploy.preflight import preflight, real_world

    found = preflight(_config(config), real_world())
    if as_json:
        console.say_json(found.to_json())
    else:
        console.say_lines(found.lines())
    if not found.is_ready:
        raise typer.Exit(2)


def _config(given: Path | None) -> Path:
    if given is not None:
        return given
    coordinator = Path("coordinator.toml")
    return coordinator if coordinator.exists() else Path("party.toml")
