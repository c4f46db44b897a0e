import os
import threading
from pathlib import Path

import pytest

from fedmkt.config.tables import BankConfig
from fedmkt.deploy import folders
from fedmkt.deploy.folders import (
    PartyFolder,
    keep_or_write,
    load_party_folder,
    locked,
    make_private,
    read_file,
    read_identity,
)
from fedmkt.deploy.templates import party_toml, policy_toml, schema_toml
from fedmkt.errors import ConfigError, TransportError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> PartyFolder:
    made = PartyFolder(tmp_path)
    made.config.write_text(party_toml("bank", "First Bank"))
    made.policy.write_text(policy_toml("bank").replace("purposes = []", 'purposes = ["cards"]'))
    made.schema.write_text(schema_toml("bank"))
    return made


def test_a_partys_three_files_become_its_settings_and_its_table(folder: PartyFolder) -> None:
    config, schema = load_party_folder(folder)
    assert (config.name, config.policy.purposes, config.policy.max_runs) == ("bank", ("cards",), 5)
    assert (config.node.data, config.node.runtime_port, config.node.health_port) == (".", 9094, 9095)
    assert isinstance(schema, BankConfig)
    assert (schema.name, schema.organisation, schema.label) == ("bank", "First Bank", "responded")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("party.toml", "[policy]\nmin_list = 1\n", "party.toml: policy: stands in policy.toml"),
        ("party.toml", "x = 1\n", "party.toml: pinned.x"),
        ("policy.toml", "min_lst = 1\n", "policy.toml: min_lst: unknown key; accepted: auditors, "),
        ("policy.toml", "min_support = 0\n", "policy.toml: "),
        ("schema.toml", 'name = "x"\n', "schema.toml: name: stands in party.toml"),
        ("schema.toml", "extra = 1\n", "schema.toml: extra: unknown key; accepted: age, "),
    ],
)
def test_a_mistake_names_the_file_in_which_it_stands(
    file: str, text: str, message: str, folder: PartyFolder
) -> None:
    path = folder.root / file
    before = path.read_text() if file != "policy.toml" else ""
    path.write_text(before + text)
    with pytest.raises(ConfigError) as caught:
        load_party_folder(folder)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["party.toml", "policy.toml", "schema.toml"])
def test_a_missing_file_is_named(file: str, folder: PartyFolder) -> None:
    (folder.root / file).unlink()
    with pytest.raises(ConfigError, match=f"{file}: no such file"):
        load_party_folder(folder)


def test_ports_of_a_node_differ_and_are_ports(folder: PartyFolder) -> None:
    text = folder.config.read_text()
    for old, new in (("9095", "9094"), ("9095", "0"), ("9095", "70000"), ("9095", '"9095"')):
        folder.config.write_text(text.replace(old, new))
        with pytest.raises(ConfigError, match="node"):
            load_party_folder(folder)


@pytest.mark.parametrize("role", ["bank", "partner"])
def test_parties_shows_exactly_what_init_writes(role: str) -> None:
    shown = ROOT / "parties" / role
    organisation = {"bank": "Example Bank", "partner": "Example Shop"}[role]
    assert (shown / "party.toml").read_text() == party_toml(role, organisation)
    assert (shown / "policy.toml").read_text() == policy_toml(role)  # type: ignore[arg-type]
    assert (shown / "schema.toml").read_text() == schema_toml(role)  # type: ignore[arg-type]


def test_a_name_of_any_script_or_with_quotes_survives_the_template(tmp_path: Path) -> None:
    for organisation in ('Bank "A" \\ Söhne', "招商银行", "O'Neill & Co. #1"):
        (tmp_path / "party.toml").write_text(party_toml("bank", organisation), encoding="utf-8")
        assert folders.load_party_config(PartyFolder(tmp_path)).organisation == organisation


def test_only_plain_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(bytes(folders.LARGEST_FILE + 1))
    for name in ("pipe", "long", ".", "absent", "x" * 300):
        with pytest.raises(ConfigError):
            read_file(tmp_path / name)
    with pytest.raises(ConfigError):
        read_file(Path("/dev/zero"))


def test_a_secret_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    (tmp_path / "a.key.new").write_text("half of another, open to all")
    (tmp_path / "a.key.new").chmod(0o666)
    assert keep_or_write(path, b"first") and not keep_or_write(path, b"second")
    assert path.read_bytes() == b"first" and path.stat().st_mode & 0o777 == 0o600
    dangling = tmp_path / "b.key"
    dangling.symlink_to(tmp_path / "elsewhere")
    assert not keep_or_write(dangling, b"x") and not (tmp_path / "elsewhere").exists()


def test_an_open_folder_of_keys_is_closed(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)
    make_private(tmp_path / "keys")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_an_identity_key_of_another_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    for secret in (b"", bytes(31), bytes(64)):
        path.unlink(missing_ok=True)
        keep_or_write(path, secret)
        with pytest.raises(ConfigError, match="an identity key has 32"):
            read_identity(path)


def test_a_lock_that_is_held_ends_with_one_line_and_not_with_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "LOCK_SECONDS", 0.2)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(tmp_path / ".lock"):
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    with pytest.raises(TransportError, match="another fedmkt command"), locked(tmp_path / ".lock"):
        raise AssertionError("two hold one lock")
    done.set()
    holder.join(10)
    with locked(tmp_path / ".lock"):
        pass
