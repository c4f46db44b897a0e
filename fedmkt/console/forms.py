"""Forms as browsers send them: fields of text, and small files; anything else is refused."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fedmkt.errors import ConfigError

MOST_FIELDS = 12
_NAME = re.compile(r"[a-z_]{1,30}\Z")
_BOUNDARY = re.compile(r"multipart/form-data; ?boundary=\"?([0-9A-Za-z'()+_,./:=?-]{1,70})\"?\Z")
_PART = re.compile(r'form-data; ?name="([a-z_]{1,30})"(?:; ?filename="[^"\r\n]*")?\Z')


@dataclass(frozen=True)
class Form:
    """The fields of a form, each once."""

    fields: dict[str, bytes]

    def text(self, name: str) -> str:
        """Return a field as text, "" if it was not filled in; ConfigError if it is none."""
        try:
            return self.fields.get(name, b"").decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{name}: not text in UTF-8") from None

    def data(self, name: str) -> bytes:
        """Return the content of a file that was chosen."""
        return self.fields.get(name, b"")


def parse_form(kind: str, body: bytes) -> Form:
    """Read a body of either form that a browser sends; ConfigError for anything else.

    kind : the header Content-Type. The names of files that a browser gives are looked at by nobody.
    """
    if kind.partition(";")[0].strip() == "application/x-www-form-urlencoded":
        return _collected(_pairs(body))
    found = _BOUNDARY.match(kind)
    if found is None:
        raise ConfigError("not a form")
    return _collected(_parts(body, b"--" + found[1].encode()))


def _pairs(body: bytes) -> list[tuple[str, bytes]]:
    try:
        found = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"
        )
    except ValueError:
        raise ConfigError("not a form as browsers send it") from None
    return [(name, value.encode()) for name, value in found]


def _parts(body: bytes, mark: bytes) -> list[tuple[str, bytes]]:
    first, *parts = (b"\r\n" + body).split(b"\r\n" + mark)
    if first or not parts or parts.pop() not in (b"--", b"--\r\n") or len(parts) > MOST_FIELDS:
        raise ConfigError("not a form as browsers send it")
    return [_part(part) for part in parts]


def _part(part: bytes) -> tuple[str, bytes]:
    head, separator, content = part.partition(b"\r\n\r\n")
    lines = [line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n")[1:]]
    said = [value.strip() for name, _, value in lines if name.lower() == "content-disposition"]
    found = _PART.match(said[0]) if len(said) == 1 else None
    if not separator or not part.startswith(b"\r\n") or found is None:
        raise ConfigError("not a form as browsers send it")
    return found[1], content


def _collected(pairs: list[tuple[str, bytes]]) -> Form:
    fields = dict(pairs)
    if len(fields) != len(pairs) or not all(map(_NAME.match, fields)):
        raise ConfigError("a field that no form of ours has, or has twice")
    return Form(fields)
