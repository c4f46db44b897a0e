"""The page of events beside the two vocabularies, the code that writes them, and the tests that see them written."""

import re
from pathlib import Path

import pytest

from fedmkt.audit.acts import ACTS
from fedmkt.audit.records import EVENTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "events.md").read_text()
CATALOGUE = [
    "party.registered", "key.created", "key.rotated", "key.revoked", "contract.proposed", "contract.signed",
    "contract.amended", "contract.expired", "pia.attached", "assessment.attached", "purpose.declared",
    "policy.loaded", "approval.requested", "approval.granted", "approval.denied", "override.used",
    "dataset.opened", "column.granted", "column.refused", "consent.filtered", "optout.applied",
    "consent.withdrawn", "erasure.requested", "erasure.executed", "retention.expired", "session.opened",
    "session.closed", "session.refused", "run.started", "step.started", "step.completed", "message.sent",
    "message.received", "message.rejected", "message.retransmitted", "value.revealed", "match.completed",
    "budget.spent", "run.completed", "run.aborted", "run.resumed", "model.exported", "scores.released",
    "report.exported", "attack.detected", "integrity.failed", "limit.hit", "clock.stepped",
]  # fmt: skip
ROWS = {
    name: (where, modules, rest)
    for name, where, modules, rest in re.findall(
        r"^\| `([a-z.]+)` \| (.*?) \| (.*?) ?\| (.+) \|$", PAGE, re.MULTILINE
    )
}
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
SOURCES = {
    path.relative_to(ROOT / "fedmkt").as_posix(): path.read_text() for path in (ROOT / "fedmkt").rglob("*.py")
}
VOCABULARIES = ("audit/records.py", "audit/acts.py")


def test_the_page_has_the_48_names_of_the_catalogue_in_order() -> None:
    assert len(CATALOGUE) == 48 and list(ROWS) == CATALOGUE


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_name_is_written_where_the_page_says_or_nowhere(name: str) -> None:
    where, modules, rest = ROWS[name]
    found = [place for place, known in (("acts", ACTS), ("log", EVENTS)) if name in known]
    assert where == (", ".join(found) or "—")
    if not found:
        assert modules == "" and "test_" not in rest
        return
    for module in modules.split(", "):
        assert f'"{name}"' in SOURCES[module], module
    (test,) = re.findall(r"`(test_\w+)`", rest)
    assert f"def {test}(" in TESTS


@pytest.mark.parametrize("name", sorted((EVENTS | ACTS) - set(CATALOGUE)))
def test_each_further_name_is_on_the_page_too(name: str) -> None:
    assert f"`{name}`" in PAGE.partition("<!-- end")[2]


@pytest.mark.parametrize("name", sorted(EVENTS | ACTS))
def test_no_name_of_a_vocabulary_is_written_by_nobody(name: str) -> None:
    assert any(f'"{name}"' in text for module, text in SOURCES.items() if module not in VOCABULARIES)
