"""Write the lock: every package that pip would install today, at one version, with the digest of its file.

    python -m supply.lock REPORT      (`make lock` makes the report and runs this)

The report is pip's own (`pip install --dry-run --ignore-installed --report`), for `.[dev]`, the build backend and
what an editable installation needs, resolved together so that the three locks agree:

    requirements.lock         what fedmkt runs on
    requirements-build.lock   what builds its wheel
    requirements-dev.lock     what checks and tests it besides

One file is locked per package: the one that CPython 3.11 on Linux x86_64 takes. Elsewhere the versions hold, the
digests do not. No address of an index is written: `pip --require-hashes` may take the file from anywhere.
"""

import json
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from fedmkt.sbom import ROOT, closure

FILES = {"run": "requirements.lock", "build": "requirements-build.lock", "dev": "requirements-dev.lock"}
EDITABLE = "editables"  # hatchling asks for it only while it builds for `pip install --editable`
HEADS = {
    "run": "What fedmkt runs on",
    "build": "What builds the wheel of fedmkt, all of it",
    "dev": "What checks and tests fedmkt, without what the other two locks name",
}


@dataclass(frozen=True)
class Pin:
    """One locked package: its version, the SHA-256 digests of the files that may be taken, who needs it."""

    version: str
    digests: tuple[str, ...]
    needed_by: tuple[str, ...] = ()


def locks(report: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, str]:
    """Turn pip's report into the texts of the three locks, by file name; ValueError where a digest is missing.

    project : pyproject.toml as read.
    """
    found = {canonicalize_name(one["metadata"]["name"]): one for one in report["install"]}
    asked = {ROOT: project["project"]["dependencies"]}
    asked["build"] = [*project["build-system"]["requires"], EDITABLE]
    asked["dev"] = project["project"]["optional-dependencies"]["dev"]

    def requires(name: str) -> list[str]:
        return found[name]["metadata"].get("requires_dist", [])

    needed = {part: closure(texts, requires) for part, texts in asked.items()}
    both = needed[ROOT].keys() | needed["build"].keys()
    wanted = {
        "run": needed[ROOT],
        "build": needed["build"],
        "dev": {name: needs for name, needs in needed["dev"].items() if name not in both},
    }
    if unused := found.keys() - {ROOT} - {name for part in needed.values() for name in part}:
        raise ValueError(f"in the report, but needed by nobody: {', '.join(sorted(unused))}")
    pins = {name: _pin(one) for name, one in found.items() if name != ROOT}
    direct = {part: closure(texts, lambda _: ()) for part, texts in asked.items()}
    return {
        FILES[part]: _text(
            part, {name: pins[name] for name in wanted[part]}, needed[owner], direct[owner].keys(), owner
        )
        for part, owner in (("run", ROOT), ("build", "build"), ("dev", "dev"))
    }


def read(text: str) -> dict[str, Pin]:
    """Read a lock as `locks` writes it: pins by name; ValueError for anything else, or a name twice."""
    pins: dict[str, Pin] = {}
    for entry in text.replace("\\\n", " ").splitlines():
        words, _, why = entry.partition(" # ")
        if not words.strip() or entry.startswith("#"):
            continue
        pinned, *rest = words.split()
        name, equals, version = pinned.partition("==")
        if not equals or name in pins or not all(word.startswith("--hash=sha256:") for word in rest):
            raise ValueError(f"not a pin: {entry[:80]}")
        digests = tuple(word.removeprefix("--hash=sha256:") for word in rest)
        pins[name] = Pin(version, digests, tuple(why.removeprefix("for ").split(", ")))
    return pins


def _pin(one: Mapping[str, Any]) -> Pin:
    name = one["metadata"]["name"]
    digest = one["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    if not digest:
        raise ValueError(f"{name}: pip's report has no digest")
    return Pin(one["metadata"]["version"], (digest,))


def _text(
    part: str, pins: Mapping[str, Pin], graph: Mapping[str, Iterable[str]], direct: Iterable[str], owner: str
) -> str:
    lines = [
        f"# {HEADS[part]}: CPython 3.11, Linux x86_64.",
        "# Made by `make lock`; install with `make install-locked`. Not to be edited by hand.",
    ]
    for name, pin in sorted(pins.items()):
        users = sorted(user for user, needs in graph.items() if name in needs)
        why = ", ".join([owner] * (name in direct) + users)
        lines += [
            f"{name}=={pin.version} \\",
            *(f"    --hash=sha256:{digest} # for {why}" for digest in pin.digests),
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the three locks beside pyproject.toml from the report that the command line names."""
    root = Path(__file__).resolve().parents[1]
    report = json.loads(Path(sys.argv[1]).read_bytes())
    for name, text in locks(report, tomllib.loads((root / "pyproject.toml").read_text())).items():
        (root / name).write_text(text)
        print(f"{name}: {len(read(text))} packages")


if __name__ == "__main__":
    main()
