"""Build the wheel so that anyone who builds it again gets the same bytes.

    python -m supply.wheel build      dist/ from the last commit (`make wheel`)
    python -m supply.wheel twice      from two clones, elsewhere and later (`make reproducible`)

What is built is a fresh clone of the last commit, so a stray file in one's own folder is not in it. Times in the
archive are the commit's (SOURCE_DATE_EPOCH), and the tools are the locked ones: their version stands in the wheel.

Three digests, of three things: the wheel's own, to compare before it is installed; that of the code in it, which a
contract pins as `governance.code` and `fedmkt controls --code` prints of an installation; and that of the bundle
which Flower hands to nodes, which holds no code, only names, and says nothing of either.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib import metadata
from pathlib import Path

from fedmkt.party.controls.code import code_digest
from fedmkt.sbom import bill, encode, installed
from supply.lock import FILES, read

ROOT = Path(__file__).resolve().parents[1]
UMASKS = (0o022, 0o077)
ZONES = ("UTC", "Pacific/Auckland")


def build(source: Path, out: Path, environment: dict[str, str] | None = None) -> Path:
    """Build the wheel of the last commit of `source` into `out`; CalledProcessError if git or hatchling fail."""
    with tempfile.TemporaryDirectory(prefix="fedmkt-wheel-") as scratch:
        clone = Path(scratch, "clone")
        _run(["git", "clone", "--quiet", "--no-hardlinks", str(source), str(clone)])
        date = _run(["git", "-C", str(clone), "log", "-1", "--format=%ct"]).strip()
        surrounding = os.environ | {"SOURCE_DATE_EPOCH": date} | (environment or {})
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
        _run(command, clone, surrounding)
    (wheel,) = out.glob("*.whl")
    return wheel


def digest(file: Path) -> str:
    """Give the SHA-256 of a file, 64 hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def code_in(wheel: Path) -> str:
    """Give the digest of the code in a wheel, as `fedmkt controls --code` does of an installation."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        archive.extractall(folder)
        return code_digest(Path(folder, "fedmkt"))


def twice(source: Path) -> tuple[str, str]:
    """Build in two clones, a second apart, with other permissions and another time zone; give both digests."""
    found = []
    for umask, zone in zip(UMASKS, ZONES, strict=True):
        before = os.umask(umask)
        try:
            with tempfile.TemporaryDirectory(prefix=f"fedmkt-{zone[:3]}-") as out:
                found.append(digest(build(source, Path(out), {"TZ": zone, "PYTHONHASHSEED": str(umask)})))
        finally:
            os.umask(before)
        time.sleep(2.1)  # a ZIP archive tells times two seconds apart
    return found[0], found[1]


def differing() -> list[str]:
    """Name the packages of the build that are not the locked ones: with them the digest is another."""
    locked = read((ROOT / FILES["build"]).read_text())
    return [name for name, pin in locked.items() if _installed_version(name) != pin.version]


def _installed_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _run(command: list[str], folder: Path | None = None, environment: dict[str, str] | None = None) -> str:
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main() -> None:
    """Build once into dist/ with the bill of materials beside it, or twice to compare."""
    if others := differing():
        sys.exit(f"not the locked tools (make install-locked): {', '.join(others)}")
    if sys.argv[1:] == ["twice"]:
        first, second = twice(ROOT)
        print(f"sha256 {first}\nsha256 {second}")
        sys.exit(0 if first == second else "two builds of one commit differ")
    out = ROOT / "dist"
    for old in out.glob("*.whl"):
        old.unlink()
    wheel = build(ROOT, out)
    pins = {name: (pin.version, pin.digests) for name, pin in read((ROOT / FILES["run"]).read_text()).items()}
    (out / "bom.cdx.json").write_bytes(encode(bill(*installed(), pins)))
    print(f"{digest(wheel)}  {wheel.relative_to(ROOT)}\n{code_in(wheel)}  governance.code")


if __name__ == "__main__":
    main()
