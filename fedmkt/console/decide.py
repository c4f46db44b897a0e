"""What an approver does: approve a contract, or deny it with a reason, with a key that is used once and not kept."""

from fedmkt.console.shelf import Entry
from fedmkt.console.visit import Answer, Visit, redirect
from fedmkt.contract.canonical import digest
from fedmkt.contract.governance import Approver
from fedmkt.crypto.key_file import from_pem, is_encrypted
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.contracts import read_contract
from fedmkt.deploy.life import approve as write_approval
from fedmkt.deploy.life import deny as write_denial
from fedmkt.errors import ConfigError, PolicyRefused


def approve(visit: Visit) -> Answer:
    """Write an approval of the contract whose digest stands in the address, as `fedmkt contract approve` does."""
    entry, approver, identity = _opened(visit)
    if visit.form.text("read") != "yes":
        raise ConfigError("confirm that you have read the contract")
    assert entry.file is not None
    write_approval(entry.file, entry.contract, approver, identity, visit.now)
    return redirect(f"/contracts/{entry.digest}")


def deny(visit: Visit) -> Answer:
    """Write a denial with its reason, as `fedmkt contract deny` does."""
    entry, approver, identity = _opened(visit)
    assert entry.file is not None
    write_denial(entry.file, entry.contract, approver, identity, visit.now, visit.form.text("reason"))
    return redirect(f"/contracts/{entry.digest}")


def _opened(visit: Visit) -> tuple[Entry, Approver, Identity]:
    """Find the contract that was shown and the person whose key was given; refused for a key that it does not have."""
    entry = visit.shelf.contract(visit.ids["contract"])
    if entry.file is None or not entry.is_open(visit.now):
        raise PolicyRefused("nobody decides on this contract any more")
    if digest(read_contract(entry.file).contract).hex() != entry.digest:
        raise PolicyRefused("the file changed while you read it", "read it again")
    identity = _identity(visit)
    terms = entry.contract.governance
    found = [a for a in (() if terms is None else terms.approvers) if a.key == identity.public.hex()]
    if len(found) != 1:
        raise PolicyRefused(
            "the contract names nobody with this key",
            "take the key whose public half stands in [[governance.approvers]]",
        )
    return entry, found[0], identity


def _identity(visit: Visit) -> Identity:
    data = visit.form.data("key")
    if not data:
        raise ConfigError("choose your key file")
    try:
        return from_pem(data, visit.form.text("passphrase") if is_encrypted(data) else None)
    except ValueError as error:
        raise ConfigError(f"your key: {error}") from None
