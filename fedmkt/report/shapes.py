"""The functions of an additive model at their owner: read from its model folder, drawn as small panels.

All panels of a page share one scale of effects, so that large ones look large. Nothing but numbers is drawn: names of
columns and levels stand in the text beside, where the page escapes them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fedmkt.errors import ConfigError
from fedmkt.learn.shapes import Shape, Shapes
from fedmkt.report.figures import BANK, JOINT, MUTED, STYLE, blank, drawn, svg
from fedmkt.report.summary import PartyShapes, rebuild

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHAPES = "shapes.json"
MOST = 12
"""Columns of one party that are drawn: those that move the log odds most."""
_MOST_LEVELS = 20
_SIZE = (3.4, 2.3)


@dataclass(frozen=True)
class Panel:
    """One drawn column. levels : number in the drawing, or "" of a number's; name, effect, share of the rows."""

    column: str
    drawing: "Markup"
    levels: tuple[tuple[str, str, float, float], ...]


@dataclass(frozen=True)
class Panels:
    """One party's columns, those of the largest effect first. hidden : how many more there are."""

    party: str
    panels: tuple[Panel, ...]
    pairs: tuple[tuple[str, str, float], ...]
    hidden: int


def read_shapes(model: Path, party: str) -> tuple[PartyShapes, ...]:
    """Read what a run left in a party's model folder; () where the contract opened no weights to their owner."""
    path = model / SHAPES
    try:
        facts = json.loads(path.read_bytes())
        found = {name: facts[name] for name in ("columns", "pairs")}
        return (PartyShapes(party, cast(Shapes, rebuild(Shapes, found, SHAPES))),)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"{path}: not what a run wrote") from None


def draw_shapes(parties: Sequence[PartyShapes]) -> tuple[Panels, ...]:
    """Draw the columns of some parties on one scale."""
    from matplotlib import style

    shapes = [shape for party in parties for shape in party.shapes.columns]
    effects = [e for s in shapes for e in (*s.effects, *(level.effect for level in s.levels if level.share))]
    top = 1.08 * max((abs(effect) for effect in effects), default=1.0) or 1.0
    found = []
    for number, party in enumerate(parties):
        ranked = sorted(party.shapes.columns, key=lambda shape: -shape.size)
        with style.context(STYLE):
            panels = tuple(
                _panel(f"shape{number}-{place}", shape, top) for place, shape in enumerate(ranked[:MOST])
            )
        pairs = tuple((pair.left, pair.right, pair.size) for pair in party.shapes.pairs)
        found.append(Panels(party.party, panels, pairs, len(ranked) - len(panels)))
    return tuple(found)


def _panel(name: str, shape: Shape, top: float) -> Panel:
    if shape.values:
        levels = tuple(("", level.name, level.effect, level.share) for level in shape.levels)
        return Panel(shape.column, drawn(svg(name, _curve(shape, top))), levels)
    ranked = sorted(shape.levels, key=lambda level: -level.share)[:_MOST_LEVELS]
    ranked.sort(key=lambda level: -level.effect)
    levels = tuple((str(i + 1), level.name, level.effect, level.share) for i, level in enumerate(ranked))
    return Panel(shape.column, drawn(svg(name, _bars([level.effect for level in ranked], top))), levels)


def _curve(shape: Shape, top: float) -> "Figure":
    figure, axes = blank(_SIZE, (0.14, 0.16, 0.82, 0.8))
    first, last = shape.values[0], shape.values[-1]
    rows = axes.twinx()
    width = (last - first) / len(shape.density)
    left = [first + i * width for i in range(len(shape.density))]
    rows.bar(left, shape.density, width, align="edge", color=BANK, alpha=0.35)
    rows.set(ylim=(0, 4 * (max(shape.density) or 1.0)), yticks=[])
    rows.spines["right"].set_visible(False)
    rows.grid(visible=False)
    axes.set_zorder(rows.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot(shape.values, shape.effects, color=JOINT)
    for level in shape.levels:
        axes.axhline(level.effect, color=JOINT, linewidth=0.9, linestyle=(0, (1.2, 2.2)))
    axes.set(xlim=(first, last))
    axes.locator_params(axis="x", nbins=5)
    _finish(axes, top)
    return figure


def _bars(effects: Sequence[float], top: float) -> "Figure":
    figure, axes = blank(_SIZE, (0.14, 0.16, 0.82, 0.8))
    axes.bar(range(1, len(effects) + 1), effects, 0.7, color=JOINT)
    axes.set(xticks=range(1, len(effects) + 1), xlim=(0.4, len(effects) + 0.6))
    axes.grid(visible=False, axis="x")
    _finish(axes, top)
    return figure


def _finish(axes: "Axes", top: float) -> None:
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set(ylim=(-top, top))
