"""Everything that can be wrong before a run, looked at one by one: what is wrong and what to do.

The checks ask the world only through `World`, so that each can be made to fail without a network.
"""

import json
import os
import shutil
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from fedmkt.config.settings import ANY_ADDRESS, CoordinatorSettings, PartyConfig
from fedmkt.config.tables import PartnerConfig
from fedmkt.crypto import certificates
from fedmkt.crypto.sign import fingerprint
from fedmkt.deploy.folders import (
    CoordinatorFolder,
    PartyFolder,
    load_coordinator_folder,
    load_party_folder,
    read_file,
    read_identity,
    read_secret,
)
from fedmkt.deploy.papers import Coordinator, Versions, zulu
from fedmkt.deploy.provision import our_versions, read_coordinator
from fedmkt.deploy.registry import EXPIRY_WARNING_DAYS, read_registry
from fedmkt.errors import ConfigError, FedmktError, TransportError
from fedmkt.transport.probe import Answer, ask, greet, reach, resolve

CLOCK_TOLERANCE = 120.0
LEAST_DISK = 2 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at: right or wrong, what was found, and what to do if it is wrong."""

    name: str
    is_right: bool
    found: str
    hint: str = ""


@dataclass(frozen=True)
class Preflight:
    """All findings, and whose folder they are of."""

    name: str
    side: str
    findings: tuple[Finding, ...]

    @property
    def is_ready(self) -> bool:
        """True when nothing is wrong."""
        return all(finding.is_right for finding in self.findings)

    def to_json(self) -> dict[str, object]:
        """Give the facts of the printed lines as plain data."""
        findings = [asdict(finding) for finding in self.findings]
        return {"name": self.name, "side": self.side, "ready": self.is_ready, "findings": findings}

    def lines(self) -> list[str]:
        """Give one line per finding, what to do below it, and the outcome last."""
        lines: list[str] = []
        for finding in self.findings:
            lines += _wrapped(
                f"{'ok' if finding.is_right else 'wrong':<6} {finding.name:<12} ", finding.found
            )
            if finding.hint:
                lines += _wrapped(f"{'':<19} -> ", finding.hint)
        wrong = sum(not finding.is_right for finding in self.findings)
        return [*lines, f"{self.name} is ready" if self.is_ready else f"{self.name}: {wrong} to put right"]


def _wrapped(begin: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, 80, initial_indent=begin, subsequent_indent=" " * len(begin), break_long_words=False
    ) or [begin.rstrip()]


@dataclass(frozen=True)
class World:
    """What the checks ask: names, ports, servers, clock, disk and the versions installed here."""

    resolve: Callable[[str, int], tuple[str, ...]]
    reach: Callable[[str, int], None]
    greet: Callable[[str, int, Path], bytes]
    ask: Callable[[str, int, Path, str], Answer]
    now: Callable[[], datetime]
    free_bytes: Callable[[Path], int]
    versions: Callable[[], Versions]


def real_world() -> World:
    """Ask the network, the clock and the disk of this machine."""
    return World(
        resolve=resolve,
        reach=reach,
        greet=greet,
        ask=ask,
        now=lambda: datetime.now(UTC),
        free_bytes=lambda folder: shutil.disk_usage(folder).free,
        versions=our_versions,
    )


def preflight(config: Path, world: World) -> Preflight:
    """Check the side whose file `config` is: party.toml or coordinator.toml."""
    if config.name == "party.toml":
        return _party(PartyFolder(config.parent), world)
    if config.name == "coordinator.toml":
        return _coordinator(CoordinatorFolder(config.parent), world)
    raise ConfigError(f"{config}: accepted: a file named party.toml or coordinator.toml")


def _party(folder: PartyFolder, world: World) -> Preflight:
    config, schema = load_party_folder(folder)
    files = folder.root / config.node.data
    findings = [
        *check_secrets(folder.secrets, folder.keys),
        check_identity(folder.identity),
        check_pins(config, folder),
        check_data(lambda: _rows(schema, files, folder)),
        check_disk(folder.root, world),
    ]
    if not folder.coordinator.exists():
        hint = f"send {config.name}.request to the coordinator, then: fedmkt party join BUNDLE"
        findings.append(Finding("joined", False, "no coordinator yet", hint))
        return Preflight(config.name, "party", tuple(findings))
    card = read_coordinator(folder)
    findings += [
        check_certificate(folder.tls_key, folder.tls_certificate, folder.authority, config.name, world),
        check_versions(card.versions, world),
        *_network(folder, config, card, world),
    ]
    return Preflight(config.name, "party", tuple(findings))


def _network(folder: PartyFolder, config: PartyConfig, card: Coordinator, world: World) -> Iterator[Finding]:
    """Look outwards step by step; what cannot be tried after a failure is left out."""
    found = check_address(card.host, card.front_port, world)
    yield found
    if not found.is_right:
        return
    for what, port in (("front", card.front_port), ("hub", card.hub_port)):
        found = check_port(what, card.host, port, world)
        yield found
        if found.is_right and what == "front":
            yield from check_front(folder.authority, card, config.name, world)
        elif found.is_right:
            yield check_tls(what, card.host, port, folder.authority, world)


def _rows(schema: PartnerConfig, files: Path, folder: PartyFolder) -> str:
    from fedmkt.deploy.rights import withdrawals_of
    from fedmkt.party.node import open_data  # pulls in pandas' relatives: only where a table is read

    withdrawn = withdrawals_of(folder) if (folder.state / "store").exists() else None
    table = open_data(schema, files, withdrawn=withdrawn)
    return "; ".join([f"{schema.file}: {len(table.ids):,} usable rows", *table.dropped.report_lines()])


def check_secrets(secrets: tuple[Path, ...], folder: Path) -> Iterator[Finding]:
    """Check that every key is there and closed to others, and so is the folder that holds them."""
    if not folder.is_dir():
        yield Finding("keys", False, f"{folder} does not exist", "fedmkt party init or coordinator init")
        return
    mode = folder.stat().st_mode & 0o777
    wrong = [Finding("keys", False, f"{folder} has mode {mode:04o}", f"chmod 700 {folder}")] * bool(
        mode & 0o077
    )
    for path in secrets:
        try:
            read_secret(path)
        except ConfigError as error:
            wrong.append(Finding("keys", False, str(error), error.hint or "bring it back, or run init"))
    yield from wrong or [Finding("keys", True, f"{len(secrets)} keys, for their owner only")]


def check_identity(path: Path) -> Finding:
    """Show our own fingerprint: it is what others compare."""
    try:
        return Finding("identity", True, fingerprint(read_identity(path).public))
    except ConfigError as error:
        return Finding("identity", False, str(error), error.hint or "fedmkt party init NAME")


def check_pins(config: PartyConfig, folder: PartyFolder) -> Finding:
    """Check that ourselves, the coordinator and one more are pinned, and the first two with the right keys."""
    wrong = _wrong_pin(config, folder)
    if wrong:
        return wrong
    others = sorted(set(config.pinned) - {config.name})
    if len(others) < 2:
        hint = "fedmkt party pin NAME FILE for the coordinator and each other party, after a phone call"
        return Finding("pinned keys", False, f"pinned: {', '.join(others) or 'nobody else'}", hint)
    return Finding("pinned keys", True, ", ".join(sorted(config.pinned)))


def _wrong_pin(config: PartyConfig, folder: PartyFolder) -> Finding | None:
    try:
        own = {config.name: read_identity(folder.identity).public.hex()}
        if folder.coordinator.exists():
            card = read_coordinator(folder)
            own[card.name] = card.identity
    except ConfigError:
        return None  # said by the check of the keys
    for name, key in own.items():
        if name not in config.pinned:
            found, hint = f"{name} is not pinned", f"fedmkt party pin {name} {key}"
            return Finding("pinned keys", False, found, hint)
        if config.pinned[name] != key:
            hint = f"compare keys, then: fedmkt party pin {name} KEY --replace"
            return Finding("pinned keys", False, f"the pinned key of {name} is not the one in use", hint)
    return None


def check_data(rows: Callable[[], str]) -> Finding:
    """Check that the table can be read as schema.toml says."""
    try:
        return Finding("data", True, rows())
    except FedmktError as error:
        return Finding("data", False, str(error), error.hint or "put the file there, or change schema.toml")


def check_disk(folder: Path, world: World) -> Finding:
    """Check that there is room for checkpoints and logs, and that we may write."""
    free = world.free_bytes(folder)
    found = f"{free / 2**30:.1f} GiB free"
    if not os.access(folder, os.W_OK):
        return Finding("disk", False, f"cannot write to {folder}", "change its owner or mode")
    if free < LEAST_DISK:
        return Finding("disk", False, found, f"a run needs {LEAST_DISK / 2**30:.0f} GiB: make room")
    return Finding("disk", True, found)


def check_certificate(key: Path, certificate: Path, authority: Path, name: str, world: World) -> Finding:
    """Check that our client certificate is for our key, from the coordinator's authority, and valid."""
    now = world.now()
    try:
        pem = read_file(certificate)
        certificates.check_key_matches(read_secret(key), pem)
        if now >= certificates.expiry_of(pem):
            raise ValueError(f"the certificate expired on {zulu(certificates.expiry_of(pem))}")
        certificates.check_client(pem, name, read_file(authority), now)
        return _by_expiry("certificate", certificates.expiry_of(pem), now)
    except (ConfigError, ValueError) as error:
        return Finding("certificate", False, str(error), f"fedmkt party join {name}.bundle, or --rotate anew")


def _by_expiry(name: str, expires: datetime, now: datetime) -> Finding:
    days = int((expires - now).total_seconds() // 86400)
    found = f"valid until {zulu(expires)}, {days} days"
    return Finding(name, True, found, "renew it soon" if days < EXPIRY_WARNING_DAYS else "")


def check_versions(theirs: Versions, world: World) -> Finding:
    """Check that both sides run the same releases: messages and Flower's interfaces change between them."""
    ours = world.versions()
    shown = f"fedmkt {ours.fedmkt}, protocol {ours.protocol}, flwr {ours.flwr}"
    differing = [
        f"{name} {mine} here, {other} at the coordinator"
        for name, mine, other in (
            ("fedmkt", ours.fedmkt, theirs.fedmkt),
            ("protocol", str(ours.protocol), str(theirs.protocol)),
            ("flwr", ours.flwr, theirs.flwr),
        )
        if mine != other
    ]
    if differing:
        return Finding("versions", False, "; ".join(differing), "install the same release on both sides")
    return Finding("versions", True, shown)


def check_address(host: str, port: int, world: World) -> Finding:
    """Check that the coordinator's name has an address."""
    try:
        return Finding("dns", True, f"{host} is {', '.join(world.resolve(host, port)[:3])}")
    except TransportError as error:
        return Finding("dns", False, str(error), "ask for the right name, or add it to DNS or /etc/hosts")


def check_port(what: str, host: str, port: int, world: World) -> Finding:
    """Check that the port takes connections."""
    try:
        world.reach(host, port)
        return Finding(f"{what} port", True, f"{host}:{port} is reachable")
    except TransportError as error:
        hint = f"is the coordinator up? is port {port} open outwards in your firewall?"
        return Finding(f"{what} port", False, str(error), hint)


def check_tls(what: str, host: str, port: int, authority: Path, world: World) -> Finding:
    """Check that the server's certificate is of the coordinator's authority, for this name, valid now."""
    try:
        certificate = world.greet(host, port, authority)
    except TransportError as error:
        return _wrong_tls(what, error)
    return _server_certificate(what, certificate, world)


def _wrong_tls(what: str, error: TransportError) -> Finding:
    hint = "on the coordinator: fedmkt coordinator renew, and restart; here: compare clock and ca.pem"
    return Finding(f"{what} tls", False, str(error), hint)


def _server_certificate(what: str, certificate: bytes, world: World) -> Finding:
    try:
        return _by_expiry(f"{what} tls", certificates.expiry_of(certificate), world.now())
    except ValueError as error:
        return Finding(f"{what} tls", False, str(error), "is this the coordinator's port?")


def check_front(authority: Path, card: Coordinator, name: str, world: World) -> Iterator[Finding]:
    """Check the front's TLS, the clock in its answer, its release, and whether it knows our node."""
    try:
        answer = world.ask(card.host, card.front_port, authority, f"/preflight/{name}")
    except TransportError as error:
        yield _wrong_tls("front", error)
        return
    yield _server_certificate("front", answer.certificate, world)
    yield check_clock(answer.date, world)
    yield check_registration(answer, card.versions.fedmkt)


def check_clock(date: str, world: World) -> Finding:
    """Check that our clock and the coordinator's agree within two minutes."""
    now = world.now()
    try:
        theirs = parsedate_to_datetime(date).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return Finding("clock", False, "the front does not tell the time", "is this the coordinator's front?")
    apart = (now - theirs).total_seconds()
    found = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the coordinator"
    if abs(apart) > CLOCK_TOLERANCE:
        hint = f"set the clock (NTP), here or there: {CLOCK_TOLERANCE:.0f} s apart are accepted"
        return Finding("clock", False, found, hint)
    return Finding("clock", True, found)


def check_registration(answer: Answer, expected: str) -> Finding:
    """Check that the front knows our node, and runs the release of which the bundle spoke."""
    try:
        facts = json.loads(answer.body) if answer.status == 200 else None
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        found = f"the front gives no answer about us (status {answer.status})"
        return Finding("node", False, found, "is this the coordinator's front?")
    if facts.get("registered") is not True:
        hint = "the coordinator admits your request (again, after a rotation), or revoked you: ask there"
        return Finding("node", False, "not registered at the coordinator", hint)
    if facts.get("fedmkt") != expected:
        running = str(facts.get("fedmkt"))[:40]
        found = f"the coordinator now runs fedmkt {running!r}, when we joined {expected}"
        return Finding("node", False, found, "install the same release; ask for a new bundle")
    return Finding("node", True, "registered at the coordinator")


def _coordinator(folder: CoordinatorFolder, world: World) -> Preflight:
    settings = load_coordinator_folder(folder)
    findings = [
        *check_secrets(folder.secrets, folder.keys),
        check_identity(folder.identity),
        check_authority(folder, world),
        check_server(folder, settings, world),
        check_own_certificate(folder, settings, world),
        *check_parties(folder, world),
        check_policy(settings),
        check_disk(folder.root, world),
        check_address(settings.host, settings.front_port, world),
    ]
    for what, port in (("front", settings.front_port), ("hub", settings.hub_port)):
        findings.append(check_own_port(what, port, settings.listen, folder, world))
    return Preflight(settings.name, "coordinator", tuple(findings))


def check_authority(folder: CoordinatorFolder, world: World) -> Finding:
    """Check that the authority's certificate belongs to its key and is valid."""
    try:
        pem = read_file(folder.authority)
        certificates.check_key_matches(read_secret(folder.authority_key), pem)
        expires = certificates.expiry_of(pem)
        if world.now() >= expires:
            raise ValueError(f"the authority expired on {zulu(expires)}")
    except (ConfigError, ValueError) as error:
        return Finding("authority", False, str(error), "bring keys/ca.key and ca.pem back from a backup")
    return _by_expiry("authority", expires, world.now())


def check_server(folder: CoordinatorFolder, settings: CoordinatorSettings, world: World) -> Finding:
    """Check that the server's certificate answers for every host of coordinator.toml."""
    try:
        pem = read_file(folder.server_certificate)
        certificates.check_key_matches(read_secret(folder.server_key), pem)
        for host in settings.hosts:
            certificates.check_server(pem, host, read_file(folder.authority), world.now())
    except (ConfigError, ValueError) as error:
        return Finding("server", False, str(error), "fedmkt coordinator renew")
    return _by_expiry("server", certificates.expiry_of(pem), world.now())


def check_own_certificate(folder: CoordinatorFolder, settings: CoordinatorSettings, world: World) -> Finding:
    """Check the certificate with which we dial our own hub."""
    found = check_certificate(folder.tls_key, folder.tls_certificate, folder.authority, settings.name, world)
    if found.is_right:
        return found
    return Finding(found.name, False, found.found, "fedmkt coordinator renew")


def check_parties(folder: CoordinatorFolder, world: World) -> Iterator[Finding]:
    """Check that parties are admitted, and that no certificate of theirs has expired."""
    try:
        registry = read_registry(folder.registry)
    except ConfigError as error:
        yield Finding("registry", False, str(error), error.hint or "bring it back from a backup")
        return
    now = world.now()
    if not registry.active:
        yield Finding("registry", False, "nobody is admitted", "fedmkt coordinator admit REQUEST")
    for party in registry.active:
        state, until = party.state(now), f"{party.name}: certificate until {zulu(party.expires)}"
        hint = f"{party.name} runs `fedmkt party init {party.name} --rotate` and sends the request"
        yield Finding("registry", state != "expired", until, "" if state == "admitted" else hint)


def check_policy(settings: CoordinatorSettings) -> Finding:
    """Check that a purpose is allowed: without one every contract is refused."""
    if not settings.policy.purposes:
        hint = "name it in coordinator.toml, [policy] purposes"
        return Finding("policy", False, "no purpose is allowed: every contract is refused", hint)
    return Finding("policy", True, f"{len(settings.policy.purposes)} purposes allowed")


def check_own_port(what: str, port: int, listen: str, folder: CoordinatorFolder, world: World) -> Finding:
    """Check that our own server answers on its port, or that the port is free for it."""
    name = f"{what} port"
    here = "127.0.0.1" if listen in (ANY_ADDRESS, "::") else listen
    try:
        world.reach(here, port)
    except TransportError:
        return Finding(name, True, f"{port} is free: fedmkt coordinator up would listen there")
    try:
        world.greet(here, port, folder.authority)
    except TransportError as error:
        return Finding(name, False, f"another program listens: {error}", f"stop it, or change {what}_port")
    return Finding(name, True, f"{port} answers with our certificate")
