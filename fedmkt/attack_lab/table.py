"""The table of an attack lab: as lines of 80 columns, as JSON, and as a fragment of HTML for an evidence pack."""

import html
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmkt import __version__
from fedmkt.attack_lab.finding import Finding, shown, worst
from fedmkt.party.journal import write_atomically

JSON, HTML = "attack-lab.json", "attack-lab.html"
_HEADINGS = ("", "attack", "metric", "undefended", "here", "limit", "verdict")
_WIDTHS = (2, 30, 9, 10, 6, 7, 10)  # with a blank between them this is a line of 80 columns, and no more


@dataclass(frozen=True)
class Report:
    """What the lab found about one run. run : its folder's name; contract : digest, in hexadecimal."""

    run: str
    family: str
    contract: str
    seeds: int
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> list[Finding]:
        """The attacks that worked though nothing in the contract says so, and those without a control."""
        return [f for f in self.findings if f.verdict in ("BROKEN", "no control")]

    def lines(self) -> list[str]:
        """Write the table, then what was declared or assumed and by what."""
        said = [f"{self.family}: {self.run}", _line(_HEADINGS)]
        for f in self.findings:
            said.append(_line((str(f.row), *_cells(f))))
        said += [line for f in self.findings if _told(f) for line in textwrap.wrap(_why(f), 80)]
        if self.seeds > 1:
            of_each = [f"{f.row} {shown(worst(f.runs).here)}" for f in self.findings if f.runs]
            said += textwrap.wrap(f"mean of {self.seeds} seeds; the worst of each: {', '.join(of_each)}", 80)
        return [line.rstrip() for line in said]

    def to_json(self) -> dict[str, object]:
        """Give all facts as plain data."""
        return {
            "version": 1,
            "fedmkt": __version__,
            "run": self.run,
            "family": self.family,
            "contract": self.contract,
            "seeds": self.seeds,
            "findings": [f.to_json() for f in self.findings],
        }

    def to_html(self) -> str:
        """Write a section with a table, without style or script."""
        head = "".join(f"<th>{html.escape(h)}</th>" for h in (*_HEADINGS, "DCS", "note"))
        rows = []
        for f in self.findings:
            dcs = "" if f.dcs is None else f"{f.dcs[0]:.2f} → {f.dcs[1]:.2f}"
            by = f"{f.verdict}: {', '.join(f.declared) or f.assumed}" if _told(f) else f.verdict
            cells = (str(f.row), *_cells(f)[:-1], by, dcs, f.note)
            rows.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
        return (
            f'<section id="attack-lab"><h2>Attack lab: {html.escape(self.family)}</h2>\n'
            f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n"
            + "\n".join(rows)
            + "\n</tbody></table></section>\n"
        )

    def write(self, folder: Path) -> Path:
        """Write both files beside a run's others; returns the JSON's path."""
        write_atomically(folder / JSON, json.dumps(self.to_json(), indent=1).encode(), mode=0o644)
        write_atomically(folder / HTML, self.to_html().encode(), mode=0o644)
        return folder / JSON


def _told(finding: Finding) -> bool:
    return finding.verdict in ("declared", "assumed")


def _cells(f: Finding) -> tuple[str, ...]:
    return f.attack, f.metric, shown(f.undefended), shown(f.here), str(f.limit), f.verdict


def _why(f: Finding) -> str:
    if f.verdict == "assumed":
        return f"{f.row}: assumed: {f.assumed}"
    return f"{f.row}: declared in the contract: {', '.join(f.declared)}"


def _line(cells: Sequence[str]) -> str:
    left = [f"{c[:w]:<{w}}" for c, w in zip(cells[:3], _WIDTHS[:3], strict=True)]
    right = [f"{c:>{w}}" for c, w in zip(cells[3:6], _WIDTHS[3:6], strict=True)]
    return " ".join([*left, *right, cells[6]])
