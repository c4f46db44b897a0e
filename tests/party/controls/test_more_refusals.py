"""The further reasons for which a control refuses, besides the one of its test in test_controls."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.party.controls.office import Office, make_office, terms
from tests.party.controls.test_controls import column, datasets


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return make_office(tmp_path_factory.mktemp("office"))


def _impact(office: Office, **changes: object) -> dict[str, Any]:
    return {"impact": terms(office.config)["impact"] | changes}


CASES: dict[str, tuple[str, Callable[[Office], dict[str, Any]], str]] = {
    "a purpose that the party does not allow": (
        "C01",
        lambda office: {"policy": {"purposes": ("other",)}},
        "'marketing-response' is not allowed by bank",
    ),
    "a grant of any column": (
        "C06",
        lambda office: {"governance": column(office, name="ord*")},
        "'ord*' of partner names no single column",
    ),
    "a group that is no column": (
        "C19",
        lambda office: {"governance": {"groups": ["hair"]}},
        "group 'hair' is no column of bank",
    ),
    "no assessment": ("C14", lambda office: {"governance": {"impact": None}}, "is named"),
    "an assessment of another purpose": (
        "C14",
        lambda office: {"governance": _impact(office, purpose="other")},
        "is for 'other', the contract for 'marketing-response'",
    ),
    "an assessment of one party": (
        "C14",
        lambda office: {"governance": _impact(office, parties=["bank"])},
        "does not cover partner",
    ),
    "records of transport for a day": (
        "C15",
        lambda office: {"governance": {"retention": {"transport_days": 1}}},
        "transport_days = 1, the law asks for",
    ),
    "results kept longer than the data may be": (
        "C15",
        lambda office: {"governance": datasets(office, retention_days=30) | {"retention": {"result_days": 31}}},
        "results are kept 31 days, the dataset of partner allows",
    ),
    "a party in a country that is not named": (
        "C17",
        lambda office: {
            "governance": {"locations": {"bank": "CN", "partner": "SG", "coordinator": "CN"}, "countries": ["CN"]}
        },
        "partner is in SG, allowed: CN",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_control_refuses_for_each_of_its_reasons(office: Office, name: str) -> None:
    control, changed, said = CASES[name]
    assert said in office.refuses(control, **changed(office))
