"""Write docs/licences.md: under which licence each locked package is that fedmkt runs on.

    python -m supply.licences      (`make licences`, in an environment made by `make install-locked`)

Read from the metadata of the installed packages, so these must be the locked ones.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fedmkt.sbom import Component, installed
from supply.lock import FILES, read

PAGE = "docs/licences.md"
# A licence that would bind whoever passes fedmkt on; the L in LGPL and "compatible with GPL" are no match.
STRONG = re.compile(r"\b(?:A?GPL(?:-[\d.]+|v\d)?|GNU (?:Affero )?General Public License)\b", re.IGNORECASE)
WEAK = re.compile(r"\b(?:MPL|LGPL|EPL|CDDL)\b")

# Packages whose licence files hold the name of the GPL or AGPL, and why that binds nobody: a person read them.
_RUNTIME = "the compiler's run-time library in the wheel: GPL-3.0-or-later with the GCC exception"
_CHOICE = "FreeType in the wheel: the FreeType licence, or the GPL at one's choice"
_REMARK = "no work under it: a remark in the text of another licence"
READ = {
    "grpcio": _REMARK,
    "grpcio-health-checking": _REMARK,
    "llvmlite": _REMARK,
    "matplotlib": _CHOICE,
    "numba": _REMARK,
    "numpy": _RUNTIME,
    "pathspec": _REMARK,
    "pillow": f"{_CHOICE}; tools of xz that are not in the wheel",
    "pyarrow": _REMARK,
    "scikit-learn": _RUNTIME,
    "scipy": _RUNTIME,
    "torch": "the licence of a bundled library's own tests, which are not in the wheel",
    "typing-extensions": _REMARK,
}

_HEAD = """\
# Licences of what fedmkt runs on

fedmkt itself is under the [Apache License 2.0](../LICENSE). This page lists the {count} packages of
[requirements.lock](../requirements.lock), as their own metadata name their licences: an SPDX expression where the
package gives one, its own words otherwise. It is no legal advice. `make licences` writes it, and a test compares it
with the lock.

None is under the GPL or AGPL. Under a licence with duties for changes of its own files: {weak}.

| package | version | licence |
|---|---|---|
"""
_BUNDLED = """
## Where a licence file names the GPL

Wheels bundle libraries of others, and their licence files say so. These hold the name of the GPL or AGPL; a
person read why, and a new name stops `make licences` until somebody has read that one.

| package | what is meant |
|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One line of the page."""

    name: str
    version: str
    licence: str


def page(components: Iterable[Component], bundled: Iterable[str]) -> str:
    """Write the page; KeyError for a package of `bundled`, whose files name a GNU licence, that nobody read."""
    listed = sorted(components, key=lambda component: component.name)
    weak = [f"{one.name} ({one.licence})" for one in listed if WEAK.search(one.licence)]
    head = _HEAD.format(count=len(listed), weak=", ".join(weak) or "none")
    table = "".join(f"| {one.name} | {one.version} | {one.licence} |\n" for one in listed)
    return head + table + _BUNDLED + "".join(f"| {name} | {READ[name]} |\n" for name in sorted(bundled))


def rows(text: str) -> list[Row]:
    """Read the table of the page."""
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    return [Row(*cells) for cells in found if cells[0] != "package"]


def strong(components: Iterable[Component]) -> Iterator[str]:
    """Name the packages that are under the GPL or AGPL and offer nothing else."""
    for one in components:
        choices = one.licence.split(" OR ")
        if all(STRONG.search(choice) for choice in choices):
            yield one.name


def names_a_gnu_licence(name: str) -> bool:
    """Say whether a licence file of an installed package holds the name of the GPL or AGPL."""
    for file in metadata.distribution(name).files or ():
        inside = file.parts[0].endswith(".dist-info") and re.match(
            "(?:LICEN[CS]E|COPYING|NOTICE)", file.name, re.IGNORECASE
        )
        if inside and STRONG.search(file.locate().read_text(errors="replace")):
            return True
    return False


def main() -> None:
    """Write the page beside the lock, or say which package is not the locked one."""
    root = Path(__file__).resolve().parents[1]
    pins = read((root / FILES["run"]).read_text())
    _, components = installed()
    here = {one.name: one.version for one in components}
    locked = {name: pin.version for name, pin in pins.items()}
    if here != locked:
        differing = sorted(name for name, _ in here.items() ^ locked.items())
        sys.exit(f"not the locked packages (make install-locked): {', '.join(dict.fromkeys(differing))}")
    if found := list(strong(components)):
        sys.exit(f"under the GPL or AGPL: {', '.join(found)}")
    bundled = [one.name for one in components if names_a_gnu_licence(one.name)]
    if unread := [name for name in bundled if name not in READ]:
        sys.exit(f"licence files name the GPL; read them, then say why in READ: {', '.join(unread)}")
    (root / PAGE).write_text(page(components, bundled))
    print(f"{PAGE}: {len(components)} packages")


if __name__ == "__main__":
    main()
