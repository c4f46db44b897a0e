"""Correlations between the parties' columns, as the bank's page shows them: from the file that a run left."""

import json
from pathlib import Path

import numpy as np

from fedmkt.errors import ConfigError
from fedmkt.learn.collinear import near_copies
from fedmkt.report.summary import CorrelatedPair, CorrelationTable, InflatedColumn

FILE = "correlation.json"
_SHOWN = 10


def read_correlation(model: Path) -> CorrelationTable | None:
    """Read the bank's model folder: the strongest correlations across parties, and the largest inflations.

    None where the contract does not list `CrossCorrelation`; ConfigError for a file that no run wrote.
    """
    path = model / FILE
    try:
        facts = json.loads(path.read_bytes())
        owners = [str(c["owner"]) for c in facts["columns"]]
        names = [f"{c['owner']}: {c['name']}" for c in facts["columns"]]
        found = [
            InflatedColumn(n, _inflation(c["vif"])) for n, c in zip(names, facts["columns"], strict=True)
        ]
        pairs = near_copies(np.array(facts["matrix"], dtype=np.float64), 0.0)
        crossing = tuple(
            CorrelatedPair(names[p.first], names[p.second], p.correlation)
            for p in pairs
            if owners[p.first] != owners[p.second]
        )
        rows, warnings = int(facts["rows"]), tuple(str(w) for w in facts["warnings"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise ConfigError(f"{path}: not what a run wrote") from None
    largest = sorted(found, key=lambda c: -(float("inf") if c.inflation is None else c.inflation))
    return CorrelationTable(rows, crossing[:_SHOWN], tuple(largest[:_SHOWN]), warnings)


def _inflation(value: object) -> float | None:
    return None if value is None else float(str(value))
