"""A contract as one HTML file: no script, nothing from outside, everything that people wrote escaped."""

from pathlib import Path

from fedmkt.contract.reading.document import Block, Document
from fedmkt.errors import ConfigError
from fedmkt.party.journal import write_atomically


def render(document: Document) -> str:
    """Return the page as text; equal documents give equal bytes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fedmkt", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["form"] = form_of
    return environment.get_template("contract.html.j2").render(document=document)


def write_page(text: str, out: Path) -> None:
    """Write the page, in place of an earlier one; ConfigError if it cannot be written."""
    try:
        write_atomically(out, text.encode(), mode=0o644)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None


def form_of(block: Block) -> str:
    """Name the kind of a block as a template asks for it."""
    return type(block).__name__.lower()
