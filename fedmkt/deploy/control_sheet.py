"""The controls as people read them: all of them as a table, and what each says of one contract at one participant."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from textwrap import wrap

from fedmkt.deploy.contracts import open_participant, past_at, read_contract
from fedmkt.deploy.statement_files import statements_on
from fedmkt.party.controls.control import Breach, Control
from fedmkt.party.controls.registry import CONTROLS
from fedmkt.party.policy import Policy

_ID, _TITLE, _REQUIRED = 5, 26, 20


def control_facts() -> list[dict[str, object]]:
    """List all controls as plain data, those with a number first."""
    return [
        {
            "id": c.id, "title": c.title, "basis": c.basis, "required": c.required, "field": c.field,
            "asked": list(c.moments),
        }
        for c in ordered()
    ]  # fmt: skip


def ordered() -> list[Control]:
    """List all controls, those with a number first."""
    return sorted(CONTROLS.values(), key=lambda control: not control.is_numbered)


def control_lines(width: int = 80) -> list[str]:
    """Write the table: id, control, where it is on, the field that it reads."""
    lines = [_line("id", "control", "on", ["field"])]
    for control in ordered():
        number = control.id if control.is_numbered else ""
        title = control.title if control.is_numbered else control.id
        lines.append(_line(number, title, control.required, wrap(control.field, width - 51)))
    return [line for text in lines for line in text.split("\n")]


def _line(number: str, title: str, required: str, field: Sequence[str]) -> str:
    start = f"{number:<{_ID}}{title:<{_TITLE}}{required:<{_REQUIRED}}"
    return "\n".join((start if not place else " " * len(start)) + text for place, text in enumerate(field))


@dataclass(frozen=True)
class Judged:
    """What each control that is asked about a contract says of it at one participant; () where it passes."""

    participant: str
    found: tuple[tuple[Control, tuple[Breach, ...]], ...]

    @property
    def passes(self) -> bool:
        """Tell whether the participant would run the contract, as far as can be told before a run."""
        return not any(breaches for _, breaches in self.found)

    def to_json(self) -> dict[str, object]:
        """Give the same as plain data."""
        return {
            "participant": self.participant,
            "passes": self.passes,
            "controls": [
                {"id": c.id, "title": c.title, "breaches": [vars(breach) for breach in breaches]}
                for c, breaches in self.found
            ],
        }

    def lines(self, width: int = 80) -> list[str]:
        """Say it line by line, what is broken with every reason."""
        lines = []
        for control, breaches in sorted(self.found, key=lambda each: not each[0].is_numbered):
            lines.append(f"{'REFUSED' if breaches else 'passes':<9}{control.name}")
            for breach in breaches:
                for text in (breach.text, breach.hint):
                    lines += wrap(text, width, initial_indent=" " * 9, subsequent_indent=" " * 11)
        later = [c.id for c in ordered() if c.contract is None]
        lines += wrap(f"asked during a run only: {', '.join(later)}", width)
        broken = sum(1 for _, breaches in self.found if breaches)
        said = "runs this contract" if self.passes else f"refuses it by {broken} controls"
        return [*lines, f"{self.participant} {said}"]


def judge(path: Path, folder: Path, now: datetime) -> Judged:
    """Put a contract's file, with the statements beside it, to every control of a participant; nothing is logged."""
    signed = read_contract(path)
    participant = open_participant(folder, signed.contract)
    given, past = statements_on(path, signed.contract, folder), past_at(folder, signed.contract)
    found = tuple(Policy(participant.settings).breaches(signed, now, given, past))
    return Judged(participant.name, found)
