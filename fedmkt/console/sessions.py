"""Who is signed in: sessions in memory only, by the hash of a random id that their browser alone has.

A session ends when it was not used for a while, after a working day in any case, and when its account is changed or
removed. Every form carries a token that follows from the id under a key of this process: another site cannot know it.
"""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fedmkt.audit.acts import Actor
from fedmkt.crypto.prg import Random

_ID_BYTES = 32


@dataclass(frozen=True)
class SessionLimits:
    """How long a session lasts without a request, how long in any case, and how many there are at once."""

    idle: timedelta = timedelta(minutes=15)
    longest: timedelta = timedelta(hours=8)
    most: int = 50


@dataclass
class Session:
    """One person at one browser. mark : of the account as it was at sign-in; shown : pages that were written down."""

    actor: Actor
    mark: str
    began: datetime
    used: datetime
    shown: set[str] = field(default_factory=set)


class Sessions:
    """All sessions of this process; several threads may ask."""

    def __init__(
        self,
        clock: Callable[[], datetime],
        limits: SessionLimits | None = None,
        random: Random = secrets.token_bytes,
    ) -> None:
        self._clock = clock
        self._limits = limits or SessionLimits()
        self._random = random
        self._key = random(32)
        self._found: dict[bytes, Session] = {}
        self._lock = threading.Lock()

    def new_id(self) -> str:
        """Draw an id that nobody can guess."""
        return self._random(_ID_BYTES).hex()

    def begin(self, actor: Actor, mark: str) -> tuple[str, Session | None]:
        """Begin a session; returns its id, which is kept as a hash only, and the one that gives way.

        That is the one used least recently, where there are too many.
        """
        name, ended = self.new_id(), None
        with self._lock:
            now = self._clock()
            if len(self._found) >= self._limits.most:
                ended = self._found.pop(min(self._found, key=lambda key: self._found[key].used))
            self._found[_hashed(name)] = Session(actor, mark, now, now)
        return name, ended

    def find(self, name: str) -> Session | None:
        """Return the session of an id and note that it was used; None if there is none, or none any more."""
        with self._lock:
            now = self._clock()  # not before: whoever waited here would be earlier than the last use
            session = self._found.get(_hashed(name))
            if session is None or self._is_over(session, now):
                return None
            session.used = now
            return session

    def end(self, name: str) -> Session | None:
        """End the session of an id; returns it if there was one."""
        with self._lock:
            return self._found.pop(_hashed(name), None)

    def sweep(self) -> list[Session]:
        """End all sessions whose time is over, and return them."""
        with self._lock:
            now = self._clock()
            over = [key for key, session in self._found.items() if self._is_over(session, now)]
            return [self._found.pop(key) for key in over]

    def token(self, name: str) -> str:
        """Return what the forms of an id carry."""
        return hmac.new(self._key, name.encode(), hashlib.sha256).hexdigest()

    def is_token(self, name: str, token: str) -> bool:
        """Tell whether a form came from a page of ours, in constant time."""
        return hmac.compare_digest(self.token(name).encode(), token.encode())

    def _is_over(self, session: Session, now: datetime) -> bool:
        return (
            not timedelta(0) <= now - session.used < self._limits.idle
            or now - session.began >= self._limits.longest
        )


def _hashed(name: str) -> bytes:
    # The id has 256 random bits: looking up its hash tells nothing about it by time.
    return hashlib.sha256(name.encode()).digest()
