"""Where everything of a participant lies, and how its secrets are read and written.

A secret is written once, mode 0600, in a folder of mode 0700, and one that others can read is refused.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedmkt.config.files import parse_coordinator, parse_party, parse_party_folder
from fedmkt.config.policy import PolicyConfig
from fedmkt.config.settings import CoordinatorSettings, PartyConfig
from fedmkt.config.tables import BankConfig, PartnerConfig
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.crypto.sign import KEY_BYTES, Identity
from fedmkt.errors import ConfigError, TransportError
from fedmkt.party.journal import write_atomically

LOCK = ".lock"
LOCK_SECONDS = 10.0
LARGEST_FILE = 1 << 20  # of what a person or another organisation writes here


@dataclass(frozen=True)
class _Folder:
    """What a party's folder and the coordinator's have alike."""

    root: Path

    @property
    def keys(self) -> Path:
        """The folder of secrets, mode 0700."""
        return self.root / "keys"

    @property
    def identity(self) -> Path:
        """The identity key (Ed25519, 32 bytes); the coordinator's is the dealer's too."""
        return self.keys / "identity.key"

    @property
    def tls_key(self) -> Path:
        """The key with which we dial the hub (EC P-256, PEM)."""
        return self.keys / "tls.key"

    @property
    def tls_certificate(self) -> Path:
        """Its certificate, by the coordinator's authority."""
        return self.keys / "tls.pem"

    @property
    def authority(self) -> Path:
        """The certificate of the coordinator's authority, the only one that we trust."""
        return self.keys / "ca.pem"

    @property
    def superexec_secret(self) -> Path:
        """What our SuperLink or SuperNode and its executor share."""
        return self.keys / "superexec.secret"

    @property
    def state(self) -> Path:
        """Store, journal, audit logs, models, and what Flower keeps."""
        return self.root / "state"

    @property
    def revocations(self) -> Path:
        """Signed statements that ended contracts before their date, our own and those that others sent."""
        return self.root / "revocations"

    @property
    def logs(self) -> Path:
        """The programs' own logs."""
        return self.root / "logs"

    def of_contract(self, contract: Contract) -> Path:
        """Return what belongs to one contract, named by its name and digest."""
        return self.state / "contracts" / f"{contract.name}-{digest(contract).hex()[:16]}"


@dataclass(frozen=True)
class PartyFolder(_Folder):
    """The paths of a party's folder; nothing needs to exist."""

    @property
    def config(self) -> Path:
        """Who we are and whose keys we pinned."""
        return self.root / "party.toml"

    @property
    def policy(self) -> Path:
        """What we allow."""
        return self.root / "policy.toml"

    @property
    def schema(self) -> Path:
        """Our table."""
        return self.root / "schema.toml"

    @property
    def node_key(self) -> Path:
        """The key with which Flower knows our node (EC P-384, OpenSSH format)."""
        return self.keys / "node.key"

    @property
    def node_pub(self) -> Path:
        """Its public half, one OpenSSH line."""
        return self.keys / "node.pub"

    @property
    def coordinator(self) -> Path:
        """What the coordinator told us when we joined: addresses, its identity key, versions."""
        return self.keys / "coordinator.json"

    @property
    def next_keys(self) -> Path:
        """Keys of a rotation that wait for their bundle; ours stay in use until then."""
        return self.keys / "next"

    @property
    def next_node_key(self) -> Path:
        """The node key that a rotation brings."""
        return self.next_keys / "node.key"

    @property
    def next_tls_key(self) -> Path:
        """The TLS key that a rotation brings."""
        return self.next_keys / "tls.key"

    @property
    def secrets(self) -> tuple[Path, ...]:
        """Every file that only we may read."""
        return (self.identity, self.node_key, self.tls_key, self.superexec_secret)


@dataclass(frozen=True)
class CoordinatorFolder(_Folder):
    """The paths of the coordinator's folder; nothing needs to exist."""

    @property
    def config(self) -> Path:
        """Who we are, where parties reach us, what we allow."""
        return self.root / "coordinator.toml"

    @property
    def authority_key(self) -> Path:
        """The key that signs all certificates of this deployment."""
        return self.keys / "ca.key"

    @property
    def server_key(self) -> Path:
        """The key of front and hub."""
        return self.keys / "server.key"

    @property
    def server_certificate(self) -> Path:
        """The certificate of front and hub."""
        return self.keys / "server.pem"

    @property
    def registry(self) -> Path:
        """Who is admitted."""
        return self.root / "registry.json"

    @property
    def requests(self) -> Path:
        """Requests that were admitted, as they came."""
        return self.root / "requests"

    @property
    def contracts(self) -> Path:
        """Contracts that all signed."""
        return self.root / "contracts"

    @property
    def runs(self) -> Path:
        """One folder per run."""
        return self.root / "runs"

    @property
    def secrets(self) -> tuple[Path, ...]:
        """Every file that only we may read."""
        return (
            self.authority_key,
            self.server_key,
            self.identity,
            self.tls_key,
            self.superexec_secret,
        )


def folder_at(folder: Path) -> PartyFolder | CoordinatorFolder:
    """Tell a coordinator's folder from a party's; ConfigError if it is neither, or looks like both."""
    party, coordinator = PartyFolder(folder), CoordinatorFolder(folder)
    if party.config.exists() == coordinator.config.exists():
        both = "both party.toml and coordinator.toml"
        found = both if party.config.exists() else "neither party.toml nor coordinator.toml"
        raise ConfigError(f"{folder}: {found} found there", "name the folder of who signs: --dir FOLDER")
    return party if party.config.exists() else coordinator


def load_party_folder(folder: PartyFolder) -> tuple[PartyConfig, PartnerConfig | BankConfig]:
    """Read party.toml with the policy of policy.toml, and the table of schema.toml."""
    party, policy, schema = (read_text(path) for path in (folder.config, folder.policy, folder.schema))
    return parse_party_folder(party, policy, schema, str(folder.root))


def load_party_config(folder: PartyFolder) -> PartyConfig:
    """Read party.toml alone: who we are and whom we pinned; policy and table are not looked at."""
    return parse_party(read_text(folder.config), str(folder.config))


def load_coordinator_folder(folder: CoordinatorFolder) -> CoordinatorSettings:
    """Read coordinator.toml."""
    return parse_coordinator(read_text(folder.config), str(folder.config))


def folder_of(root: Path) -> PartyFolder | CoordinatorFolder:
    """Return an organisation's folder as what it is; ConfigError if it is none."""
    for folder in (PartyFolder(root), CoordinatorFolder(root)):
        if folder.config.exists():
            return folder
    raise ConfigError(f"{root}: no organisation's folder: no party.toml or coordinator.toml")


def policy_of(folder: PartyFolder | CoordinatorFolder) -> PolicyConfig:
    """Read what an organisation allows, whatever a contract says."""
    if isinstance(folder, CoordinatorFolder):
        return load_coordinator_folder(folder).policy
    return load_party_folder(folder)[0].policy


def read_text(path: Path) -> str:
    """Read a text file of bounded size; ConfigError with the path for anything else."""
    try:
        return read_file(path).decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not text in UTF-8") from None


def read_file(path: Path) -> bytes:
    """Read a plain file of at most 1 MiB; ConfigError for a folder, a pipe, or one that is longer."""
    try:
        # A pipe would wait for its writer without end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError):
        raise ConfigError(f"{path}: cannot be opened") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"{path}: not a plain file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"{path}: longer than {LARGEST_FILE:,} bytes")
    return data


def read_secret(path: Path) -> bytes:
    """Read a key; ConfigError if anybody but its owner can read or change it."""
    data = read_file(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ConfigError(f"{path}: mode {mode:04o}, others can open it", f"chmod 600 {path}")
    return data


def read_identity(path: Path) -> Identity:
    """Read an identity key; ConfigError if it is not 32 bytes of its owner's."""
    secret = read_secret(path)
    if len(secret) != KEY_BYTES:
        raise ConfigError(f"{path}: {len(secret)} bytes, an identity key has {KEY_BYTES}")
    return Identity(secret)


@contextmanager
def contents_of(path: Path) -> Iterator[None]:
    """Say of a key or certificate that cannot be used in which file it stands."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", "bring it back from your backup") from None


def make_private(folder: Path) -> None:
    """Make a folder that nobody else can enter, and those above it; one that exists is closed to others."""
    for above in reversed(folder.parents):
        above.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True, mode=0o700)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def keep_or_write(path: Path, data: bytes) -> bool:
    """Write a secret unless there is one already, which is never touched; tells whether it wrote."""
    if path.exists() or path.is_symlink():
        return False
    path.with_name(path.name + ".new").unlink(missing_ok=True)  # half of a killed one, of unknown mode
    write_atomically(path, data)
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file while files beside it change; TransportError if another command holds it long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), path.parent):
        yield


@contextmanager
def held(descriptor: int, folder: Path) -> Iterator[None]:
    """Hold the lock of an open file or folder, and close it; TransportError names `folder` if that takes long."""
    until = time.monotonic() + LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    text = f"{folder}: another fedmkt command is at work"
                    raise TransportError(text, "try again") from None
                time.sleep(0.02)
            except OSError as error:
                raise ConfigError(f"{folder}: cannot be locked: {error.strerror}") from None
        yield
    finally:
        os.close(descriptor)
