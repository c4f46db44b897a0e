"""Draw the chart of the intersection's costs from the figures that `benchmarks.psi_peers` wrote.

python -m benchmarks.psi_chart docs/psi.json docs/psi.svg
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_NAMES = {
    ("fedmkt", "ot"): "fedmkt ot",
    ("fedmkt", "vole"): "fedmkt vole",
    ("spu", "RR22"): "SPU RR22",
    ("spu", "KKRT"): "SPU KKRT",
    ("spu", "ECDH"): "SPU ECDH",
}
_OURS, _THEIRS, _FILES = "#1f6f8b", "#9a9a9a", "#d9d9d9"


def draw(trial: dict[str, Any]) -> Figure:
    """Draw CPU seconds and bytes, one row for each contestant, the cheapest first."""
    results = [r for r in trial["results"] if (r["program"], r["engine"]) in _NAMES]
    results.sort(key=_cpu, reverse=True)
    figure = Figure(figsize=(7.6, 0.6 + 0.32 * len(results)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for row, result in enumerate(results):
        ours = result["program"] == "fedmkt"
        protocol = _cpu(result) if ours else _both(result, "online_cpu_s")
        left.barh(row, _cpu(result), color=_FILES, height=0.62)
        left.barh(row, protocol, color=_OURS if ours else _THEIRS, height=0.62)
        more = "" if ours else f" ({protocol:.1f} without files)"
        left.text(_cpu(result), row, f" {_cpu(result):.1f}{more}", va="center", fontsize=8)
        right.barh(row, result["bytes"] / 1e6, color=_OURS if ours else _THEIRS, height=0.62)
        right.text(result["bytes"] / 1e6, row, f" {result['bytes'] / 1e6:.0f}", va="center", fontsize=8)
    left.set_yticks(range(len(results)), [_NAMES[r["program"], r["engine"]] for r in results], fontsize=8)
    rows = trial["rows"]
    _label(left, f"CPU seconds of both sides, {rows:,} × {rows:,} ids", 1.28)
    _label(right, "MB sent", 1.15)
    return figure


def _label(axes: Axes, title: str, room: float) -> None:
    axes.set_title(title, fontsize=8.5, loc="left")
    axes.set_xlim(0, axes.get_xlim()[1] * room)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def table(figures: dict[str, Any]) -> list[str]:
    """Return one row of the page's table for each contestant of each trial."""
    trials = sorted((t for t in figures.values() if "results" in t), key=lambda t: t["rows"])
    return [_row(trial["rows"], r) for trial in trials for r in sorted(trial["results"], key=_cpu)]


def _row(rows: int, result: dict[str, Any]) -> str:
    ours = result["program"] == "fedmkt"
    files = "" if ours else f" ({_both(result, 'online_cpu_s'):.1f})"
    peak = max(result[side]["peak_mb"] for side in ("receiver", "sender"))
    name = f"{'fedmkt' if ours else 'SPU'} {result['engine']}"
    return f"| {rows:,} | {name} | {_cpu(result):.1f}{files} | {peak:,.0f} | {result['bytes'] / 1e6:,.0f} |"


def filled(page: str, rows: list[str]) -> str:
    """Put rows in place of those of the page's first table."""
    lines = page.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---")) + 1
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "\n".join([*lines[:start], *rows, *lines[end:]]) + "\n"


def _both(result: dict[str, Any], key: str) -> float:
    return float(result["receiver"][key] + result["sender"][key])


def _cpu(result: dict[str, Any]) -> float:
    return _both(result, "cpu_s")


def main() -> None:
    """Read the figures, write chart and table: text stays text, and the same figures give the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("figures", type=Path)
    parser.add_argument("chart", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--rows", default="1000000", help="which of the trials in the file")
    options = parser.parse_args()
    matplotlib.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "fedmkt", "font.family": "sans-serif"}
    )
    figures = json.loads(options.figures.read_text())
    draw(figures[options.rows]).savefig(options.chart, metadata={"Date": None}, facecolor="white")
    options.page.write_text(filled(options.page.read_text(), table(figures)))


if __name__ == "__main__":
    main()
