"""The engines of the intersection against SecretFlow SPU's, on the same ids in the same minutes.

    python -m benchmarks.psi_peers --spu /some/venv/bin/python --rows 1000000 --out docs/psi.json

Each round runs all contestants one after the other, so that what else the machine does meets all of them; the
figures are those of the round in which a contestant used the least CPU, with the spread beside it. Both sides of
fedmkt run the steps of the main job with sealing, signatures, transcript and audit log (`fedmkt bench psi`), from
ids in memory to row numbers. SPU runs without TLS and without logs, from CSV to CSV, since it has no other input:
its `online` figure leaves the files out. Loading either library and compiling kernels is not counted.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fedmkt.simulation.bench_psi import invent, measure_psi
from fedmkt.simulation.bench_side import BANK, PARTNER, Lists

Facts = dict[str, object]
_NAMESPACE = ("unshare", "-rn", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")


def write_lists(lists: Lists, folder: Path) -> None:
    """Write both lists as SPU reads them."""
    for name in (BANK, PARTNER):
        np.savetxt(folder / f"{name}.csv", lists.numbers(name), fmt="%d", header="id", comments="")


def run_fedmkt(engine: str, lists: Lists) -> Facts:
    """Run one engine of fedmkt."""
    overlap = lists.common / min(lists.rows, lists.sender_rows)
    return measure_psi(lists.rows, engine, lists.sender_rows, overlap, seed=lists.seed).to_json()


def run_spu(python: str, protocol: str, lists: Lists, made: Path) -> Facts:
    """Run one protocol of SPU, in a network namespace of its own where that can be made."""
    with tempfile.TemporaryDirectory(prefix="spu-") as folder:
        for name in (
            BANK,
            PARTNER,
        ):  # fresh copies: SPU leaves notes beside its input that make a second run shorter
            shutil.copy(made / f"{name}.csv", folder)
        script = str(Path(__file__).with_name("spu_pair.py"))
        command = [sys.executable, script, python, protocol, folder]
        done = subprocess.run([*namespace(), *command], capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise RuntimeError(f"spu {protocol}: {done.stderr[-2000:]}")
    facts: Facts = json.loads(done.stdout)
    if facts.pop("common") != lists.common:
        raise RuntimeError(f"spu {protocol}: found another number of common ids")
    return facts


def namespace() -> tuple[str, ...]:
    """Return what a command begins with to have a loopback device of its own; empty where that is not allowed."""
    if not shutil.which("unshare"):
        return ()
    return _NAMESPACE if subprocess.run([*_NAMESPACE, "true"], capture_output=True).returncode == 0 else ()


def both(facts: Facts, key: str) -> float:
    """Add up a figure of both sides."""
    total = 0.0
    for name in ("receiver", "sender"):
        one = facts[name]
        if isinstance(one, dict):
            total += float(one[key])
    return total


def compete(
    lists: Lists, engines: Sequence[str], protocols: Sequence[str], spu: str, rounds: int
) -> list[Facts]:
    """Run all contestants `rounds` times, in turn; return for each its best round and the spread."""
    runs: dict[tuple[str, str], list[Facts]] = {}
    with tempfile.TemporaryDirectory(prefix="psi-peers-") as folder:
        write_lists(lists, Path(folder))
        for _ in range(rounds):
            for engine in engines:
                runs.setdefault(("fedmkt", engine), []).append(run_fedmkt(engine, lists))
                say("fedmkt", engine, runs)
            for protocol in protocols:
                runs.setdefault(("spu", protocol), []).append(run_spu(spu, protocol, lists, Path(folder)))
                say("spu", protocol, runs)
    return [_summary(*who, found) for who, found in runs.items()]


def say(program: str, name: str, runs: dict[tuple[str, str], list[Facts]]) -> None:
    """Show that a run has ended."""
    facts = runs[program, name][-1]
    print(
        f"{program} {name}: {both(facts, 'cpu_s'):.2f} CPU s, load {os.getloadavg()[0]:.1f}", file=sys.stderr
    )


def _summary(program: str, name: str, runs: list[Facts]) -> Facts:
    best = min(runs, key=lambda facts: both(facts, "cpu_s"))
    cpu = [both(facts, "cpu_s") for facts in runs]
    spread = {"least": min(cpu), "median": statistics.median(cpu), "most": max(cpu), "rounds": len(runs)}
    return {"program": program, "engine": name, "cpu_s": spread, **best}


def machine(spu: str) -> Facts:
    """Say on what, with what and when this was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    version = "import importlib.metadata as m; print(m.version('spu'))"
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "spu": subprocess.run([spu, "-c", version], capture_output=True, text=True).stdout.strip(),
        "measured": datetime.now(UTC).date().isoformat(),
        "load": os.getloadavg()[0],
    }


def table(results: Sequence[Facts]) -> Iterator[str]:
    """Lay the results out for people, with each one's CPU as a multiple of fedmkt's least."""
    yield f"{'':<14}{'CPU s':>8}{'online':>8}{'peak MB':>9}{'sent MB':>9}{'wall s':>8}{'ratio':>7}"
    ours = [both(facts, "cpu_s") for facts in results if facts["program"] == "fedmkt"]
    for facts in results:
        cpu = both(facts, "cpu_s")
        online = f"{both(facts, 'online_cpu_s'):.2f}" if facts["program"] == "spu" else ""
        peak = max(float(str(facts[n]["peak_mb"])) for n in ("receiver", "sender"))  # type: ignore[index]
        ratio = f"{cpu / min(ours):.1f}" if ours else ""
        yield (
            f"{facts['program']} {facts['engine']}".ljust(14)
            + f"{cpu:>8.2f}{online:>8}{peak:>9.0f}{float(str(facts['bytes'])) / 1e6:>9.1f}"
            + f"{float(str(facts['wall_s'])):>8.1f}{ratio:>7}"
        )


def main() -> None:
    """Read options, let them compete, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default="ot,vole", help="of fedmkt: oprf, ot, vole")
    parser.add_argument("--protocols", default="RR22,KKRT", help="of SPU: RR22, KKRT, ECDH")
    parser.add_argument("--spu", required=True, help="the Python interpreter that has the package spu")
    parser.add_argument("--out", type=Path, help="the JSON file of figures to add this to")
    options = parser.parse_args()
    lists = invent(options.rows, options.rows, options.overlap)
    engines, protocols = (
        [n for n in given.split(",") if n] for given in (options.engines, options.protocols)
    )
    results = compete(lists, engines, protocols, options.spu, options.rounds)
    print("\n".join(table(results)))
    if options.out is not None:
        figures = json.loads(options.out.read_text()) if options.out.exists() else {}
        trial = {
            "how": " ".join(__doc__.partition("--out docs/psi.json")[2].split()),
            "rows": lists.rows,
            "common": lists.common,
            "machine": machine(options.spu),
            "results": results,
        }
        figures[f"{lists.rows}"] = trial
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
