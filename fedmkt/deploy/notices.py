"""Tell the bank who left at a partner, so that scores which it has are used no more: `fedmkt withdraw --tell, --told`.

A notice is about one run: a signed statement (`audit.statements`) that names joint rows of training and of scoring, one
bit each, and no id. Every party counts the joint rows alike, so the bank finds its own customer behind a row. So would
another partner that got hold of the file: it is for the bank alone.

| learns | what |
|---|---|
| bank | which of the run's joint rows left at the partner: of its own customers who, of strangers that somebody did |
| another partner of the run, if it sees the file | which of its own people left at this one |
| who else sees the file | how many left, of how many rows |

With drops and dummies strangers have lasting names, and two notices tell who left in between. Safe against whoever
changes a notice on its way, by the partner's signature. The bank must take it up: that it does, its acts say. A notice
is about all who left so far, so a later one makes an earlier one superfluous, never wrong. What a bank's
own customers withdraw at the bank is not told to partners: they have no scores, and where the match is hidden they may
not know who is common.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fedmkt.audit import statements
from fedmkt.audit.acts import Actor
from fedmkt.audit.records import Json, timestamp
from fedmkt.audit.statements import Statement
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.crypto import dsse
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.folders import PartyFolder, load_party_config, read_file, read_identity
from fedmkt.deploy.rights import withdrawals_of
from fedmkt.errors import AuditError, ConfigError
from fedmkt.party.acts_log import ActsLog
from fedmkt.party.filters import Flags
from fedmkt.party.journal import write_atomically
from fedmkt.party.release import EXPIRES, read_expiry
from fedmkt.party.run_people import KEY, NEVER, left_of_joint, note_joint, read_left
from fedmkt.report.folder import read_contract

SUFFIX = ".withdrawal.json"
_PARTS = ("trained", "scored")


@dataclass(frozen=True)
class Told:
    """A notice. run : hexadecimal; party : who told; trained, scored : people of the own results whom it names."""

    run: str
    party: str
    trained: int
    scored: int


@dataclass(frozen=True)
class Notice:
    """A notice that was written. rows : how many joint rows it names, of training or of scoring."""

    path: Path
    run: str
    bank: str
    rows: int


def to_tell(folder: PartyFolder) -> list[Path]:
    """List the results of which the bank has scores and in which somebody left at this partner."""
    return [model for model in _models(folder) if _is_partners(folder, model) and _somebody_left(model)]


def tell(folder: PartyFolder, out: Path, actor: Actor, now: datetime) -> list[Notice]:
    """Write a notice for each run in which somebody left; what was told to whom stands in the acts.

    A run of which none can be written is an error after the others are told.
    """
    identity, me = read_identity(folder.identity), load_party_config(folder).name
    made, failed, log = list[Notice](), list[AuditError | ConfigError](), ActsLog(folder.state, lambda: now)
    for model in to_tell(folder):
        try:
            made.append(notice := _write(out, me, model, now, identity))
        except (AuditError, ConfigError) as error:
            failed.append(error)
            continue
        log.say(actor, "consent.withdrawn", {"to": notice.bank, "run": notice.run, "rows": notice.rows})
    if failed:
        raise failed[0]
    return made


def _write(out: Path, me: str, model: Path, now: datetime, identity: Identity) -> Notice:
    contract, run = read_contract(model.parent), read_expiry(model / EXPIRES).run
    gone = left_of_joint(model)
    predicate: dict[str, Json] = {"party": me, "run": run, "time": timestamp(now)}
    for part in _PARTS:
        predicate[part] = base64.b64encode(np.packbits(gone[part]).tobytes()).decode()
        predicate[f"{part}_rows"] = len(gone[part])
    envelope = statements.sign(Statement("withdrawal", _subject(contract), predicate), identity)
    data = dsse.to_json(envelope)
    if len(data) > dsse.MAX_BYTES:
        raise ConfigError(f"run {run[:16]} has too many rows for a notice", "tell the bank to train again")
    path = out / f"{contract.name}-{run[:16]}.{me}{SUFFIX}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
    return Notice(path, run, contract.bank.name, max(int(gone[part].sum()) for part in _PARTS))


def told(folder: PartyFolder, path: Path, actor: Actor, now: datetime | None = None) -> Told:
    """Take up a partner's notice: scores of those whom it names are used no more, the model is flagged.

    ConfigError where the file is no notice for this organisation, AuditError where it is not signed by the partner.
    """
    now = now or datetime.now(UTC)
    try:
        envelope = dsse.from_json(read_file(path))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", "ask for the file again as it was sent") from None
    for model in [model for model in _models(folder) if not _is_partners(folder, model)]:
        contract = read_contract(model.parent)
        keys = {p.name: dsse.Public(bytes.fromhex(p.key)) for p in contract.parties if p != contract.bank}
        try:
            statement, signers = statements.read(envelope, keys)
        except ValueError:
            continue  # another contract's
        if (
            statement.kind == "withdrawal"
            and statement.subject == _subject(contract)
            and (statement.predicate.get("run") == read_expiry(model / EXPIRES).run)
        ):
            return _take(folder, model, signers[0], statement.predicate, actor, now, path)
    raise AuditError(
        f"{path}: no notice that a partner signed about results that are here",
        "results that were deleted need none; a changed file must be sent again",
    )


def _take(
    folder: PartyFolder,
    model: Path,
    signer: str,
    said: Mapping[str, Json],
    actor: Actor,
    now: datetime,
    path: Path,
) -> Told:
    try:
        if said["party"] != signer:
            raise ValueError("signed by another party than it names")
        gone = {part: _flags(said[part], said[f"{part}_rows"]) for part in _PARTS}
        with withdrawals_of(folder).alone():
            before, after = read_left(model), note_joint(model, gone, now.date())
    except (ValueError, KeyError) as error:
        raise AuditError(f"{path}: not a notice about this run: {error}") from None
    run = str(said["run"])
    new = [int((getattr(after, part) != getattr(before, part)).sum()) for part in _PARTS]
    body: dict[str, Json] = {"from": signer, "run": run, "trained": new[0], "scored": new[1]}
    log = ActsLog(folder.state, lambda: now)
    log.say(actor, "consent.withdrawn", body)
    log.say(actor, "erasure.requested", body)
    return Told(run, signer, *(int((getattr(after, part) != NEVER).sum()) for part in _PARTS))


def _flags(text: Json, rows: Json) -> Flags:
    if not isinstance(text, str) or type(rows) is not int or not 0 <= rows <= 8 * dsse.MAX_BYTES:
        raise ValueError("not flags of rows")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not flags of rows") from None
    if len(data) != -(-rows // 8):
        raise ValueError("not as many flags as rows")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=rows).view(np.bool_)


def _subject(contract: Contract) -> dict[str, str]:
    return {contract.name: digest(contract).hex()}


def _models(folder: PartyFolder) -> list[Path]:
    found = sorted(path.parent for path in folder.state.glob("contracts/*/model*/model.json"))
    return [model for model in found if (model / KEY).exists() and (model / EXPIRES).exists()]


def _is_partners(folder: PartyFolder, model: Path) -> bool:
    return read_contract(model.parent).bank.name != load_party_config(folder).name


def _somebody_left(model: Path) -> bool:
    left = read_left(model)
    return bool((left.trained != NEVER).any() or (left.scored != NEVER).any())
