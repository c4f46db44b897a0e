"""What the maker of a pack states and no log shows: who, with which release, in which language, and the figures.

It stands in `stated.json`, so that whoever has the same release makes page, model card and drafts again from it and
from `run/`, and compares. The figures rest on the maker's signature: scores are in no pack.
"""

import json
from dataclasses import asdict, dataclass, replace

from fedmkt import __version__
from fedmkt.evidence.document import Language
from fedmkt.evidence.facts import Facts, Figure
from fedmkt.party.controls.code import installed_code


@dataclass(frozen=True)
class Stated:
    """by : the maker's name; code : digest of its installed release; figures, measured_on : as in `Facts`."""

    by: str
    language: Language
    version: str
    code: str
    simulated: bool
    figures: tuple[Figure, ...]
    measured_on: tuple[int, int]

    @property
    def is_of_this_release(self) -> bool:
        """Tell whether the release that reads it is the one that wrote it, file by file."""
        return self.code == installed_code()

    def into(self, facts: Facts) -> Facts:
        """Put what is stated beside what the logs in a pack give."""
        return replace(facts, figures=self.figures, measured_on=self.measured_on, simulated=self.simulated)

    def to_json(self) -> str:
        """Write the one text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def state(facts: Facts, by: str, language: Language) -> Stated:
    """Say what the maker of a pack of these facts states."""
    return Stated(
        by, language, __version__, installed_code(), facts.simulated, facts.figures, facts.measured_on
    )


def read_stated(text: str) -> Stated:
    """Read what `to_json` wrote; ValueError for anything else."""
    try:
        value = json.loads(text)
        figures = tuple(Figure(**figure) for figure in value.pop("figures"))
        rows, responders = value.pop("measured_on")
        found = Stated(**value, figures=figures, measured_on=(rows, responders))
    except (TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("not what the maker of a pack states") from None
    texts = [found.by, found.version, found.code, *(t for f in figures for t in asdict(f).values())]
    numbers = (rows, responders)
    if (
        not all(isinstance(t, str) and t.isprintable() for t in texts)
        or found.language not in ("en", "zh")
        or not isinstance(found.simulated, bool)
        or any(type(n) is not int for n in numbers)
        or found.to_json() != text
    ):
        raise ValueError("not what the maker of a pack states")
    return found
