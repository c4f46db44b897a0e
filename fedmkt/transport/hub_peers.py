"""The other members of a session as one of them sees them: who is here, whose link broke, whose turn it is.

No thread and no lock: a session calls all of it under its own lock, and wakes whoever waits for what changed.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedmkt.errors import PeerError, TransportError
from fedmkt.transport.hub_frames import Welcome
from fedmkt.transport.hub_link import Link, LinkBroken, LinkLimits, PeerRestarted


@dataclass
class Peer:
    """A member as we see it."""

    name: str
    link: Link
    is_here: bool
    was_here: bool
    away_since: float = 0.0
    error: str = ""
    is_rude: bool = False

    @property
    def is_served(self) -> bool:
        """Whether frames go to this member: it is connected, and its link holds."""
        return self.is_here and not self.error

    def fail(self, text: str, is_rude: bool = False) -> None:
        """Give the link up; the first reason stays."""
        self.error = self.error or text
        self.is_rude = is_rude


class Peers:
    """All members but ourselves, by their numbers; nobody before the hub said who they are."""

    def __init__(self) -> None:
        self._by_number: dict[int, Peer] = {}
        self._turn = 0

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._by_number.values())

    def meet(self, welcome: Welcome, incarnation: bytes, limits: LinkLimits) -> None:
        """Make a link to each member that the hub names."""
        for number, name in enumerate(welcome.members):
            if number != welcome.me:
                link = Link(welcome.me, number, incarnation, limits)
                self._by_number[number] = Peer(name, link, False, False)

    def find(self, name: str) -> Peer | None:
        """Return the member of this name, if there is one."""
        return next((p for p in self if p.name == name), None)

    def in_turn(self) -> list[Peer]:
        """All peers, beginning with another one each time, so that no one is served last always."""
        peers = list(self)
        self._turn += 1
        at = self._turn % len(peers) if peers else 0
        return peers[at:] + peers[:at]

    def check(self, name: str | None) -> None:
        """Raise if the link to this member has failed; for None, if that to anybody has."""
        for peer in self:
            if peer.error and name in (None, peer.name):
                raise (PeerError if peer.is_rude else TransportError)(f"{peer.name}: {peer.error}")

    def look_for_gone(self, since: float, longest: float) -> bool:
        """Give up members that stayed away too long; returns whether there were any. since : when we came back."""
        now = time.monotonic()
        # Measured from when both could have met: our own absence is not the peer's.
        gone = [
            p
            for p in self
            if p.was_here and not p.is_here and not p.error and now - max(p.away_since, since) > longest
        ]
        for peer in gone:
            peer.fail(f"was not connected to the hub for {longest:.0f} s")
        return bool(gone)

    def note_here(self, here: Sequence[bool]) -> None:
        """Take in who is connected, by number, as the hub says in its welcome."""
        for number in self._by_number:
            self.note_presence(number, here[number], False)

    def note_presence(self, number: int, is_here: bool, has_left: bool) -> None:
        """Take in that a member came or went, or left for good."""
        peer = self._by_number.get(number)
        if peer is None:
            return
        if peer.is_here and not is_here:
            peer.away_since = time.monotonic()
        peer.is_here = is_here
        peer.was_here = peer.was_here or is_here
        if is_here:
            peer.link.ask()  # what was under way when it, or we, connected anew may be lost
        if has_left:
            peer.fail("left the session")

    def accept(self, source: int, frame: bytes) -> bool:
        """Take in a frame of a member; returns whether that changed anything that a caller may wait for."""
        peer = self._by_number.get(source)
        if peer is None or peer.error:
            return False
        link = peer.link
        had = link.has_message, link.has_room, link.unacknowledged
        try:
            link.accept(frame)
        except PeerRestarted:
            peer.fail("was restarted and has lost its state")
        except LinkBroken as error:
            peer.fail(str(error), is_rude=True)
        return bool(peer.error) or had != (link.has_message, link.has_room, link.unacknowledged)

    def next_frame(self) -> bytes | None:
        """Return the next frame that a link has to send, one link after the other."""
        for peer in self.in_turn():
            if peer.is_served:
                frame = peer.link.next_frame()
                if frame is not None:
                    return frame
        return None

    def nudge(self) -> None:
        """Have every link of a connected member look whether it makes progress."""
        for peer in self:
            if peer.is_here:
                peer.link.nudge()

    def acknowledge(self) -> None:
        """Have every link say what it received."""
        for peer in self:
            peer.link.acknowledge()

    @property
    def owing(self) -> list[Peer]:
        """Members whose messages were received and not acknowledged yet."""
        return [p for p in self if p.is_served and p.link.owes_ack]

    @property
    def is_flushed(self) -> bool:
        """Whether all that was sent to members that can be reached was acknowledged."""
        return not any(p.link.unacknowledged for p in self if p.is_served)
