"""The life of a contract after its draft: approved or denied by people, amended, renewed, revoked.

People who approve have keys of their own, whose public halves stand in the contract. A signature of the organisation
(`fedmkt contract sign`) is another thing: it is given with the key of a participant's folder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedmkt.audit import statements
from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import (
    Count,
    Decided,
    Revoked,
    approval,
    check_approved,
    check_not_revoked,
    counts,
    decisions,
    denial,
    find_approver,
    revocation,
    revocations,
)
from fedmkt.contract.canonical import digest
from fedmkt.contract.checks import check_time
from fedmkt.contract.governance import Approver
from fedmkt.contract.signatures import SignedContract
from fedmkt.crypto.dsse import Envelope
from fedmkt.crypto.key_file import from_pem, is_encrypted, to_pem
from fedmkt.crypto.prg import Random
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.contracts import LONGEST_DAYS, open_participant
from fedmkt.deploy.folders import folder_at, keep_or_write, read_identity, read_secret
from fedmkt.deploy.statement_files import (
    folder_beside,
    keep_revocation,
    read_statements,
    statements_on,
    write_statement,
)
from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.party.journal import write_atomically

LONGEST_REASON = 200
Ask = Callable[[], str]
"""How a passphrase is asked for."""


@dataclass(frozen=True)
class Decisions:
    """What people said about a contract so far: counts by party, decisions of persons, revocations."""

    counts: tuple[Count, ...]
    decided: tuple[Decided, ...]
    revoked: tuple[Revoked, ...]

    def to_json(self) -> dict[str, object]:
        """Give the same as plain data."""
        return {
            "approvals": [vars(count) for count in self.counts],
            "decisions": [
                {**d.approver.model_dump(), "decision": d.decision, "time": d.time, "reason": d.reason}
                for d in self.decided
            ],
            "revoked": [vars(found) for found in self.revoked],
        }

    def lines(self) -> list[str]:
        """Say it in plain words."""
        lines = [
            f"{c.party}: {len(c.approved)} of {c.needed} approvals ({c.approvers} approvers)"
            for c in self.counts
        ]
        for one in self.decided:
            who = f"  {one.approver.party}/{one.approver.name} ({one.approver.role})"
            said = "approved" if one.decision == "approval" else f"DENIED: {one.reason}"
            lines.append(f"{who} {one.time:%Y-%m-%d %H:%M} UTC: {said}")
        lines += [f"lacking: {c.lacking}" for c in self.counts if c.lacking]
        return [*lines, *(f"REVOKED by {r.signer} on {r.time:%Y-%m-%d}: {r.reason}" for r in self.revoked)]


def decisions_on(contract: Contract, envelopes: tuple[Envelope, ...]) -> Decisions:
    """Count what valid statements say."""
    return Decisions(
        counts(contract, envelopes), decisions(contract, envelopes), revocations(contract, envelopes)
    )


def check_own_approvals(file: Path, contract: Contract, name: str, folder: Path) -> None:
    """Refuse to sign for a party whose own people have not approved, or what was revoked."""
    given = statements_on(file, contract, folder)
    check_not_revoked(contract, given)
    check_approved(contract, given, name)


def make_approver_key(out: Path, passphrase: str | None, random: Random) -> str:
    """Write a new key for a person, mode 0600, and beside it the line that a job has for it.

    Returns the public half, hexadecimal.
    """
    identity = Identity.generate(random)
    try:
        data = to_pem(identity, passphrase)
    except ValueError as error:
        raise ConfigError(f"passphrase: {error}") from None
    if not keep_or_write(out, data):
        raise ConfigError(f"{out}: exists already", "a key is never overwritten: give --out FILE")
    public = identity.public.hex()
    write_atomically(public_file(out), f'key = "{public}"\n'.encode(), mode=0o644)
    return public


def public_file(key: Path) -> Path:
    """Return where the public half of a person's key lies: NAME.pub beside NAME.key."""
    return key.with_name(f"{key.name.removesuffix('.key')}.pub")


def read_approver_key(path: Path, ask: Ask) -> Identity:
    """Read a person's key; `ask` is called if the file needs a passphrase."""
    data = read_secret(path)
    try:
        return from_pem(data, ask() if is_encrypted(data) else None)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def choose_approver(contract: Contract, name: str, party: str | None, identity: Identity) -> Approver:
    """Find who decides; refused unless the contract has this key for that person."""
    try:
        approver = find_approver(contract, name, party)
    except ValueError as error:
        raise ConfigError(str(error), "--as NAME, and --party NAME where two have one name") from None
    if approver.key != identity.public.hex():
        raise PolicyRefused(
            f"the contract has another key for {approver.party}/{approver.name}",
            "take the key whose public half stands in [[governance.approvers]]",
        )
    return approver


def approve(file: Path, contract: Contract, approver: Approver, identity: Identity, now: datetime) -> Path:
    """Write a person's approval beside the contract's file; refused once the contract is over."""
    later = _later(file, contract, approver, now)
    envelope = statements.sign(approval(contract, approver, later), identity)
    return write_statement(folder_beside(file), f"{approver.party}.{approver.name}.approval", envelope)


def deny(
    file: Path, contract: Contract, approver: Approver, identity: Identity, now: datetime, reason: str
) -> Path:
    """Write a person's denial beside the contract's file, with its reason."""
    later = _later(file, contract, approver, now)
    envelope = statements.sign(denial(contract, approver, later, _reason(reason)), identity)
    return write_statement(folder_beside(file), f"{approver.party}.{approver.name}.denial", envelope)


def _later(file: Path, contract: Contract, approver: Approver, now: datetime) -> datetime:
    """Return the time of a decision: after that person's last in any case; refused once the contract is over."""
    if now >= contract.expires:
        check_time(contract, now)
    given = read_statements(folder_beside(file))
    check_not_revoked(contract, given)
    before = [d.time for d in decisions(contract, given) if d.approver == approver]
    # At the same time the denial counts, so that an approval of the last moment can be taken back too.
    last = contract.expires - timedelta(seconds=1)
    return max([now, *(min(time + timedelta(seconds=1), last) for time in before)])


def revoke(file: Path, contract: Contract, folder: Path, now: datetime, reason: str) -> Path:
    """End a contract before its date, as the participant of this folder, which from now on runs it no more.

    The statement lies beside the contract's file: everybody else needs it too, in their folder `revocations`.
    """
    participant = open_participant(folder, contract)
    identity = read_identity(participant.identity)
    if all((s.name, s.key) != (participant.name, identity.public.hex()) for s in contract.signers):
        raise PolicyRefused(f"{participant.name} is no signer of this contract with the key of {folder}")
    envelope = statements.sign(revocation(contract, participant.name, now, _reason(reason)), identity)
    keep_revocation(folder_at(folder), contract, envelope)
    return write_statement(folder_beside(file), f"{participant.name}.revocation", envelope)


def amended(old: Contract, draft: SignedContract) -> SignedContract:
    """Make of a draft the next version of an older contract: it says which one, by digest, and is signed anew."""
    new = draft.contract
    if old.governance is None or new.governance is None:
        raise ConfigError(
            "only a contract with terms of governance has versions", "add [governance] to the job"
        )
    if {s.name for s in old.signers} != {s.name for s in new.signers}:
        raise ConfigError("the new version has other signers", "other signers make another contract: propose")
    following = {"revision": old.governance.revision + 1, "amends": digest(old).hex()}
    return SignedContract(contract=_changed(new, governance=new.governance.model_copy(update=following)))


def renewed(old: Contract, now: datetime, days: int | None) -> SignedContract:
    """Make the same contract with new dates, to be approved and signed anew; days : as long as before, if None."""
    if days is not None and not 1 <= days <= LONGEST_DAYS:
        raise ConfigError(f"valid-days = {days}: accepted: 1 to {LONGEST_DAYS}")
    created = now.astimezone(UTC).replace(microsecond=0)
    length = old.expires - old.created if days is None else timedelta(days=days)
    same = SignedContract(contract=_changed(old, created=created, expires=created + length))
    return same if old.governance is None else amended(old, same)


def _changed(contract: Contract, **changes: object) -> Contract:
    return Contract.model_validate({**dict(contract), **changes})


def _reason(text: str) -> str:
    if not (0 < len(text) <= LONGEST_REASON and text.isprintable()):
        raise ConfigError(f"reason: accepted: 1 to {LONGEST_REASON} printable characters")
    return text
