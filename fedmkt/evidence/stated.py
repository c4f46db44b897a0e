"""What the maker of a pack states and no log shows: who, with which release, in which language, and the figures.

It stands in `stated.json`, so that whoever has the same release makes page, model card and drafts again from it and
from `run/`, and compares. The figures, and that it was no simulation, rest on the maker's signature: scores are in no pack,
and logs of a simulation look like any. No sentence can be stated: names are of a list, numbers are numbers.
"""

import json
import re
from dataclasses import asdict, dataclass, replace

from fedmkt import __version__
from fedmkt.evidence.document import Language
from fedmkt.evidence.facts import MEASURES, Facts, Figure
from fedmkt.party.controls.code import installed_code

_NUMBER = r"[-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|inf|nan)"
_FIGURE = re.compile(rf"{_NUMBER}(?: \(95 %: {_NUMBER} to {_NUMBER}\))?")
_VERSION = re.compile(r"[0-9][0-9a-z.+]{0,39}")
_CODE = re.compile(r"[0-9a-f]{64}")


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
    texts = (found.by, found.version, found.code)
    if (
        not all(isinstance(t, str) and t.isprintable() for t in texts)
        or not (_VERSION.fullmatch(found.version) and _CODE.fullmatch(found.code))
        or not _are_figures(figures)
        or found.language not in ("en", "zh")
        or not isinstance(found.simulated, bool)
        or any(type(n) is not int for n in (rows, responders))
        or not 0 <= responders <= rows
        or found.to_json() != text
    ):
        raise ValueError("not what the maker of a pack states")
    return found


def _are_figures(figures: tuple[Figure, ...]) -> bool:
    """Tell whether each is one measure with numbers, and none stands twice."""
    texts = [text for figure in figures for text in (figure.bank, figure.joint)]
    return (
        len({f.name for f in figures}) == len(figures)
        and all(f.name in MEASURES for f in figures)
        and all(isinstance(text, str) and (not text or _FIGURE.fullmatch(text)) for text in texts)
    )
