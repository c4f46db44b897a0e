"""What an approver does: approve a contract, or deny it with a reason, with a key that is used once and not kept."""

from dataclasses import dataclass
from pathlib import Path

from fedmkt.console.shelf import Entry
from fedmkt.console.visit import Answer, Visit, redirect
from fedmkt.contract.governance import Approver
from fedmkt.crypto.key_file import from_pem, is_encrypted
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.life import approve as write_approval
from fedmkt.deploy.life import deny as write_denial
from fedmkt.errors import ConfigError, PolicyRefused


@dataclass(frozen=True)
class _Opened:
    """A contract that people may still decide on, and one of them by the key that was given."""

    file: Path
    entry: Entry
    approver: Approver
    identity: Identity


def approve(visit: Visit) -> Answer:
    """Write an approval of the contract whose digest stands in the address, as `fedmkt contract approve` does."""
    opened = _opened(visit)
    if visit.form.text("read") != "yes":
        raise ConfigError("confirm that you have read the contract")
    write_approval(opened.file, opened.entry.contract, opened.approver, opened.identity, visit.now)
    return redirect(f"/contracts/{opened.entry.digest}")


def deny(visit: Visit) -> Answer:
    """Write a denial with its reason, as `fedmkt contract deny` does."""
    opened, reason = _opened(visit), visit.form.text("reason")
    write_denial(opened.file, opened.entry.contract, opened.approver, opened.identity, visit.now, reason)
    return redirect(f"/contracts/{opened.entry.digest}")


def _opened(visit: Visit) -> _Opened:
    """Find the contract that was shown and the person whose key was given; refused for a key that it does not have."""
    entry = visit.shelf.contract(visit.ids["contract"])
    terms = entry.contract.governance
    if entry.file is None or terms is None or not entry.is_open(visit.now):
        raise PolicyRefused("nobody decides on this contract any more")
    identity = _identity(visit)
    found = [approver for approver in terms.approvers if approver.key == identity.public.hex()]
    if len(found) != 1:
        raise PolicyRefused(
            "the contract names nobody with this key",
            "take the key whose public half stands in [[governance.approvers]]",
        )
    return _Opened(entry.file, entry, found[0], identity)


def _identity(visit: Visit) -> Identity:
    data = visit.form.data("key")
    if not data:
        raise ConfigError("choose your key file")
    try:
        return from_pem(data, visit.form.text("passphrase") if is_encrypted(data) else None)
    except ValueError as error:
        raise ConfigError(f"your key: {error}") from None
