"""C21 and C22: which code runs, and under which signatures.

The digest of what is installed is over the package's own files, whatever way they were installed: SHA-256 of one line
for each file, in order, `path` and the SHA-256 of its bytes. `fedmkt controls --code` prints it.

TLS 1.3 is no choice of a contract: the hub refuses anything older (`transport.hub_identity`).
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from fedmkt.contract.governance import Suite
from fedmkt.party.controls.control import Breach, ContractAsked, Control

BUILT: Final[tuple[Suite, ...]] = ("standard", "standard+ml-dsa-44")
"""The suites of signatures that this release can make and check."""
_SUFFIXES = (".py", ".j2")


@cache
def installed_code() -> str:
    """Return the digest of the files of the installed package, hexadecimal."""
    return code_digest(Path(__file__).parents[2])


def code_digest(package: Path) -> str:
    """Return the digest of the files of a package in the folder `package`, such as an unpacked wheel's."""
    files = sorted(
        (p.relative_to(package).as_posix(), p) for p in package.rglob("*") if p.suffix in _SUFFIXES
    )
    lines = (f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for name, path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _code_pinning(asked: ContractAsked) -> Iterator[Breach]:
    agreed = asked.terms.code if asked.terms is not None else None
    if agreed is not None and agreed != asked.code:
        yield Breach(
            f"the contract is for the code {agreed[:16]}, installed at {asked.config.name} is {asked.code[:16]}",
            "install the release that all agreed on, or amend the contract",
        )


def _suite(asked: ContractAsked) -> Iterator[Breach]:
    suite = asked.terms.suite if asked.terms is not None else "standard"
    if suite not in BUILT:
        why = {"gm": "no library with SM2 and SM3 is both fast and well tested"}.get(suite, "it is not built")
        yield Breach(f"suite = {suite!r}: {why}", f"one of {', '.join(BUILT)}")


CONTROLS = (
    Control("C21", "code pinning", "JR/T 0196 7.6 c", "where code is given", "code", contract=_code_pinning),
    Control("C22", "crypto suite", "JR/T 0196 7.5", "always", "suite", contract=_suite),
)  # fmt: skip
