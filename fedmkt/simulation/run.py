"""A whole job on one machine: all participants, each with its own folder, file and keys.

Only here do one party's results meet another's, and only after the run: to compare the joint model with the
centralised one, which no real run could train.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedmkt.config import JobConfig, PartyConfig, draft_contract, parse_job, simulated_party
from fedmkt.contract import SignedContract, from_toml, sign, to_toml
from fedmkt.errors import ConfigError
from fedmkt.party.journal import write_atomically
from fedmkt.party.node import Place, Sources, load_identity, open_data, open_party
from fedmkt.party.table import Table
from fedmkt.protocol.core import Name
from fedmkt.protocol.pipeline import Finished, main_job
from fedmkt.simulation.progress import Progress, ProgressEvent
from fedmkt.transport import driver
from fedmkt.transport.memory import MemoryEndpoint


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder and the facts that `--json` prints."""

    folder: Path
    facts: dict[str, object]

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
) -> RunResult:
    """Run a job with all its parties on this machine, or resume the one in `out`.

    job : path of a job.toml; files named in it are relative to it. seed : makes keys, masks, nonces and times
    repeatable, never to be used with real data. Raises ConfigError, DataError, PolicyRefused and the like.
    """
    started = time.perf_counter()
    path = Path(job)
    config = read_job(path)
    tables = {p.name: open_data(p, path.parent) for p in config.parties}
    layout = Layout(out or _new_folder(config.name))
    seconds = {"read": time.perf_counter() - started}
    signed = _resumed_contract(layout) if resume else _sign_contract(config, layout, seed)
    run = _run_memory if backend == "memory" else _run_flower
    outcome, costs = run(config, path, tables, signed, layout, seed, resume, progress)
    seconds |= costs.seconds
    from fedmkt.simulation.compare import summarise

    facts = summarise(config, signed, layout, tables, outcome, costs, seconds, seed)
    write_atomically(layout.result, json.dumps(facts, indent=1).encode(), mode=0o644)
    return RunResult(layout.folder, facts)


def read_job(path: Path) -> JobConfig:
    """Read a job file; ConfigError says what is wrong with it."""
    try:
        return parse_job(path.read_bytes().decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; accepted: a TOML file in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give the path of a job.toml") from None


def _new_folder(name: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for count in range(100):
        folder = Path("runs") / (f"{name}-{stamp}" + (f"-{count}" if count else ""))
        if not folder.exists():
            return folder
    raise ConfigError("runs: too many runs within one second")


def _sign_contract(config: JobConfig, layout: Layout, seed: int | None) -> SignedContract:
    if layout.folder.exists() and any(layout.folder.iterdir()):
        raise ConfigError(f"{layout.folder}: the folder is not empty", "give a new folder, or --resume to go on with its run")
    names = [p.name for p in config.parties] + [config.coordinator.name]
    identities = {n: load_identity(layout.place(n), Sources.of(seed, f"{n}/identity").random) for n in names}
    now = Sources.of(seed, "contract").clock()
    contract = draft_contract(config, {n: i.public for n, i in identities.items()}, now)
    signed = SignedContract(contract=contract, signatures={n: sign(contract, n, i) for n, i in identities.items()})
    write_atomically(layout.contract, to_toml(signed).encode(), mode=0o644)
    return signed


def _resumed_contract(layout: Layout) -> SignedContract:
    if not layout.contract.exists():
        raise ConfigError(f"{layout.folder}: no run to resume", "give the folder of a run that was stopped")
    if layout.result.exists():
        raise ConfigError(f"{layout.folder}: this run is complete, nothing is left to resume")
    return from_toml(layout.contract.read_text(), str(layout.contract))


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


@contextlib.contextmanager
def _memory_endpoints(
    config: JobConfig, tables: dict[str, Table], signed: SignedContract, layout: Layout, seed: int | None, epoch: int
) -> Iterator[dict[Name, MemoryEndpoint]]:
    endpoints: dict[Name, MemoryEndpoint] = {}
    try:
        for signer in signed.contract.signers:
            settings = party_settings(config, signed, signer.name)
            sources = Sources.of(seed, signer.name, epoch)
            party = open_party(signer.name, signed, settings, tables.get(signer.name), layout.place(signer.name), sources)
            endpoints[Name(signer.name)] = MemoryEndpoint(party)
        yield endpoints
    finally:
        for endpoint in endpoints.values():
            endpoint.close()


def _run_memory(
    config: JobConfig, path: Path, tables: dict[str, Table], signed: SignedContract, layout: Layout, seed: int | None,
    resume: bool, progress: Progress | None,
) -> tuple[Finished, driver.Progress]:  # fmt: skip
    epoch = _epoch(layout) if resume else 0
    with _memory_endpoints(config, tables, signed, layout, seed, epoch) as endpoints:
        coordinator = driver.Coordinator(
            signed.contract, main_job, endpoints, layout.folder / "coordinator", watch=watcher(progress)
        )
        result = coordinator.run(resume)
    if not isinstance(result, Finished):
        raise ValueError("the main job returned something else")
    return result, coordinator.progress


def _run_flower(
    config: JobConfig, path: Path, tables: dict[str, Table], signed: SignedContract, layout: Layout, seed: int | None,
    resume: bool, progress: Progress | None,
) -> tuple[Finished, driver.Progress]:  # fmt: skip
    from fedmkt.transport.flower_simulation import run_in_flower

    return run_in_flower(config, path, signed, layout.folder, seed, _epoch(layout) if resume else 0, watcher(progress))


def _epoch(layout: Layout) -> int:
    return int((layout.folder / "coordinator" / "run.txt").read_text().split()[1])


def watcher(progress: Progress | None) -> Callable[[driver.Progress], None]:
    """Turn the coordinator's counts into signs of life for a display."""

    def watch(costs: driver.Progress) -> None:
        if progress is not None:
            stage = costs.step.split(".")[0]
            progress(ProgressEvent(stage, costs.rounds, 0, costs.rows, sum(costs.bytes_sent.values())))

    return watch
