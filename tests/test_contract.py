import hashlib
import json
import tomllib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedmkt.contract.agreement import AlignTerms, Contract, Limits, PartyTerms, Signer
from fedmkt.contract.canonical import canonical_bytes, digest
from fedmkt.contract.checks import check_roles
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.model_terms import ModelTerms
from fedmkt.contract.signatures import SignedContract, check_signatures, sign
from fedmkt.crypto.sign import Identity
from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.privacy.disclosure import DEFAULT

IDENTITIES = {name: Identity(bytes([i]) * 32) for i, name in enumerate(("bank", "shop", "telco", "notary"))}
START = datetime(2030, 1, 1, tzinfo=UTC)


def party(name, /, **changes):
    terms = {
        "name": name,
        "organisation": f"{name} ltd",
        "key": IDENTITIES[name].public.hex(),
        "role": "bank" if name == "bank" else "partner",
        "id_kind": "phone",
        "numbers": ("age",),
        "label": "y" if name == "bank" else None,
    }
    return PartyTerms.model_validate(terms | changes)


def contract(**changes):
    terms = {
        "name": "spring",
        "purpose": "cards",
        "family": "cards",
        "created": START,
        "expires": START + timedelta(days=30),
        "coordinator": Signer(name="notary", organisation="Notary", key=IDENTITIES["notary"].public.hex()),
        "parties": (party("bank"), party("shop")),
    }
    return Contract.model_validate(terms | changes)


def signed(agreed):
    names = [signer.name for signer in agreed.signers]
    return SignedContract(
        contract=agreed, signatures={name: sign(agreed, name, IDENTITIES[name]) for name in names}
    )


def test_the_canonical_bytes_are_sorted_json_without_spaces():
    text = canonical_bytes(contract()).decode()
    values = json.loads(text)
    # Whole fractions are written without a point there, so they come back as whole numbers.
    assert json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
    assert values["created"] == "2030-01-01T00:00:00Z"
    assert "label" not in values["parties"][1]


def test_further_kinds_of_ids_are_signed_where_there_are_any():
    assert b"more_kinds" not in canonical_bytes(contract())
    kinds = ("email", "compound:surname+born")
    agreed = contract(parties=tuple(party(name, more_kinds=kinds) for name in ("bank", "shop")))
    assert json.loads(canonical_bytes(agreed))["parties"][0]["more_kinds"] == list(kinds)
    assert from_toml(to_toml(signed(agreed)), "c.toml").contract == agreed
    other = contract(parties=tuple(party(name, more_kinds=kinds[::-1]) for name in ("bank", "shop")))
    assert digest(agreed) != digest(other) != digest(contract())


def test_the_digest_hashes_the_domain_and_the_canonical_bytes():
    agreed = contract()
    assert digest(agreed) == hashlib.sha256(b"fedmkt contract v1\n" + canonical_bytes(agreed)).digest()


def test_version_1_has_exactly_these_fields():
    # A format that changes its meaning gets a new version.
    keys = json.loads(canonical_bytes(contract())).keys()
    assert sorted(keys) == [
        "coordinator", "created", "disclosures", "expires", "family", "limits", "model", "name",
        "parties", "purpose", "scores", "version",
    ]  # fmt: skip


def test_terms_that_came_later_are_left_out_at_what_was_meant_before():
    assert contract(channel="hub", rehearsal=False) == contract()
    added = json.loads(canonical_bytes(contract(channel="flower", rehearsal=True)))
    assert (added.pop("channel"), added.pop("rehearsal")) == ("flower", True)
    assert added == json.loads(canonical_bytes(contract()))


def test_times_are_the_same_whatever_zone_they_were_written_in():
    east = contract(created=datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    assert digest(east) == digest(contract())


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "loans"},
        {"family": "loans"},
        {"expires": START + timedelta(days=31)},
        {"model": ModelTerms(iterations=21)},
        {"limits": Limits(min_common=999)},
        {"disclosures": ("RangeBit",)},
        {"channel": "flower"},
        {"rehearsal": True},
        {"parties": (party("shop"), party("bank"))},
        {"parties": (party("bank", numbers=("income",)), party("shop"))},
    ],
)
def test_any_other_term_gives_another_digest(change):
    assert digest(contract(**change)) != digest(contract())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parties": (party("bank"),)}, "at least 2 items"),
        ({"parties": (party("shop"), party("telco"))}, "exactly one party with role bank"),
        ({"parties": (party("bank"), party("shop", name="bank"))}, "a name of its own"),
        ({"parties": (party("bank"), party("shop", key=party("bank").key))}, "a key of its own"),
        (
            {"parties": (party("bank"), party("shop", organisation=" BANK  Ltd"))},
            "an organisation of its own",
        ),
        (
            {"parties": (party("bank"), party("shop", organisation="\uff22ank ltd"))},
            "an organisation of its own",
        ),
        ({"parties": (party("bank"), party("shop", id_kind="email"))}, "one id_kind"),
        ({"parties": (party("bank"), party("shop", more_kinds=("email",)))}, "the same more_kinds"),
        (
            {"parties": tuple(party(name, more_kinds=("email",)) for name in ("bank", "shop", "telco"))},
            "for one partner",
        ),
        (
            {
                "parties": tuple(party(name, more_kinds=("email",)) for name in ("bank", "shop")),
                "align": AlignTerms(reuse=5),
            },
            "for a single key",
        ),
        ({"expires": START}, "expires after created"),
        ({"created": datetime(2030, 1, 1)}, "with its offset"),
        ({"disclosures": ("RangeBit", "Everything")}, "unknown disclosure 'Everything'"),
        ({"disclosures": ("RangeBit", "RangeBit")}, "every disclosure once"),
        ({"name": "Spring"}, "match pattern"),
        ({"name": "all"}, "names no one"),
        ({"channel": "pigeon"}, "'hub' or 'flower'"),
        ({"rehearsal": 1}, "valid boolean"),
        ({"purpose": "a\nb"}, "printable"),
        ({"version": 2}, "should be 1"),
        ({"more": 1}, "not permitted"),
    ],
)
def test_a_contract_that_cannot_hold_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        contract(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "partner"}, "only the bank, has a label"),
        ({"numbers": ("age", "age")}, "every column once"),
        ({"categories": ("age",)}, "every column once"),
        ({"label": "age"}, "every column once"),
        ({"id_kind": "name"}, "'phone', 'email'"),
        ({"more_kinds": ("name",)}, "such a kind with :name"),
        ({"more_kinds": ("compound",)}, "compound:part"),
        ({"more_kinds": ("compound:a",)}, "compound:part"),
        ({"more_kinds": ("compound:a+",)}, "compound:part"),
        ({"more_kinds": ("email:",)}, "such a kind with :name"),
        ({"more_kinds": ("email: x",)}, "such a kind with :name"),
        ({"more_kinds": ("email:a\nb",)}, "printable"),
        ({"more_kinds": ("phone",)}, "every kind of id once"),
        ({"more_kinds": ("email", "email")}, "every kind of id once"),
        ({"more_kinds": tuple(f"raw:{n}" for n in range(5))}, "at most 4"),
        ({"key": "AB" * 32}, "match pattern"),
    ],
)
def test_party_terms_that_cannot_hold_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        party("bank", **change)


COUNTED = {"label": None, "numbers": ()}
OVERLAP = {"task": "overlap", "disclosures": ("ListSize", "SetSize")}


def test_a_contract_that_only_counts_has_no_columns_and_discloses_lengths_and_bands():
    counts = contract(parties=(party("bank", **COUNTED), party("shop", **COUNTED)), **OVERLAP)
    assert counts.bank.columns == () and b'"task":"overlap"' in canonical_bytes(counts)
    assert from_toml(to_toml(SignedContract(contract=counts)), "c").contract == counts
    assert b"task" not in canonical_bytes(contract()) and "task" not in to_toml(signed(contract()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parties": (party("bank", label=None), party("shop"))}, "only the bank, has a label"),
        ({"parties": (party("bank"), party("shop", numbers=()))}, "at least one column"),
        (OVERLAP, "no column and no label"),
        (
            OVERLAP | {"parties": (party("bank", numbers=()), party("shop", **COUNTED))},
            "no column and no label",
        ),
        (
            {"task": "overlap", "parties": (party("bank", **COUNTED), party("shop", **COUNTED))},
            "of ListSize, SetSize: the task only counts",
        ),
        (
            OVERLAP
            | {
                "parties": (party("bank", **COUNTED), party("shop", **COUNTED)),
                "model": ModelTerms(iterations=3),
            },
            "left out: the task only counts",
        ),
        ({"task": "count"}, "'train' or 'overlap'"),
    ],
)
def test_columns_and_disclosures_are_those_of_the_task(change, message):
    with pytest.raises(ValidationError, match=message):
        contract(**change)


def test_a_mistake_about_one_party_names_its_place_in_the_file():
    text = to_toml(signed(contract())).replace('numbers = ["age"]', "numbers = []", 1)
    with pytest.raises(ConfigError, match=r"^c: parties\[0\]: accepted: at least one column"):
        from_toml(text, "c")


@pytest.mark.parametrize(
    "change",
    [{"penalty": 0.05}, {"penalty": float("nan")}, {"period": 48}, {"iterations": True}, {"iterations": "9"}],
)
def test_model_terms_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        ModelTerms.model_validate(change)


def test_terms_cannot_be_changed_after_they_were_made():
    with pytest.raises(ValidationError, match="frozen"):
        contract().purpose = "loans"


def test_a_coordinator_of_a_party_is_refused():
    own = Signer(name="notary", organisation="Shop LTD", key=IDENTITIES["notary"].public.hex())
    with pytest.raises(PolicyRefused, match="the coordinator belongs to 'shop ltd'"):
        check_roles(contract(coordinator=own))


def test_a_coordinator_with_the_key_of_a_party_is_refused():
    own = Signer(name="notary", organisation="Notary", key=IDENTITIES["shop"].public.hex())
    with pytest.raises(PolicyRefused, match="signs with the key of shop"):
        check_roles(contract(coordinator=own))


def test_a_coordinator_of_its_own_is_accepted():
    check_roles(contract())


def test_a_contract_signed_by_all_is_accepted_with_one_partner_and_with_two():
    check_signatures(signed(contract()))
    check_signatures(signed(contract(parties=(party("bank"), party("shop"), party("telco")))))


@pytest.mark.parametrize("name", ["bank", "shop", "notary"])
def test_a_contract_that_one_signer_has_not_signed_is_refused(name):
    full = signed(contract())
    rest = {other: value for other, value in full.signatures.items() if other != name}
    with pytest.raises(PolicyRefused, match=f"missing {name}"):
        check_signatures(SignedContract(contract=full.contract, signatures=rest))


def test_a_signature_of_a_stranger_is_refused():
    full = signed(contract())
    more = {**full.signatures, "telco": full.signatures["bank"]}
    with pytest.raises(PolicyRefused, match="extra telco"):
        check_signatures(SignedContract(contract=full.contract, signatures=more))


def test_a_signature_for_another_contract_is_refused():
    other = signed(contract(purpose="loans"))
    with pytest.raises(PolicyRefused, match="signature of bank"):
        check_signatures(SignedContract(contract=contract(), signatures=other.signatures))


def test_nobody_signs_in_anothers_name():
    with pytest.raises(ValueError, match="no signer 'bank'"):
        sign(contract(), "bank", IDENTITIES["shop"])


def test_the_file_of_a_signed_contract_is_read_back_with_the_same_digest():
    full = signed(contract(model=ModelTerms(penalty=2.5), channel="flower", rehearsal=True))
    again = from_toml(to_toml(full), "contract.toml")
    assert again == full
    assert digest(again.contract) == digest(full.contract)
    assert to_toml(again) == to_toml(full)


@given(st.text(min_size=1, max_size=60).filter(str.isprintable), st.floats(0.1, 1e9))
def test_any_name_and_number_survives_the_file(purpose, penalty):
    agreed = contract(purpose=purpose, model=ModelTerms(penalty=penalty), parties=(
        party("bank", numbers=(purpose + "!",)), party("shop")))  # fmt: skip
    again = from_toml(to_toml(SignedContract(contract=agreed)), "contract.toml")
    assert canonical_bytes(again.contract) == canonical_bytes(agreed)


def test_the_file_is_toml_that_another_reader_understands():
    values = tomllib.loads(to_toml(signed(contract())))
    assert values["parties"][0]["label"] == "y"
    assert values["created"] == START


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('purpose = "cards"', "", "c.toml: purpose: missing"),
        ('purpose = "cards"', "purpose = 3", "c.toml: purpose = 3: accepted: a valid string"),
        (
            "penalty = 1.0",
            "penalty = 0.0",
            "c.toml: model.penalty = 0.0: accepted: greater than or equal to 0.1",
        ),
        ("penalty = 1.0", "penalt = 1.0", "c.toml: model.penalt: unknown key; accepted: checkpoint_every, "),
        ('label = "y"', "labl = 1", "c.toml: parties[0].labl: unknown key; accepted: categories, "),
        ('id_kind = "phone"', 'id_kind = "x"', "c.toml: parties[0].id_kind = \"x\": accepted: 'phone', "),
        ('bank = "', 'bank = "x', "c.toml: signatures.bank = "),
        ("version = 1", '"\\u001b[2J" = 1', "c.toml: '\\x1b[2J': unknown key; accepted: "),
        ("version = 1", "version = [", "c.toml: not TOML: "),
        ("version = 1", "version = " + "[" * 5000, "c.toml: not TOML: "),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_file_key_value_and_what_is_accepted(old, new, message):
    text = to_toml(signed(contract()))
    assert old in text
    with pytest.raises(ConfigError) as caught:
        from_toml(text.replace(old, new, 1), "c.toml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


TREES = {
    "model": {"kind": "trees"},
    "trees": {"reveal": "sides"},
    "disclosures": (*DEFAULT, "HistogramTotals", "SplitSides", "ChosenSplits", "TreeShape"),
}


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


def test_early_stopping_is_disclosed_and_leaves_the_bytes_of_other_trees_as_they_were():
    plain = canonical_bytes(contract(**TREES))
    assert b"patience" not in plain and b"validation_fraction" not in plain
    stops = TREES | {"trees": {"reveal": "sides", "patience": 5}}
    with pytest.raises(ValidationError, match="needs StopBits too"):
        contract(**stops)
    shared = stops | {"trees": {"patience": 5}}
    told = (*TREES["disclosures"], "CellBits", "BinCounts", "BinTotals", "StopBits")
    with pytest.raises(ValidationError, match="needs ValidationLosses too"):
        contract(**(shared | {"disclosures": told}))
    assert contract(**(shared | {"disclosures": (*told, "ValidationLosses")})).trees.patience == 5
    agreed = contract(**(stops | {"disclosures": (*TREES["disclosures"], "StopBits")}))
    assert from_toml(to_toml(signed(agreed)), "c.toml").contract == agreed
    assert b'"patience":5' in canonical_bytes(agreed) and b"validation_fraction" not in canonical_bytes(
        agreed
    )


def test_the_terms_of_trees_leave_the_digest_of_other_contracts_as_it_was():
    assert not {"trees", "bins"} & set(json.loads(canonical_bytes(contract())))
    other = contract(**(TREES | {"trees": {"reveal": "sides", "class_weights": (1.0, 2.0)}}))
    assert "epsilon" not in canonical_bytes(other).decode()
    assert len({digest(contract(**TREES)), digest(other), digest(contract())}) == 3


def test_checked_shares_are_a_term_of_their_own_and_left_out_where_they_are_not():
    """Contracts of trees that were signed before it was one keep their digest."""
    sides = contract(**TREES)
    assert b"checked_shares" not in canonical_bytes(sides) and "checked_shares" not in to_toml(signed(sides))
    kinds = (*TREES["disclosures"], "CellBits", "BinCounts", "BinTotals")
    plain, agreed = (
        contract(**(TREES | {"trees": {"checked_shares": c}, "disclosures": kinds})) for c in (False, True)
    )
    assert b'"checked_shares":true' in canonical_bytes(agreed) and digest(plain) != digest(agreed)
    assert from_toml(to_toml(signed(agreed)), "c.toml").contract == agreed
    with pytest.raises(ValidationError, match="checked_shares is for reveal = totals"):
        contract(**(TREES | {"trees": {"reveal": "sides", "checked_shares": True}}))


def test_terms_of_the_glm_family_are_left_out_where_they_are_not_used():
    plain = canonical_bytes(contract())
    assert not any(word in plain for word in (b"offset", b'"weight"', b"class_weights"))
    assert contract(model=ModelTerms(max_offset=8.0)) == contract()
    agreed = contract(
        parties=(party("bank", offset="o", weight="w"), party("shop")),
        model=ModelTerms(class_weights=(1.0, 5.0), max_offset=4.0),
    )
    assert agreed.bank.columns == ("age", "o", "w", "y")
    again = from_toml(to_toml(signed(agreed)), "c.toml")
    assert again.contract == agreed
    assert digest(again.contract) == digest(agreed)


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


PATH = (*DEFAULT, "PenaltyCurve", "ChosenPenalty")


def test_a_contract_with_one_penalty_has_the_bytes_that_it_had_before_there_were_paths():
    text = canonical_bytes(contract())
    assert not any(name in text for name in (b"penalties", b"path_passes", b"validation_fraction"))
    tried = contract(model=ModelTerms(penalties=(1.0, 100.0)), disclosures=PATH)
    assert json.loads(canonical_bytes(tried))["model"]["penalties"] == [1, 100]
    assert from_toml(to_toml(signed(tried)), "f").contract == tried
    assert tried.model.path == (100.0, 1.0) and tried.model.least_penalty == 1.0


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
