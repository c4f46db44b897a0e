"""The report of a run folder: read summary.json, write report.html beside it."""

from pathlib import Path

from fedmkt.errors import ConfigError
from fedmkt.party.journal import write_atomically
from fedmkt.report.page import render
from fedmkt.report.summary import RunSummary

SUMMARY = "summary.json"
PAGE = "report.html"


def read_summary(run: Path) -> RunSummary:
    """Read the summary that a finished run left; ConfigError if there is none or it is not one."""
    path = run / SUMMARY
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give the folder of a finished run") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    try:
        return RunSummary.from_json(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", "run the job again: it writes a new one") from None


def build_report(run: Path) -> Path:
    """Write report.html into the run folder, whole or not at all; equal summaries give equal bytes."""
    page = run / PAGE
    write_atomically(page, render(read_summary(run)).encode(), mode=0o644)
    return page
