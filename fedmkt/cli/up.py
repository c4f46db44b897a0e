"""`fedmkt party|coordinator up` and `status`: run a participant's programs, and say how they stand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmkt.cli import console
from fedmkt.errors import ConfigError

if TYPE_CHECKING:
    from fedmkt.deploy.up import Status

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", show_default=False, help="Its toml file; instead of --dir."),
]
Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The participant's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")]


def register(party: typer.Typer, coordinator: typer.Typer) -> None:
    """Add the commands to both groups."""
    party.command("up")(party_up_command)
    party.command("status")(party_status_command)
    coordinator.command("up")(coordinator_up_command)
    coordinator.command("status")(coordinator_status_command)


def party_up_command(config: Config = None, folder: Folder = Path(".")) -> None:
    """Run our node until Ctrl-C or SIGTERM; what dies is started again."""
    from fedmkt.deploy.up import party_up

    party_up(_folder(config, folder, "party.toml"), _say)


def party_status_command(config: Config = None, folder: Folder = Path("."), as_json: Json = False) -> None:
    """Say what runs since when; exit code 6 unless everything does."""
    from fedmkt.deploy.up import party_status

    _show(party_status(_folder(config, folder, "party.toml")), as_json)


def coordinator_up_command(config: Config = None, folder: Folder = Path(".")) -> None:
    """Run SuperLink, executor, front and hub until Ctrl-C or SIGTERM; what dies is started again."""
    from fedmkt.deploy.up import coordinator_up

    coordinator_up(_folder(config, folder, "coordinator.toml"), _say)


def coordinator_status_command(
    config: Config = None, folder: Folder = Path("."), as_json: Json = False
) -> None:
    """Say what runs since when; exit code 6 unless everything does."""
    from fedmkt.deploy.up import coordinator_status

    _show(coordinator_status(_folder(config, folder, "coordinator.toml")), as_json)


def _folder(config: Path | None, folder: Path, name: str) -> Path:
    if config is None:
        return folder
    if config.name != name:
        raise ConfigError(
            f"--config {config}: the file is called {name}", "give it, or the folder with --dir"
        )
    return config.parent


def _say(line: str) -> None:
    print(line, flush=True)


def _show(status: "Status", as_json: bool) -> None:
    if as_json:
        console.say_json(status.to_json())
    else:
        console.say_lines(status.lines())
    if not status.is_healthy:
        raise typer.Exit(6)
