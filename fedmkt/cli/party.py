"""`fedmkt party`: what a bank or a partner does on its own machine."""

import secrets
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedmkt.cli import console
from fedmkt.cli.asking import compare
from fedmkt.cli.roles import note_act, note_keys

party = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Set up and run a bank's or a partner's own side.",
)


class RoleName(StrEnum):
    """What a party brings; only the bank has a label."""

    BANK = "bank"
    PARTNER = "partner"


Name = Annotated[str, typer.Argument(metavar="NAME", help="The party's name.", show_default=False)]
Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The party's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")]
Fingerprint = Annotated[
    str | None,
    typer.Option(
        "--fingerprint",
        metavar="F",
        show_default=False,
        help="The fingerprint that was read out; instead of being asked.",
    ),
]


@party.command("init")
def init_command(
    name: Name,
    organisation: Annotated[
        str | None,
        typer.Option(metavar="ORG", show_default=False, help="Our organisation; needed the first time."),
    ] = None,
    folder: Folder = Path("."),
    role: Annotated[RoleName, typer.Option(help="Which files to begin with.")] = RoleName.PARTNER,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make new node and TLS keys under the same identity.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make our keys, files to fill in, and a request to send to the coordinator."""
    from fedmkt.deploy.folders import PartyFolder
    from fedmkt.deploy.provision import init_party, rotate_party

    place, now = PartyFolder(folder), datetime.now(UTC)
    if rotate:
        made = rotate_party(place, name, secrets.token_bytes, now)
        note_act(folder, "key.rotated", {"keys": ["node", "tls"], "party": made.name})
    else:
        made = init_party(place, name, organisation, role.value, secrets.token_bytes, now)
        note_keys(folder, made.name, made.fingerprint, made.made)
    if as_json:
        console.say_json(
            {
                "name": made.name,
                "organisation": made.organisation,
                "fingerprint": made.fingerprint,
                "request": str(made.request),
                "made": made.made,
            }
        )
        return
    console.say_lines(
        [
            *(f"made {path}" for path in made.made),
            f"request:      {made.request}",
            f"fingerprint:  {made.fingerprint}",
            "next:         send the request to the coordinator, and read the fingerprint out",
            "              when a person there calls you",
        ]
    )


@party.command("join")
def join_command(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="The coordinator's answer.", show_default=False)
    ],
    folder: Folder = Path("."),
    fingerprint: Fingerprint = None,
    as_json: Json = False,
) -> None:
    """Take the coordinator's answer into use: certificate, addresses, new keys."""
    from fedmkt.crypto.sign import fingerprint as fingerprint_of
    from fedmkt.deploy.folders import PartyFolder, read_file
    from fedmkt.deploy.papers import read_bundle, zulu
    from fedmkt.deploy.provision import join, known_coordinator

    place, answer = PartyFolder(folder), read_bundle(read_file(bundle), str(bundle))
    sender = answer.coordinator
    shown = fingerprint_of(bytes.fromhex(sender.identity))
    given = shown if fingerprint is None and known_coordinator(place, answer) else fingerprint
    compared = compare(sender.name, sender.organisation, shown, given)
    joined = join(place, answer, compared, datetime.now(UTC))
    if as_json:
        console.say_json(
            {
                "name": joined.name,
                "coordinator": joined.coordinator,
                "fingerprint": joined.fingerprint,
                "address": joined.address,
                "expires": zulu(joined.expires),
                "pinned": joined.is_pinned,
            }
        )
        return
    lines = [
        f"{joined.name} belongs to {joined.coordinator} at {joined.address}",
        f"certificate until {zulu(joined.expires)}",
    ]
    if not joined.is_pinned:
        lines.append(f"next: fedmkt party pin {joined.coordinator} {bundle}")
    console.say_lines([*lines, "next: fedmkt preflight"])


@party.command("pin")
def pin_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.", show_default=False)],
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="64 hexadecimal digits, a .request or a .bundle file.", show_default=False
        ),
    ],
    folder: Folder = Path("."),
    fingerprint: Fingerprint = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the key in the place of the pinned one.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Pin another signer's key in party.toml, after comparing its fingerprint."""
    from fedmkt.crypto.sign import fingerprint as fingerprint_of
    from fedmkt.deploy.folders import PartyFolder
    from fedmkt.deploy.pins import add_pin, key_of, replace_pin
    from fedmkt.deploy.provision import check_name

    check_name(name)
    place, found = PartyFolder(folder), key_of(name, key)
    shown = fingerprint_of(bytes.fromhex(found))
    compared = compare(name, "the key to pin", shown, fingerprint)
    (replace_pin if replace else add_pin)(place, name, found, compared)
    if as_json:
        console.say_json({"name": name, "key": found, "fingerprint": shown, "file": str(place.config)})
    else:
        console.say_lines([f"{place.config}: {name} is pinned"])
