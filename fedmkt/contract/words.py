"""The words in which contracts and settings are written: names, keys, times, kinds; the base of all sections."""

import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fedmkt.privacy.disclosure import EVERYONE, lookup


class Terms(BaseModel):
    """Base of all frozen models: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_UNSEEN = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
"""Letters and marks that count as printable and are not seen: fillers, a blank pattern, selectors of variants."""


def _printable(value: str) -> str:
    if not value.isprintable() or _UNSEEN & set(value):
        raise ValueError("printable characters only")
    return value


def _not_everyone(value: str) -> str:
    if value == EVERYONE:
        raise ValueError(f'"{EVERYONE}" stands for every signer and names no one')
    return value


def _utc_seconds(value: datetime) -> datetime:
    if value.tzinfo is None or value.microsecond:
        raise ValueError("a time in whole seconds with its offset, like 2030-01-31T12:00:00Z")
    return value.astimezone(UTC)


def kind_of_key(value: str) -> str:
    """Return the kind of a further key if it is written as a contract writes it, else ValueError."""
    kind, _, name = value.partition(":")
    parts = name.split("+")
    if kind == "compound":
        is_right = len(parts) > 1 and all(parts)
    else:
        is_right = kind in get_args(IdKind) and len(parts) == 1 and (name != "" or value == kind)
    if not (is_right and name == name.strip()):
        raise ValueError("phone, email, national_id, raw, such a kind with :name, or compound:part+part")
    return _printable(value)


def _disclosure_kind(value: str) -> str:
    lookup(value)
    return value


Count = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$"), AfterValidator(_not_everyone)]
Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[datetime, Field(strict=True), AfterValidator(_utc_seconds)]
Kind = Annotated[str, AfterValidator(_disclosure_kind)]
IdKind = Literal["phone", "email", "national_id", "raw"]
MoreKind = Annotated[str, Field(max_length=200), AfterValidator(kind_of_key)]
"""A further key: one of IdKind, a colon and a name behind it where a kind has two, or compound and its parts."""
Channel = Literal["hub", "flower"]
Task = Literal["train", "overlap"]


def looks_of(name: str) -> str:
    """Return how a name looks at a glance: of letters and digits that are taken for each other one, no hyphen."""
    alike = name.replace("-", "").replace("rn", "m").replace("vv", "w")
    return alike.translate(str.maketrans("01i5", "olls"))


def comparable(organisation: str) -> str:
    """Return the name of an organisation as it is compared: whatever its letters, cases and spaces look like."""
    return " ".join(unicodedata.normalize("NFKC", organisation).casefold().split())
