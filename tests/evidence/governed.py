"""A run under terms of governance, on a small invented world with planted ids and values, and its folder."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fedmkt.contract.governance import Approver
from fedmkt.simulation.run import RunResult, simulate
from fedmkt.simulation.world import generate, write_world

PLANTED_ID = "13800138001"
PLANTED_VALUE = "48613.97"
PLANTED_LEVEL = "xanadu-planted"

TERMS = """
[governance]
locations = { bank = "CN", partner = "CN", coordinator = "SG" }
countries = ["CN", "SG"]
use = "service"
suite = "standard+ml-dsa-44"
groups = ["region"]

[[governance.datasets]]
party = "bank"
name = "customers <b>with</b> a | phone"
people = "customers of the bank"
purposes = ["marketing-response"]
basis = ["PIPL-13-1", "GDPR-6-1-a"]
sensitive_basis = ["PIPL-29"]
retention_days = 200
columns = [
    { name = "age", level = 2, category = "C1", kind = "demography" },
    { name = "balance", level = 3, category = "C2", kind = "account", sensitive = true },
    { name = "tenure_years", kind = "relation" },
    { name = "products", level = 2, kind = "relation" },
    { name = "card_payments", level = 2, kind = "account" },
    { name = "job", level = 2, kind = "demography" },
    { name = "region", level = 2, kind = "demography" },
    { name = "has_loan", level = 2, kind = "account" },
    { name = "responded", level = 2, kind = "answer" },
]

[[governance.datasets]]
party = "partner"
name = "buyers"
people = "customers of the shop"
purposes = ["marketing-response"]
basis = ["PIPL-13-1"]
columns = [
    { name = "orders", level = 2, kind = "purchases" },
    { name = "spend", level = 2, kind = "purchases" },
    { name = "days_since_order", level = 2, kind = "purchases" },
    { name = "visits", level = 2, kind = "visits" },
    { name = "returns", level = 2, kind = "purchases" },
    { name = "favourite", level = 2, kind = "purchases" },
    { name = "device", level = 2, kind = "visits" },
    { name = "loyalty", level = 2, kind = "relation" },
]

[[governance.recipients]]
result = "scores"
to = "bank"
use = "letters"

[governance.impact]
sha256 = "abababababababababababababababababababababababababababababababab"
purpose = "marketing-response"
parties = ["bank", "partner"]
expires = 2031-01-01T00:00:00Z

[governance.transfer]
sha256 = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
purpose = "marketing-response"
parties = ["bank", "partner"]
expires = 2031-01-01T00:00:00Z
"""


def governed_run(folder: Path, approvers: Iterable[Approver] = ()) -> RunResult:
    """Run the small job with terms and planted values; the folder is `folder`/run. A rehearsal if it has approvers."""
    job = write_world(generate(3, 1000, 1200, 700), folder / "files", minimum=300)
    people = "".join(
        f'[[governance.approvers]]\nname = "{a.name}"\nparty = "{a.party}"\nrole = "{a.role}"\nkey = "{a.key}"\n'
        for a in approvers
    )
    head = "rehearsal = true\n" if people else ""
    job.write_text(head + job.read_text() + TERMS + people)
    for name, number, level in (("bank", "balance", "job"), ("partner", "spend", "favourite")):
        path = folder / "files" / f"{name}.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.loc[0, ["phone", number, level]] = [PLANTED_ID, PLANTED_VALUE, PLANTED_LEVEL]
        table.to_csv(path, index=False)
    return simulate(job, out=folder / "run", seed=3)
