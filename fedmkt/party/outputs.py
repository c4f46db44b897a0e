"""What a party keeps of a finished run: its share of the model as plain files, and at the bank the scores.

A model folder holds `model.json` (names, shapes, the fitted preparation) and arrays as .npy files, no pickle:
`share.npy` the own share of all weights (uint64, scale 2^20), `transform.npy` and `spread.npy` the whitening,
`train.npy`, `held_out.npy`, `unlabelled.npy` the own rows in the common order; at the bank of a left join
`known.npy`, which of its customers the partner has. Where the match is hidden the partner's `train.npy` has all rows
that took part, whoever they are, and the bank keeps in `train_slots.npy` and `held_out_slots.npy` where among these
its own stand. At the bank besides:
`scores.npz`. The results of an earlier run of the same contract are kept beside it, as `model-RUN`.

Of a run that counts common customers every party keeps one file, `overlap.json`: the bands, and no number besides.
"""

import io
import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract import digest
from fedmkt.learn import glm, prepare
from fedmkt.party.handle import Event, Party
from fedmkt.party.journal import write_atomically
from fedmkt.party.table import Table
from fedmkt.protocol.align import Slots, Split
from fedmkt.protocol.cardinality import Measured, Overlaps
from fedmkt.protocol.items import NO_ROW, Known
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.protocol.linear import Weights
from fedmkt.protocol.prepare import Columns, Prepared, prepared_rows, real, with_known
from fedmkt.protocol.scoring import OwnWeights, Released

Array = NDArray[np.generic]
RUN_DIGITS = 16


def write_outputs(party: Party, folder: Path, table: Table) -> list[Event]:
    """Write the own model share, and at the bank its scores; returns what to log."""
    _set_aside(folder, party.run.hex())
    prepared, split, weights = party.recall(Prepared), party.recall(Split), party.recall(Weights)
    fitted = prepare.Preparation.from_json(prepared.preparation)
    header = {
        "version": 1,
        "party": party.me,
        "contract": digest(party.contract).hex(),
        "run": party.run.hex(),
        "scale_bits": WEIGHT_BITS,
        "columns": list(fitted.columns),
        "preparation": json.loads(prepared.preparation),
    }
    arrays: dict[str, Array] = {
        "share": weights.w, "transform": prepared.transform, "spread": prepared.spread,
        "train": real(split.train), "held_out": real(split.held_out), "unlabelled": real(split.unlabelled),
    }  # fmt: skip
    if party.holds(Slots) and party.holds(Released):
        arrays |= _places(party.recall(Slots), split)
    if party.holds(Known):
        arrays["known"] = party.recall(Known).rows
    if party.holds(OwnWeights):
        arrays["own_weights"] = party.recall(OwnWeights).values
    for name, array in arrays.items():
        write_array(folder / f"{name}.npy", array)
    write_atomically(folder / "model.json", json.dumps(header, ensure_ascii=False).encode())
    events: list[Event] = [("model.exported", {"party": party.me, "what": "own share"})]
    if party.holds(Released):
        events.append(_write_scores(party, folder, table))
    return events


def _places(slots: Slots, split: Split) -> dict[str, Array]:
    """Return where the bank's train and held-out rows stand among the joint rows."""
    order = np.argsort(slots.scored)
    held_out = order[np.searchsorted(slots.scored, split.held_out, sorter=order)]
    return {"train_slots": np.flatnonzero(slots.train != NO_ROW), "held_out_slots": held_out}


def write_overlap(party: Party, path: Path) -> list[Event]:
    """Write what the run told everybody; returns what to log: it is in the log already."""
    facts = {
        "version": 1,
        "contract": digest(party.contract).hex(),
        "run": party.run.hex(),
        "overlap": pair_facts(party.recall(Measured).overlaps),
    }
    write_atomically(path, json.dumps(facts, indent=1).encode())
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


def _write_scores(party: Party, folder: Path, table: Table) -> Event:
    """Write the released scores with the bank's own comparison: a model of its own columns on the same train rows."""
    released, split, columns = party.recall(Released), party.recall(Split), party.recall(Columns)
    fitted = prepare.Preparation.from_json(party.recall(Prepared).preparation)
    if party.holds(Known):  # the bank alone would not know whom the partner has
        columns = with_known(columns, np.zeros_like(party.recall(Known).rows))
    train, label = real(split.train), columns.label
    if label is None:
        raise ValueError("scores are released to the bank only")
    own = glm.fit_logistic(prepared_rows(fitted, columns, train), label[train], party.contract.model.penalty)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        rows=released.rows,
        file_rows=table.rows[released.rows],
        units=released.units,
        decimals=np.array(released.decimals),
        held_out=np.arange(len(released.rows)) < released.held_out,
        label=label[released.rows],
        bank_only=glm.predict(own, prepared_rows(fitted, columns, released.rows)),
    )
    write_atomically(folder / "scores.npz", buffer.getvalue())
    return (
        "scores.released",
        {"decimals": released.decimals, "rows_up_to": -(-len(released.rows) // 100) * 100},
    )
