import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supply.lock import FILES, locks, read

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {part: (ROOT / name).read_text() for part, name in FILES.items()}
PINS = {part: read(text) for part, text in TEXTS.items()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ASKED = {
    "run": PROJECT["project"]["dependencies"],
    "build": PROJECT["build-system"]["requires"],
    "dev": PROJECT["project"]["optional-dependencies"]["dev"],
}


def entry(name: str, version: str = "1.0", requires: tuple[str, ...] = (), digest: str = "a" * 64) -> object:
    return {
        "metadata": {"name": name, "version": version, "requires_dist": list(requires)},
        "download_info": {
            "url": f"https://index.example/{name}.whl",
            "archive_info": {"hashes": {"sha256": digest}},
        },
    }


def project(*dependencies: str) -> dict[str, Any]:
    return {
        "build-system": {"requires": ["hatchling"]},
        "project": {"dependencies": list(dependencies), "optional-dependencies": {"dev": ["pytest"]}},
    }


REPORT: dict[str, Any] = {
    "install": [
        {"metadata": {"name": "fedmkt"}},
        entry(
            "Some.Package", requires=("far>=1", "left-out; extra == 'x'", "windows; sys_platform == 'win32'")
        ),
        entry("far", digest="b" * 64),
        entry("hatchling", requires=("far",)),
        entry("editables"),
        entry("pytest", requires=("far",)),
    ]
}


@pytest.mark.parametrize("part", ASKED)
def test_the_lock_fits_what_the_project_asks_for(part: str) -> None:
    everywhere = PINS["run"] | PINS["build"] | PINS["dev"] if part == "dev" else PINS[part]
    for requirement in map(Requirement, ASKED[part]):
        pin = everywhere[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin.version), requirement


@pytest.mark.parametrize("part", PINS)
def test_every_pin_has_the_digest_of_a_file(part: str) -> None:
    for name, pin in PINS[part].items():
        assert name == canonicalize_name(name)
        assert pin.digests and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in pin.digests), name
        assert pin.needed_by and all(pin.needed_by), name


def test_every_pin_is_there_for_something_that_is_asked_for() -> None:
    for part, owner in (("run", "fedmkt"), ("build", "build"), ("dev", "dev")):
        known = set(PINS["run"] | PINS["build"] | PINS["dev"]) | {owner}
        for name, pin in PINS[part].items():
            assert set(pin.needed_by) <= known, name


def test_two_locks_never_disagree() -> None:
    for name in PINS["run"].keys() & PINS["build"].keys():
        assert PINS["run"][name].version == PINS["build"][name].version
        assert PINS["run"][name].digests == PINS["build"][name].digests
    assert not PINS["dev"].keys() & (PINS["run"].keys() | PINS["build"].keys())


@pytest.mark.parametrize("part", TEXTS)
def test_a_lock_names_no_index_and_no_place(part: str) -> None:
    assert "/" not in TEXTS[part].replace("make install-locked", "")
    assert "--index" not in TEXTS[part] and "--find-links" not in TEXTS[part] and "@" not in TEXTS[part]


def test_torch_is_locked_as_the_build_without_gpu_libraries() -> None:
    assert PINS["run"]["torch"].version.endswith("+cpu")
    assert not [name for name in PINS["run"] if name.startswith("nvidia")]


def test_a_report_becomes_three_locks() -> None:
    texts = locks(REPORT, project("some_package"))
    assert texts["requirements.lock"].splitlines()[2:] == [
        "far==1.0 \\",
        f"    --hash=sha256:{'b' * 64} # for some-package",
        "some-package==1.0 \\",
        f"    --hash=sha256:{'a' * 64} # for fedmkt",
    ]
    assert {name: set(read(text)) for name, text in texts.items()} == {
        "requirements.lock": {"far", "some-package"},
        "requirements-build.lock": {"editables", "far", "hatchling"},
        "requirements-dev.lock": {"pytest"},
    }


def test_a_package_without_a_digest_is_not_locked() -> None:
    bare = entry("far")
    bare["download_info"] = {"url": "file:far", "dir_info": {}}  # type: ignore[index]
    report = {"install": [one for one in REPORT["install"] if one["metadata"]["name"] != "far"] + [bare]}
    with pytest.raises(ValueError, match="far: pip's report has no digest"):
        locks(report, project("some_package"))


def test_a_package_that_nobody_needs_is_not_locked() -> None:
    with pytest.raises(ValueError, match="needed by nobody: some-package"):
        locks(REPORT, project("far"))


@pytest.mark.parametrize("text", ["numpy>=2", "numpy==2 -e .", "a==1\na==1", "https://index.example/a.whl"])
def test_what_is_no_pin_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError, match="not a pin"):
        read(text)
