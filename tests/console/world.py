"""A party's folder with accounts of each role and a contract that people decide on, and a browser of sorts."""

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from fedmkt.cli.roles import COMMANDS
from fedmkt.console.door import Door, DoorLimits
from fedmkt.console.sessions import SessionLimits
from fedmkt.console.site import Site
from fedmkt.crypto.key_file import to_pem
from fedmkt.deploy.accounts import ROLES, Accounts, Cost
from fedmkt.deploy.contracts import draft, write_draft
from fedmkt.deploy.folders import PartyFolder
from tests.deploy.governed import GOVERNED, PEOPLE
from tests.deploy.signers import KEYS, write_party

CHEAP = Cost(64, 1, 1)
PORT = 8470
HOST = f"127.0.0.1:{PORT}"
WORD = "correct horse battery"
PASSPHRASE = "ann's own words"
NAMES = {"operator": "olga", "analyst": "anna", "approver": "carl", "auditor": "udo"}


class Clock:
    """A clock that stands until it is moved; it begins now, since contracts are drafted now."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) + timedelta(seconds=2)

    def __call__(self) -> datetime:
        return self.now


def found(root: Path) -> Path:
    """Write the bank's folder with an account for each role and a proposed contract; returns the folder."""
    folder = write_party(root / "bank", "bank")
    add_accounts(folder)
    (folder / "contracts").mkdir()
    propose(folder, GOVERNED, folder / "contracts" / "spring.contract.toml")
    return folder


def add_accounts(folder: Path) -> None:
    accounts = Accounts(folder / "keys", cost=CHEAP)
    for role in ROLES:
        accounts.add(NAMES[role], [role], WORD)


def propose(folder: Path, job: str, out: Path) -> None:
    path = folder / "job.toml"
    path.write_text(job)
    write_draft(draft(path, KEYS, datetime.now(UTC)), out)


def key_of(person: str, passphrase: str | None = None) -> bytes:
    (identity,) = (identity for (_, name, _), identity in PEOPLE.items() if name == person)
    return to_pem(identity, passphrase)


@dataclass
class Browser:
    """One person's browser: it keeps cookies and follows nothing by itself."""

    door: Door
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)

    def ask(self, method: str, path: str, **more) -> httpx.Response:
        return asyncio.run(self._ask(method, path, more))

    async def _ask(self, method: str, path: str, more) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.door)
        async with httpx.AsyncClient(
            transport=transport, base_url=f"http://{HOST}", cookies=self.cookies
        ) as client:
            answer = await client.request(method, path, **more)
            self.cookies = client.cookies
            return answer

    def get(self, path: str, **more) -> httpx.Response:
        return self.ask("GET", path, **more)

    def token(self, path: str = "/sign-in") -> str:
        match = re.search(r'name="token" value="([0-9a-f]+)"', self.get(path).text)
        assert match is not None
        return match[1]

    def post(self, path: str, fields: dict[str, str], headers=None, **more) -> httpx.Response:
        return self.ask("POST", path, data=fields, headers=headers or {"origin": f"http://{HOST}"}, **more)

    def sign_in(self, name: str, word: str = WORD) -> httpx.Response:
        return self.post("/sign-in", {"account": name, "password": word, "token": self.token()})


@dataclass
class Console:
    """A console on a folder, by its application: no socket."""

    folder: Path
    clock: Clock
    door: Door

    def browser(self, role: str = "") -> Browser:
        browser = Browser(self.door)
        if role:
            assert browser.sign_in(NAMES[role]).status_code == 303
        return browser


def console_of(folder: Path, limits: SessionLimits | None = None, door: DoorLimits | None = None) -> Console:
    clock = Clock()
    commands = {name: may.roles for name, may in COMMANDS.items()}
    site = Site(PartyFolder(folder), commands, "machine", clock, limits, lambda: PORT)
    return Console(folder, clock, Door(site, lambda: PORT, door))
