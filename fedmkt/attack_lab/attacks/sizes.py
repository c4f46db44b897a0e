"""Sizes of intersections asked again and again (row 10): of how many people membership follows after thirty attempts.

The attacker is the bank. It may make lists as long and as different as it likes, and knows enough common customers to
carry any list over the minimum. It meets the rules of the run: the limits of its contract, the policies of both
parties, their ledgers of matched lists, and the bands that the overlap job tells. What follows from all answers
together is worked out to the last person (`set_sizes.deduce`). Undefended: a side that answers with exact sizes.

Not attacked: the match of a training itself, which names common customers to both where the contract lists
`MatchedOwnRows`; that such runs are rationed by the same ledger is what the rules give there.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count as numbers
from pathlib import Path

from fedmkt.attack_lab.attacks.set_sizes import Answer, Exact, Inferred, World, check, deduce, split
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Subject
from fedmkt.config.drafts import draft_contract, simulated_party
from fedmkt.config.job import JobConfig, overlap_of
from fedmkt.contract.agreement import Contract
from fedmkt.contract.checks import check_common
from fedmkt.crypto.prg import SeededRandom
from fedmkt.crypto.sign import Identity
from fedmkt.errors import PolicyRefused
from fedmkt.party.list_ledger import ListGuard, ListLedger
from fedmkt.party.policy import Policy
from fedmkt.party.store import Store
from fedmkt.protocol.alignment.cardinality import told_of

CALLS = 30
_PEOPLE = 2000
_START = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Guarded:
    """Two sides that keep the rules, each with a ledger of its own; every call has a new contract.

    hours : between two calls. reads_sizes : the attacker changed its own program. It asks no rule of its own and reads
    the size in memory; the other side's rules hold all the same. blur : what the side that counts makes of the count
    before it is shown. policy : settings of both sides that are not those of the job.
    """

    world: World
    folder: Path
    job: JobConfig
    partner: str
    reads_sizes: bool = False
    blur: Callable[[int], int] = int
    policy: dict[str, int] = field(default_factory=dict)
    hours: float = 1.0
    shown: int = 0
    refused: int = 0
    asked: list[tuple[Sequence[str], Answer]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make both sides' places."""
        self.job = overlap_of(self.job)
        names = (self.job.bank.name, self.partner)
        signers = [p.name for p in self.job.parties] + [self.job.coordinator.name]
        self._keys = {name: Identity(bytes([i + 1]) * 32).public for i, name in enumerate(signers)}
        self._now = _START
        self._invented = numbers()
        self._draft = draft_contract(self.job, self._keys, _START)
        self._ledgers = {n: ListLedger(Store(self.folder / n), SeededRandom(n.encode())) for n in names}

    def _rules(self, name: str) -> Policy:
        config = simulated_party(self.job, name, self._keys)
        return Policy(config.model_copy(update={"policy": config.policy.model_copy(update=self.policy)}))

    def _count(self, name: str, ids: Sequence[str], contract: Contract, run: str) -> None:
        policy, ledger = self._rules(name), self._ledgers[name]
        policy.check_list(len(ids), contract)
        guard = ListGuard(ledger, policy, contract, name, ledger.hashes(ids), lambda: self._now, ())
        guard.check()
        guard.count(run)

    @property
    def minimum(self) -> int:
        """The least number of common customers."""
        return self._draft.limits.min_common

    def filled(self, group: Sequence[str], known: int) -> list[str]:
        """Make a list that the rules let through of the people who are asked about."""
        short = self._draft.limits.min_list - len(group) - known
        return [*group, *self.world.known[:known], *self.invent(max(100, short))]

    def invent(self, people: int) -> list[str]:
        """Return people who do not exist, and were on no list before."""
        return [f"nobody {next(self._invented)}" for _ in range(people)]

    def ask(self, ids: Sequence[str], known: int) -> Answer:
        """Go through one run of the overlap job; PolicyRefused if a rule stops it before anything is shown."""
        self._now += timedelta(hours=self.hours)
        run = f"{self._now:%Y%m%d%H}"
        contract = self._draft.model_copy(update={"name": f"job-{run}"})
        bank, other = self._ledgers
        try:
            if not self.reads_sizes:
                self._count(bank, ids, contract, run)
            theirs = sorted(self.world.theirs)
            self._rules(other).check_list(len(ids), contract)
            self._count(other, theirs, contract, run)
        except PolicyRefused:
            self.refused += 1
            raise
        self.shown += 1
        answer = self._answer(len(self.world.theirs.intersection(ids)), ids, contract, known)
        self.asked.append((ids, answer))
        return answer

    def _answer(self, size: int, ids: Sequence[str], contract: Contract, known: int) -> Answer:
        if self.reads_sizes:
            return Answer(size - known, size - known)
        count = max(0, self.blur(size))
        try:
            check_common(contract.limits, count - 1, count)
        except PolicyRefused:
            return Answer(0, max(0, contract.limits.min_common - 1 - known))
        told = told_of(count, len(ids), len(self.world.theirs))
        return Answer(max(0, told.low + 1 - known), told.high - known)

    def __call__(self, group: Sequence[str]) -> Answer:
        """Ask about a group of targets."""
        known = 0 if self.reads_sizes else self.minimum
        found = self.ask(self.filled(group, known), known)
        return Answer(found.low, min(found.high, len(group)))


def insist(side: Guarded, calls: int) -> Inferred:
    """Go through the attack with honest programs on both sides, so many calls, whatever the rules refuse."""
    targets = side.world.targets
    split(side.world, side, len(targets))
    while side.shown + side.refused < calls:
        try:
            side(targets[side.refused % len(targets) :])
        except PolicyRefused:
            continue
    found = deduce(side.world, side.asked)
    check(found, side.world)
    return found


def size_differencing(subject: Subject, effort: Effort) -> Finding:
    """Row 10: people whose membership the bank knows for certain after thirty attempts."""
    world = world_of_run(subject, effort)
    plain = split(world, Exact(world, CALLS), len(world.targets))
    check(plain, world)
    with tempfile.TemporaryDirectory() as name:
        side = Guarded(world, Path(name) / "honest", subject.config, subject.partner)
        found = insist(side, CALLS)
        reader = 0
        for first in (len(world.targets), 500, 100, 30, 8, 2):
            place = Path(name) / f"changed {first}"
            changed = split(
                world, Guarded(world, place, subject.config, subject.partner, reads_sizes=True), first
            )
            check(changed, world)
            reader = max(reader, changed.people)
    attempts = f"{CALLS} attempts on {len(world.targets):,} people"
    return Finding(
        10, "sizes asked again and again", "members", float(plain.people), float(found.people), Limit(0),
        f"{attempts}, {side.shown} answered with a band, {side.refused} refused; "
        f"a bank that changes its own program and reads {side.shown} exact sizes in memory knows {reader}",
    )  # fmt: skip


def world_of_run(subject: Subject, effort: Effort) -> World:
    """Take people of the bank, of whom some are the partner's, and as many others of the partner's."""
    people, theirs = subject.tables[subject.bank].people, subject.tables[subject.partner].people
    chosen = effort.random.permutation(len(people))[: min(_PEOPLE, max(1, len(people) // 3))]
    targets = tuple(people[i] for i in chosen.tolist())
    members = frozenset(targets).intersection(theirs)
    known = tuple(f"known {i}" for i in range(subject.contract.limits.min_common + 200))
    others = [p for p in theirs[: 2 * _PEOPLE] if p not in members]
    return World(targets, members, members.union(known, others), known)
