from pathlib import Path

import pytest

from supply.audit import ask, verdict

LOOKED_UP = {"name": "a", "version": "1", "vulns": []}
KNOWN = {"name": "b", "version": "2", "vulns": [{"id": "CVE-2030-1"}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("listed", "code", "line"),
    [
        ([LOOKED_UP], 0, "none known in 1 packages"),
        ([LOOKED_UP, KNOWN, SKIPPED], 1, "1 known in 2 of 3 packages: b 2: CVE-2030-1"),
        ([LOOKED_UP, SKIPPED], 3, "not audited: only 1 of 2 packages could be looked up"),
        ([SKIPPED], 3, "not audited: only 0 of 1 packages could be looked up"),
        ([], 3, "not audited: only 0 of 0 packages could be looked up"),
    ],
)
def test_what_was_not_looked_up_is_never_called_clean(listed: list[object], code: int, line: str) -> None:
    assert verdict({"dependencies": listed}) == (code, line)


def test_a_database_that_does_not_answer_is_said_in_one_line(tmp_path: Path) -> None:
    silent = tmp_path / "pip-audit"
    silent.write_text("#!/bin/sh\necho 'no route' >&2\nexit 1\n")
    silent.chmod(0o700)
    assert ask(str(silent), "osv", tmp_path) == (
        3,
        "not audited: the database does not answer from this machine",
    )
