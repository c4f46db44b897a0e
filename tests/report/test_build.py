import shutil
from pathlib import Path

import pytest

from fedmkt.errors import ConfigError
from fedmkt.report.build import PAGE, SUMMARY, build_report, read_summary
from fedmkt.simulation.run import RunResult


def copy_of(run: RunResult, folder: Path) -> Path:
    shutil.copy(run.folder / SUMMARY, folder)
    return folder


def test_the_report_of_a_run_is_built_again_byte_for_byte(small_run: RunResult, tmp_path: Path) -> None:
    assert build_report(copy_of(small_run, tmp_path)).read_bytes() == small_run.report.read_bytes()


def test_the_page_shows_what_the_run_found(small_run: RunResult) -> None:
    page = small_run.report.read_text()
    summary = small_run.summary
    assert read_summary(small_run.folder) == summary
    for head in summary.heads:
        assert head.root in page.replace("&#43;", "+")
    for line in summary.disclosures:
        assert line.kind in page
    assert "Convergence of training" in page and "made again in clear arithmetic" in page.lower()
    assert "<script" not in page


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "summary"),
        (b"{", "summary"),
        (b"[]", "format must be"),
        (b"\xff", "not UTF-8"),
        (b'{"format": "fedmkt-summary/1"}', "missing"),
        (b'{"format": "fedmkt-summary/1", "' + b"x" * 10 + b'": 1}', "unknown|missing"),
        (b"[" * 100_000, "summary"),
    ],
)
def test_a_broken_summary_is_one_clear_error(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        build_report(tmp_path)
    assert not (tmp_path / PAGE).exists()


def test_a_folder_without_a_summary_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"summary\.json: No such file"):
        build_report(tmp_path)
