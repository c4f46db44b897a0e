"""Parties in memory for tests, with every request and answer passing by.

    world = toy_world(tmp_path, script)              three organisations, any script, local states by name
    world = job_world(tmp_path, iterations=2)        the main job on a small invented bank and shop
    tap = Tap()
    result = world.run(tap)                          opens new Party objects and drives the script to its end
    tap.passed                                       every message to a party with what the party told, in order
    world.run(Tap(stop_after=17))                    raises Killed after 17 requests were answered
    world.run(Tap(stop_at=17))                       raises Killed before call 17 of the script is asked
    world.run(resume=True)                           new Party objects from the same folders: what a restart is

`Tap(change=f)` lets `f(name, message)` replace a message on its way to a party, `Tap(reply=f)` lets
`f(name, message, told)` replace what comes back: a coordinator or a network that cheats. Everything runs on the
calling thread, so a run with seeded randomness is repeatable. `world.parties` are the objects of the last run;
`world.folder_of(name)` holds all that a party has on disk. `world.open()` alone gives parties to be asked by hand;
`begin(parties)` opens an epoch with them and `Hand` plays a coordinator round by round.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedmkt.audit.checkpoint import log_origin
from fedmkt.config.files import parse_job
from fedmkt.config.job import JobConfig
from fedmkt.config.policy import PolicyConfig
from fedmkt.config.settings import PartyConfig
from fedmkt.contract.agreement import Contract, Limits, PartyTerms, Signer
from fedmkt.contract.canonical import digest
from fedmkt.contract.signatures import SignedContract, second_keys, sign
from fedmkt.crypto.prg import Random, SeededRandom
from fedmkt.crypto.seal import Envelope
from fedmkt.crypto.sign import Identity
from fedmkt.party.audit_log import AuditLog
from fedmkt.party.handle import Party
from fedmkt.party.journal import Journal
from fedmkt.party.node import Place, Sources, load_identity, open_data, open_party
from fedmkt.party.policy import Policy
from fedmkt.party.store import Store
from fedmkt.protocol.core import Name, PublicValue, Script, State, everyone
from fedmkt.protocol.pipeline import SCRIPTS
from fedmkt.protocol.session import NEW_RUN, Answer, Invitation, Opening, Request
from fedmkt.protocol.turns import Follower, Receipt
from fedmkt.simulation.run import party_settings
from fedmkt.simulation.world import generate, write_world
from fedmkt.transport.driver import Ask, Coordinator, Endpoint, Told, serve

BANK, SHOP, TELECOM, DEALER = Name("bank"), Name("shop"), Name("telecom"), Name("coordinator")
START = datetime(2030, 1, 1, tzinfo=UTC)


class Killed(Exception):
    """The test ended the processes here."""


@dataclass(frozen=True)
class Passing:
    """One message to a party, and what the party told."""

    to: Name
    message: Ask
    told: Told


@dataclass
class Tap:
    """Hears, and may change, all that passes between coordinator and parties."""

    stop_after: int | None = None
    """Raise Killed when this many requests (not hellos or openings) were answered."""
    stop_at: int | None = None
    """Raise Killed instead of asking the call with this index, whatever was replayed before."""
    change: Callable[[Name, Ask], Ask] = lambda name, message: message
    reply: Callable[[Name, Ask, Told], Told] = lambda name, message, told: told
    passed: list[Passing] = field(default_factory=list)

    def endpoint(self, name: Name, party: Party) -> Endpoint:
        """Stand between the coordinator and a party."""
        return _Tapped(name, party, self)

    @property
    def requests(self) -> list[Passing]:
        """What passed, hellos and openings left out."""
        return [p for p in self.passed if isinstance(p.message, Request)]

    @property
    def answers(self) -> list[Answer]:
        """The answers to requests, in order."""
        return [p.told for p in self.passed if isinstance(p.told, Answer)]

    @property
    def envelopes(self) -> list[Envelope]:
        """Every envelope that left a party, in order."""
        return [e for a in self.answers for e in a.envelopes]


@dataclass(frozen=True)
class _Tapped:
    name: Name
    party: Party
    tap: Tap

    def send(self, message: Ask) -> "Future[Told]":
        stop = self.tap.stop_after
        if stop is not None and isinstance(message, Request) and len(self.tap.requests) >= stop:
            raise Killed(f"after {stop} requests")
        if isinstance(message, Request) and message.index == self.tap.stop_at:
            raise Killed(f"before call {message.index}")
        changed = self.tap.change(self.name, message)
        told = self.tap.reply(self.name, changed, serve(self.party, changed))
        self.tap.passed.append(Passing(self.name, changed, told))
        future: Future[Told] = Future()
        future.set_result(told)
        return future


@dataclass
class World:
    """One contract, its participants' folders and keys; parties are opened anew for every run."""

    folder: Path
    signed: SignedContract
    script: Script
    identities: Mapping[Name, Identity]
    open_one: Callable[[Name], Party]
    parties: dict[Name, Party] = field(default_factory=dict)

    @property
    def contract(self) -> Contract:
        """The contract."""
        return self.signed.contract

    @property
    def keys(self) -> dict[Name, bytes]:
        """Public identity keys."""
        return {Name(s.name): bytes.fromhex(s.key) for s in self.contract.signers}

    def folder_of(self, name: Name) -> Path:
        """All that a participant has on disk."""
        return self.folder / "parties" / name

    def kill(self) -> None:
        """Abandon the Party objects, as the end of their processes would; their folders stay."""
        for party in self.parties.values():
            party.release()
        self.parties = {}

    def open(self) -> dict[Name, Party]:
        """Open every participant from its folder; the ones before are abandoned."""
        self.kill()
        for name in everyone(self.contract):
            self.parties[name] = self.open_one(name)
        return self.parties

    def run(self, tap: Tap | None = None, resume: bool = False) -> PublicValue:
        """Open the parties and drive the script to its end; the files are let go whatever happens."""
        tap = tap or Tap()
        endpoints = {n: tap.endpoint(n, p) for n, p in self.open().items()}
        coordinator = Coordinator(self.contract, self.script, endpoints, self.folder / "coordinator")
        try:
            return coordinator.run(resume)
        finally:
            for party in self.parties.values():
                party.release()


def toy_world(
    folder: Path,
    script: Script,
    *,
    names: Sequence[Name] = (BANK, SHOP),
    local: Mapping[Name, Sequence[State]] | None = None,
    random: Callable[[Name], Random] | None = None,
    limits: Limits | None = None,
    disclosures: Sequence[str] = ("SetSize",),
    organisations: Mapping[Name, str] | None = None,
) -> World:
    """Make a contract between two or three invented parties and the dealer, for any script.

    `random` : each participant's generator, drawn again at every opening; the default never repeats.
    """
    identities = {n: Identity(bytes([i + 1]) * 32) for i, n in enumerate((*names, DEALER))}
    contract = _toy_contract(names, identities, limits or Limits(), disclosures, organisations or {})
    signed = SignedContract(
        contract=contract, signatures={n: sign(contract, n, i) for n, i in identities.items()}
    )
    opened: dict[Name, int] = dict.fromkeys(identities, 0)

    def open_one(name: Name) -> Party:
        opened[name] += 1
        place = folder / "parties" / name
        draw = random(name) if random else SeededRandom(f"{name} {opened[name]}".encode())
        log = AuditLog(
            place / "log", log_origin(digest(contract), name), identities[name], lambda: START, "", name,
            digest(contract), second_keys(signed),
        )  # fmt: skip
        policy = Policy(_toy_policy(signed, name)) if name != DEALER else None
        journal = Journal(place / "journal", place / "journal.key", draw)
        return Party(
            name, contract, script, identities[name], policy, log, journal, Store(place / "store"), draw,
            (local or {}).get(name, ()),
        )  # fmt: skip

    return World(folder, signed, script, identities, open_one)


def _toy_contract(
    names: Sequence[Name], identities: Mapping[Name, Identity], limits: Limits, disclosures: Sequence[str],
    organisations: Mapping[Name, str],
) -> Contract:  # fmt: skip
    def organisation(name: Name) -> str:
        return organisations.get(name, f"The {name}")

    parties = tuple(
        PartyTerms(
            name=n, organisation=organisation(n), key=identities[n].public.hex(), id_kind="raw", numbers=("x",),
            role="bank" if n == BANK else "partner", label="y" if n == BANK else None,
        )
        for n in names
    )  # fmt: skip
    key = identities[DEALER].public.hex()
    return Contract(
        name="toy", purpose="tests", family="toys", created=START, expires=START + timedelta(days=30), parties=parties,
        coordinator=Signer(name=DEALER, organisation=organisation(DEALER), key=key), limits=limits,
        disclosures=tuple(disclosures),
    )  # fmt: skip


def _toy_policy(signed: SignedContract, name: Name) -> PartyConfig:
    contract = signed.contract
    own = contract.party(name)
    return PartyConfig(
        name=name,
        organisation=own.organisation,
        pinned={s.name: s.key for s in contract.signers},
        policy=PolicyConfig(
            purposes=(contract.purpose,), columns=own.columns, disclosures=contract.disclosures,
            max_runs=contract.limits.max_runs, max_resumes=contract.limits.max_resumes,
        ),
    )  # fmt: skip


def job_config(
    folder: Path, *, seed: int = 1, rows: tuple[int, int, int] = (400, 450, 320), iterations: int = 2,
    checkpoint_every: int = 1, partners: int = 1, minimum: int = 100, more: str = "",
) -> JobConfig:  # fmt: skip
    """Write a small world's files into `folder` and return its job.

    rows : of the bank, of each partner, in common. more : lines of further sections of job.toml.
    """
    job = write_world(generate(seed, *rows, partners=partners), folder, minimum=minimum)
    text = job.read_text()
    text = text.replace(
        "[model]\n", f"[model]\niterations = {iterations}\ncheckpoint_every = {checkpoint_every}\n"
    ).replace("[limits]\n", "[limits]\nmax_resumes = 100\nmax_runs = 1000\nmin_support = 20\n")
    job.write_text(text + more)
    return parse_job(job.read_text(), str(job))


def job_world(folder: Path, *, seed: int | None = None, **options: object) -> World:
    """Make the world of a small main job, parties opened as in a deployment (`open_party`).

    seed : participants draw from a seeded generator, another one at every opening; None: from the system.
    options : those of `job_config`, except that its `seed` is called `world`.
    """
    options["seed"] = options.pop("world", 1)
    config = job_config(folder / "data", **options)  # type: ignore[arg-type]
    tables = {p.name: open_data(p, folder / "data") for p in config.parties}
    return world_of(config, folder, tables, seed)


def world_of(config: JobConfig, folder: Path, tables: Mapping[str, object], seed: int | None = None) -> World:
    """Sign the contract of a job and make its world in `folder`."""
    from fedmkt.config.drafts import draft_contract

    names = [Name(p.name) for p in config.parties] + [Name(config.coordinator.name)]
    places = {n: Place(folder / "parties" / n, folder / "logs" / n) for n in names}
    identities = {n: load_identity(places[n], Sources.of(seed, f"{n}/identity").random) for n in names}
    now = Sources.of(seed, "contract").clock()
    contract = draft_contract(config, {n: i.public for n, i in identities.items()}, now)
    signed = SignedContract(
        contract=contract, signatures={n: sign(contract, n, i) for n, i in identities.items()}
    )
    opened: dict[Name, int] = dict.fromkeys(names, 0)

    def open_one(name: Name) -> Party:
        opened[name] += 1
        settings = party_settings(config, signed, name)
        sources = Sources.of(seed, name, opened[name])
        return open_party(name, signed, settings, tables.get(name), places[name], sources)  # type: ignore[arg-type]

    return World(folder, signed, SCRIPTS[contract.task], identities, open_one)


def begin(
    parties: Mapping[Name, Party], run: bytes = NEW_RUN, epoch: int = 1, receipts: Sequence[Receipt] = ()
) -> bytes:
    """Open an epoch at parties as an honest coordinator would; returns the run id."""
    hellos = tuple(p.hello(Invitation(run, epoch)) for p in parties.values())
    (opened,) = {p.open_epoch(Opening(hellos, tuple(receipts))) for p in parties.values()}
    return opened


class Hand:
    """A coordinator played by hand: each call of `step` asks one round of honest requests."""

    def __init__(
        self, world: World, run: bytes, parties: Mapping[Name, Party] | None = None, epoch: int = 1
    ) -> None:
        self.world = world
        self.parties = dict(parties or world.parties)
        self.follower = Follower(world.script, world.contract, run, world.keys, epoch)
        self.follower.start(epoch)
        self.receipts: list[Receipt] = []
        self.bodies: dict[tuple[int, Name], Envelope] = {}
        self._envelopes: dict[bytes, Envelope] = {}
        self._shown: dict[Name, int] = {}

    def requests(self) -> list[tuple[Name, Request]]:
        """Return the honest requests of the current round."""
        made = []
        for offset, call in enumerate(self.follower.round):
            news = tuple(self.receipts[self._shown.get(call.party, 0) :])
            inbox = tuple(self._envelopes[s.digest] for s in (*call.inbox, *call.riders))
            made.append((call.party, Request(self.follower.index + offset, call.step.name, news, inbox)))
        return made

    def ask(self) -> list[Answer]:
        """Ask the parties of the current round, without going on."""
        return [self.parties[name].handle(request) for name, request in self.requests()]

    def accept(self, answers: Sequence[Answer]) -> None:
        """Go on to the next round with these answers."""
        for name, _ in self.requests():
            self._shown[name] = len(self.receipts)
        for answer in answers:
            for envelope in answer.envelopes:
                self._envelopes[envelope.digest] = envelope
            for envelope in answer.envelopes[: len(answer.receipt.parts)]:
                self.bodies[answer.receipt.index, Name(envelope.reader)] = envelope
        self.follower.advance([a.receipt for a in answers])
        self.receipts += [a.receipt for a in answers]

    def step(self, rounds: int = 1) -> list[Answer]:
        """Play honest rounds; returns the answers of the last."""
        answers: list[Answer] = []
        for _ in range(rounds):
            answers = self.ask()
            self.accept(answers)
        return answers
