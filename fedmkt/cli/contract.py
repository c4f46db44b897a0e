"""`fedmkt contract`: draft, show, sign, merge and verify the contract of a job."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmkt.cli import console

if TYPE_CHECKING:
    from fedmkt.contract.agreement import Contract

contract = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Draft, show, sign and verify the contract that all sides sign before a run.",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The contract's file.", show_default=False)]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", show_default=False, help="A party.toml or a coordinator.toml."),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--dir", metavar="FOLDER", show_default=False, help="The folder of that file, instead of it."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")]


def _pair(text: str, wanted: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise typer.BadParameter(f"{text!r} is not {wanted}")
    return name, value


def pairs(texts: list[str] | None, wanted: str) -> dict[str, str]:
    """Read options of the form NAME=VALUE, every name once."""
    pairs = [_pair(text, wanted) for text in texts or []]
    if len(dict(pairs)) != len(pairs):
        raise typer.BadParameter("every name once")
    return dict(pairs)


def folder_from(config: Path | None, folder: Path | None) -> Path | None:
    """Return the folder that one of two options names; None if neither is given."""
    from fedmkt.deploy.contracts import folder_of

    if config is not None and folder is not None:
        raise typer.BadParameter("--config or --dir, not both")
    return folder if config is None else folder_of(config)


def say_if_expired(agreed: "Contract") -> None:
    """Tell people, beside what a command says, that the contract which it looks at is over."""
    if datetime.now(UTC) >= agreed.expires:
        over = f"{agreed.name} expired on {agreed.expires:%Y-%m-%d %H:%M} UTC: no run of it begins"
        typer.echo(f"note: contract {over}", err=True)


@contract.command("new")
def new_command(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="The job.toml.", show_default=False)],
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="NAME=KEY",
            show_default=False,
            help="A signer's identity key: 64 hexadecimal digits, or its request or bundle file.",
        ),
    ] = None,
    config: Config = None,
    folder: Folder = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", show_default=False, help="The file to write; NAME.contract.toml."
        ),
    ] = None,
    valid_days: Annotated[
        int | None,
        typer.Option("--valid-days", metavar="N", show_default=False, help="Instead of the job's own."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draft the contract of a job; keys come from --key, and from the pinned ones of --config."""
    from fedmkt.deploy.contracts import collect_keys, draft, write_draft
    from fedmkt.deploy.sheet import Sheet

    now = datetime.now(UTC)
    keys = collect_keys(pairs(key, "NAME=KEY"), folder_from(config, folder))
    signed = draft(job, keys, now, valid_days)
    path = out or Path(f"{signed.contract.name}.contract.toml")
    write_draft(signed, path)
    sheet = Sheet(signed, now)
    if as_json:
        console.say_json({"file": str(path), **sheet.to_json()})
        return
    console.say_lines([str(path), *sheet.signature_lines()[1:]])
    console.say_lines([f"next:    fedmkt contract show {path}", f"         fedmkt contract sign {path}"])


@contract.command("show")
def show_command(file: File, as_json: Json = False) -> None:
    """Say in plain words what a contract allows, who signed it and who has not."""
    from fedmkt.deploy.contracts import read_contract
    from fedmkt.deploy.sheet import Sheet

    sheet = Sheet(read_contract(file), datetime.now(UTC))
    if as_json:
        console.say_json({"file": str(file), **sheet.to_json()})
    else:
        console.say_lines(sheet.lines())


@contract.command("sign")
def sign_command(
    file: File,
    config: Config = None,
    folder: Folder = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Sign as the participant of this folder, after its own policy allowed the contract."""
    from fedmkt.deploy.contracts import check_own_terms, open_participant, read_contract, sign_contract
    from fedmkt.deploy.life import check_own_approvals
    from fedmkt.deploy.sheet import Sheet

    shown = Sheet(read_contract(file), datetime.now(UTC))
    place = folder_from(config, folder) or Path()
    participant = open_participant(place, shown.contract)
    check_own_terms(participant, shown.signed, shown.now)
    check_own_approvals(file, shown.contract, participant.name, place)
    again = participant.name in shown.signed.signatures
    if not again and not yes:
        _ask(participant.name, shown.lines(console.WIDTH))
    sheet = shown if again else sign_contract(file, participant, shown, datetime.now(UTC))
    if as_json:
        console.say_json(
            {"file": str(file), "signed_as": participant.name, "already": again, **sheet.to_json()}
        )
        return
    said = f"{participant.name} had signed already" if again else f"signed as {participant.name}"
    console.say_lines([f"{file}: {said}", *sheet.signature_lines()[1:]])


def _ask(name: str, lines: list[str]) -> None:
    """Show what is to be signed, on stderr as the question is, and take anything but yes as no."""
    import click

    from fedmkt.errors import PolicyRefused

    for line in [*lines, "", f"you sign as {name}"]:
        typer.echo(line, err=True)
    try:
        agreed = typer.confirm("sign?", default=False, err=True)
    except click.Abort:  # nobody there to answer, or Ctrl-C
        typer.echo(err=True)
        agreed = False
    if not agreed:
        raise PolicyRefused("not signed: nobody said yes", "--yes signs without asking")


@contract.command("merge")
def merge_command(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Copies of one contract.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The file to write.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Put the signatures of several copies of one contract into one file."""
    from fedmkt.deploy.contracts import merge_contracts
    from fedmkt.deploy.sheet import Sheet

    sheet = Sheet(merge_contracts(files, out), datetime.now(UTC))
    say_if_expired(sheet.contract)
    if as_json:
        console.say_json({"file": str(out), **sheet.to_json()})
    else:
        console.say_lines([str(out), *sheet.signature_lines()[1:]])


@contract.command("verify")
def verify_command(
    file: File,
    pin: Annotated[
        list[str] | None,
        typer.Option(
            "--pin",
            metavar="NAME=KEY",
            show_default=False,
            help="A signer's key as compared out of band; give all or none.",
        ),
    ] = None,
    config: Config = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Check that a run may begin: all signatures, roles, time, pinned keys, approvals; exit code 4 if not."""
    from fedmkt.deploy.contracts import verify_contract
    from fedmkt.deploy.life import decisions_on

    pins, place = pairs(pin, "NAME=KEY") or None, folder_from(config, folder)
    sheet = verify_contract(file, datetime.now(UTC), pins, place)
    found = decisions_on(sheet.contract, sheet.statements)
    compared = pins is not None or place is not None
    if as_json:
        console.say_json({"file": str(file), "keys_compared": compared, **sheet.to_json(), **found.to_json()})
        return
    lines = [f"{file}: signed by all, valid until {sheet.contract.expires:%Y-%m-%d %H:%M:%S} UTC"]
    if sheet.contract.rehearsal:
        lines.append("FOR REHEARSALS ON INVENTED DATA ONLY")
    if not compared:
        lines.append("note: the keys were compared with nobody's: give --config or --pin")
    console.say_lines([*lines, *found.lines(), f"digest {sheet.digest}"])
