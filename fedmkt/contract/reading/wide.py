"""Text in columns of a terminal, where a Chinese character takes two: width, padding, lines of bounded length."""

import re
import unicodedata
from collections.abc import Sequence

_CLOSING = "，。、；：！？）》」』”’】…"
"""No line begins with one of these."""
_OPENING = "（《「『“‘【"
"""No line ends with one of these."""
_TOKEN = re.compile(r"\s+|[^\s]")


def width_of(text: str) -> int:
    """Count the columns that a text takes on a screen."""
    return sum(_width(sign) for sign in text)


def padded(text: str, width: int) -> str:
    """Fill a text with spaces up to a number of columns."""
    return text + " " * max(0, width - width_of(text))


def wrap(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Break a text into lines of at most `width` columns; first, rest : what the lines begin with.

    Between two wide characters a line may break anywhere, else at spaces; a word longer than a line is cut.
    """
    lines, line, is_empty = [], first, True
    for space, word in _words(text):
        gap = "" if is_empty else space
        if not is_empty and width_of(line) + width_of(gap + word) > width:
            lines.append(line)
            line, gap = rest, ""
        for piece in _pieces(word, max(1, width - max(width_of(first), width_of(rest)))):
            if width_of(line) + width_of(gap + piece) > width and line not in (first, rest):
                lines.append(line)
                line, gap = rest, ""
            line, gap, is_empty = line + gap + piece, "", False
    return [*lines, line]


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lay out a table: columns as wide as their widest cells; the widest give way, and wrap theirs."""
    table = [head, *rows]
    widths = [max(width_of(row[i]) for row in table) for i in range(len(head))]
    gaps = 2 * (len(widths) - 1)
    while sum(widths) + gaps > width and max(widths) > 6:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for number, row in enumerate(table):
        cells = [wrap(cell, w) for cell, w in zip(row, widths, strict=True)]
        for i in range(max(map(len, cells))):
            parts = [padded(c[i] if i < len(c) else "", w) for c, w in zip(cells, widths, strict=True)]
            lines.append("  ".join(parts).rstrip())
        if number == 0:
            lines.append("  ".join("-" * w for w in widths))
    return lines


def _width(sign: str) -> int:
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def _words(text: str) -> list[tuple[str, str]]:
    """Split into words with the space before each; a wide character is a word with what must not begin a line."""
    found: list[tuple[str, str]] = []
    space = ""
    for token in _TOKEN.findall(text):
        if token.isspace():
            space = " "
            continue
        is_wide = _width(token) == 2
        follows = found and not space
        joins = token in _CLOSING or (not is_wide and _width(found[-1][1][-1]) == 1) if follows else False
        if joins or (follows and found[-1][1][-1] in _OPENING):
            found[-1] = (found[-1][0], found[-1][1] + token)
        else:
            found.append((space, token))
        space = ""
    return found


def _pieces(word: str, width: int) -> list[str]:
    pieces = [""]
    for sign in word:
        if width_of(pieces[-1] + sign) > width:
            pieces.append("")
        pieces[-1] += sign
    return pieces
