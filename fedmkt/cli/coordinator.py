"""`fedmkt coordinator`: what the organisation does that runs the coordinator."""

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmkt.cli import console
from fedmkt.cli.asking import compare, confirm
from fedmkt.cli.roles import note_act, note_keys

if TYPE_CHECKING:
    from fedmkt.deploy.admission import NodeControl
    from fedmkt.deploy.folders import CoordinatorFolder
    from fedmkt.deploy.registry import Admission

coordinator = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Set up and run the coordinator, and say who takes part.",
)

Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The coordinator's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")]


@coordinator.command("init")
def init_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The coordinator's name.", show_default=False)],
    organisation: Annotated[
        str | None,
        typer.Option(metavar="ORG", show_default=False, help="Our organisation: never a party's."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="HOST",
            show_default=False,
            help="The name or address that parties dial; more may follow.",
        ),
    ] = None,
    folder: Folder = Path("."),
    as_json: Json = False,
) -> None:
    """Make authority, keys, certificates and coordinator.toml; what exists stays."""
    from fedmkt.deploy.admission import init_coordinator
    from fedmkt.deploy.folders import CoordinatorFolder

    place, now = CoordinatorFolder(folder), datetime.now(UTC)
    made = init_coordinator(place, name, organisation, host or [], secrets.token_bytes, now)
    note_keys(folder, made.name, made.fingerprint, made.made)
    if as_json:
        console.say_json(
            {
                "name": made.name,
                "organisation": made.organisation,
                "fingerprint": made.fingerprint,
                "hosts": made.hosts,
                "made": made.made,
            }
        )
        return
    console.say_lines(
        [
            *(f"made {path}" for path in made.made),
            f"answers for:  {', '.join(made.hosts)}",
            f"fingerprint:  {made.fingerprint}",
            "next:         every party compares it over the phone when it joins",
            "              fedmkt coordinator admit REQUEST",
        ]
    )


@coordinator.command("renew")
def renew_command(folder: Folder = Path("."), as_json: Json = False) -> None:
    """Issue our own certificates again, for the hosts in coordinator.toml."""
    from fedmkt.crypto.certificates import hosts_of
    from fedmkt.deploy.admission import renew_coordinator
    from fedmkt.deploy.folders import CoordinatorFolder
    from fedmkt.deploy.papers import zulu

    server, client = renew_coordinator(CoordinatorFolder(folder), secrets.token_bytes, datetime.now(UTC))
    hosts = hosts_of(server.pem)
    if as_json:
        console.say_json({"hosts": hosts, "server": zulu(server.expires), "client": zulu(client.expires)})
    else:
        console.say_lines(
            [f"server certificate until {zulu(server.expires)}", f"answers for: {', '.join(hosts)}"]
        )


@coordinator.command("admit")
def admit_command(
    request: Annotated[
        Path, typer.Argument(metavar="REQUEST", help="The party's request.", show_default=False)
    ],
    folder: Folder = Path("."),
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint",
            metavar="F",
            show_default=False,
            help="The fingerprint that was read out; instead of being asked.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Admit a party, or its new keys, and write the bundle to send back."""
    from fedmkt.crypto.sign import fingerprint as fingerprint_of
    from fedmkt.deploy.admission import admit
    from fedmkt.deploy.folders import CoordinatorFolder, read_file
    from fedmkt.deploy.papers import read_request

    place, wish = CoordinatorFolder(folder), read_request(read_file(request), str(request))
    shown = fingerprint_of(bytes.fromhex(wish.identity))
    compared = compare(wish.name, wish.organisation, shown, fingerprint)
    now = datetime.now(UTC)
    with _nodes(place) as nodes:
        done = admit(place, wish, compared, secrets.token_bytes, now, nodes, _app())
    note_act(folder, "party.registered", {"identity": done.party.fingerprint, "party": done.party.name})
    if as_json:
        told = {"bundle": str(done.bundle), "registered": done.is_registered}
        console.say_json(_party_facts(done.party, datetime.now(UTC)) | told)
        return
    console.say_lines(
        [
            f"{done.party.name} is admitted: {done.party.organisation}",
            f"fingerprint:  {done.party.fingerprint}",
            f"bundle:       {done.bundle}  (send it back; it holds no secret)",
            "node:         registered"
            if done.is_registered
            else "node:         registered when `fedmkt coordinator up` starts",
        ]
    )


@coordinator.command("revoke")
def revoke_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The party to end.", show_default=False)],
    folder: Folder = Path("."),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Refuse a party's identity, node and certificate from now on, for good."""
    from fedmkt.deploy.admission import revoke
    from fedmkt.deploy.folders import CoordinatorFolder
    from fedmkt.deploy.registry import read_registry

    place = CoordinatorFolder(folder)
    party = read_registry(place.registry).admitted(name)
    confirm(f"End {name} ({party.organisation})? Its identity key cannot come back.", yes)
    with _nodes(place) as nodes:
        done = revoke(place, name, datetime.now(UTC), nodes)
    note_act(folder, "key.revoked", {"identity": done.party.fingerprint, "party": name})
    if as_json:
        facts = _party_facts(done.party, datetime.now(UTC))
        console.say_json(facts | {"unregistered": done.is_unregistered})
        return
    when = "now" if done.is_unregistered else "when `fedmkt coordinator up` starts"
    console.say_lines([f"{name} is revoked", f"node: refused {when}"])


@coordinator.command("parties")
def parties_command(folder: Folder = Path("."), as_json: Json = False) -> None:
    """List who is admitted, until when, and by which fingerprint."""
    from fedmkt.crypto.sign import fingerprint
    from fedmkt.deploy.folders import CoordinatorFolder, load_coordinator_folder, read_identity
    from fedmkt.deploy.registry import read_registry

    place, now = CoordinatorFolder(folder), datetime.now(UTC)
    settings, registry = load_coordinator_folder(place), read_registry(place.registry)
    own = fingerprint(read_identity(place.identity).public)
    facts = [_party_facts(party, now) for party in registry.parties]
    if as_json:
        us = {"name": settings.name, "organisation": settings.organisation, "fingerprint": own}
        console.say_json({"coordinator": us, "parties": facts})
        return
    lines = [f"{settings.name}, {settings.organisation}, the coordinator", f"  {own}"]
    for party in facts:
        lines += [
            f"{party['name']}, {party['organisation']}",
            f"  {party['fingerprint']}",
            f"  {party['state']}, certificate until {party['expires']}",
        ]
        if party["state"] in ("expiring", "expired"):
            lines.append(f"  -> {party['name']} runs: fedmkt party init {party['name']} --rotate")
    console.say_lines(lines)


def _party_facts(party: "Admission", now: datetime) -> dict[str, object]:
    from fedmkt.deploy.papers import zulu

    return {
        "name": party.name,
        "organisation": party.organisation,
        "state": party.state(now),
        "fingerprint": party.fingerprint,
        "identity": party.identity,
        "serial": party.serial,
        "admitted": zulu(party.admitted),
        "expires": zulu(party.expires),
        "revoked": None if party.revoked is None else zulu(party.revoked),
    }


@contextmanager
def _nodes(folder: "CoordinatorFolder") -> "Iterator[NodeControl | None]":
    """Reach our own SuperLink; None while it does not run: it learns the nodes when it starts."""
    from fedmkt.deploy.folders import load_coordinator_folder
    from fedmkt.errors import TransportError
    from fedmkt.transport.probe import reach

    try:
        reach("127.0.0.1", load_coordinator_folder(folder).superlink_port)
    except TransportError:
        yield None
        return
    from fedmkt.deploy.executor import control_of

    with closing(control_of(folder)) as control:
        yield control


def _app() -> str:
    """Return the digest of the app with which runs start, the only one that parties accept."""
    from fedmkt.transport.flower_control import bundle_digest

    return bundle_digest()
