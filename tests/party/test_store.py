import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.errors import AuditError, ConfigError, PolicyRefused
from fedmkt.party.store import Store

CONTRACT, OTHER = "c" * 64, "d" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def again(store: Store) -> Store:
    """The same folder, as another process sees it."""
    return Store(store._folder)


def test_what_is_put_is_there_for_the_next_process(store: Store) -> None:
    store.put("ledger", b"3")
    assert again(store)["ledger"] == b"3"
    store.put("ledger", b"4")
    assert dict(again(store)) == {"ledger": b"4"}


def test_what_was_never_put_is_a_key_error(store: Store) -> None:
    with pytest.raises(KeyError):
        store["ledger"]
    assert store.get("ledger", b"0") == b"0"


def test_names_are_no_paths(store: Store, tmp_path: Path) -> None:
    for name in ("../outside", "/etc/passwd", "a/b", ".", "", "x" * 5000, "bänk"):
        store.put(name, name.encode())
    assert {n: store[n] for n in store} == {n: n.encode() for n in store}
    assert len(store) == 7
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


@given(value=st.binary(max_size=50))
def test_any_bytes_are_a_value(value: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.getbasetemp() / "any")
    store.put("x", value)
    assert store["x"] == value


DAMAGE = {
    "cut": lambda data: data[:-1],
    "empty": lambda data: b"",
    "one bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "another name": lambda data: data.replace(b"epoch/r", b"epoch/s"),
    "digest": lambda data: data.replace(data[16:20], b"0000", 1),
    "no text": lambda data: b"\xff" * 200,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_value_is_an_error_that_names_its_file(store: Store, how: str) -> None:
    store.raise_epoch("r", 3)
    (path,) = store._folder.iterdir()
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    with pytest.raises(AuditError, match=f"store: epoch/r: not as it was written: {path}") as found:
        store.highest_epoch("r")
    assert found.value.exit_code == 7 and "\n" not in str(found.value)


@pytest.mark.parametrize("value", [b"{", b"{}", b"[1]", b"\xff"])
def test_a_file_of_before_is_read_and_its_damage_is_told_too(store: Store, value: bytes) -> None:
    store.put(f"runs/{CONTRACT}", b"[]")
    store.raise_epoch("r", 3)
    for path in store._folder.iterdir():
        named = path.read_bytes().partition(b"\n")[2]
        path.write_bytes(named)
    assert store.runs(CONTRACT) == [] and store.highest_epoch("r") == 3
    assert set(store) == {f"runs/{CONTRACT}", "epoch/r"}
    for path in store._folder.iterdir():
        path.write_bytes(path.read_bytes().partition(b"\n")[0] + b"\n" + value)
    for ask in (lambda: store.runs(CONTRACT), lambda: store.highest_epoch("r")):
        with pytest.raises(AuditError, match="not as it was written"):
            ask()


def test_a_value_under_another_values_file_name_is_told_where_all_are_listed(store: Store) -> None:
    store.put("ledger", b"3")
    (path,) = store._folder.iterdir()
    path.rename(store._folder / ("0" * 32))
    with pytest.raises(AuditError, match=r"not as it was written: .*/0{32}"):
        list(store)


def test_values_are_readable_by_their_owner_only(store: Store) -> None:
    store.put("x", b"1")
    store.begin_run("r", CONTRACT, 5)
    for path in store._folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store._folder.stat().st_mode) == 0o700


def test_a_lock_is_no_value(store: Store) -> None:
    store.begin_run("r", CONTRACT, 5)
    assert set(store) == {f"runs/{CONTRACT}"}


def test_the_highest_epoch_is_remembered_for_each_run(store: Store) -> None:
    assert store.highest_epoch("r") == 0
    store.raise_epoch("r", 3)
    assert again(store).highest_epoch("r") == 3
    assert again(store).highest_epoch("s") == 0


def test_two_processes_do_not_run_one_contract_at_once(store: Store) -> None:
    second = again(store)
    store.begin_run("r", CONTRACT, 5)
    for run in ("r", "s"):
        with pytest.raises(PolicyRefused, match="under way"):
            second.begin_run(run, CONTRACT, 5)
    store.release()
    second.begin_run("s", CONTRACT, 5)
    with pytest.raises(PolicyRefused, match="under way"):
        store.begin_run("r", CONTRACT, 5)
    second.release()


def test_the_lock_holds_between_real_processes_and_ends_with_them(store: Store) -> None:
    script = (
        "import sys; from pathlib import Path; from fedmkt.party.store import Store\n"
        "Store(Path(sys.argv[1])).begin_run('r', 'c' * 64, 5); print('held', flush=True); sys.stdin.read()"
    )
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(store._folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    with process:
        assert process.stdin and process.stdout and process.stdout.readline() == b"held\n"
        with pytest.raises(PolicyRefused, match="under way"):
            store.begin_run("s", CONTRACT, 5)
        process.kill()
    store.begin_run("s", CONTRACT, 5)
    store.release()


def test_two_contracts_run_at_once(store: Store) -> None:
    second = again(store)
    store.begin_run("r", CONTRACT, 5)
    second.begin_run("s", OTHER, 5)
    store.release()
    second.release()


def test_a_resumed_run_is_counted_once_and_a_refused_one_not_at_all(store: Store) -> None:
    for run in ("a", "a", "b", "a"):
        store.begin_run(run, CONTRACT, 2)
    for _ in range(2):
        with pytest.raises(PolicyRefused, match="allows 2 runs"):
            store.begin_run("c", CONTRACT, 2)
    store.begin_run("b", CONTRACT, 2)
    store.begin_run("c", CONTRACT, 3)
    store.release()


def test_a_refused_run_holds_no_lock(store: Store) -> None:
    store.begin_run("a", CONTRACT, 1)
    with pytest.raises(PolicyRefused):
        store.begin_run("b", CONTRACT, 1)
    second = again(store)
    second.begin_run("a", CONTRACT, 1)
    second.release()


def test_releasing_twice_is_no_mistake(store: Store) -> None:
    store.begin_run("a", CONTRACT, 1)
    store.release()
    store.release()


@pytest.mark.parametrize(
    "name,value,read",
    [
        ("epoch/run1", b"-3", lambda s: s.highest_epoch("run1")),
        ("epoch/run1", b"three", lambda s: s.highest_epoch("run1")),
        ("epoch/run1", b"9" * 5000, lambda s: s.highest_epoch("run1")),
        ("runs/c", b"{}", lambda s: s.begin_run("run1", "c", 2)),
        ("runs/c", b"[1]", lambda s: s.begin_run("run1", "c", 2)),
        ("runs/c", b"\xff", lambda s: s.begin_run("run1", "c", 2)),
    ],
)
def test_a_damaged_value_is_named_and_not_read(
    tmp_path: Path, name: str, value: bytes, read: Callable[[Store], object]
) -> None:
    store = Store(tmp_path)
    store.put(name, value)
    with pytest.raises(AuditError, match="not as it was written"):
        read(store)


def test_a_damaged_file_of_the_store_is_named_and_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("one", b"value")
    (path,) = tmp_path.iterdir()
    for content in (b"", b"one", b"other\nvalue", b"\xff\nvalue"):
        path.write_bytes(content)
        with pytest.raises(AuditError, match="not as it was written"):
            store["one"]


def test_a_value_that_another_process_forgets_meanwhile_is_no_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of another contract forgets lists that are too old, and refusals that hold no more."""
    for name in ("kept", "outdated"):
        store.put(name, b"1")
    seen = Path.iterdir

    def listed(folder: Path) -> list[Path]:
        found = list(seen(folder))
        again(store).forget("outdated")
        return found

    monkeypatch.setattr(Path, "iterdir", listed)
    assert list(store) == ["kept"]


def test_a_disk_without_locks_is_told_in_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with pytest.raises(ConfigError, match=r"store: cannot be locked: No locks available"):
        store.begin_run("r", CONTRACT, 5)
    with pytest.raises(ConfigError, match=r"store: cannot be locked: No locks available"), store.alone("x"):
        pass
    assert list(store) == []
