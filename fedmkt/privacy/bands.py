"""The match rate as people may see it: in whole percents, its ends hidden.

A rate near 100 % says of nearly every person on the list that the other side knows it, one of exactly 0 % of every
one that it does not: both are as good as a list of names. In between one percent stands for as many people as
the list has hundreds, so whoever looks for one person has to know all of them but one.
"""

from dataclasses import dataclass
from typing import Final

TOP: Final = 95
"""From this many percent on, a rate is `95 % or more`."""


@dataclass(frozen=True)
class RateBand:
    """The share of a list that the other side has too, between two whole percents.

    low, high : percent; a band that begins at 0 or ends at 100 is open there.
    """

    low: int
    high: int

    def __str__(self) -> str:
        """Say it in words."""
        if self.high == 100:
            return f"{self.low} % or more"
        if self.low == 0:
            return f"{self.high} % or less"
        return f"{self.low} to {self.high} %"


def rate_band(common_low: int, common_high: int, list_rows: int) -> RateBand:
    """Return the match rate of a list as a band; nothing but the band of the count goes into it.

    common_low, common_high : the band of the common ids, low < count <= high, or 0 and 0 for none. list_rows : ids
    on the list. ValueError unless 0 <= low <= high, and low is at most the list's length.
    """
    if not 0 <= common_low <= common_high or common_low > list_rows or list_rows < 1:
        raise ValueError(
            "a band of common ids, 0 <= low <= high, of a list of at least one id and at least low"
        )
    low, high = 100 * common_low // list_rows, -(-100 * common_high // list_rows)
    # The band of no common id has no width: it is shown as the widest one that begins at 0, and so are all in it.
    lowest = -(-100 * max(10, -(-list_rows // 100)) // list_rows)
    if high <= lowest:
        return RateBand(0, min(lowest, 100))
    return RateBand(min(low, TOP), 100 if high > TOP else high)
