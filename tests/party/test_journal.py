import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from fedmkt.crypto.prg import SeededRandom
from fedmkt.errors import AuditError
from fedmkt.party import journal as journals
from fedmkt.party.journal import Journal, write_atomically
from fedmkt.protocol.core import State

SECRET = b"weights-of-the-bank-0123456789"
TRANSCRIPT = b"t" * 32


@dataclass(frozen=True)
class Kept(State):
    value: bytes


@dataclass(frozen=True)
class Passing(State):
    durable: ClassVar[bool] = False
    value: bytes


STATES: Mapping[type[State], State] = {Kept: Kept(SECRET), Passing: Passing(b"mask" * 8)}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    yield opened(tmp_path)


def opened(folder: Path, seed: bytes = b"j") -> Journal:
    return Journal(folder / "journal", folder / "private" / "journal.key", SeededRandom(seed))


def saved(journal: Journal, *rounds: int) -> None:
    for start in rounds:
        journal.save(start, start, TRANSCRIPT, STATES)


def files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file()]


def test_a_checkpoint_is_read_back_by_another_process(journal: Journal, tmp_path: Path) -> None:
    saved(journal, 5)
    snapshot, states = opened(tmp_path, b"other").load(5)
    assert (snapshot.index, snapshot.round_start, snapshot.transcript) == (5, 5, TRANSCRIPT)
    assert states == {Kept: Kept(SECRET)}


def test_state_of_one_epoch_is_in_no_checkpoint(journal: Journal) -> None:
    saved(journal, 5)
    assert Passing not in journal.load(5)[1]


def test_nothing_of_a_checkpoint_can_be_read_without_the_key(journal: Journal, tmp_path: Path) -> None:
    saved(journal, 5)
    data = b"".join(p.read_bytes() for p in files(tmp_path / "journal"))
    assert SECRET not in data and SECRET.hex().encode() not in data and b"Kept" not in data
    (tmp_path / "private" / "journal.key").write_bytes(bytes(32))
    with pytest.raises(AuditError):
        opened(tmp_path).load(5)


def test_two_checkpoints_of_the_same_state_share_no_bytes(journal: Journal, tmp_path: Path) -> None:
    journal.save(1, 1, TRANSCRIPT, STATES)
    journal.save(1, 2, TRANSCRIPT, STATES)
    one, other = (p.read_bytes() for p in files(tmp_path / "journal"))
    assert not any(one[i : i + 8] in other for i in range(len(one) - 8))


def test_a_nonce_is_drawn_anew_for_the_same_checkpoint(journal: Journal, tmp_path: Path) -> None:
    nonces = set()
    for _ in range(3):
        saved(journal, 1)
        nonces.add(files(tmp_path / "journal")[0].read_bytes()[:12])
    assert len(nonces) == 3


def test_every_changed_byte_of_a_checkpoint_is_noticed(journal: Journal, tmp_path: Path) -> None:
    saved(journal, 5)
    (path,) = files(tmp_path / "journal")
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(AuditError, match="was changed"):
            journal.load(5)
    for altered in (b"", whole[:11], whole[:-1], whole + b"\0", bytes(len(whole))):
        path.write_bytes(altered)
        with pytest.raises(AuditError):
            journal.load(5)


def test_the_two_latest_checkpoints_are_kept(journal: Journal, tmp_path: Path) -> None:
    saved(journal, 3, 20, 100)
    assert journal.held() == (20, 100)
    assert len(files(tmp_path / "journal")) == 2


def test_checkpoints_of_an_abandoned_epoch_are_dropped(journal: Journal) -> None:
    saved(journal, 3, 20)
    journal.drop_after(3)
    assert journal.held() == (3,)
    journal.drop_after(-1)
    assert journal.held() == ()


def test_a_closed_journal_leaves_no_key_and_no_checkpoint(journal: Journal, tmp_path: Path) -> None:
    saved(journal, 3, 20)
    journal.close()
    assert files(tmp_path) == []
    assert journal.held() == ()
    journal.close()


def test_a_copy_of_a_checkpoint_cannot_be_opened_after_the_journal_was_closed(
    journal: Journal, tmp_path: Path
) -> None:
    saved(journal, 3)
    (path,) = files(tmp_path / "journal")
    copy = path.read_bytes()
    journal.close()
    path.write_bytes(copy)
    assert journal.held() == ()
    with pytest.raises(AuditError):
        journal.load(3)


def test_the_key_is_overwritten_before_its_file_goes(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(journal, 3)
    written = []
    monkeypatch.setattr(journals, "write_atomically", lambda path, data: written.append((path.name, data)))
    journal.close()
    assert written == [("journal.key", bytes(32))]


def test_key_and_checkpoints_are_readable_by_their_owner_only(journal: Journal, tmp_path: Path) -> None:
    saved(journal, 3)
    assert {stat.S_IMODE(p.stat().st_mode) for p in files(tmp_path)} == {0o600}


def test_a_new_key_is_not_the_old_one(journal: Journal, tmp_path: Path) -> None:
    keys = set()
    for _ in range(2):
        saved(journal, 3)
        keys.add((tmp_path / "private" / "journal.key").read_bytes())
        journal.close()
    assert len(keys) == 2


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
