"""What the page warns of when columns moved between training and a reference, or a scorecard's customers to score."""

import json
from pathlib import Path

from fedmkt.errors import ConfigError

FILE = "stability.json"
SHIFT = "shift.json"
UNSTABLE = 0.25
"""Of the stability index: above it, by rule of thumb, a population is another one."""


def moved(model: Path) -> list[str]:
    """Warn of the own columns, and of the scores, that are not stable; nothing where there is no index of them."""
    return [*_moved_from_reference(model / SHIFT), *_moved_to_score(model / FILE)]


def _moved_from_reference(path: Path) -> list[str]:
    """Give the index of every own column, and say which were left out."""
    try:
        facts = json.loads(path.read_bytes())
        columns = {str(name): float(value) for name, value in facts["columns"].items()}
        left_out = [str(name) for name in facts["left_out"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path}: not what a run wrote") from None
    said = [f"{name} {value:.2f}{' left out' * (name in left_out)}" for name, value in columns.items()]
    return [f"Columns moved so far between training and the reference (stability index): {', '.join(said)}."]


def _moved_to_score(path: Path) -> list[str]:
    try:
        facts = json.loads(path.read_bytes())
        columns = {str(name): float(value) for name, value in facts["columns"].items()}
        scores = facts.get("scores")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path}: not what a run wrote") from None
    unstable = ", ".join(f"{name} {value:.2f}" for name, value in columns.items() if value > UNSTABLE)
    found = []
    if unstable:
        found.append(
            f"Columns moved between training and the customers to score (stability index: {unstable})."
        )
    if scores is not None and float(scores) > UNSTABLE:
        found.append(
            f"Scores of unlabelled customers moved from those of held-out ones ({float(scores):.2f})."
        )
    return found
