"""Signed statements as files in a folder: one envelope (DSSE) in each, named by who said what.

Beside `spring.contract.toml` lies `spring.contract.toml.approvals/` with what people decided about it, and what any
signer said to end it. A participant keeps revocations besides, in the folder `revocations` of its own: whatever
somebody else hands over or leaves out, it does not run what it knows to be revoked.
"""

from pathlib import Path

from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import revocations
from fedmkt.contract.canonical import digest
from fedmkt.crypto import dsse
from fedmkt.crypto.dsse import Envelope
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, folder_at, read_file
from fedmkt.errors import ConfigError
from fedmkt.party.contract_past import kept_statements
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


def statements_on(path: Path, contract: Contract, folder: Path | None) -> tuple[Envelope, ...]:
    """Read all that is known of a contract: the statements beside its file, and those that a participant keeps.

    folder : the participant's, with its revocations and what it heard in earlier runs; None reads the first alone.
    """
    given = read_statements(folder_beside(path))
    if folder is None:
        return given
    place = folder_at(folder)
    heard = kept_statements(place.of_contract(contract) / "approvals")
    return (*given, *own_revocations(place), *heard)


def keep_revocation(folder: PartyFolder | CoordinatorFolder, contract: Contract, envelope: Envelope) -> None:
    """Keep a revocation where no run of this participant overlooks it."""
    (found,) = revocations(contract, [envelope])
    write_statement(folder.revocations, f"{digest(contract).hex()[:16]}.{found.signer}", envelope)
