import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from fedmkt.deploy import preflight as checks
from fedmkt.deploy.pins import add_pin
from fedmkt.deploy.preflight import Finding, World, preflight
from fedmkt.deploy.provision import our_versions
from fedmkt.errors import ConfigError, TransportError
from fedmkt.transport.probe import Answer
from tests.deploy.offices import Office, bank, coordinator, shop

TABLE = "phone,age,balance,job,responded\n+4915112345678,30,1.5,clerk,1\n+4915112345679,40,2.5,cook,0\n"


@pytest.fixture(scope="module")
def offices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Office]:
    """Set up a bank that is ready in every respect, and its coordinator."""
    place = tmp_path_factory.mktemp("offices")
    centre, office, other = coordinator(place), bank(place), shop(place)
    centre.admit(other.request())
    office.join(centre.admit(office.request()))
    ours = checks.read_coordinator(office.folder).identity
    for pinned, key in ((centre, ours), (other, other.request().identity)):
        add_pin(office.folder, pinned.name, key, pinned.fingerprint)
    schema = office.folder.schema
    schema.write_text(schema.read_text().replace("customers.parquet", "customers.csv"))
    (office.root / "customers.csv").write_text(TABLE)
    settings = centre.home.config
    settings.write_text(settings.read_text().replace("purposes = []", 'purposes = ["cards"]'))
    return {"bank": office, "coordinator": centre}


@pytest.fixture
def office(offices: dict[str, Office], tmp_path: Path) -> Office:
    """Copy the ready bank, so that a test may spoil it."""
    shutil.copytree(offices["bank"].root, tmp_path / "bank")
    return replace(offices["bank"], root=tmp_path / "bank")


@pytest.fixture
def centre(offices: dict[str, Office], tmp_path: Path) -> Office:
    """Copy the ready coordinator, so that a test may spoil it."""
    shutil.copytree(offices["coordinator"].root, tmp_path / "coordinator")
    return replace(offices["coordinator"], root=tmp_path / "coordinator")


@pytest.fixture
def world(offices: dict[str, Office]) -> World:
    """Answer every question as a healthy deployment would."""
    now = offices["coordinator"].now + timedelta(hours=1)
    server = offices["coordinator"].home.server_certificate.read_bytes()
    facts = {"fedmkt": our_versions().fedmkt, "registered": True, "time": now.isoformat()}
    return World(
        resolve=lambda host, port: ("10.0.0.7",),
        reach=lambda host, port: None,
        greet=lambda host, port, authority: server,
        ask=lambda host, port, authority, path: Answer(
            server, 200, format_datetime(now, usegmt=True), json.dumps(facts).encode()
        ),
        now=lambda: now,
        free_bytes=lambda folder: 50 << 30,
        versions=our_versions,
    )


def failing(message: str) -> Callable[..., object]:
    def fail(*arguments: object) -> object:
        raise TransportError(message)

    return fail


def wrong(config: Path, world: World) -> list[Finding]:
    return [finding for finding in preflight(config, world).findings if not finding.is_right]


def test_a_ready_party_has_nothing_wrong(office: Office, world: World) -> None:
    found = preflight(office.folder.config, world)
    assert wrong(office.folder.config, world) == []
    assert found.is_ready and found.lines()[-1] == "bank is ready"
    names = {finding.name for finding in found.findings}
    assert names == {
        "keys", "identity", "pinned keys", "data", "disk", "certificate", "versions", "dns",
        "front port", "front tls", "clock", "node", "hub port", "hub tls",
    }  # fmt: skip
    assert json.loads(json.dumps(found.to_json()))["ready"] is True


def test_a_ready_coordinator_has_nothing_wrong(centre: Office, world: World) -> None:
    found = preflight(centre.home.config, world)
    assert wrong(centre.home.config, world) == []
    assert [f.found for f in found.findings if f.name == "front port"] == [
        "8443 answers with our certificate"
    ]
    quiet = replace(world, reach=failing("refused"))
    assert preflight(centre.home.config, quiet).is_ready  # before `up`, the ports are free


SPOILED_WORLDS: dict[str, Callable[[World], World]] = {
    "dns": lambda w: replace(w, resolve=failing("c.example has no address")),
    "front port": lambda w: replace(w, reach=failing("refuses")),
    "front tls": lambda w: replace(w, ask=failing("the certificate has expired")),
    "hub tls": lambda w: replace(w, greet=failing("the certificate is not for the name c.example")),
    "disk": lambda w: replace(w, free_bytes=lambda folder: 1 << 30),
    "versions": lambda w: replace(w, versions=lambda: our_versions().model_copy(update={"protocol": 2})),
    "clock": lambda w: replace(w, ask=answering(w, date="Tue, 01 Jan 2030 20:00:00 GMT")),
    "node": lambda w: replace(w, ask=answering(w, body=b'{"registered": false}')),
    "certificate": lambda w: replace(w, now=lambda: w.now() + timedelta(days=366)),
}


def answering(world: World, **changes: object) -> Callable[[str, int, Path, str], Answer]:
    return lambda *arguments: replace(world.ask(*arguments), **changes)


@pytest.mark.parametrize("name", SPOILED_WORLDS)
def test_each_fault_of_the_world_is_found_and_says_what_to_do(
    name: str, office: Office, world: World
) -> None:
    found = wrong(office.folder.config, SPOILED_WORLDS[name](world))
    assert name in [finding.name for finding in found]
    assert all(finding.found and finding.hint for finding in found)


@pytest.mark.parametrize(
    ("seconds", "is_right"), [(0, True), (119, True), (-119, True), (122, False), (-122, False)]
)
def test_clocks_may_be_two_minutes_apart(seconds: int, is_right: bool, world: World) -> None:
    theirs = format_datetime(world.now() + timedelta(seconds=seconds), usegmt=True)
    assert checks.check_clock(theirs, world).is_right is is_right


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Jan 2030 20:00:00 GMT", "\x00", "9" * 5000])
def test_a_front_without_a_time_is_told(date: str, world: World) -> None:
    assert "does not tell the time" in checks.check_clock(date, world).found


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (200, b""),
        (200, b"[]"),
        (200, b"[" * 60_000),
        (200, b'{"registered": 1, "fedmkt": "0.1.0"}'),
        (200, b'{"registered": "true"}'),
        (200, b'{"registered": true}'),
        (200, b'{"registered": true, "fedmkt": {"a": "' + b"x" * 500 + b'"}}'),
        (500, b'{"registered": true, "fedmkt": "0.1.0"}'),
    ],
)
def test_no_hostile_answer_counts_as_registered(status: int, body: bytes) -> None:
    found = checks.check_registration(Answer(b"", status, "", body), "0.1.0")
    assert not found.is_right and len(found.found) < 200 and "\n" not in found.found


def spoil_mode(office: Office) -> None:
    office.folder.tls_key.chmod(0o644)


def spoil_folder_mode(office: Office) -> None:
    office.folder.keys.chmod(0o755)


def lose_a_key(office: Office) -> None:
    office.folder.node_key.unlink()


def spoil_pin(office: Office) -> None:
    text = office.folder.config.read_text()
    key = checks.read_coordinator(office.folder).identity
    office.folder.config.write_text(text.replace(key, "ab" * 32))


def unpin_others(office: Office) -> None:
    lines = office.folder.config.read_text().splitlines(keepends=True)
    office.folder.config.write_text("".join(line for line in lines if not line.startswith("shop =")))


def lose_data(office: Office) -> None:
    (office.root / "customers.csv").unlink()


def break_data(office: Office) -> None:
    (office.root / "customers.csv").write_text(TABLE.replace("balance", "blance"))


def leave(office: Office) -> None:
    office.folder.coordinator.unlink()


@pytest.mark.parametrize(
    ("spoil", "name", "text"),
    [
        (spoil_mode, "keys", "mode 0644"),
        (spoil_folder_mode, "keys", "mode 0755"),
        (lose_a_key, "keys", "node.key: no such file"),
        (spoil_pin, "pinned keys", "the pinned key of coordinator is not the one in use"),
        (unpin_others, "pinned keys", "pinned: coordinator"),
        (lose_data, "data", "no such file"),
        (break_data, "data", 'column "balance" is missing'),
        (leave, "joined", "no coordinator yet"),
    ],
)
def test_each_fault_of_the_folder_is_found_and_says_what_to_do(
    spoil: Callable[[Office], None], name: str, text: str, office: Office, world: World
) -> None:
    spoil(office)
    (found,) = [f for f in wrong(office.folder.config, world) if f.name != "certificate"]
    assert found.name == name and text in found.found and found.hint


def test_a_certificate_of_another_key_is_found(office: Office, world: World) -> None:
    from fedmkt.crypto.certificates import generate_tls_key

    office.folder.tls_key.write_bytes(generate_tls_key(office.random))
    (found,) = wrong(office.folder.config, world)
    assert (found.name, found.found) == ("certificate", "the certificate was issued for another key")


def test_certificates_near_their_end_are_said_before_they_fail(centre: Office, world: World) -> None:
    late = replace(world, now=lambda: world.now() + timedelta(days=340))
    found = preflight(centre.home.config, late)
    assert found.is_ready
    assert {f.name for f in found.findings if f.hint} == {"server", "certificate", "registry"}
    later = replace(world, now=lambda: world.now() + timedelta(days=366))
    assert {f.name for f in wrong(centre.home.config, later)} == {"server", "certificate", "registry"}


def test_a_server_certificate_without_a_new_host_is_found(centre: Office, world: World) -> None:
    text = centre.home.config.read_text()
    centre.home.config.write_text(text.replace('"c.example"', '"new.example"', 1))
    (found,) = wrong(centre.home.config, world)
    assert found.name == "server" and "new.example" in found.found
    assert found.hint == "fedmkt coordinator renew"


def test_a_foreign_program_on_our_port_is_found(centre: Office, world: World) -> None:
    found = wrong(centre.home.config, replace(world, greet=failing("does not speak our TLS")))
    assert [f.name for f in found] == ["front port", "hub port"]


def test_a_coordinator_that_admitted_nobody_or_allows_nothing_is_not_ready(
    tmp_path: Path, world: World
) -> None:
    new = coordinator(tmp_path)
    assert {f.name for f in wrong(new.home.config, world)} == {"registry", "policy"}


def test_pages_fit_80_columns(office: Office, centre: Office, world: World) -> None:
    bad = replace(world, resolve=failing("x " * 120))
    for config in (office.folder.config, centre.home.config):
        for line in preflight(config, bad).lines():
            assert len(line) <= 80 or str(office.root.parent) in line, line


def test_a_file_of_another_name_is_refused(tmp_path: Path, world: World) -> None:
    with pytest.raises(ConfigError, match=r"party\.toml or coordinator\.toml"):
        preflight(tmp_path / "job.toml", world)
