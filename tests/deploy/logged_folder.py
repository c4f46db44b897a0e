"""A coordinator's folder with the log of one contract: two runs of four records, 40 days apart, below a head."""

from datetime import timedelta
from pathlib import Path

from fedmkt.audit.checkpoint import log_origin
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import to_toml
from fedmkt.deploy.folders import CoordinatorFolder
from fedmkt.party.audit_log import AuditLog
from fedmkt.party.journal import write_atomically
from tests.audit.conftest import IDENTITIES, NAMES, START, make_contract
from tests.contract.agreed import governance

LATER = START + timedelta(days=50)


def logged_folder(root: Path, days: int | None, own_days: int = 30) -> CoordinatorFolder:
    """Make it. days : that its contract keeps records, None where nothing is agreed; own_days : its policy's."""
    countries = dict.fromkeys(NAMES, "CN")
    terms = governance(locations=countries, retention={"record_days": days}) if days else None
    signed, now = make_contract(terms), [START]
    folder, place = CoordinatorFolder(root), root / "state" / "contracts" / "spring-1"
    settings = [
        'name = "x"',
        'organisation = "X"',
        'host = "x.example"',
        "[policy]",
        f"record_days = {own_days}",
    ]
    write_atomically(folder.config, "\n".join(settings).encode())
    write_atomically(folder.identity, IDENTITIES["bank"].secret_bytes())
    write_atomically(place / "contract.toml", to_toml(signed).encode())
    agreed = digest(signed.contract)
    origin = log_origin(agreed, "bank")
    log = AuditLog(place / "log", origin, IDENTITIES["bank"], lambda: now[0], "", "bank", agreed)
    for run in ("run1", "run2"):
        log.run = run
        log.append_all([("step.completed", {"index": i}) for i in range(4)])
        now[0] += timedelta(days=40)
    log.head()
    log.release()
    return folder


def files_of(folder: CoordinatorFolder) -> dict[str, bytes]:
    """Read contract and log."""
    (root,) = (folder.state / "contracts").iterdir()
    return {path.name: path.read_bytes() for path in [*root.glob("*.toml"), *(root / "log").iterdir()]}
