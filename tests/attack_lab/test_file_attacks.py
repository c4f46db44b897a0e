"""Code in data and formulas in exports: payloads that do run where nothing refuses them, and not here."""

import builtins
import io
import pickle

import pytest

from fedmkt.attack_lab.attacks import decoders, exports, tables
from fedmkt.attack_lab.effort import quick
from fedmkt.attack_lab.subject import Subject


def test_two_hundred_payloads_run_undefended_and_none_in_any_decoder(linear: Subject):
    found = decoders.code_in_data(linear, quick(1))
    assert found.verdict == "held" and found.here == 0
    assert found.undefended >= 100


def test_a_decoder_that_runs_a_payload_is_noticed():
    payloads = list(decoders.payloads_of(8))
    assert any(decoders.runs(lambda data: pickle.load(io.BytesIO(data)), p) for p in payloads)
    assert not hasattr(builtins, "fedmkt_attack_lab")


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "np.load('x', allow_pickle=True)",
        "run('ls', shell=x)",
    ],
)
def test_what_runs_data_is_found_in_a_source(source):
    assert decoders.dangerous(source) == [1]
    assert decoders.dangerous("np.load('x', allow_pickle=False)\nre.compile('x')") == []


def test_no_cell_of_an_export_is_a_formula(linear: Subject):
    found = exports.cells_that_run(linear, quick(1))
    assert (found.verdict, found.here, found.undefended) == ("held", 0, len(exports.POISON))
    assert exports.dangerous_cells("name,x\n=1+1,-2.5\n'=1,3\n") == 1


def test_a_formula_in_a_file_of_the_run_is_found(linear: Subject):
    path = linear.folder / "planted.csv"
    path.write_text("a,b\n1,@SUM(1)\n")
    try:
        assert exports.cells_that_run(linear, quick(1)).here == 1
    finally:
        path.unlink()


def test_a_pickle_in_a_parquet_schema_runs_in_an_old_reader_only(linear: Subject):
    found = tables.crafted_parquet(linear, quick(1))
    assert (found.undefended, found.here, found.verdict) == (1, 0, "held")
