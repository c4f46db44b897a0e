"""`fedmkt audit`: read, collect, verify, prove, compare and export logs."""

from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmkt.cli import console
from fedmkt.cli.asking import confirm
from fedmkt.errors import AuditError

if TYPE_CHECKING:
    from fedmkt.audit.acts import Chain
    from fedmkt.audit.own_log import OwnReport
    from fedmkt.audit.verify import Report
    from fedmkt.report.approvals import Approvals


class Form(StrEnum):
    """What a log can be exported as: OCSF, OpenLineage, CSV, or the layout of C2SP tlog-tiles."""

    OCSF = "ocsf"
    OPENLINEAGE = "openlineage"
    CSV = "csv"
    TILES = "tiles"


audit = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Read and verify the logs of a run.")

Run = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        help="A run's folder, collected logs, or an organisation's folder.",
        show_default=False,
    ),
]
Pins = Annotated[
    list[str] | None,
    typer.Option(
        "--pin",
        metavar="NAME=KEY",
        show_default=False,
        help="A signer's key as compared out of band; give all or none.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")]


def parse_pin(text: str) -> tuple[str, str]:
    """Read NAME=KEY."""
    name, _, key = text.partition("=")
    if not name or len(key) != 64 or set(key) - set("0123456789abcdef"):
        raise typer.BadParameter(f"{text!r} is not NAME=KEY with a key of 64 hexadecimal digits")
    return name, key


@audit.command("verify")
def verify_command(run: Run, pin: Pins = None, as_json: Json = False) -> None:
    """Verify the logs offline; exit code 7 if anything was changed, or the last run is not closed.

    In an organisation's own folder there is one log: its signatures are verified, and those of its peers. That
    messages arrived, only the logs of all show: fedmkt audit collect.
    """
    from fedmkt.audit.own_log import OwnReport
    from fedmkt.audit.verified import lines

    pinned = dict(parse_pin(text) for text in pin) if pin else None
    report, acts, approvals = _verified(run, pinned), _acts(run), _approvals(run)
    if as_json:
        console.say_json(
            asdict(report)
            | ({} if acts is None else {"acts": len(acts.acts), "acts_head": acts.head})
            | ({} if approvals is None else {"approvals": asdict(approvals)})
        )
    else:
        console.say_lines(report.lines() if isinstance(report, OwnReport) else lines(report))
        console.say_lines([] if approvals is None else approvals.lines())
        if acts is not None:
            console.say_lines([f"acts: {len(acts.acts)}, none changed; the runs' logs saw the same"])
    if report.outcome != "completed":
        hint = (
            "a run that was stopped is closed with --resume: of fedmkt run, or of fedmkt simulate --out RUN"
        )
        raise AuditError(f"{run}: the last run is not closed: {report.outcome}", hint=hint)


def _verified(run: Path, pinned: dict[str, str] | None) -> "Report | OwnReport":
    from fedmkt.audit.verify import VerifyError, verify_run
    from fedmkt.errors import ConfigError
    from fedmkt.report.audit_tools import located
    from fedmkt.report.collect import verify_one
    from fedmkt.report.folder import find_files

    try:
        files = find_files(run)
    except ConfigError as error:
        raise AuditError(str(error), error.hint) from None
    if files.owner:
        return verify_one(files, pinned)
    try:
        return verify_run(files.root, pinned, datetime.now(UTC))
    except VerifyError as error:  # the verifier is a program of its own and knows no other file of fedmkt
        places = "".join(f"\n{place.text()}" for place in located(files))
        raise AuditError(f"{error}{places}", hint="nothing in this run folder can be relied on") from None


def _approvals(run: Path) -> "Approvals | None":
    """Verify the signed statements about the contract; None where it needs none."""
    from fedmkt.report.approvals import check_approvals
    from fedmkt.report.folder import find_files

    return check_approvals(find_files(run))


def _acts(run: Path) -> "Chain | None":
    """Verify the acts of an organisation's folder too; None for collected logs and simulations."""
    from fedmkt.cli.roles import organisations
    from fedmkt.deploy.acts import verify_acts

    inside = [root for root in organisations([run]) if root in (run.absolute(), *run.absolute().parents)]
    return verify_acts(inside[0]) if inside else None


@audit.command("acts")
def acts_command(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="The organisation's folder.")] = Path(
        "."
    ),
    as_json: Json = False,
) -> None:
    """List who did what in an organisation's folder, after verifying that no line was changed."""
    from fedmkt.audit.acts import act_lines
    from fedmkt.deploy.acts import verify_acts

    chain = verify_acts(folder)
    found = () if chain is None else chain.acts
    if as_json:
        console.say_json({"acts": [vars(act) for act in found]})
    else:
        console.say_lines(act_lines(found) or ["no acts"])


@audit.command("collect")
def collect_command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.", show_default=False)],
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Folders of organisations, or collected before.", show_default=False
        ),
    ],
    as_json: Json = False,
) -> None:
    """Put contract and logs of organisations side by side, for an auditor; no key, no model, no table."""
    from fedmkt.report.collect import collect

    done = collect(out, folders)
    if as_json:
        console.say_json({"folder": str(done.folder), "logs": done.logs, "missing": done.missing})
        return
    lines = [f"{done.folder}: the logs of {', '.join(done.logs)}"]
    if done.missing:
        lines.append(f"missing: {', '.join(done.missing)}; collect this folder and theirs into a new one")
    else:
        lines.append(f"next:  fedmkt audit verify {done.folder}")
    console.say_lines(lines)


@audit.command("show")
def show_command(
    run: Run,
    party: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="Of one log.")] = None,
    type: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="EVENT", show_default=False, help="Of one event: message.sent, message.*"
        ),
    ] = None,
    of_run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", show_default=False, help="Of one run, or its first digits."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", show_default=False, help="Not before 2030-01-31 or 2030-01-31T12:00Z, UTC."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the records of a run, party by party; it does not verify them."""
    from fedmkt.report.logs import Filter, read_logs

    logs = read_logs(run).only(Filter(party, type, of_run, _utc(since)))
    if as_json:
        console.say_json(logs.to_json())
    else:
        console.say_lines(logs.lines())


def _utc(text: str | None) -> str:
    """Read a time as records write theirs; "" if none was given."""
    from fedmkt.audit.records import timestamp

    if text is None:
        return ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time like 2030-01-31 or 2030-01-31T12:00Z") from None
    return timestamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


@audit.command("prove")
def prove_command(
    run: Run,
    event: Annotated[
        str, typer.Argument(metavar="EVENT", help="PARTY:NUMBER, as show prints them.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="By default PARTY-NUMBER.tlog-proof."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the proof of one record, to be verified with the contract alone (C2SP tlog-proof)."""
    from fedmkt.report.audit_tools import prove_event

    path = prove_event(run, event, out)
    if as_json:
        console.say_json({"proof": str(path)})
    else:
        console.say_lines([str(path), f"next:  python -m fedmkt.audit.verify_proof contract.toml {path}"])


@audit.command("compare")
def compare_command(
    run: Run,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The same, elsewhere.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Compare two copies of logs, or what two organisations sent each other; exit code 7 if they contradict."""
    from fedmkt.report.audit_tools import compare_folders

    found = compare_folders(run, other)
    if as_json:
        console.say_json({"agrees": found.agrees, **asdict(found)})
    else:
        console.say_lines(found.lines())
    if not found.agrees:
        raise AuditError(f"{run} and {other} contradict each other")


@audit.command("export")
def export_command(
    run: Run,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write into.", show_default=False)],
    form: Annotated[Form, typer.Option("--format", help="For which reader.")] = Form.OCSF,
    as_json: Json = False,
) -> None:
    """Write the records for other tools; a file for each party, of tiles a folder."""
    from fedmkt.report.audit_tools import export_logs

    made = export_logs(run, form.value, out)
    if as_json:
        console.say_json({"made": [str(path) for path in made]})
    else:
        console.say_lines([str(path) for path in made])


@audit.command("ledger")
def ledger_command(
    run: Run,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one line per message.")] = False,
) -> None:
    """List every message that left: from whom to whom, at which step, its bytes, what was revealed with it.

    Where the logs of both sides are there, they must say the same: exit code 7 names the first message of which they
    do not. It does not verify the logs.
    """
    from fedmkt.report import message_ledger

    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv")
    found = message_ledger.read_ledger(run)
    if as_csv:
        print(message_ledger.to_csv(found), end="")
    elif as_json:
        console.say_json(message_ledger.to_json(found))
    else:
        console.say_lines(message_ledger.lines(found))
    message_ledger.check_matched(found, run)


@audit.command("prune")
def prune_command(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="The organisation's folder.")] = Path(
        "."
    ),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove records that a contract keeps no longer; their hashes stay, so that everything left still verifies."""
    from fedmkt.deploy.folders import folder_of, policy_of
    from fedmkt.deploy.prune import prune

    place = folder_of(folder)
    days = policy_of(place).record_days
    confirm("Remove records that are kept no longer? They cannot be brought back.", yes)
    done = prune(place, days, lambda: datetime.now(UTC))
    if as_json:
        console.say_json({"pruned": {item.contract: item.records for item in done}})
    else:
        console.say_lines(
            [f"{item.contract}: {item.records} records removed" for item in done] or ["no log here"]
        )
