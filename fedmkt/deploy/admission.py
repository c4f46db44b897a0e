"""The coordinator's side: its own keys and authority, admitting parties, renewing and revoking.

A person compares the fingerprint of every identity before it is admitted; a function here demands what was
compared as an argument, so that no caller can forget it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from fedmkt.config.files import parse_coordinator
from fedmkt.config.settings import CoordinatorSettings
from fedmkt.crypto import certificates
from fedmkt.crypto.prg import Random
from fedmkt.crypto.sign import Identity, fingerprint
from fedmkt.deploy.folders import (
    LOCK,
    CoordinatorFolder,
    contents_of,
    keep_or_write,
    load_coordinator_folder,
    locked,
    make_private,
    read_file,
    read_identity,
    read_secret,
)
from fedmkt.deploy.papers import (
    Coordinator,
    Request,
    check_compared,
    check_fresh,
    encode,
    sign_bundle,
)
from fedmkt.deploy.provision import check_name, our_versions
from fedmkt.deploy.registry import (
    Admission,
    Registry,
    change_registry,
    is_same_organisation,
    read_registry,
    write_registry,
)
from fedmkt.deploy.templates import coordinator_toml
from fedmkt.errors import ConfigError, PolicyRefused, TransportError
from fedmkt.party.journal import write_atomically


class NodeControl(Protocol):
    """How a running SuperLink learns which nodes it may serve; both take the key as SuperLink stores it (PEM).

    Both raise TransportError while SuperLink does not answer, and do nothing for what is already so.
    """

    def register(self, key: bytes) -> None:
        """Let this node take part."""

    def unregister(self, key: bytes) -> None:
        """Let it take part no longer."""


@dataclass(frozen=True)
class Founded:
    """What `init` left: the coordinator's own fingerprint, and the files that it made."""

    name: str
    organisation: str
    fingerprint: str
    hosts: tuple[str, ...]
    made: tuple[str, ...]


@dataclass(frozen=True)
class Admitted:
    """A party in force; `is_registered` tells whether a running SuperLink knows its node already."""

    party: Admission
    bundle: Path
    is_registered: bool


@dataclass(frozen=True)
class Revoked:
    """A party that is out; `is_unregistered` tells whether a running SuperLink knows it already."""

    party: Admission
    is_unregistered: bool


def init_coordinator(
    folder: CoordinatorFolder,
    name: str,
    organisation: str | None,
    hosts: Sequence[str],
    random: Random,
    now: datetime,
) -> Founded:
    """Make authority, keys, certificates, coordinator.toml and an empty registry; what exists stays.

    organisation, hosts : may be left out when coordinator.toml says them.
    """
    check_name(name)
    text = _settings_text(folder, name, organisation, hosts)
    make_private(folder.keys)
    with locked(folder.root / LOCK):
        made = ["coordinator.toml"] if keep_or_write(folder.config, text.encode()) else []
        settings = load_coordinator_folder(folder)
        made += _coordinator_keys(folder, random)
        made += _coordinator_certificates(folder, settings, random, now)
        for inner in (folder.requests, folder.contracts, folder.runs, folder.state, folder.logs):
            make_private(inner)
        if not folder.registry.exists():
            write_registry(folder.registry, Registry())
            made.append(folder.registry.name)
    identity = read_identity(folder.identity)
    shown = fingerprint(identity.public)
    return Founded(name, settings.organisation, shown, settings.hosts, tuple(made))


def _settings_text(
    folder: CoordinatorFolder, name: str, organisation: str | None, hosts: Sequence[str]
) -> str:
    if not folder.config.exists():
        if organisation is None or not hosts:
            raise ConfigError(f"{folder.config}: no such file", "give --organisation and --host, or --dir")
        text = coordinator_toml(name, organisation, hosts[0], tuple(hosts[1:]))
        parse_coordinator(text, folder.config.name)
        return text
    settings = load_coordinator_folder(folder)
    given = (name, organisation or settings.organisation, tuple(hosts) or _dialled(settings))
    if given != (settings.name, settings.organisation, _dialled(settings)):
        raise ConfigError(
            f"{folder.config}: says another name, organisation or host",
            "change them in that file, then: fedmkt coordinator renew",
        )
    return ""


def _dialled(settings: CoordinatorSettings) -> tuple[str, ...]:
    return (settings.host, *settings.other_hosts)


def _coordinator_keys(folder: CoordinatorFolder, random: Random) -> list[str]:
    for key, certificate in ((folder.authority_key, folder.authority), (folder.identity, folder.registry)):
        if certificate.exists() and not key.exists():
            # With a new one every party would have to join again: that is to be decided, not to happen.
            raise ConfigError(f"{key}: missing, though this folder was in use", "bring it back from a backup")
    makers: dict[Path, Callable[[], bytes]] = {
        folder.authority_key: lambda: certificates.generate_tls_key(random),
        folder.server_key: lambda: certificates.generate_tls_key(random),
        folder.tls_key: lambda: certificates.generate_tls_key(random),
        folder.identity: lambda: Identity.generate(random).secret_bytes(),
        folder.superexec_secret: lambda: random(32).hex().encode(),
    }
    missing = [path for path in makers if not path.exists()]
    return [f"keys/{path.name}" for path in missing if keep_or_write(path, makers[path]())]


def _coordinator_certificates(
    folder: CoordinatorFolder, settings: CoordinatorSettings, random: Random, now: datetime
) -> list[str]:
    made = []
    if not folder.authority.exists():
        with contents_of(folder.authority_key):
            own = certificates.make_authority(settings.name, read_secret(folder.authority_key), random, now)
        write_atomically(folder.authority, own.pem)
        made.append("keys/ca.pem")
    if not folder.server_certificate.exists():
        write_atomically(folder.server_certificate, _server(folder, settings, random, now).pem)
        made.append("keys/server.pem")
    if not folder.tls_certificate.exists():
        write_atomically(folder.tls_certificate, _own_client(folder, settings, random, now).pem)
        made.append("keys/tls.pem")
    return made


def _server(
    folder: CoordinatorFolder, settings: CoordinatorSettings, random: Random, now: datetime
) -> certificates.Issued:
    with contents_of(folder.keys):
        return certificates.issue_server(
            read_secret(folder.server_key),
            settings.hosts,
            read_file(folder.authority),
            read_secret(folder.authority_key),
            random,
            now,
        )


def _own_client(
    folder: CoordinatorFolder, settings: CoordinatorSettings, random: Random, now: datetime
) -> certificates.Issued:
    with contents_of(folder.keys):
        csr = certificates.make_signing_request(settings.name, read_secret(folder.tls_key))
        return certificates.issue_client(
            csr, settings.name, read_file(folder.authority), read_secret(folder.authority_key), random, now
        )


def renew_coordinator(
    folder: CoordinatorFolder, random: Random, now: datetime
) -> tuple[certificates.Issued, certificates.Issued]:
    """Issue the coordinator's server and client certificates again, for the hosts in coordinator.toml."""
    settings = load_coordinator_folder(folder)
    with locked(folder.root / LOCK):
        server = _server(folder, settings, random, now)
        client = _own_client(folder, settings, random, now)
        write_atomically(folder.server_certificate, server.pem)
        write_atomically(folder.tls_certificate, client.pem)
    return server, client


def admit(
    folder: CoordinatorFolder,
    request: Request,
    compared: str,
    random: Random,
    now: datetime,
    nodes: NodeControl | None = None,
    bundle: str = "",
) -> Admitted:
    """Admit a party, or rotate its keys: certificate, registry, bundle, and its node at SuperLink.

    compared : the fingerprint that a person there read out. nodes : None while SuperLink does not run; it
    learns the node when it starts. bundle : digest of the app that runs may start.
    """
    settings = load_coordinator_folder(folder)
    identity = read_identity(folder.identity)
    check_compared(compared, request.identity, request.name)
    check_fresh(request, now)
    _check_apart(settings, identity, request)
    authority = read_file(folder.authority)
    with contents_of(folder.authority_key):
        issued = certificates.issue_client(
            request.csr.encode(), request.name, authority, read_secret(folder.authority_key), random, now
        )
    replaced: list[Admission] = []

    def put_in_force(registry: Registry) -> Registry:
        registry.check_admissible(request)
        replaced.extend(party for party in registry.active if party.name == request.name)
        return registry.admit(request, issued.serial, issued.expires, now)

    path = folder.root / f"{request.name}.bundle"
    with locked(folder.root / LOCK):
        registry = change_registry(folder.registry, put_in_force)
        write_atomically(folder.requests / f"{request.name}.request", encode(request))
        card = _card(settings, identity, bundle, now)
        write_atomically(path, encode(sign_bundle(identity, request, issued.pem, authority, card)))
    ended = [party.node for party in replaced if party.node != request.node]
    is_registered = _tell(nodes, ended, [request.node])
    return Admitted(registry.admitted(request.name), path, is_registered)


def _check_apart(settings: CoordinatorSettings, identity: Identity, request: Request) -> None:
    if is_same_organisation(request.organisation, settings.organisation):
        raise PolicyRefused(
            f"{request.name} belongs to {request.organisation!r}, the coordinator's own organisation",
            "let an organisation run the coordinator that is no party",
        )
    if request.name == settings.name:
        raise PolicyRefused(f"{request.name} is the coordinator's own name", "choose another name")
    if request.identity == identity.public.hex():
        raise PolicyRefused(f"{request.name} shows the coordinator's own identity key")


def _card(settings: CoordinatorSettings, identity: Identity, bundle: str, now: datetime) -> Coordinator:
    return Coordinator(
        name=settings.name,
        organisation=settings.organisation,
        identity=identity.public.hex(),
        host=settings.host,
        front_port=settings.front_port,
        hub_port=settings.hub_port,
        bundle=bundle,
        versions=our_versions(),
        created=now.replace(microsecond=0),
    )


def revoke(folder: CoordinatorFolder, name: str, now: datetime, nodes: NodeControl | None = None) -> Revoked:
    """End a party's admission: its certificate, identity and node are refused from now on."""
    registry = change_registry(folder.registry, lambda before: before.revoke(name, now))
    (folder.root / f"{name}.bundle").unlink(missing_ok=True)
    party = next(party for party in registry.parties if party.name == name)
    return Revoked(party, _tell(nodes, [party.node], []))


def _tell(nodes: NodeControl | None, ended: Sequence[str], begun: Sequence[str]) -> bool:
    """Tell SuperLink; False while it does not answer: it is told everything again when it starts."""
    if nodes is None:
        return False
    try:
        for node in ended:
            nodes.unregister(certificates.node_key_pem(node))
        for node in begun:
            nodes.register(certificates.node_key_pem(node))
    except TransportError:
        return False
    return True


def register_all(folder: CoordinatorFolder, nodes: NodeControl) -> int:
    """Make SuperLink's list of nodes that of the registry, whenever it has started; returns how many there are."""
    registry = read_registry(folder.registry)
    in_force = registry.node_keys()
    for key in registry.former_node_keys():
        if key not in in_force:
            nodes.unregister(key)
    for key in in_force:
        nodes.register(key)
    return len(in_force)
