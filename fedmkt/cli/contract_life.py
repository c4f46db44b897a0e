"""`fedmkt contract`: from a proposal over approvals to amendment, renewal and revocation."""

import secrets
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmkt.cli import asking, console
from fedmkt.cli.contract import Config, File, Folder, Json, contract, folder_from, pairs, say_if_expired

if TYPE_CHECKING:
    from fedmkt.contract.agreement import Contract
    from fedmkt.contract.governance import Approver
    from fedmkt.contract.signatures import SignedContract
    from fedmkt.crypto.sign import Identity

__all__ = ["contract"]

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", show_default=False, help="The file to write."),
]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="NAME=KEY",
        show_default=False,
        help="A signer's identity key: 64 hexadecimal digits, or its request or bundle file.",
    ),
]
Days = Annotated[
    int | None,
    typer.Option("--valid-days", metavar="N", show_default=False, help="How long the contract holds."),
]
KeyFile = Annotated[
    Path, typer.Option("--key", metavar="KEYFILE", show_default=False, help="Your key, from approver-key.")
]
As = Annotated[
    str, typer.Option("--as", metavar="NAME", show_default=False, help="Your name in the contract.")
]
OfParty = Annotated[
    str | None,
    typer.Option("--party", metavar="PARTY", show_default=False, help="Your party, if two share your name."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", metavar="FILE", show_default=False, help="Its first line, instead of asking."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", show_default=False, help="Why, in one sentence.")
]


class Lang(StrEnum):
    """The languages in which contracts are read."""

    ENGLISH = "en"
    CHINESE = "zh"


Language = Annotated[Lang, typer.Option("--lang", help="English or Chinese.")]


@contract.command("approver-key")
def approver_key_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.", show_default=False)],
    out: Out = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase, twice, that protects the file.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make the key with which one person approves contracts; its public half goes into the job."""
    from fedmkt.deploy.life import make_approver_key, public_file

    path = out or Path(f"{name}.key")
    passphrase = None
    if encrypt or passphrase_file is not None:
        passphrase = passphrase_of(passphrase_file, "a new passphrase for this key", is_new=True)
    public = make_approver_key(path, passphrase, secrets.token_bytes)
    if as_json:
        console.say_json({"file": str(path), "key": public, "encrypted": passphrase is not None})
        return
    console.say_lines([f"{path}: keep it where only {name} can read it", f'key = "{public}"'])
    console.say_lines([f"next:    send {public_file(path)} to whoever writes the job"])


@contract.command("propose")
def propose_command(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="The job.toml.", show_default=False)],
    key: Keys = None,
    config: Config = None,
    folder: Folder = None,
    out: Out = None,
    valid_days: Days = None,
    as_json: Json = False,
) -> None:
    """Draft the contract of a job that has terms of governance, for people to review and to approve."""
    from fedmkt.errors import ConfigError

    signed = _draft(job, key, folder_from(config, folder), valid_days)
    if signed.contract.governance is None:
        raise ConfigError(f"{job}: no section [governance]", "without one: fedmkt contract new")
    _write(signed, out, as_json)


@contract.command("amend")
def amend_command(
    old: Annotated[
        Path, typer.Argument(metavar="OLD", help="The contract that is amended.", show_default=False)
    ],
    job: Annotated[Path, typer.Argument(metavar="JOB", help="The changed job.toml.", show_default=False)],
    key: Keys = None,
    config: Config = None,
    folder: Folder = None,
    out: Out = None,
    valid_days: Days = None,
    as_json: Json = False,
) -> None:
    """Draft the next version of a contract: it names the digest of the one before."""
    from fedmkt.deploy.contracts import read_contract
    from fedmkt.deploy.life import amended

    draft = _draft(job, key, folder_from(config, folder), valid_days)
    before = read_contract(old).contract
    say_if_expired(before)
    _write(amended(before, draft), out, as_json)


@contract.command("renew")
def renew_command(file: File, out: Out = None, valid_days: Days = None, as_json: Json = False) -> None:
    """Draft the same contract with new dates, to be approved and signed anew."""
    from fedmkt.deploy.contracts import read_contract
    from fedmkt.deploy.life import renewed

    before = read_contract(file).contract
    say_if_expired(before)
    _write(renewed(before, datetime.now(UTC), valid_days), out, as_json)


@contract.command("review")
def review_command(
    file: File,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="OLD", show_default=False, help="The version that people know."),
    ] = None,
    language: Language = Lang.ENGLISH,
    as_json: Json = False,
) -> None:
    """Say what a contract changes, what is risky, which columns go in and what is disclosed to whom."""
    from fedmkt.contract.reading.review import review
    from fedmkt.contract.reading.screen import lines
    from fedmkt.deploy.contracts import read_contract

    old = None if against is None else read_contract(against).contract
    new = read_contract(file).contract
    say_if_expired(new)
    document = review(new, old, language.value)
    if as_json:
        console.say_json({"file": str(file), **document.to_json()})
    else:
        console.say_lines(lines(document, console.WIDTH))


@contract.command("render")
def render_command(
    file: File,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="OUT", show_default=False, help="Write one HTML file instead."),
    ] = None,
    language: Language = Lang.ENGLISH,
    as_json: Json = False,
) -> None:
    """Show the contract as people read it, with approvals and signatures, as text or as one HTML file."""
    from fedmkt.contract.reading.contents import Reading, read
    from fedmkt.contract.reading.screen import lines
    from fedmkt.deploy.contracts import read_contract
    from fedmkt.deploy.statement_files import folder_beside, read_statements
    from fedmkt.report.contract import render, write_page

    given = read_statements(folder_beside(file))
    document = read(Reading(read_contract(file), given, datetime.now(UTC)), language.value)
    if html is not None:
        write_page(render(document), html)
    if as_json:
        console.say_json({"file": str(file), "html": html, **document.to_json()})
    else:
        console.say_lines([str(html)] if html is not None else lines(document, console.WIDTH))


@contract.command("approve")
def approve_command(
    file: File,
    name: As,
    key: KeyFile,
    party: OfParty = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Approve a contract as one of the people whom it names; writes a signed statement beside the file."""
    from fedmkt.deploy.life import approve

    agreed, approver, identity = _open(file, name, party, key, passphrase_file)
    said = f"approve as {approver.party}/{approver.name} ({approver.role})?"
    asking.confirm(f"{agreed.name}, read with fedmkt contract review: {said}", yes)
    path = approve(file, agreed, approver, identity, datetime.now(UTC))
    _say_decisions(path, file, agreed, as_json)


@contract.command("deny")
def deny_command(
    file: File,
    name: As,
    key: KeyFile,
    reason: Reason,
    party: OfParty = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Deny a contract with a reason, also one that you approved before; writes a signed statement."""
    from fedmkt.deploy.life import deny

    agreed, approver, identity = _open(file, name, party, key, passphrase_file)
    path = deny(file, agreed, approver, identity, datetime.now(UTC), reason)
    _say_decisions(path, file, agreed, as_json)


@contract.command("revoke")
def revoke_command(
    file: File,
    reason: Reason,
    config: Config = None,
    folder: Folder = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """End a contract before its date as one of its signers: whoever has the statement runs it no more."""
    from fedmkt.deploy.contracts import read_contract
    from fedmkt.deploy.life import revoke

    agreed = read_contract(file).contract
    say_if_expired(agreed)
    asking.confirm(f"{agreed.name}: revoke it for good?", yes)
    path = revoke(file, agreed, folder_from(config, folder) or Path(), datetime.now(UTC), reason)
    _say_decisions(path, file, agreed, as_json)
    if not as_json:
        console.say_lines(["next:    send it to all signers, who put it into their folder revocations/"])


def _draft(job: Path, keys: list[str] | None, folder: Path | None, days: int | None) -> "SignedContract":
    from fedmkt.deploy.contracts import collect_keys, draft

    return draft(job, collect_keys(pairs(keys, "NAME=KEY"), folder), datetime.now(UTC), days)


def _write(signed: "SignedContract", out: Path | None, as_json: bool) -> None:
    from fedmkt.contract.canonical import digest
    from fedmkt.deploy.contracts import write_draft

    agreed, terms = signed.contract, signed.contract.governance
    revision = "" if terms is None or terms.revision == 1 else f"-{terms.revision}"
    path = out or Path(f"{agreed.name}{revision}.contract.toml")
    write_draft(signed, path)
    facts = {
        "file": str(path),
        "digest": digest(agreed).hex(),
        "revision": None if terms is None else terms.revision,
        "amends": None if terms is None else terms.amends,
        "expires": agreed.expires,
    }
    if as_json:
        console.say_json(facts)
        return
    said = "" if terms is None else f", revision {terms.revision}"
    console.say_lines([f"{path}{said}, until {agreed.expires:%Y-%m-%d}", f"digest {facts['digest']}"])
    console.say_lines([f"next:    fedmkt contract review {path}"])


def _open(
    file: Path, name: str, party: str | None, key: Path, passphrase_file: Path | None
) -> "tuple[Contract, Approver, Identity]":
    from fedmkt.deploy.contracts import read_contract
    from fedmkt.deploy.life import choose_approver, read_approver_key

    agreed = read_contract(file).contract
    identity = read_approver_key(key, lambda: passphrase_of(passphrase_file, f"passphrase of {key}"))
    return agreed, choose_approver(agreed, name, party, identity), identity


def passphrase_of(file: Path | None, question: str, is_new: bool = False) -> str:
    """Read a passphrase from the first line of a file, or ask for it; ConfigError where nobody can be asked."""
    from fedmkt.deploy.folders import read_text
    from fedmkt.errors import ConfigError

    if file is not None:
        return read_text(file).partition("\n")[0]
    if not sys.stdin.isatty():
        raise ConfigError("nobody is there to type a passphrase", "give --passphrase-file FILE")
    return str(typer.prompt(question, hide_input=True, confirmation_prompt=is_new, err=True))


def _say_decisions(path: Path, file: Path, agreed: "Contract", as_json: bool) -> None:
    from fedmkt.deploy.life import decisions_on
    from fedmkt.deploy.statement_files import folder_beside, read_statements

    found = decisions_on(agreed, read_statements(folder_beside(file)))
    if as_json:
        console.say_json({"file": str(path), **found.to_json()})
    else:
        console.say_lines([str(path), *found.lines()])
