"""Malformed files through the command line: exit 2 or 3, one line that says where, and nothing left behind."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedmkt.cli.app import main
from fedmkt.party.node import open_data
from fedmkt.simulation.run import read_job
from tests.simulation.kills import kill_at, small_job

SECRET = "77secret77"  # stands for a person's value: no message may contain it
ROOT = Path(__file__).resolve().parents[2]
HEADER = "phone,age,job,bought"
ROWS = [f"9120000{i:02d},{20 + i},{'office' if i % 2 else 'trade'},{i % 2}" for i in range(60)]
PARTNER = "tel,spend\n" + "".join(f"9120000{i:02d},{i}.5\n" for i in range(60))
JOB = """name = "spring"
purpose = "credit card campaign"

[bank]
name = "bank"
organisation = "Example Bank"
file = "bank.csv"
id = "phone"
id_kind = "phone"
country = "351"
label = "bought"
numbers = ["age"]
categories = ["job"]

[[partners]]
name = "shop"
organisation = "Example Shop"
file = "shop.csv"
id = "tel"
id_kind = "phone"
country = "351"
numbers = ["spend"]

[model]
penalty = 2.0

[limits]
min_list = 10
min_common = 10
min_events = 0
"""


def csv(*changes: tuple[int, str], header: str = HEADER, end: str = "\n") -> bytes:
    """A good bank file with some lines replaced; line 1 holds the names."""
    lines = [header, *ROWS]
    for number, line in changes:
        lines[number - 1] = line
    return ("\n".join(lines) + end).encode()


def parquet(**changes: object) -> bytes:
    columns: dict[str, object] = {
        "phone": [f"9120000{i:02d}" for i in range(60)],
        "age": [20.0 + i for i in range(60)],
        "job": ["office"] * 60,
        "bought": [i % 2 for i in range(60)],
    } | changes
    target = io.BytesIO()
    pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), target)
    return target.getvalue()


def every(value: object) -> list[object]:
    return [value] * 60


@dataclass(frozen=True)
class Case:
    """A malformed file, the exit code, and what the one line must say."""

    name: str
    data: bytes
    code: int
    said: tuple[str, ...]


def case(name: str, data: bytes, *said: str, code: int = 3) -> Case:
    return Case(name, data, code, said)


GOOD = csv()
BAD_NUMBERS = (
    SECRET,
    "1,5",
    "1.2.3",
    "0x1F",
    "1e",
    "--4",
    "NaN",
    "nan",
    "inf",
    "-Infinity",
    "1_000",
    "1 000",
    "€5",
    "1e400",
    "None",
)
BAD_LABELS = (SECRET, "2", "-1", "0.5", "maybe", "y", "NaN", "10")
BAD_HEADERS = {
    "an id column in capitals": ("Phone,age,job,bought", '"phone"'),
    "no label column": ("phone,age,job,given", '"bought"'),
    "no number column": ("phone,years,job,bought", '"age"'),
    "no category column": ("phone,age,work,bought", '"job"'),
    "the same name twice": ("phone,age,job,bought,age", "row 1"),
    "a space instead of a separator": ("phone age job bought", "missing"),
    "a pipe as separator": ("phone|age|job|bought", "missing"),
    "an open quote": ('phone,"age,job,bought', "row 1"),
    "values instead of names": (f"912000001,40,{SECRET},1", "missing"),
}
CSV = [
    *(case(f"number {v}", csv((7, f'912000001,"{v}",office,1')), '"age"', "row 7") for v in BAD_NUMBERS),
    *(case(f"label {v}", csv((9, f"912000001,40,office,{v}")), '"bought"', "row 9") for v in BAD_LABELS),
    *(case(name, csv(header=h), said) for name, (h, said) in BAD_HEADERS.items()),
    case("an empty file", b"", "empty"),
    case("a line break only", b"\n", "row 1"),
    case("spaces only", b"   \n  \n", "row 1"),
    case("names only", HEADER.encode(), "no rows"),
    case("names and a line break", HEADER.encode() + b"\n", "no rows"),
    case("a row with a cell too many", csv((5, f"912000001,40,office,1,{SECRET}")), "row 5", "5 cells"),
    case("a row with a cell too few", csv((5, f"912000001,{SECRET},office")), "row 5", "3 cells"),
    case("the last row cut", csv((61, "912000001,4"), end=""), "row 61"),
    case("a quote that is not closed", csv((30, f'912000001,40,"{SECRET},1')), "row 30"),
    case("a quote within a cell", csv((30, f'912000001,40,"of"{SECRET},1')), "row 30"),
    case("a NUL byte", csv((4, f"912000001,40,{SECRET}\0,1")), "row 4", "NUL"),
    case("Latin-1", csv().replace(b"office", "bür\u00f6".encode("latin-1")), "row 3", "UTF-8"),
    case("UTF-16", csv().decode().encode("utf-16"), "UTF-16"),
    case("the end within a character", csv(end="") + "ü".encode()[:1], "UTF-8"),
    case("gzip", b"\x1f\x8b" + GOOD, "gzip"),
    case("Excel", b"PK\x03\x04" + GOOD, "Excel"),
    case("old Excel", b"\xd0\xcf\x11\xe0" + GOOD, "Excel"),
    case("Parquet under another name", parquet(), "Parquet"),
    case("a quoted cell of 200 kB", csv((8, f'912000001,40,"{SECRET * 20_000}",1')), "row 8"),
    case("no valid phone", csv(*((i, f"{SECRET},40,office,{i % 2}") for i in range(2, 62))), '"phone"'),
    case("empty ids", csv(*((i, f",40,office,{i % 2}") for i in range(2, 62))), '"phone"'),
    case("one class", csv(*((i, f"9120000{i:02d},40,office,0") for i in range(2, 62))), '"bought"'),
    case("no label at all", csv(*((i, f"9120000{i:02d},40,office,") for i in range(2, 62))), '"bought"'),
    case("a page instead of a table", f"<html><body>{SECRET}</body></html>\n".encode(), "missing"),
    case("JSON", f'[{{"phone": "{SECRET}", "age": 40}}]\n'.encode(), "missing"),
    case("random bytes", np.random.default_rng(1).bytes(4000)),
]
WHOLE = parquet()
PARQUET = [
    case("an empty file", b"", "empty"),
    case("a CSV file", GOOD, "not a Parquet file"),
    case("the magic alone", b"PAR1"),
    case("magic at both ends", b"PAR1PAR1"),
    case("half of the file", WHOLE[: len(WHOLE) // 2], "damaged"),
    case("the footer cut", WHOLE[:-9], "damaged"),
    case("a footer of impossible length", WHOLE[:-8] + b"\xff\xff\xff\x7fPAR1", "damaged"),
    case("zeros in the middle", WHOLE[:40] + bytes(600) + WHOLE[640:]),
    case("random bytes after the magic", b"PAR1" + np.random.default_rng(2).bytes(3000) + b"PAR1"),
    case("no id column", parquet(phone=None), '"phone"'),
    case("no number column", parquet(age=None), '"age"'),
    case("no category column", parquet(job=None), '"job"'),
    case("no label column", parquet(bought=None), '"bought"'),
    case(
        "no rows",
        parquet(
            phone=pa.array([], "string"),
            age=pa.array([], "float64"),
            job=pa.array([], "string"),
            bought=pa.array([], "int64"),
        ),
        "no rows",
    ),
    case("lists as numbers", parquet(age=every([1.0])), '"age"', "nested"),
    case("structures as categories", parquet(job=every({"a": SECRET})), '"job"', "nested"),
    case("dates as numbers", parquet(age=every(date(2020, 1, 1))), '"age"', "dates"),
    case("bytes as ids", parquet(phone=every(SECRET.encode())), '"phone"', "bytes"),
    case("text as a number", parquet(age=[*every("4")[:58], SECRET, "5"]), '"age"', "row 59"),
    case("an infinite number", parquet(age=[*every(4.0)[:58], float("inf"), 5.0]), '"age"', "row 59"),
    case("a label of three", parquet(bought=[*range(2)] * 29 + [3, 0]), '"bought"', "row 59"),
    case("half a label", parquet(bought=[0.0, 1.0] * 29 + [0.5, 0.0]), '"bought"', "row 59"),
    case("a label in words", parquet(bought=["yes", "no"] * 29 + [SECRET, "no"]), '"bought"', "row 59"),
    case("one class", parquet(bought=every(0)), '"bought"'),
    case("labels missing", parquet(bought=pa.array(every(None), "int64")), '"bought"'),
    case("no valid phone", parquet(phone=every(SECRET)), '"phone"'),
    case("ids missing", parquet(phone=pa.array(every(None), "string")), '"phone"'),
    case("a category of halves", parquet(job=[*every(1.0)[:58], 1.5, 2.0]), '"job"', "row 59"),
]


def job(old: str, new: str) -> bytes:
    assert JOB.count(old) >= 1, old
    return JOB.replace(old, new, 1).encode()


TOML = [
    case("an empty file", b"", "name", code=2),
    case("no TOML", b"hello world\n", "TOML", "line 1", code=2),
    case("a table not closed", job("[model]", "[model"), "TOML", "line", code=2),
    case("a text not closed", job('"spring"', '"spring'), "TOML", "line 1", code=2),
    case("a key twice", job("penalty = 2.0", "penalty = 2.0\npenalty = 3.0"), "TOML", code=2),
    case("a table twice", job("[limits]", "[model]"), "TOML", code=2),
    case("no UTF-8", JOB.encode().replace(b"spring", b"spr\xffng"), "UTF-8", code=2),
    case("UTF-16", JOB.encode("utf-16"), "UTF-8", code=2),
    case("a NUL byte", job("spring", "spr\0ng"), "TOML", code=2),
    case("JSON", b'{"name": "spring"}', "TOML", code=2),
    case("nested too deeply", b"a = " + b"[" * 5000, "TOML", code=2),
    case("no bank", JOB.replace("[bank]", "[banks]").encode(), "bank", code=2),
    case(
        "no partner",
        (JOB[: JOB.index("[[partners]]")] + JOB[JOB.index("[model]") :]).encode(),
        "partners",
        code=2,
    ),
    case("a partner instead of a list", job("[[partners]]", "[partners]"), "partners", code=2),
    case(
        "three partners",
        JOB.encode() + 3 * JOB[JOB.index("[[partners]]") : JOB.index("[model]")].encode(),
        "partners",
        code=2,
    ),
    case("a misspelt key", job("penalty", "penalti"), "model.penalti", "penalty", code=2),
    case("a misspelt table", job("[model]", "[modell]"), "modell", code=2),
    case("no purpose", job('purpose = "credit card campaign"', ""), "purpose", code=2),
    case("an empty purpose", job('"credit card campaign"', '""'), "purpose", code=2),
    case("a purpose of two lines", job("card campaign", "card\\ncampaign"), "purpose", code=2),
    case("a name in capitals", job('name = "spring"', 'name = "Spring"'), "name", code=2),
    case("a name that climbs", job('name = "bank"', 'name = "../bank"'), "bank.name", code=2),
    case("a name with a space", job('name = "shop"', 'name = "the shop"'), "name", code=2),
    case("a name for everybody", job('name = "shop"', 'name = "all"'), "name", code=2),
    case("two parties of one name", job('name = "shop"', 'name = "bank"'), "name", code=2),
    case("a partner named as the coordinator", job('name = "shop"', 'name = "coordinator"'), "name", code=2),
    case("two parties of one organisation", job("Example Shop", "example  bank"), "organisation", code=2),
    case("an unknown kind of id", job('id_kind = "phone"', 'id_kind = "fax"'), "id_kind", "fax", code=2),
    case(
        "two kinds of id",
        job('id_kind = "phone"\ncountry = "351"\nlabel', 'id_kind = "raw"\nlabel'),
        "id_kind",
        code=2,
    ),
    case("a country in letters", job('country = "351"', 'country = "PT"'), "country", code=2),
    case("a penalty too small", job("2.0", "0.01"), "model.penalty", "0.1", code=2),
    case("a penalty without end", job("2.0", "inf"), "model.penalty", code=2),
    case("a penalty that is none", job("2.0", "nan"), "model.penalty", code=2),
    case("a penalty in words", job("2.0", '"two"'), "model.penalty", code=2),
    case("a penalty that is a truth", job("2.0", "true"), "model.penalty", code=2),
    case("no iterations", job("penalty = 2.0", "iterations = 0"), "model.iterations", code=2),
    case("half an iteration", job("penalty = 2.0", "iterations = 1.5"), "model.iterations", code=2),
    case("too many iterations", job("penalty = 2.0", "iterations = 1000"), "model.iterations", code=2),
    case("another period", job("penalty = 2.0", "period = 100"), "model.period", code=2),
    case("another kind of model", job("penalty = 2.0", 'kind = "forest"'), "model.kind", code=2),
    case("nobody held out", job("penalty = 2.0", "test_fraction = 0.0"), "model.test_fraction", code=2),
    case("a negative minimum", job("min_list = 10", "min_list = -10"), "limits.min_list", code=2),
    case("a minimum in words", job("min_list = 10", 'min_list = "10"'), "limits.min_list", code=2),
    case("too many decimals", JOB.encode() + b"\n[scores]\ndecimals = 9\n", "scores.decimals", code=2),
    case(
        "an unknown disclosure",
        b'disclosures = ["Everything"]\n' + JOB.encode(),
        "disclosures",
        "Everything",
        code=2,
    ),
    case("disclosures in one text", b'disclosures = "Scores"\n' + JOB.encode(), "disclosures", code=2),
    case("days that are none", b"valid_days = 0\n" + JOB.encode(), "valid_days", code=2),
    case("no columns", job('numbers = ["spend"]', "numbers = []"), "partners", "column", code=2),
    case(
        "a column twice",
        job('numbers = ["spend"]', 'numbers = ["spend", "spend"]'),
        "partners",
        "column",
        code=2,
    ),
    case("the id as a column", job('numbers = ["spend"]', 'numbers = ["tel"]'), "partners", "column", code=2),
    case("the label as a column", job('numbers = ["age"]', 'numbers = ["bought"]'), "bank", code=2),
    case("columns in one text", job('["spend"]', '"spend"'), "numbers", code=2),
    case("columns that are numbers", job('["spend"]', "[1, 2]"), "numbers", code=2),
    case(
        "a label at the partner",
        job('numbers = ["spend"]', 'numbers = ["spend"]\nlabel = "x"'),
        "label",
        code=2,
    ),
    case("no label at the bank", job('label = "bought"\n', ""), "bank.label", code=2),
    case("a file that is not there", job("shop.csv", "nowhere.csv"), "nowhere.csv", "no such file", code=2),
    case("a folder as a file", job("shop.csv", "folder.csv"), "folder.csv", "folder", code=3),
    case("a file of an unknown kind", job("shop.csv", "shop.xlsx"), "shop.xlsx", code=3),
    case("a file name with a NUL", job("shop.csv", "shop\\u0000.csv"), "file", code=2),
]


def written(
    folder: Path, job_text: bytes = JOB.encode(), bank: bytes = GOOD, bank_name: str = "bank.csv"
) -> Path:
    folder.mkdir()
    (folder / bank_name).write_bytes(bank)
    (folder / "shop.csv").write_text(PARTNER)
    (folder / "shop.xlsx").write_text(PARTNER)
    (folder / "folder.csv").mkdir()
    path = folder / "job.toml"
    path.write_bytes(job_text)
    return path


def check_line(errors: str, file: str, found: int, expected: Case) -> None:
    lines = [line for line in errors.splitlines() if line]
    said = [line for line in lines if line.startswith("fedmkt: error: ")]
    assert len(said) == 1, errors
    assert len(lines) <= 2 and all(x.startswith(("fedmkt: error: ", "fedmkt: hint: ")) for x in lines), errors
    assert found == expected.code, errors
    assert "fault in fedmkt" not in errors and "Traceback" not in errors
    assert len(said[0]) < 700
    for fragment in (file, *expected.said):
        assert fragment in said[0], (fragment, said[0])
    assert SECRET not in errors


def run_it(path: Path, expected: Case, file: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Run the job in an empty folder; afterwards there is what there was before."""
    here = Path.cwd()
    before = sorted(path.parent.rglob("*"))
    os.chdir(path.parent)
    try:
        found = main(["simulate", str(path), "--json"])
    finally:
        os.chdir(here)
    shown = capfd.readouterr()
    check_line(shown.err, file, found, expected)
    assert shown.out == ""
    assert sorted(path.parent.rglob("*")) == before


def test_the_files_that_are_spoilt_here_are_good(tmp_path: Path) -> None:
    path = written(tmp_path / "x")
    config = read_job(path)
    assert [len(open_data(p, path.parent).ids) for p in config.parties] == [60, 60]


@pytest.mark.parametrize("spoilt", CSV, ids=lambda c: c.name)
def test_a_malformed_csv_is_refused_in_one_line(
    spoilt: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_it(written(tmp_path / "x", bank=spoilt.data), spoilt, "bank.csv", capfd)


@pytest.mark.parametrize("spoilt", PARQUET, ids=lambda c: c.name)
def test_a_malformed_parquet_file_is_refused_in_one_line(
    spoilt: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = JOB.replace("bank.csv", "bank.parquet").encode()
    path = written(tmp_path / "x", text, spoilt.data, "bank.parquet")
    run_it(path, spoilt, "bank.parquet", capfd)


@pytest.mark.parametrize("spoilt", TOML, ids=lambda c: c.name)
def test_a_malformed_job_is_refused_in_one_line(
    spoilt: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = "" if any(name in spoilt.said for name in ("nowhere.csv", "folder.csv", "shop.xlsx")) else "job"
    run_it(written(tmp_path / "x", spoilt.data), spoilt, file, capfd)


@pytest.mark.parametrize(
    "spoilt",
    [
        CSV[0],
        next(c for c in CSV if c.name == "random bytes"),
        next(c for c in CSV if c.name == "a NUL byte"),
    ],
    ids=lambda c: c.name,
)
def test_a_process_of_its_own_says_the_same(spoilt: Case, tmp_path: Path) -> None:
    path = written(tmp_path / "x", bank=spoilt.data)
    before = sorted(tmp_path.rglob("*"))
    line = [sys.executable, "-m", "fedmkt", "simulate", str(path), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    check_line(done.stderr, "bank.csv", done.returncode, spoilt)
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


# The contract of a stopped run


def no_toml(text: str) -> str:
    return text + "[[[\n"


def cut(text: str) -> str:
    return text[: len(text) // 2]


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


CONTRACT: list[tuple[str, Callable[[str], str], int]] = [
    ("no TOML", no_toml, 2),
    ("cut in the middle", cut, 2),
    ("empty", lambda text: "", 2),
    ("another version", replaced("version = 1", "version = 2"), 2),
    ("a version in words", replaced("version = 1", 'version = "1"'), 2),
    ("no purpose", replaced("purpose = ", "purposes = "), 2),
    ("an unknown disclosure", replaced('"Scores"', '"Rows"'), 2),
    ("a key too short", replaced('key = "', 'key = "0'), 2),
    ("a key in capitals", lambda text: text.replace('key = "', 'key = "G', 1), 2),
    ("no time zone", lambda text: text.replace("Z\n", "\n", 1), 2),
    ("a time in words", replaced("created = ", 'created = "soon" # '), 2),
    ("an unknown role", replaced('role = "partner"', 'role = "guest"'), 2),
    ("two banks", replaced('role = "partner"', 'role = "bank"'), 2),
    ("a penalty out of range", replaced("penalty = 1.0", "penalty = 1e-9"), 2),
    ("no signatures", lambda text: text[: text.index("[signatures]")], 4),
    ("a signature too short", lambda text: text.rstrip()[:-3] + '"\n', 2),
    ("another penalty", replaced("penalty = 1.0", "penalty = 3.0"), 4),
    ("another reader", replaced("min_support = 20", "min_support = 2"), 4),
]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stopped")
    path = small_job(folder / "world")
    assert kill_at("opening:1", "simulate", path, "--out", folder / "run", "--seed", 1)
    return path, folder / "run"


@pytest.mark.parametrize(("name", "change", "code"), CONTRACT, ids=[c[0] for c in CONTRACT])
def test_a_malformed_contract_ends_a_resume_in_one_line(
    name: str, change: Callable[[str], str], code: int, stopped: tuple[Path, Path], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, run = stopped
    out = Path(shutil.copytree(run, tmp_path / "run"))
    contract = out / "contract.toml"
    contract.write_text(change(contract.read_text()))
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    found = main(["simulate", str(path), "--out", str(out), "--seed", "1", "--resume"])
    file = "contract.toml" if code == 2 else "signature"
    check_line(capfd.readouterr().err, file, found, case(name, b"", code=code))
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_there_are_more_than_a_hundred_of_them() -> None:
    assert len(CSV) + len(PARQUET) + len(TOML) + len(CONTRACT) > 140
