"""The job of three signers with terms of governance, and the people who approve for bank and shop."""

from pathlib import Path

from fedmkt.crypto.key_file import to_pem
from fedmkt.crypto.sign import Identity
from tests.deploy.signers import JOB, write_all

PEOPLE = {
    ("bank", "ann", "data-owner"): Identity(b"\x31" * 32),
    ("bank", "ben", "compliance"): Identity(b"\x32" * 32),
    ("shop", "cleo", "data-owner"): Identity(b"\x33" * 32),
    ("shop", "dan", "compliance"): Identity(b"\x34" * 32),
}
TERMS = """
[governance]
countries = ["CN"]
locations = { bank = "CN", shop = "CN", relay = "CN" }
[governance.impact]
sha256 = "abababababababababababababababababababababababababababababababab"
purpose = "cards"
parties = ["bank", "shop"]
expires = 2036-01-01T00:00:00Z
[[governance.datasets]]
party = "bank"
name = "customers of the bank"
people = "customers who agreed to letters"
purposes = ["cards"]
basis = ["PIPL-13-1"]
columns = [
    { name = "age", level = 2, category = "C1", kind = "demography" },
    { name = "answered", level = 3, category = "C2", kind = "answer to a campaign" },
]
[[governance.datasets]]
party = "shop"
name = "buyers"
people = "buyers who agreed to letters"
purposes = ["cards"]
basis = ["PIPL-13-1"]
columns = [
    { name = "spent", level = 3, category = "C2", kind = "purchases" },
    { name = "device", level = 2, category = "C1", kind = "device" },
]
[[governance.recipients]]
result = "scores"
to = "bank"
use = "letters"
"""


def approvers() -> str:
    """Write the approvers as a job has them."""
    return "".join(
        f'[[governance.approvers]]\nname = "{name}"\nparty = "{party}"\nrole = "{role}"\n'
        f'key = "{identity.public.hex()}"\n'
        for (party, name, role), identity in PEOPLE.items()
    )


GOVERNED = JOB + TERMS + approvers()


def write_governed(folder: Path) -> None:
    """Write the folders of the signers, the job, and the key of each person as NAME.key."""
    write_all(folder)
    (folder / "job.toml").write_text(GOVERNED)
    for (_, name, _), identity in PEOPLE.items():
        path = folder / f"{name}.key"
        path.write_bytes(to_pem(identity, None))
        path.chmod(0o600)
