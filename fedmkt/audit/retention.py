"""Which first records of a log a contract keeps no longer; pure.

A run goes as a whole or not at all, so that what others still have of it can be told from what never was. Every
record waits a day longer than agreed, because the clocks of others may go otherwise.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from fedmkt.audit.records import Record

CLOCKS = timedelta(days=1)


def expired_below(records: Sequence[Record], signed: int, days: int, now: datetime) -> int:
    """Return the number below which every record may go: older than `days`, its run too, and below `signed`.

    records : those that are still there, in order. signed : how many the last cosigned head covers. The last record
    that tells of a removal stays, and so does at least one.
    """
    last = {r.run: r for r in records if r.run}
    removals = [r.seq for r in records if r.type == "retention.expired"]
    stop = min([signed, records[-1].seq if records else 0, *removals[-1:]])
    below = reaches = records[0].seq if records else 0
    for record in records:
        if record.seq >= stop or datetime.fromisoformat(record.time) + timedelta(days=days) + CLOCKS > now:
            break
        reaches = max(reaches, last[record.run].seq + 1 if record.run else 0)
        if reaches <= record.seq + 1 <= stop:
            below = record.seq + 1
    return below
