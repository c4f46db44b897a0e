"""Signed statements as files in a folder: one envelope (DSSE) in each, named by who said what.

Beside `spring.contract.toml` lies `spring.contract.toml.approvals/` with what people decided about it, and what any
signer said to end it. A participant keeps revocations besides, in the folder `revocations` of its own: whatever
somebody else hands over or leaves out, it does not run what it knows to be revoked.
"""

from collections.abc import Sequence
from pathlib import Path

from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import check_approved, revocations
from fedmkt.contract.canonical import digest
from fedmkt.crypto import dsse
from fedmkt.crypto.dsse import Envelope
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, read_file
from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.party.governance_events import SUFFIX
from fedmkt.party.journal import write_atomically

MOST_STATEMENTS = 200
LARGEST_STATEMENT = 4 << 10
"""Bytes: a record of a log holds one whole."""


def folder_beside(contract: Path) -> Path:
    """Return the folder of statements that belongs to a contract's file."""
    return contract.with_name(contract.name + ".approvals")


def read_statements(folder: Path) -> tuple[Envelope, ...]:
    """Read all envelopes of a folder, which need not exist; ConfigError names a file that is none."""
    paths = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    if len(paths) > MOST_STATEMENTS:
        raise ConfigError(f"{folder}: {len(paths)} statements; accepted: at most {MOST_STATEMENTS}")
    return tuple(map(read_statement, paths))


def read_statement(path: Path) -> Envelope:
    """Read one envelope; ConfigError if the file is none. Nothing is verified."""
    try:
        return parse_statement(read_file(path))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", "ask for the file again as it was sent") from None


def parse_statement(data: bytes) -> Envelope:
    """Read the text of one envelope; ValueError if it is none, or longer than a statement is."""
    if len(data) > LARGEST_STATEMENT:
        raise ValueError(f"a statement has at most {LARGEST_STATEMENT} bytes")
    return dsse.from_json(data)


def write_statement(folder: Path, name: str, envelope: Envelope) -> Path:
    """Write one envelope; one of the same name is replaced: it was of the same person or signer."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}{SUFFIX}"
        write_atomically(path, dsse.to_json(envelope), mode=0o644)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from None
    return path


def own_revocations(folder: PartyFolder | CoordinatorFolder) -> tuple[Envelope, ...]:
    """Read the revocations that a participant keeps."""
    return read_statements(folder.revocations)


def keep_revocation(folder: PartyFolder | CoordinatorFolder, contract: Contract, envelope: Envelope) -> None:
    """Keep a revocation where no run of this participant overlooks it."""
    (found,) = revocations(contract, [envelope])
    write_statement(folder.revocations, f"{digest(contract).hex()[:16]}.{found.signer}", envelope)


def check_statements(contract: Contract, envelopes: Sequence[Envelope]) -> None:
    """Refuse a contract that a signer revoked, or that has terms of governance and too few approvals."""
    check_not_revoked(contract, envelopes)
    try:
        check_approved(contract, envelopes)
    except ValueError as error:
        raise PolicyRefused(
            f"C18 approvals: {error}", "fedmkt contract verify FILE says who approved"
        ) from None


def check_not_revoked(contract: Contract, envelopes: Sequence[Envelope]) -> None:
    """Refuse a contract that a signer revoked."""
    for found in revocations(contract, envelopes):
        raise PolicyRefused(
            f"rule revoked: {found.signer} ended the contract on {found.time:%Y-%m-%d}: {found.reason}",
            "draft a new contract; this one runs nowhere any more",
        )
