"""What a page or a screen shows: sections of facts, tables, items and notes; and who says it, in which language."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from fedmkt.contract.reading.disclosures_zh import DISCLOSURES_ZH
from fedmkt.contract.reading.phrases_en import ENGLISH
from fedmkt.contract.reading.phrases_zh import CHINESE
from fedmkt.privacy.disclosure import plain_text_of

Language = Literal["en", "zh"]
PHRASES: Mapping[Language, Mapping[str, str]] = {"en": ENGLISH, "zh": CHINESE}


@dataclass(frozen=True)
class Facts:
    """Names and values, one below the other."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Rows below a head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Items:
    """Paragraphs, each with a title of its own."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Note:
    """One paragraph; a serious one must not be overlooked."""

    text: str
    serious: bool = False


Block = Facts | Table | Items | Note


@dataclass(frozen=True)
class Section:
    """A title and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A whole page in one language; colon : what stands between a name and its value there."""

    language: Language
    title: str
    subtitle: str
    sections: tuple[Section, ...]
    colon: str

    def to_json(self) -> dict[str, object]:
        """Give the same as plain data."""
        return {"language": self.language, "title": self.title, "subtitle": self.subtitle} | {
            "sections": [
                {"title": s.title, "blocks": [{type(b).__name__.lower(): asdict(b)} for b in s.blocks]}
                for s in self.sections
            ]
        }


@dataclass(frozen=True)
class Voice:
    """Who says things in one language: all fixed text comes from its table of phrases."""

    language: Language

    def __call__(self, key: str, **values: object) -> str:
        """Say a phrase with its values filled in."""
        return PHRASES[self.language][key].format(**values)

    def join(self, texts: "tuple[str, ...] | list[str]") -> str:
        """List things in one line; nothing is said as such."""
        return self("comma").join(texts) or self("nothing")

    def disclosure(self, kind: str) -> tuple[str, str]:
        """Give title and whole text of a disclosure; the title begins with its name."""
        if self.language == "en":
            return kind, plain_text_of(kind)
        found = DISCLOSURES_ZH[kind]
        return f"{kind}（{found.title}）", found.text
