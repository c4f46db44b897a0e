"""What a party keeps of a finished run: its share of the model as plain files, and at the bank the scores.

A model folder holds `model.json` (names, shapes, the fitted preparation) and arrays as .npy files, no pickle:
`share.npy` the own share of all weights (uint64, scale 2^20), `transform.npy` and `spread.npy` the whitening,
`train.npy`, `held_out.npy`, `unlabelled.npy` the own rows in the common order; of trees that stop early, and of a path
of penalties, `validates.npy`, which train rows do not train but say when, or which; at the bank of a left join
`known.npy`, which of its customers the partner has. Where the match is hidden the partner's `train.npy` has all rows
that took part, whoever they are, and the bank keeps in `train_slots.npy` and `held_out_slots.npy` where among these
its own stand. Where the contract gives each owner its part of the model: `own_weights.npy`, and of an additive model
`shapes.json`, what each own column adds to the log odds. At the bank besides: `scores.npz`. Of trees `model.json` has
the own bins and splits in place of preparation and share, and at the bank the outline: who splits where, and what the
leaves add. Where penalties were tried, `model.json` has the chosen one, and at the bank the error of each. Of a
scorecard it has the WoE columns too, and the files of `party.card` lie beside it; so do those of
`party.correlation_files`, and at the bank, under terms of governance, those of `party.score_notes`. `shift.json` has
the stability index of each own column against the party's reference, and which were left out for it. `people.key` and
`people.npz` say whose data the run used (`party.run_people`), `expires.json` until when all of it is kept. The results
of an earlier run of the same contract are kept beside it, as `model-RUN`.

Of a run that counts common customers every party keeps one file, `overlap.json`: the bands, and no number besides.
"""

import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.canonical import digest
from fedmkt.crypto.prg import derive
from fedmkt.learn import boosting, glm, trees
from fedmkt.learn.additive import Additive
from fedmkt.learn.bins import Binning
from fedmkt.learn.shapes import shapes
from fedmkt.learn.trees import Outline, Part
from fedmkt.learn.woe import WoeColumns
from fedmkt.party.card import card_files, points_of
from fedmkt.party.correlation_files import write_correlation_files
from fedmkt.party.events import Event
from fedmkt.party.handle import Party
from fedmkt.party.journal import write_atomically
from fedmkt.party.policy import Policy
from fedmkt.party.release import EXPIRES, Release, retention_of, write_expiry
from fedmkt.party.run_people import JointRows
from fedmkt.party.score_notes import Notes, notes_of
from fedmkt.party.table import Table
from fedmkt.protocol.alignment.align import Slots, Split, Validation
from fedmkt.protocol.alignment.cardinality import Measured, Overlaps
from fedmkt.protocol.alignment.items import NO_ROW, Known
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.protocol.linear.path import Curve
from fedmkt.protocol.linear.penalties import Trial, penalty_at
from fedmkt.protocol.linear.predictor import Weights
from fedmkt.protocol.linear.scoring import OwnWeights, Released
from fedmkt.protocol.linear.targets import Units, known_rows, offsets
from fedmkt.protocol.prepare import (
    Columns,
    OwnEvidence,
    Prepared,
    prepared_rows,
    read_fitted,
    real,
    take,
    weighed,
    with_known,
)
from fedmkt.protocol.scorecard.totals import OwnBins
from fedmkt.protocol.shift import OwnShift
from fedmkt.protocol.trees.nothing.blind_boosting import LeafShares
from fedmkt.protocol.trees.sides.boosting import OwnSplits
from fedmkt.protocol.trees.sides.tree_growth import Draws, Forest, settings_of
from fedmkt.protocol.trees.tree_columns import common_bins, table_of

Array = NDArray[np.generic]
Floats = NDArray[np.float64]
RUN_DIGITS = 16
SHIFT = "shift.json"
"""How far own columns moved from the party's reference, beside the model."""
LEAF_SHARES = "leaf_shares.npy"
"""The own shares of the leaves' values of trees in mode nothing, (trees, leaves), beside the model."""


@dataclass(frozen=True)
class ModelFiles:
    """What a party holds of the model: what goes into model.json, and arrays by name."""

    header: dict[str, object]
    arrays: dict[str, Array]


def write_outputs(party: Party, folder: Path, table: Table, policy: Policy, release: Release) -> list[Event]:
    """Write the own part of the model, and at the bank its scores; returns what to log.

    PolicyRefused, before anything is written, if the scores lack what must be kept beside them. Who withdrew or opted
    out since the table was opened gets no score.
    """
    with release.alone(table):
        return _write_outputs(party, folder, table, policy, release)


def _write_outputs(party: Party, folder: Path, table: Table, policy: Policy, release: Release) -> list[Event]:
    gone, left = release.left(table)
    scored = _scored(party) if party.holds(Released) else None
    if scored is not None:
        rates, explained = (scored.notes.rates, scored.notes.explains_all) if scored.notes else ({}, False)
        policy.check_scores(party.contract, rates, explained)
    _set_aside(folder, party.run.hex())
    kind = party.contract.model.kind
    found = _tree_files(party) if kind == "trees" else _linear_files(party)
    header = {
        "version": 1,
        "party": party.me,
        "contract": digest(party.contract).hex(),
        "run": party.run.hex(),
        **found.header,
    }
    split = party.recall(Split)
    arrays = found.arrays | {
        "train": real(split.train), "held_out": real(split.held_out), "unlabelled": real(split.unlabelled),
    }  # fmt: skip
    if party.holds(Validation):
        slots = party.recall(Slots).train if party.holds(Slots) else split.train
        arrays["validates"] = party.recall(Validation).rows[slots != NO_ROW]
    for name, array in arrays.items():
        write_array(folder / f"{name}.npy", array)
    if party.holds(OwnShift):
        write_atomically(folder / SHIFT, _shift_facts(party.recall(OwnShift)))
    if kind == "scorecard":
        for name, data in card_files(party).items():
            write_atomically(folder / name, data)
    write_atomically(folder / "model.json", json.dumps(header, ensure_ascii=False).encode())
    if party.holds(OwnWeights):
        _write_shapes(party, folder)
    events: list[Event] = [("model.exported", {"party": party.me, "what": "own share"})]
    write_correlation_files(party, folder)
    used = np.concatenate([real(split.held_out), real(split.unlabelled)])
    if scored is not None:
        kept = ~gone[party.recall(Released).rows]
        used = party.recall(Released).rows[kept]
        for name, data in scored.notes.of_rows(kept).files().items() if scored.notes else ():
            write_atomically(folder / name, data)
        events += [*left, _write_scores(party, folder, table, scored.bank_only, kept)]
    release.keep_people(folder, table, real(split.train), used, gone, _joint(party))
    _write_expiry(party, folder, release)
    return events


def _joint(party: Party) -> JointRows:
    """Return the own row of each joint row of training and of scoring."""
    if party.holds(Slots):
        return JointRows(party.recall(Slots).train, party.recall(Slots).scored)
    split = party.recall(Split)
    return JointRows(split.train, np.concatenate([split.held_out, split.unlabelled]))


def _write_expiry(party: Party, folder: Path, release: Release) -> None:
    kept = retention_of(party.contract, release.policy)
    write_expiry(folder / EXPIRES, party.run.hex(), release.clock().date(), kept)


def _shift_facts(shift: OwnShift) -> bytes:
    """Return the stability index of each own column against the reference, the largest first."""
    found = sorted(zip(shift.names, shift.indices.tolist(), strict=True), key=lambda pair: -pair[1])
    facts = {"columns": {n: round(value, 6) for n, value in found}, "left_out": list(shift.left_out)}
    return json.dumps(facts, ensure_ascii=False, indent=1).encode()


def _linear_files(party: Party) -> ModelFiles:
    prepared = party.recall(Prepared)
    fitted = read_fitted(prepared.preparation)
    header: dict[str, object] = {
        "scale_bits": WEIGHT_BITS,
        "columns": list(fitted.columns),
        "preparation": json.loads(prepared.preparation),
    }
    arrays: dict[str, Array] = {
        "share": party.recall(Weights).w, "transform": prepared.transform, "spread": prepared.spread,
    }  # fmt: skip
    if party.holds(Slots) and party.holds(Released):
        arrays |= _places(party.recall(Slots), party.recall(Split))
    if party.holds(Known):
        arrays["known"] = party.recall(Known).rows
    if party.holds(OwnWeights):
        arrays["own_weights"] = party.recall(OwnWeights).values
    if party.holds(Trial):
        header["penalty"] = _penalty(party)
    if party.holds(Curve):
        curve = party.recall(Curve)
        errors = zip(party.contract.model.path, curve.errors.tolist(), strict=True)
        header["penalties"] = {"rows": curve.rows, "errors": [list(pair) for pair in errors]}
    if party.holds(OwnEvidence):
        header["evidence"] = json.loads(party.recall(OwnEvidence).columns)
    return ModelFiles(header, arrays)


def _penalty(party: Party) -> float:
    """Return the penalty of the model, which may be one of several that were tried."""
    return penalty_at(party.contract, party.recall(Trial) if party.holds(Trial) else None)


def _tree_files(party: Party) -> ModelFiles:
    """Return bins and splits of the own columns; at the bank also the trees' outline and the key of their draws."""
    binning = Binning.from_json(party.recall(OwnBins).binning)
    header: dict[str, object] = {
        "kind": "trees",
        "columns": [bins.name for bins in binning.columns],
        "binning": json.loads(binning.to_json()),
    }
    bins = common_bins(party.contract)
    arrays: dict[str, Array] = {}
    if party.holds(LeafShares):
        arrays[LEAF_SHARES.removesuffix(".npy")] = party.recall(LeafShares).words
    if not party.holds(Forest):
        own = Part(party.me, bins, party.recall(OwnSplits).trees)
        return ModelFiles(header | {"part": json.loads(own.to_json())}, arrays)
    forest = party.recall(Forest)
    own, outline = Part(party.me, bins, forest.decisions), Outline(forest.base, forest.trees)
    model = {"part": json.loads(own.to_json()), "outline": json.loads(outline.to_json())}
    if party.holds(Known):
        arrays["known"] = party.recall(Known).rows
    return ModelFiles(header | model | {"draws": forest.key.hex()}, arrays)


def _write_shapes(party: Party, folder: Path) -> None:
    """Write the functions of the own columns of an additive model, evaluated and weighed on the own train rows."""
    prepared, own = party.recall(Prepared), party.recall(OwnWeights).values
    fitted = read_fitted(prepared.preparation)
    if not isinstance(fitted, Additive):
        return
    weights = prepared.transform @ own[len(own) - len(prepared.spread) :]  # the bank's intercept comes first
    columns = party.recall(Columns)
    if party.holds(Known):
        columns = with_known(columns, party.recall(Known).rows)
    found = shapes(fitted, weights, *take(columns, real(party.recall(Split).train)))
    facts = {"version": 1, "party": party.me, **asdict(found)}
    write_atomically(folder / "shapes.json", json.dumps(facts, ensure_ascii=False).encode())


def _places(slots: Slots, split: Split) -> dict[str, Array]:
    """Return where the bank's train and held-out rows stand among the joint rows."""
    order = np.argsort(slots.scored)
    held_out = order[np.searchsorted(slots.scored, split.held_out, sorter=order)]
    return {"train_slots": np.flatnonzero(slots.train != NO_ROW), "held_out_slots": held_out}


def write_overlap(party: Party, path: Path, release: Release) -> list[Event]:
    """Write what the run told everybody; returns what to log: it is in the log already."""
    facts = {
        "version": 1,
        "contract": digest(party.contract).hex(),
        "run": party.run.hex(),
        "overlap": pair_facts(party.recall(Measured).overlaps),
    }
    write_atomically(path, json.dumps(facts, indent=1).encode())
    _write_expiry(party, path.parent, release)
    return []


def pair_facts(overlaps: Overlaps) -> list[dict[str, object]]:
    """Give the bands as plain data: of each partner, the common customers and the percentage of the bank's list."""
    return [
        {"partner": p.partner, "common": [p.low, p.high], "rate": [p.rate.low, p.rate.high]}
        for p in overlaps.pairs
    ]


def _set_aside(folder: Path, run: str) -> None:
    """Give the results of an earlier run a name of their own; those of a run that is closed again are replaced."""
    try:
        before = str(json.loads((folder / "model.json").read_bytes())["run"])
    except FileNotFoundError:
        return  # none, or what a killed process had begun to write
    if before != run:
        os.rename(folder, folder.with_name(f"{folder.name}-{before[:RUN_DIGITS]}"))


def write_array(path: Path, array: Array) -> None:
    """Write one array as .npy, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class _Scored:
    """The released rows scored by the bank's columns alone; notes : under terms of governance."""

    bank_only: Floats
    notes: Notes | None


def _scored(party: Party) -> _Scored:
    alone = _trees_alone(party) if party.contract.model.kind == "trees" else _linear_alone(party)
    columns, released = party.recall(Columns), party.recall(Released)
    notes = None
    if party.contract.governance is not None:
        scores = released.units / 10.0**released.decimals
        if party.holds(Units):
            units = party.recall(Units)
            scores = units.center + units.spread * scores
        train = real(party.recall(Split).train)
        notes = notes_of(party.contract, columns, train, released.rows, scores, alone)
    return _Scored(alone(columns), notes)


def _linear_alone(party: Party) -> Callable[[Columns], Floats]:
    """Fit a model of the bank's own columns on the same train rows; it gives the scores of the released rows."""
    fitted = read_fitted(party.recall(Prepared).preparation)
    train, rows = real(party.recall(Split).train), party.recall(Released).rows
    model, scale = party.contract.model, party.recall(Units).scale

    def shaped(columns: Columns) -> Columns:
        if party.holds(Known):  # the bank alone would not know whom the partner has
            columns = with_known(columns, np.zeros_like(party.recall(Known).rows))
        if party.holds(OwnEvidence):
            columns = weighed(columns, WoeColumns.from_json(party.recall(OwnEvidence).columns))
        return columns

    own_columns = shaped(party.recall(Columns))
    known = scale.rows(known_rows(model, own_columns, train))
    own = glm.fit(model.link, prepared_rows(fitted, own_columns, train), known, _penalty(party))

    def predict(columns: Columns) -> Floats:
        columns = shaped(columns)
        offset = scale.offsets(offsets(columns, rows))
        return scale.labels(glm.predict(own, prepared_rows(fitted, columns, rows), model.link, offset))

    return predict


def _trees_alone(party: Party) -> Callable[[Columns], Floats]:
    """Return the same for trees of the same settings."""
    binning = Binning.from_json(party.recall(OwnBins).binning)
    columns, train = party.recall(Columns), real(party.recall(Split).train)
    draws = Draws(derive(party.recall(Forest).key, b"fedmkt trees of the bank alone"))
    own = table_of(party.contract, party.me, binning, columns, train)
    validates = party.recall(Validation).rows[: len(train)] if party.holds(Validation) else None
    rows = boosting.divided(boosting.Labelled(own, _label(columns)[train]), validates)
    fitted = boosting.fit(rows.train, settings_of(party.contract), draws, rows.held)

    def predict(columns: Columns) -> Floats:
        scored = table_of(party.contract, party.me, binning, columns, party.recall(Released).rows)
        return trees.predict(fitted.model, {party.me: scored})

    return predict


def _label(columns: Columns) -> Floats:
    if columns.label is None:
        raise ValueError("scores are released to the bank only")
    return columns.label


def _write_scores(
    party: Party, folder: Path, table: Table, bank_only: Floats, kept: NDArray[np.bool_]
) -> Event:
    """Write the released scores with the bank's own comparison. kept : of the released rows, who is still in."""
    released = party.recall(Released)
    rows = released.rows[kept]
    center, spread = (u.center, u.spread) if party.holds(Units) and (u := party.recall(Units)) else (0.0, 1.0)
    points = {"points": points_of(party.contract, released)[kept]} if party.holds(OwnEvidence) else {}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        rows=rows,
        file_rows=table.rows[rows],
        units=released.units[kept],
        decimals=np.array(released.decimals),
        held_out=np.flatnonzero(kept) < released.held_out,
        label=_label(party.recall(Columns))[rows],
        bank_only=bank_only[kept],
        kind=np.array(party.contract.model.link),
        center=np.array(center),
        spread=np.array(spread),
        **points,  # type: ignore[arg-type]  # its name is none of numpy's own options
    )
    write_atomically(folder / "scores.npz", buffer.getvalue())
    return (
        "scores.released",
        {"decimals": released.decimals, "rows_up_to": -(-len(rows) // 100) * 100},
    )
