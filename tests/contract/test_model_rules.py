import pytest
from pydantic import ValidationError

from fedmkt.contract.agreement import Limits
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.model_terms import ModelTerms
from tests.contract.agreed import PATH, TREES, contract, party, signed


@pytest.mark.parametrize(
    "change",
    [{"penalty": 0.05}, {"penalty": float("nan")}, {"period": 48}, {"iterations": True}, {"iterations": "9"}],
)
def test_model_terms_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        ModelTerms.model_validate(change)


def test_trees_say_what_they_reveal_in_the_contract():
    trend = {"party": "shop", "column": "age", "trend": -1}
    agreed = contract(**(TREES | {"trees": {"reveal": "sides", "trends": (trend,)}}))
    assert from_toml(to_toml(signed(agreed)), "c.toml").contract == agreed
    for kind in ("HistogramTotals", "SplitSides", "ChosenSplits", "TreeShape"):
        left = tuple(k for k in TREES["disclosures"] if k != kind)
        with pytest.raises(ValidationError, match=f"a model of kind trees needs {kind} too"):
            contract(**(TREES | {"disclosures": left}))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"align": {"match": "hidden"}}, "shown: who is in a node"),
        (
            {"trees": {}, "align": {"join": "left"}, "disclosures": (*TREES["disclosures"], "JoinedRows")},
            "inner: rows without",
        ),
        (
            {"trees": {"reveal": "sides", "trends": ({"party": "shop", "column": "y", "trend": 1},)}},
            "party's numbers",
        ),
        (
            {"trees": {"reveal": "sides", "trends": ({"party": "bank", "column": "age", "trend": 1},) * 2}},
            "once",
        ),
        ({"trees": {}}, "needs CellBits, BinCounts, BinTotals too"),
        ({"trees": {"class_weights": (1.0, 200.0)}}, "at most 100 times the other"),
        ({"trees": {"row_share": 0.9}}, "drawn anew for each tree"),
        ({"trees": {"reveal": "sides", "epsilon": 4.0}}, "no totals at all"),
        ({"trees": {"epsilon": 4.0}, "limits": Limits(max_epsilon=3.0)}, "at most limits.max_epsilon, 3"),
        ({"trees": {"epsilon": 4.0, "checked_shares": True}}, "epsilon without checked_shares"),
        ({"trees": {"epsilon": 4.0, "patience": 2}}, "epsilon without checked_shares, patience"),
        ({"trees": {"epsilon": 4.0, "class_weights": (1.0, 2.0)}}, "epsilon without .* class_weights"),
        ({"trees": {"epsilon": 0.4}}, "greater than or equal to 0.5"),
        ({"trees": {"epsilon": 4.0}}, "a model of kind trees needs NoisyTotals too"),
        ({"trees": {"reveal": "sides", "max_thresholds": 0}}, "greater than or equal to 1"),
        ({"trees": {"reveal": "sides", "class_weights": (0.0, 1.0)}}, "greater than or equal to 0.001"),
    ],
)
def test_contracts_for_trees_that_cannot_be_carried_out_are_refused(changes, why):
    with pytest.raises(ValidationError, match=why):
        contract(**(TREES | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"class_weights": (1.0, 0.3)}}, "multiples of 1/16"),
        ({"model": {"class_weights": (0.0, 1.0)}}, "multiples of 1/16"),
        ({"model": {"class_weights": (1.0, 9.0)}}, "multiples of 1/16"),
        ({"model": {"max_offset": 13.0}}, "max_offset"),
        ({"parties": (party("bank"), {**party("shop").model_dump(), "offset": "o"})}, "columns of the bank"),
    ],
)  # fmt: skip
def test_offsets_and_weights_that_cannot_hold_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        contract(**change)


@pytest.mark.parametrize("kind", ["scorecard", "trees", "additive"])
def test_offsets_and_weights_are_for_models_of_the_columns_themselves(kind):
    terms = TREES if kind == "trees" else {"model": {"kind": kind}}
    disclosures = (*TREES["disclosures"], "BinCounts", "BinTotals", "MinimumBits", "BinWeights")
    with pytest.raises(ValidationError, match=f"no offset or weight with kind = {kind}"):
        contract(
            **(terms | {"parties": (party("bank", weight="w"), party("shop")), "disclosures": disclosures})
        )


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"penalties": (1.0,)}, "2 to 12"),
        ({"penalties": (1.0, 1.0)}, "2 to 12 different"),
        ({"penalties": tuple(map(float, range(1, 14)))}, "at most 12"),
        ({"penalties": (0.1, 2000.0)}, "at most 10,000 times"),
        ({"penalties": (0.01, 1.0)}, "greater than or equal to 0.1"),
        ({"penalties": (1.0, 2.0), "penalty": 3.0}, "one of penalty and penalties"),
        ({"penalties": (1.0, 2.0), "kind": "trees"}, "a linear kind of model without start"),
        ({"penalties": (1.0, 2.0), "start": "ab" * 32}, "a linear kind of model without start"),
        ({"path_passes": 5}, "only with penalties"),
        ({"validation_fraction": 0.3}, "only with penalties"),
    ],
)
def test_paths_that_cannot_be_tried_are_refused(terms, message):
    with pytest.raises(ValidationError, match=message):
        ModelTerms(**terms)


def test_a_path_is_not_for_pairs_of_two_parties():
    numbers = (party("bank", numbers=("a",)), party("shop", numbers=("b",)))
    terms = {"additive": {"pairs": (("bank/a", "shop/b"),)}, "parties": numbers, "disclosures": PATH}
    with pytest.raises(ValidationError, match="one penalty where pairs are of two parties"):
        contract(model={"kind": "additive", "penalties": (1.0, 2.0)}, **terms)


def test_a_path_needs_its_disclosures():
    with pytest.raises(ValidationError, match="needs PenaltyCurve, ChosenPenalty too"):
        contract(model=ModelTerms(penalties=(1.0, 2.0)))
