import hashlib
import zipfile
from pathlib import Path

import pytest

from fedmkt.party.controls.code import code_digest
from supply.wheel import build, code_in, differing, digest, twice

ROOT = Path(__file__).resolve().parents[2]


def test_the_digest_of_a_file_is_sha256(tmp_path: Path) -> None:
    file = tmp_path / "a.whl"
    file.write_bytes(b"abc")
    assert digest(file) == hashlib.sha256(b"abc").hexdigest()


def test_the_code_of_a_wheel_has_the_digest_that_an_installation_of_it_has(tmp_path: Path) -> None:
    package = tmp_path / "installed" / "fedmkt"
    package.mkdir(parents=True)
    (package / "a.py").write_text("one")
    (package / "b.j2").write_text("two")
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("b.j2", "a.py"):
            archive.write(package / name, f"fedmkt/{name}")
        archive.writestr("fedmkt-1.dist-info/METADATA", "Name: fedmkt")
    assert code_in(wheel) == code_digest(package)
    (package / "a.py").write_text("other")
    assert code_in(wheel) != code_digest(package)


@pytest.mark.slow  # three builds in clones of the repository, with tools that only `make install-locked` brings
@pytest.mark.skipif(bool(differing()), reason="the locked tools of the build are not installed")
def test_two_builds_of_one_commit_are_the_same_file(tmp_path: Path) -> None:
    first, second = twice(ROOT)
    assert first == second
    wheel = build(ROOT, tmp_path)
    assert digest(wheel) == first
    names = zipfile.ZipFile(wheel).namelist()
    assert "fedmkt/sbom.py" in names and "fedmkt/report/page.html.j2" in names
    assert all(name.startswith(("fedmkt/", "fedmkt-")) for name in names)
