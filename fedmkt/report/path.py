"""The path of penalties as the bank's page shows it: from the file that a run left, drawn as one small curve."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from fedmkt.errors import ConfigError
from fedmkt.report.figures import JOINT, MUTED, STYLE, blank, drawn, svg
from fedmkt.report.summary import PenaltyPath, TriedPenalty

if TYPE_CHECKING:
    from markupsafe import Markup

_SIZE = (5.2, 2.6)


def read_path(model: Path) -> PenaltyPath | None:
    """Read the bank's model folder: the error of each penalty, the smallest penalty first.

    None where one penalty was given; ConfigError for a file that no run wrote.
    """
    path = model / "model.json"
    try:
        facts = json.loads(path.read_bytes())
        if "penalties" not in facts:
            return None
        tried = sorted((float(penalty), float(error)) for penalty, error in facts["penalties"]["errors"])
        points = tuple(TriedPenalty(penalty, error) for penalty, error in tried)
        return PenaltyPath(int(facts["penalties"]["rows"]), float(facts["penalty"]), points)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path}: not what a run wrote") from None


def draw_path(path: PenaltyPath) -> "Markup":
    """Draw error against penalty, with a mark at the chosen one."""
    from matplotlib import style
    from matplotlib.ticker import NullLocator

    penalties, errors = [p.penalty for p in path.points], [p.error for p in path.points]
    with style.context(STYLE):
        figure, axes = blank(_SIZE, (0.165, 0.2, 0.81, 0.76))
        axes.plot(penalties, errors, color=JOINT, marker="o", markersize=4)
        axes.axvline(path.chosen, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
        best = errors[penalties.index(path.chosen)]
        axes.plot([path.chosen], [best], color=JOINT, marker="o", markersize=9, fillstyle="none")
        axes.set(xscale="log", xlabel="penalty", ylabel="error", xticks=penalties)
        axes.set_xticklabels([f"{penalty:g}" for penalty in penalties])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(y=0.15)
        return drawn(svg("path", figure))
