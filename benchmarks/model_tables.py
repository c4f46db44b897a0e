"""The tables of `benchmarks.models`: on the terminal, and in the README between two marks."""

from collections.abc import Sequence
from typing import Any

from fedmkt.cli.console import plain_table, stdout_console

Facts = dict[str, Any]
BEGIN, END = "<!-- models: begin -->", "<!-- models: end -->"
MARKDOWN = (
    "| model | data | AUC: bank → joint | twin | joint − twin | scikit-learn, xgboost | KS | log loss "
    "| calibration error | CPU s: joint, twin, scikit-learn, xgboost | wall s | MB: bank, partner, coordinator "
    "| rounds |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)


VALUES = (
    "| model | data, label | R²: bank → joint | twin | joint − twin | RMSE: bank → joint | deviance explained "
    "| CPU s: joint, twin | wall s | MB: bank, partner, coordinator | rounds |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def measure_of(run: Facts) -> str:
    """Return what a family is judged by: the AUC, or R² where labels are numbers or counts."""
    return "auc" if "auc" in run["models"]["joint"] else "r2"


def difference(run: Facts) -> float:
    """AUC or R² of the joint model before rounding minus that of the plain twin on the same prepared columns."""
    models, measure = run["models"], measure_of(run)
    return float(models["joint_exact"][measure] - models["centralised"][measure])


def megabytes(run: Facts) -> list[str]:
    """List what each participant sent in training, the coordinator last."""
    return [_size(count / 1e6) for count in run["training"]["bytes"].values()]


def _size(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _share(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}".replace("0.", ".", 1)


def _apart(value: float) -> str:
    if abs(value) < 5e-7:
        return "0"
    return f"{value:+.4f}" if abs(value) >= 1e-4 else f"{value:+.0e}".replace("e-0", "e-")


def markdown(figures: Facts) -> list[str]:
    """Return the README's tables, one row for each family and data set, and what was disclosed."""
    runs = figures["runs"]
    rows = [_row(run) for run in runs if measure_of(run) == "auc"]
    values = [_value_row(run) for run in runs if measure_of(run) == "r2"]
    second = ["", *VALUES, *values] if values else []
    return [*MARKDOWN, *rows, *second, "", *(f"{line}\n" for line in disclosed(runs))]


def _row(run: Facts) -> str:
    models, training = run["models"], run["training"]
    joint, libraries = models["joint"], _libraries(run)
    seconds = [training["cpu_s"], run["plain"][0]["cpu_s"], *(p["cpu_s"] for p in libraries)]
    cells = (
        run["family"],
        f"{run['data']}, {run['rows']['train']:,} rows",
        f"{_share(models['bank']['auc'])} → {_share(joint['auc'])}",
        _share(models["centralised"]["auc"]),
        _apart(difference(run)),
        ", ".join(_share(p["auc"]) for p in libraries),
        _share(joint["ks"], 3),
        _share(joint["log_loss"]),
        _share(joint["calibration_error"]),
        ", ".join(map(_size, seconds)),
        _size(training["wall_s"]),
        ", ".join(megabytes(run)),
        str(training["rounds"]),
    )
    return f"| {' | '.join(cells)} |"


def _value_row(run: Facts) -> str:
    models, training = run["models"], run["training"]
    bank, joint, twin = models["bank"], models["joint"], models["centralised"]
    explained = "" if joint["explained"] is None else f"{bank['explained']:.3f} → {joint['explained']:.3f}"
    cells = (
        run["family"],
        f"{run['data']}, {run['target']}, {run['rows']['train']:,} rows",
        f"{bank['r2']:.4f} → {joint['r2']:.4f}",
        f"{twin['r2']:.4f}",
        _apart(difference(run)),
        f"{bank['rmse']:.4g} → {joint['rmse']:.4g}",
        explained,
        ", ".join(map(_size, [training["cpu_s"], run["plain"][0]["cpu_s"]])),
        _size(training["wall_s"]),
        ", ".join(megabytes(run)),
        str(training["rounds"]),
    )
    return f"| {' | '.join(cells)} |"


def _libraries(run: Facts) -> list[Facts]:
    """Return what people would take: scikit-learn's model that is furthest from the joint one's form, and xgboost's."""
    of_sklearn = [p for p in run["plain"] if p["name"].startswith("scikit-learn")]
    return [*of_sklearn[-1:], *(p for p in run["plain"] if p["name"] == "xgboost")]


def filled(page: str, rows: Sequence[str]) -> str:
    """Put rows between the marks of a page; ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} or {END} in the page")
    return "\n".join([f"{before}{begin}", *rows, f"{end}{after}"])


def say_tables(figures: Facts) -> None:
    """Print what was measured, 80 columns wide: quality, cost, plain models, and who learned what."""
    console = stdout_console()
    runs = figures["runs"]
    for measure, headings in _HEADINGS.items():
        quality = [line for run in runs if measure_of(run) == measure for line in _quality(run)]
        if quality:
            console.print(plain_table(("model", *headings.values()), quality))
            console.print()
    costs = [
        [_name(r), _size(r["training"]["cpu_s"]), _size(r["training"]["wall_s"]),
         "/".join(megabytes(r)), str(r["training"]["rounds"])]
        for r in runs
    ]  # fmt: skip
    console.print(plain_table(("training", "CPU s", "wall s", "MB sent by each", "rounds"), costs))
    console.print()
    plain = [
        [f"{_name(r)}: {p['name']}", _size(p["cpu_s"]), _size(p["wall_s"]), _share(p[measure_of(r)])]
        for r in runs for p in r["plain"]
    ]  # fmt: skip
    console.print(plain_table(("plain model", "CPU s", "wall s", "AUC or R²"), plain))
    console.print()
    for line in disclosed(runs):
        console.print(line, markup=False)


def _name(run: Facts) -> str:
    return f"{run['family']}, {run['data']}"


_MODELS = (
    ("bank", "bank alone"), ("joint", "joint"), ("joint_exact", "joint, before rounding"), ("centralised", "twin"),
)  # fmt: skip


_HEADINGS = {
    "auc": {"auc": "AUC", "ks": "KS", "log_loss": "log loss", "calibration_error": "calibr. error"},
    "r2": {"r2": "R²", "rmse": "RMSE", "deviance": "deviance", "explained": "explained"},
}


def _quality(run: Facts) -> list[list[str]]:
    keys, models = _HEADINGS[measure_of(run)], run["models"]
    lines = [
        [f"  {title}", *(_figure(models[name][key]) for key in keys)]
        for name, title in _MODELS
        if name in models
    ]
    return [[f"{_name(run)}, {run['rows']['train']:,} rows", *("" for _ in keys)], *lines]


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return _share(value) if abs(value) < 1 else f"{value:,.4g}"


def disclosed(runs: Sequence[Facts]) -> list[str]:
    """Say what every family disclosed to each reader, and what one did besides."""
    by_family: dict[str, set[tuple[str, str]]] = {}
    for run in runs:
        found = by_family.setdefault(run["family"], set())
        found |= {(reader, kind) for reader, kind in run["disclosed"]}
    common = set.intersection(*by_family.values()) if by_family else set()
    besides = {family: found - common for family, found in by_family.items()}
    return [f"Every run: {_readers(common)}."] + [
        f"Besides, {family}: {_readers(found)}." for family, found in besides.items() if found
    ]


def _readers(found: set[tuple[str, str]]) -> str:
    kinds = {reader: sorted(k for r, k in found if r == reader) for reader, _ in sorted(found)}
    return "; ".join(f"to {reader} {', '.join(names)}" for reader, names in kinds.items())
