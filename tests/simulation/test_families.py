"""Each family of models: the same in memory and in Flower's simulation, and as if never killed when resumed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedmkt.audit.verify import verify_run
from fedmkt.cli.app import main
from fedmkt.protocol.family import FAMILIES
from fedmkt.simulation.run import read_job, simulate
from tests.simulation.kills import key_parts, kill_at, repeated_numbers, small_job
from tests.transport.test_flower_simulation import files_of, receipts_of, run_python

SEED = 7
slow = pytest.mark.slow  # Ray takes seconds to begin, and so does a process that is killed


@dataclass(frozen=True)
class Case:
    """A small job of one family; `moment` : in the middle of its training, after a checkpoint.

    apart : units by which a released score of a resumed run may differ, of scores above 100 the same share of them.
    grows_anew : a resumed run rounds anew, so what is trained after the checkpoint is another model.
    rows : of the bank, of each partner, in common.
    """

    sections: Mapping[str, Mapping[str, object]]
    moment: str
    apart: int = 1  # scores are rounded at random
    grows_anew: bool = False
    partners: int = 1
    rows: tuple[int, int, int] = (700, 800, 500)

    @property
    def kind(self) -> str:
        return str(self.sections["model"]["kind"])

    def write(self, folder: Path, rows: tuple[int, int, int] | None = None) -> Path:
        """Write a small world with this family's job; rows : other than its own."""
        job = small_job(folder, rows=rows or self.rows, partners=self.partners)
        before, found, after = job.read_text().partition("[model]\n")
        assert found
        _, found, limits = after.partition("[limits]\n")
        assert found
        text = "".join(
            f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())
            for name, values in self.sections.items()
        )
        if self.kind in ("linear", "poisson"):  # an answer is a number and a count too
            before = before.replace('label = "responded"\n', 'label = "responded"\nlabel_kind = "number"\n')
        job.write_text(f"{before}{text}[limits]\n{limits}")
        return job


CASES = {
    "logistic": Case({"model": {"kind": "logistic", "iterations": 4, "checkpoint_every": 2}}, "fit.update:6"),
    "path": Case(
        {
            "model": {
                "kind": "linear",
                "iterations": 4,
                "checkpoint_every": 2,
                "penalties": [1.0, 100.0],
                "path_passes": 2,
                "validation_fraction": 0.5,
            }
        },
        "fit.update:11",  # in the middle of the second penalty
        grows_anew=True,  # the sums of errors, which model.json has, are rounded anew
    ),
    "logistic-path": Case(
        {
            "model": {
                "kind": "logistic",
                "iterations": 4,
                "checkpoint_every": 2,
                "penalties": [1.0, 100.0],
                "path_passes": 2,
                "validation_fraction": 0.5,
            }
        },
        "fit.update:11",
        grows_anew=True,
        rows=(2000, 2200, 1600),  # enough people of either answer to compare on
    ),
    "linear": Case({"model": {"kind": "linear", "iterations": 4, "checkpoint_every": 2}}, "fit.update:6"),
    "poisson": Case(
        {"model": {"kind": "poisson", "iterations": 4, "checkpoint_every": 2}},
        "fit.update:6",
        apart=3,  # the exponential on shares has noise of .002 besides
    ),
    "additive": Case(
        {"model": {"kind": "additive", "iterations": 4, "checkpoint_every": 2}, "additive": {"knots": 2}},
        "fit.update:6",
    ),
    "pairs": Case(
        {
            "model": {"kind": "additive", "iterations": 4, "checkpoint_every": 2},
            "additive": {"knots": 2, "pairs": [["bank/age", "partner/spend"]]},
        },
        "score.share_pairs:2",
        rows=(1000, 1100, 800),
    ),
    "scorecard": Case(
        {"model": {"kind": "scorecard", "iterations": 4, "checkpoint_every": 2}, "bins": {"count": 4}},
        "fit.update:6",
    ),
    "trees-sides": Case(
        {
            "model": {"kind": "trees", "checkpoint_every": 2},
            "trees": {"reveal": "sides", "trees": 4, "depth": 3, "min_rows": 20},
            "bins": {"count": 8},
        },
        "fit.choose:8",  # in the middle of the third tree
    ),
    "trees-totals": Case(
        {
            "model": {"kind": "trees", "checkpoint_every": 2},
            "trees": {"reveal": "totals", "trees": 4, "depth": 3, "min_rows": 50},
            "bins": {"count": 6},
        },
        "fit.add_tree:5",  # both parties added the first two trees, and one the third
        apart=20,
        grows_anew=True,
    ),
    "trees-two-partners": Case(
        {
            "model": {"kind": "trees", "checkpoint_every": 2},
            "trees": {"reveal": "totals", "trees": 4, "depth": 3, "min_rows": 50},
            "bins": {"count": 6},
        },
        "fit.add_tree:7",
        apart=20,
        grows_anew=True,
        partners=2,
    ),
    "trees-stopping": Case(
        {
            "model": {"kind": "trees", "checkpoint_every": 2},
            "trees": {
                "reveal": "totals",
                "trees": 6,
                "depth": 2,
                "rate": 0.5,
                "min_rows": 50,
                "patience": 2,
                "validation_fraction": 0.3,
            },
            "bins": {"count": 6},
        },
        "fit.add_tree:5",  # of the third tree, whose loss is the second in a row that is no better
        apart=20,
        grows_anew=True,
        rows=(1000, 1100, 800),
    ),
    "trees-checked": Case(
        {
            "model": {"kind": "trees", "checkpoint_every": 2},
            "trees": {"reveal": "totals", "trees": 4, "depth": 3, "min_rows": 50, "checked_shares": True},
            "bins": {"count": 6},
        },
        "tags.check:8",  # in the middle of the third tree
        apart=20,
        grows_anew=True,
    ),
    "trees-noisy": Case(
        {
            "model": {"kind": "trees", "checkpoint_every": 2},
            "trees": {"epsilon": 8.0, "trees": 4, "depth": 2, "min_rows": 4, "penalty": 100.0},
            "bins": {"count": 4},
        },
        "fit.open_noisy:5",
        apart=100,  # two trees of other noise
        grows_anew=True,
    ),
    "trees-nothing": Case(
        {
            "model": {"kind": "trees", "checkpoint_every": 2},
            "trees": {"reveal": "nothing", "trees": 4, "depth": 2, "min_rows": 50},
            "bins": {"count": 4},
        },
        "fit.add_tree:5",
        apart=20,
        grows_anew=True,
    ),
}
QUICK = "trees-sides"
EACH = [pytest.param(case, id=name, marks=[] if name == QUICK else slow) for name, case in CASES.items()]


def test_every_family_has_a_case() -> None:
    assert {case.kind for case in CASES.values()} == set(FAMILIES)


@pytest.mark.parametrize("case", EACH)
def test_a_family_gives_the_same_in_memory_and_over_flower_to_the_last_bit(
    case: Case, tmp_path: Path
) -> None:
    job = case.write(tmp_path / "data")
    memory, flower = tmp_path / "memory", tmp_path / "flower"
    simulate(job, out=memory, seed=SEED)
    words = ["-m", "fedmkt", "simulate", str(job), "--backend", "flower", "--out", str(flower)]
    ended = run_python(tmp_path / "process", *words, "--seed", str(SEED), "--json")
    assert ended.code == 0, ended.err
    models = {n: b for n, b in files_of(memory, "parties").items() if "/model/" in n}
    assert models == {n: b for n, b in files_of(flower, "parties").items() if "/model/" in n}
    assert "parties/bank/model/scores.npz" in models
    assert receipts_of(memory) == receipts_of(flower)
    assert files_of(memory, "logs") == files_of(flower, "logs")


@pytest.mark.parametrize("case", EACH)
def test_a_family_killed_in_training_ends_as_if_it_had_not_been_killed(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, out, whole = case.write(tmp_path / "data"), tmp_path / "run", tmp_path / "whole"
    call = ["simulate", str(job), "--out", str(out), "--seed", str(SEED), "--json"]
    assert kill_at(case.moment, *call)
    assert list((out / "parties" / "bank" / "journal").glob("*.sealed"))
    monkeypatch.setattr("fedmkt.simulation.results.write_results", lambda *_: (None, {}))
    assert main([*call, "--resume"]) == 0
    assert verify_run(out).outcome == "completed"
    assert repeated_numbers(out) == []
    simulate(job, out=whole, seed=SEED)
    # Of one seed up to the checkpoint: the same rows to train on, and what else was drawn before it.
    assert key_parts(read_job(job), out) == key_parts(read_job(job), whole)
    if not case.grows_anew:
        for party in ("bank", "partner"):  # what is not a share: trees are the same to the last bit
            assert model_header(out, party) == model_header(whole, party)
    expected = units(whole)
    assert (np.abs(units(out) - expected) / np.maximum(1, np.abs(expected) / 100)).max() <= case.apart


def model_header(out: Path, party: str) -> bytes:
    return (out / "parties" / party / "model" / "model.json").read_bytes()


def units(out: Path) -> np.ndarray:
    """Released scores in the order of their rows, in units of the last decimal."""
    with np.load(out / "parties" / "bank" / "model" / "scores.npz", allow_pickle=False) as scores:
        return np.asarray(scores["units"][np.argsort(scores["rows"])], dtype=np.float64)
