"""The disclosure report of a run: what each party learned, how much of it, from whom, under which clause.

It reads the `value.revealed` records of all logs. Those are written by whoever sends, before anything
leaves; policy and audit read the same events. Without a party's log, what that party revealed is unread: the
report says so, and what the contract allows at most.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from textwrap import wrap

from fedmkt.audit.records import Record
from fedmkt.contract.agreement import Contract
from fedmkt.errors import AuditError
from fedmkt.privacy.disclosure import EVERYONE, DealerSeeds, Disclosure, from_record, may_learn

REVEALED = "value.revealed"
SEALED = "seeds.sealed"


@dataclass(frozen=True)
class Learned:
    """One thing that `reader` learned from `source`, `times` times, with the clause that allows it."""

    reader: str
    source: str
    disclosure: Disclosure
    times: int
    clause: str


@dataclass(frozen=True)
class Fact:
    """One thing that `reader` learned, from whom and how often; several may have said the same."""

    reader: str
    disclosure: Disclosure
    sources: tuple[str, ...]
    times: tuple[int, ...]
    clause: str

    @property
    def origin(self) -> str:
        """Say from whom, and how often if more than once."""
        names = " and ".join(filter(None, [", ".join(self.sources[:-1]), self.sources[-1]]))
        if len(set(self.times)) > 1:
            return f"from {names}, {sum(self.times)} times in all"
        often = "" if self.times[0] == 1 else f", {self.times[0]} times"
        return f"from {names}{often}{' each' if often and len(self.sources) > 1 else ''}"


@dataclass(frozen=True)
class Unread:
    """What `sources` may have revealed to `reader`, by logs that are not here; `kinds` : allowed by the contract."""

    reader: str
    sources: tuple[str, ...]
    kinds: tuple[str, ...]

    @property
    def amount(self) -> str:
        """Say where it is written down."""
        return f"see the log of {' and that of '.join(self.sources)}"

    @property
    def text(self) -> str:
        """Say it in plain words."""
        return (
            f"what {' and '.join(self.sources)} revealed to it, at most: {', '.join(self.kinds) or 'nothing'}"
        )


@dataclass(frozen=True)
class DisclosureReport:
    """Everything that was revealed in a run; `readers` : all signers, also those who learned nothing.

    unread : empty if the logs of all parties were there.
    """

    readers: tuple[str, ...]
    learned: tuple[Learned, ...]
    unread: tuple[Unread, ...] = ()

    def of(self, reader: str) -> tuple[Learned, ...]:
        """List what this reader learned, log by log in the order in which it happened."""
        return tuple(item for item in self.learned if item.reader == reader)

    def merged(self) -> tuple[Fact, ...]:
        """Put together what a reader learned from several sources in the same words, reader by reader.

        Amounts that may be added up are, source by source.
        """
        found: dict[tuple[str, Disclosure], list[Learned]] = {}
        for reader in self.readers:
            for item in _added(self.of(reader)):
                found.setdefault((reader, item.disclosure), []).append(item)
        return tuple(
            Fact(reader, d, tuple(i.source for i in items), tuple(i.times for i in items), items[0].clause)
            for (reader, d), items in found.items()
        )

    def lines(self, width: int = 80) -> list[str]:
        """Say it in plain words, one block per reader, each disclosure with its whole text below."""
        facts, lines = self.merged(), []
        for reader in self.readers:
            own = [line for fact in facts if fact.reader == reader for line in _fact_lines(fact, width)]
            own += [line for u in self.unread if u.reader == reader for line in _unread_lines(u, width)]
            lines += ["", f"{reader}:", *(own or ["  learned nothing"])]
        return lines[1:]


def _added(items: Iterable[Learned]) -> list[Learned]:
    """Make one of all releases by one source that differ in nothing but amounts that may be added up."""
    alike: dict[tuple[str, Disclosure], list[Learned]] = {}
    for item in items:
        bare = _with_amounts(item.disclosure, dict.fromkeys(item.disclosure.adds, 0))
        alike.setdefault((item.source, bare), []).append(item)
    return [
        replace(same[0], disclosure=_with_amounts(bare, _amounts(same)), times=sum(i.times for i in same))
        for (_, bare), same in alike.items()
    ]


def _amounts(same: list[Learned]) -> dict[str, int]:
    names = same[0].disclosure.adds
    return {name: sum(i.times * getattr(i.disclosure, name) for i in same) for name in names}


def _with_amounts(disclosure: Disclosure, amounts: Mapping[str, int]) -> Disclosure:
    return from_record({**disclosure.record(), **amounts})


def report(logs: Mapping[str, Iterable[Record]], contract: Contract) -> DisclosureReport:
    """Collect what was revealed; AuditError for anything that the contract does not name.

    logs : the records of each signer's log, by name.
    """
    signers = tuple(signer.name for signer in contract.signers)
    counts: dict[tuple[str, str, Disclosure], int] = {}
    for source, records in logs.items():
        for record in records:
            if record.type == REVEALED:
                disclosure = _read(record, contract)
                for reader in _readers(disclosure, source, signers):
                    key = (reader, source, disclosure)
                    counts[key] = counts.get(key, 0) + 1
            elif record.type == SEALED and (seeds := _seeds(record, contract)) is not None:
                counts[seeds.to, source, seeds] = 1
    learned = [
        Learned(reader, source, disclosure, times, _clause(disclosure))
        for (reader, source, disclosure), times in counts.items()
    ]
    outsiders = () if contract.auditor is None else (contract.auditor.name,)
    return DisclosureReport((*signers, *outsiders), tuple(learned), tuple(_unread(set(logs), contract)))


def _unread(logs: Set[str], contract: Contract) -> Iterator[Unread]:
    roles = {party.name: party.role for party in contract.parties}
    for signer in contract.signers:
        sources = tuple(name for name in roles if name not in logs and name != signer.name)
        if sources:
            kinds = may_learn(roles.get(signer.name, "coordinator"), contract.task, contract.align.hidden)
            yield Unread(signer.name, sources, tuple(k for k in contract.disclosures if k in kinds))


def _read(record: Record, contract: Contract) -> Disclosure:
    where = f"log of {record.party}: record {record.seq}"
    try:
        disclosure = from_record(record.body)
    except ValueError as error:
        raise AuditError(f"{where}: {error}") from None
    if disclosure.kind not in contract.disclosures:
        raise AuditError(f"{where}: the contract does not allow {disclosure.kind}")
    return disclosure


def _seeds(record: Record, contract: Contract) -> DealerSeeds | None:
    """Return what a party sealed for the auditor; None for the dealer, who only commits to what it has."""
    epoch, auditor = record.body.get("epoch"), contract.auditor
    if record.party == contract.coordinator.name or auditor is None or not isinstance(epoch, int):
        return None
    return DealerSeeds(to=auditor.name, epoch=epoch)


def _readers(disclosure: Disclosure, source: str, signers: tuple[str, ...]) -> tuple[str, ...]:
    if disclosure.to == EVERYONE:
        return tuple(name for name in signers if name != source)
    if disclosure.to not in signers:
        raise AuditError(f"log of {source}: {disclosure.kind} went to {disclosure.to}, who is no signer")
    return (disclosure.to,)


def _clause(disclosure: Disclosure) -> str:
    return f'contract, disclosures: "{disclosure.kind}"'


def _fact_lines(fact: Fact, width: int) -> list[str]:
    head = f"- {fact.disclosure.describe()} ({fact.origin}; clause {fact.disclosure.kind})"
    return [
        *wrap(head, width, initial_indent="  ", subsequent_indent="    "),
        *wrap(fact.disclosure.plain_text, width, initial_indent="      ", subsequent_indent="      "),
    ]


def _unread_lines(unread: Unread, width: int) -> list[str]:
    text = f"- {unread.text} ({unread.amount}, which is not here)"
    return wrap(text, width, initial_indent="  ", subsequent_indent="    ")
