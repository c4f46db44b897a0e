"""`fedmkt evidence`: make the evidence pack of a run, and verify one."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from typer.core import TyperGroup

from fedmkt.cli import console
from fedmkt.cli.audit import Pins, parse_pin

if TYPE_CHECKING:
    from fedmkt.crypto.sign import Identity
    from fedmkt.report.folder import RunFiles

Json = Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")]


class Lang(StrEnum):
    """The languages of page and drafts."""

    EN = "en"
    ZH = "zh"


class _MakeIsUnderstood(TyperGroup):
    """`fedmkt evidence RUN` is `fedmkt evidence make RUN`."""

    default = "make"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


evidence = typer.Typer(
    cls=_MakeIsUnderstood,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Make the evidence pack of a run (fedmkt evidence RUN), or verify one.",
)


@evidence.command("make")
def make_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run's folder, collected logs, or an organisation's.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="The folder to make; evidence beside RUN's files by default."
        ),
    ] = None,
    lang: Annotated[Lang, typer.Option(help="The language of page and drafts.")] = Lang.EN,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="NAME", show_default=False, help="Who signs; in a simulation the bank by default."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="FILE", show_default=False, help="The key to sign with, where RUN has none."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put contract, logs, ledger, disclosures, model card and drafts of documents into one signed folder."""
    from fedmkt.evidence.pack import make_pack
    from fedmkt.report.folder import find_files

    files = find_files(run)
    name, identity = _maker(run, files, by, key)
    pack = make_pack(run, out or files.root / "evidence", name, identity, lang.value)
    if as_json:
        console.say_json(asdict(pack))
        return
    lines = [f"{pack.folder}: {pack.files} files, signed by {name}", f"page:  {pack.folder / 'index.html'}"]
    if pack.missing:
        lines.append("not stated, so left open in the drafts:")
        lines += [f"  {draft}: {len(missing)} facts" for draft, missing in pack.missing.items()]
    console.say_lines([*lines, f"next:  fedmkt evidence verify {pack.folder}"])


def _maker(run: Path, files: "RunFiles", by: str | None, key: Path | None) -> "tuple[str, Identity]":
    """Find whose pack it is and the key: a simulated party's, an organisation's own, or the one that was given."""
    from fedmkt.deploy.folders import read_identity
    from fedmkt.errors import ConfigError

    if files.owner:
        if by not in (None, files.owner):
            raise ConfigError(f"--by {by}: this is the folder of {files.owner}")
        name, places = files.owner, (run, *files.root.resolve().parents)
        keys = [place / "keys" / "identity.key" for place in places]
        path = key or next((k for k in keys if k.exists()), keys[0])
    else:
        name = by or files.contract.bank.name
        path = key or files.root / "parties" / name / "identity.key"
    if key is None and not path.exists():
        raise ConfigError(f"{path}: no key to sign with", "give --key FILE, and --by NAME with whose it is")
    return name, read_identity(path)


@evidence.command("verify")
def verify_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The pack.", show_default=False)],
    pin: Pins = None,
    as_json: Json = False,
) -> None:
    """Verify a pack offline: signature, every file, logs, proofs, ledger; exit code 7 names what is wrong.

    Pin the key of who made it, or that and the keys of all signers.
    """
    from fedmkt.evidence.pack import verify_pack

    found = verify_pack(folder, dict(parse_pin(text) for text in pin) if pin else None)
    if as_json:
        console.say_json(asdict(found))
    else:
        console.say_lines(found.lines())
