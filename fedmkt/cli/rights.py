"""`fedmkt withdraw`, `expire` and `budget`: rights of customers, the end of their data, what was told of them."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedmkt.cli import console
from fedmkt.cli.asking import confirm
from fedmkt.cli.roles import current_actor

Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The party's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")]


def withdraw_command(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...",
            show_default=False,
            help="Ids as in the table's id column. Arguments are seen by other users of this machine: --file is not.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="LIST",
            show_default=False,
            help="A CSV or Parquet file with the table's id columns.",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Say how many have withdrawn, and which models to train again.")
    ] = False,
    tell: Annotated[
        Path | None,
        typer.Option(
            "--tell",
            metavar="OUT",
            show_default=False,
            help="At a partner: write notices for the bank, by rows of its runs and without ids, into a folder.",
        ),
    ] = None,
    told: Annotated[
        Path | None,
        typer.Option(
            "--told", metavar="NOTICE", show_default=False, help="At the bank: take up a partner's notice."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    folder: Folder = Path("."),
    as_json: Json = False,
) -> None:
    """Leave people out of the next run and of all scores, and flag the models that were trained with them.

    Only keyed digests are kept, for good: they keep these people out.
    """
    if tell is not None or told is not None:
        if ids or file is not None or show or (tell is not None and told is not None):
            raise typer.BadParameter("--tell or --told alone")
        _tell(folder, tell, yes, as_json) if tell is not None else _told(folder, told, as_json)
        return
    from fedmkt.deploy.folders import PartyFolder
    from fedmkt.deploy.rights import read_rights, withdraw

    place, lines = PartyFolder(folder), list[str]()
    facts: dict[str, object] = {}
    if not show:
        taken = withdraw(place, ids or [], file, current_actor())
        lines.append(f"{taken.new:,} ids are new on the list, {taken.known:,} were on it")
        facts = asdict(taken)
    elif ids or file is not None:
        raise typer.BadParameter("--list alone")
    found = read_rights(place)
    if as_json:
        console.say_json({**facts, **asdict(found)})
    else:
        console.say_lines([*lines, *found.lines()])


def _tell(folder: Path, out: Path, yes: bool, as_json: bool) -> None:
    from datetime import UTC, datetime

    from fedmkt.deploy.folders import PartyFolder
    from fedmkt.deploy.notices import tell, to_tell

    place = PartyFolder(folder)
    if runs := len(to_tell(place)):
        confirm(f"Whoever gets the notices learns which rows of {runs} runs left. Write them?", yes)
    made = tell(place, out, current_actor(), datetime.now(UTC))
    if as_json:
        console.say_json({"notices": [asdict(notice) for notice in made]})
        return
    lines = [f"{notice.path}: {notice.rows:,} rows, for {notice.bank}" for notice in made]
    console.say_lines([*lines, "there: fedmkt withdraw --told NOTICE"] if made else ["nobody left a run"])


def _told(folder: Path, notice: Path | None, as_json: bool) -> None:
    from fedmkt.deploy.folders import PartyFolder
    from fedmkt.deploy.notices import told
    from fedmkt.deploy.rights import read_rights

    if notice is None:
        return
    place = PartyFolder(folder)
    found = told(place, notice, current_actor())
    if as_json:
        console.say_json(asdict(found))
        return
    line = f"{found.party}: {found.trained:,} who trained and {found.scored:,} with a score left"
    console.say_lines([line, *read_rights(place).lines()])


def expire_command(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    folder: Folder = Path("."),
    as_json: Json = False,
) -> None:
    """Delete results, checkpoints and records whose time is over; says what stays, and why."""
    from fedmkt.deploy.expire import expire
    from fedmkt.deploy.folders import folder_of

    place, actor = folder_of(folder), current_actor()
    done = expire(place, actor, dry_run=True)
    if done.count and not dry_run:
        if not yes:
            for line in done.lines():
                print(line, file=sys.stderr)
        confirm(f"delete {done.count}?", yes)
    if not dry_run:
        done = expire(place, actor)
    if as_json:
        console.say_json(asdict(done))
    else:
        console.say_lines(done.lines())


def budget_command(folder: Folder = Path("."), as_json: Json = False) -> None:
    """Say what was told with noise, to whom, and how much of each privacy budget is left."""
    from fedmkt.deploy.budgets import read_budgets
    from fedmkt.deploy.folders import PartyFolder

    found = read_budgets(PartyFolder(folder))
    if as_json:
        console.say_json(asdict(found))
    else:
        console.say_lines(found.lines())
