"""Whoever withdraws at the partner loses the bank's score too, in a shown and in a hidden match, on real folders."""

import csv
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import fedmkt
from fedmkt.audit import statements
from fedmkt.audit.acts import Actor
from fedmkt.cli.app import main
from fedmkt.crypto import dsse
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.folders import PartyFolder, read_identity
from fedmkt.deploy.notices import tell, to_tell, told
from fedmkt.deploy.rights import read_rights, withdraw
from fedmkt.errors import AuditError, ConfigError
from fedmkt.learn.identifiers import normalise_ids
from fedmkt.party.acts_log import ActsLog
from fedmkt.privacy.disclosure import DEFAULT
from tests.deploy.own_folders import Circle, circle

ANN = Actor("ann", "account", "password", ("operator",))
NOW = datetime(2031, 5, 1, tzinfo=UTC)
LEFT = f"disclosures = {json.dumps([*DEFAULT, 'JoinedRows'])}\n"
KINDS = {
    "shown": ("", ""),
    "hidden": ('\n[align]\nmatch = "hidden"\n', ""),
    "left": ('\n[align]\njoin = "left"\n', LEFT),
}


@pytest.fixture(
    scope="module",
    # Places in a left join are those of a shown match: in the short form one of the two is enough.
    params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind == "left")) for kind in KINDS],
)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Circle:
    """Three organisations after one run; for reading only."""
    found = circle(tmp_path_factory.mktemp(request.param), 1, *KINDS[request.param])
    found.run()
    return found


@pytest.fixture
def it(finished: Circle, tmp_path: Path) -> Circle:
    for name in ("bank", "partner"):
        shutil.copytree(finished.folder(name), tmp_path / name)
    return replace(finished, root=tmp_path)


def spelled(it: Circle, name: str) -> list[tuple[str, str | None]]:
    """Read the ids of a party's file: as written there, and in the common spelling."""
    party = it.job.party(name)
    schema = PartyFolder(it.folder(name)).schema.read_text()
    file = next(json.loads(line.partition("=")[2]) for line in schema.splitlines() if line.startswith("file"))
    with Path(file).open(newline="") as rows:
        written = [row[party.id] for row in csv.DictReader(rows)]
    return list(zip(written, normalise_ids(party.id_kind, written, party.country).spelled, strict=True))


def scored_people(it: Circle) -> list[str | None]:
    """The bank's customers with a score, in the common spelling."""
    path = fedmkt.score(it.folder("bank"))
    with path.open(newline="") as rows:
        lines = [int(row["row"]) for row in csv.DictReader(rows)]
    ids = spelled(it, "bank")
    return [ids[line - 2][1] for line in lines]


def test_who_withdraws_at_the_partner_has_no_score_at_the_bank_any_more(it: Circle, tmp_path: Path) -> None:
    partner, bank = PartyFolder(it.folder("partner")), PartyFolder(it.folder("bank"))
    before, theirs = scored_people(it), spelled(it, "partner")
    written = {one: text for text, one in theirs if one is not None}
    leaving = sorted(one for one in written if one in set(before))[:25]
    withdraw(partner, [written[one] for one in leaving], None, ANN, lambda: NOW)
    (notice,) = tell(partner, tmp_path / "out", ANN, NOW)
    assert set(before) == set(scored_people(it)), "until the bank was told"
    found = told(bank, notice.path, ANN, NOW)
    assert found.scored == len(leaving) and found.trained == 0 and found.party == "partner"
    assert set(before) - set(scored_people(it)) == set(leaving) and not read_rights(bank).models[0].is_flagged
    # Those who trained flag the bank's model, and the same notice again changes nothing.
    more = list(written)[:600]
    withdraw(partner, [written[one] for one in more], None, ANN, lambda: NOW)
    (notice,) = tell(partner, tmp_path / "out", ANN, NOW)
    for _ in range(2):
        assert told(bank, notice.path, ANN, NOW).trained > 100 and read_rights(bank).models[0].is_flagged
    assert set(scored_people(it)) == set(before) - {*more, *leaving}
    acts = ActsLog(bank.state, lambda: NOW).chain().acts
    assert acts[0].body == {"from": "partner", "run": found.run, "scored": 25, "trained": 0}


def test_a_notice_names_rows_and_no_id_and_holds_for_its_run_alone(it: Circle, tmp_path: Path) -> None:
    partner, bank = PartyFolder(it.folder("partner")), PartyFolder(it.folder("bank"))
    assert to_tell(partner) == [] and tell(partner, tmp_path / "out", ANN, NOW) == []
    ids = [text for text, one in spelled(it, "partner") if one is not None]
    withdraw(partner, ids[:300], None, ANN, lambda: NOW)
    assert to_tell(bank) == []
    (notice,) = tell(partner, tmp_path / "out", ANN, NOW)
    envelope = dsse.from_json(notice.path.read_bytes())
    assert not any(str(one).encode()[-8:] in envelope.payload for _, one in spelled(it, "partner")[:300])
    assert notice.path.stat().st_mode & 0o077 == 0
    # A byte of the payload, a signature of somebody else, another's folder.
    changed = replace(envelope, payload=envelope.payload.replace(b'"trained":"', b'"trained":"A', 1))
    bad = tmp_path / "bad.json"
    for wrong in (changed, replace(envelope, signatures=())):
        bad.write_bytes(dsse.to_json(wrong))
        with pytest.raises((AuditError, ConfigError)):
            told(bank, bad, ANN, NOW)
    with pytest.raises(AuditError, match="no notice that a partner signed"):
        told(partner, notice.path, ANN, NOW)
    bad.write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.json"):
        told(bank, bad, ANN, NOW)
    assert not (it.own("bank") / "model" / "left.npz").exists()
    (it.own("bank") / "model" / "expires.json").write_bytes(
        (it.own("bank") / "model" / "expires.json").read_bytes().replace(notice.run.encode(), b"00" * 32)
    )
    with pytest.raises(AuditError, match="results that are here"):
        told(bank, notice.path, ANN, NOW)


def test_the_commands_ask_before_anything_is_told(
    it: Circle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partner, bank = str(it.folder("partner")), str(it.folder("bank"))
    ids = [text for text, one in spelled(it, "partner") if one is not None]
    withdraw(PartyFolder(Path(partner)), ids[:300], None, ANN, lambda: NOW)
    out = tmp_path / "out"
    assert main(["withdraw", "--tell", str(out), "--dir", partner]) == 2 and not out.exists()
    capsys.readouterr()
    assert main(["withdraw", "--tell", str(out), "--dir", partner, "--yes"]) == 0
    (notice,) = out.iterdir()
    assert str(notice) in capsys.readouterr().out
    assert main(["withdraw", "--told", str(notice), "--dir", bank]) == 0
    assert "train again: " in capsys.readouterr().out
    assert main(["withdraw", "--told", str(notice), "--list", "--dir", bank]) == 2


def test_a_run_that_cannot_be_told_does_not_silence_the_others(it: Circle, tmp_path: Path) -> None:
    partner, model = PartyFolder(it.folder("partner")), it.own("partner") / "model"
    ids = [text for text, one in spelled(it, "partner") if one is not None]
    old = Path(shutil.copytree(model, model.with_name("model-0000000000000000")))
    withdraw(partner, ids[:300], None, ANN, lambda: NOW)
    with np.load(old / "people.npz") as stored:
        np.savez(old / "people.npz", **{n: stored[n] for n in ("kinds", "trained", "scored")})  # type: ignore[arg-type]
    with pytest.raises(AuditError, match="does not say where people stood"):
        tell(partner, tmp_path / "out", ANN, NOW)
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_what_was_told_to_whom_stands_in_the_partners_acts(it: Circle, tmp_path: Path) -> None:
    partner = PartyFolder(it.folder("partner"))
    ids = [text for text, one in spelled(it, "partner") if one is not None]
    withdraw(partner, ids[:300], None, ANN, lambda: NOW)
    (notice,) = tell(partner, tmp_path / "out", ANN, NOW)
    act = ActsLog(partner.state, lambda: NOW).chain().acts[-1]
    assert act.type == "consent.withdrawn"
    assert act.body == {"to": "bank", "run": notice.run, "rows": notice.rows}
    assert notice.rows > 0


def test_a_notice_takes_nobody_back_and_none_of_another_signer_counts(it: Circle, tmp_path: Path) -> None:
    """The earlier of two, one with fewer rows, one in the partner's name, one of a stranger."""
    partner, bank = PartyFolder(it.folder("partner")), PartyFolder(it.folder("bank"))
    ids = [text for text, one in spelled(it, "partner") if one is not None]
    withdraw(partner, ids[:100], None, ANN, lambda: NOW)
    (first,) = tell(partner, tmp_path / "first", ANN, NOW)
    withdraw(partner, ids[100:300], None, ANN, lambda: NOW)
    (second,) = tell(partner, tmp_path / "second", ANN, NOW)
    after = told(bank, second.path, ANN, NOW)
    assert told(bank, first.path, ANN, NOW) == after
    statement, _ = statements.read(
        dsse.from_json(first.path.read_bytes()),
        {"partner": dsse.Public(read_identity(partner.identity).public)},
    )
    bad = tmp_path / "bad.json"
    rows = statement.predicate["scored_rows"]
    for changes, signer, kind in (
        ({}, "bank", "withdrawal"),
        ({}, "eve", "withdrawal"),
        ({"party": "coordinator"}, "partner", "withdrawal"),
        ({}, "partner", "revocation"),
        ({"run": "00" * 32}, "partner", "withdrawal"),
        ({"scored_rows": 0, "scored": ""}, "partner", "withdrawal"),
        ({"scored_rows": True}, "partner", "withdrawal"),
        ({"scored_rows": rows - 1}, "partner", "withdrawal"),  # type: ignore[operator]
    ):
        said = replace(statement, kind=kind, predicate={**statement.predicate, **changes})  # type: ignore[arg-type]
        key = (
            Identity(b"e" * 32) if signer == "eve" else read_identity(PartyFolder(it.folder(signer)).identity)
        )
        bad.write_bytes(dsse.to_json(statements.sign(said, key)))
        with pytest.raises(AuditError):
            told(bank, bad, ANN, NOW)
    assert read_rights(bank).models[0].trained == after.trained
