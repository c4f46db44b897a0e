"""The files of a scorecard: each party's bins with their weight of evidence, points, and how far the rows moved.

`scorecard.json` has the own columns with the text of each bin, its WoE and its train rows; where the contract allows
`ModelPart`, the points of each bin, and the own base points. A customer's score is the sum over all parties of base
points and of the points of its bins; base score and odds are in the bank's base. Of a customer whom a partner does
not have (`join = "left"`), that partner's part is 0. `scorecard.csv` is the same as a table. The bank's has besides,
by party and column, rows, events and WoE of each joined bin and the information value; what a partner's bins stand
for it does not know.

`stability.json` has the stability index of each own column between train rows and rows to score, and at the bank that
of the scores, between held-out and unlabelled customers.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.learn.glm import Weights
from fedmkt.learn.merging import Totals
from fedmkt.learn.prepare import Preparation
from fedmkt.learn.scorecard import Scale, Scorecard, assign_points, stability_index, weigh_evidence
from fedmkt.learn.woe import WoeColumns, place_rows, weights_of_woe
from fedmkt.party.handle import Party
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.alignment.items import Known
from fedmkt.protocol.linear.scoring import OwnWeights, Released
from fedmkt.protocol.prepare import Columns, OwnEvidence, Prepared, real, take, with_known
from fedmkt.protocol.scorecard.scorecard import EvidenceTable

Facts = dict[str, object]
Counts = NDArray[np.int64]
_TENTHS = np.arange(1, 10) / 10


@dataclass(frozen=True)
class BinLine:
    """One bin of an own column; points are None where the own weights were not opened."""

    column: str
    bin: str
    woe: float
    train_rows: int
    points: int | None


def card_files(party: Party) -> dict[str, bytes]:
    """Return the party's files by name."""
    fitted = Preparation.from_json(party.recall(Prepared).preparation)
    evidence = WoeColumns.from_json(party.recall(OwnEvidence).columns)
    counts = _counts(party, evidence)
    card = _own_card(party, fitted, evidence)
    lines = list(_lines(evidence, counts, card))
    facts: Facts = {
        "version": 1,
        "party": party.me,
        "contract": digest(party.contract).hex(),
        "run": party.run.hex(),
        "base": None if card is None else card.base,
        "bins": [asdict(line) for line in lines],
    }
    if party.holds(EvidenceTable):
        terms = party.contract.scorecard
        facts["scale"] = {k: getattr(terms, k) for k in ("base_score", "base_odds", "points_to_double")}
        facts["evidence"] = evidence_facts(party.recall(EvidenceTable))
    moved: Facts = {
        "columns": {
            n: round(stability_index(before, after), 6)
            for n, (before, after) in counts.items()
            if after.any()
        }
    }
    if party.holds(Released):
        moved["scores"] = _score_stability(party.recall(Released))
    return {
        "scorecard.json": json.dumps(facts, ensure_ascii=False, indent=1).encode(),
        "scorecard.csv": _csv(lines),
        "stability.json": json.dumps(moved, ensure_ascii=False, indent=1).encode(),
    }


def scale_of(contract: Contract) -> Scale:
    """Return the contract's scale of points."""
    terms = contract.scorecard
    return Scale(terms.base_score, terms.base_odds, terms.points_to_double)


def points_of(contract: Contract, released: Released) -> NDArray[np.int64]:
    """Turn rounded scores into whole points; 0 and 1 count as half a unit off, which is where they may lie."""
    half = 0.5 / 10**released.decimals
    probability = np.clip(released.units / 10**released.decimals, half, 1 - half)
    return np.rint(scale_of(contract).score(probability)).astype(np.int64)


def evidence_facts(table: EvidenceTable) -> Facts:
    """Give the bank's totals as plain data: by party and column, with WoE and information value."""
    return {
        party: {name: _column_facts(totals, name in table.kept[party]) for name, totals in columns.items()}
        for party, columns in table.totals.items()
    }


def _column_facts(totals: NDArray[np.int64], is_kept: bool) -> Facts:
    found = weigh_evidence(Totals(totals[:, 0].copy(), totals[:, 1].copy()))
    return {
        "kept": is_kept,
        "information_value": round(found.information_value, 6),
        "rows": totals[:, 0].tolist(),
        "events": totals[:, 1].tolist(),
        "woe": np.round(found.woe, 4).tolist(),
    }


def _own_card(party: Party, fitted: Preparation, evidence: WoeColumns) -> Scorecard | None:
    """Write the own weights as points, where they were opened to their owner."""
    if not party.holds(OwnWeights):
        return None
    values, is_bank = party.recall(OwnWeights).values, party.holds(EvidenceTable)
    prepared = party.recall(Prepared).transform @ values[1 if is_bank else 0 :]
    weights = weights_of_woe(fitted, Weights(float(values[0]) if is_bank else 0.0, prepared))
    scale = scale_of(party.contract)
    if not is_bank:
        scale = Scale(0.0, 1.0, scale.points_to_double)
    return assign_points(weights, {c.bins.name: c.woe for c in evidence.columns}, scale)


def _counts(party: Party, evidence: WoeColumns) -> dict[str, tuple[Counts, Counts]]:
    """Count the rows in each bin: of train, and of the unlabelled ones, or of those held out where there are none."""
    split, columns = party.recall(Split), party.recall(Columns)
    if party.holds(Known):
        columns = with_known(columns, party.recall(Known).rows)
    scored = real(split.unlabelled)
    populations = [real(split.train), scored if len(scored) else real(split.held_out)]
    found = {}
    for column in evidence.columns:
        before, after = (
            np.bincount(place_rows(column.bins, *take(columns, rows)), minlength=column.bins.count)
            for rows in populations
        )
        found[column.bins.name] = (before.astype(np.int64), after.astype(np.int64))
    return found


def _score_stability(released: Released) -> float | None:
    """Compare the scores of unlabelled customers with held-out ones, in tenths of these; None without either."""
    held, others = released.units[: released.held_out], released.units[released.held_out :]
    if not len(held) or not len(others):
        return None
    edges = np.unique(np.quantile(held, _TENTHS))
    before, after = (
        np.bincount(np.searchsorted(edges, units, side="right"), minlength=len(edges) + 1)
        for units in (held, others)
    )
    return round(stability_index(before, after), 6)


def _lines(
    evidence: WoeColumns, counts: dict[str, tuple[Counts, Counts]], card: Scorecard | None
) -> Iterator[BinLine]:
    points = {} if card is None else {c.name: c.points for c in card.columns}
    for column in evidence.columns:
        name, woe = column.bins.name, np.round(column.woe, 4).tolist()
        for b, label in enumerate(column.bins.labels):
            own = points[name][b] if name in points else None
            yield BinLine(name, label, woe[b], int(counts[name][0][b]), own)


def _csv(lines: Sequence[BinLine]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([field.name for field in fields(BinLine)])
    # A spreadsheet would run a cell that begins with a sign.
    table.writerows((cell(line.column), cell(line.bin), *astuple(line)[2:]) for line in lines)
    return text.getvalue().encode()


def cell(text: str) -> str:
    """Write text so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
