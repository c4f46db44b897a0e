"""All controls by id, and the one way to ask them: the first that is broken refuses, and names itself."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeVar

from fedmkt.errors import PolicyRefused
from fedmkt.party.controls import agreed, code, columns, outputs, papers, people, purpose, sizes
from fedmkt.party.controls.control import (
    Breach,
    ContractAsked,
    Control,
    ListsAsked,
    MatchAsked,
    ReleaseAsked,
    RowsAsked,
    Rule,
    ScoreAsked,
)

_NUMBERED = sorted(
    (
        control
        for theme in (purpose, columns, people, sizes, outputs, papers, code)
        for control in theme.CONTROLS
    ),
    key=lambda control: control.id,
)
CONTROLS: Mapping[str, Control] = {
    c.id: c for c in (*agreed.AUTHENTIC, *agreed.OVER, *_NUMBERED, *agreed.OTHERS)
}
"""Every control by its id, in the order in which they are asked."""

Q = TypeVar("Q")


def ask_contract(asked: ContractAsked, leave_out: Collection[str] = ()) -> None:
    """Refuse a contract that breaks any control; leave_out : ids of those that are not asked yet."""
    _refuse(
        ((c, c.contract) for c in CONTROLS.values() if c.contract is not None and c.id not in leave_out),
        asked,
    )


def contract_breaches(
    asked: ContractAsked, leave_out: Collection[str] = ()
) -> Iterator[tuple[Control, tuple[Breach, ...]]]:
    """List every control that is asked about a contract, with all that breaks it; () where it passes."""
    for control in CONTROLS.values():
        if control.contract is not None and control.id not in leave_out:
            yield control, tuple(control.contract(asked))


def ask_rows(asked: RowsAsked) -> None:
    """Refuse a list that must not be matched as it is."""
    _refuse(((c, c.rows) for c in CONTROLS.values() if c.rows is not None), asked)


def ask_lists(asked: ListsAsked) -> None:
    """Refuse one more run that shows sizes, or one with a list that differs too little from earlier ones."""
    _refuse(((c, c.lists) for c in CONTROLS.values() if c.lists is not None), asked)


def ask_match(asked: MatchAsked) -> None:
    """Refuse a match behind which too few people are."""
    _refuse(((c, c.match) for c in CONTROLS.values() if c.match is not None), asked)


def ask_release(asked: ReleaseAsked) -> None:
    """Refuse a release."""
    _refuse(((c, c.release) for c in CONTROLS.values() if c.release is not None), asked)


def ask_score(asked: ScoreAsked) -> None:
    """Refuse to keep scores without what must be said of them."""
    _refuse(((c, c.score) for c in CONTROLS.values() if c.score is not None), asked)


def _refuse(rules: Iterable[tuple[Control, Rule[Q]]], asked: Q) -> None:
    for control, rule in rules:
        for breach in rule(asked):
            raise PolicyRefused(f"{control.name}: {breach.text}", breach.hint)
