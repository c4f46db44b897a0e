"""What a generated document is: sections of facts, each with where it stands; as Markdown. Two languages.

A fact that nobody stated is said to be missing, never guessed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedmkt.contract.reading.document import PHRASES
from fedmkt.contract.reading.document import Language as Language


@dataclass(frozen=True)
class Words:
    """Chooses between two languages."""

    language: Language

    def __call__(self, english: str, chinese: str) -> str:
        """Return the text in the language."""
        return english if self.language == "en" else chinese

    def phrase(self, key: str) -> str:
        """Return the words that contracts are read in, such as those of "basis.PIPL-13-1"."""
        return PHRASES[self.language][key]

    def join(self, texts: Iterable[str]) -> str:
        """List texts in one line."""
        return self(", ", "、").join(texts)

    def missing(self, whom: str, why: str = "") -> str:
        """Say that a fact is missing, and whom to ask. why : by default, that the contract does not state it."""
        said = why or self("not stated in the contract", "合同中未载明")
        return self(f"missing: {said}; ask {whom}", f"缺失：{said}，请向{whom}索取")

    @property
    def draft(self) -> str:
        """What every draft begins with."""
        return self(
            "Draft for counsel, filled by a program from the contract, the logs and the results of one run. It "
            "states facts and no legal conclusion; whoever is responsible completes, checks and signs it.",
            "本文件是供法务审阅的草稿，由程序根据合同、日志和一次运行的结果自动填写，只陈述事实，不构成法律结论，"
            "须由责任人补充、核对并签署。",
        )


@dataclass(frozen=True)
class Row:
    """One fact: what it is, its values (none: missing, and `missing` says why), and where it stands."""

    label: str
    values: tuple[str, ...]
    source: str
    missing: str = ""


@dataclass(frozen=True)
class Section:
    """Facts under one heading."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Document:
    """One document; `name` is its file's without suffix, `note` what stands before all."""

    name: str
    title: str
    note: str
    sections: tuple[Section, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """What is missing, by label."""
        return tuple(row.label for section in self.sections for row in section.rows if not row.values)

    def markdown(self, words: Words) -> str:
        """Write the document as Markdown, a table for each section."""
        lines = [f"# {_cell(self.title)}", "", f"> {_cell(self.note)}" if self.note else ""]
        if self.missing:
            names = words("; ", "；").join(map(_cell, self.missing))
            lines += ["", words(f"**Missing here:** {names}", f"**尚缺：** {names}")]
        head = (words("Fact", "事项"), words("Content", "内容"), words("Where it stands", "来源"))
        for section in self.sections:
            lines += ["", f"## {_cell(section.heading)}", "", _line(head), "|---|---|---|"]
            for row in section.rows:
                text = "<br>".join(map(_cell, row.values)) or f"**{_cell(row.missing)}**"
                lines.append(f"| {_cell(row.label)} | {text} | {_cell(row.source)} |")
        return "\n".join(lines) + "\n"


def fact(label: str, values: Sequence[str] | str | None, source: str, missing: str) -> Row:
    """Make a row; no value, or an empty one, is a missing fact."""
    listed = (values,) if isinstance(values, str) else tuple(values or ())
    return Row(label, tuple(value for value in listed if value), source, missing)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_MARKS = str.maketrans(
    {mark: f"\\{mark}" for mark in "\\`*_[]|"}
    | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " ", "\r": " "}
)


def _cell(text: str) -> str:
    """Write other people's text so that no Markdown and no HTML in it takes effect."""
    return text.translate(_MARKS)
