"""What a party remembers across runs: protection that resets with each run is none.

A folder outside every run folder holds `ledger.jsonl`, one line per fact, on disk before a call returns;
one file per released set of scores; one secret per contract family. Every call takes the folder's lock,
reads the ledger, decides and appends, so that two processes cannot both take the last permission. A whole
folder put back from a backup is not noticed here: peers notice, because epochs are made jointly.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.crypto.prg import Random
from fedmkt.errors import AuditError, PolicyRefused
from fedmkt.party.journal import write_atomically

LEDGER = "ledger.jsonl"
SHARE_BYTES = 32
ROW_BYTES = 32

Fact = dict[str, str | int]
_FACTS: dict[str, dict[str, type]] = {
    "run": {"contract": str, "run": str},
    "psi": {"contract": str, "run": str, "partner": str},
    "epoch": {"run": str, "epoch": int},
    "functionals": {"partner": str, "columns": str, "count": int},
}
_SCORE = np.dtype([("row", f"V{ROW_BYTES}"), ("score", "<f8")])


class Ledger:
    """The ledger in one folder, made with mode 0700; `random` makes the split shares."""

    def __init__(self, folder: Path, random: Random) -> None:
        self._folder = folder
        self._random = random
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def run(self, contract: bytes, run: str, max_runs: int) -> Iterator[None]:
        """Hold the contract's one run lock and count the run, a resumed one only once.

        PolicyRefused while another run of this contract is under way, or after `max_runs` runs.
        """
        name = contract.hex()
        with _locked(self._folder / f"run-{name[:32]}.lock", fcntl.LOCK_NB):
            with self._open() as facts:
                runs = {fact["run"] for fact in facts if fact["fact"] == "run" and fact["contract"] == name}
                if run not in runs:
                    if len(runs) >= max_runs:
                        raise PolicyRefused(f"rule max-runs: {max_runs} runs of this contract were made")
                    self._append({"fact": "run", "contract": name, "run": run})
            yield

    def start_psi(self, contract: bytes, run: str, partner: str) -> None:
        """Record the intersection with `partner`; PolicyRefused for a second one in the same run."""
        fact: Fact = {"fact": "psi", "contract": contract.hex(), "run": run, "partner": partner}
        with self._open() as facts:
            if fact in facts:
                raise PolicyRefused(f"rule one-psi: the intersection with {partner} was made in this run")
            self._append(fact)

    def start_epoch(self, run: str, epoch: int, max_resumes: int) -> None:
        """Record that a run enters an epoch; each is higher than all before, and there are few.

        PolicyRefused for one that is not: the run folder was put back to an earlier state.
        """
        with self._open() as facts:
            known = [int(f["epoch"]) for f in facts if f["fact"] == "epoch" and f["run"] == run]
            if epoch <= max(known, default=-1):
                raise PolicyRefused(f"rule epoch: epoch {max(known)} of this run was entered before")
            if len(known) > max_resumes:
                raise PolicyRefused(f"rule max-resumes: this run was resumed {max_resumes} times")
            self._append({"fact": "epoch", "run": run, "epoch": epoch})

    def highest_epoch(self, run: str) -> int:
        """Return the highest epoch that a run ever entered; -1 if none."""
        with self._open() as facts:
            return max(
                (int(f["epoch"]) for f in facts if f["fact"] == "epoch" and f["run"] == run), default=-1
            )

    def add_functionals(self, partner: str, columns: bytes, count: int, cap: int) -> int:
        """Count functionals per row opened to `partner`; returns the sum, PolicyRefused if above `cap`.

        columns : digest of the set of columns that they are functionals of.
        """
        if count < 0:
            raise ValueError("a count of functionals is not negative")
        with self._open() as facts:
            total = count + sum(
                int(fact["count"])
                for fact in facts
                if (fact["fact"], fact.get("partner")) == ("functionals", partner)
                and fact["columns"] == columns.hex()
            )
            if total > cap:
                raise PolicyRefused(
                    f"rule functionals: {partner} was opened {cap} per row of these columns at most"
                )
            self._append(
                {"fact": "functionals", "partner": partner, "columns": columns.hex(), "count": count}
            )
            return total

    def store_scores(self, model: bytes, rows: NDArray[np.uint8], scores: NDArray[np.float64]) -> None:
        """Store the one score of each row under a model; ValueError if a row has one already.

        model : digest of the model. rows : (n, 32) keyed digests of the rows. scores : (n,).
        """
        table = np.empty(len(scores), dtype=_SCORE)
        table["row"] = _as_keys(rows)
        table["score"] = scores
        if len(np.unique(table["row"])) != len(table):
            raise ValueError("a row occurs twice")
        with self._open():
            known = self._scores(model)
            if np.isin(table["row"], known["row"]).any():
                raise ValueError("a row has a score under this model: return the stored one")
            path = self._scores_path(model)
            whole = np.concatenate([known, table])
            write_atomically(path, whole[np.argsort(whole["row"], kind="stable")].tobytes())

    def stored_scores(self, model: bytes, rows: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the score of each row as it was released, NaN where none was; rows : (n, 32)."""
        with self._open():
            known = self._scores(model)
        keys = _as_keys(rows)
        out = np.full(len(keys), np.nan)
        if len(known):
            place = np.minimum(np.searchsorted(known["row"], keys), len(known) - 1)
            found = known["row"][place] == keys
            out[found] = known["score"][place[found]]
        return out

    def split_share(self, family: str) -> bytes:
        """Return the own 32 secret bytes of the train/test split key of a contract family, made once."""
        path = self._folder / f"split-{hashlib.sha256(family.encode()).hexdigest()[:32]}.key"
        with self._open():
            if not path.exists():
                write_atomically(path, self._random(SHARE_BYTES))
            share = path.read_bytes()
        if len(share) != SHARE_BYTES:
            raise AuditError(f"{path}: a split share has {SHARE_BYTES} bytes, found {len(share)}")
        return share

    @contextmanager
    def _open(self) -> Iterator[list[Fact]]:
        with _locked(self._folder / "ledger.lock", 0):
            yield self._facts()

    def _facts(self) -> list[Fact]:
        path = self._folder / LEDGER
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            # Half a line was written in a crash: nobody has acted upon it yet.
            write_atomically(path, whole)
        return [
            _read_fact(line, f"{path}: line {number}") for number, line in enumerate(whole.splitlines(), 1)
        ]

    def _append(self, fact: Fact) -> None:
        file = os.open(self._folder / LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _write_all(file, json.dumps(fact, sort_keys=True).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)

    def _scores_path(self, model: bytes) -> Path:
        return self._folder / f"scores-{model.hex()}.bin"

    def _scores(self, model: bytes) -> NDArray[np.void]:
        path = self._scores_path(model)
        data = path.read_bytes() if path.exists() else b""
        if len(data) % _SCORE.itemsize:
            raise AuditError(f"{path}: not a file of scores")
        return np.frombuffer(data, dtype=_SCORE)


def _read_fact(line: bytes, where: str) -> Fact:
    try:
        fact = json.loads(line)
        if {key: type(value) for key, value in fact.items()} == {"fact": str, **_FACTS[fact["fact"]]}:
            return dict(fact)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise AuditError(f"{where} is not a fact of a ledger")


def _as_keys(rows: NDArray[np.uint8]) -> NDArray[np.void]:
    if rows.ndim != 2 or rows.shape[1] != ROW_BYTES or rows.dtype != np.uint8:
        raise ValueError(f"rows are (n, {ROW_BYTES}) bytes")
    return np.ascontiguousarray(rows).view(f"V{ROW_BYTES}").reshape(len(rows))


@contextmanager
def _locked(path: Path, mode: int) -> Iterator[None]:
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | mode)
        except BlockingIOError:
            raise PolicyRefused("rule one-run: another run of this contract is under way") from None
        yield
    finally:
        os.close(file)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
