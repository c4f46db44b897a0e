"""What the console says, in English or Chinese: every sentence of a template stands in both tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fedmkt.console.words_en import ENGLISH
from fedmkt.console.words_zh import CHINESE
from fedmkt.contract.reading.document import Language

WORDS: Final[Mapping[Language, Mapping[str, str]]] = {"en": ENGLISH, "zh": CHINESE}
LANGUAGES: Final[Mapping[Language, str]] = {"en": "English", "zh": "中文"}


@dataclass(frozen=True)
class Words:
    """One language."""

    language: Language

    def __call__(self, key: str, **values: object) -> str:
        """Say a sentence with its values filled in."""
        return WORDS[self.language][key].format(**values)
