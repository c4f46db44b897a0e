"""Folders of three signers and the job that they agree to, as files."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from fedmkt.crypto.sign import Identity
from fedmkt.deploy.registry import Admission, Registry

IDENTITIES = {name: Identity(bytes([i + 1]) * 32) for i, name in enumerate(("bank", "shop", "relay"))}
KEYS = {name: identity.public.hex() for name, identity in IDENTITIES.items()}
EVE = Identity(b"e" * 32)
ORGANISATIONS = {"bank": "First Bank", "shop": "Shop GmbH", "relay": "Notary AG"}
JOB = """
name = "spring"
purpose = "cards"
[bank]
name = "bank"
organisation = "First Bank"
file = "bank.csv"
id = "phone"
id_kind = "phone"
label = "answered"
numbers = ["age"]
[[partners]]
name = "shop"
organisation = "Shop GmbH"
file = "shop.csv"
id = "tel"
id_kind = "phone"
numbers = ["spent"]
categories = ["device"]
[coordinator]
name = "relay"
organisation = "Notary AG"
"""
SCHEMAS = {
    "bank": 'file = "b.csv"\nid = "phone"\nid_kind = "phone"\nnumbers = ["age"]\nlabel = "answered"\n',
    "shop": 'file = "s.csv"\nid = "tel"\nid_kind = "phone"\nnumbers = ["spent"]\ncategories = ["device"]\n',
}
COLUMNS = {"bank": ["age", "answered"], "shop": ["spent", "device"]}


def write_party(folder: Path, name: str, pinned: Mapping[str, str] = KEYS, policy: str = "") -> Path:
    """Write a party's folder that agrees to the job; `policy` : more lines of policy.toml."""
    keys = folder / "keys"
    keys.mkdir(parents=True, mode=0o700)
    pins = "".join(f'{signer} = "{key}"\n' for signer, key in pinned.items())
    (folder / "party.toml").write_text(
        f'name = "{name}"\norganisation = "{ORGANISATIONS[name]}"\n[pinned]\n{pins}'
    )
    columns = json.dumps(COLUMNS[name])
    (folder / "policy.toml").write_text(f'purposes = ["cards"]\ncolumns = {columns}\n{policy}')
    (folder / "schema.toml").write_text(SCHEMAS[name])
    return _with_identity(folder, IDENTITIES[name])


def write_coordinator(folder: Path, organisation: str = ORGANISATIONS["relay"]) -> Path:
    """Write a coordinator's folder that admitted bank and shop and agrees to the job."""
    (folder / "keys").mkdir(parents=True, mode=0o700)
    (folder / "coordinator.toml").write_text(
        f'name = "relay"\norganisation = "{organisation}"\nhost = "localhost"\n[policy]\npurposes = ["cards"]\n'
    )
    (folder / "registry.json").write_text(
        Registry(parties=tuple(map(_admitted, ("bank", "shop")))).model_dump_json()
    )
    return _with_identity(folder, IDENTITIES["relay"])


def _with_identity(folder: Path, identity: Identity) -> Path:
    path = folder / "keys" / "identity.key"
    path.write_bytes(identity.secret_bytes())
    path.chmod(0o600)
    return folder


def _admitted(name: str) -> Admission:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    return Admission(
        name=name,
        organisation=ORGANISATIONS[name],
        identity=KEYS[name],
        node="ecdsa-sha2-nistp384 AAAA",
        serial="0" * 40,
        request="00" * 32,
        requested=moment,
        admitted=moment,
        expires=datetime(2035, 1, 1, tzinfo=UTC),
    )


def write_all(folder: Path) -> dict[str, Path]:
    """Write the folders of all three signers."""
    parties = {name: write_party(folder / name, name) for name in ("bank", "shop")}
    return parties | {"relay": write_coordinator(folder / "relay")}
