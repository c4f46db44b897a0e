"""One record of a party's log: what happened, when, in which run, under which contract.

A record becomes a leaf of the log's tree as canonical JSON (RFC 8785). Nothing personal goes in: digests
of sealed bytes, bands, sizes, names of columns. Bodies hold no fractions, so that any JSON reader gives
the same bytes back; event names are a closed vocabulary.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

VERSION = 1
MAX_LEAF_BYTES = 16 * 1024
MAX_NUMBER = 2**53 - 1
"""What every JSON reader gives back as it was."""

_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)

Json = str | int | bool | None | Sequence["Json"] | Mapping[str, "Json"]

EVENTS: frozenset[str] = frozenset(
    {
        "contract.proposed",
        "contract.amended",
        "contract.expired",
        "purpose.declared",
        "pia.attached",
        "assessment.attached",
        "approval.requested",
        "approval.granted",
        "approval.denied",
        "contract.signed",
        "policy.loaded",
        "policy.refused",
        "dataset.opened",
        "column.granted",
        "consent.filtered",
        "consent.withdrawn",
        "optout.applied",
        "minors.filtered",
        "list.counted",
        "session.opened",
        "run.started",
        "run.resumed",
        "run.completed",
        "run.aborted",
        "epoch.started",
        "seeds.sealed",
        "step.completed",
        "message.sent",
        "message.received",
        "message.rejected",
        "value.revealed",
        "budget.spent",
        "checkpoint.saved",
        "scores.released",
        "model.exported",
        "log.cut",
        "retention.expired",
        "clock.stepped",
    }
)
"""Everything that a log may say; `log.cut`: a last line half written in a crash was removed.

`retention.expired`: the records below a number were removed, because the contract keeps them no longer.
`clock.stepped`: the clock was set by that many seconds since the record before.
"""


@dataclass(frozen=True)
class Record:
    """One event; `seq` counts from 0, `time` is UTC text, `contract` the hexadecimal digest."""

    seq: int
    time: str
    party: str
    run: str
    type: str
    contract: str
    body: Mapping[str, Json]


def timestamp(moment: datetime) -> str:
    """Write a moment as UTC text with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def leaf(record: Record) -> bytes:
    """Encode as canonical bytes; ValueError for an unknown event, a fraction, or more than 16 KiB."""
    if record.type not in EVENTS:
        raise ValueError(f"unknown event {record.type!r}")
    data = canonical({"v": VERSION, **vars(record)})
    if len(data) > MAX_LEAF_BYTES:
        raise ValueError(f"a record of {len(data)} bytes; at most {MAX_LEAF_BYTES}")
    return data


def canonical(value: Json) -> bytes:
    """Encode as RFC 8785 does what a record may hold: text, whole numbers, lists, and tables by ASCII names.

    For these the standard library writes the same bytes as `rfc8785`, several times as fast. ValueError for others.
    """
    _check_json(value)
    return _JSON.encode(value).encode()


def read_leaf(data: bytes) -> Record:
    """Decode a leaf; ValueError unless these are exactly the canonical bytes of a record."""
    try:
        values = json.loads(data)
    except RecursionError:
        raise ValueError("the record is nested too deeply") from None
    if not isinstance(values, dict) or values.pop("v", None) != VERSION:
        raise ValueError("no record of this version")
    types: dict[str, type] = dict.fromkeys(("time", "party", "run", "type", "contract"), str)
    types |= {"seq": int, "body": dict}
    if {key: type(value) for key, value in values.items()} != types:
        raise ValueError("the record has other fields")
    record = Record(**values)
    if leaf(record) != data:
        raise ValueError("the record is not in canonical form")
    return record


def _check_json(value: object, depth: int = 0) -> None:
    # Nearly every value is text or a small number, and a log asks this of each: exact types first.
    if type(value) is str or (type(value) is int and -MAX_NUMBER <= value <= MAX_NUMBER):
        return
    if depth > 16:
        raise ValueError("a record is nested at most 16 deep")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not (isinstance(key, str) and key.isascii()):
                raise ValueError("keys in a record are ASCII text")
            _check_json(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_json(item, depth + 1)
    elif isinstance(value, int):
        if abs(value) > MAX_NUMBER:
            raise ValueError("a whole number in a record is below 2^53")
    elif not (value is None or isinstance(value, str)):
        raise ValueError(f"a record holds text, whole numbers, lists and tables, not {type(value).__name__}")
