import tomllib
from pathlib import Path

import pytest

from fedmkt.crypto.sign import fingerprint
from fedmkt.deploy.pins import add_pin, key_of, replace_pin
from fedmkt.errors import ConfigError, PeerError, PolicyRefused
from tests.deploy.offices import Office, bank, coordinator, shop

KEY, OTHER = "ab" * 32, "cd" * 32
OWN = "11" * 32
HEAD = 'name = "bank"\norganisation = "First Bank"\n'


def compared(key: str) -> str:
    return fingerprint(bytes.fromhex(key))


@pytest.fixture
def office(tmp_path: Path) -> Office:
    made = bank(tmp_path)
    made.root.mkdir()
    return made


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[pinned]\n", "[pinned]\n{line}"),
        ("[pinned]", "[pinned]\n{line}"),
        (f'[pinned]\nbank = "{OWN}"', f'[pinned]\nbank = "{OWN}"\n{{line}}'),
        (
            f'[pinned]\n# by phone\nbank = "{OWN}"  # me\n# shop = "..."\n\n# next\n[node]\ndata = "x"\n',
            f'[pinned]\n# by phone\nbank = "{OWN}"  # me\n{{line}}# shop = "..."\n\n# next\n[node]\ndata = "x"\n',
        ),
        ("  [ pinned ]  # keys\n[node]\n", "  [ pinned ]  # keys\n{line}[node]\n"),
    ],
)
def test_a_pin_is_added_below_the_others_and_nothing_else_changes(
    before: str, after: str, office: Office
) -> None:
    office.folder.config.write_text(HEAD + before)
    office.folder.config.chmod(0o640)
    add_pin(office.folder, "shop", KEY, compared(KEY))
    assert office.folder.config.read_text() == HEAD + after.format(line=f'shop = "{KEY}"\n')
    assert office.folder.config.stat().st_mode & 0o777 == 0o640


def test_line_breaks_of_another_system_are_kept(office: Office) -> None:
    office.folder.config.write_bytes((HEAD + "[pinned]\n# x\n").replace("\n", "\r\n").encode())
    add_pin(office.folder, "shop", KEY, compared(KEY))
    text = office.folder.config.read_bytes()
    assert text.count(b"\n") == text.count(b"\r\n") == 5
    assert tomllib.loads(text.decode())["pinned"] == {"shop": KEY}


@pytest.mark.parametrize(
    "text",
    [
        HEAD + f'pinned = {{bank = "{OWN}"}}\n',
        HEAD + f'pinned.bank = "{OWN}"\n',
        HEAD + f'["pinned"]\nbank = "{OWN}"\n',
    ],
)
def test_a_file_that_cannot_be_edited_safely_is_left_to_the_person(text: str, office: Office) -> None:
    office.folder.config.write_text(text)
    with pytest.raises(ConfigError) as caught:
        add_pin(office.folder, "shop", KEY, compared(KEY))
    assert f'shop = "{KEY}"' in caught.value.hint
    assert office.folder.config.read_text() == text


def test_a_pin_is_never_replaced_unless_told(office: Office) -> None:
    text = HEAD + f'[pinned]\nbank = "{OWN}"\nshop = "{KEY}"  # Ms Roe, 2030\nshop2 = "{OTHER}"\n'
    office.folder.config.write_text(text)
    add_pin(office.folder, "shop", KEY, compared(KEY))  # the same again is no change
    with pytest.raises(PolicyRefused, match="shop has another key already"):
        add_pin(office.folder, "shop", OTHER, compared(OTHER))
    assert office.folder.config.read_text() == text
    replace_pin(office.folder, "shop", OTHER, compared(OTHER))
    assert office.folder.config.read_text() == text.replace(KEY, OTHER)
    with pytest.raises(ConfigError, match="telecom has no key yet"):
        replace_pin(office.folder, "telecom", KEY, compared(KEY))


@pytest.mark.parametrize("said", ["", compared(OTHER), compared(KEY)[:-1]])
def test_a_key_that_was_not_compared_is_not_pinned(said: str, office: Office) -> None:
    office.folder.config.write_text(HEAD + f'[pinned]\nbank = "{OWN}"\n')
    for pin in (add_pin, replace_pin):
        with pytest.raises(PolicyRefused, match="the fingerprint is not that of shop"):
            pin(office.folder, "shop", KEY, said)
    assert KEY not in office.folder.config.read_text()


def test_a_link_to_the_file_stays_a_link(office: Office, tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text(HEAD + "[pinned]\n")
    office.folder.config.symlink_to(real)
    add_pin(office.folder, "shop", KEY, compared(KEY))
    assert office.folder.config.is_symlink() and KEY in real.read_text()


def test_a_key_is_found_in_a_request_or_a_bundle_of_that_name_only(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), shop(tmp_path)
    bundle = centre.admit(office.request())
    request_file, bundle_file = office.root / "shop.request", centre.root / "shop.bundle"
    assert key_of("shop", str(request_file)) == bundle.identity
    assert key_of("coordinator", str(bundle_file)) == bundle.coordinator.identity
    assert key_of("x", KEY) == KEY
    for name, file in (("bank", request_file), ("shop", bundle_file)):
        with pytest.raises(ConfigError, match=f"not from {name}"):
            key_of(name, str(file))
    request_file.write_bytes(request_file.read_bytes().replace(b"Shop GmbH", b"Shop AG!!"))
    with pytest.raises(PeerError, match="does not verify"):
        key_of("shop", str(request_file))
    for junk in ("AB" * 32, "ab" * 31, "", "no\0file", str(tmp_path)):
        with pytest.raises(ConfigError):
            key_of("shop", junk)
