"""The bank's scores: as a file with decile and calibrated probability, and measured on held-out rows.

Only stored values are used: the run released one rounded score per row, once, and nothing here asks for more.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from fedmkt.contract.agreement import Limits
from fedmkt.errors import ConfigError, DataError
from fedmkt.learn.calibration import deciles, fit_calibration
from fedmkt.learn.metrics import Interval, Metrics, Random, auc_gain_interval
from fedmkt.learn.regression import ValueFit, evaluate_values
from fedmkt.party.journal import write_atomically
from fedmkt.party.run_people import read_left
from fedmkt.report.folder import find_files
from fedmkt.report.summary import ModelResult, ValueModels, measure_model

FORMATS = ("csv", "parquet")
_FEW_RESPONDERS = 100


@dataclass(frozen=True)
class ReleasedScores:
    """What the bank got: one line per row; `held_out` rows have a label, the others may not.

    file_rows : line of a CSV file or number in a Parquet file; rounded : (n,) in [0, 1], or of another kind of model
    than `logistic` in the label's own unit; step : between two scores that follow each other; points : of a scorecard;
    places : where each stands in the files of the run, which have those who left since too
    """

    file_rows: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    label: NDArray[np.float64]
    rounded: NDArray[np.float64]
    bank_only: NDArray[np.float64]
    decimals: int
    kind: str
    step: float
    points: NDArray[np.int64] | None = None
    places: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Measured:
    """What the bank itself can measure on its held-out rows: its own model and the joint one's released scores."""

    bank: ModelResult
    joint: ModelResult
    gain: Interval


def read_scores(model: Path) -> ReleasedScores:
    """Read the scores from the bank's model folder, without those of who left since; ConfigError if there are none."""
    path = model / "scores.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            decimals = int(stored["decimals"])
            kind, center, spread = _units(stored)
            left = read_left(model).gone
            kept = ~left if len(left) else np.ones(len(stored["file_rows"]), np.bool_)
            points = stored.get("points")
            return ReleasedScores(
                stored["file_rows"][kept], stored["held_out"][kept], stored["label"][kept],
                center + spread * (stored["units"][kept] / 10.0**decimals), stored["bank_only"][kept], decimals,
                kind, spread / 10.0**decimals, None if points is None else points[kept],
                np.flatnonzero(kept),
            )  # fmt: skip
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror or 'not readable'}", "give the folder of a finished run"
        ) from None
    except (ValueError, KeyError, EOFError, BadZipFile):
        raise ConfigError(f"{path}: not the scores that a run wrote") from None


def _units(stored: Mapping[str, NDArray[np.generic]]) -> tuple[str, float, float]:
    """Return kind of model and units of its scores; of a run before there were several kinds, probabilities."""
    if "kind" not in stored:
        return "logistic", 0.0, 1.0
    return str(stored["kind"]), float(stored["center"]), float(stored["spread"])


def measure_values(scores: ReleasedScores) -> ValueModels:
    """Measure both models on the held-out rows, where labels are numbers or counts."""
    held, counts = scores.held_out, scores.kind == "poisson"
    y, bank, joint = scores.label[held], scores.bank_only[held], scores.rounded[held]
    return ValueModels(
        scores.kind,
        evaluate_values(y, bank, counts, scores.step / 2),
        evaluate_values(y, joint, counts, scores.step / 2),
    )


def measure(scores: ReleasedScores, random: Random) -> Measured:
    """Measure both models on the held-out rows."""
    held = scores.held_out
    y, bank, joint = scores.label[held], scores.bank_only[held], scores.rounded[held]
    return Measured(
        measure_model(y, bank, random), measure_model(y, joint, random), auc_gain_interval(y, bank, joint)
    )


def names_of_lowered(limits: Limits) -> list[str]:
    """Name the minimum sizes that are below the usual ones."""
    usual = Limits()
    return [n for n in ("min_list", "min_common", "min_support") if getattr(limits, n) < getattr(usual, n)]


def lowered_limits(limits: Limits) -> list[str]:
    """Warn of minimum sizes below the usual ones."""
    lowered = names_of_lowered(limits)
    if not lowered:
        return []
    return [f"Minimum sizes are lowered in this job ({', '.join(lowered)}): small groups tell more."]


def few_responders(joint: Metrics | ValueFit) -> list[str]:
    """Warn of figures that rest on few rows."""
    if isinstance(joint, ValueFit):
        if joint.rows >= _FEW_RESPONDERS:
            return []
        return [f"Only {joint.rows} customers are held out: the figures are rough."]
    if joint.responders >= _FEW_RESPONDERS:
        return []
    return [f"Only {joint.responders} responders are held out: the figures are rough."]


def score(run: Path, format: str = "csv", out: Path | None = None) -> Path:
    """Write the scores that a run released to its bank, best first; returns the file's path.

    run : the folder of a simulation, or the bank's own. Columns: row (line of the bank's CSV file, number in a
    Parquet file), set ("held-out" or "unlabelled"), score as released, decile (1 = best) and probability,
    calibrated on the held-out rows; of a scorecard points too. format : "csv" or "parquet". out : a file; by default
    in the bank's folder of the run.
    """
    if format not in FORMATS:
        raise ConfigError(f"format = {format!r}: accepted: {', '.join(FORMATS)}")
    from fedmkt.deploy.ended import ended_at
    from fedmkt.deploy.rights import recheck

    files = find_files(run)
    bank = files.contract.bank.name
    model = files.model(bank)
    # Of an organisation's runs each has results of its own, which move on together.
    path = out or (model if files.owner else model.parent) / f"scores.{format}"
    if path.is_dir():
        raise ConfigError(f"{path}: a folder; accepted: the name of a file")
    ended_at(files)
    recheck(files, datetime.now(UTC).date())
    scores = read_scores(model)
    table = tabulate(scores)
    data = _csv(table, scores.decimals) if format == "csv" else _parquet(table)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give a file that can be written with --out") from None
    return path


def tabulate(scores: ReleasedScores) -> pa.Table:
    """Put decile, and calibrated probability if it is one, beside each released score, best scores first."""
    if scores.kind != "logistic":
        return _in_order(scores, {})
    held, step = scores.held_out, 10.0**-scores.decimals
    try:
        calibration = fit_calibration(scores.rounded[held], scores.label[held], step)
    except ValueError as error:
        raise DataError(f"the scores cannot be calibrated: {error}") from None
    return _in_order(scores, {"probability": np.round(calibration.apply(scores.rounded), 6)})


def _in_order(scores: ReleasedScores, more: Mapping[str, NDArray[np.float64]]) -> pa.Table:
    columns = {
        "row": scores.file_rows,
        "set": np.where(scores.held_out, "held-out", "unlabelled"),
        "score": scores.rounded,
        "decile": deciles(scores.rounded),
        **more,
    }
    if scores.points is not None:
        columns["points"] = scores.points
    order = np.lexsort((scores.file_rows, -scores.rounded))
    return pa.table({name: pa.array(values[order]) for name, values in columns.items()})


def _csv(table: pa.Table, decimals: int) -> bytes:
    # No cell begins with a sign that a spreadsheet would run: numbers and two fixed words only.
    # Probabilities have as many decimals as were released; numbers and counts are in a unit of their own.
    score = f".{decimals}f" if "probability" in table.column_names else ".6g"
    written = {"score": score, "probability": ".6f"}
    cells = [
        [format(v, written.get(name, "")) for v in table[name].to_pylist()] for name in table.column_names
    ]
    lines = [",".join(row) for row in zip(*cells, strict=True)]
    return ("\n".join([",".join(table.column_names), *lines]) + "\n").encode()


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()
