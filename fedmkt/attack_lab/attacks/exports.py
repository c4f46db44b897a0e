"""Cells that a spreadsheet runs (row 20): in every CSV file that a run wrote, the bank's scores among them.

Besides, names that could be poisoned are written as the exports write text. Undefended: the same names as they are.
A plain negative number is no formula.
"""

import csv
import io

from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Subject
from fedmkt.party.card import cell
from fedmkt.report.scores import score

POISON = ("=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", '=HYPERLINK("http://example.com")')


def cells_that_run(subject: Subject, effort: Effort) -> Finding:
    """Row 20: cells of any export that begin with a sign that a spreadsheet runs, and are no plain number."""
    scores = score(subject.folder, out=subject.folder / "attack-lab-scores.csv")
    files = {*subject.folder.rglob("*.csv")} | {
        p for p in subject.given.rglob("*.csv") if "world" not in p.parts
    }
    found = sum(dangerous_cells(path.read_text(encoding="utf-8")) for path in sorted(files))
    scores.unlink()
    poisoned = "\n".join(_row(cell(text)) for text in POISON)
    return Finding(
        20, "cells that a spreadsheet runs", "cells", float(dangerous_cells("\n".join(map(_row, POISON)))),
        float(found + dangerous_cells(poisoned)), Limit(0), f"{len(files)} files, {len(POISON)} poisoned names",
    )  # fmt: skip


def dangerous_cells(text: str) -> int:
    """Count the cells of a CSV file that a spreadsheet would take for a formula."""
    return sum(_is_dangerous(value) for row in csv.reader(io.StringIO(text, newline="")) for value in row)


def _is_dangerous(value: str) -> bool:
    if not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return value.startswith(("\t", "\r"))


def _row(value: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="", quoting=csv.QUOTE_ALL).writerow([value])
    return text.getvalue()
