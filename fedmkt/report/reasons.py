"""Rates of selection by group, and the reasons of one score: at the bank, from what its run left beside the scores."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fedmkt.errors import ConfigError
from fedmkt.party.score_notes import RATES, REASONS
from fedmkt.report.folder import find_files
from fedmkt.report.scores import read_scores
from fedmkt.report.summary import GroupRate, GroupRates


def read_rates(model: Path) -> tuple[GroupRates, ...]:
    """Read how often each declared group is among the best tenth; () where the contract declares none."""
    path = model / RATES
    try:
        groups = json.loads(path.read_bytes())["groups"]
        return tuple(
            GroupRates(
                str(name), tuple(GroupRate(str(r["group"]), int(r["rows"]), float(r["share"])) for r in rates)
            )
            for name, rates in groups.items()
        )
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path}: not what a run wrote") from None


@dataclass(frozen=True)
class Part:
    """What one column does to a score, against the same row with the column's typical value."""

    column: str
    part: float


@dataclass(frozen=True)
class Explained:
    """One score: its row in the bank's file, the parts of the own columns, largest first, and of all the rest."""

    row: int
    score: float
    unit: str
    own: tuple[Part, ...]
    rest: float

    def to_json(self) -> dict[str, object]:
        """Give the same as plain data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Say it in plain words."""
        lines = [f"row {self.row}: score {self.score:g}; parts in {self.unit}"]
        lines += [f"{one.part:+9.3f}  {one.column}" for one in self.own]
        return [*lines, f"{self.rest:+9.3f}  the other parties' columns, and training together"]


def explain(run: Path, row: int) -> Explained:
    """Give the reasons of one released score; row : as in the file of scores.

    ConfigError where the run left no reasons, as without terms of governance, or released no score for the row.
    """
    files = find_files(run)
    model = files.model(files.contract.bank.name)
    scores, path = read_scores(model), model / REASONS
    found = np.flatnonzero(scores.file_rows == row)
    if not len(found):
        raise ConfigError(
            f"row {row}: no score was released for it", "fedmkt score lists the rows that have one"
        )
    place = int(found[0] if scores.places is None else scores.places[found[0]])
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            own = [
                Part(str(c), float(p)) for c, p in zip(stored["columns"], stored["own"][place], strict=True)
            ]
            rest = float(stored["rest"][place])
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no reasons were kept", "they are where the contract has [governance]"
        ) from None
    except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile):
        raise ConfigError(f"{path}: not what a run wrote") from None
    unit = "log odds" if scores.kind == "logistic" else "the label's unit"
    largest = sorted(own, key=lambda one: -abs(one.part))
    return Explained(row, float(scores.rounded[found[0]]), unit, tuple(largest), rest)
