"""The report's six figures as inline SVG, and what other drawings share with them.

Text stays text (it scales, prints and can be searched), no identifier is used twice on a page, and the
same numbers give the same bytes. Nothing but numbers and fixed words is drawn, so no name from outside
reaches an SVG. matplotlib is imported when the first figure is drawn, never at start-up.
"""

import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedmkt.learn.metrics import CalibrationBin
from fedmkt.report.summary import ConvergencePoint, ModelResult, Models, RunSummary

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANK, JOINT, CENTRAL = "#8a94a3", "#0b5a83", "#c07f1a"
MUTED = "#5b6673"
_INK, _GRID = "#1d2733", "#e4e8ec"
_Dashes = str | tuple[float, tuple[float, float]]
_SIZE = (5.2, 3.55)
_PLACE = (0.135, 0.14, 0.825, 0.83)
STYLE: dict[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedmkt",
    "font.size": 10.0,
    "axes.edgecolor": "#aab3bd",
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#aab3bd",
    "ytick.color": "#aab3bd",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "legend.handlelength": 1.6,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


def draw_figures(summary: RunSummary) -> dict[str, str]:
    """Return SVG by figure name: roc, gains, lift, calibration, scores, and convergence if it is known."""
    from matplotlib import style

    models = summary.responses
    with style.context(STYLE):
        figures = {
            "roc": svg("roc", _roc(models)),
            "gains": svg("gains", _gains(models)),
            "lift": svg("lift", _lift(models)),
            "calibration": svg("calibration", _calibration(models)),
            "scores": svg("scores", _scores(models.joint)),
        }
    return figures | draw_convergence(summary)


def draw_convergence(summary: RunSummary) -> dict[str, str]:
    """Return the SVG of convergence by its name, if it is known."""
    from matplotlib import style

    if not summary.convergence:
        return {}
    with style.context(STYLE):
        drawn = _convergence(summary.convergence, summary.convergence_measure)
        return {"convergence": svg("convergence", drawn)}


def blank(
    size: tuple[float, float] = _SIZE, place: tuple[float, float, float, float] = _PLACE
) -> "tuple[Figure, Axes]":
    """Make an empty drawing. size : inches; place : left, bottom, width, height of its axes, as shares."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    figure.patch.set_alpha(0)
    return figure, figure.add_axes(place)


def svg(name: str, figure: "Figure") -> str:
    """Render and reduce to what a page may hold: no prolog, no metadata, identifiers of its own."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'^<svg [^>]*viewBox="([^"]*)"[^>]*>', rf'<svg {_NAMESPACES} viewBox="\1">', text)
    return re.sub(r"\n\s*", "\n", text).strip()


def drawn(text: str) -> "Markup":
    """Let a page take a drawing as it is: ours hold numbers and fixed words only, never a name from a table."""
    from markupsafe import Markup

    return Markup(text)  # nosec B704


_NAMESPACES = (
    'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden="true"'
)


def _compared(models: Models) -> list[tuple[str, ModelResult, str, _Dashes]]:
    """Name, result, colour and line style, the least important drawn first."""
    lines: list[tuple[str, ModelResult, str, _Dashes]] = [
        ("bank alone", models.bank, BANK, "-"),
        ("joint", models.joint, JOINT, "-"),
    ]
    if models.centralised is not None:
        # dashed and on top, so that a joint line that it covers is still seen
        lines.append(("centralised", models.centralised, CENTRAL, (0, (1.2, 2.2))))
    return lines


def _percent(axes: "Axes", which: str = "xy") -> None:
    from matplotlib.ticker import PercentFormatter

    for letter in which:
        getattr(axes, f"{letter}axis").set_major_formatter(PercentFormatter(1.0, decimals=0))


def _roc(models: Models) -> "Figure":
    figure, axes = blank()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    for name, result, colour, style in _compared(models):
        label = f"{name}\u2002{result.metrics.auc:.3f}"
        axes.plot(result.roc.x, result.roc.y, color=colour, linestyle=style, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="non-responders contacted", ylabel="responders found")
    _percent(axes)
    axes.legend(loc="lower right", title="AUC", alignment="left")
    return figure


def _gains(models: Models) -> "Figure":
    figure, axes = blank()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    for name, result, colour, style in _compared(models):
        axes.plot(result.gains.x, result.gains.y, color=colour, linestyle=style, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="customers contacted, best scores first")
    axes.set_ylabel("responders found")
    _percent(axes)
    axes.legend(loc="lower right")
    return figure


def _lift(models: Models) -> "Figure":
    figure, axes = blank()
    pairs = [("bank alone", models.bank, BANK, -0.2), ("joint", models.joint, JOINT, 0.2)]
    for name, result, colour, shift in pairs:
        table = result.metrics.deciles
        axes.bar([d.decile + shift for d in table], [d.lift for d in table], 0.38, color=colour, label=name)
        axes.annotate(
            f"{table[0].lift:.2f}", (1 + shift, table[0].lift), (0, 3), textcoords="offset points",
            ha="center", color=_INK, fontsize=9,
        )  # fmt: skip
    axes.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    axes.annotate("average = 1", (10.6, 1), (0, 4), textcoords="offset points", ha="right", color=MUTED)
    axes.set(xticks=range(1, 11), xlim=(0.35, 10.65), xlabel="decile of score, 1 = highest", ylabel="lift")
    axes.set_ylim(0, 1.12 * max(result.metrics.top_lift for _, result, _, _ in pairs) + 0.1)
    axes.grid(visible=False, axis="x")
    axes.legend(loc="upper right")
    return figure


def _calibration(models: Models) -> "Figure":
    figure, axes = blank()
    pairs = [("bank alone", models.bank, BANK, 4.0), ("joint", models.joint, JOINT, 5.0)]
    bins = [b for _, result, _, _ in pairs for b in result.metrics.calibration]
    top = min(1.0, 1.12 * max(max(b.predicted, _wilson(b)[1]) for b in bins))
    axes.plot([0, top], [0, top], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    for name, result, colour, size in pairs:
        table = result.metrics.calibration
        x, y = [b.predicted for b in table], [b.observed for b in table]
        low, high = [_wilson(b)[0] for b in table], [_wilson(b)[1] for b in table]
        axes.vlines(x, low, high, color=colour, linewidth=1.0, alpha=0.7)
        axes.plot(x, y, color=colour, marker="o", markersize=size, linewidth=1.2, label=name)
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="predicted response rate", ylabel="observed response rate")
    _percent(axes)
    axes.legend(loc="upper left")
    return figure


def _wilson(group: CalibrationBin) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), which stays inside [0, 1] where few respond."""
    n, p, z = group.rows, group.observed, 1.96
    middle, margin = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - margin) / (1 + z * z / n)), (middle + margin) / (1 + z * z / n)


def _scores(joint: ModelResult) -> "Figure":
    figure, axes = blank()
    bins = len(joint.histogram.others)
    left = [i / bins for i in range(bins)]
    for name, counts, colour in (
        ("non-responders", joint.histogram.others, BANK),
        ("responders", joint.histogram.responders, JOINT),
    ):
        total = max(1, sum(counts))
        axes.bar(
            left, [c / total for c in counts], 1 / bins, align="edge", color=colour, alpha=0.62, label=name
        )
    last = max(i for i in range(bins) if joint.histogram.others[i] + joint.histogram.responders[i])
    axes.set(xlim=(0, (last + 1) / bins), xlabel="joint model's score", ylabel="share of each group")
    _percent(axes, "y")
    axes.grid(visible=False, axis="x")
    axes.legend(loc="upper right")
    return figure


def _convergence(points: Sequence[ConvergencePoint], measure: str) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure, axes = blank()
    steps = [p for p in points if p.change > 0]
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    known = [(p.iteration, p.value) for p in points if p.value is not None]
    if not steps:  # trees have no weights
        axes.plot(*zip(*known, strict=True), color=CENTRAL)
        axes.set(xlabel="tree", ylabel="loss of rows that do not train")
        return figure
    axes.plot([p.iteration for p in steps], [p.change for p in steps], color=JOINT, marker="o", markersize=4)
    axes.set(yscale="log", xlabel="pass over the rows", ylabel="relative change of the weights")
    if known:
        axes.set_position((0.135, 0.14, 0.73, 0.83))
        second = axes.twinx()
        second.plot(*zip(*known, strict=True), color=CENTRAL, marker="s", markersize=3.5, linewidth=1.4)
        second.set_ylabel("AUC" if measure.lower() == "auc" else "loss", color=CENTRAL)
        second.tick_params(axis="y", labelcolor=CENTRAL)
        second.spines["right"].set_visible(True)
        second.grid(visible=False)
        axes.set_ylabel("relative change of the weights", color=JOINT)
        axes.tick_params(axis="y", labelcolor=JOINT)
    return figure
