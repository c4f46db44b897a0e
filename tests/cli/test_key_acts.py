"""What `party init`, `coordinator init`, `admit` and `revoke` leave in an organisation's acts."""

from pathlib import Path

import pytest

from fedmkt.audit.acts import Act
from fedmkt.cli.app import main
from fedmkt.crypto.sign import fingerprint
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, read_identity
from fedmkt.party.acts_log import read_acts


def acts(folder: Path) -> list[Act]:
    """List what was done there, without the beginning and the end of each command."""
    return [act for act in read_acts(folder / "state").acts if not act.type.startswith("act.")]


def did(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def test_keys_and_parties_stand_in_the_acts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bank, relay = tmp_path / "bank", tmp_path / "relay"
    did("party", "init", "bank", "--organisation", "First Bank", "--dir", bank, "--role", "bank")
    did("party", "init", "bank", "--dir", bank)  # again: nothing is made
    did("coordinator", "init", "relay", "--organisation", "Notary", "--host", "localhost", "--dir", relay)
    own = {
        "bank": fingerprint(read_identity(PartyFolder(bank).identity).public),
        "relay": fingerprint(read_identity(CoordinatorFolder(relay).identity).public),
    }
    did("coordinator", "admit", bank / "bank.request", "--dir", relay, "--fingerprint", own["bank"])
    did("party", "join", relay / "bank.bundle", "--dir", bank, "--fingerprint", own["relay"])
    did("party", "init", "bank", "--dir", bank, "--rotate")
    did("coordinator", "revoke", "bank", "--dir", relay, "--yes")
    (created, rotated) = acts(bank)
    assert created.type == "key.created" and created.body["identity"] == own["bank"]
    assert created.body["keys"] == ["identity.key", "node.key", "tls.key"]
    assert (rotated.type, rotated.body) == ("key.rotated", {"keys": ["node", "tls"], "party": "bank"})
    (made, registered, revoked) = acts(relay)
    assert made.type == "key.created" and made.body["identity"] == own["relay"]
    said = {"identity": own["bank"], "party": "bank"}
    assert (registered.type, registered.body) == ("party.registered", said)
    assert (revoked.type, revoked.body) == ("key.revoked", said)
    capsys.readouterr()
