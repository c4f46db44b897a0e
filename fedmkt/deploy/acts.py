"""Verify an organisation's acts: the chain by itself, and against what its runs' logs saw of it."""

from pathlib import Path

from fedmkt.audit.acts import Chain, anchors
from fedmkt.audit.records import read_leaf
from fedmkt.deploy.accounts import Accounts
from fedmkt.errors import AuditError
from fedmkt.party.acts_log import read_acts
from fedmkt.party.audit_log import LOG

ANCHOR = "policy.loaded"
"""The record of a run's log that says how many acts there were, and the last one's hash."""


def verify_acts(root: Path) -> Chain | None:
    """Verify the acts in an organisation's folder; None where there are none and no log saw any.

    AuditError says which line does not follow, or which log saw others. The counter-signatures of the others stand
    under the logs, so acts before the last run cannot be exchanged without them. Accounts that are not as the acts
    say they were made, or that are gone without an act, are an AuditError too.
    """
    chain = read_acts(root / "state")
    _check_accounts(root / "keys", chain)
    seen = 0
    for path in sorted((root / "state" / "contracts").glob(f"*/log/{LOG}")):
        for count, head in _anchors(path):
            chain.check_anchor(count, head, f"{path.parent.parent.name}/log")
            seen += 1
    return chain if chain.acts or seen else None


def _anchors(path: Path) -> list[tuple[int, str]]:
    mark, bodies = f'"{ANCHOR}"'.encode(), []
    for line in path.read_bytes().split(b"\n"):
        if mark in line:
            try:
                record = read_leaf(line)
            except ValueError:
                raise AuditError(f"{path}: a record was changed") from None
            if record.type == ANCHOR:
                bodies.append(record.body)
    return anchors(bodies)


def _check_accounts(keys: Path, chain: Chain) -> None:
    """Compare the accounts with what the acts say of them: where the acts say nothing, or are of before, they pass."""
    said = dict[str, str | None]()
    for act in chain.acts:
        name = str(act.body.get("account"))
        if act.type in ("account.added", "account.changed"):
            said[name] = str(act.body["mark"]) if "mark" in act.body else None
        elif act.type == "account.removed":
            said.pop(name, None)
    if not said or not keys.is_dir():
        return
    accounts = Accounts(keys)
    names = {account.name for account in accounts.all()} if accounts.exist else set()
    for name in sorted(names ^ set(said)):
        what = "no act added it" if name in names else "no act removed it, and it is gone"
        raise AuditError(f"{accounts.path}: {name}: {what}")
    for name, mark in sorted(said.items()):
        if mark is not None and mark != accounts.mark(name):
            raise AuditError(f"{accounts.path}: {name}: not as it was when it was last changed by a command")
