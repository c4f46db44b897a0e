"""The data on which families of joint models are compared: UCI's files, and columns with a signal that is not linear.

Each is written as the files of a bank and a partner with a job.toml beside them, as a real job has them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from examples.bank_marketing import make_parties
from fedmkt.simulation.world import COUNTRY, LABEL, PartyFile, draw_phones, job_text

Array = NDArray[np.float64]
Sections = Mapping[str, Mapping[str, object]]
"""Sections of a job.toml by name: what kind of model, and how it is trained."""

TEST_FRACTION = 0.2
"""Share of the invented customers that is held out: so many more than the rows to train on are invented."""


@dataclass(frozen=True)
class Target:
    """What is predicted in a UCI file other than its answer, and which columns would give that away."""

    column: str
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Uci:
    """One of the two UCI files, split as in examples/bank_marketing."""

    path: Path
    table: pd.DataFrame
    sides: tuple[PartyFile, PartyFile]

    @classmethod
    def read(cls, path: Path) -> "Uci":
        """Read a file; OSError if it is absent, ValueError if it is another."""
        table = pd.read_csv(path, sep=";", dtype=str, keep_default_na=False)
        return cls(path, table, make_parties.sides_of(table))

    @property
    def name(self) -> str:
        """The name of the file at UCI."""
        return "bank-full" if self.sides == make_parties.FULL else "bank-additional-full"

    def write(self, folder: Path, sections: Sections, seed: int, target: Target | None = None) -> Path:
        """Write both parties' files and the job, whose label is the answer or another target."""
        table = self.table if target is None else self.table.assign(y=self.table[target.column])
        folder.mkdir(parents=True)
        for side, rows in zip(self.sides, make_parties.split(table, seed), strict=True):
            rows.to_csv(folder / side.file, index=False, lineterminator="\n")
        gone = () if target is None else (target.column, *target.without)
        sides = [_without(side, gone) for side in self.sides]
        return _write_job(folder, sides, make_parties.COUNTRY, sections, target)


@dataclass(frozen=True)
class Invented:
    """Twenty columns of each party, `rows` customers to train on, and a quarter more that are held out."""

    rows: int
    columns: int = 20
    name: str = "synthetic"

    def write(self, folder: Path, sections: Sections, seed: int, target: Target | None = None) -> Path:
        """Write both parties' files, the partner's in another order, and the job."""
        rng = np.random.default_rng(seed)
        rows = round(self.rows / (1 - TEST_FRACTION))
        blocks = [rng.standard_normal((rows, self.columns)).round(4) for _ in range(2)]
        z = log_odds(*blocks)
        answer = _answer(rng, z, target)
        phones = draw_phones(rng, rows, COUNTRY).astype(str)
        names = tuple(f"x{j:02d}" for j in range(self.columns))
        sides = [PartyFile(n, n.title(), f"{n}.parquet", names, ()) for n in ("bank", "partner")]
        folder.mkdir(parents=True)
        for side, block, order in zip(sides, blocks, (np.arange(rows), rng.permutation(rows)), strict=True):
            table = pd.DataFrame(block[order], columns=list(names))
            table.insert(0, "phone", phones[order])
            if side.name == "bank":
                table[LABEL] = answer
            table.to_parquet(folder / side.file, index=False)
        model = {"test_fraction": TEST_FRACTION, **sections.get("model", {})}
        return _write_job(folder, sides, COUNTRY, {**sections, "model": model}, target)


def log_odds(bank: Array, partner: Array) -> Array:
    """Combine both blocks (n, >= 6): lines, bends, steps, and products inside the bank and across the parties."""
    lines = 0.35 * bank[:, 0] - 0.25 * bank[:, 1] + 0.45 * partner[:, 0] + 0.35 * partner[:, 1]
    bends = 0.6 * np.sin(2 * bank[:, 2]) + 0.35 * (bank[:, 3] ** 2 - 1) - 0.5 * (np.abs(partner[:, 2]) - 0.8)
    steps = 0.8 * (partner[:, 3] > 0.5) + 0.5 * ((bank[:, 4] > -0.3) & (bank[:, 4] < 0.8))
    products = 0.35 * bank[:, 4] * bank[:, 5] + 0.45 * bank[:, 0] * partner[:, 4]
    return np.asarray(-2.9 + lines + bends + steps + products, np.float64)


def _answer(rng: np.random.Generator, z: Array, target: Target | None) -> NDArray[np.generic]:
    """Draw what follows from the log odds: yes or no, a number, or a count."""
    if target is None:
        return (rng.random(len(z)) < 1 / (1 + np.exp(-z))).astype(np.int64)
    if target.column == "number":
        return np.asarray((z + rng.standard_normal(len(z))).round(4))
    return rng.poisson(np.exp(np.clip(0.5 * (z + 2), -4, 2)))


def _without(side: PartyFile, gone: Sequence[str]) -> PartyFile:
    numbers, categories = (
        tuple(n for n in names if n not in gone) for names in (side.numbers, side.categories)
    )
    return PartyFile(side.name, side.organisation, side.file, numbers, categories)


def _write_job(
    folder: Path, sides: Sequence[PartyFile], country: str, sections: Sections, target: Target | None
) -> Path:
    job, label = folder / "job.toml", f"label = {json.dumps(LABEL)}\n"
    before, found, after = job_text(
        "bench-models", sides[0], [sides[1]], country, model=_text(sections)
    ).partition(label)
    kind = "" if target is None else 'label_kind = "number"\n'
    job.write_text(f"{before}{found}{kind}{after}", encoding="utf-8")
    return job


def _text(sections: Sections) -> str:
    """Write sections as TOML; numbers, texts, flags and lists of these look as in JSON."""
    blocks = []
    for name, values in sections.items():
        blocks.append(f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()))
    return "\n".join(blocks)
