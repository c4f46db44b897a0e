import hashlib
import zipfile
from pathlib import Path

import pytest

from supply.wheel import build, differing, digest, twice

ROOT = Path(__file__).resolve().parents[2]


def test_the_digest_of_a_file_is_sha256(tmp_path: Path) -> None:
    file = tmp_path / "a.whl"
    file.write_bytes(b"abc")
    assert digest(file) == hashlib.sha256(b"abc").hexdigest()


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
