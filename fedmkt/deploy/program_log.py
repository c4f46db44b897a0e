"""The logs of supervised programs: files that rotate, lines that hold no secret and no control characters."""

import logging
import re
import time
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

LOG_BYTES = 10_000_000
LOG_FILES = 5
LONGEST_LINE = 16_384
HIDDEN = "[hidden]"

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{48,}(?![0-9A-Za-z])")
_DENSE = re.compile(r"[0-9A-Za-z+/_=-]{32,}")


class Scrubber:
    """Takes out of a line what looks like a key or a token, and every secret that it was told."""

    def __init__(self, secrets: Sequence[bytes] = ()) -> None:
        self._known = tuple({form for secret in secrets for form in forms_of(secret)})

    def __repr__(self) -> str:
        """Tell how many secrets are known, not which."""
        return f"Scrubber({len(self._known)})"

    def scrub(self, line: str) -> str:
        """Return the line as it may be written: one line, no colours, secrets replaced."""
        text = _CONTROL.sub(" ", _COLOUR.sub("", line)).rstrip()
        for secret in self._known:
            text = text.replace(secret, HIDDEN)
        return _DENSE.sub(_hide_dense, _HEX.sub(HIDDEN, text))


def forms_of(secret: bytes) -> tuple[str, ...]:
    """Return how a secret could stand in a text: as it is, if it is text, and hexadecimal."""
    shown = secret.decode("ascii", "replace").strip()
    is_text = len(shown) >= 8 and shown.isprintable() and "\ufffd" not in shown
    return (secret.hex(), shown) if is_text else (secret.hex(),)


def _hide_dense(found: re.Match[str]) -> str:
    # Paths are long too, but each of their names is short or all of one kind of character.
    text = found[0]
    if text.startswith("/") or text.count("/") * 12 > len(text):
        return "/".join(HIDDEN if len(name) >= 24 and _is_mixed(name) else name for name in text.split("/"))
    return HIDDEN if _is_mixed(text) else text


def _is_mixed(text: str) -> bool:
    kinds = (str.isdigit, str.isupper, str.islower)
    return all(any(kind(character) for character in text) for kind in kinds)


class _Handler(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line: a full disk must not stop the program whose output this is."""


class ProgramLog:
    """One log file and its older copies, each at most `size` bytes; every line with its time (UTC)."""

    def __init__(self, path: Path, scrubber: Scrubber, size: int = LOG_BYTES, files: int = LOG_FILES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._scrubber = scrubber
        self._handler = _Handler(path, maxBytes=size, backupCount=files, encoding="utf-8", delay=True)
        formatter = logging.Formatter("%(asctime)sZ %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self._handler.setFormatter(formatter)

    def write(self, line: str) -> str:
        """Write one line; returns it as it was written, without its time."""
        clean = self._scrubber.scrub(line)
        if clean:
            self._handler.handle(logging.makeLogRecord({"msg": clean}))
        return clean

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        self._handler.close()
