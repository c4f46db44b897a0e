"""What the attacks are run against: a watched run, with its job, its tables and the folder it wrote.

Only a simulation has one: an attack is measured against the truth, which no single party of a real run holds.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.attack_lab.finding import Quality
from fedmkt.attack_lab.views import Array, Views
from fedmkt.config.job import JobConfig
from fedmkt.contract.agreement import Contract
from fedmkt.contract.files import from_toml
from fedmkt.errors import ConfigError
from fedmkt.learn.metrics import auc
from fedmkt.learn.trees import Part
from fedmkt.party.node import open_data
from fedmkt.party.table import Table
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.report.scores import ReleasedScores, read_scores
from fedmkt.simulation.run import read_job, simulate_job

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]
_PADDING = 64
"""Bytes by which packed bits may be longer than the rows."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A run and what everybody was shown in it.

    folder : of the watched run. given : the folder that the lab was asked about, whose files are looked at too.
    place : of the partner that attacks, or is attacked by the bank, among all partners.
    """

    config: JobConfig
    tables: dict[str, Table]
    folder: Path
    given: Path
    views: Views
    place: int = 0
    contract: Contract = field(init=False)

    def __post_init__(self) -> None:
        """Read the contract of the run."""
        path = self.folder / "contract.toml"
        object.__setattr__(self, "contract", from_toml(path.read_text(), str(path)).contract)

    @property
    def family(self) -> str:
        """The family of models, trees with what they reveal."""
        kind = self.contract.model.kind
        return f"trees-{self.contract.trees.reveal}" if kind == "trees" else kind

    @property
    def is_trees(self) -> bool:
        """Tell whether the models are trees."""
        return self.contract.model.kind == "trees"

    def listed(self, *kinds: str) -> tuple[str, ...]:
        """Return which of these disclosures the contract allows."""
        return tuple(kind for kind in kinds if kind in self.contract.disclosures)

    @property
    def bank(self) -> str:
        """The bank's name."""
        return self.config.bank.name

    @property
    def partner(self) -> str:
        """The name of the partner that this is about."""
        return self.config.partners[self.place].name

    @property
    def of_each_partner(self) -> "list[Subject]":
        """The same run once for each partner."""
        return [replace(self, place=place) for place in range(len(self.config.partners))]

    def model(self, party: str) -> Path:
        """Return the folder of a party's part of the model."""
        return self.folder / "parties" / party / "model"

    def header(self, party: str) -> dict[str, object]:
        """Return a party's model.json."""
        found: dict[str, object] = json.loads((self.model(party) / "model.json").read_bytes())
        return found

    def rows(self, party: str, name: str) -> Rows:
        """Return a party's own rows: "train", "held_out" or "unlabelled", in the common order."""
        found: Rows = np.load(self.model(party) / f"{name}.npy", allow_pickle=False)
        return found

    @cached_property
    def labels(self) -> Floats:
        """Labels of the train rows: 1 above the mean where they are numbers."""
        return self._label_of(self.rows(self.bank, "train"))

    @cached_property
    def held_out_labels(self) -> Floats:
        """The same of the held-out rows."""
        return self._label_of(self.rows(self.bank, "held_out"))

    def _label_of(self, rows: Rows) -> Floats:
        label = self.tables[self.bank].label
        if label is None:
            raise ValueError("the bank has no label")
        known = label[~np.isnan(label)]
        is_class = np.isin(known, (0.0, 1.0)).all()
        return np.asarray(label[rows] > (0.5 if is_class else np.median(known)), np.float64)

    @cached_property
    def slots(self) -> Rows:
        """The partner's train row at each place of the joint rows, with padding, `NO_ROW` where none is."""
        return self.views.kept(self.bank, Split)[-1].train

    def by_row(self, array: Array) -> Floats | None:
        """Read an array as numbers of each train row, (train rows, k); None where it has none.

        Words are read as signed numbers: modulo 2^64 a small negative one is a large one. Bytes and words of 32 of an
        eighth of the rows' number are packed bits.
        """
        places, size = len(self.slots), array.size
        lengths = [
            n for n in (places, *self._longer) if array.shape and n in (array.shape[0], array.shape[-1])
        ]
        if not size or array.dtype.kind not in "uifb":
            return None
        if not lengths:
            return self._bits(array)
        matrix = array.reshape(array.shape[0], -1)
        matrix = matrix if array.shape[0] == lengths[0] else array.reshape(-1, array.shape[-1]).T
        if matrix.dtype.kind == "u":
            matrix = np.ascontiguousarray(matrix).view(f"i{matrix.dtype.itemsize}")
        found = matrix[:places][self.slots != NO_ROW].astype(np.float64)
        return np.nan_to_num(found) if len(found) == len(self.labels) else None

    def _bits(self, array: Array) -> Floats | None:
        """Read packed bits of each train row, bytes with the highest first as `packbits`, words of 32 the lowest."""
        places, kind = len(self.slots), array.dtype
        packed = array.shape[-1] * kind.itemsize if array.shape else 0
        if kind.kind != "u" or kind.itemsize not in (1, 4) or not 0 <= packed - -(-places // 8) < _PADDING:
            return None
        raw = np.ascontiguousarray(array).reshape(-1, array.shape[-1]).view(np.uint8)
        bits = np.unpackbits(raw, axis=1, count=places, bitorder="big" if kind.itemsize == 1 else "little")
        return bits[:, self.slots != NO_ROW].T.astype(np.float64)

    @cached_property
    def _longer(self) -> tuple[int, ...]:
        """How many rows a matrix has that goes on with rows of the penalty."""
        widths = {array.shape[0] for p in self.config.parties for _, array in self._matrices(p.name)}
        places = len(self.slots)
        return tuple(sorted(n for n in widths if places < n < places + 400))

    def _matrices(self, party: str) -> list[tuple[str, Array]]:
        return [(w, a) for w, a in self.views.received(party) if a.ndim == 2]

    def features(self, party: str, rows: Rows) -> Floats:
        """Return a party's columns of these rows as an analyst takes them: standardised, levels as 0 and 1."""
        table = self.tables[party]
        found = []
        for values in table.numbers.values():
            spread = np.nanstd(values) or 1.0
            found.append(np.nan_to_num((values[rows] - np.nanmean(values)) / spread))
        for levels in table.categories.values():
            known = sorted({level for level in levels if level is not None})
            found += [(levels[rows] == level).astype(np.float64) for level in known[1:20]]
        return np.stack(found, axis=1)

    def numbers(self, party: str, rows: Rows) -> dict[str, Floats]:
        """Return a party's numbers of these rows, standardised, by column."""
        found = {}
        for name, values in self.tables[party].numbers.items():
            chosen = np.nan_to_num(values, nan=float(np.nanmean(values)))[rows]
            if spread := float(chosen.std()):
                found[name] = (chosen - chosen.mean()) / spread
        return found

    @cached_property
    def scores(self) -> ReleasedScores:
        """The scores that the bank was given."""
        return read_scores(self.model(self.bank))

    def scored_at(self, party: str) -> Rows:
        """Return a party's rows in the order of the released scores' places: held out, then the others."""
        return np.concatenate([self.rows(party, "held_out"), self.rows(party, "unlabelled")])

    @cached_property
    def released(self) -> Floats:
        """Scores in the order of `scored_at`."""
        with np.load(self.model(self.bank) / "scores.npz", allow_pickle=False) as stored:
            by_row = dict(
                zip(stored["rows"].tolist(), stored["units"] / 10.0 ** stored["decimals"], strict=True)
            )
        return np.array([by_row.get(int(row), np.nan) for row in self.scored_at(self.bank)])

    def part(self, party: str) -> Part:
        """Return a party's splits."""
        return Part.from_json(json.dumps(self.header(party)["part"]))

    @cached_property
    def quality(self) -> Quality | None:
        """How good the joint and the centralised model are; None where answers are numbers."""
        try:
            figures = json.loads((self.folder / "result.json").read_bytes())["models"]
            joint, centralised = figures["joint"]["auc"], figures["centralised"]["auc"]
        except (KeyError, TypeError):
            return None
        return Quality(float(joint), float(centralised))


def watch_run(given: Path, out: Path, seed: int | None) -> Subject:
    """Run the job of a simulated run's folder, or a job.toml, once more in `out`, with every party watched."""
    config, path = find_job(given)
    views = Views()
    simulate_job(config, path, out=out, seed=seed, watch=views.watch)
    tables = {p.name: open_data(p, path.parent) for p in config.parties}
    return Subject(config, tables, out, given if given.is_dir() else out, views)


def find_job(given: Path) -> tuple[JobConfig, Path]:
    """Find a job and the path beside which its files lie; ConfigError where there is none."""
    if given.is_file():
        return read_job(given), given
    try:
        stored = json.loads((given / "job.json").read_bytes())
        return JobConfig.model_validate_json(json.dumps(stored["job"])), Path(stored["folder"]) / "job.toml"
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{given}: not the folder of a simulated run", "give one, or a job.toml, or use --all"
        ) from None


def seed_of(given: Path) -> int | None:
    """Return the seed that a run's folder says it had; None where it had none."""
    try:
        seed = json.loads((given / "result.json").read_bytes())["seed"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return seed if isinstance(seed, int) else None


def gained(label: Floats, guess: Floats) -> float:
    """AUC of a guess, whichever side it is on."""
    found = auc(label, guess)
    return max(found, 1 - found)
