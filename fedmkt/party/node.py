"""Put one organisation's side together: its files, keys, policy, log, journal and store.

One party's node opens that party's own folder and file and nothing else; it is the same in a simulation's
process, in an actor of Flower's simulation and in a deployment.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from fedmkt.audit.acts import Chain
from fedmkt.audit.checkpoint import log_origin
from fedmkt.audit.records import Json
from fedmkt.config.settings import PartyConfig
from fedmkt.config.tables import BankConfig, PartnerConfig
from fedmkt.contract.canonical import digest, zulu
from fedmkt.contract.signatures import SignedContract, second_keys
from fedmkt.crypto.dsse import Envelope
from fedmkt.crypto.prg import Random, SeededRandom, derive
from fedmkt.crypto.sign import Identity
from fedmkt.errors import PolicyRefused
from fedmkt.party import filters
from fedmkt.party.acts_log import read_acts
from fedmkt.party.audit_log import LOG, AuditLog
from fedmkt.party.budget_guard import check_logged
from fedmkt.party.clock import uptime
from fedmkt.party.contract_past import (
    UNKNOWN,
    Past,
    counting,
    kept_statements,
    note_expired,
    note_replaced,
    objections,
    past_of,
    unheard,
)
from fedmkt.party.controls.code import installed_code
from fedmkt.party.controls.columns import unused_grants
from fedmkt.party.controls.control import Flags
from fedmkt.party.deal_records import DealRecords
from fedmkt.party.events import Event
from fedmkt.party.filters import ADULT, Filters
from fedmkt.party.governance_events import (
    declared_events,
    drafted_events,
    governance_events,
    keep_statements,
)
from fedmkt.party.handle import Party
from fedmkt.party.journal import Journal, write_atomically
from fedmkt.party.keys import KeyColumns
from fedmkt.party.list_ledger import ListGuard, ListLedger
from fedmkt.party.outputs import write_outputs, write_overlap
from fedmkt.party.policy import Policy
from fedmkt.party.release import Release
from fedmkt.party.store import Store
from fedmkt.party.table import Column, Table, TableSchema, read_table
from fedmkt.party.withdrawals import Withdrawals
from fedmkt.protocol.alignment.psi import Customers
from fedmkt.protocol.core import Name, Script, State
from fedmkt.protocol.pipeline import SCRIPTS
from fedmkt.protocol.prepare import Columns
from fedmkt.protocol.shift import Reference

Clock = Callable[[], datetime]
Withdrawn = Callable[[Table], Flags]
"""Tells for each person of a list that was read and filtered whether that person withdrew all the same."""
_SEEDED_START = datetime(2026, 1, 1, tzinfo=UTC)
_LONGEST_RULE = 1000


@dataclass(frozen=True)
class Sources:
    """Where a participant's randomness and time come from: the system, or a seed (simulations only).

    steady : as in `clock.WatchedClock`.
    """

    random: Random
    clock: Clock
    steady: Callable[[], float] | None = None

    @staticmethod
    def of(seed: int | None, name: str, epoch_hint: int = 0, start: datetime = _SEEDED_START) -> "Sources":
        """Return the system's sources, or those that follow from a seed and the participant's name.

        epoch_hint : the latest epoch that may have been opened before; every epoch draws from a stream of its own.
        start : when a seeded clock begins to tick.
        """
        if seed is None:
            return Sources(secrets.token_bytes, lambda: datetime.now(UTC), uptime)
        key = derive(
            seed.to_bytes(16, "big"), b"fedmkt simulation\n" + name.encode(), salt=bytes([epoch_hint])
        )
        return Sources(SeededRandom(key), _SeededClock(epoch_hint, start))


class _SeededClock:
    """A clock that ticks one millisecond at each look; a resumed run begins minutes after the last time."""

    def __init__(self, epoch_hint: int, start: datetime) -> None:
        self._start = start
        self._ticks = 60_000 * epoch_hint

    def __call__(self) -> datetime:
        self._ticks += 1
        return self._start + timedelta(milliseconds=self._ticks)


@dataclass(frozen=True)
class Place:
    """The folders of one participant of a run: private ones, and its log in the run folder."""

    private: Path
    logs: Path

    @property
    def identity(self) -> Path:
        """The identity key, mode 0600."""
        return self.private / "identity.key"

    @property
    def store(self) -> Path:
        """What outlives runs."""
        return self.private / "store"

    @property
    def journal(self) -> Path:
        """Encrypted checkpoints."""
        return self.private / "journal"

    @property
    def own_logs(self) -> tuple[Path, ...]:
        """The participant's log files that are still here, of all contracts; this contract's first."""
        return (self.logs / LOG,)

    @property
    def approvals(self) -> Path:
        """Who approved the contract: the signed statements of which the log has a record already."""
        return self.private / "approvals"

    @property
    def model(self) -> Path:
        """Model share, and at the bank the scores."""
        return self.private / "model"

    @property
    def overlap(self) -> Path:
        """The band of the common customers, where the contract's task is to count them."""
        return self.private / "overlap.json"


def load_identity(place: Place, random: Random) -> Identity:
    """Read the participant's identity key, or make one."""
    if not place.identity.exists():
        write_atomically(place.identity, Identity.generate(random).secret_bytes())
    return Identity(place.identity.read_bytes())


def open_data(
    config: PartnerConfig, folder: Path, day: date | None = None, withdrawn: filters.Withdrawn | None = None
) -> Table:
    """Read a party's own file as its job says, without those who must not be on the list.

    day : on which the ages count, the contract's: then a resume, days later, has the same list. None: today.
    withdrawn : the list of those who withdrew; None: that of the organisation in whose folder the file lies, if it
    lies in one. So who withdrew is in no simulation either that reads an organisation's own file.
    """
    if withdrawn is None:
        withdrawn = list_of_owner(folder / config.file)
    schema = schema_of(config, folder, day or datetime.now(UTC).date(), withdrawn)
    table = read_table(folder / config.file, schema)
    if config.reference is None:
        return table
    alone = TableSchema(config.id, config.id_kind, config.country, schema.columns)
    return replace(table, reference=read_table(folder / config.reference, alone))


def list_of_owner(file: Path) -> Withdrawals | None:
    """Return the withdrawal list of the organisation in whose folder a file lies; None where there is none."""
    store = next((f / "state" / "store" for f in file.resolve().parents if (f / "party.toml").exists()), None)
    return Withdrawals(Store(store), secrets.token_bytes) if store is not None and store.is_dir() else None


def schema_of(
    config: PartnerConfig, folder: Path, day: date, withdrawn: filters.Withdrawn | None = None
) -> TableSchema:
    """Say how a party's file is read, and who is left out of it."""
    columns = [Column(n, "number") for n in config.numbers] + [
        Column(n, "category") for n in config.categories
    ]
    bank = config if isinstance(config, BankConfig) else None
    label, offset, weight = (None, None, None) if bank is None else (bank.label, bank.offset, bank.weight)
    more_ids = tuple(KeyColumns(key.kind, key.parts) for key in config.more_ids)
    return TableSchema(
        config.id,
        config.id_kind,
        config.country,
        tuple(columns),
        label,
        _filters(config, folder, day, withdrawn),
        more_ids,
        offset,
        weight,
        "class" if bank is None else bank.label_kind,
    )


def _filters(
    config: PartnerConfig, folder: Path, day: date, withdrawn: filters.Withdrawn | None
) -> Filters | None:
    asked = (withdrawn, config.consent, config.opt_out, config.birth_date, config.age)
    if all(each is None for each in asked):
        return None
    opt_out = None if config.opt_out is None else folder / config.opt_out
    years = config.minimum_age or ADULT
    return Filters(day, config.consent, opt_out, config.birth_date, config.age, years, withdrawn)


def local_states(table: Table) -> tuple[State, ...]:
    """Turn a table into what the steps read."""
    labelled = None if table.label is None else ~np.isnan(table.label)
    states: tuple[State, ...] = (
        Customers(table.ids, labelled, table.more_ids),
        Columns(table.numbers, table.categories, table.label, table.offset, table.weight),
    )
    if table.reference is None:
        return states
    return (*states, Reference(table.reference.numbers, table.reference.categories))


def data_digest(table: Table) -> bytes:
    """Hash ids, columns and label in their order; kept by the party itself, it never leaves."""
    state = hashlib.sha256("\n".join(table.people).encode())
    for name, numbers in table.numbers.items():
        state.update(name.encode() + b"\0" + np.ascontiguousarray(numbers).tobytes())
    for name, levels in table.categories.items():
        state.update(name.encode() + b"\0" + repr(levels.tolist()).encode())
    for special in (table.label, table.offset, table.weight):
        state.update(b"" if special is None else special.tobytes())
    if table.reference is not None:
        state.update(data_digest(table.reference))
    return state.digest()


def open_party(
    name: str,
    signed: SignedContract,
    config: PartyConfig,
    table: Table | None,
    place: Place,
    sources: Sources,
    statements: Sequence[Envelope] = (),
    withdrawn: Withdrawn | None = None,
    watch: Callable[[Script], Script] = lambda script: script,
) -> Party:
    """Open one participant: contract and own list are put to its controls first, before anything leaves.

    statements : signed ones about the contract, such as approvals; its log says each once. withdrawn : who of a list
    withdrew; None where the party keeps no list of them. watch : what a simulation puts around the script to see its
    steps (`attack_lab.views`); a deployment has none.
    """
    check_contract(name, signed, config, place, sources, statements)
    contract, policy, store = signed.contract, Policy(config), Store(place.store)
    guard = None
    if table is not None:
        with _logging_refusals(name, signed, policy, place, sources):
            gone = None if withdrawn is None else withdrawn(table)
            policy.check_list(len(table.ids), contract, table.dropped, gone)
            guard = _guard(name, signed, policy, table, place, store, sources)
            guard.check()
            check_logged(store, place.own_logs)
    log = open_log(name, signed, place, sources)
    rules = f"{policy.digest} {installed_code()}".encode()
    if log.size == 0 or _refused_key(signed) in store:
        log.append_all(_opening_records(name, signed, table, policy, read_acts(place.store.parent)))
        store.forget(_refused_key(signed))
    elif store.get(_rules_key(signed)) != rules:
        log.append(*_rules_record(name, policy, read_acts(place.store.parent)))
    store.put(_rules_key(signed), rules)
    fresh = unheard(place.approvals, counting(contract, statements))
    if events := governance_events(contract, fresh):
        log.append_all(events)
    keep_statements(place.approvals, fresh)
    note_replaced(store, contract)
    identity = load_identity(place, sources.random)
    deals = DealRecords(contract, Name(name), place.logs, identity, sources.random)
    release = Release(sources.random, sources.clock, config.policy)
    journal = Journal(place.journal, place.private / "journal.key", sources.random)
    return Party(
        Name(name), contract, watch(SCRIPTS[contract.task]), identity, policy, log,
        journal, store, sources.random, local_states(table) if table is not None else (),
        data=data_digest(table) if table is not None else b"",
        finish=lambda party: _finish(party, place, table, policy, release) if table is not None else [],
        count_list=guard.count if guard is not None else lambda _: [],
        deals=deals,
    )  # fmt: skip


def check_contract(
    name: str,
    signed: SignedContract,
    config: PartyConfig,
    place: Place,
    sources: Sources,
    statements: Sequence[Envelope] = (),
) -> None:
    """Refuse a contract that breaks a control, and write the refusal into the log that its run would have."""
    policy, now, past, heard = Policy(config), sources.clock(), UNKNOWN, tuple(statements)
    if policy.is_ours(signed, now):
        past = _remember(name, signed, place, sources, now, statements)
        heard += tuple(kept_statements(place.approvals))
    with _logging_refusals(name, signed, policy, place, sources):
        policy.check_contract(signed, now, heard, past)


def _remember(
    name: str,
    signed: SignedContract,
    place: Place,
    sources: Sources,
    now: datetime,
    statements: Sequence[Envelope],
) -> Past:
    """Keep and log what speaks against a contract, so that nobody can leave it out the next time; return its past."""
    contract, store = signed.contract, Store(place.store)
    past, events = past_of(store, contract), list[Event]()
    against = unheard(place.approvals, objections(contract, statements))
    events += governance_events(contract, against)
    if ends := now >= contract.expires and not past.expired:
        events.append(("contract.expired", {"expires": zulu(contract.expires)}))
    if events:
        log = open_log(name, signed, place, sources)
        log.append_all(events)
        log.release()
    keep_statements(place.approvals, against)
    if ends:
        note_expired(store, contract)
    return past_of(store, contract)


@contextmanager
def _logging_refusals(
    name: str, signed: SignedContract, policy: Policy, place: Place, sources: Sources
) -> Iterator[None]:
    """Log what is refused within, once for each reason in turn: whoever asks again and again fills no disk."""
    try:
        yield
    except PolicyRefused as error:
        if policy.is_ours(signed, sources.clock()):
            store, rule = Store(place.store), str(error)[:_LONGEST_RULE]
            if store.get(_refused_key(signed)) != rule.encode():
                log = open_log(name, signed, place, sources)
                log.append("policy.refused", {"step": "opening", "why": "PolicyRefused", "rule": rule})
                log.release()
                store.put(_refused_key(signed), rule.encode())
        raise


def _refused_key(signed: SignedContract) -> str:
    return f"refused/{digest(signed.contract).hex()}"


def _rules_key(signed: SignedContract) -> str:
    return f"rules/{digest(signed.contract).hex()}"


def open_log(name: str, signed: SignedContract, place: Place, sources: Sources) -> AuditLog:
    """Open a participant's log of a contract, or begin it."""
    identity, number = load_identity(place, sources.random), digest(signed.contract)
    origin, second = log_origin(number, name), second_keys(signed)
    return AuditLog(
        place.logs, origin, identity, sources.clock, "", name, number, second, steady=sources.steady
    )


def _finish(party: Party, place: Place, table: Table, policy: Policy, release: Release) -> list[Event]:
    """Write the files of a finished run."""
    if party.contract.task == "overlap":
        return write_overlap(party, place.overlap, release)
    return write_outputs(party, place.model, table, policy, release)


def _guard(
    name: str,
    signed: SignedContract,
    policy: Policy,
    table: Table,
    place: Place,
    store: Store,
    sources: Sources,
) -> ListGuard:
    ledger = ListLedger(store, sources.random)
    hashes = ledger.hashes(table.people)
    dropped = filters.salted(table.dropped.events(), sources.random)
    return ListGuard(ledger, policy, signed.contract, name, hashes, sources.clock, place.own_logs, dropped)


def _opening_records(
    name: str, signed: SignedContract, table: Table | None, policy: Policy, acts: Chain
) -> list[Event]:
    contract = signed.contract
    records: list[Event] = [
        *drafted_events(contract),
        ("contract.signed", {"signers": [s.name for s in contract.signers], "purpose": contract.purpose}),
        *declared_events(contract),
        _rules_record(name, policy, acts),
    ]
    if table is not None:
        columns = list(contract.party(name).columns)
        records.append(
            ("dataset.opened", {"columns": columns, "rows_up_to": -(-len(table.ids) // 1000) * 1000})
        )
    if table is not None and contract.governance is not None:
        granted = contract.governance.dataset(name)
        names: list[Json] = [] if granted is None else [grant.name for grant in granted.columns]
        unused: list[Json] = list(unused_grants(contract).get(name, ()))
        records.append(("column.granted", {"columns": names, "unused": unused}))
    return records


def _rules_record(name: str, policy: Policy, acts: Chain) -> Event:
    """Say by which policy and which code a participant asks its controls: whoever loosens one leaves a trace."""
    return (
        "policy.loaded",
        {"party": name, "policy": policy.digest, "code": installed_code()} | _acts_so_far(acts),
    )


def _acts_so_far(acts: Chain) -> dict[str, Json]:
    """Say how many acts there are and the last one's hash: under a log that others sign, they cannot be exchanged."""
    return {"acts": {"count": len(acts.acts), "head": acts.head}} if acts.acts else {}
