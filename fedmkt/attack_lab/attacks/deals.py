"""A dealer that deals wrong corrections (row 15): whether anybody notices.

Undefended: the same job without an auditor, whose dealer adds noise of its choice to the last rounding of the scores,
or where there is none changes a word of each message. The run ends, its logs verify, the scores are the dealer's.
Here: where the contract names an auditor, the run is done again under an auditor of the lab's own; its recorded deals
are changed in every way of `CORRUPTIONS`, and compared by the function of `fedmkt audit deals`; then the same cheating
dealer runs, and its run is audited.
"""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedmkt.attack_lab.between import Between
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Floats, Subject, find_job
from fedmkt.attack_lab.views import Views
from fedmkt.audit.verify import verify_run
from fedmkt.config.job import JobConfig
from fedmkt.contract.agreement import Contract
from fedmkt.crypto.sign import Identity
from fedmkt.errors import FedmktError
from fedmkt.learn.metrics import auc
from fedmkt.protocol import deals, wire
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Outcome,
    PublicValue,
    Script,
    Step,
    Turn,
    data_parties,
    dealer,
)
from fedmkt.protocol.deals import Dealt
from fedmkt.protocol.shared import DealtRounding
from fedmkt.report.audit_tools import read_views
from fedmkt.report.deals import Line, LoggedDeals, OpenedRun, audit_deals, first_wrong, open_run
from fedmkt.report.folder import find_files
from fedmkt.simulation.run import carry_out, layout_of

Change = Callable[[str, Message], Message]
_AUDITOR = Identity(bytes(range(32)))


@dataclass(frozen=True)
class Cheat:
    """A dealer that sends something else than it had to; `change` : from the step and the right message."""

    change: Change

    def watch(self, script: Script) -> Script:
        """Return the same script with this dealer in it."""

        @functools.wraps(script)
        def cheated(call: Caller, contract: Contract) -> PublicValue:
            return script(Between(call, functools.partial(_cheating, self.change)), contract)

        return cheated


def _cheating(change: Change, step: Step[Any, Any, Any]) -> Step[Any, Any, Any]:
    def run(turn: Turn, inbox: Inbox[Any]) -> Outcome[Any, Any]:
        outcome = step.run(turn, inbox)
        if turn.me != dealer(turn.contract):
            return outcome
        return replace(outcome, send={p: change(step.name, m) for p, m in outcome.send.items()})

    return replace(step, run=run)


def scramble_scores(random: np.random.Generator) -> Change:
    """Return a change that adds up to +-50 units, hundredths by default, to each score."""

    def change(step: str, message: Message) -> Message:
        if not (step.startswith("score.") and isinstance(message, DealtRounding)):
            return message
        noise = random.integers(-50, 51, message.high.shape).astype(np.int64).view(np.uint64)
        return replace(message, high=message.high + noise)

    return change


def change_words(random: np.random.Generator) -> Change:
    """Return a change of one word of each message."""

    def change(step: str, message: Message) -> Message:
        return wire.decode(_word(wire.encode(message), random), type(message))

    return change


@dataclass(frozen=True)
class Recorded:
    """One message of an honest dealer, dealt again. key : of its mark."""

    dealt: Dealt
    plain: bytes
    key: bytes

    def mark_of(self, plain: bytes) -> str:
        """Return the mark of other bytes in its place."""
        return deals.mark(self.key, self.dealt.index, self.dealt.step, [plain]).hex()


def record(opened: OpenedRun) -> list[Recorded]:
    """Deal a run again and keep every message."""
    plain: dict[tuple[int, Name], bytes] = {}

    def look(step: str, index: int, reader: Name, message: Message) -> None:
        plain[index, reader] = wire.encode(message)

    found = list(opened.again(look))
    keys = {(e, p): deals.mark_key(s) for e, of in opened.seeds.items() for p, s in of.items()}
    return [Recorded(d, plain[d.index, d.reader], keys[d.epoch, d.reader]) for d in found]


def _arrays_at(plain: bytes) -> int:
    return 4 + int.from_bytes(plain[:4], "big")


def _flip(plain: bytes, at: int, bit: int) -> bytes:
    return plain[:at] + bytes([plain[at] ^ (1 << bit)]) + plain[at + 1 :]


def _bit(plain: bytes, random: np.random.Generator) -> bytes:
    return _flip(plain, int(random.integers(_arrays_at(plain), len(plain))), int(random.integers(8)))


def _word(plain: bytes, random: np.random.Generator, by: int | None = None) -> bytes:
    """Add a number to one word of eight bytes, or of as many as there are."""
    start = _arrays_at(plain)
    size = min(8, len(plain) - start)
    if not size:
        return plain
    at = start + size * int(random.integers((len(plain) - start) // size))
    most = 1 << 8 * size
    added = int(random.integers(1, min(most, 1 << 62))) if by is None else by % most
    changed = (int.from_bytes(plain[at : at + size], "little") + added) % most
    return plain[:at] + changed.to_bytes(size, "little") + plain[at + size :]


def _top(plain: bytes, random: np.random.Generator) -> bytes:
    start = _arrays_at(plain)
    size = min(8, len(plain) - start)
    at = start + size * int(random.integers((len(plain) - start) // size)) + size - 1
    return _flip(plain, at, 7)


Corruption = Callable[[Sequence[Recorded], Sequence[Recorded], int, np.random.Generator], Mapping[int, bytes]]
"""From the messages, the same under a wrong seed, and which of them: the changed ones, by place."""


def _same_error(
    found: Sequence[Recorded], _: Sequence[Recorded], at: int, random: np.random.Generator
) -> Mapping[int, bytes]:
    other, by = int(random.integers(len(found))), int(random.integers(1, 256))
    return {place: _word(found[place].plain, random, by) for place in {at, other}}


def _swapped(
    found: Sequence[Recorded], _: Sequence[Recorded], at: int, random: np.random.Generator
) -> Mapping[int, bytes]:
    other = int(random.integers(len(found)))
    return {at: found[other].plain, other: found[at].plain}


def _of_another_count(
    found: Sequence[Recorded], _: Sequence[Recorded], at: int, random: np.random.Generator
) -> Mapping[int, bytes]:
    alike = [r.plain for i, r in enumerate(found) if i != at and r.dealt.step == found[at].dealt.step]
    return {at: alike[int(random.integers(len(alike)))]} if alike else {}


CORRUPTIONS: Mapping[str, Corruption] = {
    "a bit": lambda found, _, at, random: {at: _bit(found[at].plain, random)},
    "a word": lambda found, _, at, random: {at: _word(found[at].plain, random)},
    "a top bit": lambda found, _, at, random: {at: _top(found[at].plain, random)},
    "the same error twice": _same_error,
    "two messages swapped": _swapped,
    "of another count": _of_another_count,
    "of a wrong seed": lambda found, wrong, at, random: {at: wrong[at].plain},
}
"""Every way in which the lab changes recorded deals."""


def corrupted(opened: OpenedRun, count: int, random: np.random.Generator) -> dict[str, tuple[int, int]]:
    """Change the recorded deals of a run `count` times; by kind: how often, and how often the audit named it.

    The marks in both logs are those of the changed messages, as if dealer and receiver had logged what was sent.
    """
    found = record(opened)
    other = {e: {**of, data_parties(opened.contract)[-1]: bytes(32)} for e, of in opened.seeds.items()}
    wrong = record(replace(opened, seeds=other))
    counts = {kind: (0, 0) for kind in CORRUPTIONS}
    done = 0
    while done < count:
        kind = list(CORRUPTIONS)[done % len(CORRUPTIONS)]
        changed = CORRUPTIONS[kind](found, wrong, int(random.integers(len(found))), random)
        changed = {at: plain for at, plain in changed.items() if plain != found[at].plain}
        if not changed:
            kind, at = "a bit", int(random.integers(len(found)))
            changed = {at: _bit(found[at].plain, random)}
        tried, named = counts[kind]
        counts[kind] = (tried + 1, named + _is_named(found, opened.logged, changed))
        done += 1
    return counts


def _is_named(found: Sequence[Recorded], logged: LoggedDeals, changed: Mapping[int, bytes]) -> bool:
    sent = dict(logged.sent)
    for at, plain in changed.items():
        dealt = found[at].dealt
        slot = (dealt.epoch, dealt.index, str(dealt.reader))
        sent[slot] = Line(dealt.envelope.hex(), found[at].mark_of(plain))
    told = replace(logged, sent=sent, received=sent)
    first = found[min(changed)].dealt.where
    return first_wrong((r.dealt for r in found), told, lambda _: None).startswith(f"{first}:")


def audited(config: JobConfig) -> JobConfig:
    """Return the same job under the lab's own auditor."""
    terms = deals.auditor_terms("auditor", "an auditor of the lab", _AUDITOR)
    kinds = tuple(kind for kind in config.disclosures if kind != "DealerSeeds")
    return config.model_copy(update={"auditor": terms, "disclosures": (*kinds, "DealerSeeds")})


def unaudited(config: JobConfig) -> JobConfig:
    """Return the same job without an auditor."""
    kinds = tuple(kind for kind in config.disclosures if kind != "DealerSeeds")
    return config.model_copy(update={"auditor": None, "disclosures": kinds})


def run_job(config: JobConfig, path: Path, folder: Path, change: Change | None = None) -> bool:
    """Run a job, with a cheating dealer if `change` is given; tells whether all saw it end and its logs verify."""
    watch = Cheat(change).watch if change is not None else lambda script: script
    try:
        carry_out(
            config, path, layout_of(config.name, folder, False), "memory", None, False, None, None, watch
        )
        return verify_run(folder).outcome == "completed"
    except (FedmktError, ValueError):
        return False


def open_audited(folder: Path) -> OpenedRun:
    """Open a finished run under the lab's auditor as the auditor does."""
    files, views = find_files(folder), read_views(folder).logs
    run = next(r.run for view in views for r in view.records if r.type == "run.completed")
    return open_run(files, views, run, _AUDITOR)


def is_caught(folder: Path) -> bool:
    """Tell whether the audit of a finished run finds a wrong deal."""
    try:
        return any(done.wrong for done in audit_deals(folder, _AUDITOR))
    except FedmktError:
        return True


def cheating_dealer(subject: Subject, effort: Effort) -> Finding:
    """Deal wrongly, without and with an auditor; the figure is the share of wrong deals that nobody notices."""
    config, path = find_job(subject.folder)
    change = scramble_scores if subject.family != "trees-sides" else change_words
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        plain = unaudited(config)
        unseen = run_job(plain, path, place / "cheated", change(effort.random))
        note = _moved(subject, place / "cheated") if unseen else "the run broke off"
        limit, metric = Limit(0.0), "wrong deals unnoticed"
        if config.auditor is None:
            text = f"{note}; no auditor in the contract: not checked"
            return Finding(
                15, "cheating dealer", metric, float(unseen), float(unseen), limit, text, assumed="the dealer"
            )
        own = audited(config)
        run_job(own, path, place / "honest")
        counts = corrupted(open_audited(place / "honest"), effort.messages, effort.random)
        tried, named = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
        run_job(own, path, place / "audited", change(effort.random))
        caught = is_caught(place / "audited") and not is_caught(place / "honest")
        missed = (tried - named + (not caught)) / (tried + 1)
        text = f"{note}; audited: {named + caught:,} of {tried + 1:,} named, after the run"
        return Finding(15, "cheating dealer", metric, float(unseen), missed, limit, text)


def _moved(subject: Subject, folder: Path) -> str:
    """Say what became of the scores."""
    other = Subject(subject.config, subject.tables, folder, folder, Views())
    before, after = (_auc(s) for s in (subject, other))
    return f"AUC {before:.3f} became {after:.3f}"


def _auc(subject: Subject) -> float:
    label: Floats = subject.held_out_labels
    return auc(label, np.nan_to_num(subject.released[: len(label)]))
