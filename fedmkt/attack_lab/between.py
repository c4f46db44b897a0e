"""A script whose steps are others than it names: how the lab watches a run, and how it lets somebody cheat in one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from fedmkt.protocol.core import Call, Caller, Name, Reply, Sealed, Step

StepOf = Callable[[Step[Any, Any, Any]], Step[Any, Any, Any]]


class Between:
    """The `Caller` that such a script sees: every step is changed before it is called."""

    def __init__(self, call: Caller, change: StepOf) -> None:
        self._call = call
        self._change = change

    @property
    def epoch(self) -> int:
        """As of the caller behind it."""
        return self._call.epoch

    def __call__(self, party: Name, step: Any, *inbox: Sealed[Any]) -> Reply[Any, Any]:
        """Call one step, changed."""
        return self._call(party, self._change(step), *inbox)

    def all(self, calls: Sequence[Call[Any, Any]]) -> list[Reply[Any, Any]]:
        """Call steps of one round, changed."""
        return self._call.all([replace(c, step=self._change(c.step)) for c in calls])

    def both(self, calls: Sequence[Any], others: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Call two kinds of steps of one round, changed."""
        replies = self.all([*calls, *others])
        return replies[: len(calls)], replies[len(calls) :]
