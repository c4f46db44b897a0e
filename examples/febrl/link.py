"""Find the people that the two Febrl files share, by each of four keys and by their union.

    python link.py dataset4a.csv.gz dataset4b.csv.gz
    python link.py dataset4a.csv.gz dataset4b.csv.gz --folder parties

The first prints recall and precision of a join in the open, against the true pairs that the record numbers
give away. The second besides writes a bank's and a partner's table with a job.toml to a folder, runs the job,
and prints the same for the rows that the protocol aligned: they must be the same pairs.
"""

import argparse
import csv
import gzip
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmkt.config.files import parse_job
from fedmkt.errors import FedmktError
from fedmkt.learn.linkage import UNPAIRED, Key, Pairs, Quality, Rows, join, normalise_keys, quality
from fedmkt.party.node import open_data
from fedmkt.simulation.run import simulate

COUNTRY = "61"
# In order of priority: a number that an office gave out, then name, birth and home in pairs.
KEYS = (
    ("raw", ("soc_sec_id",)),
    ("compound", ("surname", "date_of_birth")),
    ("compound", ("date_of_birth", "postcode")),
    ("compound", ("street_number", "address_1", "postcode")),
)
COLUMNS = tuple(dict.fromkeys(column for _, columns in KEYS for column in columns))
FIRST_LINE = 2  # of a CSV file's rows

Record = Mapping[str, str]


@dataclass(frozen=True)
class Line:
    """One line of the table that is printed."""

    key: str
    quality: Quality

    def __str__(self) -> str:
        """Align the figures in columns."""
        found = self.quality
        return f"{self.key:<42} {found.recall:>7.4f} {found.precision:>9.4f} {found.found:>6,}"


def read_febrl(path: Path) -> list[Record]:
    """Read one Febrl file, plain or .gz; ValueError for another file."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    records = [
        {str(name).strip(): (value or "").strip() for name, value in row.items()}
        for row in csv.DictReader(text.splitlines())
    ]
    if not records or not {"rec_id", *COLUMNS} <= set(records[0]):
        raise ValueError("no Febrl file: columns are missing")
    return records


def person(record: Record) -> str:
    """Return the number of the person behind a record: rec-1070-org and rec-1070-dup-0 are one."""
    return record["rec_id"].split("-")[1]


def truth_of(own: Sequence[Record], other: Sequence[Record]) -> Rows:
    """Return for each own record the place of the same person's record in the other file."""
    places = {person(record): place for place, record in enumerate(other)}
    return np.array([places.get(person(record), UNPAIRED) for record in own], dtype=np.int64)


def link(
    own: Sequence[Record], other: Sequence[Record], keys: Sequence[tuple[str, tuple[str, ...]]]
) -> Pairs:
    """Join two files in the open; slots and rows are places in the files."""
    sides = [
        normalise_keys(
            [Key(kind, tuple([r[c] for r in side] for c in columns)) for kind, columns in keys], COUNTRY
        )
        for side in (own, other)
    ]
    found = join(sides[0].keys, sides[1].keys)
    slots, used = np.full(len(own), UNPAIRED, np.int64), np.full(len(own), UNPAIRED, np.int8)
    has_pair = found.slots != UNPAIRED
    slots[sides[0].rows[has_pair]] = sides[1].rows[found.slots[has_pair]]
    used[sides[0].rows] = found.keys
    return Pairs(slots, used)


def lines_of(own: Sequence[Record], other: Sequence[Record]) -> list[Line]:
    """Measure each key by itself, then the union of the first two, three and four."""
    truth = truth_of(own, other)
    alone = [Line(" + ".join(key[1]), quality(link(own, other, [key]), truth)) for key in KEYS]
    unions = [
        Line(f"union of the first {n}", quality(link(own, other, KEYS[:n]), truth))
        for n in range(2, len(KEYS) + 1)
    ]
    return alone + unions


def write_parties(own: Sequence[Record], other: Sequence[Record], folder: Path, seed: int) -> Path:
    """Write both tables and job.toml; what is not a key (label and features) is invented, only rows count."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in (("bank", own), ("partner", other)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            label = ["responded"] if name == "bank" else []
            writer.writerow([*COLUMNS, "invented", *label])
            for record in records:
                answer = [int(random.random() < 0.5)] if label else []
                writer.writerow([*(record[c] for c in COLUMNS), round(random.normal(), 3), *answer])
    job = folder / "job.toml"
    job.write_text(job_text(), encoding="utf-8")
    return job


def job_text() -> str:
    """Return the text of job.toml: both sides know people by the same keys."""
    (first,) = KEYS[0][1]
    more = "".join(
        f'    {{ kind = "{kind}", columns = {json.dumps(columns)} }},\n' for kind, columns in KEYS[1:]
    )
    ids = f'id = "{first}"\nid_kind = "{KEYS[0][0]}"\nmore_ids = [\n{more}]\nnumbers = ["invented"]\n'
    bank = (
        f'[bank]\nname = "bank"\norganisation = "Example Bank"\nfile = "bank.csv"\n{ids}label = "responded"\n'
    )
    partner = f'[[partners]]\nname = "partner"\norganisation = "Example Shop"\nfile = "partner.csv"\n{ids}'
    model = "[model]\niterations = 1               # what is learned here is which rows belong together\n"
    return f'name = "febrl"\npurpose = "record-linkage"\n\n{bank}\n{partner}\n{model}'


def aligned_pairs(job: Path, run: Path, rows: int) -> Pairs:
    """Read from a finished run's folders which rows it aligned: nobody but this machine has both sides."""
    config = parse_job(job.read_text(encoding="utf-8"), str(job))
    sides = []
    for party in config.parties:
        model = run / "parties" / party.name / "model"
        aligned = np.concatenate(
            [np.load(model / f"{part}.npy") for part in ("train", "held_out", "unlabelled")]
        )
        sides.append(open_data(party, job.parent).rows[aligned] - FIRST_LINE)
    slots = np.full(rows, UNPAIRED, dtype=np.int64)
    slots[sides[0]] = sides[1]
    return Pairs(slots, np.full(rows, UNPAIRED, dtype=np.int8))


def main() -> int:
    """Read the command line; exit code 2 if the files cannot be used."""
    parser = argparse.ArgumentParser(description="Link the two Febrl files by several keys.")
    parser.add_argument("one", type=Path, help="dataset4a.csv, may be .gz")
    parser.add_argument("other", type=Path, help="dataset4b.csv, may be .gz")
    parser.add_argument("--folder", type=Path, help="write tables and a job there and run it")
    parser.add_argument("--seed", type=int, default=1, help="of what is invented beside the keys (default 1)")
    options = parser.parse_args()
    try:
        own, other = read_febrl(options.one), read_febrl(options.other)
        print(f"{'key':<42} {'recall':>7} {'precision':>9} {'pairs':>6}")
        print(*lines_of(own, other), sep="\n")
        if options.folder is not None:
            job = write_parties(own, other, options.folder, options.seed)
            run = simulate(job, out=options.folder / "run")
            pairs = aligned_pairs(job, run.folder, len(own))
            print(Line("union, through the protocol", quality(pairs, truth_of(own, other))))
    except (OSError, ValueError, EOFError, zlib.error, FedmktError) as error:
        print(f"link: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
