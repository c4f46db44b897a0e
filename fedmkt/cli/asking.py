"""Show a fingerprint and ask a person whether it is the one that was read out over the phone."""

import sys

import typer

from fedmkt.errors import ConfigError, PolicyRefused


def compare(whose: str, organisation: str, shown: str, given: str | None) -> str:
    """Return the fingerprint that a person compared: the given one, or the shown one after a yes.

    A pipe cannot compare anything: then the fingerprint must be given.
    """
    if given is not None:
        return given
    if not sys.stdin.isatty():
        hint = "call them, and give what they read out with --fingerprint"
        raise ConfigError(f"nobody is there to compare the fingerprint of {whose}", hint)
    print(f"{whose}, {organisation}", file=sys.stderr)
    print(f"fingerprint: {shown}", file=sys.stderr)
    print("Call a person there, on a number that you know, and let them read theirs out.", file=sys.stderr)
    if not typer.confirm("Is it the same, to the last digit?", default=False, err=True):
        raise PolicyRefused(f"the fingerprint of {whose} was not confirmed", "nothing was changed")
    return shown


def confirm(question: str, is_agreed: bool) -> None:
    """Ask before something that cannot be undone; PolicyRefused on a no, ConfigError without a person."""
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nobody is there to answer", "give --yes")
    if not typer.confirm(question, default=False, err=True):
        raise PolicyRefused("not confirmed", "nothing was changed")
