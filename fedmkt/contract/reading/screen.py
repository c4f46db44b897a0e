"""A document as lines for a screen, at most so many columns wide."""

from collections.abc import Iterator

from fedmkt.contract.reading.document import Block, Document, Facts, Note, Section, Table
from fedmkt.contract.reading.wide import columns, padded, width_of, wrap

WIDTH = 80
_NAME_WIDTH = 30


def lines(document: Document, width: int = WIDTH) -> list[str]:
    """Write a document for a screen."""
    found = [*wrap(document.title, width), *wrap(document.subtitle, width)]
    for section in document.sections:
        found += section_lines(section, document.colon, width)
    return found


def section_lines(section: Section, colon: str, width: int) -> list[str]:
    """Write one section, an empty line before it."""
    found = ["", *wrap(section.title, width)]
    for number, block in enumerate(section.blocks):
        if number and isinstance(block, Facts) and isinstance(section.blocks[number - 1], Facts):
            found.append("")
        found += _block(block, colon, width)
    return found


def _block(block: Block, colon: str, width: int) -> Iterator[str]:
    if isinstance(block, Note):
        yield from wrap(block.text, width, "! " if block.serious else "  ", "  ")
    elif isinstance(block, Facts):
        column = min(_NAME_WIDTH, max((width_of(name + colon) for name, _ in block.rows), default=0)) + 1
        for name, value in block.rows:
            first = "  " + padded(name + colon, column)
            if width_of(first) > width - len("one more word"):  # a long name has lines of its own
                yield from wrap(name + colon, width, "  ", "    ")
                yield from wrap(value, width, "    ", "    ")
            else:
                yield from wrap(value, width, first, " " * min(width_of(first), _NAME_WIDTH))
    elif isinstance(block, Table):
        yield from (f"  {line}".rstrip() for line in columns(block.head, block.rows, width - 2))
    else:
        for name, text in block.rows:
            yield from wrap(f"- {name}", width, "  ", "    ")
            yield from wrap(text, width, "    ", "    ")
