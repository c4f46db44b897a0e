"""The software bill of materials: what fedmkt runs on, as a CycloneDX 1.6 document.

`bill` makes the document from a list of components; `installed` reads that list from what this interpreter
has. The same components give the same bytes: all is sorted, the serial number is a digest of the rest, and
no clock is read.

A component has up to two digests. `hashes` are those of the files that the lock names, one of which is what
`pip --require-hashes` accepts; they stand there only where the version is the locked one. The property
`fedmkt:installed-sha256` is about this machine: the digest of the list of files and their digests that the
installer wrote (RECORD), without what differs from one machine to the next. fedmkt itself may have a third,
`fedmkt:code-sha256`: of its code as a contract pins it.

Source: CycloneDX 1.6 (ECMA-424), JSON; package URLs as the purl specification writes them for pypi;
PEP 376 and 427 for RECORD, PEP 639 for licences.
"""

import csv
import hashlib
import json
import tomllib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fedmkt import __version__
from fedmkt.errors import ConfigError

ROOT = "fedmkt"
INSTALLED = "fedmkt:installed-sha256"
CODE = "fedmkt:code-sha256"

# Names in the field "License" that can mean one licence only, and how SPDX writes them.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "ISC License": "ISC",
    "MIT License": "MIT",
} | {
    name: name for name in ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "PSF-2.0")
}
# Classifiers that do; the others, such as "BSD License", name a family.
CLASSIFIERS = {
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
# What an installer writes itself, so that it differs where the package does not.
INSTALLERS_OWN = ("/INSTALLER", "/REQUESTED", "/RECORD", "/direct_url.json", ".pyc")


@dataclass(frozen=True)
class Component:
    """One installed distribution.

    name : as PEP 503 normalises it. licence : an SPDX expression, or the package's own words where these
    say no more than a family; empty if it says nothing. requires : names of other components, sorted.
    files_sha256 : digest of its files as installed, 64 hexadecimal digits, or empty where there is no list.
    code_sha256 : of fedmkt alone, the digest of its code as a contract pins it, however it was installed.
    """

    name: str
    version: str
    licence: str = ""
    requires: tuple[str, ...] = ()
    files_sha256: str = ""
    code_sha256: str = ""

    @property
    def purl(self) -> str:
        """Name the package and version for other tools: "pkg:pypi/numpy@2.4.6"."""
        return f"pkg:pypi/{self.name}@{quote(self.version, safe='')}"


class Fields(Protocol):
    """The metadata of a distribution, as `importlib.metadata` and `email.message` give it."""

    def get_all(self, name: str, failobj: None = None) -> list[str] | None:
        """List the values of a field; None if it has none."""


def bill(
    root: Component,
    components: Iterable[Component],
    artefacts: Mapping[str, tuple[str, Sequence[str]]] | None = None,
    timestamp: str = "",
) -> dict[str, object]:
    """Make the document: `root` is what the bill is of, `components` all that it needs, in any order.

    artefacts : by name, the locked version and the SHA-256 digests of its files. timestamp : RFC 3339, left
    out if empty. ValueError if a component requires one that is not listed, or is listed twice.
    """
    listed = sorted(components, key=lambda component: component.name)
    names = [component.name for component in listed]
    if len(set(names)) < len(names) or root.name in names:
        raise ValueError("a component is listed twice")
    by_name = {component.name: component for component in [*listed, root]}
    for component in by_name.values():
        if missing := set(component.requires) - set(by_name):
            raise ValueError(f"{component.name} requires {', '.join(sorted(missing))}, which is not listed")
    about = {"component": {"type": "application", **_described(root, artefacts or {})}}
    body: dict[str, object] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": ({"timestamp": timestamp} if timestamp else {}) | about,
        "components": [{"type": "library", **_described(one, artefacts or {})} for one in listed],
        "dependencies": [
            {"ref": one.purl, "dependsOn": sorted(by_name[name].purl for name in one.requires)}
            for one in sorted(by_name.values(), key=lambda component: component.name)
        ],
    }
    return body | {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, encode(body).decode())}"}


def encode(document: Mapping[str, object]) -> bytes:
    """Write a bill as JSON, keys sorted, to be read by people too."""
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def installed(requirements: Iterable[str] | None = None) -> tuple[Component, list[Component]]:
    """Read fedmkt and all that it needs at run time from what is installed here; no file is hashed.

    requirements : what fedmkt asks for, as pyproject.toml writes it; as installed, or as the source tree
    says where it runs from there, if None. ConfigError if a required distribution is not installed.
    """
    asked = list(own_requirements() if requirements is None else requirements)
    needed = closure(asked, _requirements)
    own = tuple(sorted({canonicalize_name(one.name) for one in map(Requirement, asked) if _applies(one, "")}))
    root = Component(ROOT, __version__, "Apache-2.0", own, _own_files())
    return root, [_component(name, needed[name]) for name in sorted(needed)]


def closure(asked: Iterable[str], requirements: Callable[[str], Iterable[str]]) -> dict[str, set[str]]:
    """Follow requirements to all that is needed here: by name, the names of what a distribution needs itself.

    asked : requirements as PEP 508 writes them. requirements : gives those of a distribution by its name,
    with the ones for other systems and for extras, which are left out unless they apply.
    """
    needed: dict[str, set[str]] = {}
    waiting = [one for one in map(Requirement, asked) if _applies(one, "")]
    read: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for known, extra in read if known == name}:
            read.add((name, extra))
            wanted = [one for one in map(Requirement, requirements(name)) if _applies(one, extra)]
            needed.setdefault(name, set()).update(canonicalize_name(one.name) for one in wanted)
            waiting += wanted
    return needed


def own_requirements() -> list[str]:
    """List what fedmkt requires, with its extras, from its metadata; without, from pyproject.toml of its source."""
    try:
        return metadata.requires(ROOT) or []
    except metadata.PackageNotFoundError:
        source = Path(__file__).parents[1] / "pyproject.toml"
    if not source.is_file():
        raise ConfigError("fedmkt is not installed, so nothing says what it needs", "pip install fedmkt")
    return list(tomllib.loads(source.read_text())["project"]["dependencies"])


def licence(fields: Fields) -> str:
    """Say under which licence a distribution is, as SPDX where its metadata is exact; empty if it is silent."""

    def said(name: str) -> list[str]:
        return [text.strip() for text in fields.get_all(name) or () if text.strip() not in ("", "UNKNOWN")]

    if expressions := said("License-Expression"):
        return expressions[0]
    words = said("License")[:1]
    if words and words[0] in SPDX:
        return SPDX[words[0]]
    classifiers = [text for text in said("Classifier") if text.startswith("License :: ")]
    names = [text.rpartition(" :: ")[2] for text in classifiers]
    if len(names) == 1 and names[0] in CLASSIFIERS:
        return CLASSIFIERS[names[0]]
    # A field that holds the whole text of a licence is not a name of it.
    return ", ".join(names) or "".join(text for text in words if len(text.splitlines()) == 1)


def record_digest(record: str, within: str = "") -> str:
    """Digest what a RECORD lists below the folder `within`, so that equal files give equal digests.

    Left out: files that the installer writes itself, and those outside of site-packages, whose first line
    names the interpreter. Empty if nothing is left.
    """
    lines = sorted(
        f"{path} {digest}\n"
        for path, digest, *_ in csv.reader(record.splitlines())
        if digest and path.startswith(within) and not _is_the_installers(path)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else ""


def _is_the_installers(path: str) -> bool:
    return path.startswith(("../", "/")) or path.endswith(INSTALLERS_OWN)


def _described(component: Component, artefacts: Mapping[str, tuple[str, Sequence[str]]]) -> dict[str, object]:
    """Say what a component is, as CycloneDX has it."""
    found: dict[str, object] = {
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
    }
    if component.licence:
        found["licenses"] = [_licence_choice(component.licence)]
    locked, digests = artefacts.get(component.name, ("", ()))
    if locked == component.version:
        found["hashes"] = [{"alg": "SHA-256", "content": digest} for digest in sorted(digests)]
    digests_here = {INSTALLED: component.files_sha256, CODE: component.code_sha256}
    if properties := [{"name": name, "value": value} for name, value in digests_here.items() if value]:
        found["properties"] = properties
    return found


def _licence_choice(text: str) -> dict[str, object]:
    if any(f" {word} " in text for word in ("AND", "OR", "WITH")):
        return {"expression": text}
    return {"license": {"id" if " " not in text and "," not in text else "name": text}}


def _component(name: str, requires: Iterable[str]) -> Component:
    found = metadata.distribution(name)
    digest = record_digest(found.read_text("RECORD") or "")
    return Component(name, found.version, licence(found.metadata), tuple(sorted(requires)), digest)


def _own_files() -> str:
    """Digest fedmkt's own files as installed; empty for an editable installation, which lists none."""
    try:
        return record_digest(metadata.distribution(ROOT).read_text("RECORD") or "", f"{ROOT}/")
    except metadata.PackageNotFoundError:
        return ""


def _requirements(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise ConfigError(f"{name} is not installed, but fedmkt needs it", "pip install fedmkt") from None


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
