"""The same job with the same seed gives the same model, bit by bit, however many threads a machine has."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from fedmkt.simulation import results
from fedmkt.simulation.run import simulate
from tests.simulation.kills import ROOT, small_job

COUNTS = (1, 2, 4)


def digest_of(out: Path) -> str:
    """Digest all that a run leaves at its parties as a result, and all logs."""
    state = hashlib.sha256()
    files = [*out.glob("parties/*/model/*"), *out.glob("logs/*/*"), *out.glob("parties/*/scores*")]
    assert len(files) > 10
    for path in sorted(files):
        data = path.read_bytes()
        state.update(f"{path.relative_to(out)} {len(data)}\n".encode() + data)
    return state.hexdigest()


def test_one_two_and_four_threads_give_the_same_model_and_the_same_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "write_results", lambda *_: (None, {}))
    job, found, before = small_job(tmp_path / "world"), set(), pa.cpu_count()
    assert any(pool["user_api"] == "blas" for pool in threadpool_info())
    for count in COUNTS:
        out = tmp_path / str(count)
        try:
            pa.set_cpu_count(count)
            with threadpool_limits(count):
                simulate(job, out=out, seed=7)
        finally:
            pa.set_cpu_count(before)
        found.add(digest_of(out))
    assert len(found) == 1


@pytest.mark.slow  # twelve processes that each import everything: a minute
@pytest.mark.parametrize("kind", ["logistic", "additive", "trees", "scorecard"])
def test_processes_with_other_numbers_of_threads_give_the_same_model(kind: str, tmp_path: Path) -> None:
    job = small_job(tmp_path / "world", rows=(1500, 1700, 1300))  # functions of columns need more people
    job.write_text(job.read_text().replace("[model]\n", f'[model]\nkind = "{kind}"\n'))
    found = set()
    for count in COUNTS:
        names = ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        call = ["simulate", str(job), "--out", str(tmp_path / str(count)), "--seed", "7", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "fedmkt", *call], cwd=ROOT, env=os.environ | dict.fromkeys(names, str(count)),
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.add(digest_of(tmp_path / str(count)))
    assert len(found) == 1
