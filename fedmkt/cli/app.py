"""The commands of `fedmkt`: each reads its options, calls one function of the library and prints.

The library is imported inside the commands: `fedmkt --help` must not wait for numpy, Flower or torch.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import click
import typer

from fedmkt import __version__
from fedmkt.cli import console, rights, roles, runs
from fedmkt.cli.accounts import accounts
from fedmkt.cli.attack_lab import attack_lab_command
from fedmkt.cli.audit_deals import audit
from fedmkt.cli.bench import bench
from fedmkt.cli.contract_life import contract
from fedmkt.cli.controls import controls_command
from fedmkt.cli.coordinator import coordinator
from fedmkt.cli.evidence import evidence
from fedmkt.cli.explain import explain_command
from fedmkt.cli.overlap import overlap_command
from fedmkt.cli.party import party
from fedmkt.cli.preflight import preflight_command
from fedmkt.cli.roles import note_file
from fedmkt.cli.up import register as register_up
from fedmkt.cli.web_console import console_command

COMMAND_LINE = {"help_option_names": ["-h", "--help"], "max_content_width": console.WIDTH}

app = typer.Typer(
    name="fedmkt",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings=COMMAND_LINE,
    help="Joint marketing models between a bank and its partners, without showing each other data.",
)
app.add_typer(accounts, name="accounts")
app.add_typer(audit, name="audit")
app.add_typer(evidence, name="evidence")
app.add_typer(bench, name="bench")
app.add_typer(party, name="party")
app.add_typer(coordinator, name="coordinator")
register_up(party, coordinator)
app.command("preflight")(preflight_command)
app.add_typer(contract, name="contract")
app.command("controls")(controls_command)
app.command("console")(console_command)
app.command("explain")(explain_command)
app.command("overlap")(overlap_command)
app.command("attack-lab")(attack_lab_command)
app.command("run")(runs.run_command)
app.command("withdraw")(rights.withdraw_command)
app.command("expire")(rights.expire_command)
app.command("budget")(rights.budget_command)
app.command("runs")(runs.runs_command)
app.command("logs")(runs.logs_command)
app.command("stop")(runs.stop_command)


class Backend(StrEnum):
    """How a simulated job carries its messages."""

    MEMORY = "memory"
    FLOWER = "flower"


class ScoreFormat(StrEnum):
    """The file formats of scores."""

    CSV = "csv"
    PARQUET = "parquet"


Job = Annotated[Path, typer.Argument(metavar="JOB", help="The job.toml.", show_default=False)]
Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="The run's folder, or an organisation's.", show_default=False),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The folder to make.", show_default=False)
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        metavar="N",
        show_default=False,
        help="Make the run repeatable. Keys and masks follow from N: never with real data.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"fedmkt {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Joint marketing models between a bank and its partners, without showing each other data."""


@app.command("demo")
def demo_command(
    out: Out = None,
    seed: Seed = None,
    bank_rows: Annotated[int, typer.Option(min=1, help="Customers of the bank.")] = 20_000,
    partner_rows: Annotated[int, typer.Option(min=1, help="Customers of the partner.")] = 25_000,
    common: Annotated[int, typer.Option(min=1, help="People who are customers of both.")] = 12_000,
    as_json: Json = False,
) -> None:
    """Invent a bank and a partner, run the whole job on them and write a report."""
    from fedmkt.simulation.demo import demo

    with _stoppable(), console.progress_display() as progress:
        result = demo(
            out=out,
            seed=seed,
            bank_rows=bank_rows,
            partner_rows=partner_rows,
            common=common,
            progress=progress,
        )
    if as_json:
        console.say_json(result.to_json())
        return
    console.say_run(result.to_json())
    console.say_lines(_where_to_look(result.folder))


def _where_to_look(run: Path) -> list[str]:
    return [
        f"report:  {run / 'report.html'}",
        f"next:    fedmkt disclosures {run}",
        f"         fedmkt audit verify {run}",
        f"         fedmkt score {run}",
    ]


@app.command("simulate")
def simulate_command(
    job: Job,
    backend: Annotated[
        Backend, typer.Option(help="Carry messages in memory or through Flower's simulation.")
    ] = Backend.MEMORY,
    out: Out = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the stopped run in --out.")] = False,
    after: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            show_default=False,
            help="Let the parties remember what they do in this earlier run.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the job of a job.toml with all its parties on this machine."""
    from fedmkt.simulation.run import simulate

    with _stoppable(), console.progress_display() as progress:
        result = simulate(
            job, backend=backend.value, out=out, seed=seed, resume=resume, progress=progress, after=after
        )
    if as_json:
        console.say_json(result.to_json())
    else:
        console.say_run(result.to_json())
        console.say_lines(_where_to_look(result.folder))


@app.command("plan")
def plan_command(
    job: Job,
    common: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default=False, help="Expected number of common customers."),
    ] = None,
    labelled: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", show_default=False, help="Expected number of these that have a label."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show rows, bytes, memory, rounds, time and disclosures of a job before anything runs."""
    from fedmkt.simulation.plan import plan

    planned = plan(job, common=common, labelled=labelled)
    if as_json:
        console.say_json(planned.to_json())
    else:
        console.say_lines(planned.lines())


@app.command("score")
def score_command(
    run: Run,
    file_format: Annotated[
        ScoreFormat, typer.Option("--format", help="The format of the file.")
    ] = ScoreFormat.CSV,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The file to write.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the scores that a run released to the bank, with decile and probability."""
    from fedmkt.report.scores import score

    path = score(run, format=file_format.value, out=out)
    note_file(run, "scores.released", path)
    _say_ended(run)
    _say_path("scores", path, as_json)


@app.command("report")
def report_command(run: Run, as_json: Json = False) -> None:
    """Write the HTML page of a run; in an organisation's folder, of what that organisation knows."""
    from fedmkt.report.own import report

    path = report(run)
    note_file(run, "report.exported", path)
    _say_ended(run)
    _say_path("report", path, as_json)


def _say_ended(run: Path) -> None:
    """Tell people that results are used of a contract that is over; its log says so too."""
    from fedmkt.deploy.ended import ended_at
    from fedmkt.report.folder import find_files

    for found in ended_at(find_files(run)):
        typer.echo(f"note: {found.line()}", err=True)


def _say_path(name: str, path: Path, as_json: bool) -> None:
    if as_json:
        console.say_json({name: str(path)})
    else:
        console.say_lines([str(path)])


@app.command("disclosures")
def disclosures_command(run: Run, as_json: Json = False) -> None:
    """Say in plain words what each party learned in a run, from the logs that are there."""
    from fedmkt.report.logs import disclosures

    found = disclosures(run)
    if as_json:
        learned = [{**asdict(i), "disclosure": i.disclosure.record()} for i in found.learned]
        unread = [asdict(item) for item in found.unread]
        console.say_json({"readers": found.readers, "learned": learned, "unread": unread})
    else:
        console.say_lines(found.lines())


@app.command("doctor")
def doctor_command(as_json: Json = False) -> None:
    """Check that this machine can run fedmkt."""
    from fedmkt.cli.doctor import examine

    diagnosis = examine()
    if as_json:
        console.say_json(diagnosis.to_json())
    else:
        console.say_lines(diagnosis.lines())
    if not diagnosis.is_healthy:
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are those of the process by default."""
    try:
        given = None if arguments is None else list(arguments)
        with _told_to_end():
            code = roles.guard(typer.main.get_command(app))(
                args=given, prog_name="fedmkt", standalone_mode=False
            )
        sys.stdout.flush()  # here, where a reader that left is known for what it is
    except (KeyboardInterrupt, click.Abort) as stop:
        console.say_error(*map(str, stop.args[:2] or ("interrupted",)))
        return 143 if isinstance(stop.__cause__, _Terminated) else 130
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "fedmkt"
        console.say_error(_lower_first(error.format_message()), f"{command} --help lists what is accepted")
        return 2
    except BrokenPipeError:
        # The reader of our output left; without this the interpreter fails again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return console.report_failure(error)
    if code == 130:  # typer's word for an interruption
        console.say_error("interrupted")
    return code if isinstance(code, int) else 0


@contextmanager
def _stoppable() -> Iterator[None]:
    """Keep what a library says about an interruption: typer would drop it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise click.Abort(*stop.args) from stop


class _Terminated(KeyboardInterrupt):
    """The system asked this process to end (SIGTERM)."""


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: with one line, and with files in order."""

    def end(number: int, frame: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _lower_first(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")
