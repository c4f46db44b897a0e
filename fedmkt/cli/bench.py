"""`fedmkt bench`: what the parts of a job cost on this machine."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from fedmkt.cli import console

if TYPE_CHECKING:
    from fedmkt.simulation.bench_psi import PsiCosts

bench = typer.Typer(no_args_is_help=True, help="Measure what parts of a job cost on this machine.")


class Engine(StrEnum):
    """The engines of the intersection."""

    AUTO = "auto"
    OPRF = "oprf"
    OT = "ot"
    VOLE = "vole"


@bench.callback()
def _group() -> None:
    """Keep the name of a command that is alone in its group."""


@bench.command("psi")
def psi_command(
    rows: Annotated[int, typer.Option(metavar="N", help="Ids of the bank, the receiver.")] = 100_000,
    engine: Annotated[
        Engine, typer.Option(help="The engine; auto takes the one for lists this long.")
    ] = Engine.AUTO,
    sender_rows: Annotated[
        int | None,
        typer.Option(metavar="M", help="Ids of the partner, the sender; N by default.", show_default=False),
    ] = None,
    overlap: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the shorter list that is on both.")
    ] = 0.5,
    cold: Annotated[
        bool, typer.Option("--cold", help="Count loading and compiling kernels: no short run goes first.")
    ] = False,
    deadline: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Give up after this long.")
    ] = 3600,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")] = False,
) -> None:
    """Match two invented lists in two processes, as a run would, and print what it cost.

    MB are millions of bytes. CPU seconds are user and system time of one process, from its list to its result.
    """
    from fedmkt.simulation.bench_psi import measure_psi

    with console.progress_display() as progress:
        costs = measure_psi(rows, engine.value, sender_rows, overlap, cold, progress, deadline)
    if as_json:
        console.say_json(costs.to_json())
    else:
        _say(costs)


def _say(costs: "PsiCosts") -> None:
    sides = {"receiver": costs.receiver, "sender": costs.sender}
    lines = [[name, f"{side.cpu_s:.2f}", f"{side.peak_mb:,.0f}"] for name, side in sides.items()]
    lines.append(["both", f"{costs.receiver.cpu_s + costs.sender.cpu_s:.2f}", ""])
    console.stdout_console().print(console.plain_table(["", "CPU s", "peak MB"], lines))
    console.say_lines(
        [
            f"time: {costs.wall_s:.2f} s, {costs.ids_per_s:,.0f} ids per second",
            f"sent: {costs.bytes / 1e6:,.2f} MB",
        ]
    )
