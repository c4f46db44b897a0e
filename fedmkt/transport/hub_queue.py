"""What waits for one stream of the hub: bounded in bytes, and fair between senders."""

import threading
from collections import deque

from fedmkt.transport.hub_frames import Kind


class FairQueue:
    """Frames that wait for one stream: the hub's own first, then those of each sender in turn."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._change = threading.Condition()
        self._own: deque[bytes] = deque()
        self._lanes: dict[int, deque[bytes]] = {}
        self._turns: deque[int] = deque()  # the senders whose lane is not empty
        self._size = 0
        self._ending: Exception | None = None
        self._is_cut = False

    def put_own(self, frame: bytes) -> None:
        """Add a frame of the hub; a heartbeat only if nothing else waits."""
        with self._change:
            if frame[0] != Kind.BEAT or not (self._own or self._size):
                self._own.append(frame)
                self._change.notify()

    def put_notice(self, source: int, frame: bytes) -> None:
        """Add a frame of the hub about a member, behind what that member sent before; there is always room."""
        with self._change:
            self._append(source, frame)

    def put(self, source: int, frame: bytes) -> bool:
        """Add a frame of a member; False if there is no room for it."""
        with self._change:
            if self._size + len(frame) > self._limit or self._ending is not None:
                return False
            self._append(source, frame)
            return True

    def _append(self, source: int, frame: bytes) -> None:
        lane = self._lanes.setdefault(source, deque())
        if not lane:
            self._turns.append(source)
        lane.append(frame)
        self._size += len(frame)
        self._change.notify()

    def end(self, why: Exception, at_once: bool) -> None:
        """End the stream: at once, or after what waits."""
        with self._change:
            self._ending = self._ending or why
            self._is_cut = self._is_cut or at_once
            self._change.notify_all()

    def get(self) -> bytes:
        """Return the next frame; what `end` was told when the stream is to end."""
        with self._change:
            while True:
                if self._is_cut and self._ending is not None:
                    raise self._ending
                if self._own:
                    return self._own.popleft()
                if self._turns:
                    return self._next_in_turn()
                if self._ending is not None:
                    raise self._ending
                self._change.wait()

    def _next_in_turn(self) -> bytes:
        source = self._turns.popleft()
        lane = self._lanes[source]
        frame = lane.popleft()
        if lane:
            self._turns.append(source)
        self._size -= len(frame)
        return frame
