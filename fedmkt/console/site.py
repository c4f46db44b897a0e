"""The console as one application: its pages with their commands, who is signed in, and what is written down.

Each page names the command of the command line that shows or does the same, and whoever may not run that command is
refused the page. What a person opens is written to the party's acts the first time in a session; what they download,
approve or deny every time, and every sign-in, also one that fails.
"""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fedmkt.audit.acts import Actor
from fedmkt.audit.records import Json
from fedmkt.console import decide, pages, run_pages
from fedmkt.console.forms import Form, parse_form
from fedmkt.console.sessions import Session, SessionLimits, Sessions
from fedmkt.console.shelf import NotHere
from fedmkt.console.visit import Answer, Commands, Page, Visit, redirect
from fedmkt.console.words import LANGUAGES
from fedmkt.contract.reading.document import Language
from fedmkt.deploy.accounts import Account, Accounts
from fedmkt.deploy.folders import PartyFolder, load_party_config
from fedmkt.errors import ConfigError, FedmktError, PolicyRefused
from fedmkt.party.acts_log import ActsLog

if TYPE_CHECKING:
    from jinja2 import Environment

PAGES: Final = (
    Page("GET", "/", "contract show", pages.overview),
    Page("GET", "/contracts/(?P<contract>{digest})", "contract review", pages.contract_review),
    Page("GET", "/contracts/(?P<contract>{digest})/text", "contract render", pages.contract_text),
    Page("GET", "/contracts/(?P<contract>{digest})/controls", "controls", pages.contract_controls),
    Page("POST", "/contracts/(?P<contract>{digest})/approve", "contract approve", decide.approve),
    Page("POST", "/contracts/(?P<contract>{digest})/deny", "contract deny", decide.deny),
    Page("GET", "/runs/(?P<run>{digest})", "disclosures", run_pages.run),
    Page("GET", "/runs/(?P<run>{digest})/messages", "audit ledger", run_pages.messages),
    Page("GET", "/runs/(?P<run>{digest})/messages.csv", "audit ledger", run_pages.messages_table, True),
    Page("GET", "/runs/(?P<run>{digest})/verify", "audit verify", run_pages.verification),
    Page("GET", "/runs/(?P<run>{digest})/report", "report", run_pages.report, True),
    Page("GET", "/runs/(?P<run>{digest})/evidence", "evidence verify", run_pages.evidence),
    Page("GET", "/runs/(?P<run>{digest})/evidence/page", "evidence verify", run_pages.evidence_page, True),
    Page(
        "GET",
        "/runs/(?P<run>{digest})/evidence/files/(?P<file>{file})",
        "evidence verify",
        run_pages.evidence_file,
        True,
    ),
    Page("GET", "/controls", "controls", pages.controls),
    Page("GET", "/rights", "withdraw --list", pages.rights),
    Page("GET", "/acts", "audit acts", pages.acts),
)
"""Every page behind the sign-in, and every form, with the command that it stands for."""
SIGN_IN, SIGN_OUT, STYLE = "/sign-in", "/sign-out", "/style.css"
LONGEST_PASSWORD: Final = 4096
_SIGN_INS, _SECONDS_EACH = 10, 3.0
_ID = re.compile(r"[0-9a-f]{64}\Z")
_DIGEST = re.compile(r"([0-9a-f]{16})[0-9a-f]{48}")
_LOGGER = logging.getLogger("fedmkt.console")


@dataclass(frozen=True)
class Asked:
    """What a request says, read once."""

    method: str
    path: str
    query: Mapping[str, str]
    cookies: Mapping[str, str]
    kind: str
    body: bytes


class Site:
    """The application behind the door. user : the machine's, under whom this runs; commands : who may what."""

    def __init__(
        self,
        folder: PartyFolder,
        commands: Commands,
        user: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        limits: SessionLimits | None = None,
        port: Callable[[], int] = lambda: 0,
    ) -> None:
        self._folder = folder
        self._commands = commands
        self._user = Actor(user, "os-user", "none")
        self._clock = clock
        self._port = port
        self._accounts = Accounts(folder.keys)
        self._acts = ActsLog(folder.state, clock)
        self._sessions = Sessions(clock, limits)
        self._guess = threading.Lock()  # a guess costs 64 MiB: one at a time
        self._rate = _Rate()
        config = load_party_config(folder)
        self._name, self._organisation = config.name, config.organisation
        if not self._accounts.exist:
            raise ConfigError(
                f"{folder.root}: no accounts, so nobody could sign in",
                "fedmkt accounts add NAME --role operator",
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; files are read beside the loop, so that a long log keeps nobody else waiting."""
        request = Request(scope, receive)
        asked = Asked(
            "GET" if request.method == "HEAD" else request.method,
            str(scope["path"]),
            dict(request.query_params),
            request.cookies,
            request.headers.get("content-type", ""),
            await request.body(),
        )
        answer = await asyncio.to_thread(self.answer, asked)
        response = Response(answer.body, answer.status, media_type=None)
        response.headers["content-type"] = answer.kind
        for name, value in answer.headers.items():
            response.headers.append(name, value)
        await response(scope, receive, send)

    def answer(self, asked: Asked) -> Answer:
        """Answer one request; whatever goes wrong is one line, and nothing of a file's content."""
        if (asked.method, asked.path) == ("GET", STYLE):
            return Answer(self._style, kind="text/css; charset=utf-8")
        cookie = asked.cookies.get(self._cookie, "")
        visit = self._visit(asked, cookie)
        try:
            self._sweep()
            visit = replace(visit, session=self._session(cookie))
            return self._language(asked) or self._dispatch(asked, visit, cookie)
        except FedmktError as error:
            return _mistake(visit, error)
        except OSError as error:
            gone = ConfigError(f"a file: {error.strerror}", "open the page again")
            return _mistake(visit, gone, 503)
        except Exception as error:
            # An unexpected message may quote a private value, so only its type is shown.
            _LOGGER.error("unexpected %s at %r", type(error).__name__, asked.path)
            return _mistake(
                visit, ConfigError(f"unexpected {type(error).__name__}; this is a fault in fedmkt"), 500
            )

    def _dispatch(self, asked: Asked, visit: Visit, cookie: str) -> Answer:
        if asked.path == SIGN_IN:
            return self._sign_in(asked, visit, cookie)
        session = visit.session
        if session is None:
            return redirect(SIGN_IN)
        if asked.method == "POST":
            visit = self._with_form(asked, visit, cookie)
        if (asked.method, asked.path) == ("POST", SIGN_OUT):
            return self._sign_out(visit, cookie)
        found = _page_of(asked.method, asked.path)
        if found is None:
            raise NotHere("there is no such page")
        return self._serve(found[0], replace(visit, ids=found[1]), session)

    def _serve(self, page: Page, visit: Visit, session: Session) -> Answer:
        """Serve a page to whom its command is allowed to, and write down that it was."""
        body: dict[str, Json] = {"command": page.command, "page": visit.path, "via": "console"}
        if not visit.may(page.command):
            self._acts.say(session.actor, "act.ended", body | {"outcome": "refused"})
            return visit.show(
                "refused.html.j2", 403, command=page.command, roles=sorted(self._commands[page.command])
            )
        is_act = page.method == "POST"
        if is_act:
            self._acts.say(session.actor, "act.begun", body)
        outcome = "interrupted"
        try:
            answer = page.serve(visit)
            outcome = "done"
            return answer
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            if is_act or page.is_download or visit.path not in session.shown:
                self._acts.say(session.actor, "act.ended", body | {"outcome": outcome})
                session.shown.add(visit.path)

    def _sign_in(self, asked: Asked, visit: Visit, cookie: str) -> Answer:
        if asked.method == "GET":
            if visit.session is not None:
                return redirect("/")
            name = cookie if _ID.match(cookie) else self._sessions.new_id()
            shown = replace(visit, token=self._sessions.token(name)).show("sign_in.html.j2", error="")
            return Answer(shown.body, headers={"set-cookie": self._set_cookie(name)})
        form = self._checked_form(asked, cookie)
        name, password = form.text("account"), form.text("password")
        try:
            if not self._rate.allows():
                raise PolicyRefused("too many sign-ins at once", "wait a few seconds")
            mark = self._accounts.mark(name)  # before: what is changed meanwhile ends the session
            account = self._log_in(name, password)
        except PolicyRefused as error:
            said = f"{error}; {error.hint}" if error.hint else str(error)
            return visit.show("sign_in.html.j2", 403, error=said)
        actor = Actor(account.name, "account", "password", account.roles)
        self._end(cookie, "signed in anew")
        begun, ended = self._sessions.begin(actor, mark)
        if ended is not None:
            self._say_ended(ended, "too many sessions")
        self._acts.say(actor, "login.accepted", {"via": "console"})
        return Answer(b"", 303, headers={"location": "/", "set-cookie": self._set_cookie(begun)})

    def _log_in(self, name: str, password: str) -> Account:
        """Return the account; what is refused stands in the acts, without a name that does not exist."""
        try:
            with self._guess:
                return self._accounts.log_in(name, password[:LONGEST_PASSWORD])
        except PolicyRefused as error:
            known = name if self._accounts.knows(name) else "unknown"
            self._acts.say(
                self._user, "login.refused", {"account": known, "command": "console", "why": str(error)}
            )
            raise

    def _sign_out(self, visit: Visit, cookie: str) -> Answer:
        self._end(cookie, "signed out")
        gone = f"{self._cookie}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"
        return Answer(b"", 303, headers={"location": SIGN_IN, "set-cookie": gone})

    def _session(self, cookie: str) -> Session | None:
        """Find the session of a cookie; one whose account was changed or removed is over."""
        session = self._sessions.find(cookie)
        if session is not None and self._accounts.mark(session.actor.id) != session.mark:
            self._end(cookie, "account changed")
            return None
        return session

    def _end(self, cookie: str, why: str) -> None:
        ended = self._sessions.end(cookie)
        if ended is not None:
            self._say_ended(ended, why)

    def _say_ended(self, session: Session, why: str) -> None:
        self._acts.say(session.actor, "login.ended", {"via": "console", "why": why})

    def _sweep(self) -> None:
        for session in self._sessions.sweep():
            self._say_ended(session, "its time was over")

    def _checked_form(self, asked: Asked, cookie: str) -> Form:
        form = parse_form(asked.kind, asked.body)
        if not cookie or not self._sessions.is_token(cookie, form.text("token")):
            raise PolicyRefused("this form is not of this session", "open the page again")
        return form

    def _with_form(self, asked: Asked, visit: Visit, cookie: str) -> Visit:
        return replace(visit, form=self._checked_form(asked, cookie))

    def _visit(self, asked: Asked, cookie: str) -> Visit:
        chosen = asked.cookies.get(f"{self._cookie}-language", "")
        language: Language = "zh" if chosen == "zh" else "en"
        return Visit(
            self._folder, self._name, self._organisation, self._commands, self._environment, None,
            language, self._sessions.token(cookie) if cookie else "", asked.path, {}, Form({}), self._clock(),
        )  # fmt: skip

    def _language(self, asked: Asked) -> Answer | None:
        """Change the language for this browser: the only thing that an address asks for with a question mark."""
        wanted = asked.query.get("language")
        if asked.method != "GET" or wanted not in LANGUAGES:
            return None
        cookie = f"{self._cookie}-language={wanted}; Path=/; HttpOnly; SameSite=Strict"
        # Only to a page of ours: two slashes would begin another host.
        path = asked.path if asked.path == SIGN_IN or _page_of("GET", asked.path) else "/"
        return Answer(b"", 303, headers={"location": path, "set-cookie": cookie})

    @property
    def _cookie(self) -> str:
        # Cookies are shared by all ports of an address: each console has its own.
        return f"fedmkt-{self._port()}"

    def _set_cookie(self, name: str) -> str:
        return f"{self._cookie}={name}; Path=/; HttpOnly; SameSite=Strict"

    @cached_property
    def _environment(self) -> "Environment":
        return environment()

    @cached_property
    def _style(self) -> bytes:
        return (files("fedmkt.console") / "style.css").read_bytes()


@cache
def environment() -> "Environment":
    """Read the templates: what is put into them is escaped, and a name that is missing is a mistake."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("fedmkt", "console"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters["short"] = lambda value: _DIGEST.sub(r"\1…", str(value))
    made.filters.update(moment=lambda value: f"{value:%Y-%m-%d %H:%M}", day=lambda value: f"{value:%Y-%m-%d}")
    return made


def _page_of(method: str, path: str) -> tuple[Page, dict[str, str]] | None:
    """Find the page of a path, with the parts of the path that it names."""
    for page in PAGES:
        found = page.matcher.match(path)
        if found is not None and page.method == method:
            return page, found.groupdict()
    return None


class _Rate:
    """So many sign-ins at once, and one more every few seconds."""

    def __init__(self) -> None:
        self._left, self._at = float(_SIGN_INS), time.monotonic()
        self._lock = threading.Lock()

    def allows(self) -> bool:
        with self._lock:
            now = time.monotonic()
            self._left = min(float(_SIGN_INS), self._left + (now - self._at) / _SECONDS_EACH)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


def _mistake(visit: Visit, error: FedmktError, status: int = 0) -> Answer:
    known = status or (
        403 if isinstance(error, PolicyRefused) else 404 if isinstance(error, NotHere) else 400
    )
    return visit.show("mistake.html.j2", known, error=" ".join(str(error).split()), hint=error.hint)
