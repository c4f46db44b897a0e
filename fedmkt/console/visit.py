"""What a page is given and what it gives back: one visit by one person, and one answer."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from fedmkt.console.forms import Form
from fedmkt.console.sessions import Session
from fedmkt.console.shelf import Shelf, read_shelf
from fedmkt.console.words import LANGUAGES, Words
from fedmkt.contract.reading.document import Language
from fedmkt.deploy.folders import PartyFolder

if TYPE_CHECKING:
    from jinja2 import Environment

Commands = Mapping[str, frozenset[str]]
"""The roles that may run each command: the table of the command line."""
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """What is sent back. headers : besides those that every answer has."""

    body: bytes
    status: int = 200
    kind: str = HTML
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Visit:
    """One request after the door: who asks, in which language, for what. path : as it was asked for."""

    folder: PartyFolder
    name: str
    organisation: str
    commands: Commands
    environment: "Environment"
    session: Session | None
    language: Language
    token: str
    path: str
    ids: Mapping[str, str]
    form: Form
    now: datetime

    @cached_property
    def shelf(self) -> Shelf:
        """What lies in the folder."""
        return read_shelf(self.folder)

    def may(self, command: str) -> bool:
        """Tell whether who is signed in may run a command."""
        roles = () if self.session is None else self.session.actor.roles
        return bool(self.commands[command] & set(roles))

    def show(self, template: str, status: int = 200, **values: object) -> Answer:
        """Fill in a template; everything that people or files say is escaped by it."""
        text = self.environment.get_template(template).render(
            say=Words(self.language),
            languages=LANGUAGES,
            visit=self,
            actor=self.session and self.session.actor,
            **values,
        )
        return Answer(text.encode(), status)


@dataclass(frozen=True)
class Page:
    """One page or form: who may use it is who may run its command. is_download : written down every time."""

    method: Literal["GET", "POST"]
    pattern: str
    command: str
    serve: Callable[[Visit], Answer]
    is_download: bool = False

    @cached_property
    def matcher(self) -> re.Pattern[str]:
        """The whole path as a pattern with the names of its parts."""
        return re.compile(self.pattern.format(digest="[0-9a-f]{64}", file=r"[A-Za-z0-9._/-]{1,200}") + r"\Z")


def redirect(path: str) -> Answer:
    """Send the browser to another page of ours."""
    return Answer(b"", 303, headers={"location": path})
