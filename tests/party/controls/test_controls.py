"""Each control of security.md once where it allows a run and once where it refuses one, by whole participants."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from fedmkt.errors import PolicyRefused
from fedmkt.learn.reasons import Reasons
from fedmkt.party import score_notes
from fedmkt.party.controls import registry
from fedmkt.party.controls.registry import CONTROLS
from fedmkt.party.filters import Dropped
from fedmkt.privacy.disclosure import DEFAULT
from tests.engine import Killed, Tap, World
from tests.party.controls.office import Office, make_office, place_in, records, refusals, terms


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return make_office(tmp_path_factory.mktemp("office"))


@pytest.fixture(scope="session")
def whole_run(office: Office) -> World:
    """A run that every control allowed from its beginning to its end."""
    world = office.world()
    world.run()
    return world


def datasets(office: Office, **changes: object) -> dict[str, Any]:
    """Change the partner's dataset."""
    bank, partner = terms(office.config)["datasets"]
    return {"datasets": [bank, partner | changes]}


def column(office: Office, **changes: object) -> dict[str, Any]:
    """Change the partner's first column."""
    first, *rest = terms(office.config)["datasets"][1]["columns"]
    return datasets(office, columns=[first | changes, *rest])


def test_c01_accepts_a_purpose_that_every_dataset_has(office: Office) -> None:
    office.opens(governance=datasets(office, purposes=["other", office.config.purpose]))


def test_c01_refuses_a_purpose_that_a_dataset_does_not_have(office: Office) -> None:
    said = office.refuses("C01", governance=datasets(office, purposes=["other"]))
    assert said.endswith("'marketing-response' is no purpose of the dataset of partner")


def test_c02_accepts_sensitive_columns_with_a_basis_for_them(office: Office) -> None:
    bank, partner = column(office, sensitive=True)["datasets"]
    office.opens(governance={"datasets": [bank, partner | {"sensitive_basis": ["PIPL-29"]}]})


def test_c02_refuses_sensitive_columns_without_one(office: Office) -> None:
    assert "('orders') without a basis" in office.refuses("C02", governance=column(office, sensitive=True))


def test_c03_accepts_a_list_without_those_who_did_not_consent(office: Office) -> None:
    office.opens(dropped=Dropped(0, 0, 0, 18))
    office.opens(
        governance={"datasets": [d | {"basis": ["PIPL-13-2"]} for d in terms(office.config)["datasets"]]},
        dropped=Dropped(None, 0, 0, 18),
    )


def test_c03_refuses_a_list_that_was_not_filtered_by_consent(office: Office) -> None:
    office.refuses("C03", dropped=Dropped(None, 0, 0, 18))


def test_c04_accepts_results_for_service_without_a_list_of_those_who_opted_out(office: Office) -> None:
    office.opens(governance={"use": "service"}, dropped=Dropped(0, None, 0, 18))


def test_c04_refuses_marketing_without_one(office: Office) -> None:
    office.refuses("C04", dropped=Dropped(0, None, 0, 18))


def test_c05_accepts_a_list_filtered_by_the_agreed_age_or_a_higher_one(office: Office) -> None:
    office.opens(dropped=Dropped(0, 0, 7, 21))


def test_c05_refuses_a_list_filtered_by_a_lower_age(office: Office) -> None:
    office.refuses("C05", dropped=Dropped(0, 0, 7, 16))


def test_c06_accepts_granted_columns_and_logs_those_that_are_not_used(office: Office) -> None:
    grants = terms(office.config)["datasets"][1]["columns"]
    more = {"name": "height", "level": 1, "kind": "habits"}
    world = office.opens(governance=datasets(office, columns=[*grants, more]))
    (granted,) = [r.body for r in records(world, "partner") if r.type == "column.granted"]
    assert granted["unused"] == ["height"] and len(granted["columns"]) == len(grants) + 1


def test_c06_refuses_a_column_that_the_dataset_does_not_grant(office: Office) -> None:
    grants = terms(office.config)["datasets"][1]["columns"]
    said = office.refuses("C06", governance=datasets(office, columns=grants[1:]))
    assert "column 'orders' of partner takes part" in said


def test_c07_accepts_level_three_where_only_scores_are_opened(office: Office) -> None:
    office.opens(governance=column(office, level=3))
    office.opens(governance=column(office, level=4))


def test_c07_refuses_level_three_where_own_weights_are_opened(office: Office) -> None:
    said = office.refuses(
        "C07", governance=column(office, level=3), job={"disclosures": (*DEFAULT, "ModelPart")}
    )
    assert "column 'orders' of partner is of level 3, the contract discloses ModelPart" in said


def test_c08_accepts_names_that_only_look_like_forbidden_ones(office: Office) -> None:
    office.opens(governance=column(office, kind="general genre of goods, icdx"))


def test_c08_refuses_a_column_that_tells_of_illness(office: Office) -> None:
    assert "illness" in office.refuses("C08", governance=column(office, kind="慢性疾病"))


def test_c09_accepts_a_match_that_leaves_enough_people(office: Office, whole_run: World) -> None:
    assert [r.type for r in records(whole_run, "bank")].count("run.completed") == 1


def test_c09_refuses_a_match_that_leaves_too_few_people_and_tells_no_size(office: Office) -> None:
    world, tap = office.world(governance={"min_rest": 200}), Tap()
    # That is all that the coordinator is told.
    with pytest.raises(PolicyRefused, match=r"^bank refused at psi\.match$"):
        world.run(tap)
    (said,) = refusals(world)
    assert said.startswith("C09 minimum match: too few people of bank")
    assert not re.search(r"\d", said.removeprefix("C09"))
    # Nothing that rests on the match left: the last that passed is what the bank found it with.
    assert not any(a.receipt.step == "psi.match" for a in tap.answers)
    types = [r.type for r in records(world, "bank")]
    assert types[-2:] == ["policy.refused", "run.aborted"]


def test_c10_accepts_the_same_list_again(office: Office) -> None:
    world = office.world()
    world.run()
    office.opens(folder=world.folder, job={"name": "second"})


def test_c10_refuses_a_list_that_differs_by_a_few_people(office: Office) -> None:
    world = office.world()
    world.run()
    bank = office.tables["bank"]
    changed = replace(bank, ids=("19999999999", *bank.ids[1:]))
    office.refuses(
        "C10", folder=world.folder, job={"name": "second"}, tables={**office.tables, "bank": changed}
    )


def test_c11_accepts_groups_of_the_partys_own_minimum(office: Office) -> None:
    office.opens(policy={"min_support": 20})


def test_c11_refuses_smaller_groups(office: Office) -> None:
    office.refuses("C11", policy={"min_support": 50})


def test_c12_accepts_scores_of_two_decimals(office: Office) -> None:
    office.opens(policy={"max_decimals": 2})


def test_c12_refuses_finer_scores(office: Office) -> None:
    office.refuses("C12", job={"scores": {"decimals": 4}}, policy={"max_decimals": 2})


NOISE = {
    "model": {"kind": "trees"},
    "trees": {"reveal": "totals", "epsilon": 3.0},
    "disclosures": (*DEFAULT, "NoisyTotals", "ChosenSplits", "TreeShape"),
}


def test_c13_accepts_noise_within_the_partys_budget(office: Office) -> None:
    office.opens(job=NOISE)


def test_c13_refuses_a_larger_budget_than_the_partys_own(office: Office) -> None:
    office.refuses("C13", job=NOISE, policy={"max_epsilon": 4.0})


def test_c14_accepts_an_assessment_of_this_purpose_and_these_parties(office: Office) -> None:
    office.opens()


def test_c14_refuses_one_that_expired(office: Office) -> None:
    impact = terms(office.config)["impact"]
    office.refuses("C14", governance={"impact": impact | {"expires": impact["expires"].replace(year=2020)}})


def test_c15_accepts_three_years_of_records(office: Office) -> None:
    office.opens(governance={"retention": {"record_days": 1096}})


def test_c15_refuses_fewer(office: Office) -> None:
    office.refuses("C15", governance={"retention": {"record_days": 1095}})


def test_c16_accepts_a_list_on_which_nobody_withdrew(office: Office) -> None:
    office.opens(withdrawn=lambda table: np.zeros(len(table.ids), np.bool_))


def test_c16_refuses_one_on_which_somebody_did(office: Office) -> None:
    office.refuses("C16", withdrawn=lambda table: np.arange(len(table.ids)) == 7)


def test_c17_accepts_a_transfer_abroad_that_was_assessed(office: Office) -> None:
    abroad = {"bank": "CN", "partner": "SG", "coordinator": "CN"}
    assessed = terms(office.config)["impact"]
    world = office.opens(governance={"locations": abroad, "countries": ["CN", "SG"], "transfer": assessed})
    (attached,) = [r.body for r in records(world, "bank") if r.type == "assessment.attached"]
    assert attached["sha256"] == assessed["sha256"]


def test_c17_refuses_one_that_was_not(office: Office) -> None:
    abroad = {"bank": "CN", "partner": "SG", "coordinator": "CN"}
    office.refuses("C17", governance={"locations": abroad, "countries": ["CN", "SG"]})


def test_c18_accepts_what_two_people_of_each_party_approved(office: Office) -> None:
    office.opens(approvers=4)


def test_c18_refuses_what_one_of_them_did_not(office: Office) -> None:
    assert "partner: 1 of 2 approvals" in office.refuses("C18", approvers=3)


def test_c19_accepts_use_in_marketing_with_groups_that_the_bank_has(office: Office) -> None:
    office.opens(governance={"groups": ["region", "job"]})


def test_c19_refuses_prices_person_by_person(office: Office) -> None:
    office.refuses("C19", governance={"use": "pricing"})


def test_c20_accepts_scores_with_reasons_that_add_up_to_them(whole_run: World) -> None:
    model = place_in(whole_run.folder, whole_run.contract, "bank").model
    with np.load(model / "reasons.npz") as reasons, np.load(model / "scores.npz") as scores:
        joint, alone = scores["units"] / 100, scores["bank_only"]
        assert reasons["own"].shape == (len(joint), 8) and list(reasons["columns"])[:2] == ["age", "balance"]
        logit = [np.log(p / (1 - p)) for p in (np.clip(joint, 1e-6, 1 - 1e-6), alone)]
        np.testing.assert_allclose(reasons["rest"], logit[0] - logit[1], rtol=1e-5, atol=1e-5)
        # A linear model: two rows' parts differ by as much as their own scores do.
        ours = reasons["own"].sum(1)
        np.testing.assert_allclose(ours - ours[0], logit[1] - logit[1][0], rtol=1e-4, atol=1e-4)


def test_c20_refuses_scores_without_reasons_and_keeps_none(office: Office) -> None:
    def nothing(
        predict: object, numbers: Any, categories: Any, train: Any, released: Any, link: bool
    ) -> Reasons:
        return Reasons(
            ("age",), np.full((len(released), 1), np.nan, np.float32), np.zeros(len(released), np.float32)
        )

    world, tap = office.world(), Tap()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_notes, "find_reasons", nothing)
        with pytest.raises(PolicyRefused, match="bank refused at"):
            world.run(tap)
    assert refusals(world) == ["C20 explanation: no reasons for single scores would be kept with the scores"]
    assert not place_in(world.folder, world.contract, "bank").model.exists()


def test_c21_accepts_the_code_that_is_installed(office: Office) -> None:
    office.opens()


def test_c21_refuses_other_code(office: Office) -> None:
    office.refuses("C21", governance={"code": "00" * 32})


def test_c22_accepts_the_standard_suite(office: Office) -> None:
    office.opens(governance={"suite": "standard"})


def test_c22_refuses_a_suite_that_is_not_built_and_says_why(office: Office) -> None:
    assert "SM2 and SM3" in office.refuses("C22", governance={"suite": "gm"})


ORDINARY = {
    "contract.proposed", "contract.signed", "purpose.declared", "pia.attached", "approval.requested",
    "approval.granted", "policy.loaded", "dataset.opened", "column.granted", "consent.filtered", "optout.applied",
    "minors.filtered", "session.opened", "run.started", "epoch.started", "step.completed", "message.sent",
    "message.received", "value.revealed", "checkpoint.saved", "list.counted", "model.exported", "run.completed",
}  # fmt: skip
"""What the log of each party says of a governed run from its beginning to its end."""


def test_a_governed_run_writes_the_events_of_an_ordinary_run(whole_run: World) -> None:
    found = {name: {r.type: r.body for r in records(whole_run, name)} for name in ("bank", "partner")}
    assert set(found["partner"]) == ORDINARY and set(found["bank"]) == ORDINARY | {"scores.released"}
    terms = whole_run.contract.governance
    assert terms is not None and terms.impact is not None
    bank = found["bank"]
    assert bank["pia.attached"]["sha256"] == terms.impact.sha256
    assert bank["purpose.declared"]["basis"] == {"bank": ["PIPL-13-1"], "partner": ["PIPL-13-1"]}
    assert bank["approval.requested"]["needed"] == 2
    assert bank["approval.requested"]["approvers"][0] == "bank/data-owner: data-owner"
    assert set(bank["session.opened"]["peers"]) == {"partner", "coordinator"}


BODIES = {name: body for name, body in globals().items() if re.match(r"test_c\d\d_", name)}
NUMBERED = [control.id for control in CONTROLS.values() if control.is_numbered]


def refusing(control: str) -> Callable[[Office], None]:
    """Find the body of a control's refusing test."""
    (found,) = (body for name, body in BODIES.items() if name.startswith(f"test_{control.lower()}_refuses"))
    return cast(Callable[[Office], None], found)


def test_there_are_22_controls_each_with_an_accepting_and_a_refusing_test() -> None:
    assert [f"C{n:02}" for n in range(1, 23)] == NUMBERED
    wanted = {f"test_{c.lower()}_{does}" for c in NUMBERED for does in ("accepts", "refuses")}
    assert {re.match(r"test_c\d\d_[a-z]+", name)[0] for name in BODIES} == wanted and len(BODIES) == 44


@pytest.mark.parametrize("control", NUMBERED)
def test_a_mutant_without_this_control_lets_pass_what_its_refusing_test_brings(
    control: str, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = replace(CONTROLS[control], **dict.fromkeys(CONTROLS[control].moments, lambda asked: ()))
    monkeypatch.setattr(registry, "CONTROLS", {**CONTROLS, control: off})
    # Not refused at all: something left, or the run came to its end.
    with pytest.raises((Killed, pytest.fail.Exception)):
        refusing(control)(office)
