"""What people did at one organisation, as a chain of hashed lines: who, when, what, how it ended; pure.

Each line is canonical JSON with the SHA-256 of the line before it, the first one that of a fixed text. So a line that
is changed, taken out or put in is found by all that follow; that lines are missing at the end is found by a head that
stands elsewhere: every run's own log says in `policy.loaded` how many acts there were and the last one's hash, and
that log is counter-signed by the other parties. Nothing personal of a customer goes in, no password, no argument of a
command that could be one: names of commands, counts, runs, the names of accounts.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from fedmkt.audit.records import MAX_LEAF_BYTES, Json, canonical
from fedmkt.errors import AuditError

FIRST: Final = hashlib.sha256(b"fedmkt acts v1\n").hexdigest()
VERSION: Final = 1
ACTS: Final = frozenset(
    {
        "act.begun",
        "act.ended",
        "login.accepted",
        "login.ended",
        "login.refused",
        "account.added",
        "account.changed",
        "account.removed",
        "party.registered",
        "key.created",
        "key.rotated",
        "key.revoked",
        "consent.withdrawn",
        "erasure.requested",
        "erasure.executed",
        "retention.expired",
        "decision.explained",
        "scores.released",
        "report.exported",
    }
)
"""Everything that the acts of an organisation may say."""

Authn = Literal["password", "os-user", "none"]


@dataclass(frozen=True)
class Actor:
    """Who acts. type : an account of fedmkt, or a user of the machine where there are no accounts.

    authn : how that is known; "none" for what the operating system says of its own user in single-user mode.
    """

    id: str
    type: Literal["account", "os-user"]
    authn: Authn
    roles: tuple[str, ...] = ()

    def record(self) -> dict[str, Json]:
        """Give it as part of a line."""
        return {"authn": self.authn, "id": self.id, "roles": list(self.roles), "type": self.type}


@dataclass(frozen=True)
class Act:
    """One line; `seq` counts from 0, `time` is UTC text, `before` the hash of the line before."""

    seq: int
    time: str
    actor: Mapping[str, Json]
    type: str
    body: Mapping[str, Json]
    before: str

    def line(self) -> bytes:
        """Encode it; ValueError for an act that is not in the vocabulary, or that is too long."""
        if self.type not in ACTS:
            raise ValueError(f"unknown act {self.type!r}")
        data = canonical({"v": VERSION, **vars(self)})
        if len(data) > MAX_LEAF_BYTES:
            raise ValueError(f"an act of {len(data)} bytes; at most {MAX_LEAF_BYTES}")
        return data


@dataclass(frozen=True)
class Chain:
    """The acts of one organisation, verified. heads : the hash of each line."""

    acts: tuple[Act, ...]
    heads: tuple[str, ...]

    @property
    def head(self) -> str:
        """What the next line names as the one before it."""
        return self.heads[-1] if self.heads else FIRST

    def check_anchor(self, count: int, head: str, where: str) -> None:
        """Compare with what a log said of the acts; AuditError if they do not hold as many, or others."""
        if count > len(self.acts):
            raise AuditError(
                f"acts.jsonl: {len(self.acts)} acts, {where} counted {count}: the last ones are missing"
            )
        if head != (self.heads[count - 1] if count else FIRST):
            raise AuditError(f"acts.jsonl: the first {count} acts are not those that {where} saw")


def read_chain(data: bytes) -> Chain:
    """Read and verify the lines; AuditError names the first one that is wrong."""
    lines = data.split(b"\n")
    if lines.pop() != b"":
        raise AuditError("acts.jsonl: the last line is cut")
    acts, heads, before = list[Act](), list[str](), FIRST
    for seq, line in enumerate(lines):
        try:
            act = _read(line)
        except (ValueError, TypeError, RecursionError):
            raise AuditError(f"acts.jsonl: line {seq + 1}: not as it was written") from None
        if (act.seq, act.before) != (seq, before):
            raise AuditError(f"acts.jsonl: line {seq + 1}: does not follow the line before it")
        before = hashlib.sha256(line).hexdigest()
        acts.append(act)
        heads.append(before)
    return Chain(tuple(acts), tuple(heads))


def _read(line: bytes) -> Act:
    values = json.loads(line)
    if not isinstance(values, dict) or values.pop("v", None) != VERSION:
        raise ValueError("no act of this version")
    types = {"seq": int, "time": str, "actor": dict, "type": str, "body": dict, "before": str}
    if {name: type(value) for name, value in values.items()} != types:
        raise ValueError("other fields")
    act = Act(**values)
    if act.line() != line:
        raise ValueError("not in canonical form")
    return act


def anchors(bodies: Iterable[Mapping[str, Json]]) -> list[tuple[int, str]]:
    """Collect what `policy.loaded` records say of the acts; those of before there were acts say nothing."""
    found = []
    for body in bodies:
        said = body.get("acts")
        if isinstance(said, Mapping):
            found.append((int(cast(int, said["count"])), str(said["head"])))
    return found


def act_lines(acts: Sequence[Act]) -> list[str]:
    """Say acts in plain words, one a line."""
    return [
        f"{act.time[:19]}Z  {act.actor.get('id', '')}  {act.type}"
        + "".join(f"  {key}={value}" for key, value in sorted(act.body.items()))
        for act in acts
    ]
