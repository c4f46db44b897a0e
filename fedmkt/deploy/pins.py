"""Add a pinned key to party.toml and leave every other character of it as a person wrote it."""

import os
import re
from pathlib import Path

from fedmkt.deploy.folders import LOCK, PartyFolder, load_party_config, locked, read_file, read_text
from fedmkt.deploy.papers import check_compared, read_bundle, read_request
from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.mistakes import read_toml
from fedmkt.party.journal import write_atomically

_HEADER = re.compile(r"^[ \t]*\[[ \t]*pinned[ \t]*\][ \t]*(#.*)?\r?$", re.MULTILINE)
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)
_LINE = r"^([ \t]*\"?{name}\"?[ \t]*=[ \t]*)([\"'])[0-9a-f]{{64}}\2"


def key_of(name: str, source: str) -> str:
    """Find the identity key of `name`: 64 hexadecimal digits, a request, or a bundle of the coordinator."""
    if re.fullmatch(r"[0-9a-f]{64}", source):
        return source
    data = read_file(Path(source))
    if source.endswith(".bundle"):
        coordinator = read_bundle(data, source).coordinator
        found, key = coordinator.name, coordinator.identity
    else:
        request = read_request(data, source)
        found, key = request.name, request.identity
    if found != name:
        raise ConfigError(f"{source}: comes from {found}, not from {name}")
    return key


def add_pin(folder: PartyFolder, name: str, key: str, compared: str) -> None:
    """Pin a key whose fingerprint a person compared; PolicyRefused if the name has another key."""
    check_compared(compared, key, name)
    with locked(folder.root / LOCK):
        pinned = load_party_config(folder).pinned
        if pinned.get(name) == key:
            return
        if name in pinned:
            raise PolicyRefused(
                f"{folder.config}: {name} has another key already",
                "find out why it changed; --replace puts the new one in its place",
            )
        _write(folder, name, key, _with_line(read_text(folder.config), name, key))


def replace_pin(folder: PartyFolder, name: str, key: str, compared: str) -> None:
    """Put a new key, whose fingerprint a person compared, in the place of the pinned one."""
    check_compared(compared, key, name)
    with locked(folder.root / LOCK):
        if name not in load_party_config(folder).pinned:
            raise ConfigError(f"{folder.config}: {name} has no key yet", "leave --replace out")
        text = read_text(folder.config)
        start, end = _table(text)
        line = re.compile(_LINE.format(name=re.escape(name)), re.MULTILINE)
        changed = line.sub(rf"\g<1>\g<2>{key}\g<2>", text[start:end], count=1)
        _write(folder, name, key, text[:start] + changed + text[end:])


def _with_line(text: str, name: str, key: str) -> str:
    line_break = "\r\n" if "\r\n" in text else "\n"
    line = f'{name} = "{key}"{line_break}'
    start, end = _table(text)
    if start < 0:
        ending = "" if text.endswith("\n") or not text else line_break
        return f"{text}{ending}{line_break}[pinned]{line_break}{line}"
    # After the last line of the table that says something; blank lines and comments of the next stay with it.
    rows = text[start:end].splitlines(keepends=True)
    used = max(
        (i + 1 for i, row in enumerate(rows) if row.strip() and not row.lstrip().startswith("#")), default=0
    )
    if rows and used and not rows[used - 1].endswith("\n"):
        rows[used - 1] += line_break
    return text[:start] + "".join([*rows[:used], line, *rows[used:]]) + text[end:]


def _table(text: str) -> tuple[int, int]:
    """Find where the table of pins begins (its header included) and ends; -1, -1 without one."""
    header = _HEADER.search(text)
    if header is None:
        return -1, -1
    after = _TABLE.search(text, header.end())
    return header.start(), after.start() if after else len(text)


def _write(folder: PartyFolder, name: str, key: str, text: str) -> None:
    """Write the new text only if it says what the old one said, and the pin."""
    path = Path(os.path.realpath(folder.config))  # a link stays a link
    before, after = read_toml(read_text(path), str(path)), _parsed(text)
    pinned = before.get("pinned")
    expected = {**before, "pinned": {**(pinned if isinstance(pinned, dict) else {}), name: key}}
    if after != expected:
        raise ConfigError(
            f"{folder.config}: cannot tell where the pinned keys stand",
            f'write it by hand below [pinned]: {name} = "{key}"',
        )
    write_atomically(path, text.encode(), mode=path.stat().st_mode & 0o777)


def _parsed(text: str) -> dict[str, object]:
    try:
        return read_toml(text, "party.toml")
    except ConfigError:
        return {}
