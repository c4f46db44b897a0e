import hashlib
import json
import os
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmkt.contract.agreement import Signer
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.signatures import SignedContract, check_signatures, sign
from fedmkt.deploy import contracts
from fedmkt.deploy.contracts import (
    check_own_terms,
    collect_keys,
    draft,
    merge_contracts,
    open_participant,
    read_contract,
    sign_contract,
    verify_contract,
    write_draft,
)
from fedmkt.deploy.papers import Coordinator, Versions, encode
from fedmkt.deploy.sheet import _SECTIONS, READERS, Sheet
from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.party import journal
from fedmkt.party.controls.registry import CONTROLS
from fedmkt.party.policy import Policy
from fedmkt.privacy.disclosure import DEFAULT, REGISTRY, plain_text_of
from fedmkt.report.logs import disclosures
from fedmkt.simulation.run import RunResult
from tests.deploy.signers import EVE, IDENTITIES, JOB, KEYS, write_all, write_coordinator, write_party

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return write_all(tmp_path)


def drafted(folder: Path, job: str = JOB, keys=KEYS, name: str = "spring.contract.toml") -> Path:
    (folder / "job.toml").write_text(job)
    path = folder / name
    write_draft(draft(folder / "job.toml", keys, NOW), path)
    return path


def signed_by(path: Path, *folders: Path, now: datetime = NOW) -> Path:
    for folder in folders:
        shown = Sheet(read_contract(path), now)
        sign_contract(path, open_participant(folder, shown.contract), shown, now)
    return path


def refusal(path: Path, folder: Path, now: datetime = NOW) -> str:
    before = path.read_bytes()
    with pytest.raises(PolicyRefused) as caught:
        signed_by(path, folder, now=now)
    assert path.read_bytes() == before
    return str(caught.value)


def altered(path: Path, old: str, new: str) -> Path:
    """Change the text as somebody with an editor would."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return path


def test_a_contract_goes_from_a_job_to_the_signatures_of_all(tmp_path, folders):
    path = signed_by(drafted(tmp_path), *folders.values())
    sheet = verify_contract(path, NOW, pinned=KEYS)
    assert sheet.is_complete and sheet.missing == ()
    check_signatures(from_toml(path.read_text(), "x"))
    for folder in folders.values():
        assert verify_contract(path, NOW, folder=folder) == sheet
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_signed_contract_is_what_every_run_would_accept(tmp_path, folders):
    path = signed_by(drafted(tmp_path), *folders.values())
    signed = read_contract(path)
    for folder in folders.values():
        Policy(open_participant(folder, signed.contract).settings).check_contract(signed, NOW)


def test_signatures_are_the_same_in_whatever_order_they_come(tmp_path, folders):
    one = signed_by(drafted(tmp_path, name="a.toml"), *folders.values())
    two = signed_by(drafted(tmp_path, name="b.toml"), *reversed(folders.values()))
    assert one.read_bytes() == two.read_bytes()


def test_signing_twice_changes_nothing(tmp_path, folders):
    path = signed_by(drafted(tmp_path), folders["bank"])
    before = path.stat()
    signed_by(path, folders["bank"])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_keys_come_from_pins_from_text_in_any_case_and_must_agree(tmp_path, folders):
    assert collect_keys({}, folders["bank"]) == KEYS == collect_keys({}, folders["relay"])
    assert collect_keys({"bank": KEYS["bank"].upper()}, None) == {"bank": KEYS["bank"]}
    with pytest.raises(PolicyRefused, match="the key given for shop is not the pinned one"):
        collect_keys({"shop": EVE.public.hex()}, folders["bank"])
    with pytest.raises(ConfigError, match=r"no\.request: no such file"):
        collect_keys({"shop": str(tmp_path / "no.request")}, None)


def test_a_draft_needs_the_key_of_every_signer_and_says_whose_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="no identity key of shop, relay"):
        drafted(tmp_path, keys={"bank": KEYS["bank"]})


@pytest.mark.parametrize("days", [0, -1, 3661])
def test_a_draft_is_valid_for_a_sensible_time_only(tmp_path, days):
    (tmp_path / "job.toml").write_text(JOB)
    with pytest.raises(ConfigError, match="accepted: 1 to 3660"):
        draft(tmp_path / "job.toml", KEYS, NOW, days)
    assert draft(tmp_path / "job.toml", KEYS, NOW, 7).contract.expires == NOW + timedelta(days=7)


def test_a_draft_never_takes_the_place_of_a_file(tmp_path):
    path = drafted(tmp_path)
    with pytest.raises(ConfigError, match="exists already"):
        drafted(tmp_path)
    (tmp_path / "link.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists already"):
        drafted(tmp_path, name="link.toml")
    assert Sheet(read_contract(path), NOW).missing == ("bank", "shop", "relay")


@pytest.mark.parametrize("organisation", ["First Bank", "FIRST  bank", "\uff26irst Bank"])
def test_a_coordinator_of_a_partys_organisation_is_refused_at_the_draft_and_at_every_signature(
    tmp_path, folders, organisation
):
    job = JOB.replace("Notary AG", organisation)
    with pytest.raises(PolicyRefused, match="the coordinator belongs to 'First Bank'"):
        drafted(tmp_path, job)
    path = drafted(tmp_path)
    altered(path, "Notary AG", organisation)  # as somebody without our commands would write it
    assert "the coordinator belongs to" in refusal(path, folders["bank"])
    assert any("belongs to" in text for text in Sheet(read_contract(path), NOW).warnings)


def test_a_name_in_two_alphabets_is_pointed_out(tmp_path):
    path = drafted(tmp_path, JOB.replace("Notary AG", "First B\u0430nk"))  # Cyrillic a
    (warning,) = Sheet(read_contract(path), NOW).warnings
    assert "mixes alphabets (Cyrillic, Latin)" in warning


AUDITOR = f"""
[auditor]
name = "auditor"
organisation = "Audit House"
key = "{EVE.public.hex()}"
seal_key = "{32 * "ab"}"
"""

# What each signer refuses to sign: the job, more lines of the bank's policy.toml, the time.
REFUSED = {
    "signers-pinned": (JOB, "", NOW, {**KEYS, "shop": EVE.public.hex()}),
    "own-terms": (JOB.replace("First Bank", "Other Bank"), "", NOW, KEYS),
    "C01 purpose limitation": (JOB.replace('"cards"', '"loans"'), "", NOW, KEYS),
    "C06 least columns": (JOB.replace('["age"]', '["age", "more"]'), "", NOW, KEYS),
    "not-expired": (JOB, "", NOW + timedelta(days=30), KEYS),
    "rehearsal": ("rehearsal = true" + JOB, "", NOW, KEYS),
    "C09 minimum match": (JOB, "min_list = 2000\n", NOW, KEYS),
    "maximum-common": (JOB, "max_common = 5000\n", NOW, KEYS),
    "repetitions": (JOB, "max_runs = 1\n", NOW, KEYS),
    "C13 DP budget": (
        JOB + '[model]\nkind = "trees"\n[trees]\nepsilon = 3.0\n',
        "max_epsilon = 3.0\n",
        NOW,
        KEYS,
    ),
    "auditor": (JOB + AUDITOR, 'disclosures = ["DealerSeeds"]\n', NOW, KEYS),
    "governance": (JOB, "require_governance = true\n", NOW, KEYS),
    "disclosures": (JOB, 'disclosures = ["ListSize"]\n', NOW, KEYS),
}


def test_every_rule_of_a_run_is_asked_before_signing():
    # The others have tests of their own: signatures may be missing, and the coordinator is told by name.
    asked = {c.id for c in CONTROLS.values() if c.contract and not c.is_numbered}
    assert asked <= set(REFUSED) | {"signatures", "coordinator-apart", "revoked", "replaced"}


@pytest.mark.parametrize("rule", REFUSED)
def test_nobody_signs_what_a_run_would_refuse(tmp_path, rule):
    job, policy, now, keys = REFUSED[rule]
    bank = write_party(tmp_path / "bank", "bank", policy=policy)
    assert refusal(drafted(tmp_path, job, keys), bank, now).startswith(
        f"{rule}: " if rule[0] == "C" else f"rule {rule}: "
    )


def test_the_coordinator_signs_by_its_own_policy_and_for_admitted_parties_only(tmp_path, folders):
    assert refusal(drafted(tmp_path, JOB.replace('"cards"', '"loans"')), folders["relay"]).startswith(
        "C01 purpose limitation"
    )
    other = drafted(tmp_path, keys={**KEYS, "shop": EVE.public.hex()}, name="eve.toml")
    assert "the key of shop is not the pinned one" in refusal(other, folders["relay"])
    stranger = JOB.replace('name = "shop"', 'name = "telco"')
    keys = {"bank": KEYS["bank"], "telco": KEYS["shop"], "relay": KEYS["relay"]}
    assert "telco is not admitted" in refusal(drafted(tmp_path, stranger, keys, "t.toml"), folders["relay"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"age"', '"age", "more"', "numbers is age in the contract, age, more in schema.toml"),
        ('"answered"', '"bought"', "label is answered in the contract, bought in schema.toml"),
        ('id_kind = "phone"', 'id_kind = "email"', "id_kind is phone in the contract, email in"),
        ('label = "answered"\n', "", "label is answered in the contract, nothing in"),
    ],
)
def test_a_contract_about_other_columns_than_those_of_the_own_table_is_refused(
    tmp_path, folders, old, new, message
):
    altered(folders["bank"] / "schema.toml", old, new)
    assert message in refusal(drafted(tmp_path), folders["bank"])


def test_a_folder_with_another_key_than_the_contract_names_does_not_sign(tmp_path, folders):
    (folders["bank"] / "keys" / "identity.key").write_bytes(EVE.secret_bytes())
    assert "not the key that the contract has for bank" in refusal(drafted(tmp_path), folders["bank"])


def test_a_rehearsal_is_signed_only_where_the_policy_allows_rehearsals_and_is_shown_in_capitals(tmp_path):
    path = drafted(tmp_path, "rehearsal = true" + JOB)
    bank = write_party(tmp_path / "bank", "bank", policy="rehearsals = true\n")
    signed_by(path, bank)
    sheet = Sheet(read_contract(path), NOW)
    assert "FOR INVENTED DATA ONLY" in "\n".join(sheet.lines()) and sheet.to_json()["rehearsal"] is True


# Attacks on the file.


def test_a_text_changed_under_a_signature_is_refused_by_the_next_signer_and_named(tmp_path, folders):
    path = altered(signed_by(drafted(tmp_path), folders["bank"]), "min_list = 1000", "min_list = 1001")
    assert refusal(path, folders["shop"]) == "the signature of bank on the contract does not verify"
    sheet = Sheet(read_contract(path), NOW)
    assert sheet.missing == ("bank", "shop", "relay")
    shown = "\n".join(sheet.lines())
    assert "bank:        DOES NOT VERIFY" in shown and "bank:        signed" not in shown


def test_a_signature_of_another_contract_is_refused(tmp_path, folders):
    other = signed_by(drafted(tmp_path, JOB.replace('"spring"', '"autumn"'), name="o.toml"), folders["bank"])
    path = drafted(tmp_path)
    signed = read_contract(path)
    moved = signed.model_copy(update={"signatures": read_contract(other).signatures})
    path.write_text(to_toml(moved))
    assert "signature of bank" in refusal(path, folders["shop"])


def test_signatures_under_swapped_names_are_refused(tmp_path, folders):
    path = signed_by(drafted(tmp_path), folders["bank"], folders["shop"])
    signed = read_contract(path)
    swapped = {"bank": signed.signatures["shop"], "shop": signed.signatures["bank"]}
    path.write_text(to_toml(signed.model_copy(update={"signatures": swapped})))
    assert "signature of bank" in refusal(path, folders["relay"])
    with pytest.raises(PolicyRefused, match="missing relay"):
        verify_contract(path, NOW)


def test_a_signature_of_a_stranger_is_refused_and_never_shown_as_one(tmp_path, folders):
    path = drafted(tmp_path)
    signed = read_contract(path)
    path.write_text(
        to_toml(signed.model_copy(update={"signatures": {"eve": EVE.sign(digest(signed.contract)).hex()}}))
    )
    assert "signature of eve" in refusal(path, folders["bank"])
    assert "IS NO SIGNER" in "\n".join(Sheet(read_contract(path), NOW).lines())


def test_a_key_of_an_attacker_in_a_partys_place_is_refused_by_everyone_who_pinned_the_true_one(
    tmp_path, folders
):
    path = drafted(tmp_path, keys={**KEYS, "shop": EVE.public.hex()})
    signed = read_contract(path)
    forged = signed.model_copy(update={"signatures": {"shop": sign(signed.contract, "shop", EVE)}})
    path.write_text(to_toml(forged))
    for name in ("bank", "shop", "relay"):
        assert "the key of shop is not the pinned one" in refusal(path, folders[name])
    full = {n: sign(signed.contract, n, EVE if n == "shop" else i) for n, i in IDENTITIES.items()}
    path.write_text(to_toml(signed.model_copy(update={"signatures": full})))
    with pytest.raises(PolicyRefused, match="the key of shop is not the pinned one"):
        verify_contract(path, NOW, pinned=KEYS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("comment", "not written as fedmkt writes it"),
        ("trailing", "not written as fedmkt writes it"),
        ("crlf", "not written as fedmkt writes it"),
        ("order", "not written as fedmkt writes it"),
        ("number", "not written as fedmkt writes it"),
        ("twice", "not TOML: Cannot overwrite a value"),
        ("table twice", "not TOML: Cannot declare"),
        ("second contract", "not TOML: "),
        ("unknown", r"'new\\nline': unknown key"),
        ("escape", r"'\\x1b\[31m': unknown key"),
        ("huge", "longer than 1,048,576 bytes"),
        ("bytes", "not text in UTF-8"),
        ("empty", "missing"),
        ("nul", "not TOML"),
    ],
)
def test_a_file_that_is_not_exactly_a_contract_is_refused(tmp_path, name, message):
    path = drafted(tmp_path)
    text = path.read_text()
    texts = {
        "comment": "# agreed: scores are not released\n" + text,
        "trailing": text + "\n",
        "crlf": text.replace("\n", "\r\n"),
        "order": "".join(reversed(text.splitlines(keepends=True)[:5]))
        + "".join(text.splitlines(keepends=True)[5:]),
        "number": text.replace("iterations = ", "iterations = +"),
        "twice": text.replace('purpose = "cards"', 'purpose = "cards"\npurpose = "loans"'),
        "table twice": text + "\n[limits]\nmin_list = 1\n",
        "second contract": text + text,
        "unknown": '"new\\nline" = 1\n' + text,
        "escape": '"\\u001b[31m" = 1\n' + text,
        "huge": text + "#" * (1 << 20),
        "empty": "",
        "nul": text + "\0",
    }
    if name == "bytes":
        path.write_bytes(b"\xff\xfe" + text.encode())
    else:
        path.write_bytes(texts[name].encode())
    with pytest.raises(ConfigError, match=message) as caught:
        read_contract(path)
    assert str(caught.value).isprintable()


def test_a_folder_a_pipe_and_a_missing_file_are_one_line_each(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("", "not a plain file"), ("pipe", "not a plain file"), ("none", "no such file")):
        with pytest.raises(ConfigError, match=message):
            read_contract(tmp_path / name)


def test_an_explicit_default_is_the_same_contract_in_another_text_and_refused(tmp_path):
    path = drafted(tmp_path)
    path.write_text("channel = 'hub'\n" + path.read_text())
    with pytest.raises(ConfigError, match="not written as fedmkt writes it"):
        read_contract(path)


def test_a_file_exchanged_after_it_was_shown_is_not_signed(tmp_path, folders):
    path = drafted(tmp_path)
    shown = Sheet(read_contract(path), NOW)
    bank = open_participant(folders["bank"], shown.contract)
    altered(path, "min_common = 1000", "min_common = 2000")
    with pytest.raises(PolicyRefused, match="changed while it was being read"):
        sign_contract(path, bank, shown, NOW)


def test_a_signature_that_arrived_while_the_person_read_is_kept(tmp_path, folders):
    path = drafted(tmp_path)
    shown = Sheet(read_contract(path), NOW)
    signed_by(path, folders["shop"])
    sheet = sign_contract(path, open_participant(folders["bank"], shown.contract), shown, NOW)
    assert sheet.missing == ("relay",)


def test_signers_who_sign_one_file_at_once_lose_no_signature(tmp_path, folders):
    path = drafted(tmp_path)
    shown = Sheet(read_contract(path), NOW)
    who = [open_participant(folder, shown.contract) for folder in folders.values()]
    threads = [threading.Thread(target=sign_contract, args=(path, one, shown, NOW)) for one in who]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert verify_contract(path, NOW).is_complete
    assert sorted(p.name for p in tmp_path.glob("*.toml*")) == ["job.toml", "spring.contract.toml"]


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_kill_while_signing_leaves_the_old_file_and_the_next_try_works(tmp_path, folders, monkeypatch, at):
    path = signed_by(drafted(tmp_path), folders["shop"])
    before = path.read_bytes()

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(journal.os, at, killed)
        signed_by(path, folders["bank"])
    assert path.read_bytes() == before
    assert Sheet(read_contract(signed_by(path, folders["bank"])), NOW).missing == ("relay",)
    assert not path.with_name(path.name + ".new").exists()


def test_a_place_that_cannot_be_written_is_one_line_and_the_file_stays(tmp_path, folders, monkeypatch):
    path = drafted(tmp_path)

    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(contracts, "write_atomically", refuse)
    with pytest.raises(ConfigError, match="cannot be written: Read-only file system"):
        signed_by(path, folders["bank"])
    with pytest.raises(ConfigError, match="cannot be written: Read-only file system"):
        drafted(tmp_path, name="other.toml")


def test_a_draft_in_a_folder_that_does_not_exist_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="No such file or directory"):
        drafted(tmp_path, name="no/c.toml")


def test_a_link_stays_a_link_and_its_target_gets_the_signature(tmp_path, folders):
    path = drafted(tmp_path)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    signed_by(link, folders["bank"])
    assert link.is_symlink() and "bank" in read_contract(path).signatures


# Whose folder it is.


def test_a_folder_of_nobody_and_one_of_two_are_refused(tmp_path, folders):
    contract = read_contract(drafted(tmp_path)).contract
    with pytest.raises(ConfigError, match=r"neither party\.toml nor coordinator\.toml"):
        open_participant(tmp_path, contract)
    shutil.copy(folders["relay"] / "coordinator.toml", folders["bank"])
    with pytest.raises(ConfigError, match=r"both party\.toml and coordinator\.toml"):
        open_participant(folders["bank"], contract)


def test_a_key_that_others_can_read_signs_nothing(tmp_path, folders):
    (folders["bank"] / "keys" / "identity.key").chmod(0o644)
    with pytest.raises(ConfigError, match="others can open it"):
        signed_by(drafted(tmp_path), folders["bank"])


def test_a_party_that_is_no_signer_does_not_sign(tmp_path):
    keys = {"lender": KEYS["bank"], "shop": KEYS["shop"], "relay": KEYS["relay"]}
    path = drafted(tmp_path, JOB.replace('name = "bank"', 'name = "lender"'), keys)
    bank = write_party(tmp_path / "bank", "bank", keys)
    assert "bank is no signer" in refusal(path, bank)


# Merging copies.


def copies_signed_in_parallel(folder: Path, folders: dict[str, Path]) -> list[Path]:
    path = drafted(folder)
    copies = [Path(shutil.copy(path, folder / f"{name}.copy.toml")) for name in folders]
    return [signed_by(copy, own) for copy, own in zip(copies, folders.values(), strict=True)]


def test_copies_signed_in_parallel_become_one_contract_signed_by_all(tmp_path, folders):
    copies = copies_signed_in_parallel(tmp_path, folders)
    before = [copy.read_bytes() for copy in copies]
    merge_contracts(copies, tmp_path / "all.toml")
    assert verify_contract(tmp_path / "all.toml", NOW, pinned=KEYS).is_complete
    assert [copy.read_bytes() for copy in copies] == before


def test_a_merge_may_end_in_one_of_the_copies_but_in_no_other_file(tmp_path, folders):
    copies = copies_signed_in_parallel(tmp_path, folders)
    with pytest.raises(ConfigError, match="exists already"):
        merge_contracts(copies, tmp_path / "spring.contract.toml")
    merge_contracts(copies, copies[0])
    assert verify_contract(copies[0], NOW).is_complete


def test_copies_of_different_contracts_are_not_merged(tmp_path, folders):
    one = signed_by(drafted(tmp_path), folders["bank"])
    two = signed_by(drafted(tmp_path, JOB.replace('"spring"', '"autumn"'), name="two.toml"), folders["shop"])
    with pytest.raises(PolicyRefused, match=r"two\.toml is another contract"):
        merge_contracts([one, two], tmp_path / "all.toml")
    assert not (tmp_path / "all.toml").exists()


def test_a_copy_with_a_signature_that_does_not_verify_is_named_and_not_merged(tmp_path, folders):
    one, two, _ = copies_signed_in_parallel(tmp_path, folders)
    signed = read_contract(two)
    two.write_text(to_toml(signed.model_copy(update={"signatures": {"shop": "00" * 64}})))
    with pytest.raises(PolicyRefused, match=r"shop\.copy\.toml: the signature of shop"):
        merge_contracts([one, two], tmp_path / "all.toml")


# Verifying.


@pytest.mark.parametrize("days", [-1, 30, 365])
def test_a_contract_out_of_its_time_does_not_verify(tmp_path, folders, days):
    path = signed_by(drafted(tmp_path), *folders.values())
    with pytest.raises(PolicyRefused, match="rule not-expired"):
        verify_contract(path, NOW + timedelta(days=days))


@pytest.mark.parametrize("name", ["bank", "shop", "relay"])
def test_a_contract_without_one_signature_does_not_verify(tmp_path, folders, name):
    path = signed_by(drafted(tmp_path), *(folder for other, folder in folders.items() if other != name))
    with pytest.raises(PolicyRefused, match=f"missing {name}"):
        verify_contract(path, NOW)


def test_pins_are_those_of_exactly_the_signers(tmp_path, folders):
    path = signed_by(drafted(tmp_path), *folders.values())
    for pins in ({"bank": KEYS["bank"]}, {**KEYS, "eve": EVE.public.hex()}):
        with pytest.raises(PolicyRefused, match="signs or is pinned, but not both"):
            verify_contract(path, NOW, pinned=pins)
    with pytest.raises(PolicyRefused, match="the key of bank is not the pinned one"):
        verify_contract(path, NOW, pinned={**KEYS, "bank": EVE.public.hex()})
    verify_contract(path, NOW, pinned={name: key.upper() for name, key in KEYS.items()})


def test_with_a_folder_the_whole_policy_of_that_participant_is_asked(tmp_path, folders):
    path = signed_by(drafted(tmp_path), *folders.values())
    altered(folders["shop"] / "policy.toml", '["cards"]', '["loans"]')
    with pytest.raises(PolicyRefused, match="C01 purpose limitation: 'cards' is not allowed by shop"):
        verify_contract(path, NOW, folder=folders["shop"])


# What people see.


def test_the_sheet_fits_80_columns_and_says_everything_that_is_signed(tmp_path, folders):
    job = JOB.replace('"cards"', '"' + "long purpose " * 14 + '"').replace(
        '["age"]', '["age", "' + "x" * 150 + '"]'
    )
    sheet = Sheet(read_contract(drafted(tmp_path, job)), NOW)
    lines = sheet.lines()
    assert max(map(len, lines)) <= 80
    text = "".join("".join(lines).split())
    contract = sheet.contract
    said = [contract.purpose, contract.family, "x" * 150, "answered", "device", "logistic", sheet.digest]
    said += [s.fingerprint for s in sheet.signers] + [s.organisation for s in contract.signers]
    said += [plain_text_of(kind) for kind in contract.disclosures]
    assert [item for item in said if "".join(item.split()) not in text] == []
    for terms in (contract.align, contract.model, contract.limits, contract.scores):
        assert all(f"{name}=" in text for name in type(terms).model_fields)


@pytest.mark.parametrize("kind", ["trees", "scorecard", "additive"])
def test_the_sheet_shows_the_terms_of_a_kind_of_model(tmp_path, kind):
    contract = read_contract(drafted(tmp_path, f'{JOB}\n[model]\nkind = "{kind}"\n')).contract
    text = "".join("".join(Sheet(SignedContract(contract=contract), NOW).lines()).split())
    for section in _SECTIONS[kind]:
        assert all(f"{name}=" in text for name in type(getattr(contract, section)).model_fields)


def test_the_sheet_names_every_term_of_a_contract(tmp_path):
    # A term that is added later must be shown too.
    shown = {"name", "purpose", "family", "created", "expires", "coordinator", "parties", "model", "limits"}
    shown |= {
        "scores",
        "disclosures",
        "channel",
        "rehearsal",
        "version",
        "task",
        "align",
        "governance",
        "auditor",
    }
    shown |= {section for sections in _SECTIONS.values() for section in sections}
    assert set(type(read_contract(drafted(tmp_path)).contract).model_fields) == shown
    assert set(Signer.model_fields) == {"name", "organisation", "key"}


def test_who_learns_what_is_what_the_logs_of_a_run_tell(small_run: RunResult):
    learned: dict[str, set[str]] = {}
    for item in disclosures(small_run.folder).learned:
        role = (
            "coordinator" if item.reader == "coordinator" else "bank" if item.reader == "bank" else "partner"
        )
        learned.setdefault(item.disclosure.kind, set()).add(role)
    assert learned == {kind: set(READERS[kind]) for kind in learned}
    assert set(learned) == set(DEFAULT) and set(READERS) <= set(REGISTRY)


def test_the_facts_for_programs_are_those_of_the_page(tmp_path, folders):
    sheet = Sheet(read_contract(signed_by(drafted(tmp_path), folders["bank"])), NOW)
    facts = json.loads(json.dumps(sheet.to_json()))
    assert facts["digest"] == sheet.digest == digest(sheet.contract).hex()
    assert {s["name"]: s["signature"] for s in facts["signers"]} == {
        "bank": "valid", "shop": "missing", "relay": "missing"
    }  # fmt: skip
    assert facts["complete"] is False and facts["missing"] == ["shop", "relay"]
    sha = hashlib.sha256(b"fedmkt identity\n" + bytes.fromhex(KEYS["bank"])).hexdigest()[:32]
    assert facts["signers"][0]["fingerprint"].replace(" ", "") == sha


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (NOW - timedelta(seconds=1), "not valid yet"),
        (NOW, "valid for another 30 days"),
        (NOW + timedelta(days=29), "valid for less than two days"),
        (NOW + timedelta(days=30), "EXPIRED"),
    ],
)
def test_the_sheet_says_how_long_the_contract_holds(tmp_path, when, said):
    sheet = replace(Sheet(read_contract(drafted(tmp_path)), NOW), now=when)
    assert any(said in line for line in sheet.lines())
    assert bool(sheet.warnings) == (not said.startswith("valid"))


def test_a_participant_checks_terms_without_touching_the_file(tmp_path, folders):
    path = drafted(tmp_path)
    before = path.stat()
    signed = read_contract(path)
    check_own_terms(open_participant(folders["shop"], signed.contract), signed, NOW)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_coordinator_in_the_wrong_organisation_does_not_sign(tmp_path):
    relay = write_coordinator(tmp_path / "relay", organisation="Other AG")
    assert refusal(drafted(tmp_path), relay).startswith("rule own-terms")


def test_a_party_that_joined_another_coordinator_does_not_sign(tmp_path, folders):
    card = Coordinator(
        name="other",
        organisation="Other AG",
        identity=KEYS["relay"],
        host="localhost",
        front_port=1,
        hub_port=2,
        versions=Versions(fedmkt="1", protocol=1, flwr="1"),
        created=NOW,
    )
    (folders["bank"] / "keys" / "coordinator.json").write_bytes(encode(card))
    assert refusal(drafted(tmp_path), folders["bank"]).startswith("rule coordinator: we joined other")
