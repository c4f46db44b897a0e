"""A clock that notices when it was set: what it says is checked against how much time passed.

Times in a log are what a machine believed. Nothing in a run depends on them but the day of an expiry, so a step
changes no result; whoever reads the log learns that its times before and after do not belong to one clock.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

STEP = timedelta(seconds=5)
"""What a correction of the network's time (NTP) stays below, which shifts slowly what is less than a second."""


def uptime() -> float:
    """Return seconds since the machine was started, asleep or not: nobody can set these."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class WatchedClock:
    """A clock, and how far it was set since the last look.

    steady : seconds that only time moves; without it, and at the first look after `seen`, only a step back is noticed.
    """

    def __init__(self, clock: Callable[[], datetime], steady: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._steady = steady
        self._last: datetime | None = None
        self._at: float | None = None

    def seen(self, moment: str) -> None:
        """Take the time of a record that was written before this clock was looked at; what is no time is none."""
        try:
            last = datetime.fromisoformat(moment)
        except ValueError:
            return
        if last.tzinfo is not None:
            self._last, self._at = last, None

    def look(self) -> tuple[datetime, int]:
        """Return the time, and by how many seconds the clock was set since the last look: below 0 is back."""
        now, at = self._clock(), self._steady() if self._steady is not None else None
        step = timedelta()
        if self._last is not None:
            passed = now - self._last
            known = at is not None and self._at is not None
            step = passed - timedelta(seconds=at - self._at) if known else min(passed, step)  # type: ignore[operator]
        self._last, self._at = now, at
        return now, round(step.total_seconds()) if abs(step) >= STEP else 0
