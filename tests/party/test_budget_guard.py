"""Entries of a budget that several processes take at once."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from fedmkt.contract.agreement import Contract
from fedmkt.errors import AuditError, PolicyRefused
from fedmkt.party.budget_guard import Reads, check_logged, reserving
from fedmkt.party.store import Store
from fedmkt.protocol.budget_ledger import (
    List,
    Training,
    check_budget,
    earlier,
    entry_name,
    epsilon_together,
    read_entries,
)
from fedmkt.protocol.core import Caller, Inbox, Name, Nothing, Outcome, PublicValue, Spending, Step, Turn
from tests.engine import BANK, toy_world

PROGRAM = """
import sys
from pathlib import Path
from fedmkt.errors import PolicyRefused
from fedmkt.party.budget_guard import reserving
from fedmkt.party.store import Store
folder, me = Path(sys.argv[1]), sys.argv[2]
store, taken = Store(folder), 0
import json
print("ready", flush=True)
sys.stdin.readline()
for run in range(20):
    entry = {"organisation": "a", "key": "k", "epsilon": 1.0, "choice": f"{me} {run}"}
    remember = {f"listed/{me}{run:02d}": json.dumps(entry).encode()}
    try:
        with reserving(store, {}, remember, 8.0, "bank"):
            for name, value in remember.items():
                store.put(name, value)
        taken += 1
    except PolicyRefused:
        pass
print(taken)
"""


def entry(choice: str, epsilon: float = 1.0, run: str = "r", who: str = "a") -> dict[str, bytes]:
    found = List(who, f"key of {who}", epsilon, choice)
    return {entry_name(found, run): json.dumps(asdict(found)).encode()}


def test_two_processes_at_once_never_take_more_than_there_is(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), me], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": root},
        )
        for me in "ab"
    ]  # fmt: skip
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    said = [int(process.communicate("go\n", timeout=60)[0]) for process in processes]
    entries = [e for _, e in read_entries(Store(tmp_path))]
    assert sum(said) == len(entries) == 8 and epsilon_together(entries) == 8.0


def test_whoever_read_the_budget_before_another_wrote_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(*entry("first", 5.0, "aa").popitem())
    second = entry("second", 5.0, "bb")
    with (
        pytest.raises(PolicyRefused, match=r"C13 privacy budget.*epsilon 10\.00"),
        reserving(store, {}, second, 8.0, "me"),
    ):
        raise AssertionError("nothing may be written")
    with reserving(store, {}, entry("first", 5.0, "bb"), 8.0, "me"):
        pass  # the same list again
    with reserving(store, {}, entry("second", 5.0, "bb", who="other") | {"runs": b"[]"}, 8.0, "me") as held:
        assert held is None
    with reserving(store, {}, {"runs": b"[]"}, 0.0, "me"):
        pass


def test_an_entry_that_is_there_is_not_counted_twice(tmp_path: Path) -> None:
    store = Store(tmp_path)
    taken = entry("first", 5.0, "aa")
    store.put(*taken.copy().popitem())
    with reserving(store, {}, taken, 8.0, "me"):
        pass


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"organisation": 1}', b"\xff"])
def test_an_entry_that_cannot_be_read_is_told_by_its_name(tmp_path: Path, data: bytes) -> None:
    store = Store(tmp_path)
    store.put(entry_name(Training("a", "k", 0.1, 1e-6), "ab" * 32), data)
    with pytest.raises(AuditError, match=r"noise/abababab[ab]+: not as it was written"):
        list(read_entries(store))


@dataclass(frozen=True)
class Told(PublicValue):
    """What the toy step publishes."""

    value: int


def _tell_with_noise(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Told]:
    mine = List("a", "k", 5.0, "mine")
    check_budget([*earlier(turn.store, mine, "bb"), mine], 8.0, turn.me, "list", "a")
    # After this check, and before what it allows is written, a run of another contract writes its own.
    Store(turn.store._store._folder).put(*entry("theirs", 5.0, "aa").popitem())  # type: ignore[attr-defined]
    spent = Spending(Name("shop"), "drops and dummies on a list", 5.0, 0.0, 5.0)
    return Outcome(Told(1), remember=entry("mine", 5.0, "bb"), spends=(spent,))


def tell_once(call: Caller, contract: Contract) -> Told:
    """One call."""
    return call(BANK, Step("toy.tell", _tell_with_noise, Told)).public.value


def test_a_step_whose_budget_another_run_took_meanwhile_tells_nothing_and_logs_no_spending(
    tmp_path: Path,
) -> None:
    world = toy_world(tmp_path, tell_once)
    with pytest.raises(PolicyRefused, match=r"bank refused at toy\.tell"):
        world.run()
    store = world.parties[BANK]._store
    assert [run for run, _ in read_entries(store)] == ["aa"]
    log = (world.folder_of(BANK) / "log" / "log.jsonl").read_text()
    assert "C13 privacy budget" in log and "budget.spent" not in log


def test_a_count_that_another_run_raised_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("functionals/a/x", b"1")
    mine, theirs = Reads(store), Reads(store)
    counted = [
        {"functionals/a/x": str(int(r.get("functionals/a/x", b"0")) + 1).encode()} for r in (mine, theirs)
    ]
    with reserving(store, theirs.seen, counted[1], 8.0, "me"):
        store.put(*counted[1].popitem())
    with (
        pytest.raises(PolicyRefused, match="another run counted"),
        reserving(store, mine.seen, counted[0], 8, "me"),
    ):
        raise AssertionError("nothing may be written")
    first = Reads(store)
    assert first.get("names/a") is None and set(first) == {"functionals/a/x"} and len(first) == 1
    store.put("names/a", b"key of the other run")
    with pytest.raises(PolicyRefused), reserving(store, first.seen, {"names/a": b"mine"}, 8.0, "me"):
        raise AssertionError("nothing may be written")
    with reserving(store, first.seen, {"else": b"1"}, 8.0, "me"):
        pass  # what it read and does not write may have changed


def _spend(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Told]:
    spent = Spending(Name("shop"), "drops and dummies on a list", 5.0, 0.0, 5.0)
    return Outcome(Told(1), remember=entry("mine", 5.0, turn.run.hex()), spends=(spent,))


def spend_once(call: Caller, contract: Contract) -> Told:
    """One call that takes of the budget."""
    return call(BANK, Step("toy.tell", _spend, Told)).public.value


def test_a_store_that_lacks_what_the_log_says_was_taken_is_refused(tmp_path: Path) -> None:
    world = toy_world(tmp_path, spend_once)
    world.run()
    store, log = world.parties[BANK]._store, world.folder_of(BANK) / "log" / "log.jsonl"
    run = world.parties[BANK].run.hex()
    check_logged(store, [log, tmp_path / "no.jsonl"])
    kept = dict(store)
    store.forget(f"listed/{run}")
    with pytest.raises(
        AuditError, match=f"says that run {run[:16]} took of it, and it has no entry"
    ) as caught:
        check_logged(store, [log])
    assert caught.value.exit_code == 7
    # Killed between log and store nothing has left: a log that says so and nothing of an answer is no sign.
    lines = log.read_bytes().split(b"\n")
    spent = next(i for i, line in enumerate(lines) if b'"budget.spent"' in line)
    log.write_bytes(b"\n".join([*lines[: spent + 1], b""]))
    check_logged(store, [log])
    log.write_bytes(b"\n".join(lines).replace(b'"type":"budget.spent"', b'"type": "budget.spent"'))
    with pytest.raises(AuditError, match="a record of the budget ledger was changed"):
        check_logged(kept, [log])
