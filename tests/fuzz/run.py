"""Coverage-guided fuzzing of one target, or of all of them in turn, with atheris (extra `fuzz`).

python -m tests.fuzz.run all --seconds 60          each target for a minute, and what came out
python -m tests.fuzz.run note --seconds 28800      one target for a night
python -m tests.fuzz.run note --input FILE         one input again

Inputs that are new to the fuzzer are kept in build/fuzz/TARGET, what ended it in build/fuzz/found.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "fuzz"
LARGEST = 1 << 16
RSS_MIB = 512
_DONE = re.compile(r"Done (\d+) runs")
_COVERED = re.compile(r"cov: (\d+)")
_PEAK = re.compile(r"peak_rss_mb:\s+(\d+)")


def fuzz_one(name: str, seconds: int) -> None:
    """Fuzz a target in this process, which libFuzzer ends."""
    import atheris

    # Only our own code is watched: its decoders are what is looked for new paths in.
    with atheris.instrument_imports(include=["fedmkt"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus = PLACE / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
        target(seed)  # what is imported or compiled on first use is in memory before anything is measured
    found = PLACE / "found"
    found.mkdir(exist_ok=True)

    def test(data: bytes) -> None:
        target(data)

    options = [
        str(corpus), f"-max_total_time={seconds}", f"-max_len={LARGEST}", f"-rss_limit_mb={RSS_MIB}", "-timeout=10",
        f"-artifact_prefix={found}/{name}-", "-print_final_stats=1", "-seed=7",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], test)
    atheris.Fuzz()


def fuzz_all(names: Sequence[str], seconds: int) -> int:
    """Fuzz targets one after the other in processes of their own; returns how many ended with a finding."""
    bad = 0
    for name in names:
        line = [sys.executable, "-m", "tests.fuzz.run", name, "--seconds", str(seconds), "--here"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        facts = {
            "target": name,
            "runs": int(_last(_DONE, said)),
            "coverage": int(_last(_COVERED, said)),
            "peak MiB": int(_last(_PEAK, said)),
            "ok": done.returncode == 0,
        }
        print(json.dumps(facts), flush=True)
        if done.returncode:
            bad += 1
            print(said[-3000:], flush=True)
    print(f"{bad} of {len(names)} targets with a finding", flush=True)
    return bad


def _last(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.findall(text)
    return found[-1] if found else "0"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="+", help="names of targets, or all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--input", type=Path, help="decode this file once")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.here:
        fuzz_one(chosen.targets[0], chosen.seconds)
        return 0
    from tests.fuzz.targets import TARGETS

    if chosen.input is not None:
        print("accepted" if TARGETS[chosen.targets[0]](chosen.input.read_bytes()) else "refused")
        return 0
    names = list(TARGETS) if chosen.targets == ["all"] else chosen.targets
    if unknown := set(names) - set(TARGETS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    return min(fuzz_all(names, chosen.seconds), 1)


if __name__ == "__main__":
    sys.exit(main())
