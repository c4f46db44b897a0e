from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from fedmkt.cli import doctor

VERSIONS = ["1", "1.0", "1.0.0", "1.9", "1.10", "1.41.0", "1.42", "2.0", "2.13.0+cpu", "10.1", "26.0.1"]
RANGES = [">=1,<2", ">=1.10", "<1.42,>=1.41", "==1", "==1.0", "<=1.9", ">1.9,<26", ">=2.13,<2.14"]


@pytest.mark.parametrize("accepted", RANGES)
@pytest.mark.parametrize("version", VERSIONS)
def test_ranges_mean_what_the_packaging_library_says(version: str, accepted: str) -> None:
    public = version.partition("+")[0]
    assert doctor.is_accepted(version, accepted) == SpecifierSet(accepted).contains(public)


@pytest.mark.parametrize("bound", ["~=1.0", "!=1.0", "1.0", ">=1.*"])
def test_an_unknown_kind_of_bound_is_refused(bound: str) -> None:
    with pytest.raises(ValueError, match="not a bound"):
        doctor.is_accepted("1.0", bound)


def test_this_machine_can_run_the_tests_and_so_is_healthy(tmp_path: Path) -> None:
    diagnosis = doctor.examine(tmp_path)
    assert diagnosis.is_healthy, diagnosis.lines()
    assert all(len(line) <= 80 for line in diagnosis.lines())


def test_a_package_out_of_range_or_missing_fails_with_the_command_that_mends_it() -> None:
    old = doctor._package("numpy", ">=99")
    missing = doctor._package("no-such-package-here", ">=1")
    assert (old.state, missing.state) == (doctor.FAILED, doctor.FAILED)
    assert old.hint == "pip install 'numpy>=99'"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("flwr[simulation]<1.42,>=1.41", ("flwr", "<1.42,>=1.41", "")),
        ("pytest>=9; extra == 'dev'", ("pytest", ">=9", "extra == 'dev'")),
        ("pandas", ("pandas", "", "")),
        ("scikit-learn (>=1.6)", ("scikit-learn", ">=1.6", "")),
    ],
)
def test_a_requirement_is_split(text: str, parts: tuple[str, str, str]) -> None:
    assert doctor._parse_requirement(text) == parts


def test_a_processor_without_aes_is_a_warning(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu sse2\n")
    assert doctor._processor(info).state == doctor.WARNING
    info.write_text("processor\t: 0\nflags\t\t: fpu aes sse2\n")
    assert doctor._processor(info).state == doctor.OK
    assert doctor._processor(tmp_path / "missing").state == doctor.WARNING


def test_little_memory_is_a_warning(tmp_path: Path) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 8000000 kB\nMemAvailable:   500000 kB\n")
    assert doctor._memory(info).state == doctor.WARNING
    info.write_text("MemAvailable:   8000000 kB\n")
    assert doctor._memory(info) == doctor.Check("memory", doctor.OK, "7.6 GiB free")


def test_a_clock_before_the_release_fails() -> None:
    assert doctor._clock(0.0).state == doctor.FAILED


def test_no_place_for_compiled_loops_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "missing"))
    assert doctor._compiler_cache().state == doctor.WARNING
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert doctor._compiler_cache().state == doctor.OK
