"""What an auditor does with folders: verify the one log of an organisation, put those of all side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmkt.audit.own_log import OwnReport, verify_own
from fedmkt.errors import AuditError, ConfigError
from fedmkt.party.deal_records import FOLDER
from fedmkt.party.journal import write_atomically
from fedmkt.report.approvals import APPROVALS, LARGEST, statement_paths
from fedmkt.report.folder import CONTRACT, LOG_FILES, RunFiles, find_files, read_plain


@dataclass(frozen=True)
class Collected:
    """The logs that now lie side by side in `folder`, and the signers whose logs nobody gave."""

    folder: Path
    logs: tuple[str, ...]
    missing: tuple[str, ...]


def verify_one(files: RunFiles, pinned: Mapping[str, str] | None = None) -> OwnReport:
    """Verify an organisation's own log; AuditError with the folder, the file and what is wrong."""
    log = files.logs[files.owner]
    data = {CONTRACT: read_plain(files.root / CONTRACT)}
    data |= {name: read_plain(log / name) for name in LOG_FILES if (log / name).exists()}
    try:
        return verify_own(data, pinned)
    except (AuditError, ConfigError) as error:
        raise AuditError(f"{files.root}: {error}", "nothing in this log can be relied on") from None


def collect(out: Path, folders: Sequence[Path]) -> Collected:
    """Copy contract, logs and approvals from folders of organisations, or from earlier collections, into a new folder.

    What parties keep for an auditor of the deals goes with it, sealed; nothing else, neither keys nor models. Refuses
    folders of different contracts, and two logs of one signer that differ.
    """
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ConfigError(f"{out}: exists and is not empty", "give the name of a new folder")
    found: dict[str, bytes] = {}
    signers: tuple[str, ...] = ()
    for folder in folders:
        files = find_files(folder)
        signers = tuple(signer.name for signer in files.contract.signers)
        here = [name for name, log in files.logs.items() if (log / LOG_FILES[0]).exists()]
        if not here:
            raise ConfigError(f"{folder}: no log there")
        _add(found, CONTRACT, files.root / CONTRACT)
        for name in here:
            for file in LOG_FILES:
                if (path := files.logs[name] / file).exists():
                    _add(found, f"logs/{name}/{file}", path)
            for path in sorted((files.logs[name] / FOLDER).glob("*")):
                if path.name.endswith((".seed", ".receipts")):
                    _add(found, f"logs/{name}/{FOLDER}/{path.name}", path)
        for path in statement_paths(files):
            _add(found, f"{APPROVALS}/{path.name}", path, LARGEST)
        for path in sorted((files.root / FOLDER).glob("*.dsse.json")):
            _add(found, f"{FOLDER}/{path.name}", path)
    for name, data in found.items():
        _write(out / name, data, mode=0o600 if name.endswith((".seed", ".receipts")) else 0o644)
    logs = tuple(name for name in signers if f"logs/{name}/{LOG_FILES[0]}" in found)
    return Collected(out, logs, tuple(name for name in signers if name not in logs))


def _add(found: dict[str, bytes], name: str, path: Path, most: int | None = None) -> None:
    data = read_plain(path, most)
    if found.setdefault(name, data) != data:
        raise AuditError(
            f"{path}: not the same as {name} of another folder", "collect the logs of one contract"
        )


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        write_atomically(path, data, mode)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give a folder that can be written") from None
