import numpy as np
import pytest

from fedmkt.errors import ConfigError
from fedmkt.protocol import family, pipeline
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.layout import FRACTION_BITS, RESIDUAL_BITS, WEIGHT_BITS
from fedmkt.protocol.linear import sigmoid_blocks
from fedmkt.protocol.linear.bounds import check_bounds, job_bounds
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.linear.matrices import Matrices
from fedmkt.protocol.linear.scoring import score
from fedmkt.protocol.prepare import Shape
from fedmkt.ring import rounding
from fedmkt.ring.bounds import Bound, check
from tests.protocol.glm_world import special
from tests.protocol.plain_caller import (
    PlainCaller,
    contract_of,
    joint_data,
    record_rounded,
    start_aligned,
    total,
)

OVERLAP = Overlap(19_000, 20_000, 0, 1000)


def shapes(contract, columns=20, row_norm=30):
    return {p: Shape(columns, row_norm) for p in data_parties(contract)}


def overlap_of(rows):
    return Overlap(rows - rows // 100, rows, 0, 0)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("rows", [1000, 20_000, 1_000_000])
def test_ordinary_jobs_are_within_all_bounds(k, rows):
    contract = contract_of(k)
    check_bounds(contract, overlap_of(rows), shapes(contract))


@pytest.mark.parametrize(
    ("rows", "columns", "row_norm", "model", "names"),
    [
        (20_000, 20, 900, {"max_weight": 4096.0}, ["squared weights"]),
        (300_000_000, 400, 1000, {}, ["gradient", "step"]),
        (20_000_000_000, 20, 30, {}, ["gradient"]),
    ],
)
def test_a_job_that_could_overflow_is_refused_with_the_numbers(rows, columns, row_norm, model, names):
    contract = contract_of(model=model)
    with pytest.raises(ConfigError) as refused:
        check_bounds(contract, overlap_of(rows), shapes(contract, columns, row_norm))
    for name in names:
        assert f"{name}: " in str(refused.value)
    assert "= 2^" in str(refused.value) and "limit 2^62" in str(refused.value)
    assert refused.value.hint


def test_the_first_sketchs_step_would_be_refused():
    """There H g was formed before g was rounded: |H g| = 2^63.14 for the intercept of 28,831 rows."""
    rows, scales = 28_831, 16 + 20 + 10 + 17  # of X, of the residual, of H, and 2^17 against underflow
    first_gradient, inverse = 0.383 * rows, 2.8 / rows  # answers of 11.7 %, 0.7 (XᵀX/4)^-1
    step = Bound("step", np.log2(first_gradient * inverse) + scales, "|H g|")
    assert step.bits == pytest.approx(63.14, abs=0.1)
    with pytest.raises(ConfigError, match="step"):
        check([step])
    contract = contract_of()
    ours = job_bounds(contract, overlap_of(rows), shapes(contract, 26, 20))
    assert all(b.holds for b in ours), "rounding the gradient first keeps the same job in range"


def test_bounds_grow_with_everything_they_are_made_of():
    contract, larger = contract_of(), contract_of(model={"max_weight": 64.0})
    least = job_bounds(contract, overlap_of(2000), shapes(contract, 10, 10))
    for more in (
        job_bounds(contract, overlap_of(50_000), shapes(contract, 10, 10)),
        job_bounds(contract, overlap_of(2000), shapes(contract, 40, 10)),
        job_bounds(contract, overlap_of(2000), shapes(contract, 10, 40)),
        job_bounds(larger, overlap_of(2000), shapes(larger, 10, 10)),
    ):
        pairs = list(zip(least, more, strict=True))
        assert all(b.bits >= a.bits - 1.1 for a, b in pairs)  # a power of two of rows is divided out again
        assert any(b.bits > a.bits + 0.5 for a, b in pairs)


NAMES = {
    "fit/penalty": "penalty row", "gradient": "gradient", "gram/1": "Gram block", "gram/2": "scaled Gram block",
    "step": "step", "range": "squared weights",
    "range/coarse": "weights", "score/round": "scores",
}  # fmt: skip


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("harsh", [False, True], ids=["usual", "rare response, small penalty"])
def test_every_value_that_is_rounded_in_a_run_stays_under_its_bound(k, harsh, monkeypatch):
    model = {"iterations": 6, "penalty": 0.1, "period": 128} if harsh else {"iterations": 6}
    contract = contract_of(k, columns=(5, 4, 3), model=model)
    rounded, lifted = record_rounded(monkeypatch), record_lifted(monkeypatch)
    caller = start_aligned(joint_data(contract, 1500, rate=-3.5 if harsh else -1.2, signal=0.7))
    bounds = {b.name: b for b in job_bounds(contract, caller.overlap, caller.shapes())}
    fit(caller, contract, caller.overlap, caller.columns())
    score(caller, contract, caller.overlap, caller.columns())
    last = max(count for label, count in rounded if label == "inverse")
    seen = set()
    for (label, count), shares in rounded.items():
        assert len(shares) == k
        largest = int(np.abs(total(shares)).max(initial=0))
        assert largest < 2**62, label
        name = ("scaled inverse" if count == last else "inverse") if label == "inverse" else NAMES.get(label)
        if name is not None:
            seen.add(name)
            assert largest <= 2 ** bounds[name].bits, f"{label} {count}: above its bound"
    assert seen == set(bounds) - {"matrix", "sigmoid"}
    for p in data_parties(contract):
        assert np.abs(caller.recall(p, Matrices).own).max() <= 2 ** bounds["matrix"].bits
    assert lifted and all(abs(v).max() <= 2 ** bounds["sigmoid"].bits for v in lifted)


def record_lifted(monkeypatch):
    """Record sigmoid values minus labels before they are lifted to 64 bits, for two or three parties."""
    found, waiting = [], []
    original = rounding.prepare_lift

    def prepare_lift(x_share, mask_share, *, first):
        if first:
            waiting.clear()
        waiting.append(x_share.copy())
        found[len(found) - (not first) :] = [sum(waiting[1:], waiting[0]).view(np.int32).astype(np.int64)]
        return original(x_share, mask_share, first=first)

    monkeypatch.setattr(sigmoid_blocks.rounding, "prepare_lift", prepare_lift)
    return found


def test_the_main_job_checks_its_bounds_before_anything_is_shared(monkeypatch):
    contract = contract_of(model={"max_weight": 4096.0}, limits={"min_support": 20})
    data = joint_data(contract, 60)
    for values in data.x.values():
        values[:, 1] = 0
        values[:30, 1] = 1  # enough support for one column; the others are skewed
    monkeypatch.setattr(
        family, "prepare_columns", lambda call, c: {p: Shape(390, 1000) for p in data_parties(c)}
    )
    caller = PlainCaller(contract, data.local)
    with pytest.raises(ConfigError, match="overflow"):
        pipeline.main_job(caller, contract)
    assert not [s for s in caller.sent if s.step.startswith(("fit.", "range.", "score."))]


def test_scales_are_those_that_the_bounds_are_made_of():
    contract = contract_of()
    by_name = {b.name: b for b in job_bounds(contract, OVERLAP, shapes(contract))}
    assert f"2^{FRACTION_BITS + RESIDUAL_BITS}" in by_name["gradient"].formula
    assert f"2^{FRACTION_BITS + WEIGHT_BITS}" in by_name["penalty row"].formula
    assert by_name["matrix"].limit == 30


def test_weights_and_offsets_of_rows_tighten_the_bounds():
    names = {"offset": "o", "weight": "v"}
    plain, weighted = (special(contract_of(), n) for n in ({}, names))
    bits = [{b.name: b.bits for b in job_bounds(c, OVERLAP, shapes(c))} for c in (plain, weighted)]
    assert bits[0]["gradient"] < bits[1]["gradient"] <= bits[0]["gradient"] + 3, "eight times a row"
    assert bits[0]["squared weights"] < bits[1]["squared weights"], (
        "less of the period is left for the columns"
    )
    assert bits[0]["sigmoid"] == bits[1]["sigmoid"], "weights multiply after the lift to 64 bits"
