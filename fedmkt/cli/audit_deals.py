"""`fedmkt audit`, of what the dealer dealt: an auditor's key, and the audit of finished runs."""

import json
import secrets
from pathlib import Path
from typing import Annotated

import typer

from fedmkt.cli import console
from fedmkt.cli.audit import Json, Run, audit
from fedmkt.cli.contract_life import PassphraseFile, passphrase_of

__all__ = ["audit"]


@audit.command("auditor-key")
def auditor_key_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.", show_default=False)],
    organisation: Annotated[
        str, typer.Option(metavar="TEXT", help="The auditor's organisation.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", show_default=False, help="The file to write.")
    ] = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase, twice, that protects the file.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make the key of an auditor of deals; prints the section that a job has for it."""
    from fedmkt.deploy.life import make_approver_key, public_file, read_approver_key
    from fedmkt.errors import ConfigError
    from fedmkt.protocol.deals import auditor_terms

    path, passphrase = out or Path(f"{name}.key"), None
    if encrypt or passphrase_file is not None:
        passphrase = passphrase_of(passphrase_file, "a new passphrase for this key", is_new=True)
    make_approver_key(path, passphrase, secrets.token_bytes)
    public_file(path).unlink()
    identity = read_approver_key(path, lambda: passphrase or "")
    try:
        section = auditor_terms(name, organisation, identity).model_dump()
    except ValueError:
        raise ConfigError("a name like auditor or big-four, and an organisation of printable text") from None
    if as_json:
        console.say_json({"file": str(path), **section})
        return
    console.say_lines([f"{path}: keep it where only {name} can read it", "for job.toml:", "", "[auditor]"])
    console.say_lines([f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in section.items()])
    console.say_lines(
        ["", f'each party, after comparing it: auditors = ["{section["seal_key"]}"] in policy.toml']
    )


@audit.command("deals")
def deals_command(
    run: Run,
    key: Annotated[
        Path, typer.Option("--key", metavar="KEYFILE", show_default=False, help="From auditor-key.")
    ],
    only: Annotated[
        str, typer.Option("--run", metavar="RUN", show_default=False, help="One run, or its first digits.")
    ] = "",
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the sealed seeds here of runs that are right.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Compute again all that the dealer of finished runs had to send, and compare; exit code 7 names what is wrong.

    For the auditor whom the contract names, over folders of all from fedmkt audit collect. Its signed statement lies
    in deals/ of the same folder.
    """
    from dataclasses import asdict

    from fedmkt.deploy.life import read_approver_key
    from fedmkt.errors import AuditError
    from fedmkt.report.deals import audit_deals

    identity = read_approver_key(key, lambda: passphrase_of(passphrase_file, f"passphrase of {key}"))
    done = audit_deals(run, identity, only, delete)
    if as_json:
        console.say_json({"runs": [{**asdict(item), "statement": str(item.statement)} for item in done]})
    else:
        console.say_lines([line for item in done for line in (*item.lines(), f"  {item.statement}")])
    for item in done:
        if item.wrong:
            raise AuditError(f"run {item.run[:16]}: {item.wrong}", "nothing that rests on this run is sound")
