"""A deployment end to end beside a run in memory: `python -m tests.deploy.e2e [bank-full.csv.gz | FAMILY ...]`.

Coordinator, bank and two partners as real processes with TLS and node authentication; the same contract, keys and
seed once more in one process; the model, the scores and the receipts must be equal to the last bit. With a UCI
file the columns of the call centre are split between two partners; without one the world is invented. Families are
those of `tests.simulation.test_families`, or `all` of them, in a world of some 2,000 rows each.
"""

import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fedmkt.deploy.contracts import open_participant
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder
from fedmkt.deploy.messages import Serve
from fedmkt.deploy.places import place_of
from fedmkt.deploy.runs import RunFolder
from fedmkt.deploy.take_part import open_own_party
from fedmkt.party.acts_log import ACTS_FILE
from fedmkt.party.node import Sources, open_party
from fedmkt.protocol.core import Name
from fedmkt.protocol.pipeline import main_job
from fedmkt.simulation.world import PartyFile, generate, job_text, write_world
from fedmkt.transport.driver import Coordinator
from fedmkt.transport.memory import MemoryEndpoint
from tests.deploy.deployment import COORDINATOR, ROOT, Deployment
from tests.simulation.test_families import CASES

SEED = 7


@dataclass(frozen=True)
class Comparison:
    """Seconds of the two runs, what of their results differs, and processes that outlived their programs."""

    provision: float
    up: float
    deployed: float
    in_memory: float
    common: tuple[int, int]
    differences: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def overhead(self) -> float:
        """What the deployment takes longer than memory, in seconds."""
        return self.deployed - self.in_memory


def run_in_memory(deployment: Deployment, folder: Path, seed: int) -> float:
    """Run the deployment's contract in this process, on copies of all folders without their state; return seconds."""
    signed = RunFolder(next((deployment.place(COORDINATOR) / "runs").iterdir())).signed()
    for name in (COORDINATOR, *deployment.names):
        shutil.copytree(
            deployment.place(name),
            folder / name,
            ignore=shutil.ignore_patterns("state", "logs", "runs", "*.lock"),
        )
        _copy_acts(deployment.place(name) / "state", folder / name / "state")
    started = time.monotonic()
    invitation = Serve(signed, b"", seed, 0)
    parties = [open_own_party(PartyFolder(folder / name), invitation) for name in deployment.names]
    home = CoordinatorFolder(folder / COORDINATOR)
    config = open_participant(home.root, signed.contract).settings
    sources = Sources.of(seed, config.name, 0, signed.contract.created)
    parties.append(open_party(config.name, signed, config, None, place_of(home, signed.contract), sources))
    endpoints = {Name(p.me): MemoryEndpoint(p) for p in parties}
    try:
        Coordinator(signed.contract, main_job, endpoints, folder / "receipts").run()
    finally:
        for endpoint in endpoints.values():
            endpoint.close()
    return time.monotonic() - started


def _copy_acts(state: Path, to: Path) -> None:
    """Copy the acts that there were when the run began: its log says how many, and peers signed that."""
    (log,) = state.glob("contracts/*/log/log.jsonl")
    loaded = next(
        r for line in log.read_text().splitlines() if (r := json.loads(line))["type"] == "policy.loaded"
    )
    lines = (state / ACTS_FILE).read_bytes().splitlines(keepends=True)
    to.mkdir(mode=0o700, exist_ok=True)
    (to / ACTS_FILE).write_bytes(b"".join(lines[: loaded["body"]["acts"]["count"]]))


def differences(deployment: Deployment, folder: Path) -> tuple[str, ...]:
    """Compare what both runs left: every party's model, the bank's scores, the receipts."""
    found = []
    for name in deployment.names:
        (one,), (other,) = (
            list(root.glob("state/contracts/*/model")) for root in (deployment.place(name), folder / name)
        )
        files = {
            f.name for side in (one, other) for f in side.iterdir() if f.suffix in (".npy", ".json", ".csv")
        }
        found += [f"{name}: {f}" for f in sorted(files) if bytes_of(one / f) != bytes_of(other / f)]
        if "model.json" not in files:
            found.append(f"{name}: model")
        if (one / "scores.npz").exists() != (name == deployment.job.bank.name):
            found.append(f"{name}: scores")
        elif (one / "scores.npz").exists():
            a, b = np.load(one / "scores.npz"), np.load(other / "scores.npz")
            found += [f"{name}: scores, {k}" for k in a.files if a[k].tobytes() != b[k].tobytes()]
    run = next((deployment.place(COORDINATOR) / "runs").iterdir())
    if (run / "coordinator" / "receipts.bin").read_bytes() != (
        folder / "receipts" / "receipts.bin"
    ).read_bytes():
        found.append("receipts")
    return tuple(found)


def bytes_of(path: Path) -> bytes | None:
    """Return what is in a file, if there is one."""
    return path.read_bytes() if path.exists() else None


def compare(folder: Path, job: Path, channel: str = "hub") -> Comparison:
    """Provision, run, run in memory, compare."""
    started = time.monotonic()
    deployment = Deployment(folder / "deployed", job, channel=channel)
    deployment.provision()
    provisioned = time.monotonic()
    with deployment:
        up = time.monotonic()
        status = deployment.run("--seed", str(SEED), timeout=1800)
        ran = time.monotonic()
    assert status["state"] == "done", status
    left = [command for name in (COORDINATOR, *deployment.names) for _, command in deployment.processes(name)]
    in_memory = run_in_memory(deployment, folder / "memory", SEED)
    low, high = status["common_band"]  # type: ignore[misc]  # a pair, once a run is done
    return Comparison(
        provisioned - started, up - provisioned, ran - up, in_memory, (low, high),
        differences(deployment, folder / "memory"), tuple(left),
    )  # fmt: skip


def invented_job(folder: Path, rows: tuple[int, int, int], partners: int) -> Path:
    """Invent a world; rows : of the bank, of each partner, in common."""
    return write_world(generate(5, *rows, partners=partners), folder, minimum=min(1000, rows[2] // 2))


def uci_job(folder: Path, uci_file: Path) -> Path:
    """Split a UCI file between the bank and two partners, each with nine in ten of the call centre's people."""
    sys.path.insert(0, str(ROOT / "examples" / "bank_marketing"))
    from make_parties import FULL, write  # type: ignore[import-not-found]  # a script beside its README

    write(uci_file, folder, 1)
    table = pd.read_csv(folder / "partner.csv", dtype=str, keep_default_na=False)
    random = np.random.default_rng(1)
    partners = [
        PartyFile("partner", "Example Call Centre", "partner.csv", ("day", "campaign"), ("contact", "month")),
        PartyFile("history", "Example Campaign Archive", "history.csv", ("pdays", "previous"), ("poutcome",)),
    ]
    for partner in partners:
        held = table.loc[
            random.random(len(table)) < 0.9, ["phone", "email", *partner.numbers, *partner.categories]
        ]
        held.sample(frac=1, random_state=2).to_csv(folder / partner.file, index=False)
    job = folder / "job.toml"
    job.write_text(job_text("bank-marketing", FULL[0], partners, "351"), encoding="utf-8")
    return job


def each_family(names: list[str]) -> int:
    """Compare one family after the other; exit code 1 if anything differs or is left running."""
    bad = False
    for family in names:
        with tempfile.TemporaryDirectory() as name:
            found = compare(Path(name), CASES[family].write(Path(name) / "data", (2000, 2200, 1600)))
        print(json.dumps({"family": family} | found.__dict__), flush=True)
        bad |= bool(found.differences or found.left)
    return int(bad)


def main(arguments: list[str]) -> int:
    """Compare on a UCI file, or on an invented world; exit code 1 if anything differs or the overhead is over 30 s."""
    if arguments and {*arguments} <= {*CASES, "all"}:
        return each_family(list(CASES) if "all" in arguments else arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments:
            job = uci_job(folder / "data", Path(arguments[0]))
        else:
            job = invented_job(folder / "data", (20_000, 25_000, 12_000), 2)
        found = compare(folder, job)
    print(json.dumps(found.__dict__ | {"overhead": found.overhead}, indent=1))
    return 1 if found.differences or found.left or found.overhead > 30 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
