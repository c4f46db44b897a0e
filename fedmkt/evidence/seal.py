"""The seal of a pack: a manifest with the SHA-256 of every file, and a signed in-toto statement about the manifest.

seal(folder, "bank", identity, {"run": ..., "contract": ...})
verify_seal(folder)                     AuditError names each kind of change: file, manifest, signature
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedmkt.audit import statements
from fedmkt.audit.statements import Statement
from fedmkt.crypto import dsse
from fedmkt.crypto.dsse import Public
from fedmkt.crypto.sign import Identity, fingerprint
from fedmkt.errors import AuditError, ConfigError
from fedmkt.party.journal import write_atomically

MANIFEST = "manifest.json"
SIGNATURE = "manifest.dsse.json"
FORMAT = "fedmkt-evidence/2"
LARGEST_FILE = 1 << 30
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
"""Who makes a pack is named as signers are."""
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Seal:
    """What a seal says: who made it with which key (hexadecimal), of which run and contract, how many files."""

    by: str
    key: str
    run: str
    contract: str
    files: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """The key as people read it over the phone."""
        return fingerprint(bytes.fromhex(self.key))


def seal(folder: Path, by: str, identity: Identity, run: str, contract: str) -> None:
    """Write manifest and signature over all files of a folder; they name the run and its contract.

    ConfigError for names of files that another system would read in another way.
    """
    names = _names(folder)
    if strange := [name for name in names if not _FILE.fullmatch(name)]:
        raise ConfigError(f"{folder}: {strange[0]!r} is no name of a file of a pack")
    if alike := _alike(names):
        raise ConfigError(f"{folder}: {alike[0]} and {alike[1]} differ in case alone")
    files = {name: _facts_of(folder / name) for name in names}
    text = _manifest(run, contract, files)
    write_atomically(folder / MANIFEST, text, mode=0o644)
    statement = Statement(
        "evidence",
        {MANIFEST: hashlib.sha256(text).hexdigest()},
        {"by": by, "key": identity.public.hex(), "run": run, "contract": contract, "files": len(files)},
    )
    write_atomically(folder / SIGNATURE, dsse.to_json(statements.sign(statement, identity)), mode=0o644)


def verify_seal(folder: Path) -> Seal:
    """Check the signature, then every file against the manifest; AuditError says what is wrong."""
    said = _statement(folder)
    text = _read(folder, MANIFEST)
    if said.subject != {MANIFEST: hashlib.sha256(text).hexdigest()}:
        raise AuditError(f"{folder / MANIFEST}: not the manifest that was signed")
    try:
        files: Mapping[str, Mapping[str, object]] = json.loads(text)["files"]
        by, key, run, contract = (str(said.predicate[k]) for k in ("by", "key", "run", "contract"))
        if text != _manifest(run, contract, files) or len(files) != said.predicate["files"]:
            raise ValueError  # also a name that stands twice, of which readers take one or the other
        if not NAME.fullmatch(by) or _alike(files) or not all(map(_FILE.fullmatch, files)):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise AuditError(f"{folder / MANIFEST}: not the manifest of an evidence pack") from None
    wrong = _differences(folder, files)
    if wrong:
        more = f" ({len(wrong)} in all)" if len(wrong) > 1 else ""
        raise AuditError(f"{folder}: {wrong[0]}{more}", "nothing in this pack can be relied on")
    return Seal(by, key, run, contract, tuple(sorted(files)))


def _statement(folder: Path) -> Statement:
    """Read the signed statement; its signature must be of the key that it names."""
    path = folder / SIGNATURE
    try:
        envelope = dsse.from_json(_read(folder, SIGNATURE))
        key = json.loads(envelope.payload)["predicate"]["key"]
        said, _ = statements.read(envelope, {"maker": Public(bytes.fromhex(key))})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        text = str(error) if type(error) is ValueError else "not a signed statement"
        raise AuditError(f"{path}: {text}") from None
    if said.kind != "evidence":
        raise AuditError(f"{path}: a statement of kind {said.kind}, not evidence")
    return said


def _differences(folder: Path, files: Mapping[str, Mapping[str, object]]) -> list[str]:
    here = set(_names(folder))
    found = [f"{name}: missing" for name in sorted(set(files) - here)]
    found += [f"{_shown(name)}: not in the manifest" for name in sorted(here - set(files))]
    for name in sorted(here & set(files)):
        if _facts_of(folder / name) != dict(files[name]):
            found.append(f"{name}: not as it was when the pack was signed")
    return found


def _manifest(run: str, contract: str, files: Mapping[str, Mapping[str, object]]) -> bytes:
    """Write the one text of a manifest."""
    manifest = {"format": FORMAT, "run": run, "contract": contract, "files": files}
    return json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _alike(names: Iterable[str]) -> tuple[str, ...]:
    """Return two names that are one where cases do not count; nothing if there are none."""
    seen: dict[str, str] = {}
    for name in names:
        if seen.setdefault(name.casefold(), name) != name:
            return seen[name.casefold()], name
    return ()


def _shown(name: str) -> str:
    """Write a name that somebody else chose so that no sign of it takes effect on a screen."""
    return name if _FILE.fullmatch(name) else ascii(name)


def _names(folder: Path) -> list[str]:
    """List all files below a folder but manifest and signature; links and pipes count, to be refused."""
    found = [p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()]
    names = {p.relative_to(folder).as_posix() for p in found}
    return sorted(names - {MANIFEST, SIGNATURE})


def _facts_of(path: Path) -> dict[str, object]:
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AuditError(f"{path}: not a plain file")
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise AuditError(f"{path}: {error.strerror}") from None
    return {"sha256": digest.hexdigest(), "bytes": size}


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        if path.is_symlink() or not path.is_file():
            raise ConfigError(f"{path}: no such file", "give a folder that fedmkt evidence made")
        if path.stat().st_size > LARGEST_FILE:
            raise AuditError(f"{path}: more than {LARGEST_FILE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
