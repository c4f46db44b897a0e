"""The bank's scores as a file: what the run released to it, with decile and calibrated probability.

Only stored values are written: the run released one rounded score per row, once, and nothing here asks for
more.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from fedmkt.errors import ConfigError, DataError
from fedmkt.learn.calibration import deciles, fit_calibration
from fedmkt.party.journal import write_atomically
from fedmkt.simulation.logs import read_contract
from fedmkt.simulation.results import ReleasedScores, read_scores

FORMATS = ("csv", "parquet")


def score(run: Path, format: str = "csv", out: Path | None = None) -> Path:
    """Write the scores that a run released to its bank, best first; returns the file's path.

    Columns: row (line of the bank's CSV file, number in a Parquet file), set ("held-out" or "unlabelled"),
    score as released, decile (1 = best) and probability, calibrated on the held-out rows. format : "csv" or
    "parquet". out : a file; by default in the bank's folder of the run.
    """
    if format not in FORMATS:
        raise ConfigError(f"format = {format!r}: accepted: {', '.join(FORMATS)}")
    bank = read_contract(run).bank.name
    path = out or run / "parties" / bank / f"scores.{format}"
    if path.is_dir():
        raise ConfigError(f"{path}: a folder; accepted: the name of a file")
    scores = read_scores(run, bank)
    table = tabulate(scores)
    data = _csv(table, scores.decimals) if format == "csv" else _parquet(table)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give a file that can be written with --out") from None
    return path


def tabulate(scores: ReleasedScores) -> pa.Table:
    """Put decile and calibrated probability beside each released score, best scores first."""
    held, step = scores.held_out, 10.0**-scores.decimals
    try:
        calibration = fit_calibration(scores.rounded[held], scores.label[held], step)
    except ValueError as error:
        raise DataError(f"the scores cannot be calibrated: {error}") from None
    columns = {
        "row": scores.file_rows,
        "set": np.where(held, "held-out", "unlabelled"),
        "score": scores.rounded,
        "decile": deciles(scores.rounded),
        "probability": np.round(calibration.apply(scores.rounded), 6),
    }
    order = np.lexsort((scores.file_rows, -scores.rounded))
    return pa.table({name: pa.array(values[order]) for name, values in columns.items()})


def _csv(table: pa.Table, decimals: int) -> bytes:
    # No cell begins with a sign that a spreadsheet would run: numbers from 0 up and two fixed words only.
    rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    lines = [f"{row},{kind},{s:.{decimals}f},{decile},{p:.6f}" for row, kind, s, decile, p in rows]
    return ("\n".join([",".join(table.column_names), *lines]) + "\n").encode()


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()
