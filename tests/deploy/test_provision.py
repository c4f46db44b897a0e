import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from fedmkt.crypto import certificates
from fedmkt.crypto.sign import Identity
from fedmkt.deploy import provision
from fedmkt.deploy.folders import load_party_config, load_party_folder, read_identity
from fedmkt.deploy.papers import Bundle, sign_bundle
from fedmkt.errors import ConfigError, PolicyRefused
from tests.deploy.offices import Killed, Office, bank, contents, coordinator, killed_at, modes, shop


def test_init_makes_keys_that_only_their_owner_can_read(tmp_path: Path) -> None:
    before = os.umask(0)  # the worst that a machine can have
    try:
        office = bank(tmp_path)
        office.request()
    finally:
        os.umask(before)
    made = modes(office.root)
    assert {name: made[name] for name in made if name.endswith((".key", ".secret"))} == {
        "keys/identity.key": 0o600,
        "keys/node.key": 0o600,
        "keys/tls.key": 0o600,
        "keys/superexec.secret": 0o600,
    }
    assert made["keys"] == stat.S_IMODE(office.root.stat().st_mode) == 0o700
    assert not any(mode & 0o077 for mode in made.values())


def test_a_new_folder_parses_and_pins_our_own_key_alone(tmp_path: Path) -> None:
    for office in (bank(tmp_path), shop(tmp_path)):
        request = office.request()
        config, schema = load_party_folder(office.folder)
        assert dict(config.pinned) == {office.name: request.identity}
        assert (config.name, schema.organisation) == (office.name, office.organisation)
        assert hasattr(schema, "label") == (office.role == "bank")
        assert config.policy.purposes == ()


def test_init_again_keeps_every_file_and_writes_the_request_anew(tmp_path: Path) -> None:
    office = bank(tmp_path)
    first = office.request()
    before = contents(office.root)
    second = office.request()
    after = contents(office.root)
    assert (first.identity, first.node, first.csr) == (second.identity, second.node, second.csr)
    assert second.created > first.created
    assert {name for name in before if before[name] != after[name]} == {"bank.request"}


def test_files_that_a_person_wrote_before_stay_as_they_are(tmp_path: Path) -> None:
    office = bank(tmp_path)
    office.root.mkdir()
    text = (
        '# ours\nname = "bank"\norganisation = "First Bank"   # since 1890\n\n[pinned] # by phone\n\n# end\n'
    )
    office.folder.config.write_text(text)
    office.folder.policy.write_text('purposes = ["cards"]\n')
    key = office.request().identity
    assert office.folder.policy.read_text() == 'purposes = ["cards"]\n'
    pinned = text.replace("[pinned] # by phone\n", f'[pinned] # by phone\nbank = "{key}"\n')
    assert office.folder.config.read_text() == pinned


@pytest.mark.parametrize(
    "name", ["../bank", "/etc", "bank/x", "Bank", "", "a" * 32, "bank\n", "-x", "ba nk", "."]
)
def test_a_name_that_is_a_path_or_an_option_makes_nothing(name: str, tmp_path: Path) -> None:
    office = Office(tmp_path / "x", name, "First Bank")
    for act in (office.request, office.rotation):
        with pytest.raises(ConfigError, match="name = "):
            act()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_belongs_to_one_party_and_one_organisation(tmp_path: Path) -> None:
    office = bank(tmp_path)
    office.request()
    before = contents(office.root)
    for other in (Office(office.root, "shop", "First Bank"), Office(office.root, "bank", "Other")):
        with pytest.raises(ConfigError):
            other.request()
    assert contents(office.root) == before


def test_a_lost_identity_key_of_a_party_that_joined_is_not_replaced_silently(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    office.join(centre.admit(office.request()))
    office.folder.identity.unlink()
    with pytest.raises(ConfigError, match="missing, though this folder was in use"):
        office.request()
    assert not office.folder.identity.exists()


@pytest.mark.parametrize("key", ["identity", "node_key", "tls_key"])
def test_a_key_that_others_can_read_is_not_used(key: str, tmp_path: Path) -> None:
    office = bank(tmp_path)
    office.request()
    getattr(office.folder, key).chmod(0o640)
    with pytest.raises(ConfigError, match="mode 0640, others can open it") as caught:
        office.request()
    assert caught.value.hint.startswith("chmod 600 ")


@pytest.mark.parametrize("key", ["identity", "node_key", "tls_key"])
def test_a_damaged_key_is_named_and_kept(key: str, tmp_path: Path) -> None:
    office = bank(tmp_path)
    office.request()
    path: Path = getattr(office.folder, key)
    path.write_bytes(b"half")
    with pytest.raises(ConfigError, match=path.name):
        office.request()
    assert path.read_bytes() == b"half"


def test_a_killed_init_is_completed_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for write in range(20):
        office = bank(tmp_path / str(write))
        with killed_at(write, monkeypatch) as last:
            try:
                office.request()
            except Killed:
                pass
            else:
                assert last() == write - 1 >= 8
                break
        whole = {n: b for n, b in contents(office.root).items() if n.endswith((".key", ".secret"))}
        office.request()
        after = contents(office.root)
        assert {name: after[name] for name in whole} == whole  # no key that was there was replaced
        assert not any(mode & 0o077 for mode in modes(office.root).values())
        load_party_folder(office.folder)
    else:
        raise AssertionError("init never came to its end")


def test_a_party_joins_with_the_answer_to_its_own_request(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    joined = office.join(centre.admit(office.request(), bundle="ab" * 32))
    folder = office.folder
    assert (joined.coordinator, joined.address, joined.is_pinned) == ("coordinator", "c.example:8443", False)
    pem, authority = folder.tls_certificate.read_bytes(), folder.authority.read_bytes()
    certificates.check_client(pem, "bank", authority, office.now)
    certificates.check_key_matches(folder.tls_key.read_bytes(), pem)
    assert authority == centre.home.authority.read_bytes()
    card = provision.read_coordinator(folder)
    assert (card.host, card.front_port, card.hub_port, card.bundle) == ("c.example", 8443, 8444, "ab" * 32)
    assert card.identity == read_identity(centre.home.identity).public.hex()
    assert "coordinator" not in load_party_config(folder).pinned  # pinning stays the person's own work


def refused_join(office: Office, bundle: Bundle, match: str, compared: str | None = None) -> None:
    before = contents(office.root)
    with pytest.raises(PolicyRefused, match=match):
        office.join(bundle, compared)
    assert contents(office.root) == before


def test_a_bundle_swapped_on_the_way_is_noticed_by_the_fingerprint(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    request = office.request()
    mallory = coordinator(tmp_path / "other")  # the same name and organisation, other keys
    refused_join(office, mallory.admit(request), "not that of coordinator", compared=centre.fingerprint)


def test_a_bundle_of_another_coordinator_is_refused_once_we_belong_to_one(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    request = office.request()
    office.join(centre.admit(request))
    for name in ("coordinator", "second"):
        other = coordinator(tmp_path / "other", name)
        refused_join(office, other.admit(request), "we belong to the coordinator coordinator")


def test_a_bundle_that_contradicts_a_pinned_key_is_refused(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    bundle = centre.admit(office.request())
    with office.folder.config.open("a") as file:
        file.write(f'coordinator = "{"ab" * 32}"\n')
    refused_join(office, bundle, "pins another key for coordinator")


def test_a_bundle_for_another_party_or_other_keys_is_refused(tmp_path: Path) -> None:
    centre, office, other = coordinator(tmp_path), bank(tmp_path), shop(tmp_path)
    office.request()
    refused_join(office, centre.admit(other.request()), "the bundle is for shop")
    twin = bank(tmp_path / "twin")
    refused_join(office, coordinator(tmp_path / "o").admit(twin.request()), "not for bank with our identity")


def resigned(centre: Office, bundle: Bundle, request: object, **changes: object) -> Bundle:
    """Let the true coordinator sign a bundle that it would never write."""
    values = {"certificate": bundle.certificate.encode(), "authority": bundle.authority.encode()} | changes
    identity = Identity(centre.home.identity.read_bytes())
    return sign_bundle(identity, request, coordinator=bundle.coordinator, **values)  # type: ignore[arg-type]


def test_a_bundle_whose_certificate_is_not_for_our_key_and_name_is_refused(tmp_path: Path) -> None:
    centre, office, other = coordinator(tmp_path), bank(tmp_path), shop(tmp_path)
    request = office.request()
    bundle, theirs = centre.admit(request), centre.admit(other.request())
    foreign = theirs.certificate.encode()
    refused_join(office, resigned(centre, bundle, request, certificate=foreign), "not for bank")
    authority = coordinator(tmp_path / "x").home.authority.read_bytes()
    refused_join(
        office, resigned(centre, bundle, request, authority=authority), "not issued by this authority"
    )
    key = certificates.generate_tls_key(office.random)
    issued = certificates.issue_client(
        certificates.make_signing_request("bank", key),
        "bank",
        centre.home.authority.read_bytes(),
        centre.home.authority_key.read_bytes(),
        office.random,
        office.now,
    )
    refused_join(office, resigned(centre, bundle, request, certificate=issued.pem), "for another tls.key")


def test_a_bundle_from_the_future_or_of_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    request = office.request()
    bundle = centre.admit(request)
    shown = centre.fingerprint
    with pytest.raises(PolicyRefused, match="later than now"):
        provision.join(office.folder, bundle, shown, bundle.coordinator.created - timedelta(minutes=6))
    with pytest.raises(PolicyRefused, match="not valid now"):
        provision.join(office.folder, bundle, shown, bundle.coordinator.created + timedelta(days=366))


def test_a_coordinator_of_our_own_organisation_is_refused(tmp_path: Path) -> None:
    office = bank(tmp_path)
    request = office.request()
    own = coordinator(tmp_path, organisation="Someone")
    bundle = own.admit(request)
    card = bundle.coordinator.model_copy(update={"organisation": " FIRST  bank"})
    identity = Identity(own.home.identity.read_bytes())
    forged = sign_bundle(identity, request, bundle.certificate.encode(), bundle.authority.encode(), card)
    refused_join(office, forged, "our own organisation")


def test_a_rotation_keeps_the_old_keys_in_use_until_the_answer_is_joined(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    first = office.request()
    old = centre.admit(first)
    office.join(old)
    before = contents(office.folder.keys)
    second = office.rotation()
    assert second.identity == first.identity
    assert second.node != first.node and second.csr != first.csr
    assert {n: b for n, b in contents(office.folder.keys).items() if not n.startswith("next")} == before
    new = centre.admit(second)
    assert provision.known_coordinator(office.folder, new)  # nobody has to compare the same key again
    office.join(new)
    folder = office.folder
    certificates.check_key_matches(folder.tls_key.read_bytes(), folder.tls_certificate.read_bytes())
    assert certificates.public_node_key(folder.node_key.read_bytes()) == second.node
    assert folder.node_pub.read_text() == second.node + "\n"
    assert not folder.next_keys.exists()
    refused_join(office, old, "older than the one in use")


def test_a_rotation_asked_for_twice_is_one_rotation(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    office.join(centre.admit(office.request()))
    first, second = office.rotation(), office.rotation()
    assert (first.node, first.csr) == (second.node, second.csr)
    with pytest.raises(ConfigError, match="a rotation is under way"):
        office.request()


def test_a_join_killed_at_any_write_is_completed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    office.join(centre.admit(office.request()))
    for write in range(12):
        bundle = centre.admit(office.rotation())
        with killed_at(write, monkeypatch) as last:
            try:
                office.join(bundle)
            except Killed:
                pass
            else:
                assert last() == write - 1 >= 4
                break
        office.join(bundle)
        folder = office.folder
        certificates.check_key_matches(folder.tls_key.read_bytes(), folder.tls_certificate.read_bytes())
        assert certificates.public_node_key(folder.node_key.read_bytes()) == bundle.node
        assert provision.read_coordinator(folder) == bundle.coordinator
        assert not folder.next_keys.exists()
        assert not any(mode & 0o077 for mode in modes(office.root).values())
    else:
        raise AssertionError("join never came to its end")


def test_flower_reads_the_node_keys_that_init_makes(tmp_path: Path) -> None:
    from argparse import Namespace

    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    office = bank(tmp_path)
    node = office.request().node
    keys = _try_setup_client_authentication(
        Namespace(auth_supernode_private_key=str(office.folder.node_key), auth_supernode_public_key=None)
    )
    assert keys is not None
    private, public = keys
    assert private.public_key() == public
    assert try_load_public_key(office.folder.node_pub) == certificates.node_key_pem(node)
