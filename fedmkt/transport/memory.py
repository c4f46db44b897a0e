"""All participants in one process, each on a thread of its own: for simulations and tests.

Messages are sealed, opened, logged and checked as anywhere else; only the wire is missing.
"""

from concurrent.futures import Future, ThreadPoolExecutor

from fedmkt.party.handle import Party
from fedmkt.transport.driver import Ask, Told, serve


class MemoryEndpoint:
    """A party on its own thread: a script's copy must always be driven by the same one."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"fedmkt-{party.me}")

    def send(self, message: Ask) -> "Future[Told]":
        """Run the message at the party; the reply comes when it is done."""
        return self._thread.submit(serve, self._party, message)

    def close(self) -> None:
        """End the thread after what it is doing, and let go of the party's files."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._party.release()
