"""Change the files of a run in all the ways that a log must withstand, and ask both verifiers.

`python -m tests.audit.tamperings 1000` does so a thousand times, and verifies a thousand clean runs besides.
"""

import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedmkt.audit import checkpoint
from fedmkt.audit.locate import locate
from fedmkt.audit.records import canonical
from fedmkt.audit.verify import VerifyError, verify_files
from fedmkt.crypto.tree import root_of
from tests.audit import second_verifier
from tests.audit.conftest import IDENTITIES, NAMES, witness_of, write_pruned, write_run

EVERY = 8
KINDS = ("flip", "delete", "insert", "swap", "truncate", "rewrite", "fork", "rollback")
Files = dict[str, bytes]


@dataclass(frozen=True)
class Tampering:
    """Changed files. place : the file that was changed, or the log that was written anew, as its folder."""

    kind: str
    place: str
    files: Files


def clean_run(folder: Path, dice: random.Random) -> Files:
    """Play one to three runs of some messages each, of which some end in the middle; or a pruned one.

    Heads are cosigned after every eight records of a log; in a run of logistic regression after about 65.
    """
    if dice.random() < 0.15:
        return write_pruned(folder, age=dice.randrange(40, 400))
    phases = [_events(dice) for _ in range(dice.randrange(1, 4))]
    names = tuple(f"run{i}" for i in range(len(phases)))
    return write_run(folder, *phases, runs=names, every=EVERY)


def _events(dice: random.Random) -> dict[str, list[tuple[str, dict[str, object]]]]:
    events = {n: [("run.started", {"epoch": 1}), ("epoch.started", {"epoch": 1})] for n in NAMES}
    for index in range(dice.randrange(12)):
        sender, reader = dice.sample(NAMES, 2)
        where = {"index": index, "sha256": dice.randbytes(32).hex(), "bytes": dice.randrange(1 << 20)}
        events[sender].append(("message.sent", {**where, "step": "fit.sum", "to": reader}))
        events[reader].append(("message.received", {**where, "from": sender}))
        if dice.random() < 0.2:
            events[reader].append(("value.revealed", {"kind": "RangeBit", "to": "all", "index": index}))
    for listed in events.values():
        listed.append(("run.completed", {}))
    return events


def tamper(files: Files, kind: str, dice: random.Random) -> Tampering | None:
    """Change the files in one way; None where dice asked for what changes nothing."""
    if kind in ("fork", "rollback", "rewrite"):
        party = dice.choice(NAMES)
        changed = _rewritten(files, kind, party, dice)
        return Tampering(kind, f"logs/{party}/", changed) if changed and changed != files else None
    place = dice.choice(sorted(files))
    data = _damaged(files[place], kind, dice)
    return Tampering(kind, place, {**files, place: data}) if data != files[place] else None


def _damaged(data: bytes, kind: str, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
    if kind == "truncate":
        return data[:at]
    lines = data.splitlines(keepends=True)
    i, j = dice.randrange(len(lines)), dice.randrange(len(lines))
    if kind == "delete":
        return b"".join(lines[:i] + lines[i + 1 :]) if dice.random() < 0.7 else data[:at] + data[at + 1 :]
    if kind == "insert":
        return (
            b"".join([*lines[:i], lines[j], *lines[i:]])
            if dice.random() < 0.7
            else data[:at] + b" " + data[at:]
        )
    lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


def _rewritten(files: Files, kind: str, party: str, dice: random.Random) -> Files | None:
    """Have an owner write its own log anew: well-formed, numbered, and for a fork or a rollback signed again."""
    log, head = f"logs/{party}/log.jsonl", f"logs/{party}/checkpoint.txt"
    records = [json.loads(line) for line in files[log].splitlines()]
    first, signed = records[0]["seq"], int(files[head].split(b"\n")[1])
    at = dice.randrange(signed - first)
    if kind == "rewrite":  # content alone: a message that was another, an event that was none
        records[at]["body"] = {**records[at]["body"], "note": dice.randbytes(4).hex()}
    elif kind == "fork":
        del records[at]
    else:
        del records[max(at, 1) :]
    for seq, record in enumerate(records, start=first):
        record["seq"] = seq
    leaves = [canonical(record) for record in records]
    changed = {**files, log: b"".join(leaf + b"\n" for leaf in leaves)}
    if kind == "rewrite":
        return changed
    if first:
        return (
            None  # an owner who removed records signs no other past of them: the hashes are peers' knowledge
        )
    origin, size = files[head].split(b"\n")[0].decode(), len(records)
    text = checkpoint.body(origin, size, root_of(leaves))
    return {**changed, head: checkpoint.sign_note(text, party, IDENTITIES[party])}


def names_the_place(error: str, place: str) -> bool:
    """Tell whether a message says where: the file, or at least whose log it is."""
    party = place.split("/")[1] if place.startswith("logs/") else ""
    return place in error or (party != "" and party in error)


@dataclass(frozen=True)
class Tally:
    """What came of many tries: found and missed by kind, places not named, and on how many the verifiers disagreed."""

    found: Counter[str]
    missed: list[str]
    unnamed: list[str]
    named: Counter[str]
    disagreed: list[str]
    alarms: list[str]


def clean_runs(count: int, seed: int) -> Iterator[tuple[Files, Files, random.Random]]:
    """Yield clean runs, what stands beside their logs, and dice of their own."""
    for i in range(count):
        dice = random.Random(f"{seed} {i}")
        with tempfile.TemporaryDirectory() as folder:
            yield clean_run(Path(folder), dice), witness_of(Path(folder)), dice


def how_named(files: Files, tampering: Tampering, error: str, beside: Files) -> str:
    """Say how narrowly a change was named: its line, a range of records that holds it, its file, or its log."""
    log = f"logs/{tampering.place.split('/')[1]}/log.jsonl" if "/" in tampering.place else ""
    if tampering.files.get(log) == files.get(log):
        return "file" if tampering.place in error else "log"
    if f"{log}: line " in error:
        return "line"
    for place in locate({**tampering.files, **beside}):
        if f"logs/{place.party}/" in log:
            first = files[log].split(b"\n"), tampering.files[log].split(b"\n")
            at = next((i for i, pair in enumerate(zip(*first, strict=False)) if pair[0] != pair[1]), None)
            seq = json.loads(first[0][0])["seq"] + (min(map(len, first)) - 1 if at is None else at)
            assert place.first <= seq <= place.last, (place, seq)
            return "range" if place.last - place.first < EVERY else "wide range"
    return "log"


def try_all(clean: int, per_run: int, seed: int) -> Tally:
    """Verify clean runs, and of each as many changed ones; every kind of change gets its turn."""
    tally = Tally(Counter(), [], [], Counter(), [], [])
    turn = 0
    for number, (files, beside, dice) in enumerate(clean_runs(clean, seed)):
        if (told := (_first(files), _second(files))) != ("", ""):
            tally.alarms.append(f"run {number}: {told}")
        done = 0
        while done < per_run:
            kind = KINDS[turn % len(KINDS)]
            if (tampering := tamper(files, kind, dice)) is None:
                turn += dice.randrange(2)
                continue
            turn, done = turn + 1, done + 1
            error, other = _first(tampering.files), _second(tampering.files)
            name = f"run {number} {kind} {tampering.place}"
            if bool(error) != bool(other):
                tally.disagreed.append(f"{name}: {error or 'accepted'} / {other or 'accepted'}")
            if not error:
                tally.missed.append(name)
            else:
                tally.found[kind] += 1
                tally.named[how_named(files, tampering, error, beside)] += 1
                if not names_the_place(error, tampering.place):
                    tally.unnamed.append(f"{name}: {error}")
    return tally


def _first(files: Files) -> str:
    try:
        verify_files(files)
    except VerifyError as error:
        return str(error)
    return ""


def _second(files: Files) -> str:
    try:
        second_verifier.verify(files)
    except second_verifier.Bad as error:
        return str(error) or "bad"
    return ""


def main(count: int) -> int:
    """Print what came of it; 0 if everything was found, named, agreed on, and nothing was alarmed about."""
    begun = time.process_time()
    tally = try_all(count, 1, 7)
    found = sum(tally.found.values())
    print(f"{found} of {count} tamperings found by both: {dict(tally.found)}")
    print(f"named by: {dict(tally.named)}; a range has at most {EVERY} records")
    print(f"{count} clean runs, {len(tally.alarms)} false alarms, {len(tally.disagreed)} disagreements")
    print(f"{time.process_time() - begun:.0f} s of CPU")
    wrong = [*tally.missed, *tally.unnamed, *tally.disagreed, *tally.alarms]
    print("\n".join(wrong[:20]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
