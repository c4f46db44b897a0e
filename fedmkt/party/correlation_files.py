"""What a run leaves of correlations and standard errors, where the contract lists them.

`correlation.json`, at the bank: the matrix of all parties' prepared columns and the variance inflation of each.
`coefficients.json`, at each party: of each own prepared column the weight, its standard error, z and p-value; null
where there is none.
"""

import json
from pathlib import Path

import numpy as np

from fedmkt.contract.canonical import digest
from fedmkt.learn import collinear, inference, prepare
from fedmkt.party.handle import Party
from fedmkt.party.journal import write_atomically
from fedmkt.protocol.linear.correlation import DECIMALS, Correlations
from fedmkt.protocol.linear.scoring import OwnWeights
from fedmkt.protocol.linear.standard_errors import OwnErrors
from fedmkt.protocol.prepare import Prepared

_TESTED = ("weight", "error", "z", "p")


def write_correlation_files(party: Party, folder: Path) -> None:
    """Write what the party holds of the two into its model folder; nothing where it holds none."""
    if party.holds(Correlations):
        _write_correlation(party, folder)
    if party.holds(OwnErrors):
        _write_coefficients(party, folder)


def _write_coefficients(party: Party, folder: Path) -> None:
    """Write the own weights on prepared columns with their standard errors; null where there is none."""
    prepared, errors = party.recall(Prepared), party.recall(OwnErrors).values
    names, transform = prepare.Preparation.from_json(prepared.preparation).columns, prepared.transform
    weights = transform @ party.recall(OwnWeights).values[-len(transform) :]
    tested = inference.wald(weights, errors)
    columns = [
        {"name": n, **{k: float(v) if np.isfinite(v) else None for k, v in zip(_TESTED, row, strict=True)}}
        for n, row in zip(names, zip(weights, errors, tested.z, tested.p, strict=True), strict=True)
    ]
    facts = {"version": 1, "run": party.run.hex(), "columns": columns}
    write_atomically(folder / "coefficients.json", json.dumps(facts, ensure_ascii=False).encode())


def _write_correlation(party: Party, folder: Path) -> None:
    """Write the correlations that the bank received; a VIF is null where other columns make a column up."""
    found = party.recall(Correlations)
    noise = collinear.rounding_noise(len(found.names), DECIMALS)
    inflation = collinear.variance_inflation(found.matrix, noise)
    names = [f"{owner}: {name}" for owner, name in zip(found.owners, found.names, strict=True)]
    facts = {
        "version": 1,
        "contract": digest(party.contract).hex(),
        "run": party.run.hex(),
        "rows": found.rows,
        "decimals": DECIMALS,
        "columns": [
            {"owner": owner, "name": name, "vif": float(v) if np.isfinite(v) else None}
            for owner, name, v in zip(found.owners, found.names, inflation, strict=True)
        ],
        "matrix": found.matrix.tolist(),
        "warnings": collinear.warnings(names, found.matrix, noise),
    }
    write_atomically(folder / "correlation.json", json.dumps(facts, ensure_ascii=False).encode())
