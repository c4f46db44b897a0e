"""What a fuzz target is: a decoder, inputs that it accepts, and the exceptions that may come out of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedmkt.errors import FedmktError


@dataclass(frozen=True)
class Target:
    """One decoder of bytes that somebody else wrote.

    decode : gets the bytes. seeds : makes inputs that it accepts, by the product's own writers. allowed : what it may
    raise; anything else is a finding, and so is a process above the limit of memory. tried : how many inputs the short
    form tries.
    """

    name: str
    decode: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    allowed: tuple[type[Exception], ...] = (FedmktError,)
    tried: int = 200

    def __call__(self, data: bytes) -> bool:
        """Decode; tells whether the bytes were accepted. What is not allowed comes out as it is."""
        try:
            self.decode(data)
        except self.allowed:
            return False
        return True
