"""A whole job on one machine: all participants, each with its own folder, file and keys.

Only here do one party's results meet another's, and only after the run: to compare the joint model with the
centralised one, which no real run could train.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from fedmkt.config.drafts import draft_contract, simulated_party
from fedmkt.config.files import parse_job
from fedmkt.config.job import JobConfig
from fedmkt.config.settings import PartyConfig
from fedmkt.config.tables import PartnerConfig
from fedmkt.contract.agreement import Signer
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.signatures import SignedContract, check_signatures, sign
from fedmkt.crypto.sign import Identity
from fedmkt.errors import ConfigError, DataError, FedmktError
from fedmkt.party.journal import write_atomically
from fedmkt.party.node import Place, Sources, open_data, open_party
from fedmkt.party.policy import Policy
from fedmkt.party.table import Table
from fedmkt.protocol.core import Name, PublicValue, Script
from fedmkt.protocol.pipeline import SCRIPTS, Finished
from fedmkt.report.build import PAGE
from fedmkt.report.summary import RunSummary
from fedmkt.simulation.progress import Progress, ProgressEvent
from fedmkt.simulation.stages import Stages
from fedmkt.transport import driver
from fedmkt.transport.memory import MemoryEndpoint

Watch = Callable[[Script], Script]

WORLD = "world"
"""Folder for the files that a demo invents, within its run folder."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, its summary, and the facts that `--json` prints."""

    folder: Path
    summary: RunSummary
    facts: dict[str, object]

    @property
    def report(self) -> Path:
        """The page that was written."""
        return self.folder / PAGE

    def to_json(self) -> dict[str, object]:
        """Return the facts."""
        return self.facts


@dataclass(frozen=True)
class Layout:
    """Where things lie in a run folder."""

    folder: Path

    def place(self, name: str) -> Place:
        """Return one participant's folders."""
        return Place(self.folder / "parties" / name, self.folder / "logs" / name)

    @property
    def contract(self) -> Path:
        """The signed contract."""
        return self.folder / "contract.toml"

    @property
    def job(self) -> Path:
        """The job as it was read, with the folder its files lie in."""
        return self.folder / "job.json"

    @property
    def result(self) -> Path:
        """The facts of the finished run."""
        return self.folder / "result.json"


def simulate(
    job: Path | str,
    backend: str = "memory",
    out: Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    after: Path | None = None,
) -> RunResult:
    """Run a job with all its parties on this machine, or resume the one in `out`.

    job : path of a job.toml; files named in it are relative to it. seed : makes keys, masks, nonces and times
    repeatable, never to be used with real data. after : folder of an earlier run, whose parties' stores go on here:
    ledgers, and the models that [model] start may name. Raises ConfigError, DataError, PolicyRefused and the like.
    """
    path = Path(job)
    return simulate_job(read_job(path), path, backend, out, seed, resume, progress, after)


def simulate_job(
    config: JobConfig, path: Path, backend: str = "memory", out: Path | None = None, seed: int | None = None,
    resume: bool = False, progress: Progress | None = None, after: Path | None = None,
    watch: Watch = lambda script: script,
) -> RunResult:  # fmt: skip
    """Run a job that was read already, as `simulate` does.

    path : beside which its files lie. watch : put around the script at each party, in memory only: so the attack lab
    sees what each is shown.
    """
    if config.task != "train":
        raise ConfigError(f'{path}: task = "{config.task}": trains no model', f"fedmkt overlap {path}")
    layout = layout_of(config.name, out, resume)
    with in_plain_words(layout):
        run = carry_out(config, path, layout, backend, seed, resume, progress, after, watch)
        if not isinstance(run.outcome, Finished):
            raise ValueError("the main job returned something else")
        if progress is not None:
            progress(ProgressEvent("report", 0, 1, 0, sum(run.costs.bytes_sent.values())))
        from fedmkt.simulation.results import write_results

        summary, facts = write_results(
            config, run.signed, layout.folder, run.tables, run.outcome.overlap, run.costs, run.seconds, seed
        )
        write_atomically(layout.result, json.dumps(facts, indent=1).encode(), mode=0o644)
    return RunResult(layout.folder, summary, facts)


def _go_on(config: JobConfig, after: Path, layout: Layout) -> None:
    """Copy what each party remembers from an earlier run's folder into a new one."""
    for party in config.parties:
        before = Layout(after).place(party.name).store
        if not before.is_dir():
            raise ConfigError(f"{before}: no such folder", "give the folder of a finished simulation")
        shutil.copytree(before, layout.place(party.name).store)


@dataclass(frozen=True)
class CarriedOut:
    """A run whose script came to its end, from which results are made."""

    signed: SignedContract
    tables: dict[str, Table]
    outcome: PublicValue
    costs: driver.Progress
    seconds: dict[str, float]


def layout_of(name: str, out: Path | None, resume: bool) -> Layout:
    """Return the folder of a run: the given one, or a new one named after the job."""
    if resume and out is None:
        raise ConfigError("which run shall be resumed?", "name its folder: --resume --out DIR")
    return Layout(out or new_folder(name))


def carry_out(
    config: JobConfig, path: Path, layout: Layout, backend: str, seed: int | None, resume: bool,
    progress: Progress | None, after: Path | None = None, watch: Watch = lambda script: script,
) -> CarriedOut:  # fmt: skip
    """Read the tables, sign the contract and run its script to the end, or go on with a stopped run."""
    started = time.perf_counter()
    before = _stopped_run(config, path, layout) if resume else None
    if before is None:
        _check_new(layout)
    # The clock that signs a new contract; a resume, days later, needs the list that the run began with.
    began = Sources.of(seed, "contract").clock() if before is None else before.contract.created
    tables = {p.name: open_data(p, path.parent, began.date()) for p in config.parties}
    seconds = {"read": time.perf_counter() - started}
    signed = before or _sign_contract(config, path, tables, layout, seed)
    if after is not None and before is None:
        _go_on(config, after, layout)
    run = partial(_run_memory, watch=watch) if backend == "memory" else _run_flower
    lists = {Name(n): len(t.ids) for n, t in tables.items()}
    staged = Stages(progress, signed.contract, lists) if progress is not None else None
    outcome, costs = run(config, path, tables, signed, layout, seed, resume, staged)
    return CarriedOut(signed, tables, outcome, costs, seconds | costs.seconds)


@contextlib.contextmanager
def in_plain_words(layout: Layout) -> Iterator[None]:
    """Turn a full or read-only disk and an interruption into one line each that says how to go on."""
    try:
        yield
    except OSError as error:
        where = error.filename or layout.folder
        raise ConfigError(
            f"{where}: {error.strerror or type(error).__name__}", _how_to_go_on(layout)
        ) from None
    except KeyboardInterrupt as stop:
        stop.args = ("interrupted", _how_to_go_on(layout))
        raise


def _how_to_go_on(layout: Layout) -> str:
    if layout.contract.exists():
        return f"go on with --resume --out {layout.folder}"
    return "nothing was begun: start again, in a folder that can be written"


def read_job(path: Path) -> JobConfig:
    """Read a job file; ConfigError says what is wrong with it."""
    try:
        return parse_job(path.read_bytes().decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; accepted: a TOML file in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give the path of a job.toml") from None


def new_folder(name: str) -> Path:
    """Name a folder below runs/ that does not exist yet, after the job and the time."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for count in range(100):
        folder = Path("runs") / (f"{name}-{stamp}" + (f"-{count}" if count else ""))
        if not folder.exists():
            return folder
    raise ConfigError("runs: too many runs within one second")


def _check_new(layout: Layout) -> None:
    if _content(layout.folder):
        raise ConfigError(
            f"{layout.folder}: the folder is not empty",
            "give a new folder, or --resume to go on with its run",
        )


def _content(folder: Path) -> list[Path]:
    # A demo's invented files may lie there already.
    return [p for p in folder.iterdir() if p.name != WORLD] if folder.exists() else []


def _sign_contract(
    config: JobConfig, path: Path, tables: dict[str, Table], layout: Layout, seed: int | None
) -> SignedContract:
    """Write the contract that all agree to; nothing is on disk before every party's policy has allowed it."""
    names = [p.name for p in config.parties] + [config.coordinator.name]
    identities = {n: Identity.generate(Sources.of(seed, f"{n}/identity").random) for n in names}
    clock = Sources.of(seed, "contract").clock
    contract = draft_contract(config, {n: i.public for n, i in identities.items()}, clock())
    signatures = {n: sign(contract, n, i) for n, i in identities.items()}
    signed = SignedContract(contract=contract, signatures=signatures)
    for name in names:
        policy = Policy(party_settings(config, signed, name))
        policy.check_contract(signed, clock())
        if name in tables:
            policy.check_list(len(tables[name].ids), contract, tables[name].dropped)
    try:
        for name, identity in identities.items():
            write_atomically(layout.place(name).identity, identity.secret_bytes())
        for party in config.parties:
            write_atomically(_data_mark(layout, party.name), _data_digest(path, party))
        write_atomically(layout.job, _job_text(config, path), mode=0o644)
        write_atomically(layout.contract, to_toml(signed).encode(), mode=0o644)
    except BaseException:
        _remove(layout.folder)
        raise
    return signed


def _remove(folder: Path) -> None:
    """Take back what was begun here: the folder held nothing of a run before."""
    for path in _content(folder):
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _data_mark(layout: Layout, name: str) -> Path:
    return layout.place(name).private / "data.sha256"


def _data_digest(path: Path, party: PartnerConfig) -> bytes:
    with (path.parent / party.file).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


def _job_text(config: JobConfig, path: Path) -> bytes:
    values = {"folder": str(path.parent.resolve()), "job": config.model_dump(mode="json")}
    return json.dumps(values, ensure_ascii=False, indent=1).encode()


def _stopped_run(config: JobConfig, path: Path, layout: Layout) -> SignedContract:
    """Read the contract of a run that was stopped; ConfigError unless job, keys and data are those it began with."""
    if not layout.contract.exists():
        why = (
            "the run was stopped before its contract was signed"
            if _content(layout.folder)
            else "no run to resume"
        )
        raise ConfigError(f"{layout.folder}: {why}", "start a new run, in a new folder")
    if layout.result.exists():
        raise ConfigError(f"{layout.folder}: this run is complete, nothing is left to resume")
    signed = from_toml(_read_text(layout.contract), str(layout.contract))
    check_signatures(signed)
    _check_same_job(config, path, layout, signed)
    for signer in signed.contract.signers:
        _check_key(layout.place(signer.name).identity, signer)
    for party in config.parties:
        if not _data_mark(layout, party.name).exists():
            raise ConfigError(f"{_data_mark(layout, party.name)}: no such file", _NOT_WHOLE)
        _check_same_data(path, party, _data_mark(layout, party.name))
    return signed


_NOT_WHOLE = "the run folder is not as it was left: start a new run"


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text", _NOT_WHOLE) from None


def _check_same_job(config: JobConfig, path: Path, layout: Layout, signed: SignedContract) -> None:
    try:
        began = json.loads(_read_text(layout.job))["job"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{layout.job}: missing or changed", _NOT_WHOLE) from None
    now = config.model_dump(mode="json")
    changed = sorted(key for key in now if not isinstance(began, dict) or began.get(key) != now[key])
    if changed:
        raise ConfigError(
            f"{path}: {', '.join(changed)}: not as in the job that this run began with",
            "give the job.toml of that run, or start a new run",
        )
    keys = {s.name: bytes.fromhex(s.key) for s in signed.contract.signers}
    names = {p.name for p in config.parties} | {config.coordinator.name}
    if set(keys) != names or digest(draft_contract(config, keys, signed.contract.created)) != digest(
        signed.contract
    ):
        raise ConfigError(f"{layout.contract}: not the contract of this job", _NOT_WHOLE)


def _check_key(path: Path, signer: Signer) -> None:
    try:
        public = Identity(path.read_bytes()).public.hex()
    except (OSError, ValueError):
        public = ""
    if public != signer.key:
        raise ConfigError(f"{path}: not the key with which {signer.name} signed", _NOT_WHOLE)


def _check_same_data(path: Path, party: PartnerConfig, mark: Path) -> None:
    try:
        found = _data_digest(path, party)
    except OSError as error:
        raise ConfigError(f"{path.parent / party.file}: {error.strerror}") from None
    if found != mark.read_bytes():
        raise DataError(
            f"{path.parent / party.file}: not the file that this run began with",
            "give that file, or start a new run",
        )


def party_settings(config: JobConfig, signed: SignedContract, name: str) -> PartyConfig:
    """Return the settings of a simulated participant: it agrees to the job and pins everybody's key."""
    keys = {s.name: bytes.fromhex(s.key) for s in signed.contract.signers}
    if name == config.coordinator.name:
        coordinator = config.coordinator
        policy = simulated_party(config, config.bank.name, keys).policy.model_copy(update={"columns": ()})
        return PartyConfig(
            name=coordinator.name, organisation=coordinator.organisation,
            pinned={n: k.hex() for n, k in keys.items()}, policy=policy,
        )  # fmt: skip
    return simulated_party(config, name, keys)


class _Heard(logging.Handler):
    """Keeps the last reason that a party gave in its own log: in a simulation all of them are ours to read."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


@contextlib.contextmanager
def _memory_endpoints(
    config: JobConfig,
    tables: dict[str, Table],
    signed: SignedContract,
    layout: Layout,
    seed: int | None,
    epoch: int,
    watch: Watch,
) -> Iterator[dict[Name, MemoryEndpoint]]:
    endpoints: dict[Name, MemoryEndpoint] = {}
    heard, logger = _Heard(), logging.getLogger("fedmkt.party")
    logger.addHandler(heard)
    try:
        for signer in signed.contract.signers:
            settings = party_settings(config, signed, signer.name)
            sources = Sources.of(seed, signer.name, epoch)
            party = open_party(
                signer.name,
                signed,
                settings,
                tables.get(signer.name),
                layout.place(signer.name),
                sources,
                watch=watch,
            )
            endpoints[Name(signer.name)] = MemoryEndpoint(party)
        yield endpoints
    except FedmktError as error:
        error.hint = heard.last or error.hint
        raise
    finally:
        logger.removeHandler(heard)
        for endpoint in endpoints.values():
            endpoint.close()


def _run_memory(
    config: JobConfig, path: Path, tables: dict[str, Table], signed: SignedContract, layout: Layout, seed: int | None,
    resume: bool, progress: Progress | None, watch: Watch = lambda script: script,
) -> tuple[PublicValue, driver.Progress]:  # fmt: skip
    epoch = _epoch(layout) if resume else 0
    with _memory_endpoints(config, tables, signed, layout, seed, epoch, watch) as endpoints:
        coordinator = driver.Coordinator(
            signed.contract, SCRIPTS[signed.contract.task], endpoints, layout.folder / "coordinator",
            watch=watcher(progress),
        )  # fmt: skip
        result = coordinator.run(resume)
    return result, coordinator.progress


def _run_flower(
    config: JobConfig, path: Path, tables: dict[str, Table], signed: SignedContract, layout: Layout, seed: int | None,
    resume: bool, progress: Progress | None,
) -> tuple[PublicValue, driver.Progress]:  # fmt: skip
    from fedmkt.transport.flower_seat import Seat
    from fedmkt.transport.flower_simulation import run_in_flower

    epoch = _epoch(layout) if resume else 0
    seats = [
        Seat(
            signed, party, party_settings(config, signed, party.name), path.parent.resolve(),
            _absolute(layout.place(party.name)), seed, epoch,
        )
        for party in config.parties
    ]  # fmt: skip
    dealer = config.coordinator.name
    return run_in_flower(
        seats,
        open_party(
            dealer, signed, party_settings(config, signed, dealer), None, layout.place(dealer),
            Sources.of(seed, dealer, epoch),
        ),
        layout.folder / "coordinator",
        resume,
        watcher(progress),
    )  # fmt: skip


def _absolute(place: Place) -> Place:
    return Place(place.private.resolve(), place.logs.resolve())


def _epoch(layout: Layout) -> int:
    """Return the latest epoch that may have been opened: with a seed it sets the next one's randomness apart."""
    return driver.last_epoch(layout.folder / "coordinator")[1]


def watcher(progress: Progress | None) -> Callable[[driver.Progress], None]:
    """Turn the coordinator's counts into signs of life for a display."""

    def watch(costs: driver.Progress) -> None:
        if progress is not None:
            stage = costs.step.split(".")[0]
            progress(ProgressEvent(stage, costs.rounds, 0, costs.rows, sum(costs.bytes_sent.values())))

    return watch
