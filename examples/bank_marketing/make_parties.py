"""Split the UCI Bank Marketing file between a bank and a call centre that never show each other a column.

    python make_parties.py bank-full.csv.gz parties

writes bank.csv, partner.csv and job.toml to the folder `parties`. Every UCI row becomes a customer with a
phone and an e-mail written carelessly; the bank holds about 85 % of them, the call centre about 80 %, and
each has a few thousand other people. `duration` is dropped: it is known only after the call and gives the
answer away.
"""

import argparse
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from fedmkt.simulation.world import (
    LABEL,
    PartyFile,
    draw_emails,
    draw_phones,
    job_text,
    write_emails,
    write_phones,
)

COUNTRY = "351"
OTHERS = 3000  # people of each side who are in nobody's UCI row

FULL = (
    PartyFile(
        "bank",
        "Example Bank",
        "bank.csv",
        ("age", "balance"),
        ("job", "marital", "education", "default", "housing", "loan"),
    ),
    PartyFile(
        "partner",
        "Example Call Centre",
        "partner.csv",
        ("day", "campaign", "pdays", "previous"),
        ("contact", "month", "poutcome"),
    ),
)
ADDITIONAL = (
    PartyFile(
        "bank",
        "Example Bank",
        "bank.csv",
        ("age",),
        ("job", "marital", "education", "default", "housing", "loan"),
    ),
    PartyFile(
        "partner",
        "Example Call Centre",
        "partner.csv",
        ("campaign", "pdays", "previous"),
        ("contact", "month", "day_of_week", "poutcome"),
    ),
)


def job_of(sides: tuple[PartyFile, PartyFile]) -> str:
    """Text of job.toml for one of the two UCI files; the one beside this script is that of bank-full."""
    return job_text("bank-marketing", sides[0], [sides[1]], COUNTRY)


def sides_of(uci: pd.DataFrame) -> tuple[PartyFile, PartyFile]:
    """Which of the two UCI files this is, told by its columns; ValueError for another file."""
    for sides in (FULL, ADDITIONAL):
        wanted = {name for side in sides for name in (*side.numbers, *side.categories)} | {"y"}
        if wanted <= set(uci.columns):
            return sides
    raise ValueError("neither bank-full.csv nor bank-additional-full.csv: columns are missing")


def split(uci: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of the bank and of the call centre; equal seeds give equal tables."""
    bank_side, partner_side = sides_of(uci)
    random = np.random.default_rng(seed)
    rows = len(uci)
    phones = draw_phones(random, rows + 2 * OTHERS, COUNTRY)
    emails = draw_emails(random, rows + 2 * OTHERS)
    tables = []
    for first_other, side, share in ((rows, bank_side, 0.85), (rows + OTHERS, partner_side, 0.80)):
        held = np.flatnonzero(random.random(rows) < share)
        people = np.concatenate([held, np.arange(first_other, first_other + OTHERS)])
        looks_like = np.concatenate([held, random.integers(rows, size=OTHERS)])
        order = random.permutation(len(people))
        people, looks_like = people[order], looks_like[order]
        ids = pd.DataFrame(
            {
                "phone": write_phones(random, phones[people], COUNTRY),
                "email": write_emails(random, emails[people]),
            }
        )
        columns = uci[[*side.numbers, *side.categories]].iloc[looks_like].reset_index(drop=True)
        table = pd.concat([ids, columns], axis=1)
        if side is bank_side:
            answers = uci["y"].iloc[looks_like].reset_index(drop=True)
            table[LABEL] = answers.where(people < rows, "")  # the bank never called the others
        tables.append(table)
    return tables[0], tables[1]


def write(uci_file: Path, folder: Path, seed: int) -> Path:
    """Write both parties' files and job.toml to `folder`; returns the path of job.toml."""
    uci = pd.read_csv(uci_file, sep=";", dtype=str, keep_default_na=False)
    tables = split(uci, seed)
    folder.mkdir(parents=True, exist_ok=True)
    sides = sides_of(uci)
    for side, table in zip(sides, tables, strict=True):
        table.to_csv(folder / side.file, index=False, lineterminator="\n")
    job = folder / "job.toml"
    job.write_text(job_of(sides), encoding="utf-8")
    return job


def main() -> int:
    """Read the command line; exit code 2 if the UCI file cannot be used."""
    parser = argparse.ArgumentParser(description="Split the UCI Bank Marketing file between two parties.")
    parser.add_argument("uci_file", type=Path, help="bank-full.csv or bank-additional-full.csv, may be .gz")
    parser.add_argument("out_folder", type=Path, help="where bank.csv, partner.csv and job.toml go")
    parser.add_argument("--seed", type=int, default=1, help="equal seeds write equal files (default 1)")
    options = parser.parse_args()
    try:
        print(write(options.uci_file, options.out_folder, options.seed))
    except (OSError, ValueError, EOFError, zlib.error) as error:
        print(f"make_parties: error: {options.uci_file}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
