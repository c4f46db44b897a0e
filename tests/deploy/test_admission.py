import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from fedmkt.crypto import certificates
from fedmkt.crypto.sign import Identity
from fedmkt.deploy import admission
from fedmkt.deploy.admission import NodeControl
from fedmkt.deploy.folders import load_coordinator_folder
from fedmkt.deploy.papers import Request, sign_request
from fedmkt.deploy.registry import Registry, read_registry
from fedmkt.errors import ConfigError, PolicyRefused, TransportError
from tests.deploy.offices import Killed, Office, bank, contents, coordinator, killed_at, modes, shop


class SuperLink:
    """Keeps node keys as Flower does: one that was taken out never comes back."""

    def __init__(self) -> None:
        self.nodes: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.is_up = True

    @property
    def control(self) -> NodeControl:
        return self

    def register(self, key: bytes) -> None:
        self._answer()
        assert key not in self.gone
        self.nodes.add(key)

    def unregister(self, key: bytes) -> None:
        self._answer()
        self.nodes.discard(key)
        self.gone.add(key)

    def _answer(self) -> None:
        if not self.is_up:
            raise TransportError("SuperLink does not answer")


def test_init_makes_an_authority_with_certificates_for_its_hosts(tmp_path: Path) -> None:
    centre = coordinator(tmp_path)
    home, settings = centre.home, load_coordinator_folder(centre.home)
    assert (settings.name, settings.host, settings.front_port, settings.hub_port) == (
        "coordinator", "c.example", 8443, 8444,
    )  # fmt: skip
    authority = home.authority.read_bytes()
    for host in ("c.example", "localhost", "127.0.0.1", "::1"):
        certificates.check_server(home.server_certificate.read_bytes(), host, authority, centre.now)
    certificates.check_client(home.tls_certificate.read_bytes(), "coordinator", authority, centre.now)
    assert read_registry(home.registry) == Registry()
    assert not any(mode & 0o077 for mode in modes(centre.root).values())
    assert len(home.superexec_secret.read_bytes()) == 64


def test_init_again_changes_nothing(tmp_path: Path) -> None:
    centre = coordinator(tmp_path)
    before = contents(centre.root)
    centre.later(days=1).found()
    admission.init_coordinator(centre.home, "coordinator", None, (), centre.random, centre.now)
    assert contents(centre.root) == before
    with pytest.raises(ConfigError, match="another name, organisation or host"):
        centre.found("other.example")
    assert contents(centre.root) == before


@pytest.mark.parametrize("host", ["-x", "a:80", "https://a", "a b", "", "c.example/x", "1.2.3.400"])
def test_a_host_that_cannot_be_dialled_makes_nothing(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="host"):
        Office(tmp_path / "c", "coordinator", "Independent").found(host)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_init_of_the_coordinator_is_completed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for write in range(20):
        centre = Office(tmp_path / str(write), "coordinator", "Independent")
        with killed_at(write, monkeypatch) as last:
            try:
                centre.found()
            except Killed:
                pass
            else:
                assert last() == write - 1 >= 9
                break
        whole = {n: b for n, b in contents(centre.root).items() if not n.endswith((".new", ".lock"))}
        centre.found()
        after = contents(centre.root)
        assert {name: after[name] for name in whole} == whole
        pairs = (
            (centre.home.authority_key, centre.home.authority),
            (centre.home.tls_key, centre.home.tls_certificate),
        )
        for key, certificate in pairs:
            certificates.check_key_matches(key.read_bytes(), certificate.read_bytes())
    else:
        raise AssertionError("init never came to its end")


def test_a_lost_authority_key_is_not_replaced_silently(tmp_path: Path) -> None:
    for key in ("ca.key", "identity.key"):
        centre = coordinator(tmp_path / key)
        (centre.home.keys / key).unlink()
        with pytest.raises(ConfigError, match="missing, though this folder was in use"):
            centre.found()


def test_renewed_certificates_answer_for_the_hosts_that_the_file_names_now(tmp_path: Path) -> None:
    centre = coordinator(tmp_path)
    home = centre.home
    keys = {n: b for n, b in contents(home.keys).items() if n.endswith(".key") or n == "ca.pem"}
    text = home.config.read_text().replace('host = "c.example"', 'host = "new.example"', 1)
    home.config.write_text(text)
    centre.later(days=300)
    admission.renew_coordinator(home, centre.random, centre.now)
    pem, authority = home.server_certificate.read_bytes(), home.authority.read_bytes()
    certificates.check_server(pem, "new.example", authority, centre.now + timedelta(days=364))
    assert "c.example" not in certificates.hosts_of(pem)
    assert {name: contents(home.keys)[name] for name in keys} == keys


def test_an_admitted_party_stands_in_the_registry_with_its_keys_and_serial(tmp_path: Path) -> None:
    centre, office, link = coordinator(tmp_path), bank(tmp_path), SuperLink()
    request = office.request()
    bundle = centre.admit(request, nodes=link.control)
    (party,) = centre.registry.parties
    assert (party.name, party.organisation, party.identity, party.node) == (
        "bank", "First Bank", request.identity, request.node,
    )  # fmt: skip
    assert party.serial == certificates.serial_of(bundle.certificate.encode())
    assert link.nodes == {certificates.node_key_pem(request.node)}
    centre.registry.check_certificate("bank", bundle.certificate.encode(), centre.now)
    assert centre.registry.pins(["bank"]) == {"bank": request.identity}


def refused(centre: Office, request: Request, match: str, **options: object) -> None:
    before = contents(centre.root)
    with pytest.raises(PolicyRefused, match=match):
        centre.admit(request, **options)
    assert contents(centre.root) == before


def test_a_request_swapped_on_the_way_is_noticed_by_the_fingerprint(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    office.request()
    mallory = bank(tmp_path / "mallory")  # the same name and organisation, other keys
    refused(centre, mallory.request(), "the fingerprint is not that of bank", compared=office.fingerprint)


def test_a_request_that_lay_about_or_comes_from_the_future_is_refused(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    request = office.request()
    for moment, match in (
        (timedelta(days=8), "older than 7 days"),
        (timedelta(minutes=-6), "later than now"),
    ):
        with pytest.raises(PolicyRefused, match=match):
            admission.admit(centre.home, request, office.fingerprint, centre.random, request.created + moment)
    assert centre.registry == Registry()


@pytest.mark.parametrize("organisation", ["Independent", "INDEPENDENT ", " independent", "\uff29ndependent"])
def test_a_party_of_the_coordinators_own_organisation_is_refused(organisation: str, tmp_path: Path) -> None:
    office = Office(tmp_path / "p", "bank", organisation)
    refused(coordinator(tmp_path), office.request(), "the coordinator's own organisation")


def test_a_party_with_the_coordinators_own_name_is_refused(tmp_path: Path) -> None:
    office = Office(tmp_path / "p", "coordinator", "First Bank")
    refused(coordinator(tmp_path), office.request(), "the coordinator's own name")


def test_a_name_belongs_to_the_identity_that_had_it_first(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    centre.admit(office.request())
    mallory = bank(tmp_path / "mallory").later(hours=1)
    refused(centre, mallory.request(), "belongs to another identity")


def test_an_identity_or_a_node_key_belongs_to_one_name(tmp_path: Path) -> None:
    centre, office, other = coordinator(tmp_path), bank(tmp_path), shop(tmp_path)
    request, second = office.request(), other.request()
    centre.admit(request)
    refused(
        centre, signed(office, name="twin", node_of=other), "identity key of twin is already that of bank"
    )
    refused(centre, signed(other, name="shop", node_of=office), "node key of shop is already that of bank")
    centre.admit(second)


def signed(office: Office, name: str, node_of: Office) -> Request:
    """Write a request as an insider could who holds the keys of both offices."""
    office.later(hours=1)
    return sign_request(
        Identity(office.folder.identity.read_bytes()),
        node_of.folder.node_key.read_bytes(),
        name=name,
        organisation=office.organisation,
        node=certificates.public_node_key(node_of.folder.node_key.read_bytes()),
        csr=certificates.make_signing_request(name, office.folder.tls_key.read_bytes()),
        fedmkt="0.1.0",
        now=office.now,
    )


def test_a_rotation_replaces_node_and_certificate_and_the_old_ones_are_refused(tmp_path: Path) -> None:
    centre, office, link = coordinator(tmp_path), bank(tmp_path), SuperLink()
    first = office.request()
    old = centre.admit(first, nodes=link.control)
    office.join(old)
    second = office.rotation()
    centre.registry.check_certificate("bank", old.certificate.encode(), centre.now)  # until it is admitted
    new = centre.admit(second, nodes=link.control)
    assert link.nodes == {certificates.node_key_pem(second.node)}
    assert link.gone == {certificates.node_key_pem(first.node)}
    registry = centre.registry
    registry.check_certificate("bank", new.certificate.encode(), centre.now)
    with pytest.raises(PolicyRefused, match="was replaced"):
        registry.check_certificate("bank", old.certificate.encode(), centre.now)
    refused(centre, first, "older than the one that was admitted")


def test_the_same_request_again_is_answered_again_and_only_the_last_certificate_holds(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    request = office.request()
    first, second = centre.admit(request), centre.admit(request)
    assert len(centre.registry.parties) == 1 and centre.registry.former == ()
    centre.registry.check_certificate("bank", second.certificate.encode(), centre.now)
    with pytest.raises(PolicyRefused, match="was replaced"):
        centre.registry.check_certificate("bank", first.certificate.encode(), centre.now)
    office.join(second)


def test_nothing_of_a_revoked_party_comes_back_not_even_with_a_new_request(tmp_path: Path) -> None:
    centre, office, link = coordinator(tmp_path), bank(tmp_path), SuperLink()
    request = office.request()
    bundle = centre.admit(request, nodes=link.control)
    office.join(bundle)
    assert centre.revoke("bank", nodes=link.control).is_unregistered
    assert link.nodes == set()
    with pytest.raises(PolicyRefused, match="bank was revoked on 2030"):
        centre.registry.check_certificate("bank", bundle.certificate.encode(), centre.now)
    with pytest.raises(PolicyRefused, match="revoked"):
        centre.registry.pins(["bank"])
    refused(centre, request, "older than the revocation")
    office.now = centre.now
    refused(centre, office.request(), "identity key of bank was revoked")
    refused(centre, office.rotation(), "identity key of bank was revoked")
    refused(
        centre, signed(office, name="again", node_of=office), "identity key of again is already that of bank"
    )
    with pytest.raises(PolicyRefused, match="revoked"):
        centre.revoke("bank")


def test_a_revoked_name_can_be_given_to_a_new_identity_that_asks_later(tmp_path: Path) -> None:
    centre, office, early = coordinator(tmp_path), bank(tmp_path), bank(tmp_path / "early")
    old = early.request()
    centre.admit(office.request())
    centre.revoke("bank")
    refused(centre, old, "older than the revocation")
    early.now = centre.now
    centre.admit(early.request())
    assert centre.registry.admitted("bank").identity == old.identity
    office.now = centre.now
    refused(centre, office.request(), "belongs to another identity")
    centre.revoke("bank")
    office.now = centre.now
    refused(centre, office.request(), "identity key of bank was revoked")  # also after others had the name


def test_an_unknown_name_cannot_be_revoked(tmp_path: Path) -> None:
    centre = coordinator(tmp_path)
    for name in ("bank", "../coordinator"):
        with pytest.raises(PolicyRefused, match="is not admitted"):
            centre.revoke(name)


def test_admission_works_while_superlink_is_down_and_it_learns_everything_when_it_starts(
    tmp_path: Path,
) -> None:
    centre, office, other, link = coordinator(tmp_path), bank(tmp_path), shop(tmp_path), SuperLink()
    link.is_up = False
    first = office.request()
    done = admission.admit(
        centre.home, first, office.fingerprint, centre.random, office.now, nodes=link.control
    )
    assert not done.is_registered
    office.join(centre.admit(first))
    second, third = office.rotation(), other.request()
    centre.admit(second)
    centre.admit(third)
    centre.revoke("shop", nodes=link.control)
    link.is_up = True
    admission.register_all(centre.home, link.control)
    admission.register_all(centre.home, link.control)
    assert link.nodes == {certificates.node_key_pem(second.node)}


def test_an_admission_killed_at_any_write_is_completed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    for write in range(6):
        request = office.request()
        with killed_at(write, monkeypatch) as last:
            try:
                centre.admit(request)
            except Killed:
                pass
            else:
                assert last() == write - 1 == 2
                break
        read_registry(centre.home.registry)
        bundle = centre.admit(request)
        centre.registry.check_certificate("bank", bundle.certificate.encode(), centre.now)
        office.join(bundle)
    else:
        raise AssertionError("admit never came to its end")


def test_parties_that_are_admitted_at_once_are_all_in_the_registry(tmp_path: Path) -> None:
    centre = coordinator(tmp_path)
    offices = [Office(tmp_path / f"p{i}", f"p{i}", f"Shop {i}") for i in range(8)]
    requests = [office.request() for office in offices]

    def admit(office: Office, request: Request) -> None:
        admission.admit(centre.home, request, office.fingerprint, office.random, office.now)

    threads = [threading.Thread(target=admit, args=pair) for pair in zip(offices, requests, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [party.name for party in centre.registry.parties] == sorted(o.name for o in offices)


def test_a_registry_that_was_damaged_is_named_and_never_started_anew(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    request = office.request()
    for text in ("", "{", '{"version": 2}', json.dumps({"parties": [{}]}), "[" * 100_000):
        centre.home.registry.write_text(text)
        with pytest.raises(ConfigError, match=r"registry\.json"):
            centre.admit(request)
        assert centre.home.registry.read_text() == text


def test_a_party_is_told_apart_by_how_long_its_certificate_holds(tmp_path: Path) -> None:
    centre, office = coordinator(tmp_path), bank(tmp_path)
    bundle = centre.admit(office.request())
    party = centre.registry.admitted("bank")
    for days, state in ((0, "admitted"), (334, "admitted"), (336, "expiring"), (366, "expired")):
        assert party.state(centre.now + timedelta(days=days)) == state
    with pytest.raises(PolicyRefused, match="expired on 2031-01-01"):
        centre.registry.check_certificate(
            "bank", bundle.certificate.encode(), centre.now + timedelta(days=366)
        )
    centre.revoke("bank")
    (revoked,) = centre.registry.parties
    assert revoked.state(centre.now) == "revoked"
