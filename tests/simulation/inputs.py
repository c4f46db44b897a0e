"""Good files, spoilt at random places, through the command line."""

import contextlib
import io
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import NoReturn

import numpy as np


class Accepted(Exception):
    """A spoilt file was still a good one: the job would begin here."""


def inputs(count: int = 3000) -> int:
    """Spoil good files at random places and run them from the command line; returns how many answers were bad."""
    import fedmkt.simulation.run as run
    from tests.simulation.test_malformed_input import GOOD, JOB, WHOLE, written

    def begin(*_: object) -> NoReturn:
        raise Accepted

    random, codes, bad = np.random.default_rng(5), Counter[int](), 0
    before, run._sign_contract = run._sign_contract, begin
    try:
        for number in range(count):
            kind = ("bank.csv", "bank.parquet", "job.toml")[number % 3]
            text, bank = JOB.encode(), GOOD
            if kind == "job.toml":
                text = spoilt(random, text)
            elif kind == "bank.csv":
                bank = spoilt(random, bank)
            else:
                text, bank = text.replace(b"bank.csv", b"bank.parquet"), spoilt(random, WHOLE)
            with tempfile.TemporaryDirectory() as name:
                job = written(Path(name) / "x", text, bank, "bank.csv" if kind == "job.toml" else kind)
                code, said, left = _answer(job, Path(name))
            codes[code] += 1
            if _is_bad(code, said, left):
                bad += 1
                print(
                    json.dumps({"number": number, "file": kind, "code": code, "said": said, "left": left}),
                    flush=True,
                )
    finally:
        run._sign_contract = before
    print(f"{count} files, exit codes {dict(codes)} (1: still good), {bad} bad answers")
    return bad


def spoilt(random: np.random.Generator, data: bytes) -> bytes:
    """Change, cut, repeat or insert some bytes."""
    for _ in range(int(random.integers(1, 4))):
        at, length = int(random.integers(len(data) + 1)), int(random.integers(1, 30))
        how = random.integers(5)
        if how == 0:
            data = data[:at] + random.bytes(1) + data[at + 1 :]
        elif how == 1:
            data = data[:at] + data[at + length :]
        elif how == 2:
            data = data[:at] + data[at : at + length] + data[at:]
        elif how == 3:
            data = data[:at] + random.bytes(length) + data[at:]
        else:
            data = data[: max(1, at)]
    return data


def _answer(job: Path, folder: Path) -> tuple[int, str, list[str]]:
    from fedmkt.cli.app import main as command

    there, said = set(folder.rglob("*")), io.StringIO()
    with contextlib.redirect_stderr(said):
        code = command(["simulate", str(job), "--out", str(folder / "out")])
    return code, said.getvalue(), [str(p) for p in sorted(set(folder.rglob("*")) - there)]


def _is_bad(code: int, said: str, left: list[str]) -> bool:
    if code == 1 and "unexpected Accepted" in said:
        return bool(left)
    lines = said.splitlines()
    one = (
        len(lines) in (1, 2)
        and lines[0].startswith("fedmkt: error: ")
        and "fedmkt: error" not in lines[-1][1:]
    )
    return code not in (2, 3) or not one or "9120000" in said or "Traceback" in said or bool(left)
