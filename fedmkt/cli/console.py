"""What the commands print: results to stdout, errors and progress to stderr, 80 columns wide at most."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedmkt.errors import FedmktError
from fedmkt.simulation.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 80
DEBUG = "FEDMKT_DEBUG"


def say_json(facts: Mapping[str, object]) -> None:
    """Print one JSON object and nothing else on stdout; a number that JSON lacks is null."""
    print(json.dumps(_plain(facts), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value - value != 0:  # infinity and nan alone differ from themselves
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def say_lines(lines: Sequence[str]) -> None:
    """Print plain lines, at once, so that their text survives a pipe unchanged; some commands then go on for long."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def say_error(message: str, hint: str = "") -> None:
    """Write the one-line error, and the hint if there is one, to stderr."""
    print(f"fedmkt: error: {_one_line(message)}", file=sys.stderr)
    if hint:
        print(f"fedmkt: hint: {_one_line(hint)}", file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def report_failure(error: BaseException) -> int:
    """Say what went wrong and return the exit code; a traceback only with FEDMKT_DEBUG=1."""
    debug = os.environ.get(DEBUG, "") not in ("", "0")
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, FedmktError):
        say_error(str(error) or type(error).__name__, error.hint)
        return error.exit_code
    # An unexpected message may quote a private value, so only its type is shown.
    hint = "" if debug else f"set {DEBUG}=1 for the traceback, which may show private values"
    say_error(f"unexpected {type(error).__name__}; this is a fault in fedmkt", hint)
    return 1


def stdout_console() -> "Console":
    """Make the console for results; no wider than 80 columns, plain text when piped."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.width <= WIDTH else Console(highlight=False, width=WIDTH)


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    """Lay out rows under headings; every column but the first is aligned right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as text: a file name may look like markup
    return table


_MODELS = (
    ("bank", "bank alone"),
    ("joint", "joint"),
    ("joint_exact", "joint, before rounding *"),
    ("centralised", "centralised *"),
)


def say_run(facts: Mapping[str, object]) -> None:
    """Print the comparison of a run and where to look, from the object that `--json` prints."""
    console = stdout_console()
    for line in _found(facts):
        console.print(line, soft_wrap=True, markup=False)
    models = _part(facts, "models")
    columns = [
        c for c in _COLUMNS if any(isinstance(_part(models, n).get(c[0]), int | float) for n, _ in _MODELS)
    ]
    rows = [
        [title, *(_figure(_part(models, name).get(key), digits) for key, digits, _ in columns)]
        for name, title in _MODELS
        if isinstance(models.get(name), Mapping)
    ]
    if rows:
        console.print(plain_table(["model", *(heading for _, _, heading in columns)], rows))
    for line in _measures(facts):
        console.print(line, soft_wrap=True, markup=False)


_COLUMNS = (
    ("auc", 4, "AUC"), ("ks", 3, "KS"), ("brier", 4, "Brier"), ("lift", 2, "lift"),
    ("r2", 4, "R2"), ("rmse", 4, "RMSE"), ("deviance", 4, "deviance"), ("explained", 4, "explained"),
)  # fmt: skip


def _found(facts: Mapping[str, object]) -> Iterator[str]:
    """Say what the tables held and how many customers are common."""
    for name, counts in _part(facts, "tables").items():
        if isinstance(counts, Mapping):
            yield f"{name}: {_table_text(counts)}"
    common = _part(facts, "common")
    band = _numbers(common.get("band"))
    exact = common.get("exact")
    known = f" (exactly {exact:,}: simulation only)" if isinstance(exact, int) else ""
    if common and len(band) != 2:
        yield f"common customers: nobody is told how many{known}"
    if len(band) == 2:
        yield f"common customers: between {int(band[0]):,} and {int(band[1]):,}{known}"


_DROPPED = (("empty", "without id"), ("invalid", "invalid"), ("duplicates", "repeated"))


def _table_text(counts: Mapping[str, object]) -> str:
    found = {name: value for name, value in counts.items() if isinstance(value, int)}
    dropped = [f"{found[key]:,} {text}" for key, text in _DROPPED if found.get(key)]
    more = f" ({', '.join(dropped)})" if dropped else ""
    return f"{found.get('rows', 0):,} rows, {found.get('kept', 0):,} usable{more}"


def _measures(facts: Mapping[str, object]) -> Iterator[str]:
    joint = _part(_part(facts, "models"), "joint")
    if "centralised" in _part(facts, "models") and "rows" in joint:
        yield "* exists in a simulation only"
    if isinstance(joint.get("rows"), int):
        responded = f", of them {joint['responders']:,} responded" if "responders" in joint else ""
        yield f"held-out customers: {joint['rows']:,}{responded}"
    yield from _gain(_part(facts, "gain"))
    lift = facts.get("lift")
    if isinstance(lift, int | float) and "lift" not in joint:
        yield f"lift of the best decile: {lift:.2f}"
    yield from _costs(facts)
    warnings = facts.get("warnings")
    yield from (f"note: {warning}" for warning in (warnings if isinstance(warnings, list) else []))
    if facts.get("run"):
        yield f"run folder: {facts['run']}"


def _gain(gain: Mapping[str, object]) -> Iterator[str]:
    found = _numbers([gain.get(key) for key in ("auc", "low", "high")])
    if len(found) == 3:
        yield f"AUC gained by the joint model: {found[0]:+.4f} (95 %: {found[1]:+.3f} to {found[2]:+.3f})"


def _costs(facts: Mapping[str, object]) -> Iterator[str]:
    stages = {k: float(v) for k, v in _part(facts, "seconds").items() if isinstance(v, int | float)}
    if sum(stages.values()):
        longest = sorted(stages, key=lambda name: -stages[name])[:4]
        most = ", ".join(f"{name} {stages[name]:.1f}" for name in longest)
        yield f"time: {sum(stages.values()):.1f} s ({most})"
    sent = {name: value for name, value in _part(facts, "bytes").items() if isinstance(value, int | float)}
    if sent:
        yield "sent: " + ", ".join(f"{name} {human_bytes(value)}" for name, value in sent.items())
    if isinstance(facts.get("rounds"), int):
        yield f"rounds: {facts['rounds']}"


def _part(facts: Mapping[str, object], key: str) -> Mapping[str, object]:
    part = facts.get(key)
    return part if isinstance(part, Mapping) else {}


def _numbers(values: object) -> list[float]:
    if not isinstance(values, list | tuple):
        return []
    return [float(v) for v in values if isinstance(v, int | float)]


def _figure(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def human_bytes(count: float) -> str:
    """Write a number of bytes as people read it: 1536 becomes "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


@contextmanager
def progress_display() -> Iterator[Progress]:
    """Show stage, rows, bytes and time left on stderr while the block runs; one line per stage when piped."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with _bars(console) as show:
            yield show
    else:
        yield _stage_lines(console)


def _stage_lines(console: "Console") -> Callable[[ProgressEvent], None]:
    seen: set[str] = set()

    def show(event: ProgressEvent) -> None:
        if event.stage not in seen:
            seen.add(event.stage)
            console.print(f"fedmkt: {event.stage}", soft_wrap=True, markup=False)

    return show


@contextmanager
def _bars(console: "Console") -> Iterator[Callable[[ProgressEvent], None]]:
    from rich import progress

    columns = (
        progress.TextColumn("{task.description:<10.10}", markup=False),
        progress.BarColumn(bar_width=18),
        progress.TextColumn("{task.fields[rows]:>16}", markup=False),
        progress.TextColumn("{task.fields[sent]:>9}", markup=False),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console) as display:
        tasks: dict[str, progress.TaskID] = {}

        def show(event: ProgressEvent) -> None:
            total = event.total or None
            if event.stage not in tasks:
                for task in display.tasks:
                    if not task.finished:  # stages follow each other: a new one ends those before it
                        display.update(task.id, total=1, completed=1)
                tasks[event.stage] = display.add_task(event.stage, total=total, rows="", sent="")
            rows, sent = f"{event.rows:,} rows" if event.rows else "", human_bytes(event.bytes)
            display.update(tasks[event.stage], completed=event.done, total=total, rows=rows, sent=sent)

        yield show
        for task in display.tasks:  # not after an error: then the last stage shows where it happened
            display.update(task.id, total=1, completed=1)
