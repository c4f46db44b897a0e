"""What one version of a contract says otherwise than another, term by term."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fedmkt.contract.agreement import Contract

_VERSION = ("governance.revision", "governance.amends")
"""What is different in every version, and is shown elsewhere."""


@dataclass(frozen=True)
class Change:
    """One term that is different. old, new : as text; None where it is absent."""

    where: str
    old: str | None
    new: str | None


def changes(old: Contract, new: Contract) -> list[Change]:
    """List the terms that differ, in the order of their names; an entry of a list is known by its name."""
    before, after = (dict(flat(c)) for c in (old, new))
    return [
        Change(where, before.get(where), after.get(where))
        for where in sorted(before.keys() | after.keys())
        if before.get(where) != after.get(where) and where not in _VERSION
    ]


def flat(contract: Contract) -> Iterator[tuple[str, str]]:
    """List every term that a contract has, as its name and its value in text."""
    return _flat(contract.model_dump(mode="python", exclude_none=True), "")


def _flat(value: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, tuple | list) and value and isinstance(value[0], Mapping):
        for item in value:
            yield from _flat(item, f"{where}[{_name(item)}]")
    elif isinstance(value, tuple | list) and (
        (value and where.endswith("more_kinds")) or not all(isinstance(item, str) for item in value)
    ):
        yield where, ", ".join(map(_said, value))  # their order says something
    elif isinstance(value, tuple | list):
        yield from _listed(value, where)
    else:
        yield where, _said(value)


def _name(entry: Mapping[str, object]) -> str:
    if {"name", "party", "role", "key"} <= set(entry):  # an approver
        return f"{entry['party']}/{entry['name']}"
    if "party" in entry:  # a data set, of which each party has one
        return str(entry["party"])
    return " ".join(str(entry[key]) for key in ("name", "result", "to", "use") if key in entry)


def _listed(values: Sequence[object], where: str) -> Iterator[tuple[str, str]]:
    """Name each value of a list by itself, so that one more shows as one more."""
    for value in values:
        yield f"{where}[{_said(value)}]", _said(value)


def _said(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
