"""Draft, sign, merge and verify contracts as files that people pass on.

A file is taken only in its canonical text: a comment or a line that nobody signed would be read by people
all the same. Whoever signs checks first what a run would check, against its own policy and pinned keys.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedmkt.config.drafts import draft_contract
from fedmkt.config.files import parse_job
from fedmkt.config.settings import PartyConfig
from fedmkt.config.tables import BankConfig, PartnerConfig, id_list
from fedmkt.contract.agreement import Contract, Signer
from fedmkt.contract.approvals import check_approved, check_not_revoked
from fedmkt.contract.canonical import digest
from fedmkt.contract.checks import check_roles, check_time
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.signatures import SignedContract, check_given_signatures, check_signatures, sign
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.folders import (
    CoordinatorFolder,
    PartyFolder,
    folder_at,
    held,
    load_coordinator_folder,
    load_party_config,
    load_party_folder,
    read_identity,
    read_text,
)
from fedmkt.deploy.pins import key_of
from fedmkt.deploy.provision import read_coordinator
from fedmkt.deploy.registry import read_registry
from fedmkt.deploy.sheet import Sheet
from fedmkt.deploy.statement_files import statements_on
from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.party.contract_past import UNKNOWN, Past, past_of
from fedmkt.party.journal import write_atomically
from fedmkt.party.policy import Policy
from fedmkt.party.store import Store

LONGEST_DAYS = 3660


@dataclass(frozen=True)
class Participant:
    """The signer whose folder was opened: its settings with pinned keys, its table, where its identity key lies.

    joined : the coordinator whose bundle a party has taken into use; None before, and for the coordinator itself.
    """

    settings: PartyConfig
    schema: PartnerConfig | BankConfig | None
    identity: Path
    joined: str | None = None

    @property
    def name(self) -> str:
        """The name under which it signs."""
        return self.settings.name


def read_contract(path: Path) -> SignedContract:
    """Read a contract file; ConfigError unless it is written exactly as fedmkt writes it."""
    text = read_text(path)
    signed = from_toml(text, str(path))
    if to_toml(signed) != text:
        raise ConfigError(
            f"{path}: not written as fedmkt writes it; comments and layout are signed by nobody",
            "ask for the file again as it was sent, or draft it anew: fedmkt contract new",
        )
    return signed


def open_participant(folder: Path, contract: Contract) -> Participant:
    """Open the folder of whoever signs; a coordinator's pinned keys are those of the parties that it admitted."""
    place = folder_at(folder)
    if isinstance(place, CoordinatorFolder):
        settings = load_coordinator_folder(place)
        pinned = {settings.name: read_identity(place.identity).public.hex()}
        pinned |= read_registry(place.registry).pins(p.name for p in contract.parties)
        return Participant(settings.party(pinned), None, place.identity)
    config, schema = load_party_folder(place)
    joined = read_coordinator(place).name if place.coordinator.exists() else None
    return Participant(config, schema, place.identity, joined)


def folder_of(config: Path) -> Path:
    """Find the folder whose party.toml or coordinator.toml was named."""
    if config.name not in ("party.toml", "coordinator.toml"):
        raise ConfigError(f"{config}: accepted: a party.toml or a coordinator.toml")
    return config.parent


def collect_keys(sources: Mapping[str, str], folder: Path | None) -> dict[str, str]:
    """Find identity keys: those pinned in the own folder, if one is given, and those of `sources`.

    sources : by signer's name, 64 hexadecimal digits or the path of a request or bundle. A key that is not
    the pinned one of that name is refused.
    """
    pinned = {} if folder is None else known_keys(folder)
    keys = dict(pinned)
    for name, source in sources.items():
        keys[name] = key_of(name, source.lower() if _is_key(source) else source)
        if keys[name] != pinned.get(name, keys[name]):
            raise PolicyRefused(
                f"the key given for {name} is not the pinned one", "compare fingerprints again"
            )
    return keys


def known_keys(folder: Path) -> dict[str, str]:
    """List the identity keys that a participant compared out of band, its own among them."""
    place = folder_at(folder)
    if isinstance(place, PartyFolder):
        return dict(load_party_config(place).pinned)
    own = {load_coordinator_folder(place).name: read_identity(place.identity).public.hex()}
    return own | {party.name: party.identity for party in read_registry(place.registry).active}


def _is_key(source: str) -> bool:
    return len(source) == 64 and not set(source) - set("0123456789abcdefABCDEF")


def draft(job: Path, keys: Mapping[str, str], now: datetime, valid_days: int | None = None) -> SignedContract:
    """Write the contract that a job asks for, signed by nobody yet; keys of others than its signers are ignored."""
    config = parse_job(read_text(job).removeprefix("\ufeff"), str(job))
    if valid_days is not None:
        if not 1 <= valid_days <= LONGEST_DAYS:
            raise ConfigError(f"valid-days = {valid_days}: accepted: 1 to {LONGEST_DAYS}")
        config = config.model_copy(update={"valid_days": valid_days})
    names = [*(party.name for party in config.parties), config.coordinator.name]
    absent = [name for name in names if name not in keys]
    if absent:
        raise ConfigError(
            f"{job}: no identity key of {', '.join(absent)}",
            f"--key {absent[0]}=KEY_OR_REQUEST, or --dir with the folder of a participant who pinned it",
        )
    contract = draft_contract(config, {name: bytes.fromhex(keys[name]) for name in names}, now)
    check_roles(contract)
    return SignedContract(contract=contract)


def write_draft(signed: SignedContract, out: Path) -> None:
    """Write a new contract file; one that exists is not touched: it may hold signatures."""
    with _locked(out), _writing(out):
        if out.exists() or out.is_symlink():
            raise ConfigError(f"{out}: exists already", "give another file: --out FILE")
        write_atomically(out, to_toml(signed).encode(), mode=0o644)


def check_own_terms(participant: Participant, signed: SignedContract, now: datetime) -> None:
    """Refuse what a run of this contract would refuse at this participant, missing signatures apart."""
    Policy(participant.settings).check_before_signing(signed, now)
    check_own_place(participant, signed)


def check_own_place(participant: Participant, signed: SignedContract) -> None:
    """Refuse a contract of another coordinator than ours, about other columns, or with another key of ours."""
    joined = participant.joined
    if joined not in (None, signed.contract.coordinator.name):
        raise PolicyRefused(f"rule coordinator: we joined {joined}, the contract names another one")
    contract = signed.contract
    places: tuple[Signer, ...] = contract.signers if participant.schema is None else contract.parties
    own = next((signer for signer in places if signer.name == participant.name), None)
    if own is None:
        raise PolicyRefused(f"rule own-terms: {participant.name} has no such place in the contract")
    if participant.schema is not None:
        check_own_table(contract, participant.schema)
    if own.key != read_identity(participant.identity).public.hex():
        raise PolicyRefused(
            f"{participant.identity}: not the key that the contract has for {participant.name}",
            "draft the contract again with the key of this folder",
        )


def check_own_table(contract: Contract, table: PartnerConfig | BankConfig) -> None:
    """Refuse a contract about other columns than those of the party's own schema.toml."""
    own = contract.party(table.name)
    if contract.task == "overlap":
        table = id_list(table)
    special = ("offset", "weight", "label")
    ours_special = [getattr(table, name) if isinstance(table, BankConfig) else None for name in special]
    for name, agreed, ours in (
        ("id_kind", own.id_kind, table.id_kind),
        ("more_ids", own.more_kinds, tuple(key.agreed for key in table.more_ids)),
        ("numbers", own.numbers, table.numbers),
        ("categories", own.categories, table.categories),
        *zip(special, (own.offset, own.weight, own.label), ours_special, strict=True),
    ):
        if agreed != ours:
            raise PolicyRefused(
                f"rule own-table: {name} is {_shown(agreed)} in the contract, {_shown(ours)} in schema.toml",
                "change schema.toml, or draft the contract again",
            )


def _shown(value: object) -> str:
    return ", ".join(value) or "nothing" if isinstance(value, tuple) else str(value or "nothing")


def sign_contract(path: Path, participant: Participant, shown: Sheet, now: datetime) -> Sheet:
    """Add the participant's signature to the file, others' kept; returns the sheet as it stands then.

    shown : what the person saw; a file that says something else by now is refused. A file that holds the
    participant's valid signature already is left as it is.
    """
    with _locked(path):
        signed = read_contract(path)
        if digest(signed.contract) != digest(shown.contract):
            raise PolicyRefused(f"{path}: changed while it was being read", "read it again before you sign")
        check_own_terms(participant, signed, now)
        if participant.name not in signed.signatures:
            identity = read_identity(participant.identity)
            signed = _with(signed, {participant.name: _signature(signed, participant.name, identity)})
            _replace(path, signed)
    return Sheet(signed, now)


def _signature(signed: SignedContract, name: str, identity: Identity) -> str:
    try:
        return sign(signed.contract, name, identity)
    except ValueError as error:
        raise PolicyRefused(str(error)) from None


def merge_contracts(paths: Sequence[Path], out: Path) -> SignedContract:
    """Put the signatures of several copies of one contract into one file; each must verify.

    out : a new file, or one of the copies.
    """
    copies = {path: read_contract(path) for path in paths}
    first = next(iter(copies.values()))
    for path, copy in copies.items():
        if digest(copy.contract) != digest(first.contract):
            raise PolicyRefused(
                f"{path} is another contract than {paths[0]}: their digests differ",
                "fedmkt contract show says what each of them agrees to",
            )
        try:
            check_given_signatures(copy)
        except PolicyRefused as error:
            raise PolicyRefused(f"{path}: {error}", error.hint) from None
    merged = first
    for copy in copies.values():
        merged = _with(merged, {n: s for n, s in copy.signatures.items() if n not in merged.signatures})
    if out.resolve() not in {path.resolve() for path in paths}:
        write_draft(merged, out)
        return merged
    with _locked(out):
        if read_contract(out) not in copies.values():
            raise PolicyRefused(f"{out}: changed while it was being read", "merge again")
        _replace(out, merged)
    return merged


def _with(signed: SignedContract, signatures: Mapping[str, str]) -> SignedContract:
    return SignedContract(contract=signed.contract, signatures={**signed.signatures, **signatures})


def verify_contract(
    path: Path,
    now: datetime,
    pinned: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Sheet:
    """Refuse a contract that no run would be started with: signatures, roles, time, approvals, and the pinned keys.

    pinned : the keys of exactly the signers, hexadecimal. folder : a participant's, whose controls are all asked, with
    what it remembers.
    """
    signed = read_contract(path)
    given = statements_on(path, signed.contract, folder)
    check_signatures(signed)
    check_roles(signed.contract)
    check_time(signed.contract, now)
    if pinned is not None:
        _check_pins(signed.contract, pinned)
    if folder is not None:
        participant = open_participant(folder, signed.contract)
        past = past_at(folder, signed.contract)
        Policy(participant.settings).check_contract(signed, now, given, past)
        check_own_place(participant, signed)
    check_not_revoked(signed.contract, given)
    check_approved(signed.contract, given)
    return Sheet(signed, now, given)


def past_at(folder: Path, contract: Contract) -> Past:
    """Recall what a participant saw of a contract; nothing is written."""
    store = folder_at(folder).state / "store"
    return past_of(Store(store), contract) if store.is_dir() else UNKNOWN


def _check_pins(contract: Contract, pinned: Mapping[str, str]) -> None:
    keys = {signer.name: signer.key for signer in contract.signers}
    for name in sorted(set(keys) ^ set(pinned)):
        raise PolicyRefused(
            f"{name} signs or is pinned, but not both", "give --pin for every signer, or for none"
        )
    for name, key in keys.items():
        if key != pinned[name].lower():
            raise PolicyRefused(f"the key of {name} is not the pinned one", "compare fingerprints again")


def _replace(path: Path, signed: SignedContract) -> None:
    real = Path(os.path.realpath(path))  # a link stays a link
    with _writing(path):
        write_atomically(real, to_toml(signed).encode(), mode=real.stat().st_mode & 0o777)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in one line that a place cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}", "copy it to a folder of yours, or give --out FILE"
        ) from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder of a contract while a file in it changes: two who sign at once would lose a signature."""
    folder = Path(os.path.realpath(path)).parent
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from None
    with held(descriptor, folder):
        yield
