from datetime import UTC, datetime

import pytest

from fedmkt.config.drafts import draft_contract, simulated_party
from fedmkt.config.files import parse_job, parse_party
from fedmkt.config.job import overlap_of
from fedmkt.contract.checks import check_roles
from fedmkt.errors import ConfigError
from fedmkt.privacy.disclosure import DEFAULT

JOB = """
name = "spring"
purpose = "cards"

[bank]
name = "bank"
organisation = "First Bank"
file = "bank.csv"
id = "phone"
id_kind = "phone"
country = "41"
label = "answered"
numbers = ["age", "balance"]
categories = ["job"]

[[partners]]
name = "shop"
organisation = "Shop GmbH"
file = "shop.csv"
id = "tel"
id_kind = "phone"
numbers = ["spent"]

[limits]
min_list = 100
min_common = 50
"""
NOW = datetime(2030, 1, 1, 12, 30, 15, 250_000, tzinfo=UTC)
KEYS = {name: bytes([i + 1]) * 32 for i, name in enumerate(("bank", "shop", "coordinator"))}
PARTY = """
name = "shop"
organisation = "Shop GmbH"
[pinned]
bank = "{bank}"
shop = "{shop}"
coordinator = "{coordinator}"
[policy]
purposes = ["cards"]
columns = ["spent"]
""".format(**{name: key.hex() for name, key in KEYS.items()})


def test_a_job_file_is_read_with_defaults_for_what_it_leaves_out():
    job = parse_job(JOB, "job.toml")
    assert (job.bank.label, job.bank.country, job.partners[0].numbers) == ("answered", "41", ("spent",))
    assert job.limits.min_list == 100
    assert job.model.iterations == 20
    assert job.disclosures == DEFAULT
    assert job.party("shop") is job.partners[0]


def test_the_drafted_contract_says_what_the_job_says():
    contract = draft_contract(parse_job(JOB, "job.toml"), KEYS, NOW)
    assert contract.bank.columns == ("age", "balance", "job", "answered")
    assert [partner.name for partner in contract.partners] == ["shop"]
    assert contract.bank.key == KEYS["bank"].hex()
    assert contract.created == NOW.replace(microsecond=0)
    assert (contract.expires - contract.created).days == 30
    assert contract.family == "spring"
    assert contract.limits.min_common == 50
    check_roles(contract)


def test_a_job_that_only_counts_needs_neither_columns_nor_label():
    bare = JOB.replace('numbers = ["age", "balance"]\n', "").replace('label = "answered"\n', "")
    bare = 'task = "overlap"\n' + bare.replace('categories = ["job"]\n', "").replace(
        'numbers = ["spent"]\n', ""
    )
    with pytest.raises(ConfigError, match=r"^job\.toml: bank\.label: missing"):
        parse_job(bare.replace('task = "overlap"\n', ""), "job.toml")
    drafted = draft_contract(parse_job(bare, "job.toml"), KEYS, NOW)
    assert drafted == draft_contract(overlap_of(parse_job(JOB, "job.toml")), KEYS, NOW)
    assert (drafted.task, drafted.disclosures) == ("overlap", ("ListSize", "SetSize"))
    assert [p.columns for p in drafted.parties] == [(), ()]
    assert [p.role for p in drafted.parties] == ["bank", "partner"]


def test_a_draft_needs_the_keys_of_exactly_all_signers():
    job = parse_job(JOB, "job.toml")
    with pytest.raises(ValueError, match="keys of exactly"):
        draft_contract(job, {"bank": bytes(32)}, NOW)
    with pytest.raises(ValueError, match="keys of exactly"):
        draft_contract(job, {**KEYS, "eve": bytes(32)}, NOW)


def test_a_draft_whose_parties_are_one_organisation_is_a_mistake_of_the_job():
    job = parse_job(JOB.replace("Shop GmbH", "first bank"), "job.toml")
    with pytest.raises(ConfigError, match="an organisation of its own"):
        draft_contract(job, KEYS, NOW)


MORE = """more_ids = [
    { kind = "email", column = "mail" },
    { kind = "phone", column = "home", name = "landline" },
    { kind = "compound", columns = ["surname", "born"] },
]
"""
MORE_OF_SHOP = MORE.replace('["surname", "born"]', '["last", "birthday"], name = "surname+born"')


def with_more(bank=MORE, shop=MORE_OF_SHOP):
    job = JOB.replace('label = "answered"\n', 'label = "answered"\n' + bank)
    return job.replace('id = "tel"\n', 'id = "tel"\n' + shop)


def test_further_ids_are_agreed_by_kind_and_read_from_own_columns():
    job = parse_job(with_more(), "job.toml")
    assert [key.parts for key in job.partners[0].more_ids] == [("mail",), ("home",), ("last", "birthday")]
    contract = draft_contract(job, KEYS, NOW)
    kinds = ("email", "phone:landline", "compound:surname+born")
    assert [party.more_kinds for party in contract.parties] == [kinds, kinds]
    assert contract.bank.id_kinds == ("phone", *kinds)


def test_parties_with_other_further_ids_make_no_contract():
    with pytest.raises(ConfigError, match="the same more_kinds in the same order"):
        draft_contract(parse_job(with_more(shop=""), "job.toml"), KEYS, NOW)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'column = "mail"',
            'colunm = "mail"',
            "more_ids[0].colunm: unknown key; accepted: column, columns, kind, name",
        ),
        ('column = "mail"', 'columns = ["a", "b"]', 'accepted: column = "one"'),
        ('kind = "email"', 'kind = "mail"', "more_ids[0].kind = \"mail\": accepted: 'phone', "),
        ('["surname", "born"]', '["surname"]', "for a compound key"),
        ('["surname", "born"]', '["surname", "surname"]', "for a compound key"),
        ('["surname", "born"]', '["surname", "born"], name = "surname"', "as many parts as columns"),
        ('["surname", "born"]', '["surname", "age"]', "no column of a key among numbers"),
        ('column = "mail"', 'column = "phone"', "every key once"),
        ('name = "landline"', 'name = "a+b"', "such a kind with :name"),
    ],
)
def test_a_mistake_in_a_further_id_is_one_line(old, new, message):
    with pytest.raises(ConfigError) as caught:
        parse_job(with_more(bank=MORE.replace(old, new)), "job.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("job.toml: bank")


def test_a_simulated_party_grants_its_own_columns_and_the_purpose():
    job = parse_job(JOB + "[policy]\nmin_list = 200\nmax_resumes = 0\n", "job.toml")
    config = simulated_party(job, "bank", KEYS)
    assert config.policy.purposes == ("cards",)
    assert config.policy.columns == ("age", "balance", "job", "answered")
    assert (config.policy.min_list, config.policy.min_common, config.policy.max_resumes) == (200, 50, 0)
    assert config.pinned == {name: key.hex() for name, key in KEYS.items()}


def test_a_party_file_is_read_and_grants_nothing_that_it_does_not_name():
    config = parse_party(PARTY, "party.toml")
    assert (config.policy.purposes, config.policy.columns, config.policy.min_list) == (
        ("cards",),
        ("spent",),
        1000,
    )
    bare = parse_party(PARTY.split("[policy]")[0], "party.toml")
    assert (bare.policy.purposes, bare.policy.columns) == ((), ())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "spring"', "", "job.toml: name: missing"),
        ('name = "spring"', 'name = "Spring"', 'job.toml: name = "Spring": accepted: '),
        ('name = "spring"', "nmae = 1", "job.toml: "),
        ('label = "answered"', "", "job.toml: bank.label: missing"),
        ('label = "answered"', 'label = "age"', "job.toml: bank: accepted: every column once"),
        ('id = "tel"', 'id = "spent"', "job.toml: partners[0]: accepted: every column once"),
        ('numbers = ["spent"]', "", "job.toml: partners[0]: accepted: at least one column"),
        ('numbers = ["spent"]', 'numbers = "spent"', 'job.toml: partners[0].numbers = "spent": accepted: '),
        ('country = "41"', 'country = "ch"', 'job.toml: bank.country = "ch": accepted: '),
        ('id_kind = "phone"', 'id_kind = "tel"', "job.toml: bank.id_kind = \"tel\": accepted: 'phone', "),
        ('name = "shop"', 'name = "bank"', "job.toml: file: accepted: bank, partners and coordinator each "),
        (
            'name = "shop"',
            'name = "coordinator"',
            "job.toml: file: accepted: bank, partners and coordinator ",
        ),
        (
            "min_list = 100",
            "min_list = 0",
            "job.toml: limits.min_list = 0: accepted: greater than or equal to 1",
        ),
        ("min_list = 100", "min_list = 1.5", "job.toml: limits.min_list = 1.5: accepted: a valid integer"),
        ("min_list = 100", "min_lst = 1", "job.toml: limits.min_lst: unknown key; accepted: max_common, "),
        ("[limits]", "[limit]", "job.toml: limit: unknown key; accepted: additive, align, auditor, "),
        (
            "[limits]",
            "disclosures = 1\n[limits]",
            "job.toml: partners[0].disclosures: unknown key; accepted: ",
        ),
        (
            'purpose = "cards"',
            'purpose = "cards"\ndisclosures = ["X"]',
            'job.toml: disclosures[0] = "X": accepted: ',
        ),
        ("[[partners]]", "[partners]", "job.toml: partners: accepted: a valid tuple"),
        ("[bank]", "[bank", "job.toml: not TOML: "),
        ('purpose = "cards"', 'purpose = "cards\\u0000"', "job.toml: purpose = "),
        ('purpose = "cards"', "purpose = 1" + "0" * 5000, "job.toml: not TOML: "),
    ],
)
def test_a_mistake_in_a_job_is_one_line_with_file_key_value_and_what_is_accepted(old, new, message):
    assert old in JOB
    with pytest.raises(ConfigError) as caught:
        parse_job(JOB.replace(old, new, 1), "job.toml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('organisation = "Shop GmbH"', "", "party.toml: organisation: missing"),
        ("purposes =", "purpose =", "party.toml: policy.purpose: unknown key; accepted: auditors, columns, "),
        ('bank = "01', 'bank = "x1', "party.toml: pinned.bank = "),
        ("bank =", "Bank =", "party.toml: pinned.Bank"),
    ],
)
def test_a_mistake_in_a_party_file_is_one_line(old, new, message):
    assert old in PARTY
    with pytest.raises(ConfigError) as caught:
        parse_party(PARTY.replace(old, new, 1), "party.toml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
