"""Malformed files by the thousand: each ends in one message of ours that says where, and shows nobody's value.

python -m tests.malformed 5000      (`make malformed`)

A file that the product accepts is broken in one place that is known. What reads it has to raise the error that the
command line ends with 2 (settings) or 3 (tables) for, name the file, and the place: row and column of a table, key or
line of a settings file. A value that stands for a person's is in each broken cell of a table; no message may repeat it.
What somebody wrote into a settings file may be shown.
"""

import collections
import io
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fedmkt.config.files import parse_coordinator, parse_job, parse_party, parse_party_folder, parse_schema
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.errors import FedmktError
from fedmkt.party.filters import Filters
from fedmkt.party.keys import KeyColumns
from fedmkt.party.table import Column, TableSchema, read_table
from tests.contract.agreed import contract, governance, signed

ROOT = Path(__file__).resolve().parents[1]
SECRET = "77secret77"
"""Stands for a person's value: no message may contain it."""
ROWS = 40
SCHEMA = TableSchema(
    "phone", "phone", "351", (Column("age", "number"), Column("job", "category")), "bought",
    Filters(date(2030, 1, 1), consent="agreed", birth_date="born"), (KeyColumns("email", ("mail",)),), None, "weight",
)  # fmt: skip
NAMES = ("phone", "mail", "age", "job", "bought", "agreed", "born", "weight")


@dataclass(frozen=True)
class Broken:
    """A broken file: its kind, name and bytes, who reads it, the exit code, and what its one message has to say."""

    kind: str
    name: str
    data: bytes
    read: Callable[[Path], object]
    code: int
    said: tuple[str, ...]


def wrong(case: Broken, folder: Path) -> str:
    """Read a broken file; returns what is wrong with what came of it, nothing if nothing is."""
    path = folder / case.name
    path.write_bytes(case.data)
    try:
        case.read(path)
    except FedmktError as error:
        said = f"{error} {error.hint}"
        missing = [part for part in (case.name, *case.said) if part not in str(error)]
        if error.exit_code != case.code:
            return f"exit code {error.exit_code}: {said}"
        if missing:
            return f"does not say {missing}: {said}"
        if case.code == 3 and SECRET in said:
            return f"shows a value: {said[:300]}"
        if len(said) > 1000 or "\n" in str(error):
            return f"no line to read: {said[:300]}"
        return ""
    except Exception as error:  # what is no error of ours is a traceback for its reader
        return f"{type(error).__name__}: {error}"
    return "accepted"


# --------------------------------------------------------------------------- tables


def _rows() -> list[list[str]]:
    return [
        [f"9120000{i:02d}", f"p{i}@x.pt", str(20 + i), "ab"[i % 2], str(i % 2), "yes", f"1990-12-{10 + i % 18}", "1.5"]
        for i in range(ROWS)
    ]  # fmt: skip


_BAD: dict[str, tuple[str, ...]] = {
    "age": (SECRET, "1,5", "0x1F", "NaN", "inf", "1_000", "1 000", "1e400", "--4", f"4{SECRET}"),
    "bought": (SECRET, "2", "-1", "0.5", "maybe", "10"),
    "born": (SECRET, "1990-13-01", "1990-02-30", "01/02/1990x", "19901", "31.12"),
    "weight": (SECRET, "nan", "1e999", "-", f"1{SECRET}"),
}
"""What is no value of a column."""


def _csv(rows: Sequence[Sequence[str]], header: Sequence[str] = NAMES) -> bytes:
    cells = [[f'"{c}"' if set(c) & set(',"\n') else c for c in row] for row in (header, *rows)]
    return "".join(",".join(row) + "\n" for row in cells).encode()


def _read(path: Path) -> object:
    return read_table(path, SCHEMA)


def broken_csv(draw: random.Random) -> Broken:
    """Break one cell, row or name of a CSV file."""
    rows, at = _rows(), draw.randrange(ROWS)
    line = f"row {at + 2}"  # the names are line 1
    way = draw.choice(
        ["cell", "cell", "cell", "more", "fewer", "NUL", "bytes", "quote", "name", "twice", "cut"]
    )
    said: tuple[str, ...] = (line,)
    header, data = list(NAMES), b""
    if way == "cell":
        column = draw.choice(list(_BAD))
        rows[at][NAMES.index(column)] = draw.choice(_BAD[column])
        said = (line, f'"{column}"')
    elif way == "more":
        rows[at] += [SECRET] * draw.randint(1, 5)
    elif way == "fewer":
        del rows[at][draw.randint(1, 7) :]
        rows[at][0] = SECRET
    elif way == "NUL":
        rows[at][draw.randrange(8)] = f"{SECRET}\0"
    elif way == "quote":
        data = _csv(rows).replace(rows[at][1].encode(), f'"{SECRET}'.encode(), 1)
    elif way == "bytes":
        data = _csv(rows).replace(
            rows[at][1].encode(), SECRET.encode() + draw.choice([b"\xff", b"\xc3(", b"\xe2\x82"]), 1
        )
    elif way == "cut":
        data, said = _csv([*rows[:at], [SECRET, *rows[at][1:3]]])[: -draw.randint(1, 2)], (line,)
    else:
        column = draw.choice(NAMES)
        header[NAMES.index(column)] = (
            SECRET if way == "name" else draw.choice([n for n in NAMES if n != column])
        )
        said = (f'"{column}"',)
    return Broken(f"CSV, {way}", "table.csv", data or _csv(rows, header), _read, 3, said)


def broken_parquet(draw: random.Random) -> Broken:
    """Break one value, type, name or stretch of a Parquet file."""
    columns: dict[str, list[object]] = {name: [row[i] for row in _rows()] for i, name in enumerate(NAMES)}
    columns |= {
        "age": [20.5 + i for i in range(ROWS)],
        "bought": [i % 2 for i in range(ROWS)],
        "weight": [1.5] * ROWS,
    }
    at, way = draw.randrange(ROWS), draw.choice(["value", "value", "type", "name", "bytes", "cut"])
    said: tuple[str, ...] = ()
    if way == "value":
        column = draw.choice(["age", "bought", "born"])
        bad: dict[str, Sequence[object]] = {
            "age": [float("inf"), -float("inf")],
            "bought": [2, -1, 7],
            "born": [SECRET, "x"],
        }
        columns[column][at] = draw.choice(bad[column])
        said = (f'"{column}"', f"row {at + 1}")
    elif way == "type":
        column = draw.choice(["age", "job", "bought", "weight"])
        columns[column] = [draw.choice([[SECRET], {"a": SECRET}])] * ROWS
        said = (f'"{column}"',)
    elif way == "name":
        column = draw.choice(NAMES)
        columns = {SECRET if name == column else name: values for name, values in columns.items()}
        said = (f'"{column}"',)
    target = io.BytesIO()
    pq.write_table(pa.table(columns), target, compression=draw.choice(["none", "zstd", "snappy"]))
    data = bytearray(target.getvalue())
    if way == "cut":
        del data[draw.randrange(1, len(data)) :]
    elif way == "bytes":
        start = len(data) - draw.randint(8, 300)  # the footer: a changed value elsewhere may be a value
        data[start:] = draw.randbytes(len(data) - start - 4) + b"PAR1"
    return Broken(f"Parquet, {way}", "table.parquet", bytes(data), _read, 3, said)


# --------------------------------------------------------------------------- settings


def _text(read: Callable[[str, str], object]) -> Callable[[Path], object]:
    return lambda path: read(path.read_text(), path.name)


def _policy(text: str, name: str) -> object:
    own = (ROOT / "parties/bank/party.toml").read_text(), (ROOT / "parties/bank/schema.toml").read_text()
    return parse_party_folder(own[0], text, own[1], "")


def settings() -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Return all kinds of settings files that are right, with who reads each."""
    found = {
        f"{path.parent.name} {path.name}": (path.read_text(), _text(parse_job))
        for path in sorted(ROOT.glob("examples/*/*.toml"))
    }
    for name in ("bank", "partner"):
        folder = ROOT / "parties" / name
        found[f"{name} party.toml"] = ((folder / "party.toml").read_text(), _text(parse_party))
        found[f"{name} schema.toml"] = (
            (folder / "schema.toml").read_text(),
            _text(lambda text, path: parse_schema(text, path, "bank", "B")),
        )
    found["bank policy.toml"] = ((ROOT / "parties/bank/policy.toml").read_text(), _text(_policy))
    found["coordinator coordinator.toml"] = (
        (ROOT / "parties/coordinator/coordinator.toml").read_text(),
        _text(parse_coordinator),
    )
    agreed = contract(governance=governance())
    found["agreed contract.toml"] = (to_toml(signed(agreed)), _text(from_toml))
    return found


_LINE = re.compile(r"^([A-Za-z_]+) = (.+)$")
_MADE = settings()


def broken_settings(draw: random.Random) -> Broken:
    """Break one line of a settings file: its key, its value, or how it is written."""
    which = draw.choice(list(_MADE))
    text, read = _MADE[which]
    lines = text.split("\n")
    places = [
        i
        for i, line in enumerate(lines)
        if (m := _LINE.match(line)) and _is_whole(m[2]) and m[1] not in _FREE
    ]
    at = draw.choice(places)
    found = _LINE.match(lines[at])
    assert found is not None
    key, value = found.groups()
    way = draw.choice(["kind", "kind", "misspelt", "twice", "unquoted", "no value", "bytes", "NUL"])
    said: tuple[str, ...] = (key,)
    if way == "kind":
        lines[at] = f"{key} = {draw.choice(_FOREIGN)}"
    elif way == "misspelt":
        lines[at] = f"{key}x = {value}"
    elif way == "twice":
        lines.insert(at, lines[at])
        said = ("TOML",)
    elif way == "unquoted":
        lines[at], said = f'{key} = "{SECRET}', ("TOML", f"line {at + 1}")
    elif way == "no value":
        lines[at], said = f"{key} =", ("TOML", f"line {at + 1}")
    elif way == "NUL":
        lines[at], said = f'{key} = "\0"', ("TOML", f"line {at + 1}")
    else:
        lines[at], said = f"{key} = {value} \ufeff {SECRET}", ("TOML", f"line {at + 1}")
    name = which.split()[-1]
    return Broken(f"{name}, {way}", name, "\n".join(lines).encode(), read, 2, said)


_FREE = ("bank", "shop", "coordinator", "partner", "notary")
"""Names of participants are no keys of ours: any other name may be right in their place."""
_FOREIGN = (f'{{ {SECRET} = "x" }}', f'[[["{SECRET}"]]]', "2030-01-01T00:00:00", "[1.5, true]", "nan")
"""Values that no key takes."""


def _is_whole(value: str) -> bool:
    """Tell whether a value ends on its line, with nothing behind it."""
    brackets = all(value.count(a) == value.count(b) for a, b in ("[]", "{}"))
    return brackets and "#" not in value and '"""' not in value


def cases(count: int, seed: int) -> Iterator[Broken]:
    """Make broken files: a third tables in CSV, a sixth in Parquet, the rest settings."""
    draw = random.Random(seed)
    makers = (broken_csv, broken_csv, broken_parquet, broken_settings, broken_settings, broken_settings)
    for number in range(count):
        yield makers[number % len(makers)](draw)


def main(count: int) -> int:
    """Try so many; returns how many came to a wrong end."""
    kinds, bad = collections.Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(count, seed=1):
            kinds[case.kind] += 1
            if fault := wrong(case, Path(folder)):
                bad += 1
                print(json.dumps({"kind": case.kind, "wrong": fault[:400]}), flush=True)
    print(json.dumps(dict(sorted(kinds.items()))))
    print(f"{count} malformed files of {len(kinds)} kinds, {bad} wrong")
    return bad


if __name__ == "__main__":
    sys.exit(min(main(int(sys.argv[1])), 1))
